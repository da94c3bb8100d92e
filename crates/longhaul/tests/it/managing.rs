//! The commands that manage sessions: edit, queue, clear, rename, archive, delete, redact, attach, answer.

use std::sync::Arc;

use longhaul_engine::{Engine, Models, NewSession, SystemHost};
use longhaul_model::Model;
use longhaul_session::agent::{Configuration, Limits, ModelChoice, ToolPermission, ToolSetting};
use longhaul_session::command::First;
use longhaul_session::entry::Mode;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::prompts::Prompts;

use longhaul_tools::toolbox::Toolbox;
use rustix::process::Signal;
use serde_json::Value;

use crate::plain::plain;
use crate::world::{Running, World, until_file_says};

/// Runs a command that must be refused without a word on standard output, and returns what it says.
pub(crate) fn refused(world: &World, args: &[&str]) -> String {
    let ran = world.run(args);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}: {}", ran.stderr);
    plain(world, &ran.stderr).trim_end().to_owned()
}

/// A tool that goes on until it is let go, and turns after it.
const HELD: &str = r#"
[[turn]]
[[turn.step]]
text = "This takes long."
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo up > up; while [ ! -e go ]; do sleep 0.05; done" }
[[turn.step]]
text = "The first turn."
[[turn]]
[[turn.step]]
text = "The second turn."
[[turn]]
[[turn.step]]
text = "The third turn."
[[turn]]
[[turn.step]]
text = "The fourth turn."
"#;

/// Three turns without tools.
const TALK: &str = r#"
[[turn]]
[[turn.step]]
text = "One."
[[turn]]
[[turn.step]]
text = "Two."
[[turn]]
[[turn.step]]
text = "Three."
"#;

/// Starts a session and waits until its tool runs.
fn start_held(world: &World) -> (String, Running) {
    let session = world.create(HELD, &[]);
    let running = world.start(&["resume", &session]);
    until_file_says(&world.work("up"), "up");
    (session, running)
}

fn let_go(world: &World) {
    std::fs::write(world.work("go"), "").unwrap();
}

/// Queues a message for the live worker and returns its entry.
fn queue(world: &World, session: &str, text: &str) -> String {
    world.succeed(&["send", session, text, "--detach"]);
    let log = world.log(session);
    let queued = log.iter().rfind(|entry| entry["record"]["fact"]["kind"] == "queued").unwrap();
    queued["record"]["n"].to_string()
}

/// Returns what the model sees of people's messages, in the order it sees them.
fn messages(world: &World, session: &str) -> Vec<String> {
    let shown = world.succeed(&["resume", session, "--after", "0"]);
    shown.lines().filter(|line| line.starts_with("› ")).map(str::to_owned).collect()
}

#[test]
fn the_newest_message_is_edited_unless_another_is_named() {
    let world = World::new();
    let session = world.create(TALK, &[]);
    world.succeed(&["resume", &session]);
    world.succeed(&["send", &session, "and?"]);
    let edited = world.succeed(&["edit", &session, "and what then?"]);
    assert!(edited.contains("Two.") && edited.contains("and what then?"), "{edited}");
    let log = world.succeed(&["log", &session]);
    let all = log.lines().filter(|line| line.contains("“go”") || line.contains("“and?”")).count();
    assert_eq!(all, 2, "the log keeps what was said: {log}");
    let first = world.succeed(&["edit", &session, "start over", "--entry", "2"]);
    assert!(first.contains("One."), "all that followed has left the context: {first}");
    world.succeed(&["verify", &session]);
    assert_eq!(messages(&world, &session).last().unwrap(), "› start over");
}

