//! `decide`: what a command does in this state, or why it may not.
//!
//! [`permit`] is the table of states and commands, one exhaustive match. What a permitted command does
//! is in the modules beside it: a person's commands, the owner's, and the goal's.

mod goal;
mod owner;
mod user;

use std::sync::Arc;

use crate::agent::Configuration;
use crate::command::{Command, OwnerAction, Refusal, Standing};
use crate::entry::{Actor, Charge, Entry, Fact, Mode, Next, Payload, Record, TurnVerdict};
use crate::evolve::evolve;
use crate::goal::{BudgetKind, GoalStatus};
use crate::id::Timestamp;
use crate::item::Item;
use crate::prompts::template::Fault;
use crate::prompts::{Prompts, Rendered};
use crate::state::{SessionState, Status};
use crate::steering::SteeringReason;
use crate::usage::Spend;

/// What a command does: the entries to append, and the state they lead to.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// The fold of the state and the entries.
    pub state: SessionState,
    /// Why built-in prompts were said where the author had others.
    pub faults: Vec<Fault>,
}

/// Decides what a command does in this state, with the built-in prompts.
///
/// # Errors
/// The rules forbid it; the refusal says why and what is possible.
pub fn decide(state: &SessionState, command: Command, now: Timestamp) -> Result<Decision, Refusal> {
    decide_as(None, state, command, now)
}

/// Decides what a command does in this state. What is said to the model is worded as the session's
/// configuration says; no rule reads that.
///
/// A writer whose append then loses the compare-and-swap decides again on the new state; it never
/// appends again what it had decided.
///
/// # Errors
/// The rules forbid it; the refusal says why and what is possible.
pub fn decide_as(
    configuration: Option<&Arc<Configuration>>,
    state: &SessionState,
    command: Command,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let by = actor(state, &command);
    permit(state, &command)?;
    let configuration = configuration.cloned();
    let mut draft =
        Draft { state: state.clone(), entries: Vec::new(), now, by, configuration, faults: Vec::new() };
    apply(&mut draft, command)?;
    Ok(Decision { entries: draft.entries, state: draft.state, faults: draft.faults })
}

/// Tells whether a command may say something to the model, so that it matters with which configuration it
/// is decided.
#[must_use]
pub fn may_tell(command: &Command) -> bool {
    match command {
        Command::Send { interrupt, .. } => *interrupt,
        Command::Interrupt { .. }
        | Command::Promote { .. }
        | Command::SetGoal { .. }
        | Command::EditGoal { .. }
        | Command::ResumeGoal
        | Command::SetMode(_) => true,
        Command::Owned { action, .. } => match action {
            OwnerAction::CommitSteering
            | OwnerAction::FinishTurn { .. }
            | OwnerAction::FinishInterruption { .. } => true,
            OwnerAction::Prepare { .. }
            | OwnerAction::Release { .. }
            | OwnerAction::CommitStep { .. }
            | OwnerAction::RecordResponse { .. }
            | OwnerAction::CommitContext { .. }
            | OwnerAction::GuardFiles { .. }
            | OwnerAction::RecordHook { .. }
            | OwnerAction::Settle { .. }
            | OwnerAction::BeginRetry { .. }
            | OwnerAction::Compact { .. }
            | OwnerAction::FailCompaction { .. }
            | OwnerAction::AwaitAction { .. }
            | OwnerAction::CancelAction
            | OwnerAction::Fail { .. } => false,
        },
        Command::Create { .. }
        | Command::Fork { .. }
        | Command::Import { .. }
        | Command::Edit { .. }
        | Command::Unqueue { .. }
        | Command::SubmitToolResults { .. }
        | Command::Answer { .. }
        | Command::RequestCompaction
        | Command::ClearContext
        | Command::PauseGoal
        | Command::ClearGoal
        | Command::Configure(_)
        | Command::Grant { .. }
        | Command::Rename { .. }
        | Command::Redact { .. }
        | Command::Archive
        | Command::Unarchive
        | Command::Acquire { .. }
        | Command::Reconcile => false,
    }
}

