//! A session of 20,000 entries opens, shows its end and goes on within a second of processor time, two on Postgres;
//! on a machine that reads more slowly, in as many times more as it takes to verify them.

use std::process::Command;

use longhaul_session::agent::Configuration;
use longhaul_session::command::{Basis, Command as Ask, First, OwnerAction, Ran, Step};
use longhaul_session::decide::decide;
use longhaul_session::entry::{CallFact, Entry, Measured, Mode, Place, Timing};
use longhaul_session::id::{CallId, Digest, SessionId, Timestamp, WorkerId};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::log::seal;
use longhaul_session::state::SessionState;
use longhaul_session::usage::{Spend, Usage};
use longhaul_store::Row;
use longhaul_test_postgres::is_chosen;
use uuid::Uuid;

use crate::world::World;

const ENTRIES: u64 = 20_000;
/// Steps of which each is two entries, as the script below counts them.
const STEPS: u64 = 9_998;

#[test]
fn twenty_thousand_entries_open_and_go_on_within_a_second() {
    let world = World::new();
    let script = format!(
        "[[turn]]\n[[turn.step]]\nrepeat = {STEPS}\ntext = \"{{n}}\"\n[[turn.step.call]]\ntool = \"glob\"\n\
         [[turn.step]]\nusage = {{ input = 9 }}\ntext = \"that was all\"\n"
    );
    world.write("script.toml", &script);
    write_log(&world);
    // It looks at every entry, and has nothing to do with how a session is opened.
    let (output, verified_ms) = timed(&world, r#"longhaul "$@" verify"#);
    assert!(output.contains("ok,"), "{output}");
    let all = r#"longhaul "$@" show && longhaul "$@" log --tail 5 && longhaul "$@" resume"#;
    let (output, used_ms) = timed(&world, all);
    assert!(output.contains("20000 entries"), "{output}");
    assert!(output.contains("that was all"), "{output}");
    println!("show, log --tail and resume of {ENTRIES} entries: {used_ms} ms of processor time");
    println!("verify of the same: {verified_ms} ms");
    // What comes over a connection is unpacked once more. The second number is what verifying takes where the
    // first holds.
    let (held_ms, verified_there_ms) = if is_chosen() { (2_000, 250) } else { (1_000, 160) };
    let most_ms = held_ms.max(held_ms * verified_ms / verified_there_ms);
    assert!(used_ms < most_ms, "{used_ms} ms of processor time");
    world.succeed(&["verify"]);
}

/// Runs commands of the shell with the program. Returns what they print and the processor time they take.
fn timed(world: &World, commands: &str) -> (String, u64) {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_longhaul"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{commands} && times"), "sh"]).env("PATH", path).current_dir(world.root());
    world.kept.tell(&mut shell);
    let output = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    let used_ms = processor_ms(output.lines().last().unwrap());
    (output, used_ms)
}

/// Reads what the shell says of its children: user and system time as `0m0.12s 0m0.03s`.
fn processor_ms(line: &str) -> u64 {
    let one = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60_000.0 + seconds.parse::<f64>().unwrap() * 1_000.0
    };
    line.split_whitespace().map(one).sum::<f64>().round() as u64
}

/// Writes the log of a turn in the middle, as a worker would have, in one transaction.
fn write_log(world: &World) {
    let mut session = Writer::default();
    let configuration = configuration(world);
    let first = First::Message("go on for long".into());
    session.ask(Ask::Create { configuration, ephemeral: false, name: None, mode: Mode::Default, first });
    let worker = WorkerId(Uuid::from_u128(7));
    session.ask(Ask::Acquire { worker, lost: None, estimate: Usage::default() });
    session.own(OwnerAction::Prepare { system: "You are tested.".to_owned(), tools: Vec::new() });
    // Created, message, acquired, prepared; then the steps; then released.
    for n in 1..=(ENTRIES - 5) / 2 {
        session.step(n);
    }
    session.own(OwnerAction::Release { not_started: Vec::new() });
    while session.state.head < ENTRIES {
        session.ask(Ask::Rename { name: Some("long".to_owned()) });
    }
    let entries = seal(Digest::default(), &session.entries);
    let row = session.row(entries.last().unwrap().hash, world.kept.place());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = world.kept.open().await;
        store.create(row, entries, None).await.unwrap();
        store.close().await.unwrap();
    });
}

fn configuration(world: &World) -> Box<Configuration> {
    let text = serde_json::json!({
        "agent": "default",
        "model": { "provider": "scripted", "name": world.path("script.toml") },
        "directory": world.path("work"),
        "limits": { "max_steps": 1_000_000, "compact_above_tokens": 1_000_000_000_u64 },
    });
    Box::new(serde_json::from_value(text).unwrap())
}

/// Decides commands one after the other.
#[derive(Default)]
struct Writer {
    state: SessionState,
    entries: Vec<Entry>,
}

impl Writer {
    fn ask(&mut self, command: Ask) {
        let now = Timestamp(1_800_000_000_000).plus_ms(self.state.head);
        let decision = decide(&self.state, command, now).unwrap();
        self.state = decision.state;
        self.entries.extend(decision.entries);
    }

    fn own(&mut self, action: OwnerAction) {
        self.ask(Ask::Owned { epoch: 1, action });
    }

    fn commit(&mut self, step: Step) {
        let basis = Basis { history_at: self.state.history_at, attempt: 0 };
        let usage = Usage { input: 10, output: 1, ..Usage::default() };
        let spend = Spend { usage, active_ms: 1, ..Spend::default() };
        self.own(OwnerAction::CommitStep { basis, step: Box::new(step), spend });
    }

    /// One call of the model and its result.
    fn step(&mut self, n: u64) {
        let (id, name) = (CallId(format!("call_{n}")), "glob".to_owned());
        let digest = Digest::of(&n.to_le_bytes());
        let call = ToolCall { id: id.clone(), name: name.clone(), arguments: "{}".to_owned(), opaque: None };
        let fact = CallFact {
            id: id.clone(),
            tool: name,
            place: Place::Local,
            effect: EffectClass::Pure,
            exclusive: false,
            stop_after: false,
            digest,
        };
        self.commit(Step::Model {
            items: vec![Item::Assistant { text: n.to_string(), partial: false }, Item::ToolCall(call)],
            calls: vec![fact],
            finish: "tool_calls".to_owned(),
            response_id: None,
            measured: Measured { input_tokens: 10, items: 2 * n, bytes: 20 * n, ..Measured::default() },
            timing: Timing::default(),
        });
        let result = ToolResult {
            call: id,
            outcome: Outcome::Ok,
            output: format!("nothing was found in place {n}"),
            files: Vec::new(),
            artifact: None,
        };
        let now = Timestamp(1_800_000_000_000);
        self.commit(Step::Tools { results: vec![Ran { result, ran: Some((now, now)) }], goal: None });
    }

    fn row(&self, head_hash: Digest, place: String) -> Row {
        let state = &self.state;
        Row {
            session: SessionId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
            head: state.head,
            head_hash,
            state: serde_json::to_vec(state).unwrap(),
            status: state.status.name().to_owned(),
            archived: false,
            name: state.name.clone(),
            claimable_at: state.claimable_at(),
            owner: None,
            epoch: state.epoch,
            place,
            parent: None,
            labels: std::collections::BTreeMap::new(),
            created: Timestamp(1_800_000_000_000),
            updated: Timestamp(1_800_000_000_000),
        }
    }
}
