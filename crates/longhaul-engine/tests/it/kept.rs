//! Where a world's sessions are kept: a file of SQLite, or a database of Postgres where the tests are told so.
//! Both count alike. What stands before a store stands in `wire`.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use longhaul_store::{Lease, PostgresStore, SqliteStore, Store, postgres};
use longhaul_test_postgres::{Database, is_chosen};
use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime of servers' stores: their sockets and waits go by real time, whatever a test's clock does.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

/// How rarely a store looks and tells that has a database to itself, in milliseconds.
const NEVER_MS: u64 = 3_600_000;

/// A place for sessions.
#[derive(Clone)]
pub(crate) enum Kept {
    File(PathBuf),
    Memory,
    Server(Arc<Database>),
    /// A database that only one store uses.
    OwnServer(Arc<Database>),
}

/// A store that was opened.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// Where its calls run.
    pub(crate) runtime: Handle,
    pub(crate) counts: Box<dyn Fn() -> Counts + Send + Sync>,
}

/// What a store has done since it was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Commits, each of which waits for the disk.
    pub(crate) commits: u64,
    pub(crate) statements: u64,
    pub(crate) entries_read: u64,
    pub(crate) entries_written: u64,
    pub(crate) bytes_written: u64,
}

impl Kept {
    /// A file, or a new database of a server.
    pub(crate) fn at(path: PathBuf) -> Self {
        if is_chosen() { Kept::Server(Arc::new(Database::create_aside().unwrap())) } else { Kept::File(path) }
    }

    /// The same for one store alone, without a file: it does nothing by itself.
    pub(crate) fn in_memory(self) -> Self {
        match self {
            Kept::File(_) | Kept::Memory => Kept::Memory,
            Kept::Server(database) | Kept::OwnServer(database) => Kept::OwnServer(database),
        }
    }

    pub(crate) fn open(&self) -> Opened {
        match self {
            Kept::File(path) => sqlite(SqliteStore::open(path).unwrap()),
            Kept::Memory => sqlite(SqliteStore::in_memory().unwrap()),
            Kept::Server(database) => server(database.url(), postgres::Options::default()),
            Kept::OwnServer(database) => {
                let options = postgres::Options {
                    poll_every_ms: NEVER_MS,
                    notify_every_ms: NEVER_MS,
                    ..postgres::Options::default()
                };
                server(database.url(), options)
            }
        }
    }
}

fn sqlite(store: SqliteStore) -> Opened {
    let store = Arc::new(store);
    let counted = Arc::clone(&store);
    let counts = move || {
        let counters = counted.counters();
        Counts {
            commits: counters.transactions,
            statements: counters.statements,
            entries_read: counters.entries_read,
            entries_written: counters.entries_written,
            bytes_written: counters.bytes_written,
        }
    };
    Opened { store, runtime: Handle::current(), counts: Box::new(counts) }
}

fn server(url: String, options: postgres::Options) -> Opened {
    // The wire tells leases by the test's clock; by the server's own, none may end in the middle of a test.
    let lease = Lease { lasts_ms: 600_000, renew_every_ms: 200_000, margin_ms: 120_000 };
    let options = postgres::Options { lease, ..options };
    let opening = std::thread::spawn(move || RUNTIME.block_on(PostgresStore::open(&url, options)));
    let store = Arc::new(opening.join().unwrap().unwrap());
    let counted = Arc::clone(&store);
    let counts = move || {
        let counters = counted.counters();
        Counts {
            commits: counters.appends,
            statements: counters.statements,
            entries_read: counters.entries_read,
            entries_written: counters.entries_written,
            bytes_written: counters.bytes_written,
        }
    };
    Opened { store, runtime: RUNTIME.handle().clone(), counts: Box::new(counts) }
}
