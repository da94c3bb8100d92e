//! Remembers the files a session has seen, so that nothing is changed that the model does not know.
//!
//! It holds digests and reads no file. It can be rebuilt from the files that results name.

use std::collections::HashMap;

use longhaul_session::id::Digest;
use longhaul_session::item::FileSeen;

use crate::limits::MAX_TRACKED_FILES;

/// The files a session has read or written, as it last saw them.
#[derive(Debug, Default)]
pub struct Tracker {
    files: HashMap<String, Seen>,
    clock: u64,
}

#[derive(Debug)]
struct Seen {
    digest: Digest,
    at: u64,
}

/// Why a file may not be changed yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The session has not seen it.
    #[error(
        "{0} has not been read in this session. Nothing was changed. Read it first, then repeat the call."
    )]
    Unread(String),
    /// It is not what the session saw.
    #[error(
        "{0} has changed since it was last read. Nothing was changed. Read it again, then repeat the call \
         if it still fits."
    )]
    Changed(String),
}

impl Tracker {
    /// Notes a file as a call left it. A read of a part counts for the whole file.
    pub fn seen(&mut self, file: &FileSeen) {
        self.clock += 1;
        self.files.insert(file.path.clone(), Seen { digest: file.digest, at: self.clock });
        if self.files.len() > MAX_TRACKED_FILES {
            let oldest = self.files.iter().min_by_key(|(_, seen)| seen.at).map(|(path, _)| path.clone());
            self.files.remove(&oldest.expect("a map over its limit is not empty"));
        }
    }

    /// Returns the digest of a file as it was last seen.
    #[must_use]
    pub fn digest(&self, path: &str) -> Option<Digest> {
        self.files.get(path).map(|seen| seen.digest)
    }

    /// Checks that a file that now has this digest is the one the session saw.
    ///
    /// # Errors
    /// [`Stale`], when it was not seen or has changed.
    pub fn check(&self, path: &str, now: Digest) -> Result<(), Stale> {
        match self.digest(path) {
            None => Err(Stale::Unread(path.to_owned())),
            Some(digest) if digest != now => Err(Stale::Changed(path.to_owned())),
            Some(_) => Ok(()),
        }
    }

    /// Returns the paths of at most `n` files, the most recently seen first.
    #[must_use]
    pub fn recent(&self, n: usize) -> Vec<String> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_unstable_by_key(|(_, seen)| std::cmp::Reverse(seen.at));
        files.into_iter().take(n).map(|(path, _)| path.clone()).collect()
    }
}
