//! What may happen next: to the runners, to the clock, and to people. Whether it was right is for `oracle`.

use longhaul_session::command::{Answer, Command};
use longhaul_session::entry::{Mode, Place};
use longhaul_session::goal::{Budget, GoalStatus, Terms};
use longhaul_session::id::{EntryNo, Timestamp};
use longhaul_session::item::Outcome;
use longhaul_session::state::{PendingCall, SessionState, Status};

use super::Scenario;
use super::reply::{Reply, ran};
use super::runner;
use super::world::{Broken, OBJECTIVES, Progress, Task, World};

/// One thing that happens. Numbers are slots of runners, and places in lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// A worker takes a session that no live runner owns.
    Claim(usize),
    /// A worker takes a session whose owner lives but has lost its lease.
    Seize(usize),
    Ask(usize, Size),
    Start(usize, usize),
    Finish(usize, usize),
    Commit(usize, Word),
    Reply(usize, Reply),
    Compacted(usize),
    CompactionFailed(usize),
    /// The runner learns that its work is obsolete.
    Notice(usize),
    Crash(usize),
    Release(usize),
    /// The runner fails the session with what it has under way.
    GiveUp(usize),
    /// The next deadline or retry comes.
    Tick,
    Submit(usize),
    SubmitAll,
    Allow(usize),
    Deny(usize),
    Value(usize),
    /// A person begins to write an edit of a message.
    Look(usize),
    Wish(Wish, usize),
}

/// How large the runner finds the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    /// Over what is compacted before a turn ends.
    Idle,
    Over,
}

/// What the model makes of its goal by a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Nothing,
    Create,
    Complete,
    Blocked,
}

/// What a person may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Send,
    SendNow,
    Edit,
    /// An edit of what was looked at earlier.
    LateEdit,
    Unqueue,
    Promote,
    Interrupt,
    InterruptAll,
    Compaction,
    Clear,
    /// Sets the goal with this objective.
    SetGoal(usize),
    RaiseBudget,
    PauseGoal,
    ResumeGoal,
    ClearGoal,
    Plan,
    Work,
    Archive,
    Unarchive,
}

/// Lists what may happen.
pub(super) fn actions(world: &World, scenario: &Scenario) -> Vec<Action> {
    let mut list = Vec::new();
    for slot in 0..world.runners.len() {
        if world.runners[slot].is_some() {
            of_runner(world, scenario, slot, &mut list);
        }
    }
    let free = world.runners.iter().position(Option::is_none);
    if let Some(slot) = free.filter(|_| claimable(world)) {
        if !owner_lives(world) {
            list.push(Action::Claim(slot));
        } else if world.left.faults > 0 {
            list.push(Action::Seize(slot));
        }
    }
    if next_instant(world).is_some() {
        list.push(Action::Tick);
    }
    if world.state.status == Status::RequiresAction && !world.state.archived {
        answers(world, &mut list);
    }
    if world.left.users > 0 {
        for wish in scenario.wishes {
            wishes(world, *wish, &mut list);
        }
    }
    list
}

fn claimable(world: &World) -> bool {
    !world.state.archived && world.state.claimable_at().is_some_and(|at| at <= world.now)
}

fn owner_lives(world: &World) -> bool {
    let owner = world.state.owner;
    owner.is_some_and(|owner| {
        world.runners.iter().flatten().any(|runner| runner.epoch == owner.epoch && !runner.zombie)
    })
}

fn next_instant(world: &World) -> Option<Timestamp> {
    let retry = world.state.retry.map(|retry| retry.not_before);
    let deadlines = world.state.pending.iter().filter_map(|call| call.deadline);
    deadlines.chain(retry).filter(|at| *at > world.now).min()
}

