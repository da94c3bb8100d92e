//! From items to the messages of a request: people and the model take turns, results stand directly after their
//! calls and before all else, and what the provider made goes back in its place, unchanged.
//!
//! Each item becomes a block of its own, so that what is written is never touched again: a request that goes on
//! from another is the same bytes and more.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use longhaul_session::item::{Item, Outcome, ToolCall, ToolResult};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::opaque;
use crate::conversation::{NO_RESULT, Results, is_answer, output, told, wire_id};
use crate::files;

/// Says something where the first word would be the model's: the API wants a person's.
const OPENING: &str = "[The conversation begins with an answer.]";

/// Pictures the API takes.
pub(super) const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Where the writing stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Whose message is open.
    role: Option<Role>,
    /// Where the newest block ends that a cache marker may stand in: before its closing brace.
    pub(super) newest: Option<usize>,
    /// The same before the newest answer: what the request for that answer ended with.
    pub(super) before_answer: Option<usize>,
}

impl Place {
    /// Returns what closes the list of messages.
    pub(super) fn closing(&self) -> &'static [u8] {
        if self.role.is_some() { b"]}]" } else { b"]" }
    }
}

/// How far nothing that follows can change what is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) items: usize,
    pub(super) bytes: usize,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    User,
    Assistant,
}

/// A block of an answer, until all of the answer is known.
enum Block<'a> {
    Thinking { text: &'a str, block: &'a Map<String, Value> },
    Text { text: &'a str, citations: Option<&'a Value> },
    Call(&'a ToolCall, Option<&'a ToolResult>),
    Made { at: usize, block: &'a Map<String, Value> },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        citations: Option<&'a Value>,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: &'a RawValue,
        #[serde(flatten)]
        fields: Option<&'a Map<String, Value>>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Text { media_type: &'a str, data: String },
}

/// Writes the messages of items behind those that stand in `bytes`. `host` is the server they are for;
/// reasoning goes back to it if `replay` is set.
pub(super) fn write(
    host: &str,
    replay: bool,
    items: &[Arc<Item>],
    bytes: &mut Vec<u8>,
    place: &mut Place,
) -> Settled {
    let mut settled = Settled { items: 0, bytes: bytes.len(), place: *place };
    let mut writer = Writer {
        host,
        items,
        results: Results::of(items),
        paired: paired(host, items),
        newest_said: items.iter().rposition(|item| is_answer(item)),
        bytes,
        place,
        answer: Vec::new(),
        open: 0,
    };
    for (at, item) in items.iter().enumerate() {
        writer.item(at, item, replay);
        if writer.is_settled() {
            settled = Settled { items: at + 1, bytes: writer.bytes.len(), place: *writer.place };
        }
    }
    writer.end_answer(items.len());
    settled
}

/// Returns where the calls of the provider's own tools are that have a result, and where the results are that have
/// a call: the API takes neither alone.
fn paired(host: &str, items: &[Arc<Item>]) -> HashSet<usize> {
    let mut open: HashMap<&str, usize> = HashMap::new();
    let mut paired = HashSet::new();
    for (at, block) in items.iter().enumerate().filter_map(|(at, item)| Some((at, made(host, item)?))) {
        if let Some(id) = result_of(block)
            && let Some(call) = open.remove(id)
        {
            paired.extend([call, at]);
        } else if let Some(id) = call_id(block) {
            open.insert(id, at);
        }
    }
    paired
}

fn made<'a>(host: &str, item: &'a Item) -> Option<&'a Map<String, Value>> {
    if let Item::Opaque { provider: _, value } = item { opaque::block_for(host, value) } else { None }
}

fn call_id(block: &Map<String, Value>) -> Option<&str> {
    let calls = block.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("tool_use"));
    block.get("id")?.as_str().filter(|_| calls)
}

fn result_of(block: &Map<String, Value>) -> Option<&str> {
    block.get("tool_use_id")?.as_str()
}

struct Writer<'a, 'b> {
    host: &'a str,
    items: &'a [Arc<Item>],
    results: Results<'a>,
    paired: HashSet<usize>,
    newest_said: Option<usize>,
    bytes: &'b mut Vec<u8>,
    place: &'b mut Place,
    answer: Vec<Block<'a>>,
    /// Calls whose result is still to come.
    open: usize,
}

