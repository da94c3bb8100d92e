//! From bytes to parts: frames to JSON, where an answer ends, and how far it has come. What the JSON
//! means is left to the assembler.

use longhaul_session::failure::FailureClass;
use serde_json::Value;

use super::assemble::{Assembler, number, unfinished};
use crate::codec::Decoder;
use crate::error::web_page_in_answer;
use crate::frames::{Frames, Rest};
use crate::sse::Event;
use crate::{Error, Part};

const DONE: &str = "[DONE]";

/// Reads one answer.
pub(super) struct ResponsesDecoder {
    frames: Frames,
    assembler: Assembler,
    /// The number of the newest event.
    cursor: Option<u64>,
    /// Events up to this one were read over an earlier connection.
    known: Option<u64>,
    done: bool,
}

impl ResponsesDecoder {
    pub(super) fn new(host: &str) -> Self {
        let (frames, assembler) = (Frames::new(), Assembler::new(host));
        ResponsesDecoder { frames, assembler, cursor: None, known: None, done: false }
    }

    fn event(&mut self, event: &Event, parts: &mut Vec<Part>) -> Result<(), Error> {
        let data = event.data.trim();
        if self.done || data.is_empty() || data == DONE {
            return Ok(());
        }
        let Ok(said) = serde_json::from_str::<Value>(data) else {
            let message = "the provider's stream made no sense: an event is no JSON";
            return Err(Error::new(FailureClass::Server, message));
        };
        let number = said.get("sequence_number").and_then(number);
        if number.is_some() && number <= self.known {
            return Ok(());
        }
        self.cursor = self.cursor.max(number);
        let named = event.event.as_deref().filter(|name| *name != "message");
        let kind = said.get("type").and_then(Value::as_str);
        let kind = match kind {
            Some(kind) if named != Some("error") || kind.starts_with("response.") => Some(kind),
            Some(_) | None => named,
        };
        self.done = self.assembler.event(kind.unwrap_or_default(), &said, parts)?;
        Ok(())
    }

    fn document(&mut self, document: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        match serde_json::from_slice::<Value>(document) {
            Ok(answer) => self.assembler.document(answer.get(0).unwrap_or(&answer), parts),
            Err(error) if error.is_eof() => {
                Err(unfinished("the connection ended before the answer was complete"))
            }
            Err(_) => Err(web_page_in_answer(document)),
        }
    }

    fn with_usage(&self, error: Error) -> Error {
        Error { usage: self.assembler.usage(), ..error }
    }
}

impl Decoder for ResponsesDecoder {
    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        let mut events = Vec::new();
        let framed = self.frames.push(bytes, &mut events);
        let read = events.iter().try_for_each(|event| self.event(event, parts));
        read.and(framed).map_err(|error| self.with_usage(error))
    }

    fn finish(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        let finished = match self.frames.finish() {
            Rest::Document(document) if !self.done => {
                self.document(&document, parts).map(|()| self.done = true)
            }
            Rest::Document(_) => Ok(()),
            Rest::Stream(cut_off) => {
                // An event that misses only its blank line is whole if its data is.
                let whole = cut_off.filter(|event| serde_json::from_str::<Value>(&event.data).is_ok());
                whole.map_or(Ok(()), |event| self.event(&event, parts)).and_then(|()| match self.done {
                    true => Ok(()),
                    false => Err(unfinished("the stream ended before the answer was complete")),
                })
            }
        };
        finished.map_err(|error| self.with_usage(error))
    }

    fn cursor(&self) -> Option<String> {
        self.cursor.map(|number| number.to_string())
    }

    fn reconnect(&mut self) {
        self.frames = Frames::new();
        self.known = self.cursor;
    }
}
