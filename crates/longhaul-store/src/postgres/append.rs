//! Appends: one statement for all that wait together, which says which of them passed their fence, and one
//! that says why the others did not. Who waits with whom is decided in `writer`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use longhaul_session::id::{EntryNo, SessionId};

use super::columns::{Entries, Lone, Rows};
use super::db::{Db, count};
use super::fault::Answer;
use super::read::{clamp, id, unsigned};
use super::sql::{entries_from, lives_until, updated_step, xact_step};
use super::write;
use crate::payload::PackedEntry;
use crate::{Append, Appended, Error, Hint, RequestId};

/// An append ready to be written.
pub(super) struct Job {
    /// The append; its entries have moved to the other field.
    pub(super) append: Append,
    pub(super) entries: Vec<PackedEntry>,
    pub(super) labels: String,
    /// It was sent before, and nobody knows what became of it.
    settling: AtomicBool,
}

impl Job {
    pub(super) fn new(append: Append, entries: Vec<PackedEntry>) -> Result<Self, Error> {
        let labels = write::labels(&append.row)?;
        Ok(Job { append, entries, labels, settling: AtomicBool::new(false) })
    }

    /// Makes it count as done where its last entry is found: it may have been sent before.
    pub(super) fn settle(&self) {
        self.settling.store(true, Ordering::Relaxed);
    }

    /// Says whether it writes a row and entries and nothing else.
    pub(super) fn is_plain(&self) -> bool {
        let apart = self.entries.iter().any(|entry| entry.artifact.is_some());
        !apart && self.append.erase.is_empty() && self.append.forget.is_empty()
    }

    /// Returns how many bytes it writes, about.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.iter().map(|packed| {
            packed.entry.record.len() + packed.content.as_ref().map_or(0, |content| content.bytes.len())
        });
        self.append.row.state.len() + entries.sum::<usize>()
    }

    pub(super) fn hint(&self) -> Hint {
        Hint { session: self.append.session, head: self.append.row.head }
    }
}

/// What a statement gives back of an append that did not pass.
pub(super) enum Failed {
    /// What became of it.
    Answered(Result<Appended, Error>),
    /// Nothing stands in its way any more: what did has been taken back, or was just being written.
    Free,
}

/// The one statement: moves the rows that stand where their writers believe them to be, and inserts the
/// entries of those. A row is found in its newest committed version, since only an append changes a
/// head: of two that want one head, the second waits for the first and then fails.
macro_rules! append {
    ($asked:expr, $lease_ms:literal, $entries:expr) => {
        concat!(
            "WITH asked (session, expected, fence, request, head, head_hash, state, status, archived, name, \
               claimable_at, owner, epoch, place, labels, updated) AS (SELECT * FROM ",
            $asked,
            " AS it), \
             passed AS (UPDATE sessions AS s SET head = a.head, head_hash = a.head_hash, state = a.state, \
               status = a.status, archived = a.archived, name = a.name, claimable_at = a.claimable_at, \
               owner = a.owner, epoch = a.epoch, place = a.place, labels = a.labels, updated = a.updated, \
               updated_step = ",
            updated_step!("a.updated"),
            ", xact = pg_current_xact_id(), xact_step = ",
            xact_step!("txid_current()"),
            ", lease = CASE WHEN a.owner IS NULL THEN NULL \
                 WHEN s.owner = a.owner AND s.epoch = a.epoch THEN s.lease ELSE ",
            lives_until!($lease_ms),
            " END FROM asked AS a WHERE s.id = a.session AND s.head = a.expected \
               AND (a.fence IS NULL OR (s.epoch = a.fence AND s.owner IS NOT NULL)) \
               AND (a.request IS NULL OR NOT EXISTS \
                 (SELECT FROM entries AS e WHERE e.session = a.session AND e.request = a.request)) \
               RETURNING s.id) \
             INSERT INTO entries (session, n, kind, at, record, content, encoding, hash, request) SELECT ",
            $entries
        )
    };
}

/// For any appends. Returns the session of each entry it has inserted. `IS TRUE` has those that passed
/// hashed: asked without it, they would be gone through for every entry.
const TOGETHER: &str = append!(
    "unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[], \
       $8::text[], $9::bool[], $10::text[], $11::bigint[], $12::bytea[], $13::bigint[], $14::text[], \
       $15::text[], $16::bigint[])",
    "$17",
    concat!(
        "e.* FROM ",
        entries_from!("$18", "$19", "$20", "$21", "$22", "$23", "$24", "$25", "$26"),
        " AS e (session, n, kind, at, record, content, encoding, hash, request) \
         WHERE (e.session IN (SELECT id FROM passed)) IS TRUE RETURNING session"
    )
);

