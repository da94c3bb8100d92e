//! The `longhaul` program: command line, terminal output, configuration, wiring.

mod app;
mod cli;
mod compare;
mod demo;
mod doctor;
mod drive;
mod environment;
mod inspect;
mod keys;
mod line;
mod manage;
mod manifest;
mod models;
mod render;
mod start;
mod store;
mod summary;
mod top;
mod transfer;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;

use crate::app::App;
use crate::cli::{Agent, Cli, Command};

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
        Command::Agent(Agent::Check { file }) => manifest::check::check(&options, file),
        Command::Agent(Agent::Schema) => manifest::check::schema(),
        Command::Run(args) => start::run(&App::for_run(options, args.ephemeral).await?, args).await,
        Command::Resume(args) => start::resume(&App::open(options).await?, args).await,
        Command::Send(args) => start::send(&App::open(options).await?, args).await,
        Command::Interrupt(args) => start::interrupt(&App::open(options).await?, args).await,
        Command::Attach(args) => start::attach(&App::open(options).await?, args).await,
        Command::Worker(args) => worker::work(&App::open(options).await?, args).await,
        Command::Answer(args) => manage::answer(&App::open(options).await?, args).await,
        Command::Queue(args) => manage::queue(&App::open(options).await?, args).await,
        Command::Edit(args) => manage::edit(&App::open(options).await?, args).await,
        Command::Fork(args) => manage::fork(&App::open(options).await?, args).await,
        Command::Clear(args) => manage::clear(&App::open(options).await?, args).await,
        Command::Rename(args) => manage::rename(&App::open(options).await?, args).await,
        Command::Archive(args) => manage::archive(&App::open(options).await?, args).await,
        Command::Delete(args) => manage::delete(&App::open(options).await?, args).await,
        Command::Redact(args) => manage::redact(&App::open(options).await?, args).await,
        Command::Export(args) => transfer::export(&App::open(options).await?, args).await,
        Command::Import(args) => transfer::import(&App::open(options).await?, args).await,
        Command::Diff(args) => compare::diff(&App::open(options).await?, args).await,
        Command::Top(args) => top::top(&App::open(options).await?, args).await,
        Command::Doctor => doctor::doctor(options).await,
        Command::Completions(args) => {
            let (mut command, mut script) = (<Cli as clap::CommandFactory>::command(), Vec::new());
            clap_complete::generate(args.shell, &mut command, "longhaul", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ls(args) => inspect::ls(&App::open(options).await?, args).await,
        Command::Show(args) => inspect::show(&App::open(options).await?, args).await,
        Command::Log(args) => inspect::log(&App::open(options).await?, args).await,
        Command::Verify(args) => inspect::verify(&App::open(options).await?, args).await,
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
