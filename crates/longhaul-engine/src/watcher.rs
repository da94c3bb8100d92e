//! Watchers: readers of a session. Entries come from the store, each exactly once and in order; between
//! them come the live parts of the attempt under way.

use std::collections::VecDeque;
use std::sync::Arc;

use longhaul_session::entry::Entry;
use longhaul_session::id::{EntryNo, SessionId};
use longhaul_store::{Hint, Store};
use tokio::sync::{broadcast, watch};

use crate::Error;
use crate::episode::{EpisodeKey, Found, Live, Place, Stage};
use crate::host::Host;
use crate::journal::{Patience, open_all, patiently};
use crate::limits::{POLL_MS, READ_BATCH};

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A committed entry.
    Entry(Box<Entry>),
    /// A live part; its step is not committed yet.
    Live {
        /// The episode.
        episode: EpisodeKey,
        /// The part's number within it, from 1.
        k: usize,
        /// The part.
        part: Arc<Live>,
    },
    /// The live parts of this episode never happened: the attempt failed or became obsolete.
    PreviewReset {
        /// The episode.
        episode: EpisodeKey,
    },
}

/// A reader of one session.
pub struct Watcher {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    session: SessionId,
    seen: EntryNo,
    ready: VecDeque<Entry>,
    grown: bool,
    hints: broadcast::Receiver<Hint>,
    /// When it last read entries: hints of other sessions must not put off the next look.
    looked_ms: u64,
    stage: Arc<Stage>,
    place: Place,
    changes: watch::Receiver<u64>,
}

impl Watcher {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        session: SessionId,
        after: EntryNo,
        stage: Arc<Stage>,
    ) -> Self {
        Watcher {
            hints: store.hints(),
            changes: stage.changes(),
            place: stage.place_now(),
            store,
            host,
            session,
            seen: after,
            ready: VecDeque::new(),
            grown: true,
            looked_ms: 0,
            stage,
        }
    }

    /// Returns the next event; waits for it as long as it takes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.try_next().await? {
                return Ok(event);
            }
            self.wait().await;
        }
    }

    /// Returns the next event if there is one now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn try_next(&mut self) -> Result<Option<Event>, Error> {
        if self.ready.is_empty() && (self.grown || self.stage.head() > self.seen) {
            let range = self.seen + 1..=self.seen + READ_BATCH;
            self.looked_ms = self.host.monotonic_ms();
            let read = || self.store.entries(self.session, range.clone());
            let entries = patiently(&*self.host, &Patience::Reader, read).await?;
            self.grown = entries.len() as u64 == READ_BATCH;
            self.ready = open_all(&entries)?.into();
        }
        // Only now: the parts of an attempt whose step was read just now come before that step.
        if let Some(found) = self.stage.next(&mut self.place, self.seen) {
            return Ok(Some(match found {
                Found::Part(episode, k, part) => Event::Live { episode, k, part },
                Found::Reset(episode) => Event::PreviewReset { episode },
            }));
        }
        let Some(entry) = self.ready.pop_front() else { return Ok(None) };
        self.seen = entry.record.n;
        Ok(Some(Event::Entry(Box::new(entry))))
    }

    /// Returns the number of the newest entry it has returned.
    #[must_use]
    pub fn seen(&self) -> EntryNo {
        self.seen
    }

    /// Waits until something may have changed. A hint that got lost costs one poll.
    async fn wait(&mut self) {
        let wait_ms = POLL_MS.saturating_sub(self.host.monotonic_ms().saturating_sub(self.looked_ms));
        // What was missed is read from the store whichever comes first.
        tokio::select! {
            biased;
            hint = self.hints.recv() => match hint {
                Ok(hint) => self.grown |= hint.session == self.session && hint.head > self.seen,
                Err(broadcast::error::RecvError::Lagged(_)) => self.grown = true,
                Err(broadcast::error::RecvError::Closed) => {
                    self.host.sleep_ms(POLL_MS).await;
                    self.grown = true;
                }
            },
            _ = self.changes.changed() => {}
            () = self.host.sleep_ms(wait_ms) => self.grown = true,
        }
    }
}
