//! What only the owner may do, and only with work that is still valid.

use super::user::{answer_all, facts, finish_interruption, items};
use super::{Draft, after_turn, charge};
use crate::command::{Basis, Cut, GoalStep, OwnerAction, Ran, Refusal, Step};
use crate::entry::{CallFact, Charge, Content, Fact, FinishReason, ModelGoal, Payload, Place, TurnVerdict};
use crate::failure::Failure;
use crate::goal::{GoalStatus, valid_objective};
use crate::id::{CallId, EntryNo, Epoch, Timestamp};
use crate::item::{Item, Outcome};
use crate::prompts::Prompts;
use crate::state::{MAX_CALLS, MAX_KEPT_MESSAGES, MAX_RESPONSE_ID_BYTES, Newest, Origin, PendingCall};
use crate::steering::SteeringReason;
use crate::usage::Spend;

pub(super) fn apply(draft: &mut Draft, epoch: Epoch, action: OwnerAction) -> Result<(), Refusal> {
    if draft.state.owner.is_none_or(|owner| owner.epoch != epoch) {
        return Err(Refusal::Fenced { epoch, newest: draft.state.epoch });
    }
    match action {
        OwnerAction::Prepare { .. } if draft.state.prepared_at > 0 => {
            Err(Refusal::Invalid("the session is prepared already"))
        }
        OwnerAction::Prepare { system, tools } => {
            draft.push(Fact::Prepared, Some(Payload::new(Content::Prepared { system, tools })))
        }
        OwnerAction::Release { not_started } => release(draft, epoch, not_started),
        OwnerAction::CommitStep { basis, step, spend } => commit_step(draft, epoch, basis, *step, spend),
        OwnerAction::RecordResponse { basis, response_id, is_summary, configured_at } => {
            still_valid(draft, basis)?;
            if configured_at != draft.state.configured_at {
                return Err(Refusal::Invalid(
                    "the configuration has changed since the response was asked for",
                ));
            }
            if response_id.len() > MAX_RESPONSE_ID_BYTES {
                return Err(Refusal::Invalid("the response's id is too long to be kept"));
            }
            draft.push(Fact::ResponseStarted { response_id, is_summary }, None)
        }
        OwnerAction::CommitContext { items, digest } => {
            nothing_open(draft)?;
            draft.push_items(Fact::Context { digest }, items)
        }
        OwnerAction::CommitSteering => commit_steering(draft),
        OwnerAction::GuardFiles { terms, files } => super::goal::guard(draft, terms, files),
        OwnerAction::RecordHook { point, name, decision, items } => {
            if !items.is_empty() {
                nothing_open(draft)?;
            }
            draft.push_items(Fact::Hook { point, name, decision }, items)
        }
        OwnerAction::Settle { spend } => {
            let charge = charge(&draft.state, spend);
            draft.push(Fact::Settled { charge }, None)
        }
        OwnerAction::BeginRetry { basis, failure, retry, spend } => {
            still_valid(draft, basis)?;
            let (attempt, charge) = (basis.attempt + 1, charge(&draft.state, spend));
            let failure = failure.bounded();
            draft.push(Fact::Retry { failure, retry, attempt, charge }, None)
        }
        OwnerAction::Compact { basis, summary, keep_from, kept, spend } => {
            still_valid(draft, basis)?;
            compact(draft, summary, keep_from, kept, spend)
        }
        OwnerAction::FailCompaction { basis, failure, spend, automatic_off } => {
            still_valid(draft, basis)?;
            let (failure, charge) = (failure.bounded(), charge(&draft.state, spend));
            draft.push(Fact::CompactionFailed { failure, charge, automatic_off }, None)
        }
        OwnerAction::AwaitAction { deadlines } => await_action(draft, deadlines),
        OwnerAction::CancelAction => cancel_action(draft),
        OwnerAction::FinishTurn { reason, spend } => finish_turn(draft, reason, spend),
        OwnerAction::FinishInterruption { cut, partial, spend } => {
            let answers = close(draft, epoch, cut, Outcome::Stopped);
            let charge = charge(&draft.state, spend);
            finish_interruption(draft, answers, partial, charge)
        }
        OwnerAction::Fail { failure, cut, spend } => fail(draft, epoch, failure, cut, spend),
    }
}

