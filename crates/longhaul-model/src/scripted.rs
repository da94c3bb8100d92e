//! A model that plays a script: for demonstrations without a key, and for tests that need a model
//! to do as it is told, down to how it fails.
//!
//! # The script
//! A TOML file, or a string like it. Unknown keys are errors.
//!
//! ```
//! # use longhaul_model::scripted::{ScriptError, ScriptedModel};
//! let script = r#"
//! name = "fix the build"     # optional: the model's name on screens
//! delay_ms = 20              # optional: how long each piece of an answer takes
//!
//! [[turn]]                   # the answers to one user message, or to one continuation of a goal
//!   [[turn.step]]            # one answer; steps are used in order
//!   reasoning = "Tests first."
//!   text = "I run the tests."
//!     [[turn.step.call]]
//!     tool = "bash"
//!     arguments = { command = "cargo test" }   # a table, or a string that is taken word for word
//!
//!   [[turn.step]]
//!   fail = { class = "overloaded", retry_after_ms = 100, times = 2 }
//!   text = "They said: {{last_result}}"
//!
//! [[aside]]                  # answers a request outside of the turns, and uses up no step
//! when = "Summarise the conversation"
//! step = { text = "The build was broken; it is being fixed." }
//! "#;
//! let model: ScriptedModel = script.parse()?;
//! # Ok::<(), ScriptError>(())
//! ```
//!
//! **A step** may also have:
//! - `repeat = 1000`: so many steps like this one, numbered from 1. `{n}` in the text, reasoning
//!   and arguments stands for the number. (Without `repeat`, `{n}` is just text.)
//! - `delay_ms`, `first_delay_ms`: how long each piece, and the first sign of life, take.
//! - `usage = { input = 10, output = 5 }`: the tokens reported. What is not stated is counted:
//!   input is the bytes of the request's items divided by four, rounded up; output is the bytes of
//!   the answer divided by four, rounded up, and reasoning likewise; the rest is 0.
//! - `finish = "length"`: why the answer ended, if not `stop` or `tool_calls`.
//!
//! `{{last_result}}` stands for the output of the newest tool result, everywhere `{n}` does.
//!
//! **`fail`** is one failure or a list of them, which are used up in order by the attempts at the
//! step; the attempt after them gets the answer. Each says one of `class = "…"` (a failure class),
//! `cut = true` (the stream ends too early) or `hang = true` (nothing more comes, until the attempt
//! is cancelled). `after_chars` lets so many characters of the answer through before; `times`
//! repeats the failure; `message`, `retry_after_ms` (with `class`) and `usage` are reported with it.
//!
//! **An aside** answers a request whose system prompt or newest item contains the text in `when`.
//! The first that matches is taken. Its `step` may be anything but repeated.
//!
//! When the script has no step left, it answers with a text that says so.
//!
//! # Which step is next
//! The model remembers nothing. The request alone says which step is next, and the number of the
//! attempt says which failure, so another process goes on where the last one was killed:
//!
//! 1. A user message or a goal's continuation begins the next turn.
//! 2. Reasoning, text and calls without anything else in between are one step of the turn.
//! 3. Call ids, and the opaque value of reasoning, name the turn and step they were made by. The
//!    newest of these in the request is believed, and only what comes after it is counted.
//!
//! So compaction and redaction do no harm as long as one call or reasoning of the script is left
//! in the request. If none is, what is left is counted from the first turn on. After an edit, the
//! message that was edited begins the turn that it began before. A request that is not part of the
//! conversation, such as one for a summary, needs an aside, or else gets the step that is next.

mod answer;
mod play;
mod position;
mod script;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use longhaul_session::agent::Request;
use longhaul_session::item::Item;

use crate::limits::MAX_SCRIPT_BYTES;
use crate::{Error, Identity, Model, ModelCall, PartStream};
use answer::Answer;
use position::Position;
use script::{Script, Step};

const PROVIDER: &str = "scripted";
const UNNAMED: &str = "(unnamed)";

/// What the model says when its script has no step left.
pub const END_OF_SCRIPT: &str = "The script is at its end: it has no answer for this step.";

/// A model that plays a script. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ScriptedModel {
    name: String,
    script: Arc<Script>,
}

/// Why a script cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("cannot read the script {}: {source}. Check the path and its permissions.", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is too large to be a script.
    #[error(
        "the script {} is {bytes} bytes, more than the {MAX_SCRIPT_BYTES} allowed. \
         Use `repeat` for steps that are alike.",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The text is no script.
    #[error("cannot play the script {name}: {message}")]
    Invalid {
        /// The path of the script, or what stands for it.
        name: String,
        /// What is wrong, with line, column and the line itself.
        message: String,
    },
}

impl FromStr for ScriptedModel {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        ScriptedModel::parse(text, UNNAMED)
    }
}

impl ScriptedModel {
    /// Reads a script from a file. A script without a name is called by the path.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is no script.
    pub fn from_path(path: &Path) -> Result<Self, ScriptError> {
        let unreadable = |source| ScriptError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_SCRIPT_BYTES {
            return Err(ScriptError::TooLarge { path: path.to_owned(), bytes });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        ScriptedModel::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, name: &str) -> Result<Self, ScriptError> {
        let script: Script = toml::from_str(text).map_err(|error| ScriptError::Invalid {
            name: name.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let name = script.name.clone().unwrap_or_else(|| name.to_owned());
        Ok(ScriptedModel { name, script: Arc::new(script) })
    }

    /// Returns the step that answers a request, and which repetition of it, from 1.
    fn step_for(&self, request: &Request, position: Position) -> Option<(&Step, u64)> {
        let newest = request.items.last().map_or("", |item| spoken_text(item));
        let aside = self
            .script
            .asides
            .iter()
            .find(|aside| request.system.contains(&aside.when) || newest.contains(&aside.when));
        match aside {
            Some(aside) => Some((&aside.step, 1)),
            None => self.script.step(position),
        }
    }
}

#[async_trait]
impl Model for ScriptedModel {
    fn identity(&self) -> Identity {
        Identity { provider: PROVIDER.to_owned(), model: self.name.clone(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let ModelCall { request, attempt, cancel, resume: _ } = call;
        let position = Position::after(&request.items);
        let end = Step::saying(END_OF_SCRIPT);
        let (step, n) = self.step_for(&request, position).unwrap_or((&end, 1));
        if !play::pause(step.first_delay_ms, &cancel).await {
            return Ok(Box::pin(stream::empty()));
        }
        let answer = Answer { step, n, position, request: &request };
        let delay_ms = step.delay_ms.unwrap_or(self.script.delay_ms);
        match step.failure(attempt) {
            None => Ok(play::whole(answer.parts(), delay_ms, cancel)),
            Some(failure) => play::failing(answer.spoken(), failure, delay_ms, cancel),
        }
    }
}

/// The text of an item that asks for something; nothing for those that only inform.
fn spoken_text(item: &Item) -> &str {
    match item {
        Item::User { text } | Item::Steering { text, .. } => text,
        Item::Assistant { .. }
        | Item::Reasoning { .. }
        | Item::ToolCall(_)
        | Item::ToolResult(_)
        | Item::Summary { .. }
        | Item::ContextFile { .. }
        | Item::Opaque { .. }
        | Item::Attachment(_)
        | Item::File { .. }
        | Item::Redacted => "",
    }
}
