//! A session in a test: its log, state and context, and short words for what is done to it.
//!
//! It stores and performs nothing. Whatever is appended here was decided by `decide` and is folded again.

use longhaul_session::agent::{Configuration, Limits, ModelChoice, ToolSpec};
use longhaul_session::command::{Basis, Command, Cut, First, OwnerAction, Ran, Refusal, Step};
use longhaul_session::context::{Context, Needed};
use longhaul_session::decide::decide;
use longhaul_session::entry::{CallFact, Entry, Fact, FinishReason, Measured, Mode, Place, Record, Timing};
use longhaul_session::evolve::evolve;
use longhaul_session::failure::{Failure, FailureClass, Retry};
use longhaul_session::goal::{Budget, Goal, Terms};
use longhaul_session::id::{CallId, Digest, EntryNo, GoalId, SessionId, Timestamp, WorkerId};
use longhaul_session::item::{Attachment, EffectClass, Item, Message, Outcome, ToolCall, ToolResult};
use longhaul_session::owed::{View, Work, owed};
use longhaul_session::prompts::Prompts;
use longhaul_session::state::{Owner, SessionState};
use longhaul_session::usage::{Spend, Usage};
use uuid::Uuid;

/// How far the driver's clock moves with each command, in milliseconds.
const TICK_MS: u64 = 10;

/// A session under test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) entries: Vec<Entry>,
    pub(crate) state: SessionState,
    pub(crate) context: Context,
    pub(crate) now: Timestamp,
}

impl Session {
    /// A session that waits, with nothing in it.
    pub(crate) fn created() -> Self {
        let mut session = Session { now: Timestamp(1_700_000_000_000), ..Session::default() };
        session.run(create(First::Nothing, false));
        session
    }

    /// A session in its first turn, owned and prepared: the model is to be called.
    pub(crate) fn running() -> Self {
        let mut session = Session::created();
        session.send("begin").acquire().prepare();
        session
    }

    /// A session that awaits an answer to one call of this place.
    pub(crate) fn awaiting(place: Place) -> Self {
        let mut session = Session::running();
        session.model(&[CallFact { place, ..call("a") }]).own(OwnerAction::AwaitAction { deadlines: vec![] });
        session
    }

    /// A session whose first turn failed.
    pub(crate) fn failed() -> Self {
        let mut session = Session::running();
        session.fail(FailureClass::Auth);
        session
    }

    /// A session at rest after a turn in which the model only spoke.
    pub(crate) fn finished() -> Self {
        let mut session = Session::running();
        session.model(&[]).finish();
        session
    }

    /// Does what may be refused; a refusal changes nothing, and what is decided folds to what is said.
    pub(crate) fn attempt(&mut self, command: Command) -> Result<(), Refusal> {
        self.now = self.now.plus_ms(TICK_MS);
        let decision = decide(&self.state, command, self.now)?;
        for entry in &decision.entries {
            self.state = evolve(std::mem::take(&mut self.state), &entry.record);
            self.context.apply(entry);
        }
        assert_eq!(self.state, decision.state, "the fold of the entries is the decided state");
        self.entries.extend(decision.entries);
        Ok(())
    }

    /// Does what must be permitted.
    pub(crate) fn run(&mut self, command: Command) -> &mut Self {
        self.attempt(command).expect("the command is permitted here");
        self
    }

    /// Returns why a command is refused, which it must be.
    pub(crate) fn refusal(&self, command: Command) -> Refusal {
        self.clone().attempt(command).expect_err("the command is refused here")
    }

    pub(crate) fn own(&mut self, action: OwnerAction) -> &mut Self {
        let command = self.owned(action);
        self.run(command)
    }

    /// An owner's command with the newest epoch.
    pub(crate) fn owned(&self, action: OwnerAction) -> Command {
        Command::Owned { epoch: self.state.epoch, action }
    }

    pub(crate) fn send(&mut self, text: &str) -> &mut Self {
        self.run(send(text))
    }

    pub(crate) fn acquire(&mut self) -> &mut Self {
        self.run(acquire(None))
    }

    /// The owner is lost, and another runner takes the session.
    pub(crate) fn take_over(&mut self) -> &mut Self {
        let lost = self.state.owner;
        assert!(lost.is_some(), "there is an owner to be lost");
        self.run(acquire(lost))
    }

    pub(crate) fn prepare(&mut self) -> &mut Self {
        self.own(OwnerAction::Prepare { system: "You work.".to_owned(), tools: Vec::new() })
    }

    /// The model answers with these calls, or with a text if there are none.
    pub(crate) fn model(&mut self, calls: &[CallFact]) -> &mut Self {
        self.model_for(calls, self.spend(0))
    }

    pub(crate) fn model_for(&mut self, calls: &[CallFact], spend: Spend) -> &mut Self {
        let step = Box::new(model_step(calls));
        self.own(OwnerAction::CommitStep { basis: self.basis(), step, spend })
    }

