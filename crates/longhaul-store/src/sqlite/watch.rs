//! Notices what other processes write to the same file, and when their workers die, while somebody listens.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use longhaul_session::id::{SessionId, WorkerId};

use super::connect::Opener;
use super::db::Db;
use super::presence::Presence;
use super::read::{id, unsigned};
use super::writer::Listeners;
use crate::limits::WATCH_EVERY_MS;
use crate::{Error, Hint};

/// A thread that looks at the file. It sleeps while nobody listens.
pub(super) struct Watch {
    /// Taken when the store is closed: the thread ends.
    running: Mutex<Option<(SyncSender<()>, JoinHandle<()>)>>,
}

impl Watch {
    pub(super) fn start(
        opener: Opener,
        presence: Arc<Presence>,
        listeners: Listeners,
    ) -> std::io::Result<Self> {
        // One call is enough, however many listeners come at once.
        let (call, calls) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("longhaul-watch".to_owned())
            .spawn(move || look(&opener, &presence, &listeners, &calls))?;
        Ok(Watch { running: Mutex::new(Some((call, thread))) })
    }

    /// Wakes the thread for a new listener.
    pub(super) fn wake(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((call, _)) = running.as_ref() {
            // Full: it is being woken.
            let _ = call.try_send(());
        }
    }

    /// Ends the thread. Returns it, to wait for; `None` the second time.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, thread)| thread)
    }
}

fn look(opener: &Opener, presence: &Presence, listeners: &Listeners, calls: &Receiver<()>) {
    let every = Duration::from_millis(WATCH_EVERY_MS);
    let mut seen = Seen::default();
    loop {
        let woken = if listeners.hints.receiver_count() == 0 {
            calls.recv().map_err(RecvTimeoutError::from)
        } else {
            calls.recv_timeout(every)
        };
        if woken == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let told = seen.tell_news(opener, listeners).and_then(|()| seen.tell_deaths(presence, listeners));
        if told.is_err() {
            // Whoever reads or writes meets the same error and reports it. Here it costs hints:
            // try again with a new connection.
            seen = Seen { living: seen.living, ..Seen::default() };
        }
    }
}

/// Finds what a worker has left, among the sessions to which something is owed: only those are in an index.
const LEFT_BY: &str = "SELECT id, head FROM sessions WHERE claimable_at IS NOT NULL AND owner = ?1";

#[derive(Default)]
struct Seen {
    db: Option<Db>,
    /// The file's version as this connection saw it last.
    version: Option<i64>,
    /// The workers that lived at the last look.
    living: Vec<WorkerId>,
}

impl Seen {
    fn tell_news(&mut self, opener: &Opener, listeners: &Listeners) -> Result<(), Error> {
        let db = match self.db.take() {
            Some(db) => db,
            None => opener.reader()?,
        };
        let db = self.db.insert(db);
        let version = db.one("PRAGMA data_version", &[], |row| row.get::<_, i64>(0))?;
        if version == self.version {
            return Ok(());
        }
        let told = listeners.told.load(Ordering::Relaxed);
        let news = db.all(
            "SELECT session, max(n), max(position) FROM entries WHERE position > ?1 GROUP BY session",
            &[&told],
            |row| {
                let hint = Hint { session: SessionId(id(row, 0)?), head: unsigned(row, 1)? };
                Ok((hint, row.get::<_, i64>(2)?))
            },
        )?;
        for (hint, position) in news {
            let _ = listeners.hints.send(hint);
            listeners.told.fetch_max(position, Ordering::Relaxed);
        }
        for worker in db.all("SELECT id FROM workers", &[], |row| id(row, 0).map(WorkerId))? {
            if !self.living.contains(&worker) {
                self.living.push(worker);
            }
        }
        self.version = version;
        Ok(())
    }

    /// A worker that was killed writes nothing: what it has left is told by looking at its lock.
    fn tell_deaths(&mut self, presence: &Presence, listeners: &Listeners) -> Result<(), Error> {
        let Some(db) = &self.db else { return Ok(()) };
        let mut living = Vec::with_capacity(self.living.len());
        for worker in &self.living {
            if presence.is_alive(*worker)? {
                living.push(*worker);
                continue;
            }
            let left = db.all(LEFT_BY, &[worker.0.as_bytes()], |row| {
                Ok(Hint { session: SessionId(id(row, 0)?), head: unsigned(row, 1)? })
            })?;
            for hint in left {
                let _ = listeners.hints.send(hint);
            }
        }
        self.living = living;
        Ok(())
    }
}

/// Returns the position of the newest entry: what was written before a store was opened is no news.
pub(super) fn newest(db: &Arc<Mutex<Db>>) -> Result<i64, Error> {
    let db = db.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = db.one("SELECT coalesce(max(position), 0) FROM entries", &[], |row| row.get(0))?;
    Ok(newest.unwrap_or(0))
}