fn of_runner(world: &World, scenario: &Scenario, slot: usize, list: &mut Vec<Action>) {
    let Some(runner) = &world.runners[slot] else { return };
    let replies = if world.left.replies > 0 { scenario.replies } else { &[] };
    match &runner.task {
        Task::Idle => list.extend(scenario.sizes.iter().map(|size| Action::Ask(slot, *size))),
        Task::Model => {
            list.push(Action::Reply(slot, Reply::Text));
            list.extend(replies.iter().map(|reply| Action::Reply(slot, *reply)));
        }
        Task::Compaction => {
            list.push(Action::Compacted(slot));
            if world.left.replies > 0 {
                list.push(Action::CompactionFailed(slot));
            }
        }
        Task::Tools(calls) => {
            for (place, (_, progress)) in calls.iter().enumerate() {
                match progress {
                    Progress::Planned => list.push(Action::Start(slot, place)),
                    Progress::Started => list.push(Action::Finish(slot, place)),
                    Progress::Finished | Progress::Unknown => {}
                }
            }
            if calls.iter().any(|(_, progress)| matches!(progress, Progress::Finished | Progress::Unknown)) {
                list.extend(scenario.words.iter().map(|word| Action::Commit(slot, *word)));
            }
        }
    }
    if !runner.is_idle() && (runner.zombie || runner.spoiled) {
        list.push(Action::Notice(slot));
    }
    if world.left.faults > 0 && !runner.zombie {
        list.push(Action::Crash(slot));
        let unsaved = |calls: &Vec<(_, Progress)>| calls.iter().any(|(_, at)| *at == Progress::Finished);
        if !matches!(&runner.task, Task::Tools(calls) if unsaved(calls)) {
            list.push(Action::Release(slot));
        }
        if matches!(runner.task, Task::Tools(_)) {
            list.push(Action::GiveUp(slot));
        }
    }
}

fn answers(world: &World, list: &mut Vec<Action>) {
    let mut clients = 0;
    for (place, call) in world.state.pending.iter().enumerate() {
        match call.place {
            Place::Local => {}
            Place::Client => {
                clients += 1;
                list.push(Action::Submit(place));
            }
            Place::Approval => list.extend([Action::Allow(place), Action::Deny(place)]),
            Place::Question => list.push(Action::Value(place)),
        }
    }
    if clients > 1 {
        list.push(Action::SubmitAll);
    }
}

fn wishes(world: &World, wish: Wish, list: &mut Vec<Action>) {
    let in_history = || 0..world.messages.iter().filter(|message| !message.queued).count();
    match wish {
        Wish::Edit => list.extend(in_history().map(|place| Action::Wish(wish, place))),
        Wish::LateEdit if world.evidence.is_none() => list.extend(in_history().map(Action::Look)),
        Wish::Unqueue | Wish::Promote => {
            list.extend((0..world.state.queue.len()).map(|place| Action::Wish(wish, place)));
        }
        Wish::LateEdit
        | Wish::Send
        | Wish::SendNow
        | Wish::Interrupt
        | Wish::InterruptAll
        | Wish::Compaction
        | Wish::Clear
        | Wish::SetGoal(_)
        | Wish::RaiseBudget
        | Wish::PauseGoal
        | Wish::ResumeGoal
        | Wish::ClearGoal
        | Wish::Plan
        | Wish::Work
        | Wish::Archive
        | Wish::Unarchive => list.push(Action::Wish(wish, 0)),
    }
}

/// Lets an action happen. Tells whether anything did.
pub(super) fn perform(world: &mut World, action: Action, scenario: &Scenario) -> Result<bool, Broken> {
    match action {
        Action::Claim(slot) | Action::Seize(slot) => runner::claim(world, slot, scenario)?,
        Action::Ask(slot, size) => runner::ask(world, slot, size, scenario)?,
        Action::Start(slot, place) => runner::start(world, slot, place)?,
        Action::Finish(slot, place) => runner::finish(world, slot, place),
        Action::Commit(slot, word) => return runner::commit(world, slot, word),
        Action::Reply(slot, reply) => return runner::reply(world, slot, reply),
        Action::Compacted(slot) => return runner::compacted(world, slot),
        Action::CompactionFailed(slot) => return runner::compaction_failed(world, slot),
        Action::Notice(slot) => runner::notice(world, slot)?,
        Action::Crash(slot) => world.runners[slot] = None,
        Action::Release(slot) => runner::release(world, slot)?,
        Action::GiveUp(slot) => runner::give_up(world, slot)?,
        Action::Tick => world.now = next_instant(world).unwrap_or(world.now),
        Action::Submit(_) | Action::SubmitAll | Action::Allow(_) | Action::Deny(_) | Action::Value(_) => {
            return answer(world, action);
        }
        Action::Look(place) => {
            world.evidence = history(world, place).and_then(|at| world.context.user_message(at));
        }
        Action::Wish(wish, place) => return wished(world, wish, place, scenario.raised),
    }
    if matches!(action, Action::Seize(_) | Action::Crash(_) | Action::Release(_) | Action::GiveUp(_)) {
        world.left.faults -= 1;
    }
    Ok(true)
}

