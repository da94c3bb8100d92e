//! Names for worlds: two worlds in which the same things can happen have the same name. Entries and epochs
//! count by their order only, calls by their place, and what no rule reads does not count.

use std::hash::{Hash, Hasher};

use longhaul_session::agent::Limits;
use longhaul_session::goal::Goal;
use longhaul_session::id::{CallId, Digest, EntryNo, Epoch, GoalId, Timestamp};
use longhaul_session::item::EffectClass;
use longhaul_session::state::{Origin, SessionState, Turn};

use super::world::{Progress, Runner, Task, World};

/// The name of a world or a state.
pub(super) type Name = u128;

/// Tokens of a goal above this are not told apart: no budget of the search is larger.
const MOST_TOKENS: u64 = 1_000;

/// Collects what is hashed, to digest it at once.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn finish(&self) -> u64 {
        0
    }
}

impl Bytes {
    fn name(&self) -> Name {
        let Digest(digest) = Digest::of(&self.0);
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Name::from_be_bytes(half)
    }
}

/// What numbers are called by.
struct Names {
    entries: Vec<EntryNo>,
    epochs: Vec<Epoch>,
    now: Timestamp,
}

impl Names {
    fn new(mut entries: Vec<EntryNo>, mut epochs: Vec<Epoch>, now: Timestamp) -> Self {
        entries.sort_unstable();
        entries.dedup();
        epochs.sort_unstable();
        epochs.dedup();
        Names { entries, epochs, now }
    }

    fn entry(&self, n: EntryNo) -> u8 {
        short(self.entries.binary_search(&n).unwrap_or(usize::MAX))
    }

    fn epoch(&self, epoch: Epoch) -> u8 {
        short(self.epochs.binary_search(&epoch).unwrap_or(usize::MAX))
    }

    fn to_come(&self, at: Timestamp) -> bool {
        at > self.now
    }
}

