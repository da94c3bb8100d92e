//! One state of the searched world: the real session with its context, the runners that drive it, and
//! ghosts, which remember what the session itself need not. What may happen next is in `action`, what must
//! hold in `oracle`.

use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::{Basis, Command, First, OwnerAction, Refusal};
use longhaul_session::context::{Context, UserMessage};
use longhaul_session::decide::decide;
use longhaul_session::entry::Mode;
use longhaul_session::goal::{Budget, Terms};
use longhaul_session::id::{CallId, EntryNo, Epoch, GoalId, Timestamp, WorkerId};
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_session::prompts::Prompts;
use longhaul_session::state::SessionState;
use longhaul_session::usage::Usage;

use super::oracle;

/// A rule that did not hold.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) invariant: &'static str,
    pub(super) what: String,
}

/// Fails with the name of an invariant unless it holds.
pub(super) fn hold(
    holds: bool,
    invariant: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, what: what() }) }
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Left {
    /// Commands of people.
    pub(super) users: u8,
    /// Crashes, lost leases, releases.
    pub(super) faults: u8,
    /// Answers of the model other than a final text.
    pub(super) replies: u8,
}

/// A runner as it sees itself.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) epoch: Epoch,
    /// Another took the session over, and this one may not know.
    pub(super) zombie: bool,
    /// A person made its work obsolete.
    pub(super) spoiled: bool,
    pub(super) basis: Basis,
    /// The goal its work began under.
    pub(super) goal: Option<GoalId>,
    pub(super) task: Task,
}

/// What a runner is doing.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Idle,
    Model,
    Compaction,
    Tools(Vec<(CallId, Progress)>),
}

/// A call of a model under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Calling {
    /// It is for a summary.
    pub(super) summary: bool,
    /// The size of the request that it began with, in tokens.
    pub(super) tokens: u64,
}

/// How far a runner is with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    Planned,
    Started,
    Finished,
    /// It is not to be started again.
    Unknown,
}

/// What became of one call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) effect: EffectClass,
    pub(super) starts: u8,
    /// What the model was told.
    pub(super) told: Option<Outcome>,
    /// A runner that might have started it is gone.
    pub(super) exposed: bool,
    /// It needs a person's yes, and has none.
    pub(super) forbidden: bool,
    /// It must not run: one of its step had to be alone.
    pub(super) crowded: bool,
}

/// A message that was accepted and not removed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Where it is in the log.
    pub(super) at: EntryNo,
    pub(super) number: u32,
    pub(super) queued: bool,
}

/// The world.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) state: SessionState,
    pub(super) context: Context,
    pub(super) now: Timestamp,
    pub(super) runners: [Option<Runner>; 2],
    pub(super) calls: Vec<Call>,
    pub(super) messages: Vec<Message>,
    /// What a person looks at while writing an edit.
    pub(super) evidence: Option<UserMessage>,
    /// The model has yet to be told of its objective.
    pub(super) untold: bool,
    /// What its owner has begun to ask of a model, or had as it was lost.
    pub(super) calling: Option<Calling>,
    pub(super) left: Left,
    pub(super) calls_made: u32,
    pub(super) messages_made: u32,
    pub(super) goals_made: u8,
    /// What the last action appended, for people.
    pub(super) trace: Vec<&'static str>,
}

/// What the session begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Message,
    Goal,
}

/// The objective of the first goal, and of one that replaces it.
pub(super) const OBJECTIVES: [&str; 2] = ["make it work", "make it fast"];

impl World {
    /// Makes a session whose system prompt is pinned, owned by nobody.
    pub(super) fn new(start: Start, budget: Budget, left: Left) -> Result<Self, Broken> {
        let mut world = World {
            state: SessionState::default(),
            context: Context::default(),
            now: Timestamp(1),
            runners: [None, None],
            calls: Vec::new(),
            messages: Vec::new(),
            evidence: None,
            untold: false,
            calling: None,
            left,
            calls_made: 0,
            messages_made: 0,
            goals_made: 0,
            trace: Vec::new(),
        };
        let first = match start {
            Start::Message => First::Message(world.next_text().into()),
            Start::Goal => First::Goal {
                id: world.next_goal(),
                objective: OBJECTIVES[0].to_owned(),
                terms: Terms { budget, ..Terms::default() },
            },
        };
        let configuration = Box::new(configuration());
        world.accept(Command::Create {
            configuration,
            ephemeral: false,
            name: None,
            mode: Mode::Default,
            first,
        })?;
        world.accept(Command::Acquire { worker: worker(0), lost: None, estimate: Usage::default() })?;
        let system = "You work.".to_owned();
        let owned = |action| Command::Owned { epoch: 1, action };
        world.accept(owned(OwnerAction::Prepare { system, tools: Vec::new() }))?;
        world.accept(owned(OwnerAction::Release { not_started: Vec::new() }))?;
        Ok(world)
    }

