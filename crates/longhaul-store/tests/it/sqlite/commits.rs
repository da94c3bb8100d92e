//! How writes become commits, and what they cost.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::join_all;
use longhaul_store::{Append, Appended, Error, SqliteStore, Store};
use rusqlite::Connection;

use super::{append, create, entry, place, row, session};

/// Does appends while another connection writes, so that all of them wait together.
async fn do_together(store: &SqliteStore, path: &Path, appends: Vec<Append>) -> Vec<Result<Appended, Error>> {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = pin!(join_all(appends.into_iter().map(|it| store.append(it))));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "the file is not ours to write");
    other.execute_batch("COMMIT").unwrap();
    waiting.await
}

#[tokio::test]
async fn appends_that_wait_share_a_transaction() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    for n in 1..=50 {
        create(&store, session(n)).await;
    }
    let before = store.counters();
    let appends = (1..=50).map(|n| append(session(n), 1, b"second")).collect();
    let done = do_together(&store, &path, appends).await;
    assert!(done.iter().all(|it| *it == Ok(Appended::Done)), "{done:?}");
    let after = store.counters();
    assert_eq!(after.transactions - before.transactions, 1);
    assert_eq!(after.entries_written - before.entries_written, 50);
}

#[tokio::test]
async fn an_append_sees_what_the_same_transaction_did_before_it() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    create(&store, session(1)).await;
    let appends = vec![
        append(session(1), 1, b"second"),
        append(session(1), 1, b"too late"),
        append(session(1), 2, b"third"),
    ];
    let done = do_together(&store, &path, appends).await;
    let conflict = Ok(Appended::Conflict { head: 2 });
    assert_eq!(done, [Ok(Appended::Done), conflict, Ok(Appended::Done)]);
}

#[tokio::test]
async fn a_failing_append_does_not_fail_its_neighbours() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    for n in 1..=9 {
        create(&store, session(n)).await;
    }
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON entries WHEN NEW.content = CAST('bad' AS BLOB) \
             BEGIN SELECT RAISE(ABORT, 'a bad entry'); END",
        )
        .unwrap();
    let content = |n| if n == 5 { b"bad".as_slice() } else { b"good" };
    let appends = (1..=9).map(|n| append(session(n), 1, content(n))).collect();
    let done = do_together(&store, &path, appends).await;
    for (n, done) in (1..).zip(done) {
        let head = store.load(session(n)).await.unwrap().unwrap().head;
        let entries = store.entries(session(n), 1..=9).await.unwrap();
        if n == 5 {
            assert!(matches!(done, Err(Error::Database { .. })), "{done:?}");
            assert_eq!((head, entries.len()), (1, 1), "nothing of it is there");
        } else {
            assert_eq!(done, Ok(Appended::Done), "session {n}");
            assert_eq!((head, entries.len()), (2, 2), "session {n}");
        }
    }
}

#[tokio::test]
async fn a_step_costs_the_same_early_and_late() {
    let store = SqliteStore::in_memory().unwrap();
    create(&store, session(1)).await;
    let mut costs = Vec::new();
    for head in 1..=2_000 {
        let before = store.counters();
        let done = store.append(append(session(1), head, b"the same")).await;
        assert_eq!(done, Ok(Appended::Done));
        let after = store.counters();
        assert_eq!(after.transactions - before.transactions, 1);
        costs.push((after.statements - before.statements, after.bytes_written - before.bytes_written));
    }
    assert_eq!(costs[0].0, 4, "begin, update, insert, commit");
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{:?} {:?}", costs[0], costs[1_999]);
}

#[tokio::test]
async fn an_append_writes_three_pages_and_seldom_one_more() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    let log = path.with_extension("db-wal");
    create(&store, session(1)).await;
    let before = std::fs::metadata(&log).unwrap().len();
    for head in 1..=100 {
        let done = store.append(append(session(1), head, &[b'x'; 700])).await;
        assert_eq!(done, Ok(Appended::Done));
    }
    let frames = (std::fs::metadata(&log).unwrap().len() - before) / (24 + 4_096);
    // The row, the entry, its number; and now and then a new page with what leads to it.
    assert!((300..400).contains(&frames), "{frames} pages for 100 appends");
}

