//! Random commands for the property tests: some go on with what is owed, the rest are anything at all,
//! fit for the session or not, with newest and old epochs, fresh and stale evidence.

use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::{Answer, Basis, Command, Cut, First, OwnerAction, Step};
use longhaul_session::context::UserMessage;
use longhaul_session::entry::{CallFact, Mode, Place};
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::Budget;
use longhaul_session::id::{CallId, Digest, EntryNo, Timestamp};
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::owed::{View, Work};
use longhaul_session::prices::{Prices, Rates};
use longhaul_session::usage::{Spend, Usage};
use proptest::prelude::*;

use crate::driver::{
    Session, acquire, call, configuration, create, edit_budget, failure, finish, goal_id, model_step, ran,
    result, retry, send, session_id, set_goal,
};

/// What one random command is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed {
    /// Below 128: what is owed is done; from there: which command.
    kind: u8,
    /// What it is about.
    pick: u8,
    /// How much it spends, how it ends, whether it is stale.
    how: u8,
}

impl Seed {
    pub(crate) fn new([kind, pick, how]: [u8; 3]) -> Self {
        Seed { kind, pick, how }
    }
}

pub(crate) fn seeds(most: usize) -> impl Strategy<Value = Vec<Seed>> {
    prop::collection::vec(any::<[u8; 3]>().prop_map(Seed::new), 1..most)
}

/// A session driven at random, with what it takes to make stale evidence.
#[derive(Clone, Debug)]
pub(crate) struct Driven {
    pub(crate) session: Session,
    evidence: Option<UserMessage>,
}

impl Driven {
    pub(crate) fn new() -> Self {
        Driven { session: Session::created(), evidence: None }
    }

    /// Makes the next command. Time moves on where the session waits for it.
    pub(crate) fn next(&mut self, seed: Seed) -> Command {
        if seed.how.is_multiple_of(8) {
            self.evidence = self.session.context.last_user_message();
        }
        match seed.kind {
            0..128 => self.follow(seed),
            128..200 => self.of_people(seed),
            200..=255 => self.of_owner(seed),
        }
    }

    /// Does what is owed, as a runner would.
    fn follow(&mut self, seed: Seed) -> Command {
        let tokens = if seed.how % 16 == 1 { u64::MAX } else { 0 };
        let context_digest = (seed.how % 8 == 2).then(|| Digest::of(&[seed.pick % 2]));
        let view = View { next_request_tokens: tokens, context_digest, ..self.session.view() };
        let session = &self.session;
        let spend = spend(session, seed);
        let action = match session.owed_with(&view, &Limits { max_steps: 6, ..Limits::default() }) {
            Work::Rest if seed.how.is_multiple_of(2) => {
                return set_goal(seed.pick.into(), "objective", Budget::default());
            }
            Work::Rest => return self.of_people(seed),
            Work::Leave => return acquire_for(session, seed),
            Work::WaitUntil(at) => {
                self.session.now = at;
                OwnerAction::Settle { spend }
            }
            Work::FinishInterruption => {
                let partial = Item::Assistant { text: "So far".to_owned(), partial: true };
                let partial = if seed.how.is_multiple_of(2) { vec![partial] } else { Vec::new() };
                OwnerAction::FinishInterruption { cut: cut(session, seed), partial, spend }
            }
            Work::CancelAction => OwnerAction::CancelAction,
            Work::Fail(failure) => OwnerAction::Fail { failure, cut: cut(session, seed), spend },
            Work::RejectCalls(calls) => tool_step(session, &calls, Outcome::Rejected, spend),
            Work::RunCalls { run, unknown } if run.is_empty() => {
                tool_step(session, &unknown, Outcome::Unknown, spend)
            }
            Work::RunCalls { run, .. } => {
                let part = if seed.how % 4 == 3 { &run[..1] } else { &run };
                tool_step(session, part, Outcome::Ok, spend)
            }
            Work::AwaitAction => await_action(session, seed),
            Work::FinishTurn(reason) => OwnerAction::FinishTurn { reason, spend },
            Work::Compact => compact(session, seed, spend),
            Work::Prepare => prepare(),
            Work::CommitSteering => OwnerAction::CommitSteering,
            Work::GuardFiles => OwnerAction::GuardFiles { terms: session.goal().terms(), files: Vec::new() },
            Work::CommitContext => {
                let digest = context_digest.expect("a context that differs was seen");
                OwnerAction::CommitContext { items: vec![file(digest)], digest }
            }
            Work::CallModel => model(session, seed, spend),
        };
        self.session.owned(action)
    }

