//! The statements that read.

use std::ops::RangeInclusive;

use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use tokio_postgres::Row as Columns;
use uuid::Uuid;

use super::db::{Db, Unreadable, count};
use super::fault::Answer;
use super::sql::{lives, row_columns, updated_step};
use crate::limits::MAX_ROWS;
use crate::payload::{self, Packed};
use crate::row::ids_with_prefix;
use crate::{Error, Filter, Page, Parent, RequestId, Row, WorkerInfo};

/// Workers that have gone and whose rows have not yet.
pub(super) type Gone = Vec<Vec<u8>>;

pub(super) async fn load(db: &Db, session: SessionId) -> Answer<Option<Row>> {
    let sql = concat!("SELECT ", row_columns!(), " FROM sessions WHERE id = $1");
    db.one(sql, &[&bytes(session.0)], row).await
}

/// Reads the entry that a request wrote last.
pub(super) async fn request(db: &Db, session: SessionId, request: &RequestId) -> Answer<Option<EntryNo>> {
    let sql = "SELECT n FROM entries WHERE session = $1 AND request = $2";
    db.one(sql, &[&bytes(session.0), &request.as_str()], |row| unsigned(row, 0)).await
}

/// Walks from a session to those it was forked from, and takes from each its stretch of the range. One
/// statement: it sees one moment.
const ENTRIES: &str = "\
    WITH RECURSIVE segment AS ( \
      SELECT id, parent, coalesce(parent_at, 0) AS prefix, least($3, head) AS last, head, true AS newest \
        FROM sessions WHERE id = $1 \
      UNION ALL \
      SELECT p.id, p.parent, coalesce(p.parent_at, 0), least(s.prefix, s.last), p.head, false \
        FROM segment AS s JOIN sessions AS p ON p.id = s.parent WHERE s.prefix >= $2), \
    found AS (SELECT e.n, e.kind, e.at, e.record, e.content, e.encoding, e.hash, \
        a.bytes AS artifact, a.encoding AS artifact_encoding \
      FROM segment AS s JOIN entries AS e \
        ON e.session = s.id AND e.n BETWEEN greatest($2, s.prefix + 1) AND s.last \
      LEFT JOIN artifacts AS a ON e.encoding = 2 AND a.digest = e.content) \
    SELECT newest.head, found.* FROM (SELECT head FROM segment WHERE newest) AS newest \
      LEFT JOIN found ON true ORDER BY found.n";

/// Reads a range of entries, a fork's prefix from its parents.
pub(super) async fn entries(
    db: &Db,
    session: SessionId,
    range: &RangeInclusive<EntryNo>,
) -> Answer<Vec<SealedEntry>> {
    let (first, asked_last) = ((*range.start()).max(1), *range.end());
    let params: (Vec<u8>, i64, i64) = (bytes(session.0), clamp(first), clamp(asked_last));
    let rows = db
        .all(ENTRIES, &[&params.0, &params.1, &params.2], |row| Ok((unsigned(row, 0)?, entry(row)?)))
        .await?;
    let Some((head, _)) = rows.first() else {
        return Err(Error::NoSuchSession(session).into());
    };
    let last = asked_last.min(*head);
    let mut entries = Vec::new();
    for stored in rows.into_iter().filter_map(|(_, stored)| stored) {
        let n = stored.entry.n;
        entries.push(
            stored.unpack().map_err(|detail| {
                db.damaged(format!("content of entry {n} of session {session}: {detail}"))
            })?,
        );
    }
    if !entries.iter().map(|entry| entry.n).eq(first..=last) {
        let detail = format!("of entries {first} to {last} of session {session} some are missing");
        return Err(db.damaged(detail).into());
    }
    count(&db.tally.entries_read, entries.len());
    Ok(entries)
}

/// An entry with its content as it is kept.
struct Stored {
    entry: SealedEntry,
    encoding: i16,
    artifact: Option<Packed>,
}

