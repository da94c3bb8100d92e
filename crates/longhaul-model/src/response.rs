//! Turns the parts of a stream into an answer: pure, and the same answer however the parts were cut.

use std::collections::{HashMap, HashSet};

use longhaul_session::failure::FailureClass;
use longhaul_session::id::CallId;
use longhaul_session::item::{Item, ToolCall};
use longhaul_session::usage::Usage;
use serde_json::Value;

use crate::error::Error;
use crate::limits::{ITEM_BYTES, MAX_RESPONSE_BYTES};
use crate::measure::{item_bytes, value_bytes};
use crate::part::{FinishReason, Part};

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// What the model said, thought and asked for, in the order it began each.
    pub items: Vec<Item>,
    /// What the answer cost; zero where the provider did not say.
    pub usage: Usage,
    /// Why the model stopped.
    pub finish: FinishReason,
    /// The provider's name for the answer, if it has one.
    pub response_id: Option<String>,
}

/// Collects the parts of one attempt.
pub struct Accumulator<F> {
    make_id: F,
    slots: Vec<Slot>,
    calls: HashMap<u32, usize>,
    started: bool,
    response_id: Option<String>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    bytes: usize,
}

enum Slot {
    Text(String),
    Reasoning { text: String, opaque: Option<Value>, ended: bool },
    Call { id: Option<String>, name: String, arguments: Option<String>, opaque: Option<Value>, ended: bool },
    Whole(Item),
}

/// The arguments, the opaque value and the ended mark of a call.
type OpenCall<'a> = (&'a mut Option<String>, &'a mut Option<Value>, &'a mut bool);

impl<F: FnMut() -> CallId> Accumulator<F> {
    /// Starts with nothing. `make_id` names the calls that the provider leaves without an id.
    pub fn new(make_id: F) -> Self {
        Accumulator {
            make_id,
            slots: Vec::new(),
            calls: HashMap::new(),
            started: false,
            response_id: None,
            usage: None,
            finish: None,
            bytes: 0,
        }
    }

    /// Returns what the attempt has cost so far, if the provider has said: paid is paid, also for
    /// an answer that is dropped.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Returns the provider's name for the answer, as soon as it has one.
    pub fn response_id(&self) -> Option<&str> {
        self.response_id.as_deref()
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// The parts make no sense together, or the answer is too large. The attempt has failed.
    pub fn push(&mut self, part: Part) -> Result<(), Error> {
        if self.finish.is_some() {
            return Err(self.nonsense("it went on after its end"));
        }
        match part {
            Part::Started { response_id } => {
                if self.started {
                    return Err(self.nonsense("it began twice"));
                }
                self.started = true;
                self.response_id = response_id;
            }
            Part::Text { text } | Part::Refusal { text } => self.text(&text)?,
            Part::Reasoning { text } => self.reasoning(&text)?,
            Part::ReasoningEnd { opaque } => self.end_reasoning(opaque)?,
            Part::ToolCallStarted { index, id, name } => self.start_call(index, id, name)?,
            Part::ToolCallArguments { index, text } => {
                self.grow(text.len())?;
                self.open_call(index)?.0.get_or_insert_default().push_str(&text);
            }
            Part::ToolCallEnd { index, opaque } => self.end_call(index, opaque)?,
            Part::Item { item } => {
                self.grow(ITEM_BYTES + item_bytes(&item))?;
                self.slots.push(Slot::Whole(item));
            }
            Part::Usage { usage } => self.usage = Some(usage),
            Part::Finished { reason, raw: _ } => self.finish = Some(reason),
        }
        Ok(())
    }

    /// Ends the attempt and returns the answer. Call ids are made unique within it.
    ///
    /// A call whose arguments were still open counts as made if the model stopped by itself, and
    /// is left out if something else stopped it: half a call must not run.
    ///
    /// # Errors
    /// [`Part::Finished`] never came: the answer is not whole, and the attempt has failed.
    pub fn finish(mut self) -> Result<Response, Error> {
        let Some(finish) = self.finish else {
            return Err(Error {
                usage: self.usage,
                ..Error::new(FailureClass::Network, "the stream ended before the answer was complete")
            });
        };
        let mut taken: HashSet<String> = HashSet::new();
        let mut items = Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            items.push(match slot {
                Slot::Text(text) => Item::Assistant { text, partial: false },
                Slot::Reasoning { text, opaque, ended: _ } => Item::Reasoning { text, opaque },
                Slot::Call { ended: false, .. } if !finish.is_natural() => continue,
                Slot::Call { id, name, arguments, opaque, ended: _ } => {
                    let wanted = id.unwrap_or_else(|| (self.make_id)().0);
                    let id = CallId(unique(wanted, &mut taken));
                    let arguments = arguments.unwrap_or_else(|| "{}".to_owned());
                    Item::ToolCall(ToolCall { id, name, arguments, opaque })
                }
                Slot::Whole(item) => item,
            });
        }
        Ok(Response { items, usage: self.usage.unwrap_or_default(), finish, response_id: self.response_id })
    }

