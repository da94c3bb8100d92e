//! From the JSON of an answer, in chunks or whole, to parts. How the JSON is framed is left to the
//! decoder.

use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;
use serde_json::Value;

use super::calls::Calls;
use super::reasoning;
use super::usage::Tally;
use crate::error::{classify_in_answer, says_failure};
use crate::reader::unfinished;
use crate::{Error, FinishReason, Part};

/// Words in the place of a finish reason that stand for none.
const SAYS_NOTHING: [&str; 2] = ["", "null"];

/// Puts one answer together.
#[derive(Debug)]
pub(crate) struct Assembler {
    host: String,
    started: bool,
    /// Pieces of the message came.
    in_pieces: bool,
    thinking: bool,
    field: Option<&'static str>,
    details_field: Option<&'static str>,
    details: Vec<Value>,
    seal: Option<String>,
    calls: Calls,
    tally: Tally,
    usage: Option<Usage>,
    reason: Option<String>,
}

impl Assembler {
    pub(crate) fn new(host: &str) -> Self {
        Assembler {
            host: host.to_owned(),
            started: false,
            in_pieces: false,
            thinking: false,
            field: None,
            details_field: None,
            details: Vec::new(),
            seal: None,
            calls: Calls::default(),
            tally: Tally::default(),
            usage: None,
            reason: None,
        }
    }

    /// Returns what the provider said the answer cost, so far.
    pub(crate) fn counted(&self) -> Option<Usage> {
        self.usage
    }

    /// Returns the provider's own word for how the answer ended, if it has said one.
    pub(crate) fn finish_raw(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Takes a chunk of a stream, or a whole answer. Unknown fields mean nothing.
    pub(crate) fn take(&mut self, chunk: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let id = chunk.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        if id.is_some() {
            self.start(id, parts);
        }
        first_choice(chunk).try_for_each(|choice| self.choice(choice, parts))?;
        let object = |value: &&Value| value.is_object();
        let usage = chunk.get("usage").filter(object);
        // Moonshot counts in the choice, Groq in a place of its own.
        let in_choice = || first_choice(chunk).find_map(|choice| choice.get("usage").filter(object));
        if let Some(usage) = usage.or_else(in_choice).or_else(|| chunk.pointer("/x_groq/usage")) {
            self.count(usage, parts);
        }
        match error_in(chunk) {
            Some(error) => Err(classify_in_answer(error)),
            None => Ok(()),
        }
    }

    fn choice(&mut self, choice: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let held = |key| choice.get(key).filter(|it: &&Value| it.is_object());
        match (held("delta"), held("message")) {
            (Some(delta), _) => {
                self.in_pieces = true;
                self.message(delta, parts)?;
            }
            // Perplexity says at the end once more all that was said.
            (None, Some(_)) if self.in_pieces => {}
            (None, Some(message)) => self.message(message, parts)?,
            (None, None) => self.text(choice.get("text"), parts),
        }
        let reason = choice.get("finish_reason").and_then(Value::as_str);
        if let Some(reason) = reason.filter(|reason| !SAYS_NOTHING.contains(reason)) {
            self.reason = Some(reason.to_owned());
        }
        Ok(())
    }

    /// Ends an answer that came as one document: that it is whole is the proof that it is finished.
    pub(crate) fn finish_document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        if first_choice(answer).next().is_none() {
            let message = "the provider's answer made no sense: it holds no choice and no error";
            return Err(Error::new(FailureClass::Server, message));
        }
        self.end(parts)
    }

    /// Ends an answer that came as a stream.
    pub(crate) fn finish_stream(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        if self.reason.is_none() {
            return Err(unfinished("the stream ended before the answer was complete"));
        }
        self.end(parts)
    }

    fn end(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        let reason = finish_reason(self.reason.as_deref(), !self.calls.is_empty())?;
        self.start(None, parts);
        self.end_reasoning(parts);
        self.calls.finish(&self.host, !reason.is_natural(), parts)?;
        parts.push(Part::Finished { reason, raw: self.reason.clone() });
        Ok(())
    }

    fn start(&mut self, id: Option<&str>, parts: &mut Vec<Part>) {
        if !std::mem::replace(&mut self.started, true) {
            parts.push(Part::Started { response_id: id.map(str::to_owned) });
        }
    }