fn entry(row: &Columns) -> Result<Option<Stored>, Unreadable> {
    if row.try_get::<_, Option<i64>>(1)?.is_none() {
        return Ok(None);
    }
    let entry = SealedEntry {
        n: unsigned(row, 1)?,
        kind: row.try_get(2)?,
        at: Timestamp(row.try_get(3)?),
        record: row.try_get(4)?,
        content: row.try_get(5)?,
        hash: digest(row, 7)?,
    };
    let artifact = match row.try_get(8)? {
        Some(bytes) => Some(Packed { bytes, encoding: row.try_get(9)? }),
        None => None,
    };
    Ok(Some(Stored { entry, encoding: row.try_get(6)?, artifact }))
}

impl Stored {
    /// Unpacks the content, wherever it is kept.
    fn unpack(mut self) -> Result<SealedEntry, String> {
        let Some(bytes) = self.entry.content.take() else {
            return Ok(self.entry);
        };
        self.entry.content = Some(if self.encoding == payload::ARTIFACT {
            let digest = bytes.try_into().map(Digest).map_err(|_| "the digest of its artifact is damaged")?;
            let packed = self.artifact.ok_or_else(|| format!("artifact {digest} is missing"))?;
            whole(digest, packed)?
        } else {
            payload::unpack(Packed { bytes, encoding: self.encoding })?
        });
        Ok(self.entry)
    }
}

pub(super) async fn artifact(db: &Db, digest: Digest) -> Answer<Option<Vec<u8>>> {
    let sql = "SELECT bytes, encoding FROM artifacts WHERE digest = $1";
    let packed = db
        .one(sql, &[&&digest.0[..]], |row| Ok(Packed { bytes: row.try_get(0)?, encoding: row.try_get(1)? }))
        .await?;
    let bytes = packed.map(|packed| whole(digest, packed)).transpose();
    Ok(bytes.map_err(|detail| db.damaged(detail))?)
}

/// Unpacks an artifact.
fn whole(digest: Digest, packed: Packed) -> Result<Vec<u8>, String> {
    let bytes = payload::unpack(packed)?;
    if Digest::of(&bytes) != digest {
        return Err(format!("artifact {digest} has other bytes than its digest says"));
    }
    Ok(bytes)
}

pub(super) async fn list(db: &Db, filter: &Filter, page: Page) -> Answer<Vec<Row>> {
    let sql = concat!(
        "SELECT ",
        row_columns!(),
        " FROM sessions WHERE (updated, id) < ($1, $2) AND updated_step <= ",
        updated_step!("$1::bigint"),
        " \
         AND ($3::bytea IS NULL OR id BETWEEN $3 AND $4::bytea) \
         AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR name = $6) \
         AND ($7::bool IS NULL OR archived = $7) ORDER BY updated_step DESC, updated DESC, id DESC LIMIT $8"
    );
    let ids = match filter.id_prefix.as_deref().map(ids_with_prefix) {
        None => None,
        Some(Some(ids)) => Some(ids),
        Some(None) => return Ok(Vec::new()),
    };
    // Before the first page: longer, and so greater, than any id.
    let (updated, session) =
        page.after.map_or((i64::MAX, vec![0xff; 17]), |cursor| (cursor.updated.0, bytes(cursor.session.0)));
    db.all(
        sql,
        &[
            &updated,
            &session,
            &ids.map(|(low, _)| low.to_vec()),
            &ids.map(|(_, high)| high.to_vec()),
            &filter.status,
            &filter.name,
            &filter.archived,
            &limit(page.limit),
        ],
        row,
    )
    .await
}

pub(super) async fn claimable(
    db: &Db,
    gone: &Gone,
    now: Timestamp,
    place: &str,
    at_most: usize,
) -> Answer<Vec<Row>> {
    let sql = concat!(
        "SELECT ",
        row_columns!(),
        " FROM sessions WHERE place = $1 AND claimable_at <= $2 AND NOT ",
        lives!("$3"),
        " ORDER BY random() LIMIT $4"
    );
    db.all(sql, &[&place, &now.0, gone, &limit(at_most)], row).await
}

