//! What stops a session and what only stops watching it: Ctrl-C, TERM, another process, a closed pipe.

use std::process::Stdio;

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::Value;

use crate::plain::plain;
use crate::world::{Running, World, until_file_says};

/// A tool that goes on until it is let go, and two turns after it.
const HELD: &str = r#"
[[turn]]
[[turn.step]]
text = "This takes long."
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo up > up; while [ ! -e go ]; do sleep 0.05; done; echo over > over" }
[[turn.step]]
text = "It is over."
[[turn]]
[[turn.step]]
text = "The second turn."
[[turn]]
[[turn.step]]
text = "The third turn."
"#;

/// Answers that never end.
const HANGING: &str = r#"
[[turn]]
[[turn.step]]
text = "I begin, and then"
fail = { hang = true, after_chars = 7 }
[[turn]]
[[turn.step]]
text = "I go on, and then"
fail = { hang = true, after_chars = 7 }
"#;

/// Starts a session and waits until its tool runs.
fn start_held(world: &World) -> (String, Running) {
    let session = world.create(HELD, &[]);
    let mut running = world.start(&["resume", &session, "--after", "0"]);
    until_file_says(&world.work("up"), "up");
    running.wait_for("This takes long.");
    (session, running)
}

fn let_go(world: &World) {
    std::fs::write(world.work("go"), "").unwrap();
}

/// Returns how the calls of a session ended.
fn outcomes(world: &World, session: &str) -> Vec<String> {
    let results = |entry: &Value| entry["record"]["fact"]["results"].as_array().cloned().unwrap_or_default();
    let results = world.log(session).iter().flat_map(results).collect::<Vec<_>>();
    results.iter().map(|result| result["outcome"].as_str().unwrap().to_owned()).collect()
}

/// Makes what a watcher shows comparable: when it finds the live worker is up to chance.
fn shown(world: &World, stdout: &str) -> String {
    plain(world, &stdout.replace("  a live worker runs this session; watching it\n", ""))
}

/// Tells whether an owner of the session was ever lost.
fn lost_an_owner(world: &World, session: &str) -> bool {
    world.log(session).iter().any(|entry| entry["record"]["fact"]["lost"] == true)
}

#[test]
fn one_interrupt_from_the_keys_stops_the_turn() {
    let world = World::new();
    let (session, running) = start_held(&world);
    running.signal(Signal::INT);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""));
    assert_snapshot!(plain(&world, &ran.stdout), @"
    › go
    This takes long.
      interrupting; press Ctrl-C again to stop the program
      ! bash echo up > up; while [ ! -e go ]; do sleep 0.05; done; echo over > over  stopped, DURATION
        [The call was stopped before it finished. It may have had effects.]
      ■ interrupted
    interrupted · 1 in, 26 out, DURATION of work · session ID
    ");
    assert_eq!(world.show(&session)["status"], "waiting");
    assert!(!world.work("over").exists());
    assert!(world.succeed(&["send", &session, "go on"]).contains("The second turn."));
}

#[test]
fn a_second_interrupt_from_the_keys_stops_the_program_and_resume_goes_on() {
    let world = World::new();
    let session = world.create(HANGING, &[]);
    let mut running = world.start(&["resume", &session]);
    running.wait_for("I begin");
    world.succeed(&["send", &session, "and then?", "--detach"]);
    running.wait_for("(queued)");
    running.signal(Signal::INT);
    running.wait_for("I go on");
    running.signal(Signal::INT);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""));
    assert_snapshot!(plain(&world, &ran.stdout), @"
    I begin
    › and then? (queued)
      interrupting; press Ctrl-C again to stop the program
      ■ interrupted
    › and then?
    I go on
      stopping; the session can be resumed
      (that answer was cut off and does not count)
    stopped · 0 in, 0 out, DURATION of work
      go on with: longhaul resume ID
    ");
    assert_eq!(world.kinds(&session).last().unwrap(), "released");
    let log = world.succeed(&["log", &session]);
    assert!(log.contains("I begin … (cut off)"), "what was interrupted is kept: {log}");
    world.write("script.toml", &HANGING.replace("fail =", "# fail ="));
    assert!(world.succeed(&["resume", &session]).contains("I go on, and then\n"));
}

