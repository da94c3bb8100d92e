//! What is owed: one test for each rule, in their order, and the delays between attempts.

use longhaul_session::agent::Limits;
use longhaul_session::command::{Command, OwnerAction};
use longhaul_session::entry::{CallFact, FinishReason, Place};
use longhaul_session::failure::{FailureClass, retry_delay_ms};
use longhaul_session::goal::{Budget, BudgetKind};
use longhaul_session::id::{CallId, Digest, Timestamp};
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::owed::{View, Work};
use longhaul_session::state::Overflow;
use longhaul_session::usage::Spend;

use crate::driver::{Session, call, configuration, failure, ids, retry, set_goal};

const LIMITS: Limits = Limits {
    max_steps: 2,
    max_crashes: 2,
    retry_for_ms: 0,
    retry_for_goal_ms: 0,
    max_compaction_failures: 2,
    compact_above_tokens: 8_000,
    retained_turns: 2,
    retained_tokens: 2_000,
    model_call_ms: 0,
    model_first_part_ms: 1_000,
    model_idle_ms: 1_000,
    check_ms: 1_000,
};

/// What is owed when the next request would have this size.
fn owed_at(session: &Session, next_request_tokens: u64) -> Work {
    session.owed_with(&View { next_request_tokens, ..session.view() }, &LIMITS)
}

fn run(run: &[&str], unknown: &[&str]) -> Work {
    Work::RunCalls { run: ids(run), unknown: ids(unknown) }
}

fn failed_with(work: Work) -> Option<FailureClass> {
    if let Work::Fail(failure) = work { Some(failure.class) } else { None }
}

fn retrying(session: &mut Session, class: FailureClass, delay_ms: u64) {
    let retry = retry(class, session.now.plus_ms(delay_ms));
    let action = OwnerAction::BeginRetry {
        basis: session.basis(),
        failure: failure(class),
        retry,
        spend: Spend::default(),
    };
    session.own(action);
}

#[test]
fn a_session_at_rest_owes_nothing() {
    assert_eq!(Session::finished().owed(), Work::Rest);
    assert_eq!(Session::failed().owed(), Work::Rest);
}

#[test]
fn nothing_is_owed_by_a_runner_that_does_not_own_the_session() {
    let mut session = Session::running();
    let old = session.view();
    session.take_over();
    assert_eq!(session.owed_with(&old, &LIMITS), Work::Leave);
    session.own(OwnerAction::Release { not_started: vec![] });
    assert_eq!(session.owed(), Work::Leave);
}

#[test]
fn an_interruption_is_finished_before_anything_else() {
    let mut session = Session::running();
    session.model(&[call("a")]).take_over().take_over().run(Command::Interrupt { drop_queue: false });
    assert_eq!(owed_at(&session, u64::MAX), Work::FinishInterruption);
}

#[test]
fn while_others_must_answer_only_a_deadline_is_waited_for() {
    let mut session = Session::running();
    session.model(&[CallFact { place: Place::Client, ..call("a") }]);
    let deadline = session.now.plus_ms(60_000);
    session.own(OwnerAction::AwaitAction { deadlines: vec![("a".into(), deadline)] });
    session.now = deadline;
    session.acquire();
    assert_eq!(session.owed(), Work::CancelAction);
    session.now = deadline.plus_ms(0);
    let early = View { now: Timestamp(deadline.0 - 1), ..session.view() };
    assert_eq!(session.owed_with(&early, &LIMITS), Work::WaitUntil(deadline));
}

#[test]
fn a_session_that_keeps_losing_its_worker_fails() {
    let mut session = Session::running();
    session.take_over();
    assert_eq!(owed_at(&session, 0), Work::CallModel);
    session.take_over();
    assert_eq!(failed_with(owed_at(&session, 0)), Some(FailureClass::CrashLoop));
}

#[test]
fn a_retry_is_waited_for_until_its_time_has_come() {
    let mut session = Session::running();
    retrying(&mut session, FailureClass::Overloaded, 5_000);
    let not_before = session.state.retry.map(|retry| retry.not_before).unwrap();
    assert_eq!(session.owed(), Work::WaitUntil(not_before));
    session.now = not_before;
    assert_eq!((session.owed(), session.state.attempt), (Work::CallModel, 1));
}

