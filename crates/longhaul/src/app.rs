//! The program's parts put together: the store, the engine, this machine's place, and how sessions are named.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use longhaul_engine::{Engine, Host, Models as _, SystemHost, Worker};
use longhaul_model::recording::Tape;
use longhaul_session::agent::{Limits, ModelChoice};
use longhaul_session::id::{SessionId, WorkerId};
use longhaul_store::{Filter, Page, Row, WorkerInfo};
use longhaul_tools::toolbox::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::cli::{self, Options};
use crate::environment;
use crate::manifest;
use crate::models::AllModels;
use crate::recording::Hurried;
use crate::start;
use crate::store::{self, Opened};

/// The one place of sessions in a database that only this machine has.
const LOCAL: &str = "local";
/// Where a user keeps skills, below where configuration is kept.
const SKILLS: &str = "longhaul/skills";
/// How long the program waits for its store to close, in milliseconds.
const CLOSE_MS: u64 = 10_000;
/// The most sessions an ambiguous name lists.
const LISTED: usize = 5;

/// The program's parts.
pub(crate) struct App {
    pub(crate) options: Options,
    /// What the store is called where people read it.
    pub(crate) kept_in: String,
    place: String,
    pub(crate) engine: Engine,
    models: Arc<AllModels>,
    /// Sessions are kept in memory only.
    pub(crate) ephemeral: bool,
    /// Somebody wants the program to end at once.
    pub(crate) hurried: AtomicBool,
}

impl App {
    /// Opens the store that the options, the environment, the manifest of this directory or the user's home
    /// name.
    pub(crate) async fn open(options: Options) -> anyhow::Result<Self> {
        let manifest = manifest::find(Path::new("."));
        let opened = store::open(store::choose(&options, manifest.as_deref())?).await?;
        Ok(App::over(opened, options, false))
    }

    /// Opens the store for a new session, which may have another manifest, or be one that is not to be kept.
    pub(crate) async fn for_run(options: Options, args: &cli::Run) -> anyhow::Result<Self> {
        if args.ephemeral {
            return Ok(App::over(store::in_memory()?, options, true));
        }
        let manifest = start::manifest_for(args);
        let opened = store::open(store::choose(&options, manifest.as_deref())?).await?;
        Ok(App::over(opened, options, false))
    }

    fn over(opened: Opened, options: Options, ephemeral: bool) -> Self {
        let Opened { store, kept_in, shared } = opened;
        let models = Arc::new(AllModels::new(options.tape.clone()));
        let host: Arc<dyn Host> = match &options.tape {
            Some(Tape::Replay(_)) => Arc::new(Hurried(SystemHost::new())),
            Some(Tape::Record(_)) | None => Arc::new(SystemHost::new()),
        };
        let engine = Engine::new(store, host, models.clone(), Toolbox::builtin());
        let engine = match environment::configuration_home() {
            Some(home) => engine.with_skills(&home.join(SKILLS)),
            None => engine,
        };
        let named = options.place.clone();
        let place = named.unwrap_or_else(|| if shared { host_name() } else { LOCAL.to_owned() });
        App { options, kept_in, place, engine, models, ephemeral, hurried: AtomicBool::new(false) }
    }

    /// Closes the store, so that it leaves one file that is whole. Where it takes too long, or somebody wants
    /// the program to end at once, the next to open the store reads its write-ahead log.
    pub(crate) async fn close(&self) {
        if self.hurried.load(Ordering::Relaxed) {
            return;
        }
        tokio::select! {
            closed = self.engine.store().close() => {
                if let Err(error) = closed {
                    tracing::warn!(%error, "the store was not closed properly");
                }
            }
            () = self.engine.host().sleep_ms(CLOSE_MS) => {}
        }
    }

    /// Returns the place of sessions made here: where their directories are.
    pub(crate) fn place(&self) -> String {
        self.place.clone()
    }

    /// Tells whether a session's directory is not on this machine, so that it cannot be driven here.
    pub(crate) fn is_elsewhere(&self, row: &Row) -> bool {
        row.place != self.place
    }

    /// Makes this process a worker that takes on so many sessions by itself.
    pub(crate) async fn worker(&self, capacity: u32, shutdown: CancellationToken) -> anyhow::Result<Worker> {
        let host = self.engine.host();
        let info = WorkerInfo {
            worker: WorkerId(uuid::Uuid::new_v4()),
            place: self.place(),
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: None,
            started: host.now(),
            capacity,
            running: 0,
            alive: true,
        };
        Ok(Worker::start(self.engine.clone(), info, shutdown).await?)
    }

    /// Checks that a model can be had before anything is stored.
    pub(crate) fn check_model(&self, choice: &ModelChoice, limits: &Limits) -> anyhow::Result<()> {
        match self.models.model(choice, limits) {
            Ok(_) => Ok(()),
            Err(failure) => bail!("{}", failure.message),
        }
    }

    /// Tells whether a live worker runs the session of a row.
    pub(crate) async fn is_owned(&self, row: &Row) -> anyhow::Result<bool> {
        Ok(match row.owner {
            Some(owner) => self.engine.store().owner_is_alive(owner).await?,
            None => false,
        })
    }

    /// Finds the session that a person means.
    pub(crate) async fn find(&self, name: &str) -> anyhow::Result<SessionId> {
        let store = self.engine.store();
        let list = |filter, limit| store.list(filter, Page { after: None, limit });
        if name == "@last" {
            let newest = list(Filter::default(), 1).await?;
            let newest = newest.first().map(|row| row.session);
            return newest.with_context(|| {
                format!("there is no session in {} yet; start one with `longhaul run`", self.kept_in)
            });
        }
        let by_name = Filter { name: Some(name.to_owned()), ..Filter::default() };
        let mut found = list(by_name, LISTED + 1).await?;
        if found.is_empty() && is_prefix(name) {
            let by_id = Filter { id_prefix: Some(name.to_owned()), ..Filter::default() };
            found = list(by_id, LISTED + 1).await?;
        }
        match &found[..] {
            [] => bail!(
                "there is no session {name:?} in {}; `longhaul ls --all` lists what there is",
                self.kept_in
            ),
            [one] => Ok(one.session),
            several => {
                let ids: Vec<String> =
                    several.iter().take(LISTED).map(|row| row.session.to_string()).collect();
                let more = if several.len() > LISTED { ", …" } else { "" };
                bail!("{name:?} names several sessions: {}{more}; give more of the id", ids.join(", "))
            }
        }
    }
}

/// Refuses a name under which a session could not be found, or that would hide another's id.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    if name.starts_with('@') {
        bail!("a name does not begin with @: @last and its like are kept for the program; choose another");
    }
    if uuid::Uuid::try_parse(name).is_ok() {
        bail!("a name is not the id of a session: it would hide the one that has the id; choose another");
    }
    Ok(())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn is_prefix(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|digit| digit.is_ascii_hexdigit() || digit == '-')
}

/// Returns a path as text, or says that it cannot be one.
pub(crate) fn path_text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| {
        format!("the path {} is not valid UTF-8, which a session cannot keep", path.display())
    })
}
