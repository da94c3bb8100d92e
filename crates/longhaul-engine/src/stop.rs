//! How a worker that is told to stop lets go: nothing begins any more, what is under way may finish within a
//! grace, and then it is cut.

use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::limits::SHUTDOWN_GRACE_MS;

/// How long effects may go on in a worker that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// A model call, in milliseconds.
    pub model_ms: u64,
    /// Tool calls, in milliseconds.
    pub tools_ms: u64,
}

/// For a person who waits for the program to end: a model call can be made again, a tool call cannot.
impl Default for Grace {
    fn default() -> Self {
        Grace { model_ms: 0, tools_ms: SHUTDOWN_GRACE_MS }
    }
}

/// The word to stop, and how.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    pub(crate) told: CancellationToken,
    /// The grace is over, whatever is left of it.
    pub(crate) at_once: CancellationToken,
    pub(crate) grace: Grace,
}

impl Stop {
    pub(crate) fn is_told(&self) -> bool {
        self.told.is_cancelled()
    }

    /// Waits until a model call is to be cut.
    pub(crate) async fn cuts_models(&self, host: &dyn Host) {
        self.told.cancelled().await;
        self.grace(host, self.grace.model_ms).await;
    }

    /// Waits for the end of a grace that has just begun.
    pub(crate) async fn grace(&self, host: &dyn Host, grace_ms: u64) {
        if grace_ms > 0 {
            tokio::select! {
                biased;
                () = self.at_once.cancelled() => {}
                () = host.sleep_ms(grace_ms) => {}
            }
        }
    }
}
