//! Workers: the right of a process to run sessions, and how one session is driven. Which sessions a worker
//! drives by itself is left to `service`.
//!
//! A runner is one task, and an epoch belongs to one runner: whatever ends it, the next one acquires the
//! session again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_session::command::Command;
use longhaul_session::failure::Failure;
use longhaul_session::id::{SessionId, Timestamp, WorkerId};
use longhaul_session::state::{SessionState, Status};
use longhaul_store::{Announced, Row, WorkerInfo};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::engine::{Engine, Snapshot};
use crate::journal::{Committed, Journal, Patience, patiently};
use crate::lease::{Leases, Tenure};
use crate::limits::POLL_MS;
use crate::loss;
use crate::runner::Runner;
use crate::stop::{Grace, Stop};

/// A process's right to run sessions, alive until the last clone of it is dropped.
#[derive(Clone)]
pub struct Worker {
    pub(crate) engine: Engine,
    id: WorkerId,
    pub(crate) place: String,
    pub(crate) stop: Stop,
    running: Arc<Mutex<HashSet<SessionId>>>,
    pub(crate) claimed: Arc<Mutex<HashSet<SessionId>>>,
    life: Arc<Life>,
}

/// What ends when the last clone of a worker and its last runner have ended.
struct Life {
    leases: Option<Arc<Leases>>,
    /// Held for its end: first no renewal any more, then dead.
    _keeper: Option<AbortOnDropHandle<()>>,
    _announced: Box<dyn Announced>,
}

/// Why a worker no longer drives a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Driven {
    /// It waits for a message or a goal.
    Waiting,
    /// It waits for a person or a caller.
    RequiresAction,
    /// It failed.
    Failed(Failure),
    /// A live worker has it.
    OwnedBy(WorkerId),
    /// This worker was told to stop; the session was given back and goes on where it is resumed.
    Stopped,
}

impl Worker {
    /// Announces a worker.
    ///
    /// # Errors
    /// The store failed.
    pub async fn start(engine: Engine, info: WorkerInfo, shutdown: CancellationToken) -> Result<Self, Error> {
        let (id, place) = (info.worker, info.place.clone());
        let announced = engine.store.announce(info).await?;
        let lease = engine.store.lease();
        let leases = lease.map(|terms| {
            Arc::new(Leases::new(Arc::clone(&engine.store), Arc::clone(&engine.host), id, terms))
        });
        let keeper = leases.clone().map(|leases| {
            // A task of its own: whatever runners do, and while they end, it renews.
            AbortOnDropHandle::new(tokio::spawn(async move { leases.keep().await }))
        });
        let life = Arc::new(Life { leases, _keeper: keeper, _announced: announced });
        let stop = Stop { told: shutdown, ..Stop::default() };
        let (running, claimed) = Default::default();
        Ok(Worker { engine, id, place, stop, running, claimed, life })
    }

