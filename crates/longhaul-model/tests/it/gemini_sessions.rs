//! Whole conversations in Google's format, as files: each answer is decoded, results are appended, and the
//! next request must say what the recorded one says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use longhaul_model::codec::Codec as _;
use longhaul_model::gemini::{Codec, Options};
use longhaul_session::agent::Request;
use serde_json::{Value, json};

use crate::support::{calls_of, collect, result, user};
use crate::wire::{OTHER_CASES, OUR_CASES};

/// The turns of each conversation, in order.
fn sessions(folder: &Path) -> Vec<Vec<Value>> {
    let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if let Some(session) = case["session"].as_str().filter(|_| case["api"] == "gemini") {
            sessions.entry(session.to_owned()).or_default().push(case);
        }
    }
    let mut sessions: Vec<Vec<Value>> = sessions.into_values().filter(|turns| turns.len() > 1).collect();
    for turns in &mut sessions {
        turns.sort_by_key(|turn| turn["source"]["interaction"].as_u64());
    }
    sessions
}

/// Goes through a conversation and returns how many of its requests were compared.
fn replay(turns: &[Value]) -> usize {
    let codec = Codec::new(Options::new("https://provider.test/v1beta", "test-model"));
    let (mut items, mut known) = (Vec::new(), 0);
    let mut compared = 0;
    for turn in turns {
        let recorded = turn["request"]["body"]["contents"].as_array().unwrap();
        let calls = calls_of(&items);
        let answered = items.iter().filter(|item| item.tool_result().is_some()).count();
        let mut open = calls[answered..].iter();
        for part in recorded[known..].iter().filter(|it| it["role"] == "user").flat_map(parts) {
            match part.get("functionResponse") {
                Some(said) => items.push(result(&open.next().unwrap().id, outcome(said))),
                None => items.push(user(part["text"].as_str().unwrap())),
            }
        }
        let request = Request {
            system: String::new(),
            items: items.iter().cloned().map(Arc::new).collect(),
            tools: Arc::default(),
            previous: None,
        };
        let sent: Value = serde_json::from_slice(&codec.request(&request).body).unwrap();
        let sent = sent["contents"].as_array().unwrap();
        assert_eq!(essence(sent), essence(recorded), "{}", turn["id"]);
        compared += 1;
        let mut decoder = codec.decoder();
        let mut got = Vec::new();
        decoder.push(turn["response"]["body"].as_str().unwrap().as_bytes(), &mut got).unwrap();
        decoder.finish(&mut got).unwrap();
        items.extend(collect(got).unwrap().items);
        known = recorded.len() + 1;
    }
    compared
}

fn parts(content: &Value) -> impl Iterator<Item = &Value> {
    content["parts"].as_array().unwrap().iter()
}

fn outcome(said: &Value) -> &str {
    let fields = said["response"].as_object().unwrap();
    fields.values().next().and_then(Value::as_str).unwrap()
}

/// Leaves out what clients choose freely: ids for calls that had none, and the name of an output.
fn essence(contents: &[Value]) -> Vec<Value> {
    let part = |part: &Value| {
        let mut part = part.clone();
        if let Some(said) = part.get("functionResponse").cloned() {
            part["functionResponse"] = json!([said["name"], outcome(&said)]);
        }
        if let Some(call) = part.get("functionCall").cloned() {
            part["functionCall"] = json!([call["name"], call["args"]]);
        }
        part
    };
    contents.iter().map(|it| json!([it["role"], parts(it).map(part).collect::<Vec<_>>()])).collect()
}

#[test]
fn every_conversation_of_ours_goes_on_as_recorded() {
    let sessions = sessions(&Path::new(OUR_CASES).join("gemini"));
    assert!(sessions.len() >= 2, "{} conversations", sessions.len());
    for turns in &sessions {
        assert_eq!(replay(turns), turns.len());
    }
}

#[test]
fn every_conversation_of_a_named_folder_goes_on_as_recorded() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let Some(folder) = std::env::var_os(OTHER_CASES) else {
        println!("skipped: set {OTHER_CASES} to a folder of recorded cases to check them as well");
        return;
    };
    let compared: usize = sessions(Path::new(&folder)).iter().map(|turns| replay(turns)).sum();
    assert!(compared > 0, "no conversation in {}", folder.to_string_lossy());
    println!("compared {compared} requests");
}
