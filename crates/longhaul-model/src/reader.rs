//! From bytes to JSON, for every wire alike: how an answer is framed, what of it is no JSON, and where it ends.
//! What the JSON means is left to each wire.

use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::codec::Decoder;
use crate::error::web_page_in_answer;
use crate::frames::{Frames, Rest};
use crate::sse::Event;
use crate::{Error, Part};

/// Ends the streams of some wires, and those of gateways that also speak one of these.
const DONE: &str = "[DONE]";

/// What a wire makes of an answer.
pub(crate) trait Wire: Send {
    /// Takes an event of a stream, with the name that its frame gives it, and tells whether the answer is whole.
    fn event(&mut self, name: Option<&str>, said: &Value, parts: &mut Vec<Part>) -> Result<bool, Error>;

    /// Takes a whole answer.
    fn document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error>;

    /// Takes the mark that more than one wire ends its streams with, and tells whether the answer is whole.
    fn marked_end(&mut self, parts: &mut Vec<Part>) -> Result<bool, Error>;

    /// Takes the end of a stream that has not said that it is whole.
    fn end(&mut self, parts: &mut Vec<Part>) -> Result<(), Error>;

    /// Returns what the provider said the answer cost, so far.
    fn usage(&self) -> Option<Usage>;

    /// Returns the provider's own word for how the answer ended, if it has said one.
    fn finish_raw(&self) -> Option<&str>;

    /// Returns where in the provider's stream it is, if the provider counts.
    fn cursor(&self) -> Option<String> {
        None
    }

    /// Tells whether the provider has said that the answer failed, and may still say what it cost.
    fn has_failed(&self) -> bool {
        false
    }

    /// Says that the answer goes on over another connection.
    fn reconnect(&mut self) {}
}

/// Reads one answer.
pub(crate) struct Reader<W> {
    frames: Frames,
    wire: W,
    done: bool,
}

impl<W: Wire> Reader<W> {
    pub(crate) fn new(wire: W) -> Self {
        Reader { frames: Frames::new(), wire, done: false }
    }

    /// Reads an array as a stream that has an event for each element.
    pub(crate) fn with_arrays(wire: W) -> Self {
        Reader { frames: Frames::with_arrays(), wire, done: false }
    }

    fn event(&mut self, event: &Event, parts: &mut Vec<Part>) -> Result<(), Error> {
        let data = event.data.trim();
        if event.event.as_deref() == Some("ping") {
            return Ok(());
        }
        if !data.contains('\n') || is_whole(data) || !are_whole(data) {
            return self.data(event.event.as_deref(), data, parts);
        }
        data.lines().try_for_each(|line| self.data(None, line.trim(), parts))
    }

    fn data(&mut self, name: Option<&str>, data: &str, parts: &mut Vec<Part>) -> Result<(), Error> {
        if self.done || data.is_empty() {
            return Ok(());
        }
        self.done = if data == DONE {
            self.wire.marked_end(parts)?
        } else {
            let Ok(said) = serde_json::from_str::<Value>(data) else {
                return Err(nonsense("an event is no JSON"));
            };
            self.wire.event(name, &said, parts)?
        };
        Ok(())
    }

    fn document(&mut self, document: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        match serde_json::from_slice::<Value>(document) {
            Ok(answer) => self.wire.document(answer.get(0).unwrap_or(&answer), parts),
            Err(error) if error.is_eof() => {
                Err(unfinished("the connection ended before the answer was complete"))
            }
            Err(_) => Err(web_page_in_answer(document)),
        }
    }

    fn stream(&mut self, cut_off: Option<Event>, parts: &mut Vec<Part>) -> Result<(), Error> {
        if let Some(mut event) = cut_off {
            // An event that misses only its blank line is whole if its data is; else its last line was cut.
            if !are_whole(&event.data) {
                event.data.truncate(event.data.rfind('\n').unwrap_or(0));
            }
            if are_whole(&event.data) {
                self.event(&event, parts)?;
            }
        }
        if self.done { Ok(()) } else { self.wire.end(parts) }
    }

    /// Adds what the provider said of the attempt as a whole.
    fn with_told(&self, error: Error) -> Error {
        let finish_raw = self.wire.finish_raw().map(Box::from);
        Error { usage: self.wire.usage(), finish_raw, ..error }
    }
}

impl<W: Wire> Decoder for Reader<W> {
    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        let mut events = Vec::new();
        let framed = self.frames.push(bytes, &mut events);
        let read = events.iter().try_for_each(|event| self.event(event, parts));
        read.and(framed).map_err(|error| self.with_told(error))
    }

    fn finish(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        let finished = match self.frames.finish() {
            Rest::Document(_) if self.done => Ok(()),
            Rest::Document(document) => self.document(&document, parts),
            Rest::Stream(cut_off) => self.stream(cut_off, parts),
        };
        self.done |= finished.is_ok();
        finished.map_err(|error| self.with_told(error))
    }

    fn cursor(&self) -> Option<String> {
        self.wire.cursor()
    }

    fn has_failed(&self) -> bool {
        self.wire.has_failed()
    }

    fn reconnect(&mut self) {
        self.frames.restart();
        self.wire.reconnect();
    }
}

fn is_whole(data: &str) -> bool {
    data.trim() == DONE || serde_json::from_str::<IgnoredAny>(data).is_ok()
}

/// Tells whether data is whole, or each line of it: some servers leave out the blank lines that end an event.
fn are_whole(data: &str) -> bool {
    is_whole(data) || data.lines().filter(|line| !line.trim().is_empty()).all(is_whole)
}

/// Says that something is missing of the answer, which may still come.
pub(crate) fn unfinished(message: &str) -> Error {
    Error::new(FailureClass::Network, message)
}

/// Says that the provider broke the rules of its own stream: its fault, so worth another attempt.
pub(crate) fn nonsense(what: &str) -> Error {
    Error::new(FailureClass::Server, format!("the provider's stream made no sense: {what}"))
}
