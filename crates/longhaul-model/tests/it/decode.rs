//! The program `decode`, against a server that plays what providers answered: every case, ours and those of a
//! named folder, asked for as it was, and each field that the case expects compared with what is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use longhaul_model::http::Connections;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::exchange::{Ask, decode};
use crate::wire::{OTHER_CASES, OUR_CASES, WIRES};

/// What an exchange must end within, and far less than its limits.
const WITHIN: Duration = Duration::from_secs(100);

/// The fields of the usage. What nobody said may be told as none.
const COUNTS: [&str; 6] = [
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_write_tokens",
    "total_tokens",
];

/// Plays the answer of a case to whoever asks below its name.
struct Stage {
    url: String,
}

impl Stage {
    async fn new(cases: &BTreeMap<String, Value>) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cases = Arc::new(cases.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&cases)));
            }
        });
        Stage { url }
    }

    /// Asks as the case was asked.
    fn ask(&self, name: &str, case: &Value) -> Ask {
        let base = case["request"]["base_path"].as_str().unwrap_or("/v1");
        Ask {
            url: format!("{}/{name}/as{base}", self.url),
            api: case["api"].as_str().unwrap().to_owned(),
            model: "test-model".to_owned(),
            key: None,
            stream: case["response"]["streaming"].as_bool().unwrap_or(true),
        }
    }
}

async fn answer(mut stream: TcpStream, cases: Arc<BTreeMap<String, Value>>) {
    let mut request = Vec::new();
    while !whole(&request) {
        let mut bytes = [0; 8 * 1024];
        match stream.read(&mut bytes).await {
            Ok(read) if read > 0 => request.extend_from_slice(&bytes[..read]),
            Ok(_) | Err(_) => return,
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let name = path.trim_start_matches('/').split("/as/").next().unwrap_or_default();
    let Some(response) = cases.get(name).map(|case| &case["response"]) else { return };
    let body = response["body"].as_str().unwrap();
    let mut head = format!("HTTP/1.1 {} As Recorded\r\nconnection: close\r\n", response["status"]);
    for (name, value) in response["headers"].as_object().unwrap() {
        let framing = ["content-length", "transfer-encoding", "connection", "content-encoding"];
        if !framing.contains(&name.to_ascii_lowercase().as_str()) {
            head.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap()));
        }
    }
    let reply = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(reply.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

/// Reads the cases of a folder and of those in it.
fn load(folder: &Path) -> BTreeMap<String, Value> {
    let mut cases = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for path in std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "json") {
                let name = path.strip_prefix(folder).unwrap().with_extension("").display().to_string();
                let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                if case["format"] == "longhaul-wire/1" {
                    cases.insert(name, case);
                }
            }
        }
    }
    cases
}

/// Plays every case and says where what is printed differs.
async fn judge(cases: &BTreeMap<String, Value>) {
    let stage = Stage::new(cases).await;
    let connections = Connections::default();
    let mut wrong = Vec::new();
    for (name, case) in cases {
        let said = timeout(WITHIN, decode(&stage.ask(name, case), &connections)).await.unwrap().unwrap();
        wrong.extend(differences(&case["expect"], &said).into_iter().map(|it| format!("{name}: {it}")));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn the_program_prints_what_each_case_of_ours_expects() {
    let cases = load(Path::new(OUR_CASES));
    let apis: BTreeSet<&str> = cases.values().filter_map(|case| case["api"].as_str()).collect();
    assert_eq!(apis, WIRES.iter().map(|wire| wire.api).collect());
    judge(&cases).await;
}

#[tokio::test]
async fn the_program_prints_what_each_case_of_a_named_folder_expects() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let Some(folder) = std::env::var_os(OTHER_CASES) else {
        println!("skipped: set {OTHER_CASES} to a folder of recorded cases to check them as well");
        return;
    };
    judge(&load(Path::new(&folder))).await;
}

#[tokio::test]
async fn the_built_program_prints_one_document() {
    let cases = load(Path::new(OUR_CASES));
    let stage = Stage::new(&cases).await;
    for name in ["openai_chat/refusal", "openai_responses/failed", "anthropic/document", "gemini/status_503"]
    {
        let (case, ask) = (&cases[name], stage.ask(name, &cases[name]));
        let mut program = Command::new(program());
        program.args(["--url", &ask.url, "--api", &ask.api, "--model", &ask.model]);
        program.args((!ask.stream).then_some("--no-stream"));
        let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(differences(&case["expect"], &said), [""; 0], "{name}");
    }
}

/// The program stands beside the tests, in a folder of its own.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/decode");
    assert!(program.is_file(), "build it with `cargo build -p longhaul-model --example decode`");
    program
}

