//! Checks every commit against the invariants, with folds of its own where the world knows the truth.
#![expect(clippy::wildcard_enum_match_arm, reason = "each check concerns a few kinds of entries")]

mod calls;
mod queue;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use longhaul_session::context::Context;
use longhaul_session::entry::{Actor, Entry, Fact, Mode};
use longhaul_session::evolve::evolve;
use longhaul_session::goal::GoalStatus;
use longhaul_session::id::{CallId, Digest, Epoch, SessionId};
use longhaul_session::item::Item;
use longhaul_session::log::{SealedEntry, chain, open};
use longhaul_session::state::{Newest, SessionState, Status};
use longhaul_session::usage::Usage;
use longhaul_store::Row;

use self::calls::Calls;
use self::queue::Queue;
use crate::limits::{MAX_COMPACTION_FAILURES, MAX_STATE_BYTES};
use crate::store::short;
use crate::world::World;

/// What the oracle knows of all sessions.
#[derive(Default)]
pub(crate) struct Oracle {
    sessions: Mutex<BTreeMap<SessionId, Known>>,
}

/// What the oracle knows of one session, from its entries alone.
#[derive(Default)]
struct Known {
    hash: Digest,
    state: SessionState,
    context: Context,
    /// Who may write as an owner.
    owner: Option<Epoch>,
    newest_epoch: Epoch,
    queue: Queue,
    calls: Calls,
    losses: u32,
    /// Compactions, failed ones too, since anything else was done for the model or by a person.
    compactions: u32,
}

impl Oracle {
    /// Learns of a session, with the entries it begins with.
    pub(crate) fn created(&self, world: &World, row: &Row, prefix: &[SealedEntry]) {
        let mut known = Known::default();
        for sealed in prefix {
            let Ok(entry) = open(sealed) else {
                world.broken("Chain", format!("entry {} of a prefix cannot be opened", sealed.n));
                return;
            };
            known.fold(sealed, &entry);
        }
        known.calls.belong_to(row.session);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(row.session, known);
    }

    /// Checks what was committed.
    pub(crate) fn committed(&self, world: &World, row: &Row, epoch: Option<Epoch>, entries: &[SealedEntry]) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions.entry(row.session).or_default();
        let fenced = epoch.is_none_or(|epoch| known.owner == Some(epoch));
        world.hold(fenced, "Fence", || {
            format!("epoch {epoch:?} wrote to {} where {:?} owns it", short(row.session), known.owner)
        });
        for sealed in entries {
            let n = known.state.head + 1;
            world.hold(sealed.n == n, "Chain", || format!("entry {} stands where {n} belongs", sealed.n));
            let follows = chain(known.hash, &sealed.record) == sealed.hash;
            world.hold(follows, "Chain", || format!("entry {n}: the hash does not follow"));
            let Ok(entry) = open(sealed) else {
                world.broken("Chain", format!("entry {n} cannot be opened"));
                return;
            };
            world.count(entry.record.fact.kind());
            known.check(world, row.session, &entry);
            known.calls_of_models(world, row.session, &entry);
            let (before, named) = (known.state.status, known.state.response_id.clone());
            known.fold(sealed, &entry);
            known.answers(world, row.session, &entry, named);
            known.losses(&entry.record.fact, before);
            known.compactions(world, row.session, &entry.record.fact);
            if matches!(entry.record.fact, Fact::Forked { .. } | Fact::Imported { .. }) {
                known.is_detached(world, row.session);
            }
        }
        known.agrees(world, row);
    }
}

impl Known {
    fn fold(&mut self, sealed: &SealedEntry, entry: &Entry) {
        self.hash = sealed.hash;
        self.state = evolve(std::mem::take(&mut self.state), &entry.record);
        self.context.apply(entry);
        self.calls.fold(entry);
        self.queue.fold(entry.record.n, &entry.record.fact);
        match &entry.record.fact {
            Fact::Acquired { epoch, .. } => {
                self.owner = Some(*epoch);
                self.newest_epoch = *epoch;
            }
            Fact::Released { .. } | Fact::Forked { .. } | Fact::Imported { .. } => self.owner = None,
            _ if self.state.status.is_resting() && self.state.owner.is_none() => self.owner = None,
            _ => {}
        }
    }

    /// Checks an entry against what was before it.
    fn check(&self, world: &World, session: SessionId, entry: &Entry) {
        let fact = &entry.record.fact;
        if let Fact::Acquired { epoch, lost, .. } = fact {
            let next = self.newest_epoch + 1;
            world.hold(*epoch == next, "Fence", || format!("epoch {epoch} follows {}", self.newest_epoch));
            let honest = *lost == self.owner.is_some();
            world.hold(honest, "Fence", || {
                format!("epoch {epoch}: lost is {lost}, the owner {:?}", self.owner)
            });
        }
        if let Some(what) = self.queue.objection(fact) {
            world.broken("Queue", format!("{} entry {}: {what}", short(session), entry.record.n));
        }
        self.calls.check(world, session, entry);
        if let Some(usage) = charged(fact).filter(|usage| !usage.is_zero()) {
            pay(world, session, usage);
        }
    }

