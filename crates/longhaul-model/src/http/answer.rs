//! One answer on its way: bytes from the connection, parts to the reader, and how it ends or is picked
//! up again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use longhaul_session::failure::FailureClass;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::{Exchange, Limits, Peer, failure};
use crate::codec::{Codec, Decoder};
use crate::limits::{
    ERROR_BODY_MS, MAX_PICK_UP_WAIT_MS, MAX_STREAM_BYTES, PICK_UP_TRIES, PICK_UP_WAIT_MS, STREAM_TRIES,
};
use crate::{Error, Part, PartStream};

/// What has come of an answer, and where the rest comes from.
pub(super) struct Answer<C> {
    line: Arc<Line<C>>,
    pub(super) exchange: Exchange,
    decoder: Box<dyn Decoder>,
    idle_ms: u64,
    peer: Peer,
    read_bytes: u64,
    ready: VecDeque<Part>,
    failed: Option<Error>,
    complete: bool,
    again: Again,
}

/// How an answer is picked up that the provider goes on making when the connection breaks.
#[derive(Default)]
struct Again {
    response_id: Option<String>,
    /// Something was told of it. Without a cursor, only all of it can be asked for then.
    told: bool,
    /// All of it is asked for, as far as it is made.
    whole: bool,
    /// Without anything new since: how often it was asked for, how often in vain, and how long that took.
    rounds: u32,
    failures: u32,
    waited_ms: u64,
}

impl<C: Codec> Answer<C> {
    pub(super) fn new(line: Arc<Line<C>>, exchange: Exchange, peer: Peer, streamed: bool) -> Self {
        let Limits { idle_ms, whole_answer_ms, .. } = line.limits;
        Answer {
            decoder: line.codec.decoder(),
            line,
            exchange,
            idle_ms: if streamed { idle_ms } else { whole_answer_ms },
            peer,
            read_bytes: 0,
            ready: VecDeque::new(),
            failed: None,
            complete: false,
            again: Again::default(),
        }
    }

    /// Goes on with an answer that was begun before; `whole` says that it comes as one document.
    pub(super) fn resumed(
        line: Arc<Line<C>>,
        exchange: Exchange,
        peer: Peer,
        response_id: String,
        whole: bool,
    ) -> Self {
        let again = Again { response_id: Some(response_id), whole, ..Again::default() };
        Answer { again, ..Answer::new(line, exchange, peer, true) }
    }