pub(super) async fn next_claimable_at(
    db: &Db,
    gone: &Gone,
    now: Timestamp,
    place: &str,
) -> Answer<Option<Timestamp>> {
    let sql = concat!(
        "SELECT min(claimable_at) FROM sessions WHERE place = $1 AND claimable_at > $2 AND NOT ",
        lives!("$3")
    );
    let next = db.one(sql, &[&place, &now.0, gone], |row| Ok(row.try_get::<_, Option<i64>>(0)?)).await?;
    Ok(next.flatten().map(Timestamp))
}

pub(super) async fn is_alive(db: &Db, gone: &Gone, worker: WorkerId) -> Answer<bool> {
    let sql = "SELECT FROM workers WHERE id = $1 AND lease > now() AND id <> ALL ($2::bytea[])";
    Ok(db.one(sql, &[&bytes(worker.0), gone], |_| Ok(())).await?.is_some())
}

pub(super) async fn workers(db: &Db, gone: &Gone) -> Answer<Vec<WorkerInfo>> {
    let sql = "SELECT id, place, host, pid, version, address, started, capacity, \
               (SELECT count(*) FROM sessions WHERE owner = workers.id), lease > now() \
               FROM workers WHERE id <> ALL ($1::bytea[]) ORDER BY started, id";
    db.all(sql, &[gone], |row| {
        Ok(WorkerInfo {
            worker: WorkerId(id(row, 0)?),
            place: row.try_get(1)?,
            host: row.try_get(2)?,
            pid: row.try_get::<_, i64>(3)?.try_into()?,
            version: row.try_get(4)?,
            address: row.try_get(5)?,
            started: Timestamp(row.try_get(6)?),
            capacity: row.try_get::<_, i64>(7)?.try_into()?,
            running: row.try_get::<_, i64>(8)?.try_into()?,
            alive: row.try_get(9)?,
        })
    })
    .await
}

fn row(row: &Columns) -> Result<Row, Unreadable> {
    let labels: &str = row.try_get(13)?;
    let parent_at = row.try_get::<_, Option<i64>>(12)?.map(u64::try_from).transpose()?;
    let parent = optional_id(row, 11)?.zip(parent_at);
    Ok(Row {
        session: SessionId(id(row, 0)?),
        head: unsigned(row, 1)?,
        head_hash: digest(row, 2)?,
        state: row.try_get(3)?,
        status: row.try_get(4)?,
        archived: row.try_get(5)?,
        name: row.try_get(6)?,
        claimable_at: row.try_get::<_, Option<i64>>(7)?.map(Timestamp),
        owner: optional_id(row, 8)?.map(WorkerId),
        epoch: unsigned(row, 9)?,
        place: row.try_get(10)?,
        parent: parent.map(|(session, at)| Parent { session: SessionId(session), at }),
        labels: serde_json::from_str(labels)?,
        created: Timestamp(row.try_get(14)?),
        updated: Timestamp(row.try_get(15)?),
    })
}

pub(super) fn id(row: &Columns, column: usize) -> Result<Uuid, Unreadable> {
    Ok(Uuid::from_slice(row.try_get(column)?)?)
}

pub(super) fn optional_id(row: &Columns, column: usize) -> Result<Option<Uuid>, Unreadable> {
    Ok(row.try_get::<_, Option<&[u8]>>(column)?.map(Uuid::from_slice).transpose()?)
}

fn digest(row: &Columns, column: usize) -> Result<Digest, Unreadable> {
    Ok(Digest(row.try_get::<_, &[u8]>(column)?.try_into()?))
}

pub(super) fn unsigned(row: &Columns, column: usize) -> Result<u64, Unreadable> {
    Ok(row.try_get::<_, i64>(column)?.try_into()?)
}

/// Returns an id as a column holds it.
pub(super) fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Entry numbers that were stored fit; greater ones are asked for as "to the end".
pub(super) fn clamp(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn limit(rows: usize) -> i64 {
    clamp(rows.min(MAX_ROWS) as u64)
}
