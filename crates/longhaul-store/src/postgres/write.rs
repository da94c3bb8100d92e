//! The statements that write, but for plain appends: each works in a transaction of its own or in one
//! statement, and bears being done again after its connection was lost.

use std::collections::BTreeSet;

use longhaul_session::id::{Digest, EntryNo, SessionId, WorkerId};
use uuid::Uuid;

use super::append::{self, Failed, Job};
use super::columns::{Entries, INSERT};
use super::connections::Earlier;
use super::db::{Db, count};
use super::fault::{Answer, Fault, Kind};
use super::read::{Gone, bytes, clamp, id, optional_id, unsigned};
use super::sql::{lives, lives_until, updated_step, xact_step};
use crate::limits::MAX_FORK_DEPTH;
use crate::payload::{Packed, PackedEntry};
use crate::{Appended, Deleted, Error, RequestId, Row, WorkerInfo};

const CREATE: &str = concat!(
    "INSERT INTO sessions (id, head, head_hash, state, status, archived, name, claimable_at, owner, \
       epoch, place, parent, parent_at, depth, labels, created, updated, updated_step, xact_step, lease) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, ",
    updated_step!("$17::bigint"),
    ", ",
    xact_step!("txid_current()"),
    ", CASE WHEN $9::bytea IS NOT NULL THEN ",
    lives_until!("$18"),
    " END) ON CONFLICT (id) DO NOTHING"
);

/// Creates a session with its first entries, in an open transaction.
pub(super) async fn create(
    db: &Db,
    row: &Row,
    entries: &[PackedEntry],
    request: Option<&RequestId>,
    lease_ms: i64,
    settling: bool,
) -> Answer<Appended> {
    if let Some(appended) = standing(db, row, request, settling).await? {
        return Ok(appended);
    }
    let depth = depth(db, row).await?;
    let this = bytes(row.session.0);
    let created = db
        .write(
            CREATE,
            &[
                &this,
                &clamp(row.head),
                &&row.head_hash.0[..],
                &row.state,
                &row.status,
                &row.archived,
                &row.name,
                &row.claimable_at.map(|at| at.0),
                &row.owner.map(|owner| bytes(owner.0)),
                &clamp(row.epoch),
                &row.place,
                &row.parent.map(|parent| bytes(parent.session.0)),
                &row.parent.map(|parent| clamp(parent.at)),
                &depth,
                &labels(row)?,
                &row.created.0,
                &row.updated.0,
                &lease_ms,
            ],
        )
        .await?;
    if created == 0 {
        // Another was faster, and has committed: the insert waited for it.
        let standing = standing(db, row, request, settling).await?;
        return standing.ok_or_else(|| again(db, "a session was created and deleted meanwhile"));
    }
    let columns = Entries::of_one(row, entries, request);
    db.write(INSERT, &columns.params()).await?;
    for packed in entries {
        if let Some((digest, bytes)) = &packed.artifact {
            keep(db, row.session, packed.entry.n, *digest, bytes).await?;
        }
    }
    count(&db.tally.entries_written, entries.len());
    Ok(Appended::Done)
}

/// Says what a create is answered with when its session exists.
async fn standing(
    db: &Db,
    row: &Row,
    request: Option<&RequestId>,
    settling: bool,
) -> Answer<Option<Appended>> {
    let sql = "SELECT head, (SELECT n FROM entries WHERE session = $1 AND request = $2), \
               (SELECT hash FROM entries WHERE session = $1 AND n = $3) FROM sessions WHERE id = $1";
    let params: (Vec<u8>, Option<&str>, i64) =
        (bytes(row.session.0), request.map(RequestId::as_str), clamp(row.head));
    db.one(sql, &[&params.0, &params.1, &params.2], |found| {
        let head = unsigned(found, 0)?;
        let mine = found.try_get::<_, Option<&[u8]>>(2)? == Some(&row.head_hash.0);
        if settling && mine {
            return Ok(Appended::Done);
        }
        let done = found.try_get::<_, Option<i64>>(1)?.map(|_| unsigned(found, 1)).transpose()?;
        Ok(done.map_or(Appended::Conflict { head }, |head| Appended::Repeated { head }))
    })
    .await
}

/// Returns how many forks lie between a new session and its first ancestor.
async fn depth(db: &Db, row: &Row) -> Answer<i32> {
    let Some(parent) = row.parent else {
        return Ok(0);
    };
    let sql = "SELECT head, depth FROM sessions WHERE id = $1";
    let found = db
        .one(sql, &[&bytes(parent.session.0)], |row| Ok((unsigned(row, 0)?, row.try_get::<_, i32>(1)?)))
        .await?;
    let Some((head, depth)) = found else {
        return Err(Error::NoSuchSession(parent.session).into());
    };
    if parent.at > head {
        let (session, at) = (parent.session, parent.at);
        return refuse(format!("session {session} has {head} entries, not the {at} of the fork"));
    }
    if i64::from(depth) >= i64::from(MAX_FORK_DEPTH) {
        return refuse(format!(
            "forks are nested {MAX_FORK_DEPTH} deep at most: fork an earlier session, or export and import this one"
        ));
    }
    Ok(depth + 1)
}

