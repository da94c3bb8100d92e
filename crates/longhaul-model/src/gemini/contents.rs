//! From items to the contents of a request. Google's servers want all results of a turn in one content of
//! their own, directly after their calls and in their order, and each signature on the part it came on.

use std::borrow::Cow;
use std::sync::Arc;

use longhaul_session::item::{Item, Outcome, ToolCall, ToolResult};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::opaque::{self, Kept};
use crate::conversation::{NO_RESULT, Results, output, told};
use crate::files;

/// Makes calls acceptable that another model made: Google's word for a signature that cannot be had.
const FOREIGN: &str = "skip_thought_signature_validator";

/// One content of a request: what one side said at once.
#[derive(Debug, Serialize)]
pub(crate) struct Content<'a> {
    role: &'static str,
    parts: Vec<Piece<'a>>,
    /// It holds results, and servers refuse anything else beside them.
    #[serde(skip)]
    results: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    Text {
        text: &'a str,
        #[serde(flatten)]
        fields: Option<&'a Map<String, Value>>,
    },
    Told {
        text: Cow<'a, str>,
    },
    Thought {
        text: &'a str,
        thought: bool,
        #[serde(flatten)]
        fields: Option<&'a Map<String, Value>>,
    },
    #[serde(rename_all = "camelCase")]
    File {
        inline_data: InlineData<'a>,
    },
    #[serde(rename_all = "camelCase")]
    Call {
        function_call: FunctionCall<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'static str>,
        #[serde(flatten)]
        fields: Option<&'a Map<String, Value>>,
    },
    #[serde(rename_all = "camelCase")]
    Result {
        function_response: FunctionResponse<'a>,
    },
    Kept(&'a Value),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InlineData<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Debug, Serialize)]
struct FunctionCall<'a> {
    name: &'a str,
    args: Value,
    #[serde(flatten)]
    fields: Option<&'a Map<String, Value>>,
}

/// Servers find the call by name and order, or by an id if they gave one.
#[derive(Debug, Serialize)]
struct FunctionResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    name: &'a str,
    response: Said<'a>,
}

/// The names under which the API expects what a function says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said<'a> {
    Output(&'a str),
    Error(&'a str),
}

/// Writes the contents of a conversation. `host` is the server they are for; it wants calls signed if
/// `signed` is set.
pub(crate) fn contents<'a>(host: &str, signed: bool, items: &'a [Arc<Item>]) -> Vec<Content<'a>> {
    let mut writer = Writer { host, signed, contents: Vec::new(), answer: Vec::new(), calls: Vec::new() };
    let results = Results::of(items);
    for (at, item) in items.iter().enumerate() {
        match &**item {
            Item::Assistant { text, partial: _ } if text.is_empty() => {}
            Item::Assistant { text, partial: _ } => writer.answer.push(Piece::Text { text, fields: None }),
            Item::Reasoning { text, opaque } => writer.thought(text, opaque.as_ref()),
            Item::ToolCall(call) => writer.call(call, results.by_call.get(&at).copied()),
            Item::Opaque { provider: _, value } => writer.kept(value),
            // It stands behind its call already; what is said after it is another answer.
            Item::ToolResult(_) if results.used[at] => writer.end_calls(),
            Item::File { name, media_type, data } => {
                writer.user(match files::as_words(name.as_deref(), media_type, data, super::takes) {
                    Some(text) => Piece::Told { text: Cow::Owned(text) },
                    None => Piece::File { inline_data: InlineData { mime_type: media_type, data } },
                });
            }
            Item::ToolResult(_)
            | Item::User { .. }
            | Item::Summary { .. }
            | Item::Steering { .. }
            | Item::ContextFile { .. }
            | Item::Attachment(_)
            | Item::Redacted => {
                let text = told(item).filter(|text| !text.is_empty());
                text.into_iter().for_each(|text| writer.user(Piece::Told { text }));
            }
        }
    }
    writer.end_answer();
    writer.contents
}

struct Writer<'a, 'h> {
    host: &'h str,
    signed: bool,
    contents: Vec<Content<'a>>,
    /// What the model said, until somebody else speaks.
    answer: Vec<Piece<'a>>,
    /// Its calls, with their results.
    calls: Vec<(&'a ToolCall, Option<&'a ToolResult>)>,
}

