//! A store in one file of SQLite, which several processes may use at once.
//!
//! `connect` opens and migrates, `writer` commits writes together, `readers` read beside it,
//! `watch` notices other processes, `presence` knows which workers live. What is said to the
//! database stands in `read` and `write`, and runs through `db`.

mod connect;
mod db;
mod presence;
mod read;
mod readers;
mod watch;
mod write;
mod writer;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use tokio::sync::broadcast;

use self::connect::Opener;
pub use self::db::Counters;
use self::db::{Db, Tally};
use self::presence::{Lock, Presence};
use self::readers::Readers;
use self::watch::Watch;
use self::writer::{Listeners, WeakWriter, Writer};
use crate::limits::HINTS_KEPT;
use crate::payload::PackedEntry;
use crate::{
    Announced, Append, Appended, Deleted, Error, Filter, Hint, Lease, Page, RequestId, Row, Store,
    WorkerInfo, check, payload,
};

/// How a database is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The database may not grow beyond this many pages of 4 KiB; `None`: as the disk allows.
    pub max_pages: Option<u32>,
}

/// A store in one file of SQLite, or in memory.
///
/// A commit is on disk when its call returns. The file needs a local disk: on a network
/// filesystem neither write-ahead logging nor the locks that tell living workers can be relied on.
pub struct SqliteStore {
    database: Arc<str>,
    tally: Arc<Tally>,
    writer: Writer,
    readers: Readers,
    presence: Arc<Presence>,
    listeners: Listeners,
    /// None in memory: there are no other processes.
    watch: Option<Watch>,
}

