//! Short texts for people: calls, durations, token counts, entries.

use longhaul_session::entry::{Content, Fact, FinishReason, Mode, ModelGoal, Next, Record, ResultFact};
use longhaul_session::goal::{DEFAULT_CONTINUATIONS, Goal, GoalStatus};
use longhaul_session::id::{Epoch, SessionId, Timestamp};
use longhaul_session::item::{Attachment, Item, Outcome};
use longhaul_session::state::{SessionState, Status};

/// The first characters of an id: to the millisecond, which is enough to tell sessions apart.
const SHORT_ID: usize = 13;

/// What follows when compactions have failed too often.
pub(crate) const COMPACTION_OFF: &str =
    "; too many failed in a row, and the context is no longer compacted unless somebody asks for it";

/// The epoch of a session that no worker has had yet.
const NEVER_DRIVEN: Epoch = 0;

/// Shortens a session's id.
pub(crate) fn short_id(session: SessionId) -> String {
    session.to_string().chars().take(SHORT_ID).collect()
}

/// Writes a duration: milliseconds below a tenth of a second, then seconds, minutes, hours.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..100 => format!("{ms} ms"),
        // Rounded, as the tools do it.
        100..59_950 => format!("{}.{} s", (ms + 50) / 1_000, (ms + 50) % 1_000 / 100),
        59_950..3_600_000 => {
            let ms = ms.max(60_000);
            format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000)
        }
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Writes how long ago something was.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    match now.since_ms(then) / 1_000 {
        0..2 => "just now".to_owned(),
        seconds @ 2..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// Writes a number of tokens.
pub(crate) fn tokens(count: u64) -> String {
    match count {
        0..1_000 => format!("{count}"),
        1_000..1_000_000 => format!("{}.{}k", count / 1_000, count % 1_000 / 100),
        _ => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
    }
}

/// Writes millionths of a US dollar: to the cent from a dollar on, and as exactly as it takes below.
pub(crate) fn dollars(micros: u64) -> String {
    let (unit, places) = match micros {
        1_000_000.. => (10_000, 2),
        10_000.. => (100, 4),
        0.. => (1, 6),
    };
    // Halves are rounded up, which cannot overflow: the largest unit is far below the largest number.
    let rounded = micros / unit + u64::from(micros % unit * 2 >= unit && unit > 1);
    let per_dollar = 1_000_000 / unit;
    let text = format!("${}.{:0places$}", rounded / per_dollar, rounded % per_dollar);
    let short = text.trim_end_matches('0');
    let cents = text.find('.').map_or(text.len(), |dot| dot + 3);
    text[..short.len().max(cents)].to_owned()
}

/// Writes a size.
pub(crate) fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    match count {
        0..KIB => format!("{count} B"),
        KIB..MIB => format!("{}.{} KiB", count / KIB, count % KIB * 10 / KIB),
        _ => format!("{}.{} MiB", count / MIB, count % MIB * 10 / MIB),
    }
}

/// Names the status of a goal.
pub(crate) fn goal_status(status: GoalStatus) -> &'static str {
    match status {
        GoalStatus::Active => "active",
        GoalStatus::Paused => "paused",
        GoalStatus::Blocked => "blocked",
        GoalStatus::BudgetLimited => "out of budget",
        GoalStatus::UsageLimited => "out of quota",
        GoalStatus::Complete => "complete",
    }
}

/// Says why the goal of a session does not go on; `None`: there is none, it goes on, or it is complete.
pub(crate) fn why_goal_rests(state: &SessionState) -> Option<String> {
    let goal = state.goal.as_ref()?;
    let reason = |otherwise: &str| Some(goal.reason.clone().unwrap_or_else(|| otherwise.to_owned()));
    match goal.status {
        GoalStatus::Complete => None,
        GoalStatus::Paused => Some("it is paused".to_owned()),
        GoalStatus::Blocked => reason("something stands in the way"),
        // What it was before may have been raised since, and another not.
        GoalStatus::BudgetLimited => match goal.budget.reached(&goal.used) {
            Some(kind) => Some(format!("the {} budget is used up", kind.name())),
            None => reason("its budget is used up"),
        },
        GoalStatus::UsageLimited => reason("the provider's quota is used up"),
        GoalStatus::Active if state.mode == Mode::Plan => Some("the session is in plan mode".to_owned()),
        GoalStatus::Active if goal.suppressed && state.status == Status::Waiting => {
            Some("the last turn for it called no tool; say something, or resume it".to_owned())
        }
        GoalStatus::Active if state.status == Status::RequiresAction => {
            Some("a call waits for an answer".to_owned())
        }
        GoalStatus::Active => None,
    }
}

