//! Entries: the records a session is folded from, and the content stored beside them.
//!
//! A record holds the facts and is hashed into the chain, content only by its digest. `evolve` takes
//! records and so cannot read content; content can be redacted and everything still holds.

use serde::{Deserialize, Serialize};

use crate::agent::{Configuration, ToolSpec};
use crate::failure::{Failure, Retry};
use crate::gist::gist;
use crate::goal::{BudgetKind, Goal};
use crate::id::{CallId, Digest, EntryNo, Epoch, GoalId, SessionId, Timestamp, WorkerId};
use crate::item::{EffectClass, FileSeen, Item, Outcome, ToolResult};
use crate::usage::{Spend, Usage};

/// One record of a session's log, with its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the state is folded from.
    pub record: Record,
    /// What the model and people see.
    pub content: Option<Payload>,
}

impl Entry {
    /// Returns the items of its content; none where it has none or it was redacted.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        self.content.as_ref().map(|payload| payload.content.items()).unwrap_or_default()
    }
}

/// The part of an entry that is hashed and folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this kind's form.
    pub v: u16,
    /// The entry's number.
    pub n: EntryNo,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it.
    pub by: Actor,
    /// The digest of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// What happened.
    pub fact: Fact,
}

/// Who made an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A person or a program through a command.
    User,
    /// A worker, in one epoch.
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Its epoch.
        epoch: Epoch,
    },
}

/// Content, serialised once: its bytes are stored and its digest is in the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// The content.
    pub content: Content,
    /// The content as JSON.
    pub bytes: Vec<u8>,
    /// The digest of the bytes.
    pub digest: Digest,
}

impl Payload {
    /// Serialises content.
    #[must_use]
    pub fn new(content: Content) -> Self {
        let bytes = serde_json::to_vec(&content).expect("content has only string keys");
        Payload { digest: Digest::of(&bytes), bytes, content }
    }

    /// Serialises items.
    #[must_use]
    pub fn items(items: Vec<Item>) -> Self {
        Payload::new(Content::Items { items })
    }
}

/// What stands beside a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// What the model sees.
    Items {
        /// In order.
        items: Vec<Item>,
    },
    /// The configuration the session runs with.
    Configuration {
        /// It.
        configuration: Box<Configuration>,
    },
    /// The rendered system prompt and the tools, as every request of the session carries them.
    Prepared {
        /// The rendered text.
        system: String,
        /// The tools.
        tools: Vec<ToolSpec>,
    },
    /// The files that the goal protects, as they were.
    Guarded {
        /// By path.
        files: Vec<FileSeen>,
    },
}

impl Content {
    /// Returns its items; none for content that the model does not see.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        if let Content::Items { items } = self { items } else { &[] }
    }
}

