//! Answers that a provider makes in the background, and conversations that it keeps: what becomes of them
//! when a worker dies, is told to stop or is interrupted, and when the provider has lost them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::endpoint::document;
use crate::world::{Running, World, until};

/// How long a reader of a stream waits for what is to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an answer says.
const PIECES: [&str; 3] = ["The work ", "is done, ", "all of it."];
const WHOLE: &str = "The work is done, all of it.";
/// The events of an answer that are sent while it is held: it began, and its first piece.
const HELD_EVENTS: usize = 2;

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// A server of Responses that makes answers by itself, whoever listens. It stops when it is dropped.
struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The bodies that answers were asked for with; each was paid.
    created: Vec<Value>,
    /// The first lines of the other requests.
    asked: Vec<String>,
    cancelled: Vec<String>,
    /// Answers come to an end.
    goes_on: bool,
    /// Nothing that was made before is known any more.
    lost: bool,
    /// So many requests for an answer that was made before are cut off.
    cut_off: u32,
    /// The next answer breaks off behind what is sent while it is held.
    breaks: bool,
    stopped: bool,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if served.lock().stopped {
                    return;
                }
                let served = Arc::clone(&served);
                // A client that goes away in the middle is its own affair.
                std::thread::spawn(move || connection.and_then(|it| served.serve(it)).ok());
            }
        });
        Provider { address, shared }
    }

    /// A world whose manifest names this server.
    fn world(&self, of_model: &str) -> World {
        let world = World::new();
        let manifest = format!(
            "[model]\nprovider = \"openai-responses\"\nname = \"test\"\nbase_url = \"http://{}/v1\"\n{of_model}\n\
             [agent]\ndirectory = \"work\"\n",
            self.address
        );
        world.write("longhaul.toml", &manifest);
        world
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }

    fn created(&self) -> Vec<Value> {
        self.shared.lock().created.clone()
    }

    fn cancelled(&self) -> Vec<String> {
        self.shared.lock().cancelled.clone()
    }

    fn asked(&self) -> Vec<String> {
        self.shared.lock().asked.clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.set(|state| state.stopped = true);
        // It wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let (line, body) = read_request(&mut connection)?;
        let (method, target) = line.split_once(' ').unwrap();
        let target = target.trim_end_matches(" HTTP/1.1").trim_start_matches("/v1/responses");
        if method == "POST" && target.is_empty() {
            return self.create(&mut connection, serde_json::from_str(&body).unwrap());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut state = self.lock();
        state.asked.push(format!("{method} {target}"));
        if state.cut_off > 0 {
            state.cut_off -= 1;
            return Ok(());
        }
        let id = path.trim_start_matches('/').trim_end_matches("/cancel").to_owned();
        let known = (1..=state.created.len()).any(|number| id == format!("resp_{number}"));
        if !known || state.lost {
            let message = format!("Response with id '{id}' not found.");
            let error = json!({ "error": { "message": message, "type": "invalid_request_error" } });
            return connection.write_all(&answer_of("404 Not Found", &error));
        }
        if path.ends_with("/cancel") {
            state.cancelled.push(id.clone());
            self.changed.notify_all();
            return connection.write_all(&answer_of("200 OK", &response(&id, "cancelled")));
        }
        drop(state);
        let after = query.split('&').find_map(|it| it.strip_prefix("starting_after="));
        let from = after.map_or(0, |after| after.parse::<usize>().unwrap() + 1);
        self.stream(&mut connection, &id, from)
    }

    fn create(&self, connection: &mut TcpStream, body: Value) -> std::io::Result<()> {
        let mut state = self.lock();
        if state.lost && body.get("previous_response_id").is_some() {
            let message = "Previous response with id 'resp_1' not found.";
            let error = json!({ "error": { "message": message, "code": "previous_response_not_found" } });
            return connection.write_all(&answer_of("400 Bad Request", &error));
        }
        state.created.push(body);
        // What is made now is known.
        state.lost = false;
        let id = format!("resp_{}", state.created.len());
        let breaks = std::mem::take(&mut state.breaks);
        drop(state);
        if breaks {
            let begun: String =
                events(&id).iter().take(HELD_EVENTS).map(|event| format!("data: {event}\n\n")).collect();
            return connection.write_all((STREAM_HEAD.to_owned() + &begun).as_bytes());
        }
        self.stream(connection, &id, 0)
    }

    /// Sends the events of an answer from one on, as they are made.
    fn stream(&self, connection: &mut TcpStream, id: &str, mut from: usize) -> std::io::Result<()> {
        connection.write_all(STREAM_HEAD.as_bytes())?;
        let events = events(id);
        loop {
            let state = self.lock();
            let cancelled = state.cancelled.iter().any(|it| it == id);
            let made = if state.goes_on && !cancelled { events.len() } else { HELD_EVENTS };
            if state.stopped {
                return Ok(());
            }
            if made <= from && !cancelled {
                drop(self.changed.wait_timeout(state, PATIENCE).unwrap());
                continue;
            }
            drop(state);
            for event in events.iter().take(made).skip(from) {
                connection.write_all(format!("data: {event}\n\n").as_bytes())?;
            }
            if cancelled || made == events.len() {
                return Ok(());
            }
            from = made;
        }
    }
}

