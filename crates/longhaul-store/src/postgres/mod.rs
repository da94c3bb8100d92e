//! A store in a Postgres database, which workers on many machines may use at once.
//!
//! `address` reads the URL and `tls` protects the connection; `db` runs statements, `fault` says what their
//! errors mean, `migrate` brings the schema up to date. `writer` commits appends together, `connections`
//! are for everything else, `listen` hears of growth and tells others of it. What is said to the database
//! stands in `append`, `read`, `write` and `sql`.

mod address;
mod append;
mod columns;
mod connections;
mod db;
mod fault;
mod listen;
mod migrate;
mod read;
mod sql;
mod tls;
mod write;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::append::Job;
use self::connections::{Connections, Earlier};
pub use self::db::Counters;
use self::db::Opener;
use self::listen::{Listeners, Rhythm};
use self::read::Gone;
use self::writer::Writer;
use crate::limits::{LEASE_MS, NOTIFY_EVERY_MS, POLL_EVERY_MS};
use crate::payload::PackedEntry;
use crate::{
    Announced, Append, Appended, Deleted, Error, Filter, Hint, Lease, Page, RequestId, Row, Store,
    WorkerInfo, check, payload,
};

/// How a store keeps time. All who use a database should agree.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long owners live without a renewal, and how often they renew.
    pub lease: Lease,
    /// How often the server is asked for growth that no notification told of, in milliseconds.
    pub poll_every_ms: u64,
    /// How often others are notified of growth at most, in milliseconds: of the first at once, and then of all
    /// that came meanwhile.
    pub notify_every_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lease: Lease::lasting(LEASE_MS),
            poll_every_ms: POLL_EVERY_MS,
            notify_every_ms: NOTIFY_EVERY_MS,
        }
    }
}

/// A store in a Postgres database.
///
/// A commit is on disk when its call returns. Who lives is told by leases, by the database's clock. A pooler
/// may stand between, if it keeps prepared statements with their connection (PgBouncer from 1.21 on does,
/// with `max_prepared_statements`); where it swallows notifications, hints come by asking.
pub struct PostgresStore {
    shared: Arc<Shared>,
    writer: Writer,
    /// Taken when the store is closed.
    listening: Mutex<Option<JoinHandle<()>>>,
    lease: Lease,
}

/// What announcements need too.
struct Shared {
    opener: Arc<Opener>,
    connections: Connections,
    listeners: Arc<Listeners>,
    /// Where the store was opened: what an announcement leaves to do is done there.
    runtime: Handle,
    workers: Mutex<Workers>,
    /// Creates and appends that ended before it was known what became of them: the last entry each would have
    /// written.
    unsettled: Mutex<BTreeMap<SessionId, Digest>>,
}

/// The workers announced through this store.
#[derive(Default)]
struct Workers {
    announced: BTreeMap<WorkerId, WorkerInfo>,
    /// Those that have gone, whose rows have not yet.
    gone: BTreeSet<WorkerId>,
    retractions: Vec<JoinHandle<()>>,
}

impl PostgresStore {
    /// Opens the database at a URL, `postgres://user:password@host:port/database`, and brings its schema up
    /// to date: the one its `search_path` names (`?options=-csearch_path%3Dname`), else `public`.
    ///
    /// `sslmode` is `disable`; `prefer` (the default: TLS where the server has it) and `require`, which hide
    /// what is said but let anybody answer; or `verify-full`, which asks for a certificate that the system
    /// trusts for this host. `sslrootcert` names a file of certificates (PEM) to trust instead, and asks for
    /// the same proof. `longhaul_lease_ms`, if given, goes before the lease of the options.
    ///
    /// # Errors
    /// When the URL or the server cannot be used, the schema belongs to another program, or was written by a
    /// newer version of this one. No message holds the URL's user or password.
    pub async fn open(url: &str, options: Options) -> Result<Self, Error> {
        let address = address::parse(url)?;
        let lease = address.lease_ms.map_or(options.lease, Lease::lasting);
        let opener = Arc::new(Opener::new(address)?);
        let first = opener.connect().await.map_err(|fault| fault.error)?;
        migrate::migrate(&first).await.map_err(|fault| fault.error)?;
        let since = listen::moment(&first).await.map_err(|fault| fault.error)?;
        let listeners = Arc::new(Listeners::new());
        let lease_ms = read::clamp(lease.lasts_ms);
        let writer = Writer::start(Arc::clone(&opener), Arc::clone(&listeners), lease_ms);
        let rhythm = Rhythm { look_every_ms: options.poll_every_ms, tell_every_ms: options.notify_every_ms };
        let listening = listen::listen(Arc::clone(&opener), Arc::clone(&listeners), since, rhythm);
        let shared = Arc::new(Shared {
            connections: Connections::new(Arc::clone(&opener), first),
            opener,
            listeners,
            runtime: Handle::current(),
            workers: Mutex::default(),
            unsettled: Mutex::default(),
        });
        let listening = Mutex::new(Some(tokio::spawn(listening)));
        Ok(PostgresStore { shared, writer, listening, lease })
    }

