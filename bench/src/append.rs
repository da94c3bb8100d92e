//! What one append costs through the store, against a bare synced transaction with the same bytes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use longhaul_session::id::{Digest, SessionId};
use longhaul_store::{Append, Appended, SqliteStore, Store};
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use crate::bare::{Commit, Log};
use crate::history::{History, Taken};
use crate::measure::{Aim, Cost, Moment, Pairs, in_turn, say};
use crate::rig;

/// Calls and results of one round: two appends each.
const CALLS: u64 = 150;
pub(crate) const APPENDS: usize = 300;

/// Measures and reports.
pub(crate) fn run(folder: &Path, pairs: usize) -> anyhow::Result<()> {
    let runtime = rig::runtime()?;
    let open = |name: &str| runtime.block_on(async { SqliteStore::open(folder.join(name)) });
    let store = Arc::new(open("append.db")?);
    let through_store = || runtime.block_on(runtime.spawn(appends(store.clone(), folder.to_owned())))?;
    let bare = Mutex::new(Log::open(&folder.join("append-bare.db"))?);
    let bare_log = || transactions(&mut *bare.lock().ok().context("a commit failed before")?, folder);
    // The same statements and tables as the store's, on a connection of one's own: what is left is the way
    // to the thread that writes, and back.
    let same = Arc::new(open("append-same.db")?);
    let connection = Mutex::new(Connection::open(folder.join("append-same.db"))?);
    let in_place = || {
        let mut connection = connection.lock().ok().context("a commit failed before")?;
        runtime.block_on(statements(&same, &mut connection, folder))
    };
    let each = |cost: &Cost| cost.wall_us / APPENDS as f64;
    say("append: one sealed entry of about 1 KiB, one session");
    let measured = in_turn(pairs, through_store, bare_log)?;
    Pairs::of(&measured, each).report("store / bare transaction, wall time", "us", Aim::AtMost(1.3));
    let processor = |cost: &Cost| cost.processor_us / APPENDS as f64;
    Pairs::of(&measured, processor).report("store / bare transaction, processor time", "us", Aim::None);
    let measured = in_turn(pairs, through_store, in_place)?;
    Pairs::of(&measured, each).report("store / its own statements in place", "us", Aim::None);
    Ok(())
}

/// Makes a session and its appends, one entry each. The session itself comes first.
pub(crate) fn prepared(folder: &Path, session: SessionId) -> anyhow::Result<Vec<Taken>> {
    let mut history = History::begin(folder, "none")?;
    let mut taken = vec![history.take(session, Digest::default())];
    for n in 1..=CALLS {
        for half in [History::call, History::result] {
            half(&mut history, n)?;
            let before = taken.last().map_or(Digest::default(), |it: &Taken| it.row.head_hash);
            taken.push(history.take(session, before));
        }
    }
    Ok(taken)
}

pub(crate) async fn appends(store: Arc<dyn Store>, folder: std::path::PathBuf) -> anyhow::Result<Cost> {
    let begun = begin(&*store, &folder).await?;
    let start = Moment::now();
    append_all(store, begun).await?;
    Ok(start.cost())
}

/// A session that was created, and its appends, each of which expects the head before it.
pub(crate) struct Begun {
    head: u64,
    taken: std::vec::IntoIter<Taken>,
}

/// Prepares appends and creates their session.
pub(crate) async fn begin(store: &dyn Store, folder: &Path) -> anyhow::Result<Begun> {
    let mut taken = prepared(folder, SessionId(Uuid::new_v4()))?.into_iter();
    let Taken { row, entries } = taken.next().context("a session has a beginning")?;
    let head = row.head;
    store.create(row, entries, None).await?;
    Ok(Begun { head, taken })
}

/// Appends, one after the other.
pub(crate) async fn append_all(store: Arc<dyn Store>, begun: Begun) -> anyhow::Result<()> {
    let mut expected_head = begun.head;
    for Taken { row, entries } in begun.taken {
        let (session, head) = (row.session, row.head);
        let (erase, forget, request) = (Vec::new(), Vec::new(), None);
        let append = Append { session, expected_head, epoch: Some(1), entries, row, erase, forget, request };
        if store.append(append).await? != Appended::Done {
            bail!("an append was not done");
        }
        expected_head = head;
    }
    Ok(())
}

fn transactions(log: &mut Log, folder: &Path) -> anyhow::Result<Cost> {
    let id = Uuid::new_v4();
    let commits: Vec<Commit> = prepared(folder, SessionId(id))?
        .into_iter()
        .skip(1)
        .zip(1..)
        .map(|(Taken { row, mut entries }, n)| {
            let entry = entries.remove(0);
            let bytes = [entry.record, entry.content.unwrap_or_default(), entry.hash.0.to_vec()].concat();
            Commit { session: id.into_bytes(), n, state: row.state, bytes }
        })
        .collect();
    log.begin(id.into_bytes())?;
    let start = Moment::now();
    for commit in commits {
        log.commit(&[commit])?;
    }
    Ok(start.cost())
}

async fn statements(store: &SqliteStore, connection: &mut Connection, folder: &Path) -> anyhow::Result<Cost> {
    let session = SessionId(Uuid::new_v4());
    let mut taken = prepared(folder, session)?.into_iter();
    let Taken { row, entries } = taken.next().context("a session has a beginning")?;
    store.create(row, entries, None).await?;
    let id = session.0.as_bytes();
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON")?;
    let start = Moment::now();
    for Taken { row, entries } in taken {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (head, epoch) = (i64::try_from(row.head)?, i64::try_from(row.epoch)?);
        let owner = row.owner.map(|owner| owner.0.into_bytes());
        let mut update = transaction.prepare_cached(
            "UPDATE sessions SET head = ?2, head_hash = ?3, state = ?4, status = ?5, owner = ?6, \
             epoch = ?7, updated = ?8 WHERE id = ?1 AND head = ?2 - 1 AND epoch = ?7 \
             RETURNING claimable_at IS ?9",
        )?;
        let claimable_at = row.claimable_at.map(|at| at.0);
        let (state, status, updated) = (row.state, row.status, row.updated.0);
        let values = params![id, head, row.head_hash.0, state, status, owner, epoch, updated, claimable_at];
        let indexed_stays: bool = update.query_row(values, |row| row.get(0)).context("another was faster")?;
        if !indexed_stays {
            bail!("these appends leave the time at which the session may be claimed as it is");
        }
        for entry in entries {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO entries \
                   (position, session, n, kind, at, record, content, encoding, hash, request) \
                 VALUES (max(coalesce((SELECT max(position) FROM entries), 0), \
                   (SELECT position FROM given_up)) + 1, ?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, NULL)",
            )?;
            let (n, at, hash) = (i64::try_from(entry.n)?, entry.at.0, entry.hash.0);
            insert.execute(params![id, n, entry.kind, at, entry.record, entry.content, hash])?;
        }
        drop(update);
        transaction.commit()?;
    }
    Ok(start.cost())
}
