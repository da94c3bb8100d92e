//! The answers of the model: which calls each asks for, and what the work of a runner costs.

use longhaul_session::command::{Ran, Step};
use longhaul_session::entry::{CallFact, Measured, Place, Timing};
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::{CallId, Digest, GoalId, Timestamp};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::usage::{Spend, Usage};

/// How a call of the model ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text,
    Once,
    Pure,
    TwoOnce,
    OnceAndIdempotent,
    OnceAndClient,
    Client,
    TwoClients,
    Approval,
    TwoApprovals,
    OnceAndApproval,
    ApprovalAndClient,
    Question,
    Crowded,
    StopAfter,
    Overloaded,
    Overflow,
    Refused,
}

impl Reply {
    /// The failure, if it is one.
    pub(super) fn failure(self) -> Option<Failure> {
        let class = match self {
            Reply::Overloaded => FailureClass::Overloaded,
            Reply::Overflow => FailureClass::ContextOverflow,
            Reply::Refused => FailureClass::Auth,
            Reply::Text
            | Reply::Once
            | Reply::Pure
            | Reply::TwoOnce
            | Reply::OnceAndIdempotent
            | Reply::OnceAndClient
            | Reply::Client
            | Reply::TwoClients
            | Reply::Approval
            | Reply::TwoApprovals
            | Reply::OnceAndApproval
            | Reply::ApprovalAndClient
            | Reply::Question
            | Reply::Crowded
            | Reply::StopAfter => return None,
        };
        Some(failure(class))
    }

    /// The calls it asks for; the ids are `c` and a number from `first`.
    pub(super) fn calls(self, first: u32) -> Vec<CallFact> {
        use EffectClass::{Idempotent, Once, Pure};
        use Place::{Approval, Client, Local, Question};
        let calls: &[(Place, EffectClass)] = match self {
            Reply::Text | Reply::Overloaded | Reply::Overflow | Reply::Refused => &[],
            Reply::Once | Reply::StopAfter => &[(Local, Once)],
            Reply::Pure => &[(Local, Pure)],
            Reply::TwoOnce => &[(Local, Once), (Local, Once)],
            Reply::OnceAndIdempotent => &[(Local, Once), (Local, Idempotent)],
            Reply::OnceAndClient | Reply::Crowded => &[(Local, Once), (Client, Once)],
            Reply::Client => &[(Client, Once)],
            Reply::TwoClients => &[(Client, Once), (Client, Once)],
            Reply::Approval => &[(Approval, Once)],
            Reply::TwoApprovals => &[(Approval, Once), (Approval, Once)],
            Reply::OnceAndApproval => &[(Local, Once), (Approval, Once)],
            Reply::ApprovalAndClient => &[(Approval, Once), (Client, Once)],
            Reply::Question => &[(Question, Once)],
        };
        let fact = |(number, (place, effect)): (u32, &(Place, EffectClass))| CallFact {
            id: CallId(format!("c{number}")),
            tool: "tool".to_owned(),
            place: *place,
            effect: *effect,
            exclusive: self == Reply::Crowded && *place == Place::Local,
            stop_after: self == Reply::StopAfter,
            digest: Digest([1; 32]),
        };
        (first..).zip(calls).map(fact).collect()
    }
}

/// The step that a model's answer is.
pub(super) fn model_step(calls: Vec<CallFact>) -> Box<Step> {
    let said = Item::Assistant { text: "so".to_owned(), partial: false };
    let call = |fact: &CallFact| {
        Item::ToolCall(ToolCall {
            id: fact.id.clone(),
            name: fact.tool.clone(),
            arguments: "{}".to_owned(),
            opaque: None,
        })
    };
    Box::new(Step::Model {
        items: std::iter::once(said).chain(calls.iter().map(call)).collect(),
        calls,
        finish: "stop".to_owned(),
        response_id: None,
        measured: Measured::default(),
        timing: Timing::default(),
    })
}

/// The result of a call.
pub(super) fn ran(id: &CallId, outcome: Outcome, now: Timestamp) -> Ran {
    let output = outcome.notice().to_owned();
    let result = ToolResult { call: id.clone(), outcome, output, files: Vec::new(), artifact: None };
    Ran { result, ran: outcome.ran().then_some((now, now)) }
}

/// What a call of the model costs.
pub(super) fn model_spend(goal: Option<GoalId>) -> Spend {
    let usage = Usage { input: 8, output: 2, ..Usage::default() };
    Spend { usage, active_ms: 3, goal, ..Spend::default() }
}

/// What tools cost.
pub(super) fn tool_spend(goal: Option<GoalId>) -> Spend {
    Spend { active_ms: 5, goal, ..Spend::default() }
}

/// What an attempt cut by a crash may have cost.
pub(super) fn estimate() -> Usage {
    Usage { input: 4, ..Usage::default() }
}

pub(super) fn failure(class: FailureClass) -> Failure {
    Failure { class, message: "it failed".to_owned() }
}
