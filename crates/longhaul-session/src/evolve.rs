//! `evolve`: the fold. One record changes the state; nothing here reads content, decides or refuses.

use crate::entry::{
    Actor, CallFact, Charge, Fact, FinishReason, Mode, ModelGoal, Next, Place, Record, ResultFact,
    TurnVerdict,
};
use crate::failure::{Failure, FailureClass};
use crate::goal::{BudgetKind, GET_GOAL, Goal, GoalStatus, SPIN_TURNS};
use crate::id::{CallId, Digest, EntryNo, GoalId, Timestamp};
use crate::state::{Newest, Origin, Overflow, Owner, PendingCall, SessionState, Status, Turn};
use crate::steering::SteeringDue;
use crate::usage::{Totals, Usage};

/// Folds one record into the state. It accepts everything `decide` can emit.
// tidy: long — one exhaustive match over all kinds of entries
#[must_use]
pub fn evolve(mut state: SessionState, record: &Record) -> SessionState {
    let n = record.n;
    state.head = n;
    state.overtaken = state.is_overtaken_by(record);
    if let Some(charge) = record.fact.charge() {
        state.charge(charge);
    }
    match &record.fact {
        Fact::Created { ephemeral, without_goals, name } => {
            state.ephemeral = *ephemeral;
            state.without_goals = *without_goals;
            state.name.clone_from(name);
            state.configured_at = n;
            state.context_from = n;
        }
        Fact::Forked { results, .. } | Fact::Imported { results, .. } => state.detach(n, results),
        Fact::Prepared => state.prepared_at = n,
        Fact::Configured { without_goals } => {
            state.configured_at = n;
            state.without_goals = *without_goals;
            // Prompt and tools follow from the configuration: the next runner renders them anew. A response
            // was asked of the provider before.
            state.prepared_at = 0;
            state.measured_at = 0;
            state.response_id = None;
            state.overflow = Overflow::None;
        }
        Fact::Message => state.begin_turn(n, Origin::User),
        Fact::Queued => state.queue.push(n),
        Fact::Unqueued { message } => state.queue.retain(|queued| queued != message),
        Fact::Promoted { message } => state.go_on(n, Next::Promote(*message)),
        Fact::Edited { .. } => {
            state.pending.clear();
            state.begin_turn(n, Origin::User);
            // What told the model of its goal may be among what the edit drops.
            state.steering_due.goal_recalled = state.goal.is_some();
        }
        Fact::Context { digest } => {
            state.context_digest = Some(*digest);
            state.history_grew(n);
        }
        Fact::Steering { .. } => {
            state.steering_due = SteeringDue::default();
            state.newest = Newest::Input;
            state.history_grew(n);
        }
        Fact::ModelStep { calls, measured, .. } => {
            state.measured = Some(*measured);
            state.pruned_to = state.pruned_to.max(measured.pruned_to);
            // A provider that counts nothing has measured nothing.
            state.measured_at = if measured.input_tokens > 0 { n } else { 0 };
            state.model_step(n, calls);
        }
        Fact::ToolStep { results, goal, .. } => {
            state.tool_step(n, results);
            state.model_goal(n, goal.as_ref(), record.at);
        }
        Fact::ResponseStarted { response_id, is_summary } => {
            state.response_id = Some(response_id.clone());
            state.response_is_summary = *is_summary;
        }
        Fact::Settled { .. } => {}
        Fact::Retry { retry, attempt, failure, .. } => {
            state.attempt = *attempt;
            state.retry = Some(*retry);
            // Where only the connection failed, the provider goes on making it.
            if failure.class != FailureClass::Network {
                state.response_id = None;
            }
            if failure.class == FailureClass::ContextOverflow {
                state.overflow = Overflow::Request;
            }
            state.last_error = Some(failure.clone());
        }
        Fact::Awaiting { deadlines } => state.await_action(deadlines),
        Fact::Answered { allowed, results } => state.answered(n, allowed, results),
        Fact::CompactionRequested => state.compaction_requested(),
        Fact::Compacted { keep_from, kept, .. } => {
            state.start_context(n, *keep_from);
            state.kept.clone_from(kept);
            state.compaction_failures = 0;
        }
        Fact::CompactionFailed { failure, automatic_off, .. } => {
            state.compaction_failed(failure, *automatic_off);
        }
        Fact::Cleared => {
            state.start_context(n, n);
            state.newest = Newest::Nothing;
            state.rest(Status::Waiting);
        }
        Fact::TurnFinished { reason, verdict, limited, next, .. } => {
            state.judge(verdict);
            state.limit(*limited, matches!(reason, FinishReason::HardBudget(_)));
            state.end_turn();
            state.go_on(n, *next);
        }
        Fact::Interrupting { promote, dropped, pause_goal } => {
            state.interrupting(*promote, dropped, *pause_goal);
        }
        Fact::Interrupted { results, partial, limited, next, .. } => {
            state.limit(*limited, false);
            state.close_calls(n, results);
            if *partial {
                state.newest = Newest::Response;
                state.history_changed(n);
            }
            state.end_turn();
            state.go_on(n, *next);
        }
        Fact::Failed { failure, results, .. } => {
            state.close_calls(n, results);
            state.fail(failure);
        }
        Fact::Goal { goal, next } => state.set_goal(n, goal.as_ref(), *next),
        Fact::Mode { mode, next } => {
            state.mode = *mode;
            state.work_for_goal();
            if let Some(next) = next {
                state.go_on(n, *next);
            }
        }
        Fact::Named { name } => state.name.clone_from(name),
        Fact::Granted { tool } => state.grants.push(tool.clone()),
        Fact::Hook { .. } => {
            if record.content.is_some() {
                state.newest = Newest::Input;
                state.history_grew(n);
            }
        }
        Fact::Redacted { .. } => {}
        Fact::Archived => state.archived = true,
        Fact::Unarchived => state.archived = false,
        Fact::Acquired { worker, epoch, lost, estimate, goal, crossed } => {
            state.lose(*estimate, *goal, *crossed);
            state.acquired(Owner { worker: *worker, epoch: *epoch }, *lost);
        }
        Fact::Released { not_started } => state.released(not_started),
        Fact::Reconciled { broken } => state.reconciled(n, broken),
    }
    state
}

