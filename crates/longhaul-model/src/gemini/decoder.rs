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
        if name == Some("error") {
            return Err(classify_in_answer(said));
        }
        let chunks = said.as_array().map_or(std::slice::from_ref(said), Vec::as_slice);
        chunks.iter().try_for_each(|chunk| self.take(chunk, parts)).map(|()| false)
    }

    fn document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.take(answer, parts)?;
        self.finish_document(parts)
    }

    /// Some proxies end a stream of any format with it.
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
