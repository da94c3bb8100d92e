//! Exports and imports: a session moves to another home whole, or not at all; and what was redacted is gone.

use std::process::Stdio;

use serde_json::Value;

use crate::managing::refused;
use crate::plain::plain;
use crate::world::{Ran, Running, World, until_file_says};

/// Two tools, an answer, and a turn that repeats what the newest result says.
const RECORDED: &str = r#"
[[turn]]
[[turn.step]]
reasoning = "First a look."
text = "I look."
[[turn.step.call]]
tool = "bash"
arguments = { command = "cat secret.txt" }
[[turn.step]]
text = "I have seen it."
[[turn]]
[[turn.step]]
text = "They said: {{last_result}}"
[[turn]]
[[turn.step]]
text = "The third turn."
"#;

const SECRET: &str = "the-word-is-heliotrope";

/// Records a session whose newest result holds the secret.
fn record(world: &World) -> String {
    std::fs::write(world.work("secret.txt"), SECRET).unwrap();
    let session = world.create(RECORDED, &[]);
    world.succeed(&["resume", &session]);
    session
}

/// Runs the program with another home.
fn elsewhere(world: &World, args: &[&str]) -> Ran {
    Running::start(world.bare(&[&["--home", "elsewhere"], args].concat())).finish()
}

/// Runs the program with another home, which must be a success.
fn succeed_elsewhere(world: &World, args: &[&str]) -> String {
    let ran = elsewhere(world, args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}: {}", ran.stdout);
    ran.stdout
}

#[test]
fn an_exported_session_goes_on_in_another_home() {
    let world = World::new();
    let session = record(&world);
    assert_eq!(world.succeed(&["export", &session, "-o", "session.jsonl"]), "");
    assert_eq!(world.succeed(&["export", &session]).lines().count(), 1 + 8);
    let said = succeed_elsewhere(&world, &["import", "session.jsonl"]);
    assert_eq!(plain(&world, &said), "imported 8 entries · session ID\n");
    let shown: Value = serde_json::from_str(&succeed_elsewhere(&world, &["--json", "show"])).unwrap();
    assert_eq!((&shown["status"], &shown["head"]), (&"waiting".into(), &9.into()));
    assert_eq!(shown["directory"], world.path("work").to_str().unwrap());
    assert_ne!(shown["session"], session.as_str());
    succeed_elsewhere(&world, &["verify"]);
    let sent = succeed_elsewhere(&world, &["send", "@last", "what did they say?"]);
    assert!(sent.contains(&format!("They said: {SECRET}")), "{sent}");
    succeed_elsewhere(&world, &["verify"]);
    let known = "nothing to do: this log is here already · session ID\n";
    assert_eq!(plain(&world, &succeed_elsewhere(&world, &["import", "session.jsonl"])), known);
    assert_eq!(plain(&world, &world.succeed(&["import", "session.jsonl"])), known);
    let told: Value = serde_json::from_str(&world.succeed(&["--json", "import", "session.jsonl"])).unwrap();
    assert_eq!((&told["session"], &told["new"]), (&session.as_str().into(), &false.into()));
    assert_eq!(succeed_elsewhere(&world, &["--json", "ls", "--all"]).lines().count(), 1);
    assert_eq!(world.kinds(&session).len(), 8, "the original is as it was");
    // And back: what it has become is a session of its own here.
    std::fs::write(world.path("back.jsonl"), succeed_elsewhere(&world, &["export"])).unwrap();
    assert!(world.succeed(&["import", "back.jsonl"]).starts_with("imported 13 entries"));
    assert!(world.succeed(&["send", "@last", "go on"]).contains("The third turn."));
    world.succeed(&["verify", "--all"]);
}

