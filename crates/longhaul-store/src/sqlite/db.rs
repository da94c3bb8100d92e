//! One connection that counts: the only place where statements run and where SQLite's errors
//! become ours. What the statements say stands in `read` and `write`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, MAIN_DB, Row, ToSql, ffi};

use crate::Error;
use crate::limits::{BUSY_TIMEOUT_MS, STATEMENTS_KEPT};

/// What a store has done since it was opened, for tests and benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Write transactions committed: each is one sync.
    pub transactions: u64,
    /// Statements run, those of rolled back transactions included.
    pub statements: u64,
    /// Bytes of texts and blobs given to writing statements.
    pub bytes_written: u64,
    /// Entries read.
    pub entries_read: u64,
    /// Entries inserted.
    pub entries_written: u64,
}

/// The counters while they count, shared by all connections of a store.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) transactions: AtomicU64,
    pub(super) statements: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) entries_read: AtomicU64,
    pub(super) entries_written: AtomicU64,
}

impl Tally {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            transactions: self.transactions.load(Ordering::Relaxed),
            statements: self.statements.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            entries_read: self.entries_read.load(Ordering::Relaxed),
            entries_written: self.entries_written.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// A connection.
pub(super) struct Db {
    connection: Connection,
    database: Arc<str>,
    pub(super) tally: Arc<Tally>,
}

impl Db {
    pub(super) fn new(connection: Connection, database: Arc<str>, tally: Arc<Tally>) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        Db { connection, database, tally }
    }

    /// Runs a writing statement. Returns how many rows it changed.
    pub(super) fn write(&self, sql: &str, params: &[&dyn ToSql]) -> Result<usize, Error> {
        count(&self.tally.statements, 1);
        self.count_bytes(params)?;
        self.checked(self.connection.prepare_cached(sql).and_then(|mut it| it.execute(params)))
    }

    /// Runs a writing statement that returns something of the row it changed, if it changed one.
    pub(super) fn write_one<T>(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        self.count_bytes(params)?;
        // All of it is written when its first row is there.
        self.one(sql, params, read)
    }

    fn count_bytes(&self, params: &[&dyn ToSql]) -> Result<(), Error> {
        for param in params {
            count(&self.tally.bytes_written, self.checked(byte_len(*param))?);
        }
        Ok(())
    }

    /// Runs a query. Returns its first row, if any.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        count(&self.tally.statements, 1);
        let run = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query(params)?;
            rows.next()?.map(read).transpose()
        };
        self.checked(run())
    }

    /// Runs a query. Returns its rows.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        count(&self.tally.statements, 1);
        let run = || self.connection.prepare_cached(sql)?.query_map(params, read)?.collect();
        self.checked(run())
    }

    /// Runs statements that are not worth preparing.
    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        self.checked(self.connection.execute_batch(sql))
    }

    /// Begins a write transaction, after those of other processes.
    pub(super) fn begin(&self) -> Result<(), Error> {
        self.write("BEGIN IMMEDIATE", &[]).map(drop)
    }

    /// Commits: when this returns, the transaction is on disk.
    pub(super) fn commit(&self) -> Result<(), Error> {
        self.write("COMMIT", &[])?;
        count(&self.tally.transactions, 1);
        Ok(())
    }

    /// Takes back a transaction. Some failures have done so already.
    pub(super) fn roll_back(&self) -> Result<(), Error> {
        if self.is_idle() {
            return Ok(());
        }
        self.write("ROLLBACK", &[]).map(drop)
    }

    /// Says whether no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// Reads several statements' worth from one moment.
    pub(super) fn at_one_moment<T>(&self, read: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        self.write("BEGIN", &[])?;
        let result = read(self);
        self.roll_back()?;
        result
    }

    /// Refuses a file that may only be read: SQLite opens it all the same.
    pub(super) fn refuse_read_only(&self) -> Result<(), Error> {
        if !self.checked(self.connection.is_readonly(MAIN_DB))? {
            return Ok(());
        }
        let detail = "it may only be read".to_owned();
        Err(Error::NotWritable { database: self.database.to_string(), detail })
    }

    /// Returns the position of the row inserted last.
    pub(super) fn last_position(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Returns the database's name, for messages.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::Corrupt { database: self.database.to_string(), detail: detail.into() }
    }

    fn checked<T>(&self, result: rusqlite::Result<T>) -> Result<T, Error> {
        result.map_err(|error| classify(&self.database, &error))
    }
}

/// Says what an error of SQLite means. The only place that looks at its codes.
pub(super) fn classify(database: &str, error: &rusqlite::Error) -> Error {
    let (database, detail) = (database.to_owned(), error.to_string());
    if never_written(error) {
        return Error::Corrupt { database, detail };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Busy { database, waited_ms: BUSY_TIMEOUT_MS }
        }
        Some(ErrorCode::DiskFull) => Error::Full { database, detail },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::NotWritable { database, detail }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt { database, detail },
        Some(ErrorCode::SystemIoFailure) if cannot_grow(error) => {
            let detail =
                format!("{detail}; a quota or a limit on the size of files may be used up (ulimit -f)");
            Error::Io { database, doing: "writing the database".to_owned(), detail }
        }
        Some(ErrorCode::SystemIoFailure) => {
            Error::Io { database, doing: "reading or writing the database".to_owned(), detail }
        }
        _ => Error::Database { database, detail },
    }
}

/// Says whether a file could not be written or made longer: SQLite tells a full disk from other failures,
/// but not a used up quota.
fn cannot_grow(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_extended_error_code(), Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE))
}

/// Says whether a statement found what this program never writes.
fn never_written(error: &rusqlite::Error) -> bool {
    let shorter_than_its_header_says = ffi::SQLITE_IOERR_SHORT_READ;
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    ) || error.sqlite_extended_error_code() == Some(shorter_than_its_header_says)
}

fn byte_len(param: &dyn ToSql) -> rusqlite::Result<usize> {
    let value = param.to_sql()?;
    let value = match &value {
        ToSqlOutput::Borrowed(value) => *value,
        ToSqlOutput::Owned(value) => value.into(),
        _ => ValueRef::Null,
    };
    Ok(match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.len(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
    })
}