#[test]
fn what_cannot_be_edited_is_refused_with_what_to_do() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let queued = queue(&world, &session, "and then?");
    let said = refused(&world, &["edit", &session, "x", "--entry", &queued, "--detach"]);
    let expected = format!(
        "error: entry {queued} is a message that waits in the queue; remove it with `longhaul queue --drop {queued}` \
         and send another"
    );
    assert_eq!(said, expected);
    let_go(&world);
    assert_eq!(running.finish().code, 0);
    let no_message = |n: &str| {
        format!("error: entry {n} is not a message of yours in the present context; fork from it instead")
    };
    assert_eq!(refused(&world, &["edit", &session, "x", "--entry", "5"]), no_message("5"));
    assert_eq!(refused(&world, &["edit", &session, "x", "--entry", "99"]), no_message("99"));
    let said = refused(&world, &["edit", &session, " "]);
    assert_eq!(said, "error: there is nothing to say: the new message is empty");
    world.succeed(&["clear", &session]);
    assert_eq!(refused(&world, &["edit", &session, "x", "--entry", "2"]), no_message("2"));
    let said = refused(&world, &["edit", &session, "x"]);
    assert_eq!(said, "error: the model sees no message of yours that could be edited; send one instead");
    let head = world.show(&session)["head"].clone();
    assert_eq!(world.kinds(&session).len(), usize::try_from(head.as_u64().unwrap()).unwrap());
    assert_eq!(world.kinds(&session).last().unwrap(), "cleared", "nothing was changed");
}

#[test]
fn an_edit_stops_what_is_under_way_and_leaves_the_queue() {
    let world = World::new();
    let (session, running) = start_held(&world);
    queue(&world, &session, "later");
    world.succeed(&["edit", &session, "something else", "--detach"]);
    let_go(&world);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(messages(&world, &session), ["› go", "› later (queued)", "› something else", "› later"]);
    world.succeed(&["verify", &session]);
}

#[test]
fn queued_messages_are_listed_removed_and_let_go_first() {
    let world = World::new();
    let (session, running) = start_held(&world);
    assert_eq!(world.succeed(&["queue", &session]), "Nothing is queued.\n");
    let ids: Vec<String> = ["one", "two", "three"].iter().map(|text| queue(&world, &session, text)).collect();
    let listed = world.succeed(&["queue", &session]);
    let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [[ids[0].as_str(), "“one”"], [&ids[1], "“two”"], [&ids[2], "“three”"]]);
    let told = world.succeed(&["--json", "queue", &session]);
    let told: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!(told["items"][0]["text"], "one");
    let removed = world.succeed(&["queue", &session, "--drop", &ids[1]]);
    assert_eq!(plain(&world, &removed), "removed from the queue · session ID\n");
    assert_eq!(
        refused(&world, &["queue", &session, "--drop", &ids[1]]),
        format!("error: entry {} is not a queued message", ids[1])
    );
    refused(&world, &["queue", &session, "--promote", "2"]);
    // What runs is stopped for it: nobody lets the tool go.
    world.succeed(&["queue", &session, "--promote", &ids[2], "--detach"]);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let (three, one) = (ran.stdout.find("The second turn."), ran.stdout.find("The third turn."));
    assert!(three.is_some() && three < one, "{}", ran.stdout);
    assert_eq!(world.succeed(&["--json", "queue", &session]), "");
    let log = world.succeed(&["log", &session]);
    let next: Vec<&str> = log.lines().filter(|line| line.contains("then the message of")).collect();
    let third = format!("then the message of entry {}", ids[2]);
    let order = next.iter().map(|line| line.contains(&third)).collect::<Vec<_>>();
    assert_eq!(order, [true, false], "{log}");
    world.succeed(&["verify", &session]);
}

#[test]
fn after_a_clear_the_model_sees_nothing_of_before() {
    let world = World::new();
    let session = world.create(TALK, &[]);
    world.succeed(&["resume", &session]);
    let said = world.succeed(&["clear", &session]);
    assert_eq!(plain(&world, &said), "the model's context starts anew; the log keeps all · session ID\n");
    let sent = world.succeed(&["send", &session, "again"]);
    assert!(sent.contains("One."), "the script is at its first turn again: {sent}");
    assert!(world.succeed(&["log", &session]).contains("“go”"));
    world.succeed(&["verify", &session]);
    let (running_session, running) = start_held(&world);
    let said = refused(&world, &["clear", &running_session]);
    let expected = "error: this is not possible while the session is running: wait for it, queue a message, or interrupt it";
    assert_eq!(said, expected);
    let_go(&world);
    running.finish();
}

