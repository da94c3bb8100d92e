//! A fixed budget of runs in which nothing breaks, and in which everything that can happen does.

use longhaul_sim::{Outcome, expected, run_many};

/// Runs of the budget: a minute or less.
const SEEDS: u64 = 1_600;
/// Lines of a failed run's log that are shown.
const LINES: usize = 60;

/// Fails with what led to it and how to see it again.
#[track_caller]
pub(crate) fn broke(outcome: &Outcome) -> ! {
    let from = outcome.log.len().saturating_sub(LINES);
    println!("{}", outcome.log[from..].join("\n"));
    let broken = outcome.broken.as_ref().expect("it failed");
    println!("COUNTEREXAMPLE: {broken}, seed {}", outcome.seed);
    panic!("{broken}\nreplay: {}", outcome.replay());
}

#[test]
fn nothing_breaks_within_the_budget_and_everything_happens() {
    let summary = run_many(1, SEEDS, 1, None, |_| {});
    if let Some(outcome) = &summary.failed {
        broke(outcome);
    }
    let missing: Vec<&str> = expected().filter(|what| !summary.coverage.contains_key(what)).collect();
    assert!(missing.is_empty(), "in {} runs these never happened: {missing:?}", summary.runs);
}
