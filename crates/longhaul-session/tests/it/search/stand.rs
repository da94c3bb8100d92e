//! What must hold in every state by itself: a fork of it rests, old epochs are fenced, and left alone it
//! comes to rest, even when every tool kills its worker.

use std::collections::HashSet;

use longhaul_session::agent::Limits;
use longhaul_session::command::{Command, Cut, OwnerAction, Step};
use longhaul_session::decide::decide;
use longhaul_session::entry::{Fact, FinishReason, Place};
use longhaul_session::id::{CallId, Digest, SessionId, Timestamp};
use longhaul_session::item::{Item, Outcome};
use longhaul_session::owed::{View, Work, owed};
use longhaul_session::state::{SessionState, Status};
use longhaul_session::usage::Spend;

use super::action::goal_is_active;
use super::canonical::{self, Name};
use super::reply::{Reply, estimate, failure, model_step, ran};
use super::world::{Broken, World, basis_of, hold, worker};

/// The most steps a session that is left alone may take to come to rest.
const MAX_STEPS: usize = 60;

/// States that are known to come to rest.
#[derive(Default)]
pub(super) struct Resting {
    quiet: HashSet<Name>,
    deadly: HashSet<Name>,
}

/// Checks a state that was not met before.
pub(super) fn check(
    world: &World,
    files: Option<Digest>,
    limits: &Limits,
    resting: &mut Resting,
) -> Result<(), Broken> {
    forks(world)?;
    fenced(&world.state, world.now)?;
    comes_to_rest(world, files, limits, false, &mut resting.quiet)?;
    let patient = Limits { max_steps: u32::MAX, ..limits.clone() };
    comes_to_rest(world, files, &patient, true, &mut resting.deadly)
}

/// A fork is a session of its own, in which nothing of the original is under way.
fn forks(world: &World) -> Result<(), Broken> {
    let parent = SessionId(uuid::Uuid::from_u128(7));
    let forked = decide(&world.state, Command::Fork { parent }, world.now);
    let decision = forked.map_err(|refusal| Broken { invariant: "Fork", what: refusal.to_string() })?;
    let child = decision.state;
    let mut context = world.context.clone();
    for entry in &decision.entries {
        context.apply(entry);
        if let Fact::Forked { results, .. } = &entry.record.fact {
            let foreign = results.iter().all(|result| result.outcome == Outcome::Foreign);
            let what = || format!("the open calls get {results:?}");
            hold(foreign && results.len() == world.state.pending.len(), "Fork", what)?;
        }
    }
    let detached = child.status == Status::Waiting
        && child.owner.is_none()
        && child.queue.is_empty()
        && child.pending.is_empty()
        && child.retry.is_none()
        && !child.archived
        && !child.compaction_requested
        && child.broken_invariant().is_none();
    hold(detached, "Fork", || format!("something of the original is under way: {child:?}"))?;
    hold(!goal_is_active(&child), "Fork", || "the goal of the original is active in the fork".to_owned())?;
    match context.broken_pairing(&[]) {
        None => Ok(()),
        Some(what) => Err(Broken { invariant: "Fork", what }),
    }
}

/// An epoch that does not own the session can do nothing.
fn fenced(state: &SessionState, now: Timestamp) -> Result<(), Broken> {
    let owner = state.owner.map(|owner| owner.epoch);
    for epoch in [state.epoch.saturating_sub(1), state.epoch] {
        if Some(epoch) == owner {
            continue;
        }
        for action in probes(state) {
            let name = action.name();
            let accepted = decide(state, Command::Owned { epoch, action }, now).is_ok();
            hold(!accepted, "Fence", || {
                format!("{name} of epoch {epoch} is accepted; the owner is {owner:?}")
            })?;
        }
    }
    Ok(())
}

fn probes(state: &SessionState) -> Vec<OwnerAction> {
    let spend = Spend::default();
    let cut = Cut::default;
    let failure = failure(longhaul_session::failure::FailureClass::Auth);
    vec![
        OwnerAction::Release { not_started: Vec::new() },
        OwnerAction::Settle { spend },
        OwnerAction::CommitStep { basis: basis_of(state), step: model_step(Vec::new()), spend },
        OwnerAction::FinishTurn { reason: FinishReason::StopAfterTool, spend },
        OwnerAction::FinishInterruption { cut: cut(), partial: Vec::new(), spend },
        OwnerAction::Fail { failure, cut: cut(), spend },
        OwnerAction::AwaitAction { deadlines: Vec::new() },
        OwnerAction::CancelAction,
        OwnerAction::CommitSteering,
    ]
}

