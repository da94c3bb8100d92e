//! What a tool is: the trait, what a call is given, and what it gives back. Nothing here runs one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::ToolSpec;
use longhaul_session::id::{CallId, EntryNo, SessionId};
use longhaul_session::item::{FileSeen, Outcome};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::workspace::Workspace;

/// Something a model may ask for.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// Describes the tool to the model and to the machine. The same on every call.
    fn spec(&self) -> ToolSpec;

    /// Runs one call whose arguments fit the schema. Must end soon after `cx.cancel` fires.
    async fn call(&self, arguments: Value, cx: &CallContext) -> ToolOutput;

    /// Finds out what became of a call whose outcome is unknown; `None`: this tool cannot tell.
    async fn reconcile(&self, key: &IdempotencyKey, cx: &CallContext) -> Option<ToolOutput> {
        let _ = (key, cx);
        None
    }

    /// Returns how long a call may take, unless the tool is set otherwise.
    fn time_limit(&self) -> Duration {
        limits::TIME_LIMIT
    }

    /// Returns how long a call may go on after `cx.cancel` fired before it is abandoned.
    fn stop_grace(&self) -> Duration {
        limits::STOP_GRACE
    }
}

/// Names one call for ever, so that an effect can be recognised when it is asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// The session.
    pub session: SessionId,
    /// The entry of the model step that holds the call.
    pub entry: EntryNo,
    /// The call's id within the session.
    pub call: CallId,
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.session, self.entry, self.call)
    }
}

/// What a call is given besides its arguments.
#[derive(Clone)]
pub struct CallContext {
    /// The call's name for ever.
    pub key: IdempotencyKey,
    /// Fires when the call is to end.
    pub cancel: CancellationToken,
    /// The files the call may touch, and what is known of them.
    pub workspace: Arc<Workspace>,
    /// Takes lines of output while the call runs.
    pub progress: Progress,
    /// The longest text the model will see, in bytes; a longer one is cut. Set by the toolbox.
    pub max_output_bytes: usize,
}

impl CallContext {
    /// Makes the context of one call, with the default output limit.
    #[must_use]
    pub fn new(
        key: IdempotencyKey,
        cancel: CancellationToken,
        workspace: Arc<Workspace>,
        progress: Progress,
    ) -> Self {
        CallContext { key, cancel, workspace, progress, max_output_bytes: limits::MAX_OUTPUT_BYTES }
    }
}

/// A bounded sink for lines of output while a call runs. Never blocks: a line that finds it full is
/// dropped, as the whole output comes with the result.
#[derive(Clone, Debug, Default)]
pub struct Progress(Option<mpsc::Sender<String>>);

impl Progress {
    /// Makes a sink that drops everything.
    #[must_use]
    pub fn none() -> Self {
        Progress(None)
    }

    /// Makes a sink that holds at most `lines` unread lines, and the end they are read from.
    ///
    /// # Panics
    /// If `lines` is 0.
    #[must_use]
    pub fn channel(lines: usize) -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(lines);
        (Progress(Some(sender)), receiver)
    }

    /// Passes on one line, without its line end. Bytes that are no UTF-8 are replaced.
    pub fn line(&self, bytes: &[u8]) {
        if let Some(Ok(place)) = self.0.as_ref().map(mpsc::Sender::try_reserve) {
            place.send(String::from_utf8_lossy(bytes).into_owned());
        }
    }
}

/// What a call gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOutput {
    /// How the call ended.
    pub outcome: Outcome,
    /// What the model reads.
    pub text: String,
    /// Files the call read or wrote, as they were afterwards.
    pub files: Vec<FileSeen>,
    /// The uncut output, when `text` had to be cut. The text names it by the digest of these bytes,
    /// so it must be kept as an artifact of that digest.
    pub whole: Option<Vec<u8>>,
}

impl ToolOutput {
    /// Makes the output of a call that ended in some way, with a text and nothing else.
    #[must_use]
    pub fn new(outcome: Outcome, text: impl Into<String>) -> Self {
        ToolOutput { outcome, text: text.into(), files: Vec::new(), whole: None }
    }

    /// Makes the output of a call that succeeded.
    #[must_use]
    pub fn ok(text: impl Into<String>) -> Self {
        ToolOutput::new(Outcome::Ok, text)
    }

    /// Makes the output of a call that ran and failed.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        ToolOutput::new(Outcome::Error, text)
    }

    /// Adds a file the call read or wrote.
    #[must_use]
    pub fn with_file(mut self, file: FileSeen) -> Self {
        self.files.push(file);
        self
    }
}

/// Makes a tool from what describes it and a function that runs it.
pub fn function<F, R>(spec: ToolSpec, call: F) -> impl Tool
where
    F: Fn(Value, CallContext) -> R + Send + Sync + 'static,
    R: Future<Output = ToolOutput> + Send + 'static,
{
    Function { spec, call: Box::new(move |arguments, cx| Box::pin(call(arguments, cx))) }
}

type Running = Pin<Box<dyn Future<Output = ToolOutput> + Send>>;

struct Function {
    spec: ToolSpec,
    call: Box<dyn Fn(Value, CallContext) -> Running + Send + Sync>,
}

#[async_trait]
impl Tool for Function {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    async fn call(&self, arguments: Value, cx: &CallContext) -> ToolOutput {
        (self.call)(arguments, cx.clone()).await
    }
}
