//! Reads from a test run whether a test noticed the mutant. It runs nothing.

use std::fmt;

use crate::search::tests_announced;

/// What a test prints before the invariant it saw broken.
const COUNTEREXAMPLE: &str = "COUNTEREXAMPLE:";
/// The most of an invariant that fits a table, in characters.
const MAX_INVARIANT_CHARS: usize = 80;

/// How a test run ended.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) success: bool,
    /// It was stopped because its time was over.
    pub(super) timed_out: bool,
    /// The harness's own output, that of failed tests included.
    pub(super) output: String,
    /// The last line of its complaints.
    pub(super) complaint: String,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A test failed.
    Found {
        /// The first test that failed, and the invariant it named.
        by: String,
    },
    /// All tests passed.
    Survived,
    /// The tests did not end. A test that can hang is no judge: its loops must be bounded.
    TimedOut,
    /// Neither passed nor failed by a test.
    Unclear {
        /// What happened instead.
        cause: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Found { by } => out.write_str(by),
            Verdict::Survived => out.write_str("SURVIVED: all tests passed"),
            Verdict::TimedOut => out.write_str("TIMED OUT: the tests did not end"),
            Verdict::Unclear { cause } => write!(out, "UNCLEAR: {cause}"),
        }
    }
}

/// Joins the verdicts of several tests that must all notice: the first that did not is the one that counts.
pub(super) fn all(verdicts: Vec<Verdict>) -> Verdict {
    let mut names = Vec::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Found { by } => names.push(by),
            Verdict::Survived | Verdict::TimedOut | Verdict::Unclear { .. } => return verdict,
        }
    }
    Verdict::Found { by: names.join("; ") }
}

/// Judges a run of tests.
pub(super) fn judge(run: &Run) -> Verdict {
    if run.timed_out {
        return Verdict::TimedOut;
    }
    let tests: usize = run.output.lines().map(tests_announced).sum();
    if run.success && tests == 0 {
        return Verdict::Unclear { cause: "no test has such a name".to_owned() };
    }
    if run.success {
        return Verdict::Survived;
    }
    let failed = run
        .output
        .lines()
        .find_map(|line| line.trim().strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")));
    let Some(test) = failed else {
        let cause = format!("the run failed, but no test did: {}", run.complaint);
        return Verdict::Unclear { cause };
    };
    let invariant = run.output.lines().find_map(|line| line.trim().strip_prefix(COUNTEREXAMPLE));
    let by = match invariant {
        None => test.to_owned(),
        Some(text) => {
            let text: String = text.trim().chars().take(MAX_INVARIANT_CHARS).collect();
            format!("{test}: {text}")
        }
    };
    Verdict::Found { by }
}

#[cfg(test)]
mod tests {
    use super::{Run, Verdict, all, judge};

    fn run(success: bool, output: &str) -> Run {
        Run { success, timed_out: false, output: output.to_owned(), complaint: "signal 6".to_owned() }
    }

    #[test]
    fn all_must_notice() {
        let found = |by: &str| Verdict::Found { by: by.to_owned() };
        assert_eq!(all(vec![found("a"), found("b")]), found("a; b"));
        assert_eq!(all(vec![found("a"), Verdict::Survived]), Verdict::Survived);
    }

    #[test]
    fn a_failed_test_found_the_mutant() {
        let output = "running 2 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... FAILED\n";
        assert_eq!(judge(&run(false, output)), Verdict::Found { by: "c".to_owned() });
    }

    #[test]
    fn the_invariant_of_a_counterexample_is_named() {
        let output = "running 1 test\ntest search ... FAILED\n---- search stdout ----\n\
                      COUNTEREXAMPLE: Fence, after 12 commands\n";
        let by = "search: Fence, after 12 commands".to_owned();
        assert_eq!(judge(&run(false, output)), Verdict::Found { by });
    }

    #[test]
    fn passing_tests_let_the_mutant_survive_but_no_test_is_no_verdict() {
        assert_eq!(judge(&run(true, "running 1 test\ntest a ... ok\n")), Verdict::Survived);
        assert!(matches!(judge(&run(true, "running 0 tests\n")), Verdict::Unclear { .. }));
    }

    #[test]
    fn an_end_without_a_failed_test_is_no_verdict() {
        let verdict = judge(&run(false, "running 1 test\n"));
        let Verdict::Unclear { cause } = verdict else { panic!("{verdict:?}") };
        assert!(cause.contains("signal 6"), "{cause}");
        let hung = Run { timed_out: true, ..run(false, "running 1 test\n") };
        assert_eq!(judge(&hung), Verdict::TimedOut);
    }
}
