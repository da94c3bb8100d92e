//! The table of commands as the search holds it: where an accepted command lands, and which ones must not be
//! refused.

use longhaul_session::command::{Command, OwnerAction};
use longhaul_session::context::Context;
use longhaul_session::entry::Place;
use longhaul_session::goal::{Goal, GoalStatus};
use longhaul_session::state::{Origin, SessionState, Status};

use super::world::{Broken, hold};

/// Checks where an accepted command lands.
pub(super) fn check(before: &SessionState, asked: &Command, after: &SessionState) -> Result<(), Broken> {
    let lands = of_person(before, asked, after).or_else(|| of_owner(before, asked, after)).unwrap_or(true);
    let what = || {
        let (from, to) = (before.status.name(), after.status.name());
        format!(
            "{} leads from {from} to {to}, with the queue {:?} and {:?}",
            asked.name(),
            after.queue,
            after.turn
        )
    };
    hold(lands, "Table", what)?;
    let continues = after.turn.number > before.turn.number && after.turn.origin == Origin::Continuation;
    let may = before.queue.is_empty() && after.goal_continues();
    hold(!continues || may, "Goal", || "a continuation begins that no active goal asks for".to_owned())?;
    let counted = |state: &SessionState| state.goal.as_ref().map_or(0, |goal| goal.used.continuations);
    let same = goal_id(before) == goal_id(after);
    let grown = counted(after) == counted(before) + u64::from(continues);
    hold(!same || grown, "Goal", || "a continuation is not counted once".to_owned())
}

fn goal_id(state: &SessionState) -> Option<longhaul_session::id::GoalId> {
    state.goal.as_ref().map(|goal| goal.id)
}

fn is_active(state: &SessionState) -> bool {
    state.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active)
}

/// Where a person's command lands; `None` for the owner's.
fn of_person(before: &SessionState, asked: &Command, after: &SessionState) -> Option<bool> {
    use Status::{Failed, Interrupting, RequiresAction, Running, Waiting};
    let status = after.status;
    let kept = status == before.status;
    let stopped = |from: Status| match from {
        Running | Interrupting => status == Interrupting,
        RequiresAction | Waiting | Failed => status == Running,
    };
    Some(match asked {
        Command::Send { interrupt: false, .. } => match before.status {
            Waiting | Failed => status == Running,
            Running | Interrupting | RequiresAction => kept,
        },
        Command::Send { interrupt: true, .. } | Command::Promote { .. } => stopped(before.status),
        Command::Edit { .. } => {
            status == Running && after.pending.is_empty() && after.turn.number > before.turn.number
        }
        Command::Interrupt { .. } => {
            let rests = before.status == RequiresAction && after.turn.number == before.turn.number;
            !is_active(after) && if rests { status == Waiting } else { stopped(before.status) }
        }
        Command::SubmitToolResults { .. } | Command::Answer { .. } => {
            let open = after.pending.iter().any(|call| call.place != Place::Local);
            status == if open { RequiresAction } else { Running }
        }
        Command::RequestCompaction => status == Running && after.compaction_requested,
        Command::ClearContext => status == Waiting,
        Command::SetGoal { .. }
        | Command::EditGoal { .. }
        | Command::PauseGoal
        | Command::ResumeGoal
        | Command::ClearGoal
        | Command::SetMode(_) => kept || matches!(before.status, Waiting | Failed) && status == Running,
        Command::Unqueue { .. }
        | Command::Configure(_)
        | Command::Grant { .. }
        | Command::Rename { .. }
        | Command::Redact { .. }
        | Command::Archive
        | Command::Unarchive
        | Command::Acquire { .. } => kept,
        Command::Create { .. } | Command::Fork { .. } | Command::Import { .. } | Command::Reconcile => true,
        Command::Owned { .. } => return None,
    })
}

