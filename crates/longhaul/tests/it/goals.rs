//! Goals as a person has them: set, watched, stopped, gone on with, and what the program exits with.

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::Value;

use crate::plain::plain;
use crate::world::{Ran, Running, World, has_ended, until, until_file_says};

pub(crate) const COMPLETE: &str = "[[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\narguments = { status = \"complete\", note = \"I ran it.\" }\n";
pub(crate) const SAY: &str = "[[turn.step]]\ntext = \"That is all.\"\n";
pub(crate) const TURN: &str = "[[turn]]\n";

/// A step that runs a command.
pub(crate) fn bash(command: &str) -> String {
    format!("[[turn.step]]\n[[turn.step.call]]\ntool = \"bash\"\narguments = {{ command = '{command}' }}\n")
}

/// A turn that does something and ends.
pub(crate) fn working(n: u32) -> String {
    format!("{TURN}{}[[turn.step]]\ntext = \"Part {n} is done.\"\n", bash(&format!("echo {n} >> parts")))
}

/// Runs a goal in the foreground.
pub(crate) fn pursue(world: &World, script: &str, more: &[&str]) -> Ran {
    world.write("script.toml", script);
    world.run(&[&["run", "--script", "script.toml", "--dir", "work", "--goal", "all is done"], more].concat())
}

pub(crate) fn goal_of(world: &World) -> Value {
    world.show("@last")["goal"].clone()
}