#[test]
fn an_export_that_was_damaged_is_refused_with_what_is_wrong_and_nothing_is_stored() {
    let world = World::new();
    let session = record(&world);
    let whole = world.succeed(&["export", &session]);
    let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let check = |what: &str, lines: &[String], said: &str| {
        std::fs::write(world.path("damaged.jsonl"), lines.join("\n")).unwrap();
        let ran = elsewhere(&world, &["import", "damaged.jsonl"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{what}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: nothing was imported: "), "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{what}: {}", ran.stderr);
        assert_eq!(succeed_elsewhere(&world, &["--json", "ls", "--all"]), "", "{what}");
    };
    let with = |at: usize, from: &str, to: &str| {
        let mut changed = lines.clone();
        assert!(changed[at].contains(from), "{}", changed[at]);
        changed[at] = changed[at].replacen(from, to, 1);
        changed
    };
    let record = with(5, r#"\"input\":"#, r#"\"input\":1"#);
    check("a changed record", &record, "entry 5: the hash does not follow from the one before");
    let content = with(6, "heliotrope", "chrysoprase");
    check("a changed content", &content, "entry 6: the content is not the one the record names");
    let kind = with(6, r#""kind":"tool_step""#, r#""kind":"model_step""#);
    check("a changed kind", &kind, "entry 6: its kind or time is not the record's");
    let begin = with(1, r#""kind":"created""#, r#""kind":"message""#);
    check("a changed beginning", &begin, "the log does not begin with the making of a session");
    let mut emptied: Value = serde_json::from_str(&lines[2]).unwrap();
    emptied.as_object_mut().unwrap().remove("content");
    let mut without = lines.clone();
    without[2] = emptied.to_string();
    check("content that is gone", &without, "entry 2: the content is gone, and no entry redacts it");
    let mut dropped = lines.clone();
    dropped.remove(4);
    check("a dropped line", &dropped, "entry 5 follows entry 3");
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    check("swapped lines", &swapped, "entry 5 follows entry 3");
    let mut doubled = lines.clone();
    doubled.insert(4, lines[4].clone());
    check("a doubled line", &doubled, "entry 4 follows entry 4");
    let cut = "its header names 8 entries and another end than it has: it was cut off or changed";
    check("a cut file", &lines[..6], cut);
    check("nothing but a header", &lines[..1], cut);
    check("another head", &with(0, r#""head":8"#, r#""head":7"#), cut.replace('8', "7").as_str());
    let mut cut_line = lines.clone();
    cut_line[8].truncate(60);
    check("a line that was cut", &cut_line, "line 9 is not a line of an export");
    let second = [lines.clone(), vec![lines[0].clone()]].concat();
    check("a second header", &second, "line 10 is a second header");
    check("no header", &lines[1..], "it does not begin with a header");
    let newer = with(0, "longhaul-session/1\"", "longhaul-session/2\",\"sealed\":true");
    let said = "its format is \"longhaul-session/2\", and this program reads \"longhaul-session/1\"";
    check("a newer format", &newer, said);
    check("something else", &["{\"a\": 1}".to_owned()], "line 1 is not a line of an export");
    check("no JSON", &["\u{7f}ELF".to_owned()], "line 1 is not a line of an export");
    check("an empty file", &[], "it is empty");
    assert_eq!(
        refused(&world, &["import", "none.jsonl"]),
        "error: none.jsonl cannot be read: No such file or directory (os error 2)"
    );
    std::fs::write(world.path("whole.jsonl"), lines.join("\n")).unwrap();
    succeed_elsewhere(&world, &["import", "whole.jsonl"]);
}

/// An output that is too long for the model to see whole, then a look at its middle.
fn long_output(read: &str) -> String {
    format!(
        "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"bash\"\n\
         arguments = {{ command = \"seq 1 40000\" }}\n[[turn.step]]\ntext = \"Long.\"\n\
         [[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"read\"\n\
         arguments = {{ path = \"{read}\", offset = 20000, limit = 3 }}\n\
         [[turn.step]]\ntext = \"The middle: {{{{last_result}}}}\"\n"
    )
}

/// Records a session with an artifact and returns its id and the artifact's digest.
fn record_artifact(world: &World) -> (String, String) {
    let session = world.create(&long_output("none"), &[]);
    world.succeed(&["resume", &session]);
    let artifact = world.log(&session).iter().find_map(|entry| {
        let items = entry["content"]["items"].as_array()?;
        items.iter().find_map(|item| item["artifact"].as_str().map(str::to_owned))
    });
    (session, artifact.unwrap())
}

#[test]
fn a_redacted_output_is_not_kept_apart_either() {
    let world = World::new();
    let (session, artifact) = record_artifact(&world);
    let kept = || world.kept.ask("SELECT count(*) FROM artifacts");
    assert_eq!(kept(), [1]);
    let holds = |entry: &&serde_json::Value| entry.to_string().contains(&artifact);
    let n = world.log(&session).iter().find(holds).unwrap()["record"]["n"].to_string();
    world.succeed(&["redact", &session, &n]);
    assert_eq!(kept(), [0]);
    world.succeed(&["verify", &session]);
}

#[test]
fn artifacts_travel_with_the_session() {
    let world = World::new();
    let (session, artifact) = record_artifact(&world);
    world.succeed(&["export", &session, "-o", "session.jsonl"]);
    let text = std::fs::read_to_string(world.path("session.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let damaged = |lines: &[&str], said: &str| {
        std::fs::write(world.path("damaged.jsonl"), lines.join("\n")).unwrap();
        let ran = elsewhere(&world, &["import", "damaged.jsonl"]);
        assert_eq!(ran.code, 1, "{}", ran.stdout);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert_eq!(succeed_elsewhere(&world, &["--json", "ls", "--all"]), "");
    };
    let (last, rest) = lines.split_last().unwrap();
    damaged(rest, &format!("entry 6 names the artifact {artifact}, which is not in it"));
    damaged(&[rest, &[&last.replacen("20000", "20001", 1)]].concat(), "the artifact is damaged");
    succeed_elsewhere(&world, &["import", "session.jsonl"]);
    world.write("script.toml", &long_output(&format!("artifact:{artifact}")));
    let sent = succeed_elsewhere(&world, &["send", "@last", "and the middle?"]);
    assert!(sent.contains("[lines 20000 to 20002 of 40001; "), "{sent}");
}

#[test]
fn an_import_that_was_cut_short_is_completed_by_the_next() {
    let world = World::new();
    let (session, artifact) = record_artifact(&world);
    world.succeed(&["export", &session, "-o", "session.jsonl"]);
    succeed_elsewhere(&world, &["import", "session.jsonl"]);
    let database = rusqlite::Connection::open(world.path("elsewhere/sessions.db")).unwrap();
    let forget = "DELETE FROM artifact_uses; DELETE FROM artifacts";
    database.execute_batch(forget).unwrap();
    drop(database);
    assert!(succeed_elsewhere(&world, &["import", "session.jsonl"]).starts_with("nothing to do"));
    world.write("script.toml", &long_output(&format!("artifact:{artifact}")));
    let sent = succeed_elsewhere(&world, &["send", "@last", "and the middle?"]);
    assert!(sent.contains("[lines 20000 to 20002 of 40001; "), "{sent}");
}

#[test]
fn the_export_of_a_fork_has_its_beginning_too() {
    let world = World::new();
    let session = record(&world);
    let forked = world.run(&["fork", &session, "--at", "6", "and now?"]);
    assert_eq!(forked.code, 0, "{}", forked.stderr);
    let fork = world.kinds("@last");
    world.succeed(&["export", "@last", "-o", "fork.jsonl"]);
    succeed_elsewhere(&world, &["import", "fork.jsonl"]);
    succeed_elsewhere(&world, &["verify"]);
    let text = succeed_elsewhere(&world, &["--json", "log"]);
    assert_eq!(text.lines().count(), fork.len() + 1);
    assert!(succeed_elsewhere(&world, &["log"]).contains(SECRET));
    assert!(succeed_elsewhere(&world, &["send", "@last", "go on"]).contains("The third turn."));
}

#[test]
fn what_was_redacted_is_gone_from_everywhere() {
    let world = World::new();
    let session = record(&world);
    assert_ne!(world.kept.holding(SECRET), Vec::<String>::new());
    assert_eq!(plain(&world, &world.succeed(&["redact", &session, "6"])), "1 entry redacted · session ID\n");
    assert_eq!(world.kept.holding(SECRET), Vec::<String>::new());
    let log = world.succeed(&["log", &session]);
    assert!(!log.contains(SECRET) && log.lines().nth(5).unwrap().ends_with("[redacted]"), "{log}");
    world.succeed(&["export", &session, "-o", "session.jsonl"]);
    assert!(!std::fs::read_to_string(world.path("session.jsonl")).unwrap().contains(SECRET));
    world.succeed(&["verify", &session]);
    let sent = world.succeed(&["send", &session, "what did they say?"]);
    assert!(sent.contains("They said: [redacted]"), "{sent}");
    world.succeed(&["verify", &session]);
    succeed_elsewhere(&world, &["import", "session.jsonl"]);
    succeed_elsewhere(&world, &["verify"]);
    let sent = succeed_elsewhere(&world, &["send", "@last", "what did they say?"]);
    assert!(sent.contains("They said: [redacted]"), "{sent}");
}

#[test]
fn a_message_is_redacted_while_a_worker_runs_the_session() {
    let world = World::new();
    let script = RECORDED.replace("cat secret.txt", "echo up > up; while [ ! -e go ]; do sleep 0.05; done");
    let session = world.create(&script, &[]);
    let running = world.start(&["resume", &session]);
    until_file_says(&world.work("up"), "up");
    world.succeed(&["send", &session, &format!("it is {SECRET}"), "--detach"]);
    let queued = world.log(&session).last().unwrap()["record"]["n"].to_string();
    world.succeed(&["redact", &session, &queued]);
    std::fs::write(world.work("go"), "").unwrap();
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(!world.succeed(&["log", &session]).contains(SECRET));
    world.succeed(&["verify", &session]);
}

#[test]
fn an_export_does_not_write_over_a_file() {
    let world = World::new();
    let session = record(&world);
    world.write("mine", "mine");
    let said = refused(&world, &["export", &session, "-o", "mine"]);
    assert_eq!(said, "error: mine cannot be written; it must not exist yet: File exists (os error 17)");
    assert_eq!(std::fs::read_to_string(world.path("mine")).unwrap(), "mine");
}

#[test]
fn an_export_that_finds_no_room_is_told_and_leaves_no_part_of_it() {
    let world = World::new();
    let (session, _) = record_artifact(&world);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Running::start_into(world.command(&["export", &session]), Stdio::from(full)).finish();
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "error: the export could not be written to the end: No space left on device (os error 28)\n"
    );
    let mut limited = world.command(&[]);
    let program = limited.get_program().to_owned();
    limited = std::process::Command::new("/bin/bash");
    // The signal of the limit is ignored, so that writing fails as it does on a full disk.
    let line = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --store \"$1\" export \"$2\" -o full.jsonl";
    limited.arg("-c").arg(line).arg(program).arg(world.kept.address()).arg(&session);
    limited.current_dir(world.root());
    let ran = Running::start(limited).finish();
    assert_eq!(ran.code, 1);
    let said =
        "error: full.jsonl could not be written to the end, and was removed: File too large (os error 27)\n";
    assert_eq!(ran.stderr, said);
    assert!(!world.path("full.jsonl").exists());
}
