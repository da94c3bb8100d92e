//! What fits into a model's window: how large requests are, what is pruned from them, and that requests which
//! follow each other begin alike. What a compaction keeps has a module of its own.

use std::sync::Arc;

use longhaul_session::agent::{Limits, Request};
use longhaul_session::command::{Command, Cut, OwnerAction, Ran, Refusal, Step};
use longhaul_session::context::{Estimate, Extent, MIN_SAVINGS_TOKENS, Needed, Scale, Source, UserMessage};
use longhaul_session::entry::{CallFact, Measured};
use longhaul_session::goal::Budget;
use longhaul_session::id::{CallId, EntryNo};
use longhaul_session::item::{Outcome, ToolResult};
use longhaul_session::owed::{View, Work};
use longhaul_session::usage::Spend;
use proptest::prelude::*;

use crate::driver::{Session, call, configuration, model_step, read_back, result, set_goal};

/// A step of the model that was measured: so many tokens for each byte that it was sent.
pub(crate) fn measured_step(session: &Session, calls: &[CallFact], tokens_per_byte: u64) -> OwnerAction {
    let mut step = model_step(calls);
    if let Step::Model { measured, .. } = &mut step {
        let pruned_to = session.context.outlook().pruned_to;
        let request = session.context.request_pruned_to(pruned_to);
        let items = request.items.len() as u64;
        let bytes: u64 = request.items.iter().map(|item| item.text_bytes()).sum();
        *measured = Measured { input_tokens: tokens_per_byte * bytes, items, bytes, pruned_to };
    }
    OwnerAction::CommitStep { basis: session.basis(), step: Box::new(step), spend: session.spend(1) }
}

/// The result of a call that said so much.
pub(crate) fn said(id: &CallId, output: String) -> Ran {
    Ran { result: ToolResult { output, ..result(&id.0, Outcome::Ok) }, ran: None }
}

pub(crate) fn answered(session: &mut Session, calls: &[&str], output: &str) {
    let results = calls.iter().map(|id| said(&CallId::from(*id), output.to_owned())).collect();
    let step = Box::new(Step::Tools { results, goal: None });
    session.own(OwnerAction::CommitStep { basis: session.basis(), step, spend: Spend::default() });
}

/// A turn in which one tool says so much.
pub(crate) fn turn(session: &mut Session, id: &str, output: &str) {
    session.own(measured_step(session, &[call(id)], 1));
    answered(session, &[id], output);
    session.own(measured_step(session, &[], 1)).finish().send("go on").acquire();
}

fn outputs(session: &Session) -> Vec<usize> {
    let request = session.context.request_pruned_to(session.context.outlook().pruned_to);
    request.items.iter().filter_map(|item| item.tool_result()).map(|result| result.output.len()).collect()
}

pub(crate) fn limits(compact_above_tokens: u64) -> Limits {
    Limits { compact_above_tokens, ..Limits::default() }
}

#[test]
fn before_anything_was_measured_bytes_are_counted() {
    let session = Session::running();
    let bytes = session.context.bytes() + "You work.".len() as u64;
    let guessed = Estimate { tokens: bytes.div_ceil(4), source: Source::Guessed };
    assert_eq!(session.context.outlook().estimate, guessed);
}

#[test]
fn what_follows_a_measurement_is_extrapolated_and_what_precedes_it_interpolated() {
    let mut session = Session::running();
    let sent = session.context.items().len();
    session.own(measured_step(&session, &[call("a")], 1));
    let measured = session.context.estimate(sent);
    assert_eq!(measured, Estimate { tokens: 5, source: Source::Measured });
    answered(&mut session, &["a"], &"word ".repeat(100));
    let next = session.context.outlook().estimate;
    assert_eq!(next.source, Source::Extrapolated);
    assert!((100..=520).contains(&next.tokens), "{next:?}");
    session.own(measured_step(&session, &[], 1)).finish().send("more");
    assert_eq!(session.context.estimate(sent + 1).source, Source::Interpolated);
    assert_eq!(session.context.estimate(sent), measured);
}