#[test]
fn a_session_is_found_by_its_new_name() {
    let world = World::new();
    let session = world.create(TALK, &["--name", "old"]);
    assert_eq!(plain(&world, &world.succeed(&["rename", "old", "new name"])), "renamed · session ID\n");
    assert_eq!(world.show("new name")["session"], session.as_str());
    assert!(refused(&world, &["show", "old"]).starts_with("error: there is no session \"old\""));
    let bad = "error: a name has 1 to 100 characters, and none of them is a control character";
    for name in ["", "two\nlines", &"x".repeat(101)] {
        assert_eq!(refused(&world, &["rename", &session, name]), bad, "{name:?}");
    }
    let at = refused(&world, &["rename", &session, "@last"]);
    assert_eq!(
        at,
        "error: a name does not begin with @: @last and its like are kept for the program; choose another"
    );
    assert_eq!(world.show(&session)["name"], "new name");
    let other = world.create(TALK, &["--name", "new name"]);
    assert_eq!(
        refused(&world, &["show", "new name"]),
        "error: \"new name\" names several sessions: ID, ID; give more of the id"
    );
    assert_eq!(world.show(&other)["session"], other.as_str());
}

#[test]
fn an_archived_session_is_put_away_until_it_is_brought_back() {
    let world = World::new();
    let session = world.create(TALK, &[]);
    let running = "error: this is not possible while the session is running: wait for it, queue a message, or interrupt it";
    assert_eq!(refused(&world, &["archive", &session]), running);
    world.succeed(&["resume", &session]);
    let said = plain(&world, &world.succeed(&["archive", &session]));
    assert_eq!(said, "archived; `longhaul archive --undo ID` brings it back · session ID\n");
    assert_eq!(world.succeed(&["--json", "ls"]), "");
    assert_eq!(world.succeed(&["--json", "ls", "--all"]).lines().count(), 1);
    assert!(world.succeed(&["ls", "--all"]).contains("archived, waiting"));
    let archived = "error: this is not possible while the session is archived: bring it back first, with \
                    `longhaul archive --undo`";
    for args in [&["send", &session, "x"][..], &["edit", &session, "x"], &["clear", &session]] {
        assert_eq!(refused(&world, args), archived);
    }
    assert_eq!(refused(&world, &["archive", &session]), "error: the session is archived already");
    let back = plain(&world, &world.succeed(&["archive", &session, "--undo"]));
    assert_eq!(refused(&world, &["archive", &session, "--undo"]), "error: the session is not archived");
    assert_eq!(back, "brought back · session ID\n");
    refused(&world, &["archive", &session, "--undo"]);
    assert!(world.succeed(&["send", &session, "x"]).contains("Two."));
    world.succeed(&["verify", &session]);
}

#[test]
fn a_session_is_deleted_when_that_is_really_meant() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let said = refused(&world, &["delete", &session]);
    assert_eq!(said, "error: ID would be gone for good; say --yes to delete it, or archive it instead");
    let said = refused(&world, &["delete", &session, "--yes"]);
    assert_eq!(said, "error: ID cannot be deleted: worker ID is running it; interrupt it first");
    let_go(&world);
    assert_eq!(running.finish().code, 0);
    assert_eq!(plain(&world, &world.succeed(&["delete", &session, "--yes"])), "deleted · session ID\n");
    assert!(refused(&world, &["show", &session]).starts_with("error: there is no session"));
}

#[test]
fn a_redaction_that_is_not_possible_in_full_does_nothing() {
    let world = World::new();
    let session = world.create(TALK, &[]);
    let said = refused(&world, &["redact", &session, "2", "0"]);
    assert_eq!(said, "error: there is no entry 0; the first is 1, the last is 2");
    let said = refused(&world, &["redact", &session, "2", "3"]);
    assert_eq!(said, "error: there is no entry 3; the first is 1, the last is 2");
    assert!(world.succeed(&["log", &session]).contains("“go”"));
    assert_eq!(
        plain(&world, &world.succeed(&["redact", &session, "2", "2"])),
        "1 entry redacted · session ID\n"
    );
    assert_eq!(world.kinds(&session), ["created", "message", "redacted"]);
    let said = refused(&world, &["redact", &session, "2"]);
    assert_eq!(said, "error: entry 2 has no content that could be redacted");
}

#[test]
fn what_a_session_runs_with_is_redacted_only_when_it_is_over() {
    let world = World::new();
    let session = world.create(TALK, &[]);
    world.succeed(&["resume", &session]);
    // Its configuration, and its prompt with the tools.
    for entry in ["1", "4"] {
        let said = refused(&world, &["redact", &session, entry]);
        let expected = format!(
            "error: entry {entry} is what the session runs with, and it could not go on without it; \
             archive the session first if it is over"
        );
        assert_eq!(said, expected);
    }
    world.succeed(&["archive", &session]);
    world.succeed(&["redact", &session, "1", "4"]);
    assert!(!world.succeed(&["log", &session]).contains("script.toml"));
    world.succeed(&["verify", &session]);
}

