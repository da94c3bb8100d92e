//! The crash matrix: for each kind of entry a process dies just before its append, and just after, and the
//! next one goes on. The stores are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use longhaul_engine::{Created, Done, Driven, Engine, Imported, NewSession, Snapshot, SystemHost};
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::agent::{Configuration, Limits, ModelChoice, ToolPermission, ToolSetting};
use longhaul_session::command::{Answer, Command, First};
use longhaul_session::entry::{Actor, CallFact, Entry, Fact, KINDS, Mode};
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::{Budget, GoalStatus};
use longhaul_session::id::{EntryNo, GoalId, SessionId};
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::log::SealedEntry;
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;
use longhaul_store::{SqliteStore, Store as _};
use longhaul_test_postgres::Database;
use longhaul_tools::tool::{CallContext, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::crash_stage::{Backend, Gate, Lapse, Plan, Process, Side, Stage};
use crate::puppet::wants_summary;
use crate::world::{ModelsBy, spec};

/// Kinds that no session gets here, and why.
const NEVER: [(&str, &str); 4] = [
    ("context", "no source of context files is looked at yet"),
    ("response_started", "no provider can be asked for an answer once more yet"),
    ("hook", "no hook is asked yet"),
    ("reconciled", "it mends a row that breaks its invariants, and none of these does"),
];

/// Scenarios that are played at the same time: mostly they wait.
const TOGETHER: usize = 8;
/// What the calls of a scenario have done, by their keys.
pub(crate) type Effects = Arc<Mutex<BTreeMap<String, Effect>>>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effect {
    begun: u32,
    ended: u32,
}

/// The tools: one of each class, one that asks first, and one that waits to be let go.
pub(crate) fn tools(effects: &Effects, gate: &Gate, held: &watch::Sender<usize>) -> Toolbox {
    let begin = |effects: &Effects, cx: &CallContext| {
        let (effects, key) = (Arc::clone(effects), cx.key.to_string());
        effects.lock().unwrap().entry(key.clone()).or_default().begun += 1;
        move || effects.lock().unwrap().entry(key).or_default().ended += 1
    };
    let note = |name: &str, effect: EffectClass| {
        let effects = Arc::clone(effects);
        function(spec(name, effect), move |_, cx: CallContext| {
            let end = begin(&effects, &cx);
            async move {
                tokio::task::yield_now().await;
                end();
                ToolOutput::ok("done")
            }
        })
    };
    let (effects, gate, held) = (Arc::clone(effects), Arc::clone(gate), held.clone());
    let hold = function(spec("hold", EffectClass::Pure), move |_, cx: CallContext| {
        let (mut gate, holding, end) = (gate.subscribe(), Holding::begin(&held), begin(&effects, &cx));
        async move {
            tokio::select! {
                _ = gate.wait_for(|open| *open) => {}
                () = cx.cancel.cancelled() => return ToolOutput::new(Outcome::Stopped, "told to stop"),
            }
            drop(holding);
            end();
            ToolOutput::ok("done")
        }
    });
    Toolbox::empty()
        .with(note("once", EffectClass::Once))
        .with(note("pure", EffectClass::Pure))
        .with(note("again", EffectClass::Idempotent))
        .with(note("ask", EffectClass::Once))
        .with(note("demand", EffectClass::Once))
        .with(hold)
}

/// Counts an effect as one that waits.
struct Holding(watch::Sender<usize>);

impl Holding {
    fn begin(held: &watch::Sender<usize>) -> Self {
        held.send_modify(|held| *held += 1);
        Holding(held.clone())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

/// A model that does what the newest message says, word by word, one for each step: `once+pure` calls tools,
/// `retry` fails the first time, `quota` fails for good, `stall` never ends; without a word left it is done.
struct Obedient {
    held: watch::Sender<usize>,
}

pub(crate) fn model(held: &watch::Sender<usize>) -> Arc<dyn Model> {
    Arc::new(Obedient { held: held.clone() })
}

#[async_trait]
impl Model for Obedient {
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "obedient".to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let word = next_word(&call);
        let said = match word.as_str() {
            "retry" if call.attempt == 0 => {
                let mut error = Error::new(FailureClass::Overloaded, "not now");
                error.usage = Some(Usage { input: 5, ..Usage::default() });
                return Err(error);
            }
            "quota" => return Err(Error::new(FailureClass::Quota, "no more")),
            "poorly" => "",
            _ => "As you wish.",
        };
        let mut parts = vec![
            Part::Text { text: said.to_owned() },
            Part::Usage { usage: Usage { input: 20, output: 1, ..Usage::default() } },
        ];
        if word == "stall" {
            let held = self.held.clone();
            let stalled = stream::once(async move {
                let _holding = Holding::begin(&held);
                std::future::pending().await
            });
            return Ok(Box::pin(stream::iter(parts.into_iter().map(Ok)).chain(stalled)));
        }
        let tools: Vec<&str> = word.split('+').filter(|tool| TOOLS.contains(tool)).collect();
        for (index, tool) in (0..).zip(&tools) {
            parts.push(Part::ToolCallStarted { index, id: None, name: (*tool).to_owned() });
            parts.push(Part::ToolCallEnd { index, opaque: None });
        }
        let reason = if tools.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        parts.push(Part::Finished { reason, raw: None });
        Ok(Box::pin(stream::iter(parts.into_iter().map(Ok))))
    }
}

const TOOLS: [&str; 6] = ["once", "pure", "again", "ask", "demand", "hold"];

/// Finds the word for this step; a turn of the goal is told by its number.
fn next_word(call: &ModelCall) -> String {
    let items = &call.request.items;
    let continues = |item: &Item| matches!(item, Item::Steering { reason: SteeringReason::Continuation, .. });
    let mut text = String::new();
    let (mut said, mut continuations) = (0, 0);
    for item in items {
        match &**item {
            Item::User { text: told } => (text, said) = (told.clone(), 0),
            item @ Item::Steering { .. } if !wants_summary(call) => {
                continuations += usize::from(continues(item));
                let turn = if continues(item) { GOAL_TURNS.get(continuations - 1) } else { None };
                (text, said) = (turn.copied().unwrap_or_default().to_owned(), 0);
            }
            Item::Assistant { partial: false, .. } => said += 1,
            Item::Assistant { partial: true, .. }
            | Item::Steering { .. }
            | Item::Reasoning { .. }
            | Item::ToolCall(_)
            | Item::ToolResult(_)
            | Item::Summary { .. }
            | Item::ContextFile { .. }
            | Item::File { .. }
            | Item::Opaque { .. }
            | Item::Redacted => {}
        }
    }
    let word = if wants_summary(call) { 0 } else { said };
    text.split(' ').nth(word).unwrap_or_default().to_owned()
}

const GOAL_TURNS: [&str; 3] = ["once", "once+pure", "hold"];

/// One session's life.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    Calls,
    Queue,
    Approvals,
    Compaction,
    Goal,
    People,
    Copies,
    Drain,
}

impl Scenario {
    const ALL: [Scenario; 8] = [
        Scenario::Calls,
        Scenario::Queue,
        Scenario::Approvals,
        Scenario::Compaction,
        Scenario::Goal,
        Scenario::People,
        Scenario::Copies,
        Scenario::Drain,
    ];

    /// Plays it to its end. Returns the other sessions it made.
    async fn play(self, stage: &mut Stage) -> Vec<SessionId> {
        match self {
            Scenario::Calls => begin(stage, say("once+pure+again once+once retry")).await,
            Scenario::Queue => queue(stage).await,
            Scenario::Approvals => approvals(stage).await,
            Scenario::Compaction => compaction(stage).await,
            Scenario::Goal => goal(stage).await,
            Scenario::People => people(stage).await,
            Scenario::Copies => return copies(stage).await,
            Scenario::Drain => drain(stage).await,
        }
        waits(stage).await;
        Vec::new()
    }
}

fn say(text: &str) -> First {
    First::Message(text.to_owned())
}

fn send(text: &str) -> Command {
    Command::Send { text: text.to_owned(), interrupt: false }
}

async fn waits(stage: &mut Stage) {
    assert_eq!(stage.rest().await, Driven::Waiting);
}

fn configuration(directory: String) -> Configuration {
    let asks = |name: &str| ToolSetting {
        name: name.to_owned(),
        permission: ToolPermission::Ask,
        max_output_bytes: None,
        time_limit_ms: None,
    };
    Configuration {
        agent: "tester".to_owned(),
        model: ModelChoice::new("test", "obedient"),
        directory,
        instructions: None,
        scope: Vec::new(),
        tools: vec![asks("ask"), asks("demand")],
        limits: Limits { max_crashes: 1_000, ..Limits::default() },
    }
}

async fn begin(stage: &mut Stage, first: First) {
    let new = NewSession {
        configuration: configuration(stage.directory()),
        place: "here".to_owned(),
        ephemeral: false,
        name: None,
        labels: BTreeMap::new(),
        first,
    };
    let request = stage.request();
    let create = async |process: &Process| process.engine.create(new.clone(), Some(&request)).await;
    let made = stage.survive(create).await.unwrap().unwrap();
    stage.enter(made.session);
}

/// Queues a message while something is under way. Returns its entry.
async fn enqueue(stage: &mut Stage, text: &str) -> EntryNo {
    match stage.ask(send(text)).await.unwrap() {
        Done::Now(entries) => entries.last().unwrap().record.n,
        Done::Before(n) => n,
    }
}

async fn queue(stage: &mut Stage) {
    begin(stage, say("hold once")).await;
    stage.until_held().await;
    let first = enqueue(stage, "once").await;
    let second = enqueue(stage, "never").await;
    stage.command(Command::Unqueue { message: second }).await;
    stage.command(Command::Promote { message: first }).await;
    waits(stage).await;

    stage.command(send("hold quota")).await;
    stage.until_held().await;
    let left = enqueue(stage, "pure").await;
    stage.open_gate();
    let Driven::Failed(failure) = stage.rest().await else { panic!("it did not fail") };
    assert_eq!(failure.class, FailureClass::Quota);
    stage.command(Command::Promote { message: left }).await;
    waits(stage).await;

    stage.shut_gate();
    stage.command(send("hold+once")).await;
    stage.until_held().await;
    stage.command(Command::Send { text: "again".to_owned(), interrupt: true }).await;
}

/// Answers the one call that waits for a person.
async fn answer(stage: &mut Stage, answer: Answer, remember: bool) {
    assert_eq!(stage.rest().await, Driven::RequiresAction);
    let state = stage.observer.snapshot(stage.session).await.unwrap().state;
    let call = state.pending[0].id.clone();
    stage.command(Command::Answer { call, answer, remember }).await;
}

async fn approvals(stage: &mut Stage) {
    begin(stage, say("ask+pure ask")).await;
    answer(stage, Answer::Allow, true).await;
    waits(stage).await;
    stage.command(send("demand")).await;
    answer(stage, Answer::Deny { reason: None }, false).await;
    waits(stage).await;
    stage.command(send("demand")).await;
    assert_eq!(stage.rest().await, Driven::RequiresAction);
    stage.command(Command::Interrupt { drop_queue: false }).await;
    stage.command(Command::Grant { tool: "demand".to_owned() }).await;
    stage.command(send("demand+once")).await;
}

async fn compaction(stage: &mut Stage) {
    begin(stage, say("once")).await;
    waits(stage).await;
    for last in ["poorly", "well"] {
        stage.command(send(last)).await;
        waits(stage).await;
        stage.command(Command::RequestCompaction).await;
        waits(stage).await;
    }
    stage.command(send("pure")).await;
    waits(stage).await;
    stage.command(Command::ClearContext).await;
    stage.command(send("once")).await;
}

async fn goal(stage: &mut Stage) {
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let budget = Budget { tokens: Some(50), ..Budget::default() };
    begin(stage, First::Goal { id, objective, budget, checks: Vec::new() }).await;
    waits(stage).await;
    let state = stage.observer.snapshot(stage.session).await.unwrap().state;
    assert_eq!(state.goal.unwrap().status, GoalStatus::BudgetLimited);

    let budget = Some(Budget { tokens: Some(1_000_000), ..Budget::default() });
    stage.command(Command::EditGoal { objective: None, budget, checks: None }).await;
    stage.until_held().await;
    let objective = Some("make it work well".to_owned());
    stage.command(Command::EditGoal { objective, budget: None, checks: None }).await;
    stage.open_gate();
    waits(stage).await;
    stage.command(Command::SetMode(Mode::Plan)).await;
    stage.command(Command::ResumeGoal).await;
    stage.command(Command::SetMode(Mode::Default)).await;
    waits(stage).await;
    stage.command(Command::PauseGoal).await;
    stage.command(Command::ClearGoal).await;
    stage.command(send("once")).await;
}

async fn people(stage: &mut Stage) {
    begin(stage, say("pure")).await;
    waits(stage).await;
    let mut changed = configuration(stage.directory());
    changed.limits.max_steps = 7;
    stage.command(Command::Configure(Box::new(changed))).await;
    stage.command(Command::Rename { name: Some("named".to_owned()) }).await;
    stage.command(Command::Redact { entry: 2 }).await;
    stage.command(Command::Archive).await;
    stage.command(Command::Unarchive).await;
    stage.command(send("stall")).await;
    stage.until_held().await;
    let (session, request) = (stage.session, stage.request());
    let edit =
        async |process: &Process| process.engine.edit(session, None, "once", Some(&request)).await.unwrap();
    stage.survive(edit).await.unwrap();
}

/// Forks the session, and imports another.
async fn copies(stage: &mut Stage) -> Vec<SessionId> {
    begin(stage, say("once hold")).await;
    stage.until_held().await;
    let (session, log) = (stage.session, foreign_log(stage.directory()).await);
    let fork = async |process: &Process| {
        let head = process.engine.snapshot(session).await.unwrap().row.head;
        process.engine.fork(session, head).await.unwrap().unwrap().session
    };
    let forked = stage.survive(fork).await;
    stage.open_gate();
    waits(stage).await;
    let import = async |process: &Process| {
        let here = "here".to_owned();
        match process.engine.import(session, log.clone(), BTreeSet::new(), here).await.unwrap() {
            Imported::New(Created { session, .. }) | Imported::Known(session) => session,
            Imported::Broken(problems) => panic!("{problems:?}"),
        }
    };
    let imported = stage.survive(import).await;
    for other in [forked, imported] {
        let request = stage.request();
        let go_on =
            async |process: &Process| process.engine.command(other, send("once"), Some(&request)).await;
        stage.survive(go_on).await.unwrap().unwrap();
        assert_eq!(stage.complete(other).await, Driven::Waiting);
    }
    vec![forked, imported]
}

/// Makes a log elsewhere.
async fn foreign_log(directory: String) -> Vec<SealedEntry> {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let none = Arc::new(ModelsBy(|_: &ModelChoice| panic!("nothing is run here")));
    let engine = Engine::new(store.clone(), Arc::new(SystemHost::new()), none, Toolbox::empty());
    let new = NewSession {
        configuration: configuration(directory),
        place: "there".to_owned(),
        ephemeral: false,
        name: Some("foreign".to_owned()),
        labels: BTreeMap::new(),
        first: say("once"),
    };
    let made = engine.create(new, None).await.unwrap().unwrap();
    store.entries(made.session, 1..=made.head).await.unwrap()
}

async fn drain(stage: &mut Stage) {
    begin(stage, say("hold+hold+hold+hold+hold+hold+hold+hold+once+once")).await;
    stage.until_held().await;
    stage.drain().await;
    stage.open_gate();
}

/// Plays a scenario with a death in it, or none, and checks all that must hold. Returns the kinds appended.
async fn play(backend: Backend, scenario: Scenario, plan: Option<Plan>) -> BTreeMap<String, usize> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let backend = match backend {
        Backend::Sqlite(_) => Backend::Sqlite(path.join("longhaul.db")),
        Backend::Postgres(..) => backend,
    };
    let mut stage = Stage::set_up(backend, path, plan).await;
    let others = scenario.play(&mut stage).await;
    assert_eq!(stage.deaths, usize::from(plan.is_some()), "{scenario:?} was to die once at {plan:?}");
    let effects = stage.effects.lock().unwrap().clone();
    let mut known = BTreeSet::new();
    for session in std::iter::once(stage.session).chain(others) {
        known.extend(check(&stage.observer, session, &effects).await);
    }
    let stray: Vec<_> = effects.keys().filter(|key| !known.contains(*key)).collect();
    assert!(stray.is_empty(), "{stray:?} ran and are in no log");
    let kinds = stage.kinds.lock().unwrap().clone();
    let head = stage.observer.snapshot(stage.session).await.unwrap().row.head;
    let all: Vec<EntryNo> = (1..=head).collect();
    for seen in stage.strike(head).await {
        assert_eq!(seen, all, "a reader sees every entry once, in order");
    }
    kinds
}

