//! Postgres: the conformance suite, and what only Postgres does.

mod batches;
mod hints;
mod leases;
mod lost;
mod opening;
mod proxy;
mod tls;

use std::sync::Arc;

use longhaul_session::id::SessionId;
use longhaul_store::postgres::Options;
use longhaul_store::{Append, Appended, Error, PostgresStore, Store};
use longhaul_test_postgres::Database;

use crate::{entry, row};

/// How often something is looked at, with pauses between the looks, before it is given up: for longer than a minute.
const LOOKS: usize = 1_500;

mod conformance {
    use super::*;

    async fn fresh() -> (Arc<dyn Store>, Database) {
        let (store, database) = super::fresh().await;
        (store, database)
    }

    longhaul_store::conformance_tests!(fresh);
}

/// Opens an empty database of a test's own.
async fn fresh() -> (Arc<PostgresStore>, Database) {
    let database = Database::create().await.unwrap();
    let store = open(&database.url(), Options::default()).await;
    (store, database)
}

async fn open(url: &str, options: Options) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(url, options).await.unwrap())
}

async fn create(store: &PostgresStore, session: SessionId) {
    let created = store.create(row(session, 1), vec![entry(1, b"first")], None).await;
    assert_eq!(created, Ok(Appended::Done));
}

/// Appends as the engine does: again while the fault may pass.
async fn patiently(store: &PostgresStore, append: &Append) -> Result<Appended, Error> {
    let mut result = store.append(append.clone()).await;
    for _ in 0..LOOKS {
        if !matches!(&result, Err(error) if error.is_transient()) {
            break;
        }
        pause().await;
        result = store.append(append.clone()).await;
    }
    result
}

/// Waits until so many stores have looked for growth, which is the last that opening one makes it do.
async fn looked(database: &Database, stores: usize) {
    idle_after(database, "moment", stores).await;
}

/// Waits until so many connections have done a statement with a given part, and nothing after it.
async fn idle_after(database: &Database, part: &str, connections: usize) {
    for _ in 0..LOOKS {
        if database.idle_after(part).await.unwrap() == connections {
            return;
        }
        pause().await;
    }
    panic!("not as many as {connections} wait after {part}");
}

/// Waits a little for something a test polls for.
#[expect(clippy::disallowed_methods, reason = "a real server goes by a real clock")]
async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}