    /// Decides on a command and appends what was decided, if anything, with every check of the change.
    pub(super) fn append(&mut self, command: Command) -> Result<Result<(), Refusal>, Broken> {
        let asked = command.clone();
        let decision = match decide(&self.state, command, self.now) {
            Ok(decision) => decision,
            Err(refusal) => {
                oracle::refused(self, &asked, &refusal)?;
                return Ok(Err(refusal));
            }
        };
        let before = std::mem::replace(&mut self.state, decision.state);
        for entry in &decision.entries {
            self.context.apply(entry);
            self.trace.push(entry.record.fact.kind());
        }
        oracle::changed(self, &before, &asked, &decision.entries)?;
        Ok(Ok(()))
    }

    /// Appends what must be accepted.
    pub(super) fn accept(&mut self, command: Command) -> Result<(), Broken> {
        let name = command.name();
        match self.append(command)? {
            Ok(()) => Ok(()),
            Err(refusal) => {
                Err(Broken { invariant: "Progress", what: format!("{name} is refused: {refusal}") })
            }
        }
    }

    /// Forgets what can no longer matter.
    pub(super) fn forget(&mut self) {
        let owner = self.state.owner.map(|owner| owner.epoch);
        for slot in &mut self.runners {
            if slot.as_ref().is_some_and(|runner| runner.is_idle() && Some(runner.epoch) != owner) {
                *slot = None;
            }
        }
        let (runners, state) = (&self.runners, &self.state);
        self.calls.retain(|call| {
            state.pending_call(&call.id).is_some()
                || runners.iter().flatten().any(|runner| runner.has(&call.id))
        });
    }

    pub(super) fn ghost(&mut self, id: &CallId) -> Result<&mut Call, Broken> {
        let found = self.calls.iter_mut().find(|call| call.id == *id);
        found.ok_or_else(|| Broken { invariant: "Answered", what: format!("call {id} is not known") })
    }

    pub(super) fn next_text(&mut self) -> String {
        self.messages_made += 1;
        text(self.messages_made)
    }

    pub(super) fn next_goal(&mut self) -> GoalId {
        self.goals_made += 1;
        GoalId(uuid::Uuid::from_u128(u128::from(self.goals_made)))
    }

    pub(super) fn basis(&self) -> Basis {
        basis_of(&self.state)
    }
}

impl Runner {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.task, Task::Idle)
    }

    fn has(&self, id: &CallId) -> bool {
        matches!(&self.task, Task::Tools(calls) if calls.iter().any(|(call, _)| call == id))
    }
}

/// What work begun in a state is based on.
pub(super) fn basis_of(state: &SessionState) -> Basis {
    Basis { history_at: state.history_at, attempt: state.attempt }
}

/// The text of a message.
pub(super) fn text(number: u32) -> String {
    format!("message {number}")
}

pub(super) fn worker(slot: usize) -> WorkerId {
    WorkerId(uuid::Uuid::from_u128(slot as u128 + 1))
}

/// Limits small enough to be met.
pub(super) fn limits(max_steps: u32) -> Limits {
    Limits { max_steps, max_crashes: 2, max_compaction_failures: 2, ..Limits::default() }
}

fn configuration() -> Configuration {
    let model = ModelChoice::new("scripted", "search");
    Configuration {
        agent: "search".to_owned(),
        model,
        directory: "/".to_owned(),
        instructions: None,
        scope: Vec::new(),
        tools: Vec::new(),
        prompts: Prompts::default(),
        limits: Limits::default(),
        summariser: None,
        goal: Terms::default(),
        without_goals: false,
    }
}
