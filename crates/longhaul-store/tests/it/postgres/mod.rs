//! Postgres: the conformance suite, and what only Postgres does.

use std::sync::Arc;

use longhaul_session::id::SessionId;
use longhaul_store::postgres::Options;
use longhaul_store::{Appended, PostgresStore, Store};
use longhaul_test_postgres::Database;

use crate::{append, entry, row, session, worker};

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
