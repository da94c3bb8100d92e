//! A context that grows too large is summarised, and nothing comes apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use longhaul_engine::{Driven, Host};
use longhaul_model::{Error, FinishReason, Model, ModelCall, Part};
use longhaul_session::agent::{Configuration, Limits, ModelChoice, Request, ToolPermission, ToolSetting};
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Fact;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Item};
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::{By, answers, calls_probe, says, tokens, wants_summary};
use crate::world::{ModelsBy, Probe, World, bounded, calling, failure, is_text, is_tool_start, spec, until};

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
    world.create(Configuration { limits, tools: no_goals(), ..world.configuration() }, First::Nothing).await
}

/// The goal's tools and rules alone would fill a context this small.
fn no_goals() -> Vec<ToolSetting> {
    let denied = |name: &str| ToolSetting {
        name: name.to_owned(),
        permission: ToolPermission::Deny,
        max_output_bytes: None,
        time_limit_ms: None,
    };
    ["get_goal", "create_goal", "update_goal"].map(denied).into()
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

/// Until the history is shorter, whatever becomes of the summary, no request is made that is known not to fit.
#[tokio::test(start_paused = true)]
async fn an_overflow_is_not_met_again_while_its_summary_is_made() {
    let (working, too_large, summaries) = (works(8), Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let overflows = Arc::clone(&too_large);
    let world = world(move |call: &ModelCall| {
        if tokens(call) > 700 {
            overflows.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(FailureClass::ContextOverflow, "too long"));
        }
        if !wants_summary(call) {
            return working(call);
        }
        match summaries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::new(FailureClass::Overloaded, "come back later")),
            1 => says(""),
            _ => says("SUMMARY"),
        }
    });
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert!(kinds.contains("tool_step retry retry compaction_failed compacted model_step"), "{kinds}");
    let compactions = kinds.matches(" compacted").count() as u64;
    assert_eq!(too_large.load(Ordering::SeqCst), compactions, "one for each: {kinds}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_context_that_is_too_large_right_after_a_compaction_fails_the_turn() {
    let (world, _) = spied(works(8));
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, &"begin ".repeat(50)).await, Driven::Waiting);
    let failure = failure(say(&world, session, &"all of this matters ".repeat(400)).await);
    assert_eq!(failure.class, FailureClass::ContextStillOverLimit);
    assert!(failure.message.contains("over the limit of 1000"), "{}", failure.message);
    assert_eq!(world.kinds(session).await.matches(" compacted").count(), 1);
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

#[tokio::test(start_paused = true)]
async fn a_summary_that_makes_the_context_no_smaller_is_a_failed_compaction() {
    let working = works(8);
    let world =
        world(
            move |call: &ModelCall| {
                if wants_summary(call) { says(&"very long summary ".repeat(1_000)) } else { working(call) }
            },
        );
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    let failed: Vec<(String, bool)> = failed_compactions(&world, session).await;
    assert_eq!(failed.iter().map(|(_, off)| *off).collect::<Vec<_>>(), [false, false, true]);
    assert!(failed.iter().all(|(why, _)| why.contains("no smaller")), "{failed:?}");
    assert_eq!(world.kinds(session).await.matches("tool_step").count(), 8);
    world.sound(session).await;
}

async fn failed_compactions(world: &World, session: SessionId) -> Vec<(String, bool)> {
    let log = world.log(session).await;
    let failed = log.iter().filter_map(|entry| {
        let Fact::CompactionFailed { failure, automatic_off, .. } = &entry.record.fact else { return None };
        Some((failure.message.clone(), *automatic_off))
    });
    failed.collect()
}

