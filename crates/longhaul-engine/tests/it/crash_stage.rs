//! A process that can be made to die just before or just after one of its appends, over a real store, and the
//! next one that goes on. What is played on it stands in `crash_matrix`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_engine::{Done, Driven, Engine, Event, Grace, Host, Models, SystemHost, Worker};
use longhaul_session::agent::ModelChoice;
use longhaul_session::command::{Command, Refusal};
use longhaul_session::entry::Fact;
use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::{SealedEntry, open};
use longhaul_store::postgres::Options;
use longhaul_store::{
    Announced, Append, Appended, Deleted, Error, Filter, Hint, Lease, Page, PostgresStore, RequestId, Row,
    SqliteStore, Store, WorkerInfo,
};
use longhaul_tools::toolbox::Toolbox;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::crash_actors::{self, Memory};
use crate::ledger;
use crate::world::ModelsBy;

/// Anything takes far less, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// And so does a session's whole life.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// Longer than a test.
const LEASE_MS: u64 = 3_600_000;

/// Where to die: at the n-th append that holds an entry of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: &'static str,
    pub(crate) nth: usize,
    pub(crate) side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The append never reached the store.
    Before,
    /// It is committed, and nobody was told.
    After,
}

/// The database that outlives the processes.
#[derive(Clone)]
pub(crate) enum Backend {
    Sqlite(PathBuf),
    /// Its URL, who makes a worker's lease run out, as its time would, and the store of those who only look: to
    /// sign on costs more than all else.
    Postgres(String, mpsc::Sender<Lapse>, Arc<dyn Store>),
}

/// A worker whose lease is to be over, and who waits for it.
pub(crate) type Lapse = (WorkerId, oneshot::Sender<()>);

impl Backend {
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Backend::Sqlite(path) => Arc::new(SqliteStore::open(path).unwrap()),
            Backend::Postgres(url, ..) => {
                // However busy the machine is, leases run out when they are told to.
                let options = Options { lease: Lease::lasting(LEASE_MS), ..Options::default() };
                Arc::new(PostgresStore::open(url, options).await.unwrap())
            }
        }
    }

    async fn open_to_look(&self) -> Arc<dyn Store> {
        match self {
            Backend::Sqlite(_) => self.open().await,
            Backend::Postgres(.., looking) => Arc::clone(looking),
        }
    }
}

/// The machine, but for chance: a retry does not wait longer than it must. Where the actors say how long things
/// take, work is measured by their clock.
struct Unhurried {
    machine: SystemHost,
    clock: Option<Arc<AtomicU64>>,
}

#[async_trait]
impl Host for Unhurried {
    fn now(&self) -> Timestamp {
        self.machine.now()
    }

    fn monotonic_ms(&self) -> u64 {
        let machine = || self.machine.monotonic_ms();
        self.clock.as_ref().map_or_else(machine, |clock| clock.load(Ordering::SeqCst))
    }

    async fn sleep_ms(&self, delay_ms: u64) {
        self.machine.sleep_ms(delay_ms).await;
    }

    fn jitter(&self) -> f64 {
        0.0
    }

    fn fresh_id(&self) -> Uuid {
        self.machine.fresh_id()
    }
}

/// A process's way to the store. Once it is dead nothing gets through in either direction.
pub(crate) struct Cliff {
    inner: Arc<dyn Store>,
    pub(crate) dead: CancellationToken,
    plan: Option<Plan>,
    /// How many appends it has met that the plan speaks of, in all processes.
    met: Arc<AtomicU64>,
    announced: Arc<Mutex<Option<Box<dyn Announced>>>>,
    /// What it has appended, and those before it.
    facts: Facts,
}

/// What was appended, append by append.
pub(crate) type Facts = Arc<Mutex<Vec<Vec<Fact>>>>;

/// What a worker holds instead of its announcement: the dead take nothing back.
struct Standing {
    dead: CancellationToken,
    announced: Arc<Mutex<Option<Box<dyn Announced>>>>,
}

impl Announced for Standing {}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.dead.is_cancelled() {
            drop(self.announced.lock().unwrap().take());
        }
    }
}

