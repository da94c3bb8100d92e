//! The one thread that writes. It commits all writes that wait in one transaction, so that many
//! sessions share one sync, and a lone one waits for nobody.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::db::Db;
use crate::limits::{WRITES_TOGETHER, WRITES_WAITING};
use crate::{Error, Hint};

/// Why a write did not happen.
pub(super) enum Failure {
    /// It wrote nothing and its neighbours may go on.
    Refused(Error),
    /// A statement failed: what its transaction has written must be taken back.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}

/// What a transaction changes, told when it is committed.
#[derive(Default)]
pub(super) struct Changes {
    hints: Vec<Hint>,
    /// The positions of its entries, from the first to the last.
    positions: Option<(i64, i64)>,
}

impl Changes {
    pub(super) fn entry_at(&mut self, position: i64) {
        let first = self.positions.map_or(position, |(first, _)| first);
        self.positions = Some((first, position));
    }

    pub(super) fn grown(&mut self, hint: Hint) {
        self.hints.push(hint);
    }
}

/// Whom the writer tells what it committed.
#[derive(Clone)]
pub(super) struct Listeners {
    pub(super) hints: broadcast::Sender<Hint>,
    /// The position up to which all entries have had their hints.
    pub(super) told: Arc<AtomicI64>,
}

impl Listeners {
    fn tell(&self, changes: Changes) {
        for hint in changes.hints {
            // Fails when nobody listens, which is no failure.
            let _ = self.hints.send(hint);
        }
        if let Some((first, last)) = changes.positions {
            // When other processes wrote before, theirs are still to be told: the watch goes over
            // all of them, ours included.
            let _ = self.told.compare_exchange(first - 1, last, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A write that waits for its turn.
trait Waiting: Send {
    /// Does it, and keeps the outcome. `Err` when the transaction is spoiled.
    fn run(&mut self, db: &Db, changes: &mut Changes) -> Result<(), Error>;
    /// Tells the outcome to the caller, after the commit.
    fn finish(self: Box<Self>);
    /// Tells the caller that it did not happen.
    fn fail(self: Box<Self>, error: Error);
}

struct Pending<T, W> {
    work: W,
    outcome: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, W> Waiting for Pending<T, W>
where
    T: Send,
    W: FnMut(&Db, &mut Changes) -> Result<T, Failure> + Send,
{
    fn run(&mut self, db: &Db, changes: &mut Changes) -> Result<(), Error> {
        self.outcome = Some(match (self.work)(db, changes) {
            Ok(value) => Ok(value),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Failed(error)) => return Err(error),
        });
        Ok(())
    }

    fn finish(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // The caller may have gone; the write stands.
            let _ = self.reply.send(outcome);
        }
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// Where writes wait.
type Queue = mpsc::Sender<Box<dyn Waiting>>;

/// A way to the thread that does not keep it running.
#[derive(Clone)]
pub(super) struct WeakWriter(mpsc::WeakSender<Box<dyn Waiting>>);

impl WeakWriter {
    /// Asks for a write without waiting for it, or for room.
    pub(super) fn try_run(
        &self,
        work: impl FnMut(&Db, &mut Changes) -> Result<(), Failure> + Send + 'static,
    ) {
        let (reply, _) = oneshot::channel();
        if let Some(queue) = self.0.upgrade() {
            let _ = queue.try_send(Box::new(Pending { work, outcome: None, reply }));
        }
    }
}

/// The way to the thread.
pub(super) struct Writer {
    database: Arc<str>,
    /// Taken when the store is closed.
    running: Mutex<Option<(Queue, JoinHandle<()>)>>,
}

impl Writer {
    pub(super) fn start(
        database: Arc<str>,
        db: Arc<Mutex<Db>>,
        listeners: Listeners,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::channel(WRITES_WAITING);
        let thread = std::thread::Builder::new()
            .name("longhaul-writer".to_owned())
            .spawn(move || Turns { waiting, db, listeners }.take())?;
        Ok(Writer { database, running: Mutex::new(Some((queue, thread))) })
    }

    /// Does a write and waits until it is committed. It may be done twice, when its first
    /// transaction was rolled back: so it must not change what it holds.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnMut(&Db, &mut Changes) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let queue = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.as_ref().map(|(queue, _)| queue.clone()).ok_or_else(|| self.closed())?
        };
        let (reply, outcome) = oneshot::channel();
        let pending = Box::new(Pending { work, outcome: None, reply });
        queue.send(pending).await.map_err(|_| self.closed())?;
        outcome.await.unwrap_or_else(|_| Err(self.closed()))
    }

    pub(super) fn downgrade(&self) -> Option<WeakWriter> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|(queue, _)| WeakWriter(queue.downgrade()))
    }

    /// Lets the thread finish what was accepted. Returns it, to wait for; `None` the second time.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, thread)| thread)
    }

    fn closed(&self) -> Error {
        Error::Closed { database: self.database.to_string() }
    }
}

/// The thread's side.
struct Turns {
    waiting: mpsc::Receiver<Box<dyn Waiting>>,
    db: Arc<Mutex<Db>>,
    listeners: Listeners,
}

impl Turns {
    fn take(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            let db = Arc::clone(&self.db);
            self.together(&db.lock().unwrap_or_else(PoisonError::into_inner), first);
        }
    }

    /// Commits a write with all that wait behind it.
    fn together(&mut self, db: &Db, first: Box<dyn Waiting>) {
        let mut batch = vec![first];
        let mut changes = Changes::default();
        if let Err(error) = db.begin() {
            // The others have waited as long, and would fail alike, one long wait after another.
            while let Ok(next) = self.waiting.try_recv() {
                batch.push(next);
            }
            batch.into_iter().for_each(|write| write.fail(error.clone()));
            return;
        }
        match self.fill(db, &mut batch, &mut changes).and_then(|()| db.commit()) {
            Ok(()) => {
                batch.into_iter().for_each(Waiting::finish);
                self.listeners.tell(changes);
            }
            Err(error) => {
                let rolled_back = db.roll_back();
                if let ([_], _) | (_, Err(_)) = (batch.as_slice(), rolled_back) {
                    batch.into_iter().for_each(|write| write.fail(error.clone()));
                } else {
                    batch.into_iter().for_each(|write| self.alone(db, write));
                }
            }
        }
    }

    /// Does the writes of a batch, and takes in those that arrive meanwhile.
    fn fill(
        &mut self,
        db: &Db,
        batch: &mut Vec<Box<dyn Waiting>>,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        for done in 0..WRITES_TOGETHER {
            if done == batch.len() {
                match self.waiting.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            batch[done].run(db, changes)?;
        }
        Ok(())
    }

    /// Commits one write by itself, after the batch it was in has failed.
    fn alone(&self, db: &Db, mut write: Box<dyn Waiting>) {
        let mut changes = Changes::default();
        let result = db.begin().and_then(|()| write.run(db, &mut changes)).and_then(|()| db.commit());
        match result {
            Ok(()) => {
                write.finish();
                self.listeners.tell(changes);
            }
            Err(error) => {
                // A rollback that fails leaves a transaction in which the next begin fails too.
                let _ = db.roll_back();
                write.fail(error);
            }
        }
    }
}
