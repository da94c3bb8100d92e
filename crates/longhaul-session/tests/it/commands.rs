//! What commands do, by rule: the queue, interruptions, answers, owners and epochs, failures, repairs.
//! Goals and what is owed have modules of their own.

use longhaul_session::command::{Answer, Basis, Command, Cut, OwnerAction, Refusal};
use longhaul_session::decide::decide;
use longhaul_session::entry::{Actor, CallFact, Fact, Mode, Place};
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::Budget;
use longhaul_session::id::{CallId, EntryNo};
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::state::{
    MAX_CALLS, MAX_FILES, MAX_GRANTS, MAX_KEPT_MESSAGES, MAX_NAME_CHARS, MAX_QUEUE, MAX_RESPONSE_ID_BYTES,
    Origin, SessionState, Status,
};
use longhaul_session::usage::Spend;

use crate::driver::{
    Session, acquire, call, configuration, failure, finish, ids, model_step, ran, result, retry, send,
    session_id, set_goal, with_files, worker,
};

fn interrupted(cut: Cut) -> OwnerAction {
    OwnerAction::FinishInterruption { cut, partial: Vec::new(), spend: Spend::default() }
}

fn answer(id: &str, answer: Answer) -> Command {
    Command::Answer { call: id.into(), answer, remember: false }
}

fn edit(session: &Session) -> Command {
    let target = session.context.last_user_message().expect("a person has spoken");
    Command::Edit { target, message: "better".into() }
}

#[test]
fn a_message_to_a_busy_session_waits_and_goes_first_in_first_out() {
    let mut session = Session::running();
    session.send("one").send("two");
    let queue = session.state.queue.clone();
    session.model(&[]).finish();
    assert_eq!((session.state.queue.as_slice(), session.state.turn.origin), (&queue[1..], Origin::Queue));
    session.model(&[]).finish().model(&[]).finish();
    assert_eq!((session.state.status, session.state.owner), (Status::Waiting, None));
}

#[test]
fn a_full_queue_refuses_and_changes_nothing() {
    let mut session = Session::running();
    for _ in 0..MAX_QUEUE {
        session.send("more");
    }
    assert_eq!((session.state.queue.len(), session.refusal(send("more"))), (MAX_QUEUE, Refusal::QueueFull));
    session.run(Command::Unqueue { message: session.state.queue[0] }).send("more");
}

#[test]
fn a_message_with_too_many_files_is_refused_wherever_it_is_said() {
    let mut session = Session::created();
    let names = vec!["a.png"; MAX_FILES + 1];
    let refused = Refusal::TooManyFiles { count: MAX_FILES + 1 };
    let say = |names: &[&str]| Command::Send { message: with_files("look", names), interrupt: false };
    assert_eq!(session.refusal(say(&names)), refused);
    session.run(say(&names[1..])).acquire().prepare();
    assert_eq!(session.refusal(say(&names)), refused, "it would wait in the queue");
    let target = session.context.last_user_message().unwrap();
    let edit = Command::Edit { target, message: with_files("look", &names) };
    assert_eq!(session.refusal(edit), refused);
}

#[test]
fn a_message_to_a_failed_session_with_a_queue_lets_the_head_of_the_queue_go_first() {
    let mut session = Session::running();
    session.send("earlier").fail(FailureClass::Auth);
    let head = session.state.queue[0];
    session.send("later");
    assert_eq!(*session.newest_fact(), Fact::Promoted { message: head });
    assert_eq!((session.state.status, session.state.queue.len()), (Status::Running, 1));
}

#[test]
fn only_what_is_queued_can_be_promoted_or_removed() {
    let mut session = Session::running();
    assert!(matches!(session.refusal(Command::Promote { message: 2 }), Refusal::NotNow { .. }));
    session.send("queued");
    let other: EntryNo = 2;
    assert_eq!(session.refusal(Command::Promote { message: other }), Refusal::NotQueued(other));
    assert_eq!(session.refusal(Command::Unqueue { message: other }), Refusal::NotQueued(other));
}

