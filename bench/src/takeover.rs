//! How long a session is without a worker when the one that drives it is killed, or gives it back: until the
//! request of another, which was there and waited for work.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context as _;
use longhaul_store::{SqliteStore, Store as _};
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
        let times = takeovers(folder.path(), end, rounds)?;
        Spread::of(times).report(what, "ms", Aim::AtMost(aim));
    }
    Ok(())
}

fn takeovers(folder: &Path, end: End, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let (url, arrivals) = listen()?;
    let runtime = rig::runtime()?;
    let rig = runtime.block_on(Rig::open(folder, rig::models(&url), rig::toolbox(|| {})))?;
    let mut workers = vec![serve(folder, &url)?, serve(folder, &url)?];
    runtime.block_on(rig.begin(wire::SILENT))?;
    arrival(&arrivals)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        runtime.block_on(rig.engine.host().sleep_ms(SETTLED_MS));
        let owner = runtime.block_on(owner(&rig.store))?;
        let at = workers.iter().position(|worker| worker.0.id() == owner);
        let mut worker = workers.remove(at.context("the session's worker is none of ours")?);
        let start = Moment::now();
        match end {
            End::Killed => worker.0.kill()?,
            End::Told => drop(worker.0.stdin.take()),
        }
        times.push(arrival(&arrivals)?.since(start).wall_us / 1e3);
        worker.0.wait()?;
        workers.push(serve(folder, &url)?);
    }
    Ok(times)
}

fn serve(folder: &Path, url: &str) -> anyhow::Result<Process> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    Ok(Process(command.arg(ARGUMENT).arg(folder).arg(url).stdin(Stdio::piped()).spawn()?))
}

fn arrival(arrivals: &Receiver<Moment>) -> anyhow::Result<Moment> {
    arrivals.recv_timeout(PATIENCE).context("no worker sent a request")
}

/// Returns the process that drives the session.
async fn owner(store: &SqliteStore) -> anyhow::Result<u32> {
    let workers = store.workers().await?;
    let owner = workers.iter().find(|worker| worker.alive && worker.running == 1);
    Ok(owner.context("nobody drives the session")?.pid)
}

/// Takes on what there is until the input ends.
pub(crate) fn take_on(folder: &Path, url: &str) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.cancel();
    });
    rig::runtime()?.block_on(async {
        let rig = Rig::open_until(folder, rig::models(url), rig::toolbox(|| {}), shutdown).await?;
        rig.worker.run(1).await?;
        rig.close().await
    })
}