#[test]
fn local_calls_of_this_epoch_run_before_others_are_awaited() {
    let mut session = Session::running();
    session.model(&[CallFact { place: Place::Client, ..call("a") }, call("b"), call("c")]);
    assert_eq!(session.owed(), run(&["b", "c"], &[]));
    session.tools(&[("b", Outcome::Ok)]);
    assert_eq!(session.owed(), run(&["c"], &[]));
    session.tools(&[("c", Outcome::Ok)]);
    assert_eq!(session.owed(), Work::AwaitAction);
}

#[test]
fn of_a_lost_epoch_only_calls_that_may_be_repeated_run_again() {
    let mut session = Session::running();
    let of = |id, effect| CallFact { effect, ..call(id) };
    let (pure, idempotent) = (of("b", EffectClass::Pure), of("c", EffectClass::Idempotent));
    session.model(&[call("a"), pure, idempotent]).take_over();
    assert_eq!(session.owed(), run(&["b", "c"], &["a"]));
}

#[test]
fn calls_given_back_unstarted_run_in_the_next_epoch() {
    let mut session = Session::running();
    session.model(&[call("a"), call("b")]).own(OwnerAction::Release { not_started: ids(&["a"]) }).acquire();
    assert_eq!(session.owed(), run(&["a"], &["b"]));
}

#[test]
fn a_call_that_must_be_alone_and_is_not_rejects_its_whole_step() {
    let exclusive = CallFact { exclusive: true, ..call("a") };
    let mut session = Session::running();
    session.model(&[exclusive.clone(), CallFact { place: Place::Client, ..call("b") }]);
    assert_eq!(session.owed(), Work::RejectCalls(ids(&["a", "b"])));
    session.tools(&[("a", Outcome::Rejected), ("b", Outcome::Rejected)]);
    assert_eq!((session.owed(), session.broken_pairing()), (Work::CallModel, None));
    let mut alone = Session::running();
    alone.model(&[exclusive]);
    assert_eq!(alone.owed(), run(&["a"], &[]));
}

#[test]
fn a_result_of_a_stop_after_tool_ends_the_turn_if_it_really_ran() {
    let calls = [CallFact { stop_after: true, ..call("a") }];
    let mut session = Session::running();
    session.model(&calls).tools(&[("a", Outcome::Ok)]);
    assert_eq!(session.owed(), Work::FinishTurn(FinishReason::StopAfterTool));
    let mut denied = Session::running();
    denied.model(&calls).tools(&[("a", Outcome::Denied)]);
    assert_eq!(denied.owed(), Work::CallModel);
}

#[test]
fn a_compaction_that_was_asked_for_is_all_its_turn_does() {
    let mut session = Session::finished();
    let turn = session.state.turn.number;
    session.run(Command::RequestCompaction).acquire();
    assert_eq!(session.owed(), Work::Compact);
    assert_eq!(session.state.turn.number, turn + 1);
    session.compact();
    assert_eq!(session.owed(), Work::FinishTurn(FinishReason::Compacted));
}

#[test]
fn a_failed_compaction_that_was_asked_for_ends_its_turn_too() {
    let mut session = Session::finished();
    session.run(Command::RequestCompaction).acquire();
    fail_compaction(&mut session);
    assert_eq!(session.owed(), Work::FinishTurn(FinishReason::Compacted));
}

#[test]
fn a_response_without_calls_ends_the_turn_after_a_compaction_if_that_is_due() {
    let mut session = Session::running();
    session.model(&[]);
    assert_eq!(owed_at(&session, 7_000), Work::FinishTurn(FinishReason::Complete));
    assert_eq!(owed_at(&session, 7_001), Work::Compact);
    let mut failing = session.clone();
    (0..LIMITS.max_compaction_failures).for_each(|_| fail_compaction(&mut failing));
    assert_eq!(owed_at(&failing, 7_001), Work::FinishTurn(FinishReason::Complete));
    session.compact();
    assert_eq!(owed_at(&session, 7_001), Work::FinishTurn(FinishReason::Complete));
}

