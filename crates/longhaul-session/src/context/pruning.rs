//! Pruning: results of tools that are old keep one line of what they said.
//!
//! What is pruned is decided when a request is assembled and committed with the step that answers it. Until
//! then every runner comes to the same decision, and from then on the log says it.

use super::{Context, Estimate, Extent, Source};
use crate::id::EntryNo;
use crate::item::{Item, ToolResult};

/// The newest turns, the present one among them, whose results are shown whole.
pub const PROTECTED_TURNS: usize = 3;
/// The fewest tokens that are worth losing the provider's cache for.
pub const MIN_SAVINGS_TOKENS: u64 = 4_096;
/// How much of a result's first line is kept, in bytes.
const FIRST_LINE_BYTES: usize = 120;

/// What the next request is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Results of tools up to this entry are shown in one line.
    pub pruned_to: EntryNo,
    /// How large it is.
    pub estimate: Estimate,
}

impl Context {
    /// Decides what is pruned from the next request, and estimates how large it is then.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        let whole = self.estimate(self.items.len());
        let kept = Outlook { pruned_to: self.pruned_to, estimate: whole };
        let Some(turn) = self.turns.len().checked_sub(PROTECTED_TURNS).map(|at| self.turns[at]) else {
            return kept;
        };
        // What else is in the entry that begins the turn is shown with it.
        let in_entry = self.items[..turn].iter().rev().take_while(|(n, _)| *n == self.items[turn].0);
        let protected = turn - in_entry.count();
        if self.scale.is_empty() || protected == 0 {
            return kept;
        }
        let Extent { bytes, .. } = self.extent(protected);
        let saved_bytes = self.sums[protected - 1].prunable;
        let tokens = u128::from(self.estimate(protected).tokens) * u128::from(saved_bytes);
        let saved = u64::try_from(tokens / u128::from(bytes.max(1))).unwrap_or(u64::MAX);
        if saved < MIN_SAVINGS_TOKENS {
            return kept;
        }
        let source = if whole.source == Source::Measured { Source::Interpolated } else { whole.source };
        let estimate = Estimate { tokens: whole.tokens.saturating_sub(saved), source };
        Outlook { pruned_to: self.items[protected].0.saturating_sub(1).max(self.pruned_to), estimate }
    }
}

/// Returns how many bytes an item loses when it is pruned.
pub(super) fn prunable_bytes(item: &Item) -> u64 {
    pruned(item).map_or(0, |less| item.text_bytes() - less.text_bytes())
}

/// Returns what is left of an item that is pruned; `None` where that would be no less.
pub(super) fn pruned(item: &Item) -> Option<Item> {
    let Item::ToolResult(result) = item else { return None };
    if result.output.len() <= FIRST_LINE_BYTES {
        return None;
    }
    let output = one_line(result);
    (output.len() < result.output.len()).then(|| Item::ToolResult(ToolResult { output, ..result.clone() }))
}

fn one_line(result: &ToolResult) -> String {
    let line = result.output.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let begin = &line[..line.floor_char_boundary(FIRST_LINE_BYTES)];
    let whole = match &result.artifact {
        Some(digest) => format!("; for the whole output call `read` with path \"artifact:{digest}\""),
        None => String::new(),
    };
    format!(
        "[{} bytes of an old result are not shown any more; they began: {begin}{whole}]",
        result.output.len()
    )
}