    /// Returns what the store has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.opener.tally.counters()
    }

    fn lease_ms(&self) -> i64 {
        read::clamp(self.lease.lasts_ms)
    }

    /// Runs work that takes long on a thread for it.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let closed = |_| Error::Closed { database: self.shared.opener.database.to_string() };
        tokio::task::spawn_blocking(work).await.map_err(closed)
    }

    async fn pack(&self, entries: Vec<SealedEntry>) -> Result<Vec<PackedEntry>, Error> {
        let slow = payload::is_slow(&entries);
        let pack = || entries.into_iter().map(payload::pack_entry).collect();
        if slow { self.aside(pack).await } else { Ok(pack()) }
    }

    /// Appends with what goes beside the entries, on one of the connections.
    async fn append_apart(&self, job: &Job) -> Result<Appended, Error> {
        let lease_ms = self.lease_ms();
        let work = |db: Arc<db::Db>, earlier: Earlier| async move {
            if earlier.lost {
                job.settle();
            }
            db.transaction(write::append(&db, job, lease_ms)).await
        };
        let appended = self.shared.connections.run(work).await?;
        if appended == Appended::Done {
            self.shared.listeners.tell_all(job.hint());
        }
        Ok(appended)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.get_mut().unwrap_or_else(PoisonError::into_inner) {
            listening.abort();
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error> {
        check::create(&row, &entries)?;
        let entries = self.pack(entries).await?;
        let mark = (row.session, row.head_hash);
        let (row, entries, request, lease_ms) = (&row, &entries, request.as_ref(), self.lease_ms());
        let unsettled = self.shared.is_unsettled(mark);
        let work = |db: Arc<db::Db>, earlier: Earlier| async move {
            let settling = unsettled || earlier.lost;
            db.transaction(write::create(&db, row, entries, request, lease_ms, settling)).await
        };
        let created = self.shared.connections.run(work).await;
        self.shared.settle(mark, &created);
        if created == Ok(Appended::Done) {
            self.shared.listeners.tell_all(Hint { session: row.session, head: row.head });
        }
        created
    }

    async fn load(&self, session: SessionId) -> Result<Option<Row>, Error> {
        self.shared.connections.run(|db, _| async move { read::load(&db, session).await }).await
    }

    async fn append(&self, mut append: Append) -> Result<Appended, Error> {
        check::append(&append)?;
        let entries = self.pack(std::mem::take(&mut append.entries)).await?;
        let mark = (append.session, append.row.head_hash);
        let job = Job::new(append, entries)?;
        if self.shared.is_unsettled(mark) {
            job.settle();
        }
        let appended =
            if job.is_plain() { self.writer.run(job).await } else { self.append_apart(&job).await };
        self.shared.settle(mark, &appended);
        appended
    }

    async fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
        let work = |db: Arc<db::Db>, _| async move { read::request(&db, session, request).await };
        self.shared.connections.run(work).await
    }

    async fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error> {
        let range = &range;
        let work = |db: Arc<db::Db>, _| async move { read::entries(&db, session, range).await };
        self.shared.connections.run(work).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Row>, Error> {
        let filter = &filter;
        self.shared.connections.run(|db, _| async move { read::list(&db, filter, page).await }).await
    }

    async fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error> {
        let gone = &self.shared.gone();
        let work = |db: Arc<db::Db>, _| async move { read::claimable(&db, gone, now, place, limit).await };
        self.shared.connections.run(work).await
    }

    async fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error> {
        let gone = &self.shared.gone();
        let work = |db: Arc<db::Db>, _| async move { read::next_claimable_at(&db, gone, now, place).await };
        self.shared.connections.run(work).await
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.lease)
    }

    async fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        let gone = &self.shared.gone();
        self.shared.connections.run(|db, _| async move { read::is_alive(&db, gone, worker).await }).await
    }

    async fn renew(&self, worker: WorkerId, sessions: &[SessionId]) -> Result<Vec<SessionId>, Error> {
        let lease_ms = self.lease_ms();
        let work = |db: Arc<db::Db>, _| async move { write::renew(&db, worker, sessions, lease_ms).await };
        let (lost, known) = self.shared.connections.run(work).await?;
        let info = self.shared.workers().announced.get(&worker).cloned();
        if let (false, Some(info)) = (known, info) {
            // Others took it for dead and forgot it. It lives: what it still owns is its own.
            self.shared.announce(&info, lease_ms).await?;
        }
        Ok(lost)
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<Box<dyn Announced>, Error> {
        self.shared.announce(&worker, self.lease_ms()).await?;
        let id = worker.worker;
        self.shared.workers().announced.insert(id, worker);
        Ok(Box::new(Announcement { worker: id, shared: Arc::clone(&self.shared) }))
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        let gone = &self.shared.gone();
        self.shared.connections.run(|db, _| async move { read::workers(&db, gone).await }).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.shared.listeners.subscribe()
    }

    async fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error> {
        check::payload(&bytes)?;
        let pack = move || (Digest::of(&bytes), payload::pack(bytes));
        let (digest, packed) = &self.aside(pack).await?;
        let work = |db: Arc<db::Db>, _| async move {
            db.transaction(write::put_artifact(&db, session, *digest, packed)).await
        };
        self.shared.connections.run(work).await?;
        Ok(*digest)
    }

    async fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.shared.connections.run(|db, _| async move { read::artifact(&db, digest).await }).await
    }

    async fn delete(&self, session: SessionId) -> Result<Deleted, Error> {
        let gone = &self.shared.gone();
        let work = |db: Arc<db::Db>, earlier| async move {
            db.transaction(write::delete(&db, gone, session, earlier)).await
        };
        let deleted = self.shared.connections.run(work).await?;
        if deleted == Deleted::Done {
            self.shared.listeners.forget(session);
        }
        Ok(deleted)
    }

    async fn close(&self) -> Result<(), Error> {
        let retractions = std::mem::take(&mut self.shared.workers().retractions);
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listening) = &listening {
            listening.abort();
        }
        let mut failed = false;
        for task in retractions.into_iter().chain(self.writer.stop()).chain(listening) {
            failed |= task.await.is_err_and(|error| error.is_panic());
        }
        self.shared.tell_the_rest().await;
        self.shared.connections.close().await;
        if failed {
            let detail = "a task of the store has panicked".to_owned();
            return Err(Error::Database { database: self.shared.opener.database.to_string(), detail });
        }
        Ok(())
    }
}

