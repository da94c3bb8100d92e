//! What a provider's cache can keep of a long session's requests, and what it takes to assemble one. No
//! engine, store or network is involved: the session's rules, what the model sees, and the wire.

use std::path::Path;

use anyhow::Context as _;
use longhaul_model::codec::Codec as _;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_session::agent::Limits;
use longhaul_session::command::{Basis, Command, First, OwnerAction, Ran, Step};
use longhaul_session::context::Context;
use longhaul_session::decide::decide;
use longhaul_session::entry::{CallFact, Measured, Mode, Place, Timing};
use longhaul_session::id::{CallId, Digest, Timestamp, WorkerId};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::owed::{View, Work, owed};
use longhaul_session::state::SessionState;
use longhaul_session::usage::{Spend, Usage};
use uuid::Uuid;

use crate::measure::{Aim, Moment, Pairs, in_turn, say};
use crate::rig::configuration;
use crate::wire;

/// Model calls of the long run, and calls of the tool in one of its turns.
const STEPS: u64 = 3_000;
const CALLS_A_TURN: u64 = 12;
/// The size above which the context is compacted, in tokens.
const COMPACT_ABOVE_TOKENS: u64 = 60_000;
/// Requests of one measurement.
const REQUESTS: usize = 20;
/// Calls made before: few, and so many that 5,000 items are behind the session.
const EARLY: u64 = 5;
const LATE: u64 = 1_700;
/// As early as that the context is the same as late.
const SAME: u64 = 20;

/// A session whose model and tools answer by a script.
struct Run {
    state: SessionState,
    context: Context,
    limits: Limits,
    codec: Codec,
    asked: u64,
    /// What was sent, and how much of it began as the request before.
    sent_bytes: u64,
    shared_bytes: u64,
    before: Vec<u8>,
    compactions: u64,
    prunings: u64,
}

/// Measures and reports.
pub(crate) fn run(pairs: usize) -> anyhow::Result<()> {
    say("context: what of the input a cache can keep, and what assembling a request takes");
    let mut long = Run::begin(COMPACT_ABOVE_TOKENS)?;
    while long.asked < STEPS {
        long.go()?;
    }
    let share = 100.0 * long.shared_bytes as f64 / long.sent_bytes as f64;
    say(&format!(
        "  {STEPS} requests, {} MB, {} compactions, {} prunings: {share:.1} % of the bytes begin as the request before",
        long.sent_bytes / 1_000_000,
        long.compactions,
        long.prunings
    ));
    let assembled = |calls: u64, compact_above_tokens: u64| {
        let mut session = Run::begin(compact_above_tokens)?;
        while session.asked < calls {
            session.go()?;
        }
        session.assembling()
    };
    let all = in_turn(pairs, || assembled(LATE, u64::MAX), || assembled(EARLY, u64::MAX))?;
    Pairs::of(&all, |cost: &f64| *cost).report("5,000 items in the context / 15", "us", Aim::None);
    let same = in_turn(pairs, || assembled(LATE, 2_000), || assembled(SAME, 2_000))?;
    Pairs::of(&same, |cost: &f64| *cost).report(
        "5,000 items behind / 60, same context",
        "us",
        Aim::AtMost(1.3),
    );
    Ok(())
}

impl Run {
    fn begin(compact_above_tokens: u64) -> anyhow::Result<Self> {
        let configuration = Box::new(configuration(Path::new("/"), "endpoint", "m"));
        let mut run = Run {
            state: SessionState::default(),
            context: Context::default(),
            limits: Limits { compact_above_tokens, max_steps: u32::MAX, ..Limits::default() },
            codec: Codec::new(Options::new("http://localhost/v1", "m")),
            asked: 0,
            sent_bytes: 0,
            shared_bytes: 0,
            before: Vec::new(),
            compactions: 0,
            prunings: 0,
        };
        let first = First::Message("Keep them all.".into());
        run.ask(Command::Create { configuration, ephemeral: true, name: None, mode: Mode::Default, first })?;
        Ok(run)
    }

    fn ask(&mut self, command: Command) -> anyhow::Result<()> {
        let decision = decide(&self.state, command, Timestamp(1_800_000_000_000))?;
        decision.entries.iter().for_each(|entry| self.context.apply(entry));
        self.state = decision.state;
        Ok(())
    }

