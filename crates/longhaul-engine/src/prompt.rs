//! What the prompts are made from that only a runner knows: the day, the workspace, the tools, the files.

use longhaul_session::agent::{Configuration, ToolSpec};
use longhaul_session::bound;
use longhaul_session::context::Context;
use longhaul_session::id::Timestamp;
use longhaul_session::prompts::{Rendered, Setting};
use longhaul_session::state::SessionState;
use longhaul_session::usage::Usage;
use longhaul_tools::workspace::Workspace;

use crate::limits::FILES_NAMED;

/// The tool by which a model ends its goal: where it is offered, the rules for goals are told.
const GOAL_TOOL: &str = "update_goal";

/// Renders the system prompt. It is pinned in the log, and does not change as days pass.
pub(crate) fn system(
    configuration: &Configuration,
    workspace: &Workspace,
    tools: &[ToolSpec],
    now: Timestamp,
) -> Rendered {
    let date = jiff::Timestamp::from_millisecond(now.0).map(|at| at.strftime("%Y-%m-%d").to_string());
    let setting = Setting {
        agent: configuration.agent.clone(),
        date: date.unwrap_or_else(|_| "unknown".to_owned()),
        directory: workspace.directory.display().to_string(),
        scope: workspace.scope.summary(),
        tools: tools.iter().map(|tool| tool.name.clone()).collect(),
        goals: tools.iter().any(|tool| tool.name == GOAL_TOOL),
    };
    configuration.prompts.system(&setting, configuration.instructions.as_deref())
}

/// Renders the request for a summary of a context.
pub(crate) fn compaction(context: &Context) -> Rendered {
    let files: Vec<String> = context.recent_files(FILES_NAMED).into_iter().map(str::to_owned).collect();
    match context.configuration() {
        Some(configuration) => configuration.prompts.compaction(&files),
        None => longhaul_session::prompts::Prompts::default().compaction(&files),
    }
}

/// Returns what a summary of a context costs at most.
pub(crate) fn summary_bound(state: &SessionState, context: &Context) -> Usage {
    bound::next_summary(state, context, &compaction(context).text)
}
