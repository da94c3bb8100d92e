//! Writes exchanges down as they end.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use reqwest::Url;
use serde::Serialize;
use serde_json::Value;

use super::scrub::{Scrubber, keeps_of_request, keeps_of_response};
use super::{End, Exchange, Head, Request, Response};
use crate::Error;
use crate::codec::{HttpRequest, Method, ResponseHead};
use crate::secret::Secret;

/// Writes a recording. Clones write the same one.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Noting>>);

#[derive(Debug)]
struct Noting {
    scrubber: Scrubber,
    /// The first line, until it is written: with the first exchange, when the keys are known.
    head: Option<Head>,
    begun: u64,
    written: u64,
    /// Takes lines; `None` once the recording has ended.
    lines: Option<Sender<Vec<u8>>>,
    /// Writes them, so that no stream waits for a disk.
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Recorder {
    /// Makes the file, which must not exist yet and which only its owner may read. `secrets` are keys that
    /// must not be in it, beside those that are sent.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, head: Head, secrets: &[Secret]) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let mut scrubber = Scrubber::default();
        secrets.iter().for_each(|secret| scrubber.know(secret));
        let (lines, taken) = channel::<Vec<u8>>();
        let writer = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            taken.iter().try_for_each(|line| file.write_all(&line))?;
            file.sync_all()
        })?;
        let (lines, writer) = (Some(lines), Some(writer));
        let noting = Noting { scrubber, head: Some(head), begun: 0, written: 0, lines, writer };
        Ok(Recorder(Arc::new(Mutex::new(noting))))
    }

    /// Ends the recording, and waits until it is written. Returns how many exchanges are in it; what is still
    /// under way is not.
    ///
    /// # Errors
    /// Not all of it could be written.
    pub fn finish(&self) -> io::Result<u64> {
        let (writer, written) = {
            let mut noting = self.lock();
            noting.write_head();
            noting.lines = None;
            (noting.writer.take(), noting.written)
        };
        match writer.map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome.map(|()| written),
            Some(Err(_)) => Err(io::Error::other("the thread that writes it has failed")),
            None => Ok(written),
        }
    }

    /// Notes that a request is sent.
    pub(crate) fn begin(&self, request: &HttpRequest, url: &Url) -> Taking {
        let mut noting = self.lock();
        noting.begun += 1;
        let noted = noted(&mut noting.scrubber, request, url);
        let exchange = Exchange { n: noting.begun, request: noted, response: None, end: End::Left };
        Taking { recorder: self.clone(), exchange: Some(exchange), body: Vec::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Noting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noting {
    fn write_head(&mut self) {
        if let Some(head) = self.head.take() {
            let line = serde_json::to_value(&head).map(|head| self.scrubber.value(head));
            self.write_line(&line.expect("a head is JSON"));
        }
    }

    fn write_line(&mut self, line: &impl Serialize) {
        let mut bytes = serde_json::to_vec(line).expect("what is recorded is JSON");
        bytes.push(b'\n');
        if let Some(lines) = &self.lines {
            // It fails where nothing more can be written, which the end of the recording tells.
            lines.send(bytes).ok();
        }
    }
}

/// Writes a request as it stands in a recording, and learns its keys.
pub(super) fn noted(scrubber: &mut Scrubber, request: &HttpRequest, url: &Url) -> Request {
    let (kept, secret): (Vec<_>, Vec<_>) =
        request.headers.iter().partition(|(name, _)| keeps_of_request(name));
    secret.iter().for_each(|(_, value)| scrubber.know(value));
    let path = scrubber.path(url.path(), url.query());
    let text = || Value::String(String::from_utf8_lossy(&request.body).into_owned());
    let body = serde_json::from_slice(&request.body).unwrap_or_else(|_| text());
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let headers =
        kept.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), scrubber.text(value.expose())));
    Request { method: method.to_owned(), path, headers: headers.collect(), body: scrubber.value(body) }
}

/// An exchange while it is under way. It is written when this is dropped: then it has ended, however.
#[derive(Debug)]
pub(crate) struct Taking {
    recorder: Recorder,
    /// Taken when it is written.
    exchange: Option<Exchange>,
    body: Vec<u8>,
}

impl Taking {
    /// Notes how the answer begins.
    pub(crate) fn head(&mut self, head: &ResponseHead) {
        let headers = head.headers.iter().filter(|(name, _)| keeps_of_response(name)).cloned().collect();
        if let Some(exchange) = &mut self.exchange {
            exchange.response = Some(Response { status: head.status, headers, body: String::new() });
        }
    }

    /// Notes bytes of the answer; `None` for its end.
    pub(crate) fn body(&mut self, bytes: Option<&[u8]>) {
        match (bytes, &mut self.exchange) {
            (Some(bytes), _) => self.body.extend_from_slice(bytes),
            (None, Some(exchange)) => exchange.end = End::Complete,
            (None, None) => {}
        }
    }

    /// Notes that the connection failed.
    pub(crate) fn failed(&mut self, error: &Error) {
        if let Some(exchange) = &mut self.exchange {
            exchange.end = End::Failed { class: error.class, message: error.message.clone() };
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        let mut noting = self.recorder.lock();
        let scrubber = &noting.scrubber;
        if let Some(response) = &mut exchange.response {
            response.body = scrubber.text(&text(&self.body));
            for (_, value) in &mut response.headers {
                *value = scrubber.text(value);
            }
        }
        if let End::Failed { message, .. } = &mut exchange.end {
            *message = scrubber.text(message);
        }
        noting.write_head();
        noting.write_line(&exchange);
        noting.written += 1;
    }
}

/// Reads bytes as a text. A letter that was cut off at their end is left out.
fn text(bytes: &[u8]) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    };
    String::from_utf8_lossy(whole).into_owned()
}
