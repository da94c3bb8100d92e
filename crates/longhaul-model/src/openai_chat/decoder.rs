//! What this wire makes of the events of a stream and of a whole answer. What their JSON means is left to the
//! assembler.

use longhaul_session::usage::Usage;
use serde_json::Value;

use super::assemble::Assembler;
use crate::error::classify_in_answer;
use crate::reader::Wire;
use crate::{Error, Part};

impl Wire for Assembler {
    fn event(&mut self, name: Option<&str>, said: &Value, parts: &mut Vec<Part>) -> Result<bool, Error> {
        // Google's servers put an error into a list.
        let said = said.get(0).unwrap_or(said);
        if name == Some("error") {
            return Err(classify_in_answer(said));
        }
        self.take(said, parts).map(|()| false)
    }

    fn document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.take(answer, parts)?;
        self.finish_document(answer, parts)
    }

    fn marked_end(&mut self, parts: &mut Vec<Part>) -> Result<bool, Error> {
        self.finish_stream(parts).map(|()| true)
    }

    fn end(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.finish_stream(parts)
    }

    fn usage(&self) -> Option<Usage> {
        self.counted()
    }

    fn finish_raw(&self) -> Option<&str> {
        Assembler::finish_raw(self)
    }
}