    /// Does what is owed.
    fn go(&mut self) -> anyhow::Result<()> {
        let next_request_tokens = self.context.outlook().estimate.tokens;
        let (epoch, now) = (self.state.epoch, Timestamp(1_800_000_000_000));
        let view = View {
            epoch,
            now,
            context_digest: None,
            next_request_tokens,
            without_room: None,
            without_room_to_compact: None,
        };
        let basis = Basis { history_at: self.state.history_at, attempt: self.state.attempt };
        let spend = Spend::default();
        let action = match owed(&self.state, &view, &self.limits) {
            Work::Rest => return self.ask(Command::Send { message: "Go on.".into(), interrupt: false }),
            Work::Leave => {
                let worker = WorkerId(Uuid::from_u128(1));
                return self.ask(Command::Acquire { worker, lost: None, estimate: Usage::default() });
            }
            Work::Prepare => {
                OwnerAction::Prepare { system: "You keep notes.".to_owned(), tools: vec![wire::tool()] }
            }
            Work::CallModel => {
                let step = Box::new(self.call_model());
                OwnerAction::CommitStep { basis, step, spend }
            }
            Work::RunCalls { run, .. } => {
                let results = run.into_iter().map(|call| self.result(call)).collect();
                OwnerAction::CommitStep { basis, step: Box::new(Step::Tools { results, goal: None }), spend }
            }
            Work::Compact => {
                self.compactions += 1;
                let kept = self.context.kept(&self.state, &self.limits);
                let summary = format!("What was noted before request {}. ", self.asked).repeat(40);
                OwnerAction::Compact { basis, summary, keep_from: kept.from, kept: kept.messages, spend }
            }
            Work::FinishTurn(reason) => OwnerAction::FinishTurn { reason, spend },
            other @ (Work::WaitUntil(_)
            | Work::FinishInterruption
            | Work::CancelAction
            | Work::Fail(_)
            | Work::RejectCalls(_)
            | Work::AwaitAction
            | Work::CommitSteering
            | Work::GuardFiles
            | Work::CommitContext) => anyhow::bail!("this is not owed here: {other:?}"),
        };
        self.ask(Command::Owned { epoch, action })
    }

    fn call_model(&mut self) -> Step {
        self.asked += 1;
        let pruned_to = self.context.outlook().pruned_to;
        self.prunings += u64::from(pruned_to > self.state.pruned_to);
        let body = self.codec.request(&self.context.request_pruned_to(pruned_to)).body;
        self.sent_bytes += body.len() as u64;
        self.shared_bytes += body.iter().zip(&self.before).take_while(|(one, two)| one == two).count() as u64;
        let measured = Measured {
            input_tokens: body.len() as u64 / 4,
            items: self.context.items().len() as u64,
            bytes: self.context.bytes(),
            pruned_to,
        };
        self.before = body;
        let (mut items, mut calls) = (Vec::new(), Vec::new());
        items.push(Item::Assistant { text: wire::remark(self.asked), partial: false });
        if !self.asked.is_multiple_of(CALLS_A_TURN) {
            let id = CallId(wire::call_id(self.asked));
            let (name, arguments) = (wire::TOOL.to_owned(), wire::arguments(self.asked));
            calls.push(CallFact {
                id: id.clone(),
                tool: name.clone(),
                place: Place::Local,
                effect: EffectClass::Pure,
                exclusive: false,
                stop_after: false,
                digest: Digest::of(arguments.as_bytes()),
            });
            items.push(Item::ToolCall(ToolCall { id, name, arguments, opaque: None }));
        }
        let (finish, timing) = ("stop".to_owned(), Timing::default());
        Step::Model { items, calls, finish, response_id: None, measured, timing }
    }

    /// A result of 500 to 4,000 bytes.
    fn result(&self, call: CallId) -> Ran {
        let times = 1 + usize::try_from(self.asked % 8).unwrap_or_default();
        let (output, files) = (wire::result(self.asked).repeat(times), Vec::new());
        let result = ToolResult { call, outcome: Outcome::Ok, output, files, artifact: None };
        Ran { result, ran: None }
    }

    /// Takes steps, and returns what one request takes from the entry before it to its bytes, in microseconds
    /// of processor time.
    fn assembling(mut self) -> anyhow::Result<f64> {
        let mut costs = Vec::new();
        while costs.len() < REQUESTS {
            self.go()?;
            if !self.state.pending.is_empty() {
                continue;
            }
            let began = Moment::now();
            let request = self.context.request_pruned_to(self.context.outlook().pruned_to);
            let body = self.codec.request(&request).body;
            costs.push(began.cost().processor_us);
            anyhow::ensure!(!body.is_empty(), "a request has a body");
        }
        costs.sort_by(f64::total_cmp);
        costs.get(REQUESTS / 2).copied().context("there are costs")
    }
}
