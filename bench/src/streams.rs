//! Long answers as each wire streams them: words, reasoning, or the arguments of a call, in as many pieces as
//! asked for. The frames are those of the vendors' own servers; what stands in them was made up here.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matter {
    Text,
    Arguments,
    Reasoning,
}

impl Matter {
    pub(crate) const ALL: [Matter; 3] = [Matter::Text, Matter::Arguments, Matter::Reasoning];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Matter::Text => "text",
            Matter::Arguments => "arguments",
            Matter::Reasoning => "reasoning",
        }
    }
}

/// Pieces of a sentence, about as long as a token or two.
const WORDS: [&str; 8] =
    ["What ", "stood ", "there ", "was moved ", "down, ", "naïvely ", "\"so to say\", ", "by one line.\n"];

fn words(pieces: usize) -> impl Iterator<Item = &'static str> {
    WORDS.into_iter().cycle().take(pieces)
}

/// Pieces that together are one object in JSON, with long texts in it.
fn arguments(pieces: usize) -> impl Iterator<Item = String> {
    let text: String = words(pieces.saturating_sub(2)).collect();
    let whole = json!({ "path": "notes/today.md", "text": text }).to_string();
    let step = whole.chars().count().div_ceil(pieces.max(1));
    let characters: Vec<char> = whole.chars().collect();
    let pieces: Vec<String> = characters.chunks(step).map(|piece| piece.iter().collect()).collect();
    pieces.into_iter()
}

fn texts(matter: Matter, pieces: usize) -> Vec<String> {
    match matter {
        Matter::Text | Matter::Reasoning => words(pieces).map(str::to_owned).collect(),
        Matter::Arguments => arguments(pieces).collect(),
    }
}

/// Returns an answer in Chat Completions.
pub(crate) fn chat(matter: Matter, pieces: usize) -> String {
    let mut stream = String::new();
    let mut event = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        let chunk = json!({
            "id": "chatcmpl-CmadeUpForTheBenchmark0001", "object": "chat.completion.chunk",
            "created": 1_800_000_000, "model": "bench-2026-11-20", "service_tier": "default",
            "system_fingerprint": "fp_0123456789", "choices": [choice],
        });
        let _ = write!(stream, "data: {chunk}\n\n");
    };
    event(json!({ "role": "assistant", "content": "" }), Value::Null);
    if matter == Matter::Arguments {
        let function = json!({ "name": "write", "arguments": "" });
        let call = json!({ "index": 0, "id": "call_1", "type": "function", "function": function });
        event(json!({ "tool_calls": [call] }), Value::Null);
    }
    for text in texts(matter, pieces) {
        event(
            match matter {
                Matter::Text => json!({ "content": text }),
                Matter::Reasoning => json!({ "reasoning_content": text }),
                Matter::Arguments => {
                    json!({ "tool_calls": [{ "index": 0, "function": { "arguments": text } }] })
                }
            },
            Value::Null,
        );
    }
    event(json!({}), json!(if matter == Matter::Arguments { "tool_calls" } else { "stop" }));
    stream.push_str("data: [DONE]\n\n");
    stream
}