/// What the facts do. Each method is one idea of the design.
impl SessionState {
    /// Notes that the model's history changed: work based on the old one is obsolete.
    fn history_changed(&mut self, n: EntryNo) {
        self.history_at = n;
        self.attempt = 0;
        self.retry = None;
        self.response_id = None;
        self.last_error = None;
        self.overflow = Overflow::None;
    }

    /// Notes that the model's history has become longer, and nothing else: what was too large is so still.
    fn history_grew(&mut self, n: EntryNo) {
        let overflow = self.overflow;
        self.history_changed(n);
        self.overflow = overflow;
    }

    /// Tells whether its owner may be calling the model although something else is owed, as a person has changed
    /// that. What the owner itself appends ends it, but for the name of an answer: one call at a time is made.
    fn is_overtaken_by(&self, record: &Record) -> bool {
        if matches!(record.by, Actor::Worker { .. }) {
            return self.overtaken && matches!(record.fact, Fact::ResponseStarted { .. });
        }
        let may_call = self.status == Status::Running && self.pending.is_empty();
        let overtakes = matches!(
            record.fact,
            Fact::Configured { .. }
                | Fact::Edited { .. }
                | Fact::Interrupting { .. }
                | Fact::Goal { .. }
                | Fact::Mode { .. }
        );
        self.owner.is_some() && (self.overtaken || may_call && overtakes)
    }

    fn begin_turn(&mut self, n: EntryNo, origin: Origin) {
        self.turn = Turn { number: self.turn.number + 1, origin, ..Turn::default() };
        self.status = Status::Running;
        self.newest = Newest::Input;
        // Somebody has spoken: what is done after that is no repetition of what was done before.
        if let Some(goal) = self.goal.as_mut().filter(|_| origin != Origin::Continuation) {
            goal.suppressed = false;
            goal.recent_turns.clear();
        }
        self.work_for_goal();
        self.history_changed(n);
    }

    /// Puts the turn on the account of the goal, if it is being pursued.
    fn work_for_goal(&mut self) {
        let goal = self.goal.as_ref().filter(|goal| goal.status == GoalStatus::Active);
        if let Some(goal) = goal.filter(|_| self.mode == Mode::Default) {
            self.turn.goal = Some(goal.id);
        }
    }

