//! From the JSON of an answer, in events or whole, to parts. How the JSON is framed is left to the decoder.
//!
//! Blocks come one after the other, so a block that begins ends the one before, whether or not its own end was
//! told. Only tool calls may go on beside others.

use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;
use serde_json::{Map, Value};

use super::calls::Calls;
use super::usage::Tally;
use super::{opaque, with_request_id};
use crate::conversation::is_whole;
use crate::error::{classify_in_answer, says_failure};
use crate::limits::{ITEM_BYTES, MAX_RESPONSE_BYTES};
use crate::measure::value_bytes;
use crate::number::count;
use crate::reader::nonsense;
use crate::{Error, FinishReason, Part};

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    GoesOn,
    /// The provider said that this was all.
    Ended,
}

/// Puts one answer together.
#[derive(Debug)]
pub(super) struct Assembler {
    host: String,
    started: bool,
    block: Option<Open>,
    calls: Calls,
    tally: Tally,
    usage: Option<Usage>,
    container: Option<String>,
    reason: Option<String>,
    /// Bytes of what is kept until its block ends.
    held: usize,
}

/// The block that is being written.
#[derive(Debug)]
struct Open {
    number: Option<u64>,
    block: Block,
}

impl Open {
    /// Tells whether it is meant by a number. Servers that give none write one block at a time.
    fn is(&self, number: Option<u64>) -> bool {
        number.is_none() || self.number.is_none() || self.number == number
    }
}

#[derive(Debug)]
enum Block {
    /// Its text has been passed on.
    Text { bytes: usize, citations: Vec<Value> },
    /// Its text has been passed on; the rest is a signature, or what is hidden.
    Thinking { spoken: bool, rest: Map<String, Value> },
    /// Anything else: kept word for word. Arguments of a tool that the provider runs come in pieces.
    Other { block: Map<String, Value>, input: String },
}

impl Assembler {
    pub(super) fn new(host: &str) -> Self {
        Assembler {
            host: host.to_owned(),
            started: false,
            block: None,
            calls: Calls::default(),
            tally: Tally::default(),
            usage: None,
            container: None,
            reason: None,
            held: 0,
        }
    }

    /// Returns what the provider said the answer cost, so far.
    pub(super) fn counted(&self) -> Option<Usage> {
        self.usage
    }

    /// Returns the provider's own word for why the model stopped, if it has said one.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Takes an event of a stream. `name` is what its frame calls it. Unknown events and fields mean nothing.
    pub(super) fn take(
        &mut self,
        name: &str,
        event: &Value,
        parts: &mut Vec<Part>,
    ) -> Result<Progress, Error> {
        let said = event.get("type").and_then(Value::as_str).filter(|_| name != "error");
        let kind = said.unwrap_or(name);
        if let Some(error) = error_in(kind, event) {
            return Err(error);
        }
        let number = event.get("index").and_then(count);
        match kind {
            "message_start" => {
                let message = event.get("message").unwrap_or(event);
                let first = !self.started;
                self.start(message.get("id").and_then(Value::as_str), parts);
                self.message_said(message, parts);
                if first {
                    self.content(&message["content"], parts)?;
                }
            }
            "content_block_start" => {
                if let Some(block) = event.get("content_block").and_then(Value::as_object) {
                    self.begin(number, block, parts)?;
                }
            }
            "content_block_delta" => {
                if let Some(delta) = event.get("delta").and_then(Value::as_object) {
                    self.go_on(number, delta, parts)?;
                }
            }
            "content_block_stop" => self.block_said_its_end(number, parts),
            "message_delta" => {
                self.message_said(event, parts);
                self.message_said(event.get("delta").unwrap_or(&Value::Null), parts);
            }
            "message_stop" if self.started => return Ok(Progress::Ended),
            "message" => self.take_document(event, parts)?,
            _ => {}
        }
        Ok(Progress::GoesOn)
    }

    /// Takes a whole answer. That it is whole is the proof that it is finished.
    pub(super) fn take_document(&mut self, answer: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        if let Some(error) = error_in(answer["type"].as_str().unwrap_or_default(), answer) {
            return Err(error);
        }
        let content = &answer["content"];
        if !content.is_array() && !content.is_string() && !answer["stop_reason"].is_string() {
            let message = "the provider's answer made no sense: it holds no content and no error";
            return Err(Error::new(FailureClass::Server, message));
        }
        self.start(answer.get("id").and_then(Value::as_str), parts);
        self.message_said(answer, parts);
        self.text(content.as_str().unwrap_or_default(), parts);
        self.content(content, parts)
    }

    /// Takes blocks that come whole: those of a document, and those that are there when a stream begins, as when
    /// code goes on that calls tools.
    fn content(&mut self, content: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        for block in content.as_array().into_iter().flatten().filter_map(Value::as_object) {
            self.begin(None, block, parts)?;
        }
        Ok(())
    }

