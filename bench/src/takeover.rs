//! How long a session is without a worker when the one that drives it is killed, or gives it back: until the
//! request of another, which was there and waited for work.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use longhaul_store::postgres::Options;
use longhaul_store::{PostgresStore, SqliteStore, Store};
use longhaul_test_postgres::{Database, Server, Settings};
use tokio_util::sync::CancellationToken;

use crate::measure::{Aim, Moment, Spread, say};
use crate::resume::listen;
use crate::rig::{self, Rig};
use crate::wire;

/// The argument that makes this program a worker that takes on what there is, until its input ends.
pub(crate) const ARGUMENT: &str = "serve-sessions";

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a worker is left alone before it is measured, so that it waits as one does that
/// has been idle, in milliseconds.
const SETTLED_MS: u64 = 300;

/// How a worker ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Told,
}

/// A worker, killed at the latest when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures and reports.
pub(crate) fn run(folder: &Path, rounds: usize) -> anyhow::Result<()> {
    say("takeover: from the end of a session's worker to the first request of another that waits for work");
    for (what, end, aim) in [("killed", End::Killed, 200.0), ("told to stop", End::Told, 100.0)] {
        let folder = tempfile::tempdir_in(folder)?;
        let file = folder.path().join("sessions.db").display().to_string();
        let times = takeovers(folder.path(), &file, end, rounds)?;
        Spread::of(times).report(&format!("SQLite, {what}"), "ms", Aim::AtMost(aim));
    }
    let settings = Settings { durable: true, ..Settings::default() };
    let server = Server::start(&settings).map_err(|problem| anyhow!(problem))?;
    // A lease has to end in each round.
    let kills = rounds.div_ceil(2);
    let ends = [("killed", End::Killed, 16_000.0, kills), ("told to stop", End::Told, 100.0, rounds)];
    for (what, end, aim, rounds) in ends {
        let database = Database::create_on_aside(&server.url()).map_err(|problem| anyhow!(problem))?;
        let folder = tempfile::tempdir_in(folder)?;
        let times = takeovers(folder.path(), &database.url(), end, rounds)?;
        Spread::of(times).report(&format!("Postgres, {what}"), "ms", Aim::AtMost(aim));
    }
    Ok(())
}

/// Opens the database that an address of Postgres or a path names.
async fn open(database: &str) -> anyhow::Result<Arc<dyn Store>> {
    Ok(if database.starts_with("postgres://") {
        Arc::new(PostgresStore::open(database, Options::default()).await?)
    } else {
        Arc::new(SqliteStore::open(database)?)
    })
}

async fn rig(folder: &Path, database: &str, url: &str, shutdown: CancellationToken) -> anyhow::Result<Rig> {
    Rig::over(open(database).await?, folder, rig::models(url), rig::toolbox(|| {}), shutdown).await
}

fn takeovers(folder: &Path, database: &str, end: End, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let (url, arrivals) = listen()?;
    let runtime = rig::runtime()?;
    let rig = runtime.block_on(rig(folder, database, &url, CancellationToken::new()))?;
    let mut workers = vec![serve(folder, database, &url)?, serve(folder, database, &url)?];
    runtime.block_on(rig.begin(wire::SILENT))?;
    arrival(&arrivals)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        runtime.block_on(rig.engine.host().sleep_ms(SETTLED_MS));
        let owner = runtime.block_on(owner(&*rig.store))?;
        let at = workers.iter().position(|worker| worker.0.id() == owner);
        let mut worker = workers.remove(at.context("the session's worker is none of ours")?);
        let start = Moment::now();
        match end {
            End::Killed => worker.0.kill()?,
            End::Told => drop(worker.0.stdin.take()),
        }
        times.push(arrival(&arrivals)?.since(start).wall_us / 1e3);
        worker.0.wait()?;
        workers.push(serve(folder, database, &url)?);
    }
    drop(workers);
    runtime.block_on(rig.close())?;
    Ok(times)
}

fn serve(folder: &Path, database: &str, url: &str) -> anyhow::Result<Process> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).arg(folder).args([database, url]).stdin(Stdio::piped());
    Ok(Process(command.spawn()?))
}

fn arrival(arrivals: &Receiver<Moment>) -> anyhow::Result<Moment> {
    arrivals.recv_timeout(PATIENCE).context("no worker sent a request")
}

/// Returns the process that drives the session.
async fn owner(store: &dyn Store) -> anyhow::Result<u32> {
    let workers = store.workers().await?;
    let owner = workers.iter().find(|worker| worker.alive && worker.running == 1);
    Ok(owner.context("nobody drives the session")?.pid)
}

/// Takes on what there is until the input ends.
pub(crate) fn take_on(folder: &Path, database: &str, url: &str) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.cancel();
    });
    rig::runtime()?.block_on(async {
        let rig = rig(folder, database, url, shutdown).await?;
        rig.worker.run(1).await?;
        rig.close().await
    })
}
