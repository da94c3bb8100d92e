//! The statements that read.

use std::ops::RangeInclusive;

use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use rusqlite::ToSql;
use rusqlite::types::Type;
use uuid::Uuid;

use super::db::{Db, count};
use super::presence::Presence;
use crate::limits::{MAX_FORK_DEPTH, MAX_ROWS};
use crate::payload::{self, Packed};
use crate::row::ids_with_prefix;
use crate::{Error, Filter, Page, Parent, RequestId, Row, WorkerInfo};

/// The columns of a row, in the order in which `row` reads them.
macro_rules! row_columns {
    () => {
        "id, head, head_hash, state, status, archived, name, claimable_at, owner, epoch, \
         place, parent, parent_at, labels, created, updated"
    };
}

pub(super) fn load(db: &Db, session: SessionId) -> Result<Option<Row>, Error> {
    let sql = concat!("SELECT ", row_columns!(), " FROM sessions WHERE id = ?1");
    db.one(sql, &[session.0.as_bytes()], row)
}

/// Reads the entry that a request wrote last.
pub(super) fn request(db: &Db, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error> {
    let sql = "SELECT n FROM entries WHERE session = ?1 AND request = ?2";
    let params: &[&dyn ToSql] = &[session.0.as_bytes(), &request.as_str()];
    db.one(sql, params, |row| unsigned(row, 0))
}

/// Reads a range of entries, a fork's prefix from its parents.
pub(super) fn entries(
    db: &Db,
    session: SessionId,
    range: &RangeInclusive<EntryNo>,
) -> Result<Vec<SealedEntry>, Error> {
    db.at_one_moment(|db| {
        let (head, _) = origin(db, session)?.ok_or(Error::NoSuchSession(session))?;
        let (first, last) = ((*range.start()).max(1), (*range.end()).min(head));
        let mut entries: Vec<SealedEntry> = Vec::new();
        for (owner, first, last) in segments(db, session, first, last)?.into_iter().rev() {
            entries.extend(stretch(db, owner, first, last)?);
        }
        let whole = entries.iter().map(|entry| entry.n).eq(first..=last);
        if !whole {
            return Err(
                db.corrupt(format!("of entries {first} to {last} of session {session} some are missing"))
            );
        }
        count(&db.tally.entries_read, entries.len());
        Ok(entries)
    })
}

/// Finds which sessions hold the entries of a range, the newest stretch first.
fn segments(
    db: &Db,
    session: SessionId,
    first: EntryNo,
    last: EntryNo,
) -> Result<Vec<(SessionId, EntryNo, EntryNo)>, Error> {
    let mut found = Vec::new();
    let (mut at, mut last) = (session, last);
    for _ in 0..=MAX_FORK_DEPTH {
        if first > last {
            return Ok(found);
        }
        let (_, parent) = origin(db, at)?.ok_or_else(|| {
            db.corrupt(format!("session {at}, from which {session} was forked, is missing"))
        })?;
        let prefix = parent.map_or(0, |parent| parent.at);
        if last > prefix {
            found.push((at, first.max(prefix + 1), last));
        }
        let Some(parent) = parent else {
            return Ok(found);
        };
        (at, last) = (parent.session, last.min(prefix));
    }
    Err(db.corrupt(format!("session {session} was forked more than {MAX_FORK_DEPTH} times")))
}

/// Reads a session's head and what it was forked from.
pub(super) fn origin(db: &Db, session: SessionId) -> Result<Option<(EntryNo, Option<Parent>)>, Error> {
    let sql = "SELECT head, parent, parent_at FROM sessions WHERE id = ?1";
    db.one(sql, &[session.0.as_bytes()], |row| Ok((unsigned(row, 0)?, parent(row, 1)?)))
}

/// Reads entries that one session holds itself.
fn stretch(db: &Db, session: SessionId, first: EntryNo, last: EntryNo) -> Result<Vec<SealedEntry>, Error> {
    let sql = "SELECT n, kind, at, record, content, encoding, hash FROM entries \
               WHERE session = ?1 AND n BETWEEN ?2 AND ?3 ORDER BY n";
    let rows = db.all(sql, &[session.0.as_bytes(), &clamp(first), &clamp(last)], |row| {
        let entry = SealedEntry {
            n: unsigned(row, 0)?,
            kind: row.get(1)?,
            at: Timestamp(row.get(2)?),
            record: row.get(3)?,
            content: row.get(4)?,
            hash: Digest(row.get(6)?),
        };
        Ok((entry, row.get(5)?))
    })?;
    rows.into_iter()
        .map(|(mut entry, encoding)| {
            if let Some(bytes) = entry.content.take() {
                let content = content(db, Packed { bytes, encoding }).map_err(|error| {
                    let n = entry.n;
                    with_place(error, &format!("content of entry {n} of session {session}"))
                })?;
                entry.content = Some(content);
            }
            Ok(entry)
        })
        .collect()
}

/// Unpacks a content, wherever it is kept.
fn content(db: &Db, packed: Packed) -> Result<Vec<u8>, Error> {
    if packed.encoding != payload::ARTIFACT {
        return payload::unpack(packed).map_err(|detail| db.corrupt(detail));
    }
    let digest = packed.bytes.try_into().map(Digest);
    let digest = digest.map_err(|_| db.corrupt("the digest of an artifact is damaged"))?;
    artifact(db, digest)?.ok_or_else(|| db.corrupt(format!("artifact {digest} is missing")))
}

pub(super) fn artifact(db: &Db, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
    let sql = "SELECT bytes, encoding FROM artifacts WHERE digest = ?1";
    let packed = db.one(sql, &[&digest.0], |row| Ok(Packed { bytes: row.get(0)?, encoding: row.get(1)? }))?;
    let Some(packed) = packed else {
        return Ok(None);
    };
    let bytes = payload::unpack(packed).map_err(|detail| db.corrupt(detail))?;
    if Digest::of(&bytes) != digest {
        return Err(db.corrupt(format!("artifact {digest} has other bytes than its digest says")));
    }
    Ok(Some(bytes))
}

pub(super) fn list(db: &Db, filter: &Filter, page: Page) -> Result<Vec<Row>, Error> {
    let sql = concat!(
        "SELECT ",
        row_columns!(),
        " FROM sessions WHERE (updated, id) < (?1, ?2) AND (?3 IS NULL OR id BETWEEN ?3 AND ?4) \
         AND (?5 IS NULL OR status = ?5) AND (?6 IS NULL OR name = ?6) \
         AND (?7 IS NULL OR archived = ?7) ORDER BY updated DESC, id DESC LIMIT ?8"
    );
    let ids = match filter.id_prefix.as_deref().map(ids_with_prefix) {
        None => None,
        Some(Some(ids)) => Some(ids),
        Some(None) => return Ok(Vec::new()),
    };
    // Before the first page: longer, and so greater, than any id.
    let (updated, session) = page.after.map_or((i64::MAX, vec![0xff; 17]), |cursor| {
        (cursor.updated.0, cursor.session.0.as_bytes().to_vec())
    });
    db.all(
        sql,
        &[
            &updated,
            &session,
            &ids.map(|(low, _)| low),
            &ids.map(|(_, high)| high),
            &filter.status,
            &filter.name,
            &filter.archived,
            &limit(page.limit),
        ],
        row,
    )
}

pub(super) fn claimable(
    db: &Db,
    presence: &Presence,
    now: Timestamp,
    place: &str,
    at_most: usize,
) -> Result<Vec<Row>, Error> {
    let living = living_owners(db, presence, place)?;
    let sql = concat!(
        "SELECT ",
        row_columns!(),
        " FROM sessions WHERE place = ?1 AND claimable_at <= ?2 \
         AND (owner IS NULL OR hex(owner) NOT IN (SELECT value FROM json_each(?3))) \
         ORDER BY random() LIMIT ?4"
    );
    db.all(sql, &[&place, &now.0, &living, &limit(at_most)], row)
}

pub(super) fn next_claimable_at(
    db: &Db,
    presence: &Presence,
    now: Timestamp,
    place: &str,
) -> Result<Option<Timestamp>, Error> {
    let living = living_owners(db, presence, place)?;
    let sql = "SELECT min(claimable_at) FROM sessions WHERE place = ?1 AND claimable_at > ?2 \
               AND (owner IS NULL OR hex(owner) NOT IN (SELECT value FROM json_each(?3)))";
    let next = db.one(sql, &[&place, &now.0, &living], |row| row.get::<_, Option<i64>>(0))?;
    Ok(next.flatten().map(Timestamp))
}

/// Returns the owners of a place's sessions that live: a JSON array of their ids, as `hex` writes
/// them.
fn living_owners(db: &Db, presence: &Presence, place: &str) -> Result<String, Error> {
    let sql = "SELECT DISTINCT owner FROM sessions \
               WHERE place = ?1 AND claimable_at IS NOT NULL AND owner IS NOT NULL";
    let mut living = Vec::new();
    for owner in db.all(sql, &[&place], |row| id(row, 0))? {
        if presence.is_alive(WorkerId(owner))? {
            living.push(format!("{:X}", owner.simple()));
        }
    }
    Ok(serde_json::Value::from(living).to_string())
}

/// Returns those of the sessions that the worker does not own.
pub(super) fn not_owned(
    db: &Db,
    worker: WorkerId,
    sessions: Vec<SessionId>,
) -> Result<Vec<SessionId>, Error> {
    let sql = "SELECT 1 FROM sessions WHERE id = ?1 AND owner = ?2";
    let mut lost = Vec::new();
    for session in sessions {
        let found = db.one(sql, &[session.0.as_bytes(), worker.0.as_bytes()], |_| Ok(()))?;
        if found.is_none() {
            lost.push(session);
        }
    }
    Ok(lost)
}

pub(super) fn workers(db: &Db, presence: &Presence) -> Result<Vec<WorkerInfo>, Error> {
    let sql = "SELECT id, place, host, pid, version, address, started, capacity, \
               (SELECT count(*) FROM sessions WHERE owner = workers.id) FROM workers ORDER BY started, id";
    let mut workers = db.all(sql, &[], |row| {
        Ok(WorkerInfo {
            worker: WorkerId(id(row, 0)?),
            place: row.get(1)?,
            host: row.get(2)?,
            pid: row.get(3)?,
            version: row.get(4)?,
            address: row.get(5)?,
            started: Timestamp(row.get(6)?),
            capacity: row.get(7)?,
            running: row.get(8)?,
            alive: false,
        })
    })?;
    for worker in &mut workers {
        worker.alive = presence.is_alive(worker.worker)?;
    }
    Ok(workers)
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let labels: String = row.get(13)?;
    let labels = serde_json::from_str(&labels)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(13, Type::Text, Box::new(error)))?;
    let owner: Option<[u8; 16]> = row.get(8)?;
    Ok(Row {
        session: SessionId(id(row, 0)?),
        head: unsigned(row, 1)?,
        head_hash: Digest(row.get(2)?),
        state: row.get(3)?,
        status: row.get(4)?,
        archived: row.get(5)?,
        name: row.get(6)?,
        claimable_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
        owner: owner.map(|bytes| WorkerId(Uuid::from_bytes(bytes))),
        epoch: unsigned(row, 9)?,
        place: row.get(10)?,
        parent: parent(row, 11)?,
        labels,
        created: Timestamp(row.get(14)?),
        updated: Timestamp(row.get(15)?),
    })
}

fn parent(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Parent>> {
    let Some(session) = row.get::<_, Option<[u8; 16]>>(column)? else {
        return Ok(None);
    };
    let at = unsigned(row, column + 1)?;
    Ok(Some(Parent { session: SessionId(Uuid::from_bytes(session)), at }))
}

pub(super) fn id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get(column).map(Uuid::from_bytes)
}

pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// Entry numbers that were stored fit; greater ones are asked for as "to the end".
pub(super) fn clamp(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn limit(rows: usize) -> i64 {
    clamp(rows.min(MAX_ROWS) as u64)
}

fn with_place(error: Error, place: &str) -> Error {
    if let Error::Corrupt { database, detail } = error {
        Error::Corrupt { database, detail: format!("{place}: {detail}") }
    } else {
        error
    }
}
