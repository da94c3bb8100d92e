//! Episodes: the live parts of one attempt, held in memory until its step commits.
//!
//! A runner writes, any number of readers read at their own pace. A reader never slows a runner: parts
//! are shared and bounded, and what does not fit is not previewed; the committed entry has it all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_model::Part;
use longhaul_session::id::{CallId, EntryNo, Epoch, SessionId};
use longhaul_session::item::Outcome;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits::{EPISODE_BYTES, EPISODE_KEPT_MS, EPISODES_KEPT};

/// Names an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpisodeKey {
    /// The history its work began from.
    pub history_at: EntryNo,
    /// The epoch of its runner.
    pub epoch: Epoch,
    /// The attempt.
    pub attempt: u32,
}

/// One live part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "live", rename_all = "snake_case")]
pub enum Live {
    /// The model is being called.
    ModelStarted,
    /// The model is being called for a summary of the history; its answer is no part of the conversation.
    SummaryStarted,
    /// A part of its answer.
    Model {
        /// The part.
        part: Part,
    },
    /// A tool was started.
    ToolStarted {
        /// The call.
        call: CallId,
        /// The tool.
        tool: String,
    },
    /// A tool wrote a line.
    ToolLine {
        /// The call.
        call: CallId,
        /// The line.
        line: String,
    },
    /// A tool ended; its result is not committed yet.
    ToolEnded {
        /// The call.
        call: CallId,
        /// How.
        outcome: Outcome,
        /// After how long, in milliseconds.
        took_ms: u64,
    },
}

/// The episodes of all sessions of a process.
#[derive(Debug, Default)]
pub(crate) struct Episodes {
    sessions: Mutex<HashMap<SessionId, Arc<Stage>>>,
}

/// Where the episodes of one session are played.
#[derive(Debug)]
pub(crate) struct Stage {
    played: Mutex<Played>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Played {
    episodes: VecDeque<Episode>,
    first: u64,
    /// The length of the log when the newest episode began.
    head: EntryNo,
    closed_ms: u64,
}

#[derive(Debug)]
struct Episode {
    key: EpisodeKey,
    /// The length of the log when it began: a reader that has seen less reads entries first.
    head: EntryNo,
    parts: Vec<Arc<Live>>,
    bytes: usize,
    open: bool,
    committed: bool,
}

/// How far a reader has read the episodes of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    episode: u64,
    part: usize,
    /// The episode it has shown parts of.
    shown: Option<EpisodeKey>,
}

/// What a reader finds next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// A part, the k-th of its episode from 1.
    Part(EpisodeKey, usize, Arc<Live>),
    /// The episode it was reading died: what it showed never happened.
    Reset(EpisodeKey),
}

impl Episodes {
    /// Returns where a session's episodes are played.
    pub(crate) fn stage(&self, session: SessionId) -> Arc<Stage> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = sessions
            .entry(session)
            .or_insert_with(|| Arc::new(Stage { played: Mutex::default(), changed: watch::Sender::new(0) }));
        Arc::clone(stage)
    }

    /// Forgets sessions that nobody reads and whose newest episode closed long enough ago.
    pub(crate) fn forget_old(&self, now_ms: u64) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, stage| {
            let played = stage.lock();
            let open = played.episodes.back().is_some_and(|episode| episode.open);
            open || Arc::strong_count(stage) > 1 || now_ms.saturating_sub(played.closed_ms) < EPISODE_KEPT_MS
        });
    }
}

impl Stage {
    fn lock(&self) -> std::sync::MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an episode at this length of the log; the one before it is over.
    pub(crate) fn begin(&self, key: EpisodeKey, head: EntryNo) {
        let mut played = self.lock();
        if let Some(last) = played.episodes.back_mut() {
            last.open = false;
        }
        played.head = head;
        let (parts, committed) = (Vec::new(), false);
        played.episodes.push_back(Episode { key, head, parts, bytes: 0, open: true, committed });
        if played.episodes.len() > EPISODES_KEPT {
            played.episodes.pop_front();
            played.first += 1;
        }
        drop(played);
        self.wake();
    }

    /// Adds a part, unless the episode is full.
    pub(crate) fn add(&self, live: Live) {
        let mut played = self.lock();
        let Some(episode) = played.episodes.back_mut().filter(|episode| episode.open) else { return };
        episode.bytes += size(&live);
        if episode.bytes > EPISODE_BYTES {
            return;
        }
        episode.parts.push(Arc::new(live));
        drop(played);
        self.wake();
    }

    /// Ends the newest episode: its step was committed, or it never happened.
    pub(crate) fn end(&self, committed: bool, now_ms: u64) {
        let mut played = self.lock();
        played.closed_ms = now_ms;
        if let Some(episode) = played.episodes.back_mut() {
            episode.open = false;
            episode.committed = committed;
        }
        drop(played);
        self.wake();
    }

    /// Ends the newest episode if it is this epoch's and still open: its runner is gone.
    pub(crate) fn end_of(&self, epoch: Epoch, now_ms: u64) {
        let left_open = |episode: &Episode| episode.open && episode.key.epoch == epoch;
        if self.lock().episodes.back().is_some_and(left_open) {
            self.end(false, now_ms);
        }
    }

    /// Returns the length the log had when the newest episode began.
    pub(crate) fn head(&self) -> EntryNo {
        self.lock().head
    }

    /// Returns a receiver that changes with every part.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns what comes next for a reader that has seen the entries up to `seen`, and moves its place.
    pub(crate) fn next(&self, place: &mut Place, seen: EntryNo) -> Option<Found> {
        let played = self.lock();
        loop {
            if place.episode < played.first {
                let shown = place.shown.take();
                *place = Place { episode: played.first, ..Place::default() };
                if let Some(key) = shown {
                    return Some(Found::Reset(key));
                }
            }
            let at = usize::try_from(place.episode - played.first).unwrap_or(usize::MAX);
            let episode = played.episodes.get(at)?;
            if episode.head > seen {
                return None;
            }
            if let Some(part) = episode.parts.get(place.part) {
                // An old attempt's parts are of no use to a reader that has not begun with them.
                if episode.open || episode.committed || place.part > 0 {
                    place.part += 1;
                    place.shown = Some(episode.key);
                    return Some(Found::Part(episode.key, place.part, Arc::clone(part)));
                }
            }
            if episode.open {
                return None;
            }
            let shown = place.shown.take().filter(|_| !episode.committed);
            *place = Place { episode: place.episode + 1, ..Place::default() };
            if let Some(key) = shown {
                return Some(Found::Reset(key));
            }
        }
    }

    /// Moves a new reader to the attempt under way: what was committed before is read as entries.
    pub(crate) fn place_now(&self) -> Place {
        let played = self.lock();
        let open = played.episodes.iter().position(|episode| episode.open);
        let at = open.unwrap_or(played.episodes.len());
        Place { episode: played.first + at as u64, ..Place::default() }
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

/// About how much memory a part takes, in bytes.
fn size(live: &Live) -> usize {
    let text = match live {
        Live::Model {
            part:
                Part::Text { text }
                | Part::Refusal { text }
                | Part::Reasoning { text }
                | Part::ToolCallArguments { text, .. },
        } => text.len(),
        // What a provider wants back unchanged can be large.
        Live::Model { part } => serde_json::to_vec(part).map_or(0, |bytes| bytes.len()),
        Live::ToolLine { line, .. } => line.len(),
        Live::ModelStarted | Live::SummaryStarted | Live::ToolStarted { .. } | Live::ToolEnded { .. } => 0,
    };
    text + 64
}
