//! Forks: each begins as the first entries of another session, and goes its own way from there.

use rustix::process::Signal;
use serde_json::Value;

use crate::managing::refused;
use crate::plain::plain;
use crate::world::{Running, World, until_file_says};

/// Tools, a tool that takes long, a failure, and an answer that never ends.
const EVENTFUL: &str = r#"
[[turn]]
[[turn.step]]
reasoning = "Two at once."
text = "I look."
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo one > one.txt" }
[[turn.step.call]]
tool = "reed"
[[turn.step]]
fail = { class = "overloaded", retry_after_ms = 1 }
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo up > up; while [ ! -e go ]; do sleep 0.05; done" }
[[turn.step]]
text = "Done."
[[turn]]
[[turn.step]]
fail = { class = "auth", message = "the key is wrong" }
[[turn]]
[[turn.step]]
text = "I begin, and then"
fail = { hang = true, after_chars = 7 }
"#;

/// The same answer, wherever a fork is in its script.
fn goes_on() -> String {
    "[[turn]]\n[[turn.step]]\nrepeat = 50\ntext = \"The fork goes on.\"\n".repeat(12)
}

/// Says where it works, once a turn.
const WHERE: &str = r#"
[[turn]]
[[turn.step]]
[[turn.step.call]]
tool = "bash"
arguments = { command = "pwd > where" }
[[turn.step.call]]
tool = "write"
arguments = { path = "one.txt", content = "one" }
[[turn.step]]
text = "There."
[[turn]]
[[turn.step]]
[[turn.step.call]]
tool = "bash"
arguments = { command = "pwd > where" }
[[turn.step.call]]
tool = "write"
arguments = { path = "two.txt", content = "two" }
[[turn.step]]
text = "There again."
"#;

/// Forks a session and returns the fork's id.
fn fork(world: &World, args: &[&str]) -> String {
    let made = world.run(&[&["--json", "fork"], args].concat());
    assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{args:?}");
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    made["session"].as_str().unwrap().to_owned()
}

/// Records a session in which much has happened. Returns its id.
fn record(world: &World) -> String {
    let session = world.create(EVENTFUL, &["--name", "eventful"]);
    let running = world.start(&["resume", &session]);
    until_file_says(&world.work("up"), "up");
    world.succeed(&["send", &session, "and then?", "--detach"]);
    world.succeed(&["send", &session, "never mind this", "--detach"]);
    let queued = world.log(&session).last().unwrap()["record"]["n"].to_string();
    world.succeed(&["queue", &session, "--drop", &queued]);
    std::fs::write(world.work("go"), "").unwrap();
    assert_eq!(running.finish().code, 1, "the second turn fails");
    let mut hanging = world.start(&["send", &session, "once more"]);
    hanging.wait_for("I begin");
    world.succeed(&["send", &session, "later", "--detach"]);
    world.succeed(&["interrupt", &session, "--drop-queue"]);
    assert_eq!(hanging.finish().code, 130);
    session
}

#[test]
fn a_fork_at_every_entry_of_a_session_is_sound_and_goes_on() {
    let world = World::new();
    let session = record(&world);
    let kinds = world.kinds(&session);
    for kind in ["tool_step", "retry", "queued", "unqueued", "failed", "interrupting", "interrupted"] {
        assert!(kinds.iter().any(|found| found == kind), "{kind} is not in {kinds:?}");
    }
    world.write("script.toml", &goes_on());
    for at in 1..=kinds.len() {
        let fork = fork(&world, &[&session, "--at", &at.to_string()]);
        let shown = world.show(&fork);
        let found = (&shown["status"], &shown["head"], &shown["queue"], &shown["name"]);
        assert_eq!(found, (&"waiting".into(), &(at + 1).into(), &0.into(), &Value::Null), "at {at}");
        assert!(world.succeed(&["verify", &fork]).contains("ok"), "at {at}");
        let sent = world.succeed(&["send", &fork, "go on"]);
        assert!(sent.contains("The fork goes on."), "at {at}: {sent}");
    }
    let verified = world.succeed(&["verify", "--all"]);
    assert!(verified.ends_with(&format!("{} sessions, 0 broken\n", kinds.len() + 1)), "{verified}");
    assert_eq!(world.kinds(&session), kinds, "the original is as it was");
}