impl<'a> Writer<'a, '_> {
    fn item(&mut self, at: usize, item: &'a Item, replay: bool) {
        match item {
            Item::Assistant { text, partial: _ } if !is_blank(text) => {
                self.answer.push(Block::Text { text, citations: None });
            }
            Item::Assistant { .. } => {}
            Item::Reasoning { text, opaque } => {
                let block = opaque.as_ref().filter(|_| replay);
                if let Some(block) = block.and_then(|value| opaque::block_for(self.host, value)) {
                    self.answer.push(Block::Thinking { text, block });
                }
            }
            Item::ToolCall(call) => {
                self.open += 1;
                self.answer.push(Block::Call(call, self.results.by_call.get(&at).copied()));
            }
            Item::Opaque { provider: _, value } => match opaque::block_for(self.host, value) {
                Some(block) => self.made(at, block),
                None => self.cite(at, value),
            },
            // It stands behind its call already; what is said after it is another answer.
            Item::ToolResult(_) if self.results.used[at] => {
                self.open -= 1;
                if self.answer.iter().any(|block| matches!(block, Block::Call(..))) {
                    self.end_answer(at);
                }
            }
            Item::File { name, media_type, data } => self.file(at, name.as_deref(), media_type, data),
            Item::ToolResult(_)
            | Item::User { .. }
            | Item::Attachment(_)
            | Item::Summary { .. }
            | Item::Steering { .. }
            | Item::ContextFile { .. }
            | Item::Redacted => {
                if let Some(text) = told(item).filter(|text| !is_blank(text)) {
                    self.user(at, &WireBlock::Text { text: &text, citations: None });
                }
            }
        }
    }

    /// A call without its result, and an answer that may get longer, can still change what is written.
    fn is_settled(&self) -> bool {
        self.open == 0 && self.answer.is_empty() && self.place.role == Some(Role::User)
    }

    fn made(&mut self, at: usize, block: &'a Map<String, Value>) {
        let paired = self.paired.contains(&at);
        if result_of(block).is_some() {
            if !paired {
                return;
            }
            self.open -= 1;
        } else if call_id(block).is_some() {
            self.open += 1;
        }
        self.answer.push(Block::Made { at, block });
    }

    /// Gives the text directly before its citations.
    fn cite(&mut self, at: usize, value: &'a Value) {
        let before = at.checked_sub(1).map(|before| &*self.items[before]);
        let Some(Item::Assistant { text, partial: _ }) = before.filter(|_| !self.answer.is_empty()) else {
            return;
        };
        let Some((plain, cited, citations)) = opaque::cited(self.host, value, text) else { return };
        self.answer.pop();
        if !is_blank(plain) {
            self.answer.push(Block::Text { text: plain, citations: None });
        }
        self.answer.push(Block::Text { text: cited, citations: Some(citations) });
    }

    fn file(&mut self, at: usize, name: Option<&str>, media_type: &str, data: &str) {
        let name = name.filter(|name| !is_blank(name));
        let media_type = if media_type == "image/jpg" { "image/jpeg" } else { media_type };
        if IMAGES.contains(&media_type) {
            return self.user(at, &WireBlock::Image { source: Source::Base64 { media_type, data } });
        }
        if media_type == "application/pdf" {
            let source = Source::Base64 { media_type, data };
            return self.user(at, &WireBlock::Document { source, title: name });
        }
        match files::text_of(data).filter(|text| !is_blank(text) && !text.contains('\0')) {
            Some(data) => {
                let source = Source::Text { media_type: "text/plain", data };
                self.user(at, &WireBlock::Document { source, title: name });
            }
            None => {
                let text = files::not_readable(name, media_type);
                self.user(at, &WireBlock::Text { text: &text, citations: None });
            }
        }
    }

    fn user(&mut self, at: usize, block: &WireBlock<'_>) {
        self.end_answer(at);
        self.begin(Role::User);
        self.block(block, true);
    }

    /// Writes the answer that ended before an item, if there is something to write: an empty one is refused, and
    /// one that ends in thinking too.
    fn end_answer(&mut self, before: usize) {
        let mut answer = std::mem::take(&mut self.answer);
        let has_calls = answer.iter().any(|block| matches!(block, Block::Call(..)));
        let is_last = before == self.items.len();
        // The provider goes on with a call of its own tools where the model was paused, or waits for
        // other results. Otherwise the answer was cut, and nobody will answer the call.
        let goes_on = self.newest_said < Some(before) && (is_last || has_calls);
        answer.retain(|block| match block {
            Block::Made { at, block } => call_id(block).is_none() || goes_on || self.paired.contains(at),
            Block::Thinking { .. } | Block::Text { .. } | Block::Call(..) => true,
        });
        while matches!(answer.last(), Some(Block::Thinking { .. })) {
            answer.pop();
        }
        if let Some(Block::Text { text, .. }) = answer.last_mut()
            && is_last
        {
            // The API takes no white space at the very end.
            *text = text.trim_end();
        }
        if answer.is_empty() {
            return;
        }
        self.begin(Role::Assistant);
        answer.iter().for_each(|block| self.said(block));
        if has_calls {
            self.begin(Role::User);
        }
        for block in &answer {
            if let Block::Call(call, result) = block {
                self.block(
                    &WireBlock::ToolResult {
                        tool_use_id: wire_id(&call.id),
                        content: result.map_or(NO_RESULT, output),
                        is_error: result.is_none_or(|result| result.outcome != Outcome::Ok),
                    },
                    true,
                );
            }
        }
    }

    fn said(&mut self, block: &Block<'_>) {
        match block {
            Block::Thinking { text, block } => {
                let mut block = (*block).clone();
                if block.get("type").is_some_and(|kind| kind == "thinking") {
                    block.insert("thinking".to_owned(), Value::from(*text));
                }
                self.block(&block, false);
            }
            Block::Text { text, citations } => {
                self.block(&WireBlock::Text { text, citations: *citations }, true)
            }
            Block::Call(call, _) => {
                let input = arguments(&call.arguments);
                let fields = call.opaque.as_ref().and_then(|value| opaque::fields_for(self.host, value));
                self.block(
                    &WireBlock::ToolUse { id: wire_id(&call.id), name: &call.name, input: &input, fields },
                    true,
                );
            }
            Block::Made { at: _, block } => self.block(block, false),
        }
    }

    /// Opens a message, unless one of this role is open.
    fn begin(&mut self, role: Role) {
        if self.place.role == Some(role) {
            return;
        }
        if self.place.role.is_some() {
            self.bytes.extend_from_slice(b"]}");
        }
        if role == Role::Assistant {
            if self.place.role.is_none() {
                self.user_opening();
            }
            self.place.before_answer = self.place.newest;
        }
        self.separate();
        self.bytes.extend_from_slice(match role {
            Role::User => br#"{"role":"user","content":["#,
            Role::Assistant => br#"{"role":"assistant","content":["#,
        });
        self.place.role = Some(role);
    }

    fn user_opening(&mut self) {
        self.begin(Role::User);
        self.block(&WireBlock::Text { text: OPENING, citations: None }, true);
        self.bytes.extend_from_slice(b"]}");
    }

    /// Writes a block, and notes whether a cache marker may stand in it.
    fn block(&mut self, block: &impl Serialize, markable: bool) {
        self.separate();
        serde_json::to_writer(&mut *self.bytes, block).expect("values and texts are always JSON");
        if markable {
            self.place.newest = Some(self.bytes.len() - 1);
        }
    }

    /// Writes a comma, unless nothing comes before it but the opening bracket.
    fn separate(&mut self) {
        if self.bytes.last() != Some(&b'[') {
            self.bytes.push(b',');
        }
    }
}

/// Tells whether a text holds nothing but white space: the API refuses it.
fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Sends an object as the model wrote it. The API takes nothing else, so anything else is put into one.
fn arguments(arguments: &str) -> Cow<'_, RawValue> {
    let whole = serde_json::from_str::<Map<String, Value>>(arguments).is_ok();
    if let Ok(raw) = serde_json::from_str::<&RawValue>(arguments)
        && whole
    {
        return Cow::Borrowed(raw);
    }
    let made = if is_blank(arguments) { json!({}) } else { json!({ "not_an_object": arguments }) };
    Cow::Owned(serde_json::value::to_raw_value(&made).expect("a JSON value is JSON"))
}
