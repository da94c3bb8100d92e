//! Failed attempts: repeated, by entries, for as long as is allowed.

use longhaul_engine::{Driven, Event, Host};
use longhaul_session::agent::Limits;
use longhaul_session::entry::{Entry, Fact};
use longhaul_session::failure::{FailureClass, Retry};
use longhaul_session::id::Timestamp;
use longhaul_tools::toolbox::Toolbox;

use crate::world::{World, bounded, failure, is_kind, until};

/// A script of one answer that fails in this way before.
fn failing(fail: &str) -> String {
    format!(
        "[[turn]]\n[[turn.step]]\ntext = \"Finally there.\"\ndelay_ms = 20\nusage = {{ input = 10, output = 2 }}\n\
         fail = {fail}\n"
    )
}

fn retries(log: &[Entry]) -> Vec<(Timestamp, u32, Retry)> {
    let retry = |entry: &Entry| {
        let Fact::Retry { retry, attempt, .. } = &entry.record.fact else { return None };
        Some((entry.record.at, *attempt, *retry))
    };
    log.iter().filter_map(retry).collect()
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_twice_is_made_a_third_time() {
    let script =
        failing("{ class = \"overloaded\", times = 2, after_chars = 8, usage = { input = 7, output = 1 } }");
    let world = World::new(&script, Toolbox::empty());
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    let events = until(&mut watcher, is_kind("turn_finished")).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let kinds = "created message prepared retry retry model_step turn_finished";
    assert_eq!(world.kinds(session).await, kinds);
    let retries = retries(&world.log(session).await);
    for (n, (at, attempt, retry)) in (0..).zip(&retries) {
        assert_eq!((*attempt, retry.class), (n + 1, FailureClass::Overloaded));
        assert_eq!(retry.not_before.since_ms(*at), 500 << n, "half of the ceiling, as the coin shows");
    }
    let resets: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            Event::PreviewReset { episode } => Some(episode.attempt),
            Event::Entry(_) | Event::Live { .. } => None,
        })
        .collect();
    assert_eq!(resets, [0, 1]);
    let ledger = world.state(session).await.ledger.measured;
    assert_eq!((ledger.input, ledger.output), (24, 4));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_providers_own_wish_is_respected() {
    let script = failing("{ class = \"rate_limited\", retry_after_ms = 5000 }");
    let world = World::new(&script, Toolbox::empty());
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let log = world.log(session).await;
    let (at, _, retry) = retries(&log)[0];
    assert_eq!(retry.not_before.since_ms(at), 5_000);
    let answered = log.iter().find(|entry| entry.record.fact.kind() == "model_step").unwrap();
    assert!(answered.record.at >= retry.not_before);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_not_repeated() {
    let world = World::new(&failing("{ class = \"auth\", message = \"bad key\" }"), Toolbox::empty());
    let session = world.session("go").await;
    let failure = failure(world.run(session).await);
    assert_eq!((failure.class, failure.message.as_str()), (FailureClass::Auth, "bad key"));
    assert_eq!(world.kinds(session).await, "created message prepared failed");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn retries_end_when_their_time_is_over() {
    let world = World::new(&failing("{ class = \"server\", times = 1000 }"), Toolbox::empty());
    let session = world.limited(Limits { retry_for_ms: 10_000, ..Limits::default() }).await;
    let started_ms = world.host.monotonic_ms();
    assert_eq!(failure(world.run(session).await).class, FailureClass::Server);
    assert!(world.host.monotonic_ms() - started_ms < 15_000);
    let retries = retries(&world.log(session).await).len();
    assert!((3..10).contains(&retries), "{retries}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_survives_the_death_of_its_worker() {
    let script = failing("{ class = \"overloaded\", times = 3, retry_after_ms = 30000 }");
    let world = World::new(&script, Toolbox::empty());
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_kind("retry")).await;
    driving.abort();
    assert!(driving.await.unwrap_err().is_cancelled());

    assert_eq!(bounded(world.neighbour().run(session)).await, Driven::Waiting);
    let retries = retries(&world.log(session).await);
    assert_eq!(retries.iter().map(|(_, attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    for pair in retries.windows(2) {
        assert!(pair[1].0 >= pair[0].2.not_before, "the attempt was made too early");
        assert_eq!(pair[1].2.since, pair[0].2.since);
    }
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_too_early_is_a_failed_attempt() {
    let world = World::new(&failing("{ cut = true, after_chars = 5 }"), Toolbox::empty());
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!(retries(&world.log(session).await)[0].2.class, FailureClass::Network);
    assert_eq!(world.said(session).await, ["user: go", "model: Finally there."]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_hangs_runs_into_its_time_limit() {
    let world = World::new(&failing("{ hang = true, after_chars = 5 }"), Toolbox::empty());
    let session = world.limited(Limits { model_call_ms: 60_000, ..Limits::default() }).await;
    let started_ms = world.host.monotonic_ms();
    assert_eq!(world.run(session).await, Driven::Waiting);
    let took_ms = world.host.monotonic_ms() - started_ms;
    assert!((60_000..65_000).contains(&took_ms), "{took_ms} ms");
    assert_eq!(retries(&world.log(session).await)[0].2.class, FailureClass::Timeout);
}
