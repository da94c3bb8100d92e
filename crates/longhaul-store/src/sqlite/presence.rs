//! Which workers live, told by locks of the operating system: no clock, no heartbeat.
//!
//! A worker holds an exclusive lock on a file named by its id, beside the database. The system
//! drops the lock when the process ends, however it ends. So a worker is dead exactly when its
//! file is missing or its lock is free, and this is why nobody is ever taken for dead who lives:
//!
//! - The file gets its lock under another name and is then renamed. It is never seen unlocked
//!   under the worker's name while the worker lives.
//! - An id is locked once and never again. Who has found it free may delete the file: there is no
//!   second worker of that name that could have locked it in between.
//! - Looking means asking for a *shared* lock through a file opened for the purpose. Several may
//!   look at once without seeing each other, and closing that file cannot release the worker's
//!   lock, as it would with the per-process locks of `fcntl`.
//! - A crash between locking and renaming leaves an empty file that is nobody's and does no harm.
//! - The file is opened close-on-exec, so a tool that outlives its worker does not keep the lock.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_session::id::WorkerId;

use crate::Error;

/// The locks of the workers that share a database.
pub(super) struct Presence {
    database: Arc<str>,
    locks: Locks,
}

enum Locks {
    /// Several processes share the database: files in this directory.
    Files(PathBuf),
    /// Only this process has it.
    Process(Mutex<HashSet<WorkerId>>),
}

/// A worker's lock, held until dropped.
pub(super) struct Lock {
    presence: Arc<Presence>,
    worker: WorkerId,
    /// Held for its lock, which goes with it.
    _file: Option<File>,
}

impl Presence {
    pub(super) fn of_files(database: Arc<str>, directory: PathBuf) -> Self {
        Presence { database, locks: Locks::Files(directory) }
    }

    pub(super) fn of_process(database: Arc<str>) -> Self {
        Presence { database, locks: Locks::Process(Mutex::default()) }
    }

    /// Takes a worker's lock.
    pub(super) fn lock(self: &Arc<Self>, worker: WorkerId) -> Result<Lock, Error> {
        let file = match &self.locks {
            Locks::Files(directory) => Some(self.lock_file(directory, worker)?),
            Locks::Process(living) => {
                if !living.lock().unwrap_or_else(PoisonError::into_inner).insert(worker) {
                    return Err(Error::AlreadyAnnounced(worker));
                }
                None
            }
        };
        Ok(Lock { presence: Arc::clone(self), worker, _file: file })
    }

    /// Says whether a worker holds its lock.
    pub(super) fn is_alive(&self, worker: WorkerId) -> Result<bool, Error> {
        let path = match &self.locks {
            Locks::Files(directory) => directory.join(worker.to_string()),
            Locks::Process(living) => {
                return Ok(living.lock().unwrap_or_else(PoisonError::into_inner).contains(&worker));
            }
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.io("opening a worker's lock file", &error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(self.io("testing a worker's lock", &error)),
        }
    }

    /// Removes what a worker that was found dead left behind.
    pub(super) fn forget(&self, worker: WorkerId) -> Result<(), Error> {
        let Locks::Files(directory) = &self.locks else {
            return Ok(());
        };
        match std::fs::remove_file(directory.join(worker.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.io("removing a dead worker's lock file", &error))
            }
            _ => Ok(()),
        }
    }

    fn lock_file(&self, directory: &std::path::Path, worker: WorkerId) -> Result<File, Error> {
        // Two attempts with one id, which is against the rules, still do not share a file.
        static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let draft = directory.join(format!("{worker}.{}.{attempt}", std::process::id()));
        let path = directory.join(worker.to_string());
        if path.exists() {
            return Err(Error::AlreadyAnnounced(worker));
        }
        let take = || {
            std::fs::create_dir_all(directory)?;
            let file = File::create_new(&draft)?;
            file.try_lock()?;
            std::fs::rename(&draft, &path)?;
            Ok(file)
        };
        take().map_err(|error| self.io("locking a worker's file", &error))
    }

    fn io(&self, doing: &str, error: &std::io::Error) -> Error {
        let (database, detail) = (self.database.to_string(), error.to_string());
        Error::Io { database, doing: doing.to_owned(), detail }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        match &self.presence.locks {
            // A file that cannot be removed is unlocked all the same: the worker is dead.
            Locks::Files(_) => drop(self.presence.forget(self.worker)),
            Locks::Process(living) => {
                living.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.worker);
            }
        }
    }
}
