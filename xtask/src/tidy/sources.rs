//! What every Rust source must hold to: its size, the size of its functions, its opening comment,
//! the names of its modules, and that nothing unfinished is left in it.

use super::functions::functions;
use super::mask::{Masked, identifiers, is_word, line_at, mask};
use super::{Finding, Rules};

/// The comment that lets a function be long, followed by its reason.
const LONG: &str = "// tidy: long";

/// Macros that mark unfinished work.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Checks one Rust source.
pub(super) fn check(file: &str, text: &str, rules: &Rules) -> Vec<Finding> {
    let masked = mask(text);
    let mut findings = check_file(file, text, rules);
    findings.extend(check_functions(file, text, &masked, rules));
    findings.extend(check_modules(file, &masked, rules));
    findings.extend(check_unfinished(file, &masked));
    findings
}

/// Checks that a source names no concrete database, not even in a comment.
pub(super) fn check_databases(file: &str, text: &str, databases: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for database in databases.iter().filter(|database| lower.contains(*database)) {
            let problem = format!(
                "names the database `{database}`; only the store, the binary and the simulator \
                 may. Speak of the store"
            );
            findings.push(Finding::new(file, index + 1, problem));
        }
    }
    findings
}

fn check_file(file: &str, text: &str, rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > rules.max_file_lines {
        let problem = format!(
            "the file has {lines} lines, more than {}; split it by responsibility",
            rules.max_file_lines
        );
        findings.push(Finding::new(file, rules.max_file_lines + 1, problem));
    }
    if file.split('/').any(|part| part == "src") && !text.trim_start().starts_with("//!") {
        let problem = "the file does not open with `//!`; say what it is responsible for and what \
                       it leaves to others";
        findings.push(Finding::new(file, 1, problem));
    }
    findings
}

fn check_functions(file: &str, text: &str, masked: &Masked, rules: &Rules) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let limit = rules.max_function_lines;
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for function in functions(&masked.code) {
        if function.lines <= limit {
            continue;
        }
        match marker_above(&lines, function.line) {
            Some(line) => used.push(line),
            None => {
                let problem = format!(
                    "`{}` is {} lines long, more than {limit}; split it, or, for an exhaustive \
                     table, put `{LONG} — reason` above it",
                    function.name, function.lines
                );
                findings.push(Finding::new(file, function.line, problem));
            }
        }
    }
    for (index, line) in masked.comments.lines().enumerate() {
        let Some(reason) = line.trim_start().strip_prefix(LONG) else {
            continue;
        };
        let line = index + 1;
        if !reason.chars().any(char::is_alphabetic) {
            let problem = format!("`{LONG}` gives no reason; write `{LONG} — reason`");
            findings.push(Finding::new(file, line, problem));
        } else if !used.contains(&line) {
            let problem = format!("`{LONG}` stands above no long function; remove it");
            findings.push(Finding::new(file, line, problem));
        }
    }
    findings
}

/// The line of the marker among the comments and attributes directly above a function.
fn marker_above(lines: &[&str], function: usize) -> Option<usize> {
    for line in (1..function).rev() {
        let text = lines[line - 1].trim();
        if text.starts_with(LONG) {
            return Some(line);
        }
        let is_comment = text.starts_with("//");
        if text.is_empty() || (!is_comment && text.ends_with([';', '{', '}'])) {
            return None;
        }
    }
    None
}

fn check_modules(file: &str, masked: &Masked, rules: &Rules) -> Vec<Finding> {
    let words = identifiers(&masked.code);
    let mut findings = Vec::new();
    for pair in words.windows(2) {
        let [(_, keyword), (at, name)] = *pair else {
            continue;
        };
        if keyword == "mod" && rules.banned_names.iter().any(|banned| banned == name) {
            let problem =
                format!("the module's name `{name}` says nothing of what is inside; name its responsibility");
            findings.push(Finding::new(file, line_at(&masked.code, at), problem));
        }
    }
    findings
}

/// Tells whether the next function is a test that another one starts as a process of its own.
fn starts_helper(code: &str) -> bool {
    let mut words = identifiers(code).into_iter().map(|(_, word)| word).skip_while(|word| *word != "fn");
    words.nth(1).is_some_and(|name| name.starts_with("helper_"))
}