#[test]
fn a_promoted_message_goes_before_older_ones() {
    let mut session = Session::running();
    session.send("one").send("two");
    let [one, two] = [session.state.queue[0], session.state.queue[1]];
    session.run(Command::Promote { message: two }).own(interrupted(Cut::default()));
    assert_eq!((session.state.queue.as_slice(), session.state.status), ([one].as_slice(), Status::Running));
    assert_eq!(session.context.last_user_message().map(|message| message.entry()), Some(session.state.head));
}

#[test]
fn an_interruption_says_of_each_call_what_is_known() {
    let mut session = Session::running();
    session.model(&[
        call("done"),
        call("begun"),
        call("not"),
        CallFact { place: Place::Client, ..call("other") },
    ]);
    session.run(Command::Interrupt { drop_queue: false });
    session.own(interrupted(Cut { finished: vec![ran("done", Outcome::Ok)], started: ids(&["begun"]) }));
    let outcomes: Vec<Outcome> =
        ["done", "begun", "not", "other"].iter().flat_map(|id| session.outcomes(id)).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Stopped, Outcome::NotRun, Outcome::Cancelled]);
    assert_eq!((session.state.status, session.broken_pairing()), (Status::Waiting, None));
}

#[test]
fn a_call_of_a_lost_epoch_is_never_called_not_run() {
    let mut session = Session::running();
    session.model(&[call("a")]).take_over();
    let refusal = session.refusal(session.owned(session.tool_step(&[("a", Outcome::NotRun)])));
    assert_eq!(refusal, Refusal::NotAwaited("a".into()));
    session.run(Command::Interrupt { drop_queue: false }).own(interrupted(Cut::default()));
    assert_eq!(session.outcomes("a"), [Outcome::Stopped]);
}

#[test]
fn a_call_that_an_older_epoch_may_have_begun_is_not_said_to_be_not_run() {
    let mut session = Session::running();
    let pure = CallFact { effect: EffectClass::Pure, ..call("a") };
    session.model(&[pure]).take_over().run(Command::Interrupt { drop_queue: false });
    let cut = Cut { finished: vec![ran("a", Outcome::NotRun)], started: Vec::new() };
    let mut ran_again = session.clone();
    session.own(interrupted(cut));
    assert_eq!(session.outcomes("a"), [Outcome::Stopped]);
    ran_again.own(interrupted(Cut { finished: vec![ran("a", Outcome::Ok)], started: Vec::new() }));
    assert_eq!(ran_again.outcomes("a"), [Outcome::Ok], "this runner has run it to its end");
}

#[test]
fn what_the_model_had_said_is_kept_after_the_results_of_an_interruption() {
    let mut session = Session::running();
    session.model(&[call("a")]).run(Command::Interrupt { drop_queue: false });
    let partial = vec![Item::Assistant { text: "So far".to_owned(), partial: true }];
    session.own(OwnerAction::FinishInterruption { cut: Cut::default(), partial, spend: Spend::default() });
    assert_eq!(session.broken_pairing(), None);
    assert!(matches!(session.newest_fact(), Fact::Interrupted { partial: true, .. }));
}

#[test]
fn an_interrupt_can_drop_the_queue_and_be_repeated() {
    let mut session = Session::running();
    session.send("one").run(Command::Interrupt { drop_queue: false });
    assert_eq!(session.state.queue.len(), 1);
    session.run(Command::Interrupt { drop_queue: true }).own(interrupted(Cut::default()));
    assert_eq!((session.state.queue.len(), session.state.status), (0, Status::Waiting));
}

#[test]
fn an_interrupt_of_a_session_that_awaits_others_is_done_at_once() {
    for (place, outcome) in [
        (Place::Client, Outcome::Cancelled),
        (Place::Approval, Outcome::NotRun),
        (Place::Question, Outcome::NotRun),
    ] {
        let mut session = Session::awaiting(place);
        session.run(Command::Interrupt { drop_queue: false });
        assert_eq!((session.state.status, session.outcomes("a")), (Status::Waiting, vec![outcome]));
    }
}

