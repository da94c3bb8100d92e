//! What a person sees of runs that nothing disturbs, and of the commands that look at them.

use std::process::Stdio;

use insta::assert_snapshot;
use longhaul_test_postgres::leaves_out;
use serde_json::Value;

use crate::plain::plain;
use crate::world::{Ran, Running, World};

const TWO_TURNS: &str = r#"
[[turn]]
[[turn.step]]
text = "I look first."
usage = { input = 1200, output = 34 }
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo one > one.txt; cat one.txt" }
[[turn.step]]
text = "There is one."
usage = { input = 1300, output = 5 }
[[turn]]
[[turn.step]]
text = "Still one."
usage = { input = 1400, output = 4 }
"#;

const FAILING: &str = r#"
[[turn]]
[[turn.step]]
text = "I try."
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo on its way; echo broken >&2; exit 3" }
[[turn.step.call]]
tool = "reed"
[[turn.step]]
fail = { class = "overloaded", message = "the provider is busy", times = 2, usage = { input = 7 } }
text = "It does not work."
[[turn]]
[[turn.step]]
fail = { class = "auth", message = "the key is wrong" }
[[turn]]
[[turn.step]]
text = "Now it does."
"#;

/// Runs a script in the foreground.
fn run(world: &World, script: &str, more: &[&str]) -> Ran {
    world.write("script.toml", script);
    world.run(&[&["run", "--script", "script.toml", "--dir", "work", "count"], more].concat())
}

