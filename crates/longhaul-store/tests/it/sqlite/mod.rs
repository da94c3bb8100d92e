//! SQLite: the conformance suite on a file and in memory, and what only SQLite does.

mod commits;
mod damage;
mod processes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use longhaul_store::{Append, Appended, Row, SqliteStore, Store, WorkerInfo};
use tempfile::TempDir;
use uuid::Uuid;

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

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn worker(n: u128) -> WorkerInfo {
    WorkerInfo {
        worker: WorkerId(Uuid::from_u128(n)),
        place: "here".to_owned(),
        host: "host.example".to_owned(),
        pid: std::process::id(),
        version: "0.1.0".to_owned(),
        address: None,
        started: Timestamp(1),
        capacity: 0,
        running: 0,
        alive: true,
    }
}

fn entry(n: EntryNo, content: &[u8]) -> SealedEntry {
    SealedEntry {
        n,
        kind: "message".to_owned(),
        at: Timestamp(1),
        record: b"{}".to_vec(),
        content: Some(content.to_vec()),
        hash: Digest::of(&n.to_le_bytes()),
    }
}

fn row(session: SessionId, head: EntryNo) -> Row {
    Row {
        session,
        head,
        head_hash: entry(head, b"").hash,
        state: b"state".to_vec(),
        status: "running".to_owned(),
        archived: false,
        name: None,
        claimable_at: Some(Timestamp(0)),
        owner: None,
        epoch: 0,
        place: "here".to_owned(),
        parent: None,
        labels: BTreeMap::new(),
        created: Timestamp(1),
        updated: Timestamp(1),
    }
}

/// Returns the append of one entry.
fn append(session: SessionId, head: EntryNo, content: &[u8]) -> Append {
    Append {
        session,
        expected_head: head,
        epoch: None,
        entries: vec![entry(head + 1, content)],
        row: row(session, head + 1),
        erase: Vec::new(),
        forget: Vec::new(),
        request: None,
    }
}

async fn create(store: &SqliteStore, session: SessionId) {
    let created = store.create(row(session, 1), vec![entry(1, b"first")], None).await;
    assert_eq!(created, Ok(Appended::Done));
}
