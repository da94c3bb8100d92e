//! The state of a session: the fold of its log. Small and bounded; it never grows with history.

use serde::{Deserialize, Serialize};

use crate::entry::{Measured, Mode, Place};
use crate::failure::{Failure, Retry};
use crate::goal::{BudgetKind, Goal, GoalStatus};
use crate::id::{CallId, Digest, EntryNo, Epoch, GoalId, Timestamp, WorkerId};
use crate::item::EffectClass;
use crate::steering::SteeringDue;
use crate::usage::{Totals, Usage};

/// The most user messages that can wait in a queue.
pub const MAX_QUEUE: usize = 100;
/// The most files one message may carry.
pub const MAX_FILES: usize = 20;
/// The most calls one model step may make.
pub const MAX_CALLS: usize = 128;
/// The longest name of a session, in characters.
pub const MAX_NAME_CHARS: usize = 100;
/// The most unanswered messages that a compaction keeps besides the newest entries.
pub const MAX_KEPT_MESSAGES: usize = 16;
/// The longest provider's id of a response that can be picked up again, in bytes.
pub const MAX_RESPONSE_ID_BYTES: usize = 512;
/// The most tools a session can be granted without asking.
pub const MAX_GRANTS: usize = 100;

/// What a session is, derived from its records alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionState {
    /// The number of entries: the version. 0 before the session exists.
    pub head: EntryNo,
    /// What the session is doing.
    pub status: Status,
    /// It was put away.
    pub archived: bool,
    /// Whether the agent plans or works.
    pub mode: Mode,
    /// Its log is in memory only.
    pub ephemeral: bool,
    /// It can have no goal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_goals: bool,
    /// Its name.
    pub name: Option<String>,
    /// The entry that holds the configuration in force.
    pub configured_at: EntryNo,
    /// The entry that holds the system prompt; 0 before the first runner wrote it.
    pub prepared_at: EntryNo,
    /// The newest compaction or clear: where the model's context starts. 0: at the beginning.
    pub boundary: EntryNo,
    /// The first entry whose items the model still sees besides the boundary's own.
    pub context_from: EntryNo,
    /// Entries before it whose messages of people the model still sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<EntryNo>,
    /// The last change to the history the model sees. Work is valid only for the one it began from.
    pub history_at: EntryNo,
    /// What the newest history item is.
    pub newest: Newest,
    /// Model and tool steps since the boundary: whether there is something to compact.
    pub steps_since_boundary: u64,
    /// The digest of the workspace context the model has seen since the boundary.
    pub context_digest: Option<Digest>,
    /// Messages accepted while busy, by the entries that queued them, first in first out.
    pub queue: Vec<EntryNo>,
    /// The unanswered calls of the last model step, in call order.
    pub pending: Vec<PendingCall>,
    /// Who runs the session.
    pub owner: Option<Owner>,
    /// How often it was acquired.
    pub epoch: Epoch,
    /// The number of the attempt at the present step, from 0.
    pub attempt: u32,
    /// The retry that is waiting.
    pub retry: Option<Retry>,
    /// What was too large for a model, of the history as it is.
    #[serde(default, skip_serializing_if = "Overflow::is_none")]
    pub overflow: Overflow,
    /// A person has changed what is owed while its owner may have been calling the model: what that was is not
    /// told by what is owed now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overtaken: bool,
    /// Ownership losses since the last tool batch that really ran or the last finished turn.
    pub crashes: u32,
    /// The turn under way, or the last one.
    pub turn: Turn,
    /// The goal.
    pub goal: Option<Goal>,
    /// The entry that set this goal, or removed the one before it.
    pub goal_set_at: EntryNo,
    /// What was spent.
    pub ledger: Totals,
    /// What the model must be told before it is called again.
    pub steering_due: SteeringDue,
    /// A person asked for a compaction.
    pub compaction_requested: bool,
    /// Compactions that failed in a row.
    pub compaction_failures: u32,
    /// Tool results up to this entry are shown in one line.
    pub pruned_to: EntryNo,
    /// The newest measurement of a request.
    pub measured: Option<Measured>,
    /// The entry of the answer to the measured request: items of older entries were in it. 0: nothing that
    /// is still sent was measured.
    pub measured_at: EntryNo,
    /// The provider's response that can be picked up again.
    pub response_id: Option<String>,
    /// It is a summary of the history, where there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub response_is_summary: bool,
    /// Tools whose calls need no approval.
    pub grants: Vec<String>,
    /// Why it failed.
    pub last_error: Option<Failure>,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing to do.
    #[default]
    Waiting,
    /// A turn is under way.
    Running,
    /// The turn is being stopped.
    Interrupting,
    /// A caller or a person must answer.
    RequiresAction,
    /// The turn failed.
    Failed,
}

