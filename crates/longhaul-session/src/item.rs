//! What the model sees: messages, reasoning, tool calls and results, summaries, context, steering.
//!
//! Items are content. They are stored beside the records, and no rule reads them.

use serde::{Deserialize, Serialize};

use crate::id::{CallId, Digest};
use crate::media;
use crate::steering::SteeringReason;

/// What a file counts for where text is counted, in bytes: providers charge a picture or a page about 1,500
/// tokens.
const FILE_AS_TEXT_BYTES: usize = 6_000;

/// One thing the model sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// What a person said.
    User {
        /// The text of the message.
        text: String,
    },
    /// What the model said.
    Assistant {
        /// The visible text.
        text: String,
        /// The text was cut off by an interrupt: the model had more to say.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
    },
    /// What the model thought before it spoke.
    Reasoning {
        /// The visible part; may be empty.
        text: String,
        /// What the provider wants back unchanged (signature, encrypted content), verbatim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<serde_json::Value>,
    },
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// What became of a tool call.
    ToolResult(ToolResult),
    /// Stands for the history before the kept tail of a compaction.
    Summary {
        /// The summary.
        text: String,
    },
    /// A file of the workspace that the model should know (`AGENTS.md`, a list of skills).
    ContextFile {
        /// Where it was read from.
        path: String,
        /// The digest of its whole text.
        digest: Digest,
        /// Its text.
        text: String,
    },
    /// What Longhaul tells the model on its own account.
    Steering {
        /// Why.
        reason: SteeringReason,
        /// The text, rendered once.
        text: String,
    },
    /// A file that a person gave with the message before it, by name: its bytes are kept apart from the log.
    Attachment(Attachment),
    /// An attachment with its bytes, as requests to models carry it. It never stands in a log.
    File {
        /// What a person calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its media type, such as `image/png` or `application/pdf`.
        media_type: String,
        /// Its bytes, in base64.
        data: String,
    },
    /// A provider's output item of a kind unknown here, sent back word for word.
    Opaque {
        /// The provider it came from, and is for.
        provider: String,
        /// The item.
        value: serde_json::Value,
    },
    /// Stands where content was redacted.
    Redacted,
}

impl Item {
    /// Returns the artifact it names, if it names one: bytes that are kept apart from the log.
    #[must_use]
    pub fn artifact(&self) -> Option<Digest> {
        match self {
            Item::ToolResult(result) => result.artifact,
            Item::Attachment(file) => Some(file.digest),
            Item::User { .. }
            | Item::Assistant { .. }
            | Item::Reasoning { .. }
            | Item::ToolCall(_)
            | Item::Summary { .. }
            | Item::ContextFile { .. }
            | Item::Steering { .. }
            | Item::File { .. }
            | Item::Opaque { .. }
            | Item::Redacted => None,
        }
    }

    /// Returns the tool call it is, if it is one.
    #[must_use]
    pub fn tool_call(&self) -> Option<&ToolCall> {
        if let Item::ToolCall(call) = self { Some(call) } else { None }
    }

    /// Returns the tool result it is, if it is one.
    #[must_use]
    pub fn tool_result(&self) -> Option<&ToolResult> {
        if let Item::ToolResult(result) = self { Some(result) } else { None }
    }

    /// Returns the size of the texts the model sees of it, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        let bytes = match self {
            Item::User { text }
            | Item::Assistant { text, .. }
            | Item::Reasoning { text, .. }
            | Item::Summary { text }
            | Item::ContextFile { text, .. }
            | Item::Steering { text, .. } => text.len(),
            Item::ToolCall(call) => call.name.len() + call.arguments.len(),
            Item::ToolResult(result) => result.output.len(),
            Item::Attachment(file) if media::is_text(&file.media_type) => {
                usize::try_from(file.bytes).unwrap_or(usize::MAX)
            }
            Item::Attachment(_) | Item::File { .. } => FILE_AS_TEXT_BYTES,
            Item::Opaque { .. } | Item::Redacted => 0,
        };
        bytes as u64
    }
}

