//! Leases: how long a runner may believe that its session is still its own, where the store tells an
//! owner's life by a clock.
//!
//! One renewal covers all sessions of a worker. A runner's tenure ends early enough by this machine's own
//! clock, suspended time included, that it has stopped before another may take over. Where the store has no
//! leases a tenure never ends, and no task, lock or clock is involved.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use longhaul_session::id::{SessionId, WorkerId};
use longhaul_store::{Lease, Store};
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::limits::{POLL_MS, RENEWAL_TRIES};

/// The leases of one worker.
pub(crate) struct Leases {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    worker: WorkerId,
    terms: Lease,
    held: Mutex<Vec<Weak<Hold>>>,
}

/// A runner's right to its session. Once it is over it stays over.
#[derive(Clone)]
pub(crate) struct Tenure {
    host: Arc<dyn Host>,
    hold: Option<Arc<Hold>>,
}

/// One session held under a lease.
struct Hold {
    session: SessionId,
    /// By the machine's own clock, a margin before the store would let another have the session.
    until_ms: AtomicU64,
    over: CancellationToken,
    /// The store has said that the session is another's, or nobody's.
    lost: AtomicBool,
}

impl Leases {
    pub(crate) fn new(store: Arc<dyn Store>, host: Arc<dyn Host>, worker: WorkerId, terms: Lease) -> Self {
        Leases { store, host, worker, terms, held: Mutex::default() }
    }

    /// Begins the tenure of a session that was acquired by an append sent at `sent_ms`.
    pub(crate) fn begin(&self, session: SessionId, sent_ms: u64) -> Tenure {
        let hold = Arc::new(Hold {
            session,
            until_ms: AtomicU64::new(self.good_until(sent_ms)),
            over: CancellationToken::new(),
            lost: AtomicBool::new(false),
        });
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&hold));
        Tenure { host: Arc::clone(&self.host), hold: Some(hold) }
    }

    /// Renews what is held, and ends what could not be renewed in time. Never returns.
    pub(crate) async fn keep(&self) {
        tokio::join!(self.renew(), self.end_what_lapses());
    }

    async fn renew(&self) {
        let Lease { renew_every_ms, .. } = self.terms;
        let mut wait_ms = renew_every_ms;
        loop {
            self.host.sleep_ms(wait_ms).await;
            let (sent_ms, held) = (self.host.monotonic_ms(), self.held());
            let mut sessions: Vec<SessionId> = held.iter().map(|hold| hold.session).collect();
            sessions.sort_unstable();
            sessions.dedup();
            // What has no answer by the time of the next one is given up: a connection may hang for ever.
            let renewed = tokio::select! {
                biased;
                renewed = self.store.renew(self.worker, &sessions) => Some(renewed),
                () = self.host.sleep_ms(renew_every_ms) => None,
            };
            let now_ms = self.host.monotonic_ms();
            wait_ms = (renew_every_ms / RENEWAL_TRIES).max(1);
            match renewed {
                Some(Ok(lost)) => {
                    for hold in held {
                        if lost.contains(&hold.session) {
                            tracing::warn!(session = %hold.session, "the session was lost to another owner");
                            hold.lose();
                        } else {
                            hold.extend(self.good_until(sent_ms), now_ms);
                        }
                    }
                    wait_ms = renew_every_ms.saturating_sub(now_ms.saturating_sub(sent_ms)).max(1);
                }
                Some(Err(error)) => tracing::warn!(%error, "the leases were not renewed; trying again"),
                None => tracing::warn!("the renewal of the leases has no answer; trying again"),
            }
        }
    }

    /// Looks at least once a poll: a clock that timers do not follow, as when the machine was suspended,
    /// must not keep a tenure alive.
    async fn end_what_lapses(&self) {
        loop {
            let now_ms = self.host.monotonic_ms();
            let living = self.held().into_iter().filter(|hold| !hold.is_over(now_ms));
            let next_ms = living.map(|hold| hold.until_ms.load(Ordering::Acquire)).min();
            let wait_ms = next_ms.map_or(POLL_MS, |at_ms| at_ms.saturating_sub(now_ms).clamp(1, POLL_MS));
            self.host.sleep_ms(wait_ms).await;
        }
    }

    fn held(&self) -> Vec<Arc<Hold>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let living: Vec<Arc<Hold>> =
            held.iter().filter_map(Weak::upgrade).filter(|hold| !hold.over.is_cancelled()).collect();
        *held = living.iter().map(Arc::downgrade).collect();
        living
    }

    fn good_until(&self, sent_ms: u64) -> u64 {
        sent_ms + self.terms.lasts_ms.saturating_sub(self.terms.margin_ms)
    }
}

impl Hold {
    fn is_over(&self, now_ms: u64) -> bool {
        if now_ms >= self.until_ms.load(Ordering::Acquire) {
            self.over.cancel();
        }
        self.over.is_cancelled()
    }

    /// A renewal whose answer comes after the end is none.
    fn extend(&self, until_ms: u64, now_ms: u64) {
        if !self.is_over(now_ms) {
            self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
        }
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.over.cancel();
    }
}

impl Tenure {
    /// Makes the tenure of a session in a store without leases.
    pub(crate) fn endless(host: Arc<dyn Host>) -> Self {
        Tenure { host, hold: None }
    }

    /// Tells whether it is over, by the clock as it is now.
    pub(crate) fn is_over(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.is_over(self.host.monotonic_ms()))
    }

    /// Tells whether the session is known to be no longer this runner's.
    pub(crate) fn is_lost(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.lost.load(Ordering::Acquire))
    }

    /// Waits for its end.
    pub(crate) async fn over(&self) {
        match &self.hold {
            Some(hold) => hold.over.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Returns a token for an effect, cancelled when the tenure ends, whatever the runner is waiting for.
    pub(crate) fn effect_token(&self) -> CancellationToken {
        self.hold.as_ref().map_or_else(CancellationToken::new, |hold| hold.over.child_token())
    }
}
