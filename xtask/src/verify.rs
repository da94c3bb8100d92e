//! Everything a change must pass, in order, up to the first failure. What is checked stands in
//! the commands it calls and in `tidy`, `mutants` and `search`.

use std::path::Path;
use std::time::Duration;

use longhaul_test_postgres::{LEFT_OUT_VARIABLE, STORE_VARIABLE};

use crate::postgres::Shared;
use crate::process::{Program, seconds, timed};
use crate::{mutants, sdks, search, table, tidy};

/// One check: its name, the command that repeats it, and how it runs.
struct Step<'a> {
    name: &'static str,
    repeat: String,
    work: Box<dyn Fn() -> Result<(), String> + 'a>,
}

impl<'a> Step<'a> {
    fn program(root: &'a Path, name: &'static str, program: Program) -> Self {
        Step { name, repeat: program.to_string(), work: Box::new(move || program.run(root)) }
    }

    fn command(name: &'static str, command: &str, work: impl Fn() -> Result<(), String> + 'a) -> Self {
        Step { name, repeat: format!("cargo xtask {command}"), work: Box::new(work) }
    }
}

/// Runs every check, the long ones too when `full`.
///
/// # Errors
/// At the first check that fails, with the command that repeats it, or when something the
/// checks need is not installed.
pub(crate) fn run(root: &Path, full: bool) -> Result<(), String> {
    prepare(root)?;
    let server = Shared::default();
    let (outcome, rows) = run_steps(&steps(root, full, &server));
    println!("\n{}", table::render(["step", "time", "result"], &rows));
    outcome
}

fn steps<'a>(root: &'a Path, full: bool, server: &'a Shared) -> Vec<Step<'a>> {
    let program = |name, line: &str| Step::program(root, name, Program::new(line));
    let mut steps = vec![
        program("format", "cargo fmt --all --check"),
        Step::command("tidy", "tidy", || tidy::run(root)),
        program("clippy", "cargo clippy --workspace --all-targets --locked -- -D warnings"),
        tests(root, server, full),
        tests_on_postgres(root, server, full),
        program("doc tests", "cargo test --doc --workspace --locked"),
        Step::program(
            root,
            "documentation",
            Program::new("cargo doc --no-deps --workspace --locked").variable("RUSTDOCFLAGS", "-Dwarnings"),
        ),
        Step::command("mutants apply", "mutants --check", || mutants::check(root, &[])),
    ];
    if full {
        steps.push(Step::command("mutants", "mutants", || mutants::run(root, &[])));
        steps.push(Step::command("large search", "search --large", || search::run(root, true)));
        steps.push(Step::command("vendors' libraries", "sdks", || sdks::run(root, &[])));
    }
    steps
}

/// All tests. Those that run on every store run on SQLite.
fn tests<'a>(root: &'a Path, server: &'a Shared, full: bool) -> Step<'a> {
    let program = tester(root, "--workspace", full);
    let repeat = format!("cargo xtask postgres -- {program}");
    Step { name: "tests", repeat, work: Box::new(move || server.beside(root, &program)) }
}

/// Those that run on every store, on Postgres. Says which of them do not, and why.
fn tests_on_postgres<'a>(root: &'a Path, server: &'a Shared, full: bool) -> Step<'a> {
    let program =
        tester(root, "-p longhaul-engine -p longhaul --test it", full).variable(STORE_VARIABLE, "postgres");
    let repeat = format!("cargo xtask postgres -- env {program}");
    let work = move || {
        let list = root.join("target/left-out-on-postgres.txt");
        // There may be none yet.
        let _ = std::fs::remove_file(&list);
        server.beside(root, &program.clone().variable(LEFT_OUT_VARIABLE, list.to_string_lossy()))?;
        let mut left_out: Vec<String> =
            std::fs::read_to_string(&list).unwrap_or_default().lines().map(str::to_owned).collect();
        left_out.sort();
        left_out.dedup();
        println!("{} tests are about SQLite alone and were left out on Postgres:", left_out.len());
        left_out.iter().for_each(|line| println!("  {line}"));
        Ok(())
    };
    Step { name: "tests on Postgres", repeat, work: Box::new(work) }
}

