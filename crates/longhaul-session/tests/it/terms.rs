//! What a goal is held to: its checks and protected files, their bounds, and that what was judged under other
//! terms does not count. What is said with it.

use longhaul_session::command::{Command, First, OwnerAction, Refusal};
use longhaul_session::entry::ModelGoal;
use longhaul_session::goal::{
    Budget, GoalStatus, MAX_CHECK_BYTES, MAX_CHECKS, MAX_PROTECTED, MAX_PROTECTED_BYTES, Terms,
};
use longhaul_session::item::Message;
use longhaul_session::owed::Work;
use longhaul_session::state::{MAX_FILES, Origin, Status};

use crate::driver::{Session, call, create, goal_id, set_goal, token_budget, with_files};
use crate::goals::{model_goal, pursuing};

fn protecting(id: u128, protected: &[String]) -> Command {
    let terms = Terms { protected: protected.to_vec(), ..Terms::default() };
    Command::SetGoal { id: goal_id(id), objective: "All tests pass".to_owned(), terms, message: None }
}

fn protect(protected: &[String]) -> Command {
    Command::EditGoal { objective: None, budget: None, checks: None, protected: Some(protected.to_vec()) }
}

#[test]
fn a_goal_has_a_bounded_number_of_checks_of_bounded_size() {
    let session = pursuing(Budget::default());
    let with = |checks: Vec<String>| Command::EditGoal {
        objective: None,
        budget: None,
        checks: Some(checks),
        protected: None,
    };
    let longest = "x".repeat(MAX_CHECK_BYTES);
    let mut most = session.clone();
    most.run(with(vec![longest.clone(); MAX_CHECKS]));
    assert_eq!(most.goal().checks, vec![longest.clone(); MAX_CHECKS]);
    for checks in [vec!["x".to_owned(); MAX_CHECKS + 1], vec![longest + "x"], vec![String::new()]] {
        assert!(matches!(session.refusal(with(checks)), Refusal::Invalid(_)));
    }
}

#[test]
fn a_goal_protects_a_bounded_number_of_paths_of_bounded_size() {
    let longest = "x".repeat(MAX_PROTECTED_BYTES);
    let session = pursuing(Budget::default());
    for command in [protecting, |_, protected: &[String]| protect(protected)] {
        let most = vec![longest.clone(); MAX_PROTECTED];
        let mut session = session.clone();
        session.run(command(1, &most));
        assert_eq!(session.goal().protected, most);
        for wrong in
            [vec!["x".to_owned(); MAX_PROTECTED + 1], vec![longest.clone() + "x"], vec![String::new()]]
        {
            assert!(matches!(session.refusal(command(1, &wrong)), Refusal::Invalid(_)));
        }
    }
}

#[test]
fn protected_files_are_digested_once_until_they_are_named_anew() {
    let mut session = Session::created();
    session.run(protecting(1, &["tests".to_owned()])).acquire().prepare();
    let guard = |session: &Session| {
        session.owned(OwnerAction::GuardFiles { terms: session.goal().terms(), files: Vec::new() })
    };
    let mut before = None;
    let again = [protecting(9, &["tests/**".to_owned()]), protect(&["src".to_owned()])];
    for renewed in again.into_iter().map(Some).chain([None]) {
        assert_eq!(session.owed(), Work::GuardFiles);
        if let Some(before) = before.replace(guard(&session)) {
            assert!(matches!(session.refusal(before), Refusal::Invalid(_)), "of what was named before");
        }
        session.run(guard(&session));
        assert_eq!((session.goal().guarded_at, session.goal().is_unguarded()), (session.state.head, false));
        assert!(matches!(session.refusal(guard(&session)), Refusal::Invalid(_)), "digested already");
        assert_eq!(session.owed(), Work::CallModel);
        if let Some(command) = renewed {
            session.run(command);
        }
    }
    let mut complete = pursuing(Budget::default());
    complete.model(&[call("a")]).run_model_goal(ModelGoal::Completed).run(protect(&["tests".to_owned()]));
    assert_eq!(complete.owed(), Work::CallModel, "nothing will be checked");
    let bare = pursuing(Budget::default());
    assert!(matches!(bare.refusal(guard(&bare)), Refusal::Invalid(_)), "nothing is protected");
}

