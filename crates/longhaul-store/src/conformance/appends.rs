//! Appends: one wins each head, fences hold, requests are done once.

use std::sync::Arc;

use longhaul_session::id::{EntryNo, WorkerId};
use uuid::Uuid;

use super::{create, entry, is_invalid, loaded, next, records, request, row, session};
use crate::{Append, Appended, Error, Row, Store};

/// An append to the head it was decided on is done, and all of it is there.
pub async fn an_append_at_the_head_is_done(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let before = create(&store, id, 2).await?;
    let mut append = next(&before);
    append.entries.push(entry(id, 4));
    append.row = Row { state: b"new".to_vec(), status: "running".to_owned(), ..row(id, 4) };
    assert_eq!(store.append(append.clone()).await?, Appended::Done);
    assert_eq!(loaded(&store, id).await?, append.row);
    assert_eq!(store.entries(id, 3..=4).await?, append.entries);
    Ok(())
}

/// An append to any other head writes nothing and says where the head is.
pub async fn an_append_at_another_head_conflicts(store: Arc<dyn Store>) -> Result<(), Error> {
    let first = create(&store, session(1), 1).await?;
    let second = next(&first);
    assert_eq!(store.append(second.clone()).await?, Appended::Done);
    assert_eq!(store.append(second.clone()).await?, Appended::Conflict { head: 2 });
    let ahead = next(&row(session(1), 5));
    assert_eq!(store.append(ahead).await?, Appended::Conflict { head: 2 });
    assert_eq!(loaded(&store, session(1)).await?, second.row);
    Ok(())
}

/// Entries are numbered without gaps, from the first.
pub async fn an_append_that_leaves_a_gap_is_refused(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let created = store.create(row(id, 2), vec![entry(id, 2)], None).await;
    assert!(is_invalid(&created), "a log begins with entry 1");
    assert!(is_invalid(&store.create(row(id, 1), Vec::new(), None).await), "no entries");
    let before = create(&store, id, 1).await?;
    for numbers in [&[3][..], &[2, 4], &[2, 2], &[3, 2], &[1, 2], &[]] {
        let mut append = next(&before);
        append.entries = numbers.iter().map(|n| entry(id, *n)).collect();
        append.row = row(id, numbers.last().copied().unwrap_or(2));
        assert!(is_invalid(&store.append(append).await), "entries {numbers:?} after entry 1");
    }
    assert_eq!(loaded(&store, id).await?, before);
    Ok(())
}

/// The row's head is the last entry, its hash included.
pub async fn a_row_that_is_not_the_last_entrys_is_refused(store: Arc<dyn Store>) -> Result<(), Error> {
    let before = create(&store, session(1), 1).await?;
    let good = next(&before);
    let rows = [
        Row { head: 3, ..good.row.clone() },
        Row { head_hash: before.head_hash, ..good.row.clone() },
        Row { session: session(2), ..good.row.clone() },
    ];
    for row in rows {
        assert!(is_invalid(&store.append(Append { row, ..good.clone() }).await));
    }
    assert_eq!(store.append(good).await?, Appended::Done);
    Ok(())
}

/// A session that does not exist cannot be appended to or read.
pub async fn an_append_to_no_session_is_an_error(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let nobody = Err(Error::NoSuchSession(id));
    assert_eq!(store.append(next(&row(id, 1))).await, nobody);
    assert_eq!(store.entries(id, 1..=1).await, Err(Error::NoSuchSession(id)));
    assert_eq!(store.load(id).await?, None);
    Ok(())
}