#[test]
fn an_edit_and_a_compaction_forget_what_was_measured_of_what_is_gone() {
    let mut session = Session::running();
    session.own(measured_step(&session, &[], 1)).finish().send("more").acquire();
    session.own(measured_step(&session, &[], 1));
    let mut edited = session.clone();
    let target = edited.context.last_user_message().expect("it is there");
    edited.run(Command::Edit { target, message: "less".into() });
    assert_eq!(edited.context.outlook().estimate.source, Source::Extrapolated);
    assert_eq!(edited.context.estimate(1).source, Source::Measured);
    session.compact();
    assert_eq!(session.context.outlook().estimate.source, Source::Guessed);
}

#[test]
fn old_results_are_pruned_once_that_saves_enough_and_stay_pruned() {
    let mut session = Session::running();
    let large = format!("first line\n{}", "x".repeat(2_500));
    for id in ["a", "b", "c"] {
        turn(&mut session, id, &large);
    }
    assert_eq!(outputs(&session), [large.len(); 3], "one turn is old, and saves too little");
    turn(&mut session, "d", &large);
    let sizes = outputs(&session);
    assert!(sizes[0] < 200 && sizes[1] < 200, "{sizes:?}");
    assert_eq!(sizes[2..], [large.len(); 2]);
    assert_eq!(session.state.pruned_to, 0, "nothing is decided before the model has answered");
    let outlook = session.context.outlook();
    session.own(measured_step(&session, &[], 1));
    assert_eq!(session.state.pruned_to, outlook.pruned_to);
    let first = session.context.items().iter().find_map(|(_, item)| item.tool_result()).expect("it is there");
    assert!(first.output.contains("2511 bytes") && first.output.contains("first line"), "{}", first.output);
    assert_eq!(outputs(&session), sizes);
    assert_eq!(read_back(&session.entries, &session.state), session.context);
    session.finish().send("again").acquire();
    assert_eq!(outputs(&session)[..2], sizes[..2]);
    assert_eq!(session.context.outlook().pruned_to, session.state.pruned_to, "one more saves too little");
}

#[test]
fn nothing_is_pruned_by_guess() {
    let mut session = Session::running();
    for id in ["a", "b", "c", "d", "e"] {
        session.model(&[call(id)]);
        answered(&mut session, &[id], &"x".repeat(40_000));
        session.model(&[]).finish().send("go on").acquire();
    }
    assert_eq!(session.context.outlook().pruned_to, 0);
}

#[test]
fn a_step_cannot_show_again_what_was_pruned() {
    let mut session = Session::running();
    for id in ["a", "b", "c", "d"] {
        turn(&mut session, id, &"x".repeat(5_000));
    }
    session.own(measured_step(&session, &[call("e")], 1));
    assert!(session.state.pruned_to > 0);
    answered(&mut session, &["e"], "done");
    let step = Box::new(model_step(&[]));
    let action = OwnerAction::CommitStep { basis: session.basis(), step, spend: Spend::default() };
    assert!(matches!(session.refusal(session.owned(action)), Refusal::Invalid(_)));
}

#[test]
fn pruning_ends_a_conversation_that_the_provider_keeps() {
    let mut session = Session::created();
    let mut chained = configuration();
    chained.model.chain = true;
    session.run(Command::Configure(Box::new(chained))).send("begin").acquire().prepare();
    for id in ["a", "b", "c", "d"] {
        session.own(measured_step(&session, &[call(id)], 1));
        answered(&mut session, &[id], &"x".repeat(5_000));
        let OwnerAction::CommitStep { basis, mut step, spend } = measured_step(&session, &[], 1) else {
            continue;
        };
        if let Step::Model { response_id, .. } = &mut *step {
            *response_id = Some(format!("response {id}"));
        }
        session.own(OwnerAction::CommitStep { basis, step, spend }).finish().send("go on").acquire();
    }
    let outlook = session.context.outlook();
    assert!(session.context.request().previous.is_some() && outlook.pruned_to > 0);
    assert_eq!(session.context.request_pruned_to(outlook.pruned_to).previous, None);
}

#[test]
fn what_is_pruned_of_a_result_is_shorter_and_says_how_it_began() {
    for bytes in 1..400 {
        let output = "y".repeat(bytes);
        let mut session = Session::running();
        session.model(&[call("a")]);
        answered(&mut session, &["a"], &output);
        let pruned = session.context.request_pruned_to(session.state.head);
        let shown = &pruned.items[2].tool_result().expect("it is the third item").output;
        assert!(*shown == output || shown.len() < bytes && shown.contains("yyy"), "{bytes}: {shown}");
        assert!(*shown == output || bytes > 120, "a short one stays as it is");
        assert!(*shown != output || bytes < 200, "{bytes}: a long one does not");
    }
}

