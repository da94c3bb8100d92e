//! One exchange with a provider, over any wire, and what was understood of it.

use std::sync::{Arc, Mutex};

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
const OPAQUE: [&str; 6] =
    ["data", "encrypted_content", "reasoning_opaque", "signature", "thoughtSignature", "thought_signature"];

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
pub(crate) async fn decode(ask: &Ask, connections: &Connections) -> Result<Value, Error> {
    let unknown = || Error::new(FailureClass::InvalidRequest, format!("unknown API: {}", ask.api));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let watched = Watched { codec: codec(ask).ok_or_else(unknown)?, seen: Arc::clone(&seen) };
    let client = Client::new(watched, Limits::default(), connections)?;
    let (parts, error) = listen(&client).await;
    let seen = seen.lock().expect("nobody panics while holding it").clone();
    Ok(understood(parts, error, &seen))
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
fn understood(parts: Vec<Part>, error: Option<Error>, seen: &Seen) -> Value {
    let mut told = Told::default();
    let mut answer = Accumulator::new(|| CallId(String::new()));
    let mut error = error;
    for part in parts {
        told.take(&part);
        error = error.or(answer.push(part).err());
    }
    let answer = match error {
        Some(error) => Err(error),
        None => answer.finish(),
    };
    // A provider that began to answer and stopped without saying why has said nothing of an end.
    let incomplete = answer.as_ref().is_err_and(|error| seen.began && error.class == FailureClass::Network);
    let word = answer.as_ref().err().and_then(|error| error.finish_raw.clone());
    let mut said = json!({
        "text": told.text,
        "reasoning_text": told.reasoning,
        "refusal": told.refusal,
        "tool_calls": told.calls.iter().enumerate().map(tool_call).collect::<Vec<_>>(),
        "other_items": told.others,
        "opaque": told.opaque,
        "finish_reason": finish(&answer).filter(|_| !incomplete),
        "finish_reason_raw": told.finish_raw.map_or(json!(word), |raw| json!(raw)),
        "usage": told.usage.map(|usage| counts(usage, seen.total_tokens)),
        "model": seen.model,
        "response_id": told.response_id,
        "error": answer.err().map(|error| json!({
            "http_status": seen.refused,
            "class": error.class,
            "retryable": is_retryable(error.class, seen),
            "retry_after_s": error.retry_after_ms.map(|ms| ms as f64 / 1_000.0),
        })),
    });
    if incomplete {
        said["incomplete"] = json!(true);
    }
    said
}

/// What was told of an answer, whether or not it came to its end.
#[derive(Default)]
struct Told {
    text: String,
    refusal: String,
    reasoning: String,
    calls: Vec<Call>,
    others: Vec<Value>,
    opaque: Vec<Value>,
    usage: Option<Usage>,
    response_id: Option<String>,
    finish_raw: Option<String>,
}

struct Call {
    index: u32,
    id: Option<String>,
    name: String,
    arguments: String,
    custom: bool,
}

impl Told {
    fn take(&mut self, part: &Part) {
        match part {
            Part::Started { response_id } => self.response_id.clone_from(response_id),
            Part::Text { text } => self.text.push_str(text),
            Part::Refusal { text } => self.refusal.push_str(text),
            Part::Reasoning { text } => self.reasoning.push_str(text),
            Part::ReasoningEnd { opaque } => self.opaque.extend(opaque.iter().flat_map(opaque_in)),
            Part::ToolCallStarted { index, id, name } => {
                let (id, name) = (id.clone(), name.clone());
                self.calls.push(Call { index: *index, id, name, arguments: String::new(), custom: false });
            }
            Part::ToolCallArguments { index, text } => {
                if let Some(call) = self.call(*index) {
                    call.arguments.push_str(text);
                }
            }
            Part::ToolCallEnd { index, opaque } => {
                let custom = opaque.as_ref().is_some_and(|it| it["custom"] == true);
                if let Some(call) = self.call(*index) {
                    call.custom = custom;
                }
                self.opaque.extend(opaque.iter().flat_map(opaque_in));
            }
            Part::Item { item: Item::Opaque { provider: _, value } } => {
                self.others.extend(kind(value));
                self.opaque.extend(signatures(value));
            }
            Part::Item { .. } => {}
            Part::Usage { usage } => self.usage = Some(*usage),
            Part::Finished { reason: _, raw } => self.finish_raw.clone_from(raw),
        }
    }

    fn call(&mut self, index: u32) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.index == index)
    }
}

fn finish(answer: &Result<Response, Error>) -> Option<&'static str> {
    Some(answer.as_ref().map_or("error", |answer| answer.finish.name()))
}

/// Tells whether the same request may pass later. Where the runtime would ask for something else, shorter or
/// whole, it does not, unless the provider says that it may.
fn is_retryable(class: FailureClass, seen: &Seen) -> bool {
    let passing = seen.limited || matches!(seen.refused, Some(408 | 409 | 429 | 500..));
    let asks_otherwise = matches!(class, FailureClass::ContextOverflow | FailureClass::ChainBroken);
    class.is_retryable() && (passing || !asks_otherwise)
}

/// Describes a call. One without an id gets one, as it does in a session.
fn tool_call((at, call): (usize, &Call)) -> Value {
    let id = call.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| format!("made_{}", at + 1));
    let mut said = json!({ "id": id, "name": call.name, "args_text": call.arguments });
    match serde_json::from_str::<Value>(&call.arguments) {
        Ok(args) => said["args"] = args,
        Err(_) if call.arguments.is_empty() => said["args"] = json!({}),
        Err(_) => {
            said["args"] = Value::Null;
            said["args_invalid"] = json!(true);
        }
    }
    if call.custom {
        said["kind"] = json!("custom");
    }
    said
}

