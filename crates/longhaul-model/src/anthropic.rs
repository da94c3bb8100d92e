//! The Messages format of Anthropic, as others speak it too: OpenRouter, DeepSeek, Together, llama.cpp, Ollama,
//! vLLM. What an answer means is fixed in [`crate::part`]; carrying bytes is left to [`crate::http`].

mod assemble;
mod calls;
mod decoder;
mod message;
mod opaque;
mod request;
mod usage;

use std::sync::Arc;

use longhaul_session::agent::{OutputFormat, Request};
use longhaul_session::failure::FailureClass;
use longhaul_session::media;
use serde_json::{Map, Value};

use crate::base_url::{host, with_query, without_query};
use crate::codec::{Decoder, HttpRequest, Method, ResponseHead};
use crate::error::classify;
use crate::http::{Client, Connections, Limits};
use crate::reader::Reader;
use crate::secret::Secret;
use crate::written::Written;
use crate::{Error, Identity, Model};
use assemble::Assembler;

/// The revision of the API that is spoken.
const VERSION: &str = "2023-06-01";

/// The most tokens of one answer where the options do not say: the API demands a number, and no model since
/// Claude 4 refuses this one.
pub const DEFAULT_MAX_OUTPUT_TOKENS: u64 = 32_000;

/// The longest name of a request that is shown, in characters.
const MAX_REQUEST_ID_CHARS: usize = 80;

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API begins, such as `https://api.anthropic.com`; with or without `/v1`. A query is kept.
    pub base_url: String,
    /// The model's name, as the provider knows it.
    pub model: String,
    /// Sent as `x-api-key`. Local servers need none.
    pub key: Option<Secret>,
    /// Sends the key as `Authorization: Bearer …` instead: for tokens of OAuth, and for gateways.
    pub bearer: bool,
    /// The most tokens of one answer; [`DEFAULT_MAX_OUTPUT_TOKENS`] if not said.
    pub max_output_tokens: Option<u64>,
    /// How much chance there is in the answers.
    pub temperature: Option<f64>,
    /// Asks for the answer as a stream.
    pub stream: bool,
    /// How long the provider is to keep what it read, so that the next request need not be read again.
    pub cache: Cache,
    /// Sends reasoning back with the answer it belongs to, as the API wants it where tools are used.
    pub replay_reasoning: bool,
    /// Tools that the provider runs itself, in its own form; they follow the request's own.
    pub provider_tools: Vec<Value>,
    /// The form every answer must have.
    pub output: Option<OutputFormat>,
    /// More fields of the request. They override all others; null removes a field. Of `output_config`, only the
    /// fields that are named.
    pub parameters: Map<String, Value>,
    /// More headers, such as `anthropic-beta`. Their values are kept as secret as the key.
    pub headers: Vec<(String, Secret)>,
    /// How long to wait for what.
    pub limits: Limits,
    /// The connections it uses; clones of them, where models are to share them.
    pub connections: Connections,
}

/// How long a provider is to keep a prompt it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Not at all: the request holds no marker. For servers that do not know them.
    Off,
    /// Five minutes after it was last used. Writing costs a quarter more than reading afresh.
    #[default]
    FiveMinutes,
    /// An hour after it was last used, for agents that wait long for their tools. Writing costs twice as much.
    OneHour,
}

impl Options {
    /// Returns the options that need no decision: a stream, with cache markers, and nothing else set.
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Options {
            base_url: base_url.into(),
            model: model.into(),
            key: None,
            bearer: false,
            max_output_tokens: None,
            temperature: None,
            stream: true,
            cache: Cache::default(),
            replay_reasoning: true,
            provider_tools: Vec::new(),
            output: None,
            parameters: Map::new(),
            headers: Vec::new(),
            limits: Limits::default(),
            connections: Connections::default(),
        }
    }
}

/// The largest picture the API takes, in bytes: it counts five mebibytes, in base64.
pub const MAX_IMAGE_BYTES: u64 = 5 * 1024 * 1024 / 4 * 3;

