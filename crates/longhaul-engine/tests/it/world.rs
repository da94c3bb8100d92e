//! A directory, a store, a scripted model and tools, under an engine whose time is tokio's: paused,
//! it goes on by itself whenever nothing else can.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_engine::{Done, Driven, Engine, Event, Host, Live, Models, NewSession, Watcher, Worker};
use longhaul_model::Model;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::{Configuration, Limits, ModelChoice, ToolSpec};
use longhaul_session::command::{Command, First};
use longhaul_session::entry::{Content, Entry, Mode};
use longhaul_session::failure::Failure;
use longhaul_session::goal::Terms;
use longhaul_session::id::{EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolResult};
use longhaul_session::prompts::Prompts;
use longhaul_session::state::SessionState;
use longhaul_store::WorkerInfo;
use longhaul_tools::tool::{CallContext, Tool, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::kept::Kept;
use crate::wire::Wire;

/// Events looked at before a test gives up.
const MAX_EVENTS: usize = 20_000;
/// By the test's own clock, so that what hangs fails at once.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

/// Tokio's time, a coin that always shows the same side, and ids in order.
pub(crate) struct Clock {
    started: tokio::time::Instant,
    pub(crate) jitter: f64,
    /// Time that passed while no timer ran, as when the process was stopped.
    skipped_ms: AtomicU64,
    /// Waits of at least so long never end.
    endless_from_ms: AtomicU64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the test's clock")]
    pub(crate) fn new() -> Self {
        Clock {
            started: tokio::time::Instant::now(),
            jitter: 0.5,
            skipped_ms: AtomicU64::new(0),
            endless_from_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Lets no wait end any more that begins now and is to last at least so long.
    pub(crate) fn let_none_end_from_ms(&self, delay_ms: u64) {
        self.endless_from_ms.store(delay_ms, Ordering::SeqCst);
    }

    /// Lets time pass of which no timer knows.
    pub(crate) fn skip_ms(&self, skipped_ms: u64) {
        self.skipped_ms.fetch_add(skipped_ms, Ordering::SeqCst);
    }
}

#[async_trait]
impl Host for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000).plus_ms(self.monotonic_ms())
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap() + self.skipped_ms.load(Ordering::SeqCst)
    }

    #[expect(clippy::disallowed_methods, reason = "the test's clock")]
    async fn sleep_ms(&self, delay_ms: u64) {
        if delay_ms >= self.endless_from_ms.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }

    fn jitter(&self) -> f64 {
        self.jitter
    }

    fn fresh_id(&self) -> Uuid {
        static MADE: AtomicU64 = AtomicU64::new(1);
        Uuid::from_u128(u128::from(MADE.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Models by a function of the choice.
pub(crate) struct ModelsBy<F>(pub(crate) F);

impl<F> Models for ModelsBy<F>
where
    F: Fn(&ModelChoice) -> Result<Arc<dyn Model>, Failure> + Send + Sync + 'static,
{
    fn model(&self, choice: &ModelChoice, _: &Limits) -> Result<Arc<dyn Model>, Failure> {
        (self.0)(choice)
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) scratch: Arc<TempDir>,
    pub(crate) host: Arc<Clock>,
    pub(crate) store: Arc<Wire>,
    pub(crate) engine: Engine,
    pub(crate) models: Arc<dyn Models>,
    pub(crate) tools: Toolbox,
    kept: Kept,
}

impl World {
    /// A world whose model plays a script.
    pub(crate) fn new(script: &str, tools: Toolbox) -> Self {
        World::of(Arc::new(script.parse::<ScriptedModel>().unwrap()), tools)
    }

    pub(crate) fn of(model: Arc<dyn Model>, tools: Toolbox) -> Self {
        World::with_models(Arc::new(ModelsBy(move |_: &ModelChoice| Ok(model.clone()))), tools)
    }

    pub(crate) fn with_models(models: Arc<dyn Models>, tools: Toolbox) -> Self {
        let scratch = Arc::new(TempDir::new().unwrap());
        std::fs::create_dir(scratch.path().join("work")).unwrap();
        let kept = Kept::at(scratch.path().join("longhaul.db"));
        World::over(scratch, Arc::new(Clock::new()), models, tools, kept)
    }

    /// The same world with its database in memory, where it would be a file: no other process, nothing that
    /// happens by itself.
    pub(crate) fn in_memory(self) -> Self {
        World::over(self.scratch, self.host, self.models, self.tools, self.kept.in_memory())
    }

    fn over(
        scratch: Arc<TempDir>,
        host: Arc<Clock>,
        models: Arc<dyn Models>,
        tools: Toolbox,
        kept: Kept,
    ) -> Self {
        let store = Arc::new(Wire::new(kept.open()));
        let engine = Engine::new(store.clone(), host.clone(), models.clone(), tools.clone());
        World { scratch, host, store, engine, models, tools, kept }
    }

    /// Another process over the same database.
    pub(crate) fn neighbour(&self) -> Self {
        let (scratch, host) = (Arc::clone(&self.scratch), Arc::clone(&self.host));
        World::over(scratch, host, Arc::clone(&self.models), self.tools.clone(), self.kept.clone())
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.scratch.path().canonicalize().unwrap().join("work")
    }

    pub(crate) fn configuration(&self) -> Configuration {
        let model = ModelChoice::new("scripted", "script");
        Configuration {
            agent: "tester".to_owned(),
            model,
            directory: self.directory().display().to_string(),
            instructions: None,
            scope: Vec::new(),
            tools: Vec::new(),
            prompts: Prompts::default(),
            limits: Limits::default(),
            summariser: None,
            goal: Terms::default(),
            without_goals: false,
        }
    }

    pub(crate) async fn create(&self, configuration: Configuration, first: First) -> SessionId {
        let new = NewSession {
            configuration,
            place: "here".to_owned(),
            ephemeral: false,
            mode: Mode::Default,
            name: None,
            labels: BTreeMap::new(),
            first,
        };
        self.engine.create(new, None).await.unwrap().unwrap().session
    }

    /// Makes a session that begins with a message.
    pub(crate) async fn session(&self, text: &str) -> SessionId {
        self.create(self.configuration(), First::Message(text.into())).await
    }

    /// Makes a session that begins with a message, under other limits.
    pub(crate) async fn limited(&self, limits: Limits) -> SessionId {
        self.create(Configuration { limits, ..self.configuration() }, First::Message("go".into())).await
    }

    pub(crate) async fn worker(&self, shutdown: &CancellationToken) -> Worker {
        let info = WorkerInfo {
            worker: WorkerId(Uuid::new_v4()),
            place: "here".to_owned(),
            host: "test".to_owned(),
            pid: std::process::id(),
            version: "0".to_owned(),
            address: None,
            started: self.host.now(),
            capacity: 0,
            running: 0,
            alive: true,
        };
        Worker::start(self.engine.clone(), info, shutdown.clone()).await.unwrap()
    }

    /// Drives a session with a worker of its own until it rests.
    pub(crate) async fn run(&self, session: SessionId) -> Driven {
        let worker = self.worker(&CancellationToken::new()).await;
        bounded(worker.drive(session)).await.unwrap()
    }

    /// Drives a session with a worker of its own, aside. Aborting the task kills the worker.
    pub(crate) async fn spawn(&self, session: SessionId) -> JoinHandle<Driven> {
        self.spawn_until(session, &CancellationToken::new()).await
    }

    pub(crate) async fn spawn_until(
        &self,
        session: SessionId,
        shutdown: &CancellationToken,
    ) -> JoinHandle<Driven> {
        let worker = self.worker(shutdown).await;
        tokio::spawn(async move { worker.drive(session).await.unwrap() })
    }

    pub(crate) async fn command(&self, session: SessionId, command: Command) {
        match self.engine.command(session, command, None).await.unwrap() {
            Ok(Done::Now(_) | Done::Before(_)) => {}
            Err(refusal) => panic!("refused: {refusal}"),
        }
    }

    pub(crate) async fn send(&self, session: SessionId, text: &str, interrupt: bool) {
        self.command(session, Command::Send { message: text.into(), interrupt }).await;
    }

    pub(crate) async fn interrupt(&self, session: SessionId) {
        self.command(session, Command::Interrupt { drop_queue: false }).await;
    }

    pub(crate) async fn state(&self, session: SessionId) -> SessionState {
        self.engine.snapshot(session).await.unwrap().state
    }

    pub(crate) async fn log(&self, session: SessionId) -> Vec<Entry> {
        self.engine.entries(session, 1..=EntryNo::MAX / 2).await.unwrap()
    }

    /// The kinds of the entries, without those that only say who runs the session.
    pub(crate) async fn kinds(&self, session: SessionId) -> String {
        let log = self.log(session).await;
        let kinds = log.iter().map(|entry| entry.record.fact.kind());
        let told: Vec<_> = kinds.filter(|kind| !["acquired", "released"].contains(kind)).collect();
        told.join(" ")
    }

    pub(crate) async fn items(&self, session: SessionId) -> Vec<Item> {
        self.log(session).await.iter().flat_map(items_of).collect()
    }

    pub(crate) async fn results(&self, session: SessionId) -> Vec<ToolResult> {
        let items = self.items(session).await;
        let result = |item| if let Item::ToolResult(result) = item { Some(result) } else { None };
        items.into_iter().filter_map(result).collect()
    }

    pub(crate) async fn outcomes(&self, session: SessionId) -> Vec<Outcome> {
        self.results(session).await.iter().map(|result| result.outcome).collect()
    }

    /// What was said, by whom.
    pub(crate) async fn said(&self, session: SessionId) -> Vec<String> {
        self.items(session).await.iter().filter_map(spoken).collect()
    }

    /// Checks that the log is sound.
    pub(crate) async fn sound(&self, session: SessionId) {
        assert_eq!(self.engine.verify(session).await.unwrap(), Vec::<String>::new());
    }
}

fn spoken(item: &Item) -> Option<String> {
    match item {
        Item::User { text } => Some(format!("user: {text}")),
        Item::Assistant { text, partial: false } => Some(format!("model: {text}")),
        Item::Assistant { text, partial: true } => Some(format!("model, cut: {text}")),
        Item::Reasoning { .. }
        | Item::ToolCall(_)
        | Item::ToolResult(_)
        | Item::Summary { .. }
        | Item::ContextFile { .. }
        | Item::Steering { .. }
        | Item::Attachment(_)
        | Item::File { .. }
        | Item::Opaque { .. }
        | Item::Redacted => None,
    }
}

pub(crate) fn items_of(entry: &Entry) -> Vec<Item> {
    match entry.content.as_ref().map(|payload| &payload.content) {
        Some(Content::Items { items }) => items.clone(),
        Some(Content::Configuration { .. } | Content::Prepared { .. } | Content::Guarded { .. }) | None => {
            Vec::new()
        }
    }
}

/// Waits for something that must happen.
pub(crate) async fn bounded<T>(something: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, something).await.expect("it did not happen in two hours of its time")
}

/// Reads events until one is as wanted; returns all of them.
pub(crate) async fn until(watcher: &mut Watcher, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..MAX_EVENTS {
        events.push(bounded(watcher.next()).await.unwrap());
        if wanted(&events[events.len() - 1]) {
            return events;
        }
    }
    panic!("it did not happen in {MAX_EVENTS} events");
}

pub(crate) fn is_kind(kind: &'static str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Entry(entry) if entry.record.fact.kind() == kind)
}

pub(crate) fn is_text(event: &Event) -> bool {
    let Event::Live { part, .. } = event else { return false };
    matches!(&**part, Live::Model { part: longhaul_model::Part::Text { .. } })
}

pub(crate) fn is_tool_start(event: &Event) -> bool {
    matches!(event, Event::Live { part, .. } if matches!(**part, Live::ToolStarted { .. }))
}

/// Returns the failure of a session that failed.
pub(crate) fn failure(driven: Driven) -> Failure {
    let Driven::Failed(failure) = driven else { panic!("it did not fail: {driven:?}") };
    failure
}

pub(crate) fn spec(name: &str, effect: EffectClass) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: "A tool of a test.".to_owned(),
        input_schema: json!({"type": "object", "properties": {"n": {"type": "integer"}}}),
        effect,
        exclusive: false,
        stop_after: false,
    }
}

/// A tool that says "done", counts its runs, and may first wait.
pub(crate) struct Probe {
    pub(crate) runs: Arc<AtomicU64>,
    pub(crate) gate: CancellationToken,
}

impl Probe {
    pub(crate) fn open() -> Self {
        let probe = Probe::shut();
        probe.gate.cancel();
        probe
    }

    pub(crate) fn shut() -> Self {
        Probe { runs: Arc::default(), gate: CancellationToken::new() }
    }

    pub(crate) fn count(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// A tool that ends when the gate is opened, or when it is cancelled.
    pub(crate) fn tool(&self, name: &str, effect: EffectClass) -> impl Tool + use<> {
        self.tool_of(spec(name, effect))
    }

    pub(crate) fn tool_of(&self, spec: ToolSpec) -> impl Tool + use<> {
        let (runs, gate) = (Arc::clone(&self.runs), self.gate.clone());
        function(spec, move |_, cx: CallContext| {
            let (runs, gate) = (Arc::clone(&runs), gate.clone());
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::select! {
                    biased;
                    () = gate.cancelled() => ToolOutput::ok("done"),
                    () = cx.cancel.cancelled() => ToolOutput::new(Outcome::Stopped, "told to stop"),
                }
            }
        })
    }
}

/// A script of one turn: a step that calls these tools, then a text.
pub(crate) fn calling(tools: &[&str]) -> String {
    let calls = tools.iter().map(|tool| format!("[[turn.step.call]]\ntool = \"{tool}\"\n"));
    format!(
        "[[turn]]\n[[turn.step]]\ntext = \"I call.\"\n{}[[turn.step]]\ntext = \"All done.\"\n\
         [[turn]]\n[[turn.step]]\ntext = \"Second.\"\n[[turn]]\n[[turn.step]]\ntext = \"Third.\"\n",
        calls.collect::<String>()
    )
}
