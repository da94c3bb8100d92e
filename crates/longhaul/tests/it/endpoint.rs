//! A server of Chat Completions that misbehaves as real ones do, and what becomes of a run that meets three
//! of its misbehaviours before it is answered. Ordinary conversations are left to `provider`.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::world::{Ran, Running, World};

/// The key every run has. Only who knows it can tell that it is one.
pub(crate) const KEY: &str = "endpoint-9f27c1d04b6e8a35";
/// The variable it is in.
pub(crate) const KEY_VARIABLE: &str = "ENDPOINT_KEY";
/// What the server says when it behaves.
pub(crate) const GOOD: &str = "The work is done, all of it.";
/// What it says before an answer is cut off.
pub(crate) const HALF: &str = "The work is half ";

/// How long the server waits for a client that says nothing.
const PATIENCE: Duration = Duration::from_secs(120);
/// The largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Runs at the same time: nearly all the time they wait to try again.
const PARALLEL: usize = 24;
/// How long a run waits for an answer to begin, in seconds. Where a machine is so busy that even a good one takes
/// longer, the run is made again with the next.
const FIRST_PART_S: [u32; 4] = [4, 16, 64, 256];

/// An address at which nobody listens. As long as this lives, nobody else can.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _held: TcpSocket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let held = TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Nobody { address: held.local_addr().unwrap(), _held: held }
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends these bytes and closes the connection.
    Send(Vec<u8>),
    /// Sends these bytes and then nothing, until the client goes away or is let go.
    Hold(Vec<u8>),
    /// Resets the connection without a word.
    Reset,
}

impl Act {
    /// Answers with a status and a body in JSON.
    pub(crate) fn json(status: &str, headers: &str, body: &Value) -> Act {
        Act::Send(document(
            status,
            &format!("Content-Type: application/json\r\n{headers}"),
            &body.to_string(),
        ))
    }

    /// Streams a text.
    pub(crate) fn say(text: &str) -> Act {
        Act::Send(stream(&[json!({ "role": "assistant" }), json!({ "content": text })], "stop"))
    }

    /// Streams calls: id, tool and arguments of each.
    pub(crate) fn call(calls: &[(&str, &str, Value)]) -> Act {
        let mut deltas = vec![json!({ "role": "assistant", "content": null })];
        for (index, (id, tool, arguments)) in calls.iter().enumerate() {
            let function = json!({ "name": tool, "arguments": "" });
            let begun = json!({ "index": index, "id": id, "type": "function", "function": function });
            deltas.push(json!({ "tool_calls": [begun] }));
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            for piece in [first, second] {
                let more = json!({ "index": index, "function": { "arguments": piece } });
                deltas.push(json!({ "tool_calls": [more] }));
            }
        }
        Act::Send(stream(&deltas, "tool_calls"))
    }
}

