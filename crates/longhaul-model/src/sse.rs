//! Server-sent events: bytes in, events out, however the bytes are cut. What an event's data means
//! is left to the codecs.
//!
//! Follows the WHATWG HTML standard, "Interpreting an event stream", with two additions: for streams
//! that end without the blank line after their last event, [`Parser::finish`]; and for llama.cpp, which
//! writes an error in a field of that name.

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type, if the stream names one.
    pub event: Option<String>,
    /// Its data: the data lines, joined by line feeds.
    pub data: String,
    /// The id that is in force: this event's, or the newest before it.
    pub id: Option<String>,
    /// How long to wait before connecting again, in milliseconds, if said with this event.
    pub retry_ms: Option<u64>,
}

/// An event, or a line of one, was larger than allowed. The stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {max_bytes} bytes")]
pub struct TooLarge {
    /// The limit.
    pub max_bytes: usize,
}

/// Reads events from pieces of a stream.
#[derive(Debug)]
pub struct Parser {
    max_bytes: usize,
    line: Vec<u8>,
    at_start: bool,
    after_cr: bool,
    event: Option<String>,
    data: String,
    has_data: bool,
    id: Option<String>,
    retry_ms: Option<u64>,
}

impl Parser {
    /// Starts at the beginning of a stream. No event may be larger than `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Parser {
            max_bytes,
            line: Vec::new(),
            at_start: true,
            after_cr: false,
            event: None,
            data: String::new(),
            has_data: false,
            id: None,
            retry_ms: None,
        }
    }

    /// Reads the next piece and appends the events it completes.
    ///
    /// # Errors
    /// An event is too large. What came before it has been appended.
    pub fn push(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + self.data.len() + piece.len() > self.max_bytes {
                return Err(TooLarge { max_bytes: self.max_bytes });
            }
            self.line.extend_from_slice(piece);
            let Some(terminator) = rest.first() else { break };
            self.after_cr = *terminator == b'\r';
            bytes = &rest[1..];
            events.extend(self.end_line());
        }
        Ok(())
    }

    /// Returns the event that the end of the stream cut off, if it has data. By the standard it is
    /// to be dropped; whoever takes it must be able to tell whether its data is whole.
    #[must_use]
    pub fn finish(mut self) -> Option<Event> {
        if !self.line.is_empty() {
            let completed = self.end_line();
            debug_assert!(completed.is_none(), "only an empty line completes an event");
        }
        self.dispatch()
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let begins = std::mem::take(&mut self.at_start);
        let line = line.strip_prefix(BOM).filter(|_| begins).unwrap_or(&line);
        if line.is_empty() {
            return self.dispatch();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" | "error" => {
                if field == "error" {
                    self.event = Some(field.to_owned());
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "event" => self.event = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => self.retry_ms = value.parse().ok(),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = self.event.take();
        let retry_ms = self.retry_ms.take();
        let data = std::mem::take(&mut self.data);
        let has_data = std::mem::take(&mut self.has_data);
        has_data.then(|| Event { event, data, id: self.id.clone(), retry_ms })
    }
}
