//! Sees that what the documentation names exists: paths, crates, and the commands of `cargo` and
//! `longhaul`. Only what is set as code is read as a name; prose is left to its author.

use std::collections::BTreeSet;

use super::Finding;

/// Characters that end the fixed part of a path: what follows is a placeholder.
const PLACEHOLDERS: [char; 8] = ['*', '<', '>', '{', '}', '…', '[', '$'];

/// The commands the documentation may mention.
#[derive(Debug)]
pub(super) struct Commands {
    /// Of cargo, aliases included.
    pub(super) cargo: BTreeSet<String>,
    /// Of `cargo xtask`.
    pub(super) xtask: BTreeSet<String>,
    /// Of the program.
    pub(super) longhaul: BTreeSet<String>,
}

/// What exists.
#[derive(Debug)]
pub(super) struct Known {
    paths: BTreeSet<String>,
    roots: BTreeSet<String>,
    crates: BTreeSet<String>,
    functions: BTreeSet<String>,
    commands: Commands,
}

impl Known {
    /// Gathers what exists. A path beginning with one of `roots`, or with a folder of the
    /// repository, is taken for a path of the repository.
    pub(super) fn new(
        files: &[String],
        roots: &BTreeSet<String>,
        crates: BTreeSet<String>,
        functions: BTreeSet<String>,
        commands: Commands,
    ) -> Self {
        let mut paths: BTreeSet<String> = files.iter().cloned().collect();
        let mut roots = roots.clone();
        for file in files {
            for (at, _) in file.match_indices('/') {
                paths.insert(file[..at].to_owned());
            }
            roots.extend(file.split_once('/').map(|(root, _)| root.to_owned()));
        }
        Known { paths, roots, crates, functions, commands }
    }
}

/// Checks one document.
pub(super) fn check(file: &str, text: &str, known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let mut problems = Vec::new();
        let trimmed = line.trim();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
        } else if fenced {
            check_command(trimmed.strip_prefix("$ ").unwrap_or(trimmed), known, &mut problems);
        } else {
            for span in code_spans(line) {
                check_command(span, known, &mut problems);
                if !span.contains(char::is_whitespace) {
                    check_name(span, known, &mut problems);
                }
            }
            for target in link_targets(line) {
                check_link(file, target, known, &mut problems);
            }
        }
        findings.extend(problems.into_iter().map(|problem| Finding::new(file, index + 1, problem)));
    }
    findings
}