/// Appends with all that goes beside the row and the entries, in an open transaction.
pub(super) async fn append(db: &Db, job: &Job, lease_ms: i64) -> Answer<Appended> {
    let append = &job.append;
    may_erase(db, append.session, &append.erase).await?;
    if append::together(db, &[job], lease_ms).await?.is_empty() {
        return match append::why(db, &[job]).await?.pop() {
            Some(Failed::Answered(answer)) => Ok(answer?),
            Some(Failed::Free) | None => Err(again(db, "a session changed under an append to it")),
        };
    }
    for packed in &job.entries {
        if let Some((digest, bytes)) = &packed.artifact {
            keep(db, append.session, packed.entry.n, *digest, bytes).await?;
        }
    }
    if !append.erase.is_empty() {
        erase(db, append.session, &append.erase).await?;
    }
    if !append.forget.is_empty() {
        forget(db, append.session, &append.forget).await?;
    }
    Ok(Appended::Done)
}

/// Refuses to erase what belongs to the session this one was forked from.
async fn may_erase(db: &Db, session: SessionId, erase: &[EntryNo]) -> Answer<()> {
    let Some(first) = erase.iter().min() else {
        return Ok(());
    };
    let sql = "SELECT parent, parent_at FROM sessions WHERE id = $1 AND parent_at >= $2";
    let params: (Vec<u8>, i64) = (bytes(session.0), clamp(*first));
    let parent = db.one(sql, &[&params.0, &params.1], |row| Ok((id(row, 0)?, unsigned(row, 1)?))).await?;
    match parent {
        None => Ok(()),
        Some((parent, at)) => {
            let n = erase.iter().find(|n| **n <= at).unwrap_or(first);
            let parent = SessionId(parent);
            refuse(format!(
                "entry {n} belongs to session {parent}, from which {session} was forked: redact it there"
            ))
        }
    }
}

async fn erase(db: &Db, session: SessionId, erase: &[EntryNo]) -> Answer<()> {
    let numbers: BTreeSet<i64> = erase.iter().copied().map(clamp).collect();
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let this = bytes(session.0);
    let sql = "UPDATE entries SET content = NULL, encoding = 0 WHERE session = $1 AND n = ANY ($2)";
    if db.write(sql, &[&this, &numbers]).await? != numbers.len() as u64 {
        return Err(db.damaged(format!("of entries {erase:?} of session {session} some are missing")).into());
    }
    let sql = "DELETE FROM artifact_uses WHERE session = $1 AND n = ANY ($2) RETURNING digest";
    let unused = db.all(sql, &[&this, &numbers], |row| Ok(row.try_get(0)?)).await?;
    release(db, unused).await
}

/// Lets go of artifacts that the session itself uses.
async fn forget(db: &Db, session: SessionId, forget: &[Digest]) -> Answer<()> {
    let digests: Vec<&[u8]> = forget.iter().map(|digest| &digest.0[..]).collect();
    let sql = "DELETE FROM artifact_uses WHERE session = $1 AND n = 0 AND digest = ANY ($2) RETURNING digest";
    let unused = db.all(sql, &[&bytes(session.0), &digests], |row| Ok(row.try_get(0)?)).await?;
    release(db, unused).await
}

/// Removes those artifacts that nobody uses. They are locked first: of two who let go of the last uses at
/// once, the second then sees what the first did. A use that is just beginning makes the foreign key
/// object, and then all of it is tried again.
async fn release(db: &Db, digests: Vec<Vec<u8>>) -> Answer<()> {
    if digests.is_empty() {
        return Ok(());
    }
    let sql = "SELECT FROM artifacts WHERE digest = ANY ($1) ORDER BY digest FOR UPDATE";
    db.write(sql, &[&digests]).await?;
    let sql = "DELETE FROM artifacts AS a WHERE a.digest = ANY ($1) \
               AND NOT EXISTS (SELECT FROM artifact_uses AS u WHERE u.digest = a.digest)";
    db.write(sql, &[&digests]).await.map(drop)
}

/// Keeps an artifact that the session itself uses, in an open transaction.
pub(super) async fn put_artifact(db: &Db, session: SessionId, digest: Digest, packed: &Packed) -> Answer<()> {
    // Nobody deletes the session meanwhile.
    let sql = "SELECT FROM sessions WHERE id = $1 FOR KEY SHARE";
    if db.one(sql, &[&bytes(session.0)], |_| Ok(())).await?.is_none() {
        return Err(Error::NoSuchSession(session).into());
    }
    keep(db, session, 0, digest, packed).await
}

async fn keep(db: &Db, session: SessionId, n: EntryNo, digest: Digest, packed: &Packed) -> Answer<()> {
    count(&db.tally.bytes_written, packed.bytes.len());
    let digest = &digest.0[..];
    let sql = "INSERT INTO artifacts (digest, bytes, encoding) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    db.write(sql, &[&digest, &packed.bytes, &packed.encoding]).await?;
    let sql = "INSERT INTO artifact_uses (session, n, digest) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    db.write(sql, &[&bytes(session.0), &clamp(n), &digest]).await.map(drop)
}

