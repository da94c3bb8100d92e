//! `owed`: what a worker owes a session next. Derived from committed state, never stored, so that
//! starting, running and recovering are one path.

use crate::agent::Limits;
use crate::entry::{FinishReason, Place};
use crate::failure::{Failure, FailureClass};
use crate::goal::{BudgetKind, Goal};
use crate::id::{CallId, Digest, Epoch, Timestamp};
use crate::item::EffectClass;
use crate::state::{Newest, Origin, Overflow, PendingCall, SessionState, Status};
use crate::steering::SteeringDue;

/// What a runner has observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its epoch.
    pub epoch: Epoch,
    /// The present instant.
    pub now: Timestamp,
    /// The digest of the workspace's context files; `None` when there are none.
    pub context_digest: Option<Digest>,
    /// The estimated size of the next request, in tokens.
    pub next_request_tokens: u64,
    /// The limit of a hard budget that leaves no room for another answer of the model.
    pub without_room: Option<BudgetKind>,
    /// The limit of a hard budget that leaves no room for a summary.
    pub without_room_to_compact: Option<BudgetKind>,
}

/// What is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: the session rests.
    Rest,
    /// Nothing: the session is another's.
    Leave,
    /// Nothing until then.
    WaitUntil(Timestamp),
    /// End the effect under way, then finish the interruption.
    FinishInterruption,
    /// Answer the calls whose deadline has passed.
    CancelAction,
    /// Fail, with this reason.
    Fail(Failure),
    /// Answer these calls with an error: one of them had to be alone.
    RejectCalls(Vec<CallId>),
    /// Run calls, and record those whose outcome is unknown.
    RunCalls {
        /// Calls to start, or to start again.
        run: Vec<CallId>,
        /// Calls that must not be started again.
        unknown: Vec<CallId>,
    },
    /// Wait for callers or people.
    AwaitAction,
    /// End the turn.
    FinishTurn(FinishReason),
    /// Summarise the history.
    Compact,
    /// Render and pin the system prompt.
    Prepare,
    /// Tell the model what it must be told.
    CommitSteering,
    /// Take the digests of the files that the goal protects.
    GuardFiles,
    /// Show the model the workspace's context files.
    CommitContext,
    /// Call the model.
    CallModel,
}

/// Derives what is owed. The first rule that fits wins.
#[must_use]
pub fn owed(state: &SessionState, view: &View, limits: &Limits) -> Work {
    if let Some(work) = before_all(state, view, limits) {
        return work;
    }
    if let Some(work) = for_open_calls(state, view.epoch) {
        return work;
    }
    if let Some(work) = for_named_answer(state, view) {
        return work;
    }
    if state.turn.stop_after {
        return Work::FinishTurn(FinishReason::StopAfterTool);
    }
    if state.compaction_requested {
        return compact(view);
    }
    if state.turn.origin == Origin::Compaction {
        return Work::FinishTurn(FinishReason::Compacted);
    }
    if matches!(state.newest, Newest::Response | Newest::Nothing) {
        let idle = view.without_room_to_compact.is_none()
            && view.next_request_tokens > limits.compact_above_tokens / 8 * 7
            && state.steps_since_boundary > 0
            && state.compaction_failures < limits.max_compaction_failures;
        return if idle { Work::Compact } else { Work::FinishTurn(FinishReason::Complete) };
    }
    if state.turn.steps >= limits.max_steps {
        return Work::FinishTurn(FinishReason::MaxSteps);
    }
    to_be_seen_first(state, view).or_else(|| for_size(state, view, limits)).unwrap_or(Work::CallModel)
}

/// A call of a model that nobody will read the answer of, as the runner that made it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCall {
    /// For an answer.
    Answer,
    /// For a summary.
    Summary,
    /// For either: people have changed what is owed since, and what was owed before is not known.
    Either,
}

/// Derives what call of a model an owner can have had under way, if it is lost now: the one it owed. Whether it had
/// begun it nobody knows, nor whether there were files to be shown first. An answer that the log names is lost only
/// where the next runner does not pick it up.
#[must_use]
pub fn lost_call(state: &SessionState, view: &View, limits: &Limits) -> Option<LostCall> {
    let view = View { epoch: state.owner?.epoch, context_digest: None, ..*view };
    let work = if state.overtaken {
        // What people can have put before a call since it began is taken away.
        let (status, prepared_at) = (Status::Running, state.prepared_at.max(1));
        let steering_due = SteeringDue::default();
        let before = SessionState { status, prepared_at, steering_due, goal: None, ..state.clone() };
        owed(&before, &View { without_room: None, without_room_to_compact: None, ..view }, limits)
    } else {
        owed(state, &view, limits)
    };
    let call = work.call()?;
    if state.response_id.is_none() {
        return Some(if state.overtaken { LostCall::Either } else { call });
    }
    let next = SessionState { crashes: state.crashes + 1, ..state.clone() };
    owed(&next, &view, limits).call().is_none().then_some(call)
}

