//! The commands that look and change nothing: `ls`, `show`, `log`, `verify`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use longhaul_engine::{Event, Fullness, Snapshot};
use longhaul_session::entry::Entry;
use longhaul_session::id::SessionId;
use longhaul_session::item::Item;
use longhaul_session::ledger::Ledger;
use longhaul_session::state::PendingCall;
use longhaul_store::{Filter, Page};
use serde_json::json;

use crate::app::App;
use crate::cli;
use crate::goal;
use crate::line::Line;
use crate::next;
use crate::spend::{self, Together};
use crate::summary;

/// Entries read at once.
const BATCH: u64 = 500;
/// The widest a line of a table is on paper; a terminal may be narrower.
const COLUMNS: usize = 160;

/// Lists sessions, the last active first, and says what they have spent.
pub(crate) async fn ls(app: &App, args: cli::Ls) -> anyhow::Result<ExitCode> {
    let filter = Filter { archived: (!args.all).then_some(false), ..Filter::default() };
    let rows = app.engine.store().list(filter, Page { after: None, limit: usize::from(args.limit) }).await?;
    let mut out = anstream::stdout();
    if rows.is_empty() && !app.options.json {
        writeln!(out, "No sessions in {}. Start one with `longhaul run`.", app.kept_in)?;
    }
    let (mut sessions, mut together) = (Vec::new(), Together::default());
    for row in rows {
        let snapshot = app.engine.snapshot(row.session).await?;
        let owned = app.is_owned(&snapshot.row).await?;
        if app.options.json {
            writeln!(out, "{}", overview(&snapshot, owned))?;
            continue;
        }
        let ledger = &snapshot.state.ledger;
        together.add(ledger, row.parent.is_some());
        sessions.push((summary::status(&snapshot.state, owned), ledger.measured, row));
    }
    let width = sessions.iter().map(|(status, ..)| status.len()).max().unwrap_or_default();
    for (status, spent, row) in sessions {
        let line = format!(
            "{}  {status:<width$}  {:>12}  {:>13}  {:>8}  {}",
            summary::short_id(row.session),
            summary::ago(row.updated, app.engine.host().now()),
            format!("{} tokens", summary::tokens(spent.tokens())),
            if spent.cost_micros > 0 { summary::dollars(spent.cost_micros) } else { String::new() },
            row.name.as_deref().or(row.labels.get("directory").map(String::as_str)).unwrap_or_default(),
        );
        writeln!(out, "{}", fitted(&line))?;
    }
    if let Some(line) = together.line() {
        writeln!(out, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn overview(snapshot: &Snapshot, owned: bool) -> serde_json::Value {
    let (row, state) = (&snapshot.row, &snapshot.state);
    json!({
        "session": row.session,
        "name": row.name,
        "status": state.status,
        "archived": state.archived,
        "owned": owned,
        "head": row.head,
        "head_hash": row.head_hash,
        "directory": row.labels.get("directory"),
        "created": row.created,
        "updated": row.updated,
        "turn": state.turn.number,
        "queue": state.queue.len(),
        "ledger": state.ledger,
        "mode": state.mode,
        "goal": state.goal,
        "goal_rests": summary::why_goal_rests(state),
        "last_error": state.last_error,
    })
}

/// Shows one session.
pub(crate) async fn show(app: &App, args: cli::Show) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let snapshot = app.engine.snapshot(session).await?;
    let owned = app.is_owned(&snapshot.row).await?;
    let fullness = app.engine.fullness(session).await?;
    let ledger = app.engine.ledger(session).await?;
    let mut out = anstream::stdout();
    if app.options.json {
        let mut shown = overview(&snapshot, owned);
        shown["context"] = json!({
            "next_request": fullness.next_request,
            "compact_above_tokens": fullness.compact_above_tokens,
            "automatic": fullness.automatic,
        });
        shown["spent"] = serde_json::to_value(&ledger)?;
        writeln!(out, "{shown}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = newest_files(app, &snapshot).await?;
    let open_calls = next::open_calls(app, &snapshot).await?;
    let shown = Shown { snapshot: &snapshot, fullness, owned, ledger, files, open_calls };
    out.write_all(described(app, &shown).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Names the files of the newest message, if it is not far back.
async fn newest_files(app: &App, snapshot: &Snapshot) -> anyhow::Result<Vec<String>> {
    let (session, head) = (snapshot.row.session, snapshot.row.head);
    let entries = app.engine.entries(session, head.saturating_sub(BATCH).max(1)..=head).await?;
    let is_message = |entry: &&Entry| entry.items().iter().any(|item| matches!(item, Item::User { .. }));
    let newest = entries.iter().rev().find(is_message).map(Entry::items).unwrap_or_default();
    let name =
        |item: &Item| if let Item::Attachment(file) = item { Some(summary::attachment(file)) } else { None };
    Ok(newest.iter().filter_map(name).collect())
}

/// What is shown of a session.
struct Shown<'a> {
    snapshot: &'a Snapshot,
    fullness: Fullness,
    owned: bool,
    ledger: Ledger,
    files: Vec<String>,
    open_calls: Vec<(&'a PendingCall, String)>,
}

fn described(app: &App, shown: &Shown<'_>) -> String {
    let Shown { snapshot, fullness, owned, ledger, files, open_calls } = shown;
    let (row, state) = (&snapshot.row, &snapshot.state);
    let now = app.engine.host().now();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        writeln!(text, "{name:<10} {value}").ok();
    };
    line("session", row.session.to_string());
    if let Some(name) = &row.name {
        line("name", name.clone());
    }
    line("status", summary::status(state, *owned));
    if let Some(failure) = &state.last_error {
        line("error", failure.message.clone());
        line("advice", failure.class.advice().to_owned());
    }
    if let Some(directory) = row.labels.get("directory") {
        line("directory", directory.clone());
    }
    let updated = summary::ago(row.updated, now);
    line("log", format!("{} entries, the last {updated}, hash {}", row.head, &row.head_hash.to_hex()[..16]));
    let turn = &state.turn;
    let (steps, calls) = (u64::from(turn.steps), u64::from(turn.tool_calls));
    line(
        "turn",
        format!("{}: {}, {}", turn.number, summary::count(steps, "step"), summary::count(calls, "call")),
    );
    if !files.is_empty() {
        line("files", files.join(" "));
    }
    let Fullness { next_request, compact_above_tokens, automatic } = fullness;
    let off = if *automatic { "" } else { summary::COMPACTION_OFF };
    let (tokens, above) = (summary::tokens(next_request.tokens), summary::tokens(*compact_above_tokens));
    let source = next_request.source.name();
    line("context", format!("{tokens} tokens ({source}), compacted above {above}{off}"));
    for (call, about) in open_calls {
        line("open call", format!("{about} ({})", call.id));
    }
    if !state.queue.is_empty() {
        line("queue", summary::count(state.queue.len() as u64, "message"));
    }
    line("spent", spend::phrase(ledger));
    for row in spend::table(ledger) {
        line("", row);
    }
    if let Some(goal) = &state.goal {
        text.push_str(&goal::described(goal, state));
    }
    if !owned && let Some(next) = next::command(state, &summary::short_id(row.session)) {
        // Writing to a string cannot fail.
        writeln!(text, "{:<10} {next}", "next").ok();
    }
    text
}

/// Prints the log.
pub(crate) async fn log(app: &App, args: cli::Log) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let head = app.engine.snapshot(session).await?.row.head;
    let after = args.tail.map_or(args.after, |tail| head.saturating_sub(tail));
    let mut next = after + 1;
    while next <= head {
        let entries = app.engine.entries(session, next..=head.min(next + BATCH - 1)).await?;
        next += entries.len().max(1) as u64;
        for entry in entries {
            print_entry(app, entry)?;
        }
    }
    if args.follow {
        let mut watcher = app.engine.watch(session, head.max(after));
        loop {
            if let Event::Entry(entry) = watcher.next().await? {
                print_entry(app, *entry)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn print_entry(app: &App, entry: Entry) -> anyhow::Result<()> {
    let mut out = anstream::stdout();
    if app.options.json {
        let line = Line::from(Event::Entry(Box::new(entry)));
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
        return Ok(());
    }
    let record = &entry.record;
    let time = jiff::Timestamp::from_millisecond(record.at.0)?.to_zoned(jiff::tz::TimeZone::system());
    let content = entry.content.as_ref().map(|payload| &payload.content);
    let text = format!(
        "{:>5}  {}  {:<16} {}",
        record.n,
        time.strftime("%H:%M:%S"),
        record.fact.kind(),
        summary::entry(record, content)
    );
    writeln!(out, "{}", fitted(&text))?;
    Ok(())
}

/// Cuts a line of a table to what the terminal has room for.
fn fitted(line: &str) -> std::borrow::Cow<'_, str> {
    let columns = console::Term::stdout().size_checked().map_or(COLUMNS, |(_, columns)| columns.into());
    console::truncate_str(line.trim_end(), columns, "…")
}

/// Checks logs, and says exactly what is wrong.
pub(crate) async fn verify(app: &App, args: cli::Verify) -> anyhow::Result<ExitCode> {
    let sessions = if args.all { all(app).await? } else { vec![app.find(&args.session).await?] };
    let mut out = anstream::stdout();
    let mut broken = 0;
    for session in &sessions {
        let head = app.engine.snapshot(*session).await.map(|snapshot| snapshot.row.head);
        let problems = match app.engine.verify(*session).await {
            Ok(problems) => problems,
            Err(error) => vec![error.to_string()],
        };
        broken += u64::from(!problems.is_empty());
        if app.options.json {
            writeln!(out, "{}", json!({ "session": session, "head": head.ok(), "problems": problems }))?;
            continue;
        }
        if problems.is_empty() {
            let head = head.unwrap_or_default();
            writeln!(out, "{session}  ok, {head} entries: chain, fold, totals, calls and results")?;
        }
        for problem in problems {
            writeln!(out, "{session}  {problem}")?;
        }
    }
    if !app.options.json && sessions.len() > 1 {
        writeln!(out, "{}, {broken} broken", summary::count(sessions.len() as u64, "session"))?;
    }
    Ok(ExitCode::from(u8::from(broken > 0)))
}

async fn all(app: &App) -> anyhow::Result<Vec<SessionId>> {
    let mut sessions = Vec::new();
    let mut after = None;
    loop {
        let page = app.engine.store().list(Filter::default(), Page { after, limit: 1_000 }).await?;
        let Some(last) = page.last() else { return Ok(sessions) };
        after = Some(last.cursor());
        sessions.extend(page.iter().map(|row| row.session));
    }
}
