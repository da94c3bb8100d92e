//! Commands: everything that can be asked of a session, and why it may be refused.

use crate::agent::{Configuration, ToolSpec};
use crate::context::UserMessage;
use crate::entry::{CallFact, FinishReason, Measured, Mode, ModelGoal, Timing};
use crate::failure::{Failure, Retry};
use crate::goal::{Budget, Terms};
use crate::id::{CallId, Digest, EntryNo, Epoch, GoalId, SessionId, Timestamp, WorkerId};
use crate::item::{FileSeen, Item, Message, ToolResult};
use crate::state::{Owner, Status};
use crate::usage::{Spend, Usage};

/// Something asked of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Begins a session.
    Create {
        /// What it runs with.
        configuration: Box<Configuration>,
        /// Its log is in memory only.
        ephemeral: bool,
        /// Its name.
        name: Option<String>,
        /// Whether it plans or works at first.
        mode: Mode,
        /// What it begins with.
        first: First,
    },
    /// Makes the folded prefix of another session a session of its own.
    Fork {
        /// The other session.
        parent: SessionId,
    },
    /// Makes the folded log of an export a session of its own.
    Import {
        /// The session that was exported.
        origin: SessionId,
    },
    /// Says something to the agent.
    Send {
        /// What.
        message: Message,
        /// Whether work under way is stopped for it; otherwise it waits in the queue.
        interrupt: bool,
    },
    /// Replaces an earlier message; what followed it leaves history.
    Edit {
        /// The message.
        target: UserMessage,
        /// What it says now.
        message: Message,
    },
    /// Removes a message from the queue.
    Unqueue {
        /// The entry that queued it.
        message: EntryNo,
    },
    /// Lets a queued message go first, now.
    Promote {
        /// The entry that queued it.
        message: EntryNo,
    },
    /// Stops the work under way.
    Interrupt {
        /// Also removes what is queued.
        drop_queue: bool,
    },
    /// Answers calls that the caller runs.
    SubmitToolResults {
        /// The results.
        results: Vec<ToolResult>,
    },
    /// Answers an approval or a question.
    Answer {
        /// The call.
        call: CallId,
        /// The answer.
        answer: Answer,
        /// Allows this tool from now on.
        remember: bool,
    },
    /// Asks for a compaction.
    RequestCompaction,
    /// Starts the model's context anew.
    ClearContext,
    /// Sets a goal, or updates the one with the same objective.
    SetGoal {
        /// The id, should it be a new one.
        id: GoalId,
        /// The objective.
        objective: String,
        /// What it is held to.
        terms: Terms,
        /// What is said first: in a session at rest the goal is begun with the turn that this begins.
        message: Option<Message>,
    },
    /// Changes the goal there is.
    EditGoal {
        /// The new objective.
        objective: Option<String>,
        /// The new limits.
        budget: Option<Budget>,
        /// The new checks.
        checks: Option<Vec<String>>,
        /// The protected files, to be digested anew.
        protected: Option<Vec<String>>,
    },
    /// Keeps the goal from going on.
    PauseGoal,
    /// Lets a paused, blocked or limited goal go on.
    ResumeGoal,
    /// Removes the goal.
    ClearGoal,
    /// Plans, or works.
    SetMode(
        /// The mode.
        Mode,
    ),
    /// Changes the configuration.
    Configure(
        /// The new one.
        Box<Configuration>,
    ),
    /// Lets a tool's calls run without approval.
    Grant {
        /// The tool.
        tool: String,
    },
    /// Names the session.
    Rename {
        /// Its name; `None` removes it.
        name: Option<String>,
    },
    /// Removes the content of an entry.
    Redact {
        /// The entry.
        entry: EntryNo,
    },
    /// Puts the session away.
    Archive,
    /// Brings it back.
    Unarchive,
    /// Takes the session for a runner.
    Acquire {
        /// Its worker.
        worker: WorkerId,
        /// The owner that was found dead, if there was one.
        lost: Option<Owner>,
        /// What its last attempt may have cost.
        estimate: Usage,
    },
    /// Puts a state right that breaks its own invariants.
    Reconcile,
    /// Something only the owner may do.
    Owned {
        /// The epoch that proves it.
        epoch: Epoch,
        /// What.
        action: OwnerAction,
    },
}

/// What a session begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum First {
    /// Nothing: it waits.
    Nothing,
    /// A message.
    Message(Message),
    /// A goal.
    Goal {
        /// Its id.
        id: GoalId,
        /// Its objective.
        objective: String,
        /// What it is held to.
        terms: Terms,
    },
}

/// An answer to an approval or a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call may run.
    Allow,
    /// It may not.
    Deny {
        /// Why, for the model.
        reason: Option<String>,
    },
    /// The answer to a question.
    Value(String),
}

/// What work was based on: it is valid only as long as this is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    /// The history it began from.
    pub history_at: EntryNo,
    /// The attempt it is.
    pub attempt: u32,
}

