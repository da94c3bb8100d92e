//! What the model sees, by rule. That it can always be read back, and that calls and results stay paired,
//! are properties, tested with the others.

use longhaul_session::agent::Previous;
use longhaul_session::command::{Command, Cut, OwnerAction, Step};
use longhaul_session::context::{Context, Needed};
use longhaul_session::entry::{Entry, Fact};
use longhaul_session::failure::FailureClass;
use longhaul_session::id::{CallId, Digest, EntryNo};
use longhaul_session::item::{Attachment, Item, Outcome};
use longhaul_session::usage::Spend;

use crate::driver::{
    Session, call, configuration, context_of, failure, ids, model_step, read_back, retry, send, with_files,
};

fn texts(session: &Session) -> Vec<String> {
    session.context.items().iter().map(|(_, item)| text(item)).collect()
}

fn text(item: &Item) -> String {
    match item {
        Item::User { text } => format!("user: {text}"),
        Item::Assistant { text, .. } => format!("assistant: {text}"),
        Item::Reasoning { text, .. } => format!("reasoning: {text}"),
        Item::ToolCall(call) => format!("call {}", call.id),
        Item::ToolResult(result) => format!("result {}", result.call),
        Item::Summary { text } => format!("summary: {text}"),
        Item::ContextFile { path, .. } => format!("file {path}"),
        Item::Steering { .. } => "steering".to_owned(),
        Item::Attachment(file) => format!("given {}", file.name),
        Item::File { .. } => unreachable!("only requests hold a file's bytes"),
        Item::Opaque { .. } => "opaque".to_owned(),
        Item::Redacted => "redacted".to_owned(),
    }
}

fn at(session: &Session, n: EntryNo) -> usize {
    assert!(n <= session.state.head, "the entry is there");
    usize::try_from(n).expect("a test's log is short") - 1
}

#[test]
fn messages_enter_when_their_turn_begins_and_not_when_they_are_queued() {
    let mut session = Session::running();
    session.send("later");
    assert_eq!(texts(&session), ["user: begin"]);
    session.model(&[]).finish();
    assert_eq!(texts(&session), ["user: begin", "assistant: Done.", "user: later"]);
}

#[test]
fn a_compaction_puts_its_summary_before_what_is_kept() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]).model(&[]).send("more").finish();
    let keep_from = session.state.history_at;
    session.compact_from(keep_from);
    assert_eq!(texts(&session), ["summary: What was done.", "user: more"]);
}

#[test]
fn a_cleared_context_is_empty_and_keeps_prompt_and_configuration() {
    let mut session = Session::finished();
    session.run(Command::ClearContext);
    assert_eq!(texts(&session), Vec::<String>::new());
    assert_eq!(session.context.request().system, "You work.");
    assert_eq!(session.context.configuration().map(|it| it.agent.as_str()), Some("tester"));
}

#[test]
fn an_edit_replaces_the_message_and_keeps_files_that_came_after_it() {
    let mut session = Session::running();
    let digest = Digest::of(b"files");
    let file = Item::ContextFile { path: "AGENTS.md".to_owned(), digest, text: String::new() };
    session.own(OwnerAction::CommitContext { items: vec![file], digest }).model(&[]);
    let target = session.context.last_user_message().unwrap();
    session.run(Command::Edit { target, message: "better".into() });
    assert_eq!(texts(&session), ["file AGENTS.md", "user: better"]);
}

#[test]
fn files_come_and_go_with_their_message() {
    let mut session = Session::running();
    let message = with_files("look", &["a.png", "b.png"]);
    session.run(Command::Send { message, interrupt: false });
    assert_eq!(texts(&session), ["user: begin"], "it waits in the queue with its files");
    session.model(&[]).finish();
    assert_eq!(texts(&session)[2..], ["user: look", "given a.png", "given b.png"]);
    let target = session.context.last_user_message().unwrap();
    let names = |files: Vec<Attachment>| files.into_iter().map(|file| file.name).collect::<Vec<_>>();
    assert_eq!(names(session.context.files(target)), ["a.png", "b.png"]);
    session.run(Command::Edit { target, message: with_files("look again", &["c.png"]) });
    assert_eq!(texts(&session)[2..], ["user: look again", "given c.png"]);
    session.context = read_back(&session.entries, &session.state);
    assert_eq!(texts(&session)[2..], ["user: look again", "given c.png"]);
}

#[test]
fn a_text_counts_for_its_length_and_a_picture_for_what_providers_charge() {
    let sized = |media_type: &str| {
        let mut file = with_files("", &["a"]).files.remove(0);
        (file.media_type, file.bytes) = (media_type.to_owned(), 100_000);
        Item::Attachment(file).text_bytes()
    };
    assert_eq!((sized("text/plain"), sized("application/json")), (100_000, 100_000));
    assert_eq!((sized("image/png"), sized("application/pdf")), (6_000, 6_000));
}