impl Cliff {
    async fn living<T>(&self, call: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.dead.cancelled() => std::future::pending().await,
            done = call => done,
        }
    }

    async fn die(&self) -> ! {
        self.dead.cancel();
        std::future::pending().await
    }

    /// Writes entries, unless the process dies of it.
    async fn write(
        &self,
        entries: &[SealedEntry],
        write: impl Future<Output = Result<Appended, Error>>,
    ) -> Result<Appended, Error> {
        let kinds: BTreeSet<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        let planned = self.plan.filter(|plan| kinds.contains(plan.kind));
        let is_it = || planned.filter(|plan| self.met.fetch_add(1, Ordering::SeqCst) + 1 == plan.nth as u64);
        if planned.is_some_and(|plan| plan.side == Side::Before) && is_it().is_some() {
            self.die().await;
        }
        let done = self.living(write).await;
        if done == Ok(Appended::Done) {
            let facts = entries.iter().map(|entry| open(entry).unwrap().record.fact);
            self.facts.lock().unwrap().push(facts.collect());
            if planned.is_some_and(|plan| plan.side == Side::After) && is_it().is_some() {
                self.die().await;
            }
        }
        done
    }
}

#[async_trait]
impl Store for Cliff {
    async fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error> {
        let create = self.inner.create(row, entries.clone(), request);
        self.write(&entries, create).await
    }

    async fn load(&self, session: SessionId) -> Result<Option<Row>, Error> {
        self.living(self.inner.load(session)).await
    }

    async fn append(&self, append: Append) -> Result<Appended, Error> {
        let entries = append.entries.clone();
        self.write(&entries, self.inner.append(append)).await
    }

    async fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
        self.living(self.inner.request(session, request)).await
    }

    async fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error> {
        self.living(self.inner.entries(session, range)).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Row>, Error> {
        self.living(self.inner.list(filter, page)).await
    }

    async fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error> {
        self.living(self.inner.claimable(now, place, limit)).await
    }

    async fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error> {
        self.living(self.inner.next_claimable_at(now, place)).await
    }

    fn lease(&self) -> Option<Lease> {
        self.inner.lease()
    }

    async fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        self.living(self.inner.owner_is_alive(worker)).await
    }

    async fn renew(&self, worker: WorkerId, sessions: &[SessionId]) -> Result<Vec<SessionId>, Error> {
        self.living(self.inner.renew(worker, sessions)).await
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<Box<dyn Announced>, Error> {
        let announced = self.living(self.inner.announce(worker)).await?;
        *self.announced.lock().unwrap() = Some(announced);
        Ok(Box::new(Standing { dead: self.dead.clone(), announced: Arc::clone(&self.announced) }))
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        self.living(self.inner.workers()).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.inner.hints()
    }

    async fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error> {
        self.living(self.inner.put_artifact(session, bytes)).await
    }

    async fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.living(self.inner.artifact(digest)).await
    }

    async fn delete(&self, session: SessionId) -> Result<Deleted, Error> {
        self.living(self.inner.delete(session)).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.living(self.inner.close()).await
    }
}

/// The numbers of the entries that a reader has seen, in the order it saw them.
type Seen = Arc<Mutex<Vec<EntryNo>>>;

/// One process: an engine, a worker, and what it drives.
pub(crate) struct Process {
    pub(crate) store: Arc<Cliff>,
    pub(crate) engine: Engine,
    worker: Worker,
    shutdown: CancellationToken,
    /// How many of its effects wait to be let go.
    held: watch::Sender<usize>,
    driving: Option<(watch::Receiver<Option<Driven>>, AbortOnDropHandle<()>)>,
    watching: Option<Reader>,
}

/// A session on its way through processes that die.
pub(crate) struct Stage {
    backend: Backend,
    plan: Option<Plan>,
    met: Arc<AtomicU64>,
    directory: PathBuf,
    pub(crate) process: Process,
    /// Processes that have died, whose announcements stay until their lease is over.
    graves: Vec<Arc<Cliff>>,
    pub(crate) memory: Memory,
    pub(crate) facts: Facts,
    pub(crate) session: SessionId,
    /// The entries that the processes' readers have seen, each going on where the one before was cut off.
    read: Seen,
    /// Another process, which only looks and never dies, and what its reader has seen.
    pub(crate) observer: Engine,
    observed: Seen,
    observing: Option<Reader>,
    drives: bool,
    requests: u64,
    pub(crate) deaths: usize,
}

impl Stage {
    pub(crate) async fn set_up(backend: Backend, directory: PathBuf, plan: Option<Plan>) -> Self {
        Stage::set_up_with(backend, directory, plan, Memory::default()).await
    }

    /// Sets it up for actors who remember something already.
    pub(crate) async fn set_up_with(
        backend: Backend,
        directory: PathBuf,
        plan: Option<Plan>,
        memory: Memory,
    ) -> Self {
        let (met, facts) = Default::default();
        let process = start(&backend, plan, &met, &memory, &facts).await;
        let observer = Engine::new(
            backend.open_to_look().await,
            Arc::new(SystemHost::new()),
            Arc::new(ModelsBy(|_: &ModelChoice| panic!("it only looks"))),
            Toolbox::empty(),
        );
        Stage {
            backend,
            plan,
            met,
            directory,
            process,
            graves: Vec::new(),
            memory,
            facts,
            session: SessionId(Uuid::nil()),
            read: Arc::default(),
            observer,
            observed: Arc::default(),
            observing: None,
            drives: false,
            requests: 0,
            deaths: 0,
        }
    }

