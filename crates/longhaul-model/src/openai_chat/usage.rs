//! What an answer cost, from the many ways to say it on OpenAI's two wires to the one meaning of [`Usage`].

use longhaul_session::usage::Usage;
use serde_json::Value;

use crate::number::{count, micros};

const INPUT: &[&str] = &["/prompt_tokens", "/input_tokens"];
const OUTPUT: &[&str] = &["/completion_tokens", "/output_tokens"];
const TOTAL: &[&str] = &["/total_tokens"];
const CACHED: &[&str] = &[
    "/prompt_tokens_details/cached_tokens",
    "/prompt_token_details/cached_tokens",
    "/input_tokens_details/cached_tokens",
    "/prompt_cache_hit_tokens",
    "/cached_tokens",
    "/num_cached_tokens",
    "/cache_read_input_tokens",
];
const CACHE_WRITE: &[&str] = &[
    "/prompt_tokens_details/cache_write_tokens",
    "/input_tokens_details/cache_write_tokens",
    "/prompt_tokens_details/cache_creation_input_tokens",
    "/prompt_tokens_details/cache_creation_tokens",
    "/cache_creation_input_tokens",
];
const REASONING: &[&str] = &[
    "/completion_tokens_details/reasoning_tokens",
    "/output_tokens_details/reasoning_tokens",
    "/reasoning_tokens",
];

/// xAI states cost in ten-billionths of a dollar.
const TICKS_PER_MICRO: u64 = 10_000;

/// What was said so far; of each field the newest value counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
    cost_micros: Option<u64>,
}

impl Tally {
    /// Takes a usage object and returns what it amounts to with those before it; nothing if it says
    /// nothing.
    pub(crate) fn take(&mut self, said: &Value) -> Option<Usage> {
        let mut news = false;
        for (kept, pointers) in [
            (&mut self.input, INPUT),
            (&mut self.output, OUTPUT),
            (&mut self.total, TOTAL),
            (&mut self.cached, CACHED),
            (&mut self.cache_write, CACHE_WRITE),
            (&mut self.reasoning, REASONING),
        ] {
            if let Some(number) = pointers.iter().find_map(|pointer| count(said.pointer(pointer)?)) {
                *kept = Some(number);
                news = true;
            }
        }
        let ticks = said.get("cost_in_usd_ticks").and_then(count).map(|ticks| ticks / TICKS_PER_MICRO);
        let cost =
            ["/cost", "/cost/total_cost", "/estimated_cost"].iter().find_map(|at| micros(said.pointer(at)?));
        self.cost_micros = cost.or(ticks).or(self.cost_micros);
        news.then(|| self.usage())
    }

    fn usage(&self) -> Usage {
        let input = self.input.unwrap_or(0);
        let reasoning = self.reasoning.unwrap_or(0);
        let spoken = self.output.unwrap_or(0);
        // xAI counts reasoning beside the output, and only the total shows it. More of it than output is no
        // proof where the total has no room for both, for routers count it by another measure.
        let named = input.saturating_add(spoken);
        let both = named.saturating_add(reasoning);
        let beside = self.total == Some(both);
        let more = reasoning > spoken && self.total.is_none_or(|total| total >= both);
        let output = if beside || more { spoken.saturating_add(reasoning) } else { spoken };
        Usage {
            input,
            cached_input: self.cached.unwrap_or(0),
            cache_write: self.cache_write.unwrap_or(0),
            output,
            reasoning,
            cost_micros: self.cost_micros.unwrap_or(0),
        }
    }
}
