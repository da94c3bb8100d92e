//! Reads the subcommands of the `longhaul` program from its sources: the variants of the enums that
//! derive `Subcommand`, under the names the command line gives them.

use std::collections::BTreeSet;

use super::functions::closing_brace;
use super::mask::{identifiers, mask};

/// The subcommands a source declares, of every depth.
pub(super) fn declared(source: &str) -> BTreeSet<String> {
    let code = mask(source).code;
    let words = identifiers(&code);
    let mut names = BTreeSet::new();
    for (index, (at, word)) in words.iter().enumerate() {
        if *word != "Subcommand" || !is_derived(&code[..*at]) {
            continue;
        }
        let Some((enum_at, _)) = words[index..].iter().find(|(_, word)| *word == "enum") else {
            continue;
        };
        let Some(open) = code[*enum_at..].find('{').map(|length| enum_at + length) else {
            continue;
        };
        variants(source, &code, open, &mut names);
    }
    names
}

/// Whether what stands before a word leaves it inside a `derive(…)`.
fn is_derived(before: &str) -> bool {
    before.rfind("derive(").is_some_and(|at| !before[at..].contains(')'))
}

/// Adds the names of the variants of the enum whose brace is at `open`.
fn variants(source: &str, code: &str, open: usize, names: &mut BTreeSet<String>) {
    let close = closing_brace(code, open);
    let body = identifiers(&code[open + 1..close]);
    let mut renamed = None;
    let mut last = open + 1;
    let mut depth = 0_usize;
    let mut awaited = true;
    for (offset, word) in body {
        let at = open + 1 + offset;
        for byte in code[last..at].bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                b',' if depth == 0 => awaited = true,
                _ => {}
            }
        }
        last = at + word.len();
        // What is nested before the variant's name is its attribute, after it its fields.
        match (awaited, depth, word) {
            (true, 0, variant) => {
                names.insert(renamed.take().unwrap_or_else(|| kebab_case(variant)));
                awaited = false;
            }
            (true, _, "name") => renamed = literal_after(&source[last..]),
            (true, _, "alias" | "visible_alias") => names.extend(literal_after(&source[last..])),
            _ => {}
        }
    }
}

/// The text of the string in `= "…"`.
fn literal_after(source: &str) -> Option<String> {
    let text = source.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
    text.split_once('"').map(|(literal, _)| literal.to_owned())
}

fn kebab_case(variant: &str) -> String {
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::declared;

    #[test]
    fn variants_are_commands_under_their_command_line_names() {
        let source = r#"
            /// Serve, or not.
            #[derive(Debug, clap::Subcommand)]
            enum Command {
                /// Runs, `Badly`.
                Run { objective: String, goal: bool },
                #[command(name = "ls", visible_alias = "list")]
                Sessions(List),
                CheckAgent,
                #[command(subcommand)]
                Goal(Goal),
            }
            #[derive(Clone, Debug)]
            enum Other { Hidden }
        "#;
        let names: Vec<String> = declared(source).into_iter().collect();
        assert_eq!(names, ["check-agent", "goal", "list", "ls", "run"]);
    }

    #[test]
    fn a_source_without_subcommands_declares_none() {
        assert!(
            declared(
                "//! Subcommand
use clap::Subcommand;
enum A { B }"
            )
            .is_empty()
        );
    }
}