fn answer_of(status: &str, body: &Value) -> Vec<u8> {
    document(status, "Content-Type: application/json\r\n", &body.to_string())
}

/// The events of an answer: it begins, its pieces, its end.
fn events(id: &str) -> Vec<Value> {
    let mut events = vec![json!({ "type": "response.created", "response": response(id, "in_progress") })];
    let delta =
        |text: &str| json!({ "type": "response.output_text.delta", "output_index": 0, "delta": text });
    events.extend(PIECES.map(delta));
    events.push(json!({ "type": "response.completed", "response": response(id, "completed") }));
    for (number, event) in (0_u64..).zip(&mut events) {
        event["sequence_number"] = json!(number);
    }
    events
}

fn response(id: &str, status: &str) -> Value {
    let mut response = json!({ "id": id, "object": "response", "status": status, "output": [] });
    if status == "completed" {
        let content = json!([{ "type": "output_text", "text": WHOLE }]);
        response["output"] = json!([{ "type": "message", "role": "assistant", "content": content }]);
        response["usage"] = json!({ "input_tokens": 100, "output_tokens": 20, "total_tokens": 120 });
    }
    response
}

/// Reads a request: its first line and its body.
fn read_request(connection: &mut TcpStream) -> std::io::Result<(String, String)> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok((text.lines().next().unwrap().to_owned(), body.to_owned()));
            }
        }
        let mut buffer = [0; 16 * 1024];
        match connection.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => read.extend(&buffer[..more]),
        }
    }
}

fn begin(world: &World) {
    world.succeed(&["run", "--detach", "Do the work."]);
}

fn worker(world: &World) -> Running {
    world.start(&["--json", "worker", "--grace", "0s"])
}

/// Starts a worker and waits until the answer it asked for is named in the log.
fn worker_in_an_answer(world: &World) -> Running {
    let worker = worker(world);
    until("the answer is named", || world.kinds("@last").iter().any(|kind| kind == "response_started"));
    worker
}

/// Lets a worker drive the session until it rests.
fn drive(world: &World) {
    world.succeed(&["worker", "--until-idle"]);
}

fn facts_of(world: &World, kind: &str) -> Vec<Value> {
    let facts = world.log("@last").into_iter().map(|entry| entry["record"]["fact"].clone());
    facts.filter(|fact| fact["kind"] == kind).collect()
}

/// Checks that the session has one whole answer, which was counted once.
fn is_answered_once(world: &World) {
    let log = world.log("@last");
    let steps: Vec<&Value> =
        log.iter().filter(|entry| entry["record"]["fact"]["kind"] == "model_step").collect();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["content"]["items"][0]["text"], WHOLE, "{}", steps[0]);
    let shown = world.show("@last");
    assert_eq!(shown["status"], "waiting", "{shown}");
    assert_eq!(shown["ledger"]["measured"], json!({ "input": 100, "output": 20 }));
    world.succeed(&["verify", "--all"]);
}