/// Compares field by field.
fn differences(expect: &Value, said: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |field: &str, wanted: Value, got: Value| {
        if wanted != got {
            wrong.push(format!("{field} is {got}, not {wanted}"));
        }
    };
    same("text", expect["text"].clone(), said["text"].clone());
    same("reasoning_text", bare(&expect["reasoning_text"]), bare(&said["reasoning_text"]));
    same("refusal", bare(&expect["refusal"]), bare(&said["refusal"]));
    let calls = |from: &Value| from["tool_calls"].as_array().cloned().unwrap_or_default();
    same("calls", json!(calls(expect).len()), json!(calls(said).len()));
    for (wanted, got) in calls(expect).iter().zip(calls(said)) {
        for field in ["id", "name", "args", "args_text", "args_invalid", "kind"] {
            if let Some(wanted) = wanted.get(field) {
                same(field, wanted.clone(), got[field].clone());
            }
        }
        same("id", json!(true), json!(got["id"].as_str().is_some_and(|id| !id.is_empty())));
    }
    for field in ["other_items", "opaque"] {
        let list = |from: &Value| Value::Array(from[field].as_array().cloned().unwrap_or_default());
        same(field, list(expect), list(said));
    }
    // An end that nobody gave a reason for is an ordinary one.
    let silent = expect["finish_reason"].is_null() && expect["incomplete"] != true;
    let finish =
        if silent && said["finish_reason"] == "stop" { &Value::Null } else { &said["finish_reason"] };
    same("finish_reason", expect["finish_reason"].clone(), finish.clone());
    same("finish_reason_raw", expect["finish_reason_raw"].clone(), said["finish_reason_raw"].clone());
    let notes = expect["usage_notes"].as_array().cloned().unwrap_or_default();
    let hidden = notes.iter().any(|note| note == "usage-total-exceeds-parts");
    for field in COUNTS.iter().filter(|field| !hidden || **field != "output_tokens") {
        let count = |from: &Value| json!(from["usage"][field].as_u64().unwrap_or(0));
        same(field, count(expect), count(said));
    }
    if expect["model"].is_string() {
        same("model", expect["model"].clone(), said["model"].clone());
    }
    same("response_id", expect["response_id"].clone(), said["response_id"].clone());
    let incomplete = expect["incomplete"] == true;
    same("incomplete", json!(incomplete), json!(said["incomplete"] == true));
    let failed = incomplete || expect["error"].is_object();
    same("error", json!(failed), json!(said["error"].is_object()));
    if expect["error"].is_object() {
        let (wanted, got) = (&expect["error"], &said["error"]);
        for field in ["http_status", "class", "retryable"] {
            if let Some(wanted) = wanted.get(field) {
                same(field, wanted.clone(), got[field].clone());
            }
        }
        same("retry_after_s", json!(wanted["retry_after_s"].as_f64()), json!(got["retry_after_s"].as_f64()));
    }
    wrong
}

/// A text without its white space: clients join parts differently.
fn bare(text: &Value) -> Value {
    json!(text.as_str().unwrap_or_default().replace(char::is_whitespace, ""))
}
