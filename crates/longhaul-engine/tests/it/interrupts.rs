//! What a person does while something runs: it ends at once, and what is said of it is true.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_engine::{Driven, Host};
use longhaul_model::scripted::ScriptedModel;
use longhaul_model::{Error, Identity, Model, ModelCall, PartStream};
use longhaul_session::agent::ToolSpec;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::tool::{CallContext, Tool, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::world::{Probe, World, bounded, calling, is_kind, is_text, is_tool_start, spec, until};

const HANGING: &str = r#"
    [[turn]]
    [[turn.step]]
    text = "Once upon a time"
    fail = { hang = true, after_chars = 11 }
    [[turn]]
    [[turn.step]]
    text = "Second."
"#;

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_a_hanging_model_at_once_and_keeps_what_it_said() {
    let world = World::new(HANGING, Toolbox::empty());
    let session = world.session("tell").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_text).await;
    until(&mut watcher, is_text).await;
    let asked_ms = world.host.monotonic_ms();
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert!(world.host.monotonic_ms() - asked_ms <= 2_000);
    assert_eq!(world.kinds(session).await, "created message prepared interrupting interrupted");
    assert_eq!(world.said(session).await, ["user: tell", "model, cut: Once upon a"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_interrupts_a_streaming_model_is_answered_next() {
    let world = World::new(HANGING, Toolbox::empty());
    let session = world.session("tell").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_text).await;
    until(&mut watcher, is_text).await;
    world.send(session, "stop that", true).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let said = world.said(session).await;
    assert_eq!(said, ["user: tell", "user: stop that", "model, cut: Once upon a", "model: Second."]);
    assert!(world.state(session).await.queue.is_empty());
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_stops_what_runs_and_what_did_not_run_is_called_so() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"; 10]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    for _ in 0..8 {
        until(&mut watcher, is_tool_start).await;
    }
    world.host.sleep_ms(1).await;
    assert_eq!(probe.count(), 8);
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let outcomes = world.outcomes(session).await;
    assert_eq!(outcomes[..8], [Outcome::Stopped; 8]);
    assert_eq!(outcomes[8..], [Outcome::NotRun; 2]);
    world.sound(session).await;
}

/// Never ends, and asks for more patience than it is given.
struct Deaf(AtomicU64);

#[async_trait]
impl Tool for Deaf {
    fn spec(&self) -> ToolSpec {
        spec("deaf", EffectClass::Once)
    }

    async fn call(&self, _: Value, _: &CallContext) -> ToolOutput {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }

    fn stop_grace(&self) -> Duration {
        Duration::from_secs(60 * 60)
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_does_not_hear_is_abandoned() {
    let world = World::new(&calling(&["deaf"]), Toolbox::empty().with(Deaf(AtomicU64::new(0))));
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    let asked_ms = world.host.monotonic_ms();
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let waited_ms = world.host.monotonic_ms() - asked_ms;
    assert!((10_000..20_000).contains(&waited_ms), "{waited_ms} ms");
    assert_eq!(world.outcomes(session).await, [Outcome::Stopped]);
    world.sound(session).await;
}

/// Notes at each call whether something is so.
struct Noting {
    inner: ScriptedModel,
    flag: Arc<AtomicBool>,
    noted: Arc<Mutex<Vec<bool>>>,
}

#[async_trait]
impl Model for Noting {
    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        self.noted.lock().unwrap().push(self.flag.load(Ordering::SeqCst));
        self.inner.call(call).await
    }
}

/// A tool that takes its time to stop the first time it runs, and is quick afterwards.
fn sluggish(stopping: CancellationToken, ended: Arc<AtomicBool>) -> impl Tool {
    let runs = Arc::new(AtomicU64::new(0));
    function(spec("sluggish", EffectClass::Once), move |_, cx: CallContext| {
        let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
        let (stopping, ended) = (stopping.clone(), Arc::clone(&ended));
        async move {
            if first {
                cx.cancel.cancelled().await;
                stopping.cancel();
                tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await.ok();
                ended.store(true, Ordering::SeqCst);
                return ToolOutput::new(Outcome::Stopped, "told to stop");
            }
            ToolOutput::ok("second run")
        }
    })
}

#[tokio::test(start_paused = true)]
async fn an_edit_drops_the_result_and_the_next_effect_waits_for_the_old_one() {
    let (ended, noted) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<bool>>>::default());
    let inner = calling(&["sluggish"]).parse::<ScriptedModel>().unwrap();
    let model = Noting { inner, flag: Arc::clone(&ended), noted: Arc::clone(&noted) };
    let tools = Toolbox::empty().with(sluggish(CancellationToken::new(), Arc::clone(&ended)));
    let world = World::of(Arc::new(model), tools);
    let session = world.session("helo").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    world.engine.edit(session, None, "hello", None).await.unwrap().unwrap();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(*noted.lock().unwrap(), [false, true, true]);
    let results = world.results(session).await;
    assert_eq!(results.iter().map(|result| result.output.as_str()).collect::<Vec<_>>(), ["second run"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_finished_before_the_worker_stops() {
    let stopping = CancellationToken::new();
    let tools = Toolbox::empty().with(sluggish(stopping.clone(), Arc::default()));
    let world = World::new(&calling(&["sluggish"]), tools);
    let session = world.session("go").await;
    let shutdown = CancellationToken::new();
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn_until(session, &shutdown).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    world.interrupt(session).await;
    bounded(stopping.cancelled()).await;
    shutdown.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Stopped]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_the_wait_for_a_retry() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "Never."
        fail = { class = "overloaded", retry_after_ms = 60000, times = 100 }
    "#;
    let world = World::new(script, Toolbox::empty());
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_kind("retry")).await;
    let asked_ms = world.host.monotonic_ms();
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert!(world.host.monotonic_ms() - asked_ms <= 2_000);
    world.sound(session).await;
}
