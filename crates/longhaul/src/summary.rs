//! Short texts for people: calls, durations, token counts, entries.

use longhaul_session::entry::{Content, Fact, Record, ResultFact};
use longhaul_session::id::{SessionId, Timestamp};
use longhaul_session::item::{Attachment, Item, Outcome};
use longhaul_session::state::{SessionState, Status};

/// The first characters of an id: to the millisecond, which is enough to tell sessions apart.
const SHORT_ID: usize = 13;

/// What follows when compactions have failed too often.
pub(crate) const COMPACTION_OFF: &str =
    "; too many failed in a row, and the context is no longer compacted unless somebody asks for it";

/// Shortens a session's id.
pub(crate) fn short_id(session: SessionId) -> String {
    session.to_string().chars().take(SHORT_ID).collect()
}

/// Writes a duration: milliseconds below a tenth of a second, then seconds, minutes, hours.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..100 => format!("{ms} ms"),
        100..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
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
    // A terminal must not be steered by what a model or a tool wrote.
    words.join(" ").chars().filter(|letter| !letter.is_control()).collect()
}

/// Says what a tool call is about: its one telling argument, else all of them.
pub(crate) fn call(arguments: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(arguments).ok();
    let telling = ["command", "path", "pattern"]
        .iter()
        .find_map(|name| parsed.as_ref().and_then(|value| value.get(*name)).and_then(|value| value.as_str()));
    one_line(telling.unwrap_or(if arguments == "{}" { "" } else { arguments }))
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
        Status::Running => "stopped in the middle",
        Status::Interrupting => "interrupting",
        Status::RequiresAction => "needs an answer",
        Status::Failed => "failed",
    };
    if state.archived { format!("archived, {name}") } else { name.to_owned() }
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
        Fact::ToolStep { results, .. } => {
            let ran: Vec<String> = results.iter().filter_map(ran).collect();
            ran.join(", ")
        }
        Fact::Retry { failure, attempt, .. } => {
            format!("attempt {attempt} after {:?}: {}", failure.class, one_line(&failure.message))
        }
        Fact::CompactionFailed { failure, automatic_off, .. } => {
            let off = if *automatic_off { COMPACTION_OFF } else { "" };
            format!("{:?}: {}{off}", failure.class, one_line(&failure.message))
        }
        Fact::Failed { failure, .. } => format!("{:?}: {}", failure.class, one_line(&failure.message)),
        Fact::TurnFinished { reason, next, .. } => format!("{reason:?}, then {next:?}").to_lowercase(),
        Fact::Interrupted { next, .. } => format!("then {next:?}").to_lowercase(),
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

#[cfg(test)]
mod tests {
    use super::dollars;

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