/// Where the owner's action lands.
fn of_owner(before: &SessionState, asked: &Command, after: &SessionState) -> Option<bool> {
    let Command::Owned { action, .. } = asked else { return None };
    let status = after.status;
    Some(match action {
        OwnerAction::Release { .. } => status == before.status && after.owner.is_none(),
        OwnerAction::Settle { .. } => {
            status == before.status && after.attempt == before.attempt && after.pending == before.pending
        }
        OwnerAction::FinishTurn { .. } | OwnerAction::FinishInterruption { .. } => {
            let idle = before.turn.origin == Origin::Continuation && before.turn.tool_calls == 0;
            let finished = before.status == Status::Running;
            let begins = after.turn.number > before.turn.number && status == Status::Running;
            let origin = after.turn.origin;
            let next = if before.queue.is_empty() { Origin::Continuation } else { Origin::Queue };
            let goes_on = begins && origin == next;
            let rests = before.queue.is_empty() && status == Status::Waiting;
            let again = finished && idle && status == Status::Running && origin == Origin::Continuation;
            after.pending.is_empty() && (goes_on || rests) && !again
        }
        OwnerAction::Fail { .. } => status == Status::Failed && after.queue == before.queue,
        OwnerAction::AwaitAction { .. } => {
            status == Status::RequiresAction && after.pending == awaited(before, after)
        }
        OwnerAction::BeginRetry { .. } => {
            status == Status::Running && after.attempt == before.attempt + 1 && after.retry.is_some()
        }
        OwnerAction::CommitStep { .. }
        | OwnerAction::Prepare { .. }
        | OwnerAction::RecordResponse { .. }
        | OwnerAction::CommitContext { .. }
        | OwnerAction::CommitSteering
        | OwnerAction::GuardFiles { .. }
        | OwnerAction::RecordHook { .. }
        | OwnerAction::Compact { .. }
        | OwnerAction::FailCompaction { .. } => status == Status::Running,
        OwnerAction::CancelAction => matches!(status, Status::Running | Status::RequiresAction),
    })
}

/// The calls as they were, with the deadlines they have now.
fn awaited(before: &SessionState, after: &SessionState) -> Vec<longhaul_session::state::PendingCall> {
    let mut calls = before.pending.clone();
    for (call, now) in calls.iter_mut().zip(&after.pending) {
        call.deadline = now.deadline;
    }
    calls
}

/// Tells whether a person's command has to be accepted in this state.
pub(super) fn must_be_accepted(state: &SessionState, context: &Context, asked: &Command) -> bool {
    if state.archived {
        return matches!(asked, Command::Unarchive);
    }
    let status = state.status;
    let resting = matches!(status, Status::Waiting | Status::Failed);
    match asked {
        Command::Send { .. } => true,
        Command::Interrupt { .. } => !resting,
        Command::Edit { target, .. } => {
            target.entry() > state.boundary && context.user_message(target.entry()) == Some(*target)
        }
        Command::Unqueue { message } => state.queue.contains(message),
        Command::Promote { message } => state.queue.contains(message) && status != Status::Waiting,
        Command::RequestCompaction => resting && state.steps_since_boundary > 0,
        Command::ClearContext => {
            status == Status::Waiting || status == Status::Failed && state.queue.is_empty()
        }
        Command::SetGoal { objective, .. } => {
            let same = |goal: &Goal| goal.is_unfinished() && goal.objective == *objective;
            !state.goal.as_ref().is_some_and(same)
        }
        Command::ClearGoal => state.goal.is_some(),
        Command::PauseGoal => is_active(state),
        Command::SetMode(mode) => state.mode != *mode,
        Command::Archive => resting,
        Command::ResumeGoal
        | Command::EditGoal { .. }
        | Command::SubmitToolResults { .. }
        | Command::Answer { .. }
        | Command::Create { .. }
        | Command::Fork { .. }
        | Command::Import { .. }
        | Command::Configure(_)
        | Command::Grant { .. }
        | Command::Rename { .. }
        | Command::Redact { .. }
        | Command::Unarchive
        | Command::Acquire { .. }
        | Command::Reconcile
        | Command::Owned { .. } => false,
    }
}
