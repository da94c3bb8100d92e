//! What a runner does: it asks what is owed, does it, and appends. The machine itself says what is owed;
//! here stands only what a driver must keep to, which is the engine's part of the bargain.

use longhaul_session::command::{Command, Cut, GoalStep, OwnerAction, Refusal, Step};
use longhaul_session::entry::{FinishReason, Mode, ModelGoal, Place};
use longhaul_session::failure::{FailureClass, Retry};
use longhaul_session::goal::{Budget, Goal};
use longhaul_session::id::{CallId, Digest, Timestamp};
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::owed::{LostCall, View, Work, lost_call, owed};
use longhaul_session::state::{Newest, SessionState, Status};
use longhaul_session::usage::Spend;

use super::Scenario;
use super::action::{Size, Word, goal_is_active};
use super::reply::{Reply, estimate, failure, model_spend, model_step, ran, tool_spend};
use super::world::{Broken, Calling, OBJECTIVES, Progress, Runner, Task, World, hold, worker};

/// A worker takes the session. An owner that still lives has lost its lease and may not know it.
pub(super) fn claim(world: &mut World, slot: usize, scenario: &Scenario) -> Result<(), Broken> {
    let (lost, calling) = (world.state.owner, world.calling.take());
    let next_request_tokens = calling.map_or(0, |calling| calling.tokens);
    let view = View { now: world.now, next_request_tokens, ..View::default() };
    let known = lost_call(&world.state, &view, &scenario.limits);
    let covers = |calling: Calling| match known {
        None => false,
        Some(LostCall::Either) => true,
        Some(known) => (known == LostCall::Summary) == calling.summary,
    };
    hold(calling.is_none_or(covers), "Ledger", || {
        format!("{calling:?} was under way as its runner was lost, and {known:?} is estimated")
    })?;
    let estimate = known.map(|_| estimate()).unwrap_or_default();
    world.accept(Command::Acquire { worker: worker(slot), lost, estimate })?;
    for runner in world.runners.iter_mut().flatten() {
        runner.zombie = true;
    }
    let (epoch, basis) = (world.state.epoch, world.basis());
    let task = Task::Idle;
    world.runners[slot] = Some(Runner { epoch, zombie: false, spoiled: false, basis, goal: None, task });
    Ok(())
}

fn runner(world: &World, slot: usize) -> Runner {
    world.runners[slot].clone().expect("an action names a slot that is taken")
}

fn owned(runner: &Runner, action: OwnerAction) -> Command {
    Command::Owned { epoch: runner.epoch, action }
}

/// What is owed is done at once where it has no effect outside; otherwise the effect begins.
pub(super) fn ask(world: &mut World, slot: usize, size: Size, scenario: &Scenario) -> Result<(), Broken> {
    let me = runner(world, slot);
    let above = scenario.limits.compact_above_tokens;
    let next_request_tokens = match size {
        Size::Small => 0,
        Size::Idle => above,
        Size::Over => above + 1,
    };
    let view = View {
        epoch: me.epoch,
        now: world.now,
        context_digest: scenario.files,
        next_request_tokens,
        ..View::default()
    };
    let work = owed(&world.state, &view, &scenario.limits);
    match work {
        Work::RunCalls { run, unknown } => {
            let planned = run.into_iter().map(|id| (id, Progress::Planned));
            let lost = unknown.into_iter().map(|id| (id, Progress::Unknown));
            begin(world, slot, Task::Tools(planned.chain(lost).collect()));
        }
        Work::CallModel => {
            let pursued = goal_is_active(&world.state) && world.state.mode == Mode::Default;
            let forgotten = world.untold && pursued;
            let what = || "the model is called before it is told of its objective".to_owned();
            hold(!forgotten, "Steering", what)?;
            let early = world.state.retry.is_some_and(|retry| retry.not_before > world.now);
            hold(!early, "Progress", || "the model is called before the retry's time".to_owned())?;
            hold(world.state.pending.is_empty(), "Answered", || {
                "the model is called with calls open".to_owned()
            })?;
            begin(world, slot, Task::Model);
            world.calling = Some(Calling { summary: false, tokens: next_request_tokens });
        }
        Work::Compact => {
            begin(world, slot, Task::Compaction);
            world.calling = Some(Calling { summary: true, tokens: next_request_tokens });
        }
        Work::Rest | Work::Leave => {
            let owner = world.state.owner.is_some_and(|owner| owner.epoch == me.epoch);
            hold(!owner, "Progress", || format!("the owner is told {work:?}"))?;
            world.runners[slot] = None;
        }
        Work::WaitUntil(at) => {
            hold(at > world.now, "Progress", || "the owner waits for an instant that is over".to_owned())?;
        }
        Work::FinishInterruption
        | Work::CancelAction
        | Work::Fail(_)
        | Work::RejectCalls(_)
        | Work::AwaitAction
        | Work::FinishTurn(_)
        | Work::Prepare
        | Work::CommitSteering
        | Work::GuardFiles
        | Work::CommitContext => {
            let action = at_once(world, work, scenario.files);
            world.accept(owned(&me, action))?;
        }
    }
    Ok(())
}