fn no_estimate(world: &World) {
    let estimated = world.show("@last")["ledger"]["estimated"].clone();
    assert!(estimated.get("input").is_none_or(|input| input == 0), "{estimated}");
}

#[test]
fn an_answer_outlives_the_worker_that_asked_for_it() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    worker_in_an_answer(&world).kill();
    world.until_all_are_dead();
    provider.set(|state| state.goes_on = true);
    drive(&world);
    is_answered_once(&world);
    no_estimate(&world);
    let created = provider.created();
    assert_eq!(created.len(), 1);
    assert_eq!((&created[0]["background"], &created[0]["stream"]), (&json!(true), &json!(true)));
    assert_eq!(provider.asked(), ["GET /resp_1?stream=true"]);
    assert_eq!(facts_of(&world, "response_started").len(), 1);
    assert_eq!(facts_of(&world, "acquired").iter().filter(|fact| fact["lost"] == true).count(), 1);
}

#[test]
fn without_being_asked_to_no_answer_is_made_in_the_background() {
    let provider = Provider::start();
    let world = provider.world("");
    begin(&world);
    let mut dying = worker(&world);
    until("it asks", || provider.created().len() == 1);
    dying.wait_for("claimed");
    dying.kill();
    world.until_all_are_dead();
    provider.set(|state| state.goes_on = true);
    drive(&world);
    is_answered_once(&world);
    assert_eq!(provider.created().len(), 2);
    assert_eq!(provider.created()[0].get("background"), None);
    assert_eq!(facts_of(&world, "response_started"), Vec::<Value>::new());
}

#[test]
fn a_worker_that_is_told_to_stop_leaves_the_answer_to_the_next() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    let stopped = worker_in_an_answer(&world);
    stopped.signal(Signal::TERM);
    assert_eq!(stopped.finish().code, 0);
    assert_eq!(provider.cancelled(), Vec::<String>::new());
    provider.set(|state| state.goes_on = true);
    drive(&world);
    is_answered_once(&world);
    assert_eq!(provider.created().len(), 1);
}

#[test]
fn an_interrupt_ends_the_answer_at_its_provider() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    let working = worker_in_an_answer(&world);
    world.run(&["interrupt", "@last"]);
    until("the session rests", || world.show("@last")["status"] == "waiting");
    assert_eq!(provider.cancelled(), ["resp_1"]);
    working.signal(Signal::TERM);
    assert_eq!(working.finish().code, 0);
    assert_eq!(facts_of(&world, "interrupted").len(), 1);
    world.succeed(&["verify", "--all"]);
}

#[test]
fn an_interrupt_ends_the_answer_of_a_worker_that_is_dead() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    worker_in_an_answer(&world).kill();
    world.until_all_are_dead();
    world.run(&["interrupt", "@last"]);
    assert_eq!(world.show("@last")["status"], "waiting");
    assert_eq!((provider.created().len(), provider.cancelled()), (1, vec!["resp_1".to_owned()]));
}

#[test]
fn an_edit_ends_the_answer_and_asks_for_another() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    let working = worker_in_an_answer(&world);
    world.succeed(&["edit", "@last", "--detach", "Do other work."]);
    until("it asks anew", || provider.created().len() == 2);
    until("it is cancelled", || provider.cancelled() == ["resp_1"]);
    provider.set(|state| state.goes_on = true);
    until("the session rests", || world.show("@last")["status"] == "waiting");
    working.signal(Signal::TERM);
    assert_eq!(working.finish().code, 0);
    is_answered_once(&world);
    assert!(provider.created()[1].to_string().contains("Do other work."));
}

