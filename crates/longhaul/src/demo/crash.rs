//! The demo's crashes: a worker process of its own runs the session, is killed with SIGKILL in the middle
//! of the model's answer and in the middle of a tool call, and is started again each time.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, bail};
use longhaul_engine::Live;
use longhaul_model::Part;
use longhaul_session::entry::Entry;
use longhaul_session::id::{EntryNo, SessionId};
use longhaul_session::item::{Item, Outcome};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::project::Project;
use crate::app::App;
use crate::line::Line;
use crate::render::Renderer;
use crate::summary;

/// Characters of an answer that are on the screen when its worker is killed.
const STREAMED: usize = 40;
/// Workers started at the most: one for each kill, one to finish, and some in reserve.
const MAX_WORKERS: u32 = 6;

/// Where the worker is killed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    InAnswer,
    InTool,
    Never,
}

/// What a worker left when it ended.
struct Left {
    seen: EntryNo,
    killed: bool,
    exit: u8,
}

pub(super) async fn run(
    app: &App,
    session: SessionId,
    project: &Project,
    renderer: &mut Renderer,
) -> anyhow::Result<ExitCode> {
    let (mut kill, mut seen) = (Kill::InAnswer, 0);
    for _ in 0..MAX_WORKERS {
        let left = work(app, session, seen, kill, renderer).await?;
        seen = left.seen;
        if !left.killed {
            report(app, session, project, renderer).await?;
            return Ok(ExitCode::from(left.exit));
        }
        kill = match kill {
            Kill::InAnswer => {
                project.lay_out_answers(false)?;
                Kill::InTool
            }
            Kill::InTool | Kill::Never => Kill::Never,
        };
    }
    bail!("the session did not come to rest with {MAX_WORKERS} workers")
}

/// Starts a worker, shows what it does, and kills it where it is to be killed.
async fn work(
    app: &App,
    session: SessionId,
    seen: EntryNo,
    kill: Kill,
    renderer: &mut Renderer,
) -> anyhow::Result<Left> {
    let mut worker = start(app, session, seen)?;
    let pid = worker.id().unwrap_or_default();
    let stdout = worker.stdout.take().context("the worker's output is a pipe")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut left = Left { seen, killed: false, exit: 1 };
    let mut streamed = 0;
    while let Some(text) = lines.next_line().await? {
        let line: Line =
            serde_json::from_str(&text).context("the worker wrote something else than events")?;
        match &line {
            Line::Entry { record, .. } => {
                left.seen = record.n;
                streamed = 0;
            }
            Line::Result { exit, .. } => left.exit = *exit,
            Line::Live {
                part: Live::Model { part: Part::Text { text } | Part::Refusal { text } }, ..
            } => {
                streamed += text.chars().count();
            }
            Line::Live { .. } | Line::PreviewReset { .. } | Line::Unattended { .. } => {}
        }
        renderer.show(&line)?;
        let in_answer = kill == Kill::InAnswer && streamed >= STREAMED;
        let in_tool = kill == Kill::InTool && is_uploading(&line);
        if (in_answer || in_tool) && !left.killed {
            worker.start_kill()?;
            left.killed = true;
            let place = if in_answer { "the model's answer" } else { "the release" };
            renderer.settle()?;
            renderer.say(&format!("  ✂ SIGKILL to the worker (process {pid}) in the middle of {place}"))?;
        }
    }
    let status = worker.wait().await?;
    if !left.killed && status.code().is_none() {
        bail!("the worker ended by itself: {status}");
    }
    Ok(left)
}

fn start(app: &App, session: SessionId, seen: EntryNo) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program cannot find itself to start a worker")?;
    let mut command = Command::new(program);
    command.arg("--home").arg(&app.kept_in).args(["--json", "resume", "--after"]).arg(seen.to_string());
    command.arg(session.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("the worker cannot be started")
}

fn is_uploading(line: &Line) -> bool {
    matches!(line, Line::Live { part: Live::ToolLine { line, .. }, .. } if line == "uploading")
}

/// Says what the crashes cost, from the log and the files alone.
async fn report(
    app: &App,
    session: SessionId,
    project: &Project,
    renderer: &mut Renderer,
) -> anyhow::Result<()> {
    let snapshot = app.engine.snapshot(session).await?;
    let entries = app.engine.entries(session, 1..=snapshot.row.head).await?;
    let mut results = entries.iter().flat_map(Entry::items).filter_map(Item::tool_result);
    let told = results.find(|result| result.outcome == Outcome::Unknown);
    let released = std::fs::read_to_string(project.directory.join("release.log")).unwrap_or_default();
    let begun = released.lines().filter(|line| *line == "release begun").count() as u64;
    let lost = snapshot.state.ledger.estimated.input;
    renderer.say("\nWhat the two kills cost:")?;
    renderer.say(&format!(
        "  in the answer  the call was made again; about {} tokens may be lost, and are kept apart",
        summary::tokens(lost)
    ))?;
    renderer.say(&format!(
        "  in the release it was not run again: release.log says it was begun {}",
        if begun == 1 { "once".to_owned() } else { format!("{begun} times") }
    ))?;
    if let Some(told) = told {
        renderer.say(&format!("                 the model was told: “{}”", told.output))?;
    }
    let problems = app.engine.verify(session).await?;
    let verdict = if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") };
    renderer.say(&format!("  the log        {} entries, verified: {verdict}", snapshot.row.head))?;
    Ok(())
}
