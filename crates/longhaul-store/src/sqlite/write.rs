//! The statements that write. Each function here is one write: it refuses before it has written
//! anything, and may be run again after a rollback.

use longhaul_session::id::{Digest, EntryNo, SessionId, WorkerId};
use rusqlite::ToSql;
use uuid::Uuid;

use super::db::{Db, count};
use super::presence::Presence;
use super::read::{self, clamp, id, unsigned};
use super::writer::{Changes, Failure};
use crate::limits::MAX_FORK_DEPTH;
use crate::payload::{Packed, PackedEntry};
use crate::{Append, Appended, Deleted, Error, Hint, RequestId, Row, WorkerInfo};

/// Creates a session with its first entries.
pub(super) fn create(
    db: &Db,
    changes: &mut Changes,
    row: &Row,
    entries: &[PackedEntry],
    request: Option<&RequestId>,
) -> Result<Appended, Failure> {
    if let Some((head, _)) = read::origin(db, row.session)? {
        let repeated = done_before(db, row.session, request)?;
        return Ok(repeated.unwrap_or(Appended::Conflict { head }));
    }
    let depth = depth(db, row)?;
    let labels = labels(row)?;
    db.write(
        "INSERT INTO sessions (id, head, head_hash, state, status, archived, name, claimable_at, \
         owner, epoch, place, parent, parent_at, depth, labels, created, updated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        &[
            row.session.0.as_bytes(),
            &clamp(row.head),
            &row.head_hash.0,
            &row.state,
            &row.status,
            &row.archived,
            &row.name,
            &row.claimable_at.map(|at| at.0),
            &row.owner.map(|owner| owner.0.into_bytes()),
            &clamp(row.epoch),
            &row.place,
            &row.parent.map(|parent| parent.session.0.into_bytes()),
            &row.parent.map(|parent| clamp(parent.at)),
            &depth,
            &labels,
            &row.created.0,
            &row.updated.0,
        ],
    )?;
    insert(db, changes, row.session, entries, request)?;
    Ok(Appended::Done)
}

/// Returns how many forks lie between a new session and its first ancestor.
fn depth(db: &Db, row: &Row) -> Result<u32, Failure> {
    let Some(parent) = row.parent else {
        return Ok(0);
    };
    let sql = "SELECT head, depth FROM sessions WHERE id = ?1";
    let found =
        db.one(sql, &[parent.session.0.as_bytes()], |row| Ok((unsigned(row, 0)?, row.get::<_, u32>(1)?)))?;
    let Some((head, depth)) = found else {
        return Err(Failure::Refused(Error::NoSuchSession(parent.session)));
    };
    if parent.at > head {
        let (session, at) = (parent.session, parent.at);
        return refuse(format!("session {session} has {head} entries, not the {at} of the fork"));
    }
    if depth >= MAX_FORK_DEPTH {
        return refuse(format!(
            "forks are nested {MAX_FORK_DEPTH} deep at most: fork an earlier session, or export and import this one"
        ));
    }
    Ok(depth + 1)
}

/// Appends entries, if the session is still where its writer believes it to be.
pub(super) fn append(
    db: &Db,
    changes: &mut Changes,
    append: &Append,
    entries: &[PackedEntry],
) -> Result<Appended, Failure> {
    if !append.erase.is_empty() {
        may_erase(db, append.session, &append.erase)?;
    }
    let row = &append.row;
    let labels = labels(row)?;
    let claimable_at = row.claimable_at.map(|at| at.0);
    // What an index knows stays out of it: SQLite would write the index though nothing changes.
    let indexed_stays = db.write_one(
        "UPDATE sessions SET head = ?2, head_hash = ?3, state = ?4, status = ?5, archived = ?6, \
         name = ?7, owner = ?9, epoch = ?10, labels = ?12, updated = ?13 \
         WHERE id = ?1 AND head = ?14 AND (?15 IS NULL OR (epoch = ?15 AND owner IS NOT NULL)) \
         AND (?16 IS NULL OR NOT EXISTS \
           (SELECT 1 FROM entries WHERE session = ?1 AND request = ?16)) \
         RETURNING claimable_at IS ?8 AND place = ?11",
        &[
            append.session.0.as_bytes(),
            &clamp(row.head),
            &row.head_hash.0,
            &row.state,
            &row.status,
            &row.archived,
            &row.name,
            &claimable_at,
            &row.owner.map(|owner| owner.0.into_bytes()),
            &clamp(row.epoch),
            &row.place,
            &labels,
            &row.updated.0,
            &clamp(append.expected_head),
            &append.epoch.map(clamp),
            &append.request.as_ref().map(RequestId::as_str),
        ],
        |row| row.get(0),
    )?;
    match indexed_stays {
        None => return why_not(db, append),
        Some(true) => {}
        Some(false) => {
            let sql = "UPDATE sessions SET claimable_at = ?2, place = ?3 WHERE id = ?1";
            db.write(sql, &[append.session.0.as_bytes(), &claimable_at, &row.place])?;
        }
    }
    insert(db, changes, append.session, entries, append.request.as_ref())?;
    for n in &append.erase {
        erase(db, append.session, *n)?;
    }
    for digest in &append.forget {
        forget(db, append.session, *digest)?;
    }
    Ok(Appended::Done)
}

