//! What every backend asks of the caller's numbers before it touches anything.

use longhaul_session::id::EntryNo;
use longhaul_session::log::SealedEntry;

use crate::limits::MAX_PAYLOAD_BYTES;
use crate::{Append, Error, Row};

/// Checks a session's first entries against its row.
///
/// # Errors
/// [`Error::Invalid`], with what does not fit.
pub fn create(row: &Row, entries: &[SealedEntry]) -> Result<(), Error> {
    if let Some(parent) = row.parent {
        if parent.at == 0 {
            return invalid("a fork begins with at least one entry of its parent".to_owned());
        }
        if parent.session == row.session {
            return invalid(format!("session {} cannot be its own parent", row.session));
        }
    }
    follow(row.parent.map_or(0, |parent| parent.at), row, entries)
}

/// Checks an append against itself.
///
/// # Errors
/// [`Error::Invalid`], with what does not fit.
pub fn append(append: &Append) -> Result<(), Error> {
    if append.row.session != append.session {
        let (session, row) = (append.session, append.row.session);
        return invalid(format!("an append to session {session} carries the row of {row}"));
    }
    let erasable = 1..=append.expected_head;
    if let Some(n) = append.erase.iter().find(|n| !erasable.contains(n)) {
        return invalid(format!("entry {n} cannot be erased, it is not before the new entries"));
    }
    follow(append.expected_head, &append.row, &append.entries)
}

/// Checks the size of an artifact or a content.
///
/// # Errors
/// [`Error::Invalid`], with what does not fit.
pub fn payload(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > MAX_PAYLOAD_BYTES {
        let len = bytes.len();
        return invalid(format!("a payload of {len} bytes is over the limit of {MAX_PAYLOAD_BYTES}: cut it"));
    }
    Ok(())
}

/// Checks that entries follow a head without gaps and end in the row's.
fn follow(head: EntryNo, row: &Row, entries: &[SealedEntry]) -> Result<(), Error> {
    let Some(last) = entries.last() else {
        return invalid("there is no entry: every change of a session is one".to_owned());
    };
    // Databases count with signed integers.
    if i64::try_from(row.head).is_err() || i64::try_from(row.epoch).is_err() {
        return invalid(format!("head {} or epoch {} is out of range", row.head, row.epoch));
    }
    let mut expected = head;
    for entry in entries {
        expected = expected.saturating_add(1);
        if entry.n != expected {
            return invalid(format!("entry {} stands where entry {expected} belongs", entry.n));
        }
        payload(entry.content.as_deref().unwrap_or_default())?;
    }
    if (row.head, row.head_hash) != (last.n, last.hash) {
        let (head, n) = (row.head, last.n);
        return invalid(format!("the row's head {head} is not the last entry, {n}, or its hash"));
    }
    Ok(())
}

fn invalid(reason: String) -> Result<(), Error> {
    Err(Error::Invalid { reason })
}
