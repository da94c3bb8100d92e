//! From a request to the JSON body. The fields that never change come first and the conversation last,
//! so that two requests of one conversation begin alike for as long as possible.

use longhaul_session::agent::{OutputFormat, Previous, Request, ToolSpec};
use serde_json::{Value, json};

use super::Options;
use super::input::{Target, input, input_after};
use crate::body::{Fields, begin_field, separate, write_json};
use crate::written::{Begun, Written, settled};

const INPUT: &str = "input";
const PREVIOUS: &str = "previous_response_id";

/// Room for what is new in most requests, in bytes.
const REST_BYTES: usize = 4 * 1024;

/// Writes the body of a request.
pub(super) fn body(options: &Options, host: &str, written: &Written, request: &Request) -> Vec<u8> {
    let target = Target { host, replay: options.replay_reasoning, ids: options.item_ids };
    if options.parameters.contains_key(INPUT) {
        let mut body = head(options, request);
        body.push(b'}');
        return body;
    }
    if let Some(previous) = kept_before(options, request) {
        let mut body = head(options, request);
        begin_field(&mut body, PREVIOUS);
        write_json(&mut body, &previous.response_id);
        begin_field(&mut body, INPUT);
        write_json(&mut body, &input_after(&target, &request.items, previous.items));
        body.push(b'}');
        return body;
    }
    let mut begun = written.take(request).unwrap_or_else(|| begin(options, request));
    let write = |bytes: &mut Vec<u8>, items| {
        for item in input(&target, items) {
            separate(bytes, b'[');
            write_json(bytes, &item);
        }
    };
    let new = &request.items[begun.written()..];
    let (settled, rest) = new.split_at(settled(new));
    write(&mut begun.bytes, settled);
    begun.goes_on(settled);
    let mut body = Vec::with_capacity(begun.bytes.len() + REST_BYTES);
    body.extend_from_slice(&begun.bytes);
    written.keep(begun);
    write(&mut body, rest);
    body.extend_from_slice(b"]}");
    body
}

/// Returns the answer that the provider has kept and this request goes on from. Servers refuse a
/// request that adds nothing.
fn kept_before<'a>(options: &Options, request: &'a Request) -> Option<&'a Previous> {
    let wanted = options.chain && !options.parameters.contains_key(PREVIOUS);
    request.previous.as_ref().filter(|previous| wanted && previous.items < request.items.len())
}

/// Writes all that comes before the items.
fn begin(options: &Options, request: &Request) -> Begun {
    let mut bytes = head(options, request);
    begin_field(&mut bytes, INPUT);
    bytes.push(b'[');
    Begun::new(request, bytes)
}

/// Writes the fields of a body but for the conversation, without the closing brace.
fn head(options: &Options, request: &Request) -> Vec<u8> {
    let streamed = options.streamed();
    let background = options.resumable && streamed;
    let mut fields = Fields::default();
    fields.set("model", json!(options.model));
    fields.set("stream", json!(streamed));
    fields.set("store", json!(options.chain || background));
    if background {
        fields.set("background", json!(true));
    }
    if options.replay_reasoning {
        fields.set("include", json!(["reasoning.encrypted_content"]));
    }
    if let Some(max) = options.max_output_tokens {
        fields.set("max_output_tokens", json!(max));
    }
    if let Some(temperature) = options.temperature {
        fields.set("temperature", json!(temperature));
    }
    if let Some(output) = &options.output {
        fields.set("text", json!({ "format": format(output) }));
    }
    if !request.system.is_empty() {
        fields.set("instructions", json!(request.system));
    }
    let tools: Vec<Value> =
        request.tools.iter().map(tool).chain(options.provider_tools.iter().cloned()).collect();
    if !tools.is_empty() {
        fields.set("tools", Value::Array(tools));
    }
    fields.override_with(&options.parameters);
    fields.begin()
}

fn tool(spec: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.input_schema,
        // Left out, it means true, and then most schemas are refused.
        "strict": false,
    })
}

fn format(output: &OutputFormat) -> Value {
    let strict = is_strict(&output.schema);
    json!({ "type": "json_schema", "name": output.name, "schema": output.schema, "strict": strict })
}

/// Tells whether a schema keeps to the rules that the API has for enforcing one: every object names all
/// its properties as required, and allows no others.
fn is_strict(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else {
        return schema.as_array().is_none_or(|all| all.iter().all(is_strict));
    };
    let properties = fields.get("properties").and_then(Value::as_object);
    let required = |name: &String| {
        let mut names = fields.get("required").and_then(Value::as_array).into_iter().flatten();
        names.any(|it| it == name)
    };
    let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
    let object = fields.get("type").is_some_and(|kind| kind == "object") || properties.is_some();
    let whole = !object || closed && properties.is_none_or(|all| all.keys().all(required));
    whole
        && fields.iter().filter(|(name, _)| *name != "enum" && *name != "const").all(|(_, it)| is_strict(it))
}