/// Deletes a session that nobody needs, in an open transaction.
pub(super) async fn delete(db: &Db, gone: &Gone, session: SessionId, earlier: Earlier) -> Answer<Deleted> {
    let this = bytes(session.0);
    let sql = concat!("SELECT owner, ", lives!("$2"), " FROM sessions WHERE id = $1 FOR UPDATE");
    let found =
        db.one(sql, &[&this, gone], |row| Ok((optional_id(row, 0)?, row.try_get::<_, bool>(1)?))).await?;
    match found {
        None if earlier.lost => return Ok(Deleted::Done),
        None => return Ok(Deleted::NoSuchSession),
        Some((Some(owner), true)) => return Ok(Deleted::Owned { worker: WorkerId(owner) }),
        Some(_) => {}
    }
    let sql = "SELECT id FROM sessions WHERE parent = $1 LIMIT 1";
    if let Some(fork) = db.one(sql, &[&this], |row| id(row, 0)).await? {
        return Ok(Deleted::NeededBy { fork: SessionId(fork) });
    }
    let sql = "DELETE FROM artifact_uses WHERE session = $1 RETURNING digest";
    let unused = db.all(sql, &[&this], |row| Ok(row.try_get(0)?)).await?;
    release(db, unused).await?;
    db.write("DELETE FROM entries WHERE session = $1", &[&this]).await?;
    // A fork that was created meanwhile makes the foreign key object, and then it is tried again.
    db.write("DELETE FROM sessions WHERE id = $1", &[&this]).await?;
    Ok(Deleted::Done)
}

const ANNOUNCE: &str = concat!(
    "WITH dead AS (DELETE FROM workers WHERE id <> $1 AND (lease <= now() OR id = ANY ($10::bytea[]))) \
     INSERT INTO workers AS w (id, place, host, pid, version, address, started, capacity, lease) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, ",
    lives_until!("$9"),
    ") ON CONFLICT (id) DO UPDATE SET lease = excluded.lease \
       WHERE $11::bool AND (w.host, w.pid, w.started) = (excluded.host, excluded.pid, excluded.started)"
);

/// Makes a worker known and alive, and forgets the dead. `ours` when it may be known already, through us.
pub(super) async fn announce(
    db: &Db,
    gone: &Gone,
    worker: &WorkerInfo,
    lease_ms: i64,
    ours: bool,
) -> Answer<()> {
    let announced = db
        .write(
            ANNOUNCE,
            &[
                &bytes(worker.worker.0),
                &worker.place,
                &worker.host,
                &i64::from(worker.pid),
                &worker.version,
                &worker.address,
                &worker.started.0,
                &i64::from(worker.capacity),
                &lease_ms,
                gone,
                &ours,
            ],
        )
        .await?;
    if announced == 0 {
        return Err(Error::AlreadyAnnounced(worker.worker).into());
    }
    Ok(())
}

const RENEW: &str = concat!(
    "WITH announced AS (UPDATE workers SET lease = ",
    lives_until!("$3"),
    " WHERE id = $1 RETURNING id), \
     held AS (UPDATE sessions AS s SET lease = ",
    lives_until!("$3"),
    " FROM unnest($2::bytea[]) AS a (session) WHERE s.id = a.session AND s.owner = $1 RETURNING s.id) \
     SELECT NULL::bytea WHERE NOT EXISTS (SELECT FROM announced) \
     UNION ALL SELECT a.session FROM unnest($2::bytea[]) AS a (session) \
       WHERE a.session NOT IN (SELECT id FROM held)"
);

/// Renews a worker's announcement and its hold on sessions. Returns those it has lost, and whether it is
/// still known.
pub(super) async fn renew(
    db: &Db,
    worker: WorkerId,
    sessions: &[SessionId],
    lease_ms: i64,
) -> Answer<(Vec<SessionId>, bool)> {
    // All who lock several rows lock them in this order.
    let mut sorted: Vec<Vec<u8>> = sessions.iter().map(|session| bytes(session.0)).collect();
    sorted.sort_unstable();
    let lost = db.all(RENEW, &[&bytes(worker.0), &sorted, &lease_ms], |row| optional_id(row, 0)).await?;
    let known = !lost.contains(&None);
    let lost: BTreeSet<Uuid> = lost.into_iter().flatten().collect();
    Ok((sessions.iter().copied().filter(|session| lost.contains(&session.0)).collect(), known))
}

/// Removes a worker that has gone.
pub(super) async fn retract(db: &Db, worker: WorkerId) -> Answer<()> {
    db.write("DELETE FROM workers WHERE id = $1", &[&bytes(worker.0)]).await.map(drop)
}

pub(super) fn labels(row: &Row) -> Result<String, Error> {
    serde_json::to_string(&row.labels).map_err(|error| Error::Invalid { reason: error.to_string() })
}

fn refuse<T>(reason: String) -> Answer<T> {
    Err(Error::Invalid { reason }.into())
}

fn again(db: &Db, detail: &str) -> Fault {
    let (database, detail) = (db.database().to_owned(), detail.to_owned());
    Fault { kind: Kind::Again, error: Error::Contended { database, detail } }
}
