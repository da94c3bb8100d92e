//! What Google wants back as it came, on its way into items and out of them: signatures with the part
//! they came on, parts of kinds unknown here, and what a search was grounded on.

use serde_json::{Map, Value, json};

use super::API;

/// What an opaque value of this wire holds.
pub(crate) enum Kept<'a> {
    /// A whole part of the model's content.
    Part(&'a Value),
    /// The fields of a part beside its text. The last bytes of the text before it, that many, are the text.
    Signed { text_bytes: usize, fields: &'a Map<String, Value> },
    /// Nothing that goes back.
    Nothing,
}

/// Returns the fields of a part or call beside those named, without those that say nothing.
pub(crate) fn beside(object: &Value, known: &[&str]) -> Map<String, Value> {
    let says = |value: &Value| !value.is_null() && value.as_str() != Some("");
    let fields = object.as_object().into_iter().flatten();
    let beside = fields.filter(|(name, value)| !known.contains(&name.as_str()) && says(value));
    beside.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Makes the opaque value of a part that is kept whole.
pub(crate) fn of_part(host: &str, part: &Value) -> Value {
    json!({ "api": API, "host": host, "part": part })
}

/// Makes the opaque value that stands behind a signed text of that many bytes.
pub(crate) fn of_text(host: &str, text_bytes: usize, fields: Map<String, Value>) -> Value {
    json!({ "api": API, "host": host, "text_bytes": text_bytes, "fields": fields })
}

/// Makes the opaque value of a thought or a call: the fields of its part, and those of the call itself.
/// Without any it still says that the call was made here, and needs no signature.
pub(crate) fn of_fields(host: &str, fields: Map<String, Value>, call: Map<String, Value>) -> Value {
    let mut opaque = json!({ "api": API, "host": host });
    for (name, fields) in [("fields", fields), ("call", call)] {
        if !fields.is_empty() {
            opaque[name] = Value::Object(fields);
        }
    }
    opaque
}

/// Makes the opaque value of what is said about an answer. It is for readers and does not go back.
pub(crate) fn of_metadata(host: &str, metadata: Map<String, Value>) -> Value {
    json!({ "api": API, "host": host, "metadata": metadata })
}

/// Returns an opaque value if it is of this wire and server.
pub(crate) fn ours<'a>(host: &str, opaque: Option<&'a Value>) -> Option<&'a Value> {
    opaque.filter(|it| it["api"] == API && it["host"] == host)
}

/// Returns the fields of a part that an opaque value holds.
pub(crate) fn fields<'a>(opaque: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    opaque.get(name)?.as_object()
}

/// Reads the opaque value of an item that is nothing else.
pub(crate) fn kept<'a>(host: &str, value: &'a Value) -> Kept<'a> {
    let Some(ours) = ours(host, Some(value)) else { return Kept::Nothing };
    if let Some(part) = ours.get("part").filter(|part| part.is_object()) {
        return Kept::Part(part);
    }
    let text_bytes = ours.get("text_bytes").and_then(Value::as_u64);
    match (text_bytes.and_then(|bytes| usize::try_from(bytes).ok()), fields(ours, "fields")) {
        (Some(text_bytes), Some(fields)) => Kept::Signed { text_bytes, fields },
        (Some(_) | None, _) => Kept::Nothing,
    }
}
