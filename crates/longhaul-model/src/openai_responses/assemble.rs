//! From the events of a stream, or a whole answer, to parts. How they are framed is left to the decoder,
//! what one item amounts to, to [`super::output`].

use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;
use serde_json::Value;

use super::output::{Kind, Output, Slot, arguments, text, text_of, texts_of};
use crate::error::{classify_in_answer, says_failure};
use crate::limits::{MAX_CALLS, MAX_RESPONSE_BYTES};
use crate::measure::value_bytes;
use crate::number::count;
use crate::openai_chat::usage::Tally;
use crate::reader::{nonsense, unfinished};
use crate::{Error, FinishReason, Part};

/// The states of an answer that is over.
const ENDED: [&str; 4] = ["completed", "incomplete", "failed", "cancelled"];

/// The states of an answer that is being made.
const AT_WORK: [&str; 2] = ["queued", "in_progress"];

/// Puts one answer together.
#[derive(Debug)]
pub(super) struct Assembler {
    host: String,
    started: bool,
    outputs: Vec<Output>,
    calls: u32,
    held_bytes: usize,
    tally: Tally,
    usage: Option<Usage>,
    /// The provider's own word for how the answer ended.
    finish_raw: Option<String>,
}

impl Assembler {
    pub(super) fn new(host: &str) -> Self {
        Assembler {
            host: host.to_owned(),
            started: false,
            outputs: Vec::new(),
            calls: 0,
            held_bytes: 0,
            tally: Tally::default(),
            usage: None,
            finish_raw: None,
        }
    }

    /// Returns what the provider said the answer cost, so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Returns the provider's own word for how the answer ended, if it has said one.
    pub(super) fn finish_raw(&self) -> Option<&str> {
        self.finish_raw.as_deref()
    }

    /// Takes an event, and tells whether the answer is whole with it. Unknown events mean nothing.
    pub(super) fn event(&mut self, kind: &str, event: &Value, parts: &mut Vec<Part>) -> Result<bool, Error> {
        let begun = parts.len();
        let mut whole = false;
        let taken = self.take(kind, event, parts).map(|it| whole = it);
        // Only the first event names the answer; a stream that is joined later has none.
        if parts.len() > begun && !std::mem::replace(&mut self.started, true) {
            parts.insert(begun, Part::Started { response_id: None });
        }
        taken.map(|()| whole)
    }

    fn take(&mut self, kind: &str, event: &Value, parts: &mut Vec<Part>) -> Result<bool, Error> {
        let delta = || text_of(event.get("delta").unwrap_or(&Value::Null));
        let whole = |key| text_of(event.get(key).unwrap_or(&Value::Null));
        let number = |key| event.get(key).and_then(count).unwrap_or(0);
        let item = event.get("item").unwrap_or(&Value::Null);
        let (content, summary) =
            (Slot::Content(number("content_index")), Slot::Summary(number("summary_index")));
        let refusal = Slot::Refusal(number("content_index"));
        match kind.strip_prefix("response.").unwrap_or(kind) {
            "error" => return Err(classify_in_answer(event)),
            "created" | "queued" | "in_progress" => self.progress(event, parts)?,
            "completed" | "done" => return self.bare(answer_in(event), Some("completed"), parts),
            "incomplete" => return self.bare(answer_in(event), Some("incomplete"), parts),
            status @ ("failed" | "cancelled") => self.end(answer_in(event), status, parts)?,
            "output_item.added" => self.added(item, event, parts)?,
            "output_item.done" => self.item(item, event, parts)?,
            "output_text.delta" => self.hear(Kind::Message, content, delta(), event, parts)?,
            "refusal.delta" => self.hear(Kind::Message, refusal, delta(), event, parts)?,
            "output_text.done" => self.settle(Kind::Message, content, whole("text"), event, parts)?,
            "refusal.done" => self.settle(Kind::Message, refusal, whole("refusal"), event, parts)?,
            "content_part.done" => {
                let part = event.get("part").unwrap_or(&Value::Null);
                let reasoning = part.get("type").is_some_and(|kind| kind == "reasoning_text");
                let kind = if reasoning || self.reasons(event) { Kind::Reasoning } else { Kind::Message };
                self.settle(kind, Slot::of(part, number("content_index")), text_of(part), event, parts)?;
            }
            "reasoning_summary_text.delta" | "reasoning_summary.delta" => {
                self.hear(Kind::Reasoning, summary, delta(), event, parts)?;
            }
            "reasoning_summary_text.done" | "reasoning_summary.done" => {
                self.settle(Kind::Reasoning, summary, whole("text"), event, parts)?;
            }
            "reasoning_summary_part.done" => {
                self.settle(Kind::Reasoning, summary, whole("part"), event, parts)?;
            }
            "reasoning_text.delta" | "reasoning.delta" => {
                self.hear(Kind::Reasoning, content, delta(), event, parts)?;
            }
            "reasoning_text.done" | "reasoning.done" => {
                self.settle(Kind::Reasoning, content, whole("text"), event, parts)?;
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                self.hear(Kind::Call, Slot::Arguments, delta(), event, parts)?;
            }
            "function_call_arguments.done" | "custom_tool_call_input.done" => {
                self.settle(Kind::Call, Slot::Arguments, &arguments(event), event, parts)?;
            }
            "" => return self.bare(event, None, parts),
            // What is no event of this wire may still be an error; an event about a part of the answer may
            // hold one that does not end it.
            _ if !kind.starts_with("response.") && error_in(event).is_some() => {
                return Err(classify_in_answer(event));
            }
            _ => {}
        }
        Ok(false)
    }

