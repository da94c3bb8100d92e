//! Carries bytes between a codec and its provider, for every wire format alike: connections, time
//! limits, cancellation, and errors that say what to do. Knows no wire format and asks for nothing
//! twice: what it does again is to pick up an answer that the provider goes on making by itself.
//! Proxies are taken from the environment (`HTTPS_PROXY` and its kin), but for this
//! machine itself.

mod answer;
mod connections;
mod failure;
mod line;
mod transport;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use longhaul_session::agent::Request;
use longhaul_session::failure::FailureClass;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::codec::{Codec, HttpRequest, ResponseHead};
use crate::secret::Secret;
use crate::{Error, Identity, Model, ModelCall, Offers, PartStream};
pub use connections::Connections;
use line::Line;
use transport::{Exchange, Transport};

/// Headers whose values are no secrets, though they are sent as such.
const PLAIN_HEADERS: [&str; 2] = ["content-type", "accept"];

/// How long to wait for what, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a streamed answer begins, from when the request is sent.
    pub first_byte_ms: u64,
    /// Without a byte within a streamed answer. Comments that only say that the server is alive
    /// count: a model may think for long.
    pub idle_ms: u64,
    /// Until an answer that is not streamed is there as a whole.
    pub whole_answer_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { first_byte_ms: 60_000, idle_ms: 120_000, whole_answer_ms: 600_000 }
    }
}

/// A model behind HTTP: a codec, and the connections to its provider.
#[derive(Debug)]
pub struct Client<C> {
    line: Arc<Line<C>>,
}

/// Whom a request goes to, for messages; and what must not be in them.
#[derive(Clone, Debug)]
struct Peer {
    url: String,
    secrets: Vec<Secret>,
    /// Its answers are recorded ones: nobody is to wait for a provider that is not asked.
    is_replay: bool,
}

impl Peer {
    /// Takes keys out of an error's message, and out of the error a wait that would be for nothing.
    fn masked(&self, error: Error) -> Error {
        let message = self.secrets.iter().fold(error.message, |text, secret| secret.masked_in(&text));
        let retry_after_ms = error.retry_after_ms.filter(|_| !self.is_replay);
        Error { message, retry_after_ms, ..error }
    }
}

impl<C: Codec> Client<C> {
    /// Makes a client that uses connections others may use too. Nothing is sent yet.
    ///
    /// # Errors
    /// The codec's URL or headers cannot be sent, or the certificates cannot be read.
    pub fn new(codec: C, limits: Limits, connections: &Connections) -> Result<Self, Error> {
        let empty =
            Request { system: String::new(), items: Vec::new(), tools: Arc::default(), previous: None };
        let sample = codec.request(&empty);
        let url = parse_url(&sample.url)?;
        parse_headers(&sample.headers)?;
        let transport = connections.transport(&url)?;
        Ok(Client { line: Arc::new(Line { codec, transport, limits }) })
    }
}

#[async_trait]
impl<C: Codec> Model for Client<C> {
    fn identity(&self) -> Identity {
        self.line.codec.identity()
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let ModelCall { request, attempt: _, cancel, resume } = call;
        let resume = resume.filter(|id| self.line.codec.resume(id, None).is_some());
        let begin = async {
            match resume {
                Some(response_id) => self.line.resume(response_id).await,
                None => self.line.ask(self.line.codec.request(&request)).await,
            }
        };
        match cancel.run_until_cancelled(begin).await {
            Some(begun) => Ok(begun?.into_parts(cancel)),
            None => Ok(Box::pin(stream::empty())),
        }
    }

    async fn cancel(&self, response_id: &str) -> Result<(), Error> {
        self.line.cancel(response_id).await
    }

    async fn offers(&self) -> Result<Option<Offers>, Error> {
        self.line.offers().await
    }
}

fn invalid(message: String) -> Error {
    Error::new(FailureClass::InvalidRequest, message)
}

fn parse_url(text: &str) -> Result<Url, Error> {
    let wrong = |why: &str| {
        let example = "It should look like https://api.openai.com/v1 or http://localhost:8080/v1";
        let text = text.split('?').next().unwrap_or_default();
        let shown = text.rsplit_once('@').map_or(text, |(_, after)| after);
        invalid(format!("the base URL cannot be used ({shown}): {why}. {example}"))
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(wrong("it begins with neither http:// nor https://")),
    }
}

/// The URL for messages: without user, password and query, where keys may stand.
fn shown(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn secrets(request: &HttpRequest) -> Vec<Secret> {
    let secret = |(name, _): &&(String, Secret)| !PLAIN_HEADERS.contains(&name.as_str());
    request.headers.iter().filter(secret).map(|(_, value)| value.clone()).collect()
}

fn parse_headers(headers: &[(String, Secret)]) -> Result<HeaderMap, Error> {
    let mut parsed = HeaderMap::new();
    for (name, value) in headers {
        let key = HeaderName::try_from(name).map_err(|_| {
            invalid(format!("the header {name:?} cannot be sent: that is no name of a header"))
        })?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| {
            invalid(format!(
                "the header {name:?} cannot be sent: its value has characters that no header may have. \
                 Look for a line break or for quotes that are not ASCII in the key"
            ))
        })?;
        value.set_sensitive(true);
        parsed.insert(key, value);
    }
    Ok(parsed)
}

fn head(response: &reqwest::Response) -> ResponseHead {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
    ResponseHead { status: response.status().as_u16(), headers: headers.collect() }
}
