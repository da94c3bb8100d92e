//! Where the program runs and who reads it: narrow terminals, closed pipes, shells, homes that do not work.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::plain::plain;
use crate::world::{Ran, Running, World, until_file_says};

const COLUMNS: usize = 40;

/// Long names, long commands, long answers, and a tool that goes on until it is let go.
const LONG: &str = r#"
[[turn]]
[[turn.step]]
text = "I look into every corner of this directory, which takes a while and more than one line to say."
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo 'a long line that says what there is to say about it'; echo two; echo three" }
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo 'it went wrong in a way that takes many words to describe' >&2; exit 3" }
[[turn.step]]
text = "Done."
[[turn]]
[[turn.step]]
text = "This takes long."
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo up > up; while [ ! -e go ]; do sleep 0.05; done" }
[[turn.step]]
text = "Over."
"#;

/// Runs a command on a terminal of 40 columns, and returns what it shows, without colours and carriage returns.
fn on_a_narrow_terminal(world: &World, line: &str) -> Ran {
    let (program, store) = (env!("CARGO_BIN_EXE_longhaul"), world.kept.address());
    let inner =
        format!("stty cols {COLUMNS} rows 20; exec '{program}' --store '{store}' --color never {line}");
    let mut command = world.other("script", &["--quiet", "--return", "--command", &inner, "/dev/null"]);
    command.env("TERM", "xterm");
    let ran = Running::start(command).finish();
    Ran { stdout: ran.stdout.replace("\r\n", "\n"), ..ran }
}

/// Returns a text without the sequences that steer a terminal.
fn unsteered(text: &str) -> String {
    console::strip_ansi_codes(text).into_owned()
}

fn too_wide(text: &str) -> Vec<&str> {
    text.lines().filter(|line| console::measure_text_width(line) > COLUMNS).collect()
}

/// Records a session with a long name.
fn record(world: &World) -> String {
    let session =
        world.create(LONG, &["--name", "the session that has a name of more than forty characters"]);
    world.succeed(&["resume", &session]);
    session
}

#[test]
fn tables_fit_a_narrow_terminal() {
    let world = World::new();
    let session = record(&world);
    world.succeed(&[
        "send",
        &session,
        "and now, something that is much longer than a narrow line",
        "--detach",
    ]);
    let words = "a message that waits in the queue and is longer than the terminal is wide";
    world.succeed(&["send", &session, words, "--detach"]);
    for line in ["ls", "log", "queue", "top --once", "diff @last @last"] {
        let ran = on_a_narrow_terminal(&world, line);
        let text = unsteered(&ran.stdout);
        assert_eq!((ran.code, too_wide(&text)), (0, Vec::new()), "{line}:\n{text}");
        assert!(!text.is_empty(), "{line}");
    }
    let shown = unsteered(&on_a_narrow_terminal(&world, "show").stdout);
    assert!(shown.contains(&session), "an id is never cut: {shown}");
}

#[test]
fn a_run_fits_a_narrow_terminal() {
    let world = World::new();
    let session = world.create(LONG, &[]);
    let ran = on_a_narrow_terminal(&world, &format!("resume {session} --after 0"));
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    let text = unsteered(&ran.stdout);
    // Sentences are for the terminal to break; all else fits, however often it was drawn over.
    let is_sentence = |line: &str| line.contains("look into every") || line.starts_with("done");
    let drawn: Vec<&str> = text.split(['\r', '\n']).filter(|line| !is_sentence(line)).collect();
    assert_eq!(too_wide(&drawn.join("\n")), Vec::<&str>::new(), "{text}");
    assert!(text.contains("✓ bash echo 'a long") && text.contains("✗ bash echo 'it went"), "{text}");
    assert!(text.contains("Done."), "{text}");
}

#[test]
fn what_is_not_read_to_its_end_is_no_error() {
    let world = World::new();
    let session = record(&world);
    world.succeed(&["send", &session, "more", "--detach"]);
    world.succeed(&["send", &session, "and more", "--detach"]);
    let all: [&[&str]; 9] = [
        &["export"],
        &["diff", &session, &session],
        &["--json", "diff", &session, &session],
        &["queue"],
        &["top", "--once"],
        &["--json", "top"],
        &["doctor"],
        &["completions", "bash"],
        &["attach", "--after", "0"],
    ];
    for args in all {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Running::start_into(world.command(args), Stdio::from(writer)).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn top_shows_what_is_busy_and_who_is_alive() {
    let world = World::new();
    assert_eq!(world.succeed(&["top", "--once"]), "0 sessions busy · 0 workers alive\n");
    let session = record(&world);
    assert_eq!(world.succeed(&["top"]), "0 sessions busy · 0 workers alive\n", "no terminal: it looks once");
    let running = world.start(&["send", &session, "go"]);
    until_file_says(&world.work("up"), "up");
    let told: Value = serde_json::from_str(&world.succeed(&["--json", "top"])).unwrap();
    assert_eq!(
        (&told["sessions"][0]["session"], &told["sessions"][0]["owned"]),
        (&session.into(), &true.into())
    );
    assert_eq!(told["workers"][0]["pid"], running.pid().as_raw_pid());
    let shown = world.succeed(&["top", "--once"]);
    assert!(shown.starts_with("1 session busy · 1 worker alive\n"), "{shown}");
    assert!(shown.contains("running") && shown.contains("turn 2    step 1"), "{shown}");
    assert!(shown.lines().last().unwrap().starts_with("worker "), "{shown}");
    running.kill();
    world.until_all_are_dead();
    let shown = world.succeed(&["top", "--once"]);
    assert!(shown.starts_with("1 session busy · 0 workers alive\n"), "{shown}");
    assert!(shown.contains("stopped in the middle"), "{shown}");
}

#[test]
fn top_is_left_with_a_key() {
    let world = World::new();
    record(&world);
    let (program, store) = (env!("CARGO_BIN_EXE_longhaul"), world.kept.address());
    let inner = format!("exec '{program}' --store '{store}' top");
    let mut command = world.other("script", &["--quiet", "--return", "--command", &inner, "/dev/null"]);
    command.env("TERM", "xterm");
    let mut running = Running::start(command);
    running.wait_for("0 sessions busy");
    let workers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let here = std::fs::read_link(entry.path().join("cwd")).ok()? == world.root();
        (here && line.starts_with(program.as_bytes())).then_some(pid)
    });
    let pids: Vec<i32> = workers.collect();
    assert_eq!(pids.len(), 1);
    rustix::process::kill_process(rustix::process::Pid::from_raw(pids[0]).unwrap(), Signal::INT).unwrap();
    assert_eq!(running.finish().code, 0);
}

