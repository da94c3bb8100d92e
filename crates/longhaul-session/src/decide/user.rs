//! What people, programs and claiming workers may ask: everything that needs no proof of ownership.

use std::sync::Arc;

use super::{Draft, after_turn};
use crate::agent::Configuration;
use crate::command::{Answer, First, Ran, Refusal};
use crate::context::UserMessage;
use crate::entry::{Charge, Content, Fact, Mode, Payload, Place, ResultFact, TurnVerdict};
use crate::goal::{BudgetKind, Goal, GoalStatus};
use crate::id::{CallId, EntryNo, WorkerId};
use crate::item::{Item, Message, Outcome, ToolResult};
use crate::state::{
    MAX_FILES, MAX_GRANTS, MAX_NAME_CHARS, MAX_QUEUE, Owner, PendingCall, SessionState, Status,
};
use crate::usage::Usage;

pub(super) fn create(
    draft: &mut Draft,
    configuration: Box<Configuration>,
    ephemeral: bool,
    name: Option<String>,
    mode: Mode,
    first: First,
) -> Result<(), Refusal> {
    valid_name(name.as_deref())?;
    draft.configuration = Some(Arc::from(configuration.clone()));
    let without_goals = configuration.without_goals;
    let content = Payload::new(Content::Configuration { configuration });
    draft.push(Fact::Created { ephemeral, without_goals, name }, Some(content))?;
    if mode != draft.state.mode {
        super::goal::set_mode(draft, mode)?;
    }
    match first {
        First::Nothing => Ok(()),
        First::Message(said) => say(draft, Fact::Message, said),
        First::Goal { id, objective, terms } => super::goal::set(draft, id, &objective, terms, None),
    }
}

/// A session keeps the goal it has: goals are switched off where there is none to be forgotten.
pub(super) fn configure(draft: &mut Draft, configuration: Box<Configuration>) -> Result<(), Refusal> {
    let without_goals = configuration.without_goals;
    if without_goals && draft.state.goal.as_ref().is_some_and(Goal::is_unfinished) {
        return Err(Refusal::Invalid("the session has a goal; remove it before goals are switched off"));
    }
    let content = Payload::new(Content::Configuration { configuration });
    draft.push(Fact::Configured { without_goals }, Some(content))
}

fn say(draft: &mut Draft, fact: Fact, said: Message) -> Result<(), Refusal> {
    if said.files.len() > MAX_FILES {
        return Err(Refusal::TooManyFiles { count: said.files.len() });
    }
    draft.push_items(fact, said.into_items())
}

/// Makes a copied log a session of its own, in which nothing of the original is under way.
pub(super) fn detach(
    draft: &mut Draft,
    fact: impl FnOnce(EntryNo, Vec<ResultFact>) -> Fact,
) -> Result<(), Refusal> {
    let answers = answer_all(&draft.state.pending, |_| Outcome::Foreign);
    draft.push_items(fact(draft.state.head, facts(&answers)), items(answers))
}

pub(super) fn send(draft: &mut Draft, said: Message, interrupting: bool) -> Result<(), Refusal> {
    let status = draft.state.status;
    if matches!(status, Status::Waiting | Status::Failed) && draft.state.queue.is_empty() {
        return say(draft, Fact::Message, said);
    }
    if draft.state.queue.len() >= MAX_QUEUE {
        return Err(Refusal::QueueFull);
    }
    say(draft, Fact::Queued, said)?;
    match status {
        Status::Failed => {
            let head = draft.state.queue[0];
            draft.push(Fact::Promoted { message: head }, None)
        }
        Status::Running | Status::Interrupting | Status::RequiresAction if interrupting => {
            stop(draft, None, Vec::new(), false)
        }
        Status::Waiting | Status::Running | Status::Interrupting | Status::RequiresAction => Ok(()),
    }
}

/// The evidence that the entry is a message still in history holds as long as history has not changed.
pub(super) fn edit(draft: &mut Draft, target: UserMessage, said: Message) -> Result<(), Refusal> {
    let message = target.entry();
    if target.as_of() < draft.state.history_at || message <= draft.state.boundary {
        return Err(Refusal::NotEditable(message));
    }
    say(draft, Fact::Edited { message }, said)
}