    fn of_people(&self, seed: Seed) -> Command {
        let session = &self.session;
        let queued = pick(&session.state.queue, seed).unwrap_or(seed.pick.into());
        let pending = session.state.pending.iter().map(|call| call.id.clone()).collect::<Vec<_>>();
        let call = pick(&pending, seed).unwrap_or_else(|| "none".into());
        let message =
            self.evidence.filter(|_| seed.how.is_multiple_of(4)).or(session.context.last_user_message());
        match seed.kind % 36 {
            0..6 => send("text"),
            6..8 => Command::Send { message: "now".into(), interrupt: true },
            8..10 => match message {
                Some(target) => Command::Edit { target, message: "better".into() },
                None => Command::Unarchive,
            },
            10 => Command::Unqueue { message: queued },
            11 => Command::Promote { message: queued },
            12 => Command::Interrupt { drop_queue: seed.how.is_multiple_of(2) },
            13 | 14 => Command::SubmitToolResults { results: vec![result(&call.0, Outcome::Ok)] },
            15..18 => Command::Answer { call, answer: answer(seed), remember: seed.how.is_multiple_of(8) },
            18 => Command::RequestCompaction,
            19 => Command::ClearContext,
            20 | 21 => set_goal(
                seed.pick.into(),
                if seed.how.is_multiple_of(2) { "this" } else { "that" },
                budget(seed),
            ),
            22 => edit_budget(budget(seed)),
            23 => Command::PauseGoal,
            24 => Command::ResumeGoal,
            25 => Command::ClearGoal,
            26 => Command::SetMode(if seed.how.is_multiple_of(3) { Mode::Plan } else { Mode::Default }),
            27 => Command::Configure(Box::new(other_configuration(seed))),
            28 => Command::Grant { tool: format!("tool {}", seed.pick) },
            29 => Command::Rename { name: Some(format!("name {}", seed.pick)) },
            30 => Command::Redact { entry: seed.pick.into() },
            31 => Command::Archive,
            32 => Command::Unarchive,
            33 => acquire_for(session, seed),
            34 => Command::Reconcile,
            _ if seed.how.is_multiple_of(4) => Command::Fork { parent: session_id() },
            _ => create(First::Nothing, false),
        }
    }

    fn of_owner(&self, seed: Seed) -> Command {
        let session = &self.session;
        let (basis, spend) = (basis(session, seed), spend(session, seed));
        let class =
            if seed.pick.is_multiple_of(2) { FailureClass::Network } else { FailureClass::ContextOverflow };
        let failure = failure(class);
        let calls: Vec<CallId> = session.state.pending.iter().map(|call| call.id.clone()).collect();
        let action = match seed.kind % 18 {
            0 => prepare(),
            1 => OwnerAction::Release {
                not_started: calls.into_iter().take(usize::from(seed.how % 3)).collect(),
            },
            2 => model(session, seed, spend),
            3 => tool_step(session, &calls, outcome(seed), spend),
            4 => session.naming("response", seed.how.is_multiple_of(4)),
            5 => {
                let digest = Digest::of(&[seed.pick]);
                OwnerAction::CommitContext { items: vec![file(digest)], digest }
            }
            6 => OwnerAction::CommitSteering,
            7 => hook(seed),
            8 => OwnerAction::Settle { spend },
            9 | 10 => {
                let retry = retry(class, session.now.plus_ms(u64::from(seed.how) * 10));
                OwnerAction::BeginRetry { basis, failure, retry, spend }
            }
            11 => compact(session, seed, spend),
            12 => OwnerAction::FailCompaction {
                basis,
                failure,
                spend,
                automatic_off: seed.how.is_multiple_of(2),
            },
            13 => await_action(session, seed),
            14 => OwnerAction::CancelAction,
            15 => finish(spend),
            16 => OwnerAction::FinishInterruption { cut: cut(session, seed), partial: Vec::new(), spend },
            _ => OwnerAction::Fail { failure, cut: cut(session, seed), spend },
        };
        let epoch = session.state.epoch.saturating_sub(u64::from(seed.how.is_multiple_of(8)));
        Command::Owned { epoch, action }
    }
}

