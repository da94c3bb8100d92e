//! What must hold when a session changes: the invariants, as far as one change and the ghosts show them.
//! What must hold in a state by itself is in `stand`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a ghost follows the few facts and commands that concern it"
)]

use longhaul_session::command::{Command, OwnerAction, Refusal};
use longhaul_session::entry::{Entry, Fact, Mode, ModelGoal, Next, Place, ResultFact};
use longhaul_session::evolve::evolve;
use longhaul_session::goal::{Goal, GoalStatus};
use longhaul_session::id::{CallId, EntryNo};
use longhaul_session::item::{Item, Outcome};
use longhaul_session::state::{Origin, SessionState, Status};
use longhaul_session::usage::{Spend, Totals, Usage};

use super::landing;
use super::world::{Broken, Call, Message, Progress, Task, World, hold, text};

/// Checks an accepted command: what it appended and what that made of the session.
pub(super) fn changed(
    world: &mut World,
    before: &SessionState,
    asked: &Command,
    entries: &[Entry],
) -> Result<(), Broken> {
    let folded = entries.iter().fold(before.clone(), |state, entry| evolve(state, &entry.record));
    hold(folded == world.state, "Fold", || "the decided state is not the fold of its entries".to_owned())?;
    sound(world)?;
    paid(before, &world.state, asked)?;
    losses(before, &world.state, entries)?;
    history(before, &world.state, entries)?;
    for entry in entries {
        calls(world, before, &entry.record.fact)?;
        steering(world, before, &entry.record.fact);
    }
    messages(world, before, asked, entries)?;
    landing::check(before, asked, &world.state)
}

/// The invariants that the state and the context show by themselves.
pub(super) fn sound(world: &World) -> Result<(), Broken> {
    let broken = world.state.broken_invariant();
    hold(broken.is_none(), "State", || broken.unwrap_or_default().to_owned())?;
    let open: Vec<&CallId> = world.state.pending.iter().map(|call| &call.id).collect();
    match world.context.broken_pairing(&open) {
        None => Ok(()),
        Some(what) => Err(Broken { invariant: "Answered", what }),
    }
}

/// Usage equals the sum over the entries, to the token, and lands on the goal that the work began under.
fn paid(before: &SessionState, after: &SessionState, asked: &Command) -> Result<(), Broken> {
    let (spend, estimate) = cost(asked, before);
    let ledger = Totals {
        measured: before.ledger.measured + spend.usage,
        estimated: before.ledger.estimated + estimate,
        active_ms: before.ledger.active_ms + spend.active_ms,
    };
    hold(after.ledger == ledger, "Ledger", || format!("{:?} where {ledger:?} was spent", after.ledger))?;
    let (Some(old), Some(new)) = (&before.goal, &after.goal) else { return Ok(()) };
    let counts = before.mode == Mode::Default;
    let mine = if spend.goal == Some(old.id) { spend.usage.budget_tokens() } else { 0 };
    // A goal set since the history that the lost attempt began from was not what it worked for.
    let worked_for = before.works_for() == Some(old.id) && before.goal_set_at <= before.history_at;
    let lost = if worked_for { estimate.budget_tokens() } else { 0 };
    let tokens = if counts { old.used.tokens + mine + lost } else { old.used.tokens };
    let kept = old.id != new.id || new.used.tokens == tokens;
    hold(kept, "Ledger", || format!("the goal has used {} tokens, not {tokens}", new.used.tokens))
}

fn cost(asked: &Command, before: &SessionState) -> (Spend, Usage) {
    if let Command::Acquire { lost, estimate, .. } = asked {
        return (Spend::default(), if lost.is_some() { *estimate } else { Usage::default() });
    }
    let mut spend = Spend::default();
    if let Command::Owned { action, .. } = asked
        && let OwnerAction::CommitStep { spend: spent, .. }
        | OwnerAction::Settle { spend: spent }
        | OwnerAction::BeginRetry { spend: spent, .. }
        | OwnerAction::Compact { spend: spent, .. }
        | OwnerAction::FailCompaction { spend: spent, .. }
        | OwnerAction::FinishTurn { spend: spent, .. }
        | OwnerAction::FinishInterruption { spend: spent, .. }
        | OwnerAction::Fail { spend: spent, .. } = action
    {
        spend = *spent;
    }
    let goal = spend.goal.filter(|id| before.goal.as_ref().is_some_and(|goal| goal.id == *id));
    (Spend { goal, ..spend }, Usage::default())
}

/// Losses count since the last tool batch that really ran or the last finished turn, never while waiting
/// for a person.
fn losses(before: &SessionState, after: &SessionState, entries: &[Entry]) -> Result<(), Broken> {
    let mut crashes = before.crashes;
    for entry in entries {
        match &entry.record.fact {
            Fact::Acquired { lost: true, .. } if before.status != Status::RequiresAction => crashes += 1,
            Fact::ToolStep { results, .. } if results.iter().any(|result| result.outcome.ran()) => {
                crashes = 0
            }
            fact if ends_turn(fact) => crashes = 0,
            _ => {}
        }
    }
    hold(after.crashes == crashes, "Stop", || format!("{} losses are counted, not {crashes}", after.crashes))
}