#[test]
fn a_run_is_shown_to_its_end() {
    let world = World::new();
    let ran = run(&world, TWO_TURNS, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_snapshot!(plain(&world, &ran.stdout), @"
    session ID · scripted model ROOT/script.toml (no language model is involved)
      in ROOT/work
    › count
    I look first.
      ✓ bash echo one > one.txt; cat one.txt  DURATION
    There is one.
    done · 2.5k in, 39 out, DURATION of work · session ID
    ");
    assert_eq!(std::fs::read_to_string(world.work("one.txt")).unwrap(), "one\n");
}

#[test]
fn failures_of_tools_and_retries_are_shown_with_what_was_wrong() {
    let world = World::new();
    let ran = run(&world, FAILING, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_snapshot!(plain(&world, &ran.stdout), @"
    session ID · scripted model ROOT/script.toml (no language model is involved)
      in ROOT/work
    › count
    I try.
      ✗ bash echo on its way; echo broken >&2; exit 3  failed, DURATION
        [exit code 3 after DURATION]
      ✗ reed  rejected
        The call was not run: there is no tool \"reed\". The tools are: bash, create_goal, edit, get_goa…
      ↻ the provider is busy; trying again in DURATION
      ↻ the provider is busy; trying again in DURATION
    It does not work.
    done · 79 in, 23 out, DURATION of work · session ID
    ");
}

#[test]
fn a_turn_that_fails_says_why_and_what_to_do_and_the_next_message_goes_on() {
    let world = World::new();
    assert_eq!(run(&world, FAILING, &[]).code, 0);
    let failed = world.run(&["send", "@last", "again"]);
    assert_eq!((failed.code, failed.stderr.as_str()), (1, ""));
    assert_snapshot!(plain(&world, &failed.stdout), @r#"
    › again
    failed: the key is wrong
      Check the provider's key: it is missing, wrong, or lacks the permission.
    not done · 79 in, 23 out, DURATION of work
      go on with: longhaul send ID "try again"
    "#);
    assert_snapshot!(plain(&world, &world.succeed(&["show"])), @r#"
    session    ID
    status     failed
    error      the key is wrong
    advice     Check the provider's key: it is missing, wrong, or lacks the permission.
    directory  ROOT/work
    log        13 entries, the last AGO, hash HASH
    turn       2: 0 steps, 0 calls
    context    69 tokens (extrapolated), compacted above 102.4k
    spent      79 in, 23 out, DURATION of work
                       calls  attempts  uncached  output  work
               all         2         4        79      23  DURATION
               failed      0         2        14       0  DURATION
    next       longhaul send ID "try again"
    "#);
    let again = world.run(&["resume"]);
    assert_eq!((again.code, again.stderr.as_str()), (1, ""));
    assert_snapshot!(plain(&world, &again.stdout), @r#"
    the turn failed earlier; it is not tried again before somebody says something
    failed: the key is wrong
      Check the provider's key: it is missing, wrong, or lacks the permission.
    not done · 79 in, 23 out, DURATION of work
      go on with: longhaul send ID "try again"
    "#);
    let told = world.run(&["--json", "resume"]);
    let last: Value = serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["exit"], &last["error"]), (&1.into(), &"the key is wrong".into()));
    assert!(world.succeed(&["send", "@last", "and again"]).contains("Now it does."));
}

#[test]
fn a_message_to_a_waiting_session_goes_on_and_is_sent_once_for_one_request_id() {
    let world = World::new();
    assert_eq!(run(&world, TWO_TURNS, &["--name", "counting"]).code, 0);
    let send = ["send", "counting", "how many?", "--request-id", "a"];
    assert_snapshot!(plain(&world, &world.succeed(&send)), @"
    › how many?
    Still one.
    done · 3.9k in, 43 out, DURATION of work · session ID
    ");
    assert_snapshot!(plain(&world, &world.succeed(&send)), @"done · 3.9k in, 43 out, DURATION of work · session ID");
    let messages = world.kinds("counting").iter().filter(|kind| *kind == "message").count();
    assert_eq!(messages, 2);
}

#[test]
fn a_detached_run_only_makes_the_session_and_resume_goes_on() {
    let world = World::new();
    let session = world.create(TWO_TURNS, &[]);
    assert_eq!(world.kinds(&session), ["created", "message"]);
    assert_eq!(world.show(&session)["status"], "running");
    assert!(plain(&world, &world.succeed(&["show"])).contains("next       longhaul resume ID"));
    assert_snapshot!(plain(&world, &world.succeed(&["resume", &session])), @"
    I look first.
      ✓ bash echo one > one.txt; cat one.txt  DURATION
    There is one.
    done · 2.5k in, 39 out, DURATION of work · session ID
    ");
    let all = world.succeed(&["resume", &session, "--after", "0"]);
    assert!(all.starts_with("› go\nI look first.\n"), "{all}");
    assert_eq!(world.succeed(&["send", &session, "more", "--detach"]), "");
    assert!(world.succeed(&["resume"]).contains("Still one."));
}

#[test]
fn sessions_are_listed_shown_logged_and_verified() {
    let world = World::new();
    assert_eq!(run(&world, TWO_TURNS, &["--name", "counting"]).code, 0);
    assert_eq!(run(&world, TWO_TURNS, &["--detach"]).code, 0);
    let words = |text: &str| {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(words(&plain(&world, &world.succeed(&["ls"]))), @"
    ID not begun AGO 0 tokens ROOT/work
    ID waiting AGO 2.5k tokens counting
    2 sessions: 2.5k in, 39 out, DURATION of work; no cost is known of 1
    ");
    assert_eq!(world.succeed(&["ls", "--limit", "1"]).lines().count(), 1);
    assert_snapshot!(plain(&world, &world.succeed(&["show", "counting"])), @"
    session    ID
    name       counting
    status     waiting
    directory  ROOT/work
    log        8 entries, the last AGO, hash HASH
    turn       1: 2 steps, 1 call
    context    1.3k tokens (extrapolated), compacted above 102.4k
    spent      2.5k in, 39 out, DURATION of work
    ");
    assert_snapshot!(plain(&world, &world.succeed(&["log", "counting"])), @"
    1  TIME  created          counting
    2  TIME  message          “count”
    3  TIME  acquired         epoch 1
    4  TIME  prepared
    5  TIME  model_step       1.2k in, 34 out, DURATION · I look first. · bash(echo one > one.txt; cat one.txt)
    6  TIME  tool_step        DURATION · ok: one [exit code 0 after DURATION]
    7  TIME  model_step       1.3k in, 5 out, DURATION · There is one.
    8  TIME  turn_finished    complete, then rest
    ");
    assert_snapshot!(plain(&world, &world.succeed(&["log", "counting", "--tail", "1"])), @"    8  TIME  turn_finished    complete, then rest");
    assert_eq!(world.succeed(&["log", "counting", "--after", "6"]).lines().count(), 2);
    assert_snapshot!(plain(&world, &world.succeed(&["verify", "counting"])), @"ID  ok, 8 entries: chain, fold, totals, calls and results");
    assert_snapshot!(plain(&world, &world.succeed(&["verify", "--all"])), @"
    ID  ok, 2 entries: chain, fold, totals, calls and results
    ID  ok, 8 entries: chain, fold, totals, calls and results
    2 sessions, 0 broken
    ");
}

#[test]
fn programs_get_json_lines() {
    let world = World::new();
    world.write("script.toml", TWO_TURNS);
    let text = world.succeed(&["--json", "run", "--script", "script.toml", "--dir", "work", "count"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entries: Vec<&Value> = lines.iter().filter(|line| line["type"] == "entry").collect();
    assert_eq!(entries, world.log("@last").iter().collect::<Vec<_>>());
    let texts = lines.iter().filter_map(|line| line["part"]["part"]["text"].as_str());
    assert!(texts.collect::<String>().contains("I look first."));
    let last = lines.last().unwrap();
    assert_eq!((&last["type"], &last["status"]), (&"result".into(), &"waiting".into()));
    assert_eq!((&last["exit"], &last["error"]), (&0.into(), &Value::Null));
    let session = last["session"].as_str().unwrap();
    let mut shown = world.show(session);
    assert_eq!((&shown["head"], &shown["owned"]), (&8.into(), &false.into()));
    let context = shown.as_object_mut().unwrap().remove("context").unwrap();
    assert_eq!(
        (&context["next_request"]["source"], &context["automatic"]),
        (&"extrapolated".into(), &true.into())
    );
    let spent = shown.as_object_mut().unwrap().remove("spent").unwrap();
    assert_eq!(spent["total"]["measured"], shown["ledger"]["measured"]);
    assert_eq!(
        (&spent["total"]["calls"], &spent["models"][0]["model"]["provider"]),
        (&2.into(), &"scripted".into())
    );
    let listed: Value = serde_json::from_str(&world.succeed(&["--json", "ls"])).unwrap();
    assert_eq!(listed, shown);
    let verified: Value = serde_json::from_str(&world.succeed(&["--json", "verify"])).unwrap();
    assert_eq!((&verified["head"], &verified["problems"]), (&8.into(), &Value::Array(Vec::new())));
}

#[test]
fn a_log_can_be_followed() {
    let world = World::new();
    let session = world.create(TWO_TURNS, &[]);
    let mut following = world.start(&["log", &session, "--follow"]);
    following.wait_for("message");
    world.succeed(&["resume", &session]);
    following.wait_for("turn_finished");
    following.signal(rustix::process::Signal::INT);
    let ran = following.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (-2, ""));
    assert_eq!(ran.stdout, world.succeed(&["log", &session]));
}

#[test]
fn output_that_is_no_terminal_has_no_colours_unless_they_are_wanted() {
    let world = World::new();
    let ran = run(&world, FAILING, &[]);
    assert!(!ran.stdout.contains('\x1b'), "{}", ran.stdout);
    let failed = world.run(&["show", "none"]);
    assert!(!failed.stderr.contains('\x1b'), "{}", failed.stderr);
    let coloured = world.run(&["--color", "always", "resume", "--after", "0"]);
    assert!(coloured.stdout.contains('\x1b'), "{}", coloured.stdout);
    let forced = |name: &str| {
        let mut command = world.command(&["resume", "--after", "0"]);
        command.env("CLICOLOR_FORCE", "1").env(name, "1");
        Running::start(command).finish().stdout
    };
    assert!(forced("UNUSED").contains('\x1b'));
    assert!(!forced("NO_COLOR").contains('\x1b'), "NO_COLOR has the last word");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let world = World::new();
    assert_eq!(run(&world, TWO_TURNS, &[]).code, 0);
    for args in [&["log"][..], &["show"], &["ls"], &["verify"], &["--json", "log"], &["resume"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Running::start_into(world.command(args), Stdio::from(writer)).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn a_run_that_is_repeated_with_its_request_id_goes_on_with_the_session_it_began() {
    let world = World::new();
    let session = world.create(TWO_TURNS, &["--request-id", "job 1"]);
    let again = ["run", "--script", "script.toml", "--dir", "work", "go", "--request-id", "job 1"];
    assert_snapshot!(plain(&world, &world.succeed(&again)), @"
    session ID was begun with this request id; going on with it
    I look first.
      ✓ bash echo one > one.txt; cat one.txt  DURATION
    There is one.
    done · 2.5k in, 39 out, DURATION of work · session ID
    ");
    assert_snapshot!(plain(&world, &world.succeed(&again)), @"
    session ID was begun with this request id; going on with it
    done · 2.5k in, 39 out, DURATION of work · session ID
    ");
    assert_eq!(world.succeed(&[&again[..], &["--detach"]].concat()).trim(), session);
    assert_eq!(world.kinds(&session).iter().filter(|kind| *kind == "message").count(), 1);
    let other = world.create(TWO_TURNS, &["--request-id", "job 2"]);
    assert_ne!(other, session);
    assert_eq!(world.succeed(&["--json", "ls"]).lines().count(), 2);
    world.succeed(&["delete", &session, "--yes"]);
    world.succeed(&again);
    assert_eq!(world.show(&session)["turn"], 1, "what was deleted is begun anew");
}

#[test]
fn every_command_leaves_one_file_that_is_whole() {
    if leaves_out("it is about the files of a home") {
        return;
    }
    let world = World::new();
    assert_eq!(run(&world, FAILING, &[]).code, 0);
    let commands: [&[&str]; 8] = [
        &["ls"],
        &["show", "none"],
        &["send", "@last", "fails"],
        &["send", "@last", "works", "--detach"],
        &["resume"],
        &["rename", "@last", "@last"],
        &["verify"],
        &["doctor"],
    ];
    for args in commands {
        world.run(args);
        let left = std::fs::read_dir(world.path("home")).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["sessions.db", "sessions.db.workers"], "{args:?}");
    }
}
