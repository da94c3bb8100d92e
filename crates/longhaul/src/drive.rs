//! Driving a session until it rests, or watching the live worker that does, with the person at the keys.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use longhaul_engine::{Driven, Snapshot, Watcher, Worker};
use longhaul_session::command::Command;
use longhaul_session::entry::{Content, Mode};
use longhaul_session::goal::{Goal, GoalStatus};
use longhaul_session::id::{EntryNo, SessionId};
use longhaul_session::state::{SessionState, Status};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::line::Line;
use crate::render::Renderer;
use crate::spend;
use crate::start::watch;
use crate::summary;

/// How often a watched session is looked at, should its worker die.
pub(crate) const LOOK_MS: u64 = 500;
/// Entries before those shown in which a call may have been made whose result is shown.
const ENTRIES_BEFORE: u64 = 20;

/// Shows a session from the entry after `after` on, and drives it until it rests.
pub(crate) async fn drive(app: &App, session: SessionId, after: EntryNo) -> anyhow::Result<ExitCode> {
    drive_to(app, session, after, Wanted::Rest).await
}

/// What the person who started the command wants: an interruption is success only for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The turn done.
    Rest,
    /// The turn interrupted.
    Interruption,
}

/// Shows a session and drives it until it rests; what that means depends on what was wanted.
pub(crate) async fn drive_to(
    app: &App,
    session: SessionId,
    after: EntryNo,
    wanted: Wanted,
) -> anyhow::Result<ExitCode> {
    let Snapshot { row, state } = app.engine.snapshot(session).await?;
    if app.is_elsewhere(&row) {
        Renderer::new(app.options.json).say(&format!(
            "  the directory of this session is at {}: workers there drive it, here it is only watched\n  \
             (where that is this machine, say --place {})",
            row.place, row.place
        ))?;
        return watch(app, session, after).await;
    }
    let shutdown = CancellationToken::new();
    let mut keys = Keys::listen(shutdown.clone())?;
    let worker = app.worker(0, shutdown.clone()).await?;
    let mut watcher = app.engine.watch(session, after);
    let mut renderer = Renderer::new(app.options.json);
    renderer.follow(if after == 0 { SessionState::default() } else { state });
    name_earlier_calls(app, session, after, &mut renderer).await?;
    let mut told = false;
    let driven = loop {
        let driven = match step(app, &worker, session, &mut watcher, &mut renderer, &mut keys, told).await {
            Ok(driven) => driven,
            Err(error) => {
                // Where nothing can be shown, that is the error already.
                renderer.settle().ok();
                return Err(stopped_by(error, session));
            }
        };
        if !matches!(driven, Driven::OwnedBy(_)) {
            break driven;
        }
        if !std::mem::replace(&mut told, true) {
            renderer.say("  a live worker runs this session; watching it")?;
        }
    };
    // The end of the work may be known here before its last entries are.
    let snapshot = app.engine.snapshot(session).await?;
    while watcher.seen() < snapshot.row.head {
        renderer.show(&watcher.next().await?.into())?;
    }
    while let Some(event) = watcher.try_next().await? {
        renderer.show(&event.into())?;
    }
    renderer.settle()?;
    let interrupted = keys.interrupted || renderer.saw_interruption() && wanted == Wanted::Rest;
    conclude(app, &mut renderer, &snapshot, &driven, interrupted).await
}

/// Says of what went wrong in this process what it means for the session.
fn stopped_by(error: anyhow::Error, session: SessionId) -> anyhow::Error {
    let id = summary::short_id(session);
    error.context(format!(
        "session {id} was left in the middle; `longhaul resume {id}` goes on once this is mended"
    ))
}

/// Lets the renderer know what the calls are about whose results come next.
async fn name_earlier_calls(
    app: &App,
    session: SessionId,
    after: EntryNo,
    renderer: &mut Renderer,
) -> anyhow::Result<()> {
    let first = after.saturating_sub(ENTRIES_BEFORE).max(1);
    if first <= after {
        for entry in app.engine.entries(session, first..=after).await? {
            renderer.note_calls(entry.items());
        }
    }
    Ok(())
}

/// Drives for as long as it can, after a while where another worker was `watching`ed; shows what happens.
async fn step(
    app: &App,
    worker: &Worker,
    session: SessionId,
    watcher: &mut Watcher,
    renderer: &mut Renderer,
    keys: &mut Keys,
    watching: bool,
) -> anyhow::Result<Driven> {
    let driving = async {
        if watching {
            app.engine.host().sleep_ms(LOOK_MS).await;
        }
        worker.drive(session).await
    };
    tokio::pin!(driving);
    tokio::select! {
        driven = &mut driving => Ok(driven?),
        failed = show(app, session, watcher, renderer, keys) => {
            // The reader of our output is gone, or the store failed. The session is given back all the
            // same: a runner that is dropped would be a crash, and leave calls of unknown outcome.
            keys.shutdown.cancel();
            driving.await?;
            Err(failed)
        }
    }
}

/// Shows everything that happens and does what the person at the keys asks, until that fails.
async fn show(
    app: &App,
    session: SessionId,
    watcher: &mut Watcher,
    renderer: &mut Renderer,
    keys: &mut Keys,
) -> anyhow::Error {
    let mut shown = async || -> anyhow::Result<()> {
        tokio::select! {
            event = watcher.next() => renderer.show(&event?.into())?,
            pressed = keys.pressed() => match pressed {
                Pressed::Interrupt => {
                    renderer.say("  interrupting; press Ctrl-C again to stop the program")?;
                    let interrupt = Command::Interrupt { drop_queue: false };
                    // A refusal means that it rests already.
                    app.engine.command(session, interrupt, None).await?.ok();
                }
                Pressed::Stop => {
                    app.hurried.store(true, Ordering::Relaxed);
                    renderer.say("  stopping; the session can be resumed")?;
                }
            },
        }
        Ok(())
    };
    loop {
        if let Err(error) = shown().await {
            return error;
        }
    }
}

