//! Why work fails, in classes: whether to try again, what to tell a person, and how long to wait.

use serde::{Deserialize, Serialize};

use crate::id::Timestamp;

/// The class of a failure. A provider's errors are classified once, where they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The provider has no capacity.
    Overloaded,
    /// Too many requests or tokens for the account's limits.
    RateLimited,
    /// No answer, or no progress, within a time limit.
    Timeout,
    /// The connection failed, or ended before the answer was complete.
    Network,
    /// The provider failed on its own account.
    Server,
    /// The key is missing, wrong, or not allowed to do this.
    Auth,
    /// The provider does not accept the request.
    InvalidRequest,
    /// The request is larger than the model's window.
    ContextOverflow,
    /// The provider refuses the content.
    ContentFilter,
    /// Credit or quota is used up.
    Quota,
    /// The provider lost the stored response this request builds on.
    ChainBroken,
    /// None of the others.
    Unknown,
    /// The worker died repeatedly without getting further.
    CrashLoop,
    /// The context is over the limit even right after a compaction.
    ContextStillOverLimit,
    /// What the session needs to run could not be prepared: configuration, directory, tools.
    Preparation,
    /// The stored session breaks its own rules.
    Corrupt,
}

impl FailureClass {
    /// Tells whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            FailureClass::Overloaded
            | FailureClass::RateLimited
            | FailureClass::Timeout
            | FailureClass::Network
            | FailureClass::Server
            | FailureClass::ContextOverflow
            | FailureClass::ChainBroken => true,
            FailureClass::Auth
            | FailureClass::InvalidRequest
            | FailureClass::ContentFilter
            | FailureClass::Quota
            | FailureClass::Unknown
            | FailureClass::CrashLoop
            | FailureClass::ContextStillOverLimit
            | FailureClass::Preparation
            | FailureClass::Corrupt => false,
        }
    }

    /// Tells a person what to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            FailureClass::Overloaded | FailureClass::Server => {
                "The provider has trouble. Send a message to try again later, or choose another model."
            }
            FailureClass::RateLimited => {
                "Too many requests for this account. Wait, or raise the account's limits with the provider."
            }
            FailureClass::Timeout => "The provider did not answer in time. Send a message to try again.",
            FailureClass::Network => "Check the network connection, then send a message to try again.",
            FailureClass::Auth => "Check the provider's key: it is missing, wrong, or lacks the permission.",
            FailureClass::InvalidRequest => "Check the model's name and parameters in the configuration.",
            FailureClass::ContextOverflow | FailureClass::ContextStillOverLimit => {
                "Clear the context, fork from an earlier entry, or choose a model with a larger window."
            }
            FailureClass::ContentFilter => "Rephrase the request: the provider refuses this content.",
            FailureClass::Quota => {
                "The account's credit is used up: top it up with the provider, then resume."
            }
            FailureClass::ChainBroken => "Send a message to try again; the whole history is sent then.",
            FailureClass::Unknown => "Read the message above; send a message to try again.",
            FailureClass::CrashLoop => {
                "A tool or call seems to kill its worker. Look at the newest call, then send a message to go on."
            }
            FailureClass::Preparation => "Mend what the message names, then send a message to go on.",
            FailureClass::Corrupt => {
                "Run `longhaul verify` on the session and fork from its last sound entry."
            }
        }
    }
}

/// What went wrong, as it is kept in the log and shown to people. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// Its class.
    pub class: FailureClass,
    /// What happened, in a sentence.
    pub message: String,
}

impl Failure {
    /// Cuts the message to what a state may hold.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some((at, _)) = self.message.char_indices().nth(MAX_MESSAGE_CHARS) {
            self.message.truncate(at);
            self.message.push('…');
        }
        self
    }
}

/// A retry that has been decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Why the last attempt failed.
    pub class: FailureClass,
    /// When the first attempt of this step failed.
    pub since: Timestamp,
    /// When the next attempt may start.
    pub not_before: Timestamp,
}

/// The longest message of a failure that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 2_000;
const FIRST_DELAY_MS: u64 = 1_000;
const LONGEST_DELAY_MS: u64 = 60_000;

/// Returns how long to wait before an attempt: exponential from 1 s, doubled, at most 60 s, with
/// full jitter; a server's own wish wins if it is longer. `jitter` is a random number in 0..=1.
///
/// `attempt` is the number of the attempt that failed, from 0.
#[must_use]
pub fn retry_delay_ms(attempt: u32, wish_ms: Option<u64>, jitter: f64) -> u64 {
    let ceiling = FIRST_DELAY_MS.saturating_mul(1 << attempt.min(6)).min(LONGEST_DELAY_MS);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to 60,000 times a number in 0..=1"
    )]
    let delay = (ceiling as f64 * jitter.clamp(0.0, 1.0)) as u64;
    delay.max(wish_ms.unwrap_or(0))
}