/// A file that a person gave, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// What a person calls it.
    pub name: String,
    /// Its media type, such as `image/png` or `application/pdf`.
    pub media_type: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// The digest of its bytes: the artifact they are kept as.
    pub digest: Digest,
}

/// What a person says at once: a text, and the files given with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The text.
    pub text: String,
    /// The files, in the order they were given.
    pub files: Vec<Attachment>,
}

impl Message {
    /// Returns it as the model sees it: the text, then the files.
    #[must_use]
    pub fn into_items(self) -> Vec<Item> {
        let Message { text, files } = self;
        std::iter::once(Item::User { text }).chain(files.into_iter().map(Item::Attachment)).collect()
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Message { text, files: Vec::new() }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Message::from(text.to_owned())
    }
}

/// A request of the model to run a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The call's id, unique in what the model sees: after an edit or a compaction it may come again.
    pub id: CallId,
    /// The name of the tool.
    pub name: String,
    /// The arguments, as the model wrote them: JSON, or what it took for JSON.
    pub arguments: String,
    /// What the provider wants back unchanged with the call, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<serde_json::Value>,
}

/// What became of a tool call. Every call has exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The call it answers.
    pub call: CallId,
    /// How the call ended.
    pub outcome: Outcome,
    /// What the model reads.
    pub output: String,
    /// Files the call read or wrote, as they were afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSeen>,
    /// The whole output, when `output` had to be cut: the digest of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Digest>,
}

/// A file as a tool call left it: what an edit may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeen {
    /// Its resolved path.
    pub path: String,
    /// The digest of its content.
    pub digest: Digest,
}

/// How a tool call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and succeeded.
    Ok,
    /// It ran and failed.
    Error,
    /// It ran into its time limit and was ended.
    TimedOut,
    /// It was not run: unknown tool, invalid arguments, or a call that must be alone was not.
    Rejected,
    /// It was not run: a rule, a hook or a person said no.
    Denied,
    /// It was certainly never started.
    NotRun,
    /// It was started and then stopped: it may have had effects.
    Stopped,
    /// The caller who was to run it was told to forget it; it may have begun.
    Cancelled,
    /// The worker that may have started it was lost: nobody knows.
    Unknown,
    /// It is open in the session this one was forked or imported from, and is answered there.
    Foreign,
    /// Its deadline passed without an answer.
    Expired,
}

impl Outcome {
    /// Tells whether a tool really ran to its end: what counts as progress after a crash.
    #[must_use]
    pub fn ran(self) -> bool {
        match self {
            Outcome::Ok | Outcome::Error | Outcome::TimedOut => true,
            Outcome::Rejected
            | Outcome::Denied
            | Outcome::NotRun
            | Outcome::Stopped
            | Outcome::Cancelled
            | Outcome::Unknown
            | Outcome::Foreign
            | Outcome::Expired => false,
        }
    }

    /// Tells the model what an outcome without output of its own means.
    #[must_use]
    pub fn notice(self) -> &'static str {
        match self {
            Outcome::Ok => "Done.",
            Outcome::Error => "The tool failed.",
            Outcome::TimedOut => "The tool ran into its time limit and was ended. It may have had effects.",
            Outcome::Rejected => "The call was not run.",
            Outcome::Denied => "The call was not run: permission was denied.",
            Outcome::NotRun => "The call was not run.",
            Outcome::Stopped => {
                "The call was stopped before it finished. It may have had effects; check before you repeat it."
            }
            Outcome::Cancelled => {
                "The call was cancelled before an answer arrived. Whoever was to run it may have begun."
            }
            Outcome::Unknown => {
                "The worker running this call was lost and its outcome is unknown. It may have had effects, \
                 in part or in full. It was not run again; check before you repeat it."
            }
            Outcome::Foreign => {
                "This call belongs to the session this one was copied from. It was not run here."
            }
            Outcome::Expired => "No answer arrived before the deadline.",
        }
    }
}

/// How often a call may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// No effect outside: may run again freely.
    Pure,
    /// Safe to repeat with the same idempotency key.
    Idempotent,
    /// Never started twice. When its outcome is unknown, the model is told so.
    #[default]
    Once,
}