/// What only the owner of a session may do.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnerAction {
    /// Pins the rendered system prompt and the tools.
    Prepare {
        /// The rendered text.
        system: String,
        /// The tools.
        tools: Vec<ToolSpec>,
    },
    /// Gives the session back.
    Release {
        /// Calls it did not start.
        not_started: Vec<CallId>,
    },
    /// Commits what a model or tools did.
    CommitStep {
        /// What the work was based on.
        basis: Basis,
        /// What they did.
        step: Box<Step>,
        /// What it cost.
        spend: Spend,
    },
    /// Notes the provider's name for a response that can be picked up again.
    RecordResponse {
        /// What the call is based on.
        basis: Basis,
        /// The provider's id.
        response_id: String,
        /// It is a summary of the history.
        is_summary: bool,
        /// The entry that holds the configuration it was asked for with: nobody would pick it up with another.
        configured_at: EntryNo,
    },
    /// Shows the model the workspace's context files.
    CommitContext {
        /// The files.
        items: Vec<Item>,
        /// The digest over all of them.
        digest: Digest,
    },
    /// Tells the model what it must be told.
    CommitSteering,
    /// Keeps the digests of the files that the goal protects.
    GuardFiles {
        /// What the goal asked for when they were taken.
        terms: Digest,
        /// The files there were.
        files: Vec<FileSeen>,
    },
    /// Notes a hook's decision.
    RecordHook {
        /// The point of the turn.
        point: String,
        /// The hook's name.
        name: String,
        /// What it decided.
        decision: String,
        /// What it adds to history.
        items: Vec<Item>,
    },
    /// Pays for work that has become obsolete.
    Settle {
        /// What it cost.
        spend: Spend,
    },
    /// Repeats a failed attempt, later.
    BeginRetry {
        /// What the failed attempt was based on.
        basis: Basis,
        /// Why it failed.
        failure: Failure,
        /// When to go on.
        retry: Retry,
        /// What it cost.
        spend: Spend,
    },
    /// Commits a summary of the history.
    Compact {
        /// What the work was based on.
        basis: Basis,
        /// The summary.
        summary: String,
        /// The first entry whose items are kept word for word.
        keep_from: EntryNo,
        /// Entries before it whose messages of people are kept as well.
        kept: Vec<EntryNo>,
        /// What it cost.
        spend: Spend,
    },
    /// Notes that a compaction failed.
    FailCompaction {
        /// What the work was based on.
        basis: Basis,
        /// Why.
        failure: Failure,
        /// What it cost.
        spend: Spend,
        /// From now on only people ask for compactions.
        automatic_off: bool,
    },
    /// Waits for callers or people.
    AwaitAction {
        /// Until when, for the calls that have a deadline.
        deadlines: Vec<(CallId, Timestamp)>,
    },
    /// Answers the calls whose deadline has passed.
    CancelAction,
    /// Ends the turn.
    FinishTurn {
        /// Why.
        reason: FinishReason,
        /// Work not accounted for by a step.
        spend: Spend,
    },
    /// Ends an interruption.
    FinishInterruption {
        /// What was cut off.
        cut: Cut,
        /// What the model had said.
        partial: Vec<Item>,
        /// What it cost.
        spend: Spend,
    },
    /// Ends the turn with a failure.
    Fail {
        /// Why.
        failure: Failure,
        /// What was cut off.
        cut: Cut,
        /// What it cost.
        spend: Spend,
    },
}

/// What a model or tools did.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The model answered.
    Model {
        /// What it said and asked for.
        items: Vec<Item>,
        /// The calls it asked for.
        calls: Vec<CallFact>,
        /// Why it stopped.
        finish: String,
        /// The provider's id of the response.
        response_id: Option<String>,
        /// How the request was measured.
        measured: Measured,
        /// How long it took.
        timing: Timing,
    },
    /// Tools answered: all open calls, or some of them.
    Tools {
        /// The results.
        results: Vec<Ran>,
        /// What the model made of its goal by one of them.
        goal: Option<GoalStep>,
    },
}

/// What the model made of its goal by a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct GoalStep {
    /// What the goal asked for when this was judged; `None`: there was none to judge.
    pub terms: Option<Digest>,
    /// What is to become of it.
    pub change: ModelGoal,
}

/// A result, with when its call ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// The result.
    pub result: ToolResult,
    /// When it was started and when it ended, if it ran here.
    pub ran: Option<(Timestamp, Timestamp)>,
}

/// The calls a runner had under way when it had to stop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cut {
    /// Calls that had finished.
    pub finished: Vec<Ran>,
    /// Calls that were started and did not finish.
    pub started: Vec<CallId>,
}

