//! Models that do not behave: what they answer is never worse than a failed attempt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use longhaul_engine::{Driven, Engine};
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::command::Command;
use longhaul_session::failure::FailureClass;
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::usage::Usage;
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::{By, answers, says, wants_summary};
use crate::world::{Probe, World, bounded};

/// Calls a tool so many times, each time by the same id.
fn calls(many: u32, id: &str) -> Result<Vec<Part>, Error> {
    let call = |index| {
        let started = Part::ToolCallStarted { index, id: Some(id.to_owned()), name: "probe".to_owned() };
        [started, Part::ToolCallEnd { index, opaque: None }]
    };
    let usage = Usage { input: 10, output: 1, ..Usage::default() };
    let end = [Part::Usage { usage }, Part::Finished { reason: FinishReason::ToolCalls, raw: None }];
    Ok((0..many).flat_map(call).chain(end).collect())
}

fn world<F>(answer: F, probe: &Probe) -> World
where
    F: Fn(&ModelCall) -> Result<Vec<Part>, Error> + Send + Sync + 'static,
{
    World::of(Arc::new(By(answer)), Toolbox::empty().with(probe.tool("probe", EffectClass::Once)))
}

#[tokio::test(start_paused = true)]
async fn a_model_that_panics_is_a_failed_attempt() {
    let answer = |call: &ModelCall| {
        assert!(call.attempt > 0, "the first attempt breaks");
        says("Done.")
    };
    let world = world(answer, &Probe::open());
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.kinds(session).await, "created message prepared retry model_step turn_finished");
    assert_eq!(world.state(session).await.epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_used_is_a_failed_attempt_and_paid_for() {
    // Bounded: an engine that asks for ever must fail the test, not hang it.
    let asked = AtomicU64::new(0);
    let answer = move |call: &ModelCall| {
        let first = call.attempt == 0 && asked.fetch_add(1, Ordering::SeqCst) < 20;
        if first { calls(129, "c") } else { says("Done.") }
    };
    let probe = Probe::open();
    let world = world(answer, &probe);
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.kinds(session).await, "created message prepared retry model_step turn_finished");
    assert_eq!((probe.count(), world.state(session).await.ledger.measured.input), (0, 20));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn call_ids_that_a_provider_uses_again_are_told_apart() {
    let answer = |call: &ModelCall| {
        let results = call.request.items.iter().filter(|item| matches!(***item, Item::ToolResult(_)));
        if results.count() < 6 { calls(2, "call_0") } else { says("Done.") }
    };
    let probe = Probe::open();
    let world = world(answer, &probe);
    let session = world.session("go").await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!((probe.count(), world.outcomes(session).await), (6, vec![Outcome::Ok; 6]));
    world.sound(session).await;
}

type Place = Arc<OnceLock<(Engine, SessionId)>>;

/// Answers by a function that may do something to the session meanwhile.
struct Meanwhile<F>(Place, F);

#[async_trait]
impl<F, R> Model for Meanwhile<F>
where
    F: Fn(Engine, SessionId, ModelCall) -> R + Send + Sync + 'static,
    R: Future<Output = Result<PartStream, Error>> + Send,
{
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "meanwhile".to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let (engine, session) = self.0.get().unwrap().clone();
        self.1(engine, session, call).await
    }
}

/// A world whose model does that meanwhile, with a session in it.
async fn meanwhile<F, R>(answer: F, mute: bool) -> (World, SessionId)
where
    F: Fn(Engine, SessionId, ModelCall) -> R + Send + Sync + 'static,
    R: Future<Output = Result<PartStream, Error>> + Send + 'static,
{
    let place = Place::default();
    let world = World::of(Arc::new(Meanwhile(Arc::clone(&place), answer)), Toolbox::empty());
    world.store.mute.store(mute, Ordering::Relaxed);
    let session = world.session("go").await;
    place.set((world.engine.clone(), session)).ok();
    (world, session)
}

fn parts(parts: Vec<Part>) -> PartStream {
    Box::pin(stream::iter(parts.into_iter().map(Ok)))
}

async fn interrupt(engine: &Engine, session: SessionId) {
    engine.command(session, Command::Interrupt { drop_queue: false }, None).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_model_reported_just_before_it_was_interrupted_is_paid_for() {
    let answer = async |engine: Engine, session, _| {
        interrupt(&engine, session).await;
        let usage = Usage { input: 7, output: 1, ..Usage::default() };
        Ok(Box::pin(parts(vec![Part::Usage { usage }]).chain(stream::pending())) as PartStream)
    };
    // Mute, so that the runner has what was reported when it learns of the interrupt.
    let (world, session) = meanwhile(answer, true).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(world.kinds(session).await, "created message prepared interrupting interrupted");
    assert_eq!(world.state(session).await.ledger.measured.input, 7);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_fails_as_it_is_interrupted_is_paid_for() {
    let answer = async |engine: Engine, session, call: ModelCall| {
        if !wants_summary(&call) {
            return Ok(parts(answers("long", 1_000_000).unwrap()));
        }
        interrupt(&engine, session).await;
        let usage = Some(Usage { input: 7, output: 1, ..Usage::default() });
        Err(Error { usage, ..Error::new(FailureClass::Auth, "no") })
    };
    let (world, session) = meanwhile(answer, true).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert_eq!(kinds, "created message prepared model_step interrupting interrupted");
    assert_eq!(world.state(session).await.ledger.measured.input, 1_000_007);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_after_an_edit_does_not_fail_the_new_turn() {
    let asked = AtomicU64::new(0);
    let answer = move |engine: Engine, session, _| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !first {
                return Ok(parts(says("Done.").unwrap()));
            }
            engine.edit(session, None, "go on", None).await.unwrap().unwrap();
            let usage = Some(Usage { input: 7, output: 1, ..Usage::default() });
            Err(Error { usage, ..Error::new(FailureClass::Auth, "no") })
        }
    };
    let (world, session) = meanwhile(answer, true).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert_eq!(kinds, "created message prepared edited settled model_step turn_finished");
    assert_eq!(world.state(session).await.ledger.measured.input, 17);
    world.sound(session).await;
}
