//! How far a goal can go over its budget: a hard one never, a soft one by the call in flight and the wrap-up.
//! The model here uses all that a call can use.

use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::bound;
use longhaul_session::command::{Basis, Command, OwnerAction, Step};
use longhaul_session::entry::{CallFact, Measured, Mode, Timing};
use longhaul_session::goal::{Budget, BudgetKind, GoalStatus, GoalUsage};
use longhaul_session::id::CallId;
use longhaul_session::item::{Item, Outcome, ToolCall};
use longhaul_session::owed::{View, Work};
use longhaul_session::prices::{Prices, Rates, Tier};
use longhaul_session::usage::{Spend, Usage};
use proptest::prelude::*;

use crate::driver::{Session, call, configuration, ran, send, set_goal, token_budget, tool_spec, with_files};

/// Steps after which a run must have come to rest.
const MAX_WORK: usize = 2_000;
/// The most tokens of an answer of these models.
const OUTPUT: u64 = 200;
/// How they are asked for a summary.
const INSTRUCTION: &str = "Say in short what was done, what was found, and what is left to do.";

/// What a model does in one step, and what happens beside it.
#[derive(Clone, Debug)]
struct Turn {
    /// Calls it makes; none ends the turn.
    calls: usize,
    /// Bytes of what it and its tools say.
    bytes: usize,
    /// The worker is lost before the answer is committed.
    lost: bool,
    /// A person says something.
    message: bool,
    /// The attempt fails after it was paid for.
    fails: bool,
    /// The history is summarised when it may be.
    over: bool,
}

prop_compose! {
    fn any_turn()(
        calls in 0..4_usize,
        bytes in 0..3_000_usize,
        chances in prop::array::uniform4(0..12_u8),
    ) -> Turn {
        let [lost, message, fails, over] = chances.map(|chance| chance == 0);
        Turn { calls, bytes, lost, message, fails, over }
    }
}

/// A run of one goal in which every call uses as much as it can.
struct Run {
    session: Session,
    /// The largest cost of a single call.
    dearest: u64,
    /// What was used when the budget was crossed, and calls made from then on for the goal.
    crossed: Option<u64>,
    calls_after: usize,
}

impl Run {
    fn new(budget: Budget) -> Self {
        let mut session = Session::created();
        let model = ModelChoice { max_output_tokens: Some(OUTPUT), ..ModelChoice::new("scripted", "worst") };
        let configuration = Configuration { model, ..configuration() };
        session.run(Command::Configure(Box::new(configuration)));
        session.run(set_goal(1, "All tests pass", budget)).acquire();
        Run { session, dearest: 0, crossed: None, calls_after: 0 }
    }

    fn view(&self, over: bool) -> View {
        let (state, context) = (&self.session.state, &self.session.context);
        let without_room = state.without_room(&bound::next_call(state, context), 0);
        let summary = bound::next_summary(state, context, INSTRUCTION);
        let without_room_to_compact = state.without_room(&summary, 0);
        let next_request_tokens = if over { u64::MAX } else { 0 };
        View { without_room, without_room_to_compact, next_request_tokens, ..self.session.view() }
    }

    /// Makes a call that uses all it can. Returns what it spends.
    fn most(&mut self) -> Spend {
        self.spends(bound::next_call(&self.session.state, &self.session.context))
    }

    fn spends(&mut self, usage: Usage) -> Spend {
        let goal = self.session.state.works_for();
        if goal.is_some() {
            self.dearest = self.dearest.max(usage.budget_tokens());
            self.calls_after += usize::from(self.crossed.is_some());
        }
        Spend { usage, goal, ..Spend::default() }
    }