    pub(crate) fn directory(&self) -> String {
        self.directory.display().to_string()
    }

    /// Does something in the process there is; when it dies of it, again in the next.
    pub(crate) async fn survive<T>(&mut self, work: impl AsyncFn(&Process) -> T) -> T {
        loop {
            let dead = self.process.store.dead.clone();
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                done = tokio::time::timeout(PATIENCE, work(&self.process)) => {
                    return done.expect("it happens within five minutes");
                }
            }
            self.deaths += 1;
            self.replace().await;
        }
    }

    /// Puts another process in the place of the one there is, dead or done.
    pub(crate) async fn replace(&mut self) {
        // One dies once.
        let plan = self.plan.filter(|_| !self.process.store.dead.is_cancelled());
        let next = start(&self.backend, plan, &self.met, &self.memory, &self.facts).await;
        let last = std::mem::replace(&mut self.process, next);
        let (store, worker) = (Arc::clone(&last.store), last.worker.id());
        // All its tasks end here, wherever they are.
        drop(last);
        match (&self.backend, store.dead.is_cancelled()) {
            // Without its writer an announcement takes nothing back: its lock is free, as by a death.
            (Backend::Sqlite(_), true) => {
                store.inner.close().await.unwrap();
                drop(store.announced.lock().unwrap().take());
            }
            (Backend::Postgres(_, lapse, _), true) => {
                let (done, lapsed) = oneshot::channel();
                lapse.send((worker, done)).await.unwrap();
                lapsed.await.unwrap();
                self.graves.push(store);
            }
            (_, false) => store.inner.close().await.unwrap(),
        }
        self.watch();
        if self.drives {
            self.drive();
        }
    }

    /// Reads on from the entry that was read last.
    fn watch(&mut self) {
        if self.session.0.is_nil() {
            return;
        }
        self.process.watching = Some(read_on(&self.process.engine, self.session, &self.read));
    }

    /// Makes this the session that is driven and watched.
    pub(crate) fn enter(&mut self, session: SessionId) {
        self.session = session;
        self.watch();
        self.observing = Some(read_on(&self.observer, session, &self.observed));
    }

    /// Lets the process drive the session, beside whatever else it does.
    pub(crate) fn drive(&mut self) {
        self.drives = true;
        let (worker, session) = (self.process.worker.clone(), self.session);
        let (ended, driven) = watch::channel(None);
        let driving = tokio::spawn(async move {
            ended.send_replace(Some(worker.drive(session).await.unwrap()));
        });
        self.process.driving = Some((driven, AbortOnDropHandle::new(driving)));
    }

    /// Drives the session until it rests.
    pub(crate) async fn rest(&mut self) -> Driven {
        if !self.drives {
            self.drive();
        }
        let driven = self.survive(async |process| process.driven().await).await;
        self.drives = false;
        driven
    }

    /// Drives the session until an effect waits to be let go, or nothing is left to do.
    pub(crate) async fn until_held(&mut self) {
        if !self.drives {
            self.drive();
        }
        let waits = async |process: &Process| {
            let mut held = process.held.subscribe();
            tokio::select! {
                held = held.wait_for(|held| *held > 0) => drop(held.unwrap()),
                _ = process.driven() => {}
            }
        };
        self.survive(waits).await;
    }

    /// Waits until the log names the answer that the model makes.
    pub(crate) async fn until_named(&mut self) {
        let (observer, session) = (self.observer.clone(), self.session);
        let named = async |_: &Process| {
            while observer.snapshot(session).await.unwrap().state.response_id.is_none() {
                observer.host().sleep_ms(2).await;
            }
        };
        self.survive(named).await;
    }

    /// Asks for something. Asked again after a death, it is the same request.
    pub(crate) async fn ask(&mut self, command: Command) -> Result<Done, Refusal> {
        let (session, request) = (self.session, self.request());
        let ask = async |process: &Process| {
            process.engine.command(session, command.clone(), Some(&request)).await.unwrap()
        };
        self.survive(ask).await
    }

    /// Asks for something that must be done.
    pub(crate) async fn command(&mut self, command: Command) {
        let name = command.name();
        if let Err(refusal) = self.ask(command).await {
            panic!("{name} was refused: {refusal}");
        }
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::new(format!("request {} of {}", self.requests, self.directory.display())).unwrap()
    }

    /// Lets all effects go.
    pub(crate) fn open_gate(&self) {
        self.memory.gate.send_replace(true);
    }

    /// Lets effects wait from now on.
    pub(crate) fn shut_gate(&self) {
        self.memory.gate.send_replace(false);
    }

    /// Tells the process to stop, waits until it has given the session back, and starts another.
    pub(crate) async fn drain(&mut self) {
        self.process.shutdown.cancel();
        // One that died of it has been replaced already.
        let stopped = async |process: &Process| {
            process.shutdown.is_cancelled() && process.driven().await == Driven::Stopped
        };
        if self.survive(stopped).await {
            self.replace().await;
        }
    }

    /// Drives another session until it rests.
    pub(crate) async fn complete(&mut self, session: SessionId) -> Driven {
        self.survive(async |process| process.worker.drive(session).await.unwrap()).await
    }

    /// Waits until both readers have seen all there is, ends all that is left, and returns what they have seen.
    pub(crate) async fn strike(mut self, head: EntryNo) -> [Vec<EntryNo>; 2] {
        let seen = [Arc::clone(&self.read), Arc::clone(&self.observed)];
        let all_seen = async |_: &Process| {
            let newest = |seen: &Seen| seen.lock().unwrap().last().copied().unwrap_or_default();
            while seen.iter().any(|seen| newest(seen) < head) {
                SystemHost::new().sleep_ms(2).await;
            }
        };
        self.survive(all_seen).await;
        drop(self.observing);
        if let Backend::Sqlite(_) = self.backend {
            self.observer.store().close().await.unwrap();
        }
        let store = Arc::clone(&self.process.store);
        drop(self.process);
        store.inner.close().await.unwrap();
        for grave in self.graves {
            drop(grave.announced.lock().unwrap().take());
            grave.inner.close().await.unwrap();
        }
        seen.map(|seen| seen.lock().unwrap().clone())
    }
}