impl Shared {
    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> Gone {
        self.workers().gone.iter().map(|worker| read::bytes(worker.0)).collect()
    }

    async fn announce(&self, worker: &WorkerInfo, lease_ms: i64) -> Result<(), Error> {
        let gone = &self.gone();
        let work = |db: Arc<db::Db>, earlier: Earlier| async move {
            write::announce(&db, gone, worker, lease_ms, earlier.lost).await
        };
        self.connections.run(work).await
    }

    /// Removes a worker that has gone. Where that fails its lease runs out.
    async fn retract(&self, worker: WorkerId) {
        let work = |db: Arc<db::Db>, _| async move { write::retract(&db, worker).await };
        if self.connections.run(work).await.is_ok() {
            self.workers().gone.remove(&worker);
        }
    }

    /// Notifies others of what they were not told while this store listened. Where that fails they look.
    async fn tell_the_rest(&self) {
        if self.listeners.have_news() {
            let listeners = &self.listeners;
            let work = |db: Arc<db::Db>, _| async move { listen::tell_others(&db, listeners).await };
            let _ = self.connections.run(work).await;
        }
    }

    fn is_unsettled(&self, (session, hash): (SessionId, Digest)) -> bool {
        self.unsettled().get(&session) == Some(&hash)
    }

    /// Remembers what ended in doubt, and forgets what did not.
    fn settle(&self, (session, hash): (SessionId, Digest), outcome: &Result<Appended, Error>) {
        let mut unsettled = self.unsettled();
        if matches!(outcome, Err(Error::Unreachable { .. })) {
            unsettled.insert(session, hash);
        } else if unsettled.get(&session) == Some(&hash) {
            unsettled.remove(&session);
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, BTreeMap<SessionId, Digest>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's announcement.
struct Announcement {
    worker: WorkerId,
    shared: Arc<Shared>,
}

impl Announced for Announcement {}

impl Drop for Announcement {
    fn drop(&mut self) {
        // First dead to whoever asks here, then to all.
        let (worker, shared) = (self.worker, Arc::clone(&self.shared));
        let mut workers = self.shared.workers();
        workers.announced.remove(&worker);
        workers.gone.insert(worker);
        let retraction = self.shared.runtime.spawn(async move { shared.retract(worker).await });
        workers.retractions.retain(|task| !task.is_finished());
        workers.retractions.push(retraction);
    }
}