    /// What a runner was asking of a model when it was lost is estimated, unless the answer is picked up. Of a
    /// summary before the end of a turn nobody can tell whether it was due, once something was redacted.
    fn calls_of_models(&self, world: &World, session: SessionId, entry: &Entry) {
        let Actor::Worker { epoch, .. } = entry.record.by else { return };
        let fact = &entry.record.fact;
        let (mut truth, state) = (world.truth(), &self.state);
        let Fact::Acquired { lost: true, estimate, .. } = fact else {
            if !matches!(fact, Fact::ResponseStarted { .. }) {
                truth.calling.remove(&(session, epoch));
            }
            return;
        };
        let Some(attempt) = truth.calling.remove(&(session, epoch - 1)) else { return };
        drop(truth);
        world.count("worker lost while it called a model");
        let known = !estimate.is_zero() || state.response_id.is_some() || state.newest == Newest::Response;
        world.hold(known, "Ledger", || {
            format!("{}: attempt {attempt} was lost with its worker and is in no account", short(session))
        });
    }

    /// Compares what the row says with what the entries say.
    fn agrees(&mut self, world: &World, row: &Row) {
        let (name, state) = (short(row.session), &self.state);
        let hold = |holds, invariant, what: &str| {
            world.hold(holds, invariant, || format!("{name} at entry {}: {what}", row.head));
        };
        let stored: Option<SessionState> = serde_json::from_slice(&row.state).ok();
        hold(stored.as_ref() == Some(state), "Fold", "the stored state is not the fold of the entries");
        let columns = row.head == state.head
            && row.head_hash == self.hash
            && row.status == state.status.name()
            && row.archived == state.archived
            && row.claimable_at == state.claimable_at()
            && row.owner == state.owner.map(|owner| owner.worker)
            && row.epoch == state.epoch;
        hold(columns, "Fold", "a column is not what the state says");
        hold(row.state.len() <= MAX_STATE_BYTES, "Growth", "the state is too large");
        if let Some(broken) = state.broken_invariant() {
            hold(false, "State", broken);
        }
        let owner = state.owner.map(|owner| owner.epoch);
        hold(owner == self.owner, "Fence", "the state has another owner than the entries");
        hold(self.queue.is(&state.queue), "Queue", "the state has another queue than the entries");
        hold(self.calls.are(state), "Answered", "the state has other open calls than the entries");
        hold(self.losses == state.crashes, "Stop", "the losses are not counted right");
        let goal = state.goal.as_ref().filter(|goal| goal.status == GoalStatus::Active);
        let pursued = goal.is_some_and(|goal| !goal.suppressed && state.mode == Mode::Default);
        let idle = state.queue.is_empty() && state.pending.is_empty() && !pursued && state.owner.is_none();
        hold(state.status != Status::Waiting || idle, "Idle", "a waiting session has something to do");
        let sound = state.status != Status::Failed || state.pending.is_empty() && goal.is_none();
        let plan = state.mode == Mode::Plan;
        hold(sound || plan, "Idle", "a failed session has an open call or an active goal");
        let open: Vec<&CallId> = state.pending.iter().map(|call| &call.id).collect();
        if let Some(what) = self.context.broken_pairing(&open) {
            hold(false, "Answered", &what);
        }
        if self.context.is_stale() {
            self.context = std::mem::take(&mut self.context).read_back(0);
        }
    }

