//! What a run is made of: how many of what, and how often each fault strikes. All from the seed.

use crate::chance::Chance;
use crate::limits::{MAX_STEPS, MAX_STEPS_OF_SCENARIO};
use crate::scenario::{Play, Scenario};

/// A rule of the store that is left out on purpose, to see that the simulator notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The store does not compare epochs.
    NoFence,
    /// The store does not compare heads: who writes last wins.
    NoCompareAndSwap,
}

/// How often each fault strikes, in thousandths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    /// A worker dies before an append.
    pub(crate) crash_before: u64,
    /// A worker dies after an append that was done.
    pub(crate) crash_after: u64,
    /// A write fails and nothing is written.
    pub(crate) failed: u64,
    /// A write is reported as failed and was done.
    pub(crate) unknown: u64,
    /// A write is reported as failed and is done later.
    pub(crate) late: u64,
    /// A call finds the store busy.
    pub(crate) busy: u64,
    /// A hint is lost.
    pub(crate) hint_lost: u64,
    /// A hint comes later, after others.
    pub(crate) hint_late: u64,
    /// A hint comes twice.
    pub(crate) hint_twice: u64,
    /// A model call goes wrong in some way.
    pub(crate) model: u64,
    /// A tool call goes wrong in some way.
    pub(crate) tool: u64,
    /// A tool call kills its worker.
    pub(crate) killer: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Owners live as long as their lease; otherwise as long as their process.
    pub(crate) lease: bool,
    pub(crate) workers: u64,
    pub(crate) capacity: usize,
    pub(crate) users: u64,
    pub(crate) actions: u64,
    pub(crate) watchers: u64,
    /// How long faults strike, in milliseconds.
    pub(crate) trouble_ms: u64,
    /// The longest a store call takes in ordinary times, in milliseconds.
    pub(crate) latency_ms: u64,
    /// How often, of a hundred lives, a worker's ends in a crash, a drain, or stalls.
    pub(crate) crash_lives: u64,
    pub(crate) drain_lives: u64,
    pub(crate) stall_lives: u64,
    /// How far a worker's clock may be off, in milliseconds.
    pub(crate) skew_ms: u64,
    pub(crate) compact_above_tokens: u64,
    /// Another model makes the summaries.
    pub(crate) summariser: bool,
    pub(crate) max_steps: u32,
    pub(crate) rates: Rates,
    /// What is played, where people do not do as they like.
    pub(crate) play: Option<Play>,
    /// Calls of the store, models and tools that the run may take.
    pub(crate) steps: u64,
}

impl Plan {
    /// Draws a plan. Each fault is absent from some runs, so that none hides another.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let mut rate = |often: u64| if chance.happens(400) { 0 } else { 1 + chance.below(often) };
        let rates = Rates {
            crash_before: rate(25),
            crash_after: rate(25),
            failed: rate(30),
            unknown: rate(30),
            late: rate(30),
            busy: rate(60),
            hint_lost: [0, 1_000, 500][usize::try_from(rate(200) % 3).expect("small")],
            hint_late: rate(400),
            hint_twice: rate(300),
            model: rate(500),
            tool: rate(500),
            killer: rate(150),
        };
        Plan {
            lease: chance.happens(500),
            workers: 2 + chance.below(3),
            capacity: usize::try_from(1 + chance.below(3)).expect("small"),
            users: 1 + chance.below(3),
            actions: 4 + chance.below(20),
            watchers: chance.below(3),
            trouble_ms: 10_000 + chance.below(30_000),
            latency_ms: *chance.pick(&[0, 1, 5, 40, 400]),
            crash_lives: chance.below(60),
            drain_lives: chance.below(30),
            stall_lives: chance.below(40),
            skew_ms: *chance.pick(&[0, 0, 50, 800]),
            compact_above_tokens: *chance.pick(&[900, 1_500, 3_000, 100_000]),
            summariser: chance.happens(300),
            max_steps: *chance.pick(&[3, 8, 30]),
            rates,
            play: None,
            steps: MAX_STEPS,
        }
    }

    /// Draws a plan for a scenario: nobody but its actors acts, and its models and tools do only as they do.
    pub(crate) fn draw_for(scenario: &'static Scenario, chance: &mut Chance) -> Self {
        let plan = Plan::draw(chance);
        Plan {
            users: 0,
            watchers: plan.watchers.min(1),
            rates: Rates { model: 0, tool: 0, killer: 0, ..plan.rates },
            play: Some(Play { scenario, variant: chance.next() }),
            steps: MAX_STEPS_OF_SCENARIO,
            ..plan
        }
    }
}
