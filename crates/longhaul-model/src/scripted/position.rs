//! Where in its script a request is. Derived from the request's items and nothing else.

use std::sync::Arc;

use longhaul_session::id::CallId;
use longhaul_session::item::Item;
use longhaul_session::steering::SteeringReason;
use serde_json::Value;

/// What ids made by a script begin with. Ids hold only letters, digits and underscores, which every
/// provider accepts if the session goes on with another model.
const PREFIX: &str = "script_";

/// The step that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The number of the turn, from 1; 0 before any.
    pub(super) turn: u64,
    /// How many steps of the turn have been answered.
    pub(super) step: u64,
    /// How many items the request has: tells ids apart should the same step ever answer twice.
    items: usize,
}

impl Position {
    /// Finds the position that follows some items. Reads back to the newest item that names its own
    /// step, and counts from there.
    pub(super) fn after(items: &[Arc<Item>]) -> Self {
        let anchor =
            items.iter().enumerate().rev().find_map(|(at, item)| Some((at, Position::named_by(item)?)));
        let (rest, mut position, mut answering) = match anchor {
            Some((at, (turn, step))) => {
                (&items[at + 1..], Position { turn, step: step.saturating_add(1), items: 0 }, true)
            }
            None => (items, Position { turn: 0, step: 0, items: 0 }, false),
        };
        for item in rest {
            match Role::of(item) {
                Role::Begins => {
                    position.turn = position.turn.saturating_add(1);
                    position.step = 0;
                    answering = false;
                }
                Role::Answers if !answering => {
                    position.step = position.step.saturating_add(1);
                    answering = true;
                }
                Role::Answers => {}
                Role::Separates => answering = false,
            }
        }
        position.turn = position.turn.max(1);
        position.items = items.len();
        position
    }

    /// Returns the id of the answer at this position.
    pub(super) fn response_id(self) -> String {
        format!("{PREFIX}{}_{}_{}", self.turn, self.step, self.items)
    }

    /// Returns the id of one of its calls.
    pub(super) fn call_id(self, index: u32) -> CallId {
        CallId(format!("{}_{index}", self.response_id()))
    }

    /// Returns the turn and step that made an item, if it says so.
    fn named_by(item: &Item) -> Option<(u64, u64)> {
        match item {
            Item::ToolCall(call) => read_id(&call.id.0),
            Item::Reasoning { opaque: Some(Value::String(id)), .. } => read_id(id),
            Item::Reasoning { .. }
            | Item::User { .. }
            | Item::Assistant { .. }
            | Item::ToolResult(_)
            | Item::Summary { .. }
            | Item::ContextFile { .. }
            | Item::Steering { .. }
            | Item::Opaque { .. }
            | Item::Attachment(_)
            | Item::File { .. }
            | Item::Redacted => None,
        }
    }
}

fn read_id(id: &str) -> Option<(u64, u64)> {
    let mut numbers = id.strip_prefix(PREFIX)?.split('_');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What an item does to the count.
enum Role {
    /// It begins a turn.
    Begins,
    /// It is part of an answer.
    Answers,
    /// It ends the answer before it.
    Separates,
}

impl Role {
    fn of(item: &Item) -> Self {
        match item {
            Item::User { .. } | Item::Steering { reason: SteeringReason::Continuation, .. } => Role::Begins,
            Item::Assistant { .. } | Item::Reasoning { .. } | Item::ToolCall(_) | Item::Opaque { .. } => {
                Role::Answers
            }
            Item::Steering {
                reason:
                    SteeringReason::ObjectiveChanged
                    | SteeringReason::GoalRecalled
                    | SteeringReason::BudgetSpent(_)
                    | SteeringReason::Compaction
                    | SteeringReason::Hook,
                ..
            }
            | Item::ToolResult(_)
            | Item::Summary { .. }
            | Item::ContextFile { .. }
            | Item::Attachment(_)
            | Item::File { .. }
            | Item::Redacted => Role::Separates,
        }
    }
}
