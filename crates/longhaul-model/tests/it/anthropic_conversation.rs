//! Whole conversations on Anthropic's wire: what an answer becomes is written into the next request, and must be
//! what the provider sent.

use std::path::Path;
use std::sync::Arc;

use longhaul_model::anthropic::{Cache, Codec, Options};
use longhaul_model::codec::Codec as _;
use longhaul_model::{FinishReason, Response};
use longhaul_session::agent::Request;
use longhaul_session::item::{Item, Outcome, ToolResult};
use serde_json::{Value, json};

use crate::support::{calls_of, collect, result, user};
use crate::wire::OTHER_CASES;

fn codec() -> Codec {
    Codec::new(Options { cache: Cache::Off, ..Options::new("https://provider.test", "test-model") })
}

fn decode(codec: &Codec, body: &str) -> Response {
    let mut decoder = codec.decoder();
    let mut parts = Vec::new();
    decoder.push(body.as_bytes(), &mut parts).unwrap();
    decoder.finish(&mut parts).unwrap();
    collect(parts).unwrap()
}

fn request(codec: &Codec, items: &[Item]) -> Value {
    let items = items.iter().cloned().map(Arc::new).collect();
    let request = Request { system: String::new(), items, tools: Arc::default(), previous: None };
    serde_json::from_slice(&codec.request(&request).body).unwrap()
}

fn messages(codec: &Codec, items: &[Item]) -> Vec<Value> {
    request(codec, items)["messages"].as_array().unwrap().clone()
}