#[test]
fn pruning_must_save_enough_tokens() {
    let pruned_when = |output: String| {
        let mut session = Session::running();
        turn(&mut session, "a", &output);
        turn(&mut session, "b", "short");
        turn(&mut session, "c", "short");
        session.context.outlook().pruned_to > 0
    };
    let least = (4_000..5_000).find(|bytes| pruned_when("x".repeat(*bytes))).expect("it is worth it then");
    let line =
        format!("[{least} bytes of an old result are not shown any more; they began: {}]", "x".repeat(120));
    // Each byte is a token, but for those of the prompt, which were not measured.
    let bytes = "begin".len() + "write{}".len() + least + "Done.".len();
    let saved = bytes * (least - line.len()) / (bytes + "You work.".len());
    assert_eq!(saved as u64, MIN_SAVINGS_TOKENS);
}

#[test]
fn results_in_the_entry_that_begins_a_protected_turn_are_shown_whole() {
    let mut session = Session::running();
    session.own(measured_step(&session, &[call("a")], 1));
    session.run(Command::Send { message: "now".into(), interrupt: true });
    let finished = vec![said(&CallId::from("a"), "x".repeat(20_000))];
    let (cut, spend) = (Cut { finished, started: Vec::new() }, Spend::default());
    session.own(OwnerAction::FinishInterruption { cut, partial: Vec::new(), spend });
    assert_eq!(session.context.items()[2].0, session.context.items()[3].0, "the result and the message");
    for _ in 0..2 {
        session.own(measured_step(&session, &[], 1)).finish().send("go on").acquire();
    }
    assert_eq!(session.context.outlook().pruned_to, 0, "nothing before it is worth it");
    session.own(measured_step(&session, &[], 1)).finish().send("go on").acquire();
    let outlook = session.context.outlook();
    assert!(outlook.pruned_to >= session.context.items()[3].0, "it is old now");
    let whole = session.context.estimate(session.context.items().len());
    assert_eq!((whole.source, outlook.estimate.source), (Source::Extrapolated, Source::Extrapolated));
    assert!((19_700..20_000).contains(&(whole.tokens - outlook.estimate.tokens)), "{whole:?} {outlook:?}");
}

#[test]
fn what_is_pruned_from_a_request_that_was_measured_is_no_longer_measured() {
    let mut session = Session::running();
    for id in ["a", "b", "c", "d"] {
        turn(&mut session, id, &"x".repeat(2_500));
    }
    // Another runner's request, whole, and an answer that says nothing.
    let OwnerAction::CommitStep { basis, mut step, spend } = measured_step(&session, &[], 1) else {
        panic!("it is a step")
    };
    if let Step::Model { items, measured, .. } = &mut *step {
        items.clear();
        measured.pruned_to = 0;
    }
    session.own(OwnerAction::CommitStep { basis, step, spend });
    let whole = session.context.estimate(session.context.items().len());
    let outlook = session.context.outlook();
    assert!(outlook.pruned_to > 0);
    assert_eq!((whole.source, outlook.estimate.source), (Source::Measured, Source::Interpolated));
}

#[test]
fn between_two_measurements_tokens_follow_the_bytes_up_and_down() {
    let between = |fewer, more| {
        let mut scale = Scale::default();
        scale.measured(Extent { items: 1, bytes: 1_000 }, fewer);
        scale.measured(Extent { items: 3, bytes: 2_000 }, more);
        scale.estimate(Extent { items: 2, bytes: 1_250 }).tokens
    };
    assert_eq!((between(400, 800), between(800, 400), between(400, 400)), (500, 700, 400));
}

#[test]
fn a_source_has_the_name_it_is_stored_by() {
    for source in [Source::Measured, Source::Interpolated, Source::Extrapolated, Source::Guessed] {
        assert_eq!(serde_json::json!(source), source.name());
    }
}

#[test]
fn a_scale_learns_nothing_where_nothing_was_counted() {
    let mut scale = Scale::default();
    scale.measured(Extent { items: 1, bytes: 10 }, 0);
    assert!(scale.is_empty());
    scale.measured(Extent { items: 1, bytes: 10 }, 5);
    assert!(!scale.is_empty());
}

