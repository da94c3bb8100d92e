//! The repository's own checks, run as `cargo xtask <command>`. This file reads the command
//! line and hands over; what each check means stands in the module of its name.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its output"
)]

mod arguments;
mod mutants;
mod postgres;
mod process;
mod sdks;
mod search;
mod sim;
mod table;
mod tidy;
mod verify;
mod workspace;

use std::path::Path;
use std::process::ExitCode;

use arguments::{Command, USAGE};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = match Command::parse(&words) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("error: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = workspace::find_root().and_then(|root| run(&root, &command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, command: &Command) -> Result<(), String> {
    match command {
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Command::Verify { full } => verify::run(root, *full),
        Command::Tidy => tidy::run(root),
        Command::MutantsCheck { names } => mutants::check(root, names),
        Command::Mutants { names } => mutants::run(root, names),
        Command::Postgres { program } => postgres::run(root, program),
        Command::Sdks { cases } => sdks::run(root, cases),
        Command::Search { large } => search::run(root, *large),
        Command::Sim { arguments } => sim::run(root, arguments),
    }
}
