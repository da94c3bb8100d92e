//! What a session has spent is the same however often its process died on the way: a goal pursued over several
//! turns, with failed attempts and a compaction, is played whole, and with a death just before and just after
//! each of its appends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::First;
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::{GoalStatus, GoalUsage, Terms};
use longhaul_session::id::GoalId;
use longhaul_session::item::Item;
use longhaul_session::ledger::Ledger;
use longhaul_session::usage::Usage;
use longhaul_test_postgres::{Database, is_chosen};
use tempfile::TempDir;
use uuid::Uuid;

use crate::crash_actors::{Memory, TOOL_MS};
use crate::crash_matrix::{TOGETHER, begin_as, configuration, on_a_server, waits};
use crate::crash_stage::{Backend, LIFETIME, Plan, Side, Stage};
use crate::puppet::wants_summary;

/// Whose models answer by the meter.
pub(crate) const PROVIDER: &str = "metered";
/// The model that summarises.
const SUMMARISER: &str = "summaries";

/// What the model calls at each step of the goal; a turn ends where it calls nothing, and the goal rests after a
/// turn that called nothing at all.
const STEPS: [&str; 10] = ["once", "", "again+pure", "", "pure", "again", "", "once+pure", "", ""];
/// The step whose first attempt fails.
const FAILS_FIRST: usize = 3;
/// The step after which the context is too large. The first attempt at a summary fails, the second says nothing.
const FILLS_UP: usize = 5;
/// The size above which the context is compacted, in tokens.
const COMPACT_ABOVE_TOKENS: u64 = 3_000;
/// How long an answer takes, in milliseconds: longer than tools, and all together far less than a lease.
const ANSWER_MS: u64 = 100;

/// A model that knows how far it is by what it has said, and whose answers cost, each something else.
struct Metered(Memory);

pub(crate) fn model(memory: &Memory) -> Arc<dyn Model> {
    Arc::new(Metered(memory.clone()))
}

