//! How templates are read, checked and rendered.
//!
//! Whatever a template puts out of data is escaped, so that no text can close the tag around it. A template
//! can name only what there is, and it ends: what it does is counted, and what it makes is bounded.

use std::fmt;
use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use serde::{Deserialize, Serialize};

use super::{Prompt, Rendered, Values};

/// The longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 64 * 1024;
/// The longest text a template may make, in bytes, besides its own and the texts that are put into it.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// The steps a rendering may take.
const MAX_STEPS: u64 = 200_000;

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which one.
    pub prompt: Prompt,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { prompt, line, column, what } = self;
        write!(f, "the template `{}` cannot be used, line {line}, column {column}: {what}", prompt.name())
    }
}

/// Escapes text that stands between tags in a prompt, so that it cannot close them.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Checks a template: it can be read, names only what there is, and can be rendered with little and with
/// much.
///
/// # Errors
/// It cannot be used; the fault says where and why.
pub fn check(prompt: Prompt, source: &str) -> Result<(), Fault> {
    let fault = |at: usize, what: String| Err(Fault::at(prompt, source, at, what));
    if source.len() > MAX_TEMPLATE_BYTES && prompt != Prompt::Instructions {
        let what =
            format!("a template has at most {MAX_TEMPLATE_BYTES} bytes, this one has {}", source.len());
        return fault(0, what);
    }
    if source.trim().is_empty() {
        return fault(0, "the template is empty".to_owned());
    }
    let environment = environment();
    let template = environment
        .template_from_named_str(prompt.name(), source)
        .map_err(|error| Fault::of(prompt, source, &error))?;
    let known = prompt.variables();
    let mut unknown: Vec<(usize, String)> = template
        .undeclared_variables(false)
        .into_iter()
        .filter(|name| !known.contains(&name.as_str()) && !FUNCTIONS.contains(&name.as_str()))
        .map(|name| (place_of(source, &name), name))
        .collect();
    unknown.sort();
    if let Some((at, name)) = unknown.into_iter().next() {
        let there = match known {
            [] => "it has no variables".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        return fault(at, format!("there is no variable `{name}` here; {there}"));
    }
    if let Some(needed) = prompt.needed().filter(|name| !template.undeclared_variables(false).contains(*name))
    {
        return fault(0, format!("it must name `{needed}`: else the model would not be told of it"));
    }
    for values in [little(prompt), much(prompt)] {
        render(prompt, source, &values)?;
    }
    Ok(())
}

/// Renders a template that is not built in.
pub(super) fn render(prompt: Prompt, source: &str, values: &Values) -> Result<Rendered, Fault> {
    let environment = environment();
    let rendered = environment
        .template_from_named_str(prompt.name(), source)
        .and_then(|template| template.render(values))
        .map_err(|error| Fault::of(prompt, source, &error))?;
    if rendered.trim().is_empty() && prompt != Prompt::Instructions {
        return Err(Fault::at(prompt, source, 0, "it makes no text".to_owned()));
    }
    let given: usize = values.values().filter_map(Value::as_str).map(str::len).sum();
    let room =
        MAX_TEXT_BYTES.saturating_add(source.len()).saturating_add(given.saturating_mul(ESCAPED_BYTES));
    if rendered.len() > room {
        let what = format!("it makes a text of {} bytes", rendered.len());
        return Err(Fault::at(prompt, source, 0, what));
    }
    Ok(Rendered { text: rendered.trim_end().to_owned(), fault: None })
}

/// Renders a built-in template.
pub(super) fn built_in(prompt: Prompt, values: &Values) -> String {
    static BUILT_IN: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut environment = environment();
        for prompt in Prompt::ALL {
            let added = environment.add_template(prompt.name(), prompt.built_in());
            added.expect("a test reads every built-in template");
        }
        environment.set_fuel(None);
        environment
    });
    let template = BUILT_IN.get_template(prompt.name()).expect("all are added");
    let text = template.render(values).expect("a test renders every branch of every built-in template");
    text.trim_end().to_owned()
}

/// Functions that come with the template language and need no value of ours.
const FUNCTIONS: [&str; 4] = ["dict", "loop", "namespace", "range"];
/// How long a letter can get when it is escaped, in bytes.
const ESCAPED_BYTES: usize = 5;

fn environment<'s>() -> Environment<'s> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(|out, _, value| {
        let text = value.to_string();
        let written = if value.is_safe() { out.write_str(&text) } else { out.write_str(&escape(&text)) };
        written.map_err(|_| Error::new(ErrorKind::WriteFailure, "the text cannot be written"))
    });
    // Nothing that data says may pass unescaped.
    environment.remove_filter("safe");
    environment.remove_global("debug");
    environment
}

impl Fault {
    fn at(prompt: Prompt, source: &str, at: usize, what: String) -> Self {
        let before = &source[..source.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        Fault { prompt, line, column, what }
    }

    fn of(prompt: Prompt, source: &str, error: &Error) -> Self {
        let what = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        let line = error.line().unwrap_or(1);
        let line_start: usize = source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        Fault::at(prompt, source, error.range().map_or(line_start, |range| range.start), what)
    }
}

/// Finds where a template names a variable: the first such word within a tag of the template.
fn place_of(source: &str, name: &str) -> usize {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let in_tag = |at: usize| {
        let opened = source[..at].rfind("{{").max(source[..at].rfind("{%"));
        let closed = source[..at].rfind("}}").max(source[..at].rfind("%}"));
        opened.is_some() && opened > closed
    };
    let mut found = source.match_indices(name).map(|(at, _)| at);
    let named = found.find(|at| {
        let (before, after) = (&source[..*at], &source[at + name.len()..]);
        !before.ends_with(|letter| is_word(letter) || letter == '.')
            && !after.starts_with(is_word)
            && in_tag(*at)
    });
    named.unwrap_or(0)
}

/// Values of which each is as little as it can be.
fn little(prompt: Prompt) -> Values {
    let value = |name: &str| match name {
        "instructions" | "command" => Value::from(()),
        "goals" | "hard" => Value::from(false),
        "tools" | "checks" | "files" | "changed" => Value::from(Vec::<Value>::new()),
        "budget" => budget(Value::from(())),
        "objective" => Value::from("x"),
        _ => Value::from(""),
    };
    prompt.variables().iter().map(|name| (*name, value(name))).collect()
}

/// Values of which each is as much as it can be.
fn much(prompt: Prompt) -> Values {
    let long = || Value::from("<&> \"long\"\n".repeat(400));
    let value = |name: &str| match name {
        "goals" | "hard" => Value::from(true),
        "tools" | "checks" | "files" | "changed" => std::iter::repeat_with(long).take(20).collect(),
        "budget" => budget(long()),
        _ => long(),
    };
    prompt.variables().iter().map(|name| (*name, value(name))).collect()
}

fn budget(limit: Value) -> Value {
    let part = |name: &str| {
        let (limit, used) = (limit.clone(), Value::from(u64::MAX.to_string()));
        context! { name, used, left => limit.clone(), limit }
    };
    ["tokens", "time", "cost", "turns"].into_iter().map(part).collect()
}
