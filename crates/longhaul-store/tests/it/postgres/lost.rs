//! Connections that are lost, at every bad moment: nothing is lost with them, and nothing is done twice.

use std::sync::Arc;

use longhaul_store::postgres::Options;
use longhaul_store::{Append, Appended, Deleted, Error, PostgresStore, Store};
use longhaul_test_postgres::{Database, Server, Settings};

use super::proxy::{Cut, Proxy};
use super::{LOOKS, create, fresh, open, patiently, pause};
use crate::{append, entry, row, session, worker};

/// What the tests look for in what is sent.
const MARK: &str = "an unmistakable kind";

/// The end of a transaction as it is sent: its beginning says `COMMITTED`.
const COMMIT: &str = "COMMIT\0";

/// Opens a store through a proxy, with one session that has been appended to.
async fn behind_a_proxy() -> (Arc<PostgresStore>, Proxy, Database) {
    let (first, database) = fresh().await;
    create(&first, session(1)).await;
    let proxy = Proxy::before(&database.url()).await;
    let store = open(&proxy.url(&database.url()), Options::default()).await;
    assert_eq!(store.append(append(session(1), 1, b"")).await, Ok(Appended::Done));
    (store, proxy, database)
}

fn marked() -> Append {
    let mut append = append(session(1), 2, b"content");
    append.entries[0].kind = MARK.to_owned();
    append
}

async fn assert_appended_once(store: &PostgresStore) {
    let entries = store.entries(session(1), 1..=99).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(entries[2].kind, MARK);
    assert_eq!(store.load(session(1)).await.unwrap().unwrap().head, 3);
}

#[tokio::test]
async fn an_append_that_never_arrived_is_done_once() {
    let (store, proxy, _database) = behind_a_proxy().await;
    proxy.cut(Cut::Before, MARK);
    assert_eq!(store.append(marked()).await, Ok(Appended::Done));
    assert_appended_once(&store).await;
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_done_once() {
    let (store, proxy, _database) = behind_a_proxy().await;
    proxy.cut(Cut::After, MARK);
    assert_eq!(store.append(marked()).await, Ok(Appended::Done));
    assert_appended_once(&store).await;
    assert_eq!(store.append(marked()).await, Ok(Appended::Conflict { head: 3 }), "that is settled");
}

#[tokio::test]
async fn an_append_that_arrives_after_it_was_made_again_is_done_once() {
    let (store, proxy, _database) = behind_a_proxy().await;
    proxy.cut(Cut::Held, MARK);
    assert_eq!(store.append(marked()).await, Ok(Appended::Done));
    proxy.let_go().await;
    assert_appended_once(&store).await;
}

#[tokio::test]
async fn an_append_that_commits_after_its_connection_was_lost_is_done_once() {
    let (store, proxy, database) = behind_a_proxy().await;
    let client = database.connect().await.unwrap();
    client.batch_execute("BEGIN; SELECT FROM sessions FOR UPDATE").await.unwrap();
    let appending = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.append(marked()).await })
    };
    let waiting = |count| {
        let database = &database;
        async move {
            let client = database.connect().await.unwrap();
            let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
            for _ in 0..LOOKS {
                if client.query(sql, &[]).await.unwrap().len() == count {
                    return;
                }
                pause().await;
            }
            panic!("there are not {count} who wait");
        }
    };
    waiting(1).await;
    proxy.cut_all();
    waiting(2).await;
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(appending.await.unwrap(), Ok(Appended::Done));
    assert_appended_once(&store).await;
}

#[tokio::test]
async fn an_append_in_doubt_after_a_long_outage_is_settled_when_it_is_made_again() {
    for cut in [Cut::Before, Cut::After] {
        let (store, proxy, _database) = behind_a_proxy().await;
        proxy.cut(cut, MARK);
        proxy.close(true);
        let error = store.append(marked()).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error:?}");
        proxy.close(false);
        assert_eq!(store.append(marked()).await, Ok(Appended::Done), "{cut:?}");
        assert_appended_once(&store).await;
        assert_eq!(store.append(marked()).await, Ok(Appended::Conflict { head: 3 }), "that is settled");
    }
}

#[tokio::test]
async fn another_who_was_faster_is_not_taken_for_oneself() {
    let (store, proxy, database) = behind_a_proxy().await;
    let other = open(&database.url(), Options::default()).await;
    proxy.cut(Cut::Before, MARK);
    proxy.close(true);
    assert!(store.append(marked()).await.is_err());
    let mut theirs = append(session(1), 2, b"theirs");
    theirs.entries[0].hash.0 = [7; 32];
    theirs.row.head_hash.0 = [7; 32];
    assert_eq!(other.append(theirs).await, Ok(Appended::Done));
    proxy.close(false);
    assert_eq!(store.append(marked()).await, Ok(Appended::Conflict { head: 3 }));
}

#[tokio::test]
async fn what_is_not_a_plain_append_is_done_once_too() {
    let (store, proxy, _database) = behind_a_proxy().await;
    proxy.cut(Cut::After, COMMIT);
    let content = vec![3; 2_000_000];
    let mut large = append(session(1), 2, &content);
    large.erase = vec![2];
    assert_eq!(store.append(large).await, Ok(Appended::Done));
    let entries = store.entries(session(1), 2..=9).await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].content.is_none() && entries[1].content == Some(content));
    proxy.cut(Cut::After, COMMIT);
    let created = store.create(row(session(2), 1), vec![entry(1, b"")], None).await;
    assert_eq!(created, Ok(Appended::Done));
    proxy.cut(Cut::After, COMMIT);
    assert_eq!(store.delete(session(2)).await, Ok(Deleted::Done));
    proxy.cut(Cut::After, "host.example");
    assert_eq!(store.announce(worker(1)).await.map(drop), Ok(()));
}

#[tokio::test]
async fn reads_bear_a_cut_connection() {
    let (store, proxy, _database) = behind_a_proxy().await;
    for _ in 0..3 {
        proxy.cut_all();
        assert_eq!(store.load(session(1)).await.unwrap().unwrap().head, 2);
        assert_eq!(store.entries(session(1), 1..=9).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn work_goes_on_after_the_server_was_restarted_and_has_crashed() {
    let server = tokio::task::spawn_blocking(|| Server::start(&Settings::default())).await.unwrap().unwrap();
    let database = Database::create_on(&server.url()).await.unwrap();
    let store = open(&database.url(), Options { poll_every_ms: 50, ..Options::default() }).await;
    let other = open(&database.url(), Options { poll_every_ms: 50, ..Options::default() }).await;
    let mut hints = other.hints();
    for n in 0..4 {
        create(&store, session(n)).await;
    }
    let writers = [0, 1, 2, 3].map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for head in 1..=60 {
                let appended = patiently(&store, &append(session(n), head, b"")).await;
                assert_eq!(appended, Ok(Appended::Done), "entry {} of session {n}", head + 1);
                pause().await;
            }
        })
    });
    let restarts = tokio::task::spawn_blocking(move || {
        for stop in [Server::stop, Server::crash] {
            stop(&server).unwrap();
            server.start_again().unwrap();
        }
        server
    });
    let server = restarts.await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    for n in 0..4 {
        assert_eq!(store.entries(session(n), 1..=99).await.unwrap().len(), 61, "session {n}");
    }
    while hints.recv().await.unwrap().head != 61 {}
    drop(database);
    drop(server);
}
