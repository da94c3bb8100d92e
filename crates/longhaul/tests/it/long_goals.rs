//! Long goals and how they end, as a person sees it: the exit code, and why on the screen. The same goals run
//! over crashes in the simulator, and there in many ways.

use crate::goals::{COMPLETE, SAY, TURN, bash, goal_of, pursue, working};
use crate::world::{Ran, World};

/// Pursues a goal with a manifest that says more.
fn pursue_as(world: &World, manifest: &str, script: &str, more: &[&str]) -> Ran {
    let model = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n";
    world.write("longhaul.toml", &format!("{model}{manifest}"));
    world.write("script.toml", script);
    world.run(&[&["run", "--dir", "work", "--goal", "all is done"], more].concat())
}

/// Returns what is said last: the lines from the one that begins like this.
fn end(ran: &Ran, begins: &str) -> String {
    let at = ran.stdout.rfind(&format!("\n{begins}")).unwrap_or_else(|| panic!("{begins}: {}", ran.stdout));
    ran.stdout[at + 1..].to_owned()
}

fn count(world: &World, kind: &str) -> usize {
    world.kinds("@last").iter().filter(|found| *found == kind).count()
}

/// What the model says when it is asked for a summary.
fn summaries(step: &str) -> String {
    format!("[[aside]]\nwhen = \"Summarise the conversation\"\nstep = {{ {step} }}\n")
}

/// A turn whose call writes much, and is not the same as in another.
fn wordy(n: u32) -> String {
    let command = format!("echo {n} >> parts; head -c 4000 /dev/zero | tr \"\\0\" x");
    format!("{TURN}{}[[turn.step]]\ntext = \"Part {n} is done.\"\n", bash(&command))
}

#[test]
fn a_goal_of_forty_turns_and_six_compactions_is_complete() {
    let world = World::new();
    let turns: String = (1..=40).map(wordy).collect();
    let script = [&summaries("text = \"Parts are done.\""), turns.as_str(), TURN, COMPLETE, SAY].concat();
    let check = ["--check", "test $(wc -l < parts) -eq 40"];
    let ran = pursue_as(&world, "[compaction]\nthreshold = 12_000\n", &script, &check);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let compactions = count(&world, "compacted");
    assert!(compactions >= 6, "{compactions} compactions");
    assert_eq!(ran.stdout.matches("≡ earlier history was summarised").count(), compactions);
    let goal = goal_of(&world);
    assert_eq!((&goal["status"], &goal["used"]["continuations"]), (&"complete".into(), &41.into()));
    assert!(end(&ran, "goal complete").starts_with("goal complete · "), "{}", ran.stdout);
    assert!(world.succeed(&["verify"]).contains("ok"));
}

#[test]
fn a_model_that_repeats_itself_is_blocked_with_the_evidence() {
    let world = World::new();
    let script = format!("{TURN}{}{SAY}", bash("sleep 0.$((RANDOM % 4)); ls")).repeat(9);
    let ran = pursue(&world, &script, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (4, ""), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("✓ bash sleep").count(), 3, "{}", ran.stdout);
    let why = "goal blocked: the last 3 turns made the same call with the same result · ";
    assert!(end(&ran, "goal blocked").starts_with(why), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n  go on with: longhaul resume "), "{}", ran.stdout);
}

#[test]
fn a_goal_without_quota_says_so_and_exits_with_3() {
    let world = World::new();
    let fail = "fail = { class = \"quota\", message = \"no credit is left\" }\n";
    let ran = pursue(&world, &format!("{TURN}[[turn.step]]\n{fail}"), &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""), "{}", ran.stdout);
    assert_eq!(goal_of(&world)["status"], "usage_limited");
    let told = "failed: no credit is left\n  The account's credit is used up: top it up with the provider, then resume.\n\
                goal out of quota · ";
    assert!(end(&ran, "failed").starts_with(told), "{}", ran.stdout);
}

