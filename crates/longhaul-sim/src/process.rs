//! A simulated process: it runs, stalls or is dead. Everything the engine waits for passes its gate, so
//! a stalled process does nothing until it goes on, and a dead one nothing ever again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use longhaul_engine::Host;
use longhaul_session::id::{Timestamp, WorkerId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    Stalls,
    Dead,
}

/// A process of the simulated world.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    /// Its worker, if it is one: only those die.
    pub(crate) worker: Option<WorkerId>,
    /// How far its wall clock is off, in milliseconds.
    skew_ms: u64,
    life: Mutex<Life>,
    changed: Notify,
    stalled_once: AtomicBool,
    killed: CancellationToken,
}

impl Process {
    pub(crate) fn new(name: String, worker: Option<WorkerId>, skew_ms: u64) -> Arc<Self> {
        Arc::new(Process {
            name,
            worker,
            skew_ms,
            life: Mutex::new(Life::Runs),
            changed: Notify::new(),
            stalled_once: AtomicBool::new(false),
            killed: CancellationToken::new(),
        })
    }

    fn life(&self) -> Life {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn becomes(&self, life: Life) {
        let mut now = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != Life::Dead {
            *now = life;
        }
        drop(now);
        self.changed.notify_waiters();
    }

    /// Returns when the process runs: never, when it is dead.
    pub(crate) async fn gate(&self) {
        loop {
            let changed = self.changed.notified();
            match self.life() {
                Life::Runs => return,
                Life::Stalls => changed.await,
                Life::Dead => std::future::pending().await,
            }
        }
    }

    pub(crate) fn stall(&self) {
        self.stalled_once.store(true, Ordering::Relaxed);
        self.becomes(Life::Stalls);
    }

    pub(crate) fn wake(&self) {
        self.becomes(Life::Runs);
    }

    /// Tells whether it has ever stalled: then it may begin an effect too late.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled_once.load(Ordering::Relaxed)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.life() == Life::Dead
    }

    pub(crate) fn kill(&self) {
        self.becomes(Life::Dead);
        self.killed.cancel();
    }

    /// Returns when it is dead.
    pub(crate) async fn killed(&self) {
        self.killed.cancelled().await;
    }
}

/// What a process takes from its machine.
pub(crate) struct SimHost {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
}

#[async_trait]
impl Host for SimHost {
    fn now(&self) -> Timestamp {
        self.world.now().plus_ms(self.process.skew_ms)
    }

    fn monotonic_ms(&self) -> u64 {
        self.world.elapsed_ms()
    }

    async fn sleep_ms(&self, delay_ms: u64) {
        self.world.sleep_ms(delay_ms).await;
        self.process.gate().await;
    }

    fn jitter(&self) -> f64 {
        self.world.below(1_001) as f64 / 1_000.0
    }

    fn fresh_id(&self) -> Uuid {
        self.world.fresh_id()
    }
}
