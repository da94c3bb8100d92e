//! The Responses format of OpenAI, as Azure, OpenRouter, xAI and local servers speak it too. What an
//! answer means is fixed in [`crate::part`]; carrying bytes is left to [`crate::http`].
//!
//! By default nothing is kept at the provider (`store: false`): every request carries the whole
//! conversation, reasoning included, in its encrypted form.

mod assemble;
mod decoder;
mod input;
mod output;
mod place;
mod request;

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
use crate::{Error, Identity, Model, openai_chat};
use decoder::Events;
use place::Place;

/// Stands in opaque values beside the host, so that no other wire and no other server gets them.
const API: &str = "openai-responses";

/// How the names of OpenAI's models begin that do not reason; they refuse to be asked for reasoning.
const WITHOUT_REASONING: [&str; 3] = ["gpt-3", "gpt-4", "chatgpt-"];

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API begins, such as `https://api.openai.com/v1` or `https://NAME.openai.azure.com`. A
    /// query is kept, as Azure wants it.
    pub base_url: String,
    /// The model's name, as the provider knows it; on Azure that of the deployment.
    pub model: String,
    /// Sent as `Authorization: Bearer …`, and to Azure as `api-key`. Local servers need none.
    pub key: Option<Secret>,
    /// The most tokens of one answer.
    pub max_output_tokens: Option<u64>,
    /// How much chance there is in the answers.
    pub temperature: Option<f64>,
    /// Asks for the answer as a stream. Resumable answers always are one.
    pub stream: bool,
    /// Asks for reasoning in its encrypted form, and sends it back with the answer it belongs to. Models
    /// that do not reason refuse to be asked.
    pub replay_reasoning: bool,
    /// Sends encrypted reasoning back under the id it came with. OpenAI looks for such ids among what it
    /// has stored, and finds nothing; some other servers demand them.
    pub item_ids: bool,
    /// The provider keeps the conversation, and gets only what is new.
    pub chain: bool,
    /// Answers are made in the background, so that one that was cut off can be picked up again.
    pub resumable: bool,
    /// Tools that the provider runs itself, in its own form.
    pub provider_tools: Vec<Value>,
    /// The form every answer must have.
    pub output: Option<OutputFormat>,
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
    /// Returns the options that need no decision: a stream, nothing kept at the provider, and reasoning
    /// sent back unless the model's name is that of one without.
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        let model = model.into();
        Options {
            base_url: base_url.into(),
            replay_reasoning: may_reason(&model),
            model,
            key: None,
            max_output_tokens: None,
            temperature: None,
            stream: true,
            item_ids: false,
            chain: false,
            resumable: false,
            provider_tools: Vec::new(),
            output: None,
            parameters: Map::new(),
            headers: Vec::new(),
            limits: Limits::default(),
            connections: Connections::default(),
        }
    }

    /// Tells whether the answer is asked for as a stream.
    fn streamed(&self) -> bool {
        match self.parameters.get("stream") {
            Some(value) => *value == Value::Bool(true),
            None => self.stream || self.resumable,
        }
    }
}

/// Routers put the maker's name in front of a model's, and fine-tuned models have a prefix too.
fn may_reason(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("ft:").unwrap_or(name);
    let chat = name.starts_with("gpt-5") && name.contains("-chat");
    !chat && !WITHOUT_REASONING.iter().any(|prefix| name.starts_with(prefix))
}

/// Tells whether files of a media type can be given: pictures, PDFs, office documents and texts.
#[must_use]
pub fn takes(media_type: &str) -> bool {
    openai_chat::IMAGES.contains(&media_type)
        || media_type == "application/pdf"
        || media_type.starts_with("application/vnd.openxmlformats-officedocument.")
        || media::is_text(media_type)
}

