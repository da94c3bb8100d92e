//! From items to the messages of a request, so that any server accepts them: results directly
//! after their calls, one for each; people and Longhaul in one message where they follow each
//! other, since many servers want roles to alternate.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{Item, ToolCall, ToolResult};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::calls;
use super::reasoning::Replay;

/// OpenAI refuses longer ids, and Anthropic's models other characters.
const MAX_ID_CHARS: usize = 40;

const NO_RESULT: &str = "No result of this call is recorded.";
const REDACTED: &str = "[A part of the conversation was removed here.]";

/// One message of a request.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    role: &'static str,
    content: Option<Cow<'a, str>>,
    calls: Vec<&'a ToolCall>,
    answers: Option<&'a CallId>,
    reasoning: Option<(&'static str, Value)>,
    host: &'a str,
}

/// Writes the messages of a conversation. `host` is the server they are for; reasoning goes back
/// to it if `replay` is set.
pub(crate) fn messages<'a>(
    host: &'a str,
    replay: bool,
    system: &'a str,
    items: &'a [Arc<Item>],
) -> Vec<Message<'a>> {
    let mut writer = Writer { host, messages: Vec::new(), answer: Answer::default() };
    if !system.is_empty() {
        writer.say("system", Some(Cow::Borrowed(system)));
    }
    let results = Results::of(items);
    for (at, item) in items.iter().enumerate() {
        match &**item {
            Item::Assistant { text, partial: _ } => writer.answer.text(text),
            Item::Reasoning { text, opaque } if replay => {
                writer.answer.replay.take(host, text, opaque.as_ref());
            }
            Item::Reasoning { .. } | Item::Opaque { .. } => {}
            Item::ToolCall(call) => writer.answer.calls.push((call, results.by_call.get(&at).copied())),
            // It stands behind its call already; what is said after it is another answer.
            Item::ToolResult(_) if results.used[at] => writer.end_calls(),
            Item::ToolResult(result) => {
                writer.user(marked("tool_result", &[("call", &result.call.0)], output(result)));
            }
            Item::User { text } => writer.user(Cow::Borrowed(text)),
            Item::Summary { text } => {
                writer.user(marked("summary", &[("of", "the conversation before")], text));
            }
            Item::Steering { reason: _, text } => writer.user(marked("note", &[("from", "longhaul")], text)),
            Item::ContextFile { path, digest: _, text } => {
                writer.user(marked("context_file", &[("path", path)], text));
            }
            Item::Redacted => writer.user(Cow::Borrowed(REDACTED)),
        }
    }
    writer.end_answer();
    writer.messages
}

/// Which result belongs to which call, by their places.
struct Results<'a> {
    by_call: HashMap<usize, &'a ToolResult>,
    used: Vec<bool>,
}

impl<'a> Results<'a> {
    /// Gives each result to the newest call before it of its id that has none.
    fn of(items: &'a [Arc<Item>]) -> Self {
        let mut open: HashMap<&CallId, usize> = HashMap::new();
        let mut by_call = HashMap::new();
        let mut used = vec![false; items.len()];
        for (at, item) in items.iter().enumerate() {
            if let Some(call) = item.tool_call() {
                open.insert(&call.id, at);
            } else if let Some(result) = item.tool_result()
                && let Some(call) = open.remove(&result.call)
            {
                by_call.insert(call, result);
                used[at] = true;
            }
        }
        Results { by_call, used }
    }
}

struct Writer<'a> {
    host: &'a str,
    messages: Vec<Message<'a>>,
    answer: Answer<'a>,
}

/// What the model said, until somebody else speaks.
#[derive(Default)]
struct Answer<'a> {
    text: Option<Cow<'a, str>>,
    calls: Vec<(&'a ToolCall, Option<&'a ToolResult>)>,
    replay: Replay,
}

impl<'a> Answer<'a> {
    fn text(&mut self, text: &'a str) {
        match &mut self.text {
            Some(before) => before.to_mut().push_str(text),
            None if text.is_empty() => {}
            None => self.text = Some(Cow::Borrowed(text)),
        }
    }
}

