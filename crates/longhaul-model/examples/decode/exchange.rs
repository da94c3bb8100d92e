//! One exchange with a provider, over any wire, and what was understood of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use futures_util::StreamExt;
use longhaul_model::codec::{Codec, Decoder, HttpRequest, ResponseHead};
use longhaul_model::http::{Client, Connections, Limits};
use longhaul_model::{
    Accumulator, Error, Identity, Model, ModelCall, Part, Response, Secret, anthropic, gemini, openai_chat,
    openai_responses,
};
use longhaul_session::agent::{Request, ToolSpec};
use longhaul_session::failure::FailureClass;
use longhaul_session::id::CallId;
use longhaul_session::item::{EffectClass, Item};
use longhaul_session::usage::Usage;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// The names of fields whose texts mean nothing here and go back as they came.
const OPAQUE: [&str; 5] = ["data", "encrypted_content", "signature", "thoughtSignature", "thought_signature"];

/// Whom to ask, and how.
pub(crate) struct Ask {
    pub(crate) url: String,
    pub(crate) api: String,
    pub(crate) model: String,
    pub(crate) key: Option<Secret>,
    pub(crate) stream: bool,
}

/// Makes the codec of a wire.
fn codec(ask: &Ask) -> Option<Box<dyn Codec>> {
    let Ask { url, api, model, key, stream } = ask;
    let (key, stream) = (key.clone(), *stream);
    Some(match api.as_str() {
        "openai-chat" => Box::new(openai_chat::Codec::new(openai_chat::Options {
            key,
            stream,
            ..openai_chat::Options::new(url, model)
        })),
        "openai-responses" => Box::new(openai_responses::Codec::new(openai_responses::Options {
            key,
            stream,
            ..openai_responses::Options::new(url, model)
        })),
        "anthropic" => Box::new(anthropic::Codec::new(anthropic::Options {
            key,
            stream,
            ..anthropic::Options::new(url, model)
        })),
        "gemini" => {
            Box::new(gemini::Codec::new(gemini::Options { key, stream, ..gemini::Options::new(url, model) }))
        }
        _ => return None,
    })
}

/// Makes one call and returns what was understood.
///
/// # Errors
/// Nothing could be sent: the wire is unknown, or the URL or the key cannot be used.
pub(crate) async fn decode(ask: &Ask) -> Result<Value, Error> {
    let unknown = || Error::new(FailureClass::InvalidRequest, format!("unknown API: {}", ask.api));
    let status = Arc::new(AtomicU16::new(0));
    let watched = Watched { codec: codec(ask).ok_or_else(unknown)?, status: Arc::clone(&status) };
    let client = Client::new(watched, Limits::default(), &Connections::default())?;
    let (parts, error) = listen(&client).await;
    let status = Some(status.load(Ordering::Relaxed)).filter(|status| *status > 0);
    let mut understood = understood(parts, error, status);
    // What a provider does not say is not said for it.
    if let Some(total) = understood.pointer_mut("/usage/total_tokens").filter(|_| ask.api == "anthropic") {
        *total = Value::Null;
    }
    Ok(understood)
}

