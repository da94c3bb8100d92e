//! From a request to the JSON body. The fields that never change come first and the messages last,
//! so that two requests of one conversation begin alike for as long as possible.

use longhaul_session::agent::{Request, ToolSpec};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::Options;
use super::message::{Message, messages};

const MESSAGES: &str = "messages";

/// Writes the body of a request, and tells whether it asks for a stream.
pub(crate) fn body(options: &Options, host: &str, request: &Request) -> (Vec<u8>, bool) {
    let mut fields = Fields(Vec::new());
    fields.set("model", json!(options.model));
    fields.set("stream", json!(options.stream));
    if options.stream && options.include_usage {
        fields.set("stream_options", json!({ "include_usage": true }));
    }
    if let Some(max) = options.max_output_tokens {
        fields.set(max_tokens_field(host), json!(max));
    }
    if let Some(temperature) = options.temperature {
        fields.set("temperature", json!(temperature));
    }
    if !request.tools.is_empty() {
        fields.set("tools", request.tools.iter().map(tool).collect());
    }
    let replaced = options.parameters.contains_key(MESSAGES);
    for (name, value) in &options.parameters {
        fields.set(name, value.clone());
    }
    let messages = messages(host, options.replay_reasoning, &request.system, &request.items);
    let messages = (!replaced).then_some(messages);
    let streamed = fields.0.iter().any(|(name, value)| name == "stream" && *value == Value::Bool(true));
    let body = serde_json::to_vec(&Body { fields: &fields, messages });
    (body.expect("values and texts are always JSON"), streamed)
}

/// OpenAI's newer models know the limit by the new name only, and other servers by the old one.
fn max_tokens_field(host: &str) -> &'static str {
    let name = host.split(':').next().unwrap_or_default();
    let openai = name == "api.openai.com" || name.ends_with(".openai.azure.com");
    if openai { "max_completion_tokens" } else { "max_tokens" }
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

/// The fields of a body but for the messages, in the order they were first set.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|(it, _)| it == name) {
            Some((_, kept)) => *kept = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

struct Body<'a> {
    fields: &'a Fields,
    messages: Option<Vec<Message<'a>>>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.fields.0.iter().filter(|(_, value)| !value.is_null()) {
            map.serialize_entry(name, value)?;
        }
        if let Some(messages) = &self.messages {
            map.serialize_entry(MESSAGES, messages)?;
        }
        map.end()
    }
}
