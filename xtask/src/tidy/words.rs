//! Finds what the repository may not say: it speaks of the product alone. The patterns and their
//! reasons stand in the rules.

use serde::Deserialize;

use super::Finding;

/// What `<n>` stands for in a pattern.
const DIGITS: &str = "<n>";

/// A forbidden pattern.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forbidden {
    /// The text, in any letter case; `<n>` stands for one or more digits.
    pattern: String,
    /// Why not, and what to write in its place.
    reason: String,
    /// Files that may say it.
    #[serde(default)]
    except: Vec<String>,
}

/// Checks the text of one file.
pub(super) fn check(file: &str, text: &str, forbidden: &[Forbidden]) -> Vec<Finding> {
    let rules: Vec<(&Forbidden, String)> = forbidden
        .iter()
        .filter(|rule| !rule.except.iter().any(|excepted| excepted == file))
        .map(|rule| (rule, rule.pattern.to_lowercase()))
        .collect();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        for (rule, pattern) in &rules {
            if contains(&line, pattern) {
                let problem = format!("says `{}`: {}", rule.pattern, rule.reason);
                findings.push(Finding::new(file, index + 1, problem));
            }
        }
    }
    findings
}

/// Whether a lower-case line contains the pattern at the start of a word or path.
fn contains(line: &str, pattern: &str) -> bool {
    let (literal, _) = pattern.split_once(DIGITS).unwrap_or((pattern, ""));
    line.match_indices(literal).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || "_-.~".contains(c));
        starts && matches_at(&line[at..], pattern)
    })
}

fn matches_at(text: &str, pattern: &str) -> bool {
    let Some((literal, rest)) = pattern.split_once(DIGITS) else {
        return text.starts_with(pattern);
    };
    let Some(after) = text.strip_prefix(literal) else {
        return false;
    };
    let tail = after.trim_start_matches(|c: char| c.is_ascii_digit());
    tail.len() < after.len() && matches_at(tail, rest)
}

#[cfg(test)]
mod tests {
    use super::{Forbidden, check};

    fn lines(pattern: &str, file: &str, text: &str) -> Vec<usize> {
        let rule = Forbidden {
            pattern: pattern.to_owned(),
            reason: "no".to_owned(),
            except: vec!["free.md".to_owned()],
        };
        check(file, text, &[rule]).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_pattern_is_found_in_any_case_on_its_line() {
        assert_eq!(lines("ticket #", "a.md", "one\nsee Ticket #4\n"), [2]);
        assert_eq!(lines("ticket #", "a.md", "one\na ticket\n"), [0_usize; 0]);
        assert_eq!(lines("ticket #", "free.md", "ticket #4"), [0_usize; 0]);
    }

    #[test]
    fn digits_are_matched_as_digits() {
        assert_eq!(lines("tickets <n>", "a.md", "tickets 12 and 13"), [1]);
        assert_eq!(lines("tickets <n>", "a.md", "tickets of ours"), [0_usize; 0]);
        assert_eq!(lines("v<n>.<n>!", "a.md", "v1.x! v1.22!"), [1]);
    }

    #[test]
    fn a_match_begins_at_the_start_of_a_word_or_path() {
        assert_eq!(lines("/desk/", "a.md", "cd /desk/main"), [1]);
        assert_eq!(lines("/desk/", "a.md", "`file:///desk/main`"), [1]);
        for harmless in ["src/desk/mod.rs", "~/desk/notes", "./desk/a", "$HOME/desk/"] {
            assert_eq!(lines("/desk/", "a.md", harmless), [0_usize; 0], "{harmless}");
        }
    }
}
