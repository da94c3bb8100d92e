//! Whole turns: what is written, in which order, at what price.

use longhaul_engine::{Done, Driven};
use longhaul_session::agent::{Configuration, Limits};
use longhaul_session::command::{Command, First, Refusal};
use longhaul_session::entry::{Fact, FinishReason};
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_store::RequestId;
use longhaul_tools::toolbox::Toolbox;

use crate::world::{Probe, World, calling, is_kind, is_tool_start, spec, until};

#[tokio::test(start_paused = true)]
async fn a_message_runs_to_rest() {
    let probe = Probe::open();
    let tools = Toolbox::empty().with(probe.tool("probe", EffectClass::Once));
    let world = World::new(&calling(&["probe"]), tools);
    let session = world.session("hello").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let kinds = "created message prepared model_step tool_step model_step turn_finished";
    assert_eq!(world.kinds(session).await, kinds);
    assert_eq!(world.said(session).await, ["user: hello", "model: I call.", "model: All done."]);
    assert_eq!((probe.count(), world.state(session).await.owner), (1, None));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn real_tools_work_in_the_directory() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        [[turn.step.call]]
        tool = "write"
        arguments = { path = "note.txt", content = "kept" }
        [[turn.step]]
        [[turn.step.call]]
        tool = "read"
        arguments = { path = "note.txt" }
        [[turn.step]]
        text = "It says: {{last_result}}"
    "#;
    let world = World::new(script, Toolbox::builtin());
    let session = world.session("write and read").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!(std::fs::read_to_string(world.directory().join("note.txt")).unwrap(), "kept");
    assert_eq!(world.outcomes(session).await, [Outcome::Ok, Outcome::Ok]);
    assert!(world.said(session).await.last().unwrap().contains("kept"));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn messages_sent_while_busy_are_answered_in_order() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("first").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.send(session, "second", false).await;
    world.send(session, "third", false).await;
    probe.gate.cancel();
    assert_eq!(driving.await.unwrap(), Driven::Waiting);
    let said = world.said(session).await;
    let models: Vec<_> = said.iter().filter(|text| text.starts_with("model")).collect();
    assert_eq!(models, ["model: I call.", "model: All done.", "model: Second.", "model: Third."]);
    assert!(world.state(session).await.queue.is_empty());
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_tools_and_bad_arguments_become_results() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        [[turn.step.call]]
        tool = "no_such_tool"
        [[turn.step.call]]
        tool = "probe"
        arguments = "{ this is not JSON"
        [[turn.step.call]]
        tool = "probe"
        arguments = { n = "not a number" }
        [[turn.step]]
        text = "I see."
    "#;
    let probe = Probe::open();
    let world = World::new(script, Toolbox::empty().with(probe.tool("probe", EffectClass::Once)));
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Rejected; 3]);
    let results = world.results(session).await;
    assert!(results[0].output.contains("no_such_tool"), "{}", results[0].output);
    assert_eq!(probe.count(), 0);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_call_that_is_not_alone_runs_nothing() {
    let (alone, other) = (Probe::open(), Probe::open());
    let mut exclusive = spec("alone", EffectClass::Once);
    exclusive.exclusive = true;
    let tools = Toolbox::empty().with(alone.tool_of(exclusive)).with(other.tool("other", EffectClass::Once));
    let world = World::new(&calling(&["alone", "other"]), tools);
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Rejected; 2]);
    assert_eq!((alone.count(), other.count()), (0, 0));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ends_the_turn_ends_it() {
    let probe = Probe::open();
    let mut last = spec("last", EffectClass::Once);
    last.stop_after = true;
    let world = World::new(&calling(&["last"]), Toolbox::empty().with(probe.tool_of(last)));
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!(world.kinds(session).await, "created message prepared model_step tool_step turn_finished");
    assert_eq!(finish(&world, session).await, FinishReason::StopAfterTool);
}

#[tokio::test(start_paused = true)]
async fn a_turn_has_at_most_max_steps() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        repeat = 100
        [[turn.step.call]]
        tool = "probe"
    "#;
    let probe = Probe::open();
    let world = World::new(script, Toolbox::empty().with(probe.tool("probe", EffectClass::Once)));
    let session = world.limited(Limits { max_steps: 3, ..Limits::default() }).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!((finish(&world, session).await, probe.count()), (FinishReason::MaxSteps, 3));
}

async fn finish(world: &World, session: SessionId) -> FinishReason {
    let log = world.log(session).await;
    let Fact::TurnFinished { reason, .. } = &log[log.len() - 1].record.fact else {
        panic!("the turn is not finished: {:?}", log[log.len() - 1].record.fact)
    };
    *reason
}

#[tokio::test(start_paused = true)]
async fn a_request_is_done_once_also_when_it_would_be_refused_now() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let session = world.create(world.configuration(), First::Nothing).await;
    let request = RequestId::new("r1").unwrap();
    let archive = || world.engine.command(session, Command::Archive, Some(&request));
    assert!(matches!(archive().await.unwrap().unwrap(), Done::Now(_)));
    let head = world.state(session).await.head;
    assert_eq!(archive().await.unwrap(), Ok(Done::Before(head)));
    assert_eq!(world.state(session).await.head, head);
    let refused = world.engine.command(session, Command::Archive, None).await.unwrap();
    assert!(matches!(refused, Err(Refusal::NotNow { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_edit_is_answered_with_the_first() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let session = world.session("helo").await;
    let request = RequestId::new("r1").unwrap();
    let message = 2;
    let edit = || world.engine.edit(session, Some(message), "hello", Some(&request));
    assert!(matches!(edit().await.unwrap().unwrap(), Done::Now(_)));
    let head = world.state(session).await.head;
    assert_eq!(edit().await.unwrap(), Ok(Done::Before(head)));
    let refused = world.engine.edit(session, Some(message), "hello", None).await.unwrap();
    assert_eq!(refused, Err(Refusal::NotEditable(message)));
}

#[tokio::test(start_paused = true)]
async fn what_makes_a_new_session_cannot_be_done_to_one() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let (session, other) = (world.session("one").await, world.session("two").await);
    for command in [Command::Fork { parent: other }, Command::Import { origin: other }] {
        let refused = world.engine.command(session, command, None).await.unwrap();
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    }
    assert_eq!(world.kinds(session).await, "created message");
}

#[tokio::test(start_paused = true)]
async fn many_sessions_are_claimed_and_run() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let worker = world.worker(&shutdown).await;
    let running = tokio::spawn(async move { worker.run(4).await });
    for n in 0..10 {
        let session = world.session(&format!("session {n}")).await;
        until(&mut world.engine.watch(session, 0), is_kind("turn_finished")).await;
    }
    shutdown.cancel();
    crate::world::bounded(running).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_is_used_from_the_next_step_on() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let session = world.session("one").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let gone = Configuration { directory: "/no/such/place".to_owned(), ..world.configuration() };
    world.command(session, Command::Configure(Box::new(gone))).await;
    world.send(session, "two", false).await;
    assert!(matches!(world.run(session).await, Driven::Failed(_)));
    world.command(session, Command::Configure(Box::new(world.configuration()))).await;
    world.send(session, "three", false).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    world.sound(session).await;
}
