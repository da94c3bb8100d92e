//! What every wire says of a conversation in the same way: who said what, which result belongs to which call,
//! whether a call is whole, and how what is neither a person's words nor the model's is marked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{Item, ToolResult};
use serde::de::IgnoredAny;

use crate::files;

/// OpenAI refuses longer ids, and Anthropic's models other characters.
const MAX_ID_CHARS: usize = 40;

/// Stands for the result of a call that has none: no provider takes a call without one.
pub(crate) const NO_RESULT: &str = "No result of this call is recorded.";

/// Stands where content was redacted.
pub(crate) const REDACTED: &str = "[A part of the conversation was removed here.]";

/// Which result belongs to which call, by their places.
pub(crate) struct Results<'a> {
    /// The result of the call at a place.
    pub(crate) by_call: HashMap<usize, &'a ToolResult>,
    /// Whether the result at a place belongs to a call.
    pub(crate) used: Vec<bool>,
}

impl<'a> Results<'a> {
    /// Gives each result to the newest call before it of its id that has none.
    pub(crate) fn of(items: &'a [Arc<Item>]) -> Self {
        let mut open: HashMap<&CallId, usize> = HashMap::new();
        let mut by_call = HashMap::new();
        let mut used = vec![false; items.len()];
        for (at, item) in items.iter().enumerate() {
            if let Some(call) = item.tool_call() {
                open.insert(&call.id, at);
            } else if let Some(result) = item.tool_result()
                && let Some(call) = open.remove(&result.call)
            {
                by_call.insert(call, result);
                used[at] = true;
            }
        }
        Results { by_call, used }
    }
}

/// Tells whether the model made an item.
pub(crate) fn is_answer(item: &Item) -> bool {
    match item {
        Item::Assistant { .. } | Item::Reasoning { .. } | Item::ToolCall(_) | Item::Opaque { .. } => true,
        Item::User { .. }
        | Item::ToolResult(_)
        | Item::Summary { .. }
        | Item::ContextFile { .. }
        | Item::Steering { .. }
        | Item::Attachment(_)
        | Item::File { .. }
        | Item::Redacted => false,
    }
}

/// Tells whether the arguments of a call are all there. A number that was cut off would be JSON too.
pub(crate) fn is_whole(arguments: &str) -> bool {
    arguments.trim_end().ends_with('}') && serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}

/// Returns what makes arguments of white space alone an empty object.
pub(crate) fn rest_of_blank(arguments: &str) -> Option<&'static str> {
    Some("{}").filter(|_| !arguments.is_empty() && arguments.trim().is_empty())
}

/// Returns what the model reads of a result.
pub(crate) fn output(result: &ToolResult) -> &str {
    if result.output.is_empty() { result.outcome.notice() } else { &result.output }
}

/// Returns what is told to the model in the place of a person: a person's own words as they are, all else
/// marked as what it is; `None` for what the model said, and for files. A result that belongs to no call is
/// told like that too.
pub(crate) fn told(item: &Item) -> Option<Cow<'_, str>> {
    Some(match item {
        Item::User { text } => Cow::Borrowed(text),
        Item::ToolResult(result) => marked("tool_result", &[("call", &result.call.0)], output(result)),
        Item::Summary { text } => marked("summary", &[("of", "the conversation before")], text),
        Item::Steering { reason: _, text } => marked("note", &[("from", "longhaul")], text),
        Item::ContextFile { path, digest: _, text } => marked("context_file", &[("path", path)], text),
        Item::Attachment(file) => Cow::Owned(files::not_shown(file)),
        Item::Redacted => Cow::Borrowed(REDACTED),
        Item::Assistant { .. }
        | Item::Reasoning { .. }
        | Item::ToolCall(_)
        | Item::File { .. }
        | Item::Opaque { .. } => return None,
    })
}

/// Returns a file as a URL that holds its bytes.
pub(crate) fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// Marks a text as something else than a person's words. It cannot end its own mark.
pub(crate) fn marked<'a>(tag: &str, attributes: &[(&str, &str)], text: &str) -> Cow<'a, str> {
    let mut marked = format!("<{tag}");
    for (name, value) in attributes {
        marked.push_str(&format!(" {name}=\"{}\"", value.replace('"', "&quot;")));
    }
    let end = format!("</{tag}");
    let text = text.trim_end_matches('\n').replace(&end, &format!("&lt;/{tag}"));
    marked.push_str(&format!(">\n{text}\n{end}>"));
    Cow::Owned(marked)
}

/// Tells whether every server takes an id, but for those that want one of their own kind.
pub(crate) fn is_plain_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=MAX_ID_CHARS).contains(&id.len()) && id.chars().all(plain)
}

/// Sends an id as it is if every server takes it; otherwise one that is always the same for it.
pub(crate) fn wire_id(id: &CallId) -> Cow<'_, str> {
    if is_plain_id(&id.0) {
        return Cow::Borrowed(&id.0);
    }
    let digest = Digest::of(id.0.as_bytes()).to_hex();
    Cow::Owned(format!("call_{}", &digest[..32]))
}
