//! What a step says to one request: its texts filled in, cut into parts, and its tokens counted.

use std::sync::Arc;

use longhaul_session::agent::Request;
use longhaul_session::item::Item;
use serde_json::Value;

use crate::measure::item_bytes;
use crate::part::{FinishReason, Part};
use crate::scripted::position::Position;
use crate::scripted::script::{Arguments, Step};

/// How many characters a part holds: about what a token or two are.
const PIECE_CHARS: usize = 8;

/// One answer of a step.
pub(super) struct Answer<'a> {
    pub(super) step: &'a Step,
    /// Which repetition of the step it is, from 1.
    pub(super) n: u64,
    pub(super) position: Position,
    pub(super) request: &'a Request,
}

impl Answer<'_> {
    /// Returns the parts of the whole answer.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = self.spoken();
        let (output, reasoning) = output_bytes(&parts);
        let usage = self.step.usage.or_counted(|| self.input_tokens(), tokens(output), tokens(reasoning));
        let natural = if self.step.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        parts.push(Part::Usage { usage });
        parts.push(Part::Finished { reason: self.step.finish.unwrap_or(natural), raw: None });
        parts
    }

    /// Returns the parts without the usage and the end.
    pub(super) fn spoken(&self) -> Vec<Part> {
        let id = self.position.response_id();
        let mut parts = vec![Part::Started { response_id: Some(id.clone()) }];
        let reasoning = self.fill(&self.step.reasoning);
        if !reasoning.is_empty() {
            parts.extend(pieces(&reasoning).map(|text| Part::Reasoning { text }));
            parts.push(Part::ReasoningEnd { opaque: Some(Value::String(id)) });
        }
        parts.extend(pieces(&self.fill(&self.step.text)).map(|text| Part::Text { text }));
        for (index, call) in (0_u32..).zip(&self.step.calls) {
            let id = Some(self.position.call_id(index).0);
            parts.push(Part::ToolCallStarted { index, id, name: call.tool.clone() });
            let arguments = self.arguments(&call.arguments);
            if arguments.is_empty() {
                parts.push(Part::ToolCallArguments { index, text: String::new() });
            }
            parts.extend(pieces(&arguments).map(|text| Part::ToolCallArguments { index, text }));
            parts.push(Part::ToolCallEnd { index, opaque: None });
        }
        parts
    }

    fn arguments(&self, arguments: &Arguments) -> String {
        if let Value::String(verbatim) = &arguments.0 {
            self.fill(verbatim)
        } else {
            self.fill_value(&arguments.0).to_string()
        }
    }

    fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(values) => values.iter().map(|value| self.fill_value(value)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.clone(), self.fill_value(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Fills the placeholders of a text, in one pass: what is filled in is not looked at again.
    fn fill(&self, text: &str) -> String {
        const RESULT: &str = "{{last_result}}";
        const NUMBER: &str = "{n}";
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix(RESULT) {
                filled.push_str(last_result(&self.request.items));
                rest = after;
            } else if let Some(after) = rest.strip_prefix(NUMBER).filter(|_| self.step.repeat.is_some()) {
                filled.push_str(&self.n.to_string());
                rest = after;
            } else {
                filled.push('{');
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        filled
    }

    fn input_tokens(&self) -> u64 {
        tokens(self.request.items.iter().map(|item| item_bytes(item)).sum())
    }
}

/// Counts the bytes of some parts: all of them, and those of reasoning.
fn output_bytes(parts: &[Part]) -> (usize, usize) {
    let (mut all, mut reasoning) = (0, 0);
    for part in parts {
        match part {
            Part::Reasoning { text } => {
                all += text.len();
                reasoning += text.len();
            }
            Part::Text { text } | Part::Refusal { text } | Part::ToolCallArguments { text, .. } => {
                all += text.len();
            }
            Part::ToolCallStarted { name, .. } => all += name.len(),
            Part::Started { .. }
            | Part::ReasoningEnd { .. }
            | Part::ToolCallEnd { .. }
            | Part::Item { .. }
            | Part::Usage { .. }
            | Part::Finished { .. } => {}
        }
    }
    (all, reasoning)
}

fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

fn last_result(items: &[Arc<Item>]) -> &str {
    items
        .iter()
        .rev()
        .find_map(|item| match &**item {
            Item::ToolResult(result) => Some(result.output.as_str()),
            Item::User { .. }
            | Item::Assistant { .. }
            | Item::Reasoning { .. }
            | Item::ToolCall(_)
            | Item::Summary { .. }
            | Item::ContextFile { .. }
            | Item::Steering { .. }
            | Item::Opaque { .. }
            | Item::Attachment(_)
            | Item::File { .. }
            | Item::Redacted => None,
        })
        .unwrap_or("")
}

fn pieces(text: &str) -> impl Iterator<Item = String> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(PIECE_CHARS).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then(|| piece.to_owned())
    })
}
