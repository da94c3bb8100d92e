//! Appends that wait together go together, and stay each other's strangers.

use std::sync::Arc;

use longhaul_session::id::EntryNo;
use longhaul_store::postgres::Options;
use longhaul_store::{Append, Appended, Error, Lease, RequestId, Row, Store};

use super::proxy::Proxy;
use super::{LOOKS, create, fresh, idle_after, looked, open};
use crate::{append, row, session};

/// So rarely that nobody looks for growth meanwhile, or notifies of it more than once.
const NEVER: Options = Options { poll_every_ms: 3_600_000, notify_every_ms: 3_600_000, lease: LEASE };
const LEASE: Lease = Lease { lasts_ms: 3_600_000, renew_every_ms: 1_200_000, margin_ms: 720_000 };

#[tokio::test]
async fn one_append_is_one_statement_and_one_round_trip() {
    let (_first, database) = fresh().await;
    let proxy = Proxy::before(&database.url()).await;
    let store = open(&proxy.url(&database.url()), NEVER).await;
    looked(&database, 2).await;
    create(&store, session(1)).await;
    idle_after(&database, "pg_notify", 1).await;
    let at = |head: EntryNo| {
        let request = head.is_multiple_of(2).then(|| RequestId::new(head.to_string()).unwrap());
        Append { request, ..append(session(1), head, b"content") }
    };
    // Connected and prepared, with a request and without.
    for head in [1, 2] {
        assert_eq!(store.append(at(head)).await, Ok(Appended::Done));
    }
    let (statements, round_trips) = (store.counters().statements, proxy.round_trips());
    for head in 3..13 {
        assert_eq!(store.append(at(head)).await, Ok(Appended::Done));
    }
    assert_eq!(store.counters().statements - statements, 10);
    assert_eq!(proxy.round_trips() - round_trips, 10);
}

#[tokio::test]
async fn an_append_changes_no_index_of_sessions() {
    const APPENDS: u64 = 50;
    let (store, database) = fresh().await;
    create(&store, session(1)).await;
    let client = database.connect().await.unwrap();
    // What others do on the server moves these on.
    let steps = async || -> i64 {
        let step = "SELECT pg_current_xact_id()::text::bigint >> 12";
        client.query_one(step, &[]).await.unwrap().get(0)
    };
    let before = steps().await;
    for head in 1..=APPENDS {
        let mut append = append(session(1), head, b"content");
        append.row.updated.0 += i64::try_from(head).unwrap();
        assert_eq!(store.append(append).await, Ok(Appended::Done));
    }
    let ended = u64::try_from(steps().await - before).unwrap();
    // The server counts them when the connection has ended, if not before.
    store.close().await.unwrap();
    let counted =
        "SELECT n_tup_upd::text, n_tup_hot_upd::text FROM pg_stat_user_tables WHERE relname = 'sessions'";
    for _ in 0..LOOKS {
        let row = client.query_one(counted, &[]).await.unwrap();
        let [updated, in_place] = [0, 1].map(|at| row.get::<_, &str>(at).parse::<u64>().unwrap());
        if updated == APPENDS {
            assert!(in_place + ended + 2 >= APPENDS, "{in_place} of {APPENDS}; {ended} steps have ended");
            return;
        }
        super::pause().await;
    }
    panic!("the server does not count");
}

#[tokio::test]
async fn many_sessions_share_statements() {
    const SESSIONS: u128 = 64;
    const APPENDS: EntryNo = 10;
    let (_first, database) = fresh().await;
    let store = open(&database.url(), NEVER).await;
    for n in 0..SESSIONS {
        create(&store, session(n)).await;
    }
    let before = store.counters();
    let mut writers = Vec::new();
    for n in 0..SESSIONS {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            for head in 1..=APPENDS {
                assert_eq!(store.append(append(session(n), head, b"")).await, Ok(Appended::Done));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let (appends, statements) =
        (store.counters().appends - before.appends, store.counters().statements - before.statements);
    assert_eq!(appends, 640);
    assert!(statements * 4 < appends, "{statements} statements for {appends} appends");
}

/// On the threads of the program, where the task that is woken last runs first.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sessions_that_were_answered_together_append_together_again() {
    const SESSIONS: u128 = 16;
    const APPENDS: EntryNo = 100;
    let (_first, database) = fresh().await;
    let store = open(&database.url(), NEVER).await;
    for n in 0..SESSIONS {
        create(&store, session(n)).await;
    }
    let before = store.counters().statements;
    let writers = (0..SESSIONS).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for head in 1..=APPENDS {
                assert_eq!(store.append(append(session(n), head, b"")).await, Ok(Appended::Done));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let statements = store.counters().statements - before;
    // Where one of them goes alone each time, there are 200 and more.
    assert!(statements < 160, "{statements} statements: one for each time that all append is 100");
}

#[tokio::test]
async fn in_a_batch_each_append_has_its_own_fate() {
    let (store, _database) = fresh().await;
    let mut appends = Vec::new();
    for n in 1..=9 {
        create(&store, session(n)).await;
        appends.push(append(session(n), 1, b"content"));
    }
    appends[1].expected_head = 2;
    appends[1].entries[0].n = 3;
    appends[1].row.head = 3;
    appends[2].epoch = Some(1);
    appends[3].session = session(99);
    appends[3].row.session = session(99);
    // No text of this database can hold it: the whole statement fails.
    appends[4].row.name = Some("zero \0 byte".to_owned());
    let writers = appends.iter().cloned().map(|append| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.append(append).await })
    });
    let mut answers = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        answers.push(writer.await.unwrap());
    }
    assert_eq!(answers[1], Ok(Appended::Conflict { head: 1 }));
    assert_eq!(answers[2], Ok(Appended::Fenced { epoch: 0 }));
    assert_eq!(answers[3], Err(Error::NoSuchSession(session(99))));
    assert!(matches!(answers[4], Err(Error::Invalid { .. })), "{:?}", answers[4]);
    for n in [0, 5, 6, 7, 8] {
        assert_eq!(answers[n], Ok(Appended::Done), "append {n}");
    }
    for n in 1..=9 {
        let head = store.load(session(n)).await.unwrap().unwrap().head;
        let written = answers[usize::try_from(n).unwrap() - 1] == Ok(Appended::Done);
        assert_eq!(head, if written { 2 } else { 1 }, "session {n}");
    }
}