/// Streams the blocks of an answer, their texts cut in two.
fn stream(blocks: &[Value], reason: &str) -> String {
    let mut events = vec![
        json!({ "type": "message_start", "message": { "id": "msg_1", "container": { "id": "box_1" } } }),
    ];
    for (index, block) in blocks.iter().enumerate() {
        let mut begun = block.clone();
        let mut deltas = Vec::new();
        for (key, kind) in
            [("thinking", "thinking_delta"), ("text", "text_delta"), ("signature", "signature_delta")]
        {
            let Some(text) = block[key].as_str() else { continue };
            begun[key] = json!("");
            let (first, rest) = text.split_at(if key == "signature" { 0 } else { text.len() / 2 });
            deltas.extend([first, rest].map(|piece| json!({ "type": kind, key: piece })));
        }
        for citation in block["citations"].as_array().into_iter().flatten() {
            begun["citations"] = json!([]);
            deltas.push(json!({ "type": "citations_delta", "citation": citation }));
        }
        if block["input"].is_object() {
            begun["input"] = json!({});
            deltas.push(json!({ "type": "input_json_delta", "partial_json": block["input"].to_string() }));
        }
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": begun }));
        events.extend(
            deltas
                .into_iter()
                .map(|it| json!({ "type": "content_block_delta", "index": index, "delta": it })),
        );
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": reason } }));
    events.push(json!({ "type": "message_stop" }));
    let named = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    events.iter().map(named).collect()
}

fn document(blocks: &[Value], reason: &str) -> String {
    let container = json!({ "id": "box_1" });
    json!({ "id": "msg_1", "type": "message", "content": blocks, "stop_reason": reason, "container": container }).to_string()
}

fn tool_use(id: &str) -> Value {
    json!({ "type": "tool_use", "id": id, "name": "read", "input": { "path": id },
        "caller": { "type": "code_execution_20260120", "tool_id": "s1" } })
}

fn first_answer() -> Vec<Value> {
    let found = json!([{ "type": "web_search_result", "url": "https://a.test", "encrypted_content": "abc" }]);
    let cited = |text: &str| json!({ "type": "text", "text": text, "citations": [{ "type": "web_search_result_location", "encrypted_index": text }] });
    vec![
        json!({ "type": "thinking", "thinking": "Two things to do.", "signature": "sig-1" }),
        json!({ "type": "server_tool_use", "id": "s1", "name": "web_search", "input": { "query": "news" } }),
        json!({ "type": "web_search_tool_result", "tool_use_id": "s1", "content": found }),
        json!({ "type": "text", "text": "By A, " }),
        cited("it räins"),
        json!({ "type": "text", "text": " and " }),
        cited("it snows"),
        json!({ "type": "redacted_thinking", "data": "xyz" }),
        tool_use("c1"),
        json!({ "type": "thinking", "thinking": "", "signature": "sig-2" }),
        tool_use("c2"),
    ]
}

#[test]
fn an_answer_goes_back_as_it_came_with_its_results_behind_it() {
    for body in [stream(&first_answer(), "tool_use"), document(&first_answer(), "tool_use")] {
        let codec = codec();
        let mut items = vec![user("Go.")];
        let answer = decode(&codec, &body);
        assert_eq!(answer.finish, FinishReason::ToolCalls);
        let calls = calls_of(&answer.items);
        items.extend(answer.items);
        items.extend(calls.iter().map(|call| result(&call.id, "read")));
        let sent = request(&codec, &items);
        assert_eq!(sent["container"], "box_1");
        assert_eq!(sent["messages"][1]["content"], json!(first_answer()));
        let results =
            ["c1", "c2"].map(|id| json!({ "type": "tool_result", "tool_use_id": id, "content": "read" }));
        assert_eq!(sent["messages"][2], json!({ "role": "user", "content": results }));
        let elsewhere = Codec::new(Options { cache: Cache::Off, ..Options::new("https://other.test", "m") });
        let kept: Vec<Value> = messages(&elsewhere, &items)[1]["content"].as_array().unwrap().clone();
        let kinds: Vec<&str> = kept.iter().map(|block| block["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["text", "text", "tool_use", "tool_use"], "{kept:?}");
    }
}

#[test]
fn a_paused_answer_goes_on_in_the_same_message() {
    let codec = codec();
    let search = first_answer()[1].clone();
    let mut items = vec![user("Go.")];
    let paused = decode(&codec, &stream(std::slice::from_ref(&search), "pause_turn"));
    assert_eq!(paused.finish, FinishReason::Pause);
    items.extend(paused.items);
    assert_eq!(messages(&codec, &items)[1]["content"], json!([search]));
    let rest = &first_answer()[2..5];
    items.extend(decode(&codec, &stream(rest, "end_turn")).items);
    items.push(user("Thanks."));
    assert_eq!(messages(&codec, &items)[1]["content"], json!([&[search], rest].concat()));
}

#[test]
fn every_recorded_conversation_goes_on_as_it_did() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let Some(folder) = std::env::var_os(OTHER_CASES) else {
        println!("skipped: set {OTHER_CASES} to a folder of recorded cases to check them as well");
        return;
    };
    let files = std::fs::read_dir(Path::new(&folder)).unwrap().map(|file| file.unwrap().path());
    let mut turns: Vec<Value> = files
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .filter(|case: &Value| case["api"] == "anthropic" && case["response"]["status"] == 200)
        .filter(|case| case["request"]["body"]["messages"].is_array() && case["session"].is_string())
        .collect();
    turns.sort_by_key(|case| (case["session"].to_string(), case["source"]["interaction"].as_u64()));
    let mut checked = 0;
    for pair in turns.windows(2).filter(|pair| pair[0]["session"] == pair[1]["session"]) {
        checked += usize::from(check_turn(&pair[0], &pair[1]));
    }
    println!("checked {checked} turns");
}

/// Decodes an answer, adds what the next request says beyond it, and compares what we would have sent.
fn check_turn(turn: &Value, next: &Value) -> bool {
    let asked = turn["request"]["body"]["messages"].as_array().unwrap();
    let wanted = next["request"]["body"]["messages"].as_array().unwrap();
    let one_question = asked.len() == 1 && wanted.len() == 3 && asked[0] == wanted[0];
    if !one_question
        || turn["expect"]["error"].is_object()
        || next["request"].to_string().contains("characters removed")
    {
        return false;
    }
    let codec = codec();
    let mut items: Vec<Item> = blocks(&asked[0]).iter().map(item).collect();
    items.extend(decode(&codec, turn["response"]["body"].as_str().unwrap()).items);
    items.extend(blocks(&wanted[2]).iter().map(item));
    let sent = messages(&codec, &items);
    assert_eq!(sent.len(), wanted.len(), "{}", next["id"]);
    for (sent, wanted) in sent.iter().zip(wanted) {
        assert_eq!(sent["role"], wanted["role"], "{}", next["id"]);
        assert_eq!(blocks(sent), blocks(wanted), "{}", next["id"]);
    }
    true
}

/// Returns what a message says, in one of the ways to say it.
fn blocks(message: &Value) -> Vec<Value> {
    let text = |text: &Value| json!({ "type": "text", "text": text });
    let content = &message["content"];
    let mut blocks = content.as_array().cloned().unwrap_or_else(|| vec![text(content)]);
    for block in &mut blocks {
        if block["type"] == "tool_result" && block["content"].is_string() {
            block["content"] = json!([text(&block["content"])]);
        }
        if block["type"] == "tool_use" {
            block.as_object_mut().unwrap().remove("caller");
        }
        for key in ["cache_control", "is_error"] {
            block.as_object_mut().unwrap().remove(key);
        }
    }
    blocks
}

fn item(block: &Value) -> Item {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match block["type"].as_str().unwrap() {
        "text" => user(&text(&block["text"])),
        "tool_result" => Item::ToolResult(ToolResult {
            call: text(&block["tool_use_id"]).as_str().into(),
            outcome: if block["is_error"] == true { Outcome::Error } else { Outcome::Ok },
            output: text(&block["content"][0]["text"]),
            files: Vec::new(),
            artifact: None,
        }),
        "image" | "document" => Item::File {
            name: None,
            media_type: text(&block["source"]["media_type"]),
            data: text(&block["source"]["data"]),
        },
        kind => panic!("a {kind} in a recorded question: {block}"),
    }
}
