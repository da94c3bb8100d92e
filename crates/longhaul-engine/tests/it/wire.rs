//! The store under test, behind a wire that can be counted, broken and stalled, and may have leases.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use longhaul_store::{
    Announced, Append, Appended, Deleted, Error, Filter, Hint, Lease, Page, RequestId, Row, Store, WorkerInfo,
};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::kept::{Counts, Opened};

/// The workers of all wires that are dead by their test's time.
static DEAD: Mutex<BTreeSet<WorkerId>> = Mutex::new(BTreeSet::new());
/// How often, and after how long each, a server is asked again whether a worker is dead.
const ASKED_AGAIN: u32 = 6_000;
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(10);

pub(crate) struct Wire {
    inner: Arc<dyn Store>,
    /// Where calls run.
    runtime: Handle,
    counts: Box<dyn Fn() -> Counts + Send + Sync>,
    /// Nobody is told of what others wrote; only polling finds it.
    pub(crate) mute: AtomicBool,
    /// Nobody is told of anything but of some other session, twice a second.
    pub(crate) noisy: AtomicBool,
    /// Nothing gets through in either direction.
    pub(crate) down: AtomicBool,
    /// How often claimable sessions were looked for.
    pub(crate) looks: AtomicU64,
    leases: Mutex<Option<Leases>>,
    faults: Mutex<Faults>,
    announced: Announcements,
}

/// The store tells life by leases of 15 s, renewed every 5 s, with a margin of 3 s.
#[derive(Default)]
struct Leases {
    renewals: Vec<Vec<SessionId>>,
    fail: bool,
    hang: bool,
    lost: Option<SessionId>,
}

/// The workers announced over this wire: alive as long as they stand here.
#[derive(Clone, Default)]
struct Announcements(Arc<Mutex<Standings>>);

type Standings = Vec<(WorkerId, Box<dyn Announced>)>;

impl Announcements {
    fn end(&self) {
        for (worker, announced) in self.0.lock().unwrap().drain(..) {
            drop(announced);
            DEAD.lock().unwrap().insert(worker);
        }
    }
}

/// What a worker holds instead of its announcement.
struct Standing(Announcements);

impl Announced for Standing {}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[derive(Default)]
struct Faults {
    /// So many of the next appends fail like this.
    fail: Option<(u32, Error)>,
    /// So many of the next looks for work fail like this.
    fail_looks: Option<(u32, Error)>,
    /// Appends wait for this; if a kind is named, only those that hold such an entry.
    stall: Option<(CancellationToken, Option<&'static str>)>,
}

impl Wire {
    pub(crate) fn new(opened: Opened) -> Self {
        let Opened { store, runtime, counts } = opened;
        // A store that has leases has them here too, told by the test's clock.
        let leases = store.lease().map(|_| Leases::default());
        Wire {
            inner: store,
            runtime,
            counts,
            mute: AtomicBool::new(false),
            noisy: AtomicBool::new(false),
            down: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            leases: Mutex::new(leases),
            faults: Mutex::default(),
            announced: Announcements::default(),
        }
    }

    pub(crate) fn fail_next(&self, times: u32, error: Error) {
        self.faults.lock().unwrap().fail = Some((times, error));
    }

    pub(crate) fn fail_looks(&self, times: u32, error: Error) {
        self.faults.lock().unwrap().fail_looks = Some((times, error));
    }

    /// Stalls appends until the returned token is cancelled.
    pub(crate) fn stall(&self) -> CancellationToken {
        self.stall_appends(None)
    }

    /// Stalls appends of entries of a kind until the returned token is cancelled.
    pub(crate) fn stall_at(&self, kind: &'static str) -> CancellationToken {
        self.stall_appends(Some(kind))
    }

    fn stall_appends(&self, kind: Option<&'static str>) -> CancellationToken {
        let token = CancellationToken::new();
        self.faults.lock().unwrap().stall = Some((token.clone(), kind));
        token
    }

    /// Returns what the store has done.
    pub(crate) fn counts(&self) -> Counts {
        (self.counts)()
    }

    /// From now on there are leases.
    pub(crate) fn give_leases(&self) {
        *self.leases.lock().unwrap() = Some(Leases::default());
    }

    fn with_leases<T>(&self, change: impl FnOnce(&mut Leases) -> T) -> T {
        change(self.leases.lock().unwrap().as_mut().unwrap())
    }

    pub(crate) fn fail_renewals(&self) {
        self.with_leases(|leases| leases.fail = true);
    }

    pub(crate) fn hang_renewals(&self) {
        self.with_leases(|leases| leases.hang = true);
    }

    /// Says at the next renewal that a session is lost.
    pub(crate) fn lose(&self, session: SessionId) {
        self.with_leases(|leases| leases.lost = Some(session));
    }

    /// Returns the sessions of each renewal that was asked for.
    pub(crate) fn renewals(&self) -> Vec<Vec<SessionId>> {
        self.with_leases(|leases| leases.renewals.clone())
    }

    fn up(&self) -> Result<(), Error> {
        if self.down.load(Ordering::SeqCst) { Err(busy()) } else { Ok(()) }
    }

    /// Makes the workers of this wire dead for all others, whatever they still do.
    pub(crate) fn declare_dead(&self) {
        self.announced.end();
    }

    fn fault(&self, which: impl Fn(&mut Faults) -> &mut Option<(u32, Error)>) -> Result<(), Error> {
        let mut faults = self.faults.lock().unwrap();
        let Some((left, error)) = which(&mut faults) else { return Ok(()) };
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(error.clone())
    }