fn begin(world: &mut World, slot: usize, task: Task) {
    let (basis, goal) = (world.basis(), world.state.works_for());
    if let Some(runner) = &mut world.runners[slot] {
        *runner = Runner { spoiled: false, basis, goal, task, ..runner.clone() };
    }
}

fn at_once(world: &World, work: Work, files: Option<Digest>) -> OwnerAction {
    let spend = Spend::default();
    match work {
        Work::FinishInterruption => {
            OwnerAction::FinishInterruption { cut: Cut::default(), partial: Vec::new(), spend }
        }
        Work::CancelAction => OwnerAction::CancelAction,
        Work::Fail(failure) => OwnerAction::Fail { failure, cut: Cut::default(), spend },
        Work::RejectCalls(ids) => {
            let results = ids.iter().map(|id| ran(id, Outcome::Rejected, world.now)).collect();
            let step = Box::new(Step::Tools { results, goal: None });
            OwnerAction::CommitStep { basis: world.basis(), step, spend }
        }
        Work::AwaitAction => OwnerAction::AwaitAction { deadlines: deadlines(world) },
        Work::FinishTurn(reason) => OwnerAction::FinishTurn { reason, spend },
        Work::CommitContext => {
            let digest = files.unwrap_or_default();
            let file = Item::ContextFile { path: "AGENTS.md".to_owned(), digest, text: "be good".to_owned() };
            OwnerAction::CommitContext { items: vec![file], digest }
        }
        Work::CommitSteering => OwnerAction::CommitSteering,
        Work::GuardFiles => guard(&world.state),
        Work::Prepare
        | Work::RunCalls { .. }
        | Work::CallModel
        | Work::Compact
        | Work::Rest
        | Work::Leave
        | Work::WaitUntil(_) => OwnerAction::FinishTurn { reason: FinishReason::Complete, spend },
    }
}

/// There are no files to be found.
pub(super) fn guard(state: &SessionState) -> OwnerAction {
    let terms = state.goal.as_ref().expect("it protects files").terms();
    OwnerAction::GuardFiles { terms, files: Vec::new() }
}

/// Only what a client runs has a deadline.
fn deadlines(world: &World) -> Vec<(CallId, Timestamp)> {
    let clients = world.state.pending.iter().filter(|call| call.place == Place::Client);
    clients.map(|call| (call.id.clone(), world.now.plus_ms(1))).collect()
}

/// A call starts, even when its runner has been taken over and does not know.
pub(super) fn start(world: &mut World, slot: usize, place: usize) -> Result<(), Broken> {
    let id = advance(world, slot, place, Progress::Started);
    let call = world.ghost(&id)?;
    call.starts += 1;
    let call = call.clone();
    let once = call.starts == 1 || call.effect != EffectClass::Once;
    hold(once, "Effects", || format!("call {id} is started a second time"))?;
    let denied = matches!(call.told, Some(Outcome::NotRun | Outcome::Denied | Outcome::Rejected));
    hold(!denied, "Effects", || format!("call {id} is started after the model was told {:?}", call.told))?;
    hold(!call.crowded, "Effects", || format!("call {id} is started beside one that must be alone"))?;
    hold(!call.forbidden, "Effects", || format!("call {id} is started without a person's yes"))
}

pub(super) fn finish(world: &mut World, slot: usize, place: usize) {
    advance(world, slot, place, Progress::Finished);
}

fn advance(world: &mut World, slot: usize, place: usize, to: Progress) -> CallId {
    let Some(Runner { task: Task::Tools(calls), .. }) = &mut world.runners[slot] else {
        return CallId(String::new());
    };
    calls[place].1 = to;
    calls[place].0.clone()
}

