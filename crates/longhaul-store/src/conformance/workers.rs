//! Workers, hints and the end: who lives, who has grown, and what a closed store says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use super::{create, create_as, next, row, session, worker};
use crate::{Appended, Error, Filter, Hint, Page, Row, Store, WorkerInfo};

/// How long a hint may take before it counts as lost. Many times what any store needs.
const PATIENCE: Duration = Duration::from_secs(100);

/// A listener hears of a create and of each append, sooner or later.
pub async fn hints_arrive(store: Arc<dyn Store>) -> Result<(), Error> {
    let mut hints = store.hints();
    let first = create(&store, session(1), 2).await?;
    assert_eq!(store.append(next(&first)).await?, Appended::Done);
    await_hint(&mut hints, Hint { session: session(1), head: 3 }).await;
    let mut late = store.hints();
    create(&store, session(2), 1).await?;
    for hints in [&mut hints, &mut late] {
        await_hint(hints, Hint { session: session(2), head: 1 }).await;
    }
    Ok(())
}

/// Waits for a hint that says at least as much.
async fn await_hint(hints: &mut Receiver<Hint>, expected: Hint) {
    let wait = async {
        let mut hint = hints.recv().await;
        while !matches!(hint, Ok(it) if it.session == expected.session && it.head >= expected.head) {
            assert!(hint.is_ok(), "the hints ended: {hint:?}");
            hint = hints.recv().await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "no hint {expected:?}");
}

/// A worker lives from its announcement to the end of it.
pub async fn a_worker_is_known_while_announced(store: Arc<dyn Store>) -> Result<(), Error> {
    let (one, two) = (worker(1), WorkerInfo { address: None, ..worker(2) });
    assert!(!store.owner_is_alive(one.worker).await?, "nobody knows it yet");
    let first = store.announce(one.clone()).await?;
    let second = store.announce(two.clone()).await?;
    assert_eq!(store.workers().await?, [one.clone(), two.clone()]);
    create_as(&store, Row { owner: Some(one.worker), epoch: 1, ..row(session(1), 1) }).await?;
    let busy = WorkerInfo { running: 1, ..one.clone() };
    assert_eq!(store.workers().await?, [busy, two.clone()], "what a worker owns is counted");
    assert!(store.owner_is_alive(one.worker).await?);
    drop(first);
    assert!(!store.owner_is_alive(one.worker).await?, "dead at once");
    assert!(store.owner_is_alive(two.worker).await?);
    let alive: Vec<_> = store.workers().await?.into_iter().filter(|it| it.alive).collect();
    assert_eq!(alive, [two]);
    drop(second);
    let three = store.announce(worker(3)).await?;
    assert_eq!(store.workers().await?, [worker(3)], "the dead are forgotten");
    drop(three);
    Ok(())
}

/// A worker id in use is not given out again.
pub async fn a_worker_id_is_announced_once(store: Arc<dyn Store>) -> Result<(), Error> {
    let one = worker(1);
    let announced = store.announce(one.clone()).await?;
    let twice = store.announce(one.clone()).await.map(drop);
    assert_eq!(twice, Err(Error::AlreadyAnnounced(one.worker)));
    assert!(store.owner_is_alive(one.worker).await?, "the refusal does not hurt the first");
    assert_eq!(store.workers().await?, [one]);
    drop(announced);
    Ok(())
}

/// A renewal tells a worker which sessions are no longer its own.
pub async fn a_renewal_names_the_lost(store: Arc<dyn Store>) -> Result<(), Error> {
    let (mine, other) = (worker(1), worker(2));
    let _announced = (store.announce(mine.clone()).await?, store.announce(other.clone()).await?);
    for (n, owner) in [(1, Some(mine.worker)), (2, Some(other.worker)), (3, None)] {
        create_as(&store, Row { owner, epoch: 1, ..row(session(n), 1) }).await?;
    }
    let held = [1, 2, 3, 4].map(session);
    assert_eq!(store.renew(mine.worker, &held).await?, [2, 3, 4].map(session));
    assert_eq!(store.renew(mine.worker, &held[..1]).await?, []);
    assert_eq!(store.renew(mine.worker, &[]).await?, []);
    Ok(())
}

/// A closed store refuses everything, and may be closed again.
pub async fn a_closed_store_says_so(store: Arc<dyn Store>) -> Result<(), Error> {
    let before = create(&store, session(1), 1).await?;
    store.close().await?;
    store.close().await?;
    let page = Page { after: None, limit: 1 };
    let answers = [
        store.append(next(&before)).await.map(drop),
        store.load(session(1)).await.map(drop),
        store.list(Filter::default(), page).await.map(drop),
        store.delete(session(1)).await.map(drop),
        store.announce(worker(1)).await.map(drop),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(Error::Closed { .. })), "{answer:?}");
    }
    Ok(())
}
