//! A worker's service: it drives whatever may be claimed at its place, so many sessions at a time, until it
//! is told to stop; then it gives them back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use longhaul_session::id::{SessionId, Timestamp};
use longhaul_store::{Hint, Row};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;

use crate::Error;
use crate::journal::patiently;
use crate::limits::{CLAIM_BATCH, LONGEST_PAUSE_MS, LOOK_EVERY_MS, POLL_MS};
use crate::worker::{Driven, Held, Worker};

/// What a worker takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// How many sessions at a time.
    pub capacity: usize,
    /// It ends when nothing is left to do, now or later, that no other worker does.
    pub until_idle: bool,
}

/// What a worker tells of its service.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It has acquired a session.
    Claimed {
        /// The session.
        session: SessionId,
    },
    /// It drives a session no longer that it had acquired.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        driven: Driven,
    },
    /// Something went wrong; it tries again.
    Trouble {
        /// The session; `None` when it could not look for work.
        session: Option<SessionId>,
        /// What went wrong.
        error: String,
        /// When it tries again, in milliseconds.
        wait_ms: u64,
    },
}

/// Whom a worker tells.
type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// What a look for work found.
struct Found {
    rows: Vec<Row>,
    next: Option<Timestamp>,
}

impl Worker {
    /// Claims and runs sessions, `capacity` at a time, until it is told to stop; then gives them back.
    ///
    /// # Errors
    /// The store was closed.
    pub async fn run(&self, capacity: usize) -> Result<(), Error> {
        self.serve(Service { capacity, until_idle: false }, |_| {}).await
    }

    /// Does a service and tells of it. Where the store fails, it tries again, ever more rarely.
    ///
    /// # Errors
    /// The store was closed.
    pub async fn serve(
        &self,
        service: Service,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (tell, mut runners): (Tell, _) = (Arc::new(tell), JoinSet::new());
        let mut hints = self.engine.store.hints();
        let mut pause_ms = POLL_MS;
        while !self.stop.is_told() {
            let room = service.capacity.saturating_sub(runners.len());
            if room == 0 {
                tokio::select! {
                    biased;
                    Some(_) = runners.join_next() => {}
                    () = self.stop.told.cancelled() => {}
                }
                continue;
            }
            // What they tell is found by the look that comes now.
            hints = hints.resubscribe();
            let at_most = room.min(CLAIM_BATCH);
            let found = match self.look(at_most).await {
                Ok(found) => found,
                Err(error @ longhaul_store::Error::Closed { .. }) => return Err(error.into()),
                Err(error) => {
                    tell(Told::Trouble { session: None, error: error.to_string(), wait_ms: pause_ms });
                    self.sleep(pause_ms).await;
                    pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
                    continue;
                }
            };
            pause_ms = POLL_MS;
            let before = runners.len();
            for row in &found.rows {
                if let Some(claimed) = Held::begin(&self.claimed, row.session) {
                    runners.spawn(self.clone().keep_driving(claimed, Arc::clone(&tell)));
                }
            }
            if service.until_idle && found.is_nothing() && runners.is_empty() {
                return Ok(());
            }
            if found.rows.len() == at_most && runners.len() > before {
                continue;
            }
            self.engine.host.sleep_ms(LOOK_EVERY_MS).await;
            let wait_ms = found.next.map_or(POLL_MS, |at| at.since_ms(self.engine.host.now()).min(POLL_MS));
            tokio::select! {
                biased;
                () = self.news(&mut hints) => {}
                Some(_) = runners.join_next() => {}
                () = self.sleep(wait_ms) => {}
            }
        }
        while runners.join_next().await.is_some() {}
        Ok(())
    }

    /// Looks for sessions that may be claimed, and for when the next one may be.
    async fn look(&self, at_most: usize) -> Result<Found, longhaul_store::Error> {
        let (host, store, place) = (&*self.engine.host, &self.engine.store, self.place.as_str());
        let (now, patience) = (host.now(), self.patience());
        let rows = patiently(host, &patience, || store.claimable(now, place, at_most)).await?;
        let next = patiently(host, &patience, || store.next_claimable_at(now, place)).await?;
        Ok(Found { rows, next })
    }

    /// Waits until a session may have grown that this worker does not drive.
    async fn news(&self, hints: &mut broadcast::Receiver<Hint>) {
        loop {
            match hints.recv().await {
                Ok(hint) => {
                    let claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
                    if !claimed.contains(&hint.session) {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Drives a session, and after an error again and again, ever more rarely: an error says nothing about
    /// the session, which nobody else can claim while this worker owns it.
    async fn keep_driving(self, claimed: Held, tell: Tell) {
        let session = claimed.session;
        let (mut wait_ms, acquired) = (POLL_MS, AtomicBool::new(false));
        let begun = || {
            if !acquired.swap(true, Ordering::Relaxed) {
                tell(Told::Claimed { session });
            }
        };
        loop {
            match self.drive_telling(session, begun).await {
                Ok(driven) if acquired.load(Ordering::Relaxed) => {
                    return tell(Told::Ended { session, driven });
                }
                // Another was faster.
                Ok(_) => return,
                Err(Error::Store(longhaul_store::Error::NoSuchSession(_))) => return,
                Err(error) => {
                    tracing::error!(%session, %error, wait_ms, "the session could not be driven further");
                    tell(Told::Trouble { session: Some(session), error: error.to_string(), wait_ms });
                }
            }
            if self.stop.is_told() {
                return;
            }
            self.sleep(wait_ms).await;
            wait_ms = (wait_ms * 2).min(LONGEST_PAUSE_MS);
        }
    }
}

impl Found {
    fn is_nothing(&self) -> bool {
        self.rows.is_empty() && self.next.is_none()
    }
}
