//! What an answer cost, from the provider's counts to the one meaning of [`Usage`]: on this wire `input_tokens`
//! leaves out what was read from a cache or written to one.

use longhaul_session::usage::Usage;
use serde_json::Value;

use crate::number::{count, micros};

/// What was said so far; of each field the newest value counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    fresh: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    cost_micros: Option<u64>,
}

impl Tally {
    /// Takes a usage object and returns what it amounts to with those before it; nothing if it says nothing.
    pub(super) fn take(&mut self, said: &Value) -> Option<Usage> {
        let number = |pointer: &str| said.pointer(pointer).and_then(count);
        let written = [
            number("/cache_creation/ephemeral_5m_input_tokens"),
            number("/cache_creation/ephemeral_1h_input_tokens"),
        ];
        let by_life = written.iter().flatten().copied().reduce(u64::saturating_add);
        let mut news = false;
        for (kept, said) in [
            (&mut self.fresh, number("/input_tokens")),
            (&mut self.cached, number("/cache_read_input_tokens")),
            (&mut self.cache_write, number("/cache_creation_input_tokens").or(by_life)),
            (&mut self.output, number("/output_tokens")),
            (&mut self.reasoning, number("/output_tokens_details/thinking_tokens")),
        ] {
            if said.is_some() {
                *kept = said;
                news = true;
            }
        }
        self.cost_micros = said.get("cost").and_then(micros).or(self.cost_micros);
        news.then(|| self.usage())
    }

    fn usage(&self) -> Usage {
        let (cached_input, cache_write) = (self.cached.unwrap_or(0), self.cache_write.unwrap_or(0));
        Usage {
            input: self.fresh.unwrap_or(0).saturating_add(cached_input).saturating_add(cache_write),
            cached_input,
            cache_write,
            output: self.output.unwrap_or(0),
            reasoning: self.reasoning.unwrap_or(0),
            cost_micros: self.cost_micros.unwrap_or(0),
        }
    }
}