/// A reader. Once it is dropped it notes nothing more, though its task may end a little later.
struct Reader {
    _stop: DropGuard,
    _task: AbortOnDropHandle<()>,
}

/// Reads a session from the entry after the last that was seen.
fn read_on(engine: &Engine, session: SessionId, seen: &Seen) -> Reader {
    let (seen, stop) = (Arc::clone(seen), CancellationToken::new());
    let last = seen.lock().unwrap().last().copied().unwrap_or_default();
    let (mut watcher, stopped) = (engine.watch(session, last), stop.clone());
    let task = tokio::spawn(async move {
        while let Ok(event) = watcher.next().await {
            if let Event::Entry(entry) = event {
                let mut seen = seen.lock().unwrap();
                if stopped.is_cancelled() {
                    return;
                }
                seen.push(entry.record.n);
            }
        }
    });
    Reader { _stop: stop.drop_guard(), _task: AbortOnDropHandle::new(task) }
}

impl Process {
    async fn driven(&self) -> Driven {
        let (driven, _) = self.driving.as_ref().unwrap();
        let mut driven = driven.clone();
        driven.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }
}

async fn start(
    backend: &Backend,
    plan: Option<Plan>,
    met: &Arc<AtomicU64>,
    memory: &Memory,
    facts: &Facts,
) -> Process {
    let store = Arc::new(Cliff {
        inner: backend.open().await,
        dead: CancellationToken::new(),
        plan,
        met: Arc::clone(met),
        announced: Arc::default(),
        facts: Arc::clone(facts),
    });
    let held = watch::Sender::new(0);
    let tools = crash_actors::tools(memory, &held);
    let (obedient, metered) = (crash_actors::model(memory, &held), ledger::model(memory));
    let models: Arc<dyn Models> = Arc::new(ModelsBy(move |choice: &ModelChoice| {
        Ok(Arc::clone(if choice.provider == ledger::PROVIDER { &metered } else { &obedient }))
    }));
    let host = Arc::new(Unhurried { machine: SystemHost::new(), clock: memory.clock.clone() });
    let engine = Engine::new(store.clone(), host, models, tools);
    let info = WorkerInfo {
        worker: WorkerId(Uuid::new_v4()),
        place: "here".to_owned(),
        host: "test".to_owned(),
        pid: std::process::id(),
        version: "0".to_owned(),
        address: None,
        started: engine.host().now(),
        capacity: 0,
        running: 0,
        alive: true,
    };
    let shutdown = CancellationToken::new();
    let worker = Worker::start(engine.clone(), info, shutdown.clone()).await.unwrap();
    let worker = worker.with_grace(Grace { model_ms: 0, tools_ms: 0 }, CancellationToken::new());
    Process { store, engine, worker, shutdown, held, driving: None, watching: None }
}