/// Tells whether files of a media type can be given: pictures, PDFs and texts.
#[must_use]
pub fn takes(media_type: &str) -> bool {
    message::IMAGES.contains(&media_type) || media_type == "application/pdf" || media::is_text(media_type)
}

/// Makes a model that is asked over HTTP. Nothing is sent yet.
///
/// # Errors
/// An option cannot work: the base URL, a header, the certificates. The class is
/// [`FailureClass::InvalidRequest`].
pub fn anthropic(options: Options) -> Result<impl Model, Error> {
    let (limits, connections) = (options.limits, options.connections.clone());
    Client::new(Codec::new(options), limits, &connections)
}

/// The wire format, without a connection.
#[derive(Clone, Debug)]
pub struct Codec {
    options: Options,
    url: String,
    /// Where the list of models is.
    offers_url: String,
    /// Who made what is opaque: other servers must not get it.
    host: String,
    written: Arc<Written<message::Place>>,
}

impl Codec {
    /// Prepares what all requests share.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let (base, query) = without_query(&options.base_url);
        let base = base.strip_suffix("/messages").unwrap_or(base);
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let url = with_query(&format!("{base}/v1/messages"), query);
        let listed = if query.is_empty() { "limit=1000" } else { &format!("{query}&limit=1000") };
        let offers_url = with_query(&format!("{base}/v1/models"), listed);
        let host = host(base);
        Codec { options, url, offers_url, host, written: Arc::default() }
    }

    fn headers(&self, streamed: bool) -> Vec<(String, Secret)> {
        let accept = if streamed { "text/event-stream" } else { "application/json" };
        let mut headers = vec![
            ("content-type".to_owned(), Secret::new("application/json")),
            ("accept".to_owned(), Secret::new(accept)),
            ("anthropic-version".to_owned(), Secret::new(VERSION)),
        ];
        if let Some(key) = self.options.key.as_ref().filter(|key| !key.expose().is_empty()) {
            headers.push(match self.options.bearer {
                true => ("authorization".to_owned(), Secret::new(format!("Bearer {}", key.expose()))),
                false => ("x-api-key".to_owned(), key.clone()),
            });
        }
        headers.extend(self.options.headers.iter().cloned());
        headers
    }
}

impl crate::codec::Codec for Codec {
    fn identity(&self) -> Identity {
        Identity { provider: self.host.clone(), model: self.options.model.clone(), scripted: false }
    }

    fn request(&self, request: &Request) -> HttpRequest {
        let (body, streamed) = request::body(&self.options, &self.host, &self.written, request);
        let headers = self.headers(streamed);
        HttpRequest { method: Method::Post, url: self.url.clone(), headers, body, streamed }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Reader::new(Assembler::new(&self.host)))
    }

    fn offers(&self) -> Option<HttpRequest> {
        Some(HttpRequest::get(self.offers_url.clone(), self.headers(false)))
    }

    fn failure(&self, head: &ResponseHead, body: &[u8]) -> Error {
        let error = advised(classify(head, body));
        with_request_id(error, head.header("request-id"))
    }
}

/// Says which option to change, where the provider names what it does not like.
fn advised(error: Error) -> Error {
    let names = |fields: &[&str]| fields.iter().any(|field| error.message.contains(field));
    let advice = match error.class == FailureClass::InvalidRequest {
        true if names(&["cache_control"]) => "This server does not take cache markers: switch `cache` off",
        true if names(&["max_tokens"]) => "Set `max_output_tokens` to what the model can write",
        true if names(&["signature", "thinking blocks"]) => {
            "Its reasoning cannot be sent back: switch `replay_reasoning` off"
        }
        true | false => return error,
    };
    error.with_advice(advice)
}

/// Names the request, which is what the provider's support asks for.
fn with_request_id(error: Error, id: Option<&str>) -> Error {
    let plain = |id: &&str| {
        (1..=MAX_REQUEST_ID_CHARS).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    match id.filter(plain) {
        Some(id) => Error { message: format!("{} (request {id})", error.message), ..error },
        None => error,
    }
}
