//! `read`: lines of a file, or of an artifact, with their numbers.

use async_trait::async_trait;
use longhaul_session::agent::ToolSpec;
use longhaul_session::id::Digest;
use longhaul_session::item::EffectClass;
use longhaul_session::media;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{arguments, blocking};
use crate::limits::{MAX_LINE_BYTES, MAX_READ_LINES};
use crate::tool::{CallContext, Tool, ToolOutput};

/// Room for the line that says how to go on.
const NOTE_BYTES: usize = 160;

/// A file with a zero byte in its first bytes is no text.
const SNIFF_BYTES: usize = 8 * 1024;

pub(crate) struct Read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    #[serde(default = "first")]
    offset: usize,
    #[serde(default = "all")]
    limit: usize,
}

fn first() -> usize {
    1
}

fn all() -> usize {
    MAX_READ_LINES
}

#[async_trait]
impl Tool for Read {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "read".to_owned(),
            description: format!(
                "Reads a text file and returns its lines, each after its number and a tab. Returns at most \
                 {MAX_READ_LINES} lines and says how to go on when there are more. A file must be read before it \
                 can be changed. A path of the form \"artifact:<hex>\" reads a whole output that was cut."
            ),
            input_schema: json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "The file, absolute or relative to the working directory."},
                    "offset": {"type": "integer", "minimum": 1, "description": "The first line to return, from 1."},
                    "limit": {"type": "integer", "minimum": 1, "description": "How many lines to return at most."}
                },
                "required": ["path"],
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
        let Some(hex) = wanted.path.strip_prefix("artifact:") else {
            return blocking(cx, move |cx| {
                let (content, file) = cx.workspace.read(&wanted.path)?;
                Ok(page(&content.bytes, &wanted, cx.max_output_bytes).with_file(file))
            })
            .await;
        };
        let Some(digest) = Digest::from_hex(hex) else {
            return ToolOutput::error(format!(
                "\"{hex}\" does not name an artifact: after \"artifact:\" stand 64 hexadecimal digits."
            ));
        };
        match cx.workspace.artifacts.read(digest).await {
            Some(bytes) => page(&bytes, &wanted, cx.max_output_bytes),
            None => ToolOutput::error(format!(
                "There is no artifact {hex}. Copy the name from the output that mentions it."
            )),
        }
    }
}

/// Returns the lines asked for that fit, and how to go on.
fn page(bytes: &[u8], wanted: &Arguments, max_output_bytes: usize) -> ToolOutput {
    let path = &wanted.path;
    if bytes[..bytes.len().min(SNIFF_BYTES)].contains(&0) {
        let (kind, bytes) = (media::media_type(bytes, path), bytes.len());
        return ToolOutput::error(if kind.starts_with("image/") {
            format!(
                "{path} is a picture ({kind}) of {bytes} bytes, and this tool shows texts only. A person can give it \
                 to you with a message."
            )
        } else {
            format!("{path} is a binary file of {bytes} bytes, which this tool does not show.")
        });
    }
    if bytes.is_empty() {
        return ToolOutput::ok("[The file is empty.]");
    }
    let text = String::from_utf8_lossy(bytes);
    let total = text.lines().count();
    if wanted.offset > total {
        return ToolOutput::error(format!("{path} has {total} lines; there is no line {}.", wanted.offset));
    }
    let room = max_output_bytes.saturating_sub(NOTE_BYTES);
    let mut shown = String::new();
    let mut next = wanted.offset;
    for line in text.lines().skip(wanted.offset - 1).take(wanted.limit.min(MAX_READ_LINES)) {
        let line = numbered(next, line);
        if !shown.is_empty() && shown.len() + line.len() > room {
            break;
        }
        shown.push_str(&line);
        next += 1;
    }
    if next <= total {
        shown.push_str(&format!(
            "[lines {} to {} of {total}; go on with offset {next}]\n",
            wanted.offset,
            next - 1
        ));
    }
    if matches!(text, std::borrow::Cow::Owned(_)) {
        shown.push_str("[not valid UTF-8: the bytes that are not are shown as \u{fffd}]\n");
    }
    ToolOutput::ok(shown)
}

fn numbered(number: usize, line: &str) -> String {
    let shown = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
    match line.len() - shown.len() {
        0 => format!("{number:>6}\t{line}\n"),
        rest => format!("{number:>6}\t{shown}[… {rest} more bytes in this line]\n"),
    }
}