impl Work {
    /// Returns what it calls a model for, if it does.
    fn call(&self) -> Option<LostCall> {
        match self {
            Work::CallModel => Some(LostCall::Answer),
            Work::Compact => Some(LostCall::Summary),
            Work::Rest
            | Work::Leave
            | Work::WaitUntil(_)
            | Work::FinishInterruption
            | Work::CancelAction
            | Work::Fail(_)
            | Work::RejectCalls(_)
            | Work::RunCalls { .. }
            | Work::AwaitAction
            | Work::FinishTurn(_)
            | Work::Prepare
            | Work::CommitSteering
            | Work::GuardFiles
            | Work::CommitContext => None,
        }
    }
}

/// Rule 0: states that are not a turn under way, crash loops, and retries whose time has not come.
fn before_all(state: &SessionState, view: &View, limits: &Limits) -> Option<Work> {
    if matches!(state.status, Status::Waiting | Status::Failed) {
        return Some(Work::Rest);
    }
    if state.owner.is_none_or(|owner| owner.epoch != view.epoch) {
        return Some(Work::Leave);
    }
    if state.status == Status::Interrupting {
        return Some(Work::FinishInterruption);
    }
    if state.status == Status::RequiresAction {
        return Some(match state.claimable_at() {
            Some(deadline) if deadline <= view.now => Work::CancelAction,
            Some(deadline) => Work::WaitUntil(deadline),
            None => Work::Rest,
        });
    }
    if state.crashes >= limits.max_crashes {
        let message = format!("the worker died {} times without getting further", state.crashes);
        return Some(Work::Fail(Failure { class: FailureClass::CrashLoop, message }));
    }
    // What there is no room for is not waited for.
    let without_room =
        if state.compaction_requested { view.without_room_to_compact } else { view.without_room };
    let waiting = state.retry.filter(|retry| retry.not_before > view.now && without_room.is_none());
    waiting.map(|retry| Work::WaitUntil(retry.not_before))
}

/// Rules 1 and 2: calls are answered before anything else happens.
fn for_open_calls(state: &SessionState, epoch: Epoch) -> Option<Work> {
    if state.pending.is_empty() {
        return None;
    }
    let ids = |calls: Vec<&PendingCall>| calls.into_iter().map(|call| call.id.clone()).collect::<Vec<_>>();
    let rejected: Vec<_> = state.pending.iter().filter(|call| call.rejected).collect();
    if !rejected.is_empty() {
        return Some(Work::RejectCalls(ids(rejected)));
    }
    let local: Vec<_> = state.pending.iter().filter(|call| call.place == Place::Local).collect();
    if local.is_empty() {
        return Some(Work::AwaitAction);
    }
    let may_start = |call: &&PendingCall| {
        call.startable_by == Some(epoch) || matches!(call.effect, EffectClass::Pure | EffectClass::Idempotent)
    };
    let (run, unknown) = local.into_iter().partition(may_start);
    Some(Work::RunCalls { run: ids(run), unknown: ids(unknown) })
}

/// An answer that the log names has been asked for already. It is picked up before all that follows, as what it
/// was asked for, since a change of history would leave it behind, made and paid for. Room for it was there when
/// it began; time may be over since.
fn for_named_answer(state: &SessionState, view: &View) -> Option<Work> {
    state.response_id.as_ref()?;
    Some(if view.without_room == Some(BudgetKind::Time) {
        Work::FinishTurn(FinishReason::HardBudget(BudgetKind::Time))
    } else if state.response_is_summary {
        Work::Compact
    } else {
        Work::CallModel
    })
}

/// Rule 7: what the model must see before it is called.
fn to_be_seen_first(state: &SessionState, view: &View) -> Option<Work> {
    if state.prepared_at == 0 {
        Some(Work::Prepare)
    } else if let Some(kind) = view.without_room {
        Some(Work::FinishTurn(FinishReason::HardBudget(kind)))
    } else if state.goal.as_ref().is_some_and(Goal::is_unguarded) {
        Some(Work::GuardFiles)
    } else if state.steering_is_due() {
        Some(Work::CommitSteering)
    } else if view.context_digest.is_some() && view.context_digest != state.context_digest {
        Some(Work::CommitContext)
    } else {
        None
    }
}

/// Rule 8: a request that does not fit is not sent. Automatic compaction is off after too many failures.
fn for_size(state: &SessionState, view: &View, limits: &Limits) -> Option<Work> {
    let overflowed = state.overflow == Overflow::Request;
    if !overflowed && view.next_request_tokens <= limits.compact_above_tokens {
        return None;
    }
    let fail = |class, message| Some(Work::Fail(Failure { class, message }));
    if state.steps_since_boundary == 0 {
        let about = format!("the next request has about {} tokens", view.next_request_tokens);
        let over = if overflowed {
            "more than the model takes".to_owned()
        } else {
            format!("over the limit of {}", limits.compact_above_tokens)
        };
        let message = format!("{about}, {over}, and there is nothing left to summarise");
        fail(FailureClass::ContextStillOverLimit, message)
    } else if state.compaction_failures < limits.max_compaction_failures {
        Some(compact(view))
    } else if overflowed {
        let message = "the request is larger than the model's window, and could not be summarised";
        fail(FailureClass::ContextOverflow, message.to_owned())
    } else {
        None
    }
}

/// A summary that a hard budget leaves no room for ends the turn.
fn compact(view: &View) -> Work {
    match view.without_room_to_compact {
        None => Work::Compact,
        Some(kind) => Work::FinishTurn(FinishReason::HardBudget(kind)),
    }
}