#[tokio::test(start_paused = true)]
async fn compaction_by_hand_works_after_the_automatic_one_is_off_and_switches_it_on_again() {
    let (working, empty) = (works(8), AtomicU64::new(0));
    let world = world(move |call: &ModelCall| match wants_summary(call) {
        true if empty.fetch_add(1, Ordering::SeqCst) < 3 => says(" \n"),
        true => says("SUMMARY"),
        false => working(call),
    });
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    assert_eq!(world.state(session).await.compaction_failures, 3);
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert!(kinds.ends_with("compaction_requested compacted turn_finished"), "{kinds}");
    assert_eq!(world.state(session).await.compaction_failures, 0);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_over_many_compactions_always_shows_the_message_it_works_on() {
    let (world, seen) = spied(works(30));
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    assert!(world.kinds(session).await.matches(" compacted").count() >= 3);
    for request in seen.lock().unwrap().iter() {
        assert_eq!(texts(request).iter().filter(|text| *text == "work").count(), 1);
    }
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_summary_is_asked_of_the_model_that_makes_summaries() {
    let asked: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let (noted, working) = (Arc::clone(&asked), Arc::new(works(8)));
    let models = ModelsBy(move |choice: &ModelChoice| {
        let (noted, name, working) = (Arc::clone(&noted), choice.name.clone(), Arc::clone(&working));
        let answer = move |call: &ModelCall| {
            noted.lock().unwrap().push((name.clone(), wants_summary(call)));
            if wants_summary(call) { says("SUMMARY") } else { working(call) }
        };
        Ok(Arc::new(By(answer)) as Arc<dyn Model>)
    });
    let probe = function(spec("probe", EffectClass::Once), |_, _| async { ToolOutput::ok("x".repeat(800)) });
    let world = World::with_models(Arc::new(models), Toolbox::empty().with(probe));
    let limits = Limits { compact_above_tokens: SMALL, ..Limits::default() };
    let summariser = Some(Box::new(ModelChoice::new("scripted", "small")));
    let configuration = Configuration { limits, summariser, tools: no_goals(), ..world.configuration() };
    let session = world.create(configuration, First::Nothing).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    world.sound(session).await;
    let asked = asked.lock().unwrap();
    assert!(asked.iter().any(|(_, summary)| *summary));
    assert!(asked.iter().all(|(name, summary)| (name == "small") == *summary), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_summariser_that_cannot_be_had_is_a_failed_compaction() {
    let working = Arc::new(works(8));
    let models = ModelsBy(move |choice: &ModelChoice| {
        if choice.name == "small" {
            let message = "there is no key".to_owned();
            return Err(Failure { class: FailureClass::Auth, message });
        }
        let working = Arc::clone(&working);
        Ok(Arc::new(By(move |call: &ModelCall| working(call))) as Arc<dyn Model>)
    });
    let probe = function(spec("probe", EffectClass::Once), |_, _| async { ToolOutput::ok("x".repeat(800)) });
    let world = World::with_models(Arc::new(models), Toolbox::empty().with(probe));
    let limits = Limits { compact_above_tokens: SMALL, ..Limits::default() };
    let summariser = Some(Box::new(ModelChoice::new("scripted", "small")));
    let configuration = Configuration { limits, summariser, tools: no_goals(), ..world.configuration() };
    let session = world.create(configuration, First::Nothing).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    assert_eq!(failed_compactions(&world, session).await.len(), 3);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_summary_of_more_than_fits_is_asked_for_without_the_outputs_of_tools() {
    let working = works(8);
    let world = world(move |call: &ModelCall| {
        if tokens(call) > 700 {
            return Err(Error::new(FailureClass::ContextOverflow, "too long"));
        }
        if wants_summary(call) { says("SUMMARY") } else { working(call) }
    });
    let session = waiting(&world).await;
    assert_eq!(say(&world, session, "work").await, Driven::Waiting);
    let kinds = world.kinds(session).await;
    assert!(kinds.contains("retry compacted model_step"), "{kinds}");
    assert_eq!(kinds.matches("tool_step").count(), 8);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_summary_names_the_files_touched_last_and_is_asked_with_the_same_tools() {
    let seen: Arc<Mutex<Vec<Arc<Request>>>> = Arc::default();
    let (spy, made) = (Arc::clone(&seen), AtomicU64::new(0));
    let answer = move |call: &ModelCall| {
        spy.lock().unwrap().push(Arc::clone(&call.request));
        if wants_summary(call) {
            return says("SUMMARY");
        }
        if made.fetch_add(1, Ordering::SeqCst) > 0 { says("done") } else { writes() }
    };
    let world = World::of(Arc::new(By(answer)), Toolbox::builtin());
    let session = world.session("write it down").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    world.command(session, Command::RequestCompaction).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let seen = seen.lock().unwrap();
    let (summary, before) = (&seen[seen.len() - 1], &seen[seen.len() - 2]);
    let Item::Steering { text, .. } = &**summary.items.last().unwrap() else {
        panic!("it asks for a summary")
    };
    assert!(text.contains("note.txt"), "{text}");
    assert_eq!(summary.tools, before.tools);
    assert_eq!(summary.items[..before.items.len()], before.items[..]);
}

fn writes() -> Result<Vec<Part>, Error> {
    let text = "{\"path\": \"note.txt\", \"content\": \"kept\"}".to_owned();
    Ok(vec![
        Part::ToolCallStarted { index: 0, id: None, name: "write".to_owned() },
        Part::ToolCallArguments { index: 0, text },
        Part::ToolCallEnd { index: 0, opaque: None },
        Part::Finished { reason: FinishReason::ToolCalls, raw: None },
    ])
}