/// A step commits at most once for one history and attempt.
fn still_valid(draft: &Draft, basis: Basis) -> Result<(), Refusal> {
    let (history_at, attempt) = (draft.state.history_at, draft.state.attempt);
    if basis == (Basis { history_at, attempt }) {
        Ok(())
    } else {
        Err(Refusal::Obsolete { basis, history_at, attempt })
    }
}

fn nothing_open(draft: &Draft) -> Result<(), Refusal> {
    if draft.state.pending.is_empty() { Ok(()) } else { Err(Refusal::Invalid("there are open calls")) }
}

/// What is kept is in the present context, and shown whole.
fn compact(
    draft: &mut Draft,
    summary: String,
    keep_from: EntryNo,
    kept: Vec<EntryNo>,
    spend: Spend,
) -> Result<(), Refusal> {
    nothing_open(draft)?;
    if summary.trim().is_empty() {
        return Err(Refusal::Invalid("the summary is empty"));
    }
    let state = &draft.state;
    let in_context = |n: &EntryNo| *n >= state.context_from || state.kept.contains(n);
    let from_context = (state.context_from..=state.head + 1).contains(&keep_from);
    if !from_context || keep_from <= state.pruned_to || !kept.iter().all(|n| in_context(n) && *n < keep_from)
    {
        return Err(Refusal::Invalid("what is to be kept is not in the present context"));
    }
    if kept.len() > MAX_KEPT_MESSAGES {
        return Err(Refusal::Invalid("more messages are to be kept than a state may hold"));
    }
    let charge = charge(state, spend);
    draft.push_items(Fact::Compacted { keep_from, kept, charge }, vec![Item::Summary { text: summary }])
}

fn release(draft: &mut Draft, epoch: Epoch, not_started: Vec<CallId>) -> Result<(), Refusal> {
    for id in &not_started {
        let known = draft.state.pending_call(id);
        if known.is_none_or(|call| call.startable_by.is_some_and(|by| by != epoch)) {
            return Err(Refusal::NotAwaited(id.clone()));
        }
    }
    draft.push(Fact::Released { not_started }, None)
}

fn commit_step(
    draft: &mut Draft,
    epoch: Epoch,
    basis: Basis,
    step: Step,
    spend: Spend,
) -> Result<(), Refusal> {
    still_valid(draft, basis)?;
    let charge = charge(&draft.state, spend);
    match step {
        Step::Model { items, calls, finish, response_id, measured, timing } => {
            nothing_open(draft)?;
            if draft.state.turn.origin == Origin::Compaction {
                return Err(Refusal::Invalid(
                    "the turn is there for a compaction; the model is not asked to go on",
                ));
            }
            valid_calls(&items, &calls)?;
            if !(draft.state.pruned_to..=draft.state.head).contains(&measured.pruned_to) {
                return Err(Refusal::Invalid("what was pruned once stays pruned"));
            }
            let fact = Fact::ModelStep { calls, charge, measured, finish, response_id, timing };
            draft.push_items(fact, items)
        }
        Step::Tools { results, goal } => commit_tools(draft, epoch, results, goal, charge),
    }
}

/// The calls the rules know are the calls the model sees, each with its own id.
fn valid_calls(shown: &[Item], calls: &[CallFact]) -> Result<(), Refusal> {
    let shown: Vec<&CallId> = shown.iter().filter_map(Item::tool_call).map(|call| &call.id).collect();
    if calls.len() > MAX_CALLS {
        return Err(Refusal::Invalid("the model asked for more calls at once than a step may hold"));
    }
    if shown.len() != calls.len() || calls.iter().zip(&shown).any(|(call, id)| call.id != **id) {
        return Err(Refusal::Invalid("the calls of the step are not the calls of its items"));
    }
    let twice = |at: usize| calls[..at].iter().any(|earlier| earlier.id == calls[at].id);
    if (0..calls.len()).any(twice) {
        return Err(Refusal::Invalid("two calls of the step have the same id"));
    }
    Ok(())
}