/// A writer of an older epoch is fenced, whatever head it expects.
pub async fn a_fenced_runner_cannot_commit(store: Arc<dyn Store>) -> Result<(), Error> {
    let first = create(&store, session(1), 1).await?;
    let acquired = acquire(&store, &first, 1).await?;
    let mine = Append { epoch: Some(1), ..next(&acquired) };
    assert_eq!(store.append(mine.clone()).await?, Appended::Done);
    let taken_over = acquire(&store, &mine.row, 2).await?;
    let late = Append { epoch: Some(1), ..next(&taken_over) };
    assert_eq!(store.append(late).await?, Appended::Fenced { epoch: 2 });
    let later = Append { epoch: Some(1), ..next(&acquired) };
    assert_eq!(store.append(later).await?, Appended::Fenced { epoch: 2 }, "head is old as well");
    let owners = Append { epoch: Some(2), ..next(&taken_over) };
    assert_eq!(store.append(owners).await?, Appended::Done);
    Ok(())
}

/// A released session is nobody's, not its last owner's.
pub async fn a_runner_without_ownership_cannot_commit(store: Arc<dyn Store>) -> Result<(), Error> {
    let first = create(&store, session(1), 1).await?;
    let acquired = acquire(&store, &first, 1).await?;
    let mut release = Append { epoch: Some(1), ..next(&acquired) };
    release.row.owner = None;
    assert_eq!(store.append(release.clone()).await?, Appended::Done);
    let late = Append { epoch: Some(1), ..next(&release.row) };
    assert_eq!(store.append(late).await?, Appended::Fenced { epoch: 1 });
    assert_eq!(store.append(next(&release.row)).await?, Appended::Done, "a user needs no epoch");
    Ok(())
}

async fn acquire(store: &Arc<dyn Store>, before: &Row, epoch: u64) -> Result<Row, Error> {
    let mut append = next(before);
    append.row.owner = Some(WorkerId(Uuid::from_u128(u128::from(epoch))));
    append.row.epoch = epoch;
    assert_eq!(store.append(append.clone()).await?, Appended::Done);
    Ok(append.row)
}

/// Many writers of one session: each head is won once, and the losers wrote nothing.
pub async fn of_concurrent_appends_one_wins_each_head(store: Arc<dyn Store>) -> Result<(), Error> {
    const WRITERS: u64 = 8;
    const WINS: u64 = 5;
    create(&store, session(1), 1).await?;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move { win(&store, writer, WINS).await }));
    }
    let mut won = Vec::new();
    for writer in writers {
        won.extend(writer.await.expect("a writer does not panic")?);
    }
    won.sort_unstable();
    assert!(won.iter().map(|(n, _)| *n).eq(2..=WRITERS * WINS + 1), "each head once: {won:?}");
    let entries = store.entries(session(1), 2..=EntryNo::MAX).await?;
    let authors: Vec<_> = entries.into_iter().map(|it| (it.n, it.content)).collect();
    let expected: Vec<_> =
        won.into_iter().map(|(n, writer)| (n, Some(writer.to_string().into_bytes()))).collect();
    assert_eq!(authors, expected, "the entries are the winners'");
    Ok(())
}

/// Appends until it has won some heads. Each lost race is another's win, so it ends.
async fn win(store: &Arc<dyn Store>, writer: u64, wins: u64) -> Result<Vec<(EntryNo, u64)>, Error> {
    let mut won = Vec::new();
    for _ in 0..1_000 {
        let mut append = next(&loaded(store, session(1)).await?);
        append.entries[0].content = Some(writer.to_string().into_bytes());
        let n = append.row.head;
        match store.append(append).await? {
            Appended::Done => won.push((n, writer)),
            Appended::Conflict { head } => assert!(head >= n, "a conflict with a newer head"),
            other @ (Appended::Fenced { .. } | Appended::Repeated { .. }) => {
                assert_eq!(other, Appended::Done, "only a race can be lost");
            }
        }
        if won.len() as u64 == wins {
            break;
        }
    }
    Ok(won)
}

