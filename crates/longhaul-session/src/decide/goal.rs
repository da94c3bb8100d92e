//! What a person may do with the goal and the mode, in any state of the session.

use super::{Draft, next};
use crate::command::Refusal;
use crate::entry::{Content, Fact, Mode, Next, Payload};
use crate::goal::{
    Budget, Goal, GoalStatus, MAX_CHECK_BYTES, MAX_CHECKS, MAX_PROTECTED, MAX_PROTECTED_BYTES, Terms,
    valid_objective,
};
use crate::id::{Digest, GoalId};
use crate::item::{FileSeen, Item, Message};
use crate::state::{SessionState, Status};

/// Sets a goal. The same objective on an unfinished one updates it; another objective replaces it.
pub(super) fn set(
    draft: &mut Draft,
    id: GoalId,
    objective: &str,
    terms: Terms,
    message: Option<Message>,
) -> Result<(), Refusal> {
    let objective = valid(objective)?;
    let Terms { budget, checks, protected } = terms;
    positive(budget)?;
    bounded(&checks)?;
    protectable(&protected)?;
    let goal = match &draft.state.goal {
        Some(goal) if goal.is_unfinished() && goal.objective == objective => {
            activate(Goal { budget, checks, protected, guarded_at: 0, ..goal.clone() })?
        }
        Some(_) | None => Goal { protected, ..Goal::new(id, objective, budget, checks, draft.now) },
    };
    // Whoever is spoken to is at work already, and is told of the goal before anything else.
    if let Some(said) = message {
        super::user::send(draft, said, false)?;
    }
    change(draft, Some(goal))
}

pub(super) fn edit(
    draft: &mut Draft,
    objective: Option<String>,
    budget: Option<Budget>,
    checks: Option<Vec<String>>,
    protected: Option<Vec<String>>,
) -> Result<(), Refusal> {
    let mut goal = present(draft)?;
    if let Some(text) = objective {
        goal.objective = valid(&text)?;
    }
    if let Some(checks) = checks {
        bounded(&checks)?;
        goal.checks = checks;
    }
    if let Some(protected) = protected {
        protectable(&protected)?;
        goal.protected = protected;
        goal.guarded_at = 0;
    }
    if let Some(budget) = budget {
        positive(budget)?;
        goal.budget = budget;
        let reached = goal.budget.reached(&goal.used);
        if goal.status == GoalStatus::BudgetLimited && reached.is_none() {
            goal = activate(goal)?;
        } else if let Some(kind) = reached.filter(|_| goal.status == GoalStatus::Active) {
            goal.limit(kind, false);
        }
    }
    change(draft, Some(goal))
}

/// Keeps the digests of the files that the goal protects. They are taken once, until somebody sets them anew; those
/// of files that were named before are no use then.
pub(super) fn guard(draft: &mut Draft, terms: Digest, files: Vec<FileSeen>) -> Result<(), Refusal> {
    let goal = present(draft)?;
    if goal.terms() != terms || !goal.is_unguarded() {
        return Err(Refusal::Invalid("the goal awaits no digests of files"));
    }
    let goal = Some(Goal { guarded_at: draft.state.head + 1, ..goal });
    draft.push(Fact::Goal { goal, next: None }, Some(Payload::new(Content::Guarded { files })))
}

pub(super) fn pause(draft: &mut Draft) -> Result<(), Refusal> {
    let goal = present(draft)?;
    if goal.status != GoalStatus::Active {
        return Err(Refusal::Invalid("the goal is not active"));
    }
    change(draft, Some(Goal { status: GoalStatus::Paused, ..goal }))
}

pub(super) fn resume(draft: &mut Draft) -> Result<(), Refusal> {
    let goal = present(draft)?;
    if goal.status == GoalStatus::Complete {
        return Err(Refusal::Invalid("the goal is complete; set a new one"));
    }
    if goal.status == GoalStatus::Active && !goal.suppressed {
        return Err(Refusal::Invalid("the goal is active already"));
    }
    let goal = activate(goal)?;
    change(draft, Some(goal))
}