    /// Lets effects under way go on for a while when the worker is told to stop, until `at_once` is cancelled.
    #[must_use]
    pub fn with_grace(mut self, grace: Grace, at_once: CancellationToken) -> Self {
        self.stop = Stop { grace, at_once, ..self.stop };
        self
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Drives one session until it rests, a live worker has it, or this worker is told to stop. Dropping
    /// the future ends the runner as a crash would.
    ///
    /// # Errors
    /// The store failed. The session is as it was at its newest entry.
    pub async fn drive(&self, session: SessionId) -> Result<Driven, Error> {
        self.drive_telling(session, || {}).await
    }

    /// Drives a session, and tells each time it has acquired it.
    pub(crate) async fn drive_telling(
        &self,
        session: SessionId,
        acquired: impl Fn(),
    ) -> Result<Driven, Error> {
        self.engine.episodes.forget_old(self.engine.host.monotonic_ms());
        loop {
            let snapshot = self.snapshot(session).await?;
            if let Some(driven) = at_rest(&snapshot.state, self.engine.host.now()) {
                return Ok(driven);
            }
            if self.stop.is_told() {
                return Ok(Driven::Stopped);
            }
            if let Some(owner) = snapshot.row.owner
                && self.lives(owner, session).await?
            {
                return Ok(Driven::OwnedBy(owner));
            }
            let wait_ms = snapshot.state.claimable_at().map_or(0, |at| at.since_ms(self.engine.host.now()));
            if wait_ms > 0 {
                self.sleep(wait_ms.min(POLL_MS)).await;
                continue;
            }
            let Some(running) = Held::begin(&self.running, session) else {
                return Ok(Driven::OwnedBy(self.id));
            };
            // Boxed: this future waits for as long as the session is driven.
            let Some(mut runner) = Box::pin(self.claim(snapshot.row)).await? else {
                continue;
            };
            acquired();
            // A task of its own: its panic ends its epoch, and counts as a crash when it is taken over.
            // As long as it lives, so does this worker.
            let alive = (running, Arc::clone(&self.life));
            let run = async move {
                let ended = runner.run().await;
                drop((runner, alive));
                ended
            };
            match AbortOnDropHandle::new(tokio::spawn(run)).await {
                Ok(ended) => drop(ended?),
                Err(broken) => tracing::error!(%session, %broken, "a runner broke down"),
            }
        }
    }

    /// Tells whether an owner's runner may be alive. Of its own runners a worker knows it.
    async fn lives(&self, owner: WorkerId, session: SessionId) -> Result<bool, Error> {
        if owner == self.id {
            return Ok(self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(&session));
        }
        let store = &self.engine.store;
        Ok(patiently(&*self.engine.host, &self.patience(), || store.owner_is_alive(owner)).await?)
    }

    async fn snapshot(&self, session: SessionId) -> Result<Snapshot, Error> {
        let store = &self.engine.store;
        let row = patiently(&*self.engine.host, &self.patience(), || store.load(session)).await?;
        Snapshot::of_row(row.ok_or(longhaul_store::Error::NoSuchSession(session))?)
    }

    /// A worker waits for its store as long as it is to work.
    pub(crate) fn patience(&self) -> Patience {
        let tenure = Tenure::endless(Arc::clone(&self.engine.host));
        Patience::Worker { stop: self.stop.clone(), tenure }
    }

    /// Acquires a session whose owner, if it has one, is dead. `None`: another was faster.
    async fn claim(&self, row: Row) -> Result<Option<Runner>, Error> {
        let (engine, session, lost) = (&self.engine, row.session, row.owner.is_some());
        let hints = engine.store.hints();
        let mut journal = Journal::of_row(engine.store.clone(), engine.host.clone(), row)?;
        journal.patience = self.patience();
        journal.context().await?;
        let head = journal.state.head;
        let make = |journal: &Journal| {
            let owner = journal.state.owner.filter(|_| lost && journal.state.head == head);
            let estimate = loss::estimate(journal, engine.host.now());
            Ok(Command::Acquire { worker: self.id, lost: owner, estimate })
        };
        let sent_ms = engine.host.monotonic_ms();
        match journal.command(make, None).await? {
            Committed::Done(_) => {
                let tenure = match &self.life.leases {
                    Some(leases) => leases.begin(session, sent_ms),
                    None => Tenure::endless(Arc::clone(&engine.host)),
                };
                Ok(Some(Runner::new(engine.clone(), journal, hints, self.stop.clone(), tenure)))
            }
            Committed::Repeated(_) | Committed::Refused(_) => Ok(None),
        }
    }

    pub(crate) async fn sleep(&self, delay_ms: u64) {
        tokio::select! {
            biased;
            () = self.stop.told.cancelled() => {}
            () = self.engine.host.sleep_ms(delay_ms) => {}
        }
    }
}

/// Marks a session as one this worker runs, or has claimed, as long as it lives.
pub(crate) struct Held {
    sessions: Arc<Mutex<HashSet<SessionId>>>,
    pub(crate) session: SessionId,
}

impl Held {
    /// Begins, unless it is marked already.
    pub(crate) fn begin(sessions: &Arc<Mutex<HashSet<SessionId>>>, session: SessionId) -> Option<Self> {
        let new = sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(session);
        new.then(|| Held { sessions: Arc::clone(sessions), session })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

/// Returns what a session that needs no runner now is.
fn at_rest(state: &SessionState, now: Timestamp) -> Option<Driven> {
    match state.status {
        Status::Waiting => Some(Driven::Waiting),
        Status::Failed => {
            let unknown = || Failure {
                class: longhaul_session::failure::FailureClass::Unknown,
                message: "the reason was not kept".to_owned(),
            };
            Some(Driven::Failed(state.last_error.clone().unwrap_or_else(unknown)))
        }
        Status::RequiresAction if state.claimable_at().is_none_or(|at| at > now) => {
            Some(Driven::RequiresAction)
        }
        Status::RequiresAction | Status::Running | Status::Interrupting => None,
    }
}