fn named(stream: &mut String, event: &Value) {
    let _ = write!(stream, "event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
}

/// Returns an answer in Responses: everything is said again at the end of its item.
pub(crate) fn responses(matter: Matter, pieces: usize) -> String {
    let mut stream = String::new();
    let mut n = 0_u64;
    let mut event = |mut event: Value| {
        event["sequence_number"] = json!(n);
        n += 1;
        named(&mut stream, &event);
    };
    let response = |status: &str, output: Value| json!({ "id": "resp_1", "object": "response", "status": status, "output": output });
    event(json!({ "type": "response.created", "response": response("in_progress", json!([])) }));
    let texts = texts(matter, pieces);
    let whole = texts.concat();
    let item = |text: &str, status: &str| match matter {
        Matter::Text => {
            let content = json!([{ "type": "output_text", "text": text, "annotations": [] }]);
            json!({ "id": "item_1", "type": "message", "status": status, "role": "assistant", "content": content })
        }
        Matter::Reasoning => {
            let summary = json!([{ "type": "summary_text", "text": text }]);
            json!({ "id": "item_1", "type": "reasoning", "summary": summary, "encrypted_content": "bWFkZSB1cA==" })
        }
        Matter::Arguments => json!({
            "id": "item_1", "type": "function_call", "status": status, "call_id": "call_1", "name": "write",
            "arguments": text,
        }),
    };
    event(
        json!({ "type": "response.output_item.added", "output_index": 0, "item": item("", "in_progress") }),
    );
    for text in texts {
        let mut delta =
            json!({ "item_id": "item_1", "output_index": 0, "delta": text, "obfuscation": "x8Kd02mQ" });
        let (kind, place) = match matter {
            Matter::Text => ("response.output_text.delta", Some("content_index")),
            Matter::Reasoning => ("response.reasoning_summary_text.delta", Some("summary_index")),
            Matter::Arguments => ("response.function_call_arguments.delta", None),
        };
        delta["type"] = json!(kind);
        if let Some(place) = place {
            delta[place] = json!(0);
        }
        event(delta);
    }
    let item = item(&whole, "completed");
    event(json!({ "type": "response.output_item.done", "output_index": 0, "item": item }));
    event(json!({ "type": "response.completed", "response": response("completed", json!([item])) }));
    stream
}

/// Returns an answer in Messages.
pub(crate) fn messages(matter: Matter, pieces: usize) -> String {
    let mut stream = String::new();
    let mut event = |event: Value| named(&mut stream, &event);
    let usage = json!({ "input_tokens": 10, "output_tokens": 1 });
    let message =
        json!({ "id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage });
    event(json!({ "type": "message_start", "message": message }));
    let (block, kind, field) = match matter {
        Matter::Text => (json!({ "type": "text", "text": "" }), "text_delta", "text"),
        Matter::Reasoning => {
            (json!({ "type": "thinking", "thinking": "", "signature": "" }), "thinking_delta", "thinking")
        }
        Matter::Arguments => (
            json!({ "type": "tool_use", "id": "toolu_1", "name": "write", "input": {} }),
            "input_json_delta",
            "partial_json",
        ),
    };
    event(json!({ "type": "content_block_start", "index": 0, "content_block": block }));
    for text in texts(matter, pieces) {
        let delta = json!({ "type": kind, field: text });
        event(json!({ "type": "content_block_delta", "index": 0, "delta": delta }));
    }
    if matter == Matter::Reasoning {
        let delta = json!({ "type": "signature_delta", "signature": "bWFkZSB1cA==" });
        event(json!({ "type": "content_block_delta", "index": 0, "delta": delta }));
    }
    event(json!({ "type": "content_block_stop", "index": 0 }));
    let reason = if matter == Matter::Arguments { "tool_use" } else { "end_turn" };
    let delta = json!({ "stop_reason": reason, "stop_sequence": null });
    event(json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 500 } }));
    event(json!({ "type": "message_stop" }));
    stream
}

/// Returns an answer in generateContent. Calls come whole there: many of them make a long answer.
pub(crate) fn contents(matter: Matter, pieces: usize) -> String {
    let mut stream = String::new();
    let mut event = |part: Value, finish: Option<&str>| {
        let mut candidate = json!({ "content": { "parts": [part], "role": "model" }, "index": 0 });
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        let usage = json!({ "promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15 });
        let chunk = json!({
            "candidates": [candidate], "usageMetadata": usage, "modelVersion": "bench", "responseId": "made-up-1",
        });
        let _ = write!(stream, "data: {chunk}\r\n\r\n");
    };
    for (at, text) in words(pieces).enumerate() {
        event(
            match matter {
                Matter::Text => json!({ "text": text }),
                Matter::Reasoning => json!({ "text": text, "thought": true }),
                Matter::Arguments => {
                    json!({ "functionCall": { "name": "write", "args": { "line": at, "text": text } } })
                }
            },
            None,
        );
    }
    event(json!({ "text": "" }), Some("STOP"));
    stream
}