#[test]
fn what_is_shown_first_can_be_interrupted() {
    let world = World::new();
    world.write("script.toml", HELD);
    let mut running = world.start(&["run", "--script", "script.toml", "--dir", "work", "go"]);
    running.wait_for("session");
    running.signal(Signal::INT);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""), "{}", ran.stdout);
    assert_eq!(world.show("@last")["status"], "waiting");
}

#[test]
fn a_program_told_to_end_gives_its_session_back() {
    gives_its_session_back(Signal::TERM);
}

#[test]
fn a_program_whose_terminal_is_closed_gives_its_session_back() {
    gives_its_session_back(Signal::HUP);
}

#[test]
fn a_program_that_is_to_outlive_its_terminal_goes_on() {
    let world = World::new();
    let session = world.create(HELD, &[]);
    let mut command = world.other("nohup", &[env!("CARGO_BIN_EXE_longhaul"), "resume", &session]);
    world.kept.tell(&mut command);
    let running = Running::start(command);
    until_file_says(&world.work("up"), "up");
    running.signal(Signal::HUP);
    let_go(&world);
    let ran = running.finish();
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("It is over."), "{}", ran.stdout);
}

#[test]
fn a_watcher_told_to_end_says_that_the_session_goes_on() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let mut watching = world.start(&["resume", &session]);
    watching.wait_for("watching it");
    watching.signal(Signal::TERM);
    let ran = watching.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""));
    assert!(ran.stdout.ends_with("\nno longer watching; the session goes on\n"), "{}", ran.stdout);
    let_go(&world);
    assert_eq!(running.finish().code, 0);
}

#[test]
fn one_who_attaches_late_reads_what_a_call_was_about() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let head = world.show(&session)["head"].to_string();
    let attached = world.start(&["attach", &session, "--after", &head]);
    let_go(&world);
    let seen = attached.finish();
    assert!(seen.stdout.starts_with("  ✓ bash echo up > up;"), "{}", seen.stdout);
    assert_eq!(running.finish().code, 0);
}

fn gives_its_session_back(signal: Signal) {
    let world = World::new();
    let session = world.create(HELD, &[]);
    let mut running = Running::start(world.in_terminal(&["resume", &session, "--after", "0"]));
    until_file_says(&world.work("up"), "up");
    running.signal(signal);
    running.wait_for("stopping");
    let_go(&world);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""));
    assert!(ran.stdout.contains("go on with: longhaul resume"), "{}", ran.stdout);
    assert_eq!(world.kinds(&session).last().unwrap(), "released");
    assert!(world.succeed(&["resume", &session]).contains("It is over."));
    let outcomes = outcomes(&world, &session);
    assert!(["ok", "stopped"].contains(&outcomes[0].as_str()) && outcomes.len() == 1, "{outcomes:?}");
    assert!(!lost_an_owner(&world, &session));
}

#[test]
fn a_program_told_to_end_in_the_middle_of_an_answer_gives_its_session_back() {
    let world = World::new();
    let session = world.create(HANGING, &[]);
    let mut running = world.start(&["resume", &session]);
    running.wait_for("I begin");
    running.signal(Signal::TERM);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""));
    assert_snapshot!(plain(&world, &ran.stdout), @"
    I begin
      stopping; the session can be resumed
      (that answer was cut off and does not count)
    stopped · 0 in, 0 out, DURATION of work
      go on with: longhaul resume ID
    ");
    assert_eq!(world.kinds(&session).last().unwrap(), "released");
    world.write("script.toml", &HANGING.replace("fail =", "# fail ="));
    assert!(world.succeed(&["resume", &session]).contains("I begin, and then\n"));
    assert!(!lost_an_owner(&world, &session));
}

