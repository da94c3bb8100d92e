//! What this wire makes of the events of a stream and of a whole answer, and when a stream is whole. What their
//! JSON means is left to the assembler.

use longhaul_session::usage::Usage;
use serde_json::Value;

use super::assemble::{Assembler, Progress};
use crate::reader::{Wire, unfinished};
use crate::{Error, Part};

impl Wire for Assembler {
    fn event(&mut self, name: Option<&str>, said: &Value, parts: &mut Vec<Part>) -> Result<bool, Error> {
        match self.take(name.unwrap_or_default(), said, parts)? {
            Progress::GoesOn => Ok(false),
            Progress::Ended => {
                self.finish(parts);
                Ok(true)
            }
        }
    }

    fn document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.take_document(answer, parts)?;
        self.finish(parts);
        Ok(())
    }

    /// No event of this wire, but gateways that also speak others send it.
    fn marked_end(&mut self, parts: &mut Vec<Part>) -> Result<bool, Error> {
        let whole = self.reason().is_some();
        if whole {
            self.finish(parts);
        }
        Ok(whole)
    }

    /// A stream without its last event is whole if it has said why the model stopped.
    fn end(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        if self.reason().is_none() {
            return Err(unfinished("the stream ended before the answer was complete"));
        }
        self.finish(parts);
        Ok(())
    }

    fn usage(&self) -> Option<Usage> {
        self.counted()
    }

    fn finish_raw(&self) -> Option<&str> {
        self.reason()
    }
}
