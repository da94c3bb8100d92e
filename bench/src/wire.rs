//! What is said in every benchmark: the tool, its arguments and results, and the answers of the endpoint
//! in the Chat Completions format. Longhaul and the bare loop get the same bytes.

use std::fmt::Write as _;

use longhaul_session::agent::ToolSpec;
use longhaul_session::item::EffectClass;
use serde_json::{Value, json};

/// The tool of all benchmarks.
pub(crate) const TOOL: &str = "note";

/// The model whose answers never end.
pub(crate) const SILENT: &str = "silent";

/// Names the model that calls the tool this many times and then says something.
pub(crate) fn model(calls: u64) -> String {
    format!("calls-{calls}")
}

/// Reads how many calls a model makes from its name.
pub(crate) fn calls_of(model: &str) -> Option<u64> {
    model.strip_prefix("calls-")?.parse().ok()
}

/// Names the n-th call.
pub(crate) fn call_id(n: u64) -> String {
    format!("call_{n}")
}

/// Returns the arguments of the n-th call, as the model writes them.
pub(crate) fn arguments(n: u64) -> String {
    let text = "the third paragraph is about what was found in the second file, and why it matters";
    format!("{{\"n\":{n},\"text\":\"{text}\"}}")
}

/// Returns the result of the n-th call: about 500 bytes.
pub(crate) fn result(n: u64) -> String {
    let mut text = format!("kept as note {n}\n");
    for line in 0..6 {
        let _ =
            writeln!(text, "{n}.{line}: what stood there before was moved down by one line, as it is older");
    }
    text
}

/// Returns what the model says beside its n-th call.
pub(crate) fn remark(n: u64) -> String {
    format!("That leaves part {n} of the list. I will make a note of it and go on with the next one.")
}

/// Describes the tool.
pub(crate) fn tool() -> ToolSpec {
    ToolSpec {
        name: TOOL.to_owned(),
        description: "Keeps a note.".to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": { "n": { "type": "integer" }, "text": { "type": "string" } },
            "required": ["n", "text"],
        }),
        effect: EffectClass::Once,
        exclusive: false,
        stop_after: false,
    }
}

/// Returns the events of the n-th answer: a call while `n` is at most `calls`, else a text.
pub(crate) fn answer(n: u64, calls: u64) -> String {
    let mut events = String::new();
    let mut event = |delta: Value, finish: Value| {
        let chunk = json!({
            "id": format!("chatcmpl-{n}"), "object": "chat.completion.chunk", "created": 1_800_000_000,
            "model": "bench", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        let _ = write!(events, "data: {chunk}\n\n");
    };
    if n > calls {
        event(json!({ "role": "assistant", "content": "That was all." }), Value::Null);
        event(json!({}), json!("stop"));
    } else {
        event(json!({ "role": "assistant", "content": remark(n) }), Value::Null);
        let function = json!({ "name": TOOL, "arguments": "" });
        let call = json!({ "index": 0, "id": call_id(n), "type": "function", "function": function });
        event(json!({ "tool_calls": [call] }), Value::Null);
        let arguments = arguments(n);
        let (head, tail) = arguments.split_at(arguments.len() / 2);
        for piece in [head, tail] {
            let more = json!({ "index": 0, "function": { "arguments": piece } });
            event(json!({ "tool_calls": [more] }), Value::Null);
        }
        event(json!({}), json!("tool_calls"));
    }
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 });
    let chunk = json!({ "id": format!("chatcmpl-{n}"), "choices": [], "usage": usage });
    let _ = write!(events, "data: {chunk}\n\ndata: [DONE]\n\n");
    events
}
