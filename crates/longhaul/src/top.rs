//! `top`: the sessions that have work, and the workers with their load, on the screen until it is left.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use longhaul_session::id::Timestamp;
use longhaul_session::state::{SessionState, Status};
use longhaul_store::{Filter, Page, Row, WorkerInfo};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, passing};
use crate::cli;
use crate::summary;

/// Sessions shown at most, of each status.
const SESSIONS: usize = 100;
/// How often it looks, in milliseconds.
const REFRESH_MS: u64 = 1_000;
/// The widest a line is on paper; a terminal may be narrower.
const COLUMNS: usize = 160;
/// What has work, in the order shown.
const BUSY: [Status; 3] = [Status::Running, Status::Interrupting, Status::RequiresAction];

/// What there is to see at one moment.
struct Picture {
    busy: Vec<(Row, SessionState)>,
    /// Those that live, then those that died lately.
    workers: Vec<WorkerInfo>,
    now: Timestamp,
}

/// Shows what is going on; on a terminal again and again.
pub(crate) async fn top(app: &App, args: cli::Top) -> anyhow::Result<ExitCode> {
    let screen = console::Term::stdout();
    if app.options.json {
        writeln!(anstream::stdout(), "{}", json(&look(app).await?))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Listened to from here on: a key pressed while it draws is not lost.
    let mut leave = signal(SignalKind::interrupt())?;
    let mut shown = 0;
    loop {
        let (height, width) = screen.size_checked().map_or((None, COLUMNS), |(rows, columns)| {
            (Some(usize::from(rows).saturating_sub(1).max(1)), usize::from(columns))
        });
        let again = !args.once && screen.is_term();
        let found = look(app).await;
        let mut lines = match if again { passing(found)? } else { Some(found?) } {
            Some(picture) => drawn(&picture, width),
            None => vec![format!("{} cannot be used now; trying again", app.kept_in)],
        };
        // What has scrolled off the screen cannot be drawn over.
        lines.truncate(height.filter(|_| again).unwrap_or(usize::MAX));
        screen.clear_last_lines(shown)?;
        for line in &lines {
            screen.write_line(line)?;
        }
        if !again {
            return Ok(ExitCode::SUCCESS);
        }
        shown = lines.len();
        tokio::select! {
            _ = leave.recv() => return Ok(ExitCode::SUCCESS),
            () = app.engine.host().sleep_ms(REFRESH_MS) => {}
        }
    }
}

async fn look(app: &App) -> anyhow::Result<Picture> {
    let store = app.engine.store();
    let mut workers = store.workers().await?;
    workers.sort_by_key(|worker| !worker.alive);
    let mut busy = Vec::new();
    for status in BUSY {
        let filter = Filter { status: Some(status.name().to_owned()), ..Filter::default() };
        for row in store.list(filter, Page { after: None, limit: SESSIONS }).await? {
            let state = serde_json::from_slice(&row.state).with_context(|| {
                format!("the state of session {} cannot be read; run `longhaul verify` on it", row.session)
            })?;
            busy.push((row, state));
        }
    }
    Ok(Picture { busy, workers, now: app.engine.host().now() })
}

impl Picture {
    fn is_owned(&self, row: &Row) -> bool {
        self.workers.iter().any(|worker| worker.alive && Some(worker.worker) == row.owner)
    }
}

fn json(picture: &Picture) -> serde_json::Value {
    let session = |(row, state): &(Row, SessionState)| {
        serde_json::json!({
            "session": row.session,
            "name": row.name,
            "status": state.status,
            "owned": picture.is_owned(row),
            "directory": row.labels.get("directory"),
            "turn": state.turn.number,
            "step": state.turn.steps,
            "ledger": state.ledger,
            "goal": state.goal,
        })
    };
    let worker = |worker: &WorkerInfo| {
        serde_json::json!({
            "worker": worker.worker,
            "alive": worker.alive,
            "running": worker.running,
            "capacity": worker.capacity,
            "place": worker.place,
            "host": worker.host,
            "pid": worker.pid,
            "version": worker.version,
            "started": worker.started,
        })
    };
    serde_json::json!({
        "sessions": picture.busy.iter().map(session).collect::<Vec<_>>(),
        "workers": picture.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

/// Draws the lines, none of them wider than the screen.
fn drawn(picture: &Picture, columns: usize) -> Vec<String> {
    let busy = picture.busy.len() as u64;
    let alive = picture.workers.iter().filter(|worker| worker.alive).count() as u64;
    let mut lines =
        vec![format!("{} busy · {} alive", summary::count(busy, "session"), summary::count(alive, "worker"))];
    let status = |(row, state): &(Row, SessionState)| summary::status(state, picture.is_owned(row));
    let width = picture.busy.iter().map(|one| status(one).len()).max().unwrap_or_default();
    for one @ (row, state) in &picture.busy {
        let used = state.ledger.measured.tokens();
        let goal = state.goal.as_ref().map(|goal| format!("goal {}  ", summary::goal_meter(goal, columns)));
        let goal = goal.unwrap_or_default();
        lines.push(format!(
            "{}  {:<width$}  turn {:<4} step {:<4} {:>8} tokens  {goal}{}",
            summary::short_id(row.session),
            status(one),
            state.turn.number,
            state.turn.steps,
            summary::tokens(used),
            row.name.as_deref().or(row.labels.get("directory").map(String::as_str)).unwrap_or_default(),
        ));
    }
    lines.extend(picture.workers.iter().map(|worker| worker_line(worker, picture.now)));
    lines.iter().map(|line| console::truncate_str(line.trim_end(), columns, "…").into_owned()).collect()
}

/// What matters most comes first: a narrow screen cuts the rest.
fn worker_line(worker: &WorkerInfo, now: Timestamp) -> String {
    let id = worker.worker.to_string();
    // One that was started for a session takes on nothing else.
    let room = if worker.capacity == 0 { String::new() } else { format!("/{}", worker.capacity) };
    format!(
        "worker {} {} {:>5} pid {:<7} {}  place {}  version {}  started {}",
        &id[..8],
        if worker.alive { "alive" } else { "dead " },
        format!("{}{room}", worker.running),
        worker.pid,
        worker.host,
        worker.place,
        worker.version,
        summary::ago(worker.started, now)
    )
}

#[cfg(test)]
mod tests {
    use longhaul_session::id::WorkerId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_narrow_screen_still_tells_who_lives_and_how_loaded_they_are() {
        let worker = WorkerInfo {
            worker: WorkerId(Uuid::from_u128(0x0123_4567 << 96)),
            place: "a-host-with-a-long-name".to_owned(),
            host: "a-host-with-a-long-name".to_owned(),
            pid: 4_194_304,
            version: "0.1.0".to_owned(),
            address: None,
            started: Timestamp(0),
            capacity: 16,
            running: 3,
            alive: true,
        };
        let dead = WorkerInfo { alive: false, capacity: 0, running: 1, ..worker.clone() };
        let picture = Picture { busy: Vec::new(), workers: vec![worker, dead], now: Timestamp(60_000) };
        assert_eq!(
            drawn(&picture, 40),
            [
                "0 sessions busy · 1 worker alive",
                "worker 01234567 alive  3/16 pid 4194304…",
                "worker 01234567 dead      1 pid 4194304…",
            ]
        );
    }
}
