//! Which database the program uses, and whose sessions it drives in it.

use serde_json::Value;

use crate::world::{Ran, Running, World};

const SCRIPT: &str = "[[turn]]\n[[turn.step]]\ntext = \"Done.\"\n";

fn run(world: &World, args: &[&str], environment: Option<&str>) -> Ran {
    let mut command = world.bare(args);
    if let Some(store) = environment {
        command.env("LONGHAUL_STORE", store);
    }
    Running::start(command).finish()
}

/// Makes a session somewhere and returns its id.
fn create(world: &World, at: &[&str], environment: Option<&str>) -> String {
    world.write("script.toml", SCRIPT);
    let what = ["run", "--script", "script.toml", "--dir", "work", "--detach", "go"];
    let ran = run(world, &[at, &what].concat(), environment);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    ran.stdout.trim().to_owned()
}

fn listed(world: &World, at: &[&str], environment: Option<&str>) -> Vec<String> {
    let ran = run(world, &[&["--json", "ls"], at].concat(), environment);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let id =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["session"].as_str().unwrap().to_owned();
    ran.stdout.lines().map(id).collect()
}

#[test]
fn what_the_command_line_names_goes_before_the_environment() {
    let world = World::new();
    let by_option = create(&world, &["--store", "one.db"], Some("two.db"));
    let by_home = create(&world, &["--home", "home"], Some("two.db"));
    let by_environment = create(&world, &[], Some("sqlite:two.db"));
    assert_eq!(listed(&world, &["--store", "sqlite:one.db"], None), [by_option]);
    assert_eq!(listed(&world, &["--store", "home/sessions.db"], None), [by_home]);
    assert_eq!(listed(&world, &["--store", "two.db"], None), [by_environment]);
    assert!(world.path("one.db").is_file() && world.path("two.db").is_file());
    let ran = run(&world, &["--store", "one.db", "--home", "home", "ls"], None);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let told = run(&world, &["--store", "one.db", "doctor"], None).stdout;
    assert!(told.contains("1 session in ") && told.contains("one.db"), "{told}");
}

#[test]
fn a_manifest_names_a_store_for_all_commands_in_its_directory() {
    let world = World::new();
    let manifest = |store: &str| format!("model = 5\n[store]\n{store}\n");
    world.write("longhaul.toml", &manifest("path = \"work/kept.db\""));
    let kept = create(&world, &[], None);
    assert_eq!(listed(&world, &["--store", "work/kept.db"], None), [kept.as_str()]);
    assert_eq!(listed(&world, &[], None), [kept.as_str()]);
    let mut below = world.bare(&["ls"]);
    below.current_dir(world.path("work"));
    assert!(Running::start(below).finish().stdout.contains(&kept[..8]));
    assert!(listed(&world, &[], Some("other.db")).is_empty(), "the environment goes before");
    assert!(listed(&world, &["--home", "home"], None).is_empty());
    let told = run(&world, &["doctor"], None).stdout;
    assert!(told.contains("1 session in ") && told.contains("kept.db"), "{told}");
    world.write("longhaul.toml", &manifest("env = \"OUR_SESSIONS\""));
    let ran = run(&world, &["ls"], None);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("the variable OUR_SESSIONS") && ran.stderr.contains("--store"),
        "{}",
        ran.stderr
    );
    let mut told = world.bare(&["ls"]);
    told.env("OUR_SESSIONS", "sqlite:work/kept.db");
    assert!(Running::start(told).finish().stdout.contains(&kept[..8]));
    world.write("longhaul.toml", "[store\n");
    let ran = run(&world, &["ls"], None);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("where sessions are kept is not known"), "{}", ran.stderr);
    assert!(listed(&world, &["--store", "work/kept.db"], None) == [kept], "what is named needs no manifest");
}

#[test]
fn a_named_manifest_names_the_store_of_its_session() {
    let world = World::new();
    world.write("script.toml", SCRIPT);
    let model = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n";
    world.write("agent.toml", &format!("{model}[store]\npath = \"theirs.db\"\n"));
    let told = run(&world, &["agent", "check", "agent.toml"], None).stdout;
    assert!(told.contains("store") && told.contains("theirs.db"), "{told}");
    let args = ["run", "--manifest", "agent.toml", "--dir", "work", "--detach", "go"];
    let ran = run(&world, &args, None);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(listed(&world, &["--store", "theirs.db"], None), [ran.stdout.trim()]);
    assert!(listed(&world, &[], None).is_empty());
}

#[test]
fn an_address_that_names_no_store_is_refused_and_its_password_not_repeated() {
    let world = World::new();
    for (args, environment) in [
        (&["--store", "mysql://me:hush@host/db", "ls"][..], None),
        (&["ls"], Some("mysql://me:hush@host/db")),
        (&["doctor"], Some("mysql://me:hush@host/db")),
    ] {
        let ran = run(&world, args, environment);
        assert_eq!(ran.code, 1);
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("mysql://") && said.contains("give a path"), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}

#[test]
fn sessions_of_another_place_are_left_to_its_workers() {
    let world = World::new();
    let (here, there) = (world.create(SCRIPT, &[]), world.create(SCRIPT, &["--place", "there"]));
    world.succeed(&["worker", "--until-idle"]);
    assert_eq!(world.show(&here)["status"], "waiting");
    assert_eq!(world.show(&there)["status"], "running");
    let mut watching = world.start(&["resume", &there, "--after", "0"]);
    watching.wait_for("the directory of this session is at there");
    world.succeed(&["worker", "--until-idle", "--place", "there"]);
    let ran = watching.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("Done."), "{}", ran.stdout);
    assert_eq!(world.show(&there)["status"], "waiting");
}
