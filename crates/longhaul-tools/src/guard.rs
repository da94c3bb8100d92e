//! Runs foreign code in a task of its own, so that a panic, a hang or a slow end of it stays there.

use std::future::Future;
use std::time::Duration;

use longhaul_session::item::Outcome;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::tool::ToolOutput;

/// How long a call may take.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Until it is told to stop.
    pub(crate) limit: Duration,
    /// From then until it is abandoned.
    pub(crate) grace: Duration,
}

/// How a call ended.
pub(crate) enum Ended<T> {
    /// By itself.
    InTime(T),
    /// After it was told to stop, with what it had by then.
    Late(T, Why),
    /// By a panic, with its message.
    Panicked(String),
    /// It was told to stop and did not: nobody knows what it still does.
    Abandoned(Why),
}

/// Why a call was told to stop.
#[derive(Clone, Copy)]
pub(crate) enum Why {
    /// Its caller no longer wants it.
    Cancelled,
    /// It took longer than this.
    TimeLimit(Duration),
}

/// Runs a call until it ends, `cancel` fires or its time is over; then fires `stop` and waits for it
/// a little longer. Dropping this future fires `stop` too, and aborts the task.
pub(crate) async fn guarded<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
    cancel: &CancellationToken,
    stop: CancellationToken,
    bounds: Bounds,
) -> Ended<T> {
    let _stop_on_drop = stop.clone().drop_guard();
    let mut running = AbortOnDropHandle::new(tokio::spawn(call));
    let why = match timeout(bounds.limit, cancel.run_until_cancelled(&mut running)).await {
        Ok(Some(Ok(value))) => return Ended::InTime(value),
        Ok(Some(Err(error))) => return broken(error, Why::Cancelled),
        Ok(None) => Why::Cancelled,
        Err(_) => Why::TimeLimit(bounds.limit),
    };
    stop.cancel();
    match timeout(bounds.grace, &mut running).await {
        Ok(Ok(value)) => Ended::Late(value, why),
        Ok(Err(error)) => broken(error, why),
        Err(_) => Ended::Abandoned(why),
    }
}

/// A task that ended without a value panicked, or its runtime is shutting down.
fn broken<T>(error: JoinError, why: Why) -> Ended<T> {
    let Ok(payload) = error.try_into_panic() else { return Ended::Abandoned(why) };
    let message = payload.downcast_ref::<&str>().map(ToString::to_string);
    let message = message.or_else(|| payload.downcast_ref::<String>().cloned());
    Ended::Panicked(message.unwrap_or_else(|| "no message".to_owned()))
}

/// Makes the end of a call its result.
pub(crate) fn result(ended: Ended<ToolOutput>) -> ToolOutput {
    match ended {
        Ended::InTime(output) => output,
        Ended::Late(output, why) => late(output, why),
        Ended::Panicked(message) => ToolOutput::error(format!(
            "The tool broke (a panic: {message}). It may have had effects; check before you repeat it."
        )),
        Ended::Abandoned(why) => ToolOutput::new(
            why.outcome(),
            format!(
                "{} It did not end when it was told to and was left behind: its outcome is unknown, and it may \
                 still have effects. Check before you repeat it.",
                why.notice()
            ),
        ),
    }
}

/// What finished, or was never run, stays so: to call it stopped would invite a repetition.
fn late(output: ToolOutput, why: Why) -> ToolOutput {
    match output.outcome {
        Outcome::Ok | Outcome::Rejected | Outcome::Denied | Outcome::NotRun | Outcome::Foreign => output,
        Outcome::Error
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::Cancelled
        | Outcome::Unknown
        | Outcome::Expired => {
            let text = format!("{}\n[{}]", output.text, why.notice());
            ToolOutput { outcome: why.outcome(), text, ..output }
        }
    }
}

impl Why {
    fn outcome(self) -> Outcome {
        match self {
            Why::Cancelled => Outcome::Stopped,
            Why::TimeLimit(_) => Outcome::TimedOut,
        }
    }

    fn notice(self) -> String {
        match self {
            Why::Cancelled => "The call was stopped before it finished. It may have had effects.".to_owned(),
            Why::TimeLimit(limit) => format!(
                "The call ran into its time limit of {} s and was ended. It may have had effects.",
                limit.as_secs_f64()
            ),
        }
    }
}
