//! The client against a server that misbehaves: what a person reads, and how soon.

use std::time::Duration;

use longhaul_model::http::{Connections, Limits};
use longhaul_model::openai_chat::Options;
use longhaul_model::{Error, Model, ModelCall, Part, Secret, openai_chat, openai_responses};
use longhaul_session::failure::FailureClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{call, collect, play, text_of, user};

const KEY: &str = "a-key-that-nobody-may-see";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const HALF: &str = "data: {\"id\":\"chat-1\",\"choices\":[{\"delta\":{\"content\":\"Half\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n";
const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// No test may wait for this long.
const LONG_MS: u64 = 600_000;
/// What every attempt must end within, and far less than its limits.
const WITHIN: Duration = Duration::from_secs(100);
/// What a test waits for: long for a server that is at hand, also where it shares its processor with many.
const SHORT_MS: u64 = 500;

/// What the server does once it has read a request.
enum Act {
    Send(String),
    /// Nothing more, until the client goes away.
    Stall,
    Reset,
}

/// A server for one request.
struct Server {
    url: String,
    /// Gets what was asked, once the client has gone or the server has closed.
    asked: oneshot::Receiver<String>,
}

async fn serve(acts: Vec<Act>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (tell, asked) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        for act in acts {
            match act {
                Act::Send(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Act::Stall => while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {},
                Act::Reset => stream.set_zero_linger().unwrap(),
            }
        }
        drop(stream);
        tell.send(request).ok();
    });
    Server { url, asked }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        let head = text.split_once("\r\n\r\n").map(|(head, _)| head.to_ascii_lowercase());
        let length = head.as_ref().and_then(|head| {
            head.split_once("content-length: ")?.1.split("\r\n").next()?.parse::<usize>().ok()
        });
        if let (Some(head), Some(length)) = (head, length)
            && request.len() >= head.len() + 4 + length
        {
            return text;
        }
        let mut bytes = [0; 4_096];
        let read = stream.read(&mut bytes).await.unwrap();
        if read == 0 {
            // The client went away.
            return text;
        }
        request.extend_from_slice(&bytes[..read]);
    }
}

fn send(text: impl Into<String>) -> Act {
    Act::Send(text.into())
}