#[test]
fn five_false_claims_are_told_and_the_sixth_is_true() {
    let world = World::new();
    let claims = [COMPLETE, &bash("echo 1 >> parts")].concat().repeat(5);
    let script = [TURN, &claims, COMPLETE, SAY].concat();
    let ran = pursue(&world, &script, &["--check", "test $(wc -l < parts) -eq 5"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let refused = "the check `test $(wc -l < parts) -eq 5` ended with exit code";
    assert_eq!(ran.stdout.matches(refused).count(), 5, "{}", ran.stdout);
    assert_eq!(goal_of(&world)["status"], "complete");
}

#[test]
fn an_agent_that_may_use_no_tool_says_why_it_ends() {
    let world = World::new();
    let tools = ["read", "write", "edit", "glob", "grep", "bash", "get_goal", "create_goal", "update_goal"];
    let denied = |tool| format!("[tools.{tool}]\npermission = \"deny\"\n");
    let manifest: String = tools.into_iter().map(denied).collect();
    let script = [TURN, &bash("touch it"), COMPLETE, SAY].concat().repeat(9);
    let ran = pursue_as(&world, &manifest, &script, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (4, ""), "{}", ran.stdout);
    assert!(!world.work("it").exists());
    let denied =
        "denied\n    The call was not run: this agent may not use the tool \"bash\". Do without it.\n";
    assert_eq!(ran.stdout.matches(denied).count(), 3, "{}", ran.stdout);
    let why = "goal blocked: the last 3 turns made the same 2 calls with the same results · ";
    assert!(end(&ran, "goal blocked").starts_with(why), "{}", ran.stdout);
    let given_up = pursue_as(&world, &manifest, &[TURN, SAY].concat(), &[]);
    assert_eq!((given_up.code, given_up.stderr.as_str()), (5, ""), "{}", given_up.stdout);
    assert!(given_up.stdout.contains("the last turn for it called no tool"), "{}", given_up.stdout);
}

#[test]
fn a_tool_that_kills_its_worker_each_time_blocks_the_goal_and_says_so() {
    let world = World::new();
    let script = format!("{TURN}{}", bash("echo 1 >> tries; kill -9 $PPID; sleep 60"))
        .replace("[[turn.step]]\n", "[[turn.step]]\nrepeat = 9\n");
    let killed = pursue(&world, &script, &[]);
    assert_eq!(killed.code, -9, "{killed:?}");
    for _ in 1..3 {
        world.until_all_are_dead();
        assert_eq!(world.run(&["resume"]).code, -9);
    }
    world.until_all_are_dead();
    let failed = world.run(&["resume"]);
    assert_eq!((failed.code, failed.stderr.as_str()), (4, ""), "{}", failed.stdout);
    assert_eq!(std::fs::read_to_string(world.work("tries")).unwrap(), "1\n1\n1\n");
    assert_eq!(goal_of(&world)["reason"], "the worker died 3 times without getting further");
    let told = "failed: the worker died 3 times without getting further\n  A tool or call seems to kill its worker. Look \
                at the newest call, then send a message to go on.\ngoal blocked · ";
    assert!(end(&failed, "failed").starts_with(told), "{}", failed.stdout);
}

#[test]
fn a_budget_that_runs_out_is_wrapped_up_once_by_the_next_worker() {
    let world = World::new();
    let spent = "[[turn.step]]\nusage = { input = 900, output = 200 }\n";
    let dies = bash("kill -9 $PPID; sleep 60").replace("[[turn.step]]\n", spent);
    let script = [TURN, &dies, "[[turn.step]]\ntext = \"Wrapped up.\"\n", &working(9)].concat();
    let killed = pursue(&world, &script, &["--budget", "1k"]);
    assert_eq!(killed.code, -9, "{killed:?}");
    world.until_all_are_dead();
    assert_eq!(goal_of(&world)["status"], "budget_limited", "it is in the entry that crossed it");
    let ran = world.run(&["resume"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""), "{}", ran.stdout);
    assert_eq!((count(&world, "steering"), goal_of(&world)["used"]["continuations"].clone()), (1, 1.into()));
    assert!(
        ran.stdout.contains("Wrapped up.\ngoal out of budget: the token budget is used up"),
        "{}",
        ran.stdout
    );
}

#[test]
fn summaries_that_are_no_use_are_given_up_and_the_goal_goes_on() {
    let failed = "fail = { class = \"invalid_request\", message = \"no summaries here\", times = 3 }";
    let large = format!("text = \"{}\"", "large ".repeat(20_000));
    for (step, why) in [
        ("text = \" \"", "the summary was empty"),
        (large.as_str(), "the summary made the context no smaller: "),
        (failed, "no summaries here"),
    ] {
        let world = World::new();
        let turns: String = (1..=12).map(wordy).collect();
        let script = [&summaries(step), turns.as_str(), TURN, COMPLETE, SAY].concat();
        let ran = pursue_as(&world, "[compaction]\nthreshold = 12_000\n", &script, &[]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        let told = ran.stdout.matches(&format!("≡ summarising failed: {why}")).count();
        assert_eq!((told, count(&world, "compaction_failed")), (3, 3), "{}", ran.stdout);
        let off = "the context is no longer compacted unless somebody asks for it";
        assert_eq!(ran.stdout.matches(off).count(), 1, "{}", ran.stdout);
        assert_eq!(goal_of(&world)["status"], "complete");
    }
}
