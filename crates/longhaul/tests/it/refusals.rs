//! What cannot be done: the exit code, and a sentence on standard error that says what happened, why, and
//! what to do.

use longhaul_test_postgres::leaves_out;
use rusqlite::Connection;

use crate::plain::plain;
use crate::world::{Running, World};

const SCRIPT: &str = "[[turn]]\n[[turn.step]]\ntext = \"Fine.\"\n";

/// Checks that a command is refused, and what is said.
fn check(world: &World, args: &[&str], code: i32, said: &str) {
    let ran = world.run(args);
    assert_eq!((ran.code, plain(world, &ran.stderr).trim_end()), (code, said), "{args:?}");
    assert_eq!(ran.stdout, "", "{args:?}");
}

#[test]
fn a_session_that_is_not_there_is_not_found() {
    let world = World::new();
    let none = "error: there is no session in ROOT/home yet; start one with `longhaul run`";
    for command in ["resume", "show", "log", "verify", "interrupt"] {
        check(&world, &[command], 1, none);
    }
    world.create(SCRIPT, &[]);
    let unknown = "error: there is no session \"nope\" in ROOT/home; `longhaul ls --all` lists what there is";
    for args in [&["resume", "nope"][..], &["send", "nope", "x"], &["verify", "nope"]] {
        check(&world, args, 1, unknown);
    }
}

#[test]
fn a_prefix_that_names_several_sessions_is_refused_with_their_ids() {
    let world = World::new();
    let ids = [world.create(SCRIPT, &[]), world.create(SCRIPT, &[])];
    let ran = world.run(&["show", "0"]);
    assert_eq!(ran.code, 1);
    let said = "error: \"0\" names several sessions: ID, ID; give more of the id\n";
    assert_eq!(plain(&world, &ran.stderr), said);
    assert!(ids.iter().all(|id| ran.stderr.contains(id)), "{}", ran.stderr);
    assert_eq!(world.show(&ids[0])["session"], ids[0].as_str());
}

#[test]
fn a_run_that_cannot_begin_leaves_no_session() {
    let world = World::new();
    world.write("script.toml", SCRIPT);
    world.write("bad.toml", "[[turn]]\n[[turn.step]]\ntxt = \"Fine.\"\n");
    let run = |more: &[&str], said: &str| check(&world, &[&["run"], more].concat(), 1, said);
    run(
        &["--script", "none.toml", "x"],
        "error: the script none.toml cannot be read; --script names a TOML file: No such file or directory (os error 2)",
    );
    run(
        &["--script", "bad.toml", "x"],
        "error: cannot play the script ROOT/bad.toml: TOML parse error at line 3, column 1\n  \
         |\n3 | txt = \"Fine.\"\n  | ^^^\nunknown field `txt`, expected one of `reasoning`, `text`, `call`, `fail`, \
         `usage`, `finish`, `repeat`, `delay_ms`, `first_delay_ms`",
    );
    run(
        &["--script", "script.toml", "--dir", "none", "x"],
        "error: the working directory none cannot be used; choose one with --dir: No such file or directory (os error 2)",
    );
    run(
        &["--script", "script.toml", "--dir", "script.toml", "x"],
        "error: ROOT/script.toml is not a directory; choose one with --dir",
    );
    run(&["--script", "script.toml", " "], "error: there is nothing to do: the message is empty");
    let no_objective = "error: there is nothing to do: the objective is empty";
    run(&["--script", "script.toml", "--goal", " "], no_objective);
    run(
        &["--script", "script.toml", "--deny", "bsh", "x"],
        "error: --deny names no tool: \"bsh\"; the tools are bash, create_goal, edit, get_goal, glob, grep, read, update_goal, write",
    );
    assert_eq!(world.succeed(&["--json", "ls", "--all"]), "");
}

