//! Why an answer ended: Google's words for it, and which of them mean that the attempt failed.

use longhaul_session::failure::FailureClass;

use crate::error::sentence;
use crate::{Error, FinishReason};

/// Tells whether a word is one that stands for none.
pub(crate) fn says_nothing(word: &str) -> bool {
    word.is_empty() || word.ends_with("_UNSPECIFIED")
}

/// Returns what a finish reason means. An answer that asks for tools and ends in an ordinary way waits for
/// their results.
///
/// # Errors
/// The model wrote what the provider could not read, so nothing of it arrived: asked again, it writes
/// something else.
pub(crate) fn reason(
    word: Option<&str>,
    has_calls: bool,
    explained: Option<&str>,
) -> Result<FinishReason, Error> {
    let word = word.unwrap_or("STOP").to_ascii_uppercase();
    Ok(match word.as_str() {
        "STOP" if has_calls => FinishReason::ToolCalls,
        "STOP" => FinishReason::Stop,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "JAILBREAK"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => FinishReason::ContentFilter,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "MALFORMED_RESPONSE" => {
            let what = "the model wrote what the provider could not read";
            return Err(failed(FailureClass::Server, what, &word, explained));
        }
        "MISSING_THOUGHT_SIGNATURE" => {
            let what = "the model wants its signatures back and got others or none: \
                        start a new session after a change of the model";
            return Err(failed(FailureClass::InvalidRequest, what, &word, explained));
        }
        _ => FinishReason::Other,
    })
}

fn failed(class: FailureClass, what: &str, word: &str, explained: Option<&str>) -> Error {
    let explained = explained.and_then(sentence).map_or(String::new(), |text| format!(", {text}"));
    Error::new(class, format!("{what} ({word}{explained})"))
}
