//! Where a world's sessions are kept: in a home of its own, or in a database of Postgres where the tests are told
//! so. Looks at it beside the program, in the one words that both understand.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use longhaul_store::{PostgresStore, SqliteStore, Store, postgres};
use longhaul_test_postgres::{Database, is_chosen};

use crate::world::has_ended;

/// Lets a killed process count as alive for a shorter time. A living one that gets no turn for so long, on a busy
/// machine, loses its sessions: only tests that wait for deaths ask for it.
const SHORT_LEASE: &str = "?longhaul_lease_ms=8000";
/// Longer than a test.
const LONG_LEASE: &str = "?longhaul_lease_ms=3600000";

/// A place for sessions.
pub(crate) enum Kept {
    /// The name of a home in the root, and the file in it.
    Home(PathBuf),
    /// A database, and options of its address.
    Server(Database, &'static str),
}

impl Kept {
    /// A home in a directory, or a new database of a server.
    pub(crate) fn below(root: &Path) -> Self {
        if is_chosen() {
            Kept::Server(Database::create_aside().unwrap(), "")
        } else {
            Kept::Home(root.join("home/sessions.db"))
        }
    }

    /// The same, where a killed process soon counts as dead.
    pub(crate) fn with_short_leases(self) -> Self {
        match self {
            Kept::Home(path) => Kept::Home(path),
            Kept::Server(database, _) => Kept::Server(database, SHORT_LEASE),
        }
    }

    /// The same, where a process loses nothing however long it gets no turn.
    pub(crate) fn with_long_leases(self) -> Self {
        match self {
            Kept::Home(path) => Kept::Home(path),
            Kept::Server(database, _) => Kept::Server(database, LONG_LEASE),
        }
    }

    /// Ends the leases of workers whose processes have ended: by their time, they would last for a while.
    pub(crate) fn end_leases_of_the_dead(&self) {
        let Kept::Server(database, _) = self else { return };
        for pid in self.ask("SELECT pid FROM workers") {
            if has_ended(&pid.to_string()) {
                let end = format!("UPDATE workers SET lease = now() WHERE pid = {pid}");
                database.ask_aside(&end).unwrap();
            }
        }
    }

    /// Tells the program of it, as a person would.
    pub(crate) fn tell(&self, command: &mut Command) {
        match self {
            Kept::Home(_) => command.args(["--home", "home"]),
            Kept::Server(_, _) => command.env("LONGHAUL_STORE", self.address()),
        };
    }

    /// Returns what the program takes for `--store`.
    pub(crate) fn address(&self) -> String {
        match self {
            Kept::Home(path) => path.display().to_string(),
            Kept::Server(database, options) => format!("{}{options}", database.url()),
        }
    }

    /// Returns what people read for it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Kept::Home(path) => path.parent().expect("it is in a home").display().to_string(),
            Kept::Server(database, _) => {
                let url = database.url();
                format!("postgres://{}", url.split_once('@').expect("it names a user").1)
            }
        }
    }

    /// Returns the place of sessions whose place was not named.
    pub(crate) fn place(&self) -> String {
        match self {
            Kept::Home(_) => "local".to_owned(),
            Kept::Server(_, _) => rustix::system::uname().nodename().to_str().unwrap().to_owned(),
        }
    }

    /// Opens it beside the program.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Kept::Home(path) => {
                std::fs::create_dir_all(path.parent().expect("it is in a home")).unwrap();
                Arc::new(SqliteStore::open(path).unwrap())
            }
            Kept::Server(_, _) => {
                Arc::new(PostgresStore::open(&self.address(), postgres::Options::default()).await.unwrap())
            }
        }
    }

    /// Runs a statement behind the program's back. Returns the first column of its rows, numbers all.
    pub(crate) fn ask(&self, sql: &str) -> Vec<i64> {
        match self {
            Kept::Home(path) => {
                let database = rusqlite::Connection::open(path).unwrap();
                let mut statement = database.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Kept::Server(database, _) => {
                let rows = database.ask_aside(sql).unwrap();
                rows.iter().map(|number| number.parse().unwrap()).collect()
            }
        }
    }

    /// Returns the files or tables that hold a text: nothing that is deleted is looked for in a server's files.
    pub(crate) fn holding(&self, text: &str) -> Vec<String> {
        match self {
            Kept::Home(path) => files_holding(path.parent().expect("it is in a home"), text),
            Kept::Server(database, _) => tables_holding(database, text),
        }
    }
}

fn files_holding(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if std::fs::read(&path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn tables_holding(database: &Database, text: &str) -> Vec<String> {
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_ .,".contains(&byte)), "{text:?}");
    // As text, a row shows its bytes in hexadecimal.
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let mut tables = database.ask_aside(tables).unwrap();
    assert!(tables.iter().any(|table| table == "entries"), "{tables:?}");
    tables.retain(|table| {
        let rows = format!(
            "SELECT count(*) FROM {table} AS row \
             WHERE position('{text}' IN row::text) > 0 OR position('{hex}' IN row::text) > 0"
        );
        database.ask_aside(&rows).unwrap() != ["0"]
    });
    tables
}