#[test]
fn a_goal_goes_on_with_the_turn_of_what_is_said_with_it() {
    let saying = |message: Message| {
        let (id, objective) = (goal_id(1), "Build what is drawn".to_owned());
        Command::SetGoal { id, objective, terms: Terms::default(), message: Some(message) }
    };
    let mut session = Session::created();
    session.run(saying(with_files("look", &["drawing.png"])));
    assert_eq!((session.state.status, session.state.turn.origin), (Status::Running, Origin::User));
    assert_eq!((session.state.works_for(), session.goal().used.continuations), (Some(goal_id(1)), 0));
    session.acquire().prepare();
    assert_eq!(session.owed(), Work::CommitSteering, "it is told of its goal");
    session.own(OwnerAction::CommitSteering);
    assert_eq!(session.owed(), Work::CallModel);
    session.model(&[]).finish();
    assert_eq!(session.state.turn.origin, Origin::Continuation);
    let mut busy = Session::running();
    busy.run(saying("look".into()));
    assert_eq!((busy.goal().status, busy.state.queue.len()), (GoalStatus::Active, 1));
    let mut failed = Session::failed();
    failed.run(saying("look".into()));
    assert_eq!((failed.state.status, failed.state.turn.goal), (Status::Running, Some(goal_id(1))));
    let many = vec!["drawing.png"; MAX_FILES + 1];
    let refused = Session::created().refusal(saying(with_files("look", &many)));
    assert_eq!(refused, Refusal::TooManyFiles { count: MAX_FILES + 1 });
    let mut ephemeral = Session::default();
    ephemeral.run(create(First::Nothing, true));
    assert!(matches!(ephemeral.refusal(saying("look".into())), Refusal::Invalid(_)));
}

#[test]
fn terms_that_say_nothing_are_not_written() {
    let written = |terms: &Terms| serde_json::to_value(terms).expect("terms are JSON");
    assert!(Terms::default().is_empty());
    assert_eq!(written(&Terms::default()), serde_json::json!({}));
    let (one, budget) = (vec!["x".to_owned()], token_budget(1));
    for (terms, field) in [
        (Terms { budget, ..Terms::default() }, "budget"),
        (Terms { checks: one.clone(), ..Terms::default() }, "checks"),
        (Terms { protected: one, ..Terms::default() }, "protected"),
    ] {
        assert!(!terms.is_empty());
        assert!(written(&terms).get(field).is_some(), "{field}");
    }
}

#[test]
fn what_was_judged_under_other_terms_does_not_end_a_goal() {
    let mut session = pursuing(Budget::default());
    session.model(&[call("a")]);
    let (done, stuck) = (ModelGoal::Completed, ModelGoal::Blocked("no network".to_owned()));
    let (objective, checks) = (Some("Another".to_owned()), Some(vec!["make check".to_owned()]));
    let protected = Some(vec!["tests".to_owned()]);
    let edit =
        |objective, checks, protected| Command::EditGoal { objective, budget: None, checks, protected };
    for changed in [
        edit(objective, None, None),
        edit(None, checks, None),
        edit(None, None, protected),
        set_goal(2, "Another", Budget::default()),
    ] {
        for change in [done.clone(), stuck.clone()] {
            let judged = model_goal(&session, change);
            let mut session = session.clone();
            session.run(changed.clone());
            let refusal = session.refusal(judged);
            assert_eq!(refusal, Refusal::Invalid("the goal is no longer the one that was judged"));
        }
    }
    // An objective that came back was not told in between, and what was said of it is older.
    let mut untold = session.clone();
    untold.run(set_goal(2, "Another", Budget::default()));
    let refusal = untold.refusal(model_goal(&untold, done.clone()));
    assert_eq!(refusal, Refusal::Invalid("the goal is no longer the one that was judged"));
    let mut paused = session.clone();
    paused.run(Command::PauseGoal);
    let refusal = paused.refusal(model_goal(&paused, stuck));
    assert_eq!(refusal, Refusal::Invalid("the goal is not being worked on"));
    paused.run_model_goal(done);
    assert_eq!(paused.goal().status, GoalStatus::Complete);
}
