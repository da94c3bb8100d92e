//! What a runner sees of the workspace, and when it looks: `AGENTS.md` and skills become items of the session's
//! context before the model is called.
//!
//! It looks when it takes a session on, when a turn begins, and after a boundary: not before every call of a
//! long turn. What an agent changes itself in the middle of a turn it knows, and what a person changes counts
//! from the next turn on.

use std::collections::BTreeSet;
use std::path::Path;

use longhaul_session::context::Context;
use longhaul_session::id::{Digest, EntryNo};
use longhaul_session::item::Item;
use longhaul_session::state::SessionState;
use longhaul_tools::context_files::ContextFile;
use longhaul_tools::workspace::Workspace;

/// What is told of a context file that is there no more. Its digest is that of an empty file, which is never
/// shown otherwise.
const GONE: &str = "[This no longer holds: the file is gone, empty, or not of this workspace any more.]";

/// What was seen of the workspace at one look.
pub(crate) struct Surroundings {
    looked: Look,
    files: Vec<ContextFile>,
    digest: Digest,
}

/// What a look is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    configured_at: EntryNo,
    turn: u64,
    boundary: EntryNo,
}

impl Look {
    /// Returns the look that a state asks for.
    pub(crate) fn of(state: &SessionState) -> Self {
        Look { configured_at: state.configured_at, turn: state.turn.number, boundary: state.boundary }
    }
}

impl Surroundings {
    /// Looks at a workspace. `skills` is where the user keeps skills.
    pub(crate) fn look(workspace: &Workspace, skills: Option<&Path>, look: Look) -> Self {
        let files = workspace.look_around(skills);
        let mut bytes = Vec::new();
        for file in &files {
            bytes.extend_from_slice(&Digest::of(file.path.as_bytes()).0);
            bytes.extend_from_slice(&file.digest.0);
        }
        Surroundings { looked: look, files, digest: Digest::of(&bytes) }
    }

    /// Tells whether they still stand for the look that a state asks for.
    pub(crate) fn are_of(&self, look: Look) -> bool {
        self.looked == look
    }

    /// Returns the digest over all files; `None` when there is nothing, and the model was told of nothing.
    pub(crate) fn digest(&self, told: Option<Digest>) -> Option<Digest> {
        (told.is_some() || !self.files.is_empty()).then_some(self.digest)
    }

    /// Returns what the model must be shown of them: what it does not see yet, or not as it is now.
    pub(crate) fn news(&self, context: &Context) -> Vec<Item> {
        let shown = |path: &str| newest(context, path);
        let changed = self.files.iter().filter(|file| shown(&file.path) != Some(file.digest));
        let changed = changed.map(|ContextFile { path, digest, text }| Item::ContextFile {
            path: path.clone(),
            digest: *digest,
            text: text.clone(),
        });
        let empty = Digest::of(b"");
        let there: BTreeSet<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let known: BTreeSet<&str> = context.items().iter().filter_map(|(_, item)| path_of(item)).collect();
        let gone = known.difference(&there).filter(|path| shown(path) != Some(empty));
        let gone = gone.map(|path| Item::ContextFile {
            path: (*path).to_owned(),
            digest: empty,
            text: GONE.to_owned(),
        });
        changed.chain(gone).collect()
    }
}

/// Returns the digest of the newest version of a file that the model sees.
fn newest(context: &Context, path: &str) -> Option<Digest> {
    let version = |item: &Item| {
        if let Item::ContextFile { path: shown, digest, .. } = item
            && shown == path
        {
            return Some(*digest);
        }
        None
    };
    context.items().iter().rev().find_map(|(_, item)| version(item))
}

fn path_of(item: &Item) -> Option<&str> {
    if let Item::ContextFile { path, .. } = item { Some(path) } else { None }
}