/// Shows how far a goal has come: its turn, and the limit it is nearest to.
pub(crate) fn goal_meter(goal: &Goal, columns: usize) -> String {
    let (budget, used) = (&goal.budget, &goal.used);
    let turns = budget.continuations.unwrap_or(DEFAULT_CONTINUATIONS);
    let limits = [
        budget.tokens.map(|limit| (used.tokens, limit, tokens as fn(u64) -> String)),
        budget.active_ms.map(|limit| (used.active_ms, limit, duration as fn(u64) -> String)),
        budget.cost_micros.map(|limit| (used.cost_micros, limit, dollars as fn(u64) -> String)),
    ];
    let share = |used: u64, limit: u64| u128::from(used) * 1_000 / u128::from(limit.max(1));
    let nearest = limits.into_iter().flatten().max_by_key(|(used, limit, _)| share(*used, *limit));
    let turn = format!("turn {}/{turns}", used.continuations);
    let Some((used, limit, write)) = nearest else {
        return format!("{turn} {} tokens", tokens(used.tokens));
    };
    let cells = if columns < 60 { 6 } else { 10 };
    let full = usize::try_from(share(used, limit).min(1_000)).unwrap_or(0) * cells / 1_000;
    let bar: String = (0..cells).map(|cell| if cell < full { '▓' } else { '░' }).collect();
    format!("{turn} {bar} {} of {}", write(used), write(limit))
}

/// Says why the checks of a goal do not count: which failed and how, or which protected files have changed, where
/// a call's output tells it in the words of the built-in prompt.
pub(crate) fn failed_check(output: &str) -> Option<String> {
    let unescaped = |text: &str| text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let files: Vec<String> = output
        .lines()
        .filter_map(|line| line.strip_prefix("<file>")?.strip_suffix("</file>").map(unescaped))
        .collect();
    if !files.is_empty() && output.contains("These files are protected") {
        return Some(format!("protected: {}", files.join(", ")));
    }
    let (command, after) = output.split_once("<check>")?.1.split_once("</check>\n")?;
    let plain = unescaped(command);
    let how = after.lines().next()?.trim_end_matches(" It wrote nothing.").strip_prefix("It ended")?;
    Some(format!("the check `{plain}` ended{}", how.trim_end_matches('.')))
}

/// Names a thing and how many there are of it.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Counts entries.
pub(crate) fn entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

/// Puts a text on one line.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    shown(&words.join(" "))
}

/// Drops what would steer a terminal, or turn what is shown around, from what a model or a tool wrote.
fn shown(text: &str) -> String {
    let turns = |letter: char| matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|letter| !letter.is_control() && !turns(*letter)).collect()
}

/// Says what a tool call is about: its one telling argument, else all of them.
pub(crate) fn call(arguments: &str) -> String {
    one_line(&telling(arguments))
}

/// Says the same with its lines told apart, for somebody who has to judge it.
pub(crate) fn call_by_lines(arguments: &str) -> String {
    let telling = telling(arguments);
    let lines: Vec<String> = telling.trim().lines().map(one_line).collect();
    lines.join(" ⏎ ")
}

fn telling(arguments: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(arguments).ok();
    let telling = ["command", "path", "pattern", "objective", "status"]
        .iter()
        .find_map(|name| parsed.as_ref().and_then(|value| value.get(*name)).and_then(|value| value.as_str()));
    telling.unwrap_or(if arguments == "{}" { "" } else { arguments }).to_owned()
}

/// Says how a call ended, where it is not plain.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Error => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Rejected => "rejected",
        Outcome::Denied => "denied",
        Outcome::NotRun => "not run",
        Outcome::Stopped => "stopped",
        Outcome::Cancelled => "cancelled",
        Outcome::Unknown => "outcome unknown, not run again",
        Outcome::Foreign => "belongs to the original session",
        Outcome::Expired => "no answer in time",
    }
}

/// Says how long a call ran, if it did.
pub(crate) fn ran(result: &ResultFact) -> Option<String> {
    result.ran.map(|(started, ended)| duration(ended.since_ms(started)))
}

/// Says what a session is doing.
pub(crate) fn status(state: &SessionState, owned: bool) -> String {
    let name = match state.status {
        Status::Waiting => "waiting",
        Status::Running if owned => "running",
        Status::Running if state.epoch == NEVER_DRIVEN => "not begun",
        Status::Running => "stopped in the middle",
        Status::Interrupting => "interrupting",
        Status::RequiresAction => "needs an answer",
        Status::Failed => "failed",
    };
    let name = match &state.goal {
        Some(goal) => format!("{name}, goal {}", goal_status(goal.status)),
        None => name.to_owned(),
    };
    if state.archived { format!("archived, {name}") } else { name }
}

