//! What call of a model is lost with its runner: the one it owed, and none where it owed something else.

use longhaul_session::agent::Limits;
use longhaul_session::command::{Command, OwnerAction};
use longhaul_session::entry::Mode;
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::{Budget, BudgetKind, Terms};
use longhaul_session::id::Digest;
use longhaul_session::item::Outcome;
use longhaul_session::owed::{LostCall, View, lost_call};
use longhaul_session::usage::Spend;

use crate::driver::{
    Session, call, configuration, edit_budget, failure, goal_id, retry, set_goal, token_budget,
};

/// Above this the context is compacted; above 7/8 of it, before a turn ends.
fn limits() -> Limits {
    Limits { compact_above_tokens: 8_000, max_crashes: 2, ..Limits::default() }
}

fn lost_at(session: &Session, next_request_tokens: u64) -> Option<LostCall> {
    let view = View { next_request_tokens, ..session.view() };
    lost_call(&session.state, &view, &limits())
}

fn lost(session: &Session) -> Option<LostCall> {
    lost_at(session, 0)
}

/// A session whose runner has results of tools to show to the model.
fn with_results() -> Session {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    session
}

fn retrying(session: &mut Session, class: FailureClass) {
    let (basis, retry) = (session.basis(), retry(class, session.now));
    session.own(OwnerAction::BeginRetry { basis, failure: failure(class), retry, spend: Spend::default() });
}

#[test]
fn a_call_is_lost_with_the_runner_that_owed_it() {
    assert_eq!(lost(&Session::running()), Some(LostCall::Answer));
    assert_eq!(lost(&with_results()), Some(LostCall::Answer));
    assert_eq!(lost_at(&with_results(), 8_001), Some(LostCall::Summary));
    let mut overloaded = with_results();
    retrying(&mut overloaded, FailureClass::Overloaded);
    assert_eq!(lost(&overloaded), Some(LostCall::Answer));
    let mut answered = with_results();
    answered.model(&[]);
    assert_eq!(lost_at(&answered, 7_001), Some(LostCall::Summary));
}

#[test]
fn none_is_lost_where_something_else_was_owed() {
    assert_eq!(lost(Session::created().send("begin")), None, "nobody owned it");
    assert_eq!(lost(Session::created().send("begin").acquire()), None, "the prompt comes first");
    assert_eq!(lost(Session::running().model(&[call("a")])), None, "tools were running");
    assert_eq!(lost(with_results().model(&[])), None, "the turn was over");
    let mut told = Session::created();
    told.run(set_goal(1, "objective", Budget::default())).acquire().prepare();
    told.model(&[call("a")]).tools(&[("a", Outcome::Ok)]).compact();
    assert_eq!(lost(&told), None, "the goal was to be told first");
    told.own(OwnerAction::CommitSteering);
    assert_eq!(lost(&told), Some(LostCall::Answer));
}

#[test]
fn none_is_lost_for_which_a_hard_budget_had_no_room() {
    let view = |session: &Session| View { without_room: Some(BudgetKind::Tokens), ..session.view() };
    let mut session = Session::created();
    session.run(set_goal(1, "objective", token_budget(9))).acquire().prepare();
    assert_eq!(lost_call(&session.state, &view(&session), &limits()), None);
    session.run(edit_budget(token_budget(8)));
    let lost = lost_call(&session.state, &view(&session), &limits());
    assert_eq!(lost, Some(LostCall::Either), "there may have been room before");
}

#[test]
fn what_people_change_meanwhile_undoes_no_call() {
    let changes: [fn(&Session) -> Command; 5] = [
        |_| Command::SetMode(Mode::Plan),
        |_| Command::Interrupt { drop_queue: false },
        |_| Command::Configure(Box::new(configuration())),
        |_| set_goal(1, "objective", Budget::default()),
        |session| {
            let target = session.context.last_user_message().unwrap();
            Command::Edit { target, message: "instead".into() }
        },
    ];
    for change in changes {
        let mut session = with_results();
        session.run(change(&session));
        assert_eq!(lost(&session), Some(LostCall::Either), "{:?}", session.newest_fact());
        session.take_over();
        assert_ne!(lost(&session), Some(LostCall::Either), "the next runner begins anew");
        let mut busy = Session::running();
        busy.model(&[call("a")]);
        busy.run(change(&busy));
        assert_ne!(lost(&busy), Some(LostCall::Either), "tools were running: {:?}", busy.newest_fact());
    }
}

#[test]
fn what_the_next_runner_is_and_sees_undoes_no_call() {
    let session = with_results();
    let context_digest = Some(Digest::of(b"files that changed since"));
    let next = View { epoch: session.view().epoch + 1, context_digest, ..session.view() };
    assert_eq!(lost_call(&session.state, &next, &limits()), Some(LostCall::Answer));
}

#[test]
fn a_goal_that_is_set_or_lowered_meanwhile_undoes_no_call() {
    let mut guarding = with_results();
    let terms = Terms { protected: vec!["tests".to_owned()], ..Terms::default() };
    let objective = "objective".to_owned();
    guarding.run(Command::SetGoal { id: goal_id(1), objective, terms, message: None });
    assert_eq!(lost(&guarding), Some(LostCall::Either), "files are to be guarded first now");
    let mut session = Session::created();
    session.run(set_goal(1, "objective", token_budget(9))).acquire().prepare();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]).run(edit_budget(token_budget(8)));
    let without_room_to_compact = Some(BudgetKind::Tokens);
    let view = View { next_request_tokens: 8_001, without_room_to_compact, ..session.view() };
    assert_eq!(
        lost_call(&session.state, &view, &limits()),
        Some(LostCall::Either),
        "there may have been room"
    );
}

#[test]
fn an_answer_that_is_picked_up_is_not_lost() {
    for (summary, call) in [(false, LostCall::Answer), (true, LostCall::Summary)] {
        let mut session = with_results();
        session.own(session.naming("r", summary)).run(set_goal(1, "objective", Budget::default()));
        assert_eq!(lost(&session), None);
        let mut looping = session.clone();
        looping.take_over();
        assert_eq!(lost(&looping), Some(call), "its session fails with the next loss");
        session.run(Command::Interrupt { drop_queue: false });
        assert_eq!(lost(&session), Some(call), "nobody wants it");
        session.take_over();
        assert_eq!(lost(&session), None, "it was counted");
    }
}