fn apply(draft: &mut Draft, command: Command) -> Result<(), Refusal> {
    match command {
        Command::Create { configuration, ephemeral, name, mode, first } => {
            user::create(draft, configuration, ephemeral, name, mode, first)
        }
        Command::Fork { parent } => user::detach(draft, |at, results| Fact::Forked { parent, at, results }),
        Command::Import { origin } => {
            user::detach(draft, |at, results| Fact::Imported { origin, at, results })
        }
        Command::Send { message, interrupt } => user::send(draft, message, interrupt),
        Command::Edit { target, message } => user::edit(draft, target, message),
        Command::Unqueue { message } => user::unqueue(draft, message),
        Command::Promote { message } => user::promote(draft, message),
        Command::Interrupt { drop_queue } => user::interrupt(draft, drop_queue),
        Command::SubmitToolResults { results } => user::submit(draft, results),
        Command::Answer { call, answer, remember } => user::answer(draft, call, answer, remember),
        Command::RequestCompaction => user::request_compaction(draft),
        Command::ClearContext => draft.push(Fact::Cleared, None),
        Command::SetGoal { id, objective, terms, message } => {
            goal::set(draft, id, &objective, terms, message)
        }
        Command::EditGoal { objective, budget, checks, protected } => {
            goal::edit(draft, objective, budget, checks, protected)
        }
        Command::PauseGoal => goal::pause(draft),
        Command::ResumeGoal => goal::resume(draft),
        Command::ClearGoal => goal::clear(draft),
        Command::SetMode(mode) => goal::set_mode(draft, mode),
        Command::Configure(configuration) => user::configure(draft, configuration),
        Command::Grant { tool } => user::grant(draft, tool),
        Command::Rename { name } => user::rename(draft, name),
        Command::Redact { entry } => user::redact(draft, entry),
        Command::Archive => draft.push(Fact::Archived, None),
        Command::Unarchive => draft.push(Fact::Unarchived, None),
        Command::Acquire { worker, lost, estimate } => user::acquire(draft, worker, lost, estimate),
        Command::Reconcile => {
            let broken = draft.state.broken_invariant().unwrap_or_default().to_owned();
            draft.push(Fact::Reconciled { broken }, None)
        }
        Command::Owned { epoch, action } => owner::apply(draft, epoch, action),
    }
}

/// Returns the row of the table a state is in.
#[must_use]
pub fn standing(state: &SessionState) -> Standing {
    if !state.exists() {
        Standing::Nothing
    } else if state.archived {
        Standing::Archived
    } else {
        Standing::Is(state.status)
    }
}

/// The table: whether a command has a meaning in a state. What else it needs is checked when it is done.
///
/// # Errors
/// It has none there.
pub fn permit(state: &SessionState, command: &Command) -> Result<(), Refusal> {
    use Standing::{Archived, Is, Nothing};
    use Status::{Failed, Interrupting, RequiresAction, Running, Waiting};
    let standing = standing(state);
    let allowed = match (command, standing) {
        (Command::Create { .. }, at) => at == Nothing,
        (_, Nothing) => false,
        (Command::Fork { .. } | Command::Import { .. }, _) => true,
        (Command::Reconcile, _) => state.broken_invariant().is_some(),
        (
            Command::Configure(_) | Command::Grant { .. } | Command::Rename { .. } | Command::Redact { .. },
            _,
        ) => true,
        (Command::Unarchive, at) => at == Archived,
        (_, Archived) => false,
        (
            Command::Send { interrupt: false, .. }
            | Command::Edit { .. }
            | Command::SetGoal { .. }
            | Command::EditGoal { .. }
            | Command::PauseGoal
            | Command::ResumeGoal
            | Command::ClearGoal
            | Command::SetMode(_),
            Is(_),
        ) => true,
        (Command::Send { interrupt: true, .. }, Is(_)) => true,
        (Command::Interrupt { .. }, Is(status)) => {
            matches!(status, Running | Interrupting | RequiresAction)
        }
        (Command::Unqueue { .. }, Is(_)) => !state.queue.is_empty(),
        (Command::Promote { .. }, Is(status)) => status != Waiting && !state.queue.is_empty(),
        (Command::SubmitToolResults { .. } | Command::Answer { .. }, Is(status)) => status == RequiresAction,
        (Command::RequestCompaction | Command::Archive, Is(status)) => {
            matches!(status, Waiting | Failed)
        }
        (Command::ClearContext, Is(status)) => match status {
            Waiting => true,
            Failed => state.queue.is_empty(),
            Running | Interrupting | RequiresAction => false,
        },
        (Command::Acquire { .. }, Is(_)) => state.claimable_at().is_some(),
        (Command::Owned { action, .. }, Is(status)) => permits_owner(action, status),
    };
    if allowed {
        Ok(())
    } else {
        Err(Refusal::NotNow { command: command.name(), standing, allowed: possible(standing) })
    }
}

/// The owner's part of the table.
fn permits_owner(action: &OwnerAction, status: Status) -> bool {
    match action {
        OwnerAction::Release { .. } | OwnerAction::Settle { .. } => true,
        OwnerAction::Prepare { .. }
        | OwnerAction::CommitStep { .. }
        | OwnerAction::RecordResponse { .. }
        | OwnerAction::CommitContext { .. }
        | OwnerAction::CommitSteering
        | OwnerAction::GuardFiles { .. }
        | OwnerAction::RecordHook { .. }
        | OwnerAction::BeginRetry { .. }
        | OwnerAction::Compact { .. }
        | OwnerAction::FailCompaction { .. }
        | OwnerAction::AwaitAction { .. }
        | OwnerAction::FinishTurn { .. } => status == Status::Running,
        OwnerAction::CancelAction => status == Status::RequiresAction,
        OwnerAction::FinishInterruption { .. } => status == Status::Interrupting,
        OwnerAction::Fail { .. } => matches!(status, Status::Running | Status::Interrupting),
    }
}

