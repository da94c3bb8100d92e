//! Runs the exhaustive search of the session machine. The search itself is a test of
//! `longhaul-session`; this only starts it with its output shown.

use std::path::Path;

use crate::process::Program;

/// The search, as a program; the large world takes minutes.
pub(crate) fn program(large: bool) -> Program {
    let program = Program::new("cargo test -p longhaul-session --test it --locked search -- --nocapture");
    if large { program.variable("LONGHAUL_SEARCH", "large") } else { program }
}

/// Runs the search.
///
/// # Errors
/// When it finds a counterexample, cannot be built, or when no test has `search` in its name:
/// a search that ran nothing proved nothing.
pub(crate) fn run(root: &Path, large: bool) -> Result<(), String> {
    let mut tests = 0;
    program(large).watch(root, |line| {
        println!("{line}");
        tests += tests_announced(line);
    })?;
    if tests == 0 {
        return Err("no test of longhaul-session has `search` in its name, so nothing was searched; \
                    name the exhaustive search's test so"
            .to_owned());
    }
    Ok(())
}

/// The number of tests a line of the test harness announces: `running 3 tests` announces three.
pub(crate) fn tests_announced(line: &str) -> usize {
    let announced = line.trim().strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
    announced.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{program, tests_announced};

    #[test]
    fn only_the_harness_announces_tests() {
        assert_eq!(tests_announced("running 3 tests"), 3);
        assert_eq!(tests_announced("running 1 test"), 1);
        assert_eq!(tests_announced("running 0 tests"), 0);
        assert_eq!(tests_announced("running the tests"), 0);
        assert_eq!(tests_announced("4 tests"), 0);
    }

    #[test]
    fn only_the_large_search_sets_the_variable() {
        assert!(program(true).to_string().starts_with("LONGHAUL_SEARCH=large cargo test"));
        assert!(program(false).to_string().starts_with("cargo test"));
    }
}