/// What happened: one variant for each kind of entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// The session began. Content: its configuration.
    Created {
        /// Its log is in memory only.
        ephemeral: bool,
        /// It can have no goal.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_goals: bool,
        /// Its name, if it was given one.
        name: Option<String>,
    },
    /// The session began as the first entries of another.
    Forked {
        /// The other session.
        parent: SessionId,
        /// How many of its entries are the prefix.
        at: EntryNo,
        /// Answers to the calls that were open there. Content: these results.
        results: Vec<ResultFact>,
    },
    /// The session was read from an export.
    Imported {
        /// The session it was exported from.
        origin: SessionId,
        /// How many entries came with it.
        at: EntryNo,
        /// Answers to the calls that were open there. Content: these results.
        results: Vec<ResultFact>,
    },
    /// The first runner rendered the system prompt. Content: prompt and tools.
    Prepared,
    /// The configuration changed. Content: the new one.
    Configured {
        /// It can have no goal.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_goals: bool,
    },
    /// A person's message entered history and began a turn. Content: the message.
    Message,
    /// A person's message was queued. Content: the message.
    Queued,
    /// A queued message was removed.
    Unqueued {
        /// The entry that queued it.
        message: EntryNo,
    },
    /// A queued message entered history and began a turn.
    Promoted {
        /// The entry that queued it.
        message: EntryNo,
    },
    /// A person's message was replaced, and all that followed it left history. Content: the new message.
    Edited {
        /// The entry of the message replaced.
        message: EntryNo,
    },
    /// The workspace's context files were shown to the model. Content: the files.
    Context {
        /// The digest over all of them.
        digest: Digest,
    },
    /// The model was told something on Longhaul's own account. Content: the text.
    Steering {
        /// A budget to wrap up for.
        budget: Option<BudgetKind>,
        /// The objective was set, changed or removed.
        objective_changed: bool,
        /// The goal was told again.
        goal_recalled: bool,
    },
    /// The model answered. Content: what it said and asked for.
    ModelStep {
        /// The calls it asked for, in order.
        calls: Vec<CallFact>,
        /// What it cost.
        charge: Charge,
        /// How the request was measured.
        measured: Measured,
        /// Why it stopped, in the provider's word or ours.
        finish: String,
        /// The provider's id of the response.
        response_id: Option<String>,
        /// Milliseconds to the first part, and to the end.
        timing: Timing,
    },
    /// Calls of the newest model step were answered. Content: the results.
    ToolStep {
        /// How each ended, in call order.
        results: Vec<ResultFact>,
        /// What they cost.
        charge: Charge,
        /// What the model made of its goal by a tool.
        goal: Option<ModelGoal>,
    },
    /// The provider named a response that can be picked up again.
    ResponseStarted {
        /// Its id.
        response_id: String,
        /// It is a summary of the history.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_summary: bool,
    },
    /// Work that had become obsolete was paid for.
    Settled {
        /// What it cost.
        charge: Charge,
    },
    /// An attempt failed and will be repeated.
    Retry {
        /// The failure, for readers.
        failure: Failure,
        /// When to go on.
        retry: Retry,
        /// The number of the next attempt.
        attempt: u32,
        /// What the failed attempt cost.
        charge: Charge,
    },
    /// The session waits for callers or people.
    Awaiting {
        /// Until when, for the calls that have a deadline.
        deadlines: Vec<(CallId, Timestamp)>,
    },
    /// Callers or people answered. Content: the results.
    Answered {
        /// Calls that may run now.
        allowed: Vec<CallId>,
        /// Calls that have a result now.
        results: Vec<ResultFact>,
    },
    /// A person asked for a compaction.
    CompactionRequested,
    /// The history before the kept tail was summarised. Content: the summary.
    Compacted {
        /// The first entry whose items are kept word for word.
        keep_from: EntryNo,
        /// Entries before it whose messages of people are kept as well: they were not answered.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kept: Vec<EntryNo>,
        /// What it cost.
        charge: Charge,
    },
    /// A compaction failed.
    CompactionFailed {
        /// Why.
        failure: Failure,
        /// What it cost.
        charge: Charge,
        /// It was one too many in a row: from now on only people ask for compactions.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        automatic_off: bool,
    },
    /// The model's context starts anew.
    Cleared,
    /// A turn ended. Content: the continuation's text, if the goal goes on.
    TurnFinished {
        /// Why.
        reason: FinishReason,
        /// Work not accounted for by a step.
        charge: Charge,
        /// What the turn means for the goal.
        verdict: TurnVerdict,
        /// A budget of the goal is used up: it does not go on.
        limited: Option<BudgetKind>,
        /// What comes next.
        next: Next,
    },
    /// The work under way is to be stopped.
    Interrupting {
        /// The queued message to go on with.
        promote: Option<EntryNo>,
        /// Queued messages that were dropped with it.
        dropped: Vec<EntryNo>,
        /// An active goal was paused.
        pause_goal: bool,
    },
    /// The work under way was stopped. Content: partial output, results, the continuation's text.
    Interrupted {
        /// How the open calls ended.
        results: Vec<ResultFact>,
        /// What was cut off had said something, and it is kept.
        partial: bool,
        /// What the stopped work cost.
        charge: Charge,
        /// A budget of the goal is used up: it does not go on.
        limited: Option<BudgetKind>,
        /// What comes next.
        next: Next,
    },
    /// The turn failed. Content: results of the open calls.
    Failed {
        /// Why.
        failure: Failure,
        /// How the open calls ended.
        results: Vec<ResultFact>,
        /// What the failed work cost.
        charge: Charge,
    },
    /// The goal was set, changed or removed by a person, or the files it protects were digested. Content: the
    /// continuation's text, if it goes on; the digests.
    Goal {
        /// What it is now.
        goal: Option<Goal>,
        /// What comes next, when the session was at rest.
        next: Option<Next>,
    },
    /// The mode changed. Content: the continuation's text, if the goal goes on.
    Mode {
        /// What it is now.
        mode: Mode,
        /// What comes next, when the session was at rest.
        next: Option<Next>,
    },
    /// The session was named.
    Named {
        /// Its name; `None` removes it.
        name: Option<String>,
    },
    /// A tool's calls need no approval from now on.
    Granted {
        /// The tool.
        tool: String,
    },
    /// A hook decided something. Content: what it adds to history.
    Hook {
        /// The point of the turn.
        point: String,
        /// The hook's name.
        name: String,
        /// What it decided.
        decision: String,
    },
    /// The content of an entry was removed.
    Redacted {
        /// The entry.
        entry: EntryNo,
    },
    /// The session was put away.
    Archived,
    /// The session was brought back.
    Unarchived,
    /// A runner took the session.
    Acquired {
        /// Its worker.
        worker: WorkerId,
        /// The new epoch.
        epoch: Epoch,
        /// The owner before was lost, not released.
        lost: bool,
        /// What the lost attempt may have cost.
        estimate: Usage,
        /// The goal that this counts for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        goal: Option<GoalId>,
        /// The budget of that goal which this used up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        crossed: Option<BudgetKind>,
    },
    /// The runner gave the session back.
    Released {
        /// Calls it had not started.
        not_started: Vec<CallId>,
    },
    /// The stored state broke the rules and was put right.
    Reconciled {
        /// What was wrong.
        broken: String,
    },
}

