//! One seed is one run.

use longhaul_sim::run;

#[test]
fn a_seed_gives_the_same_run_byte_for_byte() {
    for seed in 1..=12 {
        let (first, second) = (run(seed, None), run(seed, None));
        for (at, (one, other)) in first.log.iter().zip(&second.log).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {at}");
        }
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn two_seeds_give_different_runs() {
    assert_ne!(run(1, None).log[1..], run(2, None).log[1..]);
}
