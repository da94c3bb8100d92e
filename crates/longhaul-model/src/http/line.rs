//! One request and what becomes of it: sent, refused, or the beginning of an answer.

use std::sync::Arc;
use std::time::Duration;

use longhaul_session::failure::FailureClass;
use tokio::time::timeout;

use super::answer::Answer;
use super::{Exchange, Limits, Peer, Transport, failure, parse_url, secrets, shown};
use crate::codec::{Codec, HttpRequest, ResponseHead};
use crate::limits::{ERROR_BODY_MS, MAX_ERROR_BYTES, MAX_OFFERS_BYTES};
use crate::{Error, Offers};

/// A codec, and the way to its provider.
#[derive(Debug)]
pub(super) struct Line<C> {
    pub(super) codec: C,
    pub(super) transport: Transport,
    pub(super) limits: Limits,
}

impl<C: Codec> Line<C> {
    /// Asks for an answer. One that is not streamed is there as a whole then, unless the provider goes on
    /// making it by itself.
    pub(super) async fn ask(self: &Arc<Self>, request: HttpRequest) -> Result<Answer<C>, Error> {
        let Limits { first_byte_ms, whole_answer_ms, .. } = self.limits;
        let streamed = request.streamed;
        let limit_ms = if streamed { first_byte_ms } else { whole_answer_ms };
        let (exchange, peer) = self.prepare(request)?;
        let mut answer = Answer::new(Arc::clone(self), exchange, peer.clone(), streamed);
        let whole = async {
            self.send(&mut answer.exchange, &peer).await?;
            while !streamed && !answer.is_complete() {
                answer.read().await;
            }
            Ok(())
        };
        match timeout(Duration::from_millis(limit_ms), whole).await {
            Ok(begun) => begun.map(|()| answer),
            Err(_) => Err(answer.exchange.failed(failure::too_late(&peer.url, limit_ms, streamed))),
        }
    }

    /// Picks up an answer from its beginning.
    pub(super) async fn resume(self: &Arc<Self>, response_id: String) -> Result<Answer<C>, Error> {
        let mut whole = false;
        let (exchange, peer) = self.pick_up(&response_id, None, &mut whole).await?;
        Ok(Answer::resumed(Arc::clone(self), exchange, peer, response_id, whole))
    }

    /// Asks for what follows the cursor of an answer. `whole` says to ask for a document with all of it, as
    /// far as it is made, and is set when the provider streams it no more.
    pub(super) async fn pick_up(
        &self,
        response_id: &str,
        after: Option<&str>,
        whole: &mut bool,
    ) -> Result<(Exchange, Peer), Error> {
        let stream = self.codec.resume(response_id, after).filter(|_| !*whole);
        if let Some(request) = stream {
            match self.begin(request).await {
                Err(error) if error.class == FailureClass::InvalidRequest => *whole = true,
                begun => return begun,
            }
        }
        let lost = |message: &str| {
            let message =
                format!("the provider no longer has the answer, which has to be made again: {message}");
            Error::new(FailureClass::ChainBroken, message)
        };
        let Some(request) = self.codec.retrieve(response_id) else {
            return Err(lost("it cannot be picked up here"));
        };
        self.begin(request)
            .await
            .map_err(|error| if is_unknown(&error) { lost(&error.message) } else { error })
    }

    /// Ends an answer that is made in the background. It is no error that it has ended already.
    pub(super) async fn cancel(&self, response_id: &str) -> Result<(), Error> {
        let Some(request) = self.codec.cancel(response_id) else { return Ok(()) };
        match self.begin(request).await {
            Err(error) if is_unknown(&error) => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }

    /// Asks which models there are.
    pub(super) async fn offers(&self) -> Result<Option<Offers>, Error> {
        let Some(request) = self.codec.offers() else { return Ok(None) };
        let (mut exchange, peer) = self.begin(request).await?;
        let mut document = Vec::new();
        let whole = async {
            while let Some(bytes) = exchange.chunk().await? {
                document.extend_from_slice(&bytes);
                if document.len() > MAX_OFFERS_BYTES {
                    return Ok(None);
                }
            }
            Ok(Offers::read(&document))
        };
        match timeout(Duration::from_millis(self.limits.whole_answer_ms), whole).await {
            Ok(read) => read.map_err(|error| peer.masked(error)),
            Err(_) => Err(exchange.failed(failure::stalled(&peer.url, self.limits.whole_answer_ms))),
        }
    }

    /// Sends a request and waits for the answer to begin, but not for long.
    async fn begin(&self, request: HttpRequest) -> Result<(Exchange, Peer), Error> {
        let limit_ms = self.limits.first_byte_ms;
        let (mut exchange, peer) = self.prepare(request)?;
        match timeout(Duration::from_millis(limit_ms), self.send(&mut exchange, &peer)).await {
            Ok(sent) => sent.map(|()| (exchange, peer)),
            Err(_) => Err(exchange.failed(failure::too_late(&peer.url, limit_ms, true))),
        }
    }

    /// Prepares a request. It outlives the time it has, so that what was too late can be noted of it.
    fn prepare(&self, request: HttpRequest) -> Result<(Exchange, Peer), Error> {
        let url = parse_url(&request.url)?;
        let (secrets, is_replay) = (secrets(&request), self.transport.is_replay());
        let peer = Peer { url: shown(&url), secrets, is_replay };
        Ok((self.transport.exchange(request, url, &peer)?, peer))
    }

    async fn send(&self, exchange: &mut Exchange, peer: &Peer) -> Result<(), Error> {
        let head = exchange.begin().await?;
        match head.status {
            200..300 => Ok(()),
            _ => Err(peer.masked(self.refused(&head, exchange).await)),
        }
    }

    /// Reads why the provider refused. What of it comes too late or is too long is left out.
    async fn refused(&self, head: &ResponseHead, exchange: &mut Exchange) -> Error {
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(bytes)) = exchange.chunk().await
                && body.len() < MAX_ERROR_BYTES
            {
                body.extend_from_slice(&bytes);
            }
        };
        let limit = Duration::from_millis(ERROR_BODY_MS);
        // Whether it came in full or not, the status alone says enough.
        let _in_full = timeout(limit, read).await;
        body.truncate(MAX_ERROR_BYTES);
        self.codec.failure(head, &body)
    }
}

/// Tells whether the provider knows nothing of an answer, or nothing that could still be done with it.
fn is_unknown(error: &Error) -> bool {
    matches!(error.class, FailureClass::InvalidRequest | FailureClass::ChainBroken)
}