    /// Ends the answer.
    pub(super) fn finish(&mut self, parts: &mut Vec<Part>) {
        self.start(None, parts);
        let reason = finish_reason(self.reason.as_deref(), !self.calls.is_empty());
        let cut = !reason.is_natural();
        self.end_block(cut, parts);
        self.calls.finish(&self.host, cut, parts);
        if let Some(id) = self.container.take() {
            let item = opaque::item(&self.host, opaque::container(&self.host, &id));
            parts.push(Part::Item { item });
        }
        parts.push(Part::Finished { reason, raw: self.reason.take() });
    }

    fn start(&mut self, id: Option<&str>, parts: &mut Vec<Part>) {
        if !std::mem::replace(&mut self.started, true) {
            let response_id = id.filter(|id| !id.is_empty()).map(str::to_owned);
            parts.push(Part::Started { response_id });
        }
    }

    /// Takes what is said of the answer as a whole, wherever it stands.
    fn message_said(&mut self, said: &Value, parts: &mut Vec<Part>) {
        let text =
            |pointer: &str| said.pointer(pointer)?.as_str().filter(|it| !it.is_empty()).map(str::to_owned);
        self.reason = text("/stop_reason").or(self.reason.take());
        self.container = text("/container/id").or(self.container.take());
        let usage = said.get("usage").and_then(|said| self.tally.take(said));
        if let Some(usage) = usage.filter(|usage| self.usage != Some(*usage)) {
            self.start(None, parts);
            self.usage = Some(usage);
            parts.push(Part::Usage { usage });
        }
    }

    fn begin(
        &mut self,
        number: Option<u64>,
        block: &Map<String, Value>,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        self.start(None, parts);
        self.end_block(false, parts);
        let text = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        let open = match text("type") {
            "tool_use" => return self.calls.begin(number, block, parts),
            "text" | "" => {
                let citations = block.get("citations").and_then(Value::as_array).cloned().unwrap_or_default();
                Block::Text { bytes: 0, citations }
            }
            "thinking" | "redacted_thinking" => {
                let rest = block.iter().filter(|(key, _)| *key != "thinking");
                let rest = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
                Block::Thinking { spoken: false, rest }
            }
            _ => Block::Other { block: block.clone(), input: String::new() },
        };
        self.hold(block.values().map(value_bytes).sum())?;
        let speaks = !matches!(open, Block::Other { .. });
        self.block = Some(Open { number, block: open });
        if speaks {
            self.text(text("text"), parts);
            self.think(text("thinking"), None, parts);
        }
        Ok(())
    }