    /// Returns what is worth keeping of an attempt that was interrupted: the text so far and the
    /// reasoning that is complete. Calls are left out, for nobody will answer them, and so are
    /// opaque items, which may need what was cut off.
    pub fn partial(self) -> Vec<Item> {
        let newest_text = self.slots.iter().rposition(|slot| matches!(slot, Slot::Text(_)));
        self.slots
            .into_iter()
            .enumerate()
            .filter_map(|(at, slot)| match slot {
                Slot::Text(text) => Some(Item::Assistant { text, partial: Some(at) == newest_text }),
                Slot::Reasoning { text, opaque, ended: true } => Some(Item::Reasoning { text, opaque }),
                Slot::Reasoning { ended: false, .. } | Slot::Call { .. } | Slot::Whole(_) => None,
            })
            .collect()
    }

    fn text(&mut self, piece: &str) -> Result<(), Error> {
        self.grow(piece.len())?;
        if let Some(Slot::Text(text)) = self.slots.last_mut() {
            text.push_str(piece);
        } else if !piece.is_empty() {
            self.slots.push(Slot::Text(piece.to_owned()));
        }
        Ok(())
    }

    fn reasoning(&mut self, piece: &str) -> Result<(), Error> {
        self.grow(piece.len())?;
        if let Some(Slot::Reasoning { text, ended: false, .. }) = self.slots.last_mut() {
            text.push_str(piece);
        } else if !piece.is_empty() {
            self.slots.push(Slot::Reasoning { text: piece.to_owned(), opaque: None, ended: false });
        }
        Ok(())
    }

    fn end_reasoning(&mut self, opaque: Option<Value>) -> Result<(), Error> {
        self.grow(opaque.as_ref().map_or(0, value_bytes))?;
        let open = self.slots.iter_mut().rev().find_map(|slot| match slot {
            Slot::Reasoning { opaque, ended, .. } if !*ended => Some((opaque, ended)),
            Slot::Reasoning { .. } | Slot::Text(_) | Slot::Call { .. } | Slot::Whole(_) => None,
        });
        match open {
            Some((kept, ended)) => {
                *kept = opaque;
                *ended = true;
            }
            None if opaque.is_some() => {
                self.slots.push(Slot::Reasoning { text: String::new(), opaque, ended: true });
            }
            None => {}
        }
        Ok(())
    }

    fn start_call(&mut self, index: u32, id: Option<String>, name: String) -> Result<(), Error> {
        let id = id.filter(|id| !id.is_empty());
        self.grow(ITEM_BYTES + name.len() + id.as_ref().map_or(0, String::len))?;
        if self.calls.insert(index, self.slots.len()).is_some() {
            return Err(self.nonsense(&format!("call {index} began twice")));
        }
        self.slots.push(Slot::Call { id, name, arguments: None, opaque: None, ended: false });
        Ok(())
    }

    fn end_call(&mut self, index: u32, opaque: Option<Value>) -> Result<(), Error> {
        self.grow(opaque.as_ref().map_or(0, value_bytes))?;
        let (_, kept, ended) = self.open_call(index)?;
        *kept = opaque;
        *ended = true;
        Ok(())
    }

    /// Returns a call that is still open.
    fn open_call(&mut self, index: u32) -> Result<OpenCall<'_>, Error> {
        let usage = self.usage;
        let slot = self.calls.get(&index).and_then(|at| self.slots.get_mut(*at));
        match slot {
            Some(Slot::Call { arguments, opaque, ended, .. }) if !*ended => Ok((arguments, opaque, ended)),
            Some(Slot::Call { .. } | Slot::Text(_) | Slot::Reasoning { .. } | Slot::Whole(_)) => {
                Err(nonsense(usage, &format!("call {index} went on after its end")))
            }
            None => Err(nonsense(usage, &format!("call {index} went on without having begun"))),
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_RESPONSE_BYTES {
            let message = format!("the answer was larger than {MAX_RESPONSE_BYTES} bytes and was given up");
            return Err(Error { usage: self.usage, ..Error::new(FailureClass::Server, message) });
        }
        Ok(())
    }

    fn nonsense(&self, what: &str) -> Error {
        nonsense(self.usage, what)
    }
}

/// The provider broke the order of its own stream: its fault, so worth another attempt.
fn nonsense(usage: Option<Usage>, what: &str) -> Error {
    let message = format!("the provider's stream made no sense: {what}");
    Error { usage, ..Error::new(FailureClass::Server, message) }
}

/// Returns the id, with a number behind it if it is taken already.
fn unique(wanted: String, taken: &mut HashSet<String>) -> String {
    let mut id = wanted.clone();
    let mut number = 2_u64;
    while !taken.insert(id.clone()) {
        id = format!("{wanted}_{number}");
        number += 1;
    }
    id
}