#[test]
fn the_rate_beyond_is_that_of_the_newest_part_where_it_tells_one() {
    let beyond = |points: &[(usize, u64, u64)]| {
        let mut scale = Scale::default();
        points.iter().for_each(|(items, bytes, tokens)| {
            scale.measured(Extent { items: *items, bytes: *bytes }, *tokens);
        });
        let (items, bytes, tokens) = points[points.len() - 1];
        scale.estimate(Extent { items: items + 1, bytes: bytes + 1_600 }).tokens - tokens
    };
    assert_eq!(beyond(&[(1, 1_000, 500)]), 800, "its own");
    assert_eq!(beyond(&[(1, 1_000, 500), (2, 2_000, 750)]), 400, "a token for four bytes of the newest");
    assert_eq!(beyond(&[(1, 1_000, 500), (2, 2_000, 500)]), 400, "no more tokens: that of all");
    assert_eq!(beyond(&[(1, 1_000, 500), (2, 1_000, 750)]), 1_200, "no more bytes: that of all");
    assert_eq!(beyond(&[(1, 1_000, 500), (2, 2_000, 3_000)]), 1_600, "no more than one for a byte");
    assert_eq!(beyond(&[(1, 1_000, 500), (2, 2_000, 501)]), 100, "no fewer than one for 16 bytes");
}

#[test]
fn a_request_is_ready_however_long_it_is() {
    let mut session = Session::running();
    let first = session.context.request();
    for n in 0..100 {
        let id = format!("call {n}");
        session.own(measured_step(&session, &[call(&id)], 1));
        answered(&mut session, &[&id], "done");
        let (one, two) = (session.context.request(), session.context.request());
        assert!(Arc::ptr_eq(&one, &two), "nothing is copied to ask for it");
        let (same, _) = one.items.split_at(first.items.len());
        assert!(same.iter().zip(&first.items).all(|(one, two)| Arc::ptr_eq(one, two)));
    }
    // Nobody holds the request of the step before: the new items are added to it where it is.
    let at = Arc::as_ptr(&session.context.request());
    session.own(measured_step(&session, &[call("last")], 1));
    assert_eq!(Arc::as_ptr(&session.context.request()), at);
}

#[test]
fn a_step_late_in_a_session_finds_no_more_than_an_early_one_with_the_same_context() {
    let size_after = |rounds: u64| {
        let mut session = Session::running();
        for round in 0..rounds {
            for n in 0..5 {
                let id = format!("{round} {n}");
                session.own(measured_step(&session, &[call(&id)], 1));
                answered(&mut session, &[&id], "done");
            }
            session.own(measured_step(&session, &[], 1));
            compact(&mut session, &limits(40)).finish().send("more").acquire();
        }
        let state = serde_json::to_vec(&session.state).expect("it is there").len();
        let needed = Needed::of(&session.state);
        let read = needed.single.len() + needed.kept.len() + needed.range.count();
        (session.context.items().len(), read, state, session.state.head)
    };
    let (early, late) = (size_after(1), size_after(400));
    assert!(late.3 > 5_000, "{} entries", late.3);
    assert_eq!((early.0, early.1), (late.0, late.1), "items in the context, entries to read back");
    assert!(late.2 <= early.2 + 100, "the state grew from {} to {} bytes", early.2, late.2);
}

pub(crate) fn compact<'s>(session: &'s mut Session, limits: &Limits) -> &'s mut Session {
    let kept = session.context.kept(&session.state, limits);
    let (basis, summary, spend) = (session.basis(), "What was done.".to_owned(), Spend::default());
    let bytes = kept.bytes + summary.len() as u64;
    session.own(OwnerAction::Compact { basis, summary, keep_from: kept.from, kept: kept.messages, spend });
    assert_eq!(session.context.bytes(), bytes, "what is kept is as large as was said");
    session
}

fn points() -> impl Strategy<Value = Vec<(Extent, u64)>> {
    let step = (1..5_usize, 0..5_000_u64, 1..3_000_u64);
    prop::collection::vec(step, 1..12).prop_map(|steps| {
        let mut at = Extent { items: 0, bytes: 0 };
        let mut points = Vec::new();
        for (items, bytes, tokens) in steps {
            at = Extent { items: at.items + items, bytes: at.bytes + bytes };
            points.push((at, tokens));
        }
        points
    })
}

