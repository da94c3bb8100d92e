//! Workers that die, stall or break: who goes on, with what, and what is said of what nobody saw end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use longhaul_engine::{Driven, Host, Models};
use longhaul_model::Model;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Fact;
use longhaul_session::failure::FailureClass;
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::tool::{CallContext, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{ModelsBy, Probe, World, bounded, calling, failure, is_text, is_tool_start, spec, until};

/// Models that break the runner itself, so many times.
fn breaking(times: u64) -> Arc<dyn Models> {
    let script = calling(&["probe"]).parse::<ScriptedModel>().unwrap();
    let asked = AtomicU64::new(0);
    Arc::new(ModelsBy(move |_: &ModelChoice| {
        assert!(asked.fetch_add(1, Ordering::SeqCst) >= times, "the models break");
        Ok(Arc::new(script.clone()) as Arc<dyn Model>)
    }))
}

async fn losses(world: &World, session: SessionId) -> usize {
    let log = world.log(session).await;
    log.iter().filter(|entry| matches!(entry.record.fact, Fact::Acquired { lost: true, .. })).count()
}

/// Ends a worker without a word.
async fn kill(driving: JoinHandle<Driven>) {
    driving.abort();
    assert!(driving.await.unwrap_err().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_breaks_is_taken_over_and_counted() {
    let probe = Probe::open();
    let tools = Toolbox::empty().with(probe.tool("probe", EffectClass::Once));
    let world = World::with_models(breaking(2), tools);
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!((losses(&world, session).await, probe.count()), (2, 1));
    assert_eq!(world.state(session).await.crashes, 0, "it got further since");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_always_breaks_ends_in_a_crash_loop() {
    let world = World::with_models(breaking(u64::MAX), Toolbox::empty());
    let session = world.session("go").await;
    assert_eq!(failure(bounded(world.run(session)).await).class, FailureClass::CrashLoop);
    assert_eq!(losses(&world, session).await, 3);
    assert_eq!(world.kinds(session).await, "created message failed");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_workers_drives_and_the_other_takes_over_at_once() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    let neighbour = world.neighbour();
    let owner = world.state(session).await.owner.unwrap().worker;
    assert_eq!(neighbour.run(session).await, Driven::OwnedBy(owner));

    kill(driving).await;
    let killed_ms = world.host.monotonic_ms();
    assert_eq!(bounded(neighbour.run(session)).await, Driven::Waiting);
    assert!(world.host.monotonic_ms() - killed_ms < 3_000);
    assert_eq!((world.outcomes(session).await, probe.count()), (vec![Outcome::Unknown], 1));
    assert_eq!(losses(&world, session).await, 1);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_pure_call_of_a_dead_worker_is_run_again() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("look", EffectClass::Pure));
    let world = World::new(&calling(&["look"]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    kill(driving).await;
    probe.gate.cancel();
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    assert_eq!((world.outcomes(session).await, probe.count()), (vec![Outcome::Ok], 2));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_arguments_were_redacted_is_not_run_again() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("look", EffectClass::Pure));
    let script = calling(&["look\"\narguments = \"{ }"]);
    let world = World::new(&script, tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    kill(driving).await;
    let step = world.state(session).await.pending[0].step;
    world.command(session, Command::Redact { entry: step }).await;
    probe.gate.cancel();
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    assert_eq!((world.outcomes(session).await, probe.count()), (vec![Outcome::Unknown], 1));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_call_is_run_again_with_the_same_key() {
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let noting = Arc::clone(&keys);
    let put = function(spec("put", EffectClass::Idempotent), move |_, cx: CallContext| {
        noting.lock().unwrap().push(cx.key.to_string());
        let first = noting.lock().unwrap().len() == 1;
        async move { if first { std::future::pending().await } else { ToolOutput::ok("put") } }
    });
    let world = World::new(&calling(&["put"]), Toolbox::empty().with(put));
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    kill(driving).await;
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    let keys = keys.lock().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_kills_its_worker_is_stopped_by_the_crash_counter() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("look", EffectClass::Pure));
    let world = World::new(&calling(&["look"]), tools);
    let session = world.session("go").await;
    for _ in 0..3 {
        let neighbour = world.neighbour();
        let mut watcher = neighbour.engine.watch(session, 0);
        let driving = neighbour.spawn(session).await;
        until(&mut watcher, is_tool_start).await;
        neighbour.host.sleep_ms(1).await;
        kill(driving).await;
    }
    assert_eq!(failure(bounded(world.run(session)).await).class, FailureClass::CrashLoop);
    assert_eq!(probe.count(), 3);
    assert_eq!(world.outcomes(session).await, [Outcome::Unknown]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_model_call_may_have_cost_is_estimated_apart() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "Once upon a time"
        usage = { input = 10, output = 2 }
        fail = { hang = true, after_chars = 11 }
    "#;
    let world = World::new(script, Toolbox::empty());
    let limits = Limits { model_call_ms: 5_000, ..Limits::default() };
    let configuration = Configuration { limits, ..world.configuration() };
    let session = world.create(configuration, First::Message("x".repeat(400).into())).await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_text).await;
    kill(driving).await;
    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    let ledger = world.state(session).await.ledger;
    // A quarter of the message's bytes, and of the prompt's and the tools'.
    assert!(ledger.measured.input == 10 && (101..2_000).contains(&ledger.estimated.input), "{ledger:?}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_runner_whose_session_was_taken_over_writes_nothing() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    let stall = world.store.stall();
    world.store.declare_dead();
    probe.gate.cancel();
    world.host.sleep_ms(100).await;

    let neighbour = world.neighbour();
    assert_eq!(bounded(neighbour.run(session)).await, Driven::Waiting);
    let before = world.log(session).await;
    stall.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(world.log(session).await, before);
    assert_eq!(world.outcomes(session).await, [Outcome::Unknown]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_drives_a_session_once_at_a_time() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let worker = world.worker(&CancellationToken::new()).await;
    let mut watcher = world.engine.watch(session, 0);
    let first = worker.clone();
    let driving = tokio::spawn(async move { first.drive(session).await.unwrap() });
    until(&mut watcher, is_tool_start).await;
    assert_eq!(worker.drive(session).await.unwrap(), Driven::OwnedBy(worker.id()));
    kill(driving).await;
    probe.gate.cancel();
    assert_eq!(bounded(worker.drive(session)).await.unwrap(), Driven::Waiting);
    world.sound(session).await;
}