    fn message(&mut self, message: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        let reasoning = reasoning::said(message);
        if let Some((text, field)) = reasoning.text {
            self.think(text, field, parts);
        }
        self.details_field = reasoning.details_field.or(self.details_field);
        if let Some(seal) = reasoning.seal {
            self.seal = Some(seal.to_owned());
        }
        for detail in reasoning.details {
            reasoning::add_detail(&mut self.details, detail);
        }
        match message.get("content").and_then(Value::as_array) {
            Some(pieces) => pieces.iter().for_each(|piece| self.piece(piece, parts)),
            None => self.text(message.get("content"), parts),
        }
        self.refuse(message.get("refusal"), parts);
        let calls = match message.get("tool_calls") {
            Some(Value::Array(calls)) => calls.as_slice(),
            Some(call @ Value::Object(_)) => std::slice::from_ref(call),
            // The form from before there were several calls.
            Some(_) | None => message.get("function_call").map_or(&[][..], std::slice::from_ref),
        };
        for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.is_object()) {
            self.start(None, parts);
            self.end_reasoning(parts);
            self.calls.take(call, Some(at).filter(|_| calls.len() > 1), parts)?;
        }
        Ok(())
    }

    /// Takes a piece of content that comes in pieces of several kinds, as Mistral and Databricks send it.
    fn piece(&mut self, piece: &Value, parts: &mut Vec<Part>) {
        match piece.get("thinking") {
            Some(Value::Array(thoughts)) => {
                for thought in thoughts.iter().filter_map(|it| it.get("text")?.as_str()) {
                    self.think(thought.to_owned(), None, parts);
                }
            }
            Some(thought) => self.think(thought.as_str().unwrap_or_default().to_owned(), None, parts),
            None => {
                // Databricks sends reasoning as a list of its summaries.
                for thought in piece.get("summary").and_then(Value::as_array).into_iter().flatten() {
                    self.think(says(thought.get("text")).unwrap_or_default(), None, parts);
                }
                self.text(piece.get("text"), parts);
                self.refuse(piece.get("refusal"), parts);
            }
        }
    }

    fn text(&mut self, text: Option<&Value>, parts: &mut Vec<Part>) {
        if let Some(text) = says(text) {
            self.say(Part::Text { text }, parts);
        }
    }

    fn refuse(&mut self, text: Option<&Value>, parts: &mut Vec<Part>) {
        if let Some(text) = says(text) {
            self.say(Part::Refusal { text }, parts);
        }
    }

    fn say(&mut self, part: Part, parts: &mut Vec<Part>) {
        self.start(None, parts);
        self.end_reasoning(parts);
        parts.push(part);
    }

    fn think(&mut self, text: String, field: Option<&'static str>, parts: &mut Vec<Part>) {
        if text.is_empty() {
            return;
        }
        self.start(None, parts);
        self.thinking = true;
        self.field = field.or(self.field);
        parts.push(Part::Reasoning { text });
    }

    /// Ends the reasoning so far. Details that come after it are hidden reasoning of their own; in
    /// a request they are joined again.
    fn end_reasoning(&mut self, parts: &mut Vec<Part>) {
        let (details, seal) = (std::mem::take(&mut self.details), self.seal.take());
        if !self.thinking && details.is_empty() && seal.is_none() {
            return;
        }
        self.thinking = false;
        let field = self.field.take();
        let field = if details.is_empty() { field } else { self.details_field };
        let opaque = reasoning::opaque(&self.host, field, details, seal);
        parts.push(Part::ReasoningEnd { opaque });
    }

    fn count(&mut self, said: &Value, parts: &mut Vec<Part>) {
        let usage = self.tally.take(said).filter(|usage| self.usage != Some(*usage));
        if let Some(usage) = usage {
            self.start(None, parts);
            self.usage = Some(usage);
            parts.push(Part::Usage { usage });
        }
    }
}

fn says(text: Option<&Value>) -> Option<String> {
    text?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns the first choice. Copilot sends it in several, one with the text and one with the calls, and without
/// the index that tells choices apart.
fn first_choice(chunk: &Value) -> impl Iterator<Item = &Value> {
    let choices = chunk.get("choices").and_then(Value::as_array).into_iter().flatten();
    choices.filter(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0)
}

/// Finds the error that a chunk or document holds or is.
fn error_in(chunk: &Value) -> Option<&Value> {
    let there = |value: &&Value| value.get("error").is_some_and(says_failure);
    // MiniMax says with every chunk whether it failed: by a number that is 0 if not.
    let failed = |pointer: &&str| chunk.pointer(pointer).is_some_and(says_failure);
    if there(&chunk) || ["/base_resp/status_code", "/x_groq/error"].iter().any(failed) {
        return Some(chunk);
    }
    if let Some(choice) = first_choice(chunk).find(there) {
        return Some(choice);
    }
    let said =
        ["message", "detail", "error_msg"].iter().any(|key| chunk.get(key).is_some_and(Value::is_string));
    let bare = said || chunk.get("errors").is_some_and(says_failure);
    Some(chunk).filter(|_| bare && chunk.get("choices").is_none())
}

/// An answer that asks for tools and ends in an ordinary way waits for their results, whatever the
/// word for it.
fn finish_reason(raw: Option<&str>, has_calls: bool) -> Result<FinishReason, Error> {
    let word = raw.map(str::to_ascii_lowercase);
    Ok(match word.as_deref() {
        None
        | Some("stop" | "end_turn" | "eos" | "eos_token" | "stop_sequence" | "complete" | "completed") => {
            if has_calls {
                FinishReason::ToolCalls
            } else {
                FinishReason::Stop
            }
        }
        Some("tool_calls" | "tool_call" | "tool_use" | "function_call") => FinishReason::ToolCalls,
        Some(
            "length" | "max_tokens" | "max_output_tokens" | "model_length" | "model_context_window_exceeded",
        ) => FinishReason::Length,
        Some(
            "safety"
            | "refusal"
            | "sensitive"
            | "content_filtered"
            | "guardrail_intervened"
            | "error_toxic"
            | "recitation"
            | "blocklist"
            | "prohibited_content"
            | "spii",
        ) => FinishReason::ContentFilter,
        // Google says behind a colon what was filtered.
        Some(word) if word.starts_with("content_filter") => FinishReason::ContentFilter,
        Some("pause" | "pause_turn") => FinishReason::Pause,
        Some("error" | "error_finish" | "network_error" | "abort" | "aborted") => {
            let message = "the provider failed while it answered: it did not say why";
            return Err(Error::new(FailureClass::Server, message));
        }
        Some("timeout") => {
            let message = "the provider gave the answer up because it took too long";
            return Err(Error::new(FailureClass::Timeout, message));
        }
        Some(word) if word.contains("malformed_function_call") => {
            let message = "the model wrote what the provider could not read";
            return Err(Error::new(FailureClass::Server, message));
        }
        Some("insufficient_system_resource") => {
            let message = "the provider gave the answer up for lack of capacity";
            return Err(Error::new(FailureClass::Overloaded, message));
        }
        Some(_) => FinishReason::Other,
    })
}