fn history(world: &World, place: usize) -> Option<EntryNo> {
    world.messages.iter().filter(|message| !message.queued).nth(place).map(|message| message.at)
}

fn answer(world: &mut World, action: Action) -> Result<bool, Broken> {
    let call = |place: usize| world.state.pending[place].id.clone();
    let result = |call: &PendingCall| ran(&call.id, Outcome::Ok, world.now).result;
    let command = match action {
        Action::Submit(place) => {
            Command::SubmitToolResults { results: vec![result(&world.state.pending[place])] }
        }
        Action::Allow(place) => Command::Answer { call: call(place), answer: Answer::Allow, remember: false },
        Action::Deny(place) => {
            let answer = Answer::Deny { reason: None };
            Command::Answer { call: call(place), answer, remember: false }
        }
        Action::Value(place) => {
            let answer = Answer::Value("yes".to_owned());
            Command::Answer { call: call(place), answer, remember: false }
        }
        Action::SubmitAll
        | Action::Claim(_)
        | Action::Seize(_)
        | Action::Ask(..)
        | Action::Start(..)
        | Action::Finish(..)
        | Action::Commit(..)
        | Action::Reply(..)
        | Action::Compacted(_)
        | Action::CompactionFailed(_)
        | Action::Notice(_)
        | Action::Crash(_)
        | Action::Release(_)
        | Action::GiveUp(_)
        | Action::Tick
        | Action::Look(_)
        | Action::Wish(..) => {
            let clients = world.state.pending.iter().filter(|call| call.place == Place::Client);
            Command::SubmitToolResults { results: clients.map(result).collect() }
        }
    };
    world.accept(command)?;
    Ok(true)
}

fn wished(world: &mut World, wish: Wish, place: usize, raised: Budget) -> Result<bool, Broken> {
    let Some(command) = command(world, wish, place, raised) else { return Ok(false) };
    let edits = matches!(command, Command::Edit { .. });
    if world.append(command)?.is_err() {
        return Ok(false);
    }
    world.left.users -= 1;
    if wish == Wish::LateEdit {
        world.evidence = None;
    }
    if edits || world.state.status == Status::Interrupting {
        for runner in world.runners.iter_mut().flatten().filter(|runner| !runner.is_idle()) {
            runner.spoiled = true;
        }
    }
    Ok(true)
}

fn command(world: &mut World, wish: Wish, place: usize, raised: Budget) -> Option<Command> {
    Some(match wish {
        Wish::Send => Command::Send { message: world.next_text().into(), interrupt: false },
        Wish::SendNow => Command::Send { message: world.next_text().into(), interrupt: true },
        Wish::Edit => {
            let target = history(world, place).and_then(|at| world.context.user_message(at))?;
            Command::Edit { target, message: world.next_text().into() }
        }
        Wish::LateEdit => Command::Edit { target: world.evidence?, message: world.next_text().into() },
        Wish::Unqueue => Command::Unqueue { message: world.state.queue[place] },
        Wish::Promote => Command::Promote { message: world.state.queue[place] },
        Wish::Interrupt => Command::Interrupt { drop_queue: false },
        Wish::InterruptAll => Command::Interrupt { drop_queue: true },
        Wish::Compaction => Command::RequestCompaction,
        Wish::Clear => Command::ClearContext,
        Wish::SetGoal(which) => Command::SetGoal {
            id: world.next_goal(),
            objective: OBJECTIVES[which].to_owned(),
            terms: Terms { budget: raised, ..Terms::default() },
            message: None,
        },
        Wish::RaiseBudget => {
            Command::EditGoal { objective: None, budget: Some(raised), checks: None, protected: None }
        }
        Wish::PauseGoal => Command::PauseGoal,
        Wish::ResumeGoal => Command::ResumeGoal,
        Wish::ClearGoal => Command::ClearGoal,
        Wish::Plan => Command::SetMode(Mode::Plan),
        Wish::Work => Command::SetMode(Mode::Default),
        Wish::Archive => Command::Archive,
        Wish::Unarchive => Command::Unarchive,
    })
}

/// Tells whether the goal is being worked on.
pub(super) fn goal_is_active(state: &SessionState) -> bool {
    state.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active)
}