/// For one append of one entry, as most are that wait for nobody: without arrays, which take as long to set
/// up as all the rest does, and without rows to return, which the server would lay aside first.
macro_rules! alone {
    ($request:literal) => {
        append!(
            concat!(
                "(VALUES ($1::bytea, $2::bigint, $3::bigint, ",
                $request,
                ", $4::bigint, $5::bytea, $6::bytea, $7::text, $8::bool, $9::text, $10::bigint, \
                 $11::bytea, $12::bigint, $13::text, $14::text, $15::bigint))"
            ),
            "$16",
            concat!(
                "id, $4, $17::text, $18::bigint, $19::bytea, $20::bytea, $21::smallint, $5, ",
                $request,
                " FROM passed"
            )
        )
    };
}

/// Without a request, as most are: that there is none to look for, the server sees when it plans.
const ALONE: &str = alone!("NULL::text");

const ALONE_REQUESTED: &str = alone!("$22::text");

const WHY: &str = "\
    SELECT s.head, s.epoch, s.owner IS NOT NULL, \
      (SELECT e.n FROM entries AS e WHERE e.session = a.session AND e.request = a.request), \
      (SELECT e.hash FROM entries AS e WHERE e.session = a.session AND e.n = a.head) \
    FROM unnest($1::bytea[], $2::text[], $3::bigint[]) WITH ORDINALITY AS a (session, request, head, nth) \
    LEFT JOIN sessions AS s ON s.id = a.session ORDER BY a.nth";

/// Writes appends to different sessions. Returns the sessions of those that passed.
pub(super) async fn together(db: &Db, jobs: &[&Job], lease_ms: i64) -> Answer<HashSet<SessionId>> {
    let mut jobs = jobs.to_vec();
    // All who lock several rows lock them in this order.
    jobs.sort_unstable_by_key(|job| job.append.session);
    let passed: HashSet<SessionId> = if let Some(lone) = Lone::of(&jobs) {
        let statement = if lone.has_request() { ALONE_REQUESTED } else { ALONE };
        let inserted = db.write(statement, &lone.params(&lease_ms)).await?;
        jobs.iter().filter(|_| inserted == 1).map(|job| job.append.session).collect()
    } else {
        let (rows, entries) = (Rows::of(&jobs), Entries::of(&jobs));
        let params = [&rows.params()[..], &[&lease_ms], &entries.params()].concat();
        db.all(TOGETHER, &params, |row| Ok(SessionId(id(row, 0)?))).await?.into_iter().collect()
    };
    for job in jobs.iter().filter(|job| passed.contains(&job.append.session)) {
        count(&db.tally.appends, 1);
        count(&db.tally.entries_written, job.entries.len());
        count(&db.tally.bytes_written, job.bytes());
    }
    Ok(passed)
}

/// Says of appends that did not pass what stands in their way.
pub(super) async fn why(db: &Db, jobs: &[&Job]) -> Answer<Vec<Failed>> {
    let sessions: Vec<&[u8]> = jobs.iter().map(|job| &job.append.session.0.as_bytes()[..]).collect();
    let requests: Vec<_> =
        jobs.iter().map(|job| job.append.request.as_ref().map(RequestId::as_str)).collect();
    let heads: Vec<_> = jobs.iter().map(|job| clamp(job.append.row.head)).collect();
    let mut asked = jobs.iter();
    db.all(WHY, &[&sessions, &requests, &heads], |row| {
        let job = asked.next().ok_or("more answers than questions")?;
        let missing = Failed::Answered(Err(Error::NoSuchSession(job.append.session)));
        if row.try_get::<_, Option<i64>>(0)?.is_none() {
            return Ok(missing);
        }
        let (head, epoch, owned) = (unsigned(row, 0)?, unsigned(row, 1)?, row.try_get::<_, bool>(2)?);
        let done = row.try_get::<_, Option<i64>>(3)?.map(|_| unsigned(row, 3)).transpose()?;
        let hash: Option<&[u8]> = row.try_get(4)?;
        Ok(job.judge(Standing { head, epoch, owned, done, mine: hash == Some(&job.append.row.head_hash.0) }))
    })
    .await
}

/// Where a session stands, as an append sees it that did not pass.
struct Standing {
    head: EntryNo,
    epoch: u64,
    owned: bool,
    /// The last entry that its request wrote.
    done: Option<EntryNo>,
    /// The entry it was to write stands there.
    mine: bool,
}

impl Job {
    fn judge(&self, standing: Standing) -> Failed {
        let Standing { head, epoch, owned, done, mine } = standing;
        // An entry's hash covers all before it: nobody else can have written it. Where it is missing, a lost
        // statement that is still under way cannot write it either: the head it expects is gone.
        if self.settling.load(Ordering::Relaxed) && mine {
            return Failed::Answered(Ok(Appended::Done));
        }
        if let Some(head) = done {
            return Failed::Answered(Ok(Appended::Repeated { head }));
        }
        if self.append.epoch.is_some_and(|mine| mine != epoch || !owned) {
            return Failed::Answered(Ok(Appended::Fenced { epoch }));
        }
        if head != self.append.expected_head {
            return Failed::Answered(Ok(Appended::Conflict { head }));
        }
        Failed::Free
    }
}