/// Commits what is known of the calls: the whole batch, or a part of it.
pub(super) fn commit(world: &mut World, slot: usize, word: Word) -> Result<bool, Broken> {
    let me = runner(world, slot);
    let Task::Tools(calls) = &me.task else { return Ok(false) };
    let goal = match word {
        Word::Nothing => None,
        Word::Create if world.state.goal.as_ref().is_some_and(Goal::is_unfinished) => return Ok(false),
        Word::Create => {
            let (id, objective) = (world.next_goal(), OBJECTIVES[1].to_owned());
            let budget = Budget { continuations: Some(1), ..Budget::default() };
            Some(ModelGoal::Created(Box::new(Goal::new(id, objective, budget, Vec::new(), world.now))))
        }
        Word::Complete | Word::Blocked if !world.state.goal.as_ref().is_some_and(Goal::is_unfinished) => {
            return Ok(false);
        }
        // The tool itself refuses to judge a goal that the model was not told of, and to block one at rest.
        Word::Complete | Word::Blocked if world.state.steering_due.objective_changed => return Ok(false),
        Word::Blocked if !goal_is_active(&world.state) => return Ok(false),
        Word::Complete => Some(ModelGoal::Completed),
        Word::Blocked => Some(ModelGoal::Blocked("no way on".to_owned())),
    };
    let mut open = Vec::new();
    let mut results = Vec::new();
    for (id, progress) in calls {
        match progress {
            Progress::Planned | Progress::Started => open.push((id.clone(), *progress)),
            Progress::Finished => results.push(ran(id, Outcome::Ok, world.now)),
            Progress::Unknown => results.push(ran(id, Outcome::Unknown, world.now)),
        }
    }
    let terms = world.state.goal.as_ref().map(Goal::terms);
    let goal = goal.map(|change| GoalStep { terms, change });
    let step = Box::new(Step::Tools { results, goal });
    let spend = tool_spend(me.goal);
    let committed =
        append_work(world, slot, OwnerAction::CommitStep { basis: me.basis, step, spend }, spend)?;
    if committed && !open.is_empty() {
        let basis = world.basis();
        world.runners[slot] = Some(Runner { basis, task: Task::Tools(open), ..me });
    }
    Ok(true)
}

/// The model's call ends.
pub(super) fn reply(world: &mut World, slot: usize, reply: Reply) -> Result<bool, Broken> {
    let me = runner(world, slot);
    if reply != Reply::Text {
        world.left.replies -= 1;
    }
    let spend = model_spend(me.goal);
    let now = world.now;
    let action = match reply.failure() {
        None => {
            let calls = reply.calls(world.calls_made);
            world.calls_made += u32::try_from(calls.len()).unwrap_or(u32::MAX);
            OwnerAction::CommitStep { basis: me.basis, step: model_step(calls), spend }
        }
        Some(failure) if failure.class.is_retryable() => {
            let wait_ms = u64::from(failure.class != FailureClass::ContextOverflow);
            let retry = Retry { class: failure.class, since: now, not_before: now.plus_ms(wait_ms) };
            OwnerAction::BeginRetry { basis: me.basis, failure, retry, spend }
        }
        // A failure that is not repeated is appended only by a runner whose work is still valid.
        Some(failure) if me.basis == world.basis() => {
            OwnerAction::Fail { failure, cut: Cut::default(), spend }
        }
        Some(_) => return Ok(false),
    };
    let committed = append_work(world, slot, action, spend)?;
    let dropped = world.runners[slot].as_ref().is_none_or(Runner::is_idle);
    Ok(committed || dropped)
}

/// A message that the model has not answered is kept; where all is answered, nothing is.
pub(super) fn compacted(world: &mut World, slot: usize) -> Result<bool, Broken> {
    let me = runner(world, slot);
    let unanswered = world.context.last_user_message().filter(|_| world.state.newest != Newest::Response);
    let kept = unanswered.map(|message| message.entry()).into_iter().collect();
    let (basis, keep_from, spend) = (me.basis, world.state.head + 1, model_spend(me.goal));
    let summary = "so far".to_owned();
    append_work(world, slot, OwnerAction::Compact { basis, summary, keep_from, kept, spend }, spend)?;
    Ok(true)
}

pub(super) fn compaction_failed(world: &mut World, slot: usize) -> Result<bool, Broken> {
    let me = runner(world, slot);
    world.left.replies -= 1;
    let spend = model_spend(me.goal);
    let failure = failure(FailureClass::Server);
    let action = OwnerAction::FailCompaction { basis: me.basis, failure, spend, automatic_off: false };
    append_work(world, slot, action, spend)?;
    Ok(true)
}

