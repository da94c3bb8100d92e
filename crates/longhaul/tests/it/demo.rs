//! The demo does what it promises, on machines with and without Python.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use longhaul_test_postgres::leaves_out;

use crate::world::{Ran, Running, World};

/// The programs that the demo's project needs where there is no Python.
const NEEDED: [&str; 3] = ["sh", "cat", "sleep"];

fn demo(world: &World, more: &[&str], path: Option<&Path>) -> Ran {
    let mut command = world.bare(&[&["demo", "--dir", "demo"], more].concat());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    Running::start(command).finish()
}

/// Makes a directory with only these programs.
fn without_python(world: &World) -> PathBuf {
    let programs = world.path("programs");
    std::fs::create_dir(&programs).unwrap();
    for name in NEEDED {
        let found =
            ["/bin", "/usr/bin"].iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
        symlink(found.unwrap(), programs.join(name)).unwrap();
    }
    programs
}

/// Runs the commands that the demo tells to try next.
fn try_next(world: &World, stdout: &str) {
    let program = env!("CARGO_BIN_EXE_longhaul");
    let told: Vec<&str> = stdout.lines().filter_map(|line| line.trim().strip_prefix(program)).collect();
    let looking: Vec<&&str> = told.iter().filter(|line| !line.contains("--crash")).collect();
    assert_eq!(looking.len(), 3, "{stdout}");
    for line in looking {
        let mut command = Command::new(program);
        command.args(line.split_whitespace()).current_dir(world.root());
        let ran = Running::start(command).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert!(!line.ends_with("verify") || ran.stdout.contains("ok,"), "{}", ran.stdout);
    }
}

fn mends_the_project(world: &World, path: Option<&Path>) {
    let ran = demo(world, &[], path);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let lines = |mark: &str| ran.stdout.lines().filter(|line| line.starts_with(mark)).count();
    assert_eq!((lines("  ✗ bash"), lines("  ✓ bash"), lines("  ✓ edit")), (1, 1, 1), "{}", ran.stdout);
    assert!(ran.stdout.contains("no language model is"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Done: the bug is mended and the test passes."), "{}", ran.stdout);
    try_next(world, &ran.stdout);
}

fn survives_two_kills(world: &World, path: Option<&Path>) {
    let ran = demo(world, &["--crash"], path);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    for (text, times) in [
        ("✂ SIGKILL to the worker", 2),
        ("⟳ taken over from a worker that was lost", 2),
        ("outcome unknown, not run again", 1),
        ("it was begun once", 1),
        ("verified: ok", 1),
    ] {
        assert_eq!(ran.stdout.matches(text).count(), times, "{text}: {}", ran.stdout);
    }
    let release = std::fs::read_to_string(world.path("demo/project/release.log")).unwrap();
    assert_eq!(release, "release begun\n", "it was begun once and never finished");
    try_next(world, &ran.stdout);
}

#[test]
fn the_demo_mends_a_project_and_says_how_to_look_at_it() {
    if leaves_out("a demo keeps its sessions in its own directory") {
        return;
    }
    mends_the_project(&World::new(), None);
}

#[test]
fn the_demo_works_without_python() {
    if leaves_out("a demo keeps its sessions in its own directory") {
        return;
    }
    let world = World::new();
    let programs = without_python(&world);
    mends_the_project(&world, Some(&programs));
    assert!(world.path("demo/project/sum.sh").exists());
}

#[test]
fn the_demo_with_crashes_releases_once_and_keeps_its_log() {
    if leaves_out("a demo keeps its sessions in its own directory") {
        return;
    }
    survives_two_kills(&World::new(), None);
}

#[test]
fn the_demo_with_crashes_works_without_python() {
    if leaves_out("a demo keeps its sessions in its own directory") {
        return;
    }
    let world = World::new();
    let programs = without_python(&world);
    survives_two_kills(&world, Some(&programs));
}

#[test]
fn the_demo_touches_no_directory_that_is_there() {
    if leaves_out("a demo keeps its sessions in its own directory") {
        return;
    }
    let world = World::new();
    std::fs::create_dir(world.path("demo")).unwrap();
    let ran = demo(&world, &[], None);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let said = "error: demo exists already; name a directory for the demo that does not\n";
    assert_eq!(ran.stderr, said);
}