/// Returns the kind of a block that is the provider's own.
fn kind(value: &Value) -> Option<Value> {
    value.get("type").or_else(|| value.pointer("/block/type")).cloned().or_else(|| {
        let part = value.get("part")?.as_object()?;
        part.iter().find(|(_, value)| value.is_object()).map(|(kind, _)| json!(kind))
    })
}

/// Describes the signatures of a block that is the provider's own. What else is in it is its content.
fn signatures(value: &Value) -> Vec<Value> {
    let held = ["part", "fields", "block"].iter().find_map(|key| value.get(key)).unwrap_or(value);
    held.as_object().into_iter().flatten().filter_map(|(kind, value)| described(kind, value)).collect()
}

/// Describes the signatures and what is encrypted, at any depth.
fn opaque_in(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.iter().flat_map(opaque_in).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(kind, value)| described(kind, value).map_or_else(|| opaque_in(value), |it| vec![it]))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Describes what goes back to the provider as it came, without showing it.
fn described(kind: &str, value: &Value) -> Option<Value> {
    let text = value.as_str().filter(|text| OPAQUE.contains(&kind) && !text.is_empty())?;
    let digest: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(json!({ "kind": kind, "chars": text.chars().count(), "sha256": digest }))
}

fn counts(usage: Usage, total: Option<u64>) -> Value {
    json!({
        "input_tokens": usage.input,
        "cached_input_tokens": usage.cached_input,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
        "cache_write_tokens": usage.cache_write,
        "total_tokens": total,
    })
}

/// What a provider says that the runtime has no use for.
#[derive(Clone, Default)]
struct Seen {
    /// The status of a refusal.
    refused: Option<u16>,
    /// An answer began.
    began: bool,
    /// It failed for a limit that is counted anew after a while.
    limited: bool,
    /// The model that answered, by the provider's name for it.
    model: Option<String>,
    /// The provider's own sum.
    total_tokens: Option<u64>,
}

impl Seen {
    /// Looks through a body, framed in any way and perhaps cut off.
    fn look(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if !text.starts_with(['{', '[']) {
            let data = text.split(['\n', '\r']).filter_map(|line| line.strip_prefix("data:"));
            let events = data.filter_map(|data| serde_json::from_str::<Value>(data.trim()).ok());
            return events.for_each(|event| self.note(&event));
        }
        let between = |c: char| c.is_whitespace() || c == ',';
        let mut rest = text.trim_start_matches('[');
        loop {
            let mut documents = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let Some(Ok(document)) = documents.next() else { return };
            self.note(&document);
            rest = rest[documents.byte_offset()..].trim_start_matches(between);
        }
    }

    fn note(&mut self, said: &Value) {
        let in_it = |places: &[&str]| {
            places.iter().find_map(|at| said.pointer(at).filter(|it| !it.is_null())).cloned()
        };
        let model = in_it(&[
            "/model",
            "/modelVersion",
            "/message/model",
            "/response/model",
            "/response/modelVersion",
        ]);
        self.model =
            self.model.take().or_else(|| Some(model?.as_str()?.to_owned()).filter(|it| !it.is_empty()));
        let total = in_it(&[
            "/usage/total_tokens",
            "/x_groq/usage/total_tokens",
            "/choices/0/usage/total_tokens",
            "/response/usage/total_tokens",
            "/usageMetadata/totalTokenCount",
            "/response/usageMetadata/totalTokenCount",
        ]);
        let code = in_it(&["/response/error/code", "/error/code", "/code"]);
        self.limited |= code.is_some_and(|code| code == "rate_limit_exceeded");
        // Servers also write it as a text, or as 9.0.
        let whole = |total: Value| total.to_string().trim_matches('"').split('.').next()?.parse().ok();
        self.total_tokens = total.and_then(whole).or(self.total_tokens);
    }
}

/// A codec that also notes what nobody else asks for.
struct Watched {
    codec: Box<dyn Codec>,
    seen: Arc<Mutex<Seen>>,
}

impl Codec for Watched {
    fn identity(&self) -> Identity {
        self.codec.identity()
    }

    fn request(&self, request: &Request) -> HttpRequest {
        self.codec.request(request)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        self.seen.lock().expect("nobody panics while holding it").began = true;
        Box::new(Watching { decoder: self.codec.decoder(), body: Vec::new(), seen: Arc::clone(&self.seen) })
    }

    fn failure(&self, head: &ResponseHead, body: &[u8]) -> Error {
        self.seen.lock().expect("nobody panics while holding it").refused = Some(head.status);
        // Only a wait that was asked for is printed, not one worked out from when a limit is counted anew.
        let is_reset = |name: &str| name.to_ascii_lowercase().contains("ratelimit");
        let headers = head.headers.iter().filter(|(name, _)| !is_reset(name)).cloned().collect();
        self.codec.failure(&ResponseHead { headers, ..*head }, body)
    }
}

/// A decoder that keeps the bytes it read.
struct Watching {
    decoder: Box<dyn Decoder>,
    body: Vec<u8>,
    seen: Arc<Mutex<Seen>>,
}

impl Decoder for Watching {
    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        self.body.extend_from_slice(bytes);
        self.decoder.push(bytes, parts)
    }

    fn finish(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.decoder.finish(parts)
    }

    fn has_failed(&self) -> bool {
        self.decoder.has_failed()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.seen.lock().expect("nobody panics while holding it").look(&self.body);
    }
}
