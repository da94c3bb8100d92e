//! What some servers take otherwise than OpenAI itself, known by their host. What they answer otherwise is read
//! wherever it comes from.

use std::borrow::Cow;

use longhaul_session::id::{CallId, Digest};

use crate::conversation::wire_id;

/// Their models refuse the limit of old under its name, which all others know.
const OPENAI: [&str; 3] = ["api.openai.com", "openai.azure.com", "cognitiveservices.azure.com"];

/// They refuse the options of a stream, and tell the usage unasked.
const WITHOUT_STREAM_OPTIONS: [&str; 6] = [
    "api.mistral.ai",
    "api.cohere.ai",
    "api.cohere.com",
    "cloud.databricks.com",
    "gcp.databricks.com",
    "azuredatabricks.net",
];

/// They want a text also where an answer only calls tools.
const WITH_TEXT: [&str; 2] = ["api.cloudflare.com", "gateway.ai.cloudflare.com"];

/// Their models refuse an answer that comes back without the reasoning before it, and take a blank for reasoning
/// that was none or is not theirs; no text at all is refused by some.
const WITH_REASONING: [&str; 5] =
    ["api.deepseek.com", "api.moonshot.ai", "api.moonshot.cn", "api.kimi.com", "xiaomimimo.com"];

const MISTRAL: [&str; 1] = ["api.mistral.ai"];

/// Mistral takes ids of this length only, of letters and digits.
const MISTRAL_ID_CHARS: usize = 9;

/// Returns the field that limits an answer.
pub(super) fn limit_field(host: &str) -> &'static str {
    if is_one_of(host, &OPENAI) { "max_completion_tokens" } else { "max_tokens" }
}

/// Tells whether a stream may be asked to end with the usage.
pub(super) fn takes_stream_options(host: &str) -> bool {
    !is_one_of(host, &WITHOUT_STREAM_OPTIONS)
}

/// Returns the text of an answer that has none.
pub(super) fn no_text(host: &str) -> Option<&'static str> {
    Some("").filter(|_| is_one_of(host, &WITH_TEXT))
}

/// Returns the field and the text for the reasoning of an answer that has none.
pub(super) fn no_reasoning(host: &str) -> Option<(&'static str, &'static str)> {
    Some(("reasoning_content", " ")).filter(|_| is_one_of(host, &WITH_REASONING))
}

/// Returns the id of a call. `is_own` says that the server gave it: some take what they need out of it again, or
/// show it to a model that knows ids of one kind only.
pub(super) fn call_id<'a>(host: &str, id: &'a CallId, is_own: bool) -> Cow<'a, str> {
    if is_one_of(host, &MISTRAL) && !is_mistral_id(&id.0) {
        let digest = Digest::of(id.0.as_bytes()).to_hex();
        return Cow::Owned(digest[..MISTRAL_ID_CHARS].to_owned());
    }
    if is_own { Cow::Borrowed(&id.0) } else { wire_id(id) }
}

fn is_mistral_id(id: &str) -> bool {
    id.len() == MISTRAL_ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Tells whether a host is one of some, or below one.
fn is_one_of(host: &str, hosts: &[&str]) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    let is_at =
        |host: &&str| name.strip_suffix(*host).is_some_and(|below| below.is_empty() || below.ends_with('.'));
    hosts.iter().any(is_at)
}
