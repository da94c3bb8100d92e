//! The tables of the simulated store. What is here is committed; no fault reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use longhaul_store::{
    Append, Appended, Deleted, Error, Filter, Hint, Page, Parent, RequestId, Row, WorkerInfo, check,
};
use tokio::sync::broadcast;

use crate::limits::{HINTS_KEPT, LEASE_MS, MAX_FORK_DEPTH};
use crate::oracle::Oracle;
use crate::plan::Flaw;
use crate::process::Process;
use crate::world::World;

const MAX_ROWS: usize = 1_000;

/// The disk that all processes share.
pub(crate) struct Disk {
    world: Arc<World>,
    tables: Mutex<Tables>,
    oracle: Option<Oracle>,
}

#[derive(Default)]
struct Tables {
    sessions: BTreeMap<SessionId, Kept>,
    artifacts: BTreeMap<Digest, Artifact>,
    workers: BTreeMap<WorkerId, Known>,
    announced_ever: BTreeSet<WorkerId>,
    listeners: Vec<(Arc<Process>, broadcast::Sender<Hint>)>,
    closed: bool,
}

struct Kept {
    row: Row,
    own: Vec<SealedEntry>,
    requests: BTreeMap<String, EntryNo>,
}

struct Artifact {
    bytes: Vec<u8>,
    users: BTreeSet<SessionId>,
}

struct Known {
    info: WorkerInfo,
    process: Arc<Process>,
    /// It said goodbye.
    ended: bool,
    /// It was found dead; it is shown again if it comes back from a long stall.
    forgotten: bool,
    lives_until: Timestamp,
}

impl Disk {
    /// Makes an empty disk; with an oracle, every commit is checked.
    pub(crate) fn new(world: Arc<World>, oracle: Option<Oracle>) -> Arc<Self> {
        Arc::new(Disk { world, tables: Mutex::default(), oracle })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a process its own ear for hints.
    pub(crate) fn listen(&self, process: &Arc<Process>) -> broadcast::Sender<Hint> {
        let (sender, _) = broadcast::channel(HINTS_KEPT);
        let mut tables = self.lock();
        tables.listeners.retain(|(process, _)| !process.is_dead());
        tables.listeners.push((Arc::clone(process), sender.clone()));
        sender
    }

    fn open(&self) -> Result<MutexGuard<'_, Tables>, Error> {
        let tables = self.lock();
        if tables.closed {
            Err(Error::Closed { database: "the simulated store".to_owned() })
        } else {
            Ok(tables)
        }
    }

    pub(crate) fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error> {
        let mut tables = self.open()?;
        if let Some(kept) = tables.sessions.get(&row.session) {
            let before = request.and_then(|request| kept.requests.get(request.as_str()).copied());
            let head = kept.row.head;
            return Ok(before.map_or(Appended::Conflict { head }, |head| Appended::Repeated { head }));
        }
        check::create(&row, &entries)?;
        let mut prefix = Vec::new();
        if let Some(Parent { session, at }) = row.parent {
            let parent = tables.session(session)?;
            if parent.row.head < at {
                return Err(invalid("the parent has fewer entries than the prefix"));
            }
            if tables.depth(session) >= MAX_FORK_DEPTH {
                return Err(invalid("forks are nested too deep"));
            }
            prefix = tables.entries(session, 1..=at)?;
        }
        tables.touch(&self.world, &row);
        let requests = request.map(|request| (request.as_str().to_owned(), row.head)).into_iter().collect();
        let session = row.session;
        tables.sessions.insert(session, Kept { row: row.clone(), own: entries.clone(), requests });
        if let Some(oracle) = &self.oracle {
            oracle.created(&self.world, &row, &prefix);
            oracle.committed(&self.world, &row, None, &entries);
        }
        self.publish(&mut tables, Hint { session, head: row.head });
        Ok(Appended::Done)
    }

    pub(crate) fn append(&self, append: Append) -> Result<Appended, Error> {
        let mut tables = self.open()?;
        let kept = tables.session(append.session)?;
        let request = append.request.as_ref().map(RequestId::as_str);
        if let Some(head) = request.and_then(|request| kept.requests.get(request)) {
            return Ok(Appended::Repeated { head: *head });
        }
        if let Some(epoch) = append.epoch
            && (kept.row.epoch != epoch || kept.row.owner.is_none())
            && self.world.flaw != Some(Flaw::NoFence)
        {
            return Ok(Appended::Fenced { epoch: kept.row.epoch });
        }
        let head = kept.row.head;
        if head != append.expected_head && self.world.flaw != Some(Flaw::NoCompareAndSwap) {
            return Ok(Appended::Conflict { head });
        }
        check::append(&append)?;
        let first_own = kept.row.parent.map_or(0, |parent| parent.at) + 1;
        if append.erase.iter().any(|n| *n < first_own) {
            return Err(invalid("an entry to erase is not the session's own"));
        }
        let Append { session, epoch, entries, row, erase, forget, request, .. } = append;
        tables.touch(&self.world, &row);
        let kept = tables.sessions.get_mut(&session).expect("it was found above");
        kept.own.retain(|entry| entry.n < entries[0].n);
        kept.own.extend(entries.iter().cloned());
        for entry in kept.own.iter_mut().filter(|entry| erase.contains(&entry.n)) {
            entry.content = None;
        }
        if let Some(request) = request {
            kept.requests.insert(request.as_str().to_owned(), row.head);
        }
        kept.row = Row { parent: kept.row.parent, created: kept.row.created, ..row };
        let row = kept.row.clone();
        for digest in forget {
            if let Some(artifact) = tables.artifacts.get_mut(&digest) {
                artifact.users.remove(&session);
            }
        }
        if let Some(oracle) = &self.oracle {
            oracle.committed(&self.world, &row, epoch, &entries);
        }
        self.publish(&mut tables, Hint { session, head: row.head });
        Ok(Appended::Done)
    }