#[test]
fn a_turn_has_a_limited_number_of_model_steps() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    assert_eq!(owed_at(&session, 0), Work::CallModel);
    session.model(&[call("b")]).tools(&[("b", Outcome::Ok)]);
    assert_eq!(owed_at(&session, 0), Work::FinishTurn(FinishReason::MaxSteps));
}

#[test]
fn the_prompt_then_steering_then_files_come_before_the_model_is_called() {
    let mut session = Session::created();
    session.send("begin").acquire().run(set_goal(1, "objective", Budget::default()));
    let digest = Digest::of(b"files");
    let view = View { context_digest: Some(digest), ..session.view() };
    let owed = |session: &Session| session.owed_with(&View { now: session.now, ..view }, &LIMITS);
    assert_eq!(owed(&session), Work::Prepare);
    session.prepare();
    assert_eq!(owed(&session), Work::CommitSteering);
    session.own(OwnerAction::CommitSteering);
    assert_eq!(owed(&session), Work::CommitContext);
    session.own(OwnerAction::CommitContext { items: vec![Item::Redacted], digest });
    assert_eq!(owed(&session), Work::CallModel);
    let changed = View { context_digest: Some(Digest::of(b"changed")), ..view };
    assert_eq!(session.owed_with(&changed, &LIMITS), Work::CommitContext);
}

#[test]
fn an_answer_that_is_being_made_is_picked_up_before_the_model_is_told_anything() {
    let mut session = Session::running();
    let action = session.naming("r", false);
    session.own(action).run(set_goal(1, "objective", Budget::default()));
    assert!(session.state.steering_is_due());
    assert_eq!(session.owed(), Work::CallModel);
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    assert_eq!(session.owed(), Work::CommitSteering);
}

#[test]
fn an_answer_that_is_being_made_is_picked_up_unless_the_time_of_a_hard_budget_is_over() {
    let mut session = Session::running();
    let action = session.naming("r", false);
    session.own(action);
    let owed = |kind| {
        let view = View { without_room: Some(kind), ..session.view() };
        session.owed_with(&view, &LIMITS)
    };
    assert_eq!(owed(BudgetKind::Tokens), Work::CallModel, "it had room when it began");
    assert_eq!(owed(BudgetKind::Time), Work::FinishTurn(FinishReason::HardBudget(BudgetKind::Time)));
}

#[test]
fn a_summary_that_is_being_made_is_picked_up_as_one_though_its_reason_is_gone() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    retrying(&mut session, FailureClass::ContextOverflow, 0);
    assert_eq!(owed_at(&session, 0), Work::Compact);
    session.own(session.naming("r", true));
    retrying(&mut session, FailureClass::Network, 0);
    assert_eq!(owed_at(&session, 0), Work::Compact);
    session.compact();
    assert_eq!(owed_at(&session, 0), Work::CallModel);
}

#[test]
fn a_request_over_the_threshold_is_compacted_first_and_not_twice() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    assert_eq!(owed_at(&session, 8_000), Work::CallModel);
    assert_eq!(owed_at(&session, 8_001), Work::Compact);
    session.compact();
    assert_eq!(failed_with(owed_at(&session, 8_001)), Some(FailureClass::ContextStillOverLimit));
}

#[test]
fn a_summary_that_a_hard_budget_leaves_no_room_for_ends_the_turn() {
    let without = |session: &Session, next_request_tokens: u64| {
        let without_room_to_compact = Some(BudgetKind::Cost);
        let view = View { without_room_to_compact, next_request_tokens, ..session.view() };
        session.owed_with(&view, &LIMITS)
    };
    let ended = Work::FinishTurn(FinishReason::HardBudget(BudgetKind::Cost));
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    assert_eq!(without(&session, 8_000), Work::CallModel, "an answer has room");
    assert_eq!(without(&session, 8_001), ended);
    session.model(&[]);
    assert_eq!(owed_at(&session, 8_001), Work::Compact);
    assert_eq!(without(&session, 8_001), Work::FinishTurn(FinishReason::Complete));
    session.finish().run(Command::RequestCompaction).acquire();
    assert_eq!(without(&session, 0), ended);
    retrying(&mut session, FailureClass::Network, 60_000);
    assert_eq!(without(&session, 0), ended, "what has no room is not waited for");
    assert!(matches!(session.owed(), Work::WaitUntil(_)));
}

