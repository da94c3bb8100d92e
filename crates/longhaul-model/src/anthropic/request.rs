//! From a request to the JSON body: the messages last, behind the fields that never change. Markers say up to where
//! the provider is to keep what it read. They move with every request, so they are put in as the body is made and
//! are no part of what is kept for the next.

use longhaul_session::agent::{Request, ToolSpec};
use longhaul_session::item::Item;
use serde_json::{Map, Value, json};

use super::message::{self, Place};
use super::{Cache, DEFAULT_MAX_OUTPUT_TOKENS, Options, opaque};
use crate::written::{Begun, Written};

const MESSAGES: &str = "messages";
const CONTAINER: &str = "container";
const OUTPUT_CONFIG: &str = "output_config";

/// Room for the markers and the end of a body, in bytes.
const REST_BYTES: usize = 256;

/// Writes the body of a request, and tells whether it asks for a stream.
pub(super) fn body(
    options: &Options,
    host: &str,
    written: &Written<Place>,
    request: &Request,
) -> (Vec<u8>, bool) {
    let streamed = match options.parameters.get("stream") {
        Some(value) => *value == Value::Bool(true),
        None => options.stream,
    };
    if options.parameters.contains_key(MESSAGES) {
        return (to_bytes(&head(options, request)), streamed);
    }
    let mut begun = written.take(request).unwrap_or_else(|| begin(options, request));
    let new = &request.items[begun.written()..];
    let mut place = begun.place;
    let settled = message::write(host, options.replay_reasoning, new, &mut begun.bytes, &mut place);
    let mut body = marked(&begun.bytes, &place, options.cache);
    body.extend_from_slice(place.closing());
    if let Some(id) = container(host, request).filter(|_| !options.parameters.contains_key(CONTAINER)) {
        body.extend_from_slice(b",\"container\":");
        body.extend_from_slice(&to_bytes(&Value::from(id)));
    }
    body.push(b'}');
    begun.bytes.truncate(settled.bytes);
    begun.goes_on(&new[..settled.items]);
    begun.place = settled.place;
    written.keep(begun);
    (body, streamed)
}

/// Writes all that comes before the messages.
fn begin(options: &Options, request: &Request) -> Begun<Place> {
    let head = head(options, request);
    let mut bytes = to_bytes(&head);
    bytes.pop();
    if !head.is_empty() {
        bytes.push(b',');
    }
    bytes.extend_from_slice(b"\"messages\":[");
    Begun::new(request, bytes)
}

/// Copies what is written and puts the markers in: where the request before ended, so that what it wrote is found
/// however long the answer was, and at the end, for the next. A third stands behind the system prompt.
fn marked(bytes: &[u8], place: &Place, cache: Cache) -> Vec<u8> {
    let marker = marker(cache).map(|marker| [br#","cache_control":"#.to_vec(), to_bytes(&marker)].concat());
    let mut body = Vec::with_capacity(bytes.len() + REST_BYTES);
    let mut copied = 0;
    if let Some(marker) = marker {
        let places = [place.before_answer.filter(|_| place.before_answer != place.newest), place.newest];
        for at in places.into_iter().flatten() {
            body.extend_from_slice(&bytes[copied..at]);
            body.extend_from_slice(&marker);
            copied = at;
        }
    }
    body.extend_from_slice(&bytes[copied..]);
    body
}

fn marker(cache: Cache) -> Option<Value> {
    match cache {
        Cache::Off => None,
        Cache::FiveMinutes => Some(json!({ "type": "ephemeral" })),
        Cache::OneHour => Some(json!({ "type": "ephemeral", "ttl": "1h" })),
    }
}

/// Makes the fields of a body but for the messages.
fn head(options: &Options, request: &Request) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("model", json!(options.model));
    set("max_tokens", json!(options.max_output_tokens.unwrap_or(DEFAULT_MAX_OUTPUT_TOKENS)));
    set("stream", json!(options.stream));
    if let Some(temperature) = options.temperature {
        set("temperature", json!(temperature));
    }
    if let Some(output) = &options.output {
        set(OUTPUT_CONFIG, json!({ "format": { "type": "json_schema", "schema": output.schema } }));
    }
    let mut tools: Vec<Value> = request.tools.iter().map(tool).collect();
    match marker(options.cache) {
        Some(marker) if !request.system.trim().is_empty() => {
            let text = &request.system;
            set("system", json!([{ "type": "text", "text": text, "cache_control": marker }]));
        }
        Some(marker) => tools.last_mut().into_iter().for_each(|tool| tool["cache_control"] = marker.clone()),
        None if !request.system.trim().is_empty() => {
            set("system", json!(request.system));
        }
        None => {}
    }
    tools.extend(options.provider_tools.iter().cloned());
    if !tools.is_empty() {
        set("tools", Value::Array(tools));
    }
    for (name, value) in &options.parameters {
        match (fields.get_mut(name), value) {
            (Some(Value::Object(kept)), Value::Object(more)) if name == OUTPUT_CONFIG => {
                kept.extend(more.clone());
            }
            (Some(_) | None, value) => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
    fields.retain(|_, value| !value.is_null());
    fields
}

fn tool(spec: &ToolSpec) -> Value {
    json!({ "name": spec.name, "description": spec.description, "input_schema": spec.input_schema })
}

/// Returns the container in which the newest answer's tools ran at the provider, while the turn goes on. For the
/// next turn it may be gone, and a new one is as good.
fn container<'a>(host: &str, request: &'a Request) -> Option<&'a str> {
    for item in request.items.iter().rev() {
        match &**item {
            Item::ToolResult(_) | Item::Steering { .. } | Item::ContextFile { .. } => {}
            Item::Opaque { provider: _, value } => return opaque::container_for(host, value),
            Item::User { .. }
            | Item::Assistant { .. }
            | Item::Reasoning { .. }
            | Item::ToolCall(_)
            | Item::Summary { .. }
            | Item::Attachment(_)
            | Item::File { .. }
            | Item::Redacted => return None,
        }
    }
    None
}

fn to_bytes(value: &(impl serde::Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(value).expect("values and texts are always JSON")
}
