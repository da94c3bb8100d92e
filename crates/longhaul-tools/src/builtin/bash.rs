//! `bash`: a command, in the working directory.

use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::{Permission, ToolSpec};
use longhaul_session::item::{EffectClass, Outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arguments;
use crate::limits::{COMMAND_TIME_LIMIT, REAP_GRACE, TERM_GRACE};
use crate::process::{self, Ended, Finished, Leave};
use crate::tool::{CallContext, Tool, ToolOutput};
use crate::workspace::Obstacle;

pub(crate) struct Bash;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    command: String,
    time_limit_ms: Option<u64>,
}

#[async_trait]
impl Tool for Bash {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "bash".to_owned(),
            description: format!(
                "Runs a command with `bash -c` (`sh -c` where there is no bash) in the working directory, and \
                 returns its output (standard output and error as they came), exit code and duration. Each call is \
                 a new shell without input. It is ended after `time_limit_ms` ({} ms if left out). What it leaves \
                 running in the background is ended with it. Unlike the file tools it is not confined to the \
                 paths this agent may use: keep to them. Variables that look like secrets are not passed on.",
                COMMAND_TIME_LIMIT.as_millis()
            ),
            input_schema: json!({
                "type": "object",
                "properties": {
                    "command": {"type": "string", "minLength": 1, "description": "The command."},
                    "time_limit_ms": {"type": "integer", "minimum": 1, "description": "How long it may take, in milliseconds."}
                },
                "required": ["command"],
                "additionalProperties": false
            }),
            effect: EffectClass::Once,
            exclusive: false,
            stop_after: false,
        }
    }

    async fn call(&self, value: Value, cx: &CallContext) -> ToolOutput {
        let wanted: Arguments = match arguments(value) {
            Ok(wanted) => wanted,
            Err(rejected) => return rejected,
        };
        // A command may write whatever it likes there, so it needs the right to.
        if let Err(denied) = cx.workspace.scope.require(&cx.workspace.directory, Permission::Write) {
            return Obstacle::from(denied).into();
        }
        let limit = wanted.time_limit_ms.map_or(COMMAND_TIME_LIMIT, Duration::from_millis);
        match process::run(&wanted.command, limit, Leave::Daemons, cx).await {
            Ok(finished) => report(&finished, limit),
            Err(error) => ToolOutput::error(format!(
                "No shell could be started or watched in {}: {error}. Check that the directory exists, that `bash` or \
                 `sh` is installed, and that the command is not too long (write a script instead).",
                cx.workspace.directory.display()
            )),
        }
    }

    fn stop_grace(&self) -> Duration {
        TERM_GRACE + 4 * REAP_GRACE
    }
}

fn report(finished: &Finished, limit: Duration) -> ToolOutput {
    let mut text = finished.output.text();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let took = format!("{:.1} s", finished.took.as_secs_f64());
    let (outcome, ending) = match finished.ended {
        Ended::Exit(0) => (Outcome::Ok, format!("exit code 0 after {took}")),
        Ended::Exit(code) => (Outcome::Error, format!("exit code {code} after {took}")),
        Ended::Signal(signal) => (Outcome::Error, format!("ended by signal {signal} after {took}")),
        Ended::Cancelled => (Outcome::Stopped, format!("stopped after {took}, with all that it had started")),
        Ended::TimeLimit => (
            Outcome::TimedOut,
            format!(
                "ended after {took} by its time limit of {} ms, with all that it had started",
                limit.as_millis()
            ),
        ),
    };
    text.push_str(&format!("[{ending}]"));
    if finished.left_running {
        text.push_str("\n[processes it left running in the background were ended]");
    }
    ToolOutput::new(outcome, text)
}
