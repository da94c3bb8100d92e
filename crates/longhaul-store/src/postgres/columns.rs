//! Appends as statements take them: the values of one, or a column of each kind for many.

use longhaul_session::id::EntryNo;
use longhaul_session::log::SealedEntry;
use tokio_postgres::types::ToSql;

use super::append::Job;
use super::read::clamp;
use super::sql::entries_from;
use crate::payload::PackedEntry;
use crate::{RequestId, Row};

/// What a statement takes.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// The values of one append of one entry: the entry is the head of the row after it.
pub(super) struct Lone<'a> {
    session: &'a [u8],
    expected: i64,
    fence: Option<i64>,
    request: Option<&'a str>,
    row: &'a Row,
    head: i64,
    hash: &'a [u8],
    claimable_at: Option<i64>,
    owner: Option<&'a [u8]>,
    epoch: i64,
    labels: &'a str,
    entry: &'a SealedEntry,
    content: Option<&'a [u8]>,
    encoding: i16,
}

impl<'a> Lone<'a> {
    /// Takes the values of what is one append of one entry.
    pub(super) fn of(jobs: &[&'a Job]) -> Option<Self> {
        let [job] = jobs else { return None };
        let [packed] = &job.entries[..] else { return None };
        let (append, row) = (&job.append, &job.append.row);
        Some(Lone {
            session: append.session.0.as_bytes(),
            expected: clamp(append.expected_head),
            fence: append.epoch.map(clamp),
            request: append.request.as_ref().map(RequestId::as_str),
            row,
            head: clamp(row.head),
            hash: &row.head_hash.0,
            claimable_at: row.claimable_at.map(|at| at.0),
            owner: row.owner.as_ref().map(|owner| &owner.0.as_bytes()[..]),
            epoch: clamp(row.epoch),
            labels: &job.labels,
            entry: &packed.entry,
            content: packed.content.as_ref().map(|content| &content.bytes[..]),
            encoding: packed.content.as_ref().map_or(0, |content| content.encoding),
        })
    }

    pub(super) fn has_request(&self) -> bool {
        self.request.is_some()
    }

    /// Returns them in the order of the statements, a request last.
    pub(super) fn params<'b>(&'b self, lease_ms: &'b i64) -> Vec<Param<'b>> {
        let mut params: Vec<Param<'b>> = vec![
            &self.session,
            &self.expected,
            &self.fence,
            &self.head,
            &self.hash,
            &self.row.state,
            &self.row.status,
            &self.row.archived,
            &self.row.name,
            &self.claimable_at,
            &self.owner,
            &self.epoch,
            &self.row.place,
            &self.labels,
            &self.row.updated.0,
            lease_ms,
            &self.entry.kind,
            &self.entry.at.0,
            &self.entry.record,
            &self.content,
            &self.encoding,
        ];
        if let Some(request) = &self.request {
            params.push(request);
        }
        params
    }
}

/// The columns of what appends ask for and of the rows after them.
#[derive(Default)]
pub(super) struct Rows<'a> {
    sessions: Vec<&'a [u8]>,
    expected: Vec<i64>,
    fences: Vec<Option<i64>>,
    requests: Vec<Option<&'a str>>,
    heads: Vec<i64>,
    hashes: Vec<&'a [u8]>,
    states: Vec<&'a [u8]>,
    statuses: Vec<&'a str>,
    archived: Vec<bool>,
    names: Vec<Option<&'a str>>,
    claimable: Vec<Option<i64>>,
    owners: Vec<Option<&'a [u8]>>,
    epochs: Vec<i64>,
    places: Vec<&'a str>,
    labels: Vec<&'a str>,
    updated: Vec<i64>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(jobs: &[&'a Job]) -> Self {
        let mut all = Rows::default();
        for job in jobs {
            let (append, row) = (&job.append, &job.append.row);
            all.sessions.push(append.session.0.as_bytes());
            all.expected.push(clamp(append.expected_head));
            all.fences.push(append.epoch.map(clamp));
            all.requests.push(append.request.as_ref().map(RequestId::as_str));
            all.heads.push(clamp(row.head));
            all.hashes.push(&row.head_hash.0);
            all.states.push(&row.state);
            all.statuses.push(&row.status);
            all.archived.push(row.archived);
            all.names.push(row.name.as_deref());
            all.claimable.push(row.claimable_at.map(|at| at.0));
            all.owners.push(row.owner.as_ref().map(|owner| &owner.0.as_bytes()[..]));
            all.epochs.push(clamp(row.epoch));
            all.places.push(&row.place);
            all.labels.push(&job.labels);
            all.updated.push(row.updated.0);
        }
        all
    }

    /// Returns them as arrays, in the order of the statements.
    pub(super) fn params(&self) -> [Param<'_>; 16] {
        [
            &self.sessions,
            &self.expected,
            &self.fences,
            &self.requests,
            &self.heads,
            &self.hashes,
            &self.states,
            &self.statuses,
            &self.archived,
            &self.names,
            &self.claimable,
            &self.owners,
            &self.epochs,
            &self.places,
            &self.labels,
            &self.updated,
        ]
    }
}

/// Inserts entries that need no look at their session's row.
pub(super) const INSERT: &str = concat!(
    "INSERT INTO entries (session, n, kind, at, record, content, encoding, hash, request) SELECT * FROM ",
    entries_from!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9")
);

/// The columns of entries.
#[derive(Default)]
pub(super) struct Entries<'a> {
    sessions: Vec<&'a [u8]>,
    numbers: Vec<i64>,
    kinds: Vec<&'a str>,
    times: Vec<i64>,
    records: Vec<&'a [u8]>,
    contents: Vec<Option<&'a [u8]>>,
    encodings: Vec<i16>,
    hashes: Vec<&'a [u8]>,
    requests: Vec<Option<&'a str>>,
}

impl<'a> Entries<'a> {
    /// Takes the entries of one row that is about to be created.
    pub(super) fn of_one(row: &'a Row, entries: &'a [PackedEntry], request: Option<&'a RequestId>) -> Self {
        let mut all = Entries::default();
        all.add(row.session.0.as_bytes(), row.head, entries, request);
        all
    }

    /// Returns them as arrays, in the order of the statements.
    pub(super) fn params(&self) -> [Param<'_>; 9] {
        [
            &self.sessions,
            &self.numbers,
            &self.kinds,
            &self.times,
            &self.records,
            &self.contents,
            &self.encodings,
            &self.hashes,
            &self.requests,
        ]
    }

    /// Takes the entries of appends.
    pub(super) fn of(jobs: &[&'a Job]) -> Self {
        let mut all = Entries::default();
        for job in jobs {
            let request = job.append.request.as_ref();
            all.add(job.append.session.0.as_bytes(), job.append.row.head, &job.entries, request);
        }
        all
    }

    fn add(
        &mut self,
        session: &'a [u8],
        head: EntryNo,
        entries: &'a [PackedEntry],
        request: Option<&'a RequestId>,
    ) {
        for packed in entries {
            let entry = &packed.entry;
            self.sessions.push(session);
            self.numbers.push(clamp(entry.n));
            self.kinds.push(&entry.kind);
            self.times.push(entry.at.0);
            self.records.push(&entry.record);
            self.contents.push(packed.content.as_ref().map(|content| &content.bytes[..]));
            self.encodings.push(packed.content.as_ref().map_or(0, |content| content.encoding));
            self.hashes.push(&entry.hash.0);
            self.requests.push(request.filter(|_| entry.n == head).map(RequestId::as_str));
        }
    }
}
