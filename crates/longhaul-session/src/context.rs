//! What the model sees: the fold of the log's content since the newest boundary.
//!
//! A runner keeps it in memory and applies the entries it appends; after a crash it is read back from the
//! entries named by [`Needed`]. No rule depends on it. How large it is, what is pruned from it and what a
//! compaction keeps of it are in the modules below.

mod pruning;
mod scale;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::agent::{Configuration, Previous, Request, ToolSpec};
use crate::entry::{Content, Entry, Fact, Record};
use crate::failure::FailureClass;
use crate::id::{CallId, EntryNo};
use crate::item::{Attachment, Item, ToolCall, ToolResult};
use crate::state::SessionState;
use crate::steering::SteeringReason;

pub use pruning::{MIN_SAVINGS_TOKENS, Outlook, PROTECTED_TURNS};
pub use scale::{Estimate, Extent, Scale, Source};
pub use tail::Kept;

/// The model's view of a session, and what it needs to be called with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    items: Vec<(EntryNo, Arc<Item>)>,
    /// Over the items up to and with each.
    sums: Vec<Sum>,
    /// Where turns begin.
    turns: Vec<usize>,
    /// The same items as a request, kept ready: whoever asks for it copies nothing.
    request: Arc<Request>,
    /// The bytes of the prompt and the tools.
    prepared_bytes: u64,
    scale: Scale,
    /// Results of tools up to this entry are shown in one line.
    pruned_to: EntryNo,
    queued: BTreeMap<EntryNo, Vec<Item>>,
    configuration: Option<Arc<Configuration>>,
    /// An answer that is under way was asked for with what has been redacted since, or of another provider.
    outdated: bool,
    /// Entries without their content of which nothing that was read says when it was redacted.
    gone: BTreeSet<EntryNo>,
    as_of: EntryNo,
    stale: bool,
}

/// What some items come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    /// The bytes that pruning would save.
    prunable: u64,
}

