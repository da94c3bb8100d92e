//! Whole conversations in Chat Completions: each answer is decoded, its calls are answered as they were, and the
//! next request is held against the one that was recorded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use longhaul_model::codec::Codec as _;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_session::agent::Request;
use longhaul_session::item::Item;
use serde_json::{Value, json};

use crate::support::{decoded, result, user};
use crate::wire::OTHER_CASES;

fn codec() -> Codec {
    Codec::new(Options::new("https://provider.test/v1", "test-model"))
}

fn messages(items: &[Item]) -> Vec<Value> {
    let items = items.iter().cloned().map(Arc::new).collect();
    let request = Request { system: String::new(), items, tools: Arc::default(), previous: None };
    let body: Value = serde_json::from_slice(&codec().request(&request).body).unwrap();
    body["messages"].as_array().unwrap().clone()
}

/// Leaves out what clients may say in several ways: reasoning, how text is put, the spaces in arguments, and which
/// id a call has, as long as its result has the same.
fn essences(messages: &[Value]) -> Vec<Value> {
    let mut all = Value::from_iter(messages.iter().map(essence));
    let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    let ids: Vec<&str> = calls.map(|call| call["id"].as_str().unwrap()).collect();
    let number = |id: &mut Value| {
        if let Some(at) = ids.iter().position(|it| *id == **it) {
            *id = json!(at);
        }
    };
    for message in all.as_array_mut().unwrap() {
        number(&mut message[3]);
        message[2].as_array_mut().unwrap().iter_mut().for_each(|call| number(&mut call[0]));
    }
    all.as_array().unwrap().clone()
}

fn essence(message: &Value) -> Value {
    let content = &message["content"];
    let text = match content.as_array() {
        Some(pieces) => pieces.iter().filter_map(|piece| piece["text"].as_str()).collect(),
        None => content.as_str().unwrap_or_default().to_owned(),
    };
    let arguments = |call: &Value| call["function"]["arguments"].as_str().unwrap().parse::<Value>().unwrap();
    let call = |call: &Value| json!([call["id"], call["function"]["name"], arguments(call)]);
    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let calls: Vec<Value> = calls.iter().map(call).collect();
    json!([message["role"], text, calls, message["tool_call_id"]])
}

/// The turns of each recorded conversation, in order.
fn sessions(folder: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let usable = case["api"] == "openai-chat" && case["expect"]["error"].is_null();
        if let Some(session) = case["session"].as_str().filter(|_| usable) {
            sessions.entry(session.to_owned()).or_default().push(case);
        }
    }
    sessions.values_mut().for_each(|turns| turns.sort_by_key(|turn| turn["source"]["interaction"].as_u64()));
    sessions
}

/// Holds the request that follows an answer against the recorded one, if that goes on from it.
fn check_turn(turn: &Value, next: &Value) -> bool {
    let [Some(asked), Some(wanted)] = [turn, next].map(|it| it["request"]["body"]["messages"].as_array())
    else {
        return false;
    };
    let goes_on = wanted.len() > asked.len() + 1 && wanted.starts_with(asked);
    if !goes_on || next["request"].to_string().contains("characters removed") {
        return false;
    }
    let new = &wanted[asked.len()..];
    let mut items = vec![user("Go.")];
    items.extend(decoded(&codec(), turn["response"]["body"].as_str().unwrap()));
    for said in &new[1..] {
        let text = essence(said)[1].as_str().unwrap().to_owned();
        items.push(match said["tool_call_id"].as_str() {
            Some(id) => result(&id.into(), &text),
            None => user(&text),
        });
    }
    assert_eq!(essences(&messages(&items)[1..]), essences(new), "{}", next["id"]);
    true
}

#[test]
fn an_answer_goes_back_as_it_came_with_its_results_behind_it() {
    let thought = json!({ "type": "reasoning.text", "text": "Two.", "signature": "sig-1", "index": 0 });
    goes_back(&json!({ "reasoning_details": [thought] }));
    let thought = json!({ "type": "thinking", "thinking": "Two.", "signature": "sig-1" });
    goes_back(&json!({ "thinking_blocks": [thought] }));
    goes_back(&json!({ "reasoning_text": "Two.", "reasoning_opaque": "sealed" }));
    goes_back(&json!({ "reasoning_opaque": "sealed" }));
}

fn goes_back(thought: &Value) {
    let call = |id: &str| {
        let function = json!({ "name": "read", "arguments": format!("{{\"path\":\"{id}\"}}") });
        json!({ "id": id, "type": "function", "function": function })
    };
    let mut message =
        json!({ "role": "assistant", "content": "I look.", "tool_calls": [call("c1"), call("c2")] });
    message.as_object_mut().unwrap().extend(thought.as_object().unwrap().clone());
    let choice = json!({ "index": 0, "message": message, "finish_reason": "tool_calls" });
    let mut items = vec![user("Go.")];
    items.extend(decoded(&codec(), &json!({ "id": "r1", "choices": [choice] }).to_string()));
    items.extend([result(&"c2".into(), "two"), result(&"c1".into(), "one"), user("And?")]);
    let sent = messages(&items);
    assert_eq!(sent[1], message);
    let answered = |id: &str, said: &str| json!({ "role": "tool", "tool_call_id": id, "content": said });
    assert_eq!(sent[2..4], [answered("c1", "one"), answered("c2", "two")]);
    assert_eq!(sent[4], json!({ "role": "user", "content": "And?" }));
}

#[test]
fn every_recorded_conversation_goes_on_as_it_did() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let Some(folder) = std::env::var_os(OTHER_CASES) else {
        println!("skipped: set {OTHER_CASES} to a folder of recorded cases to check them as well");
        return;
    };
    let sessions = sessions(Path::new(&folder));
    let pairs = sessions.values().flat_map(|turns| turns.windows(2));
    let checked = pairs.filter(|pair| check_turn(&pair[0], &pair[1])).count();
    assert!(checked > 0, "no conversation of more than one turn in {}", Path::new(&folder).display());
    println!("checked {checked} requests");
}