    /// Tells whether an event is about an item that is known as reasoning.
    fn reasons(&self, event: &Value) -> bool {
        let id = text(event, "item_id");
        id.is_some() && self.outputs.iter().any(|output| output.kind == Kind::Reasoning && output.id == id)
    }

    /// Takes an answer that came as one document.
    pub(super) fn document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let kind = answer.get("type").and_then(Value::as_str).unwrap_or_default();
        match self.event(kind, answer, parts)? {
            true => Ok(()),
            false if self.started => Err(unfinished("the provider is still at work on the answer")),
            false => {
                let message = "the provider's answer made no sense: it holds no output and no error";
                Err(Error::new(FailureClass::Server, message))
            }
        }
    }

    /// Takes an answer as it is kept, or an error. What it says of itself counts; `told` is what else is
    /// known. Without either, that it is there as a whole is the proof that it is finished.
    fn bare(&mut self, answer: &Value, told: Option<&str>, parts: &mut Vec<Part>) -> Result<bool, Error> {
        let items = answer.get("output").and_then(Value::as_array);
        let output = items.is_some();
        // Under a word that is none of this API's, an answer with something in it is there as a whole.
        let whole = |status: &str| {
            ENDED.contains(&status)
                || !AT_WORK.contains(&status) && items.is_some_and(|items| !items.is_empty())
        };
        let there = output || told.is_some() || answer.get("object").is_some_and(|it| it == "response");
        match status_of(answer).filter(|status| told.is_none() || ENDED.contains(status)).or(told) {
            Some(status) if whole(status) => self.end(answer, status, parts).map(|()| true),
            Some(_) if there => self.progress(answer, parts).map(|()| false),
            None if output => self.end(answer, "completed", parts).map(|()| true),
            Some(_) | None => {
                let said =
                    ["message", "detail"].iter().any(|key| answer.get(key).is_some_and(Value::is_string));
                match error_in(answer).is_some() || said {
                    true => Err(classify_in_answer(answer)),
                    false => Ok(false),
                }
            }
        }
    }

    /// Takes what is said of an answer that is being made.
    fn progress(&mut self, event: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let answer = answer_in(event);
        self.snapshot(answer, parts);
        failure_in(answer, status_of(answer).unwrap_or_default())
    }

    fn snapshot(&mut self, answer: &Value, parts: &mut Vec<Part>) {
        if !std::mem::replace(&mut self.started, true) {
            parts.push(Part::Started { response_id: text(answer, "id") });
        }
        let said = answer.get("usage").filter(|usage| usage.is_object());
        let usage = said.and_then(|said| self.tally.take(said)).filter(|usage| self.usage != Some(*usage));
        if let Some(usage) = usage {
            self.usage = Some(usage);
            parts.push(Part::Usage { usage });
        }
    }

    fn end(&mut self, answer: &Value, status: &str, parts: &mut Vec<Part>) -> Result<(), Error> {
        self.snapshot(answer, parts);
        let details = answer.get("incomplete_details").and_then(|details| text(details, "reason"));
        let raw = if status == "incomplete" { details } else { None }.unwrap_or_else(|| status.to_owned());
        self.finish_raw = Some(raw.clone());
        let read = self.reconcile(answer, parts);
        failure_in(answer, status)?;
        read?;
        let reason = self.finish_reason(&raw);
        let cut = !reason.is_natural();
        for output in &mut self.outputs {
            if !output.close(&self.host, cut, parts) {
                return Err(nonsense("a tool call had no name"));
            }
        }
        parts.push(Part::Finished { reason, raw: Some(raw) });
        Ok(())
    }

    fn finish_reason(&self, raw: &str) -> FinishReason {
        match raw {
            "completed" | "complete" if self.calls > 0 => FinishReason::ToolCalls,
            "completed" | "complete" => FinishReason::Stop,
            "max_output_tokens" | "max_tokens" | "length" => FinishReason::Length,
            "content_filter" => FinishReason::ContentFilter,
            _ => FinishReason::Other,
        }
    }

    /// Takes the items of a whole answer: what was not told of them is told now.
    fn reconcile(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let items = answer.get("output").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut known = vec![false; self.outputs.len()];
        let ids: Vec<String> = items.iter().filter_map(|item| text(item, "id")).collect();
        let mut spoken = 0;
        for (place, item) in (0_u64..).zip(items) {
            self.grow(item)?;
            let (kind, id) = (Kind::of(item), text(item, "id"));
            let free = |at: &usize| !known[*at] && self.outputs[*at].kind == kind;
            let call = text(item, "call_id");
            let same = |at: &usize| id.is_some() && self.outputs[*at].id == id;
            let called = |at: &usize| self.outputs[*at].is_called(call.as_deref());
            // Some servers give an item another id each time they speak of it.
            let may_be = |at: &usize| !self.outputs[*at].id.as_ref().is_some_and(|id| ids.contains(id));
            let all = || (0..known.len()).filter(free);
            let there = || all().filter(may_be).find(|at| self.outputs[*at].at == Some(place));
            let found =
                all().find(same).or_else(|| all().find(called)).or_else(there).or_else(|| all().find(may_be));
            let at = match found {
                Some(at) => at,
                None => self.begin(kind, id.as_deref(), Some(place))?,
            };
            let output = &mut self.outputs[at];
            output.read(item, &mut self.calls, parts);
            match known.get_mut(at) {
                Some(known) => {
                    *known = true;
                    output.end_late(&self.host, item, spoken, parts);
                }
                None => output.end(&self.host, item, parts),
            }
            spoken += usize::from(kind != Kind::Reasoning);
        }
        Ok(())
    }

    fn added(&mut self, item: &Value, event: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let (kind, id) = (Kind::of(item), text(item, "id"));
        let same = |output: &Output| output.kind == kind && output.id == id && !output.done;
        let known = id.is_some() && self.outputs.iter().any(same);
        if item.is_object() && !known {
            let at = self.begin(kind, id.as_deref(), event.get("output_index").and_then(count))?;
            self.outputs[at].announce(item, &mut self.calls, parts);
        }
        Ok(())
    }

    fn item(&mut self, item: &Value, event: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        if !item.is_object() {
            return Ok(());
        }
        let (kind, id) = (Kind::of(item), text(item, "id"));
        // Only with its last event may a call say whose it is.
        let unnamed = |output: &Output| output.id == id && id.is_some() && output.is_unnamed_call();
        let at = match self.outputs.iter().position(unnamed).filter(|_| kind == Kind::Other) {
            Some(at) => at,
            None => self.position(kind, id.as_deref(), event, &texts_of(item))?,
        };
        self.outputs[at].kind = kind;
        self.grow(item)?;
        self.outputs[at].read(item, &mut self.calls, parts);
        self.outputs[at].end(&self.host, item, parts);
        Ok(())
    }

    fn hear(
        &mut self,
        kind: Kind,
        slot: Slot,
        piece: &str,
        event: &Value,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let at = self.position(kind, text(event, "item_id").as_deref(), event, &[])?;
        self.held_bytes = self.held_bytes.saturating_add(piece.len());
        self.check_size()?;
        self.outputs[at].hear(slot, piece, parts);
        Ok(())
    }

    fn settle(
        &mut self,
        kind: Kind,
        slot: Slot,
        whole: &str,
        event: &Value,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        if whole.is_empty() {
            return Ok(());
        }
        let at = self.position(kind, text(event, "item_id").as_deref(), event, &[whole])?;
        self.outputs[at].settle(slot, whole, parts);
        Ok(())
    }

    /// Finds the item an event is about; one that nobody announced begins here. By its id; or, among those
    /// that are not whole, by the id of its call or its place; or it is the newest of its kind that may be
    /// meant, or one of which all of these whole texts came already: some servers give what ends an item the
    /// place and the id of the next.
    fn position(
        &mut self,
        kind: Kind,
        id: Option<&str>,
        event: &Value,
        whole: &[&str],
    ) -> Result<usize, Error> {
        let place = event.get("output_index").and_then(count);
        let outputs = || self.outputs.iter().enumerate().rev().filter(|(_, output)| output.kind == kind);
        let is_it = |output: &Output| id.is_some() && output.id.as_deref() == id;
        let by_id = outputs().find(|(_, output)| is_it(output));
        // It may be about a call that the provider makes itself.
        let theirs = |output: &Output| kind == Kind::Call && output.kind == Kind::Other && is_it(output);
        let theirs = || self.outputs.iter().enumerate().find(|(_, output)| theirs(output));
        let open = || outputs().filter(|(_, output)| !output.done);
        let call = event.get("item").and_then(|item| text(item, "call_id"));
        let by_call = || open().find(|(_, output)| output.is_called(id) || output.is_called(call.as_deref()));
        let by_place = || open().find(|(_, output)| place.is_some() && output.at == place);
        let newest = || open().find(|(_, output)| place.is_none() || output.at.is_none());
        let told = || open().find(|(_, output)| output.told(whole));
        let found = by_id.or_else(theirs).or_else(by_call).or_else(by_place).or_else(newest).or_else(told);
        match found.map(|(at, _)| at) {
            Some(at) => Ok(at),
            None => self.begin(kind, id, place),
        }
    }

    fn begin(&mut self, kind: Kind, id: Option<&str>, at: Option<u64>) -> Result<usize, Error> {
        if self.outputs.len() >= MAX_CALLS {
            let message = format!("the answer had more than {MAX_CALLS} items and was given up");
            return Err(Error::new(FailureClass::Server, message));
        }
        self.outputs.push(Output::new(kind, id, at));
        Ok(self.outputs.len() - 1)
    }
}

