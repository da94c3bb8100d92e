//! A process's connection to the simulated store: it takes time, fails, and loses answers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use longhaul_session::entry::Record;
use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::{SealedEntry, chain};
use longhaul_store::{
    Announced, Append, Appended, Deleted, Error, Filter, Hint, Lease, Page, RequestId, Row, Store, WorkerInfo,
};
use tokio::sync::broadcast;

use crate::chance::Chance;
use crate::limits::{LEASE_MS, MARGIN_MS, RENEW_EVERY_MS};
use crate::plan::{Plan, Rates};
use crate::process::Process;
use crate::store::Disk;
use crate::world::World;

/// A process's connection to the simulated store.
pub struct SimStore {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
    pub(crate) disk: Arc<Disk>,
    hints: broadcast::Sender<Hint>,
}

/// What becomes of a write.
enum Fate {
    Done,
    /// Reported as failed, and not done.
    Failed,
    /// Reported as failed, and done.
    Unknown,
    /// Reported as failed, and done later.
    Late,
}

impl SimStore {
    pub(crate) fn connect(world: &Arc<World>, disk: &Arc<Disk>, process: &Arc<Process>) -> Arc<Self> {
        Arc::new(SimStore {
            world: Arc::clone(world),
            process: Arc::clone(process),
            disk: Arc::clone(disk),
            hints: disk.listen(process),
        })
    }

    /// Makes an empty store of its own to which nothing happens, with owners that live by leases or not.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn undisturbed(lease: bool) -> Arc<Self> {
        let mut chance = Chance::new(1);
        let plan = Plan { lease, latency_ms: 0, rates: Rates::default(), ..Plan::draw(&mut chance) };
        let world = Arc::new(World::new(plan, chance, None));
        let disk = Disk::new(Arc::clone(&world), None);
        SimStore::connect(&world, &disk, &Process::new("test".to_owned(), None, 0))
    }

    /// Lets a call take its time.
    async fn travel(&self) {
        self.process.gate().await;
        self.world.step().await;
        let longest_ms = if self.world.is_calm() { 2 } else { self.world.plan.latency_ms };
        if longest_ms > 0 {
            let taken_ms = self.world.below(longest_ms + 1);
            self.world.sleep_ms(taken_ms).await;
        }
        self.process.gate().await;
    }

    async fn read<T>(&self, read: impl FnOnce(&Disk) -> Result<T, Error>) -> Result<T, Error> {
        self.travel().await;
        self.busy()?;
        let found = read(&self.disk);
        self.travel().await;
        found
    }

    fn busy(&self) -> Result<(), Error> {
        if !self.world.strikes(|rates| rates.busy) {
            return Ok(());
        }
        self.world.fault(&self.process.name, "store busy");
        if let Some(task) = tokio::task::try_id() {
            let mut truth = self.world.truth();
            let times = truth.busy.entry(task).or_default();
            *times += 1;
            if *times >= 5 {
                truth.failed.insert(task);
            }
        }
        Err(Error::Busy { database: "the simulated store".to_owned(), waited_ms: 1 })
    }

    fn fate(&self) -> Fate {
        let world = &self.world;
        if world.strikes(|rates| rates.failed) {
            world.fault(&self.process.name, "sync failed");
            Fate::Failed
        } else if world.strikes(|rates| rates.unknown) {
            world.fault(&self.process.name, "outcome unknown, written");
            Fate::Unknown
        } else if world.strikes(|rates| rates.late) {
            world.fault(&self.process.name, "outcome unknown, written later");
            Fate::Late
        } else {
            Fate::Done
        }
    }

    fn failed<T>(&self) -> Result<T, Error> {
        if let Some(task) = tokio::task::try_id() {
            self.world.truth().failed.insert(task);
        }
        Err(Error::Io {
            database: "the simulated store".to_owned(),
            doing: "a write".to_owned(),
            detail: "simulated".to_owned(),
        })
    }

    /// A worker dies here, or a caller never hears again.
    async fn crash(&self, when: &'static str) {
        self.world.fault(&self.process.name, when);
        if self.process.worker.is_some() {
            self.process.kill();
        }
        std::future::pending().await
    }

    async fn write(
        &self,
        write: impl Fn(&Disk) -> Result<Appended, Error> + Send + 'static,
    ) -> Result<Appended, Error> {
        self.travel().await;
        if self.world.strikes(|rates| rates.crash_before) {
            self.crash("crash before an append").await;
        }
        self.busy()?;
        let written = match self.fate() {
            Fate::Done => write(&self.disk),
            Fate::Failed => self.failed(),
            Fate::Unknown => {
                drop(write(&self.disk));
                self.failed()
            }
            Fate::Late => {
                let (world, disk) = (Arc::clone(&self.world), Arc::clone(&self.disk));
                let delay_ms = 1 + world.below(4_000);
                tokio::spawn(async move {
                    world.sleep_ms(delay_ms).await;
                    drop(write(&disk));
                });
                self.failed()
            }
        };
        if matches!(written, Ok(Appended::Done)) && self.world.strikes(|rates| rates.crash_after) {
            self.crash("crash after an append").await;
        }
        self.travel().await;
        written
    }

    /// Tries what no writer should: the append of an old epoch, made anew on the newest head.
    fn probe(&self, append: &Append) {
        let Ok(Some(row)) = self.disk.load(append.session) else { return };
        if append.epoch.is_none_or(|epoch| epoch == row.epoch) {
            return;
        }
        let (mut n, mut hash) = (row.head, row.head_hash);
        let mut entries = append.entries.clone();
        for entry in &mut entries {
            n += 1;
            let Ok(record) = serde_json::from_slice::<Record>(&entry.record) else { return };
            entry.record =
                serde_json::to_vec(&Record { n, ..record }).expect("a record has only string keys");
            hash = chain(hash, &entry.record);
            (entry.n, entry.hash) = (n, hash);
        }
        let row = Row { head: n, head_hash: hash, ..append.row.clone() };
        let append =
            Append { expected_head: n - entries.len() as u64, entries, row, request: None, ..append.clone() };
        self.world.count("old epoch at the newest head");
        let answer = self.disk.append(append);
        let fenced = matches!(answer, Ok(Appended::Fenced { .. }));
        self.world.hold(fenced, "Fence", || format!("an append of an old epoch was answered {answer:?}"));
    }
}