#[test]
fn a_goal_goes_on_until_its_checks_pass_and_is_complete() {
    let world = World::new();
    let script = [&working(1), TURN, COMPLETE, &bash("echo 2 >> parts"), COMPLETE, SAY].concat();
    let script = script.replace("[[turn.step]]\n", "[[turn.step]]\nusage = { input = 100, output = 10 }\n");
    let ran = pursue(&world, &script, &["--budget", "200k", "--check", "test $(wc -l < parts) -eq 2"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_snapshot!(plain(&world, &ran.stdout));
    let goal = goal_of(&world);
    assert_eq!((&goal["status"], &goal["used"]["continuations"]), (&"complete".into(), &2.into()));
    assert_snapshot!(plain(&world, &world.succeed(&["goal", "show", "@last"])));
    assert!(world.succeed(&["verify"]).contains("ok"));
}

#[test]
fn a_goal_out_of_budget_wraps_up_once_and_exits_with_3() {
    let world = World::new();
    let step = "[[turn.step]]\nusage = { input = 600, output = 1 }\n[[turn.step.call]]\ntool = \"bash\"\n\
                arguments = { command = \"true\" }\n";
    let script = [TURN, step, step, "[[turn.step]]\ntext = \"Wrapped up.\"\n", &working(9)].concat();
    let ran = pursue(&world, &script, &["--budget", "1k"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""), "{}", ran.stdout);
    let shown = plain(&world, &ran.stdout);
    assert!(shown.contains("Wrapped up.\ngoal out of budget: the token budget is used up · "), "{shown}");
    let raise = "longhaul goal budget ID --budget TOKENS (more than 1.";
    assert!(shown.contains(&format!("\n  go on with: {raise}")), "{shown}");
    assert!(plain(&world, &world.succeed(&["show"])).contains(&format!("\nnext       {raise}")));
    assert_eq!(world.kinds("@last").iter().filter(|kind| *kind == "steering").count(), 1);
    assert_eq!(goal_of(&world)["status"], "budget_limited");
    let refused = world.run(&["resume"]);
    assert_eq!(refused.code, 3, "{}{}", refused.stdout, refused.stderr);
    let told = format!("not resumed: the token budget is used up · session ID\n  go on with: {raise}");
    assert!(plain(&world, &refused.stdout).starts_with(&told), "{}", refused.stdout);
    let little = world.run(&["goal", "budget", "@last", "--budget", "1100"]);
    let told =
        format!("the budget is changed, but the token budget is used up · session ID\n  go on with: {raise}");
    assert!(little.code == 3 && plain(&world, &little.stdout).starts_with(&told), "{little:?}");
    let raised = world.run(&["goal", "budget", "@last", "--budget", "100k", "--continuations", "2"]);
    assert_eq!(raised.code, 3, "it goes on at once, for one turn more: {}{}", raised.stdout, raised.stderr);
    assert!(raised.stdout.contains("Part 9 is done."), "{}", raised.stdout);
}

#[test]
fn a_goal_that_its_model_declares_blocked_exits_with_4_and_is_resumed() {
    let world = World::new();
    let blocked = "[[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\n\
                   arguments = { status = \"blocked\", note = \"there is no key\" }\n";
    let script = [TURN, blocked, SAY, TURN, COMPLETE, SAY].concat();
    let ran = pursue(&world, &script, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (4, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("goal blocked: there is no key"), "{}", ran.stdout);
    assert!(world.succeed(&["ls"]).contains("goal blocked"));
    let resumed = world.run(&["resume"]);
    assert_eq!((resumed.code, resumed.stderr.as_str()), (0, ""), "{}", resumed.stdout);
    assert!(resumed.stdout.contains("goal complete"), "{}", resumed.stdout);
}

#[test]
fn a_goal_that_rests_says_why_and_exits_with_5() {
    let world = World::new();
    let script = [TURN, SAY, TURN, COMPLETE, SAY].concat();
    let ran = pursue(&world, &script, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (5, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("goal at rest: the last turn for it called no tool"), "{}", ran.stdout);
    let told = world.run(&["--json", "resume"]);
    let last: Value = serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((told.code, &last["goal"]["status"]), (0, &"complete".into()), "{}", told.stdout);
}

#[test]
fn what_keeps_a_goal_from_being_complete_is_said_on_the_screen() {
    let world = World::new();
    std::fs::write(world.work("rules"), "as they were\n").unwrap();
    std::fs::write(world.work("more"), "as they were\n").unwrap();
    let script = [TURN, &bash("echo else > rules; rm more"), COMPLETE, SAY].concat();
    let ran = pursue(&world, &script, &["--protect", "rules", "--protect", "more", "--continuations", "1"]);
    let said = "\n    protected: more (removed), rules (changed)\n";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
    let manifest = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n[agent]\ndirectory = \"work\"\n\
                    [goal]\ncheck_time = \"1s\"\nchecks = [\"sleep 60\"]\ncontinuations = 1\n";
    world.write("longhaul.toml", manifest);
    world.write("script.toml", &[TURN, COMPLETE, SAY].concat());
    let ran = world.run(&["run", "--goal", "all is done"]);
    let said = "\n    the check `sleep 60` ended with its time limit of 1 s\n";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
}

#[test]
fn a_change_without_driving_says_what_was_done() {
    let world = World::new();
    world.write("script.toml", &[TURN, SAY].concat());
    let run = ["run", "--script", "script.toml", "--dir", "work", "--goal", "all is done", "--detach"];
    let made: Value = serde_json::from_str(&world.succeed(&[&["--json"], &run[..]].concat())).unwrap();
    let session = made["session"].as_str().unwrap();
    assert!(world.succeed(&["show", session]).contains("status     not begun, goal active\n"));
    world.succeed(&["goal", "pause", session]);
    let resumed = world.succeed(&["goal", "resume", session, "--detach"]);
    assert!(resumed.starts_with("the goal is active · session "), "{resumed}");
}

#[test]
fn a_failure_that_ends_a_goal_exits_as_a_blocked_one() {
    let world = World::new();
    let script = "[[turn]]\n[[turn.step]]\nfail = { class = \"auth\", message = \"the key is wrong\" }\n";
    let ran = pursue(&world, script, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (4, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("failed: the key is wrong"), "{}", ran.stdout);
    assert_eq!(goal_of(&world)["reason"], "the key is wrong");
    let seen = plain(&world, &world.succeed(&["attach"]));
    let told =
        "nothing to watch, the session rests: failed, goal blocked\n  the key is wrong\n  go on with: ";
    assert_eq!(seen, format!("{told}longhaul resume ID\n"));
}

#[test]
fn an_interrupt_pauses_the_goal_and_resume_goes_on() {
    let world = World::new();
    let wait = bash("touch began; while ! test -e go; do sleep 0.02; done");
    let script = [TURN, &wait, SAY, TURN, COMPLETE, SAY].concat();
    world.write("script.toml", &script);
    let running = world.start(&["run", "--script", "script.toml", "--dir", "work", "--goal", "all is done"]);
    until_there(&world, "began");
    running.signal(Signal::INT);
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (130, ""), "{}", ran.stdout);
    let shown = plain(&world, &ran.stdout);
    assert!(shown.contains("\ninterrupted, goal paused · "), "{shown}");
    assert!(shown.ends_with("\n  go on with: longhaul resume ID\n"), "{shown}");
    assert_eq!(goal_of(&world)["status"], "paused");
    let resumed = world.run(&["resume"]);
    assert_eq!((resumed.code, resumed.stderr.as_str()), (0, ""), "{}", resumed.stdout);
}

fn until_there(world: &World, name: &str) {
    let path = world.work(name);
    until(&format!("{} is there", path.display()), || path.exists());
}

#[test]
fn a_goal_whose_process_is_killed_goes_on_by_itself_when_it_is_resumed() {
    let world = World::new();
    let wait = bash("touch began; while ! test -e go; do sleep 0.02; done");
    let script = [&working(1), TURN, &wait, "[[turn.step]]\ntext = \"On.\"\n", TURN, COMPLETE, SAY].concat();
    world.write("script.toml", &script);
    let running = world.start(&["run", "--script", "script.toml", "--dir", "work", "--goal", "all is done"]);
    until_there(&world, "began");
    running.kill();
    world.until_all_are_dead();
    assert_eq!(goal_of(&world)["status"], "active", "a crash is no pause");
    let resumed = world.run(&["resume"]);
    assert_eq!((resumed.code, resumed.stderr.as_str()), (0, ""), "{}", resumed.stdout);
    assert_eq!(goal_of(&world)["used"]["continuations"], 3);
    assert!(world.succeed(&["verify"]).contains("ok"));
}

#[test]
fn checks_that_a_kill_cut_off_are_run_again_and_nothing_of_them_is_left() {
    let world = World::new();
    let script = [TURN, COMPLETE, SAY].concat();
    world.write("script.toml", &script);
    let check = "echo $$ >> runs; while ! test -e go; do sleep 0.02; done";
    let running = world.start(&[
        "run",
        "--script",
        "script.toml",
        "--dir",
        "work",
        "--goal",
        "all is done",
        "--check",
        check,
    ]);
    until_file_says(&world.work("runs"), "\n");
    running.kill();
    let first = std::fs::read_to_string(world.work("runs")).unwrap();
    until("the check is ended", || has_ended(first.trim()));
    world.until_all_are_dead();
    std::fs::write(world.work("go"), "").unwrap();
    let resumed = world.run(&["resume"]);
    assert_eq!((resumed.code, resumed.stderr.as_str()), (0, ""), "{}", resumed.stdout);
    assert_eq!(std::fs::read_to_string(world.work("runs")).unwrap().lines().count(), 2);
    assert_eq!(goal_of(&world)["status"], "complete");
}

#[test]
fn a_goal_that_is_removed_while_it_is_worked_on_does_not_go_on() {
    let world = World::new();
    let wait = bash("touch began; while ! test -e go; do sleep 0.02; done");
    let script = [TURN, &wait, "[[turn.step]]\ntext = \"Done.\"\n", &working(2)].concat();
    world.write("script.toml", &script);
    let running = world.start(&["run", "--script", "script.toml", "--dir", "work", "--goal", "all is done"]);
    until_there(&world, "began");
    assert!(world.succeed(&["goal", "clear", "@last"]).starts_with("the goal is removed"));
    std::fs::write(world.work("go"), "").unwrap();
    let ran = running.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(!world.work("parts").exists());
    assert_eq!(goal_of(&world), Value::Null);
}

#[test]
fn a_goal_is_set_changed_paused_and_gone_on_with_by_commands() {
    let world = World::new();
    let script = [TURN, SAY, TURN, SAY, TURN, SAY, TURN, COMPLETE, SAY].concat();
    world.write("script.toml", &script);
    world.succeed(&["run", "--script", "script.toml", "--dir", "work", "hello"]);
    assert!(world.succeed(&["goal", "show"]).contains("has no goal"));
    let set = world.run(&["goal", "set", "@last", "all is done", "--time", "1h30m", "--check", "true"]);
    assert_eq!((set.code, set.stderr.as_str()), (5, ""), "{}", set.stdout);
    assert!(set.stdout.contains("goal active: all is done"), "{}", set.stdout);
    let goal = goal_of(&world);
    assert_eq!((&goal["budget"]["active_ms"], &goal["checks"][0]), (&5_400_000.into(), &"true".into()));
    let paused = world.succeed(&["goal", "pause", "@last"]);
    assert!(
        plain(&world, &paused).starts_with("the goal is paused; `longhaul resume ID` goes on"),
        "{paused}"
    );
    let again = world.run(&["goal", "pause", "@last"]).stderr;
    assert_eq!(again, "error: there is nothing to pause: the goal is paused\n");
    let edited = world.succeed(&["goal", "edit", "@last", "all is well", "--no-checks"]);
    let said = "the goal is changed · session ID\n  go on with: longhaul resume ID\n";
    assert_eq!(plain(&world, &edited), said);
    let goal = goal_of(&world);
    assert_eq!((&goal["objective"], &goal["checks"]), (&"all is well".into(), &Value::Array(vec![])));
    assert_eq!(world.run(&["goal", "resume"]).code, 5);
    assert_eq!(world.run(&["goal", "resume", "@last"]).code, 0);
    assert_eq!(goal_of(&world)["status"], "complete");
}

#[test]
fn a_session_that_plans_does_not_pursue_its_goal_until_it_works() {
    let world = World::new();
    let script = [TURN, COMPLETE, SAY].concat();
    let ran = pursue(&world, &script, &["--plan"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (5, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("the session is in plan mode"), "{}", ran.stdout);
    assert_eq!(goal_of(&world)["used"]["continuations"], 0);
    let worked = world.run(&["mode", "@last", "work"]);
    assert_eq!((worked.code, worked.stderr.as_str()), (0, ""), "{}", worked.stdout);
    assert_eq!(goal_of(&world)["status"], "complete");
    assert!(world.run(&["mode", "@last", "work"]).stderr.contains("in this mode already"));
    let repeatable = ["--plan", "--request-id", "once", "--detach"];
    let (once, again) = (pursue(&world, &script, &repeatable), pursue(&world, &script, &repeatable));
    assert_eq!((once.code, &once.stdout), (0, &again.stdout), "{}{}", once.stderr, again.stderr);
    assert_eq!(
        world.show("@last")["head"],
        3,
        "it begins with its mode and its goal: {}",
        world.show("@last")
    );
}

#[test]
fn where_a_manifest_switches_goals_off_nothing_of_them_reaches_model_or_log() {
    let world = World::new();
    world.write("script.toml", &[TURN, SAY].concat());
    let manifest = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n[agent]\ndirectory = \"work\"\n\
                    [goal]\nenabled = false\ntokens = \"200k\"\n";
    world.write("longhaul.toml", manifest);
    world.succeed(&["run", "go"]);
    let log = world.succeed(&["--json", "log", "@last"]);
    let told: Vec<&str> = log.lines().filter(|line| !line.contains("without_goals")).collect();
    assert!(told.iter().any(|line| line.contains("prepared")), "{log}");
    assert!(!told.concat().contains("goal"), "{told:?}");
    let refused = world.run(&["run", "--goal", "all is done"]);
    assert!(refused.code == 1 && refused.stderr.contains("switches goals off"), "{}", refused.stderr);
    let refused = world.run(&["goal", "set", "@last", "all is done"]);
    assert!(refused.code == 1 && refused.stderr.contains("switches goals off"), "{}", refused.stderr);
    let checked = world.succeed(&["agent", "check"]);
    assert!(checked.contains("goals      switched off"), "{checked}");
    assert!(!checked.contains("update_goal"), "{checked}");
}

#[test]
fn a_history_is_summarised_when_a_person_says_so() {
    let world = World::new();
    world.write("script.toml", &working(1));
    world.succeed(&["run", "--script", "script.toml", "--dir", "work", "go"]);
    let ran = world.run(&["compact"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(world.kinds("@last").iter().any(|kind| kind == "compacted"), "{:?}", world.kinds("@last"));
    assert!(world.run(&["compact"]).stderr.contains("nothing to compact"));
}

#[test]
fn what_the_manifest_says_of_goals_holds_for_each_of_them() {
    let world = World::new();
    world.write("script.toml", &[TURN, COMPLETE, SAY].concat());
    let manifest = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n[agent]\ndirectory = \"work\"\n\
                    [goal]\ntokens = \"200k\"\ntime = \"1h30m\"\ncost = 0.5\ncontinuations = 7\n\
                    checks = [\"test -e it\"]\ncheck_time = \"30s\"\nprotected = [\"Makefile\"]\n";
    world.write("longhaul.toml", manifest);
    std::fs::write(world.work("Makefile"), "all:\n").unwrap();
    let ran = world.run(&["run", "--goal", "all is done", "--check", "true", "--time", "none"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (5, ""), "{}", ran.stdout);
    let goal = goal_of(&world);
    assert_eq!(goal["checks"], serde_json::json!(["test -e it", "true"]));
    assert_eq!(goal["protected"], serde_json::json!(["Makefile"]));
    let budget = serde_json::json!({
        "tokens": 200_000, "active_ms": null, "cost_micros": 500_000, "continuations": 7, "hard": false
    });
    assert_eq!(goal["budget"], budget);
    let checked = world.succeed(&["agent", "check"]);
    let goals = "goals      200000 tokens, 90m, $0.50, 7 turns, 1 check, 1 protected path";
    assert!(checked.contains(goals), "{checked}");
}

#[test]
fn what_cannot_be_a_goal_is_refused_with_what_to_do() {
    let world = World::new();
    world.write("script.toml", &[TURN, SAY].concat());
    std::fs::File::create(world.work("large")).unwrap().set_len(40 << 20).unwrap();
    let run = |more: &[&str]| {
        let all = [&["run", "--script", "script.toml", "--dir", "work", "all is done"], more].concat();
        let ran = world.run(&all);
        assert_ne!(ran.code, 0, "{more:?}: {}", ran.stdout);
        (ran.code, ran.stderr)
    };
    for (wrong, code, told) in [
        (&["--budget", "200k"][..], 2, "--budget is about a goal; say --goal"),
        (&["--budget", "200k"], 2, "Usage: longhaul run "),
        (&["--protect", "x"], 2, "--protect is about a goal"),
        (&["--goal", "--budget", "lots"], 2, "give a number of tokens: 50000, 200k or 1.5M"),
        (&["--goal", "--time", "2"], 2, "give a time with its units: 90s, 15m, 2h or 1h30m"),
        (&["--goal", "--cost", "5eur"], 2, "give an amount of US dollars: 5usd, $5 or 0.50"),
        (&["--goal", "--budget", "0"], 2, "a limit is more than nothing"),
        (&["--goal", "--budget", "-1"], 2, "200k or 1.5M, or none for no limit"),
        (&["--goal", "--continuations", "0"], 2, "turns are always limited"),
        (&["--goal", "--continuations", "none"], 2, "turns are always limited"),
        (&["--goal", "--check", " "], 1, "none of them is blank"),
        (&["--goal", "--ephemeral"], 2, "cannot be used with"),
        (&["--goal", "--protect", "nothing.py"], 1, "\"nothing.py\" protects nothing"),
        (&["--goal", "--protect", "large"], 1, "only files of at most 33554432 can be protected"),
        (&["--goal", "--protect", "tests/["], 1, "the pattern `tests/[` cannot be read"),
        (&["--goal", "--hard", "--cost", "5usd"], 1, "a hard budget cannot be held to a cost"),
        (&["--goal", "--hard", "--budget", "50k"], 1, "leaves no room for one call"),
    ] {
        let (exit, stderr) = run(wrong);
        assert!(exit == code && stderr.contains(told), "{wrong:?} exits with {exit}: {stderr}");
    }
    assert!(world.run(&["goal", "pause", "@last"]).stderr.contains("no session"), "nothing was made");
    world.succeed(&["run", "--script", "script.toml", "--dir", "work", "hello"]);
    for (wrong, told) in [
        (&["goal", "pause"][..], "the session has no goal; `longhaul goal set` sets one"),
        (&["goal", "clear"], "the session has no goal; `longhaul goal set` sets one"),
        (&["goal", "set", "@last", "x", "--check", "\t"], "none of them is blank"),
        (&["goal", "budget", "@last", "--budget", "1k"], "longhaul goal set"),
        (&["goal", "budget", "@last"], "there is nothing to change"),
        (&["goal", "edit", "@last"], "there is nothing to change"),
        (&["goal", "set", "@last", " "], "an objective has 1 to 4,000 characters"),
        (&["interrupt", "@last"], "set a goal with `longhaul goal set`"),
    ] {
        let ran = world.run(wrong);
        assert!(
            ran.code == 1 && ran.stderr.contains(told),
            "{wrong:?} exits with {}: {}",
            ran.code,
            ran.stderr
        );
    }
}

#[test]
fn a_cost_that_nobody_here_learns_of_is_said_to_limit_nothing() {
    let world = World::new();
    let run = |more: &[&str]| {
        let goal = ["run", "--dir", "work", "--goal", "all is done", "--cost", "5usd", "--detach"];
        let mut command = world.command(&[&goal[..], more].concat());
        command.env("KEY", "k");
        let ran = Running::start(command).finish();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr
    };
    let told = run(&["--provider", "vllm", "--model", "mine"]);
    assert!(told.contains("note: the $5.00 may be crossed unseen: what the tokens of mine cost"), "{told}");
    assert_eq!(run(&["--provider", "anthropic", "--model", "claude-opus-5", "--key-env", "KEY"]), "");
    assert_eq!(run(&["--provider", "openrouter", "--model", "mine", "--key-env", "KEY"]), "");
}

#[test]
fn a_hard_budget_is_held_by_the_program() {
    let world = World::new();
    let step = "[[turn]]\n[[turn.step]]\nrepeat = 100\nusage = { input = 2000, output = 100 }\n[[turn.step.call]]\n\
                tool = \"bash\"\narguments = { command = \"true\" }\n";
    let ran = pursue(&world, step, &["--budget", "160k", "--hard"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("leaves no room for another call"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(" --budget TOKENS (more than 160.0k)\n"), "{}", ran.stdout);
    let used = goal_of(&world)["used"]["tokens"].as_u64().unwrap();
    assert!((2_100..=160_000).contains(&used), "{used}");
}
