//! What a workspace tells an agent reaches the model once, again when it changed, and again after a boundary;
//! and what Longhaul says is worded as the session's configuration says.

use std::sync::{Arc, Mutex};

use longhaul_engine::Driven;
use longhaul_model::{Error, ModelCall, Part};
use longhaul_session::agent::{Configuration, Request};
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Mode;
use longhaul_session::goal::{Budget, GoalStatus, Terms};
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::item::{EffectClass, Item};
use longhaul_session::prompts::{Prompt, Prompts};
use longhaul_session::steering::SteeringReason;
use longhaul_tools::toolbox::Toolbox;
use uuid::Uuid;

use crate::puppet::{By, calls_probe, says, wants_summary};
use crate::world::{Probe, World, bounded};

const GONE: &str = "[This no longer holds: the file is gone, empty, or not of this workspace any more.]";

type Seen = Arc<Mutex<Vec<Arc<Request>>>>;

/// A world that keeps what its model was asked.
fn spied<F>(answer: F) -> (World, Seen)
where
    F: Fn(&ModelCall) -> Result<Vec<Part>, Error> + Send + Sync + 'static,
{
    let seen: Seen = Arc::default();
    let spy = Arc::clone(&seen);
    let model = By(move |call: &ModelCall| {
        spy.lock().unwrap().push(Arc::clone(&call.request));
        if wants_summary(call) { says("SUMMARY") } else { answer(call) }
    });
    let tools = Toolbox::empty().with(Probe::open().tool("probe", EffectClass::Once));
    (World::of(Arc::new(model), tools), seen)
}

/// Returns what the newest request shows of context files, in order.
fn shown(seen: &Seen) -> Vec<String> {
    let request = seen.lock().unwrap().last().unwrap().clone();
    let text = |item: &Arc<Item>| {
        if let Item::ContextFile { text, .. } = &**item { Some(text.clone()) } else { None }
    };
    request.items.iter().filter_map(text).collect()
}

/// Returns the newest thing the newest request says on Longhaul's account.
fn told(seen: &Seen) -> (SteeringReason, String) {
    let request = seen.lock().unwrap().last().unwrap().clone();
    let told = request.items.iter().rev().find_map(|item| {
        let Item::Steering { reason, text } = &**item else { return None };
        Some((*reason, text.clone()))
    });
    told.unwrap()
}

async fn say(world: &World, session: SessionId, text: &str) {
    world.send(session, text, false).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
}

