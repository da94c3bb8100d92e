//! What Longhaul tells the model on its own account, and when it is due.

use serde::{Deserialize, Serialize};

use crate::goal::BudgetKind;

/// Why the model is told something that no person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SteeringReason {
    /// The goal goes on in a new turn.
    Continuation,
    /// The goal's objective was set or changed while a turn was under way.
    ObjectiveChanged,
    /// The context in which the goal was told may be gone, or the goal goes on after a pause.
    GoalRecalled,
    /// A budget is used up: wrap up.
    BudgetSpent(BudgetKind),
    /// The history is to be summarised.
    Compaction,
    /// A hook added it.
    Hook,
}

/// What the model must be told before it is called again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SteeringDue {
    /// The objective was set, changed or removed.
    pub objective_changed: bool,
    /// The context in which the goal was told may be gone, or the goal goes on after a pause. Due only while
    /// the goal is pursued.
    pub goal_recalled: bool,
    /// A budget was crossed.
    pub budget: Option<BudgetKind>,
}
