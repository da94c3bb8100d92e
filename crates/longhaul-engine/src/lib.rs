//! The engine: the only driver of sessions, and the library to embed.
//!
//! An [`Engine`] holds a store, the models and the tools. Anything may change a session through
//! [`Engine::command`]; a [`Worker`] drives sessions until they rest. What is owed to a session, and what
//! may be done with it, is decided by the pure functions of `longhaul-session`; here their decisions are
//! carried out. The engine names no database and no provider.

mod attachments;
mod background;
mod checks;
mod compaction;
mod engine;
mod episode;
mod goal_tools;
mod host;
mod journal;
mod lease;
mod limits;
mod loss;
mod model_call;
mod prompt;
mod runner;
mod service;
mod stop;
mod surroundings;
mod tool_calls;
mod transfer;
mod watcher;
mod worker;

use longhaul_session::id::SessionId;

pub use attachments::{GivenFile, UnfitFile};
pub use engine::{Created, Done, Engine, Fullness, Models, NewSession, Snapshot};
pub use episode::{EpisodeKey, Live};
pub use goal_tools::with_goal_tools;
pub use host::{Host, SystemHost};
pub use limits::MAX_ATTACHMENT_BYTES;
pub use service::{Service, Told};
pub use stop::Grace;
pub use transfer::Imported;
pub use watcher::{Event, Watcher};
pub use worker::{Driven, Worker};

/// What the world broke. What the rules forbid is a [`longhaul_session::command::Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] longhaul_store::Error),
    /// The log cannot be read.
    #[error("the log of the session cannot be read: {0}. Run `longhaul verify` on it.")]
    Log(#[from] longhaul_session::log::Error),
    /// The stored state cannot be read.
    #[error("the state of session {session} cannot be read: {source}. Run `longhaul verify` on it.")]
    State {
        /// The session.
        session: SessionId,
        /// Why.
        source: serde_json::Error,
    },
    /// Other writers were faster each time.
    #[error("session {session} is written to so fast by others that this change found no place; try again")]
    TooBusy {
        /// The session.
        session: SessionId,
    },
    /// A runner ended in a way that no error describes.
    #[error(
        "the runner of session {session} broke down: {detail}. This is a fault in the program; please report it."
    )]
    Runner {
        /// The session.
        session: SessionId,
        /// What is known of it.
        detail: String,
    },
}