#[test]
fn one_who_attaches_sees_the_end_and_never_drives() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let mut attached = world.start(&["attach", &session, "--after", "0"]);
    attached.wait_for("This takes long.");
    let_go(&world);
    let (seen, ran) = (attached.finish(), running.finish());
    assert_eq!((seen.code, seen.stderr.as_str(), ran.code), (0, "", 0));
    assert!(seen.stdout.starts_with("› go\nThis takes long.\n"), "{}", seen.stdout);
    assert!(seen.stdout.contains("The first turn."), "{}", seen.stdout);
    assert!(seen.stdout.ends_with("\nthe session rests: waiting\n"), "{}", seen.stdout);
    assert_eq!(world.kinds(&session).iter().filter(|kind| *kind == "acquired").count(), 1);
    let again = world.succeed(&["attach", &session]);
    assert_eq!(again, "nothing to watch, the session rests: waiting\n");
}

#[test]
fn one_who_stops_watching_leaves_the_session_running() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let mut attached = world.start(&["attach", &session, "--after", "0"]);
    attached.wait_for("This takes long.");
    attached.signal(Signal::INT);
    let seen = attached.finish();
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    assert!(seen.stdout.ends_with("  no longer watching; the session goes on\n"), "{}", seen.stdout);
    assert_eq!(world.show(&session)["owned"], true);
    let_go(&world);
    assert_eq!(running.finish().code, 0);
    assert!(!world.kinds(&session).contains(&"interrupting".to_owned()));
}

/// Asks twice for one tool in one step, then once more.
const ASKING: &str = r#"
[[turn]]
[[turn.step]]
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo one >> ran" }
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo two >> ran" }
[[turn.step]]
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo three >> ran" }
[[turn.step]]
text = "They said: {{last_result}}"
"#;