    /// Of the session it was copied from, nothing is under way in it.
    fn is_detached(&self, world: &World, session: SessionId) {
        let state = &self.state;
        let active = state.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active);
        let under_way = active
            || state.status != Status::Waiting
            || state.owner.is_some()
            || state.retry.is_some()
            || !state.queue.is_empty()
            || !state.pending.is_empty();
        world.hold(!under_way, "Fork", || format!("{} goes on with its origin's work", short(session)));
    }

    /// An answer that the log names is committed, or its provider told to end it, before a worker goes on
    /// without it: none is asked for, and paid, anew while it is held.
    fn answers(&self, world: &World, session: SessionId, entry: &Entry, named: Option<String>) {
        let mut truth = world.truth();
        if let Fact::Redacted { entry } = &entry.record.fact {
            truth.configuration_redacted |= *entry == self.state.configured_at;
        }
        if let Some(answer) = self.state.response_id.as_ref().and_then(|id| truth.answers.get_mut(id)) {
            answer.named = true;
        }
        let Some(named) = named.filter(|named| self.state.response_id.as_ref() != Some(named)) else {
            return;
        };
        let Actor::Worker { worker, .. } = entry.record.by else {
            truth.answers.entry(named).or_default().dropped = true;
            return;
        };
        let committed = match &entry.record.fact {
            Fact::ModelStep { response_id, .. } => response_id.as_ref() == Some(&named),
            // What was said became a summary, or was none.
            Fact::Compacted { .. } | Fact::CompactionFailed { .. } => true,
            _ => false,
        };
        let out_of_reach = truth.configuration_redacted || truth.unready.contains(&worker);
        let answer = truth.answers.entry(named.clone()).or_default();
        answer.dropped |= out_of_reach;
        let gone = answer.lost || answer.ended;
        let fair = committed || gone || out_of_reach;
        drop(truth);
        world.hold(fair, "Once", || {
            let (kind, n) = (entry.record.fact.kind(), entry.record.n);
            format!("{} entry {n}, {kind}: answer {named} is held and forgotten", short(session))
        });
    }

    /// A session does not go on and on summarising: after a compaction, or three that failed, something else
    /// happens, and the third says that they end.
    fn compactions(&mut self, world: &World, session: SessionId, fact: &Fact) {
        match fact {
            Fact::Compacted { .. } => self.compactions += 1,
            Fact::CompactionFailed { automatic_off, .. } => {
                self.compactions += 1;
                let third = self.state.compaction_failures == MAX_COMPACTION_FAILURES;
                world.hold(*automatic_off == third, "Stop", || {
                    let failures = self.state.compaction_failures;
                    format!("{}: {failures} failed compactions, off is {automatic_off}", short(session))
                });
            }
            Fact::Retry { .. }
            | Fact::Settled { .. }
            | Fact::Acquired { .. }
            | Fact::Released { .. }
            | Fact::Queued
            | Fact::Unqueued { .. }
            | Fact::Named { .. }
            | Fact::Granted { .. }
            | Fact::Redacted { .. } => {}
            _ => self.compactions = 0,
        }
        let bounded = self.compactions <= MAX_COMPACTION_FAILURES;
        world.hold(bounded, "Stop", || format!("{} is compacted again and again", short(session)));
    }

    /// Counts lost owners since a tool really ran, or a turn ended; waiting for a person is no ownership.
    fn losses(&mut self, fact: &Fact, before: Status) {
        match fact {
            Fact::Acquired { lost: true, .. } if before != Status::RequiresAction => self.losses += 1,
            Fact::ToolStep { results, .. } if results.iter().any(|result| result.outcome.ran()) => {
                self.losses = 0;
            }
            Fact::TurnFinished { .. }
            | Fact::Interrupted { .. }
            | Fact::Failed { .. }
            | Fact::Forked { .. }
            | Fact::Imported { .. } => self.losses = 0,
            _ => {}
        }
    }
}

/// What an entry says was measured.
pub(crate) fn charged(fact: &Fact) -> Option<Usage> {
    fact.charge().map(|charge| charge.spend.usage)
}

/// A model's report is paid for once, by the session it was made for, as it was made.
fn pay(world: &World, session: SessionId, usage: Usage) {
    let mut truth = world.truth();
    let runner = truth.attempts.get(&usage.cost_micros).and_then(|attempt| attempt.runner);
    let made_for = runner.and_then(|runner| truth.runners.get(&runner)).map(|(session, _)| *session);
    let problem = match truth.attempts.get_mut(&usage.cost_micros) {
        None => Some("no model reported it".to_owned()),
        Some(attempt) => {
            let before = attempt.charged.replace(session);
            let reported = attempt.reported.contains(&usage);
            if let Some(before) = before {
                Some(format!("{} has paid for it already", short(before)))
            } else if made_for.is_some_and(|made_for| made_for != session) {
                Some("it was made for another session".to_owned())
            } else {
                (!reported).then(|| format!("the model reported {:?}", attempt.reported))
            }
        }
    };
    drop(truth);
    if let Some(problem) = problem {
        world.broken("Ledger", format!("{} pays {usage:?}: {problem}", short(session)));
    }
}

/// Says what is wrong with a request that reaches a model: each call has exactly one result, before
/// anything else is said, and no id comes twice.
pub(crate) fn unanswered(items: &[std::sync::Arc<Item>]) -> Option<String> {
    let mut open: Vec<&CallId> = Vec::new();
    let mut seen: Vec<&CallId> = Vec::new();
    for item in items {
        match &**item {
            Item::ToolCall(call) => {
                if seen.contains(&&call.id) {
                    return Some(format!("call {} is there twice", call.id));
                }
                seen.push(&call.id);
                open.push(&call.id);
            }
            Item::ToolResult(result) => match open.iter().position(|id| **id == result.call) {
                Some(at) => drop(open.remove(at)),
                None => return Some(format!("result {} answers no open call", result.call)),
            },
            Item::User { .. }
            | Item::Attachment(_)
            | Item::File { .. }
            | Item::Steering { .. }
            | Item::Summary { .. }
            | Item::ContextFile { .. } => {
                if let Some(id) = open.first() {
                    return Some(format!("call {id} has no result before what is said next"));
                }
            }
            Item::Assistant { .. } | Item::Reasoning { .. } | Item::Opaque { .. } | Item::Redacted => {}
        }
    }
    open.first().map(|id| format!("call {id} has no result"))
}
