//! No room: the disk is full, or a file may not grow further. What is committed stays, what happened is
//! said, and once there is room the session goes on.

use longhaul_test_postgres::leaves_out;

use crate::plain::plain;
use crate::world::{Ran, Running, World};

/// Sixteen outputs of 16 KiB that no compression makes smaller than a file may become.
const MUCH: &str = r#"
[[turn]]
[[turn.step]]
text = "I write much."
repeat = 16
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo {n} >> calls.txt; head -c 12000 /dev/urandom | base64" }
[[turn.step]]
text = "That was much."
"#;

/// The size that no file may exceed, in blocks of 512 bytes: room for a few steps.
const BLOCKS: u32 = 500;

/// Runs a command of the shell in the root, in which `$longhaul` is the program with its home.
fn shell(world: &World, line: &str) -> Ran {
    let mut command = world.other("sh", &["-c", line]);
    command.env("longhaul", format!("{} --home home", env!("CARGO_BIN_EXE_longhaul")));
    Running::start(command).finish()
}

/// Checks that a session that ran out of room is sound, and that it goes on without losing or repeating.
fn goes_on(world: &World) {
    let session = world.show("@last")["session"].as_str().unwrap().to_owned();
    assert_eq!(world.show(&session)["status"], "running");
    world.succeed(&["verify", "--all"]);
    assert!(world.succeed(&["resume", &session]).contains("That was much."));
    world.succeed(&["verify", "--all"]);
    let calls = std::fs::read_to_string(world.work("calls.txt")).unwrap();
    let expected: String = (1..=16).map(|n| format!("{n}\n")).collect();
    assert_eq!(calls, expected, "each call ran once");
}

#[test]
fn a_file_that_may_not_grow_stops_a_run_which_goes_on_when_it_may() {
    if leaves_out("its file may not grow") {
        return;
    }
    let world = World::new();
    world.write("script.toml", MUCH);
    let run = "$longhaul run --script script.toml --dir work go";
    let ran = shell(&world, &format!("ulimit -f {BLOCKS}; {run}"));
    assert_eq!(ran.code, 1, "{} {}", ran.stdout, ran.stderr);
    insta::assert_snapshot!(plain(&world, &ran.stderr), @"error: session ID was left in the middle; `longhaul resume ID` goes on once this is mended: ROOT/home/sessions.db: writing the database failed (disk I/O error; a quota or a limit on the size of files may be used up (ulimit -f)); check the disk and the system's log");
    goes_on(&world);
}

#[test]
fn a_home_in_which_nothing_can_be_written_is_told_before_a_session_begins() {
    if leaves_out("its file may not grow") {
        return;
    }
    let world = World::new();
    world.write("script.toml", MUCH);
    let ran = shell(&world, "ulimit -f 16; $longhaul run --script script.toml --dir work go");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(plain(&world, &ran.stderr), @"error: ROOT/home/sessions.db: writing the database failed (disk I/O error; a quota or a limit on the size of files may be used up (ulimit -f)); check the disk and the system's log");
    let doctor = shell(&world, "ulimit -f 16; $longhaul doctor");
    assert_eq!((doctor.code, doctor.stderr.as_str()), (1, ""));
    assert!(doctor.stdout.contains("\nbad store    "), "{}", doctor.stdout);
    assert_eq!(world.succeed(&["--json", "ls", "--all"]), "");
}

/// A real disk that is full: a small one in memory, where a user may have a namespace for it. Everything is
/// in one shell, as nobody else sees the disk.
#[test]
fn a_full_disk_stops_a_run_which_goes_on_when_there_is_room() {
    if leaves_out("the disk of its file is full") {
        return;
    }
    let world = World::new();
    world.write("script.toml", MUCH);
    std::fs::create_dir(world.path("home")).unwrap();
    let may = shell(&world, "unshare --user --map-root-user --mount mount -t tmpfs none home");
    if may.code != 0 {
        // The test before shows the same where a user may have no disk of their own.
        return;
    }
    let all = "mount -t tmpfs -o size=500k none home; \
               $longhaul run --script script.toml --dir work go; echo exit $?; \
               $longhaul verify; mount -o remount,size=64m home; \
               $longhaul resume | tail -n 2; $longhaul verify";
    world.write("all.sh", all);
    let ran = shell(&world, "unshare --user --map-root-user --mount sh all.sh");
    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    insta::assert_snapshot!(plain(&world, &ran.stderr), @"error: session ID was left in the middle; `longhaul resume ID` goes on once this is mended: ROOT/home/sessions.db cannot grow: the disk or its quota is full (database or disk is full); free some space, then go on: what was committed is safe");
    assert!(ran.stdout.contains("\nexit 1\n") && ran.stdout.contains("That was much."), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("  ok, ").count(), 2, "{}", ran.stdout);
    let calls = std::fs::read_to_string(world.work("calls.txt")).unwrap();
    assert_eq!(calls.lines().count(), 16, "each call ran once: {calls}");
}