/// Left alone with one worker after another, a session comes to rest within a bounded number of steps.
fn comes_to_rest(
    world: &World,
    files: Option<Digest>,
    limits: &Limits,
    deadly: bool,
    known: &mut HashSet<Name>,
) -> Result<(), Broken> {
    let mut state = world.state.clone();
    let mut now = world.now;
    let mut path = Vec::new();
    let mut lives = false;
    for step in 0..MAX_STEPS {
        if rests(&state) {
            known.extend(path);
            return Ok(());
        }
        if !lives {
            let name = canonical::state(&state, now, limits);
            if known.contains(&name) {
                known.extend(path);
                return Ok(());
            }
            path.push(name);
            now = now.max(state.claimable_at().unwrap_or(now));
            let command = Command::Acquire { worker: worker(0), lost: state.owner, estimate: estimate() };
            state = go_on(&state, command, now)?;
            lives = true;
        }
        let view = View { epoch: state.epoch, now, context_digest: files, ..View::default() };
        let work = owed(&state, &view, limits);
        if deadly && matches!(&work, Work::RunCalls { run, .. } if !run.is_empty()) {
            lives = false;
            continue;
        }
        if let Work::WaitUntil(at) = work {
            now = at;
            continue;
        }
        let action = alone(&state, work, now, files, deadly, step)?;
        state = go_on(&state, Command::Owned { epoch: state.epoch, action }, now)?;
        lives = state.owner.is_some();
    }
    let what =
        || format!("left alone{}, it does not come to rest", if deadly { " with deadly tools" } else { "" });
    hold(false, "Stop", what)
}

fn rests(state: &SessionState) -> bool {
    state.archived || state.claimable_at().is_none()
}

fn go_on(state: &SessionState, command: Command, now: Timestamp) -> Result<SessionState, Broken> {
    let name = command.name();
    match decide(state, command, now) {
        Ok(decision) => Ok(decision.state),
        Err(refusal) => {
            let what = format!("left alone while {:?}, {name} is owed and refused: {refusal}", state.status);
            Err(Broken { invariant: "Progress", what })
        }
    }
}

/// Does what is owed. The model says that it is done; with deadly tools it always asks for one more.
fn alone(
    state: &SessionState,
    work: Work,
    now: Timestamp,
    files: Option<Digest>,
    deadly: bool,
    step: usize,
) -> Result<OwnerAction, Broken> {
    let spend = Spend::default();
    let basis = basis_of(state);
    let tools =
        |ids: Vec<CallId>, outcome: Outcome| ids.iter().map(|id| ran(id, outcome, now)).collect::<Vec<_>>();
    let commit = |results| {
        let step = Box::new(Step::Tools { results, goal: None });
        OwnerAction::CommitStep { basis, step, spend }
    };
    let cut = Cut::default();
    Ok(match work {
        Work::FinishInterruption => OwnerAction::FinishInterruption { cut, partial: Vec::new(), spend },
        Work::CancelAction => OwnerAction::CancelAction,
        Work::Fail(failure) => OwnerAction::Fail { failure, cut, spend },
        Work::RejectCalls(ids) => commit(tools(ids, Outcome::Rejected)),
        Work::RunCalls { run, unknown } => {
            let mut results = tools(run, Outcome::Ok);
            results.extend(tools(unknown, Outcome::Unknown));
            commit(results)
        }
        Work::AwaitAction => {
            let clients = state.pending.iter().filter(|call| call.place == Place::Client);
            OwnerAction::AwaitAction { deadlines: clients.map(|call| (call.id.clone(), now)).collect() }
        }
        Work::FinishTurn(reason) => OwnerAction::FinishTurn { reason, spend },
        Work::Compact => {
            let summary = "so far".to_owned();
            OwnerAction::Compact { basis, summary, keep_from: state.head + 1, kept: Vec::new(), spend }
        }
        Work::Prepare => OwnerAction::Prepare { system: String::new(), tools: Vec::new() },
        Work::CommitSteering => OwnerAction::CommitSteering,
        Work::GuardFiles => super::runner::guard(state),
        Work::CommitContext => {
            let digest = files.unwrap_or_default();
            let file = Item::ContextFile { path: "AGENTS.md".to_owned(), digest, text: "be good".to_owned() };
            OwnerAction::CommitContext { items: vec![file], digest }
        }
        Work::CallModel => {
            let reply = if deadly { Reply::Once } else { Reply::Text };
            let first = u32::try_from(1_000 + step).unwrap_or(u32::MAX);
            OwnerAction::CommitStep { basis, step: model_step(reply.calls(first)), spend }
        }
        Work::Rest | Work::Leave | Work::WaitUntil(_) => {
            let what = format!("the owner is told {work:?} while {:?}", state.status);
            return Err(Broken { invariant: "Progress", what });
        }
    })
}
