//! The workers: they start, crash, stall, drain and come back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_engine::{Engine, Worker};
use longhaul_session::id::{SessionId, WorkerId};
use longhaul_store::WorkerInfo;
use tokio_util::sync::CancellationToken;

use crate::model::SimModels;
use crate::process::{Process, SimHost};
use crate::scenario::cast::Inspector;
use crate::store::{Disk, SimStore};
use crate::tools::toolbox;
use crate::users::PLACE;
use crate::world::World;

/// The processes that run, with their engines: watchers connect to them.
#[derive(Default)]
pub(crate) struct Fleet {
    running: Mutex<Vec<(Arc<Process>, Engine)>>,
    read: Mutex<BTreeSet<SessionId>>,
}

impl Fleet {
    fn join(&self, process: &Arc<Process>, engine: &Engine) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(process, _)| !process.is_dead());
        running.push((Arc::clone(process), engine.clone()));
    }

    /// Returns one of the processes that run.
    pub(crate) fn any(&self, world: &World) -> Option<(Arc<Process>, Engine)> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(process, _)| !process.is_dead());
        (!running.is_empty()).then(|| world.chance().pick(&running).clone())
    }

    /// Takes a session for a reader, unless another has it: of two that wait for the same live parts, it is
    /// chance beyond the seed which one is woken first.
    pub(crate) fn take(&self, session: SessionId) -> bool {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(session)
    }
}

/// Makes the engine of a process.
pub(crate) fn engine(world: &Arc<World>, disk: &Arc<Disk>, process: &Arc<Process>) -> Engine {
    let host = SimHost { world: Arc::clone(world), process: Arc::clone(process) };
    let models = SimModels { world: Arc::clone(world), process: Arc::clone(process) };
    let store = SimStore::connect(world, disk, process);
    let engine = Engine::new(store, Arc::new(host), Arc::new(models), toolbox(world, process));
    match world.plan.play {
        None => engine,
        Some(play) => {
            let (world, process) = (Arc::clone(world), Arc::clone(process));
            engine.checked_by(Arc::new(Inspector { world, process, play }))
        }
    }
}

/// Keeps one worker alive: whenever it ends, it starts again as another.
pub(crate) async fn keep(world: Arc<World>, disk: Arc<Disk>, fleet: Arc<Fleet>, slot: u64) {
    for life in 1_u64.. {
        let id = WorkerId(world.fresh_id());
        let skew_ms = world.below(world.plan.skew_ms + 1);
        let process = Process::new(format!("w{slot}.{life}"), Some(id), skew_ms);
        let engine = engine(&world, &disk, &process);
        live(&world, &process, engine, &fleet).await;
        process.kill();
        world.note(&process.name, format_args!("ended"));
        let away_ms = if world.is_calm() { 100 } else { world.below(8_000) };
        world.sleep_ms(away_ms).await;
    }
}

/// One life of a worker, to its end.
async fn live(world: &Arc<World>, process: &Arc<Process>, engine: Engine, fleet: &Fleet) {
    let shutdown = CancellationToken::new();
    let info = WorkerInfo {
        worker: process.worker.expect("it is a worker"),
        place: PLACE.to_owned(),
        host: process.name.clone(),
        pid: 1,
        version: "sim".to_owned(),
        address: None,
        started: world.now(),
        capacity: 1,
        running: 0,
        alive: true,
    };
    fleet.join(process, &engine);
    let capacity = if world.is_calm() { 16 } else { world.plan.capacity };
    let work = async {
        match Worker::start(engine, info, shutdown.clone()).await {
            Ok(worker) => {
                world.note(&process.name, format_args!("worker started"));
                if let Err(error) = worker.run(capacity).await {
                    world.note(&process.name, format_args!("worker ends: {error}"));
                }
            }
            Err(error) => world.note(&process.name, format_args!("no worker: {error}")),
        }
    };
    // Whichever ends first ends all of the process: what it was doing is dropped where it stands.
    tokio::select! {
        biased;
        () = process.killed() => {}
        () = work => {}
        () = fare(world, process, &shutdown) => {}
    }
}

/// What happens to a worker from outside. Returns when it crashes.
async fn fare(world: &Arc<World>, process: &Arc<Process>, shutdown: &CancellationToken) {
    let plan = &world.plan;
    let fate = world.below(100);
    let after_ms = world.below(plan.trouble_ms);
    tokio::select! {
        biased;
        () = world.calmed.cancelled() => std::future::pending().await,
        () = world.sleep_ms(after_ms) => {}
    }
    let (crash, drain) = (plan.crash_lives, plan.drain_lives);
    if fate < crash {
        world.fault(&process.name, "worker crashes");
        return;
    }
    if fate < crash + drain {
        world.fault(&process.name, "worker drains");
        shutdown.cancel();
        if world.happens(200) {
            world.sleep_ms(world.below(5_000)).await;
            world.fault(&process.name, "worker crashes as it drains");
            return;
        }
        std::future::pending::<()>().await;
    }
    while fate < crash + drain + plan.stall_lives && !world.is_calm() {
        world.fault(&process.name, "worker stalls");
        process.stall();
        let stalled_ms = 1 + world.below(if world.happens(500) { 3_000 } else { 40_000 });
        tokio::select! {
            biased;
            () = world.calmed.cancelled() => {}
            () = world.sleep_ms(stalled_ms) => {}
        }
        process.wake();
        world.note(&process.name, format_args!("goes on"));
        tokio::select! {
            biased;
            () = world.calmed.cancelled() => {}
            () = world.sleep_ms(world.below(10_000)) => {}
        }
    }
    std::future::pending().await
}