/// Says what a person made of a session's goal.
pub(crate) fn goal_change(goal: Option<&Goal>) -> String {
    match goal {
        Some(goal) => format!("goal {}: {}", goal_status(goal.status), one_line(&goal.objective)),
        None => "goal removed".to_owned(),
    }
}

/// Says what the model made of its goal.
pub(crate) fn model_goal(change: &ModelGoal) -> String {
    match change {
        ModelGoal::Created(goal) => format!("goal set: {}", one_line(&goal.objective)),
        ModelGoal::Completed => "goal complete".to_owned(),
        ModelGoal::Blocked(reason) => format!("goal blocked: {}", one_line(reason)),
    }
}

/// Says in one line what an entry is.
pub(crate) fn entry(record: &Record, content: Option<&Content>) -> String {
    let items = content.map(Content::items).unwrap_or_default();
    let mut text = fact(&record.fact);
    let shown: Vec<String> = items.iter().map(item).filter(|shown| !shown.is_empty()).collect();
    if !shown.is_empty() {
        if !text.is_empty() {
            text.push_str(" · ");
        }
        text.push_str(&shown.join(" · "));
    }
    if content.is_none() && record.content.is_some() {
        text.push_str(" [redacted]");
    }
    text
}

fn item(item: &Item) -> String {
    match item {
        Item::User { text } => format!("“{}”", one_line(text)),
        Item::Assistant { text, partial } => {
            format!("{}{}", one_line(text), if *partial { " … (cut off)" } else { "" })
        }
        Item::Reasoning { .. } => "(reasoning)".to_owned(),
        Item::ToolCall(made) => format!("{}({})", made.name, call(&made.arguments)),
        Item::ToolResult(result) => format!("{}: {}", outcome(result.outcome), one_line(&result.output)),
        Item::Summary { text } | Item::Steering { text, .. } => one_line(text),
        Item::ContextFile { path, .. } => path.clone(),
        Item::Opaque { provider, .. } => format!("(an item of {provider})"),
        Item::Attachment(file) => attachment(file),
        Item::File { name, media_type, data: _ } => {
            format!("[{}: {media_type}]", name.as_deref().unwrap_or("file"))
        }
        Item::Redacted => "[redacted]".to_owned(),
    }
}

/// Names a file that was given, with what it is and how large.
pub(crate) fn attachment(file: &Attachment) -> String {
    format!("[{}: {}, {}]", one_line(&file.name), file.media_type, bytes(file.bytes))
}

/// Says what a record adds to its kind and its content.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds say all by their name and content")]
fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Created { name: Some(name), .. } | Fact::Named { name: Some(name) } => name.clone(),
        Fact::Forked { parent, at, .. } => format!("from entry {at} of {}", short_id(*parent)),
        Fact::Promoted { message } | Fact::Edited { message } | Fact::Unqueued { message } => {
            format!("message of entry {message}")
        }
        Fact::ModelStep { charge, timing, .. } => {
            let usage = charge.spend.usage;
            let (input, output) = (tokens(usage.input), tokens(usage.output));
            format!("{input} in, {output} out, {}", duration(timing.total_ms))
        }
        Fact::ToolStep { results, goal, .. } => {
            let mut parts: Vec<String> = results.iter().filter_map(ran).collect();
            parts.extend(goal.as_ref().map(model_goal));
            parts.join(", ")
        }
        Fact::Goal { goal, .. } => goal_change(goal.as_ref()),
        Fact::Mode { mode: Mode::Plan, .. } => "plan".to_owned(),
        Fact::Mode { mode: Mode::Default, .. } => "work".to_owned(),
        Fact::Retry { failure, attempt, .. } => {
            format!("attempt {attempt} after {:?}: {}", failure.class, one_line(&failure.message))
        }
        Fact::CompactionFailed { failure, automatic_off, .. } => {
            let off = if *automatic_off { COMPACTION_OFF } else { "" };
            format!("{:?}: {}{off}", failure.class, one_line(&failure.message))
        }
        Fact::Failed { failure, .. } => format!("{:?}: {}", failure.class, one_line(&failure.message)),
        Fact::TurnFinished { reason, next, .. } => format!("{}, {}", finish(*reason), then(*next)),
        Fact::Interrupted { next, .. } => then(*next),
        Fact::Redacted { entry } => format!("entry {entry}"),
        Fact::Acquired { epoch, lost, .. } => {
            format!("epoch {epoch}{}", if *lost { ", from a worker that was lost" } else { "" })
        }
        Fact::Released { not_started } if !not_started.is_empty() => {
            format!("{} not started", count(not_started.len() as u64, "call"))
        }
        Fact::Reconciled { broken } => broken.clone(),
        _ => String::new(),
    }
}

