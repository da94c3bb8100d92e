//! What every backend must keep, as checks that any store can be put through.
//!
//! Each check takes a fresh, empty store, panics when the store breaks the contract, and returns
//! what the world did to it. [`conformance_tests!`](crate::conformance_tests) makes a test of
//! each; [`run_all`] runs them in turn. What only one backend does is left to its own tests.

mod appends;
mod contents;
mod forks;
mod rows;
mod workers;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use uuid::Uuid;

pub use self::appends::*;
pub use self::contents::*;
pub use self::forks::*;
pub use self::rows::*;
pub use self::workers::*;
use crate::{Append, Appended, Error, Parent, RequestId, Row, Store, WorkerInfo};

/// Makes a `#[tokio::test]` of each check. The argument is a function without parameters whose
/// future gives an empty store and whatever must live as long as it (a temporary directory).
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr) => { $crate::conformance_tests! { @list [tests $make] } };
    (@each [tests $make:expr] $($check:ident)*) => { $(
        #[tokio::test]
        async fn $check() -> ::std::result::Result<(), $crate::Error> {
            let (store, _kept) = ($make)().await;
            let checked = $crate::conformance::$check(::std::sync::Arc::clone(&store)).await;
            checked.and(store.close().await)
        }
    )* };
    (@each [run $make:expr] $($check:ident)*) => { $(
        let (store, _kept) = ($make)().await;
        $crate::conformance::$check(::std::sync::Arc::clone(&store)).await?;
        store.close().await?;
    )* };
    (@list $how:tt) => { $crate::conformance_tests! { @each $how
        an_append_at_the_head_is_done
        an_append_at_another_head_conflicts
        an_append_that_leaves_a_gap_is_refused
        a_row_that_is_not_the_last_entrys_is_refused
        an_append_to_no_session_is_an_error
        a_fenced_runner_cannot_commit
        a_runner_without_ownership_cannot_commit
        of_concurrent_appends_one_wins_each_head
        a_request_is_done_once
        a_request_id_counts_per_session
        a_repeated_create_does_nothing
        a_refused_append_writes_nothing
        ranges_return_what_exists_in_order
        a_fork_reads_through_two_levels
        a_fork_inside_its_parents_prefix_reads_the_origin
        a_fork_grows_without_its_parent
        a_fork_of_what_does_not_exist_is_refused
        forks_nest_to_a_limit
        a_needed_session_cannot_be_deleted
        a_deleted_session_is_gone
        a_session_with_a_live_owner_cannot_be_deleted
        all_of_a_row_comes_back
        lists_are_filtered
        pages_are_stable
        work_is_claimable_at_its_time_and_place
        a_live_owner_keeps_its_session
        the_next_time_is_the_earliest_later_one
        erased_content_is_gone_and_its_record_stays
        a_fork_cannot_erase_its_prefix
        contents_of_all_sizes_come_back
        artifacts_live_while_a_session_uses_them
        a_forgotten_artifact_goes_with_its_last_user
        a_content_kept_apart_goes_with_its_last_user
        hints_arrive
        a_worker_is_known_while_announced
        a_worker_id_is_announced_once
        a_renewal_names_the_lost
        a_closed_store_says_so
    } };
}

/// Runs all checks in turn, each on a store that `make` has made for it.
///
/// # Errors
/// What the world did to a store.
///
/// # Panics
/// When a store breaks the contract.
pub async fn run_all<F, Made, Kept>(make: F) -> Result<(), Error>
where
    F: Fn() -> Made,
    Made: Future<Output = (Arc<dyn Store>, Kept)>,
{
    crate::conformance_tests! { @list [run make] }
    Ok(())
}

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn worker(n: u128) -> WorkerInfo {
    WorkerInfo {
        worker: WorkerId(Uuid::from_u128(n)),
        place: "here".to_owned(),
        host: "host.example".to_owned(),
        pid: 4711,
        version: "0.1.0".to_owned(),
        address: Some("127.0.0.1:8080".to_owned()),
        started: Timestamp(5),
        capacity: 3,
        running: 0,
        alive: true,
    }
}

fn request(text: &str) -> Option<RequestId> {
    Some(RequestId::new(text).expect("a short text"))
}

fn entry(session: SessionId, n: EntryNo) -> SealedEntry {
    let record = format!("{{\"n\":{n},\"of\":\"{session}\"}}").into_bytes();
    SealedEntry {
        n,
        kind: "message".to_owned(),
        at: Timestamp(1_000 + i64::try_from(n).expect("a small number")),
        hash: Digest::of(&record),
        record,
        content: Some(format!("content {n} of {session}").into_bytes()),
    }
}

fn row(session: SessionId, head: EntryNo) -> Row {
    Row {
        session,
        head,
        head_hash: entry(session, head).hash,
        state: format!("state {head}").into_bytes(),
        status: "waiting".to_owned(),
        archived: false,
        name: None,
        claimable_at: None,
        owner: None,
        epoch: 0,
        place: "here".to_owned(),
        parent: None,
        labels: BTreeMap::new(),
        created: Timestamp(1_000),
        updated: Timestamp(1_000),
    }
}

/// Creates a session with entries 1 to `head`.
async fn create(store: &Arc<dyn Store>, session: SessionId, head: EntryNo) -> Result<Row, Error> {
    create_as(store, row(session, head)).await
}

/// Creates the session that a row describes.
async fn create_as(store: &Arc<dyn Store>, row: Row) -> Result<Row, Error> {
    let first = row.parent.map_or(1, |parent| parent.at + 1);
    let entries = (first..=row.head).map(|n| entry(row.session, n)).collect();
    let appended = store.create(row.clone(), entries, None).await?;
    assert_eq!(appended, Appended::Done, "a new session is created");
    Ok(row)
}

/// Forks a session after `at` entries, with own entries up to `head`.
async fn fork(
    store: &Arc<dyn Store>,
    session: SessionId,
    from: SessionId,
    at: EntryNo,
    head: EntryNo,
) -> Result<Row, Error> {
    let parent = Some(Parent { session: from, at });
    create_as(store, Row { parent, ..row(session, head) }).await
}

/// Returns the append of one entry to a session that stands as the row says.
fn next(row: &Row) -> Append {
    let n = row.head + 1;
    let entry = entry(row.session, n);
    Append {
        session: row.session,
        expected_head: row.head,
        epoch: None,
        row: Row { head: n, head_hash: entry.hash, ..row.clone() },
        entries: vec![entry],
        erase: Vec::new(),
        forget: Vec::new(),
        request: None,
    }
}

async fn loaded(store: &Arc<dyn Store>, session: SessionId) -> Result<Row, Error> {
    Ok(store.load(session).await?.expect("the session exists"))
}

/// Reads all entries as (number, record's text).
async fn records(store: &Arc<dyn Store>, session: SessionId) -> Result<Vec<String>, Error> {
    let entries = store.entries(session, 1..=EntryNo::MAX).await?;
    Ok(entries.into_iter().map(|it| String::from_utf8_lossy(&it.record).into_owned()).collect())
}

fn ids(rows: &[Row]) -> Vec<SessionId> {
    rows.iter().map(|row| row.session).collect()
}

fn is_invalid<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Invalid { .. }))
}
