//! What a provider of each wire answers when it behaves: the same text or call, in its own form.

use serde_json::{Value, json};

use crate::endpoint::Act;

/// A provider, and how it answers.
pub(crate) struct Spoken {
    pub(crate) provider: &'static str,
    pub(crate) say: fn(&str) -> Act,
    /// Calls a tool with arguments.
    pub(crate) call: fn(&str, &Value) -> Act,
    /// Its list of models, of which one is `test`.
    pub(crate) models: fn() -> Value,
    /// Where it is asked for that list.
    pub(crate) listed_at: &'static str,
}

/// One provider of each wire.
pub(crate) const ALL: [Spoken; 4] = [
    Spoken {
        provider: "openai-chat",
        say: Act::say,
        call: |tool, arguments| Act::call(&[("call_a", tool, arguments.clone())]),
        models: || json!({ "object": "list", "data": [{ "id": "other" }, { "id": "test", "max_model_len": 200_000 }] }),
        listed_at: "GET /v1/models HTTP/1.1",
    },
    Spoken {
        provider: "openai-responses",
        say: |text| {
            let content = json!([{ "type": "output_text", "text": text }]);
            response(
                2,
                &json!([{ "type": "message", "id": "msg_1", "role": "assistant", "content": content }]),
            )
        },
        call: |tool, arguments| response(1, &json!([called_function(tool, arguments)])),
        models: || json!({ "object": "list", "data": [{ "id": "test", "object": "model" }] }),
        listed_at: "GET /v1/models HTTP/1.1",
    },
    Spoken {
        provider: "anthropic",
        say: |text| {
            let delta = json!({ "type": "text_delta", "text": text });
            message(&[(json!({ "type": "text", "text": "" }), &[delta])], "end_turn")
        },
        call: |tool, arguments| {
            let delta = json!({ "type": "input_json_delta", "partial_json": arguments.to_string() });
            message(
                &[(json!({ "type": "tool_use", "id": "toolu_1", "name": tool, "input": {} }), &[delta])],
                "tool_use",
            )
        },
        models: || json!({ "data": [{ "type": "model", "id": "test", "max_input_tokens": 200_000 }], "has_more": false }),
        listed_at: "GET /v1/models?limit=1000 HTTP/1.1",
    },
    Spoken {
        provider: "gemini",
        say: |text| content(&json!({ "text": text })),
        call: |tool, arguments| content(&json!({ "functionCall": { "name": tool, "args": arguments } })),
        models: || json!({ "models": [{ "name": "models/test", "inputTokenLimit": 200_000 }] }),
        listed_at: "GET /v1/models?pageSize=1000 HTTP/1.1",
    },
];

/// Streams events, each under the name that its `type` gives it.
fn sse(events: &[Value]) -> Act {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let event = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    Act::Send((head.to_owned() + &events.iter().map(event).collect::<String>()).into())
}

/// Streams the items of a response.
pub(crate) fn response(number: u32, output: &Value) -> Act {
    let usage = json!({ "input_tokens": 100, "output_tokens": 20, "total_tokens": 120 });
    let id = format!("resp_{number}");
    let whole = json!({ "id": id, "status": "completed", "output": output, "usage": usage });
    let begun = json!({ "id": id, "status": "in_progress", "output": [] });
    let mut events = vec![json!({ "type": "response.created", "response": begun })];
    for (index, item) in output.as_array().unwrap().iter().enumerate() {
        events.push(json!({ "type": "response.output_item.done", "output_index": index, "item": item }));
    }
    events.push(json!({ "type": "response.completed", "response": whole }));
    sse(&events)
}

/// A call of a response.
pub(crate) fn called_function(tool: &str, arguments: &Value) -> Value {
    let arguments = arguments.to_string();
    json!({ "type": "function_call", "id": "fc_1", "call_id": "call_a", "name": tool, "arguments": arguments })
}

/// Streams the blocks of a message, each with its deltas.
pub(crate) fn message(blocks: &[(Value, &[Value])], reason: &str) -> Act {
    let usage = json!({ "input_tokens": 100, "output_tokens": 1 });
    let message = json!({ "id": "msg_1", "role": "assistant", "content": [], "usage": usage });
    let mut events = vec![json!({ "type": "message_start", "message": message })];
    for (index, (block, deltas)) in blocks.iter().enumerate() {
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": block }));
        for delta in *deltas {
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    let delta = json!({ "stop_reason": reason });
    events.push(json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 20 } }));
    events.push(json!({ "type": "message_stop" }));
    sse(&events)
}

/// Streams content of one part.
pub(crate) fn content(part: &Value) -> Act {
    let content = json!({ "role": "model", "parts": [part] });
    let candidate = json!({ "content": content, "finishReason": "STOP" });
    let usage = json!({ "promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120 });
    sse(&[json!({ "responseId": "r1", "candidates": [candidate], "usageMetadata": usage })])
}