/// Results commit in call order, each for an open call that this epoch may answer.
fn commit_tools(
    draft: &mut Draft,
    epoch: Epoch,
    mut results: Vec<Ran>,
    goal: Option<GoalStep>,
    charge: Charge,
) -> Result<(), Refusal> {
    if results.is_empty() {
        return Err(Refusal::Invalid("there is no result to commit"));
    }
    let place = |id: &CallId| draft.state.pending.iter().position(|call| call.id == *id);
    for (at, ran) in results.iter().enumerate() {
        let twice = results[..at].iter().any(|earlier| earlier.result.call == ran.result.call);
        let open = place(&ran.result.call).map(|at| &draft.state.pending[at]);
        if twice || !open.is_some_and(|call| may_answer(call, epoch, ran.result.outcome)) {
            return Err(Refusal::NotAwaited(ran.result.call.clone()));
        }
    }
    valid_model_goal(draft, goal.as_ref())?;
    results.sort_by_key(|ran| place(&ran.result.call));
    let goal = goal.map(|step| step.change);
    let fact = Fact::ToolStep { results: facts(&results), charge, goal };
    draft.push_items(fact, items(results))
}

/// The model may set a goal where there is none to finish, and may end the one there is: the one it was told
/// of and that was judged.
fn valid_model_goal(draft: &Draft, step: Option<&GoalStep>) -> Result<(), Refusal> {
    let Some(GoalStep { terms, change }) = step else { return Ok(()) };
    let unfinished = draft.state.goal.as_ref().filter(|goal| goal.is_unfinished());
    match (change, unfinished) {
        (ModelGoal::Created(_), Some(_)) => Err(Refusal::Invalid("the goal there is is unfinished")),
        (ModelGoal::Created(_), None) if draft.state.ephemeral => {
            Err(Refusal::Invalid("an ephemeral session cannot have a goal"))
        }
        (ModelGoal::Created(_), None) if draft.state.without_goals => {
            Err(Refusal::Invalid("goals are switched off for this agent"))
        }
        (ModelGoal::Created(goal), None) => {
            let sound = valid_objective(&goal.objective).as_ref() == Some(&goal.objective);
            let sound = sound && !goal.budget.has_zero() && goal.status == GoalStatus::Active;
            if sound { Ok(()) } else { Err(Refusal::Invalid("the goal is not one that can be set")) }
        }
        (ModelGoal::Completed | ModelGoal::Blocked(_), None) => {
            Err(Refusal::Invalid("there is no unfinished goal"))
        }
        (ModelGoal::Completed | ModelGoal::Blocked(_), Some(goal))
            if *terms != Some(goal.terms()) || draft.state.steering_due.objective_changed =>
        {
            Err(Refusal::Invalid("the goal is no longer the one that was judged"))
        }
        (ModelGoal::Blocked(_), Some(goal)) if goal.status != GoalStatus::Active => {
            Err(Refusal::Invalid("the goal is not being worked on"))
        }
        (ModelGoal::Completed | ModelGoal::Blocked(_), Some(_)) => Ok(()),
    }
}

/// A call of another epoch has an outcome only if it is of a class that may run again, or was found out.
fn may_answer(call: &PendingCall, epoch: Epoch, outcome: Outcome) -> bool {
    match call.place {
        Place::Local => call.startable_by == Some(epoch) || outcome != Outcome::NotRun,
        Place::Client | Place::Approval | Place::Question => call.rejected && !outcome.ran(),
    }
}

fn commit_steering(draft: &mut Draft) -> Result<(), Refusal> {
    nothing_open(draft)?;
    if !draft.state.steering_is_due() {
        return Err(Refusal::Invalid("there is nothing to tell the model"));
    }
    let budget = draft.state.budget_steering();
    let objective_changed = draft.state.steering_due.objective_changed;
    let goal_recalled = draft.state.recall_is_due();
    let (goal, mut texts) = (draft.state.goal.clone(), Vec::new());
    match &goal {
        Some(goal) if objective_changed => texts.push(draft.say(|prompts| prompts.objective_changed(goal))),
        Some(goal) if goal_recalled => texts.push(draft.say(|prompts| prompts.goal_recalled(goal))),
        Some(_) => {}
        None => texts.push(draft.say(Prompts::goal_removed)),
    }
    if let (Some(kind), Some(goal)) = (budget, &goal) {
        texts.push(draft.say(|prompts| prompts.budget_spent(goal, kind)));
    }
    let reason = match budget {
        Some(kind) => SteeringReason::BudgetSpent(kind),
        None if objective_changed => SteeringReason::ObjectiveChanged,
        None => SteeringReason::GoalRecalled,
    };
    let (fact, text) = (Fact::Steering { budget, objective_changed, goal_recalled }, texts.join("\n\n"));
    draft.push_items(fact, vec![Item::Steering { reason, text }])
}

