//! Leases, where the store has them: renewed together, and over before another may take over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use longhaul_engine::{Driven, Grace, Host};
use longhaul_model::{Error, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::command::First;
use longhaul_session::entry::Fact;
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_session::usage::Usage;
use longhaul_tools::tool::{CallContext, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::puppet::{By, says};
use crate::world::{Clock, Probe, World, bounded, calling, is_kind, is_tool_start, spec, until};

/// A world whose store has leases.
fn leased(script: &str, tools: Toolbox) -> World {
    let world = World::new(script, tools);
    world.store.give_leases();
    world
}

async fn served(world: &World, shutdown: &CancellationToken) -> JoinHandle<()> {
    let worker = world.worker(shutdown).await;
    tokio::spawn(async move { worker.run(16).await.unwrap() })
}

#[tokio::test(start_paused = true)]
async fn one_renewal_covers_all_sessions_and_goes_on_without_any() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = leased(&calling(&["wait"]), tools);
    let shutdown = CancellationToken::new();
    let serving = served(&world, &shutdown).await;
    world.host.sleep_ms(11_000).await;
    assert_eq!(world.store.renewals(), [Vec::new(), Vec::new()]);

    let mut sessions = Vec::new();
    for _ in 0..5 {
        let session = world.session("go").await;
        until(&mut world.engine.watch(session, 0), is_tool_start).await;
        sessions.push(session);
    }
    sessions.sort_unstable();
    world.host.sleep_ms(60_000).await;
    let renewals = world.store.renewals().split_off(2);
    assert!((11..=13).contains(&renewals.len()), "one every five seconds: {}", renewals.len());
    assert!(renewals.iter().all(|renewed| *renewed == sessions), "{renewals:?}");
    shutdown.cancel();
    bounded(serving).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_tool_call_is_renewed_to_its_end_and_also_while_the_worker_drains() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = leased(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let shutdown = CancellationToken::new();
    let grace = Grace { model_ms: 0, tools_ms: 120_000 };
    let worker = world.worker(&shutdown).await.with_grace(grace, CancellationToken::new());
    let driving = tokio::spawn(async move { worker.drive(session).await.unwrap() });
    until(&mut world.engine.watch(session, 0), is_tool_start).await;
    world.host.sleep_ms(60_000).await;
    shutdown.cancel();
    world.host.sleep_ms(60_000).await;
    probe.gate.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
    assert_eq!(world.outcomes(session).await, [Outcome::Ok]);
    let ended = world.store.renewals().len();
    world.host.sleep_ms(60_000).await;
    assert_eq!(world.store.renewals().len(), ended, "nobody renews for a worker that has ended");
    world.sound(session).await;
}

/// Notes when a call was told to stop.
#[derive(Default)]
struct Note {
    host: OnceLock<Arc<Clock>>,
    stopped_ms: AtomicU64,
}

/// A session in a call that ends only when it is told to, and then says that it was done.
struct Held {
    world: World,
    session: SessionId,
    acquired_ms: u64,
    note: Arc<Note>,
    driving: JoinHandle<Driven>,
}

impl Held {
    async fn begin() -> Self {
        let note = Arc::<Note>::default();
        let noting = Arc::clone(&note);
        let tool = function(spec("wait", EffectClass::Once), move |_, cx: CallContext| {
            let note = Arc::clone(&noting);
            async move {
                cx.cancel.cancelled().await;
                note.stopped_ms.store(note.host.get().unwrap().monotonic_ms(), Ordering::SeqCst);
                ToolOutput::ok("it was done after all")
            }
        });
        let world = leased(&calling(&["wait"]), Toolbox::empty().with(tool));
        assert!(note.host.set(Arc::clone(&world.host)).is_ok());
        let session = world.session("go").await;
        let acquired_ms = world.host.monotonic_ms();
        let driving = world.spawn(session).await;
        until(&mut world.engine.watch(session, 0), is_tool_start).await;
        Held { world, session, acquired_ms, note, driving }
    }

    /// Returns how long after the acquisition the call was told to stop.
    async fn stopped_after_ms(&self) -> u64 {
        for _ in 0..120 {
            if self.note.stopped_ms.load(Ordering::SeqCst) > 0 {
                break;
            }
            self.world.host.sleep_ms(250).await;
        }
        self.note.stopped_ms.load(Ordering::SeqCst) - self.acquired_ms
    }

    /// Waits for the end of the turn, and returns what says who ran the session, and what was committed.
    async fn story(self) -> (World, SessionId, String) {
        let Held { world, session, driving, .. } = self;
        assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
        let told = |fact: &Fact| {
            if matches!(fact, Fact::Acquired { lost: true, .. }) { "taken over" } else { fact.kind() }
        };
        let story: Vec<_> = world.log(session).await.iter().map(|entry| told(&entry.record.fact)).collect();
        world.sound(session).await;
        (world, session, story.join(" "))
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_whose_lease_is_not_renewed_stops_before_another_could_take_over() {
    for hangs in [false, true] {
        let held = Held::begin().await;
        if hangs {
            held.world.store.hang_renewals();
        } else {
            held.world.store.fail_renewals();
        }
        let after_ms = held.stopped_after_ms().await;
        assert!((11_000..=12_001).contains(&after_ms), "stopped after {after_ms} of 15,000 ms");
        let (world, session, story) = held.story().await;
        assert_eq!(
            story,
            "created message acquired prepared model_step released acquired tool_step model_step turn_finished"
        );
        assert_eq!(world.outcomes(session).await, [Outcome::Unknown], "its result came after the lease");
        assert_eq!(world.state(session).await.crashes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_whose_session_is_lost_stops_at_once_and_writes_nothing() {
    let held = Held::begin().await;
    held.world.store.lose(held.session);
    let after_ms = held.stopped_after_ms().await;
    assert!((4_900..=5_500).contains(&after_ms), "the first renewal tells it: {after_ms} ms");
    let (world, session, story) = held.story().await;
    assert_eq!(
        story,
        "created message acquired prepared model_step taken over tool_step model_step turn_finished"
    );
    assert_eq!(world.outcomes(session).await, [Outcome::Unknown]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_was_stopped_past_its_lease_starts_no_call_when_it_wakes() {
    let (host, probe) = (Arc::new(OnceLock::<Arc<Clock>>::new()), Probe::open());
    let asleep = Arc::clone(&host);
    // One of the eight calls that are started together: the process is stopped while it runs.
    let sleeper = function(spec("sleep", EffectClass::Once), move |_, _: CallContext| {
        let host = Arc::clone(&asleep);
        async move {
            host.get().unwrap().skip_ms(20_000);
            ToolOutput::ok("slept")
        }
    });
    let tools = Toolbox::empty().with(sleeper).with(probe.tool("look", EffectClass::Once));
    let world = leased(&calling(&[&["sleep"][..], &["look"; 9]].concat()), tools);
    assert!(host.set(Arc::clone(&world.host)).is_ok());
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let given_back = world.log(session).await.into_iter().find_map(|entry| {
        if let Fact::Released { not_started } = entry.record.fact { Some(not_started.len()) } else { None }
    });
    assert_eq!(given_back, Some(2));
    let outcomes = world.outcomes(session).await;
    assert_eq!((&outcomes[..8], &outcomes[8..]), (&[Outcome::Unknown; 8][..], &[Outcome::Ok; 2][..]));
    assert_eq!(probe.count(), 9, "each once");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_was_stopped_past_its_lease_makes_no_model_call_when_it_wakes() {
    let calls = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&calls);
    let model = By(move |_: &ModelCall| {
        counted.fetch_add(1, Ordering::SeqCst);
        says("Done.")
    });
    let world = World::of(Arc::new(model), Toolbox::empty());
    world.store.give_leases();
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let acquisition = world.store.stall();
    let driving = world.spawn(session).await;
    world.host.sleep_ms(100).await;
    world.host.skip_ms(20_000);
    acquisition.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    until(&mut watcher, is_kind("released")).await;
    world.sound(session).await;
}

/// Reports what it has used, and answers only the second time.
struct Slow(AtomicU64);

#[async_trait]
impl Model for Slow {
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "slow".to_owned(), scripted: true }
    }

    async fn call(&self, _: ModelCall) -> Result<PartStream, Error> {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(Box::pin(stream::iter(says("Done.")?.into_iter().map(Ok))));
        }
        let used = Part::Usage { usage: Usage { input: 7, ..Usage::default() } };
        Ok(Box::pin(stream::iter([Ok(used)]).chain(stream::pending())))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_model_used_before_the_lease_ended_is_paid_when_the_session_is_given_back() {
    let world = World::of(Arc::new(Slow(AtomicU64::new(0))), Toolbox::empty());
    world.store.give_leases();
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    world.host.sleep_ms(1_000).await;
    world.store.hang_renewals();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    until(&mut watcher, is_kind("settled")).await;
    until(&mut watcher, is_kind("released")).await;
    assert_eq!(world.state(session).await.ledger.measured.input, 17);
    world.sound(session).await;
}

/// An answer that its provider keeps: named at once, and told when the gate is open, to whoever asks for it. The
/// first time the machine sleeps past a lease right before it is told.
struct KeptThere {
    gate: CancellationToken,
    calls: AtomicU64,
    clock: OnceLock<Arc<Clock>>,
}

#[async_trait]
impl Model for KeptThere {
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "background".to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let sleeper = call.resume.is_none().then(|| self.clock.get().unwrap().clone());
        self.calls.fetch_add(u64::from(call.resume.is_none()), Ordering::SeqCst);
        let named = stream::iter([Ok(Part::Started { response_id: Some("r1".to_owned()) })]);
        let (gate, parts) = (self.gate.clone(), says("Done.")?);
        let told = stream::once(async move { gate.cancelled().await }).flat_map(move |()| {
            if let Some(clock) = &sleeper {
                clock.skip_ms(20_000);
            }
            let parts: Vec<_> = parts.iter().cloned().map(Ok).collect();
            stream::iter(parts)
        });
        Ok(Box::pin(named.chain(told)))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_picked_up_again_is_not_paid_when_the_session_is_given_back() {
    let (gate, calls) = (CancellationToken::new(), AtomicU64::new(0));
    let model = Arc::new(KeptThere { gate, calls, clock: OnceLock::new() });
    let world = World::of(model.clone(), Toolbox::empty());
    model.clock.set(world.host.clone()).ok();
    world.store.give_leases();
    let mut configuration = world.configuration();
    configuration.model.resumable = true;
    let session = world.create(configuration, First::Message("go".into())).await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_kind("response_started")).await;
    model.gate.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(model.calls.load(Ordering::SeqCst), 1, "it was asked for once");
    assert_eq!(world.state(session).await.ledger.measured.input, 10);
    world.sound(session).await;
}
