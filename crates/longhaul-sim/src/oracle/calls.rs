//! Calls and what the model is told of them, compared with what really began.

use std::collections::{BTreeMap, BTreeSet};

use longhaul_session::entry::{CallFact, Entry, Fact, Place, ResultFact};
use longhaul_session::goal::{CREATE_GOAL, GET_GOAL, UPDATE_GOAL};
use longhaul_session::id::{CallId, EntryNo, SessionId};
use longhaul_session::item::Outcome;
use longhaul_session::state::SessionState;

use crate::store::short;
use crate::world::World;

/// A call without a result.
#[derive(Debug)]
struct Open {
    step: EntryNo,
    place: Place,
    /// The engine's own: the world does not see it begin.
    of_goal: bool,
}

/// The calls of a session, told from its entries alone.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The open ones.
    open: BTreeMap<CallId, Open>,
    /// All that the model sees, with the entry of their step.
    seen: BTreeMap<CallId, EntryNo>,
    /// The session whose log they are in; a prefix has none of its own yet.
    session: Option<SessionId>,
}

impl Calls {
    pub(super) fn belong_to(&mut self, session: SessionId) {
        self.session = Some(session);
    }

    /// Tells whether these are the open calls of a state.
    pub(super) fn are(&self, state: &SessionState) -> bool {
        let open = state.pending.iter().map(|call| &call.id).collect::<BTreeSet<_>>();
        open.len() == state.pending.len() && open.into_iter().eq(self.open.keys())
    }

    /// Checks what an entry says of calls.
    pub(super) fn check(&self, world: &World, session: SessionId, entry: &Entry) {
        let n = entry.record.n;
        let broken = |invariant, what: String| {
            world.broken(invariant, format!("{} entry {n}: {what}", short(session)));
        };
        if let Fact::ModelStep { calls, .. } = &entry.record.fact {
            if !self.open.is_empty() {
                broken("Answered", "the model answers while calls are open".to_owned());
            }
            for call in calls.iter().filter(|call| self.seen.contains_key(&call.id)) {
                broken("Answered", format!("the model sees the id {} twice", call.id));
            }
        }
        for ResultFact { call, outcome, .. } in results(&entry.record.fact) {
            let Some(Open { step, place, of_goal }) = self.open.get(call) else {
                broken("Answered", format!("a result for {call}, which is not open"));
                continue;
            };
            let key = (session, *step, call.clone());
            let mut truth = world.truth();
            let starts = truth.starts.get(&key).copied().unwrap_or(0);
            truth.answered.insert(key.clone());
            let honest = match outcome {
                Outcome::Ok | Outcome::Error | Outcome::TimedOut => {
                    *place != Place::Local || *of_goal || starts > 0
                }
                Outcome::NotRun | Outcome::Denied | Outcome::Rejected | Outcome::Expired => {
                    truth.not_run.insert(key);
                    starts == 0
                }
                Outcome::Stopped | Outcome::Unknown | Outcome::Cancelled | Outcome::Foreign => true,
            };
            drop(truth);
            world.count(outcome_name(*outcome));
            if !honest {
                broken("Effects", format!("call {call} began {starts} times and is said to be {outcome:?}"));
            }
        }
    }

    pub(super) fn fold(&mut self, entry: &Entry) {
        let n = entry.record.n;
        match &entry.record.fact {
            Fact::ModelStep { calls, .. } => {
                self.seen.extend(calls.iter().map(|call| (call.id.clone(), n)));
                let goal_tools = [GET_GOAL, CREATE_GOAL, UPDATE_GOAL];
                let open = |call: &CallFact| {
                    let of_goal = goal_tools.contains(&call.tool.as_str());
                    (call.id.clone(), Open { step: n, place: call.place, of_goal })
                };
                self.open = calls.iter().map(open).collect();
            }
            Fact::Edited { message } => {
                self.seen.retain(|_, step| *step < *message);
                self.open.clear();
            }
            Fact::Reconciled { .. } => self.open.clear(),
            Fact::Compacted { keep_from, .. } => self.seen.retain(|_, step| *step >= *keep_from),
            Fact::Cleared => self.seen.clear(),
            Fact::Answered { allowed, .. } => {
                for (_, open) in self.open.iter_mut().filter(|(id, _)| allowed.contains(id)) {
                    open.place = Place::Local;
                }
            }
            _ => {}
        }
        for ResultFact { call, .. } in results(&entry.record.fact) {
            self.open.remove(call);
        }
    }
}

fn results(fact: &Fact) -> &[ResultFact] {
    if let Fact::ToolStep { results, .. }
    | Fact::Answered { results, .. }
    | Fact::Interrupted { results, .. }
    | Fact::Failed { results, .. }
    | Fact::Forked { results, .. }
    | Fact::Imported { results, .. } = fact
    {
        results
    } else {
        &[]
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "result ok",
        Outcome::Error => "result error",
        Outcome::TimedOut => "result timed out",
        Outcome::Rejected => "result rejected",
        Outcome::Denied => "result denied",
        Outcome::NotRun => "result not run",
        Outcome::Stopped => "result stopped",
        Outcome::Cancelled => "result cancelled",
        Outcome::Unknown => "result unknown",
        Outcome::Foreign => "result foreign",
        Outcome::Expired => "result expired",
    }
}
