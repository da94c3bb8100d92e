//! What the model sees: the fold of the log's content since the newest boundary.
//!
//! A runner keeps it in memory and applies the entries it appends; after a crash it is read back from the
//! entries named by [`Needed`]. No rule depends on it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::agent::{Configuration, Previous, Request, ToolSpec};
use crate::entry::{Content, Entry, Fact, Measured, Record};
use crate::id::{CallId, EntryNo};
use crate::item::{Item, ToolCall, ToolResult};
use crate::state::SessionState;

/// The model's view of a session, and what it needs to be called with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    items: Vec<(EntryNo, Arc<Item>)>,
    queued: BTreeMap<EntryNo, Vec<Item>>,
    configuration: Option<Arc<Configuration>>,
    system: String,
    tools: Arc<Vec<ToolSpec>>,
    bytes: u64,
    /// The newest answer's id at its provider, and how many items the provider knew with it.
    answered: Option<Previous>,
    as_of: EntryNo,
    stale: bool,
}

/// The entries a context is read back from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Entries before the range, in order: configuration, prompt, queued messages.
    pub single: Vec<EntryNo>,
    /// The history the model sees.
    pub range: RangeInclusive<EntryNo>,
}

/// Evidence that an entry is a message of a person that the model sees, as of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserMessage {
    entry: EntryNo,
    as_of: EntryNo,
}

impl UserMessage {
    /// Returns the message's entry.
    #[must_use]
    pub fn entry(self) -> EntryNo {
        self.entry
    }

    /// Returns the version of the log in which this was so.
    #[must_use]
    pub fn as_of(self) -> EntryNo {
        self.as_of
    }
}

impl Needed {
    /// Returns the entries that the context of this state is read back from.
    #[must_use]
    pub fn of(state: &SessionState) -> Self {
        let from = state.context_from.max(1);
        let mut single: Vec<EntryNo> = state
            .queue
            .iter()
            .chain([&state.configured_at, &state.prepared_at])
            .copied()
            .filter(|n| *n > 0 && *n < from)
            .collect();
        single.sort_unstable();
        single.dedup();
        Needed { single, range: from..=state.head }
    }

    /// Returns the messages that these records of the range bring into history from before it.
    #[must_use]
    pub fn promoted_before(&self, records: &[&Record]) -> Vec<EntryNo> {
        let promoted = records.iter().filter_map(|record| record.fact.promoted());
        promoted.filter(|n| n < self.range.start()).collect()
    }
}

impl Context {
    /// Applies one entry. Content that was redacted is `None`.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most kinds only add their items")]
    pub fn apply(&mut self, entry: &Entry) {
        let n = entry.record.n;
        self.as_of = n;
        match &entry.record.fact {
            Fact::Queued => {
                self.queued.insert(n, items_of(entry));
                return;
            }
            Fact::Unqueued { message } => {
                self.queued.remove(message);
            }
            Fact::Edited { message } => {
                self.retain(|at, item| at < *message || survives_edit(at == *message, item));
            }
            Fact::Compacted { keep_from, .. } => {
                self.retain(|at, _| at >= *keep_from);
                let kept = std::mem::take(&mut self.items);
                self.extend(n, items_of(entry));
                self.items.extend(kept);
                return;
            }
            Fact::Cleared => self.retain(|_, _| false),
            Fact::Interrupting { dropped, .. } => self.queued.retain(|at, _| !dropped.contains(at)),
            Fact::Configured => {
                self.answered = None;
                self.system.clear();
                self.tools = Arc::default();
            }
            Fact::Redacted { .. } => {
                self.answered = None;
                self.stale = true;
            }
            Fact::Reconciled { .. } => self.drop_unanswered(),
            Fact::Forked { .. } | Fact::Imported { .. } => self.queued.clear(),
            _ => {}
        }
        self.extend(n, items_of(entry));
        if let Fact::ModelStep { response_id, .. } = &entry.record.fact {
            let items = self.items.len();
            self.answered = response_id.clone().map(|response_id| Previous { response_id, items });
        }
        if let Some(message) = entry.record.fact.promoted() {
            let message = self.queued.remove(&message).unwrap_or_else(|| vec![Item::Redacted]);
            self.extend(n, message);
        }
        match entry.content.as_ref().map(|payload| &payload.content) {
            Some(Content::Configuration { configuration }) => {
                self.configuration = Some(Arc::new((**configuration).clone()));
            }
            Some(Content::Prepared { system, tools }) => {
                self.system.clone_from(system);
                self.tools = Arc::new(tools.clone());
            }
            Some(Content::Items { .. } | Content::Guarded { .. }) | None => {}
        }
    }

