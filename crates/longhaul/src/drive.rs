//! Driving a session until it rests, or watching the live worker that does, with the person at the keys.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use longhaul_engine::{Driven, Snapshot, Watcher, Worker};
use longhaul_session::command::Command;
use longhaul_session::entry::Content;
use longhaul_session::failure::Failure;
use longhaul_session::goal::{Goal, GoalStatus};
use longhaul_session::id::{EntryNo, SessionId};
use longhaul_session::state::{SessionState, Status};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::line::Line;
use crate::next::{self, awaits_person};
use crate::render::Renderer;
use crate::signals::Termination;
use crate::spend;
use crate::start::watch;
use crate::summary;

/// How often a watched session is looked at, should its worker die.
pub(crate) const LOOK_MS: u64 = 500;
/// Entries before those shown in which a call may have been made whose result is shown.
const ENTRIES_BEFORE: u64 = 20;

/// Shows a session from the entry after `after` on, and drives it until it rests.
pub(crate) async fn drive(app: &App, session: SessionId, after: EntryNo) -> anyhow::Result<ExitCode> {
    drive_to(app, session, after, Wanted::Rest, Keys::listen()?).await
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
    mut keys: Keys,
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
    let worker = app.worker(0, keys.shutdown.clone()).await?;
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
                return Err(error);
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
    let another = snapshot.row.owner.is_some_and(|owner| owner != worker.id());
    let goes_on = matches!(driven, Driven::Stopped) && another && app.is_owned(&snapshot.row).await?;
    conclude(app, &mut renderer, &snapshot, &End { driven, interrupted, goes_on }).await
}

/// How the driving of a session ended.
struct End {
    driven: Driven,
    /// Its last turn was interrupted, and somebody wanted it done.
    interrupted: bool,
    /// Another process was watched, and goes on.
    goes_on: bool,
}

/// What went wrong in this process means for a session that its work is not done.
#[derive(Debug, thiserror::Error)]
#[error("session {id} was left in the middle; `longhaul resume {id}` goes on once this is mended")]
pub(crate) struct LeftInTheMiddle {
    /// The session's short id.
    pub(crate) id: String,
}

/// Says of what went wrong in this process what it means for the session.
pub(crate) fn stopped_by(error: impl Into<anyhow::Error>, session: SessionId) -> anyhow::Error {
    error.into().context(LeftInTheMiddle { id: summary::short_id(session) })
}

/// Lets the renderer know what the calls are about whose results come next.
pub(crate) async fn name_earlier_calls(
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
        driven = &mut driving => driven.map_err(|error| stopped_by(error, session)),
        failed = show(app, session, watcher, renderer, keys) => {
            // The reader of our output is gone, or the store failed. The session is given back all the
            // same: a runner that is dropped would be a crash, and leave calls of unknown outcome.
            keys.shutdown.cancel();
            match driving.await {
                Ok(Driven::Stopped) | Err(_) => Err(stopped_by(failed, session)),
                Ok(Driven::Waiting | Driven::RequiresAction | Driven::Failed(_) | Driven::OwnedBy(_)) => {
                    Err(failed)
                }
            }
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
    end: &End,
) -> anyhow::Result<ExitCode> {
    let End { driven, interrupted, goes_on } = end;
    let state = &snapshot.state;
    let session = snapshot.row.session;
    let (code, error) = match driven {
        Driven::Stopped => (130, None),
        Driven::Failed(failure) => (failed_code(state, &failure.message), Some(failure.clone())),
        Driven::RequiresAction => (5, None),
        Driven::Waiting | Driven::OwnedBy(_) => (if *interrupted { 130 } else { goal_code(state) }, None),
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
    if matches!(driven, Driven::RequiresAction) {
        for (_, about) in
            next::open_calls(app, snapshot).await?.iter().filter(|(call, _)| awaits_person(call))
        {
            renderer.say(&format!("  ? {about}"))?;
        }
    }
    let said = match (driven, error) {
        _ if *goes_on => "no longer watching; the session goes on".to_owned(),
        (_, Some(failure)) => failed(snapshot, &failure, &spent),
        (Driven::Stopped, None) => ending(snapshot, "stopped", &spent),
        (_, None) if state.status == Status::RequiresAction => {
            ending(snapshot, "waiting for an answer", &spent)
        }
        (_, None) => rested(snapshot, *interrupted, &spent),
    };
    renderer.say(&said)?;
    Ok(ExitCode::from(code))
}

/// Says how a session failed, and what to do.
fn failed(snapshot: &Snapshot, failure: &Failure, spent: &str) -> String {
    let said = format!("failed: {}\n  {}", failure.message, failure.class.advice());
    let goal = ended_by(&snapshot.state, &failure.message);
    let what = goal.map(|goal| format!("goal {}", summary::goal_status(goal.status)));
    format!("{said}\n{}", ending(snapshot, what.as_deref().unwrap_or("not done"), spent))
}

/// Says how things stand with a session at rest, and what to do where its goal is not reached.
fn rested(snapshot: &Snapshot, interrupted: bool, spent: &str) -> String {
    let state = &snapshot.state;
    let Some(goal) = &state.goal else {
        return ending(snapshot, if interrupted { "interrupted" } else { "done" }, spent);
    };
    let why = summary::why_goal_rests(state).unwrap_or_default();
    let what = match goal.status {
        GoalStatus::Paused if interrupted => "interrupted, goal paused".to_owned(),
        GoalStatus::Complete | GoalStatus::Paused => format!("goal {}", summary::goal_status(goal.status)),
        GoalStatus::Blocked | GoalStatus::UsageLimited | GoalStatus::BudgetLimited => {
            format!("goal {}: {why}", summary::goal_status(goal.status))
        }
        GoalStatus::Active => format!("goal at rest: {why}"),
    };
    ending(snapshot, &what, spent)
}

/// Puts together what is said at the end: how it ended, what was spent, and which command goes on.
fn ending(snapshot: &Snapshot, what: &str, spent: &str) -> String {
    let id = summary::short_id(snapshot.row.session);
    match next::command(&snapshot.state, &id) {
        Some(next) => format!("{what} · {spent}\n  go on with: {next}"),
        None => format!("{what} · {spent} · session {id}"),
    }
}

/// Returns the exit code of a session that failed: what its goal means, if it was that failure which ended it.
fn failed_code(state: &SessionState, message: &str) -> u8 {
    if ended_by(state, message).is_some() { goal_code(state) } else { 1 }
}

/// Returns the goal that a failure has ended.
pub(crate) fn ended_by<'a>(state: &'a SessionState, message: &str) -> Option<&'a Goal> {
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

/// Listens for signals. The first Ctrl-C interrupts the turn, the second stops the program, as do TERM and HUP.
pub(crate) struct Keys {
    interrupt: Signal,
    terminate: Termination,
    shutdown: CancellationToken,
    interrupted: bool,
}

impl Keys {
    /// Begins to listen: a key that is pressed from now on is not lost.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, Termination::listen()?);
        Ok(Keys { interrupt, terminate, shutdown: CancellationToken::new(), interrupted: false })
    }

    async fn pressed(&mut self) -> Pressed {
        tokio::select! {
            _ = self.interrupt.recv() => {
                if !std::mem::replace(&mut self.interrupted, true) {
                    return Pressed::Interrupt;
                }
            }
            () = self.terminate.recv() => {}
        }
        self.shutdown.cancel();
        Pressed::Stop
    }
}