/// Returns the program that runs all tests of some packages, whichever fail.
///
/// Many of them kill processes and cut connections, some on machines far slower than their author's: a test
/// that fails is run once more, and named as flaky at the end if it passes then. That is a fault to mend, and
/// in a full run a failure.
fn tester(root: &Path, packages: &str, full: bool) -> Program {
    let has_nextest = Program::new("cargo nextest --version").works(root);
    let tester = match (has_nextest, full) {
        (true, true) => "nextest run",
        (true, false) => "nextest run --retries 1",
        (false, _) => "test",
    };
    // A check that rewrote the snapshots it compares with could not fail.
    Program::new(&format!("cargo {tester} {packages} --locked --no-fail-fast")).variable("INSTA_UPDATE", "no")
}

fn run_steps(steps: &[Step<'_>]) -> (Result<(), String>, Vec<[String; 3]>) {
    let mut rows = Vec::new();
    let mut total = Duration::ZERO;
    let mut outcome = Ok(());
    for (index, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {}", index + 1, steps.len(), step.name, step.repeat);
        let (result, duration) = timed(&step.work);
        total += duration;
        let word = if result.is_ok() { "passed" } else { "FAILED" };
        println!("== {} {word} in {}", step.name, seconds(duration));
        rows.push([step.name.to_owned(), seconds(duration), word.to_owned()]);
        if let Err(problem) = result {
            outcome = Err(format!("{} failed: {problem}\nRepeat it with: {}", step.name, step.repeat));
            break;
        }
    }
    rows.push(["total".to_owned(), seconds(total), String::new()]);
    (outcome, rows)
}

/// Sees that what the checks need is there, and adds what rustup can add.
fn prepare(root: &Path) -> Result<(), String> {
    component(root, "rustfmt", "cargo fmt --version", "rustfmt")?;
    component(root, "clippy", "cargo clippy --version", "rust-clippy")?;
    let compiler = c_compiler();
    if !Program::new(&compiler).variable("LC_ALL", "C").works(root) {
        return Err(format!(
            "there is no C compiler: `{compiler}` does not run. The embedded database is built \
             from C sources, so one is needed. On Debian: apt-get install gcc libc6-dev"
        ));
    }
    Ok(())
}

fn component(root: &Path, name: &str, probe: &str, package: &str) -> Result<(), String> {
    let probe = Program::new(probe);
    if probe.works(root) {
        return Ok(());
    }
    println!("{name} is missing; trying: rustup component add {name}");
    let added = Program::new(&format!("rustup component add {name}")).run(root);
    if added.is_ok() && probe.works(root) {
        return Ok(());
    }
    let cause = added.err().unwrap_or_else(|| format!("`{probe}` still does not run"));
    Err(format!(
        "{name} is missing and could not be added: {cause}. Install it with `rustup component add \
         {name}`, or, where Rust comes from Debian, with `apt-get install {package}`"
    ))
}

#[expect(clippy::disallowed_methods, reason = "the same variable that build scripts obey")]
fn c_compiler() -> String {
    let named = std::env::var("CC").ok().filter(|name| !name.trim().is_empty());
    format!("{} --version", named.unwrap_or_else(|| "cc".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::{Shared, Step, run_steps, steps};

    #[test]
    fn the_first_failure_stops_and_names_the_command_that_repeats_it() {
        let reached = Cell::new(false);
        let list = [
            Step::command("first", "one", || Ok(())),
            Step::command("second", "two", || Err("it broke".to_owned())),
            Step::command("third", "three", || {
                reached.set(true);
                Ok(())
            }),
        ];
        let (outcome, rows) = run_steps(&list);
        let problem = outcome.unwrap_err();
        assert!(problem.contains("it broke"), "{problem}");
        assert!(problem.ends_with("Repeat it with: cargo xtask two"), "{problem}");
        assert!(!reached.get());
        let results: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
        assert_eq!(results, ["passed", "FAILED", ""]);
    }

    #[test]
    fn the_long_checks_run_only_when_asked_for() {
        let server = Shared::default();
        let names = |full| -> Vec<&str> {
            steps(Path::new("."), full, &server).iter().map(|step| step.name).collect()
        };
        let short = names(false);
        assert_eq!(
            short,
            [
                "format",
                "tidy",
                "clippy",
                "tests",
                "tests on Postgres",
                "doc tests",
                "documentation",
                "mutants apply"
            ]
        );
        let full = names(true);
        assert_eq!(full[..short.len()], short[..]);
        assert_eq!(full[short.len()..], ["mutants", "large search", "vendors' libraries"]);
    }
}
