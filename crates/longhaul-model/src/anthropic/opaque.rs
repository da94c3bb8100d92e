//! What goes back to the server that made it, word for word, and to no other: how it is kept in items, and how it
//! is found there again.

use longhaul_session::item::Item;
use serde_json::{Map, Value, json};

/// Stands in the opaque values of items beside the host, so that no other wire and no other server
/// gets them.
const API: &str = "anthropic";

const BLOCK: &str = "block";
const FIELDS: &str = "fields";
const CITATIONS: &str = "citations";
const BYTES: &str = "bytes";
const CONTAINER: &str = "container";

/// Keeps a block: all of it, or what is not in the item itself.
pub(super) fn block(host: &str, block: Map<String, Value>) -> Value {
    json!({ "api": API, "host": host, BLOCK: block })
}

/// Returns the block that was kept, if it is for this server.
pub(super) fn block_for<'a>(host: &str, value: &'a Value) -> Option<&'a Map<String, Value>> {
    ours(host, value)?.get(BLOCK)?.as_object()
}

/// Keeps the fields of a call that are not in the item itself.
pub(super) fn fields(host: &str, fields: Map<String, Value>) -> Value {
    json!({ "api": API, "host": host, FIELDS: fields })
}

/// Returns the fields that were kept, if they are for this server.
pub(super) fn fields_for<'a>(host: &str, value: &'a Value) -> Option<&'a Map<String, Value>> {
    ours(host, value)?.get(FIELDS)?.as_object()
}

/// Keeps the citations of the text directly before, of which they belong to the last `bytes`.
pub(super) fn citations(host: &str, citations: Vec<Value>, bytes: usize) -> Value {
    json!({ "api": API, "host": host, CITATIONS: citations, BYTES: bytes })
}

/// Splits a text into what has no citations and what has these, if they are for this server and were made for
/// such a text.
pub(super) fn cited<'a>(
    host: &str,
    value: &'a Value,
    text: &'a str,
) -> Option<(&'a str, &'a str, &'a Value)> {
    let citations = ours(host, value)?.get(CITATIONS)?;
    let bytes = usize::try_from(value.get(BYTES)?.as_u64()?).ok()?;
    let (before, cited) = text.split_at_checked(text.len().checked_sub(bytes)?)?;
    Some((before, cited, citations)).filter(|_| !cited.trim().is_empty())
}

/// Keeps the name of the container that the provider's tools ran in.
pub(super) fn container(host: &str, id: &str) -> Value {
    json!({ "api": API, "host": host, CONTAINER: id })
}

/// Returns the container that was kept, if it is at this server.
pub(super) fn container_for<'a>(host: &str, value: &'a Value) -> Option<&'a str> {
    ours(host, value)?.get(CONTAINER)?.as_str()
}

/// Makes an item of what was kept.
pub(super) fn item(host: &str, value: Value) -> Item {
    Item::Opaque { provider: host.to_owned(), value }
}

fn ours<'a>(host: &str, value: &'a Value) -> Option<&'a Value> {
    Some(value).filter(|it| it["api"] == API && it["host"] == host)
}