#[test]
fn another_process_watches_the_live_worker_and_its_message_is_queued() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let mut sending = world.start(&["send", &session, "and then?"]);
    sending.wait_for("a live worker runs this session; watching it");
    assert_eq!(world.show(&session)["owned"], true);
    assert!(world.succeed(&["show", &session]).contains("queue      1 message"));
    let_go(&world);
    let (sent, ran) = (sending.finish(), running.finish());
    assert_eq!((sent.code, ran.code), (0, 0));
    assert_snapshot!(shown(&world, &sent.stdout), @"
    › and then? (queued)
      ✓ bash echo up > up; while [ ! -e go ]; do sleep 0.05; done; echo over > over  DURATION
    It is over.
    › and then?
    The second turn.
    done · 72 in, 33 out, DURATION of work · session ID
    ");
    assert_snapshot!(plain(&world, &ran.stdout), @"
    › go
    This takes long.
    › and then? (queued)
      ✓ bash echo up > up; while [ ! -e go ]; do sleep 0.05; done; echo over > over  DURATION
    It is over.
    › and then?
    The second turn.
    done · 72 in, 33 out, DURATION of work · session ID
    ");
    assert_eq!(world.kinds(&session).iter().filter(|kind| *kind == "acquired").count(), 1);
}

#[test]
fn a_watcher_takes_over_when_the_worker_dies() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let mut watching = world.start(&["resume", &session]);
    watching.wait_for("watching it");
    running.kill();
    world.kept.end_leases_of_the_dead();
    let ran = watching.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_snapshot!(plain(&world, &ran.stdout), @"
      a live worker runs this session; watching it
      ⟳ taken over from a worker that was lost
      ! bash echo up > up; while [ ! -e go ]; do sleep 0.05; done; ech…  outcome unknown, not run again
        The worker running this call was lost and its outcome is unknown. It may have had effects, in …
    It is over.
    done · 68 in, 29 out, DURATION of work · session ID
    ");
    assert_eq!(outcomes(&world, &session), ["unknown"]);
}

#[test]
fn an_interrupt_from_another_process_stops_a_tool_that_hangs() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let interrupting = world.run(&["interrupt", &session]);
    assert_eq!((interrupting.code, interrupting.stderr.as_str()), (0, ""));
    assert_snapshot!(shown(&world, &interrupting.stdout), @"
      ! bash echo up > up; while [ ! -e go ]; do sleep 0.05; done; echo over > over  stopped, DURATION
        [The call was stopped before it finished. It may have had effects.]
      ■ interrupted
    done · 1 in, 26 out, DURATION of work · session ID
    ");
    let ran = running.finish();
    assert!(ran.stdout.contains("■ interrupted"), "{}", ran.stdout);
    assert_eq!(outcomes(&world, &session), ["stopped"]);
    assert!(!lost_an_owner(&world, &session));
}

#[test]
fn an_interrupt_where_no_worker_lives_is_finished_by_the_one_who_asks() {
    let world = World::new();
    let (session, running) = start_held(&world);
    running.kill();
    world.until_all_are_dead();
    assert_snapshot!(plain(&world, &world.succeed(&["interrupt", &session])), @"
      ⟳ taken over from a worker that was lost
      ! bash echo up > up; while [ ! -e go ]; do sleep 0.05; done; echo over > over  stopped
        The call was stopped before it finished. It may have had effects; check before you repeat it.
      ■ interrupted
    done · 1 in, 26 out, DURATION of work · session ID
    ");
    assert_eq!(world.show(&session)["status"], "waiting");
}

#[test]
fn an_interrupting_message_is_next() {
    let world = World::new();
    let (session, running) = start_held(&world);
    let sent = world.succeed(&["send", &session, "stop it", "--interrupt"]);
    assert!(sent.contains("The second turn."), "{sent}");
    assert_eq!(running.finish().code, 0);
    assert_eq!(outcomes(&world, &session), ["stopped"]);
}

#[test]
fn a_session_whose_reader_has_gone_is_given_back() {
    let world = World::new();
    let hangs = "text = \"It is over.\"\nfail = { hang = true }";
    let session = world.create(&HELD.replace("text = \"It is over.\"", hangs), &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    let running = Running::start_into(world.command(&["resume", &session]), Stdio::from(writer));
    until_file_says(&world.work("up"), "up");
    drop(reader);
    let_go(&world);
    let ran = running.finish();
    assert_eq!(ran.code, 130);
    let said =
        "stopped, as nobody reads on: session ID was left in the middle; `longhaul resume ID` goes on\n";
    assert_eq!(plain(&world, &ran.stderr), said);
    assert_eq!(outcomes(&world, &session), ["ok"]);
    world.write("script.toml", HELD);
    world.succeed(&["resume", &session]);
    assert!(!lost_an_owner(&world, &session));
}
