//! What the store promises, checked from outside.

#![cfg(test)]

mod postgres;
mod sqlite;

use std::collections::BTreeMap;

use longhaul_session::id::{Digest, EntryNo, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use longhaul_store::{Append, Row, WorkerInfo};
use uuid::Uuid;

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn worker(n: u128) -> WorkerInfo {
    WorkerInfo {
        worker: WorkerId(Uuid::from_u128(n)),
        place: "here".to_owned(),
        host: "host.example".to_owned(),
        pid: std::process::id(),
        version: "0.1.0".to_owned(),
        address: None,
        started: Timestamp(1),
        capacity: 0,
        running: 0,
        alive: true,
    }
}

fn entry(n: EntryNo, content: &[u8]) -> SealedEntry {
    SealedEntry {
        n,
        kind: "message".to_owned(),
        at: Timestamp(1),
        record: b"{}".to_vec(),
        content: Some(content.to_vec()),
        hash: Digest::of(&n.to_le_bytes()),
    }
}

fn row(session: SessionId, head: EntryNo) -> Row {
    Row {
        session,
        head,
        head_hash: entry(head, b"").hash,
        state: b"state".to_vec(),
        status: "running".to_owned(),
        archived: false,
        name: None,
        claimable_at: Some(Timestamp(0)),
        owner: None,
        epoch: 0,
        place: "here".to_owned(),
        parent: None,
        labels: BTreeMap::new(),
        created: Timestamp(1),
        updated: Timestamp(1),
    }
}

/// Returns the append of one entry.
fn append(session: SessionId, head: EntryNo, content: &[u8]) -> Append {
    Append {
        session,
        expected_head: head,
        epoch: None,
        entries: vec![entry(head + 1, content)],
        row: row(session, head + 1),
        erase: Vec::new(),
        forget: Vec::new(),
        request: None,
    }
}
