//! Checks of a goal: one command, run as `bash` runs one, with the same right and the same end. What a
//! check decides is not asked here.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::Permission;

use crate::limits::{MAX_CHECK_OUTPUT_BYTES, REAP_GRACE, TERM_GRACE};
use crate::output::cut;
use crate::process::{self, Ended, Leave};
use crate::scope::ScopeError;
use crate::tool::CallContext;

/// How long a check may go on after it was told to stop.
pub const STOP_GRACE: Duration = Duration::from_secs(TERM_GRACE.as_secs() + 4 * REAP_GRACE.as_secs());

/// A check that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// How it ended.
    pub ended: CheckEnd,
    /// What it said, standard output and error as they came; the middle is cut out of what is long.
    pub output: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckEnd {
    /// With this exit code; 0 is success.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// By its time limit, with all that it had started.
    TimeLimit,
    /// It was stopped, as nobody wants to know any more.
    Cancelled,
}

/// Why a check could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A command may write whatever it likes in the working directory, so it needs the right to.
    #[error("{0} A check is a command, which needs the right to write in the working directory.")]
    Scope(#[from] ScopeError),
    /// No shell could be started or watched.
    #[error("no shell could be started or watched in {directory}: {source}")]
    Shell {
        /// The working directory.
        directory: String,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Checked {
    /// Tells whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.ended == CheckEnd::Exit(0)
    }
}

/// Runs the commands of checks: on this machine, or as a simulated one would.
#[async_trait]
pub trait Checker: Send + Sync + 'static {
    /// Runs a check until it exits, its time is over or the call is cancelled.
    ///
    /// # Errors
    /// It could not be run.
    async fn run(&self, command: &str, limit: Duration, cx: &CallContext) -> Result<Checked, CheckError>;
}

/// Runs checks with `bash` in the working directory. Whatever one left running is ended with it.
#[derive(Clone, Copy, Debug)]
pub struct Shell;

#[async_trait]
impl Checker for Shell {
    async fn run(&self, command: &str, limit: Duration, cx: &CallContext) -> Result<Checked, CheckError> {
        run(command, limit, cx).await
    }
}

async fn run(command: &str, limit: Duration, cx: &CallContext) -> Result<Checked, CheckError> {
    let directory = &cx.workspace.directory;
    cx.workspace.scope.require(directory, Permission::Write)?;
    let finished = process::run(command, limit, Leave::Nothing, cx)
        .await
        .map_err(|source| CheckError::Shell { directory: directory.display().to_string(), source })?;
    let ended = match finished.ended {
        Ended::Exit(code) => CheckEnd::Exit(code),
        Ended::Signal(signal) => CheckEnd::Signal(signal),
        Ended::Cancelled => CheckEnd::Cancelled,
        Ended::TimeLimit => CheckEnd::TimeLimit,
    };
    let note = |bytes| format!("[… {bytes} bytes cut …]");
    Ok(Checked { ended, output: cut(finished.output.text().trim_end(), MAX_CHECK_OUTPUT_BYTES, note) })
}
