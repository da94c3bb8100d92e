//! What is wrong with a manifest, told with its place and what to do. A line is shown as it stands in
//! the file, except for what may be a key.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

/// Faults that are told at once.
pub(super) const MAX_REPORTS: usize = 20;
/// Columns of a line that are shown, and how many of them stand before the fault at most.
const SHOWN_COLUMNS: usize = 100;
const COLUMNS_BEFORE: usize = 60;
/// Characters that are looked at for them: some have no width.
const MAX_LETTERS: usize = 4 * SHOWN_COLUMNS;
/// The longest name that is quoted, in characters.
const MAX_QUOTED: usize = 60;
/// The largest difference at which one name is taken for another misspelled, and how much of the name
/// it may be at most.
const MAX_DISTANCE: usize = 3;
const DISTANCE_PART: usize = 3;

/// One thing that is wrong, at some bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) hint: String,
}

/// What may be a key, and is not shown.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Places that are known.
    pub(super) spans: Vec<Range<usize>>,
    /// The file could be read as TOML, so that these are all within `[model] key`.
    pub(super) parsed: bool,
}

/// Why a manifest cannot be used: all that could be found.
#[derive(Debug)]
pub(crate) struct Error {
    file: String,
    reports: Vec<Report>,
    more: bool,
}

/// One fault, ready to be told.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    place: Option<Position>,
    what: String,
    hint: String,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// A place in a file. Columns count characters; both begin at 1.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Position {
    line: usize,
    column: usize,
}

/// A line of the file, and the columns of it that are meant, from 0.
#[derive(Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    marked: Range<usize>,
}

impl Error {
    /// Tells faults of a text. What is hidden is not shown.
    pub(super) fn new(file: &Path, text: &str, mut faults: Vec<Fault>, hidden: &Hidden) -> Self {
        faults.sort_by_key(|fault| (fault.span.start, fault.span.end));
        faults.dedup();
        let more = faults.len() > MAX_REPORTS;
        let reports = faults.into_iter().take(MAX_REPORTS).map(|fault| Report::new(text, fault, hidden));
        Error { file: file.display().to_string(), reports: reports.collect(), more }
    }

    /// Tells what is wrong with a file as a whole.
    pub(super) fn whole(file: &Path, what: impl Into<String>, hint: &str) -> Self {
        let report = Report { place: None, what: what.into(), hint: hint.to_owned(), excerpt: None };
        Error { file: file.display().to_string(), reports: vec![report], more: false }
    }

    /// Returns the faults, for programs.
    pub(super) fn reports(&self) -> &[Report] {
        &self.reports
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, report) in self.reports.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            report.tell(&self.file, f)?;
        }
        if self.more { write!(f, "\n\n{}: and more; correct these first", self.file) } else { Ok(()) }
    }
}

impl Report {
    fn new(text: &str, fault: Fault, hidden: &Hidden) -> Self {
        let start = text.floor_char_boundary(fault.span.start);
        let end = text.floor_char_boundary(fault.span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let place = Position {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
        };
        let excerpt = Excerpt::new(text, line_start..line_end, start..end.min(line_end), hidden);
        Report { place: Some(place), what: fault.what, hint: fault.hint, excerpt }
    }

    fn tell(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Position { line, column }) => write!(f, "{file}:{line}:{column}: {}", self.what)?,
            None => write!(f, "{file}: {}", self.what)?,
        }
        if let Some(Excerpt { line, marked }) = &self.excerpt {
            let (indent, carets) = (" ".repeat(marked.start), "^".repeat(marked.len().max(1)));
            write!(f, "\n  | {line}\n  | {indent}{carets}")?;
        }
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.hint) }
    }
}

impl Excerpt {
    /// Shows a line with what is hidden left out. Returns `None` for an empty line.
    fn new(text: &str, line: Range<usize>, marked: Range<usize>, hidden: &Hidden) -> Option<Self> {
        let content = text[line.clone()].trim_end();
        let secret =
            secret_part(content, hidden.parsed).map(|part| part.start + line.start..part.end + line.start);
        let is_hidden = |at: usize| hidden.spans.iter().chain(&secret).any(|range| range.contains(&at));
        let mut shown = String::new();
        let (mut from, mut to) = (None, 0);
        let before = text[line.start..marked.start].chars().count();
        let cut = if before > COLUMNS_BEFORE { before - COLUMNS_BEFORE / 2 } else { 0 };
        let mut in_hidden = false;
        for (at, letter) in content.char_indices().skip(cut).take(MAX_LETTERS) {
            let at = at + line.start;
            let width = console::measure_text_width(&shown);
            if width >= SHOWN_COLUMNS {
                shown.push('…');
                break;
            }
            if at >= marked.start && from.is_none() {
                from = Some(if in_hidden && is_hidden(at) { width.saturating_sub(1) } else { width });
            }
            match (is_hidden(at), in_hidden) {
                (true, true) => {}
                (true, false) => shown.push('…'),
                // What a terminal would obey, it must not get.
                (false, _) if letter == '\t' => shown.push(' '),
                (false, _) if letter.is_control() => shown.push('\u{fffd}'),
                (false, _) => shown.push(letter),
            }
            in_hidden = is_hidden(at);
            if at < marked.end {
                to = console::measure_text_width(&shown);
            }
        }
        let from = from.unwrap_or_else(|| console::measure_text_width(&shown));
        (!content.is_empty()).then_some(Excerpt { line: shown, marked: from..to.max(from) })
    }
}

/// Returns the part of a line that may be a key in a place where none belongs: what is assigned to a
/// name that speaks of one. Where a key is found is not secret.
fn secret_part(line: &str, parsed: bool) -> Option<Range<usize>> {
    let (name, value) = line.split_once('=')?;
    let start = name.len() + 1;
    let name = name.to_ascii_lowercase();
    let speaks =
        ["key", "token", "secret", "password", "authorization"].iter().any(|word| name.contains(word));
    let inside = value.trim_start().strip_prefix('{').map(str::trim_start);
    let is_place = inside.is_some_and(|it| parsed || it.starts_with("env") || it.starts_with("file"));
    (speaks && !name.contains("tokens") && !is_place).then_some(start..line.len())
}

/// Quotes what somebody wrote, with its control characters escaped and cut to a bearable length.
pub(super) fn quoted(name: &str) -> String {
    let mut letters = name.chars();
    let shown: String = letters.by_ref().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    let rest = if letters.next().is_some() { "…" } else { "" };
    format!("`{shown}{rest}`")
}

/// Asks whether a known name was meant; `None` when none is near enough.
pub(super) fn suggestion(written: &str, known: &[impl AsRef<str>]) -> Option<String> {
    let lower = written.to_lowercase().replace('-', "_");
    let near = known.iter().map(AsRef::as_ref).map(|name| {
        let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase().replace('-', "_"));
        (distance, name)
    });
    let (distance, name) = near.min()?;
    let allowed = (name.chars().count() / DISTANCE_PART).clamp(1, MAX_DISTANCE);
    (distance <= allowed).then(|| format!("did you mean `{name}`?"))
}

/// Lists alternatives.
pub(super) fn one_of(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
