//! One answer on its way: bytes from the connection, parts to the reader, and how it ends.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use longhaul_session::failure::FailureClass;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Exchange, Peer, failure};
use crate::codec::Decoder;
use crate::limits::MAX_STREAM_BYTES;
use crate::{Error, Part, PartStream};

/// What has come of an answer.
pub(super) struct Answer {
    /// Where the rest comes from.
    pub(super) exchange: Exchange,
    decoder: Box<dyn Decoder>,
    idle_ms: u64,
    peer: Peer,
    read_bytes: u64,
    ready: VecDeque<Part>,
    failed: Option<Error>,
    complete: bool,
}

impl Answer {
    pub(super) fn new(exchange: Exchange, decoder: Box<dyn Decoder>, idle_ms: u64, peer: Peer) -> Self {
        Answer {
            exchange,
            decoder,
            idle_ms,
            peer,
            read_bytes: 0,
            ready: VecDeque::new(),
            failed: None,
            complete: false,
        }
    }

    /// Tells whether nothing more is to be read.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Reads once from the connection.
    pub(super) async fn read(&mut self) {
        let idle = Duration::from_millis(self.idle_ms);
        let mut parts = Vec::new();
        let outcome = match timeout(idle, self.exchange.chunk()).await {
            Ok(Ok(Some(bytes))) => self.take(&bytes, &mut parts),
            Ok(Ok(None)) => self.end(None, &mut parts),
            Ok(Err(error)) => self.end(Some(error), &mut parts),
            Err(_) => {
                let stalled = failure::stalled(&self.peer.url, self.idle_ms);
                let stalled = self.exchange.failed(stalled);
                self.end(Some(stalled), &mut parts)
            }
        };
        self.complete |= matches!(parts.last(), Some(Part::Finished { .. }));
        self.ready.extend(parts);
        if let Err(error) = outcome {
            self.complete = true;
            self.failed = Some(self.peer.masked(error));
        }
    }

    fn take(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        self.read_bytes += bytes.len() as u64;
        if self.read_bytes > MAX_STREAM_BYTES {
            let message = format!("the answer was larger than {MAX_STREAM_BYTES} bytes and was given up");
            return Err(Error::new(FailureClass::Server, message));
        }
        self.decoder.push(bytes, parts)
    }

    /// Ends the answer. It may be whole although the connection broke; otherwise what broke it
    /// says more than that something is missing.
    fn end(&mut self, broken: Option<Error>, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.complete = true;
        self.decoder.finish(parts).map_err(|missing| match broken {
            Some(broken) => Error { usage: missing.usage, ..broken },
            None => missing,
        })
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
