//! The checks of a goal that is declared complete: protected files are compared, commands are run one after
//! the other, and the first that fails ends it. What was found is told; what it means is decided elsewhere.

use std::time::Duration;

use longhaul_session::goal::Goal;
use longhaul_session::item::FileSeen;
use longhaul_session::prompts::{CheckFailure, Prompts, Rendered};
use longhaul_tools::check::{CheckEnd, Checked, Checker};
use longhaul_tools::guarded::{self, Change, ChangeKind, GuardError, Guarded};
use longhaul_tools::tool::CallContext;

use crate::limits::MAX_CHANGES_TOLD;

/// What checks came to.
pub(crate) enum Verdict {
    /// All passed, or there were none; what the model is told.
    Passed(String),
    /// The goal is not complete; what the model is told.
    Failed(String),
    /// They were stopped.
    Stopped,
}

/// Runs the checks of a goal. `files` are the protected ones, as they were.
pub(crate) async fn run(
    checker: &dyn Checker,
    goal: &Goal,
    files: Option<Vec<FileSeen>>,
    prompts: &Prompts,
    check_ms: u64,
    cx: &CallContext,
) -> Verdict {
    if let Err(text) = unchanged(goal, files.as_deref(), prompts, cx, false).await {
        return Verdict::Failed(text);
    }
    let (limit, count) = (Duration::from_millis(check_ms), goal.checks.len());
    let mut outputs = Vec::new();
    for (at, command) in goal.checks.iter().enumerate() {
        cx.progress.line(format!("check {} of {count}: {command}", at + 1).as_bytes());
        let checked = match checker.run(command, limit, cx).await {
            Ok(checked) => checked,
            Err(error) => {
                let ended = format!("no result: {error}");
                let failure =
                    CheckFailure { command: Some(command), ended: &ended, output: "", changed: &[] };
                return Verdict::Failed(failed(prompts, &failure));
            }
        };
        if checked.ended == CheckEnd::Cancelled {
            return Verdict::Stopped;
        }
        if !checked.passed() {
            let (ended, output) = (ending(&checked, limit), &checked.output);
            let failure = CheckFailure { command: Some(command), ended: &ended, output, changed: &[] };
            return Verdict::Failed(failed(prompts, &failure));
        }
        outputs.push(format!("{command}: exit code 0{}", shown(&checked.output)));
    }
    // What a check leaves behind is its own affair; what it was to judge by must be as it was.
    if let Err(text) = unchanged(goal, files.as_deref(), prompts, cx, true).await {
        return Verdict::Failed(text);
    }
    let passed = match count {
        0 => "It has no checks: it is complete on your word.".to_owned(),
        1 => format!("Its check passed.\n{}", outputs.join("\n")),
        _ => format!("All {count} checks passed.\n{}", outputs.join("\n")),
    };
    Verdict::Passed(format!("The goal is complete. {passed}\nSay briefly what was done, and stop."))
}

/// Compares the protected files with what they were; says to the model why they do not count.
async fn unchanged(
    goal: &Goal,
    before: Option<&[FileSeen]>,
    prompts: &Prompts,
    cx: &CallContext,
    ignore_new: bool,
) -> Result<(), String> {
    if goal.protected.is_empty() {
        return Ok(());
    }
    let unknown =
        |why: &str| failed(prompts, &CheckFailure { command: None, ended: why, output: "", changed: &[] });
    let Some(before) = before else {
        let why = "it is not known any more what the protected files were, as the record of it was redacted; a \
                   person must protect them anew";
        return Err(unknown(why));
    };
    let now = match digests(goal.protected.clone(), cx.workspace.directory.clone()).await {
        Ok(now) => now,
        Err(error) => {
            return Err(unknown(&format!("the protected files cannot be read: {error}")));
        }
    };
    let mut changes = guarded::changes(before, &now);
    changes.retain(|change| !(ignore_new && change.kind == ChangeKind::Added));
    if changes.is_empty() {
        return Ok(());
    }
    let failure = CheckFailure { command: None, ended: "", output: "", changed: &told(&changes) };
    Err(failed(prompts, &failure))
}

/// Digests the files of some paths and patterns, on a thread that may block.
pub(crate) async fn digests(
    protected: Vec<String>,
    directory: std::path::PathBuf,
) -> Result<Vec<FileSeen>, GuardError> {
    let find = move || Guarded::new(&protected, &directory)?.digests(&directory);
    match tokio::task::spawn_blocking(find).await {
        Ok(found) => found,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Ok(Vec::new()),
        },
    }
}

fn told(changes: &[Change]) -> Vec<String> {
    let name = |change: &Change| match change.kind {
        ChangeKind::Changed => format!("{} (changed)", change.path),
        ChangeKind::Removed => format!("{} (removed)", change.path),
        ChangeKind::Added => format!("{} (new)", change.path),
    };
    let mut told: Vec<String> = changes.iter().take(MAX_CHANGES_TOLD).map(name).collect();
    let more = changes.len() - told.len();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

fn ending(checked: &Checked, limit: Duration) -> String {
    match checked.ended {
        CheckEnd::Exit(code) => format!("exit code {code}"),
        CheckEnd::Signal(signal) => format!("signal {signal}"),
        CheckEnd::TimeLimit if limit.subsec_millis() == 0 => {
            format!("its time limit of {} s", limit.as_secs())
        }
        CheckEnd::TimeLimit => format!("its time limit of {} ms", limit.as_millis()),
        CheckEnd::Cancelled => "no result".to_owned(),
    }
}

fn shown(output: &str) -> String {
    if output.is_empty() { ", no output".to_owned() } else { format!("\n{output}") }
}

/// Says to the model why its goal is not complete, in the words of the session's configuration. No times: what
/// fails in the same way must read the same.
fn failed(prompts: &Prompts, failure: &CheckFailure<'_>) -> String {
    let Rendered { text, fault } = prompts.check_failed(failure);
    if let Some(fault) = fault {
        tracing::warn!(%fault, "a prompt is not as its author wrote it");
    }
    text
}