impl<'a> Writer<'a> {
    fn say(&mut self, role: &'static str, content: Option<Cow<'a, str>>) -> &mut Message<'a> {
        let message =
            Message { role, content, calls: Vec::new(), answers: None, reasoning: None, host: self.host };
        self.messages.push(message);
        self.messages.last_mut().expect("it was pushed just now")
    }

    fn user(&mut self, text: Cow<'a, str>) {
        self.end_answer();
        match self.messages.last_mut() {
            Some(Message { role: "user", content: Some(before), .. }) => {
                let before = before.to_mut();
                before.push_str("\n\n");
                before.push_str(&text);
            }
            Some(_) | None => {
                self.say("user", Some(text));
            }
        }
    }

    fn end_calls(&mut self) {
        if !self.answer.calls.is_empty() {
            self.end_answer();
        }
    }

    /// Writes the answer, if it says or asks for anything: servers refuse an empty one.
    fn end_answer(&mut self) {
        let Answer { text, calls, replay } = std::mem::take(&mut self.answer);
        if text.is_none() && calls.is_empty() {
            return;
        }
        let message = self.say("assistant", text);
        message.calls = calls.iter().map(|(call, _)| *call).collect();
        message.reasoning = replay.field();
        for (call, result) in calls {
            let content = result.map_or(NO_RESULT, output);
            self.say("tool", Some(Cow::Borrowed(content))).answers = Some(&call.id);
        }
    }
}

fn output(result: &ToolResult) -> &str {
    if result.output.is_empty() { result.outcome.notice() } else { &result.output }
}

/// Marks a text as something else than a person's words.
fn marked<'a>(tag: &str, attributes: &[(&str, &str)], text: &str) -> Cow<'a, str> {
    let mut marked = format!("<{tag}");
    for (name, value) in attributes {
        marked.push_str(&format!(" {name}=\"{}\"", value.replace('"', "&quot;")));
    }
    marked.push_str(&format!(">\n{}\n</{tag}>", text.trim_end_matches('\n')));
    Cow::Owned(marked)
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", self.role)?;
        if let Some((field, value)) = &self.reasoning {
            map.serialize_entry(field, value)?;
        }
        if let Some(id) = self.answers {
            map.serialize_entry("tool_call_id", &wire_id(id))?;
        }
        map.serialize_entry("content", &self.content)?;
        if !self.calls.is_empty() {
            let calls: Vec<Value> = self.calls.iter().map(|call| wire_call(self.host, call)).collect();
            map.serialize_entry("tool_calls", &calls)?;
        }
        map.end()
    }
}

fn wire_call(host: &str, call: &ToolCall) -> Value {
    let function = json!({ "name": call.name, "arguments": wire_arguments(&call.arguments) });
    let mut wire = json!({ "id": wire_id(&call.id), "type": "function", "function": function });
    if let Some(extra) = calls::extra(host, call.opaque.as_ref()) {
        wire["extra_content"] = extra.clone();
    }
    wire
}

/// Sends an object as the model wrote it. Anything else is put into one: servers that render
/// prompts from a template read the arguments, and fail on what is no object.
fn wire_arguments(arguments: &str) -> Cow<'_, str> {
    if arguments.trim().is_empty() {
        return Cow::Borrowed("{}");
    }
    match serde_json::from_str::<Map<String, Value>>(arguments) {
        Ok(_) => Cow::Borrowed(arguments),
        Err(_) => Cow::Owned(json!({ "not_an_object": arguments }).to_string()),
    }
}

/// Sends an id as it is if every server takes it; otherwise one that is always the same for it.
fn wire_id(id: &CallId) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=MAX_ID_CHARS).contains(&id.0.len()) && id.0.chars().all(plain) {
        return Cow::Borrowed(&id.0);
    }
    let digest = Digest::of(id.0.as_bytes()).to_hex();
    Cow::Owned(format!("call_{}", &digest[..32]))
}
