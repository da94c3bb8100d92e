//! Many runs, and what they covered together.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::Flaw;
use crate::run::{Outcome, play, run};
use crate::scenario::Scenario;
use crate::world::Coverage;

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs that ended.
    pub runs: u64,
    /// The run of the lowest seed in which something broke.
    pub failed: Option<Outcome>,
    /// How often each thing happened in all of them.
    pub coverage: Coverage,
}

/// Runs the seeds from `from` on, until one breaks, on so many threads. `tell` is called after each run
/// with the number of those that ended.
///
/// # Panics
/// When the simulator itself panics.
pub fn run_many(
    from: u64,
    seeds: u64,
    threads: usize,
    flaw: Option<Flaw>,
    tell: impl Fn(u64) + Sync,
) -> Summary {
    many(from, seeds, threads, |seed| run(seed, flaw), tell)
}

/// Plays a scenario with the seeds from `from` on, until one breaks, on so many threads.
///
/// # Panics
/// When the simulator itself panics.
pub fn play_many(scenario: &'static Scenario, from: u64, seeds: u64, threads: usize) -> Summary {
    many(from, seeds, threads, |seed| play(scenario, seed), |_| {})
}

fn many(
    from: u64,
    seeds: u64,
    threads: usize,
    run: impl Fn(u64) -> Outcome + Sync,
    tell: impl Fn(u64) + Sync,
) -> Summary {
    let (next, summary) = (AtomicU64::new(0), Mutex::new(Summary::default()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let failed = summary.lock().expect("no thread panics with it").failed.is_some();
            if at >= seeds || failed {
                return;
            }
            let outcome = run(from.wrapping_add(at));
            let mut summary = summary.lock().expect("no thread panics with it");
            summary.runs += 1;
            for (what, times) in &outcome.coverage {
                *summary.coverage.entry(what).or_default() += times;
            }
            tell(summary.runs);
            let lower = summary.failed.as_ref().is_none_or(|before| outcome.seed < before.seed);
            if outcome.broken.is_some() && lower {
                summary.failed = Some(outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    summary.into_inner().expect("no thread panicked with it")
}

/// Kinds of entries that no run can have, each for a reason.
const NEVER: [&str; 3] = [
    // The engine looks at no context files and asks no hooks yet.
    "context",
    "hook",
    // A sound row is never put right.
    "reconciled",
];

/// What every budget of runs must have covered: all that can happen. A simulator that no longer reaches
/// something tests nothing there.
pub fn expected() -> impl Iterator<Item = &'static str> {
    let kinds = longhaul_session::entry::KINDS.into_iter().filter(|kind| !NEVER.contains(kind));
    kinds.chain(HAPPENINGS)
}

/// Faults, acts of people and other things that must happen.
const HAPPENINGS: [&str; 116] = [
    "answer ended at its provider",
    "answer lost by its provider",
    "answer picked up",
    "answer picked up by another",
    "append conflicted",
    "append fenced",
    "append repeated",
    "call with a used id",
    "call without an id",
    "conversation gone on from",
    "conversation lost by its provider",
    "crash after an append",
    "crash before an append",
    "empty answer",
    "file kept",
    "hint delayed",
    "hint doubled",
    "hint lost",
    "invalid arguments",
    "model auth",
    "model chain broken",
    "model content filter",
    "model context overflow",
    "model hangs",
    "model invalid request",
    "model network",
    "model overloaded",
    "model quota",
    "model rate limited",
    "model sees a file",
    "model server error",
    "model timeout",
    "model unknown failure",
    "old epoch at the newest head",
    "outcome unknown, written",
    "outcome unknown, written later",
    "preparing failed",
    "reconciled by its tool",
    "request repeated",
    "result denied",
    "result error",
    "result foreign",
    "result not run",
    "result ok",
    "result rejected",
    "result stopped",
    "result timed out",
    "result unknown",
    "retry-after",
    "run came to rest",
    "run under leases",
    "run under locks",
    "store busy",
    "stream cut",
    "stream fails",
    "stream of nonsense",
    "stream stalls",
    "summary calls tools",
    "summary empty",
    "summary too large",
    "sync failed",
    "tool begins",
    "tool begins again",
    "tool fails",
    "tool hangs",
    "tool ignores cancellation",
    "tool is late",
    "tool is slow",
    "tool kills its worker",
    "tool panics",
    "tool says too much",
    "unknown tool",
    "usage not reported at the end",
    "usage reported twice",
    "user answers",
    "user archives",
    "user asks for a compaction",
    "user clears",
    "user clears the goal",
    "user configures",
    "user creates",
    "user edits",
    "user edits the goal",
    "user forks",
    "user gave up waiting",
    "user got an error",
    "user gives a file",
    "user grants",
    "user imports",
    "user interrupts",
    "user interrupts and drops the queue",
    "user moves the session",
    "user pauses the goal",
    "user promotes",
    "user redacts",
    "user renames",
    "user resumes the goal",
    "user sends",
    "user sends and interrupts",
    "user sets a goal",
    "user sets the mode",
    "user submits results",
    "user unarchives",
    "user unqueues",
    "user was answered",
    "user was refused",
    "watcher connects",
    "watcher saw everything",
    "watcher sees a live part",
    "watcher sees a reset",
    "watcher sees an entry",
    "worker crashes",
    "worker crashes as it drains",
    "worker drains",
    "worker lost while it called a model",
    "worker stalls",
];
