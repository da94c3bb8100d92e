//! Answers made in the background, over connections that break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longhaul_model::http::{Connections, Limits};
use longhaul_model::openai_responses::Options;
use longhaul_model::recording::{Head, Recorder, Recording, Tape};
use longhaul_model::{Error, Model, ModelCall, Part, Response, openai_responses};
use longhaul_session::failure::FailureClass;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::{call, collect, play, text_of, user};

/// What every attempt must end within, and far less than its limits.
const WITHIN: Duration = Duration::from_secs(100);

/// A server that answers one connection after the other, and notes the first line of each request.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new(replies: Vec<String>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        tokio::spawn(async move {
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 64 * 1024];
                let mut read = 0;
                while !whole(&bytes[..read]) {
                    match stream.read(&mut bytes[read..]).await {
                        Ok(more) if more > 0 => read += more,
                        Ok(_) | Err(_) => return,
                    }
                }
                let line = String::from_utf8_lossy(&bytes[..read]).lines().next().unwrap().to_owned();
                notes.lock().unwrap().push(line.trim_end_matches(" HTTP/1.1").to_owned());
                stream.write_all(reply.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        Server { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Tells whether a request is there with its body.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn stream(events: &[String]) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{}",
        events.concat()
    )
}

/// The answer "one two three", as numbered events.
fn events() -> Vec<String> {
    let delta =
        |text: &str| json!({ "type": "response.output_text.delta", "output_index": 0, "delta": text });
    let mut events =
        vec![json!({ "type": "response.created", "response": { "id": "resp_1", "status": "queued" } })];
    events.extend(["one ", "two ", "three"].map(delta));
    events.push(json!({ "type": "response.completed", "response": answer("completed") }));
    (0_u64..)
        .zip(events)
        .map(|(number, mut event)| {
            event["sequence_number"] = json!(number);
            format!("data: {event}\n\n")
        })
        .collect()
}

fn answer(status: &str) -> Value {
    let content = json!([{ "type": "output_text", "text": "one two three" }]);
    let output =
        if status == "completed" { json!([{ "type": "message", "content": content }]) } else { json!([]) };
    json!({ "id": "resp_1", "object": "response", "status": status, "output": output })
}

fn options(url: &str, resumable: bool) -> Options {
    let limits = Limits { first_byte_ms: 600_000, idle_ms: 600_000, whole_answer_ms: 3_000 };
    Options { resumable, limits, ..Options::new(url, "test-model") }
}

async fn ask(options: Options, resume: Option<&str>) -> (Vec<Part>, Option<Error>) {
    let model = openai_responses(options).unwrap();
    let call = ModelCall { resume: resume.map(str::to_owned), ..call(&[user("Go.")], 0) };
    timeout(WITHIN, play(&model, call)).await.expect("no attempt was to take this long")
}

async fn answered(server: &Server, resume: Option<&str>) -> Response {
    let (parts, error) = ask(options(&server.url, true), resume).await;
    assert_eq!(error, None);
    let answer = collect(parts).unwrap();
    assert_eq!(answer.response_id.as_deref(), Some("resp_1"));
    answer
}

const POST: &str = "POST /v1/responses";
const GET: &str = "GET /v1/responses/resp_1";

#[tokio::test]
async fn an_answer_that_breaks_off_is_gone_on_with_behind_what_was_read() {
    let events = events();
    for cut in 1..events.len() {
        let server = Server::new(vec![stream(&events[..cut]), stream(&events[cut..])]).await;
        assert_eq!(text_of(&answered(&server, None).await.items), "one two three");
        let after = format!("{GET}?stream=true&starting_after={}", cut - 1);
        assert_eq!(server.asked(), [POST.to_owned(), after], "cut behind {cut} events");
    }
}

#[tokio::test]
async fn an_answer_may_break_off_again_and_again_and_within_an_event() {
    let events = events();
    let mut half = vec![events[1].clone(), events[2][..30].to_owned()];
    let server = Server::new(vec![
        stream(&events[..1]),
        reply("503 Busy", ""),
        stream(&half),
        stream(&std::mem::take(&mut half)),
        stream(&events[2..]),
    ])
    .await;
    assert_eq!(text_of(&answered(&server, None).await.items), "one two three");
    let after = server
        .asked()
        .iter()
        .filter_map(|line| Some(line.split_once("starting_after=")?.1.to_owned()))
        .collect::<Vec<_>>();
    assert_eq!(after, ["0", "0", "1", "1"]);
}

