//! What really happened, as only the world knows it: which calls began, what models reported, what
//! people sent. The log of a session is compared with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use longhaul_model::Part;
use longhaul_session::id::{CallId, EntryNo, Epoch, SessionId, WorkerId};
use longhaul_session::item::Item;
use longhaul_session::usage::Usage;
use tokio::task::Id as TaskId;

/// Names a call for ever: the session, the entry of the step that holds it, its id.
pub(crate) type CallKey = (SessionId, EntryNo, CallId);

/// One attempt at a model call.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// What it reported to have used, each report in place of the one before.
    pub(crate) reported: Vec<Usage>,
    /// The task of the runner that made it.
    pub(crate) runner: Option<TaskId>,
    /// The process of that runner, for readers.
    pub(crate) process: String,
    /// The session whose log has paid for it.
    pub(crate) charged: Option<SessionId>,
}

/// An answer as its provider knows it.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What it answers.
    pub(crate) asked: Vec<Arc<Item>>,
    /// What it says; nothing where it ends with its connection.
    pub(crate) parts: Vec<Part>,
    /// The provider has it no more.
    pub(crate) lost: bool,
    /// The provider was told to end it.
    pub(crate) ended: bool,
    /// A log has named it.
    pub(crate) named: bool,
    /// It is named no more, and nobody could have ended it: a person did that, or it was out of reach.
    pub(crate) dropped: bool,
}

/// What became of a message that a person sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It was accepted: it is in the log exactly once.
    Accepted,
    /// It was refused: it is not in the log.
    Refused,
    /// Nobody knows: it is there once or not at all.
    Unknown,
}

/// A message that a person sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) session: SessionId,
    pub(crate) text: String,
    pub(crate) answered: Answered,
}

/// What really happened. Its hashed maps are looked into, never walked: their order is no part of a run.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// How often each call began.
    pub(crate) starts: BTreeMap<CallKey, u32>,
    /// Calls that the log says were not run.
    pub(crate) not_run: BTreeSet<CallKey>,
    /// Calls that have a result in the log.
    pub(crate) answered: BTreeSet<CallKey>,
    /// Attempts at model calls, by the number that their reported cost carries.
    pub(crate) attempts: BTreeMap<u64, Attempt>,
    /// The answers that have begun, by their ids.
    pub(crate) answers: BTreeMap<String, Answer>,
    /// Workers that could not get ready for a session: they cannot reach its provider.
    pub(crate) unready: BTreeSet<WorkerId>,
    /// Likewise nobody can for a session without its configuration, or for a fork of it.
    pub(crate) configuration_redacted: bool,
    /// Which session and epoch a runner's task writes for.
    pub(crate) runners: HashMap<TaskId, (SessionId, Epoch)>,
    /// The newest attempt of each runner that has written, as long as its log tells of nothing that came after it.
    pub(crate) calling: HashMap<(SessionId, Epoch), u64>,
    /// Tasks that were told of a failure by the store: what they had to commit may be lost.
    pub(crate) failed: HashSet<TaskId>,
    /// How often a task found the store busy.
    pub(crate) busy: HashMap<TaskId, u32>,
    pub(crate) sent: Vec<Sent>,
    /// Parts that were built, by the calls that built them.
    pub(crate) parts: BTreeSet<CallKey>,
    /// Renewals that workers made: where they make none, leases run out under live runners.
    pub(crate) renewals: u64,
}