/// What an answer that succeeds is said to have cost.
pub(crate) fn good_usage() -> Value {
    json!({ "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120 })
}

/// Writes an answer of one piece.
pub(crate) fn document(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into()
}

/// Writes the beginning of a stream that ends only with its last chunk.
pub(crate) fn half_stream() -> Vec<u8> {
    let usage = json!({ "prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42 });
    let choice = json!({ "index": 0, "delta": { "content": HALF }, "finish_reason": null });
    let chunk = json!({ "id": "chatcmpl-1", "choices": [choice], "usage": usage });
    let event = format!("data: {chunk}\n\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{event}\r\n", event.len()).into()
}

fn stream(deltas: &[Value], finish: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let mut text = head.to_owned();
    let mut chunk = |choices: Value, usage: Value| {
        let chunk = json!({ "id": "chatcmpl-1", "model": "test", "choices": choices, "usage": usage });
        text.push_str(&format!("data: {chunk}\n\n"));
    };
    for delta in deltas {
        chunk(json!([{ "index": 0, "delta": delta, "finish_reason": null }]), Value::Null);
    }
    chunk(json!([{ "index": 0, "delta": {}, "finish_reason": finish }]), Value::Null);
    chunk(json!([]), good_usage());
    text.push_str("data: [DONE]\n\n");
    text.into()
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request_line: String,
    /// By their names in small letters.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    asked: Instant,
    answered: Option<Instant>,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn messages(&self) -> Vec<Value> {
        self.json()["messages"].as_array().unwrap().clone()
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

/// A server that does one thing after the other, one for each request. It stops when it is dropped.
pub(crate) struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    acts: Vec<Act>,
    asked: Mutex<Vec<Asked>>,
    held: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Endpoint {
    /// Starts it on a free port. More requests than there are acts are refused as mistakes.
    pub(crate) fn start(acts: impl Into<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            acts: acts.into(),
            asked: Mutex::default(),
            held: Mutex::default(),
            stopped: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let served = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if served.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let served = Arc::clone(&served);
                // A client that goes away in the middle is its own affair.
                std::thread::spawn(move || connection.and_then(|it| served.serve(it)).ok());
            }
        });
        Endpoint { address, shared, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Closes the connections that are held.
    pub(crate) fn let_go(&self) {
        for held in self.shared.held.lock().unwrap().drain(..) {
            // It fails where the client has gone away.
            held.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.let_go();
        // It wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

impl Shared {
    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_nodelay(true)?;
        let asked = read_request(&mut connection)?;
        let has_body = !asked.body.is_empty();
        let number = {
            let mut all = self.asked.lock().unwrap();
            all.push(asked);
            all.len() - 1
        };
        let unexpected =
            || Act::json("400 Bad Request", "", &json!({ "error": { "message": "not expected" } }));
        let act = self.acts.get(number).cloned().unwrap_or_else(unexpected);
        // A connection that is closed with something unread is reset.
        if has_body && !matches!(act, Act::Reset) {
            connection.read_exact(&mut [0])?;
        }
        self.asked.lock().unwrap()[number].answered = Some(now());
        match act {
            Act::Send(bytes) => connection.write_all(&bytes),
            Act::Hold(bytes) => {
                self.held.lock().unwrap().push(connection.try_clone()?);
                connection.write_all(&bytes)?;
                connection.read(&mut [0]).map(|_| ())
            }
            Act::Reset => Ok(()),
        }
    }
}

/// Reads a request but for the last byte of its body, which has come.
fn read_request(connection: &mut TcpStream) -> std::io::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let headers = rest.lines().filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> = headers.map(|(name, it)| (name.to_lowercase(), it.to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length.saturating_sub(1)];
    connection.read_exact(&mut body)?;
    if length > 0 {
        let mut last = [0];
        connection.peek(&mut last)?;
        body.extend(last);
    }
    Ok(Asked {
        request_line: first.to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
        asked: now(),
        answered: None,
    })
}

#[expect(clippy::disallowed_methods, reason = "the server measures how long a client really waits")]
fn now() -> Instant {
    Instant::now()
}

/// Parses what `--json` printed.
pub(crate) fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the facts of the entries among these lines.
pub(crate) fn facts(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["type"] == "entry").map(|line| &line["record"]["fact"]).collect()
}

/// Ways in which a server fails that a later try may find mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misbehaviour {
    RateLimit,
    ServerError,
    Overload,
    Hang,
    Reset,
    PageForAnswer,
    PageForError,
    Empty,
    Cut,
}

const ALL: [Misbehaviour; 9] = [
    Misbehaviour::RateLimit,
    Misbehaviour::ServerError,
    Misbehaviour::Overload,
    Misbehaviour::Hang,
    Misbehaviour::Reset,
    Misbehaviour::PageForAnswer,
    Misbehaviour::PageForError,
    Misbehaviour::Empty,
    Misbehaviour::Cut,
];

impl Misbehaviour {
    /// Some tell the key they were sent, as servers do that mean to be helpful.
    fn act(self) -> Act {
        let html = "Content-Type: text/html\r\n";
        let page = format!("<html><head><title>Proxy</title></head><body>Denied: {KEY}</body></html>");
        let error = |message: &str, kind: &str| json!({ "error": { "message": message, "type": kind } });
        match self {
            Misbehaviour::RateLimit => Act::json(
                "429 Too Many Requests",
                "Retry-After: 1\r\n",
                &error("Rate limit reached for requests", "requests"),
            ),
            Misbehaviour::ServerError => Act::json(
                "500 Internal Server Error",
                "",
                &error(&format!("cannot serve {KEY} now"), "server_error"),
            ),
            Misbehaviour::Overload => Act::json("529 ", "", &error("Overloaded", "overloaded_error")),
            Misbehaviour::Hang => Act::Hold(Vec::new()),
            Misbehaviour::Reset => Act::Reset,
            Misbehaviour::PageForAnswer => Act::Send(document("200 OK", html, &page)),
            Misbehaviour::PageForError => Act::Send(document("502 Bad Gateway", html, &page)),
            Misbehaviour::Empty => Act::Send(document("200 OK", "", "")),
            Misbehaviour::Cut => Act::Send(half_stream()),
        }
    }

    fn class(self) -> &'static str {
        match self {
            Misbehaviour::RateLimit => "rate_limited",
            Misbehaviour::ServerError | Misbehaviour::PageForAnswer | Misbehaviour::PageForError => "server",
            Misbehaviour::Overload => "overloaded",
            Misbehaviour::Hang => "timeout",
            Misbehaviour::Reset | Misbehaviour::Empty | Misbehaviour::Cut => "network",
        }
    }

    /// Returns the usage that the server reports all the same.
    fn usage(self) -> Value {
        if self == Misbehaviour::Cut { json!({ "input": 40, "output": 2 }) } else { json!({}) }
    }
}

type Order = [Misbehaviour; 3];

/// Returns orders of three misbehaviours: all 729, or 81 in which each pair stands once in each two places.
fn orders() -> Vec<Order> {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the tests chooses how thorough they are")]
    let all = std::env::var_os("LONGHAUL_ALL_ORDERS").is_some();
    let places = 0..ALL.len();
    let pairs = places.clone().flat_map(|first| places.clone().map(move |second| (first, second)));
    pairs
        .flat_map(|(first, second)| {
            let balanced = (first + second) % ALL.len();
            let thirds = if all { 0..ALL.len() } else { balanced..balanced + 1 };
            thirds.map(move |third| [ALL[first], ALL[second], ALL[third]])
        })
        .collect()
}

/// The normal run takes the 81 orders of a Latin square, as waiting takes most of the time; with
/// `LONGHAUL_ALL_ORDERS` set it takes all 729.
#[test]
fn three_misbehaviours_in_any_order_are_retried_until_the_answer_comes() {
    let world = World::new();
    for first_part_s in FIRST_PART_S {
        let manifest = format!(
            "[model]\nprovider = \"openai-chat\"\nname = \"test\"\nkey = {{ env = \"{KEY_VARIABLE}\" }}\n\
             [agent]\ndirectory = \"work\"\n[limits]\nmodel_first_part = \"{first_part_s}s\"\n"
        );
        world.write(&manifest_name(first_part_s), &manifest);
    }
    assert_eq!(world.succeed(&["--json", "ls"]), "");
    let (orders, next) = (orders(), AtomicUsize::new(0));
    let ledgers = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let session = meet(&world, order);
                    ledgers.lock().unwrap().insert(session, ledger(order));
                }
            });
        }
    });
    let ledgers = ledgers.into_inner().unwrap();
    assert_eq!(ledgers.len(), orders.len());
    for shown in lines(&world.succeed(&["--json", "ls", "--all", "--limit", "1000"])) {
        let session = shown["session"].as_str().unwrap();
        assert_eq!(shown["ledger"]["measured"], ledgers[session], "{session}");
        assert_eq!(shown["ledger"]["estimated"], json!({}), "{session}");
    }
    let verified = lines(&world.succeed(&["--json", "verify", "--all"]));
    assert_eq!(verified.iter().filter(|line| line["problems"] == json!([])).count(), orders.len());
    assert_eq!(world.kept.holding(KEY), Vec::<String>::new());
    assert!(!world.kept.holding(GOOD).is_empty(), "the files are not what is looked at");
}

