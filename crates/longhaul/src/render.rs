//! What a person sees while a session runs: streamed text, a line for each tool call, a spinner while
//! there is nothing to see. Programs get the same as JSON lines.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use longhaul_engine::Live;
use longhaul_model::Part;
use longhaul_session::entry::{Actor, Content, Fact, Next, Record, ResultFact};
use longhaul_session::evolve::evolve;
use longhaul_session::goal::{Goal, GoalStatus};
use longhaul_session::id::{CallId, EntryNo};
use longhaul_session::item::{Item, Outcome};
use longhaul_session::state::SessionState;

use crate::line::Line;
use crate::summary;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const NOTE: Style = AnsiColor::Yellow.on_default();

/// Columns assumed where the output is no terminal.
const DEFAULT_COLUMNS: usize = 100;

/// Shows a session to a person, or to a program.
pub(crate) struct Renderer {
    json: bool,
    spinner: Option<ProgressBar>,
    spins: bool,
    /// What the spinner waits for.
    waits_for: String,
    /// The attempt under way makes a summary, which is not shown.
    summarising: bool,
    /// Text of the attempt under way that is on the screen and not committed.
    streamed: String,
    /// The attempt that it is of has ended without being committed.
    cut_off: bool,
    /// The cursor is in the middle of a line.
    mid_line: bool,
    calls: HashMap<CallId, String>,
    /// Messages seen being queued, until their turn begins.
    queued: HashMap<EntryNo, Vec<Item>>,
    /// The last turn was ended by an interrupt.
    interrupted: bool,
    /// The session as of the newest entry shown, where that is known.
    state: Option<SessionState>,
}