/// Why the rules forbid a command. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command has no meaning in this state.
    #[error("this is not possible while the session is {}: {allowed}", standing.name())]
    NotNow {
        /// The command.
        command: &'static str,
        /// The state.
        standing: Standing,
        /// What is possible there.
        allowed: &'static str,
    },
    /// Another runner owns the session now.
    #[error("epoch {epoch} no longer owns the session; the newest is {newest}")]
    Fenced {
        /// The epoch that asked.
        epoch: Epoch,
        /// The newest epoch.
        newest: Epoch,
    },
    /// The work was based on a history or attempt that is no longer the newest.
    #[error("the work was based on history {} attempt {}; they are at {history_at} and {attempt} now", basis.history_at, basis.attempt)]
    Obsolete {
        /// What it was based on.
        basis: Basis,
        /// The newest history.
        history_at: EntryNo,
        /// The attempt under way.
        attempt: u32,
    },
    /// The session has a live owner, or was acquired by another at the same time.
    #[error("the session is owned")]
    Owned,
    /// The queue is full.
    #[error("the queue holds {} messages, which is its limit; wait, or remove one", crate::state::MAX_QUEUE)]
    QueueFull,
    /// A message carries too many files.
    #[error(
        "a message carries at most {} files, and this one has {count}; send the rest with another",
        crate::state::MAX_FILES
    )]
    TooManyFiles {
        /// How many.
        count: usize,
    },
    /// No message of that number is queued.
    #[error("entry {0} is not a queued message")]
    NotQueued(EntryNo),
    /// The entry is not a message the model still sees after the newest boundary.
    #[error("entry {0} is not a message of yours in the present context; fork from it instead")]
    NotEditable(EntryNo),
    /// There is no such entry.
    #[error("there is no entry {0}")]
    NoSuchEntry(EntryNo),
    /// The call is not open, or is answered by someone else.
    #[error("call {0} does not await this answer")]
    NotAwaited(CallId),
    /// A value is not acceptable.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A session's state as the table of commands knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It does not exist.
    Nothing,
    /// It exists and is not archived.
    Is(Status),
    /// It was put away.
    Archived,
}

impl Standing {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Standing::Nothing => "not there",
            Standing::Is(status) => status.name(),
            Standing::Archived => "archived",
        }
    }

    /// All of them, in the table's order.
    pub const ALL: [Standing; 7] = [
        Standing::Nothing,
        Standing::Is(Status::Waiting),
        Standing::Is(Status::Running),
        Standing::Is(Status::Interrupting),
        Standing::Is(Status::RequiresAction),
        Standing::Is(Status::Failed),
        Standing::Archived,
    ];
}

impl Command {
    /// Returns the command's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Create { .. } => "Create",
            Command::Fork { .. } => "Fork",
            Command::Import { .. } => "Import",
            Command::Send { interrupt: false, .. } => "Send",
            Command::Send { interrupt: true, .. } => "Send{interrupt}",
            Command::Edit { .. } => "Edit",
            Command::Unqueue { .. } => "Unqueue",
            Command::Promote { .. } => "Promote",
            Command::Interrupt { .. } => "Interrupt",
            Command::SubmitToolResults { .. } => "SubmitToolResults",
            Command::Answer { .. } => "Answer",
            Command::RequestCompaction => "RequestCompaction",
            Command::ClearContext => "ClearContext",
            Command::SetGoal { .. } => "SetGoal",
            Command::EditGoal { .. } => "EditGoal",
            Command::PauseGoal => "PauseGoal",
            Command::ResumeGoal => "ResumeGoal",
            Command::ClearGoal => "ClearGoal",
            Command::SetMode(_) => "SetMode",
            Command::Configure(_) => "Configure",
            Command::Grant { .. } => "Grant",
            Command::Rename { .. } => "Rename",
            Command::Redact { .. } => "Redact",
            Command::Archive => "Archive",
            Command::Unarchive => "Unarchive",
            Command::Acquire { .. } => "Acquire",
            Command::Reconcile => "Reconcile",
            Command::Owned { action, .. } => action.name(),
        }
    }
}

impl OwnerAction {
    /// Returns the action's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            OwnerAction::Prepare { .. } => "Prepare",
            OwnerAction::Release { .. } => "Release",
            OwnerAction::CommitStep { .. } => "CommitStep",
            OwnerAction::RecordResponse { .. } => "RecordResponse",
            OwnerAction::CommitContext { .. } => "CommitContext",
            OwnerAction::CommitSteering => "CommitSteering",
            OwnerAction::GuardFiles { .. } => "GuardFiles",
            OwnerAction::RecordHook { .. } => "RecordHook",
            OwnerAction::Settle { .. } => "Settle",
            OwnerAction::BeginRetry { .. } => "BeginRetry",
            OwnerAction::Compact { .. } => "Compact",
            OwnerAction::FailCompaction { .. } => "FailCompaction",
            OwnerAction::AwaitAction { .. } => "AwaitAction",
            OwnerAction::CancelAction => "CancelAction",
            OwnerAction::FinishTurn { .. } => "FinishTurn",
            OwnerAction::FinishInterruption { .. } => "FinishInterruption",
            OwnerAction::Fail { .. } => "Fail",
        }
    }
}
