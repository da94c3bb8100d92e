//! Runs the simulator from the command line: many seeds, or one with its log, of random worlds or scenarios.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its output"
)]
#![expect(clippy::disallowed_methods, reason = "how fast it runs is a matter of the machine's own clock")]

use std::process::ExitCode;
use std::time::Instant;

use longhaul_sim::{Outcome, SCENARIOS, Scenario, Summary, play, play_many, run, run_many};

/// Lines of a failed run's log that are shown without `--log`.
const LINES: usize = 60;
const USAGE: &str = "usage: cargo xtask sim [--scenario NAME|all] --seeds N [--from S]\n       \
                     cargo xtask sim [--scenario NAME] --seed S [--log]\n\nscenarios:";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)
    };
    let number = |name: &str| value(name)?.parse::<u64>().ok();
    let log = words.iter().any(|word| word == "--log");
    let scenarios: Option<Vec<&'static Scenario>> = match value("--scenario").map(String::as_str) {
        None => Some(Vec::new()),
        Some("all") => Some(SCENARIOS.iter().collect()),
        Some(name) => Scenario::find(name).map(|scenario| vec![scenario]),
    };
    let from = number("--from").unwrap_or(1);
    match (scenarios.as_deref(), number("--seed"), number("--seeds")) {
        (Some([]), Some(seed), None) => one(&run(seed, None), log),
        (Some([scenario]), Some(seed), None) => one(&play(scenario, seed), log),
        (Some([]), None, Some(seeds)) => many(from, seeds),
        (Some(scenarios), None, Some(seeds)) => play_all(scenarios, from, seeds),
        (known, _, _) => {
            if let (None, Some(name)) = (known, value("--scenario")) {
                eprintln!("there is no scenario `{name}`");
            }
            eprintln!("{USAGE}");
            SCENARIOS.iter().for_each(|scenario| eprintln!("  {:<13} {}", scenario.name, scenario.about));
            ExitCode::from(2)
        }
    }
}

fn one(outcome: &Outcome, log: bool) -> ExitCode {
    if outcome.broken.is_some() {
        report(outcome, log);
        return ExitCode::FAILURE;
    }
    if log {
        outcome.log.iter().for_each(|line| println!("{line}"));
    }
    println!("seed {}: nothing broke, {} lines of log", outcome.seed, outcome.log.len());
    ExitCode::SUCCESS
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let (started, threads) = (Instant::now(), threads());
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
    judge(&summary)
}

fn play_all(scenarios: &[&'static Scenario], from: u64, seeds: u64) -> ExitCode {
    for scenario in scenarios {
        let started = Instant::now();
        let summary = play_many(scenario, from, seeds, threads());
        let crashes = summary.coverage.iter().filter(|(what, _)| what.contains("crash"));
        let crashes: u64 = crashes.map(|(_, times)| times).sum();
        let seconds = started.elapsed().as_secs_f64();
        println!("{:<13} {} runs in {seconds:.1} s, {crashes} crashes", scenario.name, summary.runs);
        if summary.failed.is_some() {
            return judge(&summary);
        }
    }
    ExitCode::SUCCESS
}

fn judge(summary: &Summary) -> ExitCode {
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
    println!("replay: {}", outcome.replay());
}