/// The texts between backticks, one or several as the author chose.
fn code_spans(line: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let mut rest = line;
    while let Some(open) = rest.find('`') {
        let after = rest[open..].trim_start_matches('`');
        let ticks = &rest[open..rest.len() - after.len()];
        match after.split_once(ticks) {
            Some((span, following)) => {
                spans.push(span.trim());
                rest = following;
            }
            None => rest = after,
        }
    }
    spans
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Checks a line that may be a call of `cargo` or `longhaul`.
fn check_command(line: &str, known: &Known, problems: &mut Vec<String>) {
    let mut words = line.split_whitespace();
    let (program, mut names) = match words.next() {
        Some("cargo") => ("cargo", &known.commands.cargo),
        Some("longhaul") => ("longhaul", &known.commands.longhaul),
        Some(_) | None => return,
    };
    let mut program = program.to_owned();
    let mut open = true;
    for word in words {
        if word == "#" {
            return;
        }
        if open && !word.starts_with('+') {
            check_subcommand(&program, word, names, problems);
            open = program == "cargo" && word == "xtask";
            if open {
                "cargo xtask".clone_into(&mut program);
                names = &known.commands.xtask;
            }
        } else {
            check_name(word, known, problems);
        }
    }
}

/// Checks the word after a program's name; `a|b` names two commands.
fn check_subcommand(program: &str, word: &str, names: &BTreeSet<String>, problems: &mut Vec<String>) {
    let is_name = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    for name in word.split('|').filter(is_name) {
        if name != "help" && !names.contains(name) {
            let list: Vec<&str> = names.iter().map(String::as_str).collect();
            problems.push(format!(
                "`{program} {name}` does not exist (there are: {}); name one that does",
                list.join(", ")
            ));
        }
    }
}

/// Checks a word that may be a path or a crate of the repository.
fn check_name(word: &str, known: &Known, problems: &mut Vec<String>) {
    if word.contains("::") || word.contains("://") {
        return;
    }
    let path = fixed_part(word);
    let root = path.split('/').next().unwrap_or(path);
    if path.contains('/') && known.roots.contains(root) {
        if !known.paths.contains(path) {
            problems.push(format!("`{path}` is not in the repository; correct the path"));
        }
    } else if path.ends_with(".rs") {
        let ending = format!("/{path}");
        if !known.paths.iter().any(|known| known == path || known.ends_with(&ending)) {
            problems.push(format!("no file of the repository ends in `{path}`; correct the name"));
        }
    } else if is_crate_name(path) && !known.crates.contains(path) {
        problems.push(format!("there is no crate `{path}` in the workspace; correct the name"));
    } else if is_test_name(path) && !known.functions.contains(path) {
        problems.push(format!("there is no test `{path}`; correct the name"));
    }
}

/// Tells whether a word is a sentence in small letters, as tests are named.
fn is_test_name(word: &str) -> bool {
    let small = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    small && word.matches('_').count() >= 3
}

/// The part of a path before its first placeholder, without a line number or trailing slash.
fn fixed_part(word: &str) -> &str {
    let word = word.strip_prefix("./").unwrap_or(word);
    let path = match word.find(PLACEHOLDERS) {
        Some(at) => word[..at].rsplit_once('/').map_or("", |(folder, _)| folder),
        None => word,
    };
    let path = match path.rsplit_once(':') {
        Some((path, line)) if line.chars().all(|c| c.is_ascii_digit()) => path,
        Some(_) | None => path,
    };
    path.trim_end_matches('/')
}

fn is_crate_name(word: &str) -> bool {
    let rest = word.strip_prefix("longhaul-");
    rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

/// Checks a link's target, which is relative to the document's folder.
fn check_link(file: &str, target: &str, known: &Known, problems: &mut Vec<String>) {
    let path = target.split('#').next().unwrap_or(target);
    if path.is_empty() || path.contains(':') || path.starts_with('/') {
        return;
    }
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    let resolved = parts.join("/");
    if !resolved.is_empty() && !known.paths.contains(&resolved) {
        problems.push(format!("the link to `{target}` leads nowhere; correct it"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Commands, Known, check};

    fn set(words: &str) -> BTreeSet<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    fn problems(text: &str) -> Vec<(usize, String)> {
        let files: Vec<String> =
            set("README.md crates/longhaul-session/src/decide.rs docs/guarantees.md web/dist/a.js")
                .into_iter()
                .collect();
        let commands = Commands {
            cargo: set("test build xtask"),
            xtask: set("verify tidy"),
            longhaul: set("run goal ls show"),
        };
        let known = Known::new(
            &files,
            &set("crates docs bench"),
            set("longhaul longhaul-session"),
            set("a_test_that_is_there"),
            commands,
        );
        let found = check("docs/guarantees.md", text, &known);
        found.into_iter().map(|finding| (finding.line, finding.problem)).collect()
    }

    #[test]
    fn what_exists_may_be_named() {
        let text = "\
Read `crates/longhaul-session/src/decide.rs:12`, `src/decide.rs`, `decide.rs` and `docs/`.
See `crates/<name>/src`, `crates/*`, ``longhaul-session``, `longhaul_store::Store`, `/v1/sessions`.
The test `a_test_that_is_there`, the field `retry_for_ms`.
Run `cargo xtask verify --full`, `cargo +nightly test -p longhaul-session`, `longhaul ls|show <session>`.
Follow [the guarantees](guarantees.md#top), [this](../README.md), [that](https://example.com/a).
```
$ longhaul run --goal \"tidy up\" # longhaul-nothing
longhaul goal set @last
longhaul 0.1.0
```
Prose may say crates/nothing.rs, and `longhaul.toml` belongs to the reader.
";
        assert_eq!(problems(text), []);
    }

    #[test]
    fn what_does_not_exist_is_found_with_its_line() {
        let cases = [
            ("a\n`crates/longhaul-store/src/lib.rs`", 2, "crates/longhaul-store/src/lib.rs"),
            ("`bench/peers/`", 1, "bench/peers"),
            ("`web/source/*.ts`", 1, "web/source"),
            ("`evolve.rs`", 1, "evolve.rs"),
            ("`longhaul-core`", 1, "no crate `longhaul-core`"),
            ("`cargo deny`", 1, "`cargo deny` does not exist"),
            ("`cargo xtask release`", 1, "`cargo xtask release` does not exist"),
            ("`longhaul ls|list`", 1, "`longhaul list` does not exist"),
            ("`cargo test -p longhaul-store`", 1, "longhaul-store"),
            ("```sh\nlonghaul serve\n```", 2, "`longhaul serve` does not exist"),
            ("`a_test_that_is_gone`", 1, "no test `a_test_that_is_gone`"),
            ("[a](operations.md)", 1, "leads nowhere"),
        ];
        for (text, line, expected) in cases {
            let found = problems(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].0, line, "{text}");
            assert!(found[0].1.contains(expected), "{text}: {found:?}");
        }
    }
}
