//! Runs the simulator from the command line: many seeds, or one with its log.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its output"
)]
#![expect(clippy::disallowed_methods, reason = "how fast it runs is a matter of the machine's own clock")]

use std::process::ExitCode;
use std::time::Instant;

use longhaul_sim::{Outcome, run, run_many};

/// Lines of a failed run's log that are shown without `--log`.
const LINES: usize = 60;
const USAGE: &str = "usage: cargo xtask sim --seeds N [--from S]\n       cargo xtask sim --seed S [--log]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| -> Option<u64> {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse().ok()
    };
    let log = words.iter().any(|word| word == "--log");
    match (number("--seed"), number("--seeds")) {
        (Some(seed), None) => one(seed, log),
        (None, Some(seeds)) => many(number("--from").unwrap_or(1), seeds),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, log: bool) -> ExitCode {
    let outcome = run(seed, None);
    if outcome.broken.is_some() {
        report(&outcome, log);
        return ExitCode::FAILURE;
    }
    if log {
        outcome.log.iter().for_each(|line| println!("{line}"));
    }
    println!("seed {seed}: nothing broke, {} lines of log", outcome.log.len());
    ExitCode::SUCCESS
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = run_many(from, seeds, threads, None, |runs| {
        if runs % 1_000 == 0 {
            println!("{runs} runs after {:.0} s", started.elapsed().as_secs_f64());
        }
    });
    for (what, times) in &summary.coverage {
        println!("{times:>10} {what}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let per_minute = summary.runs as f64 * 60.0 / seconds;
    println!("{} runs in {seconds:.1} s, {per_minute:.0} a minute on {threads} threads", summary.runs);
    match &summary.failed {
        None => ExitCode::SUCCESS,
        Some(outcome) => {
            report(outcome, false);
            ExitCode::FAILURE
        }
    }
}

fn report(outcome: &Outcome, whole: bool) {
    let first = if whole { 0 } else { outcome.log.len().saturating_sub(LINES) };
    outcome.log[first..].iter().for_each(|line| println!("{line}"));
    if let Some(broken) = &outcome.broken {
        println!("\nCOUNTEREXAMPLE: {broken}");
    }
    println!("replay: cargo xtask sim --seed {} --log", outcome.seed);
}