    /// Does what is owed. Returns whether anything was.
    fn step(&mut self, turn: &Turn) -> bool {
        let limits = Limits::default();
        let view = self.view(turn.over);
        let work = self.session.owed_with(&view, &limits);
        let (basis, session) = (self.session.basis(), &mut self.session);
        match work {
            Work::Rest => return false,
            Work::Leave => drop(session.acquire()),
            Work::Prepare => drop(session.prepare()),
            Work::CommitSteering => drop(session.own(OwnerAction::CommitSteering)),
            Work::FinishTurn(reason) => {
                session.own(OwnerAction::FinishTurn { reason, spend: Spend::default() });
            }
            Work::RunCalls { run, unknown } => {
                let mut results: Vec<_> = run.iter().map(|id| ran(&id.0, Outcome::Ok)).collect();
                results.extend(unknown.iter().map(|id| ran(&id.0, Outcome::Unknown)));
                results.iter_mut().for_each(|ran| ran.result.output = "é".repeat(turn.bytes / 2));
                let step = Box::new(Step::Tools { results, goal: None });
                session.own(OwnerAction::CommitStep { basis, step, spend: Spend::default() });
            }
            Work::Compact => {
                let most = bound::next_summary(&self.session.state, &self.session.context, INSTRUCTION);
                let spend = self.spends(most);
                let (summary, keep_from) = ("So far.".to_owned(), self.session.state.head + 1);
                self.session.own(OwnerAction::Compact { basis, summary, keep_from, kept: Vec::new(), spend });
            }
            Work::CallModel => self.call_model(turn, basis),
            Work::Fail(failure) => {
                let (cut, spend) = Default::default();
                session.own(OwnerAction::Fail { failure, cut, spend });
            }
            Work::WaitUntil(at) => session.now = at,
            Work::FinishInterruption
            | Work::CancelAction
            | Work::RejectCalls(_)
            | Work::AwaitAction
            | Work::GuardFiles
            | Work::CommitContext => return false,
        }
        if self.session.goal().status == GoalStatus::BudgetLimited {
            self.crossed.get_or_insert(self.session.goal().used.tokens);
        }
        true
    }

    fn call_model(&mut self, turn: &Turn, basis: Basis) {
        let spend = self.most();
        if turn.lost {
            let lost = self.session.state.owner;
            let command = Command::Acquire { worker: crate::driver::worker(), lost, estimate: spend.usage };
            self.session.run(command);
            return;
        }
        if turn.fails {
            let failure = crate::driver::failure(longhaul_session::failure::FailureClass::Overloaded);
            let retry = crate::driver::retry(failure.class, self.session.now);
            self.session.own(OwnerAction::BeginRetry { basis, failure, retry, spend });
            return;
        }
        let n = self.session.state.head;
        let calls: Vec<CallFact> = (0..turn.calls).map(|k| call(&format!("c{n}_{k}"))).collect();
        let mut items = vec![Item::Assistant { text: "x".repeat(turn.bytes), partial: false }];
        items.extend(calls.iter().map(|call| {
            let arguments = format!("{{\"text\":\"{}\"}}", "\\n".repeat(turn.bytes / 4));
            let id = CallId(call.id.0.clone());
            Item::ToolCall(ToolCall { id, name: call.tool.clone(), arguments, opaque: None })
        }));
        let measured = Measured { input_tokens: spend.usage.input, items: 0, bytes: 0, pruned_to: 0 };
        let step = Box::new(Step::Model {
            items,
            calls,
            finish: "stop".to_owned(),
            response_id: None,
            measured,
            timing: Timing::default(),
        });
        self.session.own(OwnerAction::CommitStep { basis, step, spend });
    }

