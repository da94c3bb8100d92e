//! `top`: the sessions that have work, and the workers that live, on the screen until it is left.

use std::fmt::Write as _;
use std::process::ExitCode;

use longhaul_session::state::Status;
use longhaul_store::{Filter, Page};

use crate::app::App;
use crate::cli;
use crate::summary;

/// Sessions shown at most.
const SESSIONS: usize = 100;
/// How often it looks, in milliseconds.
const REFRESH_MS: u64 = 1_000;

/// Shows what is going on; on a terminal again and again.
pub(crate) async fn top(app: &App, args: cli::Top) -> anyhow::Result<ExitCode> {
    let screen = console::Term::stdout();
    let mut shown = 0;
    loop {
        let text = picture(app).await?;
        screen.clear_last_lines(shown)?;
        screen.write_str(&text)?;
        if args.once || !screen.is_term() {
            return Ok(ExitCode::SUCCESS);
        }
        shown = text.lines().count();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            () = app.engine.host().sleep_ms(REFRESH_MS) => {}
        }
    }
}

async fn picture(app: &App) -> anyhow::Result<String> {
    let store = app.engine.store();
    let now = app.engine.host().now();
    let columns = usize::from(console::Term::stdout().size().1).max(20);
    let mut text = String::new();
    let workers = store.workers().await?;
    let alive: Vec<_> = workers.iter().filter(|worker| worker.alive).collect();
    let rows = store.list(Filter::default(), Page { after: None, limit: SESSIONS }).await?;
    let mut busy = 0;
    let mut lines = Vec::new();
    for row in rows {
        let snapshot = app.engine.snapshot(row.session).await?;
        let state = &snapshot.state;
        if matches!(state.status, Status::Waiting | Status::Failed) {
            continue;
        }
        busy += 1;
        let owned = alive.iter().any(|worker| Some(worker.worker) == row.owner);
        let used = state.ledger.measured.input + state.ledger.measured.output;
        lines.push(format!(
            "{}  {:<21}  turn {:<4} step {:<4} {:>8} tokens  {}",
            summary::short_id(row.session),
            summary::status(state, owned),
            state.turn.number,
            state.turn.steps,
            summary::tokens(used),
            row.name.as_deref().or(row.labels.get("directory").map(String::as_str)).unwrap_or_default(),
        ));
    }
    // Writing to a string cannot fail.
    writeln!(
        text,
        "{} busy · {} alive",
        summary::count(busy, "session"),
        summary::count(alive.len() as u64, "worker")
    )
    .ok();
    for worker in alive {
        lines.push(format!(
            "worker {}  pid {} on {}  version {}  since {}",
            worker.worker,
            worker.pid,
            worker.host,
            worker.version,
            summary::ago(worker.started, now)
        ));
    }
    for line in lines {
        writeln!(text, "{}", console::truncate_str(&line, columns, "…")).ok();
    }
    Ok(text)
}
