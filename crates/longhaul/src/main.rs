//! The `longhaul` program: command line, terminal output, configuration, wiring.

mod app;
mod cli;
mod demo;
mod drive;
mod environment;
mod inspect;
mod line;
mod models;
mod render;
mod start;
mod summary;

use std::process::ExitCode;

use clap::Parser as _;

use crate::app::App;
use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    environment::set_up_tracing();
    environment::set_up_colours(cli.options.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(&anyhow::Error::new(error).context("the program cannot start its threads"));
        }
    };
    let result = runtime.block_on(dispatch(cli));
    // Abandoned work must not keep a finished program alive.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let options = cli.options;
    match cli.command {
        Command::Demo(args) => demo::run(&options, args).await,
        Command::Run(args) => start::run(&App::open(options)?, args).await,
        Command::Resume(args) => start::resume(&App::open(options)?, args).await,
        Command::Send(args) => start::send(&App::open(options)?, args).await,
        Command::Interrupt(args) => start::interrupt(&App::open(options)?, args).await,
        Command::Ls(args) => inspect::ls(&App::open(options)?, args).await,
        Command::Show(args) => inspect::show(&App::open(options)?, args).await,
        Command::Log(args) => inspect::log(&App::open(options)?, args).await,
        Command::Verify(args) => inspect::verify(&App::open(options)?, args).await,
    }
}

/// Says on standard error what happened, with its causes, and returns the exit code of an error.
fn failed(error: &anyhow::Error) -> ExitCode {
    use std::io::Write as _;
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let mut stderr = anstream::stderr();
    // Where standard error is closed there is nobody left to tell.
    writeln!(stderr, "{red}error:{red:#} {error:#}").ok();
    ExitCode::from(1)
}

/// A reader that closed our output has seen enough: no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