pub(super) fn unqueue(draft: &mut Draft, message: EntryNo) -> Result<(), Refusal> {
    queued(draft, message)?;
    draft.push(Fact::Unqueued { message }, None)
}

pub(super) fn promote(draft: &mut Draft, message: EntryNo) -> Result<(), Refusal> {
    queued(draft, message)?;
    if draft.state.status == Status::Failed {
        draft.push(Fact::Promoted { message }, None)
    } else {
        stop(draft, Some(message), Vec::new(), false)
    }
}

fn queued(draft: &Draft, message: EntryNo) -> Result<(), Refusal> {
    let there = draft.state.queue.contains(&message);
    there.then_some(()).ok_or(Refusal::NotQueued(message))
}

pub(super) fn interrupt(draft: &mut Draft, drop_queue: bool) -> Result<(), Refusal> {
    let dropped = if drop_queue { draft.state.queue.clone() } else { Vec::new() };
    stop(draft, None, dropped, true)
}

/// Stops what is under way. A runner is given time to do so; where nothing runs, it is done at once.
fn stop(
    draft: &mut Draft,
    promote: Option<EntryNo>,
    dropped: Vec<EntryNo>,
    pause_goal: bool,
) -> Result<(), Refusal> {
    let at_rest = draft.state.status == Status::RequiresAction;
    let active = draft.state.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active);
    draft.push(Fact::Interrupting { promote, dropped, pause_goal: pause_goal && active }, None)?;
    if !at_rest {
        return Ok(());
    }
    let answers = answer_all(&draft.state.pending, |call| match call.place {
        Place::Client => Outcome::Cancelled,
        Place::Local | Place::Approval | Place::Question => Outcome::NotRun,
    });
    finish_interruption(draft, answers, Vec::new(), Charge::default())
}

/// Ends an interruption exactly as a turn ends: the queue, else the goal, else rest.
pub(super) fn finish_interruption(
    draft: &mut Draft,
    answers: Vec<Ran>,
    partial: Vec<Item>,
    charge: Charge,
) -> Result<(), Refusal> {
    let (limited, next, told) = after_turn(draft, &charge, &TurnVerdict::None, None);
    let (results, partial_kept) = (facts(&answers), !partial.is_empty());
    let fact = Fact::Interrupted { results, partial: partial_kept, charge, limited, next };
    draft.push_items(fact, items(answers).into_iter().chain(partial).chain(told).collect())
}

pub(super) fn submit(draft: &mut Draft, results: Vec<ToolResult>) -> Result<(), Refusal> {
    if results.is_empty() {
        return Err(Refusal::Invalid("there is no result to submit"));
    }
    for (at, result) in results.iter().enumerate() {
        let open = draft.state.pending_call(&result.call).is_some_and(|call| call.place == Place::Client);
        if !open || results[..at].iter().any(|earlier| earlier.call == result.call) {
            return Err(Refusal::NotAwaited(result.call.clone()));
        }
    }
    let answers: Vec<Ran> = results.into_iter().map(|result| Ran { result, ran: None }).collect();
    draft.push_items(Fact::Answered { allowed: Vec::new(), results: facts(&answers) }, items(answers))
}

pub(super) fn answer(draft: &mut Draft, id: CallId, answer: Answer, remember: bool) -> Result<(), Refusal> {
    let Some(call) = draft.state.pending_call(&id) else { return Err(Refusal::NotAwaited(id)) };
    let tool = call.tool.clone();
    let result = match (call.place, answer) {
        (Place::Approval, Answer::Allow) => None,
        (Place::Approval, Answer::Deny { reason }) => {
            let output = reason.unwrap_or_else(|| Outcome::Denied.notice().to_owned());
            Some(result(id.clone(), Outcome::Denied, output))
        }
        (Place::Question, Answer::Value(output)) => Some(result(id.clone(), Outcome::Ok, output)),
        (Place::Approval, Answer::Value(_)) | (Place::Question, Answer::Allow | Answer::Deny { .. }) => {
            return Err(Refusal::Invalid("an approval takes yes or no, a question takes a text"));
        }
        (Place::Local | Place::Client, _) => return Err(Refusal::NotAwaited(id)),
    };
    let allowed = if result.is_none() { vec![id] } else { Vec::new() };
    if remember && result.is_none() && !draft.state.grants.contains(&tool) {
        grant(draft, tool)?;
    }
    let answers: Vec<Ran> = result.into_iter().map(|result| Ran { result, ran: None }).collect();
    draft.push_items(Fact::Answered { allowed, results: facts(&answers) }, items(answers))
}

