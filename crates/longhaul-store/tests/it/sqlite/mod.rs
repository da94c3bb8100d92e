//! SQLite: the conformance suite on a file and in memory, and what only SQLite does.

mod commits;
mod damage;
mod processes;

use std::path::PathBuf;

use longhaul_session::id::SessionId;
use longhaul_store::{Appended, SqliteStore, Store};
use tempfile::TempDir;

use crate::{append, entry, row, session, worker};

mod on_file {
    use std::sync::Arc;

    use longhaul_store::{SqliteStore, Store};
    use tempfile::TempDir;

    async fn fresh() -> (Arc<dyn Store>, TempDir) {
        let (directory, path) = super::place();
        (Arc::new(SqliteStore::open(path).unwrap()), directory)
    }

    longhaul_store::conformance_tests!(fresh);
}

mod in_memory {
    use std::sync::Arc;

    use longhaul_store::{SqliteStore, Store};

    async fn fresh() -> (Arc<dyn Store>, ()) {
        (Arc::new(SqliteStore::in_memory().unwrap()), ())
    }

    longhaul_store::conformance_tests!(fresh);

    #[tokio::test]
    async fn the_suite_runs_as_one_call_too() {
        longhaul_store::conformance::run_all(fresh).await.unwrap();
    }
}

/// Returns a directory and the path of a database in it that does not exist yet.
fn place() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("longhaul.db");
    (directory, path)
}

async fn create(store: &SqliteStore, session: SessionId) {
    let created = store.create(row(session, 1), vec![entry(1, b"first")], None).await;
    assert_eq!(created, Ok(Appended::Done));
}