#[async_trait]
impl Model for Metered {
    fn identity(&self) -> Identity {
        Identity { provider: PROVIDER.to_owned(), model: PROVIDER.to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.take_ms(ANSWER_MS);
        let done = steps_done(&call);
        let fails = if wants_summary(&call) { call.attempt == 0 } else { done + 1 == FAILS_FIRST };
        if fails && call.attempt == 0 {
            let mut error = Error::new(FailureClass::Overloaded, "not now");
            error.usage = Some(Usage { input: 50 + done as u64, cost_micros: 1, ..Usage::default() });
            return Err(error);
        }
        let parts = if wants_summary(&call) { summary(&call, done) } else { step(done + 1) };
        Ok(Box::pin(stream::iter(parts.into_iter().map(Ok))))
    }
}

/// Finds the newest step in what the model has said, or in what was summarised of it.
fn steps_done(call: &ModelCall) -> usize {
    let said = |item: &Item| {
        let (Item::Assistant { text, .. } | Item::Summary { text }) = item else { return None };
        text.strip_prefix("step ")?.parse().ok()
    };
    call.request.items.iter().filter_map(|item| said(item)).max().unwrap_or_default()
}

fn step(number: usize) -> Vec<Part> {
    let mut parts = vec![Part::Text { text: format!("step {number}") }];
    let tools: Vec<&str> = STEPS[number - 1].split('+').filter(|tool| !tool.is_empty()).collect();
    for (index, tool) in (0..).zip(&tools) {
        parts.push(Part::ToolCallStarted { index, id: None, name: (*tool).to_owned() });
        parts.push(Part::ToolCallEnd { index, opaque: None });
    }
    let n = number as u64;
    let input = if number == FILLS_UP { COMPACT_ABOVE_TOKENS + 1_000 } else { 1_000 + 7 * n };
    let usage = Usage {
        input,
        cached_input: 10 * n,
        cache_write: n,
        output: 5 + n,
        reasoning: n,
        cost_micros: 11 * n,
    };
    let reason = if tools.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    parts.extend([Part::Usage { usage }, Part::Finished { reason, raw: None }]);
    parts
}

fn summary(call: &ModelCall, done: usize) -> Vec<Part> {
    let text = if call.attempt == 1 { String::new() } else { format!("step {done}") };
    let usage = Usage { input: 900 + u64::from(call.attempt), output: 3, cost_micros: 2, ..Usage::default() };
    let finished = Part::Finished { reason: FinishReason::Stop, raw: None };
    vec![Part::Text { text }, Part::Usage { usage }, finished]
}

fn metered(directory: String) -> Configuration {
    Configuration {
        model: ModelChoice::new(PROVIDER, "answers"),
        summariser: Some(Box::new(ModelChoice::new(PROVIDER, SUMMARISER))),
        limits: Limits {
            compact_above_tokens: COMPACT_ABOVE_TOKENS,
            max_crashes: 1_000,
            ..Limits::default()
        },
        ..configuration(directory)
    }
}

/// A run that came to rest.
struct Played {
    ledger: Ledger,
    used: GoalUsage,
    /// The kinds of the entries that somebody wanted, in order.
    kinds: Vec<&'static str>,
    /// How many appends held an entry of each kind.
    appends: BTreeMap<&'static str, usize>,
    asked: u64,
    worked_ms: u64,
}

async fn play(backend: Backend, plan: Option<Plan>) -> Played {
    let directory = TempDir::new().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let backend = match backend {
        Backend::Sqlite(_) => Backend::Sqlite(path.join("longhaul.db")),
        Backend::Postgres(..) => backend,
    };
    let memory = Memory { clock: Some(Arc::new(AtomicU64::new(1))), ..Memory::default() };
    let mut stage = Stage::set_up_with(backend, path, plan, memory.clone()).await;
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let configuration = metered(stage.directory());
    begin_as(&mut stage, First::Goal { id, objective, terms: Terms::default() }, configuration).await;
    waits(&mut stage).await;
    assert_eq!(stage.deaths, usize::from(plan.is_some()), "it was to die once at {plan:?}");

    let (engine, session) = (stage.observer.clone(), stage.session);
    assert_eq!(engine.verify(session).await.unwrap(), Vec::<String>::new());
    let state = engine.snapshot(session).await.unwrap().state;
    let goal = state.goal.as_ref().unwrap();
    assert_eq!((goal.status, goal.suppressed), (GoalStatus::Active, true));
    let log = engine.entries(session, 1..=state.head).await.unwrap();
    let kinds = log.iter().map(|entry| entry.record.fact.kind()).filter(|kind| *kind != "acquired").collect();
    let mut appends = BTreeMap::new();
    for append in stage.facts.lock().unwrap().iter() {
        let mut kinds: Vec<_> = append.iter().map(|fact| fact.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.into_iter().for_each(|kind| *appends.entry(kind).or_default() += 1);
    }
    let ledger = engine.ledger(session).await.unwrap();
    let clock = memory.clock.as_ref().unwrap().load(Ordering::SeqCst) - 1;
    let played = Played {
        ledger,
        used: goal.used,
        kinds,
        appends,
        asked: memory.asked.load(Ordering::SeqCst),
        worked_ms: clock,
    };
    stage.strike(state.head).await;
    played
}

/// Checks a run that nobody died in against what its model and tools know.
fn check_whole(whole: &Played) {
    let Ledger { total, work, models, .. } = &whole.ledger;
    assert_eq!((total.attempts, total.totals.active_ms), (whole.asked, whole.worked_ms));
    assert_eq!((work.turns.calls, work.failed.attempts, work.compactions.attempts), (10, 2, 2));
    assert_eq!((work.compactions.calls, work.lost.attempts), (1, 0));
    assert_eq!(total.totals.estimated, Usage::default());
    assert_eq!(total.totals.measured.cost_micros, 11 * 55 + 2 + 2 * 2);
    let names = models.iter().map(|model| model.model.as_ref().map(|model| model.name.as_str()));
    assert_eq!(names.collect::<Vec<_>>(), [Some("answers"), Some(SUMMARISER)]);
    assert_eq!(models[1].spent.attempts, 3);
    assert_eq!(whole.used.continuations, 5);
}

/// Checks a run that a process died in against one that none did.
fn check_broken(whole: &Played, broken: &Played, plan: Plan) {
    let (all, some) = (&whole.ledger, &broken.ledger);
    assert_eq!(some.total.totals.measured, all.total.totals.measured, "{plan:?}");
    assert_eq!(broken.kinds, whole.kinds, "{plan:?}");
    assert_eq!(broken.used.continuations, whole.used.continuations, "{plan:?}");
    for (some, all) in [
        (some.work.turns, all.work.turns),
        (some.work.failed, all.work.failed),
        (some.work.compactions, all.work.compactions),
    ] {
        assert_eq!((some.totals.measured, some.attempts), (all.totals.measured, all.attempts), "{plan:?}");
    }
    // What was lost is told apart, and is no less than what was asked in vain.
    let lost = some.work.lost;
    assert_eq!(lost.totals.measured, Usage::default());
    assert_eq!(some.total.totals.estimated, lost.totals.estimated);
    let measured_tokens = broken.used.tokens - broken.used.estimated_tokens;
    assert_eq!(measured_tokens, whole.used.tokens, "{plan:?}");
    assert!(lost.attempts <= 1 && broken.asked <= whole.asked + lost.attempts, "{plan:?}: {lost:?}");
    // At most what one entry takes was done twice, or done and not told of.
    let active_ms = some.total.totals.active_ms;
    assert!(broken.worked_ms - active_ms <= ANSWER_MS, "{plan:?}");
    let (longest_ms, all_ms) = (ANSWER_MS.max(2 * TOOL_MS), all.total.totals.active_ms);
    assert!((all_ms - longest_ms..=all_ms).contains(&active_ms), "{plan:?}: {active_ms} of {all_ms} ms");
    assert_eq!(broken.used.active_ms, active_ms);
}

/// Plays the goal whole, and then with a death at each of its appends.
async fn whatever_it_dies_of(backend: Backend) {
    let whole = play(backend.clone(), None).await;
    check_whole(&whole);
    let mut plans = Vec::new();
    for (kind, times) in &whole.appends {
        for nth in 1..=*times {
            plans.extend([Side::Before, Side::After].map(|side| Plan { kind, nth, side }));
        }
    }
    assert!(plans.len() > 50, "only {} deaths", plans.len());
    let dies = |plan| {
        let (playing, whole) = (play(backend.clone(), Some(plan)), &whole);
        async move {
            let played = tokio::time::timeout(LIFETIME, playing).await;
            check_broken(whole, &played.unwrap_or_else(|_| panic!("it hangs after {plan:?}")), plan);
        }
    };
    stream::iter(plans).map(dies).buffer_unordered(TOGETHER).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_entry_a_process_dies_at_what_was_spent_is_the_same_and_no_turn_is_doubled() {
    if is_chosen() {
        let database = Database::create().await.unwrap();
        whatever_it_dies_of(on_a_server(&database).await).await;
    } else {
        whatever_it_dies_of(Backend::Sqlite(PathBuf::new())).await;
    }
}
