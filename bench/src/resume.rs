//! How long a session that was killed takes to go on: from the start of a process to its first request.
//! Each round is a kill of the process before, in the middle of its model call.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context as _;
use longhaul_session::id::SessionId;
use longhaul_store::{SqliteStore, Store as _};
use uuid::Uuid;

use crate::history::History;
use crate::measure::{Aim, Moment, Spread, say};
use crate::rig::{self, Rig};
use crate::wire;

/// The argument that makes this program a worker that goes on with one session.
pub(crate) const ARGUMENT: &str = "resume-session";

const ENTRIES: u64 = 20_000;
/// Entries since the compaction, where there was one.
const RECENT: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures and reports.
pub(crate) fn run(folder: &Path, rounds: usize) -> anyhow::Result<()> {
    say(&format!("resume: killed at {ENTRIES} entries, from the start of the process to the first request"));
    let (url, arrivals) = listen()?;
    for (what, recent) in [("the newest 500 entries in the context", RECENT), ("all of them", ENTRIES)] {
        let folder = tempfile::tempdir_in(folder)?;
        let session = prepare(folder.path(), recent)?;
        // The first start finds no page of the database in memory, and no log to read back.
        restart(folder.path(), &url, session, &arrivals)?;
        let times = (0..rounds).map(|_| restart(folder.path(), &url, session, &arrivals));
        let times = times.collect::<anyhow::Result<Vec<_>>>()?;
        Spread::of(times).report(what, "ms", Aim::AtMost(100.0));
    }
    Ok(())
}

fn prepare(folder: &Path, recent: u64) -> anyhow::Result<SessionId> {
    let mut history = History::begin(folder, wire::SILENT)?;
    let calls = (ENTRIES - 4) / 2;
    for n in 1..=calls {
        if recent < ENTRIES && n == calls - recent / 2 {
            history.compact()?;
        }
        history.step(n)?;
    }
    let runtime = rig::runtime()?;
    runtime.block_on(async {
        let store = SqliteStore::open(folder.join("sessions.db"))?;
        let session = history.store(&store).await?;
        store.close().await?;
        Ok(session)
    })
}

/// Starts a process, waits for its request, and kills it. Returns how long it took, in milliseconds.
fn restart(folder: &Path, url: &str, session: SessionId, arrivals: &Receiver<Moment>) -> anyhow::Result<f64> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).arg(folder).args([url, &session.0.to_string()]).stdin(Stdio::null());
    let start = Moment::now();
    let mut process = command.spawn()?;
    let arrived = arrivals.recv_timeout(PATIENCE);
    process.kill()?;
    process.wait()?;
    Ok(arrived.context("the session sent no request")?.since(start).wall_us / 1e3)
}

/// Listens for requests and tells when the head of each was there. None is answered.
pub(crate) fn listen() -> anyhow::Result<(String, Receiver<Moment>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream).lines();
            if lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
                let _ = sender.send(Moment::now());
            }
            // Read to the end, which is the end of the process that asked.
            lines.map_while(Result::ok).for_each(drop);
        }
    });
    Ok((url, receiver))
}

/// Goes on with a session until this process is killed.
pub(crate) fn go_on(folder: &Path, url: &str, session: &str) -> anyhow::Result<()> {
    let session = SessionId(Uuid::parse_str(session)?);
    rig::runtime()?.block_on(async {
        let rig = Rig::open(folder, rig::models(url), rig::toolbox(|| {})).await?;
        rig.drive(session).await
    })
}
