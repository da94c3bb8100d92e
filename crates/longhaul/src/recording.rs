//! `record` and `replay`: a command whose exchanges with the model's provider go to a file, or come from one.
//! The file and the comparison are in [`longhaul_model::recording`].

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use clap::Parser as _;
use longhaul_engine::{Host, SystemHost};
use longhaul_model::recording::{Head, Recorder, Recording, Tape, Unlike};
use longhaul_session::id::Timestamp;
use uuid::Uuid;

use crate::app::App;
use crate::cli::{self, Cli, Command, Options, When};
use crate::{environment, summary};

/// The machine, for a run that no provider answers: tries that failed are repeated without a pause.
pub(crate) struct Hurried(pub(crate) SystemHost);

#[async_trait]
impl Host for Hurried {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms()
    }

    async fn sleep_ms(&self, delay_ms: u64) {
        self.0.sleep_ms(delay_ms).await;
    }

    fn jitter(&self) -> f64 {
        0.0
    }

    fn fresh_id(&self) -> Uuid {
        self.0.fresh_id()
    }
}

/// Runs a command and records it.
pub(crate) async fn record(
    options: Options,
    args: cli::Record,
    app: &OnceLock<App>,
) -> anyhow::Result<ExitCode> {
    let mut inner = parse(&args.command, &options)?;
    let head = Head::new(args.command, directories(&inner)?);
    let recorder = Recorder::create(&args.file, head, &environment::secrets()).with_context(|| {
        format!("the recording {} cannot be made; name a file that does not exist yet", args.file.display())
    })?;
    inner.options.tape = Some(Tape::Record(recorder.clone()));
    let result = Box::pin(crate::dispatch(inner, app)).await;
    let count = recorder.finish().with_context(|| {
        format!("the recording {} is not whole: it cannot be written", args.file.display())
    })?;
    let requests = summary::count(count, "request");
    writeln!(anstream::stderr(), "{requests} recorded in {}", args.file.display())?;
    result
}

/// Runs a command against a recording.
pub(crate) async fn replay(
    options: Options,
    args: cli::Replay,
    app: &OnceLock<App>,
) -> anyhow::Result<ExitCode> {
    let recording = Recording::read(&args.file)?;
    let command = if args.command.is_empty() { &recording.head().command } else { &args.command };
    let mut inner = parse(command, &options)?;
    let replay = recording.replay(&directories(&inner)?);
    inner.options.tape = Some(Tape::Replay(replay.clone()));
    let result = Box::pin(crate::dispatch(inner, app)).await;
    match (result, replay.finish()) {
        // A run that failed by itself asks for less than was recorded because of that.
        (Err(error), Ok(_) | Err(Unlike::Fewer { .. })) => Err(error),
        (_, Err(unlike)) => Err(unlike.into()),
        (Ok(code), Ok(count)) => {
            let requests = summary::count(count, "request");
            writeln!(anstream::stderr(), "{requests} answered as recorded in {}", args.file.display())?;
            Ok(code)
        }
    }
}

/// Reads the command to run. What is said of the store, the place, JSON and colours outside holds for it as
/// well.
fn parse(command: &[String], outer: &Options) -> anyhow::Result<Cli> {
    let words = std::iter::once("longhaul").chain(command.iter().map(String::as_str));
    let mut inner = Cli::try_parse_from(words).unwrap_or_else(|error| error.exit());
    if matches!(inner.command, Command::Record(_) | Command::Replay(_)) {
        bail!("a recording is not made or used within another; leave the inner one out");
    }
    let options = &mut inner.options;
    if options.store.as_deref().is_some_and(|store| store.contains("://")) {
        bail!(
            "the command is kept in the recording, and the address of a database may hold a password: write \
             --store before `record` or `replay`, or set LONGHAUL_STORE"
        );
    }
    if options.home.is_none() && options.store.is_none() {
        (options.home, options.store) = (outer.home.clone(), outer.store.clone());
    }
    options.place = options.place.take().or_else(|| outer.place.clone());
    options.json |= outer.json;
    if options.color == When::Auto {
        options.color = outer.color;
    }
    Ok(inner)
}

/// Returns the directories that a command is run in, by the names they have in recordings.
fn directories(cli: &Cli) -> anyhow::Result<BTreeMap<String, String>> {
    let wanted = if let Command::Run(run) = &cli.command { run.dir.as_deref() } else { None };
    let here = std::env::current_dir().context("the current directory cannot be used")?;
    let work = here.join(wanted.unwrap_or(Path::new(".")));
    let home = environment::home_directory();
    let all = [("directory", Some(work)), ("start", Some(here)), ("home", home)];
    let text = |path: std::path::PathBuf| path.canonicalize().unwrap_or(path).to_string_lossy().into_owned();
    let mut directories: BTreeMap<String, String> = BTreeMap::new();
    for (name, path) in all {
        let Some(path) = path.map(text) else { continue };
        if !directories.values().any(|known| *known == path) {
            directories.insert(name.to_owned(), path);
        }
    }
    Ok(directories)
}
