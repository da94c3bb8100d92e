//! `write`: a whole file, new or replaced.

use async_trait::async_trait;
use longhaul_session::agent::ToolSpec;
use longhaul_session::item::EffectClass;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{arguments, blocking};
use crate::limits::MAX_FILE_BYTES;
use crate::tool::{CallContext, Tool, ToolOutput};

pub(crate) struct Write;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    content: String,
}

#[async_trait]
impl Tool for Write {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "write".to_owned(),
            description: "Writes a whole text file and makes the directories it needs. A file that exists must \
                          have been read in this session and not have changed since; for a small change of it \
                          use `edit`."
                .to_owned(),
            input_schema: json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "The file, absolute or relative to the working directory."},
                    "content": {"type": "string", "description": "All of the file's text."}
                },
                "required": ["path", "content"],
                "additionalProperties": false
            }),
            effect: EffectClass::Once,
            exclusive: false,
            stop_after: false,
        }
    }

    async fn call(&self, value: Value, cx: &CallContext) -> ToolOutput {
        let Arguments { path, content } = match arguments(value) {
            Ok(wanted) => wanted,
            Err(rejected) => return rejected,
        };
        let bytes = content.len();
        if bytes > MAX_FILE_BYTES {
            return ToolOutput::error(format!(
                "The content has {bytes} bytes; a file may have {MAX_FILE_BYTES}."
            ));
        }
        blocking(cx, move |cx| {
            let mut verb = "Created";
            let file = cx.workspace.change(&path, |old| {
                if old.is_some() {
                    verb = "Replaced";
                }
                Ok(content.into_bytes())
            })?;
            Ok(ToolOutput::ok(format!("{verb} {path} ({bytes} bytes).")).with_file(file))
        })
        .await
    }
}
