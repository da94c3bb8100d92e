//! What `--json` prints: one event a line. Also how the demo's parent process follows its worker.

use longhaul_engine::{EpisodeKey, Event, Live};
use longhaul_session::entry::{Content, Record};
use longhaul_session::goal::Goal;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A committed entry.
    Entry {
        /// Its record.
        record: Box<Record>,
        /// Its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Box<Content>>,
    },
    /// A live part, not committed yet.
    Live {
        /// The attempt it belongs to.
        episode: EpisodeKey,
        /// Its number in the attempt.
        k: usize,
        /// The part.
        part: Live,
    },
    /// The live parts of this attempt never happened.
    PreviewReset {
        /// The attempt.
        episode: EpisodeKey,
    },
    /// The session has work, and no live worker does it: nothing more comes until one does.
    Unattended {
        /// The session.
        session: String,
        /// What to do.
        hint: String,
    },
    /// How the command ended. The last line.
    Result {
        /// The session.
        session: String,
        /// Its status.
        status: String,
        /// The exit code.
        exit: u8,
        /// Its goal, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        goal: Option<Box<Goal>>,
        /// Why its goal does not go on, if it does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        goal_rests: Option<String>,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

impl From<Event> for Line {
    fn from(event: Event) -> Self {
        match event {
            Event::Entry(entry) => Line::Entry {
                record: Box::new(entry.record),
                content: entry.content.map(|payload| Box::new(payload.content)),
            },
            Event::Live { episode, k, part } => Line::Live { episode, k, part: (*part).clone() },
            Event::PreviewReset { episode } => Line::PreviewReset { episode },
        }
    }
}
