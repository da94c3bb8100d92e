//! What a store keeps beside the entries: a session's row, workers, and how rows are asked for.

use std::collections::BTreeMap;
use std::fmt;

use longhaul_session::id::{Digest, EntryNo, Epoch, SessionId, Timestamp, WorkerId};
use uuid::Uuid;

use crate::limits::MAX_REQUEST_ID_CHARS;

/// A session's row: its state, and the few facts that queries need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub session: SessionId,
    /// The number of its last entry.
    pub head: EntryNo,
    /// The hash of its last entry.
    pub head_hash: Digest,
    /// Its folded state, opaque here.
    pub state: Vec<u8>,
    /// The name of its status, for queries.
    pub status: String,
    /// It was put away.
    pub archived: bool,
    /// The name a person gave it.
    pub name: Option<String>,
    /// From when a worker may claim it; `None` while nothing is owed to it.
    pub claimable_at: Option<Timestamp>,
    /// The worker that runs it.
    pub owner: Option<WorkerId>,
    /// How often it was acquired.
    pub epoch: Epoch,
    /// Where its directory is: only workers of that place claim it.
    pub place: String,
    /// What it was forked from. Never changes.
    pub parent: Option<Parent>,
    /// Labels, for people.
    pub labels: BTreeMap<String, String>,
    /// When it was created. Never changes.
    pub created: Timestamp,
    /// When its last entry was made.
    pub updated: Timestamp,
}

/// What a fork begins with: the first `at` entries of another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The other session.
    pub session: SessionId,
    /// How many of its entries are the fork's prefix.
    pub at: EntryNo,
}

/// Which rows to list. An empty filter lists all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this status.
    pub status: Option<String>,
    /// Only ids that begin with these hexadecimal digits (hyphens are ignored).
    pub id_prefix: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only archived ones, or only others.
    pub archived: Option<bool>,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Begin after this row.
    pub after: Option<Cursor>,
    /// At most this many rows; more than 1,000 are never returned.
    pub limit: usize,
}

/// A row's place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When the row was updated.
    pub updated: Timestamp,
    /// Its session.
    pub session: SessionId,
}

/// Returns the first and the last id that begin with some digits; `None` when none can.
pub(crate) fn ids_with_prefix(prefix: &str) -> Option<([u8; 16], [u8; 16])> {
    let digits: String = prefix.chars().filter(|char| *char != '-').collect();
    if digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pad = |fill: &str| format!("{digits}{}", fill.repeat(32 - digits.len()));
    let bytes = |text: String| Uuid::parse_str(&text).ok().map(Uuid::into_bytes);
    Some((bytes(pad("0"))?, bytes(pad("f"))?))
}

impl Row {
    /// Returns the row's place in a list, to ask for what follows it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { updated: self.updated, session: self.session }
    }
}

/// What a worker tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id, used for one start of it only.
    pub worker: WorkerId,
    /// The place whose sessions it runs.
    pub place: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// The address of its server, when it has one.
    pub address: Option<String>,
    /// When it started.
    pub started: Timestamp,
    /// How many sessions it takes on by itself; 0 for one that runs only what it was started for.
    pub capacity: u32,
    /// How many sessions it owns. The store's answer: ignored when a worker is announced.
    pub running: u32,
    /// It lives. The store's answer: ignored when a worker is announced.
    pub alive: bool,
}

/// Names a request, so that a repeated one is not done twice: 1 to 128 printable ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

/// The text is no request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id is 1 to {MAX_REQUEST_ID_CHARS} printable ASCII characters")]
pub struct RequestIdError;

impl RequestId {
    /// Takes a text as a request id.
    ///
    /// # Errors
    /// When it is empty, too long, or holds anything but printable ASCII.
    pub fn new(text: impl Into<String>) -> Result<Self, RequestIdError> {
        let text = text.into();
        let fits = (1..=MAX_REQUEST_ID_CHARS).contains(&text.len());
        if fits && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            Ok(RequestId(text))
        } else {
            Err(RequestIdError)
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_short_printable_ascii() {
        let longest = "x".repeat(128);
        for good in ["a", "a b~", &longest] {
            assert_eq!(RequestId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "é", "a\n", "\u{7f}", "a\0", &"x".repeat(129)] {
            assert_eq!(RequestId::new(bad), Err(RequestIdError), "{bad:?}");
        }
    }
}