    /// Tells every process that a session has grown: or does not, or does later, or twice.
    fn publish(&self, tables: &mut Tables, hint: Hint) {
        let (world, rates) = (&self.world, &self.world.plan.rates);
        for (process, listener) in &tables.listeners {
            if listener.receiver_count() == 0 {
                continue;
            }
            if world.happens(rates.hint_lost) {
                world.count("hint lost");
                continue;
            }
            let twice = world.happens(rates.hint_twice);
            if twice {
                world.count("hint doubled");
            }
            for _ in 0..=u64::from(twice) {
                let late = world.happens(rates.hint_late);
                if !late {
                    drop(listener.send(hint));
                    continue;
                }
                world.count("hint delayed");
                let (world, process, listener) = (Arc::clone(world), Arc::clone(process), listener.clone());
                let delay_ms = 1 + world.below(3_000);
                tokio::spawn(async move {
                    world.sleep_ms(delay_ms).await;
                    process.gate().await;
                    drop(listener.send(hint));
                });
            }
        }
    }

    pub(crate) fn load(&self, session: SessionId) -> Result<Option<Row>, Error> {
        Ok(self.open()?.sessions.get(&session).map(|kept| kept.row.clone()))
    }

    pub(crate) fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
        let tables = self.open()?;
        let kept = tables.sessions.get(&session);
        Ok(kept.and_then(|kept| kept.requests.get(request.as_str()).copied()))
    }

    pub(crate) fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error> {
        self.open()?.entries(session, range)
    }

    pub(crate) fn list(&self, filter: &Filter, page: Page) -> Result<Vec<Row>, Error> {
        let tables = self.open()?;
        let fits = |row: &&Row| {
            let prefix = filter.id_prefix.as_ref().is_none_or(|prefix| {
                let prefix = prefix.replace('-', "").to_lowercase();
                row.session.0.simple().to_string().starts_with(&prefix)
            });
            prefix
                && filter.status.as_ref().is_none_or(|status| *status == row.status)
                && filter.name.as_ref().is_none_or(|name| row.name.as_ref() == Some(name))
                && filter.archived.is_none_or(|archived| archived == row.archived)
        };
        let mut rows: Vec<&Row> = tables.sessions.values().map(|kept| &kept.row).filter(fits).collect();
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.updated, row.session)));
        let begins = |row: &&&Row| {
            page.after.is_none_or(|after| (row.updated, row.session) < (after.updated, after.session))
        };
        let limit = page.limit.min(MAX_ROWS);
        Ok(rows.iter().filter(begins).take(limit).map(|row| (*row).clone()).collect())
    }

    pub(crate) fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error> {
        let tables = self.open()?;
        let due = |row: &&Row| row.place == place && row.claimable_at.is_some_and(|at| at <= now);
        let mut rows: Vec<Row> = tables.unowned(&self.world).filter(due).cloned().collect();
        self.world.chance().shuffle(&mut rows);
        rows.truncate(limit.min(MAX_ROWS));
        Ok(rows)
    }

    pub(crate) fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error> {
        let tables = self.open()?;
        let here = tables.unowned(&self.world).filter(|row| row.place == place);
        Ok(here.filter_map(|row| row.claimable_at).filter(|at| *at > now).min())
    }

    pub(crate) fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        Ok(self.open()?.lives(&self.world, worker))
    }

    pub(crate) fn renew(&self, worker: WorkerId, held: &[SessionId]) -> Result<Vec<SessionId>, Error> {
        let mut tables = self.open()?;
        self.world.truth().renewals += 1;
        if let Some(known) = tables.workers.get_mut(&worker) {
            known.lives_until = self.world.now().plus_ms(LEASE_MS);
        }
        let owner = |session: &SessionId| tables.sessions.get(session).and_then(|kept| kept.row.owner);
        Ok(held.iter().filter(|session| owner(session) != Some(worker)).copied().collect())
    }

    pub(crate) fn announce(&self, info: WorkerInfo, process: &Arc<Process>) -> Result<(), Error> {
        let mut tables = self.open()?;
        if !tables.announced_ever.insert(info.worker) {
            return Err(Error::AlreadyAnnounced(info.worker));
        }
        let dead: Vec<WorkerId> =
            tables.workers.keys().filter(|id| !tables.lives(&self.world, **id)).copied().collect();
        for worker in dead {
            tables.workers.get_mut(&worker).expect("it was found just now").forgotten = true;
        }
        let known = Known {
            process: Arc::clone(process),
            ended: false,
            forgotten: false,
            lives_until: self.world.now().plus_ms(LEASE_MS),
            info: info.clone(),
        };
        tables.workers.insert(info.worker, known);
        Ok(())
    }

    /// A worker that ends in good order says so; a dead one cannot.
    pub(crate) fn end(&self, worker: WorkerId) {
        if let Some(known) = self.lock().workers.get_mut(&worker)
            && !known.process.is_dead()
        {
            known.ended = true;
        }
    }

    pub(crate) fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        let tables = self.open()?;
        let info = |known: &Known| {
            let worker = known.info.worker;
            let owned = tables.sessions.values().filter(|kept| kept.row.owner == Some(worker)).count();
            let running = u32::try_from(owned).unwrap_or(u32::MAX);
            WorkerInfo { running, alive: tables.lives(&self.world, worker), ..known.info.clone() }
        };
        let listed = tables.workers.values().map(|known| (info(known), known.forgotten));
        Ok(listed.filter(|(info, forgotten)| info.alive || !forgotten).map(|(info, _)| info).collect())
    }

    pub(crate) fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error> {
        check::payload(&bytes)?;
        let mut tables = self.open()?;
        tables.session(session)?;
        let digest = Digest::of(&bytes);
        let artifact = tables.artifacts.entry(digest).or_insert(Artifact { bytes, users: BTreeSet::new() });
        artifact.users.insert(session);
        Ok(digest)
    }

    pub(crate) fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let tables = self.open()?;
        let Some(artifact) = tables.artifacts.get(&digest) else { return Ok(None) };
        let used = !artifact.users.is_empty() || {
            let mut entries = tables.sessions.values().flat_map(|kept| &kept.own);
            entries.any(|entry| entry.content.as_ref() == Some(&artifact.bytes))
        };
        Ok(used.then(|| artifact.bytes.clone()))
    }

    pub(crate) fn delete(&self, session: SessionId) -> Result<Deleted, Error> {
        let mut tables = self.open()?;
        let Some(kept) = tables.sessions.get(&session) else { return Ok(Deleted::NoSuchSession) };
        let parent = |row: &Row| row.parent.is_some_and(|parent| parent.session == session);
        let fork = tables.sessions.values().find(|kept| parent(&kept.row)).map(|kept| kept.row.session);
        if let Some(fork) = fork {
            return Ok(Deleted::NeededBy { fork });
        }
        if let Some(worker) = kept.row.owner.filter(|owner| tables.lives(&self.world, *owner)) {
            return Ok(Deleted::Owned { worker });
        }
        tables.sessions.remove(&session);
        for artifact in tables.artifacts.values_mut() {
            artifact.users.remove(&session);
        }
        Ok(Deleted::Done)
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Returns all rows, by id.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.lock().sessions.values().map(|kept| kept.row.clone()).collect()
    }
}