#[tokio::test]
async fn two_stores_write_to_the_same_sessions_without_a_loss() {
    const SESSIONS: u128 = 8;
    let (one, database) = fresh().await;
    let two = open(&database.url(), Options::default()).await;
    for n in 0..SESSIONS {
        create(&one, session(n)).await;
    }
    let mut writers = Vec::new();
    for writer in 0..32_u128 {
        let store = Arc::clone(if writer.is_multiple_of(2) { &one } else { &two });
        writers.push(tokio::spawn(async move {
            let (id, mut won) = (session(writer % SESSIONS), 0);
            for _ in 0..10_000 {
                let head = store.load(id).await.unwrap().unwrap().head;
                match store.append(append(id, head, b"")).await.unwrap() {
                    Appended::Done => won += 1,
                    Appended::Conflict { head: newer } => assert!(newer > head),
                    other @ (Appended::Fenced { .. } | Appended::Repeated { .. }) => panic!("{other:?}"),
                }
                if won == 5 {
                    return;
                }
            }
            panic!("it never wins");
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for n in 0..SESSIONS {
        let head = two.load(session(n)).await.unwrap().unwrap().head;
        assert_eq!(head, 1 + 4 * 5, "each win is an entry");
        assert_eq!(one.entries(session(n), 1..=head).await.unwrap().len() as u64, head);
    }
}

#[tokio::test]
async fn artifacts_survive_those_who_begin_and_end_using_them_at_once() {
    let (one, database) = fresh().await;
    let two = open(&database.url(), Options::default()).await;
    let content = vec![7; 2_000_000];
    for n in [1, 2] {
        create(&one, session(n)).await;
    }
    let users = [(one, 1), (two, 2)].map(|(store, n)| {
        let content = content.clone();
        tokio::spawn(async move {
            for head in 1..=20 {
                let digest = store.put_artifact(session(n), content.clone()).await.unwrap();
                assert!(store.artifact(digest).await.unwrap().is_some(), "while it is used it is there");
                let forget = Append { forget: vec![digest], ..append(session(n), head, b"") };
                assert_eq!(store.append(forget).await, Ok(Appended::Done));
            }
        })
    });
    for user in users {
        user.await.unwrap();
    }
    let client = database.connect().await.unwrap();
    let left = client.query("SELECT FROM artifacts", &[]).await.unwrap();
    assert_eq!(left.len(), 0, "nobody uses it any more");
}

#[tokio::test]
async fn a_closed_store_has_finished_what_it_accepted() {
    let (store, database) = fresh().await;
    for n in 0..50 {
        create(&store, session(n)).await;
    }
    let mut writers = Vec::new();
    for n in 0..50 {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move { store.append(append(session(n), 1, b"")).await }));
    }
    tokio::task::yield_now().await;
    store.close().await.unwrap();
    let mut done = 0;
    for writer in writers {
        match writer.await.unwrap() {
            Ok(Appended::Done) => done += 1,
            other => assert!(matches!(other, Err(Error::Closed { .. })), "{other:?}"),
        }
    }
    let client = database.connect().await.unwrap();
    let grown = client.query("SELECT FROM sessions WHERE head = 2", &[]).await.unwrap();
    assert_eq!(grown.len(), done);
    let others =
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..LOOKS {
        if client.query(others, &[]).await.unwrap().is_empty() {
            return;
        }
        super::pause().await;
    }
    panic!("a closed store stays connected");
}

#[tokio::test]
async fn large_appends_do_not_wait_in_one_statement() {
    let (store, _database) = fresh().await;
    let mut writers = Vec::new();
    for n in 0..16 {
        create(&store, session(n)).await;
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            let state = vec![1; 1_000_000];
            let large = Append { row: Row { state, ..row(session(n), 2) }, ..append(session(n), 1, b"") };
            store.append(large).await
        }));
    }
    for writer in writers {
        assert_eq!(writer.await.unwrap(), Ok(Appended::Done));
    }
    assert!(store.counters().bytes_written > 16_000_000);
}