    /// Applies an entry from before the range: only what stands outside history counts.
    pub fn apply_single(&mut self, entry: &Entry) {
        let (history, bytes) = (std::mem::take(&mut self.items), self.bytes);
        self.apply(entry);
        (self.items, self.bytes) = (history, bytes);
    }

    /// Drops calls without a result: a state that was put right awaits none.
    fn drop_unanswered(&mut self) {
        let result = |item: &Item| if let Item::ToolResult(it) = item { Some(it.call.clone()) } else { None };
        let answered: Vec<CallId> = self.items.iter().filter_map(|(_, item)| result(item)).collect();
        self.retain(|_, item| item.tool_call().is_none_or(|call| answered.contains(&call.id)));
    }

    fn extend(&mut self, n: EntryNo, items: Vec<Item>) {
        self.bytes += items.iter().map(Item::text_bytes).sum::<u64>();
        self.items.extend(items.into_iter().map(|item| (n, Arc::new(item))));
    }

    fn retain(&mut self, keep: impl Fn(EntryNo, &Item) -> bool) {
        self.items.retain(|(at, item)| keep(*at, item));
        // A provider that keeps the conversation would keep what is gone here.
        self.answered = None;
        self.bytes = self.items.iter().map(|(_, item)| item.text_bytes()).sum();
    }

    /// Tells whether a redaction made it stale: it must be read back before the next use.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Declares it read back: what was redacted is redacted in it.
    #[must_use]
    pub fn read_back(self) -> Self {
        Context { stale: false, ..self }
    }

    /// Returns the size of its items, in bytes of text.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Estimates the tokens of the next request: what was measured last, and a quarter of the bytes since.
    #[must_use]
    pub fn estimated_tokens(&self, measured: Option<Measured>) -> u64 {
        let measured = measured.unwrap_or_default();
        measured.input_tokens + self.bytes.saturating_sub(measured.bytes) / 4
    }

    /// Returns the configuration in force.
    #[must_use]
    pub fn configuration(&self) -> Option<&Arc<Configuration>> {
        self.configuration.as_ref()
    }

    /// Returns the items in order, each with the entry that brought it into history.
    #[must_use]
    pub fn items(&self) -> &[(EntryNo, Arc<Item>)] {
        &self.items
    }

    /// Returns evidence that the entry is a message of a person in this history.
    #[must_use]
    pub fn user_message(&self, entry: EntryNo) -> Option<UserMessage> {
        let mut there = self.items.iter().filter(|(at, _)| *at == entry);
        there
            .any(|(_, item)| matches!(**item, Item::User { .. }))
            .then_some(UserMessage { entry, as_of: self.as_of })
    }

    /// Returns the newest message of a person in this history.
    #[must_use]
    pub fn last_user_message(&self) -> Option<UserMessage> {
        let (entry, _) = self.items.iter().rev().find(|(_, item)| matches!(**item, Item::User { .. }))?;
        Some(UserMessage { entry: *entry, as_of: self.as_of })
    }

    /// Returns an open or answered call by its id, the newest first.
    #[must_use]
    pub fn call(&self, id: &CallId) -> Option<&ToolCall> {
        let calls = self.items.iter().rev().filter_map(|(_, item)| item.tool_call());
        calls.into_iter().find(|call| call.id == *id)
    }

    /// Assembles the request to the model. The same log gives the same request.
    #[must_use]
    pub fn request(&self) -> Request {
        Request {
            system: self.system.clone(),
            items: self.items.iter().map(|(_, item)| Arc::clone(item)).collect(),
            tools: Arc::clone(&self.tools),
            previous: self.answered.clone(),
        }
    }