fn finish(reason: FinishReason) -> String {
    match reason {
        FinishReason::Complete => "complete".to_owned(),
        FinishReason::StopAfterTool => "ended by a tool".to_owned(),
        FinishReason::MaxSteps => "out of steps".to_owned(),
        FinishReason::HardBudget(kind) => format!("no room in the {} budget", kind.name()),
        FinishReason::Compacted => "compacted".to_owned(),
    }
}

fn then(next: Next) -> String {
    match next {
        Next::Promote(message) => format!("then the message of entry {message}"),
        Next::Continue => "then continue".to_owned(),
        Next::Rest => "then rest".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use longhaul_session::goal::{Budget, GoalUsage};
    use longhaul_session::id::GoalId;

    use super::*;

    fn goal(budget: Budget, used: GoalUsage) -> Goal {
        let id = GoalId(uuid::Uuid::from_u128(1));
        Goal { used, ..Goal::new(id, "all is done".to_owned(), budget, Vec::new(), Timestamp(0)) }
    }

    #[test]
    fn the_meter_shows_the_limit_that_is_nearest_and_fits_a_narrow_screen() {
        let used =
            GoalUsage { tokens: 90_500, active_ms: 5_400_000, continuations: 3, ..GoalUsage::default() };
        let free = goal(Budget::default(), used);
        assert_eq!(goal_meter(&free, 80), "turn 3/100 90.5k tokens");
        let budget = Budget { tokens: Some(200_000), active_ms: Some(7_200_000), ..Budget::default() };
        let limited = goal(budget, used);
        assert_eq!(goal_meter(&limited, 80), "turn 3/100 ▓▓▓▓▓▓▓░░░ 1 h 30 min of 2 h 0 min");
        let tokens_only = goal(Budget { active_ms: None, ..budget }, used);
        assert_eq!(goal_meter(&tokens_only, 40), "turn 3/100 ▓▓░░░░ 90.5k of 200.0k");
        assert!(console::measure_text_width(&goal_meter(&tokens_only, 40)) <= 36);
        let over = goal(budget, GoalUsage { tokens: 900_000, ..used });
        assert_eq!(goal_meter(&over, 80), "turn 3/100 ▓▓▓▓▓▓▓▓▓▓ 900.0k of 200.0k");
    }

    #[test]
    fn a_goal_that_rests_says_why() {
        let rests = |change: fn(&mut SessionState)| {
            let goal = Some(goal(Budget::default(), GoalUsage::default()));
            let mut state = SessionState { goal, ..SessionState::default() };
            change(&mut state);
            why_goal_rests(&state)
        };
        assert_eq!(rests(|_| {}), None);
        let suppressed = rests(|state| state.goal.iter_mut().for_each(|goal| goal.suppressed = true));
        assert!(suppressed.is_some_and(|why| why.contains("called no tool")));
        assert!(rests(|state| state.mode = Mode::Plan).is_some_and(|why| why.contains("plan mode")));
        let blocked = |state: &mut SessionState| {
            if let Some(goal) = &mut state.goal {
                (goal.status, goal.reason) = (GoalStatus::Blocked, Some("no key".to_owned()));
            }
        };
        assert_eq!(rests(blocked).as_deref(), Some("no key"));
    }

    #[test]
    fn a_call_to_be_judged_shows_its_lines_and_hides_nothing_by_turning() {
        let arguments = r#"{ "command": "echo fine\n\trm -rf x \u202e# enif" }"#;
        assert_eq!(call(arguments), "echo fine rm -rf x # enif");
        assert_eq!(call_by_lines(arguments), "echo fine ⏎ rm -rf x # enif");
    }

    #[test]
    fn durations_are_rounded_to_what_is_shown() {
        for (ms, written) in [
            (99, "99 ms"),
            (149, "0.1 s"),
            (250, "0.3 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (5_400_000, "1 h 30 min"),
        ] {
            assert_eq!(duration(ms), written, "{ms}");
        }
    }

    #[test]
    fn money_is_written_as_exactly_as_it_takes() {
        for (micros, written) in [
            (0, "$0.00"),
            (1, "$0.000001"),
            (600, "$0.0006"),
            (42_700, "$0.0427"),
            (10_050, "$0.0101"),
            (999_999, "$1.00"),
            (1_004_999, "$1.00"),
            (1_005_000, "$1.01"),
            (3_000_000, "$3.00"),
            (u64::MAX, "$18446744073709.55"),
        ] {
            assert_eq!(dollars(micros), written, "{micros}");
        }
    }
}
