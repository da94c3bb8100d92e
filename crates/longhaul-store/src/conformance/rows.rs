//! Rows: what is stored comes back, and is found by what queries ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use longhaul_session::id::{SessionId, Timestamp, WorkerId};
use uuid::Uuid;

use super::{create_as, ids, loaded, next, row, session, worker};
use crate::{Appended, Error, Filter, Page, Row, Store};

const ALL: Page = Page { after: None, limit: 100 };

/// Every field of a row survives a create and an append.
pub async fn all_of_a_row_comes_back(store: Arc<dyn Store>) -> Result<(), Error> {
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let first = Row {
        state: vec![0, 255, 1],
        archived: true,
        name: Some("Größe \"1\" \u{1f6a2}".to_owned()),
        claimable_at: Some(Timestamp(-5)),
        owner: Some(WorkerId(Uuid::from_u128(u128::MAX))),
        epoch: i64::MAX.unsigned_abs(),
        place: "elsewhere/ä".to_owned(),
        labels: labels(&[("team", "a\nb"), ("", "empty key"), ("ä", "")]),
        created: Timestamp(i64::MIN),
        updated: Timestamp(i64::MAX - 1),
        ..row(session(u128::MAX), 1)
    };
    create_as(&store, first.clone()).await?;
    assert_eq!(loaded(&store, first.session).await?, first);
    let mut append = next(&first);
    append.row = Row {
        state: Vec::new(),
        archived: false,
        name: None,
        claimable_at: None,
        owner: None,
        epoch: 0,
        place: String::new(),
        labels: labels(&[]),
        updated: Timestamp(0),
        ..append.row
    };
    assert_eq!(store.append(append.clone()).await?, Appended::Done);
    assert_eq!(loaded(&store, first.session).await?, append.row);
    Ok(())
}

/// Each part of a filter narrows the list, and parts add up.
pub async fn lists_are_filtered(store: Arc<dyn Store>) -> Result<(), Error> {
    let high = |n: u128| SessionId(Uuid::from_u128(n << 116));
    let rows = [
        Row { updated: Timestamp(1), ..row(high(0x01a), 1) },
        Row { updated: Timestamp(4), status: "running".to_owned(), ..row(high(0x01b), 1) },
        Row { updated: Timestamp(3), name: Some("n".to_owned()), ..row(high(0x02a), 1) },
        Row { updated: Timestamp(2), archived: true, ..row(high(0x01c), 1) },
    ];
    for row in &rows {
        create_as(&store, row.clone()).await?;
    }
    let text = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    let prefix = |prefix: &str| Filter { id_prefix: text(prefix), ..none() };
    let whole = rows[2].session.to_string();
    let cases: [(Filter, &[usize]); 12] = [
        (none(), &[1, 2, 3, 0]),
        (Filter { status: text("running"), ..none() }, &[1]),
        (Filter { status: text("runn"), ..none() }, &[]),
        (Filter { name: text("n"), ..none() }, &[2]),
        (Filter { archived: Some(true), ..none() }, &[3]),
        (Filter { archived: Some(false), ..none() }, &[1, 2, 0]),
        (prefix("001"), &[]),
        (prefix("01"), &[1, 3, 0]),
        (prefix("01B"), &[1]),
        (prefix(&whole), &[2]),
        (prefix("%"), &[]),
        (Filter { archived: Some(false), ..prefix("01") }, &[1, 0]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|at| rows[*at].clone()).collect();
        assert_eq!(store.list(filter.clone(), ALL).await?, expected, "{filter:?}");
    }
    Ok(())
}