/// A tool call as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFact {
    /// Its id.
    pub id: CallId,
    /// The tool's name.
    pub tool: String,
    /// Who answers it.
    pub place: Place,
    /// How often it may run.
    pub effect: EffectClass,
    /// It must be alone in its step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// Its result ends the turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_after: bool,
    /// The digest of name and arguments.
    pub digest: Digest,
}

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The runner.
    Local,
    /// The program that uses the session.
    Client,
    /// A person, by yes or no; a yes makes it local.
    Approval,
    /// A person, by an answer.
    Question,
}

/// How a call ended, as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFact {
    /// The call.
    pub call: CallId,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was started and when it ended, if it ran here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<(Timestamp, Timestamp)>,
    /// The digest of the output without the durations and times of day in it, by which repetition is found.
    pub digest: Digest,
}

impl ResultFact {
    /// Makes the fact of a result.
    #[must_use]
    pub fn of(result: &ToolResult, ran: Option<(Timestamp, Timestamp)>) -> Self {
        ResultFact { call: result.call.clone(), outcome: result.outcome, ran, digest: gist(&result.output) }
    }
}

/// What some work cost, and the budget it crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Charge {
    /// The cost, and the goal it counts for.
    pub spend: Spend,
    /// The budget of that goal which this cost used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crossed: Option<BudgetKind>,
}

/// A request's size, as the provider measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Measured {
    /// Its tokens.
    pub input_tokens: u64,
    /// The number of items it had.
    pub items: u64,
    /// The bytes of these items.
    pub bytes: u64,
    /// Results of tools up to this entry were shown in one line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pruned_to: EntryNo,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How long a model call took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// To the first part.
    pub first_part_ms: u64,
    /// To the end.
    pub total_ms: u64,
}

/// What the model made of its goal by a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelGoal {
    /// It set one, as it was asked to.
    Created(Box<Goal>),
    /// It reached it, and the checks passed.
    Completed,
    /// It cannot go on.
    Blocked(String),
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model has nothing left to do.
    Complete,
    /// A tool that ends the turn was called.
    StopAfterTool,
    /// The turn has had all the model steps it may have.
    MaxSteps,
    /// A hard budget leaves no room for another call.
    HardBudget(BudgetKind),
    /// The turn was there for a compaction only.
    Compacted,
}

/// What a finished turn means for the goal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnVerdict {
    /// Nothing.
    None,
    /// A continuation turn called no tool: the next one is suppressed.
    Suppressed,
    /// A continuation turn did something; its digest is kept.
    Worked(Digest),
    /// Continuation turns repeat each other: the goal is blocked.
    Spun(Digest),
}

/// What comes after a turn, decided in the entry that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// The queued message of this entry.
    Promote(EntryNo),
    /// The goal goes on.
    Continue,
    /// Nothing: the session waits.
    Rest,
}