fn ends_turn(fact: &Fact) -> bool {
    matches!(fact, Fact::TurnFinished { .. } | Fact::Interrupted { .. } | Fact::Failed { .. })
}

/// Nothing but what the model sees moves the history that work is valid for.
fn history(before: &SessionState, after: &SessionState, entries: &[Entry]) -> Result<(), Broken> {
    let unseen = |fact: &Fact| {
        matches!(
            fact,
            Fact::Queued
                | Fact::Unqueued { .. }
                | Fact::Settled { .. }
                | Fact::Retry { .. }
                | Fact::Awaiting { .. }
                | Fact::CompactionRequested
                | Fact::CompactionFailed { .. }
                | Fact::Interrupting { .. }
                | Fact::Goal { next: None, .. }
                | Fact::Mode { next: None, .. }
                | Fact::Archived
                | Fact::Unarchived
                | Fact::Acquired { .. }
                | Fact::Released { .. }
        )
    };
    let quiet = entries.iter().all(|entry| unseen(&entry.record.fact));
    let kind = || format!("{} moves the history", entries[0].record.fact.kind());
    hold(!quiet || before.history_at == after.history_at, "Once", kind)
}

/// Remembers what became of calls, and checks that the model is told the truth.
fn calls(world: &mut World, before: &SessionState, fact: &Fact) -> Result<(), Broken> {
    match fact {
        Fact::ModelStep { calls, .. } => {
            let crowded = calls.len() > 1 && calls.iter().any(|call| call.exclusive);
            world.calls.extend(calls.iter().map(|call| Call {
                id: call.id.clone(),
                effect: call.effect,
                starts: 0,
                told: None,
                exposed: false,
                forbidden: call.place != Place::Local,
                crowded,
            }));
        }
        Fact::Answered { allowed, results } => {
            for id in allowed {
                world.ghost(id)?.forbidden = false;
                let open = world.state.pending_call(id);
                let local = open.is_some_and(|call| call.place == Place::Local);
                hold(local, "Answer", || format!("call {id} is allowed and is not to be run"))?;
            }
            told(world, before, results)?;
        }
        Fact::ToolStep { results, .. } | Fact::Interrupted { results, .. } | Fact::Failed { results, .. } => {
            told(world, before, results)?;
        }
        Fact::Acquired { lost: true, .. } if before.status != Status::RequiresAction => expose(world, &[]),
        Fact::Released { not_started } => expose(world, not_started),
        _ => {}
    }
    Ok(())
}

/// The runner that held the open local calls is gone, all but those it gave back.
fn expose(world: &mut World, given_back: &[CallId]) {
    let state = &world.state;
    for call in world.calls.iter_mut().filter(|call| !given_back.contains(&call.id)) {
        call.exposed |= state.pending_call(&call.id).is_some_and(|open| open.place == Place::Local);
    }
}

fn told(world: &mut World, before: &SessionState, results: &[ResultFact]) -> Result<(), Broken> {
    for ResultFact { call: id, outcome, .. } in results {
        let finished = world.runners.iter().flatten().filter(|runner| !runner.zombie).any(|runner| {
            matches!(&runner.task, Task::Tools(calls) if calls.contains(&(id.clone(), Progress::Finished)))
        });
        let place = before.pending_call(id).map(|call| call.place);
        let call = world.ghost(id)?;
        let (starts, exposed) = (call.starts, call.exposed);
        let crowded = call.crowded;
        let twice = call.told.replace(*outcome).is_some();
        hold(!twice, "Answered", || format!("call {id} gets a second result"))?;
        let alone = !(crowded && outcome.ran());
        hold(alone, "Effects", || format!("call {id} ran beside one that must be alone"))?;
        let truth = match outcome {
            Outcome::Ok | Outcome::Error | Outcome::TimedOut => place != Some(Place::Local) || starts > 0,
            Outcome::NotRun | Outcome::Denied | Outcome::Rejected => starts == 0 && !finished,
            Outcome::Stopped | Outcome::Unknown => (starts > 0 || exposed) && !finished,
            Outcome::Cancelled | Outcome::Expired => place == Some(Place::Client),
            Outcome::Foreign => false,
        };
        let what = || {
            format!(
                "the model is told {outcome:?} of call {id}: started {starts} times, its runner lost: {exposed}, finished: {finished}"
            )
        };
        hold(truth, "Effects", what)?;
    }
    Ok(())
}

