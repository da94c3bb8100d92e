//! What an answer cost, from Google's way to count to the one meaning of [`Usage`].

use longhaul_session::usage::Usage;
use serde_json::Value;

use crate::number::count;

/// What was said so far; of each field the newest value counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    prompt: Option<u64>,
    tool_prompt: Option<u64>,
    cached: Option<u64>,
    spoken: Option<u64>,
    thought: Option<u64>,
    total: Option<u64>,
}

impl Tally {
    /// Takes what a chunk says and returns what it amounts to with those before it; nothing if it says
    /// nothing.
    pub(crate) fn take(&mut self, said: &Value) -> Option<Usage> {
        let mut news = false;
        for (kept, names) in [
            (&mut self.prompt, &["promptTokenCount"][..]),
            (&mut self.tool_prompt, &["toolUsePromptTokenCount"]),
            (&mut self.cached, &["cachedContentTokenCount"]),
            // The Live API, and proxies after it, count responses.
            (&mut self.spoken, &["candidatesTokenCount", "responseTokenCount"]),
            (&mut self.thought, &["thoughtsTokenCount"]),
            (&mut self.total, &["totalTokenCount"]),
        ] {
            if let Some(number) = names.iter().find_map(|name| count(said.get(name)?)) {
                *kept = Some(number);
                news = true;
            }
        }
        news.then(|| self.usage())
    }

    /// The spoken tokens leave out the thoughts. Where the total is more than all parts, tokens were
    /// generated that no part shows.
    fn usage(&self) -> Usage {
        let number = |count: Option<u64>| count.unwrap_or(0);
        let input = number(self.prompt).saturating_add(number(self.tool_prompt));
        let named = number(self.spoken).saturating_add(number(self.thought));
        Usage {
            input,
            cached_input: number(self.cached),
            cache_write: 0,
            output: named.max(number(self.total).saturating_sub(input)),
            reasoning: number(self.thought),
            cost_micros: 0,
        }
    }
}
