//! The stored form of the log: entries sealed into a hash chain, opened again, and verified.

use crate::context::Context;
use crate::entry::{Entry, Fact, Payload, Record};
use crate::evolve::evolve;
use crate::id::{Digest, EntryNo, Timestamp};
use crate::ledger::Ledger;
use crate::state::SessionState;

/// An entry as a store keeps it: bytes, and the hash that chains it to the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEntry {
    /// Its number, from 1 and without gaps.
    pub n: EntryNo,
    /// The name of its kind, for queries.
    pub kind: String,
    /// When it was made.
    pub at: Timestamp,
    /// The record, as JSON: what is hashed.
    pub record: Vec<u8>,
    /// The content, as JSON; `None` when it has none or it was redacted.
    pub content: Option<Vec<u8>>,
    /// `H(hash of the entry before, record)`.
    pub hash: Digest,
}

/// Why a stored entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record is not one this program knows.
    #[error("entry {n}: the record cannot be read: {source}")]
    Record {
        /// The entry.
        n: EntryNo,
        /// Why.
        source: serde_json::Error,
    },
    /// The content is not one this program knows.
    #[error("entry {n}: the content cannot be read: {source}")]
    Content {
        /// The entry.
        n: EntryNo,
        /// Why.
        source: serde_json::Error,
    },
    /// The content is not what the record says it is.
    #[error("entry {n}: the content is not the one the record names")]
    Digest {
        /// The entry.
        n: EntryNo,
    },
    /// The entry's number is not the record's.
    #[error("entry {n}: the record is of entry {record}")]
    Number {
        /// The number it is stored under.
        n: EntryNo,
        /// The number it has.
        record: EntryNo,
    },
}

/// Returns the hash of an entry: of the hash before it and its record.
#[must_use]
pub fn chain(before: Digest, record: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    hasher.update(record);
    Digest(*hasher.finalize().as_bytes())
}

/// Seals entries that follow the entry with the hash `before`; zero before the first.
#[must_use]
pub fn seal(before: Digest, entries: &[Entry]) -> Vec<SealedEntry> {
    let mut hash = before;
    let seal_one = |entry: &Entry| {
        let record = serde_json::to_vec(&entry.record).expect("a record has only string keys");
        hash = chain(hash, &record);
        SealedEntry {
            n: entry.record.n,
            kind: entry.record.fact.kind().to_owned(),
            at: entry.record.at,
            record,
            content: entry.content.as_ref().map(|payload| payload.bytes.clone()),
            hash,
        }
    };
    entries.iter().map(seal_one).collect()
}

/// Opens a stored entry.
///
/// # Errors
/// The bytes are not an entry this program can read, or the content is not the record's.
pub fn open(sealed: &SealedEntry) -> Result<Entry, Error> {
    let (n, record) = (sealed.n, open_record(sealed)?);
    let content = match &sealed.content {
        None => None,
        Some(bytes) => {
            let digest = Digest::of(bytes);
            if record.content != Some(digest) {
                return Err(Error::Digest { n });
            }
            let content = serde_json::from_slice(bytes).map_err(|source| Error::Content { n, source })?;
            Some(Payload { content, bytes: bytes.clone(), digest })
        }
    };
    Ok(Entry { record, content })
}

/// Opens the record of a stored entry, for those who do not ask what was said.
///
/// # Errors
/// The bytes are not a record this program can read.
pub fn open_record(sealed: &SealedEntry) -> Result<Record, Error> {
    let n = sealed.n;
    let record: Record =
        serde_json::from_slice(&sealed.record).map_err(|source| Error::Record { n, source })?;
    if record.n == n { Ok(record) } else { Err(Error::Number { n, record: record.n }) }
}

/// Walks a log from its first entry and says exactly what is wrong with it.
#[derive(Debug, Default)]
pub struct Verifier {
    hash: Digest,
    state: SessionState,
    context: Context,
    ledger: Ledger,
    redacted: Vec<EntryNo>,
    emptied: Vec<EntryNo>,
    problems: Vec<String>,
}

impl Verifier {
    /// Checks the next entry: number, kind, time, chain, digest, fold and ledger.
    pub fn push(&mut self, sealed: &SealedEntry) {
        let expected = self.state.head + 1;
        if sealed.n != expected {
            self.problems.push(format!("entry {} follows entry {}", sealed.n, self.state.head));
        }
        let hash = chain(self.hash, &sealed.record);
        if hash != sealed.hash {
            self.problems.push(format!("entry {}: the hash does not follow from the one before", sealed.n));
        }
        self.hash = sealed.hash;
        match open(sealed) {
            Ok(entry) => {
                if entry.record.fact.kind() != sealed.kind || entry.record.at != sealed.at {
                    self.problems.push(format!("entry {}: its kind or time is not the record's", sealed.n));
                }
                self.fold(&entry);
            }
            Err(error) => {
                self.problems.push(error.to_string());
                self.state.head = sealed.n;
            }
        }
    }

    fn fold(&mut self, entry: &Entry) {
        let n = entry.record.n;
        if entry.record.content.is_some() && entry.content.is_none() {
            self.emptied.push(n);
        }
        if let Fact::Redacted { entry } = entry.record.fact {
            self.redacted.push(entry);
        }
        self.ledger.push(&entry.record, entry.content.as_ref().map(|payload| &payload.content));
        self.state = evolve(std::mem::take(&mut self.state), &entry.record);
        self.context.apply(entry);
        if let Some(broken) = self.state.broken_invariant() {
            self.problems.push(format!("entry {n}: {broken}"));
        }
    }

    /// Learns that the content of an entry was redacted in the session that this log begins with.
    pub fn redacted_in_origin(&mut self, n: EntryNo) {
        self.redacted.push(n);
    }

    /// Compares with the stored row and returns all that is wrong; nothing when the log is sound.
    #[must_use]
    pub fn finish(mut self, head: EntryNo, head_hash: Digest, state: &SessionState) -> Vec<String> {
        if self.state.head != head {
            self.problems.push(format!("the row says {head} entries, the log has {}", self.state.head));
        }
        if self.hash != head_hash {
            self.problems.push("the row's hash is not the hash of the newest entry".to_owned());
        }
        if self.state != *state {
            self.problems.push("the row's state is not the fold of the log".to_owned());
        }
        self.problems.extend(self.ledger.disagreements(&self.state));
        for n in self.emptied {
            if !self.redacted.contains(&n) {
                self.problems.push(format!("entry {n}: the content is gone, and no entry redacts it"));
            }
        }
        let open: Vec<_> = self.state.pending.iter().map(|call| &call.id).collect();
        self.problems.extend(self.context.broken_pairing(&open));
        self.problems
    }
}
