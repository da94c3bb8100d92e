//! The calls of one step: side by side, bounded, and none lost for a neighbour's sake.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_engine::{Driven, Host};
use longhaul_session::agent::ToolSpec;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::tool::{CallContext, Tool, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use serde_json::Value;
use tokio::sync::Barrier;

use crate::world::{Probe, World, bounded, calling, is_kind, is_tool_start, spec, until};

#[tokio::test(start_paused = true)]
async fn parallel_calls_run_side_by_side_and_commit_together_in_call_order() {
    let barrier = Arc::new(Barrier::new(2));
    let meeting = |name: &'static str| {
        let barrier = Arc::clone(&barrier);
        function(spec(name, EffectClass::Once), move |_, _| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                ToolOutput::ok(name)
            }
        })
    };
    let tools = Toolbox::empty().with(meeting("zig")).with(meeting("zag"));
    let world = World::new(&calling(&["zig", "zag"]), tools);
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let kinds = "created message prepared model_step tool_step model_step turn_finished";
    assert_eq!(world.kinds(session).await, kinds);
    let outputs: Vec<_> = world.results(session).await.into_iter().map(|result| result.output).collect();
    assert_eq!(outputs, ["zig", "zag"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_eight_calls_run_at_the_same_time() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"; 20]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    for _ in 0..8 {
        until(&mut watcher, is_tool_start).await;
    }
    world.host.sleep_ms(5_000).await;
    assert_eq!(probe.count(), 8);
    probe.gate.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!((probe.count(), world.outcomes(session).await.len()), (20, 20));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_result_outlives_its_hanging_neighbour_and_a_crash() {
    let (quick, slow) = (Probe::open(), Probe::shut());
    let tools = Toolbox::empty()
        .with(slow.tool("slow", EffectClass::Once))
        .with(quick.tool("quick", EffectClass::Once));
    let world = World::new(&calling(&["slow", "quick"]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    let started_ms = world.host.monotonic_ms();
    until(&mut watcher, is_kind("tool_step")).await;
    let waited_ms = world.host.monotonic_ms() - started_ms;
    assert!((2_000..4_000).contains(&waited_ms), "{waited_ms} ms");
    driving.abort();
    assert!(driving.await.unwrap_err().is_cancelled());

    let neighbour = world.neighbour();
    assert_eq!(bounded(neighbour.run(session)).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Ok, Outcome::Unknown]);
    assert_eq!((quick.count(), slow.count()), (1, 1));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_panics_is_a_result_and_harms_no_other() {
    let probe = Probe::open();
    let bomb = function(spec("bomb", EffectClass::Once), |_, _| async { panic!("boom") });
    let tools = Toolbox::empty().with(bomb).with(probe.tool("probe", EffectClass::Once));
    let world = World::new(&calling(&["bomb", "probe"]), tools);
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Error, Outcome::Ok]);
    assert_eq!(world.state(session).await.epoch, 1);
    world.sound(session).await;
}

/// Breaks where it is not even called yet.
struct Crooked(Probe);

#[async_trait]
impl Tool for Crooked {
    fn spec(&self) -> ToolSpec {
        spec("crooked", EffectClass::Once)
    }

    async fn call(&self, _: Value, _: &CallContext) -> ToolOutput {
        self.0.runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        ToolOutput::ok("done")
    }

    fn stop_grace(&self) -> Duration {
        panic!("no grace")
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_task_is_lost_is_unknown_and_not_started_again() {
    let world = World::new(&calling(&["crooked"]), Toolbox::empty().with(Crooked(Probe::open())));
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Unknown]);
    world.sound(session).await;
}
