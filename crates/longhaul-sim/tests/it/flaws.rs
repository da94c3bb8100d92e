//! A store that leaves out a rule is noticed, and soon.

use longhaul_sim::{Broken, Flaw, run_many};

/// Seeds within which a flaw must be found.
const SEEDS: u64 = 1_600;

fn noticed(flaw: Flaw) -> Broken {
    let summary = run_many(1, SEEDS, 1, Some(flaw), |_| {});
    summary.failed.and_then(|outcome| outcome.broken).expect("the flaw is noticed")
}

#[test]
fn the_simulator_notices_a_store_that_does_not_fence() {
    assert_eq!(noticed(Flaw::NoFence).invariant, "Fence");
}

#[test]
fn the_simulator_notices_a_store_that_does_not_compare_heads() {
    assert_eq!(noticed(Flaw::NoCompareAndSwap).invariant, "Chain");
}
