//! What a worker takes on by itself, and how it lets go.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longhaul_engine::{Driven, Grace, Host, Service, Told};
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_session::state::Status;
use longhaul_tools::toolbox::Toolbox;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::wire::broken;
use crate::world::{Probe, World, bounded, calling, is_kind, is_text, is_tool_start, until};

/// In real time. Without polls, what is not heard is never known.
const HEARD_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_for_half_a_minute_ends_no_worker_and_fails_no_session() {
    for leases in [false, true] {
        let probe = Probe::shut();
        let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Pure));
        let world = World::new(&calling(&["wait"]), tools);
        if leases {
            world.store.give_leases();
        }
        let shutdown = CancellationToken::new();
        let worker = world.worker(&shutdown).await;
        let serving = tokio::spawn(async move { worker.run(4).await });
        let (busy, waiting) = (world.session("go").await, world.limited(Default::default()).await);
        until(&mut world.engine.watch(busy, 0), is_tool_start).await;
        until(&mut world.engine.watch(waiting, 0), is_tool_start).await;
        world.store.down.store(true, Ordering::SeqCst);
        world.host.sleep_ms(15_000).await;
        probe.gate.cancel();
        world.host.sleep_ms(15_000).await;
        world.store.down.store(false, Ordering::SeqCst);
        for session in [busy, waiting] {
            until(&mut world.engine.watch(session, 0), is_kind("turn_finished")).await;
            let state = world.state(session).await;
            assert_eq!((state.status, state.crashes), (Status::Waiting, 0));
            assert_eq!(world.outcomes(session).await, [Outcome::Ok]);
            world.sound(session).await;
        }
        shutdown.cancel();
        bounded(serving).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_look_for_work_says_so_and_looks_again() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let shutdown = CancellationToken::new();
    let worker = world.worker(&shutdown).await;
    world.store.fail_looks(3, broken());
    let told = Arc::<Mutex<Vec<Told>>>::default();
    let tell = Arc::clone(&told);
    let serving = tokio::spawn(async move {
        let service = Service { capacity: 4, until_idle: false };
        worker.serve(service, move |news| tell.lock().unwrap().push(news)).await
    });
    let session = world.session("go").await;
    until(&mut world.engine.watch(session, 0), is_kind("turn_finished")).await;
    shutdown.cancel();
    bounded(serving).await.unwrap().unwrap();
    let trouble = |wait_ms| Told::Trouble { session: None, error: broken().to_string(), wait_ms };
    assert_eq!(
        *told.lock().unwrap(),
        [
            trouble(1_000),
            trouble(2_000),
            trouble(4_000),
            Told::Claimed { session },
            Told::Ended { session, driven: Driven::Waiting },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_worker_claims_no_more_and_then_goes_on() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Pure));
    let world = World::new(&calling(&["wait"]), tools);
    let shutdown = CancellationToken::new();
    let worker = world.worker(&shutdown).await;
    let id = worker.id();
    let mut sessions = Vec::new();
    for _ in 0..7 {
        sessions.push(world.session("go").await);
    }
    let serving =
        tokio::spawn(async move { worker.serve(Service { capacity: 3, until_idle: true }, |_| {}).await });
    world.host.sleep_ms(60_000).await;
    let workers = longhaul_store::Store::workers(&*world.store).await.unwrap();
    assert_eq!(workers.iter().find(|worker| worker.worker == id).unwrap().running, 3);
    probe.gate.cancel();
    bounded(serving).await.unwrap().unwrap();
    for session in sessions {
        assert_eq!(world.state(session).await.status, Status::Waiting);
    }
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_work_is_found_by_a_hint_and_not_by_a_poll() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    // No poll ever comes: what is left are the short pauses between two looks.
    world.host.let_none_end_from_ms(50);
    let shutdown = CancellationToken::new();
    let worker = world.worker(&shutdown).await;
    let serving = tokio::spawn(async move { worker.run(4).await });
    let worked = async {
        for _ in 0..8 {
            let session = world.session("go").await;
            until(&mut world.engine.watch(session, 0), is_kind("turn_finished")).await;
        }
    };
    assert!(timeout(HEARD_WITHIN, worked).await.is_ok(), "a hint was not heard");
    shutdown.cancel();
    bounded(serving).await.unwrap().unwrap();
}

const TALE: &str = r#"
    [[turn]]
    [[turn.step]]
    text = "Once upon a time there was a step that took a while."
    delay_ms = 500
"#;

#[tokio::test(start_paused = true)]
async fn a_model_call_may_end_within_the_grace() {
    for (grace_ms, at_once, told) in [(10_000, false, 1), (1_000, false, 0), (10_000, true, 0)] {
        let world = World::new(TALE, Toolbox::empty());
        let session = world.session("go").await;
        let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
        let grace = Grace { model_ms: grace_ms, tools_ms: grace_ms };
        let worker = world.worker(&shutdown).await.with_grace(grace, now.clone());
        let driving = tokio::spawn(async move { worker.drive(session).await.unwrap() });
        until(&mut world.engine.watch(session, 0), is_text).await;
        shutdown.cancel();
        let told_ms = world.host.monotonic_ms();
        if at_once {
            world.host.sleep_ms(100).await;
            now.cancel();
        }
        assert_eq!(bounded(driving).await.unwrap(), Driven::Stopped);
        assert!(world.host.monotonic_ms() - told_ms <= if at_once { 200 } else { grace_ms });
        let steps = world.kinds(session).await.matches("model_step").count();
        assert_eq!(steps, told, "grace {grace_ms} ms, at once: {at_once}");
        assert_eq!(world.state(session).await.owner, None);
    }
}
