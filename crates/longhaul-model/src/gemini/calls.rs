//! Function calls: most come whole, in one part. Vertex AI can also be asked to send the arguments bit by
//! bit, each with its place in the object.

use serde_json::{Map, Value};

use super::opaque;
use crate::limits::MAX_RESPONSE_BYTES;
use crate::measure::value_bytes;
use crate::reader::nonsense;
use crate::{Error, Part};

/// The deepest that an argument's place may lead.
const MAX_STEPS: usize = 64;

/// The calls of one answer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    begun: u32,
    open: Option<Open>,
}

/// A call whose arguments are still coming.
#[derive(Debug)]
struct Open {
    index: u32,
    arguments: Value,
    /// How much came for it.
    bytes: usize,
    fields: Map<String, Value>,
    call: Map<String, Value>,
}

impl Calls {
    pub(crate) fn is_empty(&self) -> bool {
        self.begun == 0
    }

    /// Takes the part of a content that holds a call, or more of one.
    pub(crate) fn take(&mut self, host: &str, part: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let call = part.get("functionCall").unwrap_or(&Value::Null);
        let pieces = call.get("partialArgs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let goes_on = call.get("willContinue") == Some(&Value::Bool(true));
        let fields = opaque::beside(part, &["functionCall"]);
        let beside = opaque::beside(call, &["name", "args", "partialArgs", "willContinue"]);
        match call.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => {
                self.close(host, parts);
                let index = self.begun;
                self.begun = self.begun.saturating_add(1);
                let id = beside.get("id").and_then(Value::as_str).map(str::to_owned);
                parts.push(Part::ToolCallStarted { index, id, name: name.to_owned() });
                if pieces.is_empty() && !goes_on {
                    let text = arguments(call.get("args"));
                    parts.push(Part::ToolCallArguments { index, text });
                    let opaque = Some(opaque::of_fields(host, fields, beside));
                    parts.push(Part::ToolCallEnd { index, opaque });
                    return Ok(());
                }
                let begun = call.get("args").filter(|args| args.is_object()).cloned();
                let arguments = begun.unwrap_or_else(|| Value::Object(Map::new()));
                self.open = Some(Open { index, arguments, bytes: 0, fields, call: beside });
            }
            None => {
                let empty = pieces.is_empty() && call.get("args").is_none_or(Value::is_null);
                match &mut self.open {
                    Some(open) => {
                        open.fields.extend(fields);
                        open.call.extend(beside);
                    }
                    None if empty => return Ok(()),
                    None => return Err(nonsense("a tool call had no name")),
                }
            }
        }
        if let Some(open) = &mut self.open {
            open.bytes = open.bytes.saturating_add(value_bytes(call));
            if open.bytes > MAX_RESPONSE_BYTES {
                return Err(nonsense("the arguments of a tool call have no end"));
            }
            pieces.iter().try_for_each(|piece| set(&mut open.arguments, piece))?;
        }
        if !goes_on {
            self.close(host, parts);
        }
        Ok(())
    }

    /// Ends the call that is open. When something else than the model stopped the answer (`cut`), it stays
    /// open: half a call must not run.
    pub(crate) fn finish(&mut self, host: &str, cut: bool, parts: &mut Vec<Part>) {
        if !cut {
            self.close(host, parts);
        }
    }

    fn close(&mut self, host: &str, parts: &mut Vec<Part>) {
        let Some(Open { index, arguments, bytes: _, fields, call }) = self.open.take() else { return };
        parts.push(Part::ToolCallArguments { index, text: arguments.to_string() });
        let opaque = Some(opaque::of_fields(host, fields, call));
        parts.push(Part::ToolCallEnd { index, opaque });
    }
}

/// Returns a call's arguments as text. What is no object is left to whoever reads the call.
fn arguments(args: Option<&Value>) -> String {
    match args {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(args) => args.to_string(),
    }
}

/// Puts a piece of the arguments in its place. A text that is there goes on.
fn set(arguments: &mut Value, piece: &Value) -> Result<(), Error> {
    let nowhere = || nonsense("an argument of a tool call has no place");
    let steps = steps(piece.get("jsonPath").and_then(Value::as_str).unwrap_or_default());
    let values = ["stringValue", "numberValue", "boolValue"];
    let value = values.iter().find_map(|name| piece.get(name)).cloned().unwrap_or(Value::Null);
    let mut at = arguments;
    for step in steps.ok_or_else(nowhere)? {
        at = match step {
            Step::Field(name) => {
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                at.as_object_mut().expect("it was made one").entry(name).or_insert(Value::Null)
            }
            Step::Element(index) => {
                if !at.is_array() {
                    *at = Value::Array(Vec::new());
                }
                let elements = at.as_array_mut().expect("it was made one");
                if elements.len() == index {
                    elements.push(Value::Null);
                }
                elements.get_mut(index).ok_or_else(nowhere)?
            }
        };
    }
    match (at, value) {
        (Value::String(text), Value::String(more)) => text.push_str(&more),
        (at, value) => *at = value,
    }
    Ok(())
}

enum Step {
    Field(String),
    Element(usize),
}

/// Reads a place such as `$.a.b[0]` or `$['a b']`.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() && steps.len() < MAX_STEPS {
        if let Some(quoted) = ["['", "[\""].iter().find_map(|open| rest.strip_prefix(open)) {
            let close = if rest.starts_with("['") { "']" } else { "\"]" };
            let (name, after) = quoted.split_once(close)?;
            steps.push(Step::Field(name.to_owned()));
            rest = after;
        } else if let Some(numbered) = rest.strip_prefix('[') {
            let (number, after) = numbered.split_once(']')?;
            steps.push(Step::Element(number.parse().ok()?));
            rest = after;
        } else {
            let named = rest.strip_prefix('.')?;
            let end = named.find(['.', '[']).unwrap_or(named.len());
            steps.push(Step::Field(named[..end].to_owned()));
            rest = &named[end..];
        }
    }
    Some(steps).filter(|steps| rest.is_empty() && !steps.is_empty())
}