async fn conclude(
    app: &App,
    renderer: &mut Renderer,
    snapshot: &Snapshot,
    driven: &Driven,
    interrupted: bool,
) -> anyhow::Result<ExitCode> {
    let state = &snapshot.state;
    let session = snapshot.row.session;
    let (code, error) = match driven {
        Driven::Stopped => (130, None),
        Driven::Failed(failure) => (failed_code(state, &failure.message), Some(failure.clone())),
        Driven::RequiresAction => (5, None),
        Driven::Waiting | Driven::OwnedBy(_) => (if interrupted { 130 } else { goal_code(state) }, None),
    };
    if app.options.json {
        renderer.show(&Line::Result {
            session: session.to_string(),
            status: state.status.name().to_owned(),
            exit: code,
            goal: state.goal.clone().map(Box::new),
            goal_rests: summary::why_goal_rests(state),
            error: error.map(|failure| failure.message),
        })?;
        return Ok(ExitCode::from(code));
    }
    let at = state.configured_at;
    let configured = app.engine.entries(session, at..=at).await?;
    let content = configured.first().and_then(|entry| entry.content.as_ref()).map(|payload| &payload.content);
    let model = match content {
        Some(Content::Configuration { configuration }) => Some(&configuration.model),
        Some(Content::Items { .. } | Content::Prepared { .. } | Content::Guarded { .. }) | None => None,
    };
    let spent = spend::last_phrase(&state.ledger, model);
    let id = summary::short_id(session);
    match (driven, error) {
        (_, Some(failure)) => {
            renderer.say(&format!("failed: {}\n  {}", failure.message, failure.class.advice()))?;
            if let Some(goal) = ended_by(state, &failure.message) {
                let status = summary::goal_status(goal.status);
                renderer.say(&format!("goal {status} · {spent}\n  go on with: longhaul resume {id}"))?;
            }
        }
        (Driven::Stopped, None) => {
            renderer.say(&format!("stopped · {spent}\n  go on with: longhaul resume {id}"))?;
        }
        (_, None) if state.status == Status::RequiresAction => {
            renderer.say(&format!("waiting for an answer · {spent}"))?;
        }
        (_, None) if !interrupted && let Some(goal) = &state.goal => {
            renderer.say(&goal_end(state, goal, &id, &spent))?;
        }
        (_, None) => {
            let done = if interrupted { "interrupted" } else { "done" };
            renderer.say(&format!("{done} · {spent} · session {id}"))?;
        }
    }
    Ok(ExitCode::from(code))
}

/// Says how things stand with the goal of a session at rest, and what to do.
fn goal_end(state: &SessionState, goal: &Goal, id: &str, spent: &str) -> String {
    let why = summary::why_goal_rests(state).unwrap_or_default();
    let (what, next) = match goal.status {
        GoalStatus::Complete => return format!("goal complete · {spent} · session {id}"),
        GoalStatus::Paused => ("goal paused".to_owned(), format!("longhaul resume {id}")),
        GoalStatus::Blocked => (format!("goal blocked: {why}"), format!("longhaul resume {id}")),
        GoalStatus::UsageLimited => (format!("goal out of quota: {why}"), format!("longhaul resume {id}")),
        GoalStatus::BudgetLimited => {
            (format!("goal out of budget: {why}"), format!("longhaul goal budget {id} (with more of it)"))
        }
        GoalStatus::Active if state.mode == Mode::Plan => {
            (format!("goal at rest: {why}"), format!("longhaul mode {id} work"))
        }
        GoalStatus::Active => (format!("goal at rest: {why}"), format!("longhaul resume {id}")),
    };
    format!("{what} · {spent}\n  go on with: {next}")
}

/// Returns the exit code of a session that failed: what its goal means, if it was that failure which ended it.
fn failed_code(state: &SessionState, message: &str) -> u8 {
    if ended_by(state, message).is_some() { goal_code(state) } else { 1 }
}

/// Returns the goal that a failure has ended.
fn ended_by<'a>(state: &'a SessionState, message: &str) -> Option<&'a Goal> {
    state.goal.as_ref().filter(|goal| goal.reason.as_deref() == Some(message))
}

/// Returns the exit code that a resting session's goal means.
pub(crate) fn goal_code(state: &SessionState) -> u8 {
    match state.goal.as_ref().map(|goal| goal.status) {
        None | Some(GoalStatus::Complete | GoalStatus::Paused) => 0,
        Some(GoalStatus::Active) => 5,
        Some(GoalStatus::Blocked) => 4,
        Some(GoalStatus::BudgetLimited | GoalStatus::UsageLimited) => 3,
    }
}

/// What a person or the system asks of the program while it runs.
enum Pressed {
    Interrupt,
    Stop,
}

/// Listens for signals. The first Ctrl-C interrupts the turn, the second stops the program, as does TERM.
struct Keys {
    interrupt: Signal,
    terminate: Signal,
    shutdown: CancellationToken,
    interrupted: bool,
}

impl Keys {
    fn listen(shutdown: CancellationToken) -> anyhow::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Keys { interrupt, terminate, shutdown, interrupted: false })
    }

    async fn pressed(&mut self) -> Pressed {
        tokio::select! {
            _ = self.interrupt.recv() => {
                if !std::mem::replace(&mut self.interrupted, true) {
                    return Pressed::Interrupt;
                }
            }
            _ = self.terminate.recv() => {}
        }
        self.shutdown.cancel();
        Pressed::Stop
    }
}