#[test]
fn a_client_answers_each_of_its_calls_once() {
    let client = |id| CallFact { place: Place::Client, ..call(id) };
    let mut session = Session::running();
    session.model(&[client("a"), client("b")]).own(OwnerAction::AwaitAction { deadlines: vec![] });
    let submit = |ids: &[&str]| Command::SubmitToolResults {
        results: ids.iter().map(|id| result(id, Outcome::Ok)).collect(),
    };
    for wrong in [&["c"][..], &["a", "a"], &["b", "c"]] {
        assert!(matches!(session.refusal(submit(wrong)), Refusal::NotAwaited(_)));
    }
    assert!(matches!(session.refusal(submit(&[])), Refusal::Invalid(_)));
    session.run(submit(&["a"]));
    assert_eq!(session.state.status, Status::RequiresAction);
    assert_eq!(session.refusal(submit(&["a"])), Refusal::NotAwaited("a".into()));
    session.run(submit(&["b"]));
    assert_eq!(session.state.status, Status::Running);
}

#[test]
fn an_allowed_call_becomes_local_and_the_next_owner_may_start_it() {
    let mut session = Session::awaiting(Place::Approval);
    session.run(Command::Answer { call: "a".into(), answer: Answer::Allow, remember: true });
    assert_eq!(session.state.pending[0].startable_by, None);
    assert_eq!(session.state.grants, ["write"]);
    let mut once = Session::awaiting(Place::Approval);
    once.run(answer("a", Answer::Allow));
    assert_eq!(once.state.grants, Vec::<String>::new());
    let mut denied = Session::awaiting(Place::Approval);
    denied.run(Command::Answer { call: "a".into(), answer: Answer::Deny { reason: None }, remember: true });
    assert_eq!(denied.state.grants, Vec::<String>::new());
    session.acquire();
    assert_eq!(
        (session.state.pending[0].place, session.state.pending[0].startable_by),
        (Place::Local, Some(2))
    );
}

#[test]
fn a_denied_call_and_an_answered_question_have_a_result_at_once() {
    let mut denied = Session::awaiting(Place::Approval);
    denied.run(answer("a", Answer::Deny { reason: Some("not on a Friday".to_owned()) }));
    assert_eq!((denied.state.status, denied.outcomes("a")), (Status::Running, vec![Outcome::Denied]));
    let mut told = Session::awaiting(Place::Question);
    told.run(answer("a", Answer::Value("blue".to_owned())));
    assert_eq!((told.state.status, told.outcomes("a")), (Status::Running, vec![Outcome::Ok]));
}

#[test]
fn an_answer_must_fit_its_call() {
    let (approval, question) = (Session::awaiting(Place::Approval), Session::awaiting(Place::Question));
    let client = Session::awaiting(Place::Client);
    assert!(matches!(approval.refusal(answer("a", Answer::Value(String::new()))), Refusal::Invalid(_)));
    assert!(matches!(question.refusal(answer("a", Answer::Allow)), Refusal::Invalid(_)));
    assert_eq!(client.refusal(answer("a", Answer::Allow)), Refusal::NotAwaited("a".into()));
    assert_eq!(approval.refusal(answer("b", Answer::Allow)), Refusal::NotAwaited("b".into()));
    let submit = Command::SubmitToolResults { results: vec![result("a", Outcome::Ok)] };
    assert_eq!(approval.refusal(submit), Refusal::NotAwaited("a".into()));
}

#[test]
fn grants_are_bounded_and_given_once() {
    let mut session = Session::created();
    let grant = |at: usize| Command::Grant { tool: format!("tool {at}") };
    for at in 0..MAX_GRANTS {
        session.run(grant(at));
    }
    assert!(matches!(session.refusal(grant(0)), Refusal::Invalid(_)));
    assert!(matches!(session.refusal(grant(MAX_GRANTS)), Refusal::Invalid(_)));
}

#[test]
fn only_calls_whose_deadline_has_passed_expire() {
    let client = |id| CallFact { place: Place::Client, ..call(id) };
    let mut session = Session::running();
    session.model(&[client("a"), client("b"), CallFact { place: Place::Question, ..call("c") }]);
    let (soon, late) = (session.now.plus_ms(100), session.now.plus_ms(1_000));
    session.own(OwnerAction::AwaitAction { deadlines: vec![("a".into(), soon), ("b".into(), late)] });
    assert_eq!(session.state.claimable_at(), Some(soon));
    assert!(matches!(session.refusal(acquire(None)), Refusal::Invalid(_)), "it is not time yet");
    assert!(decide(&session.state, acquire(None), soon).is_ok(), "at the deadline it is");
    session.now = soon;
    session.acquire().own(OwnerAction::CancelAction);
    assert_eq!((session.outcomes("a"), session.outcomes("b")), (vec![Outcome::Expired], vec![]));
    assert_eq!((session.state.status, session.state.claimable_at()), (Status::RequiresAction, Some(late)));
    session.now = late;
    session.acquire().own(OwnerAction::CancelAction);
    assert_eq!((session.state.status, session.state.claimable_at()), (Status::RequiresAction, None));
}