/// Says why an append did not pass.
fn why_not(db: &Db, append: &Append) -> Result<Appended, Failure> {
    if let Some(repeated) = done_before(db, append.session, append.request.as_ref())? {
        return Ok(repeated);
    }
    let sql = "SELECT head, epoch, owner IS NOT NULL FROM sessions WHERE id = ?1";
    let found = db.one(sql, &[append.session.0.as_bytes()], |row| {
        Ok((unsigned(row, 0)?, unsigned(row, 1)?, row.get::<_, bool>(2)?))
    })?;
    let Some((head, epoch, owned)) = found else {
        return Err(Failure::Refused(Error::NoSuchSession(append.session)));
    };
    let fenced = append.epoch.is_some_and(|mine| mine != epoch || !owned);
    Ok(if fenced { Appended::Fenced { epoch } } else { Appended::Conflict { head } })
}

fn done_before(db: &Db, session: SessionId, request: Option<&RequestId>) -> Result<Option<Appended>, Error> {
    let Some(request) = request else {
        return Ok(None);
    };
    let head = read::request(db, session, request)?;
    Ok(head.map(|head| Appended::Repeated { head }))
}

fn insert(
    db: &Db,
    changes: &mut Changes,
    session: SessionId,
    entries: &[PackedEntry],
    request: Option<&RequestId>,
) -> Result<(), Error> {
    let last = entries.last().map_or(0, |packed| packed.entry.n);
    for packed in entries {
        let entry = &packed.entry;
        if let Some((digest, bytes)) = &packed.artifact {
            keep(db, session, entry.n, *digest, bytes)?;
        }
        db.write(
            "INSERT INTO entries \
               (position, session, n, kind, at, record, content, encoding, hash, request) \
             VALUES (max(coalesce((SELECT max(position) FROM entries), 0), \
               (SELECT position FROM given_up)) + 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            &[
                session.0.as_bytes(),
                &clamp(entry.n),
                &entry.kind,
                &entry.at.0,
                &entry.record,
                &packed.content.as_ref().map(|content| content.bytes.as_slice()),
                &packed.content.as_ref().map_or(0, |content| content.encoding),
                &entry.hash.0,
                &request.filter(|_| entry.n == last).map(RequestId::as_str),
            ],
        )?;
        changes.entry_at(db.last_position());
    }
    count(&db.tally.entries_written, entries.len());
    changes.grown(Hint { session, head: last });
    Ok(())
}

/// Refuses to erase what belongs to the session this one was forked from.
fn may_erase(db: &Db, session: SessionId, erase: &[EntryNo]) -> Result<(), Failure> {
    let Some((_, Some(parent))) = read::origin(db, session)? else {
        return Ok(());
    };
    match erase.iter().find(|n| **n <= parent.at) {
        None => Ok(()),
        Some(n) => refuse(format!(
            "entry {n} belongs to session {}, from which {session} was forked: redact it there",
            parent.session
        )),
    }
}

fn erase(db: &Db, session: SessionId, n: EntryNo) -> Result<(), Error> {
    let params: &[&dyn ToSql] = &[session.0.as_bytes(), &clamp(n)];
    let erased =
        db.write("UPDATE entries SET content = NULL, encoding = 0 WHERE session = ?1 AND n = ?2", params)?;
    if erased == 0 {
        return Err(db.corrupt(format!("entry {n} of session {session} is missing")));
    }
    db.write(
        "DELETE FROM artifacts WHERE digest IN \
           (SELECT digest FROM artifact_uses WHERE session = ?1 AND n = ?2) \
         AND NOT EXISTS (SELECT 1 FROM artifact_uses AS other \
           WHERE other.digest = artifacts.digest AND (other.session, other.n) <> (?1, ?2))",
        params,
    )?;
    db.write("DELETE FROM artifact_uses WHERE session = ?1 AND n = ?2", params)?;
    Ok(())
}

