//! The crash matrix: for each kind of entry a process dies just before its append, and just after, and the
//! next one goes on. The stores are the real ones. How a process dies stands in `crash_stage`, who acts in
//! `crash_actors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use longhaul_engine::{Created, Done, Driven, Engine, Imported, NewSession, Snapshot, SystemHost};
use longhaul_session::agent::{Configuration, Limits, ModelChoice, ToolPermission, ToolSetting};
use longhaul_session::command::{Answer, Command, First};
use longhaul_session::entry::{Actor, CallFact, Entry, Fact, KINDS, Mode};
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::{Budget, GoalStatus, Terms};
use longhaul_session::id::{EntryNo, GoalId, SessionId};
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_session::log::SealedEntry;
use longhaul_session::usage::Usage;
use longhaul_store::postgres::Options;
use longhaul_store::{PostgresStore, SqliteStore, Store as _};
use longhaul_test_postgres::{Database, is_chosen};
use longhaul_tools::toolbox::Toolbox;
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::crash_actors::{Answers, Effect};
use crate::crash_stage::{Backend, LIFETIME, Lapse, Plan, Process, Side, Stage};
use crate::world::ModelsBy;

/// Scenarios that are played at the same time: mostly they wait.
pub(crate) const TOGETHER: usize = 16;

/// Kinds that no session gets here.
const NEVER: [&str; 2] = ["hook", "reconciled"];

/// Returns the scenarios in which a process dies of the first appends that hold such an entry.
fn deadly(fact: &Fact) -> &'static [Scenario] {
    use Scenario::{Approvals, Background, Calls, Compaction, Copies, Drain, Goal, People, Queue};
    match fact {
        Fact::Created { .. } => &[Calls, Goal],
        Fact::Prepared | Fact::Retry { .. } => &[Calls],
        Fact::Acquired { .. } => &[Calls, Approvals, Background, Drain],
        Fact::ModelStep { .. } => &[Calls, Approvals, Background, Copies, Goal, Drain],
        Fact::ToolStep { .. } => &[Calls, Approvals, Background, Goal, Queue, Drain],
        Fact::TurnFinished { .. } => &[Calls, Background, Goal, Queue],
        Fact::Released { .. } => &[Drain],
        Fact::Message => &[Calls, Queue, Copies],
        Fact::Queued | Fact::Unqueued { .. } | Fact::Promoted { .. } | Fact::Failed { .. } => &[Queue],
        Fact::Interrupting { .. } => &[Queue, Background],
        Fact::Interrupted { .. } => &[Queue, Background],
        Fact::Awaiting { .. } | Fact::Answered { .. } | Fact::Granted { .. } => &[Approvals],
        Fact::CompactionRequested | Fact::Compacted { .. } => &[Compaction],
        Fact::CompactionFailed { .. } | Fact::Cleared => &[Compaction],
        Fact::Goal { .. } | Fact::Mode { .. } | Fact::Steering { .. } => &[Goal],
        Fact::Configured { .. } | Fact::Named { .. } | Fact::Redacted { .. } => &[People],
        Fact::Archived | Fact::Unarchived | Fact::Edited { .. } | Fact::Settled { .. } => &[People],
        Fact::Forked { .. } | Fact::Imported { .. } => &[Copies],
        Fact::ResponseStarted { .. } => &[Background],
        Fact::Context { .. } => &[Calls],
        // No hooks are asked yet, and nothing mends a row that is sound.
        Fact::Hook { .. } | Fact::Reconciled { .. } => &[],
    }
}

/// One session's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Calls,
    Queue,
    Approvals,
    Compaction,
    Goal,
    People,
    Copies,
    Drain,
    Background,
}

impl Scenario {
    const ALL: [Scenario; 9] = [
        Scenario::Calls,
        Scenario::Queue,
        Scenario::Approvals,
        Scenario::Compaction,
        Scenario::Goal,
        Scenario::People,
        Scenario::Copies,
        Scenario::Drain,
        Scenario::Background,
    ];

