//! What a model's tokens cost, and what that makes of a call: integers only, so that every machine comes
//! to the same sum. Which model has which prices is left to whoever configures a session.

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// Rates are for so many tokens.
const TOKENS_PER_RATE: u128 = 1_000_000;

/// The prices of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// What a call costs, unless its prompt is over the bound of a tier.
    pub rates: Rates,
    /// Other rates for calls with long prompts, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
}

/// Rates for all of a call, prompt and answer, whose prompt is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The largest prompt, in tokens, that does not have these rates yet. What was read from or written to
    /// a cache counts as well.
    pub above_prompt_tokens: u64,
    /// What such a call costs.
    pub rates: Rates,
}

/// Millionths of a US dollar for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Of the prompt, as far as it is neither read from nor written to a cache.
    pub input: u64,
    /// Of the prompt, where it is read from a cache; as `input` where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Of the prompt, where it is written to a cache; as `input` where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Of everything generated, reasoning included.
    pub output: u64,
}

impl Prices {
    /// Returns what a call costs, in millionths of a US dollar. The products are summed exactly and the sum
    /// is rounded up, once: a call that cost something never counts as free, and is at most one millionth
    /// too dear. What is larger than any `u64` becomes the largest.
    #[must_use]
    pub fn cost_micros(&self, usage: &Usage) -> u64 {
        let rates = self.rates_for(usage.input);
        // Parts of the prompt that are more than the whole are a provider's mistake: the whole counts.
        let cached = usage.cached_input.min(usage.input);
        let written = usage.cache_write.min(usage.input - cached);
        let plain = usage.input - cached - written;
        let products = [
            (plain, rates.input),
            (cached, rates.cached_input.unwrap_or(rates.input)),
            (written, rates.cache_write.unwrap_or(rates.input)),
            (usage.output, rates.output),
        ];
        let sum = products
            .iter()
            .fold(0_u128, |sum, (tokens, rate)| sum.saturating_add(u128::from(*tokens) * u128::from(*rate)));
        u64::try_from(sum.div_ceil(TOKENS_PER_RATE)).unwrap_or(u64::MAX)
    }

    /// States the cost of a call whose provider did not. What a provider states itself is what it charges.
    #[must_use]
    pub fn priced(&self, usage: Usage) -> Usage {
        if usage.cost_micros > 0 {
            return usage;
        }
        Usage { cost_micros: self.cost_micros(&usage), ..usage }
    }

    fn rates_for(&self, prompt_tokens: u64) -> &Rates {
        let reached = self.tiers.iter().filter(|tier| prompt_tokens > tier.above_prompt_tokens);
        reached.max_by_key(|tier| tier.above_prompt_tokens).map_or(&self.rates, |tier| &tier.rates)
    }
}