fn await_action(draft: &mut Draft, deadlines: Vec<(CallId, Timestamp)>) -> Result<(), Refusal> {
    let open = &draft.state.pending;
    if open.is_empty() || open.iter().any(|call| call.place == Place::Local) {
        return Err(Refusal::Invalid(
            "only open calls of others can be awaited, and only when no local one is open",
        ));
    }
    if let Some((id, _)) = deadlines.iter().find(|(id, _)| draft.state.pending_call(id).is_none()) {
        return Err(Refusal::NotAwaited(id.clone()));
    }
    draft.push(Fact::Awaiting { deadlines }, None)
}

fn cancel_action(draft: &mut Draft) -> Result<(), Refusal> {
    let now = draft.now;
    let late = |call: &&PendingCall| call.deadline.is_some_and(|deadline| deadline <= now);
    let calls: Vec<PendingCall> = draft.state.pending.iter().filter(late).cloned().collect();
    if calls.is_empty() {
        return Err(Refusal::Invalid("no deadline has passed"));
    }
    let answers = answer_all(&calls, |_| Outcome::Expired);
    let fact = Fact::Answered { allowed: Vec::new(), results: facts(&answers) };
    draft.push_items(fact, items(answers))
}

fn finish_turn(draft: &mut Draft, reason: FinishReason, spend: Spend) -> Result<(), Refusal> {
    nothing_open(draft)?;
    if draft.state.newest == Newest::Input && reason == FinishReason::Complete {
        return Err(Refusal::Invalid("the model has not answered yet"));
    }
    let charge = charge(&draft.state, spend);
    let verdict = verdict(draft);
    let hard = if let FinishReason::HardBudget(kind) = reason { Some(kind) } else { None };
    let (limited, next, told) = after_turn(draft, &charge, &verdict, hard);
    let fact = Fact::TurnFinished { reason, charge, verdict, limited, next };
    draft.push_items(fact, told.into_iter().collect())
}

/// A continuation that called no tool, or did the same as those before it, must not be followed by another.
fn verdict(draft: &Draft) -> TurnVerdict {
    let turn = &draft.state.turn;
    match &draft.state.goal {
        Some(goal) if turn.origin == Origin::Continuation => {
            if turn.tool_calls == 0 {
                TurnVerdict::Suppressed
            } else if goal.would_spin(turn.digest) {
                TurnVerdict::Spun(turn.digest)
            } else {
                TurnVerdict::Worked(turn.digest)
            }
        }
        Some(_) | None => TurnVerdict::None,
    }
}

fn fail(draft: &mut Draft, epoch: Epoch, failure: Failure, cut: Cut, spend: Spend) -> Result<(), Refusal> {
    let answers = close(draft, epoch, cut, Outcome::Unknown);
    let charge = charge(&draft.state, spend);
    let fact = Fact::Failed { failure: failure.bounded(), results: facts(&answers), charge };
    draft.push_items(fact, items(answers))
}

/// Answers all open calls: finished ones keep their results, what may have begun is said to, the rest was
/// not run. What an older epoch may have begun has the outcome `lost`. Results come in call order.
fn close(draft: &Draft, epoch: Epoch, cut: Cut, lost: Outcome) -> Vec<Ran> {
    let Cut { mut finished, started } = cut;
    draft
        .state
        .pending
        .iter()
        .map(|call| {
            let by_older = call.startable_by.is_some_and(|by| by != epoch);
            if let Some(at) = finished.iter().position(|ran| ran.result.call == call.id) {
                let ran = finished.swap_remove(at);
                // This runner did not begin it; an older one may have.
                if !(by_older && ran.result.outcome == Outcome::NotRun) {
                    return ran;
                }
            }
            let outcome = match call.place {
                Place::Local => {
                    if started.contains(&call.id) {
                        Outcome::Stopped
                    } else if by_older {
                        lost
                    } else {
                        Outcome::NotRun
                    }
                }
                Place::Client => Outcome::Cancelled,
                Place::Approval | Place::Question => Outcome::NotRun,
            };
            answer_all(std::slice::from_ref(call), |_| outcome).remove(0)
        })
        .collect()
}