#[test]
fn others_are_awaited_only_when_no_local_call_is_open() {
    let mut session = Session::running();
    let wait = |deadlines| OwnerAction::AwaitAction { deadlines };
    assert!(matches!(session.refusal(session.owned(wait(vec![]))), Refusal::Invalid(_)));
    session.model(&[call("a"), CallFact { place: Place::Client, ..call("b") }]);
    assert!(matches!(session.refusal(session.owned(wait(vec![]))), Refusal::Invalid(_)));
    session.tools(&[("a", Outcome::Ok)]);
    let unknown = vec![(CallId::from("c"), session.now)];
    assert_eq!(session.refusal(session.owned(wait(unknown))), Refusal::NotAwaited("c".into()));
}

#[test]
fn an_old_epoch_is_fenced_off_and_old_work_is_obsolete() {
    let mut session = Session::running();
    let old = session.owned(finish(Spend::default()));
    session.take_over();
    assert_eq!(session.refusal(old), Refusal::Fenced { epoch: 1, newest: 2 });
    let basis = session.basis();
    session.model(&[]);
    for basis in [basis, Basis { attempt: 1, ..session.basis() }] {
        let step = Box::new(model_step(&[]));
        let action = OwnerAction::CommitStep { basis, step, spend: Spend::default() };
        assert!(matches!(session.refusal(session.owned(action)), Refusal::Obsolete { .. }));
    }
}

#[test]
fn a_session_with_a_live_owner_cannot_be_acquired() {
    let mut session = Session::running();
    let owner = session.state.owner;
    assert_eq!(session.refusal(acquire(None)), Refusal::Owned);
    session.take_over();
    assert_eq!(session.refusal(acquire(owner)), Refusal::Owned, "another was faster");
}

#[test]
fn losses_count_until_a_tool_really_ran_or_a_turn_ended() {
    let mut session = Session::running();
    session.model(&[call("a"), call("b")]).take_over().take_over();
    session.tools(&[("a", Outcome::Unknown)]);
    assert_eq!(session.state.crashes, 2, "an unknown outcome is no progress");
    session.tools(&[("b", Outcome::Error)]);
    assert_eq!(session.state.crashes, 0);
    session.take_over().model(&[]);
    assert_eq!(session.state.crashes, 1, "a model step is no progress");
    session.finish();
    assert_eq!(session.state.crashes, 0);
}

#[test]
fn a_release_or_a_loss_while_others_are_awaited_is_no_crash() {
    let mut session = Session::running();
    session.own(OwnerAction::Release { not_started: vec![] }).acquire();
    assert_eq!(session.state.crashes, 0);
    session.model(&[CallFact { place: Place::Client, ..call("a") }]);
    let deadlines = vec![(CallId::from("a"), session.now)];
    session.own(OwnerAction::AwaitAction { deadlines }).acquire().take_over();
    assert_eq!(session.state.crashes, 0);
}

#[test]
fn a_runner_gives_back_only_its_own_open_calls() {
    let mut session = Session::running();
    session.model(&[call("a")]).take_over();
    for id in ["a", "b"] {
        let release = OwnerAction::Release { not_started: ids(&[id]) };
        assert_eq!(session.refusal(session.owned(release)), Refusal::NotAwaited(id.into()));
    }
}

#[test]
fn a_step_whose_calls_are_not_those_it_shows_is_refused() {
    let session = Session::running();
    let many: Vec<String> = (0..=MAX_CALLS).map(|at| at.to_string()).collect();
    let many: Vec<CallFact> = many.iter().map(|id| call(id)).collect();
    let mut hidden = model_step(&[call("a")]);
    if let longhaul_session::command::Step::Model { calls, .. } = &mut hidden {
        calls.clear();
    }
    for step in [model_step(&[call("a"), call("a")]), model_step(&many), hidden] {
        let action =
            OwnerAction::CommitStep { basis: session.basis(), step: Box::new(step), spend: Spend::default() };
        assert!(matches!(session.refusal(session.owned(action)), Refusal::Invalid(_)));
    }
    session.clone().model(&many[1..]);
}

