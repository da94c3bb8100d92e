//! From items to the input of a request: each item in its place, what a person or Longhaul says as
//! messages, results directly after their calls, one for each.

use std::sync::Arc;

use longhaul_session::item::{Item, ToolCall, ToolResult};
use serde_json::{Map, Value, json};

use super::API;
use crate::conversation::{NO_RESULT, Results, data_url, is_answer, output, told, wire_id};
use crate::files;
use crate::openai_chat::wire_arguments;

/// Whom the input is for.
pub(super) struct Target<'a> {
    pub(super) host: &'a str,
    /// Reasoning goes back.
    pub(super) replay: bool,
    /// Encrypted reasoning keeps its id.
    pub(super) ids: bool,
}

/// Returns what marks an item as one of this wire and server.
pub(super) fn provider(host: &str) -> String {
    format!("{API}/{host}")
}

/// Writes a conversation.
pub(super) fn input(target: &Target<'_>, items: &[Arc<Item>]) -> Vec<Value> {
    let results = Results::of(items);
    let mut writer = Writer::new(target);
    for (at, item) in items.iter().enumerate() {
        writer.item(at, item, &results);
    }
    writer.end_answer();
    writer.input
}

/// Writes what follows the first `before` items, which end with an answer that the provider has kept:
/// the results of its calls, and then the rest.
pub(super) fn input_after(target: &Target<'_>, items: &[Arc<Item>], before: usize) -> Vec<Value> {
    let (kept, new) = items.split_at(before);
    let mut results = Results::of(new);
    let mut writer = Writer::new(target);
    let answer = kept.iter().rev().take_while(|item| is_answer(item));
    let calls: Vec<&ToolCall> = answer.filter_map(|item| item.tool_call()).collect();
    for call in calls.into_iter().rev() {
        let belongs = |item: &Arc<Item>| item.tool_result().is_some_and(|result| result.call == call.id);
        let found = new.iter().position(belongs).filter(|at| !results.used[*at]);
        let said = found.and_then(|at| new[at].tool_result());
        if let Some(at) = found {
            results.used[at] = true;
        }
        // The provider knows the call by the id it gave it.
        writer.input.push(result_of(target.host, call, &call.id.0, said));
    }
    for (at, item) in new.iter().enumerate() {
        writer.item(at, item, &results);
    }
    writer.end_answer();
    writer.input
}

struct Writer<'a> {
    target: &'a Target<'a>,
    provider: String,
    input: Vec<Value>,
    /// The newest message is a person's, and a file may join it.
    joinable: bool,
    /// What the model said, until somebody else speaks: items, and whether they are its reasoning.
    answer: Vec<(Value, bool)>,
    results: Vec<Value>,
}

impl<'a> Writer<'a> {
    fn new(target: &'a Target<'a>) -> Self {
        let provider = provider(target.host);
        Writer {
            target,
            provider,
            input: Vec::new(),
            joinable: false,
            answer: Vec::new(),
            results: Vec::new(),
        }
    }

    fn item(&mut self, at: usize, item: &Item, results: &Results<'_>) {
        match item {
            Item::Assistant { text, partial: _ } if !text.is_empty() => {
                self.answer.push((message("assistant", json!(text)), false));
            }
            Item::Reasoning { text: _, opaque } if self.target.replay => self.reasoning(opaque.as_ref()),
            Item::ToolCall(call) => {
                let id = wire_id(&call.id);
                self.answer.push((wire_call(self.target.host, call, &id), false));
                self.results.push(result_of(self.target.host, call, &id, results.by_call.get(&at).copied()));
            }
            Item::Opaque { provider, value } if *provider == self.provider => {
                self.answer.push((value.clone(), false));
            }
            Item::Assistant { .. } | Item::Reasoning { .. } | Item::Opaque { .. } => {}
            // It stands behind its call already; what is said after it is another answer.
            Item::ToolResult(_) if results.used[at] => {
                if !self.results.is_empty() {
                    self.end_answer();
                }
                return;
            }
            Item::File { name, media_type, data } => {
                let words = files::as_words(name.as_deref(), media_type, data, super::takes);
                self.file(match words {
                    Some(text) => json!({ "type": "input_text", "text": text }),
                    None => file(name.as_deref(), media_type, data),
                });
                return;
            }
            Item::ToolResult(_)
            | Item::User { .. }
            | Item::Summary { .. }
            | Item::Steering { .. }
            | Item::ContextFile { .. }
            | Item::Attachment(_)
            | Item::Redacted => {
                self.end_answer();
                self.input.extend(told(item).map(|text| message("user", json!(text))));
                self.joinable = true;
                return;
            }
        }
        self.joinable = false;
    }

