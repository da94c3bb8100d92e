//! Workers: they claim sessions and start a runner for each.
//!
//! A runner is one task, and an epoch belongs to one runner: whatever ends it, the next one acquires the
//! session again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_session::command::Command;
use longhaul_session::failure::Failure;
use longhaul_session::id::{SessionId, Timestamp, WorkerId};
use longhaul_session::state::{SessionState, Status};
use longhaul_session::usage::Usage;
use longhaul_store::{Announced, Row, WorkerInfo};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::engine::Engine;
use crate::journal::{Committed, Journal, patiently};
use crate::limits::{CLAIM_BATCH, LONGEST_PAUSE_MS, POLL_MS};
use crate::runner::Runner;

/// A process's right to run sessions, alive until the last clone of it is dropped.
#[derive(Clone)]
pub struct Worker {
    engine: Engine,
    id: WorkerId,
    place: String,
    shutdown: CancellationToken,
    running: Arc<Mutex<HashSet<SessionId>>>,
    claimed: Arc<Mutex<HashSet<SessionId>>>,
    announced: Arc<dyn Announced>,
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
        let announced = Arc::from(engine.store.announce(info).await?);
        let (running, claimed) = Default::default();
        Ok(Worker { engine, id, place, shutdown, running, claimed, announced })
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
        self.engine.episodes.forget_old(self.engine.host.monotonic_ms());
        loop {
            let snapshot = self.engine.snapshot(session).await?;
            if let Some(driven) = at_rest(&snapshot.state, self.engine.host.now()) {
                return Ok(driven);
            }
            if self.shutdown.is_cancelled() {
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
            let claim = Box::pin(claim(&self.engine, self.id, snapshot.row, &self.shutdown));
            let Some(mut runner) = claim.await? else {
                continue;
            };
            // A task of its own: its panic ends its epoch, and counts as a crash when it is taken over.
            // As long as it lives, so does this worker.
            let alive = (running, Arc::clone(&self.announced));
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
        Ok(patiently(&*self.engine.host, || store.owner_is_alive(owner)).await?)
    }

    /// Claims and runs sessions, `capacity` at a time, until it is told to stop; then gives them back.
    ///
    /// # Errors
    /// The store failed to say what may be claimed.
    pub async fn run(&self, capacity: usize) -> Result<(), Error> {
        let mut runners = JoinSet::new();
        let mut hints = self.engine.store.hints();
        while !self.shutdown.is_cancelled() {
            let room = capacity.saturating_sub(runners.len()).min(CLAIM_BATCH);
            let (host, store, place) = (&*self.engine.host, &self.engine.store, self.place.as_str());
            let now = host.now();
            if room > 0 {
                for row in patiently(host, || store.claimable(now, place, room)).await? {
                    if let Some(claimed) = Held::begin(&self.claimed, row.session) {
                        runners.spawn(self.clone().keep_driving(claimed));
                    }
                }
            }
            let next = patiently(host, || store.next_claimable_at(now, place)).await?;
            let wait_ms = next.map_or(POLL_MS, |at| at.since_ms(now).clamp(1, POLL_MS));
            tokio::select! {
                _ = hints.recv(), if runners.len() < capacity => {}
                Some(_) = runners.join_next() => {}
                () = self.engine.host.sleep_ms(wait_ms) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        while runners.join_next().await.is_some() {}
        Ok(())
    }

    /// Drives a session, and after an error again and again, ever more rarely: an error says nothing about
    /// the session, which nobody else can claim while this worker owns it.
    async fn keep_driving(self, claimed: Held) {
        let session = claimed.session;
        let mut wait_ms = POLL_MS;
        while let Err(error) = self.drive(session).await {
            tracing::error!(%session, %error, wait_ms, "the session could not be driven further; trying again");
            if self.shutdown.is_cancelled() {
                return;
            }
            self.sleep(wait_ms).await;
            wait_ms = (wait_ms * 2).min(LONGEST_PAUSE_MS);
        }
    }

    async fn sleep(&self, delay_ms: u64) {
        tokio::select! {
            () = self.engine.host.sleep_ms(delay_ms) => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}

/// Marks a session as one this worker runs, or has claimed, as long as it lives.
struct Held {
    sessions: Arc<Mutex<HashSet<SessionId>>>,
    session: SessionId,
}

impl Held {
    /// Begins, unless it is marked already.
    fn begin(sessions: &Arc<Mutex<HashSet<SessionId>>>, session: SessionId) -> Option<Self> {
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

/// Acquires a session whose owner, if it has one, is dead. `None`: another was faster.
async fn claim(
    engine: &Engine,
    worker: WorkerId,
    row: Row,
    shutdown: &CancellationToken,
) -> Result<Option<Runner>, Error> {
    let lost = row.owner.is_some();
    let hints = engine.store.hints();
    let mut journal = Journal::of_row(engine.store.clone(), engine.host.clone(), row)?;
    journal.context().await?;
    let head = journal.state.head;
    let make = |journal: &Journal| {
        let owner = journal.state.owner.filter(|_| lost && journal.state.head == head);
        Ok(Command::Acquire { worker, lost: owner, estimate: lost_attempt(journal, engine.host.now()) })
    };
    match journal.command(make, None).await? {
        Committed::Done(_) => Ok(Some(Runner::new(engine.clone(), journal, hints, shutdown.clone()))),
        Committed::Repeated(_) | Committed::Refused(_) => Ok(None),
    }
}

/// Estimates what the attempt of a lost owner may have cost: if it was calling the model, the request.
fn lost_attempt(journal: &Journal, now: Timestamp) -> Usage {
    let state = &journal.state;
    let waited = state.retry.is_some_and(|retry| retry.not_before > now);
    let called = state.status == Status::Running && state.pending.is_empty() && state.prepared_at > 0;
    let context = journal.loaded_context().filter(|_| called && !waited);
    let input = context.map_or(0, |context| context.estimated_tokens(state.measured));
    let estimate = Usage { input, ..Usage::default() };
    let prices = context.and_then(|context| context.configuration()?.model.prices.as_ref());
    prices.map_or(estimate, |prices| prices.priced(estimate))
}
