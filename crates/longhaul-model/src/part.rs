//! The parts an answer arrives in: the same for all providers, and what readers of a live stream
//! get. Parts carry no rule; how they become an answer is in [`crate::response`].

use longhaul_session::item::Item;
use longhaul_session::usage::Usage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One part of an answer while it is made.
///
/// Text, reasoning and arguments come in pieces of any size, cut anywhere between two characters.
/// Calls may be interleaved with each other and with text: `index` tells them apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// The provider took the request. Comes first, and at most once.
    Started {
        /// The provider's name for the answer, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        response_id: Option<String>,
    },
    /// More of the visible text.
    Text {
        /// The piece.
        text: String,
    },
    /// More of what the provider marks as a refusal. A person reads it like text, and it becomes text.
    Refusal {
        /// The piece.
        text: String,
    },
    /// More of the visible reasoning.
    Reasoning {
        /// The piece.
        text: String,
    },
    /// The reasoning so far is complete. Without any before it: reasoning that is hidden.
    ReasoningEnd {
        /// What the provider wants back unchanged with it, verbatim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<Value>,
    },
    /// The model begins to ask for a tool.
    ToolCallStarted {
        /// Which call of this answer; any number not used before in it.
        index: u32,
        /// The provider's id for the call, if it gives one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The name of the tool.
        name: String,
    },
    /// More of a call's arguments.
    ToolCallArguments {
        /// Which call.
        index: u32,
        /// The piece, of JSON or what the model takes for it.
        text: String,
    },
    /// A call's arguments are complete. If none came, not even an empty piece, they are an empty object.
    ToolCallEnd {
        /// Which call.
        index: u32,
        /// What the provider wants back unchanged with the call, verbatim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<Value>,
    },
    /// An item that has no parts of its own: a provider's, of a kind unknown here. Messages,
    /// reasoning and calls never come this way.
    Item {
        /// The item.
        item: Item,
    },
    /// What the attempt has used so far, in total: a later one replaces an earlier one.
    Usage {
        /// The tokens.
        usage: Usage,
    },
    /// The answer is whole. Nothing follows.
    Finished {
        /// Why the model stopped.
        reason: FinishReason,
        /// The provider's own word for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw: Option<String>,
    },
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It had nothing more to say.
    Stop,
    /// It waits for the results of its calls.
    ToolCalls,
    /// It reached the most it may write in one answer.
    Length,
    /// The provider withheld the rest.
    ContentFilter,
    /// The provider paused a long answer: asked again, the model goes on.
    Pause,
    /// A reason unknown here.
    Other,
}

impl FinishReason {
    /// Returns its name, as it stands in logs and streams.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::Length => "length",
            FinishReason::ContentFilter => "content_filter",
            FinishReason::Pause => "pause",
            FinishReason::Other => "other",
        }
    }

    /// Tells whether the model came to an end by itself, so that a call it began is a call it made.
    #[must_use]
    pub fn is_natural(self) -> bool {
        match self {
            FinishReason::Stop | FinishReason::ToolCalls => true,
            FinishReason::Length
            | FinishReason::ContentFilter
            | FinishReason::Pause
            | FinishReason::Other => false,
        }
    }
}