fn reply(status: &str, headers: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    vec![send(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}"))]
}

fn options(url: &str) -> Options {
    let limits = Limits { first_byte_ms: LONG_MS, idle_ms: LONG_MS, whole_answer_ms: LONG_MS };
    let connections = Connections::new(LONG_MS, None);
    Options { key: Some(Secret::new(KEY)), limits, connections, ..Options::new(url, "test-model") }
}

fn asked() -> ModelCall {
    call(&[user("Go.")], 0)
}

async fn ask(options: Options) -> (Vec<Part>, Option<Error>) {
    let model = openai_chat(options).unwrap();
    let outcome = timeout(WITHIN, play(&model, asked())).await.expect("no attempt was to take this long");
    if let Some(error) = &outcome.1 {
        assert!(!error.message.contains(KEY), "{error}");
        assert!(!error.message.is_empty());
    }
    outcome
}

async fn error_of(acts: Vec<Act>) -> Error {
    let server = serve(acts).await;
    ask(options(&server.url)).await.1.expect("the attempt was to fail")
}

#[tokio::test]
async fn an_answer_arrives_in_parts() {
    let server = serve(vec![send(STREAM), send(HALF), send(END), send(USAGE), send(DONE), Act::Stall]).await;
    let (parts, error) = ask(options(&server.url)).await;
    assert_eq!(error, None);
    let answer = collect(parts).unwrap();
    assert_eq!(text_of(&answer.items), "Half");
    assert_eq!((answer.response_id.as_deref(), answer.usage.input), (Some("chat-1"), 9));
    let asked = server.asked.await.unwrap();
    assert!(asked.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("authorization: Bearer {KEY}\r\n")), "{asked}");
    assert!(asked.contains("accept: text/event-stream\r\n"), "{asked}");
    assert!(
        asked.ends_with(
            "\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},\
        {\"role\":\"user\",\"content\":\"Go.\"}]}"
        ),
        "{asked}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_read_too() {
    let body = r#"{"id":"chat-1","choices":[{"message":{"content":"All"},"finish_reason":"stop"}]}"#;
    let server = serve(reply("200 OK", "content-type: application/json\r\n", body)).await;
    let (parts, error) = ask(Options { stream: false, ..options(&server.url) }).await;
    assert_eq!(error, None);
    assert_eq!(text_of(&collect(parts).unwrap().items), "All");
    assert!(server.asked.await.unwrap().contains("accept: application/json\r\n"));
}

#[tokio::test]
async fn a_status_is_classified_with_its_headers_and_body() {
    let json = r#"{"error":{"message":"Slow down"}}"#;
    let limited = error_of(reply("429 Too Many Requests", "Retry-After: 7\r\n", json)).await;
    assert_eq!((limited.class, limited.retry_after_ms), (FailureClass::RateLimited, Some(7_000)));
    assert!(limited.message.contains("Slow down"), "{limited}");
    for (status, body, class) in [
        ("500 Internal Server Error", "", FailureClass::Server),
        ("529 Overloaded", json, FailureClass::Overloaded),
        ("503 Down", "<html><title>Down</title></html>", FailureClass::Overloaded),
        ("401 Unauthorized", json, FailureClass::Auth),
        ("200 OK", "<html><title>Sign in</title></html>", FailureClass::Server),
        ("200 OK", "", FailureClass::Network),
        ("200 OK", json, FailureClass::Server),
    ] {
        let error = error_of(reply(status, "", body)).await;
        assert_eq!(error.class, class, "{status} {body}: {error}");
    }
}

#[tokio::test]
async fn a_provider_that_repeats_the_key_does_not_give_it_away() {
    let json = format!(r#"{{"error":{{"message":"wrong key {KEY}"}}}}"#);
    let error = error_of(reply("401 Unauthorized", "", &json)).await;
    assert!(error.message.contains("wrong key [masked]"), "{error}");
    let event = format!("data: {json}\n\n");
    let error = error_of(vec![send(STREAM), send(event)]).await;
    assert!(error.message.contains("wrong key [masked]"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let error = error_of(reply("307 Moved", "location: https://elsewhere.test/v1\r\n", "")).await;
    assert_eq!(error.class, FailureClass::InvalidRequest);
    assert!(error.message.contains("https://elsewhere.test/v1"), "{error}");
}

#[tokio::test]
async fn a_refusal_without_end_is_read_in_part() {
    let endless = vec![
        send("HTTP/1.1 500 Oh\r\nconnection: close\r\n\r\n{\"error\":{\"message\":\""),
        send("x".repeat(200_000)),
        Act::Stall,
    ];
    let error = error_of(endless).await;
    assert_eq!(error.class, FailureClass::Server);
    assert!(error.message.len() < 2_000);
}

#[tokio::test]
async fn an_answer_that_breaks_off_fails_after_its_parts() {
    for (end, how) in [(Act::Reset, "reset"), (send(""), "ended")] {
        let server = serve(vec![send(STREAM), send(HALF), send(USAGE), end]).await;
        let (parts, error) = ask(options(&server.url)).await;
        let error = error.unwrap();
        assert_eq!(error.class, FailureClass::Network, "{error}");
        assert!(error.message.contains(how) || error.message.contains("broke"), "{how}: {error}");
        if how == "ended" {
            assert!(parts.contains(&Part::Text { text: "Half".to_owned() }), "{parts:?}");
            assert_eq!(error.usage.map(|usage| usage.input), Some(9), "paid is paid");
        }
    }
    let cut = vec![send(STREAM.replace("connection: close", "content-length: 9999")), send(HALF)];
    let error = error_of(cut).await;
    assert_eq!(error.class, FailureClass::Network);
    assert!(error.message.contains("before the answer was complete"), "{error}");
}

#[tokio::test]
async fn an_answer_is_whole_when_the_connection_breaks_behind_its_finish_reason() {
    let head = STREAM.replace("connection: close", "content-length: 9999");
    let server = serve(vec![send(head), send(HALF), send(END)]).await;
    let (parts, error) = ask(options(&server.url)).await;
    assert_eq!(error, None);
    assert_eq!(text_of(&collect(parts).unwrap().items), "Half");
}

#[tokio::test]
async fn a_connection_that_is_closed_before_an_answer_is_a_failure_of_the_network() {
    for act in [send(""), Act::Reset] {
        let error = error_of(vec![act]).await;
        assert_eq!(error.class, FailureClass::Network);
        assert!(error.message.contains("http://127.0.0.1:"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_check() {
    // As long as it has the address, nobody listens there.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://user:{KEY}@{}/v1?key={KEY}", nobody.local_addr().unwrap());
    let error = ask(options(&url)).await.1.unwrap();
    assert_eq!(error.class, FailureClass::Network);
    assert!(error.message.contains("refused") && error.message.contains("is running"), "{error}");
    assert!(error.message.contains("http://127.0.0.1:"), "{error}");
}

/// Runs a test in a process without proxies, where this one has any: a proxy would look up names itself.
/// Returns whether it did.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests may need proxies for all else")]
fn ran_without_proxies(test: &str) -> bool {
    let is_proxy = |name: &String| name.to_ascii_lowercase().ends_with("_proxy");
    let set: Vec<String> = std::env::vars().map(|(name, _)| name).filter(is_proxy).collect();
    if set.is_empty() {
        return false;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]);
    for name in &set {
        command.env_remove(name);
    }
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    true
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_said_to_be_unknown() {
    if ran_without_proxies("http::a_name_that_nobody_knows_is_said_to_be_unknown") {
        return;
    }
    let error = ask(options("http://nowhere.invalid/v1")).await.1.unwrap();
    assert_eq!(error.class, FailureClass::Network);
    assert!(error.message.contains("nowhere.invalid"), "{error}");
    assert!(error.message.contains("looked up"), "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_said_to_speak_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    });
    let error = ask(options(&format!("https://127.0.0.1:{port}/v1"))).await.1.unwrap();
    assert_eq!(error.class, FailureClass::Network);
    assert!(error.message.contains("safely") && error.message.contains("http://"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let server = serve(vec![Act::Stall]).await;
    let mut options = options(&server.url);
    options.limits.first_byte_ms = SHORT_MS;
    let error = ask(options).await.1.unwrap();
    assert_eq!(error.class, FailureClass::Timeout);
    assert!(error.message.contains("did not begin") && error.message.contains("model_first_part"), "{error}");
    server.asked.await.expect("the connection is closed, so the server ends");
}

#[tokio::test]
async fn an_answer_that_stops_coming_is_given_up() {
    let server = serve(vec![send(STREAM), send(HALF), send(USAGE), Act::Stall]).await;
    let mut options = options(&server.url);
    options.limits.idle_ms = SHORT_MS;
    let (parts, error) = ask(options).await;
    let error = error.unwrap();
    assert_eq!((error.class, parts.len()), (FailureClass::Timeout, 3));
    assert_eq!(error.usage.map(|usage| usage.input), Some(9), "paid is paid");
    assert!(error.message.contains("model_idle"), "{error}");
}

#[tokio::test]
async fn an_answer_that_failed_is_not_waited_for() {
    let failed =
        "data: {\"type\":\"error\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"No.\"}}\n\n";
    let server = serve(vec![send(STREAM), send(failed), Act::Stall]).await;
    let limits = Limits { idle_ms: SHORT_MS, ..options(&server.url).limits };
    let model = openai_responses(openai_responses::Options {
        limits,
        connections: Connections::new(LONG_MS, None),
        ..openai_responses::Options::new(&server.url, "test-model")
    });
    let (_, error) = timeout(WITHIN, play(&model.unwrap(), asked())).await.unwrap();
    assert_eq!(error.unwrap().class, FailureClass::RateLimited, "not that nothing more came");
}

#[tokio::test]
async fn an_answer_is_whole_when_nothing_but_its_cost_is_missing() {
    let server = serve(vec![send(STREAM), send(HALF), send(END), Act::Stall]).await;
    let mut options = options(&server.url);
    options.limits.idle_ms = SHORT_MS;
    let (parts, error) = ask(options).await;
    assert_eq!(error, None);
    assert_eq!(text_of(&collect(parts).unwrap().items), "Half");
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_has_one_limit_for_all_of_it() {
    let head = STREAM.replace("text/event-stream", "application/json");
    let server = serve(vec![send(head), send("{\"choices\":"), Act::Stall]).await;
    let mut options = Options { stream: false, ..options(&server.url) };
    options.limits.whole_answer_ms = SHORT_MS;
    let (parts, error) = ask(options).await;
    assert_eq!((parts.len(), error.unwrap().class), (0, FailureClass::Timeout));
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up() {
    // TLS is part of the connection: this server never answers the greeting.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(&format!("https://{}/v1", listener.local_addr().unwrap()));
    options.connections = Connections::new(SHORT_MS, None);
    let error = ask(options).await.1.unwrap();
    assert_eq!(error.class, FailureClass::Timeout, "{error}");
    assert!(error.message.contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn cancelling_ends_an_attempt_at_once_and_closes_the_connection() {
    for acts in [vec![Act::Stall], vec![send(STREAM), send(HALF), Act::Stall]] {
        let server = serve(acts).await;
        let model = openai_chat(options(&server.url)).unwrap();
        let call = asked();
        let cancel = call.cancel.clone();
        let attempt = tokio::spawn(async move { play(&model, call).await });
        tokio::task::yield_now().await;
        cancel.cancel();
        let (parts, error) = timeout(WITHIN, attempt).await.unwrap().unwrap();
        assert_eq!(error, None);
        assert!(!parts.iter().any(|part| matches!(part, Part::Finished { .. })));
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let server = serve(vec![send(STREAM), send(HALF), Act::Stall]).await;
    let model = openai_chat(options(&server.url)).unwrap();
    let stream = model.call(asked()).await.unwrap();
    drop(stream);
    timeout(WITHIN, server.asked).await.unwrap().expect("the server ends");
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_sent() {
    let refusal = |options: Options| {
        let error = openai_chat(options).err().expect("the options were to be refused");
        assert_eq!(error.class, FailureClass::InvalidRequest);
        assert!(!error.message.contains(KEY), "{error}");
        error.message
    };
    assert!(refusal(options("localhost:8080/v1")).contains("neither http:// nor https://"));
    assert!(refusal(options("http://a b/v1")).contains("base URL"));
    assert!(refusal(options(&format!("//user:{KEY}@host/?key={KEY}"))).contains("base URL"));
    let key = Some(Secret::new(format!("{KEY}\n{KEY}")));
    assert!(refusal(Options { key, ..options("http://localhost/v1") }).contains("line break"));
    let headers = vec![("a b".to_owned(), Secret::new(KEY))];
    assert!(refusal(Options { headers, ..options("http://localhost/v1") }).contains("\"a b\""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let connections = Connections::new(LONG_MS, Some(path.clone()));
    let missing = Options { connections, ..options("https://localhost/v1") };
    assert!(refusal(missing.clone()).contains("ca.pem"));
    std::fs::write(path, "no certificate").unwrap();
    assert!(refusal(missing).contains("PEM"));
}

#[tokio::test]
async fn models_that_share_connections_ask_over_the_same_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options(&format!("http://{}/v1", listener.local_addr().unwrap()));
    // Accepts once: a second connection would wait for ever.
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let body = r#"{"choices":[{"message":{"content":"All"},"finish_reason":"stop"}]}"#;
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        for _ in 0..2 {
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for model in ["one", "other"] {
        let (parts, error) = ask(Options { model: model.to_owned(), ..options.clone() }).await;
        assert_eq!(error, None);
        assert_eq!(text_of(&collect(parts).unwrap().items), "All");
    }
}

#[test]
fn a_client_says_whom_it_asks() {
    let identity = openai_chat(options("http://Localhost:8080/v1")).unwrap().identity();
    assert_eq!((identity.provider.as_str(), identity.model.as_str()), ("localhost:8080", "test-model"));
    assert!(!identity.scripted);
}
