//! What the world may do to a store, and whether trying again makes sense.

use longhaul_session::id::{SessionId, WorkerId};

/// The store could not do what it was asked. Nothing of it was written.
///
/// Each message says what happened, why, and what to do. `database` is a path or an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No session has this id.
    #[error("there is no session {0}: it never existed here, or was deleted")]
    NoSuchSession(SessionId),
    /// The caller's numbers do not fit together, or a payload is too large.
    #[error("the store refused a write that makes no sense: {reason}")]
    Invalid {
        /// What does not fit.
        reason: String,
    },
    /// A worker id is announced once; ids are made anew for each start.
    #[error("worker {0} was announced before: a worker id is used once, make a new one")]
    AlreadyAnnounced(WorkerId),
    /// Another process kept the database to itself for too long.
    #[error(
        "{database} is busy: another process has been writing for {waited_ms} ms; try again, and if it stays so, look for a stuck process that has it open"
    )]
    Busy {
        /// The database.
        database: String,
        /// How long the store waited, in milliseconds.
        waited_ms: u64,
    },
    /// There is no room.
    #[error(
        "{database} cannot grow: the disk or its quota is full ({detail}); free some space, then go on: what was committed is safe"
    )]
    Full {
        /// The database.
        database: String,
        /// What the database said.
        detail: String,
    },
    /// The place cannot be written.
    #[error(
        "{database} cannot be opened for writing ({detail}); check that its directory exists and that this user may write to it and to the file"
    )]
    NotWritable {
        /// The database.
        database: String,
        /// What the database said.
        detail: String,
    },
    /// The bytes are not what was written.
    #[error(
        "{database} is damaged or not a database ({detail}); stop all processes that use it, copy the file with its -wal and -shm neighbours, then restore a backup or salvage the copy with `sqlite3 <copy> .recover`"
    )]
    Corrupt {
        /// The database.
        database: String,
        /// What was found.
        detail: String,
    },
    /// A database of some other program.
    #[error("{database} belongs to another program; choose another path for Longhaul's database")]
    Foreign {
        /// The database.
        database: String,
    },
    /// A later version of this program wrote the database.
    #[error(
        "{database} has schema version {found}, this program knows up to {supported}; use the newer program that wrote it, or another database"
    )]
    TooNew {
        /// The database.
        database: String,
        /// The version found.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The operating system failed a read or a write.
    #[error("{database}: {doing} failed ({detail}); check the disk and the system's log")]
    Io {
        /// The database.
        database: String,
        /// What was being done.
        doing: String,
        /// What the system said.
        detail: String,
    },
    /// The database refused a statement for a reason nobody foresaw.
    #[error(
        "{database} failed a statement ({detail}); this is a fault in the program or in the database, please report it"
    )]
    Database {
        /// The database.
        database: String,
        /// What the database said.
        detail: String,
    },
    /// The store was closed, or its writer has stopped.
    #[error("{database} is closed; open it again")]
    Closed {
        /// The database.
        database: String,
    },
}

impl Error {
    /// Says whether the same call may succeed later without anybody's help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Busy { .. } => true,
            Error::NoSuchSession(_)
            | Error::Invalid { .. }
            | Error::AlreadyAnnounced(_)
            | Error::Full { .. }
            | Error::NotWritable { .. }
            | Error::Corrupt { .. }
            | Error::Foreign { .. }
            | Error::TooNew { .. }
            | Error::Io { .. }
            | Error::Database { .. }
            | Error::Closed { .. } => false,
        }
    }
}