    fn go_on(
        &mut self,
        number: Option<u64>,
        delta: &Map<String, Value>,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let text = |key: &str| delta.get(key).and_then(Value::as_str).unwrap_or_default();
        if let Some(open) = self.block.as_mut().filter(|open| open.is(number))
            && let Block::Other { block, input } = &mut open.block
        {
            match delta.get("partial_json") {
                Some(piece) => input.push_str(&as_text(piece)),
                None => grow(block, delta),
            }
            return self.hold(delta.values().map(value_bytes).sum());
        }
        if let Some(piece) = delta.get("partial_json") {
            let piece = as_text(piece);
            if !self.calls.arguments(number, &piece, parts) && !piece.is_empty() {
                return Err(nonsense("it has arguments of a call that did not begin"));
            }
            return Ok(());
        }
        self.text(text("text"), parts);
        let signature = delta.get("signature").filter(|it| it.is_string());
        if let Some(signature) = signature {
            self.hold(value_bytes(signature))?;
        }
        self.think(text("thinking"), signature, parts);
        if let Some(citation) = delta.get("citation").filter(|it| !it.is_null()) {
            self.hold(value_bytes(citation))?;
            if let Some(Open { block: Block::Text { citations, .. }, .. }) = &mut self.block {
                citations.push(citation.clone());
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str, parts: &mut Vec<Part>) {
        if text.is_empty() {
            return;
        }
        self.start(None, parts);
        match &mut self.block {
            Some(Open { block: Block::Text { bytes, .. }, .. }) => *bytes += text.len(),
            Some(_) | None => {
                self.end_block(false, parts);
                let block = Block::Text { bytes: text.len(), citations: Vec::new() };
                self.block = Some(Open { number: None, block });
            }
        }
        parts.push(Part::Text { text: text.to_owned() });
    }

    /// Goes on thinking; begins to if the block that is being written is something else.
    fn think(&mut self, text: &str, signature: Option<&Value>, parts: &mut Vec<Part>) {
        if text.is_empty() && signature.is_none() {
            return;
        }
        self.start(None, parts);
        let (number, spoken, mut rest) = match self.block.take() {
            Some(Open { number, block: Block::Thinking { spoken, rest } }) => (number, spoken, rest),
            other @ (Some(Open { number: _, block: Block::Text { .. } | Block::Other { .. } }) | None) => {
                self.block = other;
                self.end_block(false, parts);
                (None, false, Map::from_iter([("type".to_owned(), Value::from("thinking"))]))
            }
        };
        if let Some(signature) = signature {
            rest.insert("signature".to_owned(), signature.clone());
        }
        let spoken = spoken || !text.is_empty();
        self.block = Some(Open { number, block: Block::Thinking { spoken, rest } });
        if !text.is_empty() {
            parts.push(Part::Reasoning { text: text.to_owned() });
        }
    }

    /// Whether thinking, or half of what a tool is given, is whole is only known when the next block begins: it
    /// may be that the answer was cut.
    fn block_said_its_end(&mut self, number: Option<u64>, parts: &mut Vec<Part>) {
        let whole = |block: &Block| match block {
            Block::Text { .. } => true,
            Block::Thinking { .. } => false,
            Block::Other { block: _, input } => input.trim().is_empty() || is_whole(input),
        };
        let ends = |open: &Open| open.is(number) && whole(&open.block);
        if self.block.as_ref().is_some_and(ends) {
            self.end_block(false, parts);
        }
    }

    /// Ends the block that is being written. What was cut off (`cut`) and cannot be sent back is not kept.
    fn end_block(&mut self, cut: bool, parts: &mut Vec<Part>) {
        let Some(Open { number: _, block }) = self.block.take() else { return };
        match block {
            Block::Text { bytes, citations } => {
                if bytes > 0 && !citations.is_empty() {
                    let value = opaque::citations(&self.host, citations, bytes);
                    parts.push(Part::Item { item: opaque::item(&self.host, value) });
                }
            }
            Block::Thinking { spoken, mut rest } => {
                let there =
                    |key: &str| rest.get(key).and_then(Value::as_str).is_some_and(|it| !it.is_empty());
                let signed = there("signature") || there("data");
                if !signed {
                    rest.remove("signature");
                }
                // Servers without signatures want their reasoning back as well; where there are
                // signatures, none means that the thinking was cut off.
                let opaque = (signed || spoken && !cut).then(|| opaque::block(&self.host, rest));
                if spoken || opaque.is_some() {
                    parts.push(Part::ReasoningEnd { opaque });
                }
            }
            Block::Other { mut block, input } => {
                // Where the model wrote no JSON, what the tool says to that follows, and needs the call before it.
                if let Ok(input) = serde_json::from_str::<Value>(&input) {
                    block.insert("input".to_owned(), input);
                } else if cut && !input.trim().is_empty() {
                    return;
                }
                let value = opaque::block(&self.host, block);
                parts.push(Part::Item { item: opaque::item(&self.host, value) });
            }
        }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        self.held = self.held.saturating_add(ITEM_BYTES + bytes);
        if self.held > MAX_RESPONSE_BYTES {
            let message = format!("the answer was larger than {MAX_RESPONSE_BYTES} bytes and was given up");
            return Err(Error::new(FailureClass::Server, message));
        }
        Ok(())
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Adds a piece to a block of unknown kind: texts and lists grow, all else is replaced.
fn grow(block: &mut Map<String, Value>, delta: &Map<String, Value>) {
    for (key, value) in delta.iter().filter(|(key, _)| *key != "type") {
        match (block.get_mut(key), value) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(more),
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more.iter().cloned()),
            (Some(_), Value::Null) => {}
            (Some(_) | None, value) => {
                block.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Finds the error that an event or document holds or is.
fn error_in(kind: &str, value: &Value) -> Option<Error> {
    let holds = value.get("error").is_some_and(says_failure);
    let says = ["message", "detail"].iter().any(|key| value.get(key).is_some_and(Value::is_string));
    let bare = says && value.get("type").is_none() && value.get("content").is_none();
    (kind == "error" || holds || bare)
        .then(|| with_request_id(classify_in_answer(value), value.get("request_id").and_then(Value::as_str)))
}

/// An answer that asks for tools and ends in an ordinary way waits for their results, whatever the
/// word for it.
fn finish_reason(raw: Option<&str>, has_calls: bool) -> FinishReason {
    match raw.map(str::to_ascii_lowercase).as_deref() {
        None | Some("end_turn" | "stop_sequence" | "stop") if has_calls => FinishReason::ToolCalls,
        None | Some("end_turn" | "stop_sequence" | "stop") => FinishReason::Stop,
        Some("tool_use" | "tool_calls") => FinishReason::ToolCalls,
        Some("max_tokens" | "model_context_window_exceeded" | "length") => FinishReason::Length,
        Some("refusal" | "content_filter") => FinishReason::ContentFilter,
        // After the provider has compacted the conversation, it also waits to be asked again.
        Some("pause_turn" | "compaction") => FinishReason::Pause,
        Some(_) => FinishReason::Other,
    }
}