    /// Takes reasoning that came from here. What was known of it only at the end of its answer goes to
    /// where it came from.
    fn reasoning(&mut self, opaque: Option<&Value>) {
        let Some(opaque) = ours(self.target.host, opaque) else { return };
        let Some(item) = opaque.get("item").and_then(Value::as_object) else { return };
        let mut item: Map<String, Value> = item.clone();
        item.retain(|_, value| !value.is_null());
        item.entry("summary").or_insert_with(|| json!([]));
        if item.contains_key("encrypted_content") && !self.target.ids {
            item.remove("id");
        }
        let spoken = self.answer.iter().enumerate().filter(|(_, (_, reasoning))| !reasoning);
        let place = opaque.get("place").and_then(Value::as_u64).and_then(|place| usize::try_from(place).ok());
        let at = place.and_then(|place| spoken.map(|(at, _)| at).nth(place)).unwrap_or(self.answer.len());
        self.answer.insert(at, (Value::Object(item), true));
    }

    fn file(&mut self, piece: Value) {
        self.end_answer();
        let Some(last) = self.input.last_mut().filter(|_| self.joinable) else {
            self.input.push(message("user", json!([piece])));
            self.joinable = true;
            return;
        };
        let content = &mut last["content"];
        if content.is_string() {
            *content = json!([{ "type": "input_text", "text": content.take() }]);
        }
        content.as_array_mut().expect("content is a text or pieces").push(piece);
    }

    /// Writes the answer, without reasoning that led to nothing: servers refuse it. What signs the words or
    /// calls before it stays.
    fn end_answer(&mut self) {
        let spoken = self.answer.iter().rposition(|(_, reasoning)| !reasoning).map_or(0, |at| at + 1);
        let behind = self.answer[spoken..].iter();
        let signs = behind.take_while(|(item, _)| spoken > 0 && signs_what_was_said(item)).count();
        self.answer.truncate(spoken + signs);
        self.input.extend(self.answer.drain(..).map(|(item, _)| item));
        self.input.append(&mut self.results);
    }
}

fn message(role: &str, content: Value) -> Value {
    json!({ "type": "message", "role": role, "content": content })
}

fn file(name: Option<&str>, media_type: &str, data: &str) -> Value {
    let url = data_url(media_type, data);
    if media_type.starts_with("image/") {
        return json!({ "type": "input_image", "image_url": url, "detail": "auto" });
    }
    json!({ "type": "input_file", "filename": name.unwrap_or("file"), "file_data": url })
}

/// Tells whether an item of reasoning is Google's signature of what came before it, as OpenRouter hands it on.
fn signs_what_was_said(item: &Value) -> bool {
    let google = item["format"].as_str().is_some_and(|format| format.starts_with("google"));
    google || item["signature"].is_string()
}

/// Returns an opaque value that was made here for this server.
fn ours<'a>(host: &str, opaque: Option<&'a Value>) -> Option<&'a Value> {
    opaque.filter(|it| it["api"] == API && it["host"] == host)
}

/// Tells whether a call is to a tool that takes a text, not JSON.
fn is_custom(host: &str, call: &ToolCall) -> bool {
    ours(host, call.opaque.as_ref()).is_some_and(|it| it["custom"] == true)
}

fn wire_call(host: &str, call: &ToolCall, id: &str) -> Value {
    let mut wire = match is_custom(host, call) {
        true => json!({ "type": "custom_tool_call", "input": call.arguments }),
        false => json!({ "type": "function_call", "arguments": wire_arguments(&call.arguments) }),
    };
    wire["call_id"] = json!(id);
    wire["name"] = json!(call.name);
    let more = ours(host, call.opaque.as_ref()).and_then(|it| it.get("fields")?.as_object());
    for (name, value) in more.into_iter().flatten() {
        wire[name] = value.clone();
    }
    wire
}

fn result_of(host: &str, call: &ToolCall, id: &str, result: Option<&ToolResult>) -> Value {
    let kind = if is_custom(host, call) { "custom_tool_call_output" } else { "function_call_output" };
    json!({ "type": kind, "call_id": id, "output": result.map_or(NO_RESULT, output) })
}
