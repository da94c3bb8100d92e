//! A context that grows too large is summarised, and nothing comes apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use longhaul_engine::{Driven, Host};
use longhaul_model::{Error, ModelCall, Part};
use longhaul_session::agent::{Configuration, Limits, Request};
use longhaul_session::command::{Command, First};
use longhaul_session::failure::FailureClass;
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Item};
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::{By, answers, calls_probe, says, tokens, wants_summary};
use crate::world::{Probe, World, bounded, calling, failure, is_text, is_tool_start, spec, until};

const SMALL: u64 = 1_000;

/// A world whose tool gives much to read, and whose contexts may not be large.
fn world<F>(answer: F) -> World
where
    F: Fn(&ModelCall) -> Result<Vec<Part>, Error> + Send + Sync + 'static,
{
    let probe = function(spec("probe", EffectClass::Once), |_, _| async { ToolOutput::ok("x".repeat(800)) });
    World::of(Arc::new(By(answer)), Toolbox::empty().with(probe))
}

async fn waiting(world: &World) -> SessionId {
    let limits = Limits { compact_above_tokens: SMALL, max_steps: 60, ..Limits::default() };
    world.create(Configuration { limits, ..world.configuration() }, First::Nothing).await
}

async fn say(world: &World, session: SessionId, text: &str) -> Driven {
    world.send(session, text, false).await;
    bounded(world.run(session)).await
}

/// Works on "work" for so many calls; everything else is answered at once.
fn works(steps: u64) -> impl Fn(&ModelCall) -> Result<Vec<Part>, Error> + Send + Sync + 'static {
    let (worked, busy) = (AtomicU64::new(0), AtomicU64::new(0));
    move |call| {
        if wants_summary(call) {
            return says("SUMMARY");
        }
        let newest = call.request.items.last().map(|item| &**item);
        if matches!(newest, Some(Item::User { text }) if text == "work") {
            busy.store(1, Ordering::SeqCst);
        }
        if busy.load(Ordering::SeqCst) == 1 && worked.fetch_add(1, Ordering::SeqCst) < steps {
            return calls_probe(tokens(call));
        }
        busy.store(0, Ordering::SeqCst);
        answers("ok", tokens(call))
    }
}

fn spied<F>(answer: F) -> (World, Arc<Mutex<Vec<Arc<Request>>>>)
where
    F: Fn(&ModelCall) -> Result<Vec<Part>, Error> + Send + Sync + 'static,
{
    let seen: Arc<Mutex<Vec<Arc<Request>>>> = Arc::default();
    let spy = Arc::clone(&seen);
    let world = world(move |call: &ModelCall| {
        spy.lock().unwrap().push(Arc::clone(&call.request));
        answer(call)
    });
    (world, seen)
}