    /// Calls end like this.
    pub(crate) fn tools(&mut self, results: &[(&str, Outcome)]) -> &mut Self {
        let action = self.tool_step(results);
        self.own(action)
    }

    pub(crate) fn tool_step(&self, results: &[(&str, Outcome)]) -> OwnerAction {
        let results = results.iter().map(|(id, outcome)| ran(id, *outcome)).collect();
        let step = Box::new(Step::Tools { results, goal: None });
        OwnerAction::CommitStep { basis: self.basis(), step, spend: self.spend(0) }
    }

    /// Everything so far is summarised.
    pub(crate) fn compact(&mut self) -> &mut Self {
        self.compact_from(self.state.head + 1)
    }

    pub(crate) fn compact_from(&mut self, keep_from: EntryNo) -> &mut Self {
        let (basis, summary, spend) = (self.basis(), "What was done.".to_owned(), self.spend(0));
        self.own(OwnerAction::Compact { basis, summary, keep_from, kept: Vec::new(), spend })
    }

    pub(crate) fn finish(&mut self) -> &mut Self {
        self.own(finish(self.spend(0)))
    }

    pub(crate) fn fail(&mut self, class: FailureClass) -> &mut Self {
        let (failure, spend) = (failure(class), self.spend(0));
        self.own(OwnerAction::Fail { failure, cut: Cut::default(), spend })
    }

    /// A continuation turn that makes these calls, each of which succeeds.
    pub(crate) fn working_turn(&mut self, ids: &[&str]) -> &mut Self {
        let calls: Vec<_> = ids.iter().map(|id| call(id)).collect();
        let results: Vec<_> = ids.iter().map(|id| (*id, Outcome::Ok)).collect();
        self.model(&calls).tools(&results).model(&[]).finish()
    }

    pub(crate) fn basis(&self) -> Basis {
        Basis { history_at: self.state.history_at, attempt: self.state.attempt }
    }

    /// What work under the present goal spends: so many tokens.
    pub(crate) fn spend(&self, tokens: u64) -> Spend {
        let usage = Usage { input: tokens, ..Usage::default() };
        Spend { usage, goal: self.state.goal.as_ref().map(|goal| goal.id), ..Spend::default() }
    }

    pub(crate) fn goal(&self) -> &Goal {
        self.state.goal.as_ref().expect("the session has a goal")
    }

    pub(crate) fn owed(&self) -> Work {
        self.owed_with(&self.view(), &Limits::default())
    }

    pub(crate) fn owed_with(&self, view: &View, limits: &Limits) -> Work {
        owed(&self.state, view, limits)
    }

    /// What the owner sees.
    /// Names a response that can be picked up again.
    pub(crate) fn naming(&self, response_id: &str, is_summary: bool) -> OwnerAction {
        let (basis, configured_at) = (self.basis(), self.state.configured_at);
        OwnerAction::RecordResponse { basis, response_id: response_id.to_owned(), is_summary, configured_at }
    }

    pub(crate) fn view(&self) -> View {
        View { epoch: self.state.epoch, now: self.now, ..View::default() }
    }

    pub(crate) fn newest(&self) -> &Entry {
        self.entries.last().expect("the session exists")
    }

    pub(crate) fn newest_fact(&self) -> &Fact {
        &self.newest().record.fact
    }

    /// The outcomes the model sees for a call, in order.
    pub(crate) fn outcomes(&self, id: &str) -> Vec<Outcome> {
        let results =
            self.context.items().iter().filter_map(|(_, item)| {
                if let Item::ToolResult(result) = &**item { Some(result) } else { None }
            });
        let results = results.filter(|result| result.call.0 == id).map(|result| result.outcome);
        results.collect()
    }

    /// What is wrong with the pairing of calls and results in what the model sees.
    pub(crate) fn broken_pairing(&self) -> Option<String> {
        let open: Vec<_> = self.state.pending.iter().map(|call| &call.id).collect();
        self.context.broken_pairing(&open)
    }
}

/// Folds records from the start.
pub(crate) fn fold(entries: &[Entry]) -> SessionState {
    entries.iter().fold(SessionState::default(), |state, entry| evolve(state, &entry.record))
}

/// Folds the context from the start.
pub(crate) fn context_of(entries: &[Entry]) -> Context {
    let mut context = Context::default();
    entries.iter().for_each(|entry| context.apply(entry));
    context
}