/// Lets go of an artifact that the session itself uses.
fn forget(db: &Db, session: SessionId, digest: Digest) -> Result<(), Error> {
    let params: &[&dyn ToSql] = &[session.0.as_bytes(), &digest.0];
    db.write("DELETE FROM artifact_uses WHERE session = ?1 AND n = 0 AND digest = ?2", params)?;
    db.write(
        "DELETE FROM artifacts WHERE digest = ?1 \
         AND NOT EXISTS (SELECT 1 FROM artifact_uses WHERE digest = ?1)",
        &[&digest.0],
    )?;
    Ok(())
}

/// Keeps an artifact that the session itself uses.
pub(super) fn put_artifact(
    db: &Db,
    session: SessionId,
    digest: Digest,
    packed: &Packed,
) -> Result<(), Failure> {
    if read::origin(db, session)?.is_none() {
        return Err(Failure::Refused(Error::NoSuchSession(session)));
    }
    Ok(keep(db, session, 0, digest, packed)?)
}

fn keep(db: &Db, session: SessionId, n: EntryNo, digest: Digest, packed: &Packed) -> Result<(), Error> {
    db.write(
        "INSERT INTO artifacts (digest, bytes, encoding) VALUES (?1, ?2, ?3) \
         ON CONFLICT DO NOTHING",
        &[&digest.0, &packed.bytes, &packed.encoding],
    )?;
    db.write(
        "INSERT INTO artifact_uses (session, n, digest) VALUES (?1, ?2, ?3) \
         ON CONFLICT DO NOTHING",
        &[session.0.as_bytes(), &clamp(n), &digest.0],
    )?;
    Ok(())
}

/// Deletes a session that nobody needs.
pub(super) fn delete(db: &Db, presence: &Presence, session: SessionId) -> Result<Deleted, Failure> {
    let this: &[&dyn ToSql] = &[session.0.as_bytes()];
    let sql = "SELECT owner FROM sessions WHERE id = ?1";
    let owner = db.one(sql, this, |row| row.get::<_, Option<[u8; 16]>>(0))?;
    let Some(owner) = owner else {
        return Ok(Deleted::NoSuchSession);
    };
    if let Some(worker) = owner.map(|bytes| WorkerId(Uuid::from_bytes(bytes)))
        && presence.is_alive(worker)?
    {
        return Ok(Deleted::Owned { worker });
    }
    let sql = "SELECT id FROM sessions WHERE parent = ?1 LIMIT 1";
    if let Some(fork) = db.one(sql, this, |row| id(row, 0))? {
        return Ok(Deleted::NeededBy { fork: SessionId(fork) });
    }
    db.write(
        "DELETE FROM artifacts WHERE digest IN \
           (SELECT digest FROM artifact_uses WHERE session = ?1) \
         AND NOT EXISTS (SELECT 1 FROM artifact_uses AS other \
           WHERE other.digest = artifacts.digest AND other.session <> ?1)",
        this,
    )?;
    db.write("DELETE FROM artifact_uses WHERE session = ?1", this)?;
    db.write(
        "UPDATE given_up SET position = \
           max(position, coalesce((SELECT max(position) FROM entries), 0))",
        &[],
    )?;
    db.write("DELETE FROM entries WHERE session = ?1", this)?;
    db.write("DELETE FROM sessions WHERE id = ?1", this)?;
    Ok(Deleted::Done)
}

/// Makes a worker known that holds its lock, and forgets the dead.
pub(super) fn announce(db: &Db, presence: &Presence, worker: &WorkerInfo) -> Result<(), Failure> {
    let known = read::workers(db, presence)?;
    if known.iter().any(|known| known.worker == worker.worker) {
        return Err(Failure::Refused(Error::AlreadyAnnounced(worker.worker)));
    }
    for dead in known.iter().filter(|known| !known.alive) {
        // A file that another user owns may stay; then so does its row.
        if presence.forget(dead.worker).is_ok() {
            retract(db, dead.worker)?;
        }
    }
    db.write(
        "INSERT INTO workers (id, place, host, pid, version, address, started, capacity) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        &[
            worker.worker.0.as_bytes(),
            &worker.place,
            &worker.host,
            &worker.pid,
            &worker.version,
            &worker.address,
            &worker.started.0,
            &worker.capacity,
        ],
    )?;
    Ok(())
}

/// Removes a worker that has gone.
pub(super) fn retract(db: &Db, worker: WorkerId) -> Result<(), Error> {
    db.write("DELETE FROM workers WHERE id = ?1", &[worker.0.as_bytes()]).map(drop)
}

fn labels(row: &Row) -> Result<String, Failure> {
    serde_json::to_string(&row.labels)
        .map_err(|error| Failure::Refused(Error::Invalid { reason: error.to_string() }))
}

fn refuse<T>(reason: String) -> Result<T, Failure> {
    Err(Failure::Refused(Error::Invalid { reason }))
}