fn pick<T: Clone>(from: &[T], seed: Seed) -> Option<T> {
    from.get(usize::from(seed.pick) % from.len().max(1)).cloned()
}

fn spend(session: &Session, seed: Seed) -> Spend {
    let (pick, how) = (seed.pick.into(), seed.how.into());
    let cached_input = if seed.how.is_multiple_of(4) { pick / 2 } else { 0 };
    let cost_micros = if seed.how.is_multiple_of(3) { how } else { 0 };
    let usage = Usage { input: pick, cached_input, output: how, cost_micros, ..Usage::default() };
    let goal = session.spend(0).goal.or((seed.how % 8 == 5).then(|| goal_id(1)));
    let configured_at = if seed.how % 8 == 6 { 1 } else { session.state.configured_at };
    Spend { usage, active_ms: how, goal, configured_at, summary: seed.how % 8 == 7 }
}

fn budget(seed: Seed) -> Budget {
    let tokens = (!seed.how.is_multiple_of(4)).then(|| u64::from(seed.pick) * 8);
    Budget { tokens, continuations: Some(3), ..Budget::default() }
}

fn basis(session: &Session, seed: Seed) -> Basis {
    let mut basis = session.basis();
    basis.attempt += u32::from(seed.how % 16 == 7);
    basis.history_at = basis.history_at.saturating_sub(u64::from(seed.how % 16 == 8));
    basis
}

/// Another model, whose price may be known, and now and then another that summarises.
fn other_configuration(seed: Seed) -> Configuration {
    let prices = seed.how.is_multiple_of(2).then(|| Prices { rates: Rates::default(), tiers: Vec::new() });
    let model = ModelChoice { prices, ..ModelChoice::new("scripted", format!("script {}", seed.pick % 3)) };
    let summariser = seed.how.is_multiple_of(3).then(|| Box::new(ModelChoice::new("scripted", "summaries")));
    Configuration { model, summariser, ..configuration() }
}

fn answer(seed: Seed) -> Answer {
    match seed.how % 3 {
        0 => Answer::Allow,
        1 => Answer::Deny { reason: None },
        _ => Answer::Value("blue".to_owned()),
    }
}

fn acquire_for(session: &Session, seed: Seed) -> Command {
    let lost = session.state.owner.filter(|_| !seed.how.is_multiple_of(16));
    let Command::Acquire { worker, .. } = acquire(None) else { unreachable!("it acquires") };
    let estimate = Usage { input: seed.pick.into(), ..Usage::default() };
    Command::Acquire { worker, lost, estimate }
}

fn prepare() -> OwnerAction {
    OwnerAction::Prepare { system: "You work.".to_owned(), tools: Vec::new() }
}

fn file(digest: Digest) -> Item {
    Item::ContextFile { path: "AGENTS.md".to_owned(), digest, text: "Be kind.".to_owned() }
}

fn hook(seed: Seed) -> OwnerAction {
    let (point, name, decision) = ("pre_model".to_owned(), "guard".to_owned(), "continue".to_owned());
    let items =
        if seed.how.is_multiple_of(2) { vec![Item::User { text: "mind".to_owned() }] } else { Vec::new() };
    OwnerAction::RecordHook { point, name, decision, items }
}