/// Makes a model that is asked over HTTP. Nothing is sent yet.
///
/// # Errors
/// An option cannot work: the base URL, a header, the certificates. The class is
/// [`FailureClass::InvalidRequest`].
pub fn openai_responses(options: Options) -> Result<impl Model, Error> {
    let (limits, connections) = (options.limits, options.connections.clone());
    Client::new(Codec::new(options), limits, &connections)
}

/// The wire format, without a connection.
#[derive(Clone, Debug)]
pub struct Codec {
    options: Options,
    place: Place,
    written: Arc<crate::written::Written>,
}

impl Codec {
    /// Prepares what all requests share.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let place = Place::of(&options.base_url);
        Codec { options, place, written: Arc::default() }
    }

    fn headers(&self, streamed: bool) -> Vec<(String, Secret)> {
        let accept = if streamed { "text/event-stream" } else { "application/json" };
        let mut headers = vec![
            ("content-type".to_owned(), Secret::new("application/json")),
            ("accept".to_owned(), Secret::new(accept)),
        ];
        if let Some(key) = self.options.key.as_ref().filter(|key| !key.expose().is_empty()) {
            headers.push(self.place.key(key));
        }
        headers.extend(self.options.headers.iter().cloned());
        headers
    }

    fn get(&self, response_id: &str, query: &[(&str, &str)], streamed: bool) -> Option<HttpRequest> {
        let url = self.place.stored(response_id, "", query);
        let request = HttpRequest { streamed, ..HttpRequest::get(url, self.headers(streamed)) };
        Some(request).filter(|_| self.options.resumable)
    }
}

impl crate::codec::Codec for Codec {
    fn identity(&self) -> Identity {
        let provider = self.place.host().to_owned();
        Identity { provider, model: self.options.model.clone(), scripted: false }
    }

    fn request(&self, request: &Request) -> HttpRequest {
        let streamed = self.options.streamed();
        let body = request::body(&self.options, self.place.host(), &self.written, request);
        let headers = self.headers(streamed);
        HttpRequest { method: Method::Post, url: self.place.responses(), headers, body, streamed }
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Reader::new(Events::new(self.place.host())))
    }

    fn resume(&self, response_id: &str, after: Option<&str>) -> Option<HttpRequest> {
        let mut query = vec![("stream", "true")];
        query.extend(after.map(|after| ("starting_after", after)));
        self.get(response_id, &query, true)
    }

    fn retrieve(&self, response_id: &str) -> Option<HttpRequest> {
        self.get(response_id, &[], false)
    }

    fn cancel(&self, response_id: &str) -> Option<HttpRequest> {
        let url = self.place.stored(response_id, "/cancel", &[]);
        let (headers, body) = (self.headers(false), b"{}".to_vec());
        let request = HttpRequest { method: Method::Post, url, headers, body, streamed: false };
        Some(request).filter(|_| self.options.resumable)
    }

    fn offers(&self) -> Option<HttpRequest> {
        Some(HttpRequest::get(self.place.models(), self.headers(false)))
    }

    fn failure(&self, head: &ResponseHead, body: &[u8]) -> Error {
        let error = classify(head, body);
        if error.class != FailureClass::InvalidRequest {
            return error;
        }
        let message = error.message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let unknown_item = says(&["item with id"]) && says(&["not found"]);
        if self.options.chain && (unknown_item || says(&["no tool output found", "no tool call found"])) {
            return Error { class: FailureClass::ChainBroken, ..error };
        }
        let advice = if says(&["encrypted content is not supported", "reasoning.encrypted_content"]) {
            "This model does not reason: switch `replay_reasoning` off"
        } else if says(&["encrypted content"]) && says(&["could not be verified", "could not be decrypted"]) {
            "The reasoning so far was made under another account or deployment: switch `replay_reasoning` off"
        } else if says(&["missing required"]) && says(&["id'", "id`", ".id"]) {
            "This server wants reasoning back under its id: switch `item_ids` on"
        } else {
            return error;
        };
        error.with_advice(advice)
    }
}