#[test]
fn what_the_rules_forbid_says_what_is_possible() {
    let world = World::new();
    let session = world.create(SCRIPT, &[]);
    world.succeed(&["resume", &session]);
    check(&world, &["send", &session, "  "], 1, "error: there is nothing to send: the message is empty");
    check(
        &world,
        &["interrupt", &session],
        1,
        "error: this is not possible while the session is waiting: send it a message with `longhaul send`, or set a goal with `longhaul goal set`",
    );
    let long = "x".repeat(129);
    check(
        &world,
        &["send", &session, "x", "--request-id", &long],
        1,
        "error: a request id is 1 to 128 printable ASCII characters",
    );
    assert_eq!(world.show(&session)["head"], 6, "nothing was changed");
}

#[test]
fn a_script_that_is_gone_fails_the_session_and_it_goes_on_when_it_is_back() {
    let world = World::new();
    let session = world.create(SCRIPT, &[]);
    std::fs::remove_file(world.path("script.toml")).unwrap();
    let ran = world.run(&["resume", &session]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    insta::assert_snapshot!(plain(&world, &ran.stdout), @r#"
    failed: cannot read the script ROOT/script.toml: No such file or directory (os error 2). Check the path and its permissions.
      Mend what the message names, then send a message to go on.
    not done · 0 in, 0 out, DURATION of work
      go on with: longhaul send ID "try again"
    "#);
    world.write("script.toml", SCRIPT);
    assert_eq!(world.run(&["send", &session, "again"]).code, 0);
}

#[test]
fn a_home_that_cannot_be_used_is_named() {
    if leaves_out("a file in its home is damaged, or another program's") {
        return;
    }
    let world = World::new();
    world.write("file", "");
    let check_home = |home: &str, said: &str| {
        let ran = Running::start(world.bare(&["--home", home, "ls"])).finish();
        assert_eq!((ran.code, plain(&world, &ran.stderr).trim_end()), (1, said));
    };
    check_home(
        "file/home",
        "error: the home of the sessions, file/home, cannot be made; use --home for another: Not a directory (os error 20)",
    );
    let garbage = world.path("garbage");
    std::fs::create_dir(&garbage).unwrap();
    std::fs::write(garbage.join("sessions.db"), "no database ".repeat(500)).unwrap();
    check_home(
        "garbage",
        "error: ROOT/garbage/sessions.db is damaged or not a database (file is not a database); stop all processes \
         that use it, copy the file with its -wal and -shm neighbours, then restore a backup or salvage the copy \
         with `sqlite3 <copy> .recover`",
    );
    let foreign = world.path("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let database = Connection::open(foreign.join("sessions.db")).unwrap();
    database.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(database);
    check_home(
        "foreign",
        "error: ROOT/foreign/sessions.db belongs to another program; choose another place for Longhaul's database",
    );
}

#[test]
fn a_database_of_a_newer_program_is_left_alone() {
    if leaves_out("its file says that it is newer") {
        return;
    }
    let world = World::new();
    world.create(SCRIPT, &[]);
    let path = world.path("home/sessions.db");
    let database = Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 9).unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    let said = "error: ROOT/home/sessions.db has schema version 9, this program knows up to 1; use the newer program \
                that wrote it, or another database";
    check(&world, &["ls"], 1, said);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_log_that_was_tampered_with_is_told_from_a_sound_one() {
    let world = World::new();
    let (sound, broken) = (world.create(SCRIPT, &[]), world.create(SCRIPT, &[]));
    world.succeed(&["resume", &broken]);
    let tamper = "UPDATE entries SET at = at + 1 WHERE kind = 'model_step' RETURNING n";
    assert_eq!(world.kept.ask(tamper), [5]);
    let ran = world.run(&["verify", &broken]);
    let said = format!("{broken}  entry 5: its kind or time is not the record's\n");
    assert_eq!((ran.code, ran.stdout, ran.stderr.as_str()), (1, said.clone(), ""));
    let all = world.run(&["verify", "--all"]);
    assert_eq!(all.code, 1);
    assert!(all.stdout.contains(&said) && all.stdout.ends_with("2 sessions, 1 broken\n"), "{}", all.stdout);
    assert!(all.stdout.contains(&format!("{sound}  ok, 2 entries")), "{}", all.stdout);
    let told = world.run(&["--json", "verify", &broken]);
    assert_eq!(told.code, 1);
    assert!(told.stdout.contains("\"problems\":[\"entry 5: "), "{}", told.stdout);
}

#[test]
fn sessions_are_kept_where_the_environment_says() {
    if leaves_out("it is about homes") {
        return;
    }
    let world = World::new();
    let kept = |set: &[(&str, &str)]| {
        let mut command = world.bare(&["ls"]);
        command.env_remove("HOME");
        for (name, value) in set {
            command.env(name, world.path(value));
        }
        let ran = Running::start(command).finish();
        plain(&world, &format!("{}{}", ran.stdout, ran.stderr))
    };
    let in_home = |home: &str| format!("No sessions in ROOT/{home}. Start one with `longhaul run`.\n");
    assert_eq!(kept(&[("HOME", "me")]), in_home("me/.local/share/longhaul"));
    assert_eq!(kept(&[("HOME", "me"), ("XDG_DATA_HOME", "data")]), in_home("data/longhaul"));
    assert_eq!(kept(&[("LONGHAUL_HOME", "mine"), ("XDG_DATA_HOME", "data")]), in_home("mine"));
    let nowhere =
        "error: there is no place for sessions: neither HOME nor LONGHAUL_HOME is set; use --home\n";
    assert_eq!(kept(&[]), nowhere);
}

#[test]
fn wrong_usage_is_told_from_errors() {
    let world = World::new();
    let wrong: [&[&str]; 6] = [
        &[],
        &["bogus"],
        &["send", "@last"],
        &["run"],
        &["run", "--script", "x", "--max-steps", "0", "x"],
        &["log", "--tail", "1", "--after", "1"],
    ];
    for args in wrong {
        let ran = world.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert!(ran.stderr.contains("--help"), "{args:?}: {}", ran.stderr);
    }
    assert!(!world.path("home").exists(), "nothing was made");
    assert!(world.succeed(&["--help"]).contains("Exit codes: 0 complete"));
    assert!(world.succeed(&["--version"]).starts_with("longhaul "));
}

#[test]
fn a_run_without_any_model_says_how_to_choose_one() {
    let world = World::new();
    let ran = world.run(&["run", "x"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    for way in ["longhaul.toml", "--manifest", "--model", "--script", "run --help"] {
        assert!(ran.stderr.contains(way), "{way}: {}", ran.stderr);
    }
    assert!(!world.path("home/sessions.db").exists() || world.succeed(&["ls"]).contains("No sessions"));
}

#[test]
fn a_run_with_a_manifest_that_cannot_be_used_leaves_no_session() {
    let world = World::new();
    world.write("faulty.toml", "[model]\nprovider = \"openai-cat\"\nname = \"m\"\n");
    check(
        &world,
        &["run", "--manifest", "faulty.toml", "x"],
        1,
        "error: faulty.toml:2:12: `openai-cat` is not known here\n  | provider = \"openai-cat\"\n  |            \
         ^^^^^^^^^^^^\n  did you mean `openai-chat`?",
    );
    world.write(
        "keyless.toml",
        "[model]\nprovider = \"openai-chat\"\nname = \"m\"\nkey = { file = \"none\" }\n",
    );
    check(
        &world,
        &["run", "--manifest", "keyless.toml", "x"],
        1,
        "error: the file ROOT/none cannot be read: No such file or directory (os error 2); write the key into it, or \
         change `key` of [model]",
    );
    let confined = format!(
        "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n\n[agent]\ndirectory = \"work\"\n\n\
         [[scope.allow]]\ntarget = {:?}\npermission = \"write\"\n",
        world.path("work")
    );
    world.write("script.toml", SCRIPT);
    world.write("confined.toml", &confined);
    check(
        &world,
        &["run", "--manifest", "confined.toml", "--dir", "/usr", "x"],
        1,
        "error: the scope of the manifest does not let the agent read /usr; choose another directory with --dir, or allow this one with [[scope.allow]]",
    );
    assert_eq!(world.succeed(&["--json", "ls", "--all"]), "");
}

#[test]
fn a_home_that_may_only_be_read_is_named() {
    if leaves_out("its home may only be read") {
        return;
    }
    let world = World::new();
    let root = world.root();
    let run_in = |home: &str| Running::start(world.bare(&["--home", home, "ls"])).finish();
    // Not even root may write here.
    let system = run_in("/proc/sys");
    assert_eq!(system.code, 1);
    insta::assert_snapshot!(plain(&world, &system.stderr), @"error: /proc/sys/sessions.db cannot be opened for writing (unable to open database file: /proc/sys/sessions.db); check that its directory exists and that this user may write to it and to the file");
    assert_eq!(run_in("/sys/longhaul").code, 1);
    // A home of one's own that was made read-only binds all but root, who becomes nobody for it.
    world.create(SCRIPT, &[]);
    let set = |path: &str, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(world.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::copy(env!("CARGO_BIN_EXE_longhaul"), root.join("longhaul")).unwrap();
    let open = [(".", 0o755), ("longhaul", 0o755), ("work", 0o755), ("script.toml", 0o644)];
    let closed = [("home/sessions.db", 0o444), ("home", 0o555)];
    open.iter().chain(&closed).for_each(|(path, mode)| set(path, *mode));
    let line = "exec ./longhaul --home home run --script script.toml --dir work x";
    let as_nobody = ["--reuid", "65534", "--clear-groups", "sh", "-c", line];
    let command = if rustix::process::geteuid().is_root() {
        world.other("setpriv", &as_nobody)
    } else {
        world.other("sh", &["-c", line])
    };
    let ran = Running::start(command).finish();
    set("home", 0o755);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(plain(&world, &ran.stderr), @"error: ROOT/home/sessions.db cannot be opened for writing (it may only be read); check that its directory exists and that this user may write to it and to the file");
    assert_eq!(world.succeed(&["--json", "ls", "--all"]).lines().count(), 1);
}

#[test]
fn a_directory_that_may_not_be_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let set = |path: &str, mode| {
        std::fs::set_permissions(world.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    world.write("script.toml", SCRIPT);
    let agent = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n[agent]\ndirectory = \"work\"\n";
    world.write("agent.toml", agent);
    std::fs::copy(env!("CARGO_BIN_EXE_longhaul"), world.path("longhaul")).unwrap();
    let modes =
        [(".", 0o755), ("longhaul", 0o755), ("script.toml", 0o644), ("agent.toml", 0o644), ("work", 0o0)];
    modes.iter().for_each(|(path, mode)| set(path, *mode));
    // Root may read everything: it becomes nobody.
    let as_nobody = |line: &str| {
        let line = format!("exec ./longhaul {line}");
        let told = ["--reuid", "65534", "--clear-groups", "sh", "-c", &line];
        let shell = ["-c", &line];
        let is_root = rustix::process::geteuid().is_root();
        let command = if is_root { world.other("setpriv", &told) } else { world.other("sh", &shell) };
        Running::start(command).finish().stderr
    };
    let run = as_nobody("run --ephemeral --script script.toml --dir work x");
    let said = "error: the working directory ROOT/work cannot be read; choose one with --dir: Permission denied \
                (os error 13)\n";
    assert_eq!(plain(&world, &run), said);
    let check = plain(&world, &as_nobody("agent check agent.toml"));
    assert!(check.contains("ROOT/work cannot be read: Permission denied"), "{check}");
    set("work", 0o755);
}

#[test]
fn a_name_by_which_no_session_could_be_found_is_refused() {
    let world = World::new();
    let session = world.create(SCRIPT, &[]);
    let run = |name: &str, said: &str| {
        check(&world, &["run", "--script", "script.toml", "--name", name, "x"], 1, said);
        check(&world, &["rename", &session, name], 1, said);
    };
    let kept =
        "error: a name does not begin with @: @last and its like are kept for the program; choose another";
    run("@last", kept);
    run("@me", kept);
    run(
        &session,
        "error: a name is not the id of a session: it would hide the one that has the id; choose another",
    );
    run("", "error: a name has 1 to 100 characters, and none of them is a control character");
    assert_eq!(world.succeed(&["--json", "ls", "--all"]).lines().count(), 1);
    // What could be the beginning of an id is a name like others, and comes first.
    let named = world.create(SCRIPT, &["--name", &session[..1]]);
    assert_eq!(world.show(&session[..1])["session"], named.as_str());
    assert_eq!(world.show(&session)["session"], session.as_str());
}
