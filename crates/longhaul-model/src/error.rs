//! Why an attempt failed, classified once, here. What follows from a class (retry, compact, stop)
//! is the session's business.

mod classify;
mod said;
mod wait;

use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;

pub use classify::classify;
pub(crate) use classify::{classify_in_answer, web_page_in_answer};
pub(crate) use said::{says_failure, sentence};

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is: whether to retry, and what a person should do.
    pub class: FailureClass,
    /// What happened, for a person. Never holds a key.
    pub message: String,
    /// How long the provider asks to wait before the next attempt, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What the provider charges for the attempt, where it said so.
    pub usage: Option<Usage>,
    /// The provider's own word for how the answer ended, where it said one.
    pub finish_raw: Option<Box<str>>,
}

impl Error {
    /// Makes an error of a class, with nothing else known of it.
    #[must_use]
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Error { class, message: message.into(), retry_after_ms: None, usage: None, finish_raw: None }
    }

    /// Says what to do, behind what happened.
    pub(crate) fn with_advice(self, advice: &str) -> Self {
        Error { message: format!("{}. {advice}", self.message.trim_end_matches('.')), ..self }
    }
}
