//! Longhaul as it is embedded for the benchmarks: the real engine, store, client and toolbox. What is
//! run on it and measured is left to the benchmarks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use longhaul_engine::{Driven, Engine, Models, NewSession, SystemHost, Worker};
use longhaul_model::http::Connections;
use longhaul_model::openai_chat::Options;
use longhaul_model::{Model, openai_chat};
use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::First;
use longhaul_session::entry::Mode;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::{SessionId, WorkerId};
use longhaul_session::prompts::Prompts;
use longhaul_store::{SqliteStore, Store, WorkerInfo};
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::wire;

/// The place of all sessions here.
pub(crate) const PLACE: &str = "bench";

/// An engine with one worker, over a database of its own.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Engine,
    pub(crate) worker: Worker,
    folder: PathBuf,
}

/// Models of one endpoint, one for each session, as the program makes them.
struct EndpointModels {
    url: String,
    connections: Connections,
}

impl Models for EndpointModels {
    fn model(&self, choice: &ModelChoice, _limits: &Limits) -> Result<Arc<dyn Model>, Failure> {
        let failed = |error: longhaul_model::Error| Failure {
            class: FailureClass::Preparation,
            message: error.message,
        };
        let connections = self.connections.clone();
        let options = Options { connections, ..Options::new(&self.url, &choice.name) };
        Ok(Arc::new(openai_chat(options).map_err(failed)?))
    }
}

/// Makes the models of an endpoint.
pub(crate) fn models(url: &str) -> Arc<dyn Models> {
    Arc::new(EndpointModels { url: url.to_owned(), connections: Connections::default() })
}

/// Makes a toolbox with the tool of all benchmarks. `seen` is told of each call before it is run.
pub(crate) fn toolbox(seen: impl Fn() + Send + Sync + 'static) -> Toolbox {
    let note = function(wire::tool(), move |arguments, _| {
        seen();
        let text = wire::result(arguments["n"].as_u64().unwrap_or_default());
        async move { ToolOutput::ok(text) }
    });
    Toolbox::empty().with(note)
}

/// Makes a runtime like the program's own, which drives one session.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    runtime_of(1)
}

/// Makes a runtime for many sessions.
pub(crate) fn runtime_for_many() -> anyhow::Result<tokio::runtime::Runtime> {
    runtime_of(2)
}

fn runtime_of(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().context("cannot start the threads")
}

/// Makes the configuration of a session that may go on for long.
pub(crate) fn configuration(folder: &Path, provider: &str, model: &str) -> Configuration {
    let limits = Limits {
        max_steps: u32::MAX,
        max_crashes: u32::MAX,
        compact_above_tokens: u64::MAX,
        ..Limits::default()
    };
    Configuration {
        agent: "bench".to_owned(),
        model: ModelChoice::new(provider, model),
        directory: folder.display().to_string(),
        instructions: None,
        scope: Vec::new(),
        tools: Vec::new(),
        prompts: Prompts::default(),
        limits,
        summariser: None,
        goal: longhaul_session::goal::Terms::default(),
        without_goals: false,
    }
}

impl Rig {
    /// Opens a database in a folder, or makes one.
    pub(crate) async fn open(folder: &Path, models: Arc<dyn Models>, tools: Toolbox) -> anyhow::Result<Self> {
        let store = Arc::new(SqliteStore::open(folder.join("sessions.db"))?);
        Rig::over(store, folder, models, tools, CancellationToken::new()).await
    }

    /// Makes an engine over a database that is open, with a worker that can be told to stop.
    pub(crate) async fn over(
        store: Arc<dyn Store>,
        folder: &Path,
        models: Arc<dyn Models>,
        tools: Toolbox,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let engine = Engine::new(store.clone(), Arc::new(SystemHost::new()), models, tools);
        let info = WorkerInfo {
            worker: WorkerId(uuid::Uuid::new_v4()),
            place: PLACE.to_owned(),
            host: "localhost".to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: None,
            started: engine.host().now(),
            capacity: 0,
            running: 0,
            alive: true,
        };
        let worker = Worker::start(engine.clone(), info, shutdown).await?;
        Ok(Rig { store, engine, worker, folder: folder.to_owned() })
    }

    /// Makes a session that has a message to answer.
    pub(crate) async fn begin(&self, model: &str) -> anyhow::Result<SessionId> {
        let new = NewSession {
            configuration: configuration(&self.folder, "endpoint", model),
            place: PLACE.to_owned(),
            ephemeral: false,
            mode: Mode::Default,
            name: None,
            labels: BTreeMap::new(),
            first: First::Message("Keep them all.".into()),
        };
        Ok(self.engine.create(new, None).await??.session)
    }

    /// Drives a session to its end, which must be a good one.
    pub(crate) async fn drive(&self, session: SessionId) -> anyhow::Result<()> {
        let driven = self.worker.drive(session).await?;
        if driven != Driven::Waiting {
            anyhow::bail!("session {session} ended as {driven:?}");
        }
        Ok(())
    }

    /// Closes the database.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        drop(self.worker);
        Ok(self.store.close().await?)
    }
}