    /// Plays it to its end. Returns the other sessions it made.
    async fn play(self, stage: &mut Stage) -> Vec<SessionId> {
        match self {
            Scenario::Calls => calls(stage).await,
            Scenario::Queue => queue(stage).await,
            Scenario::Approvals => approvals(stage).await,
            Scenario::Compaction => compaction(stage).await,
            Scenario::Goal => goal(stage).await,
            Scenario::People => people(stage).await,
            Scenario::Copies => return copies(stage).await,
            Scenario::Drain => drain(stage).await,
            Scenario::Background => background(stage).await,
        }
        waits(stage).await;
        Vec::new()
    }
}

async fn calls(stage: &mut Stage) {
    std::fs::write(Path::new(&stage.directory()).join("AGENTS.md"), "Be brief.").unwrap();
    begin(stage, say("once+pure+again once+once retry")).await;
}

fn say(text: &str) -> First {
    First::Message(text.into())
}

fn send(text: &str) -> Command {
    Command::Send { message: text.into(), interrupt: false }
}

pub(crate) async fn waits(stage: &mut Stage) {
    assert_eq!(stage.rest().await, Driven::Waiting);
}

pub(crate) fn configuration(directory: String) -> Configuration {
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
        summariser: None,
        goal: Terms::default(),
        without_goals: false,
        prompts: longhaul_session::prompts::Prompts::default(),
    }
}

async fn begin(stage: &mut Stage, first: First) {
    begin_as(stage, first, configuration(stage.directory())).await;
}