/// Reads a context back as a runner does that has only the state: from the entries it needs.
pub(crate) fn read_back(entries: &[Entry], state: &SessionState) -> Context {
    let at = |n: EntryNo| &entries[usize::try_from(n).expect("a test's log is short") - 1];
    let needed = Needed::of(state);
    let range: Vec<&Entry> = needed.range.clone().map(at).collect();
    let kept = needed.kept.iter().map(|n| at(*n));
    let records: Vec<&Record> = kept.chain(range.iter().copied()).map(|entry| &entry.record).collect();
    let mut before = needed.promoted_before(&records);
    before.extend(needed.single.iter().chain(&needed.kept));
    before.sort_unstable();
    before.dedup();
    let mut context = Context::default();
    for n in before {
        if needed.kept.contains(&n) { context.apply_kept(at(n)) } else { context.apply_single(at(n)) }
    }
    range.into_iter().for_each(|entry| context.apply(entry));
    context
}

pub(crate) fn create(first: First, ephemeral: bool) -> Command {
    let configuration = Box::new(configuration());
    Command::Create { configuration, ephemeral, name: None, mode: Mode::Default, first }
}

pub(crate) fn configuration() -> Configuration {
    let model = ModelChoice { temperature: Some(0.5), ..ModelChoice::new("scripted", "script.toml") };
    Configuration {
        agent: "tester".to_owned(),
        model,
        directory: "/srv/project".to_owned(),
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

pub(crate) fn tool_spec() -> ToolSpec {
    ToolSpec {
        name: "read".to_owned(),
        description: "Reads a file.".to_owned(),
        input_schema: serde_json::json!({"type": "object"}),
        effect: EffectClass::Pure,
        exclusive: false,
        stop_after: false,
    }
}

/// A message with files of these names.
pub(crate) fn with_files(text: &str, names: &[&str]) -> Message {
    let file = |name: &&str| Attachment {
        name: (*name).to_owned(),
        media_type: "image/png".to_owned(),
        bytes: 8,
        digest: Digest::of(name.as_bytes()),
    };
    Message { text: text.to_owned(), files: names.iter().map(file).collect() }
}

pub(crate) fn send(text: &str) -> Command {
    Command::Send { message: text.into(), interrupt: false }
}

pub(crate) fn acquire(lost: Option<Owner>) -> Command {
    Command::Acquire { worker: worker(), lost, estimate: Usage::default() }
}

pub(crate) fn set_goal(id: u128, objective: &str, budget: Budget) -> Command {
    let terms = Terms { budget, ..Terms::default() };
    Command::SetGoal { id: goal_id(id), objective: objective.to_owned(), terms, message: None }
}

pub(crate) fn edit_budget(budget: Budget) -> Command {
    Command::EditGoal { objective: None, budget: Some(budget), checks: None, protected: None }
}

pub(crate) fn token_budget(tokens: u64) -> Budget {
    Budget { tokens: Some(tokens), ..Budget::default() }
}

pub(crate) fn finish(spend: Spend) -> OwnerAction {
    OwnerAction::FinishTurn { reason: FinishReason::Complete, spend }
}

pub(crate) fn failure(class: FailureClass) -> Failure {
    Failure { class, message: "it went wrong".to_owned() }
}

pub(crate) fn retry(class: FailureClass, not_before: Timestamp) -> Retry {
    Retry { class, since: Timestamp(0), not_before }
}

/// A call of a local tool of class `once`.
pub(crate) fn call(id: &str) -> CallFact {
    CallFact {
        id: id.into(),
        tool: "write".to_owned(),
        place: Place::Local,
        effect: EffectClass::Once,
        exclusive: false,
        stop_after: false,
        digest: Digest::of(b"write {}"),
    }
}

pub(crate) fn model_step(calls: &[CallFact]) -> Step {
    let item = |call: &CallFact| {
        let (id, name, arguments) = (call.id.clone(), call.tool.clone(), "{}".to_owned());
        Item::ToolCall(ToolCall { id, name, arguments, opaque: None })
    };
    let text = Item::Assistant { text: "Done.".to_owned(), partial: false };
    Step::Model {
        items: if calls.is_empty() { vec![text] } else { calls.iter().map(item).collect() },
        calls: calls.to_vec(),
        finish: "stop".to_owned(),
        response_id: None,
        measured: Measured::default(),
        timing: Timing::default(),
    }
}

pub(crate) fn ran(id: &str, outcome: Outcome) -> Ran {
    Ran { result: result(id, outcome), ran: outcome.ran().then_some((Timestamp(1), Timestamp(2))) }
}

pub(crate) fn result(id: &str, outcome: Outcome) -> ToolResult {
    let output = outcome.notice().to_owned();
    ToolResult { call: id.into(), outcome, output, files: Vec::new(), artifact: None }
}

pub(crate) fn ids(texts: &[&str]) -> Vec<CallId> {
    texts.iter().map(|text| CallId::from(*text)).collect()
}

pub(crate) fn worker() -> WorkerId {
    WorkerId(Uuid::from_u128(7))
}

pub(crate) fn session_id() -> SessionId {
    SessionId(Uuid::from_u128(9))
}

pub(crate) fn goal_id(n: u128) -> GoalId {
    GoalId(Uuid::from_u128(n))
}