fn check_unfinished(file: &str, masked: &Masked) -> Vec<Finding> {
    let code = &masked.code;
    let mut findings = Vec::new();
    for (at, word) in identifiers(code) {
        let after = code[at + word.len()..].trim_start();
        let before = code[..at].trim_end();
        if UNFINISHED.contains(&word) && after.starts_with('!') && !after.starts_with("!=") {
            let problem = format!("`{word}!` marks unfinished work; finish it");
            findings.push(Finding::new(file, line_at(code, at), problem));
        }
        if word == "ignore" && before.ends_with("#[") && !starts_helper(&code[at..]) {
            let problem = "an ignored test guards nothing; make it pass, or remove it \
                           (one that another test starts is named helper_…)";
            findings.push(Finding::new(file, line_at(code, at), problem));
        }
    }
    let mark = concat!("FIX", "ME");
    for (at, _) in masked.comments.match_indices(mark) {
        let end = at + mark.len();
        let inside = masked.comments.as_bytes().get(end).is_some_and(|byte| is_word(*byte));
        if !inside {
            let problem = format!("`{mark}` marks unfinished work; finish it");
            findings.push(Finding::new(file, line_at(&masked.comments, at), problem));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{check, check_databases};
    use crate::tidy::tests::rules;

    fn problems(file: &str, text: &str) -> Vec<(usize, String)> {
        let found = check(file, text, &rules());
        found.into_iter().map(|finding| (finding.line, finding.problem)).collect()
    }

    fn long_function(above: &str, body_lines: usize) -> String {
        let body = "    let _ = 1;\n".repeat(body_lines);
        format!("//! Doc.\n{above}fn table() {{\n{body}}}\n")
    }

    #[test]
    fn a_function_of_seventy_lines_passes_and_one_more_fails() {
        assert_eq!(problems("crates/a/src/lib.rs", &long_function("", 68)), []);
        let found = problems("crates/a/src/lib.rs", &long_function("", 69));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 2);
        assert!(found[0].1.contains("`table` is 71 lines long, more than 70"), "{found:?}");
    }

    #[test]
    fn a_long_table_passes_with_a_reason_only() {
        let reason = "// tidy: long — one arm per command\n/// Doc; with a semicolon;\n#[inline]\n";
        assert_eq!(problems("src/a.rs", &long_function(reason, 90)), []);
        let found = problems("src/a.rs", &long_function("// tidy: long\n", 90));
        assert!(found[0].1.contains("gives no reason"), "{found:?}");
        let found = problems("src/a.rs", &long_function(reason, 3));
        assert!(found[0].1.contains("stands above no long function"), "{found:?}");
        let apart = "// tidy: long — another function's reason\nfn other() {}\n";
        assert_eq!(problems("src/a.rs", &long_function(apart, 90)).len(), 2);
    }

    #[test]
    fn a_file_of_eight_hundred_lines_passes_and_one_more_fails() {
        let text = |lines: usize| format!("//! Doc.\n{}", "const A: u8 = 1;\n".repeat(lines - 1));
        assert_eq!(problems("crates/a/src/lib.rs", &text(800)), []);
        let found = problems("crates/a/src/lib.rs", &text(801));
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("801 lines"), "{found:?}");
    }

    #[test]
    fn a_source_says_what_it_is_for() {
        assert_eq!(problems("crates/a/src/lib.rs", "use std::fs;\n").len(), 1);
        assert_eq!(problems("crates/a/src/lib.rs", "//! Doc.\n"), []);
        assert_eq!(problems("crates/a/examples/one.rs", "use std::fs;\n"), []);
    }

    #[test]
    fn a_module_has_a_name_that_says_something() {
        let found = problems("src/a.rs", "//! Doc.\nmod utils;\npub mod core {}\nmod score;\n");
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3], "{found:?}");
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments_but_not_in_strings() {
        let cases = [
            ("//! D.\nfn f() { todo!() }", 1),
            ("//! D.\nfn f() { unimplemented ! () }", 1),
            ("//! D.\nfn f() { dbg!(1); }", 1),
            ("//! D.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}", 1),
            ("//! D.\n#[test]\n#[ignore = \"started by f\"]\nfn helper_f() {}", 0),
            (concat!("//! D.\n// FIX", "ME later"), 1),
            (concat!("//! D.\nconst A: &str = \"FIX", "ME todo!()\";"), 0),
            ("//! D.\n// todo!() is refused\nfn f(todo: u8) -> bool { todo != 1 }", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(problems("src/a.rs", text).len(), expected, "{text}");
        }
    }

    #[test]
    fn a_database_is_found_in_any_case_and_in_comments() {
        let words = ["oracle".to_owned()];
        let found = check_databases("src/a.rs", "one\n// like OracleStore\nthree", &words);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
        assert_eq!(check_databases("src/a.rs", "the store", &words), []);
    }
}
