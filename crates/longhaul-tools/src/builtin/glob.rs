//! `glob`: files by a pattern of their names.

use async_trait::async_trait;
use longhaul_session::agent::ToolSpec;
use longhaul_session::item::{EffectClass, Outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use super::walk::{self, Pattern, Walked, walk};
use super::{arguments, blocking};
use crate::limits::MAX_GLOB_PATHS;
use crate::tool::{CallContext, Tool, ToolOutput};

pub(crate) struct Glob;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    pattern: String,
    #[serde(default = "here")]
    path: String,
}

fn here() -> String {
    ".".to_owned()
}

#[async_trait]
impl Tool for Glob {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "glob".to_owned(),
            description: format!(
                "Finds files by name, sorted by path, at most {MAX_GLOB_PATHS}. A pattern without a slash is about \
                 the file's name in any directory (`*.rs`); with one, about the path below `path` \
                 (`src/**/*.{{ts,tsx}}`). Leaves out what .gitignore names."
            ),
            input_schema: json!({
                "type": "object",
                "properties": {
                    "pattern": {"type": "string", "minLength": 1, "description": "The pattern: *, **, ?, [ab], {a,b}."},
                    "path": {"type": "string", "description": "The directory to search; the working directory if left out."}
                },
                "required": ["pattern"],
                "additionalProperties": false
            }),
            effect: EffectClass::Pure,
            exclusive: false,
            stop_after: false,
        }
    }

    async fn call(&self, value: Value, cx: &CallContext) -> ToolOutput {
        let wanted: Arguments = match arguments(value) {
            Ok(wanted) => wanted,
            Err(rejected) => return rejected,
        };
        blocking(cx, move |cx| {
            let pattern = Pattern::new(&wanted.pattern)?;
            let mut lines = Vec::new();
            let mut found = 0;
            let walked = walk(cx, &wanted.path, Some(&pattern), |path| {
                found += 1;
                if found <= MAX_GLOB_PATHS {
                    lines.push(cx.workspace.shown(&path).to_string());
                }
                true
            })?;
            if found > MAX_GLOB_PATHS {
                lines.push(format!("[the first {MAX_GLOB_PATHS} of {found} files; narrow the pattern]"));
            }
            if found == 0 {
                lines.push("[no file matches]".to_owned());
            }
            lines.extend(walk::note(walked));
            let outcome = if walked == Walked::Cancelled { Outcome::Stopped } else { Outcome::Ok };
            Ok(ToolOutput::new(outcome, lines.join("\n")))
        })
        .await
    }
}