    /// Does what was decided to come after a turn.
    fn go_on(&mut self, n: EntryNo, next: Next) {
        match next {
            Next::Promote(message) => {
                self.queue.retain(|queued| *queued != message);
                self.begin_turn(n, Origin::Queue);
            }
            Next::Continue => {
                if let Some(goal) = &mut self.goal {
                    goal.used.continuations += 1;
                }
                self.steering_due.objective_changed = false;
                self.steering_due.goal_recalled = false;
                self.begin_turn(n, Origin::Continuation);
            }
            Next::Rest => self.rest(Status::Waiting),
        }
    }

    /// Lands in a resting state, which releases the owner: a later kill is no crash.
    fn rest(&mut self, status: Status) {
        self.status = status;
        self.owner = None;
        self.retry = None;
        self.attempt = 0;
        self.response_id = None;
    }

    fn end_turn(&mut self) {
        self.crashes = 0;
        self.steering_due.budget = None;
        self.compaction_requested = false;
    }

    pub(crate) fn charge(&mut self, charge: &Charge) {
        self.ledger += Totals::of(&charge.spend);
        let Some(goal) = self.goal.as_mut().filter(|goal| Some(goal.id) == charge.spend.goal) else {
            return;
        };
        goal.used.add(&charge.spend);
        self.crossed(charge.crossed);
    }

    /// Limits the goal in the middle of a turn; the model is told to wrap up.
    fn crossed(&mut self, crossed: Option<BudgetKind>) {
        if crossed.is_some() {
            self.limit(crossed, false);
            self.steering_due.budget = crossed;
        }
    }

    fn model_step(&mut self, n: EntryNo, calls: &[CallFact]) {
        let crowded = calls.len() > 1 && calls.iter().any(|call| call.exclusive);
        let owner = self.owner.map(|owner| owner.epoch);
        self.pending = calls
            .iter()
            .map(|call| PendingCall {
                id: call.id.clone(),
                tool: call.tool.clone(),
                step: n,
                place: call.place,
                effect: call.effect,
                deadline: None,
                startable_by: owner.filter(|_| call.place == Place::Local),
                rejected: crowded,
                stop_after: call.stop_after,
                digest: call.digest,
            })
            .collect();
        self.turn.steps += 1;
        // To look at the goal is no work on it.
        let work = calls.iter().filter(|call| call.tool != GET_GOAL).count();
        self.turn.tool_calls = self.turn.tool_calls.saturating_add(u32::try_from(work).unwrap_or(u32::MAX));
        self.steps_since_boundary += 1;
        self.newest = if calls.is_empty() { Newest::Response } else { Newest::Calls };
        self.history_changed(n);
    }

    /// Recording an unknown outcome is not progress: only a tool that really ran ends a crash loop.
    fn tool_step(&mut self, n: EntryNo, results: &[ResultFact]) {
        self.close_calls(n, results);
        if results.iter().any(|result| result.outcome.ran()) {
            self.crashes = 0;
        }
    }

    /// Takes calls that have a result from the open ones.
    fn close_calls(&mut self, n: EntryNo, results: &[ResultFact]) {
        if results.is_empty() {
            return;
        }
        for result in results {
            if let Some(at) = self.pending.iter().position(|call| call.id == result.call) {
                let call = self.pending.remove(at);
                self.turn.stop_after |= call.stop_after && result.outcome.ran();
                if call.tool == GET_GOAL {
                    continue;
                }
                let mut bytes = self.turn.digest.0.to_vec();
                bytes.extend_from_slice(&call.digest.0);
                bytes.extend_from_slice(&result.digest.0);
                self.turn.digest = Digest::of(&bytes);
            }
        }
        if let Some(goal) = &mut self.goal {
            goal.suppressed = false;
        }
        self.steps_since_boundary += 1;
        self.newest = Newest::Results;
        self.history_changed(n);
    }

