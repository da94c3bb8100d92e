//! Finds the files that `glob` and `grep` look at: in the scope, not ignored, by a pattern of names.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;
use longhaul_session::agent::Permission;

use crate::limits::MAX_WALK_ENTRIES;
use crate::tool::CallContext;
use crate::workspace::Obstacle;

/// A pattern of file names.
pub(super) struct Pattern {
    matcher: GlobMatcher,
    names_only: bool,
}

impl Pattern {
    /// Reads a pattern. One without a slash is about the file's name, in any directory.
    pub(super) fn new(pattern: &str) -> Result<Self, Obstacle> {
        let glob =
            GlobBuilder::new(pattern.strip_prefix("./").unwrap_or(pattern)).literal_separator(true).build();
        let glob = glob.map_err(|error| Obstacle::Unfit(format!("The pattern cannot be read: {error}.")))?;
        Ok(Pattern { matcher: glob.compile_matcher(), names_only: !pattern.contains('/') })
    }

    fn matches(&self, root: &Path, path: &Path) -> bool {
        let below = path.strip_prefix(root).unwrap_or(path);
        // The search may start at a file, which is then all there is below it.
        let below = if below.as_os_str().is_empty() || self.names_only {
            path.file_name()
        } else {
            Some(below.as_os_str())
        };
        below.is_some_and(|name| self.matcher.is_match(name))
    }
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// It saw everything, or the visitor had enough.
    Whole,
    /// There was more than it may visit.
    TooMuch,
    /// The call was cancelled.
    Cancelled,
}

/// Visits files at and below `path`, sorted by path, while `visit` returns true. Links are not
/// followed, and ignored files and `.git` are left out.
pub(super) fn walk(
    cx: &CallContext,
    path: &str,
    pattern: Option<&Pattern>,
    mut visit: impl FnMut(PathBuf) -> bool,
) -> Result<Walked, Obstacle> {
    let scope = &cx.workspace.scope;
    let root = scope.check(path, Permission::Read)?;
    if !root.exists() {
        return Err(Obstacle::Unfit(format!("{path} does not exist. Check the path.")));
    }
    let walker = WalkBuilder::new(&root)
        .hidden(false)
        .require_git(false)
        .sort_by_file_path(Path::cmp)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    for (n, entry) in walker.enumerate() {
        if cx.cancel.is_cancelled() {
            break;
        }
        if n >= MAX_WALK_ENTRIES {
            return Ok(Walked::TooMuch);
        }
        // What cannot be listed is not there for this agent.
        let Ok(entry) = entry else { continue };
        let wanted = entry.file_type().is_some_and(|kind| kind.is_file())
            && pattern.is_none_or(|pattern| pattern.matches(&root, entry.path()))
            && scope.level(entry.path()).is_some();
        if wanted && !visit(entry.into_path()) {
            break;
        }
    }
    // The last visit may have been cut short.
    Ok(if cx.cancel.is_cancelled() { Walked::Cancelled } else { Walked::Whole })
}

/// Says what a walk that did not see everything left out.
pub(super) fn note(walked: Walked) -> Option<String> {
    match walked {
        Walked::Whole => None,
        Walked::TooMuch => Some(format!(
            "[stopped after {MAX_WALK_ENTRIES} files and directories: there may be more; search a smaller directory]"
        )),
        Walked::Cancelled => Some("[stopped before everything was searched]".to_owned()),
    }
}