#[tokio::test]
async fn an_answer_that_is_streamed_no_more_is_asked_for_until_it_is_whole() {
    let events = events();
    let refused =
        reply("400 Bad Request", r#"{"error":{"message":"This response can no longer be streamed"}}"#);
    let document = |status| reply("200 OK", &answer(status).to_string());
    let replies = vec![
        stream(&events[..2]),
        refused,
        document("in_progress"),
        document("queued"),
        document("completed"),
    ];
    let server = Server::new(replies).await;
    assert_eq!(text_of(&answered(&server, None).await.items), "one two three");
    assert_eq!(server.asked()[2..], [GET, GET, GET]);
}

#[tokio::test]
async fn what_is_asked_to_pick_an_answer_up_and_to_cancel_it_is_recorded_and_replayed() {
    let refused = reply("400 Bad Request", r#"{"error":{"message":"No longer streamed"}}"#);
    let document = |status| reply("200 OK", &answer(status).to_string());
    let replies = vec![
        stream(&events()[..2]),
        reply("503 Busy", ""),
        refused,
        document("in_progress"),
        document("completed"),
        document("cancelled"),
    ];
    let server = Server::new(replies).await;
    let run = async |tape| {
        let connections = Connections::with_tape(600_000, None, Some(tape));
        let model =
            openai_responses(Options { connections, ..options(&server.url, true) }).expect("it can be asked");
        let (parts, error) = timeout(WITHIN, play(&model, call(&[user("Go.")], 0))).await.unwrap();
        assert_eq!(error, None);
        timeout(WITHIN, model.cancel("resp_1")).await.unwrap().unwrap();
        parts
    };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("recording");
    let recorder = Recorder::create(&file, Head::new(Vec::new(), BTreeMap::new()), &[]).unwrap();
    let recorded = run(Tape::Record(recorder.clone())).await;
    assert_eq!((recorder.finish().unwrap(), server.asked().len()), (6, 6));
    let replay = Recording::read(&file).unwrap().replay(&BTreeMap::new());
    assert_eq!(run(Tape::Replay(replay.clone())).await, recorded);
    assert_eq!((replay.finish(), server.asked().len()), (Ok(6), 6), "nobody was asked again");
}

#[tokio::test]
async fn an_answer_of_an_attempt_before_is_picked_up_from_its_beginning_and_nothing_is_asked_anew() {
    let events = events();
    for reply in [stream(&events), reply("200 OK", &answer("completed").to_string())] {
        let server = Server::new(vec![reply]).await;
        assert_eq!(text_of(&answered(&server, Some("resp_1")).await.items), "one two three");
        assert_eq!(server.asked(), [format!("{GET}?stream=true")]);
    }
}

#[tokio::test]
async fn an_answer_that_the_provider_has_lost_is_told_so_that_it_is_asked_for_anew() {
    for message in ["Response with id 'resp_1' not found.", "It is not a background response", "Not found"] {
        let lost = reply("404 Not Found", &json!({ "error": { "message": message } }).to_string());
        let server = Server::new(vec![lost.clone(), lost.clone()]).await;
        let error = ask(options(&server.url, true), Some("resp_1")).await.1.unwrap();
        assert_eq!(error.class, FailureClass::ChainBroken, "{error}");
        let server = Server::new(vec![stream(&events()[..2]), lost.clone(), lost]).await;
        let (parts, error) = ask(options(&server.url, true), None).await;
        assert_eq!((parts.len(), error.unwrap().class), (2, FailureClass::ChainBroken));
    }
}

#[tokio::test]
async fn an_answer_that_is_never_whole_is_given_up() {
    let at_work = reply("200 OK", &answer("in_progress").to_string());
    let mut replies = vec![stream(&events()[..2])];
    replies.extend(vec![at_work; 20]);
    let error = ask(options(&Server::new(replies).await.url, true), None).await.1.unwrap();
    assert_eq!(error.class, FailureClass::Network, "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_made_in_the_background_is_not_picked_up() {
    let server = Server::new(vec![stream(&events()[..2]), stream(&events()[2..])]).await;
    let (parts, error) = ask(options(&server.url, false), None).await;
    assert_eq!((parts.len(), error.unwrap().class), (2, FailureClass::Network));
    assert_eq!(server.asked(), [POST]);
    let server = Server::new(vec![stream(&events())]).await;
    assert_eq!(ask(options(&server.url, false), Some("resp_1")).await.1, None);
    assert_eq!(server.asked(), [POST]);
}

#[tokio::test]
async fn cancelling_tells_the_provider_and_it_is_no_error_that_the_answer_has_ended() {
    for (status, fine) in [("200 OK", true), ("400 Bad", true), ("404 Not Found", true), ("500 Oh", false)] {
        let server = Server::new(vec![reply(status, "{}")]).await;
        let model = openai_responses(options(&server.url, true)).unwrap();
        assert_eq!(model.cancel("resp_1").await.is_ok(), fine, "{status}");
        assert_eq!(server.asked(), ["POST /v1/responses/resp_1/cancel"]);
    }
    let server = Server::new(Vec::new()).await;
    assert_eq!(openai_responses(options(&server.url, false)).unwrap().cancel("resp_1").await, Ok(()));
}