pub(crate) async fn begin_as(stage: &mut Stage, first: First, configuration: Configuration) {
    let new = NewSession {
        configuration,
        place: "here".to_owned(),
        ephemeral: false,
        mode: Mode::Default,
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
    stage.command(Command::Send { message: "again".into(), interrupt: true }).await;
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
    begin(stage, First::Goal { id, objective, terms: Terms { budget, ..Terms::default() } }).await;
    waits(stage).await;
    let state = stage.observer.snapshot(stage.session).await.unwrap().state;
    assert_eq!(state.goal.unwrap().status, GoalStatus::BudgetLimited);

    let budget = Some(Budget { tokens: Some(1_000_000), ..Budget::default() });
    stage.command(Command::EditGoal { objective: None, budget, checks: None, protected: None }).await;
    stage.until_held().await;
    let objective = Some("make it work well".to_owned());
    stage.command(Command::EditGoal { objective, budget: None, checks: None, protected: None }).await;
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
        mode: Mode::Default,
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

async fn background(stage: &mut Stage) {
    let mut resumable = configuration(stage.directory());
    resumable.model.resumable = true;
    begin_as(stage, say("once+pure again"), resumable).await;
    waits(stage).await;
    stage.command(send("stall")).await;
    stage.until_held().await;
    stage.until_named().await;
    stage.command(Command::Interrupt { drop_queue: false }).await;
}

/// Plays a scenario with a death in it, or none, and checks all that must hold. Returns what was appended.
async fn play(backend: Backend, scenario: Scenario, plan: Option<Plan>) -> Vec<Vec<Fact>> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let backend = match backend {
        Backend::Sqlite(_) => Backend::Sqlite(path.join("longhaul.db")),
        Backend::Postgres(..) => backend,
    };
    let mut stage = Stage::set_up(backend, path, plan).await;
    let others = scenario.play(&mut stage).await;
    assert_eq!(stage.deaths, usize::from(plan.is_some()), "{scenario:?} was to die once at {plan:?}");
    let effects = stage.memory.effects.lock().unwrap().clone();
    let mut known = BTreeSet::new();
    for session in std::iter::once(stage.session).chain(others) {
        known.extend(check(&stage.observer, session, &effects).await);
    }
    let stray: Vec<_> = effects.keys().filter(|key| !known.contains(*key)).collect();
    assert!(stray.is_empty(), "{stray:?} ran and are in no log");
    let head = stage.observer.snapshot(stage.session).await.unwrap().row.head;
    if scenario == Scenario::Background {
        let log = stage.observer.entries(stage.session, 1..=head).await.unwrap();
        let lost = plan.is_some_and(|Plan { kind, side, .. }| kind == NAMED && side == Side::Before);
        check_answers(&log, &stage.memory.answers.lock().unwrap(), usize::from(lost));
    }
    let facts = stage.facts.lock().unwrap().clone();
    let all: Vec<EntryNo> = (1..=head).collect();
    for seen in stage.strike(head).await {
        assert_eq!(seen, all, "a reader sees every entry once, in order");
    }
    facts
}

/// The kind of entry that names an answer made in the background.
const NAMED: &str = "response_started";

/// Each answer is begun, and paid, once: all but those that were lost before they had a name are named, and
/// each that is named is committed, or ended at the provider.
fn check_answers(log: &[Entry], answers: &Answers, lost: usize) {
    let mut named = BTreeSet::new();
    let mut committed = BTreeSet::new();
    for Entry { record, .. } in log {
        if let Fact::ResponseStarted { response_id, .. } = &record.fact {
            assert!(named.insert(response_id.clone()));
        } else if let Fact::ModelStep { response_id: Some(id), .. } = &record.fact {
            assert!(committed.insert(id.clone()));
        }
    }
    let ended: BTreeSet<_> = committed.union(&answers.cancelled).cloned().collect();
    assert_eq!(named, ended, "what is named is committed or ended");
    assert!(committed.is_disjoint(&answers.cancelled));
    assert_eq!(answers.begun.len(), named.len() + lost, "{named:?} of {:?}", answers.begun);
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
        let appends = play(backend.clone(), scenario, None).await;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for append in appends {
            let kinds: BTreeMap<_, _> = append.iter().map(|fact| (fact.kind(), deadly(fact))).collect();
            let dying = kinds.iter().filter(|(_, deadly)| deadly.contains(&scenario));
            dying.for_each(|(kind, _)| *times.entry(*kind).or_default() += 1);
            seen.extend(kinds.into_keys());
        }
        for (kind, times) in times {
            for nth in 1..=times.min(deaths_a_kind) {
                deaths.extend([Side::Before, Side::After].map(|side| (scenario, Plan { kind, nth, side })));
            }
        }
    }
    let unseen: Vec<_> = KINDS.into_iter().filter(|kind| !seen.contains(kind)).collect();
    assert_eq!(unseen, NEVER, "no scenario has these");
    let died: BTreeSet<_> = deaths.iter().map(|(_, plan)| plan.kind).collect();
    assert_eq!(died, seen, "there is a death at every kind");
    let dies = |(scenario, plan)| {
        let playing = play(backend.clone(), scenario, Some(plan));
        async move {
            let played = tokio::time::timeout(LIFETIME, playing).await;
            assert!(played.is_ok(), "{scenario:?} hangs after {plan:?}");
        }
    };
    stream::iter(deaths).map(dies).buffer_unordered(TOGETHER).collect::<Vec<()>>().await;
}

/// Returns a database of the server, whose workers' leases run out when they are told to.
pub(crate) async fn on_a_server(database: &Database) -> Backend {
    let client = database.connect().await.unwrap();
    let (lapses, mut asked) = mpsc::channel::<Lapse>(1);
    tokio::spawn(async move {
        while let Some((worker, done)) = asked.recv().await {
            let lapse = "UPDATE workers SET lease = now() WHERE id = $1";
            client.execute(lapse, &[&worker.0.as_bytes().to_vec()]).await.unwrap();
            done.send(()).unwrap();
        }
    });
    let looking = PostgresStore::open(&database.url(), Options::default()).await.unwrap();
    Backend::Postgres(database.url(), lapses, Arc::new(looking))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_append_a_process_dies_of_the_next_one_goes_on() {
    if is_chosen() {
        let database = Database::create().await.unwrap();
        matrix(on_a_server(&database).await, 1).await;
    } else {
        matrix(Backend::Sqlite(std::path::PathBuf::new()), 2).await;
    }
}
