//! What the world may do to a store, and whether trying again makes sense.

use longhaul_session::id::{SessionId, WorkerId};

/// The store could not do what it was asked. Nothing of it was written.
///
/// Each message says what happened, why, and what to do. `database` is a path or an address, never with a
/// password.
///
/// One exception: when a create or an append ends in [`Error::Unreachable`], nobody may know yet whether it
/// was written. The same call made again finds out, and is never done twice.
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
    #[error("{database} belongs to another program; choose another place for Longhaul's database")]
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
    /// The text that should name a database does not.
    #[error(
        "the database's URL cannot be used: {reason}; it is written postgres://user:password@host:port/database, with options like ?sslmode=require after it"
    )]
    Address {
        /// What is wrong with it. Nothing of the URL is repeated: it may hold a password.
        reason: String,
    },
    /// The server does not answer, or the connection was lost.
    #[error(
        "{database} cannot be reached ({detail}); check that its server runs and that host and port are right: what was committed is safe"
    )]
    Unreachable {
        /// The database.
        database: String,
        /// What the system or the server said.
        detail: String,
    },
    /// The server answers, and does not let us in or lacks what is needed.
    #[error(
        "{database} does not let us work ({detail}); check the URL's user, password, database and sslmode, and what this user may do there"
    )]
    Refused {
        /// The database.
        database: String,
        /// What the server said, or what is missing.
        detail: String,
    },
    /// Others were in the way of a statement, several times.
    #[error(
        "{database} took a statement back ({detail}); try again, and if it stays so, look for what keeps it busy"
    )]
    Contended {
        /// The database.
        database: String,
        /// What the server said.
        detail: String,
    },
    /// The rows are not what was written.
    #[error(
        "{database} holds what this program never wrote ({detail}); stop all workers, look into the server's log, and restore a backup beside it to compare"
    )]
    Damaged {
        /// The database.
        database: String,
        /// What was found.
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
            Error::Busy { .. } | Error::Unreachable { .. } | Error::Contended { .. } => true,
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
            | Error::Address { .. }
            | Error::Refused { .. }
            | Error::Damaged { .. }
            | Error::Closed { .. } => false,
        }
    }
}
