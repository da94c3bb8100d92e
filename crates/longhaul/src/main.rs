//! The `longhaul` program: command line, terminal output, configuration, wiring.

mod amount;
mod app;
mod attach;
mod cli;
mod compare;
mod demo;
mod doctor;
mod drive;
mod environment;
mod facts;
mod goal;
mod inspect;
mod keys;
mod line;
mod manage;
mod manifest;
mod models;
mod next;
mod providers;
mod recording;
mod render;
mod signals;
mod spend;
mod start;
mod store;
mod summary;
mod top;
mod transfer;
mod worker;

use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::cli::{Agent, Cli, Command};
use crate::drive::LeftInTheMiddle;

fn main() -> ExitCode {
    let cli = Cli::read();
    environment::set_up_tracing();
    environment::set_up_colours(cli.options.color);
    // One session gains nothing from a second thread, and waking it costs a tenth of a step; a worker has
    // many. What is shown is written by this thread, so that a terminal that does not read holds up no session.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if !matches!(cli.command, Command::Worker(_)) {
        builder.worker_threads(1);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(&anyhow::Error::new(error).context("the program cannot start its threads"));
        }
    };
    let result = runtime.block_on(async {
        let app = OnceLock::new();
        let result = dispatch(cli, &app).await;
        if let Some(app) = app.get() {
            app.close().await;
        }
        result
    });
    // Abandoned work must not keep a finished program alive.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => unread(&error),
        Err(error) => failed(&error),
    }
}

/// Does a command. The parts it works with stay in `app`, to be closed after it however it ends.
async fn dispatch(cli: Cli, app: &OnceLock<App>) -> anyhow::Result<ExitCode> {
    survive_full_files()?;
    let keep = |opened: anyhow::Result<App>| opened.map(|opened| app.get_or_init(|| opened));
    let open = async |options| keep(App::open(options).await);
    let options = cli.options;
    match cli.command {
        Command::Demo(args) => demo::run(&options, args).await,
        Command::Agent(Agent::Check { file }) => manifest::check::check(&options, file),
        Command::Agent(Agent::Schema) => manifest::check::schema(),
        Command::Run(args) => start::run(keep(App::for_run(options, &args).await)?, *args).await,
        Command::Resume(args) => start::resume(open(options).await?, args).await,
        Command::Goal(args) => goal::goal(open(options).await?, args).await,
        Command::Mode(args) => goal::mode(open(options).await?, args).await,
        Command::Compact(args) => manage::compact(open(options).await?, args).await,
        Command::Send(args) => start::send(open(options).await?, args).await,
        Command::Interrupt(args) => start::interrupt(open(options).await?, args).await,
        Command::Attach(args) => start::attach(open(options).await?, args).await,
        Command::Worker(args) => worker::work(open(options).await?, args).await,
        Command::Answer(args) => manage::answer(open(options).await?, args).await,
        Command::Queue(args) => manage::queue(open(options).await?, args).await,
        Command::Edit(args) => manage::edit(open(options).await?, args).await,
        Command::Fork(args) => manage::fork(open(options).await?, args).await,
        Command::Clear(args) => manage::clear(open(options).await?, args).await,
        Command::Rename(args) => manage::rename(open(options).await?, args).await,
        Command::Archive(args) => manage::archive(open(options).await?, args).await,
        Command::Delete(args) => manage::delete(open(options).await?, args).await,
        Command::Redact(args) => manage::redact(open(options).await?, args).await,
        Command::Export(args) => transfer::export(open(options).await?, args).await,
        Command::Import(args) => transfer::import(open(options).await?, args).await,
        Command::Diff(args) => compare::diff(open(options).await?, args).await,
        Command::Top(args) => top::top(open(options).await?, args).await,
        Command::Record(args) => recording::record(options, args, app).await,
        Command::Replay(args) => recording::replay(options, args, app).await,
        Command::Doctor(args) => doctor::doctor(options, args).await,
        Command::Completions(args) => {
            let (mut command, mut script) = (<Cli as clap::CommandFactory>::command(), Vec::new());
            clap_complete::generate(args.shell, &mut command, "longhaul", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ls(args) => inspect::ls(open(options).await?, args).await,
        Command::Show(args) => inspect::show(open(options).await?, args).await,
        Command::Log(args) => inspect::log(open(options).await?, args).await,
        Command::Verify(args) => inspect::verify(open(options).await?, args).await,
    }
}

/// Where the system limits the size of files, a write beyond it is to fail as one to a full disk does; left
/// alone, the system would kill the program for it.
fn survive_full_files() -> anyhow::Result<()> {
    let too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    signal(too_large).map(drop).context("the program cannot listen to the system")
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

/// Ends because nobody reads on: a success, but where a session's work is not done.
fn unread(error: &anyhow::Error) -> ExitCode {
    use std::io::Write as _;
    let Some(LeftInTheMiddle { id }) = error.downcast_ref() else { return ExitCode::SUCCESS };
    let what = format!("stopped, as nobody reads on: session {id} was left in the middle");
    writeln!(anstream::stderr(), "{what}; `longhaul resume {id}` goes on").ok();
    ExitCode::from(130)
}

/// A reader that closed our output has seen enough: no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