fn ledger(order: &Order) -> Value {
    let cut = order.iter().filter(|it| **it == Misbehaviour::Cut).count();
    json!({ "input": 100 + 40 * cut, "output": 20 + 2 * cut })
}

fn manifest_name(first_part_s: u32) -> String {
    format!("within-{first_part_s}-s.toml")
}

/// Runs a session that meets these, and checks what it makes of them. Returns its id.
fn meet(world: &World, order: &Order) -> String {
    for first_part_s in FIRST_PART_S {
        let acts: Vec<Act> = order.iter().map(|it| it.act()).chain([Act::say(GOOD)]).collect();
        let endpoint = Endpoint::start(acts);
        let (url, manifest) = (endpoint.url(), manifest_name(first_part_s));
        let args = ["--json", "run", "--manifest", &manifest, "--base-url", &url, "Do the work."];
        let mut command = world.command(&args);
        command.env(KEY_VARIABLE, KEY);
        let ran = Running::start(command).finish();
        if is_too_late(order, &ran) {
            let session = lines(&ran.stdout).last().unwrap()["session"].as_str().unwrap().to_owned();
            world.succeed(&["delete", &session, "--yes"]);
            continue;
        }
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{order:?}: {}", ran.stdout);
        assert!(!ran.stdout.contains(KEY), "{order:?}: {}", ran.stdout);
        check_requests(order, &endpoint.asked());
        return check_output(order, &ran);
    }
    panic!("{order:?}: no answer began in {} s", FIRST_PART_S[FIRST_PART_S.len() - 1]);
}

