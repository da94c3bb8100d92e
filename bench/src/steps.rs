//! Whole steps, end to end: a model that answers at once, a tool that answers at once, two commits. One
//! session alone, and many at once, against the bare loop.

use std::path::Path;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::bare::{self, Committer, Log, Loop};
use crate::endpoint::Endpoint;
use crate::measure::{Aim, Cost, Moment, Pairs, in_turn, say};
use crate::rig::{self, Rig};
use crate::wire;

/// Steps of the one session.
const STEPS: u64 = 200;
/// Sessions at once, and the steps of each.
const SESSIONS: usize = 64;
const STEPS_OF_MANY: u64 = 40;

/// Measures and reports.
pub(crate) fn run(folder: &Path, pairs: usize) -> anyhow::Result<()> {
    let endpoint = Endpoint::start()?;
    let runtime = rig::runtime()?;
    let rig = runtime.block_on(Rig::open(folder, rig::models(&endpoint.url()), rig::toolbox(|| {})))?;
    one(folder, &endpoint, &runtime, &rig, pairs)?;
    runtime.block_on(rig.close())?;
    let runtime = rig::runtime_for_many()?;
    let rig = runtime.block_on(Rig::open(folder, rig::models(&endpoint.url()), rig::toolbox(|| {})))?;
    many(folder, &endpoint, &runtime, &rig, pairs.div_ceil(2))
}

/// Runs the steps of some sessions once, without a clock, for a profiler to look at.
pub(crate) fn once(folder: &Path, sessions: usize, steps: u64) -> anyhow::Result<()> {
    let endpoint = Endpoint::start()?;
    let runtime = if sessions == 1 { rig::runtime()? } else { rig::runtime_for_many()? };
    let rig = runtime.block_on(Rig::open(folder, rig::models(&endpoint.url()), rig::toolbox(|| {})))?;
    runtime.block_on(drive_all(&rig, sessions, steps))
}

fn one(
    folder: &Path,
    endpoint: &Endpoint,
    runtime: &tokio::runtime::Runtime,
    rig: &Rig,
    pairs: usize,
) -> anyhow::Result<()> {
    let longhaul = || {
        let start = Moment::now();
        runtime.block_on(drive_all(rig, 1, STEPS))?;
        Ok(start.cost())
    };
    let alone = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let http = bare::client()?;
    let log = Arc::new(Mutex::new(Log::open(&folder.join("steps-bare.db"))?));
    let bare = || {
        let session = begun(&log)?;
        let start = Moment::now();
        let committer = Committer::Alone(Arc::clone(&log));
        let run = Loop::new(http.clone(), &endpoint.url(), committer, session, 0, STEPS)?;
        alone.block_on(run.run(|| {}))?;
        Ok(start.cost())
    };
    let before = endpoint.seen()?;
    let measured = in_turn(pairs, longhaul, bare)?;
    let seen = endpoint.seen()?;
    let steps = STEPS as f64;
    say(&format!("steps: {STEPS} steps of one session; a step is a model call, a tool call, two commits"));
    let wall = |cost: &Cost| cost.wall_us / steps;
    Pairs::of(&measured, wall).report("longhaul / bare loop, wall time a step", "us", Aim::AtMost(1.3));
    let processor = |cost: &Cost| cost.processor_us / steps;
    let processor = Pairs::of(&measured, processor);
    processor.report("longhaul / bare loop, processor time a step", "us", Aim::AtMost(1.5));
    let requests = seen.requests - before.requests;
    let endpoint_us = (seen.processor_us - before.processor_us) / requests as f64;
    let connections = seen.connections - before.connections;
    say(&format!(
        "  apart from it, the endpoint took {endpoint_us:.0} us of processor time a request; \
         {connections} connections for {requests} requests"
    ));
    Ok(())
}

fn many(
    folder: &Path,
    endpoint: &Endpoint,
    runtime: &tokio::runtime::Runtime,
    rig: &Rig,
    pairs: usize,
) -> anyhow::Result<()> {
    let longhaul = || {
        let start = Moment::now();
        runtime.block_on(drive_all(rig, SESSIONS, STEPS_OF_MANY))?;
        Ok(start.cost())
    };
    let http = bare::client()?;
    let path = folder.join("many-bare.db");
    let log = Mutex::new(Log::open(&path)?);
    let committer = Committer::together(Log::again(&path)?);
    let bare = || {
        let sessions = (0..SESSIONS).map(|_| begun(&log)).collect::<anyhow::Result<Vec<_>>>()?;
        let start = Moment::now();
        let mut running = tokio::task::JoinSet::new();
        for session in sessions {
            let (http, committer) = (http.clone(), committer.clone());
            let run = Loop::new(http, &endpoint.url(), committer, session, 0, STEPS_OF_MANY)?;
            running.spawn_on(run.run(|| {}), runtime.handle());
        }
        runtime.block_on(joined(running))?;
        Ok(start.cost())
    };
    let measured = in_turn(pairs, longhaul, bare)?;
    let steps = SESSIONS as f64 * STEPS_OF_MANY as f64;
    say(&format!("steps: {SESSIONS} sessions at once, {STEPS_OF_MANY} steps each"));
    let rate = |cost: &Cost| steps / cost.wall_us * 1e6;
    let rate = Pairs::of(&measured, rate);
    rate.report("longhaul / bare loop, steps a second", "/s", Aim::AtLeast(0.4));
    let processor = |cost: &Cost| cost.processor_us / steps;
    let processor = Pairs::of(&measured, processor);
    processor.report("longhaul / bare loop, processor time a step", "us", Aim::AtMost(2.0));
    Ok(())
}

async fn drive_all(rig: &Rig, sessions: usize, steps: u64) -> anyhow::Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..sessions {
        let rig = rig.clone();
        running.spawn(async move {
            let session = rig.begin(&wire::model(steps)).await?;
            rig.drive(session).await
        });
    }
    joined(running).await
}

async fn joined(mut running: tokio::task::JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

fn begun(log: &Mutex<Log>) -> anyhow::Result<[u8; 16]> {
    let session = Uuid::new_v4().into_bytes();
    log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).begin(session)?;
    Ok(session)
}