#[test]
fn a_request_goes_on_from_the_newest_answer_until_something_before_it_changes() {
    let mut session = chained();
    let previous = |session: &Session| session.context.request().previous.clone();
    assert_eq!(previous(&session), None);
    answer(&mut session, "r1").finish();
    session.send("and now?");
    assert_eq!(previous(&session), Some(Previous { response_id: "r1".to_owned(), items: 2 }));
    assert_eq!(session.context.items().len(), 3);
    let mut edited = session.clone();
    let target = edited.context.last_user_message().unwrap();
    edited.run(Command::Edit { target, message: "better".into() });
    assert_eq!(previous(&edited), None);
    session.run(Command::Redact { entry: 3 });
    assert_eq!(previous(&session), None);
    assert_eq!(read_back(&session.entries, &session.state).request().previous, None);
}

#[test]
fn a_request_does_not_go_on_from_an_answer_to_what_was_redacted_meanwhile() {
    let mut session = chained();
    session.run(Command::Redact { entry: 3 });
    answer(&mut session, "r1").finish();
    session.send("and now?").acquire();
    assert_eq!(session.context.request().previous, None);
    assert_eq!(read_back(&session.entries, &session.state).request().previous, None);
    answer(&mut session, "r2");
    assert_eq!(session.context.request().previous.as_ref().map(|it| &*it.response_id), Some("r2"));
}

#[test]
fn a_request_goes_on_from_no_answer_that_its_provider_has_lost() {
    for (class, kept) in [(FailureClass::ChainBroken, None), (FailureClass::Server, Some("r1"))] {
        let mut session = chained();
        answer(&mut session, "r1").finish();
        session.send("and now?").acquire();
        let (basis, spend, retry) = (session.basis(), Spend::default(), retry(class, session.now));
        session.own(OwnerAction::BeginRetry { basis, failure: failure(class), retry, spend });
        let previous = |context: &Context| context.request().previous.clone().map(|it| it.response_id);
        assert_eq!(previous(&session.context).as_deref(), kept);
        assert_eq!(previous(&read_back(&session.entries, &session.state)).as_deref(), kept);
    }
}

#[test]
fn a_request_goes_on_from_no_answer_to_what_the_origin_of_a_fork_has_redacted() {
    let mut session = chained();
    answer(&mut session, "r1");
    let previous = |entries: &[Entry], shared_to| {
        let context = read_back(entries, &session.state).read_back(shared_to);
        context.request().previous.clone().map(|it| it.response_id)
    };
    assert_eq!(previous(&session.entries, session.state.head).as_deref(), Some("r1"));
    let mut redacted = session.entries.clone();
    redacted[2].content = None;
    assert_eq!(previous(&redacted, 3), None);
    assert_eq!(previous(&redacted, 2).as_deref(), Some("r1"), "it is no entry of the origin");
}

/// A session under way whose provider keeps the conversation.
fn chained() -> Session {
    let mut session = Session::created();
    let mut chained = configuration();
    chained.model.chain = true;
    session.run(Command::Configure(Box::new(chained))).send("begin").acquire().prepare();
    session
}

/// Commits an answer that its provider has named.
fn answer<'a>(session: &'a mut Session, id: &str) -> &'a mut Session {
    let mut step = model_step(&[]);
    if let Step::Model { response_id, .. } = &mut step {
        *response_id = Some(id.to_owned());
    }
    let (basis, spend) = (session.basis(), session.spend(1));
    session.own(OwnerAction::CommitStep { basis, step: Box::new(step), spend })
}

#[test]
fn the_newest_configuration_is_in_force() {
    let mut session = Session::created();
    let mut changed = configuration();
    changed.agent = "another".to_owned();
    session.run(Command::Configure(Box::new(changed)));
    assert_eq!(session.context.configuration().map(|it| it.agent.as_str()), Some("another"));
}

#[test]
fn only_a_message_of_a_person_in_this_history_is_evidence_for_an_edit() {
    let mut session = Session::running();
    session.model(&[]);
    let message = session.context.user_message(2).unwrap();
    assert_eq!((message.entry(), message.as_of()), (2, session.state.head));
    assert_eq!(session.context.user_message(session.state.head), None);
    session.compact();
    assert_eq!(session.context.user_message(2), None);
}

#[test]
fn after_a_compaction_only_what_the_model_sees_is_read_back() {
    let mut session = Session::running();
    session.send("later").model(&[]).compact().finish();
    let needed = Needed::of(&session.state);
    let boundary = session.state.boundary;
    assert_eq!(
        (needed.single.as_slice(), needed.range.clone()),
        ([1, 4].as_slice(), boundary..=boundary + 1)
    );
    let records: Vec<_> = needed.range.clone().map(|n| &session.entries[at(&session, n)].record).collect();
    assert_eq!(needed.promoted_before(&records), [5]);
    assert_eq!(read_back(&session.entries, &session.state), session.context);
}

