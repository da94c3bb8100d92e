//! The trait every backend keeps, and what its calls take and return.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use longhaul_session::id::{Digest, EntryNo, Epoch, SessionId, Timestamp, WorkerId};
use longhaul_session::log::SealedEntry;
use tokio::sync::broadcast;

use crate::{Error, Filter, Page, RequestId, Row, WorkerInfo};

/// Keeps sessions, their entries, artifacts and the list of workers.
///
/// All calls may come from any task at once. A call whose future is dropped may or may not have
/// been done. [`crate::conformance`] holds what every backend must keep.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates a session with its first entries, numbered from 1. A fork's `row.parent` says how
    /// many of its parent's entries are its prefix; its own begin after them.
    ///
    /// An id that exists gives `Repeated` when the same request made it, else `Conflict`.
    ///
    /// # Errors
    /// [`Error::NoSuchSession`] when the parent does not exist; [`Error::Invalid`] when the
    /// entries leave gaps or do not end in the row's head, the parent has fewer entries than the
    /// prefix, or forks are nested too deep; else what the world did.
    async fn create(
        &self,
        row: Row,
        entries: Vec<SealedEntry>,
        request: Option<RequestId>,
    ) -> Result<Appended, Error>;

    /// Returns a session's row.
    async fn load(&self, session: SessionId) -> Result<Option<Row>, Error>;

    /// Appends entries if the session's head is the expected one and, where an epoch is given, the
    /// session still has that epoch and an owner. All of the append happens, or none of it.
    ///
    /// A request id done before wins over everything, a lost fence over a lost race.
    ///
    /// # Errors
    /// [`Error::NoSuchSession`]; [`Error::Invalid`] when the numbers leave gaps, the row is not
    /// the one after them, or an entry to erase is not the session's own; else what the world did.
    async fn append(&self, append: Append) -> Result<Appended, Error>;

    /// Returns the last entry that a request wrote to a session; `None` when it was never done.
    async fn request(&self, session: SessionId, request: &RequestId) -> Result<Option<EntryNo>, Error>;

    /// Returns the entries of a range that exist, in order. A fork's prefix is read from its
    /// parents.
    ///
    /// # Errors
    /// [`Error::NoSuchSession`]; [`Error::Corrupt`] when an entry is missing or unreadable.
    async fn entries(
        &self,
        session: SessionId,
        range: RangeInclusive<EntryNo>,
    ) -> Result<Vec<SealedEntry>, Error>;

    /// Lists rows, the last updated first. Rows that stay as they are come exactly once over all
    /// pages; one updated in the meantime moves to the front.
    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Row>, Error>;

    /// Returns rows of a place, in random order, that may be claimed now: their time has come, and
    /// they have no owner or a dead one.
    async fn claimable(&self, now: Timestamp, place: &str, limit: usize) -> Result<Vec<Row>, Error>;

    /// Returns when the next row of a place without a live owner becomes claimable, after `now`.
    /// The death of an owner cannot be foreseen.
    async fn next_claimable_at(&self, now: Timestamp, place: &str) -> Result<Option<Timestamp>, Error>;

    /// Returns for how long an owner counts as alive without a renewal; `None` where it lives exactly as
    /// long as its process does.
    fn lease(&self) -> Option<Lease>;

    /// Says whether a worker is announced and lives.
    async fn owner_is_alive(&self, worker: WorkerId) -> Result<bool, Error>;

    /// Renews a worker's announcement and its hold on sessions. Returns those it has lost: owned by
    /// another, by nobody, or deleted.
    async fn renew(&self, worker: WorkerId, sessions: &[SessionId]) -> Result<Vec<SessionId>, Error>;

    /// Makes a worker known and alive, until the returned value is dropped or the process ends.
    ///
    /// # Errors
    /// [`Error::AlreadyAnnounced`] when the id is or was in use; else what the world did.
    async fn announce(&self, worker: WorkerInfo) -> Result<Box<dyn Announced>, Error>;

    /// Lists the workers that are known. Dead ones are forgotten when another is announced.
    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error>;

    /// Returns a stream of hints that sessions have grown, or have lost their owner. Lost or doubled hints
    /// change only latency.
    fn hints(&self) -> broadcast::Receiver<Hint>;

    /// Keeps bytes under their digest for as long as the session exists.
    ///
    /// # Errors
    /// [`Error::NoSuchSession`]; [`Error::Invalid`] when they are too many; else what the world did.
    async fn put_artifact(&self, session: SessionId, bytes: Vec<u8>) -> Result<Digest, Error>;

    /// Returns the bytes kept under a digest.
    async fn artifact(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error>;

    /// Deletes a session and what only it uses, unless a fork needs it or a live owner has it.
    async fn delete(&self, session: SessionId) -> Result<Deleted, Error>;

    /// Finishes all writes that were accepted and closes. Later calls get [`Error::Closed`].
    async fn close(&self) -> Result<(), Error>;
}

/// How an owner's life is told by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// From an acquisition or a renewal on, an owner counts as alive for this long, in milliseconds.
    pub lasts_ms: u64,
    /// How often a worker renews, in milliseconds.
    pub renew_every_ms: u64,
    /// A runner stops itself this long before its lease ends by its own clock, in milliseconds.
    pub margin_ms: u64,
}

impl Lease {
    /// Makes the terms of a lease of so many milliseconds: renewed three times while it lasts, with a fifth of
    /// it as the margin.
    #[must_use]
    pub fn lasting(lasts_ms: u64) -> Self {
        Lease { lasts_ms, renew_every_ms: lasts_ms / 3, margin_ms: lasts_ms / 5 }
    }
}

/// A worker's announcement. It lives until this is dropped.
pub trait Announced: Send + Sync + 'static {}

/// One append.
#[derive(Clone, Debug)]
pub struct Append {
    /// The session.
    pub session: SessionId,
    /// The head the entries were decided on.
    pub expected_head: EntryNo,
    /// The writer's epoch, when an owner writes.
    pub epoch: Option<Epoch>,
    /// The entries, numbered from `expected_head + 1`; at least one.
    pub entries: Vec<SealedEntry>,
    /// The row after them. `parent` and `created` stay as they were.
    pub row: Row,
    /// Entries whose content is erased, of the session's own, up to `expected_head`.
    pub erase: Vec<EntryNo>,
    /// Artifacts the session itself no longer keeps. They go unless another session, or the content of
    /// an entry, still uses them.
    pub forget: Vec<Digest>,
    /// The request it is done for.
    pub request: Option<RequestId>,
}

/// What became of a create or an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is committed, on disk.
    Done,
    /// Another was faster.
    Conflict {
        /// The session's head.
        head: EntryNo,
    },
    /// The session was acquired or released since the writer's epoch began.
    Fenced {
        /// The session's epoch.
        epoch: Epoch,
    },
    /// The request was done before.
    Repeated {
        /// The last entry it wrote then.
        head: EntryNo,
    },
}

/// What became of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The session is gone.
    Done,
    /// No session has this id.
    NoSuchSession,
    /// A fork begins with its entries: delete the fork first.
    NeededBy {
        /// One such fork.
        fork: SessionId,
    },
    /// A live worker runs it: interrupt it first.
    Owned {
        /// The worker.
        worker: WorkerId,
    },
}

/// A session has grown, or its owner has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The session.
    pub session: SessionId,
    /// Its last entry, or a later one that is already there.
    pub head: EntryNo,
}