/// Remembers whether the model has been told of its objective.
fn steering(world: &mut World, before: &SessionState, fact: &Fact) {
    let busy = !before.status.is_resting() || !before.pending.is_empty();
    let objective = |goal: Option<&Goal>| goal.map(|goal| goal.objective.clone());
    match fact {
        Fact::Goal { goal, next } if busy && next.is_none() || matches!(next, Some(Next::Promote(_))) => {
            let active = |goal: Option<&Goal>| goal.is_some_and(|goal| goal.status == GoalStatus::Active);
            let woken = active(goal.as_ref()) && !active(before.goal.as_ref());
            world.untold |= woken || objective(before.goal.as_ref()) != objective(goal.as_ref());
        }
        Fact::Compacted { .. } | Fact::Cleared | Fact::Edited { .. } => {
            let goal = before.goal.as_ref();
            world.untold |= goal.is_some_and(|goal| !shows(world, &goal.objective));
        }
        // The model knows the goal that it set itself.
        Fact::Steering { objective_changed: true, .. }
        | Fact::Steering { goal_recalled: true, .. }
        | Fact::ToolStep { goal: Some(ModelGoal::Created(_)), .. }
        | Fact::TurnFinished { next: Next::Continue, .. }
        | Fact::Interrupted { next: Next::Continue, .. }
        | Fact::Goal { next: Some(Next::Continue), .. }
        | Fact::Mode { next: Some(Next::Continue), .. } => world.untold = false,
        _ => {}
    }
}

/// Tells whether the model still sees the objective.
fn shows(world: &World, objective: &str) -> bool {
    let shown = |item: &Item| matches!(item, Item::Steering { text, .. } if text.contains(objective));
    world.context.request().items.iter().any(|item| shown(item))
}

/// An accepted message is in the queue, in history, or was removed by request: first in, first out, except
/// for a promotion.
fn messages(
    world: &mut World,
    before: &SessionState,
    asked: &Command,
    entries: &[Entry],
) -> Result<(), Broken> {
    let first = entries[0].record.n;
    let last = entries[entries.len() - 1].record.n;
    let mut queue = before.queue.clone();
    let number = world.messages_made;
    let ghosts = &mut world.messages;
    if let Command::Owned { action: OwnerAction::Compact { keep_from, kept, .. }, .. } = asked {
        let stays = |at: EntryNo| at >= *keep_from || kept.contains(&at);
        ghosts.retain(|message| message.queued || stays(message.at));
    }
    match asked {
        Command::Create { .. } if number > 0 => ghosts.push(Message { at: last, number, queued: false }),
        Command::Send { .. } => {
            let resting = matches!(before.status, Status::Waiting | Status::Failed);
            let queued = !(resting && before.queue.is_empty());
            ghosts.push(Message { at: first, number, queued });
            if queued {
                queue.push(first);
            }
        }
        Command::Edit { target, .. } => {
            let there = ghosts.iter().any(|message| !message.queued && message.at == target.entry());
            let what =
                || format!("an edit of entry {} is accepted, which is not to be edited", target.entry());
            hold(there && target.entry() > before.boundary, "Edit", what)?;
            ghosts.retain(|message| message.queued || message.at < target.entry());
            ghosts.push(Message { at: first, number, queued: false });
        }
        Command::Unqueue { message } => {
            queue.retain(|queued| queued != message);
            ghosts.retain(|ghost| ghost.at != *message);
        }
        Command::Promote { message } => {
            queue.retain(|queued| queued != message);
            queue.insert(0, *message);
        }
        Command::Interrupt { drop_queue: true } => {
            queue.clear();
            ghosts.retain(|message| !message.queued);
        }
        Command::ClearContext => ghosts.retain(|message| message.queued),
        _ => {}
    }
    let began = world.state.turn.number > before.turn.number;
    if began && world.state.turn.origin == Origin::Queue {
        hold(!queue.is_empty(), "Queue", || "a message is promoted from an empty queue".to_owned())?;
        let head = queue.remove(0);
        for ghost in ghosts.iter_mut().filter(|ghost| ghost.queued && ghost.at == head) {
            *ghost = Message { at: last, queued: false, ..*ghost };
        }
    }
    let is = &world.state.queue;
    hold(*is == queue, "Queue", || format!("the queue is {is:?}, not {queue:?}"))?;
    visible(world)
}

/// The messages in history are those of the context, word for word and in order.
fn visible(world: &World) -> Result<(), Broken> {
    let mut expected: Vec<(EntryNo, String)> =
        world.messages.iter().filter(|m| !m.queued).map(|m| (m.at, text(m.number))).collect();
    let request = world.context.request();
    let mut seen: Vec<&str> = Vec::new();
    for item in &request.items {
        if let Item::User { text } = &**item {
            seen.push(text);
        }
    }
    expected.sort_unstable();
    let there = expected.iter().all(|(at, _)| world.context.user_message(*at).is_some());
    let same = expected.iter().map(|(_, text)| text.as_str()).eq(seen.iter().copied());
    hold(there && same, "Queue", || format!("history has the messages {seen:?}, not {expected:?}"))
}

/// Checks a refusal: what a person may always do must not be refused.
pub(super) fn refused(world: &World, asked: &Command, refusal: &Refusal) -> Result<(), Broken> {
    let must = landing::must_be_accepted(&world.state, &world.context, asked);
    hold(!must, "Table", || format!("{} is refused while {:?}: {refusal}", asked.name(), world.state.status))
}