async fn listen(client: &impl Model) -> (Vec<Part>, Option<Error>) {
    let cancel = CancellationToken::new();
    let call = ModelCall { request: Arc::new(question()), attempt: 0, cancel, resume: None };
    let mut stream = match client.call(call).await {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await {
        match part {
            Ok(part) => parts.push(part),
            Err(error) => return (parts, Some(error)),
        }
    }
    (parts, None)
}

fn question() -> Request {
    let schema =
        json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    Request {
        system: "Answer in one sentence.".to_owned(),
        items: vec![Arc::new(Item::User { text: "What is the weather in Florence?".to_owned() })],
        tools: Arc::new(vec![ToolSpec {
            name: "weather".to_owned(),
            description: "Tells the weather in a city.".to_owned(),
            input_schema: schema,
            effect: EffectClass::Pure,
            exclusive: false,
            stop_after: false,
        }]),
        previous: None,
    }
}

/// Says what became of an answer, finished or not.
fn understood(parts: Vec<Part>, error: Option<Error>, status: Option<u16>) -> Value {
    let (mut text, mut reasoning) = (String::new(), String::new());
    let (mut response_id, mut usage, mut raw) = (None, None, None);
    let mut made = 0;
    let mut answer = Accumulator::new(|| {
        made += 1;
        CallId(format!("made_{made}"))
    });
    let mut error = error;
    for part in parts {
        match &part {
            Part::Text { text: piece } => text.push_str(piece),
            Part::Reasoning { text: piece } => reasoning.push_str(piece),
            Part::Started { response_id: id } => response_id.clone_from(id),
            Part::Usage { usage: newest } => usage = Some(*newest),
            Part::Finished { raw: word, .. } => raw.clone_from(word),
            Part::ReasoningEnd { .. }
            | Part::ToolCallStarted { .. }
            | Part::ToolCallArguments { .. }
            | Part::ToolCallEnd { .. }
            | Part::Item { .. } => {}
        }
        error = error.or(answer.push(part).err());
    }
    let answer = match error {
        Some(error) => Err(error),
        None => answer.finish(),
    };
    let items = answer.as_ref().map_or(&[][..], |answer| &answer.items);
    json!({
        "text": text,
        "reasoning_text": reasoning,
        "tool_calls": items.iter().filter_map(tool_call).collect::<Vec<_>>(),
        "other_items": items.iter().filter_map(other).collect::<Vec<_>>(),
        "opaque": items.iter().filter_map(kept).flat_map(opaque).collect::<Vec<_>>(),
        "finish_reason": finish(&answer),
        "finish_reason_raw": raw,
        "usage": usage.map(counts),
        "response_id": response_id,
        "error": answer.err().map(|error| json!({
            "http_status": status,
            "class": error.class,
            "retryable": is_retryable(error.class),
            "retry_after_s": error.retry_after_ms.map(|ms| ms as f64 / 1_000.0),
        })),
    })
}

fn finish(answer: &Result<Response, Error>) -> &'static str {
    answer.as_ref().map_or("error", |answer| answer.finish.name())
}

/// Tells whether the same request may pass later. One that is too long never does: the runtime makes it shorter.
fn is_retryable(class: FailureClass) -> bool {
    class.is_retryable() && class != FailureClass::ContextOverflow
}

fn tool_call(item: &Item) -> Option<Value> {
    let call = item.tool_call()?;
    let args = serde_json::from_str::<Value>(&call.arguments);
    let mut said = json!({ "id": call.id, "name": call.name, "args_text": call.arguments });
    if args.is_err() {
        said["args_invalid"] = json!(true);
    }
    said["args"] = args.unwrap_or_default();
    Some(said)
}

/// Returns the kind of a block that is the provider's own.
fn other(item: &Item) -> Option<Value> {
    let Item::Opaque { provider: _, value } = item else { return None };
    value.get("type").or_else(|| value.pointer("/block/type")).cloned().or_else(|| {
        let part = value.get("part")?.as_object()?;
        part.iter().find(|(_, value)| value.is_object()).map(|(kind, _)| json!(kind))
    })
}

/// Returns what goes back to the provider with an item.
fn kept(item: &Item) -> Option<&Value> {
    match (item.tool_call(), item) {
        (Some(call), _) => call.opaque.as_ref(),
        (None, Item::Reasoning { opaque, .. }) => opaque.as_ref(),
        (None, Item::Opaque { value, .. }) => Some(value),
        (None, _) => None,
    }
}

/// Describes the signatures and what is encrypted, without showing them.
fn opaque(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.iter().flat_map(opaque).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(kind, value)| {
                let named = OPAQUE.contains(&kind.as_str());
                let Some(text) = value.as_str().filter(|text| named && !text.is_empty()) else {
                    return opaque(value);
                };
                let digest: String =
                    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                vec![json!({ "kind": kind, "chars": text.chars().count(), "sha256": digest })]
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn counts(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "cached_input_tokens": usage.cached_input,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
        "cache_write_tokens": usage.cache_write,
        "total_tokens": usage.input + usage.output,
    })
}

/// A codec that notes the status of a refusal: the client tells only what it means.
struct Watched {
    codec: Box<dyn Codec>,
    status: Arc<AtomicU16>,
}

impl Codec for Watched {
    fn identity(&self) -> Identity {
        self.codec.identity()
    }

    fn request(&self, request: &Request) -> HttpRequest {
        self.codec.request(request)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        self.codec.decoder()
    }

    fn failure(&self, head: &ResponseHead, body: &[u8]) -> Error {
        self.status.store(head.status, Ordering::Relaxed);
        // Only a wait that was asked for is printed, not one worked out from when a limit is counted anew.
        let is_reset = |name: &str| name.to_ascii_lowercase().contains("ratelimit");
        let headers = head.headers.iter().filter(|(name, _)| !is_reset(name)).cloned().collect();
        self.codec.failure(&ResponseHead { headers, ..*head }, body)
    }
}