#[test]
fn a_runner_answers_a_callers_call_only_to_reject_it() {
    let client = CallFact { place: Place::Client, ..call("b") };
    let mut session = Session::running();
    session.model(std::slice::from_ref(&client));
    let step = session.tool_step(&[("b", Outcome::NotRun)]);
    session.refusal(session.owned(step));
    let mut crowded = Session::running();
    crowded.model(&[CallFact { exclusive: true, ..call("a") }, client]);
    let step = crowded.tool_step(&[("a", Outcome::Error), ("b", Outcome::Ok)]);
    crowded.refusal(crowded.owned(step));
    crowded.tools(&[("a", Outcome::NotRun), ("b", Outcome::NotRun)]);
    assert_eq!(crowded.state.pending, []);
}

#[test]
fn results_are_committed_in_call_order_each_once() {
    let mut session = Session::running();
    session.model(&[call("a"), call("b")]);
    for wrong in [&[("a", Outcome::Ok), ("a", Outcome::Ok)][..], &[("c", Outcome::Ok)]] {
        let refusal = session.refusal(session.owned(session.tool_step(wrong)));
        assert!(matches!(refusal, Refusal::NotAwaited(_)));
    }
    session.tools(&[("b", Outcome::Ok), ("a", Outcome::Error)]);
    let Fact::ToolStep { results, .. } = session.newest_fact() else { panic!("a tool step was committed") };
    assert_eq!(results.iter().map(|fact| fact.call.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_turn_ends_only_when_nothing_is_open_and_the_model_has_answered() {
    let mut session = Session::running();
    assert!(matches!(session.refusal(session.owned(finish(Spend::default()))), Refusal::Invalid(_)));
    session.model(&[call("a")]);
    assert!(matches!(session.refusal(session.owned(finish(Spend::default()))), Refusal::Invalid(_)));
}

#[test]
fn a_failure_answers_open_calls_and_keeps_the_queue() {
    let mut session = Session::running();
    session.model(&[call("a"), call("b")]).send("queued");
    let cut = Cut { finished: vec![], started: ids(&["a"]) };
    session.own(OwnerAction::Fail { failure: failure(FailureClass::Server), cut, spend: Spend::default() });
    assert_eq!(
        (session.outcomes("a"), session.outcomes("b")),
        (vec![Outcome::Stopped], vec![Outcome::NotRun])
    );
    assert_eq!((session.state.status, session.state.queue.len()), (Status::Failed, 1));
    assert_eq!(session.state.last_error, Some(failure(FailureClass::Server)));
}

#[test]
fn a_retry_moves_the_attempt_and_not_the_history() {
    let mut session = Session::running();
    let before = session.basis();
    let retry = retry(FailureClass::Server, session.now.plus_ms(500));
    let failure = failure(FailureClass::Server);
    session.own(OwnerAction::BeginRetry { basis: before, failure, retry, spend: Spend::default() });
    assert_eq!(session.basis(), Basis { attempt: 1, ..before });
    session.own(OwnerAction::Release { not_started: vec![] });
    assert_eq!(session.state.claimable_at(), Some(retry.not_before));
    session.now = retry.not_before;
    session.acquire();
    assert_eq!((session.state.attempt, session.state.retry), (1, Some(retry)));
    session.model(&[]);
    assert_eq!((session.state.attempt, session.state.retry), (0, None));
}

#[test]
fn paying_for_obsolete_work_moves_neither_history_nor_attempt() {
    let mut session = Session::running();
    let before = (session.basis(), session.state.status);
    session.own(OwnerAction::Settle { spend: session.spend(9) });
    assert_eq!((session.basis(), session.state.status), before);
    assert_eq!(session.state.ledger.measured.input, 9);
}

#[test]
fn a_response_to_be_picked_up_is_forgotten_when_the_session_rests() {
    let begun = || {
        let mut session = Session::running();
        let action = session.naming("r", false);
        session.own(action);
        session
    };
    let mut forked = begun();
    forked.run(Command::Fork { parent: session_id() });
    let mut stopped = begun();
    stopped.run(Command::Interrupt { drop_queue: false }).own(interrupted(Cut::default()));
    let mut failed = begun();
    failed.fail(FailureClass::Server);
    assert_eq!(begun().state.response_id.as_deref(), Some("r"));
    let named = |chars: usize| Session::running().naming(&"r".repeat(chars), false);
    let session = Session::running();
    session.clone().own(named(MAX_RESPONSE_ID_BYTES));
    let too_long = session.owned(named(MAX_RESPONSE_ID_BYTES + 1));
    assert!(matches!(session.refusal(too_long), Refusal::Invalid(_)));
    for session in [forked, stopped, failed] {
        assert_eq!(session.state.response_id, None);
    }
}

#[test]
fn a_response_asked_for_with_another_configuration_is_not_named() {
    let mut session = Session::running();
    let named = session.naming("r", false);
    session.run(Command::Configure(Box::new(configuration())));
    let refusal = session.refusal(session.owned(named));
    assert!(refusal.to_string().contains("configuration has changed"), "{refusal}");
}

#[test]
fn a_response_is_picked_up_by_the_attempt_after_a_network_failure_and_by_no_other() {
    let begun = || {
        let mut session = Session::running();
        let action = session.naming("r", false);
        session.own(action);
        session
    };
    for class in
        [FailureClass::Network, FailureClass::Timeout, FailureClass::Server, FailureClass::ChainBroken]
    {
        let mut session = begun();
        let (basis, retry) = (session.basis(), retry(class, session.now));
        let spend = Spend::default();
        session.own(OwnerAction::BeginRetry { basis, failure: failure(class), retry, spend });
        assert_eq!(session.state.response_id.is_some(), class == FailureClass::Network, "{class:?}");
    }
    let mut unsummarised = begun();
    let (basis, failure) = (unsummarised.basis(), failure(FailureClass::Server));
    unsummarised.own(OwnerAction::FailCompaction {
        basis,
        failure,
        spend: Spend::default(),
        automatic_off: false,
    });
    let mut reconfigured = begun();
    reconfigured.run(Command::Configure(Box::new(configuration())));
    for session in [unsummarised, reconfigured] {
        assert_eq!(session.state.response_id, None);
    }
}

#[test]
fn an_edit_needs_evidence_as_new_as_the_history() {
    let mut session = Session::running();
    let (early, first) = (edit(&session), session.context.last_user_message().unwrap().entry());
    session.model(&[]);
    assert_eq!(session.refusal(early), Refusal::NotEditable(first));
    session.run(edit(&session));
    assert_eq!((session.state.status, session.state.turn.number), (Status::Running, 2));
    assert_eq!(session.context.items().len(), 1);
}

#[test]
fn an_edit_keeps_the_queue_and_makes_work_under_way_obsolete() {
    let mut session = Session::running();
    session.model(&[call("a")]).send("from another");
    let before = session.basis();
    session.run(edit(&session));
    assert_eq!((session.state.queue.len(), session.state.pending.len()), (1, 0));
    assert!(session.basis().history_at > before.history_at);
    assert_eq!(session.broken_pairing(), None);
}

#[test]
fn an_edit_of_a_message_leaves_the_results_an_interruption_put_before_it() {
    let mut session = Session::running();
    session.model(&[call("a")]).run(Command::Send { message: "now".into(), interrupt: true });
    session.own(interrupted(Cut::default()));
    session.run(edit(&session));
    assert_eq!((session.outcomes("a"), session.broken_pairing()), (vec![Outcome::NotRun], None));
}

#[test]
fn a_message_before_the_boundary_cannot_be_edited() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]).compact_from(2);
    let message = session.context.last_user_message().unwrap().entry();
    assert_eq!(session.refusal(edit(&session)), Refusal::NotEditable(message));
}

