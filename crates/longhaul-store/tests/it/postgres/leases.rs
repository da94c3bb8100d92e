//! Who lives is told by leases, by the server's clock.

use longhaul_session::id::{SessionId, Timestamp, WorkerId};
use longhaul_store::postgres::Options;
use longhaul_store::{Append, Appended, Error, Lease, PostgresStore, Row, Store};
use longhaul_test_postgres::Database;

use super::{LOOKS, fresh, open, pause};
use crate::{append, entry, row, session, worker};

const SHORT: Options = Options {
    lease: Lease { lasts_ms: 1_000, renew_every_ms: 300, margin_ms: 200 },
    poll_every_ms: 1_000,
    notify_every_ms: 10,
};

async fn owned(store: &PostgresStore, n: u128, owner: WorkerId) {
    let row = Row { owner: Some(owner), epoch: 1, ..row(session(n), 1) };
    assert_eq!(store.create(row, vec![entry(1, b"")], None).await, Ok(Appended::Done));
}

async fn claimable(store: &PostgresStore) -> Vec<SessionId> {
    let rows = store.claimable(Timestamp(10), "here", 10).await.unwrap();
    rows.into_iter().map(|row| row.session).collect()
}

/// Makes leases end now: the server's clock cannot be set.
async fn end_leases(database: &Database, table: &str) {
    let client = database.connect().await.unwrap();
    client.batch_execute(&format!("UPDATE {table} SET lease = now()")).await.unwrap();
}

#[tokio::test]
async fn an_owner_that_does_not_renew_is_dead_when_its_lease_ends() {
    let (other, database) = fresh().await;
    let store = open(&database.url(), SHORT).await;
    assert_eq!(store.lease(), Some(SHORT.lease));
    let me = worker(1);
    let _announced = store.announce(me.clone()).await.unwrap();
    owned(&store, 1, me.worker).await;
    for _ in 0..LOOKS {
        if !other.owner_is_alive(me.worker).await.unwrap() {
            break;
        }
        pause().await;
    }
    assert!(!other.owner_is_alive(me.worker).await.unwrap());
    assert_eq!(claimable(&other).await, [session(1)]);
    assert!(!other.workers().await.unwrap()[0].alive);
    // For longer: the end of a short lease might come before the next look.
    assert_eq!(other.renew(me.worker, &[session(1)]).await.unwrap(), [], "nobody has taken it");
    assert!(other.owner_is_alive(me.worker).await.unwrap());
}

#[tokio::test]
async fn a_renewed_owner_lives() {
    let (store, database) = fresh().await;
    let me = worker(1);
    let _announced = store.announce(me.clone()).await.unwrap();
    owned(&store, 1, me.worker).await;
    for table in ["workers", "sessions"] {
        end_leases(&database, table).await;
        assert_eq!(claimable(&store).await, [session(1)], "its lease of {table} is over");
        assert_eq!(store.renew(me.worker, &[session(1)]).await.unwrap(), []);
        assert_eq!(claimable(&store).await, [], "renewed");
    }
}

#[tokio::test]
async fn an_acquisition_begins_a_lease_and_other_appends_do_not() {
    let (store, database) = fresh().await;
    let (me, heir) = (worker(1), worker(2));
    let _announced = (store.announce(me.clone()).await.unwrap(), store.announce(heir.clone()).await.unwrap());
    owned(&store, 1, me.worker).await;
    end_leases(&database, "sessions").await;
    let mut step = append(session(1), 1, b"");
    step.row = Row { owner: Some(me.worker), epoch: 1, ..step.row };
    step.epoch = Some(1);
    assert_eq!(store.append(step).await, Ok(Appended::Done));
    assert_eq!(claimable(&store).await, [session(1)], "a step renews nothing");
    let mut acquire = append(session(1), 2, b"");
    acquire.row = Row { owner: Some(heir.worker), epoch: 2, ..acquire.row };
    assert_eq!(store.append(acquire).await, Ok(Appended::Done));
    assert_eq!(claimable(&store).await, [], "it is the heir's");
    assert_eq!(store.renew(me.worker, &[session(1)]).await.unwrap(), [session(1)]);
    end_leases(&database, "sessions").await;
    let mut anew = append(session(1), 3, b"");
    anew.row = Row { owner: Some(heir.worker), epoch: 3, ..anew.row };
    assert_eq!(store.append(anew).await, Ok(Appended::Done));
    assert_eq!(claimable(&store).await, [], "its own worker has acquired it anew");
    let late = Append { epoch: Some(1), ..append(session(1), 4, b"") };
    assert_eq!(store.append(late).await, Ok(Appended::Fenced { epoch: 3 }));
}

#[tokio::test]
async fn a_forgotten_worker_that_renews_is_known_again() {
    let (store, database) = fresh().await;
    let me = worker(1);
    let _announced = store.announce(me.clone()).await.unwrap();
    owned(&store, 1, me.worker).await;
    end_leases(&database, "workers").await;
    let other = open(&database.url(), Options::default()).await;
    let _other = other.announce(worker(2)).await.unwrap();
    assert_eq!(other.workers().await.unwrap(), [worker(2)], "the dead are forgotten");
    assert_eq!(store.renew(me.worker, &[session(1)]).await.unwrap(), []);
    assert!(other.owner_is_alive(me.worker).await.unwrap());
    assert_eq!(claimable(&other).await, []);
}

#[tokio::test]
async fn a_worker_that_ends_well_is_dead_to_all_at_once() {
    let (store, database) = fresh().await;
    let other = open(&database.url(), Options::default()).await;
    let me = worker(1);
    let announced = store.announce(me.clone()).await.unwrap();
    let twice = other.announce(me.clone()).await.map(drop);
    assert_eq!(twice, Err(Error::AlreadyAnnounced(me.worker)));
    owned(&store, 1, me.worker).await;
    assert_eq!(claimable(&other).await, []);
    drop(announced);
    store.close().await.unwrap();
    assert_eq!(claimable(&other).await, [session(1)], "a closed store has taken it back");
    assert_eq!(other.workers().await.unwrap(), []);
}
