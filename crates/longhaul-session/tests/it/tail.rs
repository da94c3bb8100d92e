//! What a compaction keeps word for word: the newest turns and steps, and what was not answered.

use longhaul_session::agent::Limits;
use longhaul_session::command::{Command, OwnerAction, Step};
use longhaul_session::id::{CallId, Digest, EntryNo};
use longhaul_session::item::{FileSeen, Item};
use longhaul_session::usage::Spend;

use crate::driver::{Session, call, read_back, with_files};
use crate::window::{answered, compact, limits, measured_step, said, turn};

#[test]
fn a_compaction_keeps_the_message_that_a_long_turn_works_on() {
    let mut session = Session::running();
    for id in ["a", "b", "c", "d", "e"] {
        session.own(measured_step(&session, &[call(id)], 1));
        answered(&mut session, &[id], &"x".repeat(400));
    }
    let kept = session.context.kept(&session.state, &limits(2_000));
    assert_eq!(kept.messages, [2]);
    assert_eq!(kept.from, session.entries[session.entries.len() - 2].record.n, "the newest step, whole");
    compact(&mut session, &limits(2_000));
    let items: Vec<&Item> = session.context.items().iter().map(|(_, item)| &**item).collect();
    assert!(
        matches!(items[..], [Item::Summary { .. }, Item::User { text }, Item::ToolCall(_), Item::ToolResult(_)] if text == "begin")
    );
    assert_eq!(session.state.kept, [2]);
    assert_eq!(read_back(&session.entries, &session.state), session.context);
    // The next compaction keeps it too; once it is answered, none does.
    session.own(measured_step(&session, &[call("f")], 1));
    answered(&mut session, &["f"], "done");
    assert_eq!(session.context.kept(&session.state, &limits(100)).messages, [2]);
    session.own(measured_step(&session, &[], 1));
    assert_eq!(session.context.kept(&session.state, &limits(100)).messages, Vec::<EntryNo>::new());
}

#[test]
fn a_message_that_was_queued_is_kept_and_read_back() {
    let mut session = Session::running();
    session.send("queued");
    session.own(measured_step(&session, &[], 1)).finish();
    for id in ["a", "b"] {
        session.own(measured_step(&session, &[call(id)], 1));
        answered(&mut session, &[id], &"x".repeat(400));
    }
    compact(&mut session, &limits(100));
    let said = session.context.items().iter().filter(|(_, item)| matches!(**item, Item::User { .. })).count();
    assert_eq!((said, session.state.kept.len()), (1, 1));
    assert_eq!(read_back(&session.entries, &session.state), session.context);
}

#[test]
fn newest_turns_are_kept_as_far_as_there_is_room() {
    let mut session = Session::running();
    for id in ["a", "b", "c"] {
        turn(&mut session, id, &"x".repeat(300));
    }
    let whole = session.context.estimate(session.context.items().len()).tokens;
    let messages = |limits: Limits| {
        let kept = session.context.kept(&session.state, &limits);
        let items = session.context.items().iter().filter(|(n, _)| *n >= kept.from);
        items.filter(|(_, item)| matches!(**item, Item::User { .. })).count()
    };
    assert_eq!(messages(limits(10 * whole)), 2);
    assert_eq!(messages(Limits { retained_turns: 1, retained_tokens: 0, ..limits(10 * whole) }), 1);
    assert_eq!(messages(Limits { retained_turns: 9, ..limits(10 * whole) }), 2, "no more than half");
    let narrow = session.context.kept(&session.state, &Limits { retained_tokens: 0, ..limits(20) });
    assert_eq!(narrow.items, session.context.items().len() - 1, "what is not answered stays in any case");
}

#[test]
fn what_is_not_answered_stays_and_nothing_else_where_nothing_fits() {
    let mut session = Session::running();
    turn(&mut session, "a", &"x".repeat(300));
    let kept = |session: &Session| {
        let limits = Limits { retained_tokens: 0, ..limits(2) };
        session.context.items().len() - session.context.kept(&session.state, &limits).items
    };
    assert_eq!(kept(&session), 1);
    let (point, name, decision) = ("pre_model".to_owned(), "hook".to_owned(), "add".to_owned());
    let items = vec![Item::User { text: "mind this".to_owned() }];
    session.own(OwnerAction::RecordHook { point, name, decision, items });
    assert_eq!(kept(&session), 2, "two entries that the model has not answered");
    session.own(measured_step(&session, &[call("b")], 1));
    answered(&mut session, &["b"], &"x".repeat(300));
    assert_eq!(kept(&session), 0, "the messages before it are kept apart");
    session.own(measured_step(&session, &[], 1)).finish();
    session.run(Command::Send { message: with_files("look", &["a.png"]), interrupt: false }).acquire();
    assert_eq!(kept(&session), 2, "a message and its file");
    let digest = Digest::of(b"files");
    let file = Item::ContextFile { path: "AGENTS.md".to_owned(), digest, text: "Be brief.".to_owned() };
    session.own(OwnerAction::CommitContext { items: vec![file], digest });
    assert_eq!(kept(&session), 3, "and what the model is shown with them");
}

#[test]
fn a_compaction_after_another_summarises_something_new() {
    let mut session = Session::running();
    for id in ["a", "b", "c", "d", "e"] {
        session.own(measured_step(&session, &[call(id)], 1));
        answered(&mut session, &[id], &"x".repeat(400));
    }
    compact(&mut session, &limits(2_000));
    assert_eq!(session.context.items().len(), 4, "the summary, the message, and one step");
    assert_eq!(session.context.kept(&session.state, &limits(u64::MAX)).items, 4, "only that step is new");
    session.own(measured_step(&session, &[call("f")], 1));
    answered(&mut session, &["f"], "done");
    let kept = session.context.kept(&session.state, &limits(u64::MAX));
    assert_eq!((kept.items, kept.messages), (4, vec![2]));
}

#[test]
fn a_compaction_after_pruning_keeps_nothing_that_was_pruned() {
    let mut session = Session::created();
    session.send(&"x".repeat(60_000)).acquire().prepare();
    for id in ["a", "b", "c", "d"] {
        session.own(measured_step(&session, &[call(id)], 1));
        answered(&mut session, &[id], &"x".repeat(if id == "a" { 6_000 } else { 10 }));
        session.send("go on");
        session.own(measured_step(&session, &[], 1)).finish();
    }
    let (pruned_to, items) = (session.state.pruned_to, session.context.items());
    let shown = items.iter().position(|(n, _)| *n > pruned_to).expect("something is shown whole");
    assert_eq!(items[shown - 1].0, pruned_to, "what was pruned last is an item");
    let kept = session.context.kept(&session.state, &Limits { retained_turns: 9, ..limits(u64::MAX) });
    assert_eq!(kept.items, shown + 1, "something that is shown whole is summarised");
}

#[test]
fn files_touched_last_are_named_first_and_once() {
    let mut session = Session::running();
    for (id, path) in [("a", "/one"), ("b", "/two"), ("c", "/one")] {
        session.model(&[call(id)]);
        let seen = FileSeen { path: path.to_owned(), digest: Digest::of(b"") };
        let mut ran = said(&CallId::from(id), "done".to_owned());
        ran.result.files.push(seen);
        let step = Box::new(Step::Tools { results: vec![ran], goal: None });
        session.own(OwnerAction::CommitStep { basis: session.basis(), step, spend: Spend::default() });
    }
    assert_eq!(session.context.recent_files(9), ["/one", "/two"]);
    assert_eq!(session.context.recent_files(1), ["/one"]);
}