/// Whether the agent plans or works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It works.
    #[default]
    Default,
    /// It plans: goals are neither pursued nor charged.
    Plan,
}

/// The names of all kinds, as they stand in the log.
pub const KINDS: [&str; 38] = [
    "created",
    "forked",
    "imported",
    "prepared",
    "configured",
    "message",
    "queued",
    "unqueued",
    "promoted",
    "edited",
    "context",
    "steering",
    "model_step",
    "tool_step",
    "response_started",
    "settled",
    "retry",
    "awaiting",
    "answered",
    "compaction_requested",
    "compacted",
    "compaction_failed",
    "cleared",
    "turn_finished",
    "interrupting",
    "interrupted",
    "failed",
    "goal",
    "mode",
    "named",
    "granted",
    "hook",
    "redacted",
    "archived",
    "unarchived",
    "acquired",
    "released",
    "reconciled",
];

impl Fact {
    /// Returns the queued message that this brings into history, by the entry that queued it.
    #[must_use]
    pub fn promoted(&self) -> Option<EntryNo> {
        match (self, self.next()) {
            (Fact::Promoted { message }, _) => Some(*message),
            (_, Some(Next::Promote(message))) => Some(message),
            (_, Some(Next::Continue | Next::Rest) | None) => None,
        }
    }

    /// Returns what comes after the turn that this ends, or after the rest.
    #[must_use]
    pub fn next(&self) -> Option<Next> {
        let (Fact::TurnFinished { next, .. }
        | Fact::Interrupted { next, .. }
        | Fact::Goal { next: Some(next), .. }
        | Fact::Mode { next: Some(next), .. }) = self
        else {
            return None;
        };
        Some(*next)
    }

    /// Returns what work cost that this commits, ends or pays for.
    #[must_use]
    pub fn charge(&self) -> Option<&Charge> {
        let (Fact::ModelStep { charge, .. }
        | Fact::ToolStep { charge, .. }
        | Fact::Settled { charge }
        | Fact::Retry { charge, .. }
        | Fact::Compacted { charge, .. }
        | Fact::CompactionFailed { charge, .. }
        | Fact::TurnFinished { charge, .. }
        | Fact::Interrupted { charge, .. }
        | Fact::Failed { charge, .. }) = self
        else {
            return None;
        };
        Some(charge)
    }

    /// Returns the version of this kind's present form.
    #[must_use]
    pub fn version(&self) -> u16 {
        1
    }

    /// Returns the name of the kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Fact::Created { .. } => "created",
            Fact::Forked { .. } => "forked",
            Fact::Imported { .. } => "imported",
            Fact::Prepared => "prepared",
            Fact::Configured { .. } => "configured",
            Fact::Message => "message",
            Fact::Queued => "queued",
            Fact::Unqueued { .. } => "unqueued",
            Fact::Promoted { .. } => "promoted",
            Fact::Edited { .. } => "edited",
            Fact::Context { .. } => "context",
            Fact::Steering { .. } => "steering",
            Fact::ModelStep { .. } => "model_step",
            Fact::ToolStep { .. } => "tool_step",
            Fact::ResponseStarted { .. } => "response_started",
            Fact::Settled { .. } => "settled",
            Fact::Retry { .. } => "retry",
            Fact::Awaiting { .. } => "awaiting",
            Fact::Answered { .. } => "answered",
            Fact::CompactionRequested => "compaction_requested",
            Fact::Compacted { .. } => "compacted",
            Fact::CompactionFailed { .. } => "compaction_failed",
            Fact::Cleared => "cleared",
            Fact::TurnFinished { .. } => "turn_finished",
            Fact::Interrupting { .. } => "interrupting",
            Fact::Interrupted { .. } => "interrupted",
            Fact::Failed { .. } => "failed",
            Fact::Goal { .. } => "goal",
            Fact::Mode { .. } => "mode",
            Fact::Named { .. } => "named",
            Fact::Granted { .. } => "granted",
            Fact::Hook { .. } => "hook",
            Fact::Redacted { .. } => "redacted",
            Fact::Archived => "archived",
            Fact::Unarchived => "unarchived",
            Fact::Acquired { .. } => "acquired",
            Fact::Released { .. } => "released",
            Fact::Reconciled { .. } => "reconciled",
        }
    }
}