impl Assembler {
    /// Counts an item that comes whole.
    fn grow(&mut self, item: &Value) -> Result<(), Error> {
        if Kind::of(item) == Kind::Other {
            self.held_bytes = self.held_bytes.saturating_add(value_bytes(item));
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<(), Error> {
        if self.held_bytes > MAX_RESPONSE_BYTES {
            let message = format!("the answer was larger than {MAX_RESPONSE_BYTES} bytes and was given up");
            return Err(Error::new(FailureClass::Server, message));
        }
        Ok(())
    }
}

fn status_of(answer: &Value) -> Option<&str> {
    answer.get("status").and_then(Value::as_str)
}

/// Returns the answer that an event is about.
fn answer_in(event: &Value) -> &Value {
    event.get("response").filter(|it| it.is_object()).unwrap_or(event)
}

fn error_in(answer: &Value) -> Option<&Value> {
    answer.get("error").filter(|error| says_failure(error))
}

/// Tells why an answer failed, if it did.
fn failure_in(answer: &Value, status: &str) -> Result<(), Error> {
    match (status, error_in(answer)) {
        (_, Some(error)) => Err(classify_in_answer(error)),
        ("failed", None) => {
            let message = "the provider failed while it answered: it did not say why";
            Err(Error::new(FailureClass::Server, message))
        }
        ("cancelled", None) => {
            Err(Error::new(FailureClass::Server, "the answer was cancelled at the provider"))
        }
        (_, None) => Ok(()),
    }
}