/// A repeated request is answered with what it did, at any head and epoch.
pub async fn a_request_is_done_once(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let first = create(&store, id, 1).await?;
    let mut append = Append { request: request("again"), ..next(&first) };
    append.entries.push(entry(id, 3));
    append.row = row(id, 3);
    assert_eq!(store.append(append.clone()).await?, Appended::Done);
    let repeated = Appended::Repeated { head: 3 };
    assert_eq!(store.append(append.clone()).await?, repeated, "at the old head");
    assert_eq!(store.append(next(&append.row)).await?, Appended::Done);
    let head = loaded(&store, id).await?;
    let decided_again = Append { request: request("again"), ..next(&head) };
    assert_eq!(store.append(decided_again.clone()).await?, repeated, "at the new head");
    let fenced = Append { epoch: Some(9), ..decided_again };
    assert_eq!(store.append(fenced).await?, repeated, "with another epoch");
    assert_eq!(loaded(&store, id).await?, head);
    let other = Append { request: request("other"), ..next(&head) };
    assert_eq!(store.append(other).await?, Appended::Done);
    let found = store.request(id, &request("again").expect("it is one")).await?;
    assert_eq!(found, Some(3));
    assert_eq!(store.request(id, &request("never").expect("it is one")).await?, None);
    assert_eq!(
        store.request(session(7), &request("again").expect("it is one")).await?,
        None,
        "of no session"
    );
    Ok(())
}

/// The same request id on another session is another request.
pub async fn a_request_id_counts_per_session(store: Arc<dyn Store>) -> Result<(), Error> {
    for n in [1, 2] {
        let first = create(&store, session(n), 1).await?;
        let append = Append { request: request("same"), ..next(&first) };
        assert_eq!(store.append(append).await?, Appended::Done, "on session {n}");
    }
    Ok(())
}

/// A session is created once; its creation is a request like others.
pub async fn a_repeated_create_does_nothing(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let entries = vec![entry(id, 1), entry(id, 2)];
    let create = |by| store.create(row(id, 2), entries.clone(), by);
    assert_eq!(create(request("made")).await?, Appended::Done);
    assert_eq!(create(request("made")).await?, Appended::Repeated { head: 2 });
    assert_eq!(create(request("other")).await?, Appended::Conflict { head: 2 });
    assert_eq!(create(None).await?, Appended::Conflict { head: 2 });
    let append = Append { request: request("made"), ..next(&row(id, 2)) };
    assert_eq!(store.append(append).await?, Appended::Repeated { head: 2 });
    assert_eq!(records(&store, id).await?.len(), 2);
    Ok(())
}

/// An append that is not done changes neither row nor entries nor contents.
pub async fn a_refused_append_writes_nothing(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let first = create(&store, id, 3).await?;
    let before = store.entries(id, 1..=3).await?;
    let mut stale = next(&row(id, 2));
    stale.erase = vec![1];
    stale.row.state = b"stale".to_vec();
    assert_eq!(store.append(stale).await?, Appended::Conflict { head: 3 });
    let late = Append { erase: vec![1], epoch: Some(1), ..next(&first) };
    assert_eq!(store.append(late).await?, Appended::Fenced { epoch: 0 });
    assert_eq!(store.entries(id, 1..=EntryNo::MAX).await?, before);
    assert_eq!(loaded(&store, id).await?, first);
    Ok(())
}

/// A range gives its entries in order, and only those that exist.
pub async fn ranges_return_what_exists_in_order(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    create(&store, id, 5).await?;
    create(&store, session(2), 2).await?;
    let all: Vec<_> = (1..=5).map(|n| entry(id, n)).collect();
    let cases = [(1, 5), (0, EntryNo::MAX), (2, 4), (5, 9), (3, 3), (6, 9), (0, 0)];
    for (first, last) in cases {
        let expected: Vec<_> = all.iter().filter(|it| (first..=last).contains(&it.n)).cloned().collect();
        assert_eq!(store.entries(id, first..=last).await?, expected, "{first}..={last}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range is a question too")]
    let empty = store.entries(id, 4..=2).await?;
    assert_eq!(empty, []);
    Ok(())
}
