//! Goals: persisted objectives with budgets, and the rules that need only the goal itself.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, GoalId, Timestamp};
use crate::usage::Spend;

/// The longest objective, in characters after trimming.
pub const MAX_OBJECTIVE_CHARS: usize = 4_000;
/// The most checks of a goal.
pub const MAX_CHECKS: usize = 20;
/// The longest check, in bytes.
pub const MAX_CHECK_BYTES: usize = 1_000;
/// Continuation turns with the same calls and results that count as spinning.
pub const SPIN_TURNS: usize = 3;
/// Continuation turns a goal may have when it names no number.
pub const DEFAULT_CONTINUATIONS: u64 = 100;

/// A session's objective, with its budget, usage and status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Goal {
    /// Its id.
    pub id: GoalId,
    /// What is to be reached; a person's data, never instructions.
    pub objective: String,
    /// Where it stands.
    pub status: GoalStatus,
    /// Why it is blocked or limited, for people.
    pub reason: Option<String>,
    /// Its limits.
    pub budget: Budget,
    /// What was spent on it.
    pub used: GoalUsage,
    /// Commands that must pass before it may be complete.
    pub checks: Vec<String>,
    /// The last continuation turn called no tool: the next one waits for a reason.
    pub suppressed: bool,
    /// Digests of the calls and results of the newest continuation turns, to find spinning.
    pub recent_turns: Vec<Digest>,
    /// When it was set.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

/// Where a goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalStatus {
    /// Being worked on, turn after turn.
    Active,
    /// Waiting for a person to resume it.
    Paused,
    /// Something keeps it from going on.
    Blocked,
    /// Its own budget is used up.
    BudgetLimited,
    /// The provider's quota is used up.
    UsageLimited,
    /// Reached.
    Complete,
}

/// What a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetKind {
    /// Uncached input and output tokens.
    Tokens,
    /// Time in which a runner worked.
    Time,
    /// Cost in millionths of a US dollar.
    Cost,
    /// Continuation turns.
    Continuations,
}

impl BudgetKind {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BudgetKind::Tokens => "token",
            BudgetKind::Time => "time",
            BudgetKind::Cost => "cost",
            BudgetKind::Continuations => "turn",
        }
    }
}

/// The limits of a goal. All optional, all positive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Uncached input and output tokens.
    pub tokens: Option<u64>,
    /// Milliseconds of work.
    pub active_ms: Option<u64>,
    /// Millionths of a US dollar.
    pub cost_micros: Option<u64>,
    /// Continuation turns; 100 when not given.
    pub continuations: Option<u64>,
    /// No call is started that could cross a limit.
    pub hard: bool,
}

/// What was spent on a goal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GoalUsage {
    /// Uncached input and output tokens.
    pub tokens: u64,
    /// Of these, estimated for attempts cut by a crash.
    pub estimated_tokens: u64,
    /// Milliseconds of work.
    pub active_ms: u64,
    /// Millionths of a US dollar.
    pub cost_micros: u64,
    /// Continuation turns begun.
    pub continuations: u64,
}

impl Budget {
    /// Returns the first limit that this usage reaches.
    #[must_use]
    pub fn reached(&self, used: &GoalUsage) -> Option<BudgetKind> {
        let over = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used >= limit);
        if over(self.tokens, used.tokens) {
            Some(BudgetKind::Tokens)
        } else if over(self.active_ms, used.active_ms) {
            Some(BudgetKind::Time)
        } else if over(self.cost_micros, used.cost_micros) {
            Some(BudgetKind::Cost)
        } else if used.continuations >= self.continuations.unwrap_or(DEFAULT_CONTINUATIONS) {
            Some(BudgetKind::Continuations)
        } else {
            None
        }
    }

    /// Tells whether a limit is zero, which no budget may be.
    #[must_use]
    pub fn has_zero(&self) -> bool {
        [self.tokens, self.active_ms, self.cost_micros, self.continuations].contains(&Some(0))
    }
}

impl GoalUsage {
    /// Adds what some work spent.
    pub fn add(&mut self, spend: &Spend) {
        self.tokens = self.tokens.saturating_add(spend.usage.budget_tokens());
        self.active_ms = self.active_ms.saturating_add(spend.active_ms);
        self.cost_micros = self.cost_micros.saturating_add(spend.usage.cost_micros);
    }
}

impl Goal {
    /// Makes a new, active goal with nothing spent.
    #[must_use]
    pub fn new(id: GoalId, objective: String, budget: Budget, checks: Vec<String>, now: Timestamp) -> Self {
        Goal {
            id,
            objective,
            status: GoalStatus::Active,
            reason: None,
            budget,
            used: GoalUsage::default(),
            checks,
            suppressed: false,
            recent_turns: Vec::new(),
            created: now,
            updated: now,
        }
    }

    /// Tells whether it is not over: neither complete nor replaced.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.status != GoalStatus::Complete
    }

    /// Tells whether a turn of this digest would be one too many of the same kind.
    #[must_use]
    pub fn would_spin(&self, turn: Digest) -> bool {
        self.recent_turns.len() + 1 >= SPIN_TURNS && self.recent_turns.iter().all(|seen| *seen == turn)
    }
}

/// Trims and bounds an objective. `None` when it is empty or too long.
#[must_use]
pub fn valid_objective(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let length = trimmed.chars().count();
    (1..=MAX_OBJECTIVE_CHARS).contains(&length).then(|| trimmed.to_owned())
}
