//! What a workspace tells an agent: `AGENTS.md` up the tree, and the list of its skills.
//!
//! Both are looked at when somebody asks; when that is, and that the model is told of each once, is left to
//! whoever runs the session. What a skill says the model reads itself, with `read`.
//!
//! A link counts only where the scope lets its target be read. Above the working directory, where the scope
//! seldom reaches, a file counts if it is none, and belongs to the user, to root, or to the owner of the
//! working directory: others could tell an agent of ours what to do.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use longhaul_session::agent::Permission;
use longhaul_session::id::Digest;

use crate::files;
use crate::limits::{
    MAX_CONTEXT_BYTES, MAX_CONTEXT_FILE_BYTES, MAX_CONTEXT_FOLDERS, MAX_CONTEXT_SOURCE_BYTES,
};
use crate::skills;
use crate::workspace::Workspace;

/// The file that tells agents about the directory it is in.
const AGENTS_FILE: &str = "AGENTS.md";

/// A file that the model should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFile {
    /// Where it was read from.
    pub path: String,
    /// The digest of all of it.
    pub digest: Digest,
    /// Its text; what had to be cut is said.
    pub text: String,
}

impl Workspace {
    /// Looks at what the workspace tells an agent: `AGENTS.md` from the root of the repository to the working
    /// directory, then the list of skills, of the workspace and of `users_skills`. Without a repository only
    /// the working directory counts. From now on the skills found may be read.
    pub fn look_around(&self, users_skills: Option<&Path>) -> Vec<ContextFile> {
        let folders = self.folders();
        let mut room = MAX_CONTEXT_BYTES;
        // What is nearest is cut last.
        let near_first = folders.iter().rev().map(|folder| folder.join(AGENTS_FILE));
        let mut found: Vec<ContextFile> =
            near_first.filter_map(|path| self.agents_file(&path, &mut room)).collect();
        found.reverse();
        let skills = skills::find(self, &folders, users_skills);
        self.allow_skills(skills.iter().map(|skill| skill.folder.clone()).collect());
        found.extend(skills::list(&skills).map(|text| ContextFile {
            path: "skills".to_owned(),
            digest: Digest::of(text.as_bytes()),
            text,
        }));
        found
    }

    /// Returns the folders from the root of the repository to the working directory.
    fn folders(&self) -> Vec<PathBuf> {
        let above = || self.directory.ancestors().take(MAX_CONTEXT_FOLDERS);
        let root = above().position(|folder| folder.join(".git").symlink_metadata().is_ok()).unwrap_or(0);
        let mut folders: Vec<PathBuf> = above().take(root + 1).map(Path::to_owned).collect();
        folders.reverse();
        folders
    }

    fn agents_file(&self, path: &Path, room: &mut usize) -> Option<ContextFile> {
        let resolved = self.told_by(path)?;
        let bytes = source(&resolved)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        if text.trim_start().is_empty() {
            return None;
        }
        let shown = &text[..text.floor_char_boundary(MAX_CONTEXT_FILE_BYTES.min(*room))];
        *room -= shown.len();
        let text = match text.len() - shown.len() {
            0 => shown.to_owned(),
            _ => format!("{shown}\n[cut: these are the first {} of {} bytes]", shown.len(), text.len()),
        };
        Some(ContextFile { path: path.display().to_string(), digest: Digest::of(&bytes), text })
    }

    /// Resolves a file that may tell an agent something; `None`: it is not there, or may not.
    pub(crate) fn told_by(&self, path: &Path) -> Option<PathBuf> {
        let resolved = path.canonicalize().ok()?;
        if self.scope.level(&resolved) >= Some(Permission::Read) {
            return Some(resolved);
        }
        let is_above = resolved == path && !path.starts_with(&self.directory);
        (is_above && !self.scope.forbids_reading(&resolved) && self.is_trusted(&resolved)).then_some(resolved)
    }

    fn is_trusted(&self, file: &Path) -> bool {
        let owner = |path: &Path| path.metadata().ok().map(|metadata| metadata.uid());
        let trusted = [Some(rustix::process::getuid().as_raw()), Some(0), owner(&self.directory)];
        trusted.contains(&owner(file))
    }
}

/// Reads a whole file; `None` when it cannot be read or is far too large for what it is there for.
pub(crate) fn source(resolved: &Path) -> Option<Vec<u8>> {
    let bytes = resolved.metadata().ok()?.len();
    (bytes <= MAX_CONTEXT_SOURCE_BYTES).then(|| files::read(resolved).ok())?.map(|content| content.bytes)
}
