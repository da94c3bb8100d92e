//! From items to the messages of a request, so that any server accepts them: results directly
//! after their calls, one for each; people and Longhaul in one message where they follow each
//! other, since many servers want roles to alternate.

use std::borrow::Cow;
use std::sync::Arc;

use longhaul_session::item::{Item, ToolCall, ToolResult};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::calls;
use super::reasoning::Replay;
use super::server;
use crate::conversation::{NO_RESULT, Results, data_url, output, told};
use crate::files;

/// One message of a request.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    role: &'static str,
    content: Vec<Piece<'a>>,
    calls: Vec<&'a ToolCall>,
    answers: Option<&'a ToolCall>,
    reasoning: Vec<(&'static str, Value)>,
    host: &'a str,
}

/// A piece of what a message says.
#[derive(Debug)]
enum Piece<'a> {
    Text(Cow<'a, str>),
    File { name: Option<&'a str>, media_type: &'a str, data: &'a str },
}

/// Writes the messages of a conversation. `host` is the server they are for; reasoning goes back
/// to it if `replay` is set.
pub(crate) fn messages<'a>(
    host: &'a str,
    replay: bool,
    system: &'a str,
    items: &'a [Arc<Item>],
) -> Vec<Message<'a>> {
    let mut writer = Writer { host, replay, messages: Vec::new(), answer: Answer::default() };
    if !system.is_empty() {
        writer.say("system", vec![Piece::Text(Cow::Borrowed(system))]);
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
            Item::File { name, media_type, data } => {
                let name = name.as_deref();
                writer.user(match files::as_words(name, media_type, data, super::takes) {
                    Some(text) => Piece::Text(Cow::Owned(text)),
                    None => Piece::File { name, media_type, data },
                });
            }
            Item::ToolResult(_)
            | Item::User { .. }
            | Item::Summary { .. }
            | Item::Steering { .. }
            | Item::ContextFile { .. }
            | Item::Attachment(_)
            | Item::Redacted => told(item).into_iter().for_each(|text| writer.user(Piece::Text(text))),
        }
    }
    writer.end_answer();
    writer.messages
}

struct Writer<'a> {
    host: &'a str,
    replay: bool,
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
    fn say(&mut self, role: &'static str, content: Vec<Piece<'a>>) -> &mut Message<'a> {
        let message = Message {
            role,
            content,
            calls: Vec::new(),
            answers: None,
            reasoning: Vec::new(),
            host: self.host,
        };
        self.messages.push(message);
        self.messages.last_mut().expect("it was pushed just now")
    }

    fn user(&mut self, piece: Piece<'a>) {
        self.end_answer();
        let Some(Message { role: "user", content, .. }) = self.messages.last_mut() else {
            self.say("user", vec![piece]);
            return;
        };
        match (content.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => {
                let before = before.to_mut();
                before.push_str("\n\n");
                before.push_str(&text);
            }
            (_, piece) => content.push(piece),
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
        let unsaid = server::no_reasoning(self.host).filter(|_| self.replay);
        let message = self.say("assistant", text.into_iter().map(Piece::Text).collect());
        message.calls = calls.iter().map(|(call, _)| *call).collect();
        message.reasoning = replay.fields();
        if let Some((field, text)) = unsaid.filter(|_| message.reasoning.is_empty()) {
            message.reasoning.push((field, Value::from(text)));
        }
        for (call, result) in calls {
            let content = result.map_or(NO_RESULT, output);
            self.say("tool", vec![Piece::Text(Cow::Borrowed(content))]).answers = Some(call);
        }
    }
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", self.role)?;
        for (field, value) in &self.reasoning {
            map.serialize_entry(field, value)?;
        }
        if let Some(call) = self.answers {
            map.serialize_entry("tool_call_id", &call_id(self.host, call))?;
        }
        match &self.content[..] {
            [] => map.serialize_entry("content", &server::no_text(self.host))?,
            // Many servers know a plain text only.
            [Piece::Text(text)] => map.serialize_entry("content", text)?,
            pieces => map.serialize_entry("content", pieces)?,
        }
        if !self.calls.is_empty() {
            let calls: Vec<Value> = self.calls.iter().map(|call| wire_call(self.host, call)).collect();
            map.serialize_entry("tool_calls", &calls)?;
        }
        map.end()
    }
}

impl Serialize for Piece<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let piece = match self {
            Piece::Text(text) => json!({ "type": "text", "text": text }),
            Piece::File { name: _, media_type, data } if media_type.starts_with("image/") => {
                json!({ "type": "image_url", "image_url": { "url": data_url(media_type, data) } })
            }
            Piece::File { name: _, media_type, data } if media_type.starts_with("audio/") => {
                let format = media_type.trim_start_matches("audio/").trim_start_matches("x-");
                let format = if format == "mpeg" { "mp3" } else { format };
                json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
            }
            Piece::File { name, media_type, data } => {
                let file =
                    json!({ "filename": name.unwrap_or("file"), "file_data": data_url(media_type, data) });
                json!({ "type": "file", "file": file })
            }
        };
        piece.serialize(serializer)
    }
}

fn call_id<'a>(host: &str, call: &'a ToolCall) -> Cow<'a, str> {
    server::call_id(host, &call.id, calls::has_own_id(host, call.opaque.as_ref()))
}

fn wire_call(host: &str, call: &ToolCall) -> Value {
    let id = call_id(host, call);
    let mut wire = if calls::is_custom(host, call.opaque.as_ref()) {
        let custom = json!({ "name": call.name, "input": call.arguments });
        json!({ "id": id, "type": "custom", "custom": custom })
    } else {
        let function = json!({ "name": call.name, "arguments": wire_arguments(&call.arguments) });
        json!({ "id": id, "type": "function", "function": function })
    };
    if let Some(extra) = calls::extra(host, call.opaque.as_ref()) {
        wire["extra_content"] = extra.clone();
    }
    wire
}

/// Sends an object as the model wrote it. Anything else is put into one: servers that render
/// prompts from a template read the arguments, and fail on what is no object.
pub(crate) fn wire_arguments(arguments: &str) -> Cow<'_, str> {
    if arguments.trim().is_empty() {
        return Cow::Borrowed("{}");
    }
    match serde_json::from_str::<Map<String, Value>>(arguments) {
        Ok(_) => Cow::Borrowed(arguments),
        Err(_) => Cow::Owned(json!({ "not_an_object": arguments }).to_string()),
    }
}
