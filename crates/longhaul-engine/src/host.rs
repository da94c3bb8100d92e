//! Time, chance and fresh ids: all that a runner takes from the machine it is on, so that a simulation
//! can give it something else.

use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::id::Timestamp;
use uuid::Uuid;

/// Gives time, chance and ids.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Returns the present instant.
    fn now(&self) -> Timestamp;
    /// Returns milliseconds by a clock that never goes back, and goes on while the machine is suspended.
    fn monotonic_ms(&self) -> u64;
    /// Returns after that many milliseconds.
    async fn sleep_ms(&self, delay_ms: u64);
    /// Returns a random number in 0..=1.
    fn jitter(&self) -> f64;
    /// Returns a new id, later than those before it.
    fn fresh_id(&self) -> Uuid;
}

/// The real machine.
#[derive(Debug)]
pub struct SystemHost {
    started: Duration,
}

impl SystemHost {
    /// Starts its monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        SystemHost { started: since_boot() }
    }
}

impl Default for SystemHost {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Host for SystemHost {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(since_boot().saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
    async fn sleep_ms(&self, delay_ms: u64) {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }

    fn jitter(&self) -> f64 {
        let (high, _) = Uuid::new_v4().as_u64_pair();
        f64::from(u32::try_from(high >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Reads the clock that counts from the start of the machine, suspended time included: a lease goes on
/// while its owner's machine sleeps.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}
