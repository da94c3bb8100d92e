//! What a person can do next with a session: the command that goes on with it, and what waits for an answer.

use longhaul_engine::Snapshot;
use longhaul_session::entry::{Mode, Place};
use longhaul_session::goal::{BudgetKind, Goal, GoalStatus};
use longhaul_session::item::Item;
use longhaul_session::state::{PendingCall, SessionState, Status};

use crate::app::App;
use crate::drive::ended_by;
use crate::summary;

/// Names the command that goes on with a session that nobody drives; `None`: it has nothing left to do.
pub(crate) fn command(state: &SessionState, id: &str) -> Option<String> {
    if state.archived {
        return None;
    }
    match state.status {
        Status::Running | Status::Interrupting => Some(format!("longhaul resume {id}")),
        Status::RequiresAction => answer(state, id),
        Status::Waiting => with_goal(state, id),
        Status::Failed => {
            let by_goal = state.last_error.as_ref().and_then(|error| ended_by(state, &error.message));
            let goes_on = by_goal.and_then(|_| with_goal(state, id));
            goes_on.or_else(|| Some(format!("longhaul send {id} \"try again\"")))
        }
    }
}

/// Names the command that lets the goal of a session at rest go on.
fn with_goal(state: &SessionState, id: &str) -> Option<String> {
    let goal = state.goal.as_ref()?;
    match goal.status {
        GoalStatus::Complete => None,
        GoalStatus::BudgetLimited => Some(raise(goal, id)),
        GoalStatus::Active if state.mode == Mode::Plan => Some(format!("longhaul mode {id} work")),
        GoalStatus::Active | GoalStatus::Paused | GoalStatus::Blocked | GoalStatus::UsageLimited => {
            Some(format!("longhaul resume {id}"))
        }
    }
}

/// Names the command that raises the budget which is used up.
fn raise(goal: &Goal, id: &str) -> String {
    let (budget, used) = (&goal.budget, &goal.used);
    let more = match budget.reached(used) {
        Some(BudgetKind::Tokens) => more_tokens(used.tokens),
        Some(BudgetKind::Time) => more_time(used.active_ms),
        Some(BudgetKind::Cost) => more_money(used.cost_micros),
        Some(BudgetKind::Continuations) => format!("--continuations N (more than {})", used.continuations),
        // A hard one leaves no room for a call before it is used up.
        None => match (budget.tokens, budget.active_ms, budget.cost_micros) {
            (Some(tokens), None, None) => more_tokens(tokens),
            (None, Some(active_ms), None) => more_time(active_ms),
            (None, None, Some(cost_micros)) => more_money(cost_micros),
            (_, _, _) => "(with more of it)".to_owned(),
        },
    };
    format!("longhaul goal budget {id} {more}")
}

fn more_tokens(than: u64) -> String {
    format!("--budget TOKENS (more than {})", summary::tokens(than))
}

fn more_time(than_ms: u64) -> String {
    format!("--time TIME (more than {})", summary::duration(than_ms))
}

fn more_money(than_micros: u64) -> String {
    format!("--cost MONEY (more than {})", summary::dollars(than_micros))
}

fn answer(state: &SessionState, id: &str) -> Option<String> {
    let open: Vec<&PendingCall> = state.pending.iter().filter(|call| awaits_person(call)).collect();
    let first = open.first()?;
    let call = if open.len() > 1 { format!(" --call {}", first.id) } else { String::new() };
    let how = if first.place == Place::Question { "--text ANSWER" } else { "--allow (or --deny)" };
    Some(format!("longhaul answer {id}{call} {how}"))
}

/// Tells whether a call waits for what a person says.
pub(crate) fn awaits_person(call: &PendingCall) -> bool {
    matches!(call.place, Place::Approval | Place::Question)
}

/// Returns a session's open calls, each with what it is about, as far as the log still tells.
pub(crate) async fn open_calls<'a>(
    app: &App,
    snapshot: &'a Snapshot,
) -> anyhow::Result<Vec<(&'a PendingCall, String)>> {
    let mut open = Vec::new();
    for call in &snapshot.state.pending {
        let step = app.engine.entries(snapshot.row.session, call.step..=call.step).await?;
        let mut made = step.iter().flat_map(|entry| entry.items()).filter_map(Item::tool_call);
        let about = made.find(|made| made.id == call.id).map(|made| summary::call_by_lines(&made.arguments));
        open.push((call, format!("{} {}", call.tool, about.unwrap_or_default()).trim_end().to_owned()));
    }
    Ok(open)
}
