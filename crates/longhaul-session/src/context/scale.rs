//! How large requests are, in tokens: what providers measured of requests that begin alike, and bytes for
//! what lies between and beyond. No tokenizer decides anything.

use serde::{Deserialize, Serialize};

/// Where nothing was measured yet, so many bytes are taken for a token.
const GUESSED_BYTES_PER_TOKEN: u64 = 4;
/// No text has more tokens than bytes.
const MOST_TOKENS_PER_BYTE: Rate = Rate { tokens: 1, bytes: 1 };
/// Nor far fewer than one for so many bytes, whatever a provider said of the last few.
const FEWEST_TOKENS_PER_BYTE: Rate = Rate { tokens: 1, bytes: 16 };

/// How many tokens a request has, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The tokens.
    pub tokens: u64,
    /// How they are known.
    pub source: Source,
}

/// How a number of tokens is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The provider counted exactly this.
    Measured,
    /// The provider counted less and more than this.
    Interpolated,
    /// The provider counted what this goes on from.
    Extrapolated,
    /// The provider counted nothing yet.
    Guessed,
}

impl Source {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Measured => "measured",
            Source::Interpolated => "interpolated",
            Source::Extrapolated => "extrapolated",
            Source::Guessed => "guessed",
        }
    }
}

/// How long the beginning of a request is: so many items, and with prompt and tools so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its items.
    pub items: usize,
    /// The bytes of their texts, of the prompt and of the tools.
    pub bytes: u64,
}

/// What was measured since the newest boundary, the shortest request first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    points: Vec<(Extent, u64)>,
}

/// Tokens for bytes.
#[derive(Clone, Copy)]
struct Rate {
    tokens: u64,
    bytes: u64,
}

impl Rate {
    fn tokens_of(self, bytes: u64) -> u64 {
        let tokens = (u128::from(bytes) * u128::from(self.tokens)).div_ceil(u128::from(self.bytes.max(1)));
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    fn is_over(self, other: Rate) -> bool {
        u128::from(self.tokens) * u128::from(other.bytes) > u128::from(other.tokens) * u128::from(self.bytes)
    }
}

impl Scale {
    /// Learns that a provider counted so many tokens. Providers that count nothing say zero, which is no
    /// measurement; what was said of longer requests is forgotten: they were others.
    pub fn measured(&mut self, extent: Extent, tokens: u64) {
        self.forget_after(extent.items.saturating_sub(1));
        if tokens > 0 {
            self.points.push((extent, tokens));
        }
    }

    /// Forgets what was measured of more than so many items.
    pub fn forget_after(&mut self, items: usize) {
        self.points.retain(|(extent, _)| extent.items <= items);
    }

    /// Tells whether anything was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Estimates the tokens of the beginning of a request that goes on from those measured.
    #[must_use]
    pub fn estimate(&self, extent: Extent) -> Estimate {
        let next = self.points.partition_point(|(measured, _)| measured.items < extent.items);
        let before = next.checked_sub(1).map(|at| self.points[at]);
        match (before, self.points.get(next)) {
            (_, Some((measured, tokens))) if measured.items == extent.items => {
                Estimate { tokens: *tokens, source: Source::Measured }
            }
            (_, Some((above, tokens))) => {
                let (below, fewer) = before.map_or((0, 0), |(below, tokens)| (below.bytes, tokens));
                let between = above.bytes.saturating_sub(below);
                let part = Rate { tokens: extent.bytes.saturating_sub(below).min(between), bytes: between };
                let tokens = if *tokens >= fewer {
                    fewer + part.tokens_of(tokens - fewer)
                } else {
                    fewer - part.tokens_of(fewer - tokens)
                };
                Estimate { tokens, source: Source::Interpolated }
            }
            (Some((below, tokens)), None) => {
                let more = self.last_rate().tokens_of(extent.bytes.saturating_sub(below.bytes));
                Estimate { tokens: tokens.saturating_add(more), source: Source::Extrapolated }
            }
            (None, None) => {
                Estimate { tokens: extent.bytes.div_ceil(GUESSED_BYTES_PER_TOKEN), source: Source::Guessed }
            }
        }
    }

    /// Returns the rate between the two longest requests; where the longer one had no more tokens, as when
    /// a provider drops old reasoning, its own.
    fn last_rate(&self) -> Rate {
        let Some((newest, tokens)) = self.points.last() else { return FEWEST_TOKENS_PER_BYTE };
        let before = self.points.len().checked_sub(2).map(|at| self.points[at]);
        let (bytes, fewer) = before
            .filter(|(below, fewer)| tokens > fewer && newest.bytes > below.bytes)
            .map_or((0, 0), |(below, fewer)| (below.bytes, fewer));
        let rate = Rate { tokens: tokens - fewer, bytes: newest.bytes - bytes };
        if rate.is_over(MOST_TOKENS_PER_BYTE) {
            MOST_TOKENS_PER_BYTE
        } else if FEWEST_TOKENS_PER_BYTE.is_over(rate) {
            FEWEST_TOKENS_PER_BYTE
        } else {
            rate
        }
    }
}