/// Makes a session whose shell needs a person's yes, and drives it until it asks.
fn asking(world: &World) -> String {
    world.write("script.toml", ASKING);
    let setting = ToolSetting {
        name: "bash".to_owned(),
        permission: ToolPermission::Ask,
        max_output_bytes: None,
        time_limit_ms: None,
    };
    let configuration = Configuration {
        agent: "default".to_owned(),
        model: ModelChoice::new("scripted", world.path("script.toml").to_str().unwrap()),
        directory: world.path("work").to_str().unwrap().to_owned(),
        instructions: None,
        scope: Vec::new(),
        tools: vec![setting],
        prompts: Prompts::default(),
        limits: Limits::default(),
        summariser: None,
        goal: longhaul_session::goal::Terms::default(),
        without_goals: false,
    };
    let new = NewSession {
        configuration,
        place: world.kept.place(),
        ephemeral: false,
        mode: Mode::Default,
        name: None,
        labels: std::collections::BTreeMap::new(),
        first: First::Message("go".into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = runtime.block_on(async {
        let store = world.kept.open().await;
        let host = Arc::new(SystemHost::new());
        let engine = Engine::new(store.clone(), host, Arc::new(NoModels), Toolbox::builtin());
        let session = engine.create(new, None).await.unwrap().unwrap().session;
        store.close().await.unwrap();
        session.to_string()
    });
    let ran = world.run(&["resume", &session]);
    assert_eq!((ran.code, ran.stderr.as_str()), (5, ""), "{}", ran.stdout);
    session
}

/// No model is needed to make a session.
struct NoModels;

impl Models for NoModels {
    fn model(&self, _: &ModelChoice, _: &Limits) -> Result<Arc<dyn Model>, Failure> {
        Err(Failure { class: FailureClass::Preparation, message: "there is none".to_owned() })
    }
}

/// Returns the ids of the calls a session waits for.
fn open_calls(world: &World, session: &str) -> Vec<String> {
    let shown = world.succeed(&["show", session]);
    let id = |line: &str| Some(line.strip_prefix("open call  bash echo ")?.rsplit_once(" (")?.1.to_owned());
    shown.lines().filter_map(id).map(|id| id.trim_end_matches(')').to_owned()).collect()
}

#[test]
fn calls_that_wait_for_a_person_are_answered_one_by_one() {
    let world = World::new();
    let session = asking(&world);
    let calls = open_calls(&world, &session);
    assert_eq!(calls.len(), 2);
    let said = refused(&world, &["answer", &session, "--allow"]);
    let expected = format!(
        "error: several calls wait for an answer: {} (bash), {} (bash); name one with --call",
        calls[0], calls[1]
    );
    assert_eq!(said, expected);
    let told = world.run(&["resume", &session]).stdout;
    let waiting = "  ? bash echo one >> ran\n  ? bash echo two >> ran\nwaiting for an answer · ";
    assert!(told.starts_with(waiting), "{told}");
    let answer = format!("longhaul answer {} --call {} --allow (or --deny)\n", &session[..13], calls[0]);
    assert!(told.ends_with(&format!("  go on with: {answer}")), "{told}");
    assert!(world.succeed(&["show", &session]).ends_with(&format!("next       {answer}")));
    let said = refused(&world, &["answer", &session, "--call", "none", "--allow"]);
    assert_eq!(said, "error: call none does not await this answer");
    let said = refused(&world, &["answer", &session, "--call", &calls[0], "--text", "yes"]);
    assert_eq!(said, "error: an approval takes yes or no, a question takes a text");
    let first = world.run(&["answer", &session, "--call", &calls[0], "--allow"]);
    assert_eq!((first.code, first.stderr.as_str()), (5, ""), "one more is open: {}", first.stdout);
    assert!(!world.work("ran").exists(), "none runs before all are answered");
    let second = world.run(&["answer", &session, "--deny", "--reason", "not this one"]);
    assert_eq!((second.code, second.stderr.as_str()), (5, ""), "it asks again: {}", second.stdout);
    assert_eq!(std::fs::read_to_string(world.work("ran")).unwrap(), "one\n");
    let last = world.run(&["answer", &session, "--deny", "--reason", "not that either"]);
    assert_eq!((last.code, last.stderr.as_str()), (0, ""));
    assert!(last.stdout.contains("They said: not that either"), "{}", last.stdout);
    let said = refused(&world, &["answer", &session, "--allow"]);
    assert_eq!(said, "error: no call of this session waits for an answer; `longhaul show` says what it does");
    world.succeed(&["verify", &session]);
}

#[test]
fn a_tool_that_is_allowed_from_now_on_does_not_ask_again() {
    let world = World::new();
    let session = asking(&world);
    let calls = open_calls(&world, &session);
    world.run(&["answer", &session, "--call", &calls[1], "--deny"]);
    let ran = world.run(&["answer", &session, "--allow", "--remember"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_eq!(std::fs::read_to_string(world.work("ran")).unwrap(), "one\nthree\n");
    world.succeed(&["verify", &session]);
}

#[test]
fn an_answer_is_one_of_three() {
    let world = World::new();
    let wrong: [&[&str]; 5] = [
        &["answer", "x"],
        &["answer", "x", "--allow", "--deny"],
        &["answer", "x", "--allow", "--reason", "y"],
        &["answer", "x", "--deny", "--remember"],
        &["answer", "x", "--text", "y", "--remember"],
    ];
    for args in wrong {
        assert_eq!(world.run(args).code, 2, "{args:?}");
    }
}

#[test]
fn one_who_attaches_to_a_session_that_nobody_runs_is_told_what_to_do() {
    let world = World::new();
    let session = world.create(TALK, &[]);
    let mut attached = world.start(&["attach", &session, "--after", "0"]);
    attached.wait_for("goes on with it");
    let mut programs = world.start(&["--json", "attach", &session]);
    let told: Value = serde_json::from_str(&programs.next_line().unwrap()).unwrap();
    assert_eq!((&told["type"], &told["session"]), (&"unattended".into(), &session.as_str().into()));
    assert!(told["hint"].as_str().unwrap().contains("longhaul resume"), "{told}");
    programs.signal(Signal::INT);
    assert_eq!(programs.finish().code, 0);
    world.succeed(&["resume", &session]);
    let seen = attached.finish();
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(plain(&world, &seen.stdout), @"
    › go
      ! no live worker runs this session; `longhaul resume ID` goes on with it
    One.
    the session rests: waiting
    ");
}
