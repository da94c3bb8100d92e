//! What a provider is: a pure pair of functions, from a request to bytes and from bytes to parts.
//! Carrying the bytes, time limits and keeping keys out of messages are left to [`crate::http`].

use longhaul_session::agent::Request;

use crate::secret::Secret;
use crate::{Error, Identity, Part, error};

/// One provider's wire format.
pub trait Codec: Send + Sync + 'static {
    /// Says which model this is, for logs and screens.
    fn identity(&self) -> Identity;

    /// Writes a request. The same request gives the same bytes, and a request that goes on from
    /// another shares the longest prefix with it: that is what providers' caches go by.
    fn request(&self, request: &Request) -> HttpRequest;

    /// Returns what reads the answer to one request.
    fn decoder(&self) -> Box<dyn Decoder>;

    /// Writes the request that picks up an answer made in the background, after the part that a cursor
    /// names or from its beginning; `None` where the provider has no such thing.
    fn resume(&self, _response_id: &str, _after: Option<&str>) -> Option<HttpRequest> {
        None
    }
    /// Writes the request that asks how far an answer made in the background is, and for all of it once it
    /// is whole, in one document; `None` likewise. Providers stream an answer for some time only.
    fn retrieve(&self, _response_id: &str) -> Option<HttpRequest> {
        None
    }
    /// Writes the request that ends an answer made in the background; `None` likewise.
    fn cancel(&self, _response_id: &str) -> Option<HttpRequest> {
        None
    }

    /// Writes the request that asks which models there are; `None` where providers have no such thing.
    fn offers(&self) -> Option<HttpRequest> {
        None
    }

    /// Classifies an answer whose status is no success.
    fn failure(&self, head: &ResponseHead, body: &[u8]) -> Error {
        error::classify(head, body)
    }
}

/// Reads one answer.
pub trait Decoder: Send {
    /// Reads the next bytes and appends the parts they hold. [`Part::Finished`] is the last part
    /// of a whole answer; bytes after it are ignored.
    ///
    /// # Errors
    /// The provider failed, or what it sent makes no sense. What arrived before has been appended.
    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error>;

    /// Says that no more bytes come, because the answer ended or because the connection broke, and
    /// appends the parts that were held back.
    ///
    /// # Errors
    /// The answer is not whole ([`FailureClass::Network`], and it may go on after
    /// [`Decoder::reconnect`]), or it is an error.
    ///
    /// [`FailureClass::Network`]: longhaul_session::failure::FailureClass::Network
    fn finish(&mut self, parts: &mut Vec<Part>) -> Result<(), Error>;

    /// Returns where in the provider's stream it is, if the provider counts: what follows can be asked for.
    fn cursor(&self) -> Option<String> {
        None
    }

    /// Tells whether the provider has said that the answer failed, and may still say what it cost: all that
    /// is left is to read to the end.
    fn has_failed(&self) -> bool {
        false
    }

    /// Says that the answer goes on over another connection: behind the cursor, from its beginning, or as
    /// the whole document. What was read before is not read again.
    fn reconnect(&mut self) {}
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It asks for something that is there.
    Get,
    /// It carries a document.
    Post,
}

/// A request as it is sent.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// How it is sent.
    pub method: Method,
    /// Where it is sent.
    pub url: String,
    /// Names and values of headers. Any of them may be a key.
    pub headers: Vec<(String, Secret)>,
    /// A JSON document; nothing with [`Method::Get`].
    pub body: Vec<u8>,
    /// The answer is asked for as a stream: time limits differ.
    pub streamed: bool,
}

impl HttpRequest {
    /// Asks for a document that is there.
    pub(crate) fn get(url: String, headers: Vec<(String, Secret)>) -> Self {
        HttpRequest { method: Method::Get, url, headers, body: Vec::new(), streamed: false }
    }
}

/// How an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// Names and values of headers.
    pub headers: Vec<(String, String)>,
}

impl ResponseHead {
    /// Returns the first header of a name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}