/// Tells whether another answer began too late than those that never begin.
fn is_too_late(order: &Order, ran: &Ran) -> bool {
    let lines = lines(&ran.stdout);
    let late = facts(&lines).into_iter().filter(|fact| fact["failure"]["class"] == "timeout").count();
    late > order.iter().filter(|it| **it == Misbehaviour::Hang).count()
}

fn check_requests(order: &Order, asked: &[Asked]) {
    assert_eq!(asked.len(), 4, "{order:?}");
    let bearer = format!("Bearer {KEY}");
    for one in asked {
        assert_eq!(one.authorization(), Some(bearer.as_str()), "{order:?}");
        assert_eq!(one.body, asked[0].body, "{order:?}: each try asks the same");
    }
    for (at, misbehaviour) in order.iter().enumerate() {
        let waited = asked[at + 1].asked.duration_since(asked[at].answered.unwrap());
        // Two clocks are compared, one of which counts whole milliseconds.
        let respected = *misbehaviour != Misbehaviour::RateLimit || waited >= Duration::from_millis(990);
        assert!(respected, "{order:?}: it came back after {waited:?}, and was told to wait for a second");
    }
}

fn check_output(order: &Order, ran: &Ran) -> String {
    let lines = lines(&ran.stdout);
    let records: Vec<&Value> =
        lines.iter().filter(|line| line["type"] == "entry").map(|line| &line["record"]).collect();
    let of = |kind: &'static str| {
        records.iter().enumerate().filter(move |(_, record)| record["fact"]["kind"] == kind)
    };
    let retries: Vec<_> = of("retry").map(|(_, record)| record["fact"].clone()).collect();
    let expected: Vec<_> = order.iter().map(|it| it.class()).collect();
    for at in ["failure", "retry"] {
        let classes: Vec<_> = retries.iter().map(|retry| &retry[at]["class"]).collect();
        assert_eq!(classes, expected, "{order:?}: {}", ran.stdout);
    }
    for ((at, record), (number, misbehaviour)) in of("retry").zip(order.iter().enumerate()) {
        let fact = &record["fact"];
        assert_eq!(fact["attempt"], number + 1, "{order:?}");
        let spent = fact["charge"]["spend"].get("usage").cloned().unwrap_or(json!({}));
        assert_eq!(spent, misbehaviour.usage(), "{order:?}");
        let told_the_key = *misbehaviour == Misbehaviour::ServerError;
        let masked = fact["failure"]["message"].as_str().unwrap().contains("[masked]");
        assert!(masked || !told_the_key, "{order:?}: {fact}");
        let (not_before, next) = (&fact["retry"]["not_before"], &records[at + 1]["at"]);
        assert!(next.as_u64().unwrap() >= not_before.as_u64().unwrap(), "{order:?}: too early: {fact}");
    }
    let answers: Vec<_> = lines.iter().filter(|it| it["record"]["fact"]["kind"] == "model_step").collect();
    assert_eq!(answers.len(), 1, "{order:?}");
    assert_eq!(answers[0]["content"]["items"][0]["text"], GOOD, "{order:?}");
    assert_eq!(records.last().unwrap()["fact"]["kind"], "turn_finished", "{order:?}");
    check_previews(&lines);
    let result = lines.last().unwrap();
    assert_eq!((&result["type"], &result["exit"]), (&json!("result"), &json!(0)), "{order:?}");
    result["session"].as_str().unwrap().to_owned()
}

