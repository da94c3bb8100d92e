//! Forks and deletion: a prefix is read from its origin, which stays as long as it is needed.

use std::sync::Arc;

use longhaul_session::id::EntryNo;

use super::{create, entry, fork, loaded, next, records, row, session, worker};
use crate::{Appended, Deleted, Error, Parent, Row, Store};

/// A fork of a fork reads each stretch from where it was written.
pub async fn a_fork_reads_through_two_levels(store: Arc<dyn Store>) -> Result<(), Error> {
    create(&store, session(1), 6).await?;
    let second = fork(&store, session(2), session(1), 4, 7).await?;
    fork(&store, session(3), session(2), 5, 6).await?;
    assert_eq!(loaded(&store, session(2)).await?, second);
    let owners = |owners: &[u128]| -> Vec<_> {
        (1..).zip(owners).map(|(n, owner)| entry(session(*owner), n)).collect()
    };
    let whole = owners(&[1, 1, 1, 1, 2, 3]);
    assert_eq!(store.entries(session(3), 1..=EntryNo::MAX).await?, whole);
    assert_eq!(store.entries(session(3), 4..=5).await?, whole[3..5]);
    assert_eq!(store.entries(session(3), 2..=3).await?, whole[1..3]);
    assert_eq!(store.entries(session(3), 6..=6).await?, whole[5..]);
    let middle = owners(&[1, 1, 1, 1, 2, 2, 2]);
    assert_eq!(store.entries(session(2), 1..=7).await?, middle);
    Ok(())
}

/// A fork may end before its parent's own entries begin.
pub async fn a_fork_inside_its_parents_prefix_reads_the_origin(store: Arc<dyn Store>) -> Result<(), Error> {
    create(&store, session(1), 4).await?;
    fork(&store, session(2), session(1), 4, 5).await?;
    fork(&store, session(3), session(2), 2, 3).await?;
    let whole = vec![entry(session(1), 1), entry(session(1), 2), entry(session(3), 3)];
    assert_eq!(store.entries(session(3), 1..=9).await?, whole);
    Ok(())
}

/// After the fork both go their own way.
pub async fn a_fork_grows_without_its_parent(store: Arc<dyn Store>) -> Result<(), Error> {
    let parent = create(&store, session(1), 3).await?;
    let child = fork(&store, session(2), session(1), 2, 3).await?;
    assert_eq!(store.append(next(&child)).await?, Appended::Done);
    assert_eq!(store.append(next(&parent)).await?, Appended::Done);
    let child: Vec<_> =
        [(1, 1), (1, 2), (2, 3), (2, 4)].map(|(owner, n)| entry(session(owner), n)).into_iter().collect();
    assert_eq!(store.entries(session(2), 1..=9).await?, child);
    let parent: Vec<_> = (1..=4).map(|n| entry(session(1), n)).collect();
    assert_eq!(store.entries(session(1), 1..=9).await?, parent);
    Ok(())
}

/// A prefix must exist, and the fork's own entries follow it.
pub async fn a_fork_of_what_does_not_exist_is_refused(store: Arc<dyn Store>) -> Result<(), Error> {
    create(&store, session(1), 3).await?;
    let try_fork = async |from: u128, at: EntryNo, first: EntryNo| {
        let parent = Some(Parent { session: session(from), at });
        let row = Row { parent, ..row(session(2), first) };
        store.create(row, vec![entry(session(2), first)], None).await
    };
    assert_eq!(try_fork(9, 1, 2).await, Err(Error::NoSuchSession(session(9))));
    for (from, at, first, what) in [
        (1, 4, 5, "more than the parent has"),
        (1, 0, 1, "nothing"),
        (2, 1, 2, "itself"),
        (1, 2, 4, "with a gap after the prefix"),
        (1, 2, 2, "over the prefix"),
    ] {
        let forked = try_fork(from, at, first).await;
        assert!(super::is_invalid(&forked), "a fork of {what}: {forked:?}");
    }
    assert_eq!(store.load(session(2)).await?, None);
    Ok(())
}

/// A chain of forks is readable to its end, and has an end.
pub async fn forks_nest_to_a_limit(store: Arc<dyn Store>) -> Result<(), Error> {
    create(&store, session(1), 1).await?;
    let mut last = 1;
    for n in 2..10_000 {
        let parent = Some(Parent { session: session(n - 1), at: last });
        let row = Row { parent, ..row(session(n), last + 1) };
        match store.create(row, vec![entry(session(n), last + 1)], None).await {
            Ok(appended) => assert_eq!(appended, Appended::Done),
            refused => {
                assert!(super::is_invalid(&refused), "{refused:?}");
                break;
            }
        }
        last += 1;
    }
    assert!((100..9_999).contains(&last), "{last} forks were accepted");
    let whole = records(&store, session(u128::from(last))).await?;
    assert_eq!(whole.len() as u64, last);
    Ok(())
}

/// A fork keeps its parent; when the fork is gone, the parent may go.
pub async fn a_needed_session_cannot_be_deleted(store: Arc<dyn Store>) -> Result<(), Error> {
    create(&store, session(1), 2).await?;
    fork(&store, session(2), session(1), 1, 2).await?;
    fork(&store, session(3), session(2), 2, 3).await?;
    let needed = |by| Deleted::NeededBy { fork: session(by) };
    assert_eq!(store.delete(session(1)).await?, needed(2));
    assert_eq!(store.delete(session(2)).await?, needed(3));
    assert_eq!(records(&store, session(3)).await?.len(), 3);
    for n in [3, 2, 1] {
        assert_eq!(store.delete(session(n)).await?, Deleted::Done, "session {n}");
    }
    Ok(())
}

/// Nothing answers for a deleted session; its id is free.
pub async fn a_deleted_session_is_gone(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let before = create(&store, id, 2).await?;
    create(&store, session(2), 2).await?;
    assert_eq!(store.delete(id).await?, Deleted::Done);
    assert_eq!(store.delete(id).await?, Deleted::NoSuchSession);
    assert_eq!(store.load(id).await?, None);
    assert_eq!(store.entries(id, 1..=2).await, Err(Error::NoSuchSession(id)));
    assert_eq!(store.append(next(&before)).await, Err(Error::NoSuchSession(id)));
    assert_eq!(records(&store, session(2)).await?.len(), 2, "another is untouched");
    create(&store, id, 1).await?;
    assert_eq!(records(&store, id).await?.len(), 1);
    Ok(())
}

/// A session is not deleted under a running worker, but under a dead one.
pub async fn a_session_with_a_live_owner_cannot_be_deleted(store: Arc<dyn Store>) -> Result<(), Error> {
    let owner = worker(7);
    let announced = store.announce(owner.clone()).await?;
    let owned = Row { owner: Some(owner.worker), epoch: 1, ..row(session(1), 1) };
    super::create_as(&store, owned).await?;
    assert_eq!(store.delete(session(1)).await?, Deleted::Owned { worker: owner.worker });
    drop(announced);
    assert_eq!(store.delete(session(1)).await?, Deleted::Done);
    Ok(())
}