/// Pages join to the whole list, also where times are equal, and while others change.
pub async fn pages_are_stable(store: Arc<dyn Store>) -> Result<(), Error> {
    let mut rows = Vec::new();
    for n in 1..=9_u128 {
        let updated = Timestamp(i64::try_from(n / 4).expect("a small number"));
        rows.push(create_as(&store, Row { updated, ..row(session(n), 1) }).await?);
    }
    let whole = ids(&store.list(Filter::default(), ALL).await?);
    assert_eq!(whole, (1..=9).rev().map(session).collect::<Vec<_>>());
    let mut joined = Vec::new();
    let mut after = None;
    for _ in 0..9 {
        let page = store.list(Filter::default(), Page { after, limit: 2 }).await?;
        assert!(page.len() <= 2, "a page has at most its limit");
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        joined.extend(ids(&page));
        if joined.len() == 4 {
            // A row that was listed and one that was not move to the front.
            for moved in [&rows[8], &rows[0]] {
                let mut append = next(moved);
                append.row.updated = Timestamp(99);
                assert_eq!(store.append(append).await?, Appended::Done);
            }
        }
    }
    assert_eq!(joined, whole[..8], "the rest comes once, in order");
    let none = store.list(Filter::default(), Page { after: None, limit: 0 }).await?;
    assert_eq!(none, []);
    Ok(())
}

/// Work is found when its time has come, by workers of its place; a waiting session never.
pub async fn work_is_claimable_at_its_time_and_place(store: Arc<dyn Store>) -> Result<(), Error> {
    for (n, at, place) in
        [(1, Some(10), "here"), (2, Some(20), "here"), (3, None, "here"), (4, Some(10), "there")]
    {
        let (claimable_at, place) = (at.map(Timestamp), place.to_owned());
        create_as(&store, Row { claimable_at, place, ..row(session(n), 1) }).await?;
    }
    for (now, place, expected) in [
        (9, "here", &[][..]),
        (10, "here", &[1]),
        (20, "here", &[1, 2]),
        (99, "there", &[4]),
        (99, "nowhere", &[]),
    ] {
        let found = store.claimable(Timestamp(now), place, 10).await?;
        let found: BTreeSet<_> = ids(&found).into_iter().collect();
        let expected: BTreeSet<_> = expected.iter().map(|n| session(*n)).collect();
        assert_eq!(found, expected, "at {now} {place}");
    }
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let one = store.claimable(Timestamp(99), "here", 1).await?;
        assert_eq!(one.len(), 1, "as many as asked for");
        seen.extend(ids(&one));
    }
    assert_eq!(seen.len(), 2, "in random order, so that workers do not all take the same");
    Ok(())
}

/// A session is its owner's while that lives, and anybody's at once when it is dead.
pub async fn a_live_owner_keeps_its_session(store: Arc<dyn Store>) -> Result<(), Error> {
    let (now, living, unknown) = (Timestamp(10), worker(1), worker(2));
    let announced = store.announce(living.clone()).await?;
    for (n, owner) in [(1, Some(living.worker)), (2, Some(unknown.worker)), (3, None)] {
        let claimable_at = Some(Timestamp(1));
        create_as(&store, Row { owner, claimable_at, ..row(session(n), 1) }).await?;
    }
    let found = async || -> Result<Vec<SessionId>, Error> {
        let mut found = ids(&store.claimable(now, "here", 10).await?);
        found.sort_unstable();
        Ok(found)
    };
    assert_eq!(found().await?, [session(2), session(3)]);
    drop(announced);
    assert_eq!(found().await?, [session(1), session(2), session(3)]);
    Ok(())
}

/// The next time to look is the earliest after now, of this place, without a live owner.
pub async fn the_next_time_is_the_earliest_later_one(store: Arc<dyn Store>) -> Result<(), Error> {
    let living = worker(1);
    let next_at = async |now| store.next_claimable_at(Timestamp(now), "here").await;
    assert_eq!(next_at(0).await?, None);
    let _announced = store.announce(living.clone()).await?;
    for (n, at, owner, place) in [
        (1, 30, None, "here"),
        (2, 20, None, "here"),
        (3, 15, Some(living.worker), "here"),
        (4, 12, None, "there"),
    ] {
        let (claimable_at, place) = (Some(Timestamp(at)), place.to_owned());
        create_as(&store, Row { claimable_at, owner, place, ..row(session(n), 1) }).await?;
    }
    for (now, expected) in [(10, Some(20)), (19, Some(20)), (20, Some(30)), (30, None)] {
        assert_eq!(next_at(now).await?, expected.map(Timestamp), "after {now}");
    }
    Ok(())
}
