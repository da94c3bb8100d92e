//! Entries that stand for their kinds, with every field filled, and a small log with many kinds in it.
//!
//! A specimen of an old version is never changed: its golden file holds what was stored then.

use longhaul_session::command::{Answer, Command, OwnerAction};
use longhaul_session::entry::{
    Actor, CallFact, Charge, Content, Entry, Fact, FinishReason, Measured, Mode, ModelGoal, Next, Payload,
    Place, Record, ResultFact, Timing, TurnVerdict,
};
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::goal::{Budget, BudgetKind, Goal, GoalUsage};
use longhaul_session::id::{CallId, Digest, EntryNo, Timestamp};
use longhaul_session::item::{Attachment, EffectClass, FileSeen, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::{Spend, Usage};

use crate::driver::{
    Session, call, configuration, goal_id, retry, send, session_id, set_goal, token_budget, tool_spec, worker,
};

/// One entry of every version of every kind, in the order of `KINDS`.
pub(crate) fn specimens() -> Vec<Entry> {
    let facts = beginning().into_iter().chain(work()).chain(ends()).chain(people());
    (1..).zip(facts).map(|(n, (fact, content))| entry(n, fact, content)).collect()
}

fn entry(n: EntryNo, fact: Fact, content: Option<Content>) -> Entry {
    let content = content.map(Payload::new);
    let by = if n.is_multiple_of(2) { Actor::User } else { Actor::Worker { worker: worker(), epoch: 3 } };
    let digest = content.as_ref().map(|payload| payload.digest);
    let record = Record { v: 1, n, at: Timestamp(1_700_000_000_123), by, content: digest, fact };
    Entry { record, content }
}

type Specimen = (Fact, Option<Content>);

fn beginning() -> Vec<Specimen> {
    let configuration = || Some(Content::Configuration { configuration: Box::new(configuration()) });
    let answered = || Some(items([Item::ToolResult(tool_result())]));
    let prepared = Content::Prepared { system: "You work.".to_owned(), tools: vec![tool_spec()] };
    let file =
        Item::ContextFile { path: "AGENTS.md".to_owned(), digest: digest(), text: "Be kind.".to_owned() };
    let told = Item::Steering {
        reason: SteeringReason::BudgetSpent(BudgetKind::Tokens),
        text: "Wrap up now.".to_owned(),
    };
    vec![
        (
            Fact::Created { ephemeral: false, without_goals: false, name: Some("a name".to_owned()) },
            configuration(),
        ),
        (Fact::Forked { parent: session_id(), at: 40, results: vec![fact_of_result()] }, answered()),
        (Fact::Imported { origin: session_id(), at: 40, results: vec![fact_of_result()] }, answered()),
        (Fact::Prepared, Some(prepared)),
        (Fact::Configured { without_goals: true }, configuration()),
        (Fact::Message, user()),
        (Fact::Queued, user()),
        (Fact::Unqueued { message: 7 }, None),
        (Fact::Promoted { message: 7 }, None),
        (Fact::Edited { message: 6 }, user()),
        (Fact::Context { digest: digest() }, Some(items([file]))),
        (
            Fact::Steering { budget: Some(BudgetKind::Tokens), objective_changed: true, goal_recalled: true },
            Some(items([told])),
        ),
    ]
}

fn work() -> Vec<Specimen> {
    let model_step = Fact::ModelStep {
        calls: vec![CallFact {
            exclusive: true,
            stop_after: true,
            effect: EffectClass::Idempotent,
            ..call("a")
        }],
        charge: charge(),
        measured: Measured { input_tokens: 900, items: 4, bytes: 3_200, pruned_to: 2 },
        finish: "tool_use".to_owned(),
        response_id: Some("response 1".to_owned()),
        timing: Timing { first_part_ms: 300, total_ms: 1_200 },
    };
    let summary = Item::Summary { text: "What was done.".to_owned() };
    let goal = Some(ModelGoal::Created(Box::new(goal())));
    let results = || Some(items([Item::ToolResult(tool_result())]));
    vec![
        (model_step, Some(items(said()))),
        (Fact::ToolStep { results: vec![fact_of_result()], charge: charge(), goal }, results()),
        (Fact::ResponseStarted { response_id: "response 1".to_owned(), is_summary: true }, None),
        (Fact::Settled { charge: charge() }, None),
        (
            Fact::Retry {
                failure: failure(),
                retry: retry(FailureClass::RateLimited, Timestamp(1_700_000_009_000)),
                attempt: 2,
                charge: charge(),
            },
            None,
        ),
        (Fact::Awaiting { deadlines: vec![("a".into(), Timestamp(1_700_000_300_000))] }, None),
        (Fact::Answered { allowed: vec!["b".into()], results: vec![fact_of_result()] }, results()),
        (Fact::CompactionRequested, None),
        (Fact::Compacted { keep_from: 9, kept: vec![2], charge: charge() }, Some(items([summary]))),
        (Fact::CompactionFailed { failure: failure(), charge: charge(), automatic_off: true }, None),
        (Fact::Cleared, None),
    ]
}

fn ends() -> Vec<Specimen> {
    let goes_on = Item::Steering {
        reason: SteeringReason::Continuation,
        text: "The goal is not reached yet.".to_owned(),
    };
    let partial = Item::Assistant { text: "So far".to_owned(), partial: true };
    let finished = Fact::TurnFinished {
        reason: FinishReason::Complete,
        charge: charge(),
        verdict: TurnVerdict::Worked(digest()),
        limited: Some(BudgetKind::Time),
        next: Next::Continue,
    };
    let interrupted = Fact::Interrupted {
        results: vec![fact_of_result()],
        partial: true,
        charge: charge(),
        limited: Some(BudgetKind::Cost),
        next: Next::Promote(7),
    };
    let failed = Fact::Failed { failure: failure(), results: vec![fact_of_result()], charge: charge() };
    vec![
        (finished, Some(items([goes_on]))),
        (Fact::Interrupting { promote: Some(7), dropped: vec![8], pause_goal: true }, None),
        (interrupted, Some(items([Item::ToolResult(tool_result()), partial]))),
        (failed, Some(items([Item::ToolResult(tool_result())]))),
    ]
}

fn people() -> Vec<Specimen> {
    let hook = Fact::Hook {
        point: "pre_model".to_owned(),
        name: "guard".to_owned(),
        decision: "add context".to_owned(),
    };
    let acquired = Fact::Acquired {
        worker: worker(),
        epoch: 3,
        lost: true,
        estimate: usage(),
        goal: Some(goal_id(1)),
        crossed: None,
    };
    let added = Item::Steering { reason: SteeringReason::Hook, text: "Mind the gap.".to_owned() };
    vec![
        (Fact::Goal { goal: Some(goal()), next: Some(Next::Continue) }, None),
        (Fact::Mode { mode: Mode::Plan, next: Some(Next::Rest) }, None),
        (Fact::Named { name: Some("a name".to_owned()) }, None),
        (Fact::Granted { tool: "write".to_owned() }, None),
        (hook, Some(items([added]))),
        (Fact::Redacted { entry: 6 }, None),
        (Fact::Archived, None),
        (Fact::Unarchived, None),
        (acquired, None),
        (Fact::Released { not_started: vec!["a".into()] }, None),
        (Fact::Reconciled { broken: "a resting session has an owner".to_owned() }, None),
    ]
}

fn items<const N: usize>(items: [Item; N]) -> Content {
    Content::Items { items: items.into() }
}

fn user() -> Option<Content> {
    let file = Attachment {
        name: "plan.png".to_owned(),
        media_type: "image/png".to_owned(),
        bytes: 8_192,
        digest: digest(),
    };
    Some(items([Item::User { text: "Say \"hé\"\n".to_owned() }, Item::Attachment(file)]))
}

fn said() -> [Item; 5] {
    let opaque = serde_json::json!({"signature": "abc"});
    let asks = ToolCall {
        id: "a".into(),
        name: "write".to_owned(),
        arguments: "{\"path\": \"a\"}".to_owned(),
        opaque: Some(opaque.clone()),
    };
    [
        Item::Reasoning { text: "Hm.".to_owned(), opaque: Some(opaque.clone()) },
        Item::Assistant { text: "I write it.".to_owned(), partial: false },
        Item::ToolCall(asks),
        Item::Opaque { provider: "scripted".to_owned(), value: opaque },
        Item::Redacted,
    ]
}

fn tool_result() -> ToolResult {
    ToolResult {
        call: "a".into(),
        outcome: Outcome::Ok,
        output: "Written.".to_owned(),
        files: vec![FileSeen { path: "/srv/project/a".to_owned(), digest: digest() }],
        artifact: Some(digest()),
    }
}

fn fact_of_result() -> ResultFact {
    ResultFact::of(&tool_result(), Some((Timestamp(1_700_000_000_000), Timestamp(1_700_000_000_100))))
}

fn charge() -> Charge {
    let spend = Spend { usage: usage(), active_ms: 1_500, goal: Some(goal_id(1)), ..Spend::default() };
    Charge { spend, crossed: Some(BudgetKind::Continuations) }
}

fn usage() -> Usage {
    Usage { input: 900, cached_input: 400, cache_write: 100, output: 60, reasoning: 20, cost_micros: 1_234 }
}

fn goal() -> Goal {
    let budget = Budget {
        tokens: Some(10_000),
        active_ms: Some(60_000),
        cost_micros: Some(5_000_000),
        continuations: Some(20),
        hard: true,
    };
    let used = GoalUsage {
        tokens: 560,
        estimated_tokens: 60,
        active_ms: 1_500,
        cost_micros: 1_234,
        continuations: 2,
    };
    Goal {
        reason: Some("the tests do not pass".to_owned()),
        used,
        suppressed: true,
        recent_turns: vec![digest()],
        ..Goal::new(goal_id(1), "All tests pass".to_owned(), budget, vec!["make".to_owned()], Timestamp(5))
    }
}

fn failure() -> Failure {
    Failure { class: FailureClass::RateLimited, message: "too many requests".to_owned() }
}

fn digest() -> Digest {
    Digest::of(b"specimen")
}

/// A log in which a goal is pursued, calls run, a person answers, a worker is lost and a turn fails. It
/// ends in the middle of things, so that its state has a call, a queued message, an owner and a retry.
pub(crate) fn small_log() -> Vec<Entry> {
    let mut session = Session::running();
    session.run(set_goal(1, "All tests pass", token_budget(1_000))).own(OwnerAction::CommitSteering);
    session.model(&[call("a"), CallFact { place: Place::Approval, ..call("b") }]);
    session.tools(&[("a", Outcome::Ok)]).own(OwnerAction::AwaitAction { deadlines: Vec::new() });
    session.run(Command::Answer { call: CallId::from("b"), answer: Answer::Allow, remember: true });
    session.acquire().take_over().tools(&[("b", Outcome::Unknown)]).send("and then?");
    session.model(&[]).finish().model(&[]).finish();
    session.model(&[call("c")]).tools(&[("c", Outcome::Error)]).fail(FailureClass::Network);
    session.run(Command::Redact { entry: 2 }).run(send("go on")).acquire();
    let spend = Spend { usage: usage(), active_ms: 1_500, ..Spend::default() };
    session.model_for(&[call("d")], spend).send("more");
    let retry = retry(FailureClass::RateLimited, Timestamp(1_700_000_009_000));
    let (basis, failure) = (session.basis(), failure());
    session.own(OwnerAction::BeginRetry { basis, failure, retry, spend });
    session.entries
}
