//! A store that fails, and what a session needs that is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_engine::{Driven, Error, Host};
use longhaul_model::Model;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::ModelChoice;
use longhaul_session::entry::Fact;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::toolbox::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::wire::{broken, busy};
use crate::world::{ModelsBy, Probe, World, bounded, calling, failure, is_kind, is_tool_start, until};

#[tokio::test(start_paused = true)]
async fn a_store_that_is_busy_is_asked_again() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let session = world.session("go").await;
    world.store.fail_next(4, busy());
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.kinds(session).await, "created message prepared model_step turn_finished");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_good_ends_the_run_and_not_the_session() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let worker = world.worker(&CancellationToken::new()).await;
    let mut watcher = world.engine.watch(session, 0);
    let first = worker.clone();
    let driving = tokio::spawn(async move { first.drive(session).await });
    until(&mut watcher, is_tool_start).await;
    world.store.fail_next(u32::MAX, broken());
    probe.gate.cancel();
    let error = bounded(driving).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Store(error) if error == broken()));
    world.store.fail_next(0, broken());
    assert_eq!(bounded(worker.drive(session)).await.unwrap(), Driven::Waiting);
    assert_eq!((world.outcomes(session).await, probe.count()), (vec![Outcome::Unknown], 1));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_goes_on_with_a_session_after_an_error_but_not_in_a_rush() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let shutdown = CancellationToken::new();
    let worker = world.worker(&shutdown).await;
    let session = world.session("go").await;
    world.store.fail_next(7, broken());
    let running = tokio::spawn(async move { worker.run(4).await });
    let started_ms = world.host.monotonic_ms();
    until(&mut world.engine.watch(session, 0), is_kind("turn_finished")).await;
    assert!(world.host.monotonic_ms() - started_ms >= 3_000);
    shutdown.cancel();
    bounded(running).await.unwrap().unwrap();
    let log = world.log(session).await;
    let acquired = log.iter().filter(|entry| matches!(entry.record.fact, Fact::Acquired { .. })).count();
    assert!(acquired <= 3, "acquired {acquired} times");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_stops_a_running_session_when_it_is_told_to() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let shutdown = CancellationToken::new();
    let worker = world.worker(&shutdown).await;
    let running = tokio::spawn(async move { worker.run(4).await });
    let session = world.session("go").await;
    until(&mut world.engine.watch(session, 0), is_tool_start).await;
    shutdown.cancel();
    bounded(running).await.unwrap().unwrap();
    assert_eq!(world.state(session).await.owner, None);
    assert_eq!(world.state(session).await.crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_gone_fails_the_preparation_and_says_so() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let session = world.session("go").await;
    std::fs::remove_dir(world.directory()).unwrap();
    let started_ms = world.host.monotonic_ms();
    let failure = failure(bounded(world.run(session)).await);
    let waited_ms = world.host.monotonic_ms() - started_ms;
    assert_eq!(failure.class, FailureClass::Preparation);
    assert!(failure.message.contains("work"), "{}", failure.message);
    assert!((600..3_000).contains(&waited_ms), "{waited_ms} ms");
    world.sound(session).await;

    std::fs::create_dir(world.directory()).unwrap();
    world.send(session, "again", false).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    world.sound(session).await;
}

/// Models that are missing for that many tries.
fn missing(times: u64, class: FailureClass) -> (World, Arc<AtomicU64>) {
    let script = calling(&[]).parse::<ScriptedModel>().unwrap();
    let tries = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&tries);
    let models = ModelsBy(move |_: &ModelChoice| {
        if counted.fetch_add(1, Ordering::SeqCst) < times {
            let message = "the script is missing; put it back".to_owned();
            return Err(Failure { class, message });
        }
        Ok(Arc::new(script.clone()) as Arc<dyn Model>)
    });
    (World::with_models(Arc::new(models), Toolbox::empty()), tries)
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_looked_for_three_times() {
    let (world, tries) = missing(3, FailureClass::Preparation);
    let session = world.session("go").await;
    let failure = failure(bounded(world.run(session)).await);
    assert_eq!(failure.message, "the script is missing; put it back");
    assert_eq!((failure.class, tries.load(Ordering::SeqCst)), (FailureClass::Preparation, 3));
    world.send(session, "again", false).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_is_found() {
    let (world, _) = missing(2, FailureClass::Preparation);
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_not_asked_for_again() {
    let (world, tries) = missing(u64::MAX, FailureClass::Auth);
    let session = world.session("go").await;
    let failure = failure(bounded(world.run(session)).await);
    assert_eq!((failure.class, tries.load(Ordering::SeqCst)), (FailureClass::Auth, 1));
}
