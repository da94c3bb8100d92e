//! Google's generateContent, as the Gemini API and Vertex AI speak it. What an answer means is fixed in
//! [`crate::part`]; carrying bytes is left to [`crate::http`].

mod address;
mod assemble;
mod calls;
mod contents;
mod decoder;
mod finish;
mod opaque;
mod request;
mod usage;

use std::sync::Arc;

use longhaul_session::agent::{OutputFormat, Request};
use longhaul_session::failure::FailureClass;
use longhaul_session::media;
use serde_json::{Map, Value};

use crate::codec::{Decoder, HttpRequest, Method, ResponseHead};
use crate::error::classify;
use crate::http::{Client, Connections, Limits};
use crate::reader::Reader;
use crate::secret::Secret;
use crate::written::Written;
use crate::{Error, Identity, Model};
use address::Address;
use assemble::Assembler;

/// Stands in the opaque values of items beside the host, so that no other wire and no other server
/// gets them.
const API: &str = "gemini";

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API begins, such as `https://generativelanguage.googleapis.com` or, for Vertex AI,
    /// `https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google`. Without a
    /// version, `/v1beta` is added. A query is kept, but for a key, which is sent as a header.
    pub base_url: String,
    /// The model's name, with or without `models/`.
    pub model: String,
    /// Sent as `x-goog-api-key`. Where an access token is wanted, it is a header of its own.
    pub key: Option<Secret>,
    /// The most tokens of one answer, thoughts included.
    pub max_output_tokens: Option<u64>,
    /// How much chance there is in the answers.
    pub temperature: Option<f64>,
    /// Asks for the answer as a stream.
    pub stream: bool,
    /// The form every answer must have.
    pub output: Option<OutputFormat>,
    /// Tools that Google runs itself, word for word: `{"googleSearch": {}}`.
    pub provider_tools: Vec<Value>,
    /// More fields of the request. They override all others; null removes a field. Objects are merged, so
    /// that one field of `generationConfig` can be set without the others.
    pub parameters: Map<String, Value>,
    /// More headers. Their values are kept as secret as the key.
    pub headers: Vec<(String, Secret)>,
    /// How long to wait for what.
    pub limits: Limits,
    /// The connections it uses; clones of them, where models are to share them.
    pub connections: Connections,
}

impl Options {
    /// Returns the options that need no decision: a stream, and nothing else set.
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Options {
            base_url: base_url.into(),
            model: model.into(),
            key: None,
            max_output_tokens: None,
            temperature: None,
            stream: true,
            output: None,
            provider_tools: Vec::new(),
            parameters: Map::new(),
            headers: Vec::new(),
            limits: Limits::default(),
            connections: Connections::default(),
        }
    }
}

/// Tells whether files of a media type can be given: pictures but for GIF, sounds, films, PDFs and texts.
#[must_use]
pub fn takes(media_type: &str) -> bool {
    const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "image/heic"];
    IMAGES.contains(&media_type)
        || media_type.starts_with("audio/")
        || media_type.starts_with("video/")
        || media_type == "application/pdf"
        || media::is_text(media_type)
}

/// Makes a model that is asked over HTTP. Nothing is sent yet.
///
/// # Errors
/// An option cannot work: the base URL, a header, the certificates. The class is
/// [`FailureClass::InvalidRequest`].
pub fn gemini(options: Options) -> Result<impl Model, Error> {
    let (limits, connections) = (options.limits, options.connections.clone());
    Client::new(Codec::new(options), limits, &connections)
}

/// The wire format, without a connection.
#[derive(Clone, Debug)]
pub struct Codec {
    options: Options,
    address: Address,
    written: Arc<Written>,
}

impl Codec {
    /// Prepares what all requests share.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let address = Address::new(&options.base_url, &options.model, options.stream);
        Codec { options, address, written: Arc::default() }
    }

    fn key(&self) -> Option<&Secret> {
        let given = self.options.key.as_ref().filter(|key| !key.expose().is_empty());
        given.or(self.address.key.as_ref())
    }

    fn headers(&self, streamed: bool) -> Vec<(String, Secret)> {
        let accept = if streamed { "text/event-stream" } else { "application/json" };
        let mut headers = vec![
            ("content-type".to_owned(), Secret::new("application/json")),
            ("accept".to_owned(), Secret::new(accept)),
        ];
        headers.extend(self.key().map(|key| ("x-goog-api-key".to_owned(), key.clone())));
        headers.extend(self.options.headers.iter().cloned());
        headers
    }
}

impl crate::codec::Codec for Codec {
    fn identity(&self) -> Identity {
        let (provider, model) = (self.address.host.clone(), self.options.model.clone());
        Identity { provider, model, scripted: false }
    }

    fn request(&self, request: &Request) -> HttpRequest {
        let streamed = self.options.stream;
        let body = request::body(&self.options, &self.address.host, &self.written, request);
        let (url, headers) = (self.address.url.clone(), self.headers(streamed));
        HttpRequest { method: Method::Post, url, headers, body, streamed }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Reader::with_arrays(Assembler::new(&self.address.host)))
    }

    fn offers(&self) -> Option<HttpRequest> {
        Some(HttpRequest::get(self.address.offers_url.clone(), self.headers(false)))
    }

    fn failure(&self, head: &ResponseHead, body: &[u8]) -> Error {
        let error = classify(head, body);
        let names = |words: &[&str]| words.iter().any(|word| error.message.contains(word));
        let advice = match error.class == FailureClass::InvalidRequest {
            true if names(&["JsonSchema", "json_schema", "systemInstruction", "system_instruction"])
                && names(&["Unknown name"]) =>
            {
                "This version of the API does not know the field: let the base URL end in /v1beta"
            }
            true if names(&["thought_signature", "thought signature"]) => {
                "The model wants its signatures back and got others or none: \
                 start a new session after a change of the model"
            }
            true | false => return error,
        };
        error.with_advice(advice)
    }
}