fn texts(request: &Request) -> Vec<String> {
    let text = |item: &Arc<Item>| match &**item {
        Item::User { text } | Item::Summary { text } => Some(text.clone()),
        Item::Assistant { .. }
        | Item::Reasoning { .. }
        | Item::ToolCall(_)
        | Item::ToolResult(_)
        | Item::ContextFile { .. }
        | Item::Steering { .. }
        | Item::Attachment(_)
        | Item::File { .. }
        | Item::Opaque { .. }
        | Item::Redacted => None,
    };
    request.items.iter().filter_map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_the_history_before_the_tail_is_summarised() {
    let (world, seen) = spied(works(2));
    let session = waiting(&world).await;
    let long = "long ago ".repeat(300);
    for text in [&long, "second", "work"] {
        assert_eq!(say(&world, session, text).await, Driven::Waiting);
    }
    let kinds = world.kinds(session).await;
    assert_eq!(kinds.matches(" compacted").count(), 1, "{kinds}");
    let last = seen.lock().unwrap().last().unwrap().clone();
    assert_eq!(texts(&last), ["SUMMARY", "second", "work"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn one_long_turn_is_compacted_as_often_as_it_must() {
    let (world, seen) = spied(works(20));
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert!(kinds.matches(" compacted").count() >= 3, "{kinds}");
    assert_eq!(kinds.matches("tool_step").count(), 20);
    let longest = seen.lock().unwrap().iter().map(|request| request.items.len()).max().unwrap();
    assert!(longest < 20, "{longest} items");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_turn_after_short_ones_is_compacted_too() {
    let (world, _) = spied(works(20));
    let session = waiting(&world).await;
    for text in ["one", "two", "work"] {
        assert_eq!(say(&world, session, text).await, Driven::Waiting);
    }
    assert_eq!(world.kinds(session).await.matches("tool_step").count(), 20);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_not_answered_yet_is_kept_word_for_word() {
    let (world, seen) = spied(works(0));
    let session = waiting(&world).await;
    let long = "long ago ".repeat(300);
    assert_eq!(say(&world, session, &long).await, Driven::Waiting);
    let request = format!("now do this: {}", "exactly ".repeat(250));
    assert_eq!(say(&world, session, &request).await, Driven::Waiting);
    assert!(world.kinds(session).await.contains(" compacted"));
    let seen = seen.lock().unwrap();
    let answered = seen.iter().rev().find(|seen| texts(seen).iter().any(|text| text == "SUMMARY")).unwrap();
    assert_eq!(texts(answered), ["SUMMARY", request.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_compaction_does_not_part_an_interrupted_call_from_its_result() {
    let probe = Probe::shut();
    let script =
        format!("{}[[aside]]\nwhen = \"Summarise\"\nstep = {{ text = \"SUMMARY\" }}\n", calling(&["wait"]));
    let world = World::new(&script, Toolbox::empty().with(probe.tool("wait", EffectClass::Once)));
    let session = world.session("first").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.send(session, "second", true).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(say(&world, session, "third").await, Driven::Waiting);
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert!(world.kinds(session).await.ends_with("compaction_requested compacted turn_finished"));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn empty_summaries_fail_three_times_and_switch_compaction_off() {
    let working = works(8);
    let world = world(move |call: &ModelCall| if wants_summary(call) { says("") } else { working(call) });
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert_eq!(kinds.matches("compaction_failed").count(), 3, "{kinds}");
    assert_eq!(kinds.matches("tool_step").count(), 8);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_fails_for_a_passing_reason_is_tried_again_later() {
    let (working, failed) = (works(8), AtomicU64::new(0));
    let world = world(move |call: &ModelCall| {
        if wants_summary(call) && failed.fetch_add(1, Ordering::SeqCst) < 5 {
            return Err(Error::new(FailureClass::Overloaded, "come back later"));
        }
        working(call)
    });
    let session = waiting(&world).await;
    let started_ms = world.host.monotonic_ms();
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    assert!(world.host.monotonic_ms() - started_ms > 5_000);
    let kinds = world.kinds(session).await;
    assert_eq!((kinds.matches("retry").count(), kinds.matches("compaction_failed").count()), (5, 0));
    assert!(kinds.contains(" compacted"));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_overflow_is_a_reason_to_compact_once() {
    let working = works(8);
    let world = world(move |call: &ModelCall| {
        if !wants_summary(call) && tokens(call) > 700 {
            return Err(Error::new(FailureClass::ContextOverflow, "too long"));
        }
        working(call)
    });
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert!(kinds.contains("retry compacted model_step"), "{kinds}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_context_that_is_too_large_right_after_a_compaction_fails_the_turn() {
    let working = works(8);
    let world =
        world(
            move |call: &ModelCall| {
                if wants_summary(call) { says(&"very long summary ".repeat(1_000)) } else { working(call) }
            },
        );
    let session = waiting(&world).await;
    let failure = failure(say(&world, session, "work").await);
    assert_eq!(failure.class, FailureClass::ContextStillOverLimit);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_summary_is_no_part_of_the_conversation() {
    let script = format!(
        "{}[[aside]]\nwhen = \"Summarise\"\nstep = {{ text = \"SUMMARY\", fail = {{ hang = true, after_chars = 4 }} }}\n",
        calling(&[])
    );
    let world = World::new(&script, Toolbox::empty());
    let session = world.session("first").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    world.command(session, Command::RequestCompaction).await;
    let mut watcher = world.engine.watch(session, world.state(session).await.head);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_text).await;
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(world.said(session).await, ["user: first", "model: I call.", "model: All done."][..2]);
    world.sound(session).await;
}