impl Tables {
    fn session(&self, session: SessionId) -> Result<&Kept, Error> {
        self.sessions.get(&session).ok_or(Error::NoSuchSession(session))
    }

    fn depth(&self, session: SessionId) -> u32 {
        let (mut depth, mut at) = (1, session);
        while let Some(parent) = self.sessions.get(&at).and_then(|kept| kept.row.parent) {
            depth += 1;
            at = parent.session;
        }
        depth
    }

    fn entries(&self, session: SessionId, range: RangeInclusive<EntryNo>) -> Result<Vec<SealedEntry>, Error> {
        let (mut at, mut last) = (self.session(session)?, *range.end());
        let mut found = Vec::new();
        loop {
            let own = at.own.iter().rev();
            found.extend(own.filter(|entry| entry.n <= last && range.contains(&entry.n)).cloned());
            let Some(parent) = at.row.parent.filter(|parent| *range.start() <= parent.at) else { break };
            last = last.min(parent.at);
            at = self.session(parent.session)?;
        }
        found.reverse();
        Ok(found)
    }

    /// Lets whoever just acquired a session live on.
    fn touch(&mut self, world: &World, row: &Row) {
        let epoch = self.sessions.get(&row.session).map_or(0, |kept| kept.row.epoch);
        if let Some(known) = row.owner.filter(|_| row.epoch > epoch).and_then(|it| self.workers.get_mut(&it))
        {
            known.lives_until = world.now().plus_ms(LEASE_MS);
        }
    }

    /// Under leases a dead process lives until its lease is over, and a stalled one only so long.
    fn lives(&self, world: &World, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|known| {
            let held =
                if world.plan.lease { known.lives_until > world.now() } else { !known.process.is_dead() };
            held && !known.ended
        })
    }

    fn unowned(&self, world: &World) -> impl Iterator<Item = &Row> {
        let rows = self.sessions.values().map(|kept| &kept.row);
        rows.filter(|row| row.owner.is_none_or(|owner| !self.lives(world, owner)))
    }
}

fn invalid(reason: &str) -> Error {
    Error::Invalid { reason: reason.to_owned() }
}