/// Checks a session at rest. Returns the keys of its calls.
async fn check(engine: &Engine, session: SessionId, effects: &BTreeMap<String, Effect>) -> BTreeSet<String> {
    assert_eq!(engine.verify(session).await.unwrap(), Vec::<String>::new());
    let Snapshot { row, state } = engine.snapshot(session).await.unwrap();
    assert_eq!(state.broken_invariant(), None);
    assert!(state.owner.is_none() && state.queue.is_empty() && state.pending.is_empty(), "{state:?}");
    let log = engine.entries(session, 1..=state.head).await.unwrap();
    let (mut measured, mut estimated) = (Usage::default(), Usage::default());
    let (mut calls, mut epoch) = (BTreeMap::new(), 0);
    for Entry { record, .. } in &log {
        let fact = serde_json::to_value(&record.fact).unwrap();
        let usage = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap_or_default();
        measured += usage(&fact["charge"]["spend"]["usage"]);
        estimated += usage(&fact["estimate"]);
        if let Fact::Acquired { epoch: newest, .. } = &record.fact {
            epoch = *newest;
        }
        if let Actor::Worker { epoch: writer, .. } = record.by {
            assert_eq!(writer, epoch, "only the newest epoch writes: {record:?}");
        }
        if let Fact::ModelStep { calls: made, .. } = &record.fact {
            calls.extend(made.iter().map(|call| {
                // A fork's calls before it was one ran as the other session's.
                let before = row.parent.filter(|parent| record.n <= parent.at);
                let session = before.map_or(session, |parent| parent.session);
                let key = format!("{session}/{}/{}", record.n, call.id);
                (call.id.to_string(), (key, call.clone()))
            }));
        }
        for result in fact["results"].as_array().into_iter().flatten() {
            let (key, call) = &calls[result["call"].as_str().unwrap()];
            let outcome: Outcome = serde_json::from_value(result["outcome"].clone()).unwrap();
            judge(key, call, outcome, effects.get(key).copied().unwrap_or_default());
        }
    }
    assert_eq!((measured, estimated), (state.ledger.measured, state.ledger.estimated));
    calls.into_values().map(|(key, _)| key).collect()
}