#[test]
fn an_overflow_the_provider_reports_is_compacted_whatever_the_estimate() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    retrying(&mut session, FailureClass::ContextOverflow, 0);
    assert_eq!(owed_at(&session, 0), Work::Compact);
    session.compact();
    assert_eq!(owed_at(&session, 0), Work::CallModel);
    retrying(&mut session, FailureClass::ContextOverflow, 0);
    let Work::Fail(failure) = owed_at(&session, 7) else { panic!("it cannot go on") };
    assert_eq!(failure.class, FailureClass::ContextStillOverLimit);
    let told = "the next request has about 7 tokens, more than the model takes, and there is nothing left to summarise";
    assert_eq!(failure.message, told);
}

#[test]
fn compactions_that_keep_failing_are_no_longer_tried_unless_asked_for() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    fail_compaction(&mut session);
    assert_eq!(owed_at(&session, 8_001), Work::Compact);
    fail_compaction(&mut session);
    assert_eq!((session.state.compaction_failures, owed_at(&session, 8_001)), (2, Work::CallModel));
    retrying(&mut session, FailureClass::ContextOverflow, 0);
    assert_eq!(failed_with(owed_at(&session, 0)), Some(FailureClass::ContextOverflow));
    session.fail(FailureClass::ContextOverflow).run(Command::RequestCompaction).acquire();
    assert_eq!(session.owed(), Work::Compact);
    session.compact();
    assert_eq!(session.state.compaction_failures, 0);
}

#[test]
fn when_automatic_compaction_ends_the_models_own_troubles_are_counted_anew() {
    let after = |class, automatic_off| {
        let mut session = Session::running();
        session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
        retrying(&mut session, class, 0);
        fail_compaction_and(&mut session, automatic_off);
        session.state.retry.map(|retry| retry.class)
    };
    let (overloaded, overflow) = (FailureClass::Overloaded, FailureClass::ContextOverflow);
    assert_eq!((after(overloaded, true), after(overloaded, false)), (None, Some(overloaded)));
    assert_eq!((after(overflow, true), after(overflow, false)), (None, Some(overflow)));
}

#[test]
fn what_was_too_large_for_the_model_is_so_until_the_history_is_another() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    retrying(&mut session, FailureClass::ContextOverflow, 0);
    retrying(&mut session, FailureClass::Overloaded, 0);
    assert_eq!(owed_at(&session, 0), Work::Compact, "the summary is tried again");
    fail_compaction(&mut session);
    assert_eq!(owed_at(&session, 0), Work::Compact);
    let mut told = session.clone();
    told.run(set_goal(1, "objective", Budget::default())).own(OwnerAction::CommitSteering);
    assert_eq!(owed_at(&told, 0), Work::Compact, "what is told makes it no smaller");
    let mut given_up = session.clone();
    fail_compaction_and(&mut given_up, true);
    assert_eq!(failed_with(owed_at(&given_up, 0)), Some(FailureClass::ContextOverflow));
    let mut configured = session.clone();
    configured.run(Command::Configure(Box::new(configuration()))).prepare();
    assert_eq!(owed_at(&configured, 0), Work::CallModel, "another model may take it");
    session.fail(FailureClass::Unknown).send("once more").acquire();
    assert_eq!(owed_at(&session, 0), Work::CallModel, "less of it may be shown now");
}

#[test]
fn a_summary_that_was_too_large_for_its_model_keeps_no_answer_from_being_asked_for() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    for automatic_off in [false, true] {
        let (basis, failure) = (session.basis(), failure(FailureClass::ContextOverflow));
        let spend = Spend::default();
        session.own(OwnerAction::FailCompaction { basis, failure, spend, automatic_off });
        assert_eq!(session.state.overflow, Overflow::Summary);
    }
    assert_eq!(owed_at(&session, 8_001), Work::CallModel);
}