proptest! {
    /// An estimate says what it is, and lies where it can only be.
    #[test]
    fn estimates_lie_between_and_beyond_what_was_measured(
        points in points(),
        extra_items in 1..5_usize,
        extra_bytes in 0..100_000_u64,
        part in 0.0..1.0_f64,
    ) {
        let mut scale = Scale::default();
        let guess = scale.estimate(Extent { items: 3, bytes: extra_bytes });
        prop_assert_eq!(guess, Estimate { tokens: extra_bytes.div_ceil(4), source: Source::Guessed });
        points.iter().for_each(|(extent, tokens)| scale.measured(*extent, *tokens));
        for (extent, tokens) in &points {
            prop_assert_eq!(scale.estimate(*extent), Estimate { tokens: *tokens, source: Source::Measured });
        }
        for two in points.windows(2).filter(|two| two[1].0.items - two[0].0.items > 1) {
            let [(below, fewer), (above, more)] = two else { continue };
            let bytes = below.bytes + ((above.bytes - below.bytes) as f64 * part) as u64;
            let between = scale.estimate(Extent { items: below.items + 1, bytes });
            prop_assert_eq!(between.source, Source::Interpolated);
            prop_assert!((*fewer.min(more)..=*fewer.max(more)).contains(&between.tokens), "{:?}", between);
        }
        let (last, tokens) = points[points.len() - 1];
        let beyond = scale.estimate(Extent { items: last.items + extra_items, bytes: last.bytes + extra_bytes });
        prop_assert_eq!(beyond.source, Source::Extrapolated);
        prop_assert!((tokens + extra_bytes / 16..=tokens + extra_bytes).contains(&beyond.tokens), "{:?}", beyond);
    }
}

/// What must be alike in two requests that follow each other.
enum Since {
    /// Everything.
    Nothing,
    /// What comes before results that are pruned now.
    Pruned(EntryNo),
    /// What comes before a message that was edited.
    Edited(EntryNo),
    /// Nothing: a boundary lies between them.
    Boundary,
}

/// A session on its way through many steps, and the request that was sent last.
struct Walk {
    session: Session,
    sent: Option<Arc<Request>>,
    entries_sent: Vec<EntryNo>,
    since: Since,
    /// The request that was sent last was the first with newly pruned results.
    pruned_last: bool,
    random: u64,
    steps: u64,
    pruned: u64,
    boundaries: u64,
    edits: u64,
}

impl Walk {
    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    /// Compares the request that is sent now with the one before.
    fn send(&mut self) {
        let session = &self.session;
        let outlook = session.context.outlook();
        if outlook.pruned_to > session.state.pruned_to {
            self.pruned += 1;
            let from = match self.since {
                Since::Nothing => Since::Pruned(session.state.pruned_to),
                Since::Pruned(_) | Since::Edited(_) | Since::Boundary => Since::Boundary,
            };
            self.since = from;
        }
        let request = session.context.request_pruned_to(outlook.pruned_to);
        if let Some(before) = &self.sent {
            let first_pruned = |after: EntryNo| {
                let old = before.items.iter().zip(&self.entries_sent);
                old.take_while(|(item, n)| item.tool_result().is_none() || **n <= after).count()
            };
            let alike = match self.since {
                Since::Nothing => before.items.len(),
                Since::Pruned(after) => first_pruned(after),
                Since::Edited(message) => self.entries_sent.iter().take_while(|n| **n < message).count(),
                Since::Boundary => 0,
            };
            assert_eq!(request.system, before.system);
            assert_eq!(request.items[..alike], before.items[..alike], "step {}", self.steps);
            let shared = request.items[..alike].iter().zip(&before.items);
            let same = shared.into_iter().all(|(one, two)| Arc::ptr_eq(one, two));
            assert!(same || self.pruned_last, "what a wire has written of it is written again");
        }
        self.pruned_last = outlook.pruned_to > self.session.state.pruned_to;
        self.entries_sent = session.context.items().iter().map(|(n, _)| *n).collect();
        self.sent = Some(request);
        self.since = Since::Nothing;
        self.steps += 1;
    }