impl Status {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Waiting => "waiting",
            Status::Running => "running",
            Status::Interrupting => "interrupting",
            Status::RequiresAction => "requires_action",
            Status::Failed => "failed",
        }
    }

    /// Tells whether nothing runs: no owner is needed.
    #[must_use]
    pub fn is_resting(self) -> bool {
        match self {
            Status::Waiting | Status::RequiresAction | Status::Failed => true,
            Status::Running | Status::Interrupting => false,
        }
    }
}

/// What the newest history item is, compactions and context files aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Newest {
    /// There is none.
    #[default]
    Nothing,
    /// Something the model has not answered yet: a message, steering.
    Input,
    /// A model response that asked for tools.
    Calls,
    /// A model response that asked for none.
    Response,
    /// Results of tools.
    Results,
}

/// What was too large for a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Nothing.
    #[default]
    None,
    /// The request for a summary, which another model may make.
    Summary,
    /// The request for an answer.
    Request,
}

impl Overflow {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    fn is_none(&self) -> bool {
        *self == Overflow::None
    }
}

/// A call without a result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PendingCall {
    /// Its id.
    pub id: CallId,
    /// The tool's name.
    pub tool: String,
    /// The entry of the model step that made it.
    pub step: EntryNo,
    /// Who answers it.
    pub place: Place,
    /// How often it may run.
    pub effect: EffectClass,
    /// Until when an answer is awaited.
    pub deadline: Option<Timestamp>,
    /// The epoch that may start it, or nobody.
    pub startable_by: Option<Epoch>,
    /// It must not run: a call that must be alone was not.
    pub rejected: bool,
    /// Its result ends the turn.
    pub stop_after: bool,
    /// The digest of name and arguments.
    pub digest: Digest,
}

/// Who runs a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The worker.
    pub worker: WorkerId,
    /// The epoch of its runner.
    pub epoch: Epoch,
}

/// The turn under way, or the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turn {
    /// Its number, from 1; 0 before the first.
    pub number: u64,
    /// What began it.
    pub origin: Origin,
    /// Model steps so far.
    pub steps: u32,
    /// Tool calls so far.
    pub tool_calls: u32,
    /// The digest over calls and results so far.
    pub digest: Digest,
    /// A tool that ends the turn has a result.
    pub stop_after: bool,
    /// The goal it works for, and on whose account.
    pub goal: Option<GoalId>,
}

/// What began a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person's message.
    #[default]
    User,
    /// A queued message.
    Queue,
    /// The goal.
    Continuation,
    /// A compaction that a person asked for; the model is not asked to go on.
    Compaction,
}