#[test]
fn a_summary_that_fails_says_nothing_of_what_is_too_large_unless_it_is() {
    let overflow = |class| {
        let mut session = Session::running();
        session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
        let mut too_large = session.clone();
        retrying(&mut too_large, FailureClass::ContextOverflow, 0);
        [session, too_large].map(|mut session| {
            let (basis, failure, spend) = (session.basis(), failure(class), Spend::default());
            session.own(OwnerAction::FailCompaction { basis, failure, spend, automatic_off: false });
            session.state.overflow
        })
    };
    assert_eq!(overflow(FailureClass::Server), [Overflow::None, Overflow::Request]);
    assert_eq!(overflow(FailureClass::ContextOverflow), [Overflow::Summary, Overflow::Request]);
}

#[test]
fn what_a_state_has_nothing_of_is_not_written() {
    let written = serde_json::to_value(&Session::running().state).unwrap();
    assert!(written.get("overflow").is_none() && written.get("overtaken").is_none(), "{written}");
}

#[test]
fn a_failed_compaction_counts_as_an_attempt() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    let before = session.basis();
    fail_compaction(&mut session);
    assert_eq!(session.basis().attempt, before.attempt + 1);
    assert_eq!(session.state.last_error, Some(failure(FailureClass::Network)));
}

#[test]
fn an_approved_call_runs_and_the_others_are_awaited_no_more() {
    let mut session = Session::awaiting(Place::Approval);
    let answer = longhaul_session::command::Answer::Allow;
    session.run(Command::Answer { call: CallId::from("a"), answer, remember: false }).acquire();
    assert_eq!(session.owed(), run(&["a"], &[]));
}

#[test]
fn delays_double_from_one_second_to_one_minute_with_full_jitter() {
    let longest: Vec<u64> = (0..9).map(|attempt| retry_delay_ms(attempt, None, 1.0)).collect();
    assert_eq!(longest, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    assert_eq!(retry_delay_ms(u32::MAX, None, 1.0), 60_000);
    assert_eq!((retry_delay_ms(3, None, 0.0), retry_delay_ms(3, None, 0.5)), (0, 4_000));
    assert_eq!((retry_delay_ms(0, None, -1.0), retry_delay_ms(0, None, 7.0)), (0, 1_000));
    assert_eq!(retry_delay_ms(0, None, f64::NAN), 0);
}

#[test]
fn only_what_may_be_otherwise_later_is_tried_again() {
    use FailureClass::{
        Auth, ChainBroken, ContentFilter, ContextOverflow, ContextStillOverLimit, Corrupt, CrashLoop,
        InvalidRequest, Network, Overloaded, Preparation, Quota, RateLimited, Server, Timeout, Unknown,
    };
    let later = [Overloaded, RateLimited, Timeout, Network, Server, ContextOverflow, ChainBroken];
    let never = [
        Auth,
        InvalidRequest,
        ContentFilter,
        Quota,
        Unknown,
        CrashLoop,
        ContextStillOverLimit,
        Preparation,
        Corrupt,
    ];
    assert!(later.into_iter().all(FailureClass::is_retryable));
    assert!(!never.into_iter().any(FailureClass::is_retryable));
    assert_eq!(Timestamp(70).since_ms(Timestamp(20)), 50, "how long it has been tried");
    assert_eq!(Timestamp(20).since_ms(Timestamp(70)), 0, "a clock was set back");
}

#[test]
fn a_servers_wish_wins_if_it_is_longer() {
    assert_eq!(retry_delay_ms(0, Some(90_000), 1.0), 90_000);
    assert_eq!(retry_delay_ms(4, Some(10), 1.0), 16_000);
    assert_eq!(retry_delay_ms(4, Some(10), 0.0), 10);
}

fn fail_compaction(session: &mut Session) {
    fail_compaction_and(session, false);
}

fn fail_compaction_and(session: &mut Session, automatic_off: bool) {
    let (basis, failure, spend) = (session.basis(), failure(FailureClass::Network), Spend::default());
    session.own(OwnerAction::FailCompaction { basis, failure, spend, automatic_off });
}