    fn people(&mut self) {
        let target = self.session.context.last_user_message();
        let target = target.filter(|target| target.entry() > self.session.state.boundary);
        let command = match (self.below(40), target) {
            (0..6, _) => Command::Send { message: "and this".into(), interrupt: false },
            (6, _) => Command::Send { message: "now this".into(), interrupt: true },
            (7, _) => Command::Interrupt { drop_queue: false },
            (8, Some(target)) => Command::Edit { target, message: "rather this".into() },
            (9, _) => set_goal(self.random.into(), "something else", Budget::default()),
            (10, _) if self.below(6) == 0 => Command::ClearContext,
            _ => return,
        };
        let edited = target.filter(|_| matches!(command, Command::Edit { .. })).map(UserMessage::entry);
        let cleared = matches!(command, Command::ClearContext);
        if self.session.attempt(command).is_ok() {
            if let Some(message) = edited {
                self.edits += 1;
                self.since = match self.since {
                    Since::Nothing => Since::Edited(message),
                    Since::Edited(earlier) => Since::Edited(earlier.min(message)),
                    Since::Pruned(_) | Since::Boundary => Since::Boundary,
                };
            }
            if cleared {
                self.since = Since::Boundary;
                self.boundaries += 1;
            }
        }
    }

    /// Another runner takes over, which has read the context back.
    fn crash(&mut self) {
        let read = read_back(&self.session.entries, &self.session.state);
        assert_eq!(read, self.session.context);
        if self.session.state.owner.is_some() {
            self.session.take_over();
        }
    }

    fn go(&mut self) {
        let limits = Limits { compact_above_tokens: 40_000, max_crashes: 100, ..Limits::default() };
        let next_request_tokens = self.session.context.outlook().estimate.tokens;
        let view = View { next_request_tokens, ..self.session.view() };
        let spend = Spend::default();
        let basis = self.session.basis();
        let work = self.session.owed_with(&view, &limits);
        let action = match work {
            Work::Rest => {
                self.session.send("go on");
                return;
            }
            Work::Leave => {
                self.session.acquire();
                return;
            }
            Work::CallModel => {
                self.send();
                let calls = self.below(4).saturating_sub(1);
                let calls: Vec<_> = (0..calls).map(|n| call(&format!("{} {n}", self.steps))).collect();
                measured_step(&self.session, &calls, 1)
            }
            Work::RunCalls { run, unknown } => {
                let calls = if run.is_empty() { unknown } else { run };
                let results = calls.iter().map(|id| {
                    let words = usize::try_from(self.below(800)).expect("small");
                    said(id, format!("{id}\n{}", "word ".repeat(words)))
                });
                let step = Box::new(Step::Tools { results: results.collect(), goal: None });
                OwnerAction::CommitStep { basis, step, spend }
            }
            Work::Compact => {
                self.since = Since::Boundary;
                self.boundaries += 1;
                compact(&mut self.session, &limits);
                return;
            }
            Work::FinishInterruption => {
                OwnerAction::FinishInterruption { cut: Cut::default(), partial: Vec::new(), spend }
            }
            Work::FinishTurn(reason) => OwnerAction::FinishTurn { reason, spend },
            Work::Prepare => OwnerAction::Prepare { system: "You work.".to_owned(), tools: Vec::new() },
            Work::CommitSteering => OwnerAction::CommitSteering,
            Work::Fail(failure) => OwnerAction::Fail { failure, cut: Cut::default(), spend },
            Work::WaitUntil(_)
            | Work::CancelAction
            | Work::RejectCalls(_)
            | Work::AwaitAction
            | Work::GuardFiles
            | Work::CommitContext => unreachable!("nothing waits here: {work:?}"),
        };
        self.session.own(action);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Each request begins as the one before it, up to the newest boundary or newly pruned result: what a
    /// provider has kept of it is good for as long as can be.
    #[test]
    fn a_request_shares_with_the_one_before_all_that_has_not_changed(random in any::<u64>()) {
        let mut walk = Walk {
            session: Session::running(),
            sent: None,
            entries_sent: Vec::new(),
            since: Since::Nothing,
            pruned_last: false,
            random,
            steps: 0,
            pruned: 0,
            boundaries: 0,
            edits: 0,
        };
        for _ in 0..20_000 {
            if walk.steps >= 500 {
                break;
            }
            walk.people();
            if walk.below(30) == 0 {
                walk.crash();
            }
            walk.go();
        }
        prop_assert!(walk.steps >= 500, "only {} steps", walk.steps);
        let seen = (walk.pruned, walk.boundaries, walk.edits);
        prop_assert!(seen.0 > 0 && seen.1 > 0 && seen.2 > 0, "pruned, boundaries, edits: {:?}", seen);
        prop_assert!(walk.session.broken_pairing().is_none());
    }
}
