//! The built-in system prompt: rendered once for a session, by its first runner, and pinned in the log.

use longhaul_session::agent::{Configuration, ToolSpec};
use longhaul_session::id::Timestamp;
use longhaul_tools::workspace::Workspace;

/// Renders the system prompt.
pub(crate) fn render(
    configuration: &Configuration,
    workspace: &Workspace,
    tools: &[ToolSpec],
    now: Timestamp,
) -> String {
    let date = jiff::Timestamp::from_millisecond(now.0).map(|at| at.strftime("%Y-%m-%d").to_string());
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let instructions = configuration.instructions.as_deref().unwrap_or(
        "You are an agent that works in a directory of a person's machine until what was asked is done. \
         Look before you change something, check what you did, and say plainly what you could not do.",
    );
    format!(
        "{instructions}\n\nToday is {}. The working directory is {}.\n{}\nTools: {}.\n\
         A result that says an outcome is unknown means what it says: look at what is there before you \
         repeat the call.",
        date.unwrap_or_else(|_| "unknown".to_owned()),
        workspace.directory.display(),
        workspace.scope.summary(),
        if names.is_empty() { "none".to_owned() } else { names.join(", ") },
    )
}