#[test]
fn a_call_that_is_open_where_a_fork_begins_stays_with_the_original() {
    let world = World::new();
    let session = record(&world);
    let step = world.kinds(&session).iter().position(|kind| kind == "model_step").unwrap() + 1;
    world.write("script.toml", &goes_on());
    let ran = world.run(&["fork", &session, "--at", &step.to_string(), "go on"]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.stderr, "note: both work in the same directory; --dir gives the fork another\n");
    assert!(ran.stdout.starts_with("› go on\nThe fork goes on.\ndone"), "{}", ran.stdout);
    let log = world.succeed(&["log", "@last", "--after", &step.to_string()]);
    assert!(log.lines().next().unwrap().contains("belongs to the original session"), "{log}");
}

#[test]
fn a_fork_in_another_directory_works_there() {
    let world = World::new();
    std::fs::create_dir(world.path("other")).unwrap();
    let session = world.create(WHERE, &[]);
    world.succeed(&["resume", &session]);
    std::fs::remove_file(world.work("where")).unwrap();
    let ran = world.run(&["fork", &session, "--dir", "other", "and now?"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "nothing is shared, so no note: {}", ran.stdout);
    let there = std::fs::read_to_string(world.path("other/where")).unwrap();
    assert_eq!(there.trim_end(), world.path("other").to_str().unwrap());
    assert_eq!(std::fs::read_to_string(world.path("other/two.txt")).unwrap(), "two");
    assert!(!world.work("where").exists() && !world.work("two.txt").exists());
    let other = world.show("@last");
    assert_eq!(other["directory"], world.path("other").to_str().unwrap());
    let log = world.log(other["session"].as_str().unwrap());
    let prompts: Vec<&str> = log.iter().filter_map(|entry| entry["content"]["system"].as_str()).collect();
    assert_eq!(prompts.len(), 2, "the prompt is rendered anew");
    assert!(prompts[1].contains(world.path("other").to_str().unwrap()), "{}", prompts[1]);
    assert_eq!(world.show(&session)["directory"], world.path("work").to_str().unwrap());
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_fork_has_the_configuration_of_the_entry_it_begins_with() {
    let world = World::new();
    std::fs::create_dir(world.path("other")).unwrap();
    let session = world.create(WHERE, &[]);
    let elsewhere = fork(&world, &[&session, "--dir", "other"]);
    let back = fork(&world, &[&elsewhere, "--at", "2"]);
    world.succeed(&["send", &back, "go"]);
    assert!(world.work("where").exists() && !world.path("other/where").exists());
    let on = fork(&world, &[&elsewhere]);
    world.succeed(&["send", &on, "go"]);
    assert!(world.path("other/where").exists());
}

#[test]
fn a_session_that_a_fork_needs_is_not_deleted_before_the_fork() {
    let world = World::new();
    let session = world.create(&goes_on(), &[]);
    world.succeed(&["resume", &session]);
    let child = fork(&world, &[&session, "--at", "3"]);
    let said = refused(&world, &["delete", &session, "--yes"]);
    assert_eq!(
        said,
        "error: ID cannot be deleted: the fork ID begins with its entries; delete the fork first"
    );
    let ran = world.run(&["delete", &session, "--yes"]);
    assert!(ran.stderr.contains(&child), "{}", ran.stderr);
    world.succeed(&["verify", "--all"]);
    assert_eq!(plain(&world, &world.succeed(&["delete", &child, "--yes"])), "deleted · session ID\n");
    world.succeed(&["delete", &session, "--yes"]);
    assert_eq!(world.succeed(&["--json", "ls", "--all"]), "");
}

#[test]
fn a_fork_of_a_fork_goes_on() {
    let world = World::new();
    let session = world.create(&goes_on(), &[]);
    world.succeed(&["resume", &session]);
    let child = fork(&world, &[&session, "--at", "5"]);
    world.succeed(&["send", &child, "in the child"]);
    let head = world.kinds(&child).len();
    // Within the first session's part, within the child's own, and at its end.
    for at in [3, 6, 7, head] {
        let grandchild = fork(&world, &[&child, "--at", &at.to_string()]);
        assert!(world.succeed(&["send", &grandchild, "go on"]).contains("The fork goes on."), "at {at}");
    }
    assert!(world.succeed(&["verify", "--all"]).ends_with("6 sessions, 0 broken\n"));
    refused(&world, &["delete", &child, "--yes"]);
}

#[test]
fn a_fork_that_cannot_be_made_leaves_nothing() {
    let world = World::new();
    let session = world.create(&goes_on(), &[]);
    world.write("file", "");
    let none = |at: &str| {
        let said = format!("error: there is no entry {at} to fork at; the first is 1, the last is 2");
        assert_eq!(refused(&world, &["fork", &session, "--at", at]), said);
    };
    none("0");
    none("3");
    none("18446744073709551615");
    let said = refused(&world, &["fork", &session, "--dir", "none"]);
    assert!(
        said.starts_with("error: the directory none cannot be used; make it first: No such file"),
        "{said}"
    );
    let said = refused(&world, &["fork", &session, "--dir", "file"]);
    assert_eq!(said, "error: ROOT/file is not a directory; choose one with --dir");
    let said = refused(&world, &["fork", &session, " "]);
    assert_eq!(said, "error: there is nothing to say to the fork: the message is empty");
    world.succeed(&["interrupt", &session]);
    world.succeed(&["archive", &session]);
    world.succeed(&["redact", &session, "1"]);
    let said = refused(&world, &["fork", &session, "--dir", "work"]);
    assert!(said.contains("the configuration of the session was redacted"), "{said}");
    assert_eq!(world.succeed(&["--json", "ls", "--all"]).lines().count(), 1);
}

#[test]
fn a_session_is_forked_while_a_worker_runs_it() {
    let world = World::new();
    let session = world.create(EVENTFUL, &[]);
    let running = world.start(&["resume", &session]);
    until_file_says(&world.work("up"), "up");
    let child = fork(&world, &[&session]);
    assert_eq!(world.show(&child)["status"], "waiting");
    assert_eq!(world.show(&session)["owned"], true);
    running.signal(Signal::INT);
    assert_eq!(running.finish().code, 130);
    assert!(world.succeed(&["verify", "--all"]).ends_with("2 sessions, 0 broken\n"));
}

#[test]
fn where_two_sessions_part_is_shown() {
    let world = World::new();
    let session = world.create(&goes_on(), &[]);
    world.succeed(&["resume", &session]);
    let child = fork(&world, &[&session, "--at", "4"]);
    insta::assert_snapshot!(plain(&world, &world.succeed(&["diff", &session, &child])), @"
    both begin with the same 4 entries

    ID · 2 entries of its own
        5  TIME  model_step       1 in, 5 out, DURATION · The fork goes on.
        6  TIME  turn_finished    complete, then rest

    ID · 1 entry of its own
        5  TIME  forked           from entry 4 of ID
    ");
    let other = world.create(&goes_on(), &[]);
    let told = world.succeed(&["--json", "diff", &other, &child]);
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["shared"], &told[1]["own"]), (&0.into(), &2.into()));
    assert_eq!((&told[4]["session"], &told[4]["own"]), (&child.as_str().into(), &5.into()));
    assert_eq!(told.len(), 1 + 1 + 2 + 1 + 5);
    assert!(world.succeed(&["diff", &session, &session]).starts_with("both begin with the same 6 entries\n"));
}

#[test]
fn what_a_fork_has_from_its_original_is_redacted_there() {
    let world = World::new();
    let session = world.create(&goes_on(), &[]);
    world.succeed(&["resume", &session]);
    let child = fork(&world, &[&session, "--at", "4"]);
    let said = refused(&world, &["redact", &child, "2"]);
    let expected =
        "error: the first 4 entries belong to ID, from which this session was forked; redact them there";
    assert_eq!(said, expected);
    world.succeed(&["send", &child, "a secret of the fork"]);
    world.succeed(&["redact", &child, "6"]);
    assert!(!world.succeed(&["log", &child]).contains("secret"));
    world.succeed(&["verify", "--all"]);
}

#[test]
fn what_is_redacted_in_the_original_is_gone_from_its_forks_too() {
    let world = World::new();
    let session = world.create(&goes_on(), &[]);
    world.succeed(&["resume", &session]);
    let child = fork(&world, &[&session]);
    let grandchild = fork(&world, &[&child]);
    world.succeed(&["redact", &session, "2"]);
    assert!(!world.succeed(&["log", &grandchild]).contains("“go”"));
    assert!(world.succeed(&["verify", "--all"]).ends_with("3 sessions, 0 broken\n"));
    world.succeed(&["export", &grandchild, "-o", "fork.jsonl"]);
    let elsewhere = |args: &[&str]| {
        let ran = Running::start(world.bare(&[&["--home", "elsewhere"], args].concat())).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}: {}", ran.stdout);
    };
    elsewhere(&["import", "fork.jsonl"]);
    elsewhere(&["verify"]);
}