    /// Waits on a thread that may block: paused time stands still for it, as it does not for a thread or a
    /// socket of the store's own.
    async fn steady<T: Send + 'static, F: Future<Output = T>>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> F + Send + 'static,
    ) -> T {
        let (inner, runtime) = (Arc::clone(&self.inner), self.runtime.clone());
        let wait = move || runtime.block_on(call(inner));
        tokio::task::spawn_blocking(wait).await.unwrap()
    }
}

pub(crate) fn busy() -> Error {
    Error::Busy { database: "the test's".to_owned(), waited_ms: 5_000 }
}

pub(crate) fn broken() -> Error {
    Error::Io {
        database: "the test's".to_owned(),
        doing: "writing".to_owned(),
        detail: "no such luck".to_owned(),
    }
}

#[async_trait]
impl Store for Wire {
    async fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error> {
        self.steady(move |inner| async move { inner.create(row, entries, request).await }).await
    }

    async fn load(&self, session: SessionId) -> Result<Option<Row>, Error> {
        self.up()?;
        self.steady(move |inner| async move { inner.load(session).await }).await
    }

    async fn append(&self, append: Append) -> Result<Appended, Error> {
        let stall = self.faults.lock().unwrap().stall.clone();
        let is = |kind| append.entries.iter().any(|entry| entry.kind == kind);
        if let Some((stall, _)) = stall.filter(|(_, kind)| kind.is_none_or(is)) {
            stall.cancelled().await;
        }
        self.up()?;
        self.fault(|faults| &mut faults.fail)?;
        self.steady(move |inner| async move { inner.append(append).await }).await
    }

    async fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
        let request = request.clone();
        self.steady(move |inner| async move { inner.request(session, &request).await }).await
    }

    async fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error> {
        self.up()?;
        self.steady(move |inner| async move { inner.entries(session, range).await }).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Row>, Error> {
        self.steady(move |inner| async move { inner.list(filter, page).await }).await
    }

    async fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.up()?;
        self.fault(|faults| &mut faults.fail_looks)?;
        let place = place.to_owned();
        self.steady(move |inner| async move { inner.claimable(now, &place, limit).await }).await
    }

    async fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error> {
        self.up()?;
        let place = place.to_owned();
        self.steady(move |inner| async move { inner.next_claimable_at(now, &place).await }).await
    }

    fn lease(&self) -> Option<Lease> {
        let leases = self.leases.lock().unwrap();
        leases.as_ref().map(|_| Lease { lasts_ms: 15_000, renew_every_ms: 5_000, margin_ms: 3_000 })
    }

    #[expect(clippy::disallowed_methods, reason = "a wait in real time, on a thread that may block")]
    async fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        self.up()?;
        let dead = DEAD.lock().unwrap().contains(&worker);
        // A server hears of a death in its own time, which is none of the test's.
        let ask = move |inner: Arc<dyn Store>| async move {
            for _ in 0..ASKED_AGAIN {
                let alive = inner.owner_is_alive(worker).await;
                if !(dead && alive == Ok(true)) {
                    return alive;
                }
                std::thread::sleep(ASKED_AGAIN_AFTER);
            }
            panic!(
                "the store still thinks that a worker is alive, {ASKED_AGAIN_AFTER:?} times {ASKED_AGAIN} later"
            );
        };
        self.steady(ask).await
    }

    async fn renew(&self, worker: WorkerId, sessions: &[SessionId]) -> Result<Vec<SessionId>, Error> {
        let (fail, hang, lost) = self.with_leases(|leases| {
            leases.renewals.push(sessions.to_vec());
            (leases.fail, leases.hang, leases.lost.take_if(|lost| sessions.contains(lost)))
        });
        if hang {
            std::future::pending::<()>().await;
        }
        if fail {
            return Err(busy());
        }
        self.up()?;
        let sessions = sessions.to_vec();
        let mut found = self.steady(move |inner| async move { inner.renew(worker, &sessions).await }).await?;
        found.extend(lost);
        Ok(found)
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<Box<dyn Announced>, Error> {
        let id = worker.worker;
        let announced = self.steady(move |inner| async move { inner.announce(worker).await }).await?;
        self.announced.0.lock().unwrap().push((id, announced));
        Ok(Box::new(Standing(self.announced.clone())))
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        self.steady(move |inner| async move { inner.workers().await }).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        if self.noisy.load(Ordering::Relaxed) {
            let (sender, receiver) = broadcast::channel(16);
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(500));
                let other = Hint { session: SessionId(uuid::Uuid::nil()), head: 1 };
                while sender.send(other).is_ok() {
                    ticks.tick().await;
                }
            });
            return receiver;
        }
        if self.mute.load(Ordering::Relaxed) {
            let (sender, receiver) = broadcast::channel(1);
            // Kept open for ever: a closed channel would be noticed.
            std::mem::forget(sender);
            return receiver;
        }
        self.inner.hints()
    }

    async fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error> {
        self.steady(move |inner| async move { inner.put_artifact(session, bytes).await }).await
    }

    async fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.steady(move |inner| async move { inner.artifact(digest).await }).await
    }

    async fn delete(&self, session: SessionId) -> Result<Deleted, Error> {
        self.steady(move |inner| async move { inner.delete(session).await }).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.steady(move |inner| async move { inner.close().await }).await
    }
}
