//! Opens databases: how connections are set up, and the migrations that bring a file up to date.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::db::{Db, Tally, classify};
use crate::Error;
use crate::limits::{BUSY_TIMEOUT_MS, WAL_KEPT_BYTES, WAL_TRIES};

/// The migrations, in order: the n-th brings a database from version n - 1 to version n.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql")];

/// The length of the header that every SQLite file begins with.
const HEADER_BYTES: u64 = 100;

/// "LHUL": says that a file is ours.
const APPLICATION_ID: u32 = 0x4c48_554c;

/// Opens connections to one file.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) path: PathBuf,
    pub(super) database: Arc<str>,
    pub(super) tally: Arc<Tally>,
    pub(super) max_pages: Option<u32>,
}

impl Opener {
    /// Opens the connection that writes: creates the file if there is none, and migrates it.
    pub(super) fn writer(&self) -> Result<Db, Error> {
        self.refuse_scraps()?;
        let db = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        db.refuse_read_only()?;
        // Before anything is changed: a newer or foreign database stays as it is.
        db.at_one_moment(|db| version(db, &self.database))?;
        use_wal(&db)?;
        set_up_writer(&db)?;
        // Flushes through the drive's cache where the system's sync does not (macOS).
        db.batch("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON")?;
        db.batch(&format!("PRAGMA journal_size_limit = {WAL_KEPT_BYTES}"))?;
        if let Some(pages) = self.max_pages {
            db.batch(&format!("PRAGMA max_page_count = {pages}"))?;
        }
        migrate(&db, &self.database)?;
        Ok(db)
    }

    /// Opens a connection that only reads.
    pub(super) fn reader(&self) -> Result<Db, Error> {
        // Not opened read-only: readers of a write-ahead log write to its index.
        let db = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.batch("PRAGMA query_only = ON")?;
        Ok(db)
    }

    /// Refuses a file that is shorter than any database: SQLite would take it for a new one.
    fn refuse_scraps(&self) -> Result<(), Error> {
        match std::fs::metadata(&self.path) {
            Ok(file) if (1..HEADER_BYTES).contains(&file.len()) => Err(Error::Corrupt {
                database: self.database.to_string(),
                detail: format!("its {} bytes are no database's", file.len()),
            }),
            // Whatever else is the matter, opening says it better.
            _ => Ok(()),
        }
    }

    fn connect(&self, flags: OpenFlags) -> Result<Db, Error> {
        // A connection is used by one thread at a time: it needs no locks of its own.
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)
            .and_then(|connection| {
                connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
                Ok(connection)
            })
            .map_err(|error| classify(&self.database, &error))?;
        Ok(Db::new(connection, Arc::clone(&self.database), Arc::clone(&self.tally)))
    }
}

/// Opens a database that lives in this connection only.
pub(super) fn in_memory(database: &Arc<str>, tally: &Arc<Tally>) -> Result<Db, Error> {
    let connection = Connection::open_in_memory().map_err(|error| classify(database, &error))?;
    let db = Db::new(connection, Arc::clone(database), Arc::clone(tally));
    set_up_writer(&db)?;
    migrate(&db, database)?;
    Ok(db)
}

fn set_up_writer(db: &Db) -> Result<(), Error> {
    // FULL: a commit that returned is on disk. Erased content is overwritten, not only unlinked.
    db.batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON")
}

/// Switches to write-ahead logging. While several processes open a new file, SQLite reports it
/// busy without waiting; so wait for the other writer, and ask again.
fn use_wal(db: &Db) -> Result<(), Error> {
    let ask = || db.one("PRAGMA journal_mode = WAL", &[], |row| row.get::<_, String>(0));
    let mut answer = ask();
    for _ in 1..WAL_TRIES {
        if !matches!(answer, Err(Error::Busy { .. })) {
            break;
        }
        db.begin()?;
        db.roll_back()?;
        answer = ask();
    }
    match answer? {
        Some(mode) if mode == "wal" => Ok(()),
        other => Err(Error::Database {
            database: db.database().to_owned(),
            detail: format!(
                "write-ahead logging is not possible here, the journal mode stays {other:?}; put the file on a local disk"
            ),
        }),
    }
}

fn migrate(db: &Db, database: &str) -> Result<(), Error> {
    if db.at_one_moment(|db| version(db, database))? == MIGRATIONS.len() {
        return Ok(());
    }
    db.begin()?;
    // Read again: another process may have migrated in the meantime.
    let migrated = version(db, database).and_then(|from| {
        for migration in &MIGRATIONS[from..] {
            db.batch(migration)?;
        }
        db.batch(&format!("PRAGMA application_id = {APPLICATION_ID}"))?;
        db.batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))
    });
    match migrated {
        Ok(()) => db.commit(),
        Err(error) => {
            db.roll_back()?;
            Err(error)
        }
    }
}

/// Returns the version of a database's schema; 0 when it is empty. To be asked within a
/// transaction: another process may be just about to migrate.
fn version(db: &Db, database: &str) -> Result<usize, Error> {
    let number = |sql: &str| db.one(sql, &[], |row| row.get::<_, u32>(0)).map(Option::unwrap_or_default);
    let found = number("PRAGMA user_version")?;
    let ours = number("PRAGMA application_id")? == APPLICATION_ID;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if !ours && (found > 0 || tables > 0) {
        return Err(Error::Foreign { database: database.to_owned() });
    }
    let supported = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(version) if version <= supported => Ok(version),
        _ => Err(Error::TooNew {
            database: database.to_owned(),
            found,
            supported: u32::try_from(supported).unwrap_or(u32::MAX),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_set_up_to_lose_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("longhaul.db");
        let (database, tally) = ("longhaul.db".into(), Arc::default());
        let opener = Opener { path, database, tally, max_pages: None };
        let (writer, reader) = (opener.writer().unwrap(), opener.reader().unwrap());
        let number = |db: &Db, name: &str| {
            db.one(&format!("PRAGMA {name}"), &[], |row| row.get::<_, i64>(0)).unwrap().unwrap()
        };
        assert_eq!(number(&writer, "synchronous"), 2, "FULL");
        assert_eq!(number(&writer, "foreign_keys"), 1);
        assert_eq!(number(&writer, "secure_delete"), 1);
        assert_eq!(number(&writer, "busy_timeout"), 5_000);
        assert_eq!(number(&writer, "user_version"), 1);
        assert_eq!(number(&reader, "query_only"), 1);
        let mode = |db: &Db| db.one("PRAGMA journal_mode", &[], |row| row.get::<_, String>(0));
        assert_eq!(mode(&reader).unwrap().as_deref(), Some("wal"));
    }
}
