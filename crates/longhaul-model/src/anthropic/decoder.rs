//! From bytes to parts: frames to JSON, and where an answer ends. What the JSON means is left to the assembler.

use longhaul_session::failure::FailureClass;
use serde_json::Value;

use super::assemble::{Assembler, Progress};
use crate::codec::Decoder;
use crate::error::web_page_in_answer;
use crate::frames::{Frames, Rest};
use crate::sse::Event;
use crate::{Error, Part};

/// No event of this wire, but gateways that also speak others send it.
const DONE: &str = "[DONE]";

/// Reads one answer.
pub(super) struct MessagesDecoder {
    frames: Frames,
    assembler: Assembler,
    done: bool,
}

impl MessagesDecoder {
    pub(super) fn new(host: &str) -> Self {
        MessagesDecoder { frames: Frames::new(), assembler: Assembler::new(host), done: false }
    }

    fn event(&mut self, event: &Event, parts: &mut Vec<Part>) -> Result<(), Error> {
        let data = event.data.trim();
        let name = event.event.as_deref().unwrap_or_default();
        if self.done || data.is_empty() || name == "ping" {
            return Ok(());
        }
        if data == DONE {
            if self.assembler.has_reason() {
                self.end(parts);
            }
            return Ok(());
        }
        let Ok(said) = serde_json::from_str::<Value>(data) else {
            let message = "the provider's stream made no sense: an event is no JSON";
            return Err(Error::new(FailureClass::Server, message));
        };
        match self.assembler.take(name, &said, parts)? {
            Progress::GoesOn => {}
            Progress::Ended => self.end(parts),
        }
        Ok(())
    }

    fn end(&mut self, parts: &mut Vec<Part>) {
        self.done = true;
        self.assembler.finish(parts);
    }

    fn document(&mut self, document: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        match serde_json::from_slice::<Value>(document) {
            Ok(answer) => {
                self.assembler.take_document(answer.get(0).unwrap_or(&answer), parts)?;
                self.end(parts);
                Ok(())
            }
            Err(error) if error.is_eof() => {
                let message = "the connection ended before the answer was complete";
                Err(Error::new(FailureClass::Network, message))
            }
            Err(_) => Err(web_page_in_answer(document)),
        }
    }

    /// A stream without its last event is whole if it has said why the model stopped.
    fn stream(&mut self, cut_off: Option<Event>, parts: &mut Vec<Part>) -> Result<(), Error> {
        // An event that misses only its blank line is whole if its data is.
        if let Some(event) = cut_off.filter(|event| serde_json::from_str::<Value>(&event.data).is_ok()) {
            self.event(&event, parts)?;
        }
        match (self.done, self.assembler.has_reason()) {
            (true, _) => Ok(()),
            (false, true) => {
                self.end(parts);
                Ok(())
            }
            (false, false) => {
                let message = "the stream ended before the answer was complete";
                Err(Error::new(FailureClass::Network, message))
            }
        }
    }

    fn with_usage(&self, error: Error) -> Error {
        Error { usage: self.assembler.usage(), ..error }
    }
}

impl Decoder for MessagesDecoder {
    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        let mut events = Vec::new();
        let framed = self.frames.push(bytes, &mut events);
        let read = events.iter().try_for_each(|event| self.event(event, parts));
        read.and(framed).map_err(|error| self.with_usage(error))
    }

    fn finish(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        let finished = match self.frames.finish() {
            Rest::Document(document) => self.document(&document, parts),
            Rest::Stream(cut_off) => self.stream(cut_off, parts),
        };
        self.done = true;
        finished.map_err(|error| self.with_usage(error))
    }
}
