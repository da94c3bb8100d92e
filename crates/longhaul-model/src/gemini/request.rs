//! From a request to the JSON body. The fields that never change come first and the contents last,
//! so that two requests of one conversation begin alike for as long as possible.

use longhaul_session::agent::{Request, ToolSpec};
use serde_json::{Map, Value, json};

use super::Options;
use super::contents::contents;
use crate::written::{Begun, Written, settled};

const CONTENTS: &str = "contents";

/// Room for what is new in most requests, in bytes.
const REST_BYTES: usize = 4 * 1024;

/// Writes the body of a request.
pub(crate) fn body(options: &Options, host: &str, written: &Written, request: &Request) -> Vec<u8> {
    if options.parameters.contains_key(CONTENTS) {
        return write(&Value::Object(head(options, request)));
    }
    let mut begun = written.take(request).unwrap_or_else(|| begin(options, request));
    let signed = wants_signatures(&options.model);
    let append = |bytes: &mut Vec<u8>, items| {
        for content in contents(host, signed, items) {
            if bytes.last() != Some(&b'[') {
                bytes.push(b',');
            }
            serde_json::to_writer(&mut *bytes, &content).expect("texts and values are always JSON");
        }
    };
    let new = &request.items[begun.written()..];
    let (settled, rest) = new.split_at(settled(new));
    append(&mut begun.bytes, settled);
    begun.goes_on(settled);
    let mut body = Vec::with_capacity(begun.bytes.len() + REST_BYTES);
    body.extend_from_slice(&begun.bytes);
    written.keep(begun);
    append(&mut body, rest);
    body.extend_from_slice(b"]}");
    body
}

/// Writes all that comes before the items.
fn begin(options: &Options, request: &Request) -> Begun {
    let head = head(options, request);
    let mut bytes = write(&Value::Object(head));
    bytes.pop();
    if bytes.len() > 1 {
        bytes.push(b',');
    }
    bytes.extend_from_slice(format!("\"{CONTENTS}\":[").as_bytes());
    Begun::new(request, bytes)
}

fn write(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value is always JSON")
}

/// Makes the fields of a body but for the contents.
fn head(options: &Options, request: &Request) -> Map<String, Value> {
    let mut generation = Map::new();
    if let Some(max) = options.max_output_tokens {
        generation.insert("maxOutputTokens".to_owned(), json!(max));
    }
    if let Some(temperature) = options.temperature {
        generation.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(output) = &options.output {
        generation.insert("responseMimeType".to_owned(), json!("application/json"));
        generation.insert("responseJsonSchema".to_owned(), output.schema.clone());
    }
    let mut head = Map::new();
    if !generation.is_empty() {
        head.insert("generationConfig".to_owned(), Value::Object(generation));
    }
    if !request.system.is_empty() {
        head.insert("systemInstruction".to_owned(), json!({ "parts": [{ "text": request.system }] }));
    }
    let mut tools = Vec::new();
    if !request.tools.is_empty() {
        let functions: Vec<Value> = request.tools.iter().map(function).collect();
        tools.push(json!({ "functionDeclarations": functions }));
    }
    tools.extend(options.provider_tools.iter().cloned());
    if !tools.is_empty() {
        head.insert("tools".to_owned(), Value::Array(tools));
    }
    merge(&mut head, &options.parameters);
    head
}

/// The older field for parameters knows a part of JSON schema only, and refuses what else there is.
fn function(spec: &ToolSpec) -> Value {
    let mut function = json!({ "name": spec.name, "description": spec.description });
    if spec.input_schema.is_object() {
        function["parametersJsonSchema"] = spec.input_schema.clone();
    }
    function
}

/// Merges objects into each other, as RFC 7396 says: null removes a field.
fn merge(fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(inner) => {
                let field = fields.entry(name).or_insert(Value::Null);
                if !field.is_object() {
                    *field = Value::Object(Map::new());
                }
                merge(field.as_object_mut().expect("it was made one"), inner);
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The models before the third generation neither sign all their calls nor ask for it.
fn wants_signatures(model: &str) -> bool {
    let model = model.to_ascii_lowercase();
    !["gemini-1", "gemini-2", "gemma"].iter().any(|older| model.contains(older))
}
