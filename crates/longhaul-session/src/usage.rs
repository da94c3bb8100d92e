//! What was spent, and by whom: the one currency of budgets and ledgers.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::id::{EntryNo, GoalId};

/// Tokens of one or more model calls. The same meaning for all providers:
/// `input` is the whole prompt, `cached_input` and `cache_write` are parts of it;
/// `output` is everything generated, `reasoning` is a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens of the whole prompt.
    #[serde(skip_serializing_if = "is_zero")]
    pub input: u64,
    /// Tokens of the prompt read from a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cached_input: u64,
    /// Tokens of the prompt written to a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// Tokens generated.
    #[serde(skip_serializing_if = "is_zero")]
    pub output: u64,
    /// Generated tokens that were reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning: u64,
    /// Cost in millionths of a US dollar, where prices are known.
    #[serde(skip_serializing_if = "is_zero")]
    pub cost_micros: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Usage {
    /// Tells whether nothing was spent.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Usage::default()
    }

    /// Returns all its tokens: the whole prompt, and everything generated.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Returns the tokens of the prompt that were not read from a cache.
    #[must_use]
    pub fn uncached_input(&self) -> u64 {
        self.input.saturating_sub(self.cached_input)
    }

    /// Returns the tokens that count against a budget: uncached input and output.
    #[must_use]
    pub fn budget_tokens(&self) -> u64 {
        self.uncached_input().saturating_add(self.output)
    }
}

impl Add for Usage {
    type Output = Usage;
    fn add(self, other: Usage) -> Usage {
        Usage {
            input: self.input.saturating_add(other.input),
            cached_input: self.cached_input.saturating_add(other.cached_input),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        *self = *self + other;
    }
}

/// What some work spent, and on whose account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Spend {
    /// Tokens and cost.
    #[serde(skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    /// Milliseconds a runner worked, by a monotonic clock.
    #[serde(skip_serializing_if = "is_zero")]
    pub active_ms: u64,
    /// The goal the work began under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<GoalId>,
    /// The entry of the configuration it was done with, where another came into force meanwhile; 0: the one
    /// in force.
    #[serde(skip_serializing_if = "is_zero")]
    pub configured_at: EntryNo,
    /// It was for a summary, which another model may make.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
}

/// What was spent in all. What was measured and what is estimated are never mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Totals {
    /// What providers reported.
    pub measured: Usage,
    /// What attempts cut by a crash may have cost.
    pub estimated: Usage,
    /// Milliseconds runners worked.
    pub active_ms: u64,
}

impl Totals {
    /// Makes the total of some work.
    #[must_use]
    pub fn of(spend: &Spend) -> Self {
        Totals { measured: spend.usage, active_ms: spend.active_ms, ..Totals::default() }
    }

    /// Makes the total of an attempt that was lost.
    #[must_use]
    pub fn of_lost(estimate: Usage) -> Self {
        Totals { estimated: estimate, ..Totals::default() }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.measured += other.measured;
        self.estimated += other.estimated;
        self.active_ms = self.active_ms.saturating_add(other.active_ms);
    }
}
