//! The checks of form: crate edges, sizes, names in the documentation, forbidden words. Here the
//! rules are read and each check gets the files it is about; the checks themselves are pure.

mod edges;
mod functions;
mod mask;
mod mentions;
mod sources;
mod subcommands;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::arguments::COMMANDS;
use crate::workspace::{self, Member};
use mentions::Known;

/// Where the rules stand; the one file that may spell out what is forbidden.
const RULES: &str = "xtask/tidy.toml";

/// The rules, as `xtask/tidy.toml` states them with their reasons.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    max_file_lines: usize,
    max_function_lines: usize,
    banned_names: Vec<String>,
    database_free: Vec<String>,
    database_words: Vec<String>,
    roots: BTreeSet<String>,
    cargo_commands: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
    forbidden: Vec<words::Forbidden>,
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    /// Counted from one.
    line: usize,
    problem: String,
}

impl Finding {
    fn new(file: &str, line: usize, problem: impl Into<String>) -> Self {
        Finding { file: file.to_owned(), line, problem: problem.into() }
    }
}

/// Runs all checks and prints what they find.
///
/// # Errors
/// When anything is found, or the repository cannot be read.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let rules: Rules = toml::from_str(&workspace::read(root, RULES)?)
        .map_err(|error| format!("{RULES} is not valid: {error}"))?;
    let members = workspace::members(root)?;
    let files = workspace::files(root)?;
    let mut findings = edges::check(&members, &workspace::root_manifest(root)?, &rules);
    findings.extend(check_sources(root, &files, &members, &rules)?);
    findings.extend(check_documentation(root, &files, &members, &rules)?);
    findings.extend(check_words(root, &files, &rules)?);
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{}:{}: {}", finding.file, finding.line, finding.problem);
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing found", files.len());
            Ok(())
        }
        1 => Err("tidy found 1 place to put right; it is listed above".to_owned()),
        count => Err(format!("tidy found {count} places to put right; they are listed above")),
    }
}

fn check_sources(
    root: &Path,
    files: &[String],
    members: &[Member],
    rules: &Rules,
) -> Result<Vec<Finding>, String> {
    let database_free: Vec<String> = members
        .iter()
        .filter(|member| rules.database_free.contains(&member.name))
        .map(|member| format!("{}/src/", member.folder))
        .collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = workspace::read(root, file)?;
        findings.extend(sources::check(file, &text, rules));
        if database_free.iter().any(|folder| file.starts_with(folder)) {
            findings.extend(sources::check_databases(file, &text, &rules.database_words));
        }
    }
    Ok(findings)
}

fn check_documentation(
    root: &Path,
    files: &[String],
    members: &[Member],
    rules: &Rules,
) -> Result<Vec<Finding>, String> {
    let (mut longhaul, mut functions) = (BTreeSet::new(), BTreeSet::new());
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        functions.extend(functions::names(&workspace::read(root, file)?));
    }
    for file in files.iter().filter(|file| is_command_line_source(file)) {
        longhaul.extend(subcommands::declared(&workspace::read(root, file)?));
    }
    let crates = members.iter().map(|member| member.name.clone()).collect();
    let cargo = rules.cargo_commands.union(&cargo_aliases(root)?).cloned().collect();
    let xtask = COMMANDS.iter().map(|name| (*name).to_owned()).collect();
    let known =
        Known::new(files, &rules.roots, crates, functions, mentions::Commands { cargo, xtask, longhaul });
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_documentation(file)) {
        findings.extend(mentions::check(file, &workspace::read(root, file)?, &known));
    }
    Ok(findings)
}

fn is_command_line_source(file: &str) -> bool {
    file.starts_with("crates/longhaul/src/") && file.ends_with(".rs")
}

fn is_documentation(file: &str) -> bool {
    let in_docs = file.starts_with("docs/") && file.ends_with(".md");
    in_docs || file == "README.md" || file == "ARCHITECTURE.md"
}

fn cargo_aliases(root: &Path) -> Result<BTreeSet<String>, String> {
    let file = ".cargo/config.toml";
    if !root.join(file).exists() {
        return Ok(BTreeSet::new());
    }
    let config: toml::Table =
        workspace::read(root, file)?.parse().map_err(|error| format!("{file} is not valid: {error}"))?;
    let aliases = config.get("alias").and_then(toml::Value::as_table);
    Ok(aliases.map(|aliases| aliases.keys().cloned().collect()).unwrap_or_default())
}

fn check_words(root: &Path, files: &[String], rules: &Rules) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| *file != RULES) {
        let bytes = std::fs::read(root.join(file)).map_err(|error| format!("cannot read {file}: {error}"))?;
        // What is not text cannot be read by a person either: pictures, recorded bytes.
        if let Ok(text) = String::from_utf8(bytes) {
            findings.extend(words::check(file, &text, &rules.forbidden));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::Rules;

    /// The rules of this repository, for the checks' tests.
    pub(super) fn rules() -> Rules {
        toml::from_str(include_str!("../tidy.toml")).expect("the rules of the repository are valid")
    }

    #[test]
    fn the_rules_of_the_repository_have_no_cycle() {
        let rules = rules();
        let mut placed = Vec::new();
        for _ in 0..rules.edges.len() {
            for (name, allowed) in &rules.edges {
                if !placed.contains(name) && allowed.iter().all(|below| placed.contains(below)) {
                    placed.push(name.clone());
                }
            }
        }
        assert_eq!(placed.len(), rules.edges.len(), "placed: {placed:?}");
    }
}