/// Holds what the log says of a call against what it has done.
fn judge(key: &str, call: &CallFact, outcome: Outcome, effect: Effect) {
    let once = call.effect == EffectClass::Once;
    assert!(!once || effect.begun <= 1, "{key} of class once ran {} times", effect.begun);
    match outcome {
        Outcome::Ok => assert!(effect.ended > 0, "{key} is said to be done"),
        Outcome::Unknown => assert!(once, "{key} could have run again"),
        // It may have begun, under whoever had the session before, or in the original of a fork.
        Outcome::Stopped | Outcome::Foreign => {}
        Outcome::Error
        | Outcome::TimedOut
        | Outcome::Rejected
        | Outcome::Denied
        | Outcome::NotRun
        | Outcome::Cancelled
        | Outcome::Expired => assert_eq!(effect.begun, 0, "{key} ended as {outcome:?} and ran"),
    }
}

/// Plays all scenarios whole, and then with a death at each of the first appends of each kind of entry.
async fn matrix(backend: Backend, deaths_a_kind: usize) {
    let mut seen = BTreeSet::new();
    let mut deaths = Vec::new();
    for scenario in Scenario::ALL {
        let kinds = play(backend.clone(), scenario, None).await;
        for (kind, times) in kinds {
            let kind = *KINDS.iter().find(|known| **known == kind).unwrap();
            seen.insert(kind);
            for nth in 1..=times.min(deaths_a_kind) {
                deaths.extend([Side::Before, Side::After].map(|side| (scenario, Plan { kind, nth, side })));
            }
        }
    }
    let never = NEVER.map(|(kind, _)| kind);
    assert!(never.iter().all(|kind| !seen.contains(kind)), "{seen:?}");
    let missing: Vec<_> =
        KINDS.iter().filter(|kind| !seen.contains(*kind) && !never.contains(kind)).collect();
    assert!(missing.is_empty(), "no scenario has {missing:?}");
    assert!(deaths.len() > KINDS.len());
    let died = |(scenario, plan)| {
        let playing = play(backend.clone(), scenario, Some(plan));
        async move {
            let played = tokio::time::timeout(Duration::from_secs(120), playing).await;
            assert!(played.is_ok(), "{scenario:?} hangs after {plan:?}");
        }
    };
    stream::iter(deaths).map(died).buffer_unordered(TOGETHER).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_append_a_process_dies_of_the_next_goes_on_in_a_file() {
    matrix(Backend::Sqlite(std::path::PathBuf::new()), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_append_a_process_dies_of_the_next_goes_on_on_a_server() {
    let database = Database::create().await.unwrap();
    let client = database.connect().await.unwrap();
    let (lapses, mut asked) = mpsc::channel::<Lapse>(1);
    tokio::spawn(async move {
        while let Some((worker, done)) = asked.recv().await {
            let lapse = "UPDATE workers SET lease = now() WHERE id = $1";
            client.execute(lapse, &[&worker.0.as_bytes().to_vec()]).await.unwrap();
            done.send(()).unwrap();
        }
    });
    // To sign on costs more than all else.
    matrix(Backend::Postgres(database.url(), lapses), 1).await;
}
