//! Runs one command in a process group of its own, and ends all of the group with it.
//!
//! A process that leaves the group (`setsid`, `set -m`) goes on where the command ends by itself and may leave
//! one, and is ended where the command is; one that has wiped its environment is not found, and only a sandbox
//! can hold it. Should this process die, even by KILL, a watcher ends them in its place: the system's own means
//! for that would have to be set between fork and exec, which takes unsafe code.

mod capture;
mod group;
mod strays;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use self::capture::Capture;
use self::group::Group;
pub use self::group::is_secret;
use crate::limits::{DRAIN_SILENCE, REAP_GRACE, TERM_GRACE};
use crate::tool::CallContext;

/// Bytes taken from a command at once: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// What a command that ends by itself may leave running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// What has left its process group, as a server does that is to stay.
    Daemons,
    Nothing,
}

/// A command that is over.
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    pub(crate) took: Duration,
    /// It ended by itself, but others of its group had to be ended.
    pub(crate) left_running: bool,
    pub(crate) output: Capture,
}

/// How a command ended.
#[derive(Clone, Copy)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
    Cancelled,
    TimeLimit,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, signal) => Ended::Signal(signal.unwrap_or(0)),
        }
    }
}

/// Runs a command until it exits, its time is over or the call is cancelled. Dropping this future
/// kills the group.
///
/// # Errors
/// When the shell cannot be started or watched.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a command took is told to the model and decides nothing"
)]
pub(crate) async fn run(
    command: &str,
    limit: Duration,
    leave: Leave,
    cx: &CallContext,
) -> io::Result<Finished> {
    let started = Instant::now();
    let (reader, writer) = io::pipe()?;
    let mut output = Output {
        pipe: Some(Receiver::from_owned_fd(reader.into())?),
        buffer: vec![0; READ_BYTES],
        capture: Capture::new(cx.progress.clone()),
    };
    let mut group = Group::start(command, writer, cx)?;
    let exited = async {
        loop {
            tokio::select! {
                status = group.exited() => return status,
                () = output.take() => {}
            }
        }
    };
    let ended = match timeout(limit, cx.cancel.run_until_cancelled(exited)).await {
        Ok(Some(status)) => status?.into(),
        Ok(None) => Ended::Cancelled,
        Err(_) => Ended::TimeLimit,
    };
    let by_itself = matches!(ended, Ended::Exit(_) | Ended::Signal(_));
    let leave = if by_itself { leave } else { Leave::Nothing };
    let left_running = end(&mut group, &mut output, leave).await && by_itself;
    let mut capture = output.capture;
    capture.finish();
    Ok(Finished { ended, took: started.elapsed(), left_running, output: capture })
}

/// Ends what is left of a group and takes the last of its output; says whether anything of it was left.
async fn end(group: &mut Group, output: &mut Output, leave: Leave) -> bool {
    let left = group.lives().await;
    if left {
        group.terminate();
        let gone = async {
            tokio::select! {
                () = group.gone() => {}
                () = output.take_all() => {}
            }
        };
        if timeout(TERM_GRACE, gone).await.is_err() {
            group.kill();
        }
    }
    if leave == Leave::Nothing {
        group.kill_with_strays().await;
    }
    // A process that has left the group may go on writing, or just hold the pipe open.
    let rest =
        async { while output.pipe.is_some() && timeout(DRAIN_SILENCE, output.take()).await.is_ok() {} };
    let _ = timeout(REAP_GRACE, rest).await;
    group.close().await;
    left
}

/// What a command writes: read all the time, so that it never waits for us; kept within bounds.
struct Output {
    pipe: Option<Receiver>,
    buffer: Vec<u8>,
    capture: Capture,
}

impl Output {
    /// Takes some output; never returns once there is none to come. Loses nothing when dropped.
    async fn take(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        match pipe.read(&mut self.buffer).await {
            Ok(bytes @ 1..) => self.capture.push(&self.buffer[..bytes]),
            Ok(0) | Err(_) => self.pipe = None,
        }
    }

    async fn take_all(&mut self) {
        loop {
            self.take().await;
        }
    }
}