/// Appends the end of an effect. Work that is refused was obsolete: it is paid for and dropped, unless an
/// interruption still needs to know what became of it.
fn append_work(world: &mut World, slot: usize, action: OwnerAction, spend: Spend) -> Result<bool, Broken> {
    let me = runner(world, slot);
    let stale = me.zombie || me.basis != world.basis();
    let name = action.name();
    match world.append(owned(&me, action))? {
        Ok(()) => {
            hold(!stale, "Fence", || format!("{name} of an old epoch or for an old history is accepted"))?;
            become_idle(world, slot);
            Ok(true)
        }
        Err(refusal) => {
            let excused = me.zombie || me.spoiled;
            hold(excused, "Once", || {
                format!("{name} is refused, though nobody made it obsolete: {refusal}")
            })?;
            if me.zombie || matches!(refusal, Refusal::Fenced { .. }) {
                world.runners[slot] = None;
            } else if world.state.status != Status::Interrupting {
                settle(world, slot, spend)?;
            }
            Ok(false)
        }
    }
}

fn become_idle(world: &mut World, slot: usize) {
    let basis = world.basis();
    world.calling = None;
    if let Some(runner) = &mut world.runners[slot] {
        *runner = Runner { task: Task::Idle, spoiled: false, goal: None, basis, ..runner.clone() };
    }
}

fn settle(world: &mut World, slot: usize, spend: Spend) -> Result<(), Broken> {
    let me = runner(world, slot);
    world.accept(owned(&me, OwnerAction::Settle { spend }))?;
    become_idle(world, slot);
    Ok(())
}

fn spend_of(runner: &Runner) -> Spend {
    match runner.task {
        Task::Idle => Spend::default(),
        Task::Tools(_) => tool_spend(runner.goal),
        Task::Model | Task::Compaction => model_spend(runner.goal),
    }
}

/// What a runner had under way when it had to stop.
fn cut(runner: &Runner, now: Timestamp) -> Cut {
    let mut cut = Cut::default();
    if let Task::Tools(calls) = &runner.task {
        for (id, progress) in calls {
            match progress {
                Progress::Finished => cut.finished.push(ran(id, Outcome::Ok, now)),
                Progress::Started => cut.started.push(id.clone()),
                Progress::Planned | Progress::Unknown => {}
            }
        }
    }
    cut
}

/// A runner learns that its work is obsolete: it stops, and leaves, ends the interruption, or goes on.
pub(super) fn notice(world: &mut World, slot: usize) -> Result<(), Broken> {
    let me = runner(world, slot);
    let spend = spend_of(&me);
    if me.zombie {
        world.runners[slot] = None;
        return Ok(());
    }
    if world.state.status != Status::Interrupting {
        return settle(world, slot, spend);
    }
    let said = Item::Assistant { text: "so f".to_owned(), partial: true };
    let partial = if matches!(me.task, Task::Model) { vec![said] } else { Vec::new() };
    let cut = cut(&me, world.now);
    world.accept(owned(&me, OwnerAction::FinishInterruption { cut, partial, spend }))?;
    become_idle(world, slot);
    Ok(())
}

/// A worker that shuts down pays, gives back what it did not start, and goes.
pub(super) fn release(world: &mut World, slot: usize) -> Result<(), Broken> {
    let me = runner(world, slot);
    if matches!(me.task, Task::Model | Task::Compaction) {
        settle(world, slot, spend_of(&me))?;
    }
    let begun = cut(&me, world.now).started;
    let mine = |call: &&longhaul_session::state::PendingCall| {
        call.place == Place::Local && call.startable_by == Some(me.epoch) && !begun.contains(&call.id)
    };
    let not_started = world.state.pending.iter().filter(mine).map(|call| call.id.clone()).collect();
    world.accept(owned(&me, OwnerAction::Release { not_started }))?;
    world.runners[slot] = None;
    Ok(())
}

/// Something that cannot be repeated goes wrong while calls are under way.
pub(super) fn give_up(world: &mut World, slot: usize) -> Result<(), Broken> {
    let me = runner(world, slot);
    let failure = failure(FailureClass::Preparation);
    let action = OwnerAction::Fail { failure, cut: cut(&me, world.now), spend: spend_of(&me) };
    world.accept(owned(&me, action))?;
    become_idle(world, slot);
    Ok(())
}