impl SessionState {
    /// Tells whether the session exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.head > 0
    }

    /// Returns the open call of that id.
    #[must_use]
    pub fn pending_call(&self, call: &CallId) -> Option<&PendingCall> {
        self.pending.iter().find(|pending| pending.id == *call)
    }

    /// Tells whether the goal would begin another turn now.
    #[must_use]
    pub fn goal_continues(&self) -> bool {
        self.mode == Mode::Default
            && !self.ephemeral
            && self.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active && !goal.suppressed)
    }

    /// Returns the goal on whose account work is done now: the one that was active in this turn.
    #[must_use]
    pub fn works_for(&self) -> Option<GoalId> {
        let goal = self.goal.as_ref().map(|goal| goal.id);
        goal.filter(|goal| self.mode == Mode::Default && self.turn.goal == Some(*goal))
    }

    /// Returns the goal that pays for a lost attempt: the one it began under, not one that was set since the
    /// history it began from.
    pub(crate) fn pays_for_loss(&self) -> Option<GoalId> {
        self.works_for().filter(|_| self.goal_set_at <= self.history_at)
    }

    /// Returns the limit of a hard budget that leaves no room for a call that may cost so much, after work of
    /// so many milliseconds that is not accounted for yet.
    #[must_use]
    pub fn without_room(&self, most: &Usage, unpaid_ms: u64) -> Option<BudgetKind> {
        let goal = self.goal.as_ref().filter(|goal| goal.budget.hard && self.works_for() == Some(goal.id))?;
        goal.budget.without_room(&goal.used, most, unpaid_ms)
    }

    /// Returns how long work may still go on under a hard budget, in milliseconds.
    #[must_use]
    pub fn hard_time_left_ms(&self, unpaid_ms: u64) -> Option<u64> {
        let goal = self.goal.as_ref().filter(|goal| goal.budget.hard && self.works_for() == Some(goal.id))?;
        let left = |limit: u64| limit.saturating_sub(goal.used.active_ms.saturating_add(unpaid_ms));
        goal.budget.active_ms.map(left)
    }

    /// Tells whether the model must be told something before it is called again.
    #[must_use]
    pub fn steering_is_due(&self) -> bool {
        self.steering_due.objective_changed || self.recall_is_due() || self.budget_steering().is_some()
    }

    /// Tells whether the model must be told again what it works towards.
    #[must_use]
    pub fn recall_is_due(&self) -> bool {
        self.steering_due.goal_recalled
            && self.mode == Mode::Default
            && self.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active)
    }

    /// Returns the budget to wrap up for: crossed, not told yet, and the goal still limited by it.
    #[must_use]
    pub fn budget_steering(&self) -> Option<BudgetKind> {
        self.goal.as_ref().filter(|goal| goal.status == GoalStatus::BudgetLimited)?;
        self.steering_due.budget
    }

    /// Returns from when a worker may claim the session if no live one owns it; `None`: it needs none.
    #[must_use]
    pub fn claimable_at(&self) -> Option<Timestamp> {
        match self.status {
            Status::Running => Some(self.retry.map_or(Timestamp(0), |retry| retry.not_before)),
            Status::Interrupting => Some(Timestamp(0)),
            Status::RequiresAction => self.pending.iter().filter_map(|call| call.deadline).min(),
            Status::Waiting | Status::Failed => None,
        }
    }

    /// Returns what is wrong with the state, in a sentence; `None` when its invariants hold.
    #[must_use]
    pub fn broken_invariant(&self) -> Option<&'static str> {
        let active_goal = self.mode == Mode::Default
            && self.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active);
        let checks = [
            (self.history_at > self.head || self.boundary > self.head, "an entry number is past the head"),
            (self.queue.len() > MAX_QUEUE, "the queue is over its limit"),
            (self.queue.iter().any(|n| *n > self.head), "a queued message is past the head"),
            (
                self.owner.is_some_and(|owner| owner.epoch != self.epoch),
                "the owner's epoch is not the newest epoch",
            ),
            (self.status.is_resting() && self.owns_at_rest(), "a resting session has an owner"),
            (
                self.status == Status::Waiting
                    && (!self.queue.is_empty() || !self.pending.is_empty() || self.goal_continues()),
                "a waiting session has something to do",
            ),
            (
                self.status == Status::Failed && (!self.pending.is_empty() || active_goal),
                "a failed session has an open call or an active goal",
            ),
            (
                self.status == Status::RequiresAction
                    && self.pending.iter().all(|call| call.place == Place::Local),
                "a session that requires action awaits none",
            ),
            (
                self.status == Status::RequiresAction
                    && self.pending.iter().any(|call| call.startable_by.is_some()),
                "a call may be started while the session requires action",
            ),
            (
                self.status == Status::Running
                    && self.owner.is_some()
                    && self.pending.iter().any(|c| c.place == Place::Local && c.startable_by.is_none()),
                "an owned session has a call that nobody may start",
            ),
            (self.archived && !self.status.is_resting(), "an archived session is busy"),
        ];
        checks.iter().find(|(broken, _)| *broken).map(|(_, text)| *text)
    }

    /// A runner may own a session that requires action only to let a deadline pass.
    fn owns_at_rest(&self) -> bool {
        self.owner.is_some() && self.status != Status::RequiresAction
    }
}