    fn model_goal(&mut self, n: EntryNo, change: Option<&ModelGoal>, at: Timestamp) {
        match (change, &mut self.goal) {
            (Some(ModelGoal::Created(created)), _) => {
                self.goal = Some((**created).clone());
                self.steering_due = SteeringDue::default();
                self.goal_set_at = n;
                self.work_for_goal();
            }
            (Some(ModelGoal::Completed), Some(goal)) => {
                goal.status = GoalStatus::Complete;
                goal.reason = None;
                goal.updated = at;
            }
            (Some(ModelGoal::Blocked(reason)), Some(goal)) => {
                goal.status = GoalStatus::Blocked;
                goal.reason = Some(reason.clone());
                goal.updated = at;
            }
            (Some(ModelGoal::Completed | ModelGoal::Blocked(_)), None) | (None, _) => {}
        }
    }

    fn await_action(&mut self, deadlines: &[(CallId, Timestamp)]) {
        for call in &mut self.pending {
            call.deadline = deadlines.iter().find(|(id, _)| *id == call.id).map(|(_, at)| *at);
        }
        self.rest(Status::RequiresAction);
    }

    /// Allowed calls become local; when nobody else has to answer, the turn goes on.
    fn answered(&mut self, n: EntryNo, allowed: &[CallId], results: &[ResultFact]) {
        for call in self.pending.iter_mut().filter(|call| allowed.contains(&call.id)) {
            call.place = Place::Local;
            call.deadline = None;
        }
        self.close_calls(n, results);
        if self.pending.iter().all(|call| call.place == Place::Local) {
            self.status = Status::Running;
            self.adopt_unstarted();
        } else {
            self.rest(Status::RequiresAction);
        }
    }

    /// Gives the owner the calls that nobody may start.
    fn adopt_unstarted(&mut self) {
        let Some(owner) = self.owner.filter(|_| self.status == Status::Running) else {
            return;
        };
        for call in self.pending.iter_mut().filter(|call| call.place == Place::Local) {
            call.startable_by.get_or_insert(owner.epoch);
        }
    }

    fn compaction_requested(&mut self) {
        self.compaction_requested = true;
        self.turn = Turn { number: self.turn.number + 1, origin: Origin::Compaction, ..Turn::default() };
        self.status = Status::Running;
        self.last_error = None;
        self.work_for_goal();
    }

    fn compaction_failed(&mut self, failure: &Failure, automatic_off: bool) {
        self.compaction_failures += 1;
        // The model is asked next, and its own troubles are counted from then on.
        if automatic_off {
            self.retry = None;
        }
        if failure.class == FailureClass::ContextOverflow && self.overflow == Overflow::None {
            self.overflow = Overflow::Summary;
        }
        self.compaction_requested = false;
        self.attempt += 1;
        self.response_id = None;
        self.last_error = Some(failure.clone());
    }

    fn start_context(&mut self, n: EntryNo, keep_from: EntryNo) {
        self.boundary = n;
        self.context_from = keep_from;
        self.kept.clear();
        self.context_digest = None;
        self.steps_since_boundary = 0;
        self.compaction_requested = false;
        self.measured = None;
        self.measured_at = 0;
        self.pruned_to = 0;
        // What told the model of its goal may be before the boundary now.
        self.steering_due.goal_recalled |= self.goal.is_some();
        self.history_changed(n);
    }

    pub(crate) fn judge(&mut self, verdict: &TurnVerdict) {
        let Some(goal) = &mut self.goal else { return };
        match verdict {
            TurnVerdict::None => {}
            TurnVerdict::Suppressed => goal.suppressed = true,
            TurnVerdict::Worked(digest) => {
                goal.recent_turns.push(*digest);
                let surplus = goal.recent_turns.len().saturating_sub(SPIN_TURNS - 1);
                goal.recent_turns.drain(..surplus);
            }
            TurnVerdict::Spun(_) => {
                goal.status = GoalStatus::Blocked;
                let same = match self.turn.tool_calls {
                    1 => "call with the same result".to_owned(),
                    calls => format!("{calls} calls with the same results"),
                };
                goal.reason = Some(format!("the last {SPIN_TURNS} turns made the same {same}"));
            }
        }
    }

    pub(crate) fn limit(&mut self, limited: Option<BudgetKind>, hard: bool) {
        if let (Some(kind), Some(goal)) = (limited, &mut self.goal) {
            goal.limit(kind, hard);
        }
    }