    /// Returns what is wrong with calls and results, if anything: every call has exactly one result,
    /// before the next item of another entry, and `open` are the only ones without.
    #[must_use]
    pub fn broken_pairing(&self, open: &[&CallId]) -> Option<String> {
        let mut unanswered: Vec<(EntryNo, &CallId)> = Vec::new();
        for (n, item) in &self.items {
            match &**item {
                Item::ToolCall(call) => {
                    if unanswered.iter().any(|(at, id)| at != n || **id == call.id) {
                        return Some(format!("call {} at entry {n} follows an unanswered one", call.id));
                    }
                    unanswered.push((*n, &call.id));
                }
                Item::ToolResult(result) => match unanswered.iter().position(|(_, id)| **id == result.call) {
                    Some(at) => drop(unanswered.remove(at)),
                    None => {
                        return Some(format!("entry {n} answers {}, which is not open", result.call));
                    }
                },
                Item::User { .. }
                | Item::Assistant { .. }
                | Item::Reasoning { .. }
                | Item::Summary { .. }
                | Item::ContextFile { .. }
                | Item::Steering { .. }
                | Item::File { .. }
                | Item::Opaque { .. }
                | Item::Redacted => {
                    if let Some((_, id)) = unanswered.iter().find(|(at, _)| at != n) {
                        return Some(format!("call {id} has no result before entry {n}"));
                    }
                }
            }
        }
        let unanswered: Vec<&CallId> = unanswered.into_iter().map(|(_, id)| id).collect();
        (unanswered != open).then(|| format!("open calls are {open:?}, unanswered ones {unanswered:?}"))
    }
}

/// Tells whether an item stays that is not older than the message being replaced: context files do, and
/// so does what came before the message in its own entry, such as the results of calls an interruption
/// answered.
fn survives_edit(in_its_entry: bool, item: &Item) -> bool {
    match item {
        Item::ContextFile { .. } => true,
        Item::User { .. } | Item::File { .. } => false,
        Item::Assistant { .. }
        | Item::Reasoning { .. }
        | Item::ToolCall(_)
        | Item::ToolResult(_)
        | Item::Summary { .. }
        | Item::Steering { .. }
        | Item::Opaque { .. }
        | Item::Redacted => in_its_entry,
    }
}

/// Returns the items of an entry. Where they were redacted, what the record still knows of them:
/// calls and results stay paired.
#[expect(clippy::wildcard_enum_match_arm, reason = "most kinds have items of one sort")]
fn items_of(entry: &Entry) -> Vec<Item> {
    if let Some(payload) = &entry.content {
        return match &payload.content {
            Content::Items { items } => items.clone(),
            Content::Configuration { .. } | Content::Prepared { .. } | Content::Guarded { .. } => Vec::new(),
        };
    }
    if entry.record.content.is_none() {
        return Vec::new();
    }
    match &entry.record.fact {
        Fact::ModelStep { calls, .. } => {
            let call = |call: &crate::entry::CallFact| {
                let arguments = "{}".to_owned();
                Item::ToolCall(ToolCall {
                    id: call.id.clone(),
                    name: call.tool.clone(),
                    arguments,
                    opaque: None,
                })
            };
            std::iter::once(Item::Redacted).chain(calls.iter().map(call)).collect()
        }
        Fact::ToolStep { results, .. }
        | Fact::Answered { results, .. }
        | Fact::Interrupted { results, .. }
        | Fact::Failed { results, .. }
        | Fact::Forked { results, .. }
        | Fact::Imported { results, .. } => {
            let result = |result: &crate::entry::ResultFact| {
                Item::ToolResult(ToolResult {
                    call: result.call.clone(),
                    outcome: result.outcome,
                    output: "[redacted]".to_owned(),
                    files: Vec::new(),
                    artifact: None,
                })
            };
            results.iter().map(result).collect()
        }
        Fact::Created { .. } | Fact::Configured | Fact::Prepared | Fact::Goal { next: None, .. } => {
            Vec::new()
        }
        _ => vec![Item::Redacted],
    }
}