#[test]
fn a_compaction_needs_a_summary_and_something_to_compact() {
    let mut session = Session::running();
    let compact = OwnerAction::Compact {
        basis: session.basis(),
        summary: " \n".to_owned(),
        keep_from: 2,
        kept: Vec::new(),
        spend: Spend::default(),
    };
    assert_eq!(session.refusal(session.owned(compact)), Refusal::Invalid("the summary is empty"));
    session.model(&[]).compact();
    session.clone().compact_from(session.state.context_from);
    for keep_from in [session.state.boundary - 1, session.state.head + 2] {
        let (basis, summary, spend) = (session.basis(), "summary".to_owned(), Spend::default());
        let outside = OwnerAction::Compact { basis, summary, keep_from, kept: Vec::new(), spend };
        assert!(matches!(session.refusal(session.owned(outside)), Refusal::Invalid(_)));
    }
    session.finish();
    assert!(matches!(session.refusal(Command::RequestCompaction), Refusal::Invalid(_)));
}

#[test]
fn a_compaction_keeps_only_messages_that_are_shown_and_come_before_its_tail() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    let (basis, spend) = (session.basis(), Spend::default());
    let compact = |keep_from, kept| {
        let summary = "summary".to_owned();
        OwnerAction::Compact { basis, summary, keep_from, kept, spend }
    };
    let (message, step) = (2, session.state.head - 1);
    for kept in [vec![step], vec![message, step + 1], vec![message; MAX_KEPT_MESSAGES + 1]] {
        assert!(matches!(session.refusal(session.owned(compact(step, kept))), Refusal::Invalid(_)));
    }
    session.own(compact(step, vec![message; MAX_KEPT_MESSAGES]));
    let (basis, summary) = (session.basis(), "summary".to_owned());
    let gone = OwnerAction::Compact { basis, summary, keep_from: step, kept: vec![message + 1], spend };
    assert!(matches!(session.refusal(session.owned(gone)), Refusal::Invalid(_)), "it was summarised");
}

