//! Tells what an answer is framed as: a stream of events, or one document. By its first byte, for
//! headers are often wrong, and errors come as a document where a stream was asked for. What the
//! frames mean is left to the codecs.

use longhaul_session::failure::FailureClass;

use crate::Error;
use crate::array::Elements;
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_EVENT_BYTES};
use crate::sse::{Event, Parser, TooLarge};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Reads the frames of one answer.
pub(crate) struct Frames {
    state: State,
    /// An array is a stream, and each of its elements an event.
    arrays: bool,
}

enum State {
    Undecided(Vec<u8>),
    Stream(Parser),
    Array(Elements),
    Document(Vec<u8>),
}

/// What is left when an answer ends.
pub(crate) enum Rest {
    /// A stream ended, perhaps within an event.
    Stream(Option<Event>),
    /// The answer was one document.
    Document(Vec<u8>),
}

impl Frames {
    pub(crate) fn new() -> Self {
        Frames { state: State::Undecided(Vec::new()), arrays: false }
    }

    /// Reads an array as a stream that has an event for each element.
    pub(crate) fn with_arrays() -> Self {
        Frames { arrays: true, ..Frames::new() }
    }

    /// Begins afresh, with other bytes of the same kind.
    pub(crate) fn restart(&mut self) {
        self.state = State::Undecided(Vec::new());
    }

    /// Reads the next bytes and appends the events they complete. A document is kept to its end.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Error> {
        if let State::Undecided(begun) = &mut self.state {
            begun.extend_from_slice(bytes);
            let begun = std::mem::take(begun);
            let text = after_blanks(&begun);
            self.state = decide(text, self.arrays);
            return self.push_decided(text, events);
        }
        self.push_decided(bytes, events)
    }

    fn push_decided(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Error> {
        match &mut self.state {
            State::Undecided(begun) => {
                begun.extend_from_slice(bytes);
                Ok(())
            }
            State::Stream(parser) => parser.push(bytes, events).map_err(too_large),
            State::Array(elements) => elements.push(bytes, events).map_err(too_large),
            State::Document(document) => {
                if document.len() + bytes.len() > MAX_DOCUMENT_BYTES {
                    let message =
                        format!("the answer was larger than {MAX_DOCUMENT_BYTES} bytes and was given up");
                    return Err(Error::new(FailureClass::Server, message));
                }
                document.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Ends the answer.
    pub(crate) fn finish(&mut self) -> Rest {
        match std::mem::replace(&mut self.state, State::Undecided(Vec::new())) {
            State::Undecided(_) | State::Array(_) => Rest::Stream(None),
            State::Stream(parser) => Rest::Stream(parser.finish()),
            State::Document(document) => Rest::Document(document),
        }
    }
}

/// Leaves out blanks and byte order marks, as many as there are: how many come at once must not matter.
fn after_blanks(mut text: &[u8]) -> &[u8] {
    loop {
        let rest = text.strip_prefix(BOM).unwrap_or(text).trim_ascii_start();
        if rest.len() == text.len() {
            return text;
        }
        text = rest;
    }
}

fn too_large(error: TooLarge) -> Error {
    Error::new(FailureClass::Server, format!("{error}, and the answer was given up"))
}

/// No line of an event stream begins with what a JSON value or a web page begins with.
fn decide(text: &[u8], arrays: bool) -> State {
    match text.first() {
        Some(b'[') if arrays => State::Array(Elements::new(MAX_EVENT_BYTES)),
        Some(b'{' | b'[' | b'<') => State::Document(Vec::new()),
        Some(_) if !BOM.starts_with(text) => State::Stream(Parser::new(MAX_EVENT_BYTES)),
        Some(_) | None => State::Undecided(Vec::new()),
    }
}