/// The entries a context is read back from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Entries before the range, in order: configuration, prompt, queued messages.
    pub single: Vec<EntryNo>,
    /// Entries before the range, in order, of whose items the messages of people stay.
    pub kept: Vec<EntryNo>,
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
        Needed { single, kept: state.kept.clone(), range: from..=state.head }
    }

    /// Returns the messages that these records, kept ones and those of the range, bring into history from
    /// before it.
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
        let outdated = self.outdated;
        if entry.content.is_none() && entry.record.content.is_some() {
            self.gone.insert(n);
        }
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
            Fact::Compacted { keep_from, kept, .. } => {
                let stays = |at: EntryNo, item: &Item| {
                    let summed_up = matches!(item, Item::Summary { .. });
                    at >= *keep_from && !summed_up || kept.contains(&at) && tail::is_said(item)
                };
                let summary = items_of(entry).into_iter().map(|item| (n, Arc::new(item)));
                let tail = std::mem::take(&mut self.items).into_iter().filter(|(at, item)| stays(*at, item));
                self.start_with(summary.chain(tail).collect());
                return;
            }
            Fact::Cleared => self.start_with(Vec::new()),
            Fact::Interrupting { dropped, .. } => self.queued.retain(|at, _| !dropped.contains(at)),
            // Another model counts otherwise.
            Fact::Configured { .. } => {
                self.prepare(String::new(), Vec::new());
                self.scale = Scale::default();
                self.outdated = true;
            }
            Fact::Redacted { entry } => {
                self.gone.remove(entry);
                self.begin_anew();
                self.outdated = true;
                self.stale = true;
            }
            Fact::ModelStep { measured, .. } => {
                self.prune(measured.pruned_to);
                self.scale.measured(self.extent(self.items.len()), measured.input_tokens);
            }
            // The provider has lost what it kept, and does not find it by being asked again.
            Fact::Retry { failure, .. } if failure.class == FailureClass::ChainBroken => self.begin_anew(),
            Fact::Reconciled { .. } => self.drop_unanswered(),
            Fact::Forked { .. } | Fact::Imported { .. } => self.queued.clear(),
            _ => {}
        }
        self.extend(n, items_of(entry));
        if let Fact::ModelStep { response_id, .. } = &entry.record.fact {
            self.go_on_from(response_id.clone(), outdated);
        }
        if let Some(message) = entry.record.fact.promoted() {
            let message = self.queued.remove(&message).unwrap_or_else(|| vec![Item::Redacted]);
            self.extend(n, message);
        }
        self.equip(entry);
    }

    /// Takes what a session is equipped with: its configuration, prompt and tools.
    fn equip(&mut self, entry: &Entry) {
        match entry.content.as_ref().map(|payload| &payload.content) {
            Some(Content::Configuration { configuration }) => {
                self.configuration = Some(Arc::new((**configuration).clone()));
            }
            Some(Content::Prepared { system, tools }) => {
                self.prepare(system.clone(), tools.clone());
            }
            Some(Content::Items { .. } | Content::Guarded { .. }) | None => {}
        }
    }

    /// Applies an entry from before the range: only what stands outside history counts.
    pub fn apply_single(&mut self, entry: &Entry) {
        self.apply_apart(entry, |_| false);
    }

    /// Applies an entry from before the range of which the messages of people stay.
    pub fn apply_kept(&mut self, entry: &Entry) {
        self.apply_apart(entry, tail::is_said);
    }

    fn apply_apart(&mut self, entry: &Entry, stays: impl Fn(&Item) -> bool) {
        let mut history = std::mem::take(&mut self.items);
        self.replace(Vec::new());
        self.apply(entry);
        history.extend(std::mem::take(&mut self.items).into_iter().filter(|(_, item)| stays(item)));
        self.replace(history);
    }

    /// Drops calls without a result: a state that was put right awaits none.
    fn drop_unanswered(&mut self) {
        let result = |item: &Item| if let Item::ToolResult(it) = item { Some(it.call.clone()) } else { None };
        let answered: Vec<CallId> = self.items.iter().filter_map(|(_, item)| result(item)).collect();
        self.retain(|_, item| item.tool_call().is_none_or(|call| answered.contains(&call.id)));
    }

    fn extend(&mut self, n: EntryNo, items: Vec<Item>) {
        items.into_iter().for_each(|item| self.push(n, Arc::new(item)));
    }

    /// Adds one item; the only place where there is one more.
    fn push(&mut self, n: EntryNo, item: Arc<Item>) {
        let before = self.sums.last().copied().unwrap_or_default();
        let prunable = if n <= self.pruned_to { 0 } else { pruning::prunable_bytes(&item) };
        self.sums.push(Sum { bytes: before.bytes + item.text_bytes(), prunable: before.prunable + prunable });
        if begins_turn(&item) {
            self.turns.push(self.items.len());
        }
        // What is asked for from now on is asked for with this.
        self.outdated = false;
        // Whoever still holds the request of the step before keeps it as it was.
        Arc::make_mut(&mut self.request).items.push(Arc::clone(&item));
        self.items.push((n, item));
    }

    /// Puts other items in the place of those there are.
    fn replace(&mut self, items: Vec<(EntryNo, Arc<Item>)>) {
        self.items.clear();
        self.outdated = false;
        self.sums.clear();
        self.turns.clear();
        let Request { system, tools, .. } = &*self.request;
        let (system, tools) = (system.clone(), Arc::clone(tools));
        self.request =
            Arc::new(Request { system, items: Vec::with_capacity(items.len()), tools, previous: None });
        items.into_iter().for_each(|(n, item)| self.push(n, item));
    }

    /// Begins after a boundary with these items.
    fn start_with(&mut self, items: Vec<(EntryNo, Arc<Item>)>) {
        self.scale = Scale::default();
        self.pruned_to = 0;
        self.replace(items);
    }

    fn retain(&mut self, keep: impl Fn(EntryNo, &Item) -> bool) {
        let same = self.items.iter().take_while(|(at, item)| keep(*at, item)).count();
        self.scale.forget_after(same);
        let items = std::mem::take(&mut self.items);
        self.replace(items.into_iter().filter(|(at, item)| keep(*at, item)).collect());
    }

    fn prune(&mut self, to: EntryNo) {
        if to <= self.pruned_to {
            return;
        }
        self.pruned_to = to;
        // What was measured was longer.
        self.scale = Scale::default();
        let items = std::mem::take(&mut self.items);
        let less =
            |n: EntryNo, item: Arc<Item>| pruning::pruned(&item).filter(|_| n <= to).map_or(item, Arc::new);
        self.replace(items.into_iter().map(|(n, item)| (n, less(n, item))).collect());
    }

    /// Sets what comes before the items.
    fn prepare(&mut self, system: String, tools: Vec<ToolSpec>) {
        let tool_bytes = serde_json::to_vec(&tools).expect("tools have only string keys").len();
        self.prepared_bytes = (system.len() + if tools.is_empty() { 0 } else { tool_bytes }) as u64;
        let request = Arc::make_mut(&mut self.request);
        (request.system, request.tools, request.previous) = (system, Arc::new(tools), None);
    }

    /// Goes on from the newest answer, where its provider keeps the conversation and was told what stands here.
    fn go_on_from(&mut self, response_id: Option<String>, outdated: bool) {
        let chained = self.configuration.as_ref().is_some_and(|configured| configured.model.chain);
        let kept_there = response_id.filter(|_| chained && !outdated);
        let items = self.items.len();
        let previous = kept_there.map(|response_id| Previous { response_id, items });
        Arc::make_mut(&mut self.request).previous = previous;
    }

    /// A provider that keeps the conversation would keep what is gone here.
    fn begin_anew(&mut self) {
        Arc::make_mut(&mut self.request).previous = None;
    }

    /// Tells whether a redaction made it stale: it must be read back before the next use.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Declares it read back: what was redacted is redacted in it. Entries up to `shared_to` are those of the session
    /// that this one was forked from. Where that has redacted some since, nobody knows which answers were asked for
    /// with them: none is gone on from.
    #[must_use]
    pub fn read_back(mut self, shared_to: EntryNo) -> Self {
        if std::mem::take(&mut self.gone).first().is_some_and(|n| *n <= shared_to) {
            self.begin_anew();
        }
        Context { stale: false, ..self }
    }

    /// Returns the size of its items, in bytes of text.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sums.last().map_or(0, |sum| sum.bytes)
    }

    fn extent(&self, items: usize) -> Extent {
        let bytes = items.checked_sub(1).map_or(0, |last| self.sums[last].bytes);
        Extent { items, bytes: bytes + self.prepared_bytes }
    }

    /// Estimates the tokens of a request with the first so many items.
    ///
    /// # Panics
    /// There are not so many.
    #[must_use]
    pub fn estimate(&self, items: usize) -> Estimate {
        self.scale.estimate(self.extent(items))
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

    /// Returns the files that a message of a person carries.
    #[must_use]
    pub fn files(&self, message: UserMessage) -> Vec<Attachment> {
        let there = self.items.iter().filter(|(at, _)| *at == message.entry);
        let file = |item: &Item| if let Item::Attachment(file) = item { Some(file.clone()) } else { None };
        there.filter_map(|(_, item)| file(item)).collect()
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

    /// Returns the request to the model. The same log gives the same request, and it is ready: to ask for it
    /// costs the same however long it is.
    #[must_use]
    pub fn request(&self) -> Arc<Request> {
        Arc::clone(&self.request)
    }

    /// Returns the request with results of tools up to an entry pruned. A provider that keeps the
    /// conversation is sent all of it then: it would keep what is pruned here.
    #[must_use]
    pub fn request_pruned_to(&self, to: EntryNo) -> Arc<Request> {
        if to <= self.pruned_to {
            return self.request();
        }
        let mut pruned = self.clone();
        pruned.prune(to);
        pruned.request
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
                | Item::Attachment(_)
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

/// Tells whether an item begins a turn.
fn begins_turn(item: &Item) -> bool {
    matches!(item, Item::User { .. } | Item::Steering { reason: SteeringReason::Continuation, .. })
}

/// Tells whether an item stays that is not older than the message being replaced: context files do, and
/// so does what came before the message in its own entry, such as the results of calls an interruption
/// answered.
fn survives_edit(in_its_entry: bool, item: &Item) -> bool {
    match item {
        Item::ContextFile { .. } => true,
        Item::User { .. } | Item::Attachment(_) | Item::File { .. } => false,
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
        Fact::Created { .. } | Fact::Configured { .. } | Fact::Prepared | Fact::Goal { next: None, .. } => {
            Vec::new()
        }
        _ => vec![Item::Redacted],
    }
}