pub(super) fn clear(draft: &mut Draft) -> Result<(), Refusal> {
    present(draft)?;
    change(draft, None)
}

/// A session at rest goes on at once when it leaves plan mode with a goal that continues.
pub(super) fn set_mode(draft: &mut Draft, mode: Mode) -> Result<(), Refusal> {
    if draft.state.mode == mode {
        return Err(Refusal::Invalid("the session is in this mode already"));
    }
    let after = SessionState { mode, ..draft.state.clone() };
    let (next, told) = from_rest(draft, &after);
    draft.push_items(Fact::Mode { mode, next }, told.into_iter().collect())
}

/// Commits a changed goal. A session at rest goes on at once if the goal is one that continues.
fn change(draft: &mut Draft, goal: Option<Goal>) -> Result<(), Refusal> {
    if draft.state.ephemeral {
        return Err(Refusal::Invalid("an ephemeral session cannot have a goal: it would not survive"));
    }
    if draft.state.without_goals && goal.is_some() {
        return Err(Refusal::Invalid(
            "goals are switched off for this agent: its manifest says so in [goal], `enabled = false`",
        ));
    }
    let goal = goal.map(|goal| Goal { updated: draft.now, suppressed: false, ..goal });
    let after = SessionState { goal: goal.clone(), ..draft.state.clone() };
    let (next, told) = from_rest(draft, &after);
    draft.push_items(Fact::Goal { goal, next }, told.into_iter().collect())
}

/// Decides what a session at rest does when its goal or mode has changed: as a finished turn, if the goal
/// then continues; otherwise it stays as it is, so that changing a goal never starts what was queued.
fn from_rest(draft: &mut Draft, after: &SessionState) -> (Option<Next>, Option<Item>) {
    let at_rest = matches!(after.status, Status::Waiting | Status::Failed);
    if !(at_rest && after.goal_continues()) {
        return (None, None);
    }
    let (next, told) = next(draft, after);
    (Some(next), told)
}

fn activate(goal: Goal) -> Result<Goal, Refusal> {
    if goal.budget.reached(&goal.used).is_some() {
        return Err(Refusal::Invalid("a budget of the goal is used up; raise it first"));
    }
    Ok(Goal { status: GoalStatus::Active, reason: None, recent_turns: Vec::new(), ..goal })
}

fn present(draft: &Draft) -> Result<Goal, Refusal> {
    draft.state.goal.clone().ok_or(Refusal::Invalid("the session has no goal"))
}

fn valid(objective: &str) -> Result<String, Refusal> {
    valid_objective(objective)
        .ok_or(Refusal::Invalid("an objective has 1 to 4,000 characters, spaces at its ends not counted"))
}

fn positive(budget: Budget) -> Result<(), Refusal> {
    if budget.has_zero() { Err(Refusal::Invalid("a budget is a positive number")) } else { Ok(()) }
}

fn bounded(checks: &[String]) -> Result<(), Refusal> {
    // A blank command would pass.
    let fits = |check: &String| !check.trim().is_empty() && check.len() <= MAX_CHECK_BYTES;
    if checks.len() <= MAX_CHECKS && checks.iter().all(fits) {
        return Ok(());
    }
    Err(Refusal::Invalid("a goal has at most 20 checks of 1 to 1,000 bytes each, and none of them is blank"))
}

fn protectable(protected: &[String]) -> Result<(), Refusal> {
    let fits = |path: &String| !path.trim().is_empty() && path.len() <= MAX_PROTECTED_BYTES;
    if protected.len() <= MAX_PROTECTED && protected.iter().all(fits) {
        return Ok(());
    }
    Err(Refusal::Invalid(
        "a goal protects at most 20 paths or patterns of 1 to 1,000 bytes each, and none of them is blank",
    ))
}