fn short(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Names a state by itself.
pub(super) fn state(state: &SessionState, now: Timestamp, limits: &Limits) -> Name {
    let names = Names::new(entries_of(state), epochs_of(state), now);
    let mut out = Bytes::default();
    put_state(&mut out, state, &names, limits);
    out.name()
}

/// Names a world.
pub(super) fn world(world: &World, limits: &Limits) -> Name {
    let mut entries = entries_of(&world.state);
    let mut epochs = epochs_of(&world.state);
    entries.extend(world.messages.iter().map(|message| message.at));
    if let Some(seen) = world.evidence {
        entries.extend([seen.entry(), seen.as_of()]);
    }
    for runner in world.runners.iter().flatten() {
        entries.push(runner.basis.history_at);
        epochs.push(runner.epoch);
    }
    let names = Names::new(entries, epochs, world.now);
    let mut out = Bytes::default();
    put_state(&mut out, &world.state, &names, limits);
    let mut messages: Vec<(u8, bool)> =
        world.messages.iter().map(|message| (names.entry(message.at), message.queued)).collect();
    messages.sort_unstable();
    let evidence = world.evidence.map(|seen| (names.entry(seen.entry()), names.entry(seen.as_of())));
    (messages, evidence, world.untold, world.calling, world.left).hash(&mut out);
    let mut runners: Vec<&Runner> = world.runners.iter().flatten().collect();
    runners.sort_unstable_by_key(|runner| runner.epoch);
    for call in &world.state.pending {
        put_ghost(&mut out, world, &call.id);
    }
    let goal = world.state.goal.as_ref().map(|goal| goal.id);
    for runner in runners {
        put_runner(&mut out, world, runner, &names, goal);
    }
    out.name()
}

fn entries_of(state: &SessionState) -> Vec<EntryNo> {
    let mut entries = state.queue.clone();
    entries.extend([state.boundary, state.history_at]);
    entries
}

fn epochs_of(state: &SessionState) -> Vec<Epoch> {
    let started = state.pending.iter().filter_map(|call| call.startable_by);
    started.chain([state.epoch]).collect()
}

fn put_state(out: &mut Bytes, state: &SessionState, names: &Names, limits: &Limits) {
    let SessionState {
        head: _,
        status,
        archived,
        mode,
        ephemeral,
        without_goals,
        name: _,
        configured_at: _,
        prepared_at,
        boundary,
        context_from: _,
        kept,
        history_at,
        newest,
        steps_since_boundary,
        context_digest,
        queue,
        pending,
        owner,
        epoch,
        attempt,
        retry,
        overflow,
        overtaken,
        crashes,
        turn,
        goal,
        goal_set_at,
        ledger: _,
        steering_due,
        compaction_requested,
        compaction_failures,
        pruned_to: _,
        measured: _,
        measured_at: _,
        response_id: _,
        response_is_summary: _,
        grants: _,
        last_error: _,
    } = state;
    (status, archived, mode, ephemeral, without_goals, newest).hash(out);
    (*prepared_at > 0, context_digest.is_some()).hash(out);
    (names.entry(*boundary), names.entry(*history_at), *steps_since_boundary > 0, attempt).hash(out);
    queue.iter().chain(kept).map(|n| names.entry(*n)).collect::<Vec<_>>().hash(out);
    kept.len().hash(out);
    for call in pending {
        let place = (call.place, call.effect, call.rejected, call.stop_after);
        let by = call.startable_by.map(|epoch| names.epoch(epoch));
        (place, call.deadline.map(|at| names.to_come(at)), by).hash(out);
    }
    (pending.len(), owner.map(|owner| names.epoch(owner.epoch)), names.epoch(*epoch)).hash(out);
    (retry.map(|retry| (retry.class, names.to_come(retry.not_before))), *crashes.min(&limits.max_crashes))
        .hash(out);
    (overflow, overtaken, state.works_for().is_some()).hash(out);
    put_turn(out, turn, goal.is_some(), limits);
    if let Some(goal) = goal {
        put_goal(out, goal);
    }
    (
        goal_set_at <= history_at,
        steering_due,
        compaction_requested,
        compaction_failures.min(&limits.max_compaction_failures),
    )
        .hash(out);
}

fn put_turn(out: &mut Bytes, turn: &Turn, for_goal: bool, limits: &Limits) {
    let Turn { number: _, origin, steps, tool_calls, digest, stop_after, goal: _ } = turn;
    (origin, *steps.min(&limits.max_steps), *tool_calls > 0, stop_after).hash(out);
    // Only the turns of a goal are compared with each other.
    (for_goal && *origin == Origin::Continuation).then_some(digest).hash(out);
}

fn put_goal(out: &mut Bytes, goal: &Goal) {
    let Goal {
        id: _,
        objective,
        status,
        reason: _,
        budget,
        used,
        checks: _,
        protected: _,
        guarded_at: _,
        suppressed,
        recent_turns,
        created: _,
        updated: _,
    } = goal;
    (objective, status, budget, suppressed, recent_turns).hash(out);
    let tokens = budget.tokens.map(|_| used.tokens.min(MOST_TOKENS));
    (tokens, used.continuations).hash(out);
}

fn put_ghost(out: &mut Bytes, world: &World, id: &CallId) {
    let Some(call) = world.calls.iter().find(|call| call.id == *id) else { return };
    let starts = if call.effect == EffectClass::Once { call.starts } else { call.starts.min(1) };
    (call.effect, starts, call.told, call.exposed, call.forbidden, call.crowded).hash(out);
}

fn put_runner(out: &mut Bytes, world: &World, runner: &Runner, names: &Names, goal: Option<GoalId>) {
    let Runner { epoch, zombie, spoiled, basis, goal: mine, task } = runner;
    (names.epoch(*epoch), zombie, spoiled, mine.map(|id| Some(id) == goal)).hash(out);
    if !runner.is_idle() {
        (names.entry(basis.history_at), basis.attempt).hash(out);
    }
    match task {
        Task::Idle => 0_u8.hash(out),
        Task::Model => 1_u8.hash(out),
        Task::Compaction => 2_u8.hash(out),
        Task::Tools(calls) => {
            (3_u8, calls.len()).hash(out);
            for (id, progress) in calls {
                put_call(out, world, id, *progress);
            }
        }
    }
}

/// A call is known by its place among the open ones, or by what became of it.
fn put_call(out: &mut Bytes, world: &World, id: &CallId, progress: Progress) {
    let place = world.state.pending.iter().position(|call| call.id == *id);
    (progress, place).hash(out);
    if place.is_none() {
        put_ghost(out, world, id);
    }
}