#[tokio::test]
async fn a_large_content_is_written_compressed_and_once() {
    let store = SqliteStore::in_memory().unwrap();
    create(&store, session(1)).await;
    let text = b"again and again ".repeat(200_000);
    let before = store.counters().bytes_written;
    for head in 1..=2 {
        let done = store.append(append(session(1), head, &text)).await;
        assert_eq!(done, Ok(Appended::Done));
    }
    let written = store.counters().bytes_written - before;
    assert!(written < 200_000, "{written} bytes for two times {}", text.len());
}

#[tokio::test]
async fn a_read_does_not_wait_for_a_writer() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    create(&store, session(1)).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; DELETE FROM entries").unwrap();
    let mut waiting = pin!(store.append(append(session(1), 1, b"second")));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!(store.entries(session(1), 1..=9).await.unwrap(), [entry(1, b"first")]);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waiting.await, Ok(Appended::Done));
}

#[tokio::test]
async fn a_file_that_stays_locked_is_reported_busy_to_all_who_wait() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    create(&store, session(1)).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let appends = (0..20).map(|_| store.append(append(session(1), 1, b"second")));
    for done in join_all(appends).await {
        let error = done.unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error:?}");
        assert!(error.is_transient());
    }
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(store.append(append(session(1), 1, b"second")).await, Ok(Appended::Done));
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_is_whole_or_absent() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    create(&store, session(1)).await;
    {
        let mut abandoned = pin!(store.append(append(session(1), 1, b"second")));
        let _ = futures_util::poll!(abandoned.as_mut());
    }
    let next = store.append(append(session(1), 1, b"another second")).await;
    let entries = store.entries(session(1), 1..=9).await.unwrap();
    assert_eq!(next, Ok(Appended::Conflict { head: 2 }), "it was accepted before");
    assert_eq!(entries, [entry(1, b"first"), entry(2, b"second")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_before_close_is_there_after_reopening() {
    let (_directory, path) = place();
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    create(&store, session(1)).await;
    let mut writers = Vec::new();
    for n in 2..=60 {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            let created = store.create(row(session(n), 1), vec![entry(1, b"first")], None).await;
            (n, created)
        }));
    }
    store.close().await.unwrap();
    let reopened = SqliteStore::open(&path).unwrap();
    for writer in writers {
        let (n, created) = writer.await.unwrap();
        let there = reopened.load(session(n)).await.unwrap().is_some();
        match created {
            Ok(appended) => assert!(appended == Appended::Done && there, "session {n}"),
            Err(error) => {
                assert!(matches!(error, Error::Closed { .. }), "{error:?}");
                assert!(!there, "session {n} was refused and is there");
            }
        }
    }
}

#[tokio::test]
async fn erased_content_is_not_left_in_the_file() {
    let (directory, path) = place();
    let secret = b"hunter2-correct-horse-battery-staple";
    let holds_secret = || {
        std::fs::read_dir(directory.path()).unwrap().any(|file| {
            let file = file.unwrap().path();
            file.is_file() && std::fs::read(file).unwrap().windows(secret.len()).any(|it| it == secret)
        })
    };
    let store = SqliteStore::open(&path).unwrap();
    create(&store, session(1)).await;
    assert_eq!(store.append(append(session(1), 1, &secret.repeat(1_000))).await, Ok(Appended::Done));
    assert!(holds_secret(), "the test can see it");
    let redaction = Append { erase: vec![2], ..append(session(1), 2, b"redacted") };
    assert_eq!(store.append(redaction).await, Ok(Appended::Done));
    store.close().await.unwrap();
    assert!(!holds_secret());
}
