//! What a model may do with its goal: look at it, set one, declare it complete or blocked. Checks are real
//! commands, so these tests run in real time.

use longhaul_engine::Driven;
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Fact;
use longhaul_session::goal::{Goal, GoalStatus, Terms};
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::item::{EffectClass, Outcome, ToolResult};
use longhaul_tools::toolbox::Toolbox;
use uuid::Uuid;

use crate::world::{Probe, World, bounded, is_tool_start, until};

const COMPLETE: &str = "[[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\narguments = { status = \"complete\", note = \"I looked.\" }\n";
const SAY: &str = "[[turn.step]]\ntext = \"That is all.\"\n";

/// A step that runs a command.
fn bash(command: &str) -> String {
    format!("[[turn.step]]\n[[turn.step.call]]\ntool = \"bash\"\narguments = {{ command = '{command}' }}\n")
}

fn checks(commands: &[&str]) -> Terms {
    Terms { checks: commands.iter().map(|command| (*command).to_owned()).collect(), ..Terms::default() }
}

fn protecting(paths: &[&str]) -> Terms {
    Terms { protected: paths.iter().map(|path| (*path).to_owned()).collect(), ..Terms::default() }
}

/// A world whose model plays these steps in one turn, with the built-in tools.
fn world(steps: &[&str]) -> World {
    World::new(&format!("[[turn]]\n{}", steps.concat()), Toolbox::builtin())
}

async fn pursuing(world: &World, terms: Terms) -> SessionId {
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    world.create(world.configuration(), First::Goal { id, objective, terms }).await
}

async fn goal(world: &World, session: SessionId) -> Goal {
    world.state(session).await.goal.unwrap()
}