    fn interrupting(&mut self, promote: Option<EntryNo>, dropped: &[EntryNo], pause_goal: bool) {
        self.status = Status::Interrupting;
        self.retry = None;
        self.queue.retain(|queued| !dropped.contains(queued));
        if let Some(message) = promote {
            self.queue.retain(|queued| *queued != message);
            self.queue.insert(0, message);
        }
        if let Some(goal) = self.goal.as_mut().filter(|_| pause_goal) {
            goal.status = GoalStatus::Paused;
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.end_turn();
        self.rest(Status::Failed);
        self.last_error = Some(failure.clone());
        if let Some(goal) = self.goal.as_mut().filter(|goal| goal.status == GoalStatus::Active) {
            let quota = failure.class == FailureClass::Quota;
            goal.status = if quota { GoalStatus::UsageLimited } else { GoalStatus::Blocked };
            goal.reason = Some(failure.message.clone());
        }
    }

    /// A goal set while the model is at work leaves the history alone: the model is told before its next call,
    /// as it is when a queued message goes first.
    fn set_goal(&mut self, n: EntryNo, goal: Option<&Goal>, next: Option<Next>) {
        let (before, after) = (self.goal.as_ref(), goal);
        let same = before.map(|goal| &goal.objective) == after.map(|goal| &goal.objective);
        if before.map(|goal| goal.id) != after.map(|goal| goal.id) {
            self.steering_due.budget = None;
            self.goal_set_at = n;
        }
        // A goal that is woken may have been compacted away while it slept.
        let pursued = |goal: Option<&Goal>| goal.is_some_and(|goal| goal.status == GoalStatus::Active);
        let woken = pursued(after) && !pursued(before);
        let busy = !self.status.is_resting() || !self.pending.is_empty();
        self.steering_due.objective_changed |= !same && (busy || next.is_some());
        self.steering_due.goal_recalled =
            after.is_some() && (self.steering_due.goal_recalled || woken || !same);
        // A budget that is lowered to what was used is crossed: the model is told to wrap up.
        let limited = after.filter(|goal| goal.status == GoalStatus::BudgetLimited && pursued(before));
        let lowered = limited.and_then(|goal| goal.budget.reached(&goal.used));
        self.goal = goal.cloned();
        if busy {
            self.work_for_goal();
        }
        if lowered.is_some_and(|kind| kind != BudgetKind::Continuations) && busy && self.works_for().is_some()
        {
            self.steering_due.budget = lowered;
        }
        if let Some(next) = next {
            self.go_on(n, next);
        }
    }

    /// Counts what a lost attempt may have cost, which `paying` is charged for.
    fn lose(&mut self, estimate: Usage, paying: Option<GoalId>, crossed: Option<BudgetKind>) {
        self.ledger += Totals::of_lost(estimate);
        if let Some(goal) = self.goal.as_mut().filter(|goal| paying == Some(goal.id)) {
            goal.used.add_estimate(&estimate);
        }
        self.crossed(crossed);
    }

    /// Waiting for a person is not ownership: a loss there is no crash.
    fn acquired(&mut self, owner: Owner, lost: bool) {
        if lost && self.status != Status::RequiresAction {
            self.crashes += 1;
        }
        self.epoch = owner.epoch;
        self.owner = Some(owner);
        self.adopt_unstarted();
    }

    fn released(&mut self, not_started: &[CallId]) {
        self.owner = None;
        for call in self.pending.iter_mut().filter(|call| not_started.contains(&call.id)) {
            call.startable_by = None;
        }
    }

    /// Makes a copied log a session of its own: nobody owns it and nothing is under way in it.
    fn detach(&mut self, n: EntryNo, results: &[ResultFact]) {
        self.close_calls(n, results);
        self.queue.clear();
        self.archived = false;
        self.name = None;
        self.end_turn();
        self.rest(Status::Waiting);
        self.last_error = None;
        if let Some(goal) = self.goal.as_mut().filter(|goal| goal.status == GoalStatus::Active) {
            goal.status = GoalStatus::Paused;
        }
    }

    fn reconciled(&mut self, n: EntryNo, broken: &str) {
        self.pending.clear();
        self.queue.truncate(crate::state::MAX_QUEUE);
        self.queue.retain(|queued| *queued < n);
        self.archived = false;
        self.boundary = self.boundary.min(n);
        self.history_changed(n);
        self.fail(&Failure { class: FailureClass::Corrupt, message: broken.to_owned() });
    }
}