/// Says what is possible in a state, for people.
fn possible(standing: Standing) -> &'static str {
    match standing {
        Standing::Nothing => "it must be created first",
        Standing::Archived => "bring it back first, with `longhaul archive --undo`",
        Standing::Is(Status::Waiting) => {
            "send it a message with `longhaul send`, or set a goal with `longhaul goal set`"
        }
        Standing::Is(Status::Running) => "wait for it, queue a message, or interrupt it",
        Standing::Is(Status::Interrupting) => "wait until it has stopped",
        Standing::Is(Status::RequiresAction) => "answer the open calls, or interrupt it",
        Standing::Is(Status::Failed) => "send it a message, or promote a queued one",
    }
}

fn actor(state: &SessionState, command: &Command) -> Actor {
    if let Command::Acquire { worker, .. } = command {
        return Actor::Worker { worker: *worker, epoch: state.epoch + 1 };
    }
    match (state.owner, command) {
        (Some(owner), Command::Owned { epoch, .. }) => Actor::Worker { worker: owner.worker, epoch: *epoch },
        (Some(_) | None, _) => Actor::User,
    }
}

/// Entries being decided: each is folded at once, so the next is decided on the state it leads to.
struct Draft {
    state: SessionState,
    entries: Vec<Entry>,
    now: Timestamp,
    by: Actor,
    /// What the session runs with; `None`: nothing is known of it, as when it was redacted.
    configuration: Option<Arc<Configuration>>,
    faults: Vec<Fault>,
}

impl Draft {
    /// Decides on one more entry. What could be refused was refused before; it returns `Ok` because most
    /// decisions end with an entry.
    #[expect(clippy::unnecessary_wraps, reason = "it is the last expression of most decisions")]
    fn push(&mut self, fact: Fact, content: Option<Payload>) -> Result<(), Refusal> {
        let record = Record {
            v: fact.version(),
            n: self.state.head + 1,
            at: self.now,
            by: self.by,
            content: content.as_ref().map(|payload| payload.digest),
            fact,
        };
        self.state = evolve(std::mem::take(&mut self.state), &record);
        self.entries.push(Entry { record, content });
        Ok(())
    }

    /// Renders what the model is told.
    fn say(&mut self, render: impl FnOnce(&Prompts) -> Rendered) -> String {
        let rendered = match &self.configuration {
            Some(configuration) => render(&configuration.prompts),
            None => render(&Prompts::default()),
        };
        self.faults.extend(rendered.fault);
        rendered.text
    }

    fn push_items(&mut self, fact: Fact, items: Vec<Item>) -> Result<(), Refusal> {
        let content = (!items.is_empty()).then(|| Payload::items(items));
        self.push(fact, content)
    }
}

/// Decides what a cost means: whose account it goes to, and whether it crosses a budget.
///
/// Work accounts to the goal it began under; if that one is gone, or in plan mode, to the session only. It names
/// its configuration where another is in force by now.
fn charge(state: &SessionState, spend: Spend) -> Charge {
    let configured_at = if spend.configured_at == state.configured_at { 0 } else { spend.configured_at };
    let spend = Spend { configured_at, ..spend };
    let goal = state.goal.as_ref();
    let goal = goal.filter(|goal| Some(goal.id) == spend.goal && state.mode == Mode::Default);
    let Some(goal) = goal else {
        return Charge { spend: Spend { goal: None, ..spend }, crossed: None };
    };
    let mut used = goal.used;
    used.add(&spend);
    let crossed = goal.budget.reached(&used).filter(|kind| *kind != BudgetKind::Continuations);
    Charge { spend, crossed: crossed.filter(|_| goal.status == GoalStatus::Active) }
}

/// Decides how a turn that ends with this cost and verdict goes on: the budget that limits its goal,
/// what comes next, and what the model is told. A hard budget limits it without being reached.
fn after_turn(
    draft: &mut Draft,
    charge: &Charge,
    verdict: &TurnVerdict,
    hard: Option<BudgetKind>,
) -> (Option<BudgetKind>, Next, Option<Item>) {
    let mut after = draft.state.clone();
    after.charge(charge);
    after.judge(verdict);
    let active = after.goal.as_ref().filter(|goal| goal.status == GoalStatus::Active);
    let limited = active.and_then(|goal| hard.or(goal.budget.reached(&goal.used)));
    after.limit(limited, hard.is_some());
    let (next, told) = next(draft, &after);
    (limited, next, told)
}

/// Decides what comes after a turn, in a state in which the turn is over: the queue, else the goal, else rest.
///
/// Also returns what the model is told, if its goal goes on.
fn next(draft: &mut Draft, state: &SessionState) -> (Next, Option<Item>) {
    if let Some(message) = state.queue.first() {
        return (Next::Promote(*message), None);
    }
    match &state.goal {
        Some(goal) if state.goal_continues() => {
            let text = draft.say(|prompts| prompts.continuation(goal));
            (Next::Continue, Some(Item::Steering { reason: SteeringReason::Continuation, text }))
        }
        Some(_) | None => (Next::Rest, None),
    }
}