fn await_action(session: &Session, seed: Seed) -> OwnerAction {
    let late = session.now.plus_ms(u64::from(seed.pick));
    let awaited = session.state.pending.iter().filter(|_| seed.how.is_multiple_of(2));
    OwnerAction::AwaitAction { deadlines: awaited.map(|call| (call.id.clone(), late)).collect() }
}

/// A model step with up to three calls of any sort. Ids are those of no other step.
fn model(session: &Session, seed: Seed, spend: Spend) -> OwnerAction {
    let fact = |at: u8| {
        let sort = seed.how.wrapping_add(at.wrapping_mul(seed.pick));
        let place = match sort % 6 {
            0 => Place::Client,
            1 => Place::Approval,
            2 => Place::Question,
            _ => Place::Local,
        };
        let effect = if sort.is_multiple_of(4) { EffectClass::Pure } else { EffectClass::Once };
        let (exclusive, stop_after) = (sort % 32 == 9, sort % 32 == 10);
        CallFact { place, effect, exclusive, stop_after, ..call(&format!("{}-{at}", session.state.head)) }
    };
    let calls: Vec<CallFact> = (0..seed.pick % 4).map(fact).collect();
    OwnerAction::CommitStep { basis: basis(session, seed), step: Box::new(model_step(&calls)), spend }
}

fn tool_step(session: &Session, calls: &[CallId], outcome: Outcome, spend: Spend) -> OwnerAction {
    let results = calls.iter().map(|call| ran(&call.0, outcome)).collect();
    let step = Box::new(Step::Tools { results, goal: None });
    OwnerAction::CommitStep { basis: session.basis(), step, spend }
}

fn outcome(seed: Seed) -> Outcome {
    match seed.pick % 4 {
        0 => Outcome::Unknown,
        1 => Outcome::NotRun,
        2 => Outcome::Error,
        _ => Outcome::Ok,
    }
}

fn cut(session: &Session, seed: Seed) -> Cut {
    let mut calls = session.state.pending.iter().filter(|call| call.place == Place::Local);
    let finished =
        calls.next().filter(|_| seed.how.is_multiple_of(2)).map(|call| ran(&call.id.0, Outcome::Ok));
    let started = calls.take(usize::from(seed.how % 3)).map(|call| call.id.clone()).collect();
    Cut { finished: finished.into_iter().collect(), started }
}

/// A compaction that keeps what a runner would keep, or any tail in which every result has its call.
fn compact(session: &Session, seed: Seed, spend: Spend) -> OwnerAction {
    let items = session.context.items();
    let starts: Vec<EntryNo> = items.iter().map(|(n, _)| *n).filter(|n| whole_from(session, *n)).collect();
    let end = session.state.head + 1;
    let limits = Limits { compact_above_tokens: u64::from(seed.pick), ..Limits::default() };
    let chosen = session.context.kept(&session.state, &limits);
    let (keep_from, kept) = match seed.how % 4 {
        0 => (pick(&starts, seed).unwrap_or(end), Vec::new()),
        1 => (end, Vec::new()),
        _ => (chosen.from, chosen.messages),
    };
    let summary = if seed.how % 16 == 3 { " " } else { "summary" }.to_owned();
    OwnerAction::Compact { basis: basis(session, seed), summary, keep_from, kept, spend }
}

fn whole_from(session: &Session, from: EntryNo) -> bool {
    let kept = || session.context.items().iter().filter(|(n, _)| *n >= from);
    let called =
        |id: &CallId| kept().any(|(_, item)| matches!(&**item, Item::ToolCall(call) if call.id == *id));
    from >= session.state.context_from
        && kept()
            .all(|(_, item)| if let Item::ToolResult(result) = &**item { called(&result.call) } else { true })
}

/// The instant far after everything a test does.
pub(crate) const LATE: Timestamp = Timestamp(2_000_000_000_000);
