//! Workers that are told to stop: nobody sees an error, and nothing is lost or done twice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_engine::{Driven, Grace, Host};
use longhaul_session::agent::ToolSpec;
use longhaul_session::entry::Fact;
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_session::state::Status;
use longhaul_tools::tool::{CallContext, Tool, ToolOutput};
use longhaul_tools::toolbox::Toolbox;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::world::{Probe, World, bounded, calling, is_kind, is_text, is_tool_start, spec, until};

/// Drives until so many calls have started, then tells the worker to stop.
async fn stop_at(world: &World, session: SessionId, started: usize) -> tokio::task::JoinHandle<Driven> {
    let shutdown = CancellationToken::new();
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn_until(session, &shutdown).await;
    for _ in 0..started {
        until(&mut watcher, is_tool_start).await;
    }
    world.host.sleep_ms(1).await;
    shutdown.cancel();
    driving
}

async fn given_back(world: &World, session: SessionId) {
    let state = world.state(session).await;
    assert_eq!((state.status, state.owner), (Status::Running, None));
    let kinds = world.kinds(session).await;
    assert!(!kinds.contains("failed"), "{kinds}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_not_started_are_given_back_and_run_once_by_the_next() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"; 10]), tools);
    let session = world.session("go").await;
    let driving = stop_at(&world, session, 8).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    given_back(&world, session).await;
    assert_eq!((probe.count(), world.state(session).await.crashes), (8, 0));

    probe.gate.cancel();
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    assert_eq!(probe.count(), 10);
    let outcomes = world.outcomes(session).await;
    assert_eq!((&outcomes[..8], &outcomes[8..]), (&[Outcome::Stopped; 8][..], &[Outcome::Ok; 2][..]));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_within_the_grace_keeps_its_result() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let driving = stop_at(&world, session, 1).await;
    world.host.sleep_ms(3_000).await;
    probe.gate.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    given_back(&world, session).await;
    assert_eq!(world.outcomes(session).await, [Outcome::Ok]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_gets_its_grace() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        [[turn.step.call]]
        tool = "bash"
        arguments = { command = "sleep 0.3; echo finished" }
    "#;
    let world = World::new(script, Toolbox::builtin());
    let session = world.session("go").await;
    let shutdown = CancellationToken::new();
    let grace = Grace { model_ms: 0, tools_ms: 120_000 };
    let worker = world.worker(&shutdown).await.with_grace(grace, CancellationToken::new());
    let mut watcher = world.engine.watch(session, 0);
    let driving = tokio::spawn(async move { worker.drive(session).await.unwrap() });
    until(&mut watcher, is_tool_start).await;
    shutdown.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    given_back(&world, session).await;
    let results = world.results(session).await;
    assert!(results[0].output.contains("finished"), "{}", results[0].output);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_call_is_cut_and_made_again_without_a_failure() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "Once upon a time"
        delay_ms = 1000
    "#;
    let world = World::new(script, Toolbox::empty());
    let session = world.session("go").await;
    let shutdown = CancellationToken::new();
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn_until(session, &shutdown).await;
    until(&mut watcher, is_text).await;
    shutdown.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    given_back(&world, session).await;
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    assert_eq!(world.said(session).await, ["user: go", "model: Once upon a time"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_retry_ends_at_once() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "Done."
        fail = { class = "overloaded", retry_after_ms = 60000 }
    "#;
    let world = World::new(script, Toolbox::empty());
    let session = world.session("go").await;
    let shutdown = CancellationToken::new();
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn_until(session, &shutdown).await;
    until(&mut watcher, is_kind("retry")).await;
    let told_ms = world.host.monotonic_ms();
    shutdown.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    assert!(world.host.monotonic_ms() - told_ms < 1_000);
    given_back(&world, session).await;
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_took_over_can_stop_too() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("look", EffectClass::Pure));
    let world = World::new(&calling(&["look"; 10]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    driving.abort();
    assert!(driving.await.unwrap_err().is_cancelled());
    let neighbour = world.neighbour();
    let driving = stop_at(&neighbour, session, 8).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    given_back(&world, session).await;
    let released = world.log(session).await.into_iter().rfind(|entry| entry.record.fact.kind() == "released");
    assert!(matches!(released.unwrap().record.fact, Fact::Released { .. }));
    probe.gate.cancel();
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_during_the_grace_does_not_keep_the_session_from_being_given_back() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"; 10]), tools);
    let session = world.session("helo").await;
    let driving = stop_at(&world, session, 8).await;
    world.host.sleep_ms(1_000).await;
    world.engine.edit(session, None, "hello", None).await.unwrap().unwrap();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    given_back(&world, session).await;
    assert_eq!(world.outcomes(session).await, []);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_during_the_grace_keeps_the_results_there_are() {
    let (quick, slow) = (Probe::open(), Probe::shut());
    let tools = Toolbox::empty()
        .with(quick.tool("quick", EffectClass::Pure))
        .with(slow.tool("slow", EffectClass::Once));
    let world = World::new(&calling(&["quick", "slow"]), tools);
    let session = world.session("go").await;
    let driving = stop_at(&world, session, 2).await;
    world.host.sleep_ms(1_000).await;
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Ok, Outcome::Stopped]);
    world.sound(session).await;
}

/// Hears nothing for an hour.
struct Deaf;

#[async_trait]
impl Tool for Deaf {
    fn spec(&self) -> ToolSpec {
        spec("deaf", EffectClass::Once)
    }

    async fn call(&self, _: Value, _: &CallContext) -> ToolOutput {
        std::future::pending().await
    }

    fn stop_grace(&self) -> Duration {
        Duration::from_secs(60 * 60)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_stop_is_unknown_to_the_next_worker() {
    let world = World::new(&calling(&["deaf"]), Toolbox::empty().with(Deaf));
    let session = world.session("go").await;
    let driving = stop_at(&world, session, 1).await;
    let told_ms = world.host.monotonic_ms();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    assert!(world.host.monotonic_ms() - told_ms < 20_000);
    given_back(&world, session).await;
    let neighbour = Arc::new(world.neighbour());
    assert_eq!(bounded(neighbour.run(session)).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Unknown]);
    world.sound(session).await;
}