impl Renderer {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Renderer {
            json,
            spinner: None,
            spins: terminal && !json,
            waits_for: String::new(),
            summarising: false,
            streamed: String::new(),
            cut_off: false,
            mid_line: false,
            calls: HashMap::new(),
            queued: HashMap::new(),
            interrupted: false,
            state: None,
        }
    }

    /// Lets it know the session as of some entry; those after it are folded as they are shown.
    pub(crate) fn follow(&mut self, state: SessionState) {
        self.state = Some(state);
    }

    fn fold(&mut self, record: &Record) {
        if let Some(state) = self.state.take_if(|state| state.head + 1 == record.n) {
            self.state = Some(evolve(state, record));
        }
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.state.as_ref()?.ledger.measured.tokens())
    }

    fn goal(&self) -> Option<&Goal> {
        self.state.as_ref()?.goal.as_ref()
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, line: &Line) -> std::io::Result<()> {
        if self.json {
            if let Line::Entry { record, .. } = line {
                self.note_end(&record.fact);
            }
            let text = serde_json::to_string(line)?;
            return self.print(format_args!("{text}\n"));
        }
        match line {
            Line::Entry { record, content } => {
                self.fold(record);
                self.judge(&record.fact)?;
                self.entry(record, content.as_deref())?;
                self.promoted(&record.fact)
            }
            Line::Live { part, .. } => {
                self.discard()?;
                self.live(part)
            }
            Line::PreviewReset { .. } => {
                self.cut_off |= !self.streamed.is_empty();
                Ok(())
            }
            Line::Unattended { hint, .. } => self.note("!", hint),
            Line::Result { .. } => Ok(()),
        }
    }

    /// Shows a line for people; programs do not get it.
    pub(crate) fn say(&mut self, text: &str) -> std::io::Result<()> {
        if self.json {
            return Ok(());
        }
        self.end_line()?;
        self.print(format_args!("{text}\n"))
    }

    /// Takes away what only makes sense while something is under way.
    pub(crate) fn settle(&mut self) -> std::io::Result<()> {
        self.rest();
        self.discard()?;
        self.end_line()
    }

    /// Remembers what calls are about, for when their results come.
    pub(crate) fn note_calls(&mut self, items: &[Item]) {
        for call in items.iter().filter_map(Item::tool_call) {
            let about = format!("{} {}", call.name, summary::call(&call.arguments));
            self.calls.insert(call.id.clone(), about.trim_end().to_owned());
        }
    }

    fn note_end(&mut self, fact: &Fact) {
        if matches!(fact, Fact::TurnFinished { .. } | Fact::Failed { .. } | Fact::Interrupted { .. }) {
            self.interrupted = matches!(fact, Fact::Interrupted { .. });
        }
    }

    /// Tells whether the last turn it saw was ended by an interrupt.
    pub(crate) fn saw_interruption(&self) -> bool {
        self.interrupted
    }

    /// Shows a message that was queued when its turn begins.
    fn promoted(&mut self, fact: &Fact) -> std::io::Result<()> {
        match fact.promoted().and_then(|message| self.queued.remove(&message)) {
            Some(items) => self.message(&items, ""),
            None => Ok(()),
        }
    }

    fn live(&mut self, part: &Live) -> std::io::Result<()> {
        match part {
            Live::ModelStarted => {
                self.summarising = false;
                self.wait("thinking");
            }
            Live::SummaryStarted => {
                self.summarising = true;
                self.wait("summarising earlier history");
            }
            Live::Model { part: Part::Text { text } | Part::Refusal { text } } if !self.summarising => {
                self.streamed.push_str(text);
                self.text(text)?;
            }
            Live::Model { part: Part::ToolCallStarted { name, .. } } => {
                self.wait(&format!("preparing {name}"))
            }
            Live::Model { .. } => {}
            Live::ToolStarted { call, tool } => {
                let about = self.calls.get(call).cloned().unwrap_or_else(|| tool.clone());
                self.wait(&about);
            }
            Live::ToolLine { line, .. } => {
                if let Some(spinner) = &self.spinner {
                    spinner.set_message(format!("{} · {}", self.waits_for, summary::one_line(line)));
                }
            }
            Live::ToolEnded { .. } => {}
        }
        Ok(())
    }

    /// Says what becomes of an answer that was cut off, once an entry tells: what an interrupt cut off is
    /// kept, and everything else is gone.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other entries mean that the attempt was given up"
    )]
    fn judge(&mut self, fact: &Fact) -> std::io::Result<()> {
        match fact {
            Fact::Queued | Fact::Interrupting { .. } => Ok(()),
            Fact::Interrupted { partial: true, .. } => {
                self.cut_off = false;
                self.streamed.clear();
                Ok(())
            }
            Fact::Acquired { lost: true, .. } => {
                self.cut_off |= !self.streamed.is_empty();
                self.discard()
            }
            _ => self.discard(),
        }
    }

    /// Says of an answer that was cut off that it does not count.
    fn discard(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.cut_off) {
            self.streamed.clear();
            self.end_line()?;
            self.print(format_args!("  {DIM}(that answer was cut off and does not count){DIM:#}\n"))?;
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are bookkeeping; `log` shows them")]
    fn entry(&mut self, record: &Record, content: Option<&Content>) -> std::io::Result<()> {
        self.note_end(&record.fact);
        let items = content.map(Content::items).unwrap_or_default();
        match &record.fact {
            Fact::Message | Fact::Edited { .. } => self.message(items, "")?,
            Fact::Queued => {
                self.queued.insert(record.n, items.to_vec());
                self.message(items, " (queued)")?;
            }
            Fact::ModelStep { .. } => self.answer(items)?,
            Fact::ToolStep { results, .. } | Fact::Answered { results, .. } => {
                self.results(results, items)?;
                if let Fact::ToolStep { goal: Some(change), .. } = &record.fact {
                    self.note("◎", &summary::model_goal(change))?;
                }
            }
            // The digests of protected files are no news.
            Fact::Goal { goal, .. } if record.by == Actor::User => {
                self.note("◎", &summary::goal_change(goal.as_ref()))?;
            }
            Fact::Retry { failure, retry, .. } => {
                let when = match retry.not_before.since_ms(record.at) {
                    0 => "at once".to_owned(),
                    wait_ms => format!("in {}", summary::duration(wait_ms)),
                };
                let why = summary::one_line(&failure.message);
                self.note("↻", &format!("{}; trying again {when}", why.trim_end_matches('.')))?;
                self.wait("waiting to try again");
            }
            Fact::Acquired { lost: true, .. } => {
                self.rest();
                self.note("⟳", "taken over from a worker that was lost")?;
            }
            Fact::Compacted { .. } => self.note("≡", "earlier history was summarised")?,
            Fact::CompactionFailed { failure, automatic_off, .. } => {
                let why = summary::one_line(&failure.message);
                let off = if *automatic_off { summary::COMPACTION_OFF } else { "" };
                self.note("≡", &format!("summarising failed: {why}{off}"))?;
            }
            Fact::Interrupted { results, .. } => {
                self.results(results, items)?;
                self.note("■", "interrupted")?;
            }
            Fact::Failed { results, .. } => self.results(results, items)?,
            Fact::Context { .. } => {
                for item in items {
                    if let Item::ContextFile { path, .. } = item {
                        self.note("→", &format!("the agent was shown {}", summary::one_line(path)))?;
                    }
                }
            }
            Fact::Steering { budget: None, objective_changed: false, .. } => {
                self.note("→", "the agent was told its goal again")?;
            }
            Fact::Steering { budget: Some(kind), .. } => {
                let what = format!("the {} budget is used up; the agent was told to wrap up", kind.name());
                self.note("→", &what)?;
            }
            Fact::Steering { .. } => self.note("→", "the agent was told what changed")?,
            Fact::TurnFinished { next: Next::Continue, .. } => {
                self.settle()?;
                self.progress()?;
            }
            Fact::TurnFinished { .. } => self.settle()?,
            _ => {}
        }
        Ok(())
    }

    /// Shows how far the goal has come, as its next turn begins.
    fn progress(&mut self) -> std::io::Result<()> {
        let columns = columns();
        match self.goal().map(|goal| summary::goal_meter(goal, columns)) {
            Some(meter) => self.note("⟲", &console::truncate_str(&meter, columns.saturating_sub(5), "…")),
            None => Ok(()),
        }
    }

    fn message(&mut self, items: &[Item], note: &str) -> std::io::Result<()> {
        for item in items {
            if let Item::User { text } = item {
                self.end_line()?;
                self.print(format_args!("{BOLD}› {}{BOLD:#}{DIM}{note}{DIM:#}\n", clean(text)))?;
            } else if let Item::Attachment(file) = item {
                self.print(format_args!("  {DIM}{}{DIM:#}\n", summary::attachment(file)))?;
            }
        }
        Ok(())
    }

    /// Prints what was not streamed of a committed answer, and notes its calls.
    fn answer(&mut self, items: &[Item]) -> std::io::Result<()> {
        let streamed = std::mem::take(&mut self.streamed);
        self.note_calls(items);
        let mut whole = String::new();
        for item in items {
            if let Item::Assistant { text, .. } = item {
                whole.push_str(text);
            }
        }
        match whole.strip_prefix(&streamed) {
            Some(rest) if !rest.is_empty() => self.text(rest)?,
            Some(_) | None => {}
        }
        self.rest();
        self.end_line()
    }

    fn results(&mut self, results: &[ResultFact], items: &[Item]) -> std::io::Result<()> {
        self.end_line()?;
        for result in results {
            let about = self.calls.remove(&result.call).unwrap_or_else(|| result.call.to_string());
            let took = summary::ran(result).unwrap_or_default();
            let (mark, style) = match result.outcome {
                Outcome::Ok => ("✓", GOOD),
                Outcome::Error | Outcome::TimedOut | Outcome::Rejected | Outcome::Denied => ("✗", BAD),
                Outcome::NotRun
                | Outcome::Stopped
                | Outcome::Cancelled
                | Outcome::Unknown
                | Outcome::Foreign
                | Outcome::Expired => ("!", NOTE),
            };
            let how = if result.outcome == Outcome::Ok {
                took
            } else {
                let how = summary::outcome(result.outcome);
                if took.is_empty() { how.to_owned() } else { format!("{how}, {took}") }
            };
            let room = columns().saturating_sub(console::measure_text_width(&how) + 7).max(10);
            let about = console::truncate_str(&about, room, "…").into_owned();
            self.print(format_args!("  {style}{mark}{style:#} {about}  {DIM}{how}{DIM:#}\n"))?;
            if result.outcome != Outcome::Ok {
                self.why(&result.call, items)?;
            }
        }
        Ok(())
    }

    /// Prints what a failed call said: which check failed, or its last line.
    fn why(&mut self, call: &CallId, items: &[Item]) -> std::io::Result<()> {
        let mut all = items.iter().filter_map(Item::tool_result);
        let output = all.find(|result| result.call == *call).map(|result| result.output.as_str());
        let last =
            |output: &str| output.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned);
        if let Some(line) = output.and_then(|output| summary::failed_check(output).or_else(|| last(output))) {
            let line = summary::one_line(&line);
            let line = console::truncate_str(&line, columns().saturating_sub(5), "…");
            self.print(format_args!("    {DIM}{line}{DIM:#}\n"))?;
        }
        Ok(())
    }

    fn note(&mut self, mark: &str, text: &str) -> std::io::Result<()> {
        self.end_line()?;
        self.print(format_args!("  {NOTE}{mark}{NOTE:#} {text}\n"))
    }

    /// Streams text as it is, but for what would steer the terminal.
    fn text(&mut self, text: &str) -> std::io::Result<()> {
        self.rest();
        let text = clean(text);
        self.print(format_args!("{text}"))?;
        if let Some(last) = text.chars().last() {
            self.mid_line = last != '\n';
        }
        Ok(())
    }

    fn end_line(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.mid_line) { self.print(format_args!("\n")) } else { Ok(()) }
    }

    /// Spins with a message, on a terminal only, and only where a line begins.
    fn wait(&mut self, message: &str) {
        if !self.spins || self.mid_line {
            return;
        }
        self.rest();
        message.clone_into(&mut self.waits_for);
        if let Some(goal) = self.goal().filter(|goal| goal.status == GoalStatus::Active) {
            let meter = summary::goal_meter(goal, columns());
            self.waits_for.push_str(&format!(" · {meter}"));
        } else if let Some(tokens) = self.tokens().filter(|tokens| *tokens > 0) {
            self.waits_for.push_str(&format!(" · {} tokens", summary::tokens(tokens)));
        }
        let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {wide_msg}  {elapsed}");
        spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        spinner.set_message(self.waits_for.clone());
        spinner.enable_steady_tick(Duration::from_millis(100));
        self.spinner = Some(spinner);
    }

    fn rest(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
        self.rest();
        let mut out = anstream::stdout();
        out.write_fmt(text).and_then(|()| out.flush())
    }
}

/// Keeps line breaks and tabs and drops all other control characters.
fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
}

fn columns() -> usize {
    match console::Term::stdout().size_checked() {
        Some((_, columns)) => usize::from(columns).max(20),
        None => DEFAULT_COLUMNS,
    }
}
