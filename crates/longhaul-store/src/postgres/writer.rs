//! The one task that writes plain appends, on a connection of its own. It commits all that wait in one
//! statement, so that many sessions share one round trip and one sync, and a lone one waits for nobody.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};

use super::append::{self, Failed, Job};
use super::connections::Pauses;
use super::db::{Db, Opener};
use super::fault::{Answer, Fault, Kind};
use super::listen::Listeners;
use crate::limits::{APPEND_BYTES_TOGETHER, APPENDS_TOGETHER, WRITES_WAITING};
use crate::{Appended, Error};

/// What the connection is told besides. The statements find their rows by keys, whatever the arrays hold: a
/// plan for each of them would cost more than all the rest.
const SET_UP: &str = "SET plan_cache_mode = force_generic_plan";

/// An append that waits for its turn.
struct Waiting {
    job: Job,
    reply: oneshot::Sender<Result<Appended, Error>>,
}

type Queue = mpsc::Sender<Waiting>;

/// The way to the task.
pub(super) struct Writer {
    database: Arc<str>,
    /// Taken when the store is closed.
    running: Mutex<Option<(Queue, JoinHandle<()>)>>,
}

impl Writer {
    pub(super) fn start(opener: Arc<Opener>, listeners: Arc<Listeners>, lease_ms: i64) -> Self {
        let database = Arc::clone(&opener.database);
        let (queue, waiting) = mpsc::channel(WRITES_WAITING);
        let turns = Turns { waiting, held: None, opener, db: None, listeners, lease_ms };
        Writer { database, running: Mutex::new(Some((queue, tokio::spawn(turns.take())))) }
    }

    /// Appends, and waits until it is committed.
    pub(super) async fn run(&self, job: Job) -> Result<Appended, Error> {
        let queue = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.as_ref().map(|(queue, _)| queue.clone()).ok_or_else(|| self.closed())?
        };
        let (reply, outcome) = oneshot::channel();
        queue.send(Waiting { job, reply }).await.map_err(|_| self.closed())?;
        outcome.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// Lets the task finish what was accepted. Returns it, to wait for; `None` the second time.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, task)| task)
    }

    fn closed(&self) -> Error {
        Error::Closed { database: self.database.to_string() }
    }
}

/// The task's side.
struct Turns {
    waiting: mpsc::Receiver<Waiting>,
    /// Came too early for the statement before: to a session that was in it, or too large.
    held: Option<Waiting>,
    opener: Arc<Opener>,
    db: Option<Db>,
    listeners: Arc<Listeners>,
    lease_ms: i64,
}

impl Turns {
    async fn take(mut self) {
        // Others wait beside the one that comes first.
        let mut crowded = false;
        loop {
            let held = self.held.take();
            let first = match held {
                Some(first) => Some(first),
                None => self.waiting.recv().await,
            };
            let Some(first) = first else { break };
            if crowded {
                // Those who were answered together come again together, but this task is woken by the first:
                // it would go alone, and all others would wait for it.
                yield_now().await;
            }
            let batch = self.fill(first);
            crowded = batch.len() > 1;
            self.commit(batch).await;
            crowded |= !self.waiting.is_empty();
        }
        if let Some(db) = self.db {
            db.close().await;
        }
    }

    /// Takes an append with those that wait behind it, one for each session.
    fn fill(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut sessions = HashSet::from([first.job.append.session]);
        let mut bytes = first.job.bytes();
        let mut batch = vec![first];
        while batch.len() < APPENDS_TOGETHER
            && let Ok(next) = self.waiting.try_recv()
        {
            bytes += next.job.bytes();
            if bytes > APPEND_BYTES_TOGETHER || !sessions.insert(next.job.append.session) {
                self.held = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
    }

    /// Commits appends until each is answered.
    async fn commit(&mut self, mut batch: Vec<Waiting>) {
        let mut pauses = Pauses::default();
        while !batch.is_empty() {
            let (left, fault) = self.once(batch).await;
            batch = left;
            let Some(fault) = fault else {
                // Nothing stands in the way of those left, any more.
                if !batch.is_empty() && !pauses.pause().await {
                    let detail = "a session changes under every append to it".to_owned();
                    let error = Error::Contended { database: self.opener.database.to_string(), detail };
                    batch.drain(..).for_each(|waiting| waiting.answer(Err(error.clone())));
                }
                continue;
            };
            if fault.kind == Kind::Final && batch.len() > 1 {
                // One of them may be what the statement failed for.
                for waiting in batch.drain(..) {
                    Box::pin(self.commit(vec![waiting])).await;
                }
            } else if fault.kind == Kind::Final || !pauses.pause().await {
                batch.drain(..).for_each(|waiting| waiting.answer(Err(fault.error.clone())));
            }
        }
    }

    /// Runs the statement once. Returns those that are not answered, and the fault that kept them from it.
    async fn once(&mut self, batch: Vec<Waiting>) -> (Vec<Waiting>, Option<Fault>) {
        let lease_ms = self.lease_ms;
        let db = match self.connected().await {
            Err(fault) => return (batch, Some(fault)),
            Ok(db) => db,
        };
        let jobs: Vec<&Job> = batch.iter().map(|waiting| &waiting.job).collect();
        match outcome(db, &jobs, lease_ms).await {
            Ok(outcomes) => {
                let mut left = Vec::new();
                for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                    match outcome {
                        Failed::Answered(answer) => {
                            if answer == Ok(Appended::Done) {
                                self.listeners.tell_all(waiting.job.hint());
                            }
                            waiting.answer(answer);
                        }
                        Failed::Free => left.push(waiting),
                    }
                }
                (left, None)
            }
            Err(fault) => {
                if fault.kind == Kind::Lost {
                    self.db = None;
                }
                // Those that passed may be committed, even if the statement after theirs is what failed.
                batch.iter().for_each(|waiting| waiting.job.settle());
                (batch, Some(fault))
            }
        }
    }

    async fn connected(&mut self) -> Answer<&Db> {
        let db = match self.db.take() {
            Some(db) if !db.is_closed() => db,
            _ => {
                let db = self.opener.connect().await?;
                db.batch(SET_UP).await?;
                db
            }
        };
        Ok(self.db.insert(db))
    }
}

impl Waiting {
    fn answer(self, answer: Result<Appended, Error>) {
        // The caller may have gone; the append stands.
        let _ = self.reply.send(answer);
    }
}

/// Writes appends to different sessions and says what became of each.
async fn outcome(db: &Db, jobs: &[&Job], lease_ms: i64) -> Answer<Vec<Failed>> {
    let passed = append::together(db, jobs, lease_ms).await?;
    let others: Vec<&Job> =
        jobs.iter().copied().filter(|job| !passed.contains(&job.append.session)).collect();
    let mut why = if others.is_empty() { Vec::new() } else { append::why(db, &others).await? }.into_iter();
    let mut outcomes = Vec::new();
    for job in jobs {
        outcomes.push(if passed.contains(&job.append.session) {
            Failed::Answered(Ok(Appended::Done))
        } else {
            why.next().ok_or_else(|| db.damaged("an append was not answered"))?
        });
    }
    Ok(outcomes)
}
