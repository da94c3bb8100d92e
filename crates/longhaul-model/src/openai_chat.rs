//! The Chat Completions format of OpenAI, as it is spoken by many others: OpenRouter, Groq, xAI,
//! DeepSeek, llama.cpp, Ollama, vLLM. What an answer means is fixed in [`crate::part`]; carrying
//! bytes is left to [`crate::http`].

mod assemble;
mod calls;
mod decoder;
mod message;
mod reasoning;
mod request;
mod server;
pub(crate) mod usage;

#[cfg(test)]
pub(crate) use message::messages;
pub(crate) use message::wire_arguments;

use std::sync::Arc;

use longhaul_session::agent::Request;
use longhaul_session::failure::FailureClass;
use longhaul_session::media;
use serde_json::{Map, Value};

use crate::base_url::{host, with_query, without_query};
use crate::codec::{Decoder, HttpRequest, Method, ResponseHead};
use crate::error::classify;
use crate::http::{Client, Connections, Limits};
use crate::reader::Reader;
use crate::secret::Secret;
use crate::{Error, Identity, Model};
use assemble::Assembler;

/// Stands in the opaque values of items beside the host, so that no other wire and no other server
/// gets them.
const API: &str = "openai-chat";

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API begins, such as `https://api.openai.com/v1` or `http://localhost:8080/v1`. A
    /// query is kept, as Azure wants it.
    pub base_url: String,
    /// The model's name, as the provider knows it.
    pub model: String,
    /// Sent as `Authorization: Bearer …`. Local servers need none.
    pub key: Option<Secret>,
    /// The most tokens of one answer.
    pub max_output_tokens: Option<u64>,
    /// How much chance there is in the answers.
    pub temperature: Option<f64>,
    /// Asks for the answer as a stream.
    pub stream: bool,
    /// Asks for the usage at the end of a stream. A few servers do not know the field.
    pub include_usage: bool,
    /// Sends reasoning back with the answer it belongs to, in the field it came in.
    pub replay_reasoning: bool,
    /// More fields of the request. They override all others; null removes a field.
    pub parameters: Map<String, Value>,
    /// More headers. Their values are kept as secret as the key.
    pub headers: Vec<(String, Secret)>,
    /// How long to wait for what.
    pub limits: Limits,
    /// The connections it uses; clones of them, where models are to share them.
    pub connections: Connections,
}

impl Options {
    /// Returns the options that need no decision: a stream with usage, and nothing else set.
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Options {
            base_url: base_url.into(),
            model: model.into(),
            key: None,
            max_output_tokens: None,
            temperature: None,
            stream: true,
            include_usage: true,
            replay_reasoning: true,
            parameters: Map::new(),
            headers: Vec::new(),
            limits: Limits::default(),
            connections: Connections::default(),
        }
    }
}

/// Pictures that servers of this format take.
pub(crate) const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Tells whether files of a media type can be given: pictures, PDFs, texts, and sounds as WAV or MP3. Whether a
/// server knows what to do with one is up to its model.
#[must_use]
pub fn takes(media_type: &str) -> bool {
    IMAGES.contains(&media_type)
        || matches!(media_type, "application/pdf" | "audio/wav" | "audio/mpeg")
        || media::is_text(media_type)
}

/// Makes a model that is asked over HTTP. Nothing is sent yet.
///
/// # Errors
/// An option cannot work: the base URL, a header, the certificates. The class is
/// [`FailureClass::InvalidRequest`].
pub fn openai_chat(options: Options) -> Result<impl Model, Error> {
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
    written: Arc<crate::written::Written>,
}

impl Codec {
    /// Prepares what all requests share.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let (base, query) = without_query(&options.base_url);
        let base = base.strip_suffix("/chat/completions").unwrap_or(base);
        let url = with_query(&format!("{base}/chat/completions"), query);
        let offers_url = with_query(&format!("{base}/models"), query);
        let host = host(base);
        Codec { options, url, offers_url, host, written: Arc::default() }
    }

    /// Says which option mends a refusal.
    fn advice(&self, error: &Error) -> Option<&'static str> {
        let names = |words: &[&str]| words.iter().any(|word| error.message.contains(word));
        if error.class != FailureClass::InvalidRequest {
            return None;
        }
        if names(&["stream_options", "include_usage"]) {
            return Some("This server does not know `stream_options`: switch `include_usage` off");
        }
        if names(&["'max_completion_tokens' instead"]) {
            return Some(
                "Leave `max_output_tokens` out, and set `max_completion_tokens` among the `parameters`",
            );
        }
        let of_reasoning =
            ["reasoning_content", "reasoning_details", ".reasoning`", "'reasoning' is unsupported"];
        match (names(&of_reasoning), names(&["issing", "must be passed back"]), self.options.replay_reasoning)
        {
            (true, false, true) => Some("This server takes no reasoning back: switch `replay_reasoning` off"),
            (true, true, false) => Some("This server wants reasoning back: switch `replay_reasoning` on"),
            _ => None,
        }
    }

    fn headers(&self, streamed: bool) -> Vec<(String, Secret)> {
        let accept = if streamed { "text/event-stream" } else { "application/json" };
        let mut headers = vec![
            ("content-type".to_owned(), Secret::new("application/json")),
            ("accept".to_owned(), Secret::new(accept)),
        ];
        if let Some(key) = self.options.key.as_ref().filter(|key| !key.expose().is_empty()) {
            headers.push(("authorization".to_owned(), Secret::new(format!("Bearer {}", key.expose()))));
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
        let error = classify(head, body);
        match self.advice(&error) {
            Some(advice) => error.with_advice(advice),
            None => error,
        }
    }
}