pub(super) fn request_compaction(draft: &mut Draft) -> Result<(), Refusal> {
    if draft.state.steps_since_boundary == 0 {
        return Err(Refusal::Invalid("there is nothing to compact since the last compaction or clear"));
    }
    draft.push(Fact::CompactionRequested, None)
}

pub(super) fn grant(draft: &mut Draft, tool: String) -> Result<(), Refusal> {
    if draft.state.grants.contains(&tool) {
        return Err(Refusal::Invalid("the tool is granted already"));
    }
    if draft.state.grants.len() >= MAX_GRANTS {
        return Err(Refusal::Invalid("the session has been granted all the tools it can be granted"));
    }
    draft.push(Fact::Granted { tool }, None)
}

pub(super) fn rename(draft: &mut Draft, name: Option<String>) -> Result<(), Refusal> {
    valid_name(name.as_deref())?;
    draft.push(Fact::Named { name }, None)
}

fn valid_name(name: Option<&str>) -> Result<(), Refusal> {
    let valid = |name: &str| {
        (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    };
    if name.is_none_or(valid) {
        return Ok(());
    }
    Err(Refusal::Invalid("a name has 1 to 100 characters, and none of them is a control character"))
}

pub(super) fn redact(draft: &mut Draft, entry: EntryNo) -> Result<(), Refusal> {
    if entry == 0 || entry > draft.state.head {
        return Err(Refusal::NoSuchEntry(entry));
    }
    draft.push(Fact::Redacted { entry }, None)
}

/// The compare-and-swap lets one of several win; here it is only checked that nobody lives in the session.
pub(super) fn acquire(
    draft: &mut Draft,
    worker: WorkerId,
    lost: Option<Owner>,
    estimate: Usage,
) -> Result<(), Refusal> {
    if draft.state.owner != lost {
        return Err(Refusal::Owned);
    }
    if draft.state.claimable_at().is_none_or(|at| at > draft.now) {
        return Err(Refusal::Invalid("it is not time yet to take the session"));
    }
    let estimate = if lost.is_some() { estimate } else { Usage::default() };
    let epoch = draft.state.epoch + 1;
    let goal = draft.state.pays_for_loss().filter(|_| !estimate.is_zero());
    let crossed = crossed_by_loss(&draft.state, &estimate);
    draft.push(Fact::Acquired { worker, epoch, lost: lost.is_some(), estimate, goal, crossed }, None)
}

/// Returns the budget that a lost attempt uses up, if it has cost what it may have.
fn crossed_by_loss(state: &SessionState, estimate: &Usage) -> Option<BudgetKind> {
    let paying = state.pays_for_loss();
    let goal =
        state.goal.as_ref().filter(|goal| paying == Some(goal.id) && goal.status == GoalStatus::Active)?;
    let mut used = goal.used;
    used.add_estimate(estimate);
    goal.budget.reached(&used).filter(|kind| *kind != BudgetKind::Continuations)
}

/// Answers all these calls without running any.
pub(super) fn answer_all(calls: &[PendingCall], outcome: impl Fn(&PendingCall) -> Outcome) -> Vec<Ran> {
    let answer = |call: &PendingCall| {
        let outcome = outcome(call);
        Ran { result: result(call.id.clone(), outcome, outcome.notice().to_owned()), ran: None }
    };
    calls.iter().map(answer).collect()
}

fn result(call: CallId, outcome: Outcome, output: String) -> ToolResult {
    ToolResult { call, outcome, output, files: Vec::new(), artifact: None }
}

pub(super) fn facts(answers: &[Ran]) -> Vec<ResultFact> {
    answers.iter().map(|answer| ResultFact::of(&answer.result, answer.ran)).collect()
}

pub(super) fn items(answers: Vec<Ran>) -> Vec<Item> {
    answers.into_iter().map(|answer| Item::ToolResult(answer.result)).collect()
}
