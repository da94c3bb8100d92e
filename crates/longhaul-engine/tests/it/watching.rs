//! Readers: every entry once and in order, the live parts between them, and no weight on the runner.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use longhaul_engine::{Driven, Event, Host, Live};
use longhaul_model::{FinishReason, ModelCall, Part};
use longhaul_session::agent::Limits;
use longhaul_session::command::Command;
use longhaul_session::entry::Fact;
use longhaul_session::id::EntryNo;
use longhaul_session::item::{EffectClass, Item};
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::By;
use crate::world::{Probe, World, bounded, calling, is_kind, is_text, items_of, until};

fn numbers(events: &[Event]) -> Vec<EntryNo> {
    let number = |event: &Event| {
        if let Event::Entry(entry) = event { Some(entry.record.n) } else { None }
    };
    events.iter().filter_map(number).collect()
}

/// The text of a live part.
fn shown(event: &Event) -> Option<&str> {
    let Event::Live { part, .. } = event else { return None };
    if let Live::Model { part: Part::Text { text } } = &**part { Some(text) } else { None }
}

fn is_reset(event: &Event) -> bool {
    matches!(event, Event::PreviewReset { .. })
}

#[tokio::test(start_paused = true)]
async fn every_entry_comes_once_and_in_order_from_any_cursor() {
    let tools = Toolbox::empty().with(Probe::open().tool("probe", EffectClass::Once));
    let world = World::new(&calling(&["probe"]), tools);
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let head = world.state(session).await.head;
    for after in 0..=head {
        let mut watcher = world.engine.watch(session, after);
        let mut seen = Vec::new();
        while let Some(event) = watcher.try_next().await.unwrap() {
            seen.push(event);
        }
        assert_eq!(numbers(&seen), (after + 1..=head).collect::<Vec<_>>());
        assert_eq!(watcher.seen(), head);
    }
}

const SLOW: &str = r#"
    delay_ms = 20
    [[turn]]
    [[turn.step]]
    text = "A story of some length, told piece by piece."
    [[turn.step.call]]
    tool = "probe"
    [[turn.step]]
    text = "And its end, which comes in pieces too."
"#;

#[tokio::test(start_paused = true)]
async fn live_parts_come_before_the_entry_that_commits_them() {
    let tools = Toolbox::empty().with(Probe::open().tool("probe", EffectClass::Once));
    let world = World::new(SLOW, tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    let events = until(&mut watcher, is_kind("turn_finished")).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let mut preview = String::new();
    let mut steps = 0;
    for event in &events {
        preview.push_str(shown(event).unwrap_or_default());
        let Event::Entry(entry) = event else { continue };
        if entry.record.fact.kind() == "model_step" {
            let items = items_of(entry);
            let Item::Assistant { text, .. } = &items[0] else { panic!("{items:?}") };
            assert_eq!(std::mem::take(&mut preview), *text);
            steps += 1;
        }
    }
    assert_eq!((steps, preview.as_str()), (2, ""));
    let ns = numbers(&events);
    assert_eq!(ns, (1..=ns.len() as u64).collect::<Vec<_>>());
    assert!(!events.iter().any(is_reset));
}

const HANGING: &str = r#"
    [[turn]]
    [[turn.step]]
    text = "Once upon a time"
    fail = { hang = true, after_chars = 11 }
"#;

#[tokio::test(start_paused = true)]
async fn a_late_reader_gets_the_live_parts_so_far() {
    let world = World::new(HANGING, Toolbox::empty());
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_text).await;
    until(&mut watcher, is_text).await;
    let head = world.state(session).await.head;
    for after in [0, head] {
        let mut late = world.engine.watch(session, after);
        let mut events = until(&mut late, is_text).await;
        events.extend(until(&mut late, is_text).await);
        assert_eq!(numbers(&events), (after + 1..=head).collect::<Vec<_>>());
        assert_eq!(events.iter().filter_map(shown).collect::<String>(), "Once upon a");
    }
    driving.abort();
}

#[tokio::test(start_paused = true)]
async fn readers_are_told_when_a_runner_dies() {
    let world = World::new(HANGING, Toolbox::empty());
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_text).await;
    driving.abort();
    let head = world.state(session).await.head;
    let events = until(&mut watcher, is_reset).await;
    assert!(numbers(&events).is_empty());
    assert_eq!(world.state(session).await.head, head);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_fell_far_behind_is_told_that_its_preview_died() {
    let script = r#"
        delay_ms = 20
        [[turn]]
        [[turn.step]]
        text = "Once upon a time"
        fail = { class = "server", after_chars = 11, times = 8 }
    "#;
    let world = World::new(script, Toolbox::empty());
    let session = world.session("go").await;
    let mut slow = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut slow, is_text).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let events = until(&mut slow, is_kind("turn_finished")).await;
    assert!(is_reset(&events[0]), "{:?}", events[0]);
    let retries = events.iter().filter(|event| is_kind("retry")(event)).count();
    assert_eq!(retries, 8);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_slows_nobody_and_costs_little() {
    const PART: usize = 64 * 1024;
    let answer = |_: &ModelCall| {
        let part = || Part::Text { text: "x".repeat(PART) };
        let finished = Part::Finished { reason: FinishReason::Stop, raw: None };
        Ok(std::iter::repeat_with(part).take(40).chain([finished]).collect())
    };
    let world = World::of(Arc::new(By(answer)), Toolbox::empty());
    let limits = Limits { compact_above_tokens: 10_000_000, ..Limits::default() };
    let session = world.limited(limits).await;
    let mut lazy = world.engine.watch(session, 0);
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let events = until(&mut lazy, is_kind("turn_finished")).await;
    let previewed: usize = events.iter().filter_map(shown).map(str::len).sum();
    assert!((PART..=1 << 20).contains(&previewed), "{previewed} bytes");
    let said = world.said(session).await;
    assert_eq!(said.last().unwrap().len(), "model: ".len() + 40 * PART);
}

#[tokio::test(start_paused = true)]
async fn without_hints_everything_comes_later_but_comes() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("probe", EffectClass::Once));
    let world = World::new(SLOW, tools);
    world.store.mute.store(true, Ordering::Relaxed);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_kind("model_step")).await;
    let asked_ms = world.host.monotonic_ms();
    world.interrupt(session).await;
    let events = until(&mut watcher, is_kind("interrupted")).await;
    assert!(world.host.monotonic_ms() - asked_ms <= 3_000);
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    let last = events.iter().rev().find_map(|event| {
        let Event::Entry(entry) = event else { return None };
        if let Fact::Interrupted { results, .. } = &entry.record.fact { Some(results.len()) } else { None }
    });
    assert_eq!(last, Some(1));
}

#[tokio::test(start_paused = true)]
async fn hints_of_other_sessions_do_not_put_off_what_a_lost_hint_has_delayed() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    world.store.noisy.store(true, Ordering::Relaxed);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    until(&mut watcher, is_kind("message")).await;
    let asked_ms = world.host.monotonic_ms();
    world.neighbour().command(session, Command::Rename { name: None }).await;
    bounded(until(&mut watcher, is_kind("named"))).await;
    assert!(world.host.monotonic_ms() - asked_ms <= 3_000);
}