#[test]
fn no_entry_is_read_back_twice() {
    let needed = Needed::of(&Session::created().state);
    assert_eq!((needed.single, needed.kept, needed.range), (vec![], vec![], 1..=1));
    let mut cleared = Session::created();
    cleared.run(Command::ClearContext);
    assert_eq!(Needed::of(&cleared.state).single, [1], "there is no prompt yet");
    let mut session = Session::running();
    session.send("later");
    let queued = session.state.queue[0];
    session.model(&[]).compact_from(queued).finish();
    let needed = Needed::of(&session.state);
    let records: Vec<_> = session.entries[at(&session, queued)..].iter().map(|entry| &entry.record).collect();
    assert_eq!((*needed.range.start(), needed.promoted_before(&records)), (queued, vec![]));
    assert_eq!(read_back(&session.entries, &session.state), session.context);
}

#[test]
fn configuration_and_prompt_that_are_redacted_show_nothing() {
    let mut session = Session::running();
    session.run(Command::Configure(Box::new(configuration()))).prepare();
    let items = session.context.items().len();
    for entry in &mut session.entries {
        if matches!(entry.record.fact, Fact::Created { .. } | Fact::Configured { .. } | Fact::Prepared) {
            entry.content = None;
        }
    }
    session.context = context_of(&session.entries);
    assert_eq!((session.context.items().len(), session.context.request().system.as_str()), (items, ""));
}

#[test]
fn a_redaction_makes_it_stale_until_it_is_read_back() {
    let mut session = Session::finished();
    session.run(Command::Redact { entry: 2 });
    assert!(session.context.is_stale());
    session.entries[1].content = None;
    let read = read_back(&session.entries, &session.state).read_back(0);
    assert!(!read.is_stale());
    assert_eq!(*read.items()[0].1, Item::Redacted);
}

#[test]
fn a_redacted_step_keeps_its_calls_and_results_without_their_words() {
    let mut session = Session::running();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]);
    session.entries.iter_mut().rev().take(2).for_each(|entry| entry.content = None);
    session.context = context_of(&session.entries);
    assert_eq!(texts(&session), ["user: begin", "redacted", "call a", "result a"]);
    assert_eq!(session.context.call(&"a".into()).map(|call| call.arguments.as_str()), Some("{}"));
}

#[test]
fn broken_pairing_is_found_in_every_form() {
    let mut session = Session::running();
    session.model(&[call("a")]);
    let open = ids(&["a"]);
    let open: Vec<_> = open.iter().collect();
    assert_eq!(session.context.broken_pairing(&open), None);
    assert!(session.context.broken_pairing(&[]).is_some(), "an open call that is not said to be open");
    let model = session.entries.last().unwrap().clone();
    let mut twice = session.context.clone();
    twice.apply(&model);
    assert!(twice.broken_pairing(&open).is_some(), "a call after an unanswered one");
    let again = |id: &str, n: EntryNo| {
        let mut again = Session::running();
        again.model(&[call(id)]);
        let mut model = again.entries.last().unwrap().clone();
        model.record.n = n;
        let mut context = session.context.clone();
        context.apply(&model);
        let open: Vec<_> = ["a", id].map(CallId::from).into();
        context.broken_pairing(&open.iter().collect::<Vec<_>>())
    };
    assert!(again("b", session.state.head + 1).is_some(), "a call of another step after an unanswered one");
    assert!(again("a", session.state.head).is_some(), "two calls of one id");
    assert_eq!(again("b", session.state.head), None);
    let mut orphan = session.clone();
    orphan.tools(&[("a", Outcome::Ok)]);
    let results = orphan.entries.last().unwrap().clone();
    orphan.context.apply(&results);
    assert!(orphan.context.broken_pairing(&[]).is_some(), "a second result");
    let mut spoken = Session::created();
    spoken.run(send("begin"));
    let mut message = spoken.entries.last().unwrap().clone();
    message.record.n = session.state.head + 1;
    session.context.apply(&message);
    assert!(session.context.broken_pairing(&open).is_some(), "a message before the result");
}

#[test]
fn the_same_log_gives_the_same_request() {
    let mut session = Session::running();
    session.model(&[call("a")]).run(Command::Interrupt { drop_queue: false });
    let partial = vec![Item::Assistant { text: "So far".to_owned(), partial: true }];
    session.own(OwnerAction::FinishInterruption { cut: Cut::default(), partial, spend: Spend::default() });
    assert_eq!(texts(&session), ["user: begin", "call a", "result a", "assistant: So far"]);
    assert_eq!(context_of(&session.entries).request(), session.context.request());
}

#[test]
fn a_request_extends_the_one_before_it() {
    let mut session = Session::running();
    let mut before = session.context.request();
    session.model(&[call("a")]).tools(&[("a", Outcome::Ok)]).model(&[]).send("more").finish();
    for step in 0..3 {
        let now = session.context.request();
        assert_eq!(
            (&now.system, &now.items[..before.items.len()]),
            (&before.system, &before.items[..]),
            "{step}"
        );
        before = session.context.request();
        session.model(&[call(&format!("call {step}"))]).tools(&[(&format!("call {step}"), Outcome::Ok)]);
    }
}
