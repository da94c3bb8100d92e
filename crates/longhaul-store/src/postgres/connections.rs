//! The connections for everything but plain appends and hints: a few, made when they are first needed, and
//! made again when they are lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::db::{Db, Opener};
use super::fault::{Answer, Kind};
use crate::Error;
use crate::limits::{CONNECTIONS, TRIES, TRY_WAIT_MS};

/// A few connections.
pub(super) struct Connections {
    opener: Arc<Opener>,
    permits: Semaphore,
    idle: Mutex<Vec<Arc<Db>>>,
}

/// What came before a try.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Earlier {
    /// An earlier try lost its connection: what it was to write may be written.
    pub(super) lost: bool,
}

impl Connections {
    /// Takes a first connection with it.
    pub(super) fn new(opener: Arc<Opener>, first: Db) -> Self {
        let idle = Mutex::new(vec![Arc::new(first)]);
        Connections { opener, permits: Semaphore::new(CONNECTIONS), idle }
    }

    /// Does work on a connection; again on another one when that one is lost, and when the database asks
    /// for it. So work must bear being done twice, or look at what came before.
    pub(super) async fn run<T, F>(&self, work: impl Fn(Arc<Db>, Earlier) -> F) -> Result<T, Error>
    where
        F: Future<Output = Answer<T>>,
    {
        let closed = |_| Error::Closed { database: self.opener.database.to_string() };
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let mut earlier = Earlier::default();
        let mut pauses = Pauses::default();
        loop {
            let fault = match self.take().await {
                Err(fault) => fault,
                Ok(db) => match work(Arc::clone(&db), earlier).await {
                    Ok(value) => {
                        self.put_back(db);
                        return Ok(value);
                    }
                    Err(fault) => {
                        if fault.kind == Kind::Lost {
                            earlier.lost = true;
                            // They were made before this one was lost: the same may have taken them.
                            self.idle().clear();
                        } else {
                            self.put_back(db);
                        }
                        fault
                    }
                },
            };
            if fault.kind == Kind::Final || !pauses.pause().await {
                return Err(fault.error);
            }
        }
    }

    /// Closes the connections after the work under way.
    pub(super) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).expect("a handful of connections");
        let under_way = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(under_way);
        let idle = std::mem::take(&mut *self.idle());
        for db in idle {
            if let Some(db) = Arc::into_inner(db) {
                db.close().await;
            }
        }
    }

    async fn take(&self) -> Answer<Arc<Db>> {
        while let Some(db) = self.take_idle() {
            if !db.is_closed() {
                return Ok(db);
            }
        }
        Ok(Arc::new(self.opener.connect().await?))
    }

    fn take_idle(&self) -> Option<Arc<Db>> {
        self.idle().pop()
    }

    fn put_back(&self, db: Arc<Db>) {
        self.idle().push(db);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Db>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pauses between the tries of one call: none before the second, which a connection that was cut while
/// nobody used it needs, and then growing ones.
#[derive(Default)]
pub(super) struct Pauses {
    tries: u32,
}

impl Pauses {
    /// Waits before another try; `false` when there were enough.
    pub(super) async fn pause(&mut self) -> bool {
        self.tries += 1;
        if self.tries >= TRIES {
            return false;
        }
        if self.tries > 1 {
            wait(TRY_WAIT_MS << (self.tries - 2)).await;
        }
        true
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a simulation replaces the whole store, and these waits with it"
)]
pub(super) async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