async fn last_result(world: &World, session: SessionId) -> ToolResult {
    world.results(session).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_complete_only_when_its_checks_pass() {
    let world = world(&[COMPLETE, &bash("echo right > it"), COMPLETE, SAY]);
    let session = pursuing(&world, checks(&["true", "cat it && grep -q right it", "echo third"])).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Error, Outcome::Ok, Outcome::Ok]);
    let results = world.results(session).await;
    let failed = "<check>cat it &amp;&amp; grep -q right it</check>\nIt ended with exit code 1.";
    assert!(results[0].output.contains(failed), "{}", results[0].output);
    assert!(results[0].output.contains("No such file"), "{}", results[0].output);
    assert!(!results[0].output.contains("third"), "the first that fails ends it: {}", results[0].output);
    assert!(results[2].output.contains("All 3 checks passed"), "{}", results[2].output);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Complete);
    let log = world.log(session).await;
    let with_goal =
        |fact: &Fact| matches!(fact, Fact::ToolStep { goal: Some(_), results, .. } if results.len() == 1);
    assert_eq!(
        log.iter().filter(|entry| with_goal(&entry.record.fact)).count(),
        1,
        "result and goal are one entry"
    );
    world.sound(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_claimed_complete_five_times_falsely_is_complete_the_sixth_time() {
    let more = bash("echo x >> it");
    let steps: Vec<&str> = [COMPLETE, &more].repeat(5);
    let world = world(&[&steps.concat(), COMPLETE, SAY]);
    let session = pursuing(&world, checks(&["test $(wc -l < it) -ge 5"])).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let claims = world.outcomes(session).await;
    assert_eq!(claims.iter().filter(|outcome| **outcome == Outcome::Error).count(), 5);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Complete);
    world.sound(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_counts_only_with_protected_files_as_they_were() {
    let change = bash("echo easy > tests/hard.sh; rm tests/gone; touch tests/new");
    let restore = bash("echo hard > tests/hard.sh; echo there > tests/gone; rm tests/new");
    let world = world(&[&change, COMPLETE, &restore, COMPLETE, SAY]);
    std::fs::create_dir(world.directory().join("tests")).unwrap();
    std::fs::write(world.directory().join("tests/hard.sh"), "hard\n").unwrap();
    std::fs::write(world.directory().join("tests/gone"), "there\n").unwrap();
    let session = pursuing(&world, protecting(&["tests"])).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let results = world.results(session).await;
    let told = &results[1].output;
    for change in ["tests/hard.sh (changed)", "tests/gone (removed)", "tests/new (new)"] {
        assert!(told.contains(change), "{told}");
    }
    assert_eq!(world.outcomes(session).await, [Outcome::Ok, Outcome::Error, Outcome::Ok, Outcome::Ok]);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Complete);
    world.sound(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_may_not_change_protected_files_itself() {
    let world = world(&[COMPLETE, SAY]);
    std::fs::write(world.directory().join("expected"), "42\n").unwrap();
    let terms = Terms { checks: vec!["echo 41 > expected".to_owned()], ..protecting(&["expected"]) };
    let session = pursuing(&world, terms).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert!(last_result(&world, session).await.output.contains("expected (changed)"));
    assert_eq!(goal(&world, session).await.status, GoalStatus::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_hangs_floods_or_forks_is_contained() {
    let world = world(&[COMPLETE, SAY]);
    for (check, check_ms, told) in [
        ("echo before; sleep 600", 700, "its time limit of 700 ms"),
        ("yes 0123456789", 700, "its time limit of 700 ms"),
        ("(while true; do touch beat; sleep 0.05; done) & echo forked; exit 3", 120_000, "exit code 3"),
        ("kill -9 $$", 120_000, "signal 9"),
    ] {
        let mut configuration = world.configuration();
        configuration.limits.check_ms = check_ms;
        let (id, objective, terms) = (GoalId(Uuid::new_v4()), "make it work".to_owned(), checks(&[check]));
        let session = world.create(configuration, First::Goal { id, objective, terms }).await;
        assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
        let result = last_result(&world, session).await;
        assert_eq!(result.outcome, Outcome::Error, "{check}");
        assert!(result.output.contains(told), "{check}: {}", result.output);
        assert!(result.output.len() < 10_000, "{check}: {} bytes", result.output.len());
        assert_eq!(goal(&world, session).await.status, GoalStatus::Active);
    }
    let beat = world.directory().join("beat");
    std::fs::remove_file(&beat).ok();
    world.engine.host().sleep_ms(300).await;
    assert!(!beat.exists(), "what a check leaves running is ended with it");
}

/// A check that says that it runs, and then takes as long as it is let.
const LONG: &str = "touch began; while ! test -e go; do sleep 0.02; done";

async fn until_there(world: &World, name: &str) {
    for _ in 0..6_000 {
        if world.directory().join(name).exists() {
            return;
        }
        world.engine.host().sleep_ms(10).await;
    }
    panic!("{name} did not appear");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_check_and_pauses_the_goal() {
    let world = world(&[COMPLETE, SAY]);
    let session =
        pursuing(&world, checks(&["trap ': > ended' EXIT; touch began; while true; do sleep 0.02; done"]))
            .await;
    let driving = world.spawn(session).await;
    until_there(&world, "began").await;
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Stopped]);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Paused);
    assert!(world.directory().join("ended").exists(), "it was told to end before it was killed");
    world.sound(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_a_crash_cut_off_are_run_again() {
    let world = world(&[COMPLETE, SAY]);
    let session = pursuing(&world, checks(&["echo run >> runs", LONG])).await;
    let driving = world.spawn(session).await;
    until_there(&world, "began").await;
    driving.abort();
    drop(driving.await);
    std::fs::write(world.directory().join("go"), "").unwrap();
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Complete);
    assert_eq!(world.outcomes(session).await, [Outcome::Ok]);
    assert_eq!(std::fs::read_to_string(world.directory().join("runs")).unwrap(), "run\nrun\n");
    world.sound(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_a_person_changes_while_it_is_checked_is_judged_anew() {
    let world = world(&[COMPLETE, SAY]);
    let session = pursuing(&world, checks(&[LONG])).await;
    let driving = world.spawn(session).await;
    until_there(&world, "began").await;
    let stricter = Some(vec!["false".to_owned()]);
    let edit = Command::EditGoal { objective: None, budget: None, checks: stricter, protected: None };
    world.command(session, edit).await;
    std::fs::write(world.directory().join("go"), "").unwrap();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let result = last_result(&world, session).await;
    assert_eq!((result.outcome, goal(&world, session).await.status), (Outcome::Error, GoalStatus::Active));
    assert!(result.output.contains("<check>false</check>\nIt ended with exit code 1."), "{}", result.output);
    world.sound(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_objective_that_changes_while_it_is_checked_is_not_declared_complete() {
    let world = world(&[COMPLETE, SAY]);
    let session = pursuing(&world, checks(&[LONG])).await;
    let driving = world.spawn(session).await;
    until_there(&world, "began").await;
    let objective = Some("make it work well".to_owned());
    world
        .command(session, Command::EditGoal { objective, budget: None, checks: None, protected: None })
        .await;
    std::fs::write(world.directory().join("go"), "").unwrap();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let results = world.results(session).await;
    assert_eq!(results[0].outcome, Outcome::Rejected);
    assert!(results[0].output.contains("a person has changed the goal"), "{}", results[0].output);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Active);
}

#[tokio::test(start_paused = true)]
async fn a_model_sets_a_goal_only_where_none_is_unfinished() {
    let create = |objective: &str| {
        format!(
            "[[turn.step]]\n[[turn.step.call]]\ntool = \"create_goal\"\narguments = {{ objective = \"{objective}\" }}\n"
        )
    };
    let look = "[[turn.step]]\n[[turn.step.call]]\ntool = \"get_goal\"\n";
    let world =
        world(&[look, &create("reach it"), &create("reach more"), look, COMPLETE, &create("and more"), SAY]);
    let session = world.session("set a goal").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let (ok, no) = (Outcome::Ok, Outcome::Rejected);
    assert_eq!(world.outcomes(session).await, [ok, ok, no, ok, ok, ok]);
    let results = world.results(session).await;
    assert!(results[0].output.contains("no goal"), "{}", results[0].output);
    assert!(results[2].output.contains("not finished"), "{}", results[2].output);
    assert!(results[3].output.contains("Objective:\nreach it"), "{}", results[3].output);
    assert_eq!(goal(&world, session).await.objective, "and more");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_goal_that_a_model_sets_has_the_checks_and_limits_of_the_agent() {
    let create = "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"create_goal\"\n\
                  arguments = { objective = \"reach it\", token_budget = 900 }\n";
    let world = World::new(&format!("{create}{SAY}"), Toolbox::empty());
    let mut configuration = world.configuration();
    configuration.goal = checks(&["make check"]);
    configuration.goal.budget.tokens = Some(500);
    let session = world.create(configuration, First::Message("go".into())).await;
    bounded(world.run(session)).await;
    let goal = goal(&world, session).await;
    assert_eq!((goal.checks, goal.budget.tokens), (vec!["make check".to_owned()], Some(500)));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_declares_its_goal_blocked_stops_it_with_its_reason() {
    let blocked = "[[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\n\
                   arguments = { status = \"blocked\", note = \"there is no key\" }\n";
    let world = world(&[blocked, SAY]);
    let session = pursuing(&world, Terms::default()).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!((goal.status, goal.reason.as_deref()), (GoalStatus::Blocked, Some("there is no key")));
    assert_eq!(goal.used.continuations, 1);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_goal_is_declared_complete_by_a_call_that_is_alone_and_says_why() {
    let wrong = "[[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\narguments = { status = \"complete\" }\n\
                 [[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\n\
                 arguments = { status = \"complete\", note = \"x\" }\n[[turn.step.call]]\ntool = \"get_goal\"\n\
                 [[turn.step]]\n[[turn.step.call]]\ntool = \"update_goal\"\n\
                 arguments = { status = \"paused\", note = \"x\" }\n";
    let world = world(&[wrong, SAY]);
    let session = pursuing(&world, Terms::default()).await;
    bounded(world.run(session)).await;
    assert_eq!(world.outcomes(session).await, [Outcome::Rejected; 4]);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Active);
}

#[tokio::test(start_paused = true)]
async fn turns_that_only_look_at_the_goal_do_not_go_on_for_ever() {
    let looking =
        "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"get_goal\"\n[[turn.step]]\ntext = \"Hm.\"\n";
    let world = World::new(&looking.repeat(5), Toolbox::empty());
    let session = pursuing(&world, Terms::default()).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!((goal.status, goal.suppressed, goal.used.continuations), (GoalStatus::Active, true, 1));
}

#[tokio::test(start_paused = true)]
async fn every_session_that_can_have_a_goal_has_the_same_tools_for_it() {
    let world = World::new("[[turn]]\n[[turn.step]]\ntext = \"Hm.\"\n", Toolbox::empty());
    let without = world.session("go").await;
    let with = pursuing(&world, Terms::default()).await;
    for session in [without, with] {
        bounded(world.run(session)).await;
    }
    let mut offered = Vec::new();
    for session in [without, with] {
        let log = world.log(session).await;
        let prepared = log.iter().find(|entry| entry.record.fact == Fact::Prepared).unwrap();
        let longhaul_session::entry::Content::Prepared { tools, .. } =
            &prepared.content.as_ref().unwrap().content
        else {
            panic!("it was prepared")
        };
        offered.push(tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>());
    }
    assert_eq!(offered[0], ["create_goal", "get_goal", "update_goal"]);
    assert_eq!(offered[0], offered[1]);
}

#[tokio::test(start_paused = true)]
async fn two_workers_cannot_continue_one_goal() {
    let turn = |n: u32| {
        format!(
            "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"probe\"\narguments = {{ n = {n} }}\n[[turn.step]]\ntext = \"{n}\"\n"
        )
    };
    let script: String = (0..6).map(turn).collect::<String>() + "[[turn]]\n[[turn.step]]\ntext = \"End.\"\n";
    let probe = Probe::open();
    let world = World::new(&script, Toolbox::empty().with(probe.tool("probe", EffectClass::Once)));
    let neighbour = world.neighbour();
    let session = pursuing(&world, Terms::default()).await;
    let both = [world.spawn(session).await, neighbour.spawn(session).await];
    let mut ends = Vec::new();
    for driving in both {
        ends.push(bounded(driving).await.unwrap());
    }
    if ends.iter().any(|end| *end != Driven::Waiting) {
        assert_eq!(bounded(world.run(session)).await, Driven::Waiting, "{ends:?}");
    }
    let goal = goal(&world, session).await;
    assert_eq!(
        (goal.used.continuations, probe.count()),
        (7, 6),
        "each turn was begun and worked once: {ends:?}"
    );
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_goal_that_is_removed_in_the_middle_of_a_turn_does_not_go_on() {
    let probe = Probe::shut();
    let script = "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"probe\"\n[[turn.step]]\ntext = \"Done.\"\n\
                  [[turn]]\n[[turn.step]]\ntext = \"Never reached.\"\n";
    let world = World::new(script, Toolbox::empty().with(probe.tool("probe", EffectClass::Once)));
    let session = pursuing(&world, Terms::default()).await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.command(session, Command::ClearGoal).await;
    probe.gate.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(world.said(session).await.last().unwrap(), "model: Done.");
    assert_eq!(world.state(session).await.goal, None);
}
