//! What the models of scenarios do. Each is a function of what stands before it, of what was really built, and
//! of the variant that is played: it remembers nothing, so it does the same for whichever worker asks.

use longhaul_model::Error;
use longhaul_session::agent::Request;
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::UPDATE_GOAL;
use longhaul_session::item::{Item, Outcome, ToolResult};
use longhaul_session::steering::SteeringReason;
use serde_json::{Value, json};

use super::{OVERLOADED_MS, Play};
use crate::model::{CLASSES, input_tokens};
use crate::world::World;

/// The window of a strict provider, in tokens.
const WINDOW_TOKENS: u64 = 8_000;

/// What stands before a model that is called.
pub(crate) struct Scene<'a> {
    pub(crate) world: &'a World,
    pub(crate) request: &'a Request,
    pub(crate) play: Play,
    /// The number of the attempt: no two are the same.
    pub(crate) id: u64,
}

/// What a model does.
pub(crate) enum Move {
    Say(String),
    Call(&'static str, Value),
    Fail(Error),
}

/// What is to be answered.
enum Newest<'a> {
    /// A turn that has begun.
    Turn,
    /// That a budget is used up.
    WrapUp,
    /// The result of a call of this tool.
    Result(&'a str, &'a ToolResult),
}

impl<'a> Scene<'a> {
    fn newest(&self) -> Newest<'a> {
        let items = &self.request.items;
        for item in items.iter().rev() {
            if let Item::Steering { reason: SteeringReason::GoalRecalled, .. } = &**item {
                // It only tells again what the turn is about.
                continue;
            }
            if let Item::Steering { reason: SteeringReason::BudgetSpent(_), .. } = &**item {
                return Newest::WrapUp;
            }
            if let Item::ToolResult(result) = &**item {
                let mut calls = items.iter().rev().filter_map(|item| item.tool_call());
                let call = calls.find(|call| call.id == result.call);
                return Newest::Result(call.map_or("", |call| &call.name), result);
            }
            break;
        }
        Newest::Turn
    }

    fn all_is_built(&self) -> bool {
        self.world.truth().parts.len() >= self.play.scenario.parts
    }
}

fn say(text: &str) -> Move {
    Move::Say(text.to_owned())
}

fn work() -> Move {
    Move::Call("work", json!({ "n": 1 }))
}

fn look() -> Move {
    Move::Call("look", json!({ "n": 1 }))
}

fn claim() -> Move {
    Move::Call(UPDATE_GOAL, json!({ "status": "complete", "note": "All parts are built." }))
}

/// One part in each turn; when all are built, it says that the goal is complete.
pub(crate) fn builds(scene: &Scene<'_>) -> Move {
    match scene.newest() {
        Newest::Turn if scene.all_is_built() => claim(),
        Newest::Turn => work(),
        Newest::WrapUp => say("I stop here."),
        Newest::Result(UPDATE_GOAL, _) => say("All is done."),
        Newest::Result(..) => say("This part is built."),
    }
}

/// The same, at a provider that takes no more than its window, if it is a strict one.
pub(crate) fn builds_within_a_window(scene: &Scene<'_>) -> Move {
    if scene.play.is_strict() && input_tokens(scene.request) > WINDOW_TOKENS {
        return Move::Fail(Error::new(FailureClass::ContextOverflow, "the prompt is too long"));
    }
    builds(scene)
}

/// Works on in one turn until it is told that a budget is used up.
pub(crate) fn works_until_told(scene: &Scene<'_>) -> Move {
    match scene.newest() {
        Newest::Turn | Newest::Result(..) => work(),
        Newest::WrapUp => say("I stop here. The roof is left to do."),
    }
}

pub(crate) fn talks(_: &Scene<'_>) -> Move {
    say("I would build the house now.")
}

/// The same in every turn: one look, two, or one after the other to the end of the turn.
pub(crate) fn circles(scene: &Scene<'_>) -> Move {
    let looks = scene.request.items.iter().rev().take_while(|item| !matches!(***item, Item::Steering { .. }));
    let looks = looks.filter(|item| item.tool_result().is_some()).count() as u64;
    if looks <= scene.play.variant % 3 || scene.play.variant % 3 == 2 { look() } else { say("Hm.") }
}

pub(crate) fn fails(scene: &Scene<'_>) -> Move {
    Move::Fail(Error::new(scene.play.failure(), "the provider always fails"))
}

/// Claims that all is done; builds a part when it is told that it is not.
pub(crate) fn claims(scene: &Scene<'_>) -> Move {
    match scene.newest() {
        Newest::Turn | Newest::WrapUp => claim(),
        Newest::Result(UPDATE_GOAL, ToolResult { outcome: Outcome::Ok, .. }) => say("All is done."),
        Newest::Result(UPDATE_GOAL, ToolResult { outcome: Outcome::Error, .. }) => work(),
        Newest::Result(..) => claim(),
    }
}

/// Calls tools that it may not use: the same again and again, others all the time, the one that ends its goal;
/// or sees that there are none.
pub(crate) fn is_denied(scene: &Scene<'_>) -> Move {
    scene.world.hold(scene.request.tools.is_empty(), "Scenario", || "a denied tool is offered".to_owned());
    let Newest::Turn = scene.newest() else { return say("I cannot do that.") };
    match scene.play.variant % 4 {
        0 => work(),
        1 => Move::Call("work", json!({ "n": scene.id })),
        2 => claim(),
        _ => say("I have no tools."),
    }
}

/// Has no capacity for an hour; then it builds.
pub(crate) fn waits(scene: &Scene<'_>) -> Move {
    if scene.world.elapsed_ms() >= OVERLOADED_MS {
        return builds(scene);
    }
    let retry_after_ms = scene.play.variant.is_multiple_of(2).then(|| scene.world.below(90_000));
    Move::Fail(Error { retry_after_ms, ..Error::new(FailureClass::Overloaded, "no capacity") })
}

pub(crate) fn kills(_: &Scene<'_>) -> Move {
    Move::Call("kill", json!({ "n": 1 }))
}

pub(crate) fn summarises(scene: &Scene<'_>) -> Move {
    Move::Say(format!("{} parts are built.", scene.world.truth().parts.len()))
}

/// Says nothing, more than there was, or fails.
pub(crate) fn summarises_badly(scene: &Scene<'_>) -> Move {
    match scene.play.variant % 4 {
        0 => say(" "),
        1 => Move::Say("more than there was ".repeat(10_000)),
        2 => Move::Fail(Error::new(FailureClass::Server, "the summary fails")),
        _ => Move::Fail(Error::new(FailureClass::InvalidRequest, "the summary is refused")),
    }
}

impl Play {
    /// Returns how the provider fails, where it always does.
    pub(crate) fn failure(self) -> FailureClass {
        let classes = CLASSES.len() as u64;
        CLASSES[usize::try_from(self.variant % classes).expect("an index fits")].0
    }

    /// Tells whether a provider that may be strict refuses requests over its window.
    pub(crate) fn is_strict(self) -> bool {
        self.variant / 4 % 2 == 1
    }
}
