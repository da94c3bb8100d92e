//! `edit`: an exact piece of a file's text, replaced.

use async_trait::async_trait;
use longhaul_session::agent::ToolSpec;
use longhaul_session::item::EffectClass;
use serde::Deserialize;
use serde_json::{Value, json};
use similar::TextDiff;

use super::{arguments, blocking};
use crate::limits::{DIFF_LIMIT, MAX_DIFF_BYTES, MAX_FILE_BYTES, MAX_LINE_BYTES};
use crate::output;
use crate::tool::{CallContext, Tool, ToolOutput};

/// How alike two lines must be, in percent, to be worth mentioning.
const ALIKE_PERCENT: usize = 50;

pub(crate) struct Edit;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    old: String,
    new: String,
    #[serde(default)]
    replace_all: bool,
}

#[async_trait]
impl Tool for Edit {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "edit".to_owned(),
            description: "Replaces a piece of a file's text by another. `old` must be in the file exactly, with \
                          all its spaces and line ends, and only once unless `replace_all` is set: take in lines \
                          around it to make it unique. The file must have been read in this session and not have \
                          changed since."
                .to_owned(),
            input_schema: json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "The file, absolute or relative to the working directory."},
                    "old": {"type": "string", "minLength": 1, "description": "The text to replace, without line numbers."},
                    "new": {"type": "string", "description": "The text to put in its place."},
                    "replace_all": {"type": "boolean", "description": "Replace every occurrence."}
                },
                "required": ["path", "old", "new"],
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
        blocking(cx, move |cx| {
            let mut diff = String::new();
            let file = cx.workspace.change(&wanted.path, |old| {
                let old =
                    old.ok_or_else(|| format!("{} does not exist. `write` creates files.", wanted.path))?;
                let old = std::str::from_utf8(old).map_err(|_| {
                    format!("{} is not valid UTF-8, so it cannot be edited as text.", wanted.path)
                })?;
                let new = replaced(old, &wanted)?;
                diff = short_diff(old, &new);
                Ok(new.into_bytes())
            })?;
            Ok(ToolOutput::ok(format!("Edited {}.\n{diff}", wanted.path)).with_file(file))
        })
        .await
    }
}

fn replaced(text: &str, wanted: &Arguments) -> Result<String, String> {
    let Arguments { path, old, new, replace_all } = wanted;
    if old == new {
        return Err("`old` and `new` are the same. Nothing was changed.".to_owned());
    }
    let found = text.matches(old.as_str()).count();
    match found {
        0 => return Err(not_found(text, wanted)),
        1 => {}
        _ if *replace_all => {}
        _ => {
            return Err(format!(
                "`old` is in {path} {found} times (first in lines {}). Nothing was changed. Take in lines around \
                 the one you mean, or set `replace_all`.",
                first_lines(text, old)
            ));
        }
    }
    let bytes = (text.len() - found * old.len()).saturating_add(found.saturating_mul(new.len()));
    if bytes > MAX_FILE_BYTES {
        return Err(format!(
            "{path} would have {bytes} bytes; a file may have {MAX_FILE_BYTES}. Nothing was changed."
        ));
    }
    Ok(text.replace(old.as_str(), new))
}

fn first_lines(text: &str, old: &str) -> String {
    let lines = text.match_indices(old).take(5).map(|(at, _)| line_number(text, at).to_string());
    lines.collect::<Vec<_>>().join(", ")
}

fn line_number(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Says what the file has instead, as far as that helps.
fn not_found(text: &str, wanted: &Arguments) -> String {
    let Arguments { path, old, .. } = wanted;
    let mut message = format!("`old` is not in {path}. Nothing was changed.");
    if text.contains("\r\n") && !old.contains("\r\n") && text.replace("\r\n", "\n").contains(old.as_str()) {
        message.push_str(" The file's lines end in \\r\\n: write them so in `old` and `new`.");
        return message;
    }
    let first = old.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let closest =
        text.lines().enumerate().max_by_key(|(n, line)| (alike(line.trim(), first), std::cmp::Reverse(*n)));
    if let Some((n, line)) = closest.filter(|(_, line)| alike(line.trim(), first) >= ALIKE_PERCENT) {
        let line = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
        message
            .push_str(&format!(" The line closest to the first one of `old` is line {}:\n{line}\n", n + 1));
        message.push_str("Compare spaces, and the lines after it; or read the file again.");
    } else {
        message.push_str(" No line is like the first one of `old`. Read the file again.");
    }
    message
}

/// Says how much of two lines is the same at their beginning and end, in percent of the longer one.
fn alike(a: &str, b: &str) -> usize {
    let longer = a.len().max(b.len());
    if longer == 0 {
        return 0;
    }
    let same = |pairs: &mut dyn Iterator<Item = (u8, u8)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut a.bytes().zip(b.bytes()));
    let tail = same(&mut a.bytes().rev().zip(b.bytes().rev())).min(a.len().min(b.len()) - head);
    (head + tail) * 100 / longer
}

fn short_diff(old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(DIFF_LIMIT).diff_lines(old, new);
    let text = diff.unified_diff().context_radius(2).missing_newline_hint(false).to_string();
    output::cut(&text, MAX_DIFF_BYTES, |bytes| format!("[… {bytes} bytes of the diff left out …]"))
}
