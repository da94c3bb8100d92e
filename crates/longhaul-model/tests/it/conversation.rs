//! Whole conversations: each answer is decoded, its calls are answered, and the next request is held
//! against what was said and against what another client sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use longhaul_model::codec::Codec as _;
use longhaul_model::openai_responses::{Codec, Options};
use longhaul_session::agent::Request;
use longhaul_session::item::Item;
use serde_json::{Value, json};

use crate::support::{decoded, result, user};
use crate::wire::OTHER_CASES;

fn codec() -> Codec {
    Codec::new(Options::new("https://provider.test/v1", "test-model"))
}

fn input(items: &[Item]) -> Vec<Value> {
    let items = items.iter().cloned().map(Arc::new).collect();
    let request = Request { system: String::new(), items, tools: Arc::default(), previous: None };
    let body: Value = serde_json::from_slice(&codec().request(&request).body).unwrap();
    body["input"].as_array().unwrap().clone()
}

/// Returns the calls and results of an input, as far as every client must say them in the same way.
fn calls(input: &[Value]) -> Vec<Value> {
    let kinds = ["function_call", "function_call_output"];
    let calls = input.iter().filter(|item| kinds.iter().any(|kind| item["type"] == *kind));
    calls
        .map(|item| json!([item["type"], item["call_id"], item["name"], item["arguments"], item["output"]]))
        .collect()
}

#[test]
fn an_answer_goes_back_as_it_came_with_its_results_behind_it() {
    let thought = json!({ "type": "reasoning", "summary": [], "encrypted_content": "ZW5j" });
    let search = json!({ "type": "web_search_call", "id": "ws_1", "status": "completed", "action": {} });
    let call =
        |id: &str| json!({ "type": "function_call", "call_id": id, "name": "read", "arguments": "{}" });
    let output = json!([thought, search, call("c1"), call("c2")]);
    let answer = json!({ "id": "resp_1", "status": "completed", "output": output });
    let mut items = vec![user("Go.")];
    items.extend(decoded(&codec(), &answer.to_string()));
    items.extend([result(&"c1".into(), "one"), result(&"c2".into(), "two")]);
    let sent = input(&items);
    assert_eq!(json!(sent[1..5]), output);
    let results =
        |id: &str, said: &str| json!({ "type": "function_call_output", "call_id": id, "output": said });
    assert_eq!(sent[5..], [results("c1", "one"), results("c2", "two")]);
}

#[test]
fn recorded_conversations_are_gone_on_with_as_they_were() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let Some(folder) = std::env::var_os(OTHER_CASES) else {
        println!("skipped: set {OTHER_CASES} to a folder of recorded cases to check them as well");
        return;
    };
    let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for file in std::fs::read_dir(Path::new(&folder)).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if case["api"] == "openai-responses"
            && case["session"].is_string()
            && case["expect"]["error"].is_null()
        {
            sessions.entry(case["session"].as_str().unwrap().to_owned()).or_default().push(case);
        }
    }
    let mut checked = 0;
    for (name, mut turns) in sessions {
        turns.sort_by_key(|case| case["source"]["interaction"].as_u64());
        let mut items = vec![user("Go.")];
        for pair in turns.windows(2) {
            items.extend(decoded(&codec(), pair[0]["response"]["body"].as_str().unwrap()));
            let Some(recorded) = pair[1]["request"]["body"]["input"].as_array() else { break };
            let outputs = recorded.iter().filter(|item| item["type"] == "function_call_output");
            let known: Vec<Item> =
                items.iter().filter(|item| item.tool_result().is_some()).cloned().collect();
            for output in outputs.skip(known.len()) {
                let id = output["call_id"].as_str().unwrap();
                items.push(result(&id.into(), output["output"].as_str().unwrap()));
            }
            let sent = input(&items);
            assert_eq!(calls(&sent), calls(recorded), "{name}");
            let encrypted = |value: &Value| value["item"]["encrypted_content"].is_string();
            let thoughts = items.iter().filter_map(|item| {
                if let Item::Reasoning { opaque, .. } = item { opaque.as_ref() } else { None }
            });
            for thought in thoughts.filter(|value| encrypted(value)) {
                let back = |item: &&Value| item["encrypted_content"] == thought["item"]["encrypted_content"];
                assert_eq!(sent.iter().filter(back).count(), 1, "{name}");
            }
            checked += 1;
        }
    }
    assert!(checked > 0, "no conversation of more than one turn in {}", Path::new(&folder).display());
}
