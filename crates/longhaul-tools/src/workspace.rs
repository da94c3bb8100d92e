//! The files of one session: its directory, what it may touch there, and what it has seen.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use longhaul_session::agent::{Permission, ScopeRule};
use longhaul_session::id::Digest;
use longhaul_session::item::FileSeen;

use crate::files::{self, Content, FileError};
use crate::scope::{Scope, ScopeError};
use crate::tracker::{Stale, Tracker};

/// Where whole outputs are read from, when the model was shown a part.
#[async_trait]
pub trait ArtifactReader: Send + Sync {
    /// Reads an artifact; `None` when there is none of this digest.
    async fn read(&self, digest: Digest) -> Option<Vec<u8>>;
}

/// The files of one session.
pub struct Workspace {
    /// The working directory, canonical.
    pub directory: PathBuf,
    /// What may be read and written.
    pub scope: Scope,
    /// What the session has seen.
    pub tracker: Mutex<Tracker>,
    /// Where whole outputs are read from.
    pub artifacts: Arc<dyn ArtifactReader>,
    /// Folders of skills: outside of the scope too they may be read.
    skills: Mutex<Vec<PathBuf>>,
    /// Held from the check of a file to its replacement, so that of two changes neither is lost.
    changing: Mutex<()>,
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Obstacle {
    #[error(transparent)]
    Scope(#[from] ScopeError),
    #[error(transparent)]
    Stale(#[from] Stale),
    #[error(transparent)]
    File(#[from] FileError),
    /// The change itself cannot be made.
    #[error("{0}")]
    Unfit(String),
}

impl Workspace {
    /// Opens a working directory under some rules. Nothing in it has been seen yet.
    ///
    /// # Errors
    /// [`ScopeError`], when the directory or the target of a rule cannot be resolved.
    pub fn new(
        directory: &Path,
        rules: &[ScopeRule],
        artifacts: Arc<dyn ArtifactReader>,
    ) -> Result<Self, ScopeError> {
        let directory = directory
            .canonicalize()
            .map_err(|source| ScopeError::Unresolved { path: directory.display().to_string(), source })?;
        let scope = Scope::new(rules, &directory)?;
        Ok(Workspace {
            directory,
            scope,
            tracker: Mutex::default(),
            artifacts,
            skills: Mutex::default(),
            changing: Mutex::default(),
        })
    }

    /// Locks the tracker. A panic in another call left it whole, as each change of it is one step.
    pub fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a file and notes that it was seen.
    pub(crate) fn read(&self, path: &str) -> Result<(Content, FileSeen), Obstacle> {
        let path = match self.scope.check(path, Permission::Read) {
            Ok(path) => path,
            Err(denied) => self.in_a_skill(path).ok_or(denied)?,
        };
        let content = files::read(&path)?;
        let file = FileSeen { path: path.display().to_string(), digest: content.digest };
        self.tracker().seen(&file);
        Ok((content, file))
    }

    /// Lets the files in these folders be read.
    pub(crate) fn allow_skills(&self, folders: Vec<PathBuf>) {
        *self.skills.lock().unwrap_or_else(PoisonError::into_inner) = folders;
    }

    /// Resolves a path in the folder of a skill; `None` when it is in none, or a rule says it may not be read.
    fn in_a_skill(&self, path: &str) -> Option<PathBuf> {
        let resolved = self.scope.resolved(path).ok()?;
        let skills = self.skills.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = skills.iter().any(|folder| resolved.starts_with(folder));
        (is_in && !self.scope.forbids_reading(&resolved)).then_some(resolved)
    }

    /// Replaces a file by what `change` makes of it, in one step, and notes that it was seen. A file
    /// that exists must have been seen as it is now.
    pub(crate) fn change(
        &self,
        path: &str,
        change: impl FnOnce(Option<&[u8]>) -> Result<Vec<u8>, String>,
    ) -> Result<FileSeen, Obstacle> {
        let path = self.scope.check(path, Permission::Write)?;
        let name = path.display().to_string();
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, mode) = match files::read(&path) {
            Ok(content) => {
                self.tracker().check(&name, content.digest)?;
                (Some(content.bytes), Some(content.mode))
            }
            Err(FileError::Missing(_)) => {
                self.parents_may_be_made(&path)?;
                (None, None)
            }
            Err(error) => return Err(error.into()),
        };
        let new = change(old.as_deref()).map_err(Obstacle::Unfit)?;
        files::replace(&path, &new, mode)?;
        let file = FileSeen { path: name, digest: Digest::of(&new) };
        self.tracker().seen(&file);
        Ok(file)
    }

    fn parents_may_be_made(&self, path: &Path) -> Result<(), ScopeError> {
        path.ancestors()
            .skip(1)
            .take_while(|parent| !parent.exists())
            .try_for_each(|parent| self.scope.require(parent, Permission::Write))
    }

    /// Names a resolved path for a reader: relative to the working directory where it is below it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.directory).unwrap_or(path).display()
    }
}
