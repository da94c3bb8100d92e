//! Reasoning on this wire: visible text in one of some fields, and details that some providers want
//! back unchanged. Both ways: out of an answer, and back into a request.

use serde_json::{Value, json};

use super::API;

const FIELDS: [&str; 4] = ["reasoning_content", "reasoning", "reasoning_text", "thinking"];

/// Where details are: as OpenRouter and as LiteLLM sends them, and wants them back.
const DETAILS: [&str; 2] = ["reasoning_details", "thinking_blocks"];

/// Where Copilot seals the reasoning of an answer.
const SEAL: &str = "reasoning_opaque";

/// What of a detail is visible, and comes in pieces.
const VISIBLE: [&str; 3] = ["text", "summary", "thinking"];

/// What a delta or a message says of reasoning.
pub(crate) struct Said<'a> {
    /// The visible text, and the field it came in.
    pub(crate) text: Option<(String, Option<&'static str>)>,
    pub(crate) details: &'a [Value],
    /// The field the details came in.
    pub(crate) details_field: Option<&'static str>,
    /// What seals all the reasoning.
    pub(crate) seal: Option<&'a str>,
}

/// Reads the reasoning of a delta or a message. Text that stands in several fields counts once.
pub(crate) fn said(message: &Value) -> Said<'_> {
    let held = DETAILS.iter().find_map(|field| {
        let details = message.get(field)?.as_array().filter(|details| !details.is_empty())?;
        Some((Some(*field), details.as_slice()))
    });
    let (details_field, details) = held.unwrap_or_default();
    let plain = FIELDS.iter().find_map(|field| {
        let text = message.get(field)?.as_str().filter(|text| !text.is_empty())?;
        Some((text.to_owned(), Some(*field)))
    });
    let detailed = || {
        let text: String = details.iter().filter_map(visible).collect();
        Some((text, None)).filter(|(text, _)| !text.is_empty())
    };
    let seal = message.get(SEAL).and_then(Value::as_str).filter(|seal| !seal.is_empty());
    Said { text: plain.or_else(detailed), details, details_field, seal }
}

fn visible(detail: &Value) -> Option<&str> {
    VISIBLE.iter().find_map(|key| detail.get(key).and_then(Value::as_str))
}

/// Adds a detail to those before it. Pieces of one detail become one.
pub(crate) fn add_detail(details: &mut Vec<Value>, piece: &Value) {
    let last = details.last_mut().filter(|last| continues(last, piece));
    let (Some(Value::Object(whole)), Value::Object(piece)) = (last, piece) else {
        details.push(piece.clone());
        return;
    };
    for (key, value) in piece {
        match (whole.get_mut(key), value) {
            (Some(Value::String(text)), Value::String(more)) if VISIBLE.contains(&key.as_str()) => {
                text.push_str(more);
            }
            (Some(_), Value::Null) => {}
            _ => {
                whole.insert(key.clone(), value.clone());
            }
        }
    }
}

/// A piece goes on with a detail of its kind and number. Encrypted details come whole, and text
/// after a signature is another detail.
fn continues(last: &Value, piece: &Value) -> bool {
    let same = |key| last.get(key) == piece.get(key);
    let signed = last.get("signature").and_then(Value::as_str).is_some_and(|it| !it.is_empty());
    let encrypted = piece.get("data").is_some_and(Value::is_string);
    let spoken = visible(piece).is_some_and(|text| !text.is_empty());
    same("type") && same("index") && !encrypted && !(signed && spoken)
}

/// Makes the opaque value of an item: what must be sent back, where, and to whom. `field` is that of the details, or
/// of the text where there are none.
pub(crate) fn opaque(
    host: &str,
    field: Option<&str>,
    details: Vec<Value>,
    seal: Option<String>,
) -> Option<Value> {
    if field.is_none() && seal.is_none() {
        return None;
    }
    let mut opaque = json!({ "api": API, "host": host });
    if let Some(field) = field {
        opaque["field"] = json!(field);
    }
    if !details.is_empty() {
        opaque["details"] = Value::Array(details);
    }
    if let Some(seal) = seal {
        opaque[SEAL] = Value::String(seal);
    }
    Some(opaque)
}

/// The reasoning of one message, on its way back.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    field: Option<&'static str>,
    text: String,
    details_field: Option<&'static str>,
    details: Vec<Value>,
    seal: Option<String>,
}

impl Replay {
    /// Takes an item's reasoning, if its opaque value says that this server wants it back.
    pub(crate) fn take(&mut self, host: &str, text: &str, opaque: Option<&Value>) {
        let Some(opaque) = opaque.filter(|it| it["api"] == API && it["host"] == host) else { return };
        if let Some(details) = opaque["details"].as_array() {
            let field = DETAILS.iter().find(|field| opaque["field"] == **field).unwrap_or(&DETAILS[0]);
            self.details_field = Some(field);
            details.iter().for_each(|detail| add_detail(&mut self.details, detail));
        }
        if let Some(seal) = opaque[SEAL].as_str() {
            self.seal = Some(seal.to_owned());
        }
        if let Some(field) = FIELDS.iter().find(|field| opaque["field"] == **field) {
            self.field = Some(field);
            self.text.push_str(text);
        }
    }

    /// Returns the fields to send. Details hold the text, which then is not sent as well.
    pub(crate) fn fields(self) -> Vec<(&'static str, Value)> {
        let said = match self.details_field {
            Some(field) => Some((field, Value::Array(self.details))),
            None => self.field.map(|field| (field, Value::String(self.text))),
        };
        let seal = self.seal.map(|seal| (SEAL, Value::String(seal)));
        said.into_iter().chain(seal).collect()
    }
}
