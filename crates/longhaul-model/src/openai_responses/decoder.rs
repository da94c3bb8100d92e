//! What this wire makes of the events of a stream and of a whole answer, and how far it has come. What their JSON
//! means is left to the assembler.

use longhaul_session::usage::Usage;
use serde_json::Value;

use super::assemble::Assembler;
use crate::number::count;
use crate::reader::{Wire, unfinished};
use crate::{Error, Part};

/// Takes the events of one answer, over one connection after another.
pub(super) struct Events {
    assembler: Assembler,
    /// The number of the newest event.
    cursor: Option<u64>,
    /// Events up to this one were read over an earlier connection.
    known: Option<u64>,
    /// Why the answer failed. What it cost is told after that.
    failed: Option<Error>,
}

impl Events {
    pub(super) fn new(host: &str) -> Self {
        Events { assembler: Assembler::new(host), cursor: None, known: None, failed: None }
    }
}

impl Wire for Events {
    fn event(&mut self, name: Option<&str>, said: &Value, parts: &mut Vec<Part>) -> Result<bool, Error> {
        let number = said.get("sequence_number").and_then(count);
        if number.is_some() && number <= self.known {
            return Ok(false);
        }
        self.cursor = self.cursor.max(number);
        let named = name.filter(|name| *name != "message");
        let kind = said.get("type").and_then(Value::as_str);
        let kind = match kind {
            Some(kind) if named != Some("error") || kind.starts_with("response.") => Some(kind),
            Some(_) | None => named,
        };
        let kind = kind.unwrap_or_default();
        if let Some(failed) = self.failed.take() {
            // It says once more why, in fewer words, and what was paid.
            if kind == "response.failed" {
                let _again = self.assembler.event(kind, said, parts);
            }
            return Err(failed);
        }
        match self.assembler.event(kind, said, parts) {
            Err(failed) if kind == "error" => {
                self.failed = Some(failed);
                Ok(false)
            }
            taken => taken,
        }
    }

    fn document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.assembler.document(answer, parts)
    }

    /// No event of this wire, but gateways that also speak others send it.
    fn marked_end(&mut self, _: &mut Vec<Part>) -> Result<bool, Error> {
        Ok(false)
    }

    fn end(&mut self, _: &mut Vec<Part>) -> Result<(), Error> {
        let failed = self.failed.take();
        Err(failed.unwrap_or_else(|| unfinished("the stream ended before the answer was complete")))
    }

    fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn finish_raw(&self) -> Option<&str> {
        self.assembler.finish_raw()
    }

    fn usage(&self) -> Option<Usage> {
        self.assembler.usage()
    }

    fn cursor(&self) -> Option<String> {
        self.cursor.map(|number| number.to_string())
    }

    fn reconnect(&mut self) {
        self.known = self.cursor;
    }
}