#[test]
fn an_answer_that_the_provider_has_lost_is_made_again() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    worker_in_an_answer(&world).kill();
    world.until_all_are_dead();
    provider.set(|state| {
        state.lost = true;
        state.goes_on = true;
    });
    drive(&world);
    is_answered_once(&world);
    assert_eq!(provider.created().len(), 2);
    let retries = facts_of(&world, "retry");
    assert_eq!(retries.len(), 1);
    assert_eq!(retries[0]["failure"]["class"], "chain_broken", "{retries:?}");
    assert_eq!(retries[0]["retry"]["not_before"], retries[0]["retry"]["since"], "it is made at once");
    let named: Vec<Value> =
        facts_of(&world, "response_started").iter().map(|fact| fact["response_id"].clone()).collect();
    assert_eq!(named, [json!("resp_1"), json!("resp_2")]);
}

#[test]
fn a_network_that_fails_does_not_lose_an_answer() {
    let provider = Provider::start();
    let world = provider.world("resumable = true");
    begin(&world);
    worker_in_an_answer(&world).kill();
    world.until_all_are_dead();
    provider.set(|state| {
        state.cut_off = 1;
        state.goes_on = true;
    });
    drive(&world);
    is_answered_once(&world);
    assert_eq!((provider.created().len(), provider.cancelled()), (1, Vec::new()));
    let retries = facts_of(&world, "retry");
    assert_eq!(retries.len(), 1);
    assert_eq!(retries[0]["failure"]["class"], "network", "{retries:?}");
}

#[test]
fn a_provider_that_keeps_the_conversation_is_sent_what_is_new() {
    let provider = Provider::start();
    provider.set(|state| state.goes_on = true);
    let world = provider.world("chain = true");
    world.succeed(&["run", "Do the work."]);
    world.succeed(&["send", "@last", "Thanks."]);
    provider.set(|state| state.lost = true);
    world.succeed(&["send", "@last", "Bye."]);
    let created = provider.created();
    assert_eq!(created.len(), 3);
    let inputs: Vec<usize> = created.iter().map(|body| body["input"].as_array().unwrap().len()).collect();
    assert_eq!(inputs, [1, 1, 5]);
    let previous: Vec<Option<&str>> =
        created.iter().map(|body| body.get("previous_response_id")?.as_str()).collect();
    assert_eq!(previous, [None, Some("resp_1"), None]);
    assert!(created.iter().all(|body| body["store"] == true && body.get("background").is_none()));
    let retries = facts_of(&world, "retry");
    assert_eq!(retries.len(), 1);
    assert_eq!(retries[0]["failure"]["class"], "chain_broken");
    assert_eq!(retries[0]["retry"]["not_before"], retries[0]["retry"]["since"]);
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_conversation_that_is_not_to_be_kept_is_sent_whole() {
    let provider = Provider::start();
    provider.set(|state| state.goes_on = true);
    let world = provider.world("");
    world.succeed(&["run", "Do the work."]);
    world.succeed(&["send", "@last", "Thanks."]);
    let second = &provider.created()[1];
    assert_eq!((second.get("previous_response_id"), &second["store"]), (None, &json!(false)));
    assert_eq!(second["input"].as_array().unwrap().len(), 3);
}

#[test]
fn an_answer_that_was_picked_up_is_recorded_and_picked_up_again_from_the_recording() {
    let provider = Provider::start();
    provider.set(|state| (state.goes_on, state.breaks) = (true, true));
    let world = provider.world("resumable = true");
    let args = ["record", "run.jsonl", "--", "--json", "run", "Do the work."];
    let ran = world.run(&args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "2 requests recorded in run.jsonl\n"), "{}", ran.stdout);
    assert_eq!(provider.asked(), ["GET /resp_1?stream=true&starting_after=1"]);
    is_answered_once(&world);
    let ran = world.run(&["replay", "run.jsonl"]);
    let told = "2 requests answered as recorded in run.jsonl\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (0, told), "{}", ran.stdout);
    assert_eq!((provider.created().len(), provider.asked().len()), (1, 1), "nobody was asked again");
    is_answered_once(&world);
}