fn put(world: &World, path: &str, text: &str) {
    let path = world.directory().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn begun(world: &World) -> SessionId {
    let session = world.session("first").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    session
}

#[tokio::test(start_paused = true)]
async fn a_context_file_is_shown_once_and_again_when_it_has_changed() {
    let (world, seen) = spied(|_| says("ok"));
    put(&world, "AGENTS.md", "Be kind.");
    let session = begun(&world).await;
    assert_eq!(shown(&seen), ["Be kind."]);
    say(&world, session, "second").await;
    assert_eq!((shown(&seen).len(), world.kinds(session).await.matches("context").count()), (1, 1));
    put(&world, "AGENTS.md", "Be brief.");
    say(&world, session, "third").await;
    assert_eq!(shown(&seen), ["Be kind.", "Be brief."]);
    let newest = seen.lock().unwrap().last().unwrap().items.last().unwrap().clone();
    assert!(matches!(&*newest, Item::ContextFile { text, .. } if text == "Be brief."), "{newest:?}");
    put(&world, ".agents/skills/tidy/SKILL.md", "---\nname: tidy\ndescription: Tidies up.\n---\n");
    say(&world, session, "fourth").await;
    assert!(shown(&seen)[2].contains("- tidy: Tidies up."), "{:?}", shown(&seen));
    std::fs::remove_file(world.directory().join("AGENTS.md")).unwrap();
    std::fs::remove_dir_all(world.directory().join(".agents")).unwrap();
    say(&world, session, "fifth").await;
    assert_eq!(shown(&seen)[3..], [GONE, GONE]);
    say(&world, session, "sixth").await;
    assert_eq!(shown(&seen).len(), 5);
    put(&world, "AGENTS.md", "Be brief.");
    say(&world, session, "seventh").await;
    assert_eq!(shown(&seen)[5..], ["Be brief."]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_compaction_a_clear_and_in_a_fork_the_context_files_are_there_once() {
    let (world, seen) = spied(|_| says("ok"));
    put(&world, "AGENTS.md", "Be kind.");
    let session = begun(&world).await;
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    say(&world, session, "second").await;
    assert_eq!(shown(&seen), ["Be kind."]);
    let fork = world.engine.fork(session, world.state(session).await.head).await.unwrap().unwrap().session;
    say(&world, fork, "in the fork").await;
    assert_eq!(shown(&seen), ["Be kind."]);
    let early = world.engine.fork(session, 2).await.unwrap().unwrap().session;
    say(&world, early, "in an early fork").await;
    assert_eq!(shown(&seen), ["Be kind."]);
    world.command(session, Command::ClearContext).await;
    say(&world, session, "third").await;
    assert_eq!(shown(&seen), ["Be kind."]);
    world.engine.edit(session, None, "third, again", None).await.unwrap().unwrap();
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(shown(&seen), ["Be kind."]);
    for session in [session, fork, early] {
        world.sound(session).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_all_the_time_does_not_keep_the_model_from_being_called() {
    let directory: Arc<Mutex<Option<std::path::PathBuf>>> = Arc::default();
    let place = Arc::clone(&directory);
    let (world, seen) = spied(move |call| {
        let calls = call.request.items.iter().filter(|item| item.tool_call().is_some()).count();
        let file = place.lock().unwrap().as_ref().unwrap().join("AGENTS.md");
        std::fs::write(file, format!("Call {calls}.")).unwrap();
        if calls < 5 { calls_probe(10) } else { says("done") }
    });
    *directory.lock().unwrap() = Some(world.directory());
    put(&world, "AGENTS.md", "Be kind.");
    let session = begun(&world).await;
    assert_eq!(shown(&seen), ["Be kind."], "in the middle of a turn nothing is looked at");
    say(&world, session, "second").await;
    assert_eq!(shown(&seen), ["Be kind.", "Call 5."]);
}

/// A goal that was set by the model's session from the start, worded by its configuration.
async fn pursuing(world: &World, prompts: Prompts) -> SessionId {
    let budget = Budget { tokens: Some(100_000), ..Budget::default() };
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let first = First::Goal { id, objective, terms: Terms { budget, ..Terms::default() } };
    world.create(Configuration { prompts, ..world.configuration() }, first).await
}

#[tokio::test(start_paused = true)]
async fn after_a_compaction_a_clear_and_a_fork_the_next_request_carries_the_goal() {
    let (world, seen) = spied(|_| says("ok"));
    let session = pursuing(&world, Prompts::default()).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let carries = |reason: SteeringReason| {
        let (told, text) = told(&seen);
        assert_eq!(told, reason);
        assert!(text.contains("<objective>\nmake it work\n</objective>"), "{text}");
        assert!(text.contains(" used of 100000, "), "{text}");
    };
    carries(SteeringReason::Continuation);
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    say(&world, session, "after the compaction").await;
    let requests = seen.lock().unwrap().len();
    carries(SteeringReason::Continuation);
    let first = seen.lock().unwrap()[requests - 2].clone();
    let recalled = first.items.iter().any(|item| {
        let Item::Steering { reason, text } = &**item else { return false };
        *reason == SteeringReason::GoalRecalled && text.contains("make it work")
    });
    assert!(recalled, "the first request after the compaction tells the goal");
    world.command(session, Command::ClearContext).await;
    world.command(session, Command::SetMode(Mode::Plan)).await;
    say(&world, session, "what is the plan?").await;
    let in_plan = seen.lock().unwrap().last().unwrap().items.len();
    assert_eq!(in_plan, 1, "in plan mode nothing is said of goals");
    let head = world.state(session).await.head;
    let fork = world.engine.fork(session, head).await.unwrap().unwrap().session;
    assert_eq!(world.state(fork).await.goal.unwrap().status, GoalStatus::Paused);
    world.command(fork, Command::SetMode(Mode::Default)).await;
    world.command(fork, Command::ResumeGoal).await;
    assert_eq!(bounded(world.run(fork)).await, Driven::Waiting);
    carries(SteeringReason::Continuation);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_is_worded_by_the_configuration_whoever_commits_it() {
    let (world, seen) = spied(|_| says("ok"));
    let mut prompts = Prompts::default();
    for (prompt, text) in [
        (Prompt::Continuation, "OWN continuation: {{ objective }}"),
        (Prompt::GoalRecalled, "OWN recall: {{ objective }}"),
        (Prompt::Compaction, "OWN compaction."),
        (Prompt::System, "OWN system of {{ agent }}: {{ tools | join(' ') }}"),
    ] {
        prompts.set(prompt, text.to_owned()).unwrap();
    }
    let session = pursuing(&world, prompts).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(told(&seen).1, "OWN continuation: make it work");
    assert_eq!(
        seen.lock().unwrap()[0].system,
        "OWN system of tester: create_goal get_goal probe update_goal"
    );
    world.command(session, Command::ResumeGoal).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(told(&seen).1, "OWN continuation: make it work");
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(told(&seen), (SteeringReason::Compaction, "OWN compaction.".to_owned()));
    world.send(session, "go on", false).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let recall = |item: Item| {
        let Item::Steering { reason, text } = item else { return None };
        (reason == SteeringReason::GoalRecalled).then_some(text)
    };
    let texts: Vec<String> = world.items(session).await.into_iter().filter_map(recall).collect();
    assert_eq!(texts, ["OWN recall: make it work"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_template_that_cannot_be_rendered_stops_no_session() {
    let (world, seen) = spied(|_| says("ok"));
    let stored =
        serde_json::json!({ "continuation": "{{ nothing }}", "system": "{% if", "compaction": "{{" });
    let session = pursuing(&world, serde_json::from_value(stored).unwrap()).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert!(told(&seen).1.contains("make it work"));
    assert!(seen.lock().unwrap()[0].system.contains("The working directory is"));
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert!(told(&seen).1.contains("Call no tool"));
    world.sound(session).await;
}
