//! `grep`: lines of files by a regular expression.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use async_trait::async_trait;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use longhaul_session::agent::ToolSpec;
use longhaul_session::item::{EffectClass, Outcome};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::walk::{self, Pattern, Walked, walk};
use super::{arguments, blocking};
use crate::files;
use crate::limits::{
    MAX_GREP_CONTEXT, MAX_GREP_LINES, MAX_LINE_BYTES, MAX_REGEX_BYTES, MAX_SEARCH_BUFFER_BYTES,
};
use crate::tool::{CallContext, Tool, ToolOutput};
use crate::workspace::Obstacle;

/// Room for the lines that say what was left out.
const NOTES_BYTES: usize = 300;

pub(crate) struct Grep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    pattern: String,
    #[serde(default = "here")]
    path: String,
    glob: Option<String>,
    #[serde(default)]
    context: usize,
    #[serde(default)]
    files_only: bool,
}

fn here() -> String {
    ".".to_owned()
}

#[async_trait]
impl Tool for Grep {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "grep".to_owned(),
            description: format!(
                "Searches the lines of text files for a regular expression (Rust syntax). Returns \
                 `path:line:text`, lines of context as `path-line-text`, sorted by path, at most {MAX_GREP_LINES} \
                 lines. Leaves out binary files and what .gitignore names."
            ),
            input_schema: json!({
                "type": "object",
                "properties": {
                    "pattern": {"type": "string", "minLength": 1, "description": "The regular expression; (?i) ignores case."},
                    "path": {"type": "string", "description": "A directory or file; the working directory if left out."},
                    "glob": {"type": "string", "description": "Only files of this pattern, as for `glob`."},
                    "context": {"type": "integer", "minimum": 0, "maximum": MAX_GREP_CONTEXT, "description": "Lines to show before and after each match."},
                    "files_only": {"type": "boolean", "description": "Return only the paths of files that match."}
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
        blocking(cx, move |cx| search(&wanted, cx)).await
    }
}

fn search(wanted: &Arguments, cx: &CallContext) -> Result<ToolOutput, Obstacle> {
    let unreadable = |error| Obstacle::Unfit(format!("The regular expression cannot be read: {error}."));
    let matcher = RegexMatcherBuilder::new()
        .size_limit(MAX_REGEX_BYTES)
        .line_terminator(Some(b'\n'))
        .build(&wanted.pattern)
        .map_err(unreadable)?;
    let pattern = wanted.glob.as_deref().map(Pattern::new).transpose()?;
    let mut searcher = SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(MAX_SEARCH_BUFFER_BYTES))
        .before_context(wanted.context)
        .after_context(wanted.context)
        .build();
    let room = cx.max_output_bytes.saturating_sub(NOTES_BYTES);
    let mut found = Found { files_only: wanted.files_only, room, ..Found::default() };
    let walked = walk(cx, &wanted.path, pattern.as_ref(), |path| {
        found.search(&mut searcher, &matcher, &path, cx);
        !found.cut
    })?;
    let mut lines = found.lines;
    if lines.is_empty() {
        lines.push("[no line matches]".to_owned());
    }
    if found.cut {
        lines.push("[there are more; narrow the expression, the path or the glob]".to_owned());
    }
    if found.skipped > 0 {
        lines.push(format!("[{} files could not be searched]", found.skipped));
    }
    lines.extend(walk::note(walked));
    let outcome = if walked == Walked::Cancelled { Outcome::Stopped } else { Outcome::Ok };
    Ok(ToolOutput::new(outcome, lines.join("\n")))
}

/// What a search has found so far.
#[derive(Default)]
struct Found {
    files_only: bool,
    lines: Vec<String>,
    /// Bytes that still fit.
    room: usize,
    /// Something was left out because it did not fit.
    cut: bool,
    skipped: usize,
}

impl Found {
    fn search(&mut self, searcher: &mut Searcher, matcher: &RegexMatcher, path: &Path, cx: &CallContext) {
        let shown = cx.workspace.shown(path).to_string();
        let Ok(file) = files::open(path) else {
            self.skipped += 1;
            return;
        };
        let reader = UntilCancelled { file, cancel: &cx.cancel };
        if searcher.search_reader(matcher, reader, FileSink { found: self, shown: &shown }).is_err() {
            self.skipped += 1;
        }
    }

    /// Takes a line if there is room; says whether there was.
    fn push(&mut self, line: String) -> bool {
        if self.lines.len() >= MAX_GREP_LINES || line.len() >= self.room {
            self.cut = true;
            return false;
        }
        self.room -= line.len() + 1;
        self.lines.push(line);
        true
    }
}

/// A file that ends when the call is cancelled, however long it is.
struct UntilCancelled<'a> {
    file: File,
    cancel: &'a CancellationToken,
}

impl Read for UntilCancelled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() { Ok(0) } else { self.file.read(buffer) }
    }
}

/// Takes what is found in one file.
struct FileSink<'a> {
    found: &'a mut Found,
    shown: &'a str,
}

impl FileSink<'_> {
    fn line(&mut self, mark: char, number: Option<u64>, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        let text = &text[..text.floor_char_boundary(MAX_LINE_BYTES)];
        self.found.push(format!("{}{mark}{}{mark}{text}", self.shown, number.unwrap_or(0)))
    }
}

impl Sink for FileSink<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        if self.found.files_only {
            self.found.push(self.shown.to_owned());
            return Ok(false);
        }
        Ok(self.line(':', found.line_number(), found.bytes()))
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, io::Error> {
        Ok(self.line('-', context.line_number(), context.bytes()))
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, io::Error> {
        Ok(self.found.push("--".to_owned()))
    }
}