#[test]
fn the_doctor_says_what_works() {
    let world = World::new();
    let said = world.succeed(&["doctor"]);
    insta::assert_snapshot!(plain(&world, &said), @"
    ok  version  longhaul 0.1.0 on linux
    ok  store    0 sessions in ROOT/home
    ok  workers  0 workers alive
    ok  model    no longhaul.toml here or above: `longhaul run` needs --manifest, --model or --script
    ok  shell    the bash tool runs commands with bash
    ok  sandbox  none: bash can do what you can do; the file tools stay in their scope
    ");
    let told = world.succeed(&["--json", "doctor"]);
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.iter().all(|finding| finding["good"] == true), "{told:?}");
}

#[test]
fn the_doctor_says_what_does_not_work() {
    let world = World::new();
    world.write("file", "");
    let check = |args: &[&str], path: &str, said: &str| {
        let mut command = world.bare(&[args, &["doctor"]].concat());
        command.env_remove("HOME").env("PATH", path);
        let ran = Running::start(command).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{}", ran.stdout);
        assert!(ran.stdout.lines().any(|line| line.starts_with(said)), "{}", ran.stdout);
    };
    let bin = "/usr/bin:/bin";
    check(
        &["--home", "file"],
        bin,
        "bad store    the home of the sessions, file, cannot be made; use --home",
    );
    check(&[], bin, "bad store    there is no place for sessions: neither HOME nor LONGHAUL_HOME is set");
    check(&["--home", "home"], "/none", "bad shell    no shell is on the path");
    std::fs::create_dir(world.path("garbage")).unwrap();
    std::fs::write(world.path("garbage/sessions.db"), "no database ".repeat(500)).unwrap();
    let damaged = format!("bad store    {} is damaged", world.path("garbage/sessions.db").display());
    check(&["--home", "garbage"], bin, &damaged);
}

#[test]
fn the_doctor_looks_at_the_model_and_its_key() {
    let world = World::new();
    let manifest = "[model]\nprovider = \"openai-chat\"\nname = \"m\"\nkey = { env = \"DOCTORS_KEY\" }\n";
    world.write("longhaul.toml", manifest);
    let look = |code: i32| {
        let mut command = world.command(&["doctor", "--offline"]);
        command.env("DOCTORS_KEY", if code == 0 { "sk-0123456789" } else { "" });
        let ran = Running::start(command).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (code, ""), "{}", ran.stdout);
        assert!(!ran.stdout.contains("0123"), "{}", ran.stdout);
        let line = ran.stdout.lines().find(|line| line.contains(" model ")).unwrap().to_owned();
        plain(&world, &line)
    };
    let good = "ok  model    openai-chat, m, at https://api.openai.com/v1, key from the variable DOCTORS_KEY, as \
                ROOT/longhaul.toml says\n";
    assert_eq!(look(0), good);
    let unset = "bad model    ROOT/longhaul.toml: the variable DOCTORS_KEY is not set, or empty; set it to the key, or \
                 change `key` of [model]\n";
    assert_eq!(look(1), unset);
    world.write("longhaul.toml", &manifest.replace("name", "nam"));
    assert!(look(1).ends_with("there is no key `nam` in `model`\n"), "{}", look(1));
}

#[test]
fn every_shell_has_its_completions() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Running::start(world.bare(&["completions", shell])).finish();
        assert_eq!((script.code, script.stderr.as_str()), (0, ""), "{shell}");
        for word in ["longhaul", "promote", "redact"] {
            assert!(script.stdout.contains(word), "{shell} does not know {word}");
        }
    }
    let script =
        world.write("longhaul.bash", &Running::start(world.bare(&["completions", "bash"])).finish().stdout);
    let checked = Command::new("bash").arg("-n").arg(script).output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    assert_eq!(Running::start(world.bare(&["completions", "tcsh"])).finish().code, 2);
    let left: Vec<_> =
        std::fs::read_dir(world.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no home was made: {left:?}");
}

#[test]
fn an_ephemeral_session_leaves_nothing_behind() {
    let world = World::new();
    world.write("script.toml", "[[turn]]\n[[turn.step]]\ntext = \"Fine.\"\n");
    let run = ["run", "--script", "script.toml", "--dir", "work", "--ephemeral", "go"];
    let ran = world.succeed(&run);
    assert!(ran.contains("Fine.") && ran.contains("done"), "{ran}");
    assert!(!world.path("home").exists() && !world.path(".local").exists());
    let refused = world.run(&[&run[..], &["--detach"]].concat());
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("cannot be used with"), "{}", refused.stderr);
}