#[async_trait]
impl Store for SimStore {
    async fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error> {
        self.write(move |disk| disk.create(row.clone(), entries.clone(), request.clone())).await
    }

    async fn load(&self, session: SessionId) -> Result<Option<Row>, Error> {
        self.read(|disk| disk.load(session)).await
    }

    async fn append(&self, append: Append) -> Result<Appended, Error> {
        if let (Some(task), Some(epoch)) = (tokio::task::try_id(), append.epoch) {
            self.world.truth().runners.insert(task, (append.session, epoch));
        }
        let (name, same) = (self.process.name.clone(), append.clone());
        let world = Arc::clone(&self.world);
        let appended = self
            .write(move |disk| {
                let answer = disk.append(same.clone());
                let kinds: Vec<&str> = same.entries.iter().map(|entry| entry.kind.as_str()).collect();
                let (session, epoch, head) = (same.session, same.epoch, same.expected_head);
                world.note(
                    &name,
                    format_args!(
                        "{} +{head} {} epoch {epoch:?}: {answer:?}",
                        short(session),
                        kinds.join(" ")
                    ),
                );
                answer
            })
            .await?;
        if matches!(appended, Appended::Fenced { .. } | Appended::Conflict { .. }) {
            self.probe(&append);
        }
        match appended {
            Appended::Fenced { .. } => self.world.count("append fenced"),
            Appended::Conflict { .. } => self.world.count("append conflicted"),
            Appended::Repeated { .. } => self.world.count("append repeated"),
            Appended::Done => {}
        }
        Ok(appended)
    }

    async fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
        self.read(|disk| disk.request(session, request)).await
    }

    async fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error> {
        self.read(|disk| disk.entries(session, range)).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Row>, Error> {
        self.read(|disk| disk.list(&filter, page)).await
    }

    async fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error> {
        self.read(|disk| disk.claimable(now, place, limit)).await
    }

    async fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error> {
        self.read(|disk| disk.next_claimable_at(now, place)).await
    }

    fn lease(&self) -> Option<Lease> {
        let lease = Lease { lasts_ms: LEASE_MS, renew_every_ms: RENEW_EVERY_MS, margin_ms: MARGIN_MS };
        self.world.plan.lease.then_some(lease)
    }

    async fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        self.read(|disk| disk.owner_is_alive(worker)).await
    }

    async fn renew(&self, worker: WorkerId, sessions: &[SessionId]) -> Result<Vec<SessionId>, Error> {
        self.read(|disk| disk.renew(worker, sessions)).await
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<Box<dyn Announced>, Error> {
        let id = worker.worker;
        self.read(|disk| disk.announce(worker, &self.process)).await?;
        Ok(Box::new(Announcement { disk: Arc::clone(&self.disk), worker: id }))
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        self.read(Disk::workers).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    async fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error> {
        self.read(|disk| disk.put_artifact(session, bytes)).await
    }

    async fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.read(|disk| disk.artifact(digest)).await
    }

    async fn delete(&self, session: SessionId) -> Result<Deleted, Error> {
        self.read(|disk| disk.delete(session)).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.disk.close();
        Ok(())
    }
}

/// An announcement that ends when it is dropped by a process that lives.
struct Announcement {
    disk: Arc<Disk>,
    worker: WorkerId,
}

impl Announced for Announcement {}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.disk.end(self.worker);
    }
}

/// Names a session in the log by the number it was made with.
pub(crate) fn short(session: SessionId) -> String {
    format!("s{}", session.0.as_u128() >> 64)
}
