//! The connections that read, on threads that may block. In write-ahead mode the writer never
//! blocks them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::connect::Opener;
use super::db::Db;
use crate::Error;
use crate::limits::READERS;

/// A few connections, opened when they are first needed.
pub(super) struct Readers {
    database: Arc<str>,
    permits: Arc<Semaphore>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// Connections of their own; the idle ones.
    Own(Opener, Arc<Mutex<Vec<Db>>>),
    /// The writer's: a database in memory has only one.
    Shared(Arc<Mutex<Db>>),
}

impl Readers {
    pub(super) fn of_file(opener: Opener) -> Self {
        let database = Arc::clone(&opener.database);
        let source = Source::Own(opener, Arc::default());
        Readers { database, permits: Arc::new(Semaphore::new(READERS)), source }
    }

    pub(super) fn sharing(database: Arc<str>, db: Arc<Mutex<Db>>) -> Self {
        let source = Source::Shared(db);
        Readers { database, permits: Arc::new(Semaphore::new(READERS)), source }
    }

    /// Reads on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Db) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let closed = || Error::Closed { database: self.database.to_string() };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let source = self.source.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let result = source.read(read);
            drop(permit);
            result
        });
        reading.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Closes the connections after the reads under way.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS).expect("a handful of readers");
        let under_way = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(under_way);
        if let Source::Own(_, idle) = &self.source {
            idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

impl Source {
    fn read<T>(&self, read: impl FnOnce(&Db) -> Result<T, Error>) -> Result<T, Error> {
        match self {
            Source::Own(opener, idle) => {
                let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let db = waiting.map_or_else(|| opener.reader(), Ok)?;
                let result = read(&db);
                // One that is stuck in a transaction would read the same moment forever.
                if db.is_idle() {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                }
                result
            }
            Source::Shared(db) => read(&db.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}
