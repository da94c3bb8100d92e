//! From a request to the JSON body. The fields that never change come first and the messages last,
//! so that two requests of one conversation begin alike for as long as possible.

use longhaul_session::agent::{Request, ToolSpec};
use serde_json::{Value, json};

use super::Options;
use super::message::messages;
use super::server;
use crate::body::{Fields, begin_field, separate, write_json};
use crate::written::{Begun, Written, settled};

const MESSAGES: &str = "messages";

/// Room for what is new in most requests, in bytes.
const REST_BYTES: usize = 4 * 1024;

/// Writes the body of a request, and tells whether it asks for a stream.
pub(crate) fn body(options: &Options, host: &str, written: &Written, request: &Request) -> (Vec<u8>, bool) {
    let streamed = match options.parameters.get("stream") {
        Some(value) => *value == Value::Bool(true),
        None => options.stream,
    };
    if options.parameters.contains_key(MESSAGES) {
        let mut body = head(options, host, request);
        body.push(b'}');
        return (body, streamed);
    }
    let mut begun = written.take(request).unwrap_or_else(|| begin(options, host, request));
    let write = |bytes: &mut Vec<u8>, items| {
        for message in messages(host, options.replay_reasoning, "", items) {
            separate(bytes, b'[');
            write_json(bytes, &message);
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
    (body, streamed)
}

/// Writes all that comes before the items.
fn begin(options: &Options, host: &str, request: &Request) -> Begun {
    let mut bytes = head(options, host, request);
    begin_field(&mut bytes, MESSAGES);
    bytes.push(b'[');
    for message in messages(host, options.replay_reasoning, &request.system, &[]) {
        write_json(&mut bytes, &message);
    }
    Begun::new(request, bytes)
}

/// Writes the fields of a body but for the messages, without the closing brace.
fn head(options: &Options, host: &str, request: &Request) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.set("model", json!(options.model));
    fields.set("stream", json!(options.stream));
    if options.stream && options.include_usage && server::takes_stream_options(host) {
        fields.set("stream_options", json!({ "include_usage": true }));
    }
    if let Some(max) = options.max_output_tokens {
        fields.set(server::limit_field(host), json!(max));
    }
    if let Some(temperature) = options.temperature {
        fields.set("temperature", json!(temperature));
    }
    if !request.tools.is_empty() {
        fields.set("tools", request.tools.iter().map(tool).collect());
    }
    fields.override_with(&options.parameters);
    fields.begin()
}

fn tool(spec: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "function": {
            "name": spec.name,
            "description": spec.description,
            "parameters": spec.input_schema,
        },
    })
}