/// Checks that a reader who was shown half an answer was then told, once, that it never was; returns how
/// often. One who is slow is not shown it at all.
fn check_previews(lines: &[Value]) -> usize {
    let half = |line: &Value| line["type"] == "live" && line["part"].to_string().contains(HALF.trim());
    let mut shown = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| half(line)) {
        let reset = json!({ "type": "preview_reset", "episode": line["episode"] });
        let resets: Vec<_> = lines.iter().enumerate().filter(|(_, line)| **line == reset).collect();
        assert!(resets.len() == 1 && resets[0].0 > at, "{resets:?} of {line}");
        let next = |kind: &str| {
            at + lines[at..].iter().position(|line| line["record"]["fact"]["kind"] == kind).unwrap()
        };
        assert!(
            next("retry") < next("model_step") && resets[0].0 < next("model_step"),
            "it counted for too long: {lines:?}"
        );
        shown += 1;
    }
    shown
}

#[test]
fn half_an_answer_that_was_shown_is_taken_back() {
    let endpoint = Endpoint::start([Act::Hold(half_stream()), Act::say(GOOD)]);
    let world = World::new();
    let args = ["run", "--base-url", &endpoint.url(), "--model", "test", "--dir", "work", "Do the work."];
    let mut running = world.start(&[&["--json"], &args[..]].concat());
    running.wait_for(HALF.trim());
    endpoint.let_go();
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_eq!(check_previews(&lines(&ran.stdout)), 1, "{}", ran.stdout);
    assert_eq!(world.show("@last")["ledger"]["measured"], json!({ "input": 140, "output": 22 }));
}

#[test]
fn a_person_is_told_that_half_an_answer_does_not_count() {
    let endpoint = Endpoint::start([Act::Hold(half_stream()), Act::say(GOOD)]);
    let world = World::new();
    let args = ["run", "--base-url", &endpoint.url(), "--model", "test", "--dir", "work", "Do the work."];
    let mut running = world.start(&args);
    running.wait_for(HALF.trim());
    endpoint.let_go();
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let told = ran.stdout.split_once(HALF).unwrap().1;
    assert!(told.starts_with("\n  (that answer was cut off and does not count)\n  ↻ "), "{}", ran.stdout);
    assert!(told.contains(&format!("\n{GOOD}\n")), "{}", ran.stdout);
}
