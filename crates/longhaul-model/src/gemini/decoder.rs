//! From bytes to parts: frames to JSON, and where an answer ends. What the JSON means is left to
//! the assembler.

use longhaul_session::failure::FailureClass;
use serde_json::Value;

use super::assemble::Assembler;
use crate::codec::Decoder;
use crate::error::{classify_in_answer, web_page_in_answer};
use crate::frames::{Frames, Rest};
use crate::sse::Event;
use crate::{Error, Part};

/// Some proxies end a stream of any format with it.
const DONE: &str = "[DONE]";

/// Reads one answer.
pub(crate) struct GeminiDecoder {
    frames: Frames,
    assembler: Assembler,
    done: bool,
}

impl GeminiDecoder {
    pub(crate) fn new(host: &str) -> Self {
        GeminiDecoder { frames: Frames::with_arrays(), assembler: Assembler::new(host), done: false }
    }

    fn event(&mut self, event: &Event, parts: &mut Vec<Part>) -> Result<(), Error> {
        let data = event.data.trim();
        if self.done || data.is_empty() {
            return Ok(());
        }
        if data == DONE {
            self.done = true;
            return self.assembler.finish_stream(parts);
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            let message = "the provider's stream made no sense: an event is no JSON";
            return Err(Error::new(FailureClass::Server, message));
        };
        if event.event.as_deref() == Some("error") {
            return Err(classify_in_answer(&chunk));
        }
        match chunk.as_array() {
            Some(chunks) => chunks.iter().try_for_each(|chunk| self.assembler.take(chunk, parts)),
            None => self.assembler.take(&chunk, parts),
        }
    }

    fn document(&mut self, document: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        match serde_json::from_slice::<Value>(document) {
            Ok(answer) => {
                self.assembler.take(&answer, parts)?;
                self.assembler.finish_document(parts)
            }
            Err(error) if error.is_eof() => {
                let message = "the connection ended before the answer was complete";
                Err(Error::new(FailureClass::Network, message))
            }
            Err(_) => Err(web_page_in_answer(document)),
        }
    }

    fn with_usage(&self, error: Error) -> Error {
        Error { usage: self.assembler.usage(), ..error }
    }
}

impl Decoder for GeminiDecoder {
    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), Error> {
        let mut events = Vec::new();
        let framed = self.frames.push(bytes, &mut events);
        let read = events.iter().try_for_each(|event| self.event(event, parts));
        read.and(framed).map_err(|error| self.with_usage(error))
    }

    fn finish(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        let finished = match self.frames.finish() {
            Rest::Document(document) => self.document(&document, parts),
            Rest::Stream(cut_off) => {
                // An event that misses only its blank line is whole if its data is.
                let whole = cut_off.filter(|event| {
                    event.data.trim() == DONE || serde_json::from_str::<Value>(&event.data).is_ok()
                });
                whole.map_or(Ok(()), |event| self.event(&event, parts)).and_then(|()| match self.done {
                    true => Ok(()),
                    false => self.assembler.finish_stream(parts),
                })
            }
        };
        self.done = true;
        finished.map_err(|error| self.with_usage(error))
    }
}