    /// Tells whether nothing more is to be read.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Reads once from the connection.
    pub(super) async fn read(&mut self) {
        let idle_ms = if self.decoder.has_failed() { ERROR_BODY_MS } else { self.idle_ms };
        let idle = Duration::from_millis(idle_ms.min(self.idle_ms));
        let before = self.decoder.cursor();
        let outcome = match timeout(idle, self.exchange.chunk()).await {
            Ok(Ok(Some(bytes))) => self.take(&bytes),
            Ok(Ok(None)) => self.end(None).await,
            Ok(Err(error)) => self.end(Some(error)).await,
            Err(_) => {
                let stalled = failure::stalled(&self.peer.url, self.idle_ms);
                let stalled = self.exchange.failed(stalled);
                self.end(Some(stalled)).await
            }
        };
        if self.decoder.cursor() != before {
            self.again.progress();
        }
        if let Err(error) = outcome {
            self.complete = true;
            self.failed = Some(self.peer.masked(error));
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.read_bytes += bytes.len() as u64;
        if self.read_bytes > MAX_STREAM_BYTES {
            let message = format!("the answer was larger than {MAX_STREAM_BYTES} bytes and was given up");
            return Err(Error::new(FailureClass::Server, message));
        }
        self.decode(|decoder, parts| decoder.push(bytes, parts))
    }

    /// Ends the answer. It may be whole although the connection broke; otherwise what broke it
    /// says more than that something is missing, and what the provider goes on making is picked up.
    async fn end(&mut self, broken: Option<Error>) -> Result<(), Error> {
        let has_failed = self.decoder.has_failed();
        let Err(missing) = self.decode(|decoder, parts| decoder.finish(parts)) else {
            self.complete = true;
            return Ok(());
        };
        if has_failed {
            return Err(missing);
        }
        let Error { usage, finish_raw, .. } = missing.clone();
        let told = |error| Error { usage, finish_raw: finish_raw.clone(), ..error };
        let may_go_on = missing.class == FailureClass::Network;
        let error = told(broken.unwrap_or(missing));
        if !may_go_on {
            return Err(error);
        }
        self.pick_up(error).await.map_err(told)
    }

    fn decode(
        &mut self,
        read: impl FnOnce(&mut dyn Decoder, &mut Vec<Part>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut parts = Vec::new();
        let outcome = read(&mut *self.decoder, &mut parts);
        for part in &parts {
            self.again.see(part);
        }
        self.complete |= matches!(parts.last(), Some(Part::Finished { .. }));
        self.ready.extend(parts);
        outcome
    }

    /// Goes on with the answer over another connection, if the provider has such a thing. Bounded in
    /// tries, and in time where the provider answers that it is still at work.
    async fn pick_up(&mut self, mut broken: Error) -> Result<(), Error> {
        let Some(response_id) = self.again.response_id.clone() else { return Err(broken) };
        if self.line.codec.resume(&response_id, None).is_none() {
            return Err(broken);
        }
        self.again.failures += u32::from(!self.again.whole);
        let after = self.decoder.cursor();
        loop {
            let Some(wait_ms) = self.again.next_wait_ms(self.line.limits.whole_answer_ms) else {
                return Err(broken);
            };
            if !self.peer.is_replay {
                pause(wait_ms).await;
            }
            let streamed = after.is_some() || !self.again.told;
            self.again.whole |= !streamed || self.again.failures > STREAM_TRIES;
            match self.line.pick_up(&response_id, after.as_deref(), &mut self.again.whole).await {
                Ok((exchange, peer)) => {
                    (self.exchange, self.peer) = (exchange, peer);
                    self.decoder.reconnect();
                    return Ok(());
                }
                Err(error) if error.class.is_retryable() && error.class != FailureClass::ChainBroken => {
                    self.again.failures += 1;
                    broken = error;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands the parts over as they come, until the answer ends or is cancelled.
    pub(super) fn into_parts(self, cancel: CancellationToken) -> PartStream {
        Box::pin(stream::unfold((self, cancel), |(mut answer, cancel)| async move {
            let next = cancel.run_until_cancelled(answer.next()).await.flatten();
            next.map(|next| (next, (answer, cancel)))
        }))
    }

    async fn next(&mut self) -> Option<Result<Part, Error>> {
        while self.ready.is_empty() && !self.complete {
            self.read().await;
        }
        match self.ready.pop_front() {
            Some(part) => Some(Ok(part)),
            None => self.failed.take().map(Err),
        }
    }
}

impl Again {
    fn see(&mut self, part: &Part) {
        match part {
            Part::Started { response_id } => {
                self.response_id = self.response_id.take().or_else(|| response_id.clone());
            }
            Part::Usage { .. } => {}
            Part::Text { .. }
            | Part::Refusal { .. }
            | Part::Reasoning { .. }
            | Part::ReasoningEnd { .. }
            | Part::ToolCallStarted { .. }
            | Part::ToolCallArguments { .. }
            | Part::ToolCallEnd { .. }
            | Part::Item { .. }
            | Part::Finished { .. } => {
                self.told = true;
                self.progress();
            }
        }
    }

    fn progress(&mut self) {
        (self.rounds, self.failures, self.waited_ms) = (0, 0, 0);
    }

    /// Returns how long to wait before the next try, longer each time; `None` after enough of them.
    fn next_wait_ms(&mut self, limit_ms: u64) -> Option<u64> {
        if self.failures > PICK_UP_TRIES || self.waited_ms > limit_ms {
            return None;
        }
        let wait_ms = match self.rounds {
            0 => 0,
            rounds => (PICK_UP_WAIT_MS << (rounds - 1).min(16)).min(MAX_PICK_UP_WAIT_MS),
        };
        self.rounds += 1;
        self.waited_ms += wait_ms;
        Some(wait_ms)
    }
}

async fn pause(wait_ms: u64) {
    #[expect(clippy::disallowed_methods, reason = "the provider is out in the world, and so is its pace")]
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
}