impl SqliteStore {
    /// Opens the database at a path. Creates the file if there is none, not its directory.
    ///
    /// # Errors
    /// When the file cannot be opened for writing, is damaged, belongs to another program, or was
    /// written by a newer version of this one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Options::default())
    }

    /// Opens the database at a path, with options.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let database: Arc<str> = path.display().to_string().into();
        let failed = |doing: &str, error: &std::io::Error| io(&database, doing, error);
        let tally = Arc::<Tally>::default();
        let mut opener = Opener {
            path: std::path::absolute(path).map_err(|error| failed("finding the file", &error))?,
            database: Arc::clone(&database),
            tally: Arc::clone(&tally),
            max_pages: options.max_pages,
        };
        let db = Arc::new(Mutex::new(opener.writer()?));
        // The lock files stand beside the file itself, by whatever name or link a process knows
        // it: else two processes would take each other's workers for dead.
        opener.path =
            std::fs::canonicalize(&opener.path).map_err(|error| failed("finding the file", &error))?;
        let mut workers = opener.path.clone().into_os_string();
        workers.push(".workers");
        let presence = Presence::of_files(Arc::clone(&database), workers.into());
        let readers = Readers::of_file(opener.clone());
        Self::start(database, tally, db, presence, readers, Some(opener))
    }

    /// Opens a new database that lives in this value only.
    ///
    /// # Errors
    /// When there is no memory or thread for it.
    pub fn in_memory() -> Result<Self, Error> {
        let database: Arc<str> = "the database in memory".into();
        let tally = Arc::<Tally>::default();
        let db = Arc::new(Mutex::new(connect::in_memory(&database, &tally)?));
        let presence = Presence::of_process(Arc::clone(&database));
        let readers = Readers::sharing(Arc::clone(&database), Arc::clone(&db));
        Self::start(database, tally, db, presence, readers, None)
    }

    /// Returns what the store has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.counters()
    }

    fn start(
        database: Arc<str>,
        tally: Arc<Tally>,
        db: Arc<Mutex<Db>>,
        presence: Presence,
        readers: Readers,
        watched: Option<Opener>,
    ) -> Result<Self, Error> {
        let told = Arc::new(watch::newest(&db)?.into());
        let listeners = Listeners { hints: broadcast::Sender::new(HINTS_KEPT), told };
        let failed = |error: std::io::Error| io(&database, "starting a thread", &error);
        let writer = Writer::start(Arc::clone(&database), db, listeners.clone()).map_err(failed)?;
        let presence = Arc::new(presence);
        let watch = |opener| Watch::start(opener, Arc::clone(&presence), listeners.clone());
        let watch = watched.map(watch).transpose().map_err(failed)?;
        Ok(SqliteStore { database, tally, writer, readers, presence, listeners, watch })
    }

    /// Runs work that may block or takes long on a thread for it.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let closed = |_| Error::Closed { database: self.database.to_string() };
        tokio::task::spawn_blocking(work).await.map_err(closed)
    }

    async fn pack(&self, entries: Vec<SealedEntry>) -> Result<Vec<PackedEntry>, Error> {
        let slow = payload::is_slow(&entries);
        let pack = || entries.into_iter().map(payload::pack_entry).collect();
        if slow { self.aside(pack).await } else { Ok(pack()) }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error> {
        check::create(&row, &entries)?;
        let entries = self.pack(entries).await?;
        let create =
            move |db: &Db, changes: &mut _| write::create(db, changes, &row, &entries, request.as_ref());
        self.writer.run(create).await
    }

    async fn load(&self, session: SessionId) -> Result<Option<Row>, Error> {
        self.readers.run(move |db| read::load(db, session)).await
    }

    async fn append(&self, mut append: Append) -> Result<Appended, Error> {
        check::append(&append)?;
        let entries = self.pack(std::mem::take(&mut append.entries)).await?;
        self.writer.run(move |db, changes| write::append(db, changes, &append, &entries)).await
    }

    async fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
        let request = request.clone();
        self.readers.run(move |db| read::request(db, session, &request)).await
    }

    async fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error> {
        self.readers.run(move |db| read::entries(db, session, &range)).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Row>, Error> {
        self.readers.run(move |db| read::list(db, &filter, page)).await
    }

    async fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error> {
        let (presence, place) = (Arc::clone(&self.presence), place.to_owned());
        self.readers.run(move |db| read::claimable(db, &presence, now, &place, limit)).await
    }

    async fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error> {
        let (presence, place) = (Arc::clone(&self.presence), place.to_owned());
        self.readers.run(move |db| read::next_claimable_at(db, &presence, now, &place)).await
    }

    fn lease(&self) -> Option<Lease> {
        None
    }

    async fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        let presence = Arc::clone(&self.presence);
        self.aside(move || presence.is_alive(worker)).await?
    }

    async fn renew(&self, worker: WorkerId, sessions: &[SessionId]) -> Result<Vec<SessionId>, Error> {
        // The worker's lock is its lease: there is nothing to renew, only to look.
        let sessions = sessions.to_vec();
        self.readers.run(move |db| read::not_owned(db, worker, sessions)).await
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<Box<dyn Announced>, Error> {
        let (presence, id) = (Arc::clone(&self.presence), worker.worker);
        let lock = self.aside(move || presence.lock(id)).await??;
        let presence = Arc::clone(&self.presence);
        self.writer.run(move |db, _| write::announce(db, &presence, &worker)).await?;
        Ok(Box::new(Announcement { worker: id, lock: Some(lock), writer: self.writer.downgrade() }))
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        let presence = Arc::clone(&self.presence);
        self.readers.run(move |db| read::workers(db, &presence)).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        let hints = self.listeners.hints.subscribe();
        if let Some(watch) = &self.watch {
            watch.wake();
        }
        hints
    }

    async fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error> {
        check::payload(&bytes)?;
        let pack = move || (Digest::of(&bytes), payload::pack(bytes));
        let (digest, packed) = self.aside(pack).await?;
        let put = move |db: &Db, _: &mut _| write::put_artifact(db, session, digest, &packed);
        self.writer.run(put).await?;
        Ok(digest)
    }

    async fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.readers.run(move |db| read::artifact(db, digest)).await
    }

    async fn delete(&self, session: SessionId) -> Result<Deleted, Error> {
        let presence = Arc::clone(&self.presence);
        self.writer.run(move |db, _| write::delete(db, &presence, session)).await
    }

    async fn close(&self) -> Result<(), Error> {
        // The writer last: the last connection to close tidies the write-ahead log away.
        self.readers.close().await;
        let watch = self.watch.as_ref().and_then(Watch::stop);
        let threads = [watch, self.writer.stop()];
        let wait = || threads.into_iter().flatten().try_for_each(std::thread::JoinHandle::join);
        let ended = self.aside(wait).await?;
        ended.map_err(|_| Error::Database {
            database: self.database.to_string(),
            detail: "a thread of the store has panicked".to_owned(),
        })
    }
}

/// A worker's announcement: its lock and its row.
struct Announcement {
    worker: WorkerId,
    lock: Option<Lock>,
    writer: Option<WeakWriter>,
}

impl Announced for Announcement {}

impl Drop for Announcement {
    fn drop(&mut self) {
        // First dead, then forgotten: the row of a dead worker does no harm.
        drop(self.lock.take());
        if let Some(writer) = &self.writer {
            let worker = self.worker;
            writer.try_run(move |db, _| Ok(write::retract(db, worker)?));
        }
    }
}

fn io(database: &str, doing: &str, error: &std::io::Error) -> Error {
    let (database, detail) = (database.to_owned(), error.to_string());
    Error::Io { database, doing: doing.to_owned(), detail }
}