#[test]
fn a_name_has_1_to_100_characters_and_no_control_characters() {
    let session = Session::running();
    let rename = |name: &str| Command::Rename { name: Some(name.to_owned()) };
    session.clone().run(rename(&"é".repeat(MAX_NAME_CHARS)));
    for name in ["", "two\nlines", &"x".repeat(MAX_NAME_CHARS + 1)] {
        assert!(matches!(session.refusal(rename(name)), Refusal::Invalid(_)), "{name:?}");
    }
}

#[test]
fn an_entry_says_who_made_it_and_in_which_epoch() {
    let mut session = Session::running();
    let by = |session: &Session| session.newest().record.by;
    assert_eq!(by(&session), Actor::Worker { worker: worker(), epoch: 1 });
    session.send("a person's");
    assert_eq!(by(&session), Actor::User);
    session.take_over();
    assert_eq!(by(&session), Actor::Worker { worker: worker(), epoch: 2 });
}

#[test]
fn a_session_is_prepared_once() {
    let session = Session::running();
    let prepare = OwnerAction::Prepare { system: String::new(), tools: Vec::new() };
    assert_eq!(session.refusal(session.owned(prepare)), Refusal::Invalid("the session is prepared already"));
}

#[test]
fn what_a_hook_adds_is_history_and_comes_after_open_calls() {
    let mut session = Session::running();
    let hook = |items| OwnerAction::RecordHook {
        point: "pre_model".to_owned(),
        name: "guard".to_owned(),
        decision: "continue".to_owned(),
        items,
    };
    let before = session.basis();
    session.own(hook(vec![]));
    assert_eq!(session.basis(), before);
    session.own(hook(vec![Item::User { text: "mind".to_owned() }]));
    assert_eq!(session.basis().history_at, session.state.head);
    session.model(&[call("a")]);
    assert!(matches!(session.refusal(session.owned(hook(vec![Item::Redacted]))), Refusal::Invalid(_)));
}

#[test]
fn a_fork_answers_open_calls_and_takes_nothing_that_is_under_way() {
    let mut session = Session::running();
    session.model(&[call("a")]).send("queued").take_over();
    session.run(Command::Fork { parent: session_id() });
    assert_eq!(session.outcomes("a"), [Outcome::Foreign]);
    assert_eq!(
        (session.state.status, session.state.owner, session.state.queue.len()),
        (Status::Waiting, None, 0)
    );
    assert_eq!((session.state.crashes, session.broken_pairing()), (0, None));
}

#[test]
fn redaction_of_what_is_not_there_is_refused() {
    let session = Session::created();
    for entry in [0, session.state.head + 1] {
        assert_eq!(session.refusal(Command::Redact { entry }), Refusal::NoSuchEntry(entry));
    }
}