    /// Runs until the session rests; after the turns that were drawn, the model says that it is done. Returns
    /// whether it came to rest.
    fn rests_after(&mut self, turns: &[Turn]) -> bool {
        let end = Turn { calls: 0, bytes: 1, lost: false, message: false, fails: false, over: false };
        let mut turns = turns.iter();
        for _ in 0..MAX_WORK {
            let turn = turns.next().unwrap_or(&end);
            if turn.message {
                let text = "m".repeat(turn.bytes.max(1));
                self.session.attempt(send(&text)).ok();
            }
            if !self.step(turn) && turns.len() == 0 {
                return true;
            }
        }
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_hard_budget_is_never_crossed(
        tokens in 100..60_000_u64,
        turns in prop::collection::vec(any_turn(), 1..120),
    ) {
        let mut run = Run::new(Budget { tokens: Some(tokens), hard: true, ..Budget::default() });
        prop_assert!(run.rests_after(&turns));
        let used = run.session.goal().used;
        prop_assert!(used.tokens <= tokens, "{} of {tokens}", used.tokens);
        prop_assert!(run.session.goal().status != GoalStatus::Active || run.session.goal().suppressed
            || run.session.state.status == longhaul_session::state::Status::Failed);
    }

    #[test]
    fn a_soft_budget_is_crossed_by_the_call_in_flight_and_the_wrap_up_at_most(
        tokens in 100..60_000_u64,
        turns in prop::collection::vec(any_turn(), 1..120),
    ) {
        let mut run = Run::new(Budget { tokens: Some(tokens), ..Budget::default() });
        // A model that does as it is told wraps up in one call; one that does not is ended by other limits.
        let mut drawn = turns.iter();
        let end = Turn { calls: 0, bytes: 1, lost: false, message: false, fails: false, over: false };
        for _ in 0..MAX_WORK {
            let next = drawn.next();
            let turn = next.filter(|_| run.crossed.is_none()).unwrap_or(&end);
            if !run.step(turn) && next.is_none() {
                break;
            }
        }
        let used = run.session.goal().used.tokens;
        if let Some(crossed) = run.crossed {
            prop_assert!(crossed < tokens + run.dearest, "{crossed} of {tokens}");
            prop_assert!(run.calls_after <= 1, "{} calls after it was crossed", run.calls_after);
            prop_assert!(used < tokens + 2 * run.dearest, "{used} of {tokens}");
        } else {
            prop_assert!(used <= tokens);
        }
    }
}

/// What an item uses besides its bytes as JSON, if it is no file.
const BESIDES_JSON: u64 = 16;

fn json_bytes(item: &Item) -> u64 {
    serde_json::to_vec(item).expect("items are JSON").len() as u64
}

#[test]
fn before_a_measurement_all_that_is_sent_counts_by_its_bytes() {
    let mut session = Session::created();
    session.send("begin").acquire();
    let (system, tools) = ("You work.".to_owned(), vec![tool_spec()]);
    let tool_bytes = serde_json::to_vec(&tools).expect("tools are JSON").len();
    // Besides its items: what a provider may add, the prompt, and the tools.
    let besides = 2_048 + (system.len() + tool_bytes) as u64;
    session.own(OwnerAction::Prepare { system, tools }).model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    let items: Vec<_> = session.context.items().iter().map(|(_, item)| json_bytes(item)).collect();
    assert_eq!(items.len(), 3);
    let most = bound::next_call(&session.state, &session.context);
    assert_eq!(most.input, besides + items.iter().map(|bytes| BESIDES_JSON + bytes).sum::<u64>());
    assert_eq!((most.output, most.cost_micros), (bound::MAX_OUTPUT_TOKENS, 0), "nothing is known of prices");
}

#[test]
fn a_file_counts_by_a_number_its_names_and_if_it_is_no_picture_its_bytes() {
    let bare = bound::next_call(&Session::running().state, &Session::running().context).input;
    let used = |item: &Item| {
        let mut session = Session::running();
        let (point, name, decision) = ("pre_model".to_owned(), "hook".to_owned(), "add".to_owned());
        session.own(OwnerAction::RecordHook { point, name, decision, items: vec![item.clone()] });
        bound::next_call(&session.state, &session.context).input - bare
    };
    let file = |name: Option<&str>, media_type: &str| Item::File {
        name: name.map(str::to_owned),
        media_type: media_type.to_owned(),
        data: "A".repeat(400),
    };
    let besides = BESIDES_JSON + bound::FILE_TOKENS;
    assert_eq!(used(&file(None, "image/png")), besides + 9);
    assert_eq!(used(&file(Some("a.pdf"), "application/pdf")), besides + 5 + 15 + 400);
    let given = |media_type: &str| {
        let mut file = with_files("", &["a"]).files.remove(0);
        (file.media_type, file.bytes) = (media_type.to_owned(), 100);
        Item::Attachment(file)
    };
    let (picture, document) = (given("image/png"), given("application/pdf"));
    assert_eq!(used(&picture), besides + json_bytes(&picture));
    assert_eq!(used(&document), besides + json_bytes(&document) + 136, "100 bytes in base64");
}

#[test]
fn a_call_costs_at_most_what_its_dearest_size_does() {
    let (micros, nothing) = (1_000_000, Rates::default());
    let base = Rates { input: micros, cache_write: Some(2 * micros), output: 3 * micros, ..nothing };
    let tier = |above_prompt_tokens, input| Tier { above_prompt_tokens, rates: Rates { input, ..base } };
    let cheap =
        Tier { above_prompt_tokens: 1_500, rates: Rates { input: micros / 2, output: micros, ..nothing } };
    let cost = |tiers: Vec<Tier>| {
        let mut session = Session::created();
        let prices = Some(Prices { rates: base, tiers });
        let model = ModelChoice { max_output_tokens: Some(OUTPUT), prices, ..configuration().model };
        session.run(Command::Configure(Box::new(Configuration { model, ..configuration() })));
        session.send("begin").acquire().prepare();
        let most = bound::next_call(&session.state, &session.context);
        assert!((2_000..2_500).contains(&most.input), "{most:?}");
        (most.input, most.cost_micros)
    };
    let (input, plain) = cost(vec![]);
    assert_eq!(plain, 2 * input + 3 * OUTPUT, "written to a cache");
    assert_eq!(cost(vec![cheap]).1, 2 * 1_500 + 3 * OUTPUT, "a shorter prompt is dearer");
    assert_eq!(cost(vec![tier(1_000, 9 * micros), cheap]).1, 9 * 1_500 + 3 * OUTPUT, "not written to one");
    let brief = Tier { above_prompt_tokens: 1_001, ..cheap };
    assert_eq!(cost(vec![tier(1_000, 9 * micros), brief]).1, 9 * 1_001 + 3 * OUTPUT);
    assert_eq!(cost(vec![tier(input, 9 * micros)]).1, plain, "no prompt is as long as that");
}

#[test]
fn what_was_measured_counts_as_it_was_and_what_came_since_by_its_bytes() {
    let mut session = Session::running();
    let unmeasured = bound::next_call(&session.state, &session.context);
    assert_eq!(unmeasured.output, bound::MAX_OUTPUT_TOKENS);
    measure(&mut session, 5_000);
    let bound = bound::next_call(&session.state, &session.context).input;
    assert!((5_100..5_400).contains(&bound), "{bound}");
    session.run(Command::Configure(Box::new(configuration())));
    let reconfigured = bound::next_call(&session.state, &session.context).input;
    assert!(reconfigured < 5_000, "nothing that is sent now was measured: {reconfigured}");
}

#[test]
fn a_summary_costs_its_instruction_too_and_another_model_is_not_taken_for_the_measured_one() {
    let summary = |summariser: Option<&str>, instruction: &str| {
        let summariser = summariser.map(|name| {
            Box::new(ModelChoice { max_output_tokens: Some(7), ..ModelChoice::new("scripted", name) })
        });
        let configuration = Box::new(Configuration { summariser, ..configuration() });
        let mut session = Session::created();
        session.run(Command::Configure(configuration)).send("go").acquire().prepare();
        measure(&mut session, 50);
        let answer = bound::next_call(&session.state, &session.context);
        (answer, bound::next_summary(&session.state, &session.context, instruction))
    };
    let (answer, asked) = summary(None, &"word ".repeat(2_000));
    assert!((10_000..10_100).contains(&(asked.input - answer.input)), "{asked:?}, {answer:?}");
    let (known, another) = (summary(Some("script.toml"), "").1, summary(Some("another"), "").1);
    assert_eq!((known.output, another.output), (7, 7));
    assert!(known.input < 1_000, "what was measured counts: {known:?}");
    assert!(another.input > known.input + 1_000, "all of it counts by its bytes: {another:?}");
}

/// Makes a step for which so many tokens were measured.
fn measure(session: &mut Session, input_tokens: u64) {
    let measured = Measured { input_tokens, items: 1, bytes: 5, pruned_to: 0 };
    let Step::Model { items, calls, finish, .. } = crate::driver::model_step(&[call("a")]) else { return };
    let timing = Timing::default();
    let step = Box::new(Step::Model { items, calls, finish, response_id: None, measured, timing });
    let (basis, spend) = (session.basis(), session.spend(0));
    session.own(OwnerAction::CommitStep { basis, step, spend }).tools(&[("a", Outcome::Ok)]);
}

#[test]
fn what_either_of_two_calls_may_have_cost_is_no_more_than_one_of_them() {
    let call = Usage { input: 100, output: 800, cost_micros: 5, ..Usage::default() };
    let summary = Usage { input: 900, output: 7, cost_micros: 3, ..Usage::default() };
    let most = bound::either(call, summary);
    assert_eq!((most.budget_tokens(), most.cost_micros), (907, 5));
    assert_eq!(bound::either(summary, call), most);
}

#[test]
fn a_picture_counts_by_a_number_and_a_document_by_its_bytes_too() {
    let with = |media_type: &str| {
        let mut session = Session::running();
        let data = "A".repeat(400_000);
        let file = Item::File { name: None, media_type: media_type.to_owned(), data };
        let (point, name, decision) = ("pre_model".to_owned(), "hook".to_owned(), "add".to_owned());
        session.own(OwnerAction::RecordHook { point, name, decision, items: vec![file] });
        bound::next_call(&session.state, &session.context).input
    };
    assert!((bound::FILE_TOKENS..bound::FILE_TOKENS + 4_000).contains(&with("image/png")));
    assert!(with("application/pdf") > 400_000);
}

#[test]
fn usage_of_a_turn_that_is_not_for_the_goal_is_the_sessions() {
    let mut session = Session::created();
    let budget = Budget { tokens: Some(100), hard: true, ..Budget::default() };
    session.run(set_goal(1, "All tests pass", budget)).acquire().prepare();
    let reason = longhaul_session::entry::FinishReason::HardBudget(BudgetKind::Tokens);
    session.own(OwnerAction::FinishTurn { reason, spend: Spend::default() });
    assert_eq!(session.goal().status, GoalStatus::BudgetLimited);
    session.send("what now?").acquire();
    assert_eq!(session.state.works_for(), None);
    let most = Usage { input: 1_000_000, ..Usage::default() };
    assert_eq!(session.state.without_room(&most, 0), None, "a person is answered");
}

#[test]
fn a_hard_budget_leaves_room_for_a_call_that_just_fits() {
    let used = GoalUsage { tokens: 40, active_ms: 40, cost_micros: 40, ..GoalUsage::default() };
    let tokens = |tokens| Usage { input: tokens, ..Usage::default() };
    let cost = |cost_micros| Usage { cost_micros, ..Usage::default() };
    let nothing = Usage::default();
    for (budget, most, unpaid_ms, expected) in [
        (token_budget(100), tokens(60), 0, None),
        (token_budget(100), tokens(61), 0, Some(BudgetKind::Tokens)),
        (Budget { cost_micros: Some(100), ..Budget::default() }, cost(60), 0, None),
        (Budget { cost_micros: Some(100), ..Budget::default() }, cost(61), 0, Some(BudgetKind::Cost)),
        (Budget { active_ms: Some(100), ..Budget::default() }, nothing, 59, None),
        (Budget { active_ms: Some(100), ..Budget::default() }, nothing, 60, Some(BudgetKind::Time)),
        (Budget::default(), tokens(u64::MAX), u64::MAX, None),
    ] {
        assert_eq!(budget.without_room(&used, &most, unpaid_ms), expected, "{budget:?}");
    }
}

#[test]
fn the_time_that_is_left_is_known_where_a_hard_budget_is_worked_under() {
    let session = |budget: Budget| {
        let mut session = Session::created();
        session.run(set_goal(1, "All tests pass", budget)).acquire().prepare();
        let spend = Spend { active_ms: 40, ..session.spend(0) };
        session.own(OwnerAction::Settle { spend });
        session
    };
    let soft = Budget { active_ms: Some(100), ..Budget::default() };
    let mut hard = session(Budget { hard: true, ..soft });
    let left = |unpaid_ms| hard.state.hard_time_left_ms(unpaid_ms);
    assert_eq!((left(0), left(25), left(99)), (Some(60), Some(35), Some(0)));
    assert_eq!(session(soft).state.hard_time_left_ms(0), None);
    assert_eq!(session(Budget { hard: true, ..token_budget(100) }).state.hard_time_left_ms(0), None);
    hard.run(Command::SetMode(Mode::Plan));
    assert_eq!(hard.state.hard_time_left_ms(0), None, "plans are not on its account");
}