impl<'a> Writer<'a, '_> {
    fn user(&mut self, piece: Piece<'a>) {
        self.end_answer();
        match self.contents.last_mut() {
            Some(Content { role: "user", parts, results: false }) => parts.push(piece),
            Some(_) | None => self.say("user", vec![piece], false),
        }
    }

    fn say(&mut self, role: &'static str, parts: Vec<Piece<'a>>, results: bool) {
        self.contents.push(Content { role, parts, results });
    }

    /// Thoughts are sent for their signatures: without one, servers make nothing of them.
    fn thought(&mut self, text: &'a str, opaque: Option<&'a Value>) {
        let fields = opaque::ours(self.host, opaque).and_then(|ours| opaque::fields(ours, "fields"));
        if fields.is_some() {
            self.answer.push(Piece::Thought { text, thought: true, fields });
        }
    }

    fn call(&mut self, call: &'a ToolCall, result: Option<&'a ToolResult>) {
        let ours = opaque::ours(self.host, call.opaque.as_ref());
        // Of calls made at once, only the first is signed.
        let foreign = self.signed && ours.is_none() && self.calls.is_empty();
        let function_call = FunctionCall {
            name: &call.name,
            args: wire_arguments(&call.arguments),
            fields: ours.and_then(|ours| opaque::fields(ours, "call")),
        };
        self.answer.push(Piece::Call {
            function_call,
            thought_signature: foreign.then_some(FOREIGN),
            fields: ours.and_then(|ours| opaque::fields(ours, "fields")),
        });
        self.calls.push((call, result));
    }

    fn kept(&mut self, value: &'a Value) {
        match opaque::kept(self.host, value) {
            Kept::Part(part) => self.answer.push(Piece::Kept(part)),
            Kept::Signed { text_bytes: 0, fields } => {
                self.answer.push(Piece::Text { text: "", fields: Some(fields) });
            }
            Kept::Signed { text_bytes, fields } => self.sign(text_bytes, fields),
            Kept::Nothing => {}
        }
    }

    /// Puts a signature on the last bytes of the text before it. Without that text it means nothing.
    fn sign(&mut self, text_bytes: usize, signature: &'a Map<String, Value>) {
        let Some(Piece::Text { text, fields: None }) = self.answer.last() else { return };
        let unsigned = text.len().checked_sub(text_bytes).and_then(|at| text.split_at_checked(at));
        let Some((before, signed)) = unsigned else { return };
        self.answer.pop();
        if !before.is_empty() {
            self.answer.push(Piece::Text { text: before, fields: None });
        }
        self.answer.push(Piece::Text { text: signed, fields: Some(signature) });
    }

    fn end_calls(&mut self) {
        if !self.calls.is_empty() {
            self.end_answer();
        }
    }

    fn end_answer(&mut self) {
        let (answer, calls) = (std::mem::take(&mut self.answer), std::mem::take(&mut self.calls));
        if !answer.is_empty() {
            self.say("model", answer, false);
        }
        if !calls.is_empty() {
            let results = calls.into_iter().map(|(call, result)| self.result(call, result)).collect();
            self.say("user", results, true);
        }
    }

    fn result(&self, call: &'a ToolCall, result: Option<&'a ToolResult>) -> Piece<'a> {
        let ours = opaque::ours(self.host, call.opaque.as_ref());
        let response = match result {
            Some(result) if result.outcome == Outcome::Ok => Said::Output(output(result)),
            Some(result) => Said::Error(output(result)),
            None => Said::Error(NO_RESULT),
        };
        let id = ours.and_then(|ours| opaque::fields(ours, "call")?.get("id"));
        Piece::Result { function_response: FunctionResponse { id, name: &call.name, response } }
    }
}

/// The arguments must be an object. Anything else is put into one.
fn wire_arguments(arguments: &str) -> Value {
    if arguments.trim().is_empty() {
        return Value::Object(Map::new());
    }
    match serde_json::from_str::<Map<String, Value>>(arguments) {
        Ok(arguments) => Value::Object(arguments),
        Err(_) => json!({ "not_an_object": arguments }),
    }
}
