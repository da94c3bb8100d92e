//! Hints come from other stores too, with notifications and without.

use std::time::Duration;

use longhaul_store::postgres::Options;
use longhaul_store::{Appended, Hint, Store};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use super::{create, fresh, open};
use crate::{append, session};

/// How long a hint may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(100);

/// So rarely that what is heard was a notification.
const NEVER: Options = Options { poll_every_ms: 3_600_000, notify_every_ms: 10, lease: LEASE };
const OFTEN: Options = Options { poll_every_ms: 50, notify_every_ms: 10, lease: LEASE };
const LEASE: longhaul_store::Lease =
    longhaul_store::Lease { lasts_ms: 15_000, renew_every_ms: 5_000, margin_ms: 3_000 };

/// Lets sessions grow without telling anybody.
const GROW: &str = "UPDATE sessions SET head = head + 1, xact = pg_current_xact_id(), \
                    xact_step = pg_current_xact_id()::text::bigint >> 12";

/// Waits for a hint of a session and head.
async fn heard(hints: &mut Receiver<Hint>, n: u128, head: u64) {
    let expected = Hint { session: session(n), head };
    let wait = async { while hints.recv().await.unwrap() != expected {} };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "no hint {expected:?}");
}

#[tokio::test]
async fn another_stores_growth_is_notified() {
    let (one, database) = fresh().await;
    let two = open(&database.url(), NEVER).await;
    let mut hints = two.hints();
    super::looked(&database, 2).await;
    create(&one, session(1)).await;
    heard(&mut hints, 1, 1).await;
    assert_eq!(one.append(append(session(1), 1, b"")).await, Ok(Appended::Done));
    heard(&mut hints, 1, 2).await;
}

#[tokio::test]
async fn growth_is_found_without_any_notification() {
    let (one, database) = fresh().await;
    create(&one, session(1)).await;
    let two = open(&database.url(), OFTEN).await;
    let mut hints = two.hints();
    let client = database.connect().await.unwrap();
    for head in 2..5 {
        client.batch_execute(GROW).await.unwrap();
        heard(&mut hints, 1, head).await;
    }
}

#[tokio::test]
async fn growth_that_commits_late_is_found() {
    let (one, database) = fresh().await;
    for n in 1..=3 {
        create(&one, session(n)).await;
    }
    let two = open(&database.url(), OFTEN).await;
    let mut hints = two.hints();
    let client = database.connect().await.unwrap();
    // An older transaction than those of the others, that ends after they were told.
    client.batch_execute("BEGIN").await.unwrap();
    let first = one.load(session(1)).await.unwrap().unwrap();
    let grow = format!("{GROW} WHERE id = $1");
    client.execute(&grow, &[&first.session.0.as_bytes().to_vec()]).await.unwrap();
    for head in 1..4 {
        for n in [2, 3] {
            assert_eq!(one.append(append(session(n), head, b"")).await, Ok(Appended::Done));
            heard(&mut hints, n, head + 1).await;
        }
        super::pause().await;
    }
    client.batch_execute("COMMIT").await.unwrap();
    heard(&mut hints, 1, 2).await;
}

#[tokio::test]
async fn a_lost_listener_listens_again() {
    let (one, database) = fresh().await;
    create(&one, session(1)).await;
    let two = open(&database.url(), OFTEN).await;
    let mut hints = two.hints();
    let client = database.connect().await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for head in 1..4 {
        client.query(cut, &[]).await.unwrap();
        assert_eq!(one.append(append(session(1), head, b"")).await, Ok(Appended::Done));
        heard(&mut hints, 1, head + 1).await;
    }
}

#[tokio::test]
async fn a_store_that_closes_has_told_others_of_all_it_did() {
    let (_first, database) = fresh().await;
    let two = open(&database.url(), NEVER).await;
    let one = open(&database.url(), Options { notify_every_ms: 3_600_000, ..NEVER }).await;
    super::looked(&database, 3).await;
    let mut hints = two.hints();
    create(&one, session(1)).await;
    heard(&mut hints, 1, 1).await;
    super::idle_after(&database, "pg_notify", 1).await;
    for head in 1..4 {
        assert_eq!(one.append(append(session(1), head, b"")).await, Ok(Appended::Done));
    }
    one.close().await.unwrap();
    let notified = timeout(PATIENCE, hints.recv()).await.unwrap().unwrap();
    assert_eq!(notified, Hint { session: session(1), head: 4 }, "one notification tells of all");
}