#[test]
fn a_state_that_breaks_its_invariants_is_put_right_and_says_what_was_wrong() {
    let mut broken = Session::running();
    broken.model(&[call("a")]).send("queued");
    let breakages: [fn(&mut SessionState); 6] = [
        |state| state.status = Status::Waiting,
        |state| state.history_at = state.head + 5,
        |state| state.queue.push(state.head + 5),
        |state| state.queue.push(state.head + 1),
        |state| state.epoch += 1,
        |state| state.archived = true,
    ];
    for breakage in breakages {
        let mut state = broken.state.clone();
        breakage(&mut state);
        let wrong = state.broken_invariant().expect("it was broken");
        let decision = decide(&state, Command::Reconcile, broken.now).expect("it is broken");
        assert_eq!(decision.state.broken_invariant(), None, "{wrong}");
        assert_eq!(decision.state.status, Status::Failed);
        assert_eq!(decision.state.queue, broken.state.queue, "what people said stays queued");
        let mut context = broken.context.clone();
        decision.entries.iter().for_each(|entry| context.apply(entry));
        assert_eq!(context.broken_pairing(&[]), None);
        assert_eq!(decision.state.last_error.map(|error| error.message).as_deref(), Some(wrong));
    }
    assert!(matches!(broken.refusal(Command::Reconcile), Refusal::NotNow { .. }));
}

#[test]
fn each_invariant_that_breaks_is_named_and_none_that_holds() {
    let broken = |session: &Session, breakage: &dyn Fn(&mut SessionState)| {
        let mut state = session.state.clone();
        breakage(&mut state);
        state.broken_invariant()
    };
    let (running, waiting, failed) = (Session::running(), Session::finished(), Session::failed());
    let mut tools = running.clone();
    tools.model(&[call("a")]);
    let mut pursuing = running.clone();
    pursuing.run(set_goal(1, "objective", Budget::default()));
    let open = &tools.state.pending;
    let goal = &pursuing.state.goal;
    assert_eq!(broken(&running, &|state| state.boundary = state.head), None);
    assert_eq!(broken(&running, &|state| state.queue = vec![state.head; MAX_QUEUE]), None);
    let past = Some("an entry number is past the head");
    assert_eq!(broken(&running, &|state| state.boundary = state.head + 1), past);
    let queue = Some("the queue is over its limit");
    assert_eq!(broken(&running, &|state| state.queue = vec![state.head; MAX_QUEUE + 1]), queue);
    let owner = tools.state.owner;
    let owned = |state: &mut SessionState| (state.owner, state.epoch) = (owner, 1);
    assert_eq!(broken(&waiting, &owned), Some("a resting session has an owner"));
    let busy = Some("a waiting session has something to do");
    assert_eq!(broken(&waiting, &|state| state.queue = vec![state.head]), busy);
    assert_eq!(broken(&waiting, &|state| state.pending.clone_from(open)), busy);
    assert_eq!(broken(&waiting, &|state| state.goal.clone_from(goal)), busy);
    let busy = Some("a failed session has an open call or an active goal");
    assert_eq!(broken(&failed, &|state| state.pending.clone_from(open)), busy);
    assert_eq!(broken(&failed, &|state| state.goal.clone_from(goal)), busy);
    let planned = |state: &mut SessionState| (state.mode, state.goal) = (Mode::Plan, goal.clone());
    assert_eq!((broken(&failed, &planned), broken(&waiting, &planned)), (None, None));
    let nobody = Some("an owned session has a call that nobody may start");
    assert_eq!(broken(&tools, &|state| state.pending[0].startable_by = None), nobody);
    let early = Some("a call may be started while the session requires action");
    let client = Session::awaiting(Place::Client);
    assert_eq!(broken(&client, &|state| state.pending.extend(open.clone())), early);
}

#[test]
fn an_archived_session_must_be_brought_back_first() {
    let mut session = Session::finished();
    session.run(Command::Archive);
    let refusal = session.refusal(send("hello"));
    assert_eq!(
        refusal.to_string(),
        "this is not possible while the session is archived: bring it back first, with `longhaul archive --undo`"
    );
    session.run(Command::Unarchive).send("hello");
    assert_eq!(session.state.status, Status::Running);
}
