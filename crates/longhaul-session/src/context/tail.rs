//! What a compaction keeps word for word: the newest turns and steps as far as there is room, and what
//! people said that was not answered. Calls are never parted from their results.

use std::collections::BTreeSet;

use super::{Context, begins_turn};
use crate::agent::Limits;
use crate::id::{CallId, EntryNo};
use crate::item::Item;
use crate::state::{MAX_KEPT_MESSAGES, SessionState};

/// What a compaction keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The first entry whose items stay.
    pub from: EntryNo,
    /// Entries before it whose messages of people stay: they are not answered yet.
    pub messages: Vec<EntryNo>,
    /// How many items come before what stays.
    pub items: usize,
    /// The bytes of what stays.
    pub bytes: u64,
}

impl Context {
    /// Chooses what a compaction of this context keeps.
    #[must_use]
    pub fn kept(&self, state: &SessionState, limits: &Limits) -> Kept {
        let cuts = self.cuts(state);
        let whole = self.estimate(self.items.len()).tokens;
        let content = whole.saturating_sub(self.estimate(0).tokens);
        // Half of what there is, and of what there is room for: the rest is for what is to come.
        let room_tokens = limits.compact_above_tokens.min(content) / 2;
        let fits = |cut: usize, tokens: u64| whole.saturating_sub(self.estimate(cut).tokens) <= tokens;
        let before = |place: usize| cuts.iter().rev().find(|cut| **cut <= place).copied();
        let turns = self.turns.iter().rev().take(limits.retained_turns as usize).filter_map(|at| before(*at));
        let turns = turns.take_while(|cut| fits(*cut, room_tokens)).last();
        let retained_tokens = limits.retained_tokens.min(room_tokens / 2);
        let steps = cuts.iter().find(|cut| fits(**cut, retained_tokens)).copied();
        let asked = self.items.iter().rev().take_while(|(_, item)| is_input(item)).count();
        let asked = (asked > 0).then(|| before(self.items.len() - asked)).flatten();
        let cut = [turns, steps, asked].into_iter().flatten().min().unwrap_or(self.items.len());
        let from = self.items.get(cut).map_or(state.head + 1, |(n, _)| *n);
        let messages = self.unanswered(cut);
        let said = self.items[..cut].iter().filter(|(n, item)| messages.contains(n) && is_said(item));
        let bytes = said.map(|(_, item)| item.text_bytes()).sum::<u64>() + self.bytes_after(cut);
        Kept { from, messages, items: cut, bytes }
    }

    fn bytes_after(&self, items: usize) -> u64 {
        self.extent(self.items.len()).bytes - self.extent(items).bytes
    }

    /// Returns where the tail may begin: at entries that part no call from its result, that the newest
    /// boundary kept, that are not pruned, and before which there is something to summarise.
    fn cuts(&self, state: &SessionState) -> Vec<usize> {
        let mut called: BTreeSet<&CallId> = BTreeSet::new();
        let mut cuts = Vec::new();
        let is_new = |n: EntryNo| n >= state.context_from && n > state.pruned_to;
        let to_summarise =
            self.items.iter().position(|(n, item)| is_new(*n) && !matches!(**item, Item::Summary { .. }));
        for (at, (n, item)) in self.items.iter().enumerate().rev() {
            if let Some(result) = item.tool_result() {
                called.insert(&result.call);
            } else if let Some(call) = item.tool_call() {
                called.remove(&call.id);
            }
            let begins_entry = at.checked_sub(1).is_none_or(|before| self.items[before].0 != *n);
            let is_after_some = to_summarise.is_some_and(|first| at > first);
            if begins_entry && called.is_empty() && is_after_some && is_new(*n) {
                cuts.push(at);
            }
        }
        cuts.reverse();
        cuts
    }

    /// Returns the entries of messages before a place that the model has not answered: it answers by saying
    /// something without asking for tools.
    fn unanswered(&self, cut: usize) -> Vec<EntryNo> {
        let mut messages = Vec::new();
        let mut end = self.items.len();
        while let Some((n, item)) = end.checked_sub(1).map(|at| &self.items[at]) {
            let begin = self.items[..end].iter().rposition(|(at, _)| at != n).map_or(0, |at| at + 1);
            let entry = &self.items[begin..end];
            if matches!(**item, Item::Summary { .. }) || is_answer(entry) {
                break;
            }
            if begin < cut && entry.iter().any(|(_, item)| matches!(**item, Item::User { .. })) {
                messages.push(*n);
            }
            end = begin;
        }
        messages.truncate(MAX_KEPT_MESSAGES);
        messages.reverse();
        messages
    }

    /// Returns the files that tools read or wrote, the last one first, at most so many.
    #[must_use]
    pub fn recent_files(&self, most: usize) -> Vec<&str> {
        let mut files: Vec<&str> = Vec::new();
        let results = self.items.iter().rev().filter_map(|(_, item)| item.tool_result());
        for file in results.flat_map(|result| result.files.iter().rev()) {
            if files.len() == most {
                break;
            }
            if !files.contains(&file.path.as_str()) {
                files.push(&file.path);
            }
        }
        files
    }
}

/// Tells whether an item is what a person said, or a file that came with it.
pub(super) fn is_said(item: &Item) -> bool {
    matches!(item, Item::User { .. } | Item::File { .. } | Item::Attachment(_))
}

fn is_input(item: &Item) -> bool {
    let also = |item: &Item| matches!(item, Item::Steering { .. } | Item::ContextFile { .. });
    begins_turn(item) || is_said(item) || also(item)
}

fn is_answer(entry: &[(EntryNo, std::sync::Arc<Item>)]) -> bool {
    let says = |item: &Item| matches!(item, Item::Assistant { partial: false, .. });
    entry.iter().any(|(_, item)| says(item)) && entry.iter().all(|(_, item)| item.tool_call().is_none())
}
