//! The files that a goal protects: found by paths and patterns, digested, and compared later. Nothing is
//! kept here, and nothing is kept from being changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;
use longhaul_session::id::Digest;
use longhaul_session::item::FileSeen;

use crate::files::{self, FileError};
use crate::limits::{MAX_FILE_BYTES, MAX_GUARDED_FILES, MAX_WALK_ENTRIES};

/// Paths and patterns of files, read.
pub struct Guarded {
    patterns: Vec<Pattern>,
}

/// Files by one path or pattern.
struct Pattern {
    written: String,
    /// Where to look: a path itself, or the directory above the first name of a pattern that has a wildcard.
    root: PathBuf,
    /// What the path of a file must match; `None`: everything at and below the root.
    matcher: Option<GlobMatcher>,
}

/// Why files cannot be protected.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A pattern makes no sense.
    #[error("the pattern `{pattern}` cannot be read: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// There are too many.
    #[error("`{0}` names more than {MAX_GUARDED_FILES} files; name fewer, or a smaller directory")]
    TooMany(String),
    /// A directory has too much in it to be looked through.
    #[error("there are more than {MAX_WALK_ENTRIES} files where `{0}` looks; name a smaller directory")]
    TooMuch(String),
    /// A file or a directory cannot be read.
    #[error("{path} cannot be read: {why}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
}

/// How a protected file differs from what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a protected file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Its content is another.
    Changed,
    /// It is gone.
    Removed,
    /// It was not there.
    Added,
}

impl Guarded {
    /// Reads paths and patterns, relative to a working directory.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn new(written: &[String], directory: &Path) -> Result<Self, GuardError> {
        let patterns = written.iter().map(|text| Pattern::new(text, directory)).collect::<Result<_, _>>()?;
        Ok(Guarded { patterns })
    }

    /// Finds the files there are and digests them, by path. Paths below `directory` are relative to it.
    ///
    /// # Errors
    /// There are too many, or one cannot be read.
    pub fn digests(&self, directory: &Path) -> Result<Vec<FileSeen>, GuardError> {
        let mut found = BTreeMap::new();
        for pattern in &self.patterns {
            for path in pattern.find()? {
                let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
                if let std::collections::btree_map::Entry::Vacant(vacant) = found.entry(name) {
                    vacant.insert(digest(&path)?);
                }
                if found.len() > MAX_GUARDED_FILES {
                    return Err(GuardError::TooMany(pattern.written.clone()));
                }
            }
        }
        Ok(found.into_iter().map(|(path, digest)| FileSeen { path, digest }).collect())
    }

    /// Returns the paths and patterns that name no file now.
    ///
    /// # Errors
    /// A directory cannot be looked through.
    pub fn without_files(&self) -> Result<Vec<&str>, GuardError> {
        let mut empty = Vec::new();
        for pattern in &self.patterns {
            if pattern.find()?.is_empty() {
                empty.push(pattern.written.as_str());
            }
        }
        Ok(empty)
    }
}

/// Compares files with what they were.
#[must_use]
pub fn changes(before: &[FileSeen], now: &[FileSeen]) -> Vec<Change> {
    let by_path = |files: &[FileSeen]| -> BTreeMap<String, Digest> {
        files.iter().map(|file| (file.path.clone(), file.digest)).collect()
    };
    let (old, new) = (by_path(before), by_path(now));
    let gone_or_other = old.iter().filter_map(|(path, digest)| {
        let kind = match new.get(path) {
            None => ChangeKind::Removed,
            Some(now) if now != digest => ChangeKind::Changed,
            Some(_) => return None,
        };
        Some(Change { path: path.clone(), kind })
    });
    let added = new.keys().filter(|path| !old.contains_key(*path));
    let added = added.map(|path| Change { path: path.clone(), kind: ChangeKind::Added });
    gone_or_other.chain(added).collect()
}

impl Pattern {
    fn new(written: &str, directory: &Path) -> Result<Self, GuardError> {
        let wrong = |why: String| GuardError::Pattern { pattern: written.to_owned(), why };
        let text = written.strip_prefix("./").unwrap_or(written);
        if Path::new(text).components().any(|part| part == std::path::Component::ParentDir) {
            return Err(wrong("it goes up with `..`; write the path from the root".to_owned()));
        }
        let is_wild = |part: &str| part.contains(['*', '?', '[', '{']);
        if !is_wild(text) {
            let root = directory.join(text);
            return Ok(Pattern { written: written.to_owned(), root, matcher: None });
        }
        let plain: Vec<&str> = text.split('/').take_while(|part| !is_wild(part)).collect();
        let root = match plain[..] {
            // What begins with a slash begins at the root.
            [""] => PathBuf::from("/"),
            _ => directory.join(plain.join("/")),
        };
        let rest: Vec<&str> = text.split('/').skip(plain.len()).collect();
        let glob = GlobBuilder::new(&rest.join("/")).literal_separator(true).build();
        let glob = glob.map_err(|error| wrong(error.kind().to_string()))?;
        Ok(Pattern { written: written.to_owned(), root, matcher: Some(glob.compile_matcher()) })
    }

    /// Finds files and links. Links to directories are not followed; `.git` is left out.
    fn find(&self) -> Result<Vec<PathBuf>, GuardError> {
        // Named by where it really is: a directory that a link has taken the place of is another.
        let root = match self.root.canonicalize() {
            Ok(root) => root,
            Err(_) if self.root.symlink_metadata().is_ok() => return Ok(vec![self.root.clone()]),
            Err(_) => return Ok(Vec::new()),
        };
        let walker = WalkBuilder::new(&root)
            .standard_filters(false)
            .follow_links(false)
            .sort_by_file_path(Path::cmp)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        let mut found = Vec::new();
        for (n, entry) in walker.enumerate() {
            if n >= MAX_WALK_ENTRIES {
                return Err(GuardError::TooMuch(self.written.clone()));
            }
            let entry = entry.map_err(|error| GuardError::Unreadable {
                path: root.display().to_string(),
                why: error.to_string(),
            })?;
            let below = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            let matches = self.matcher.as_ref().is_none_or(|matcher| matcher.is_match(below));
            if matches && entry.file_type().is_some_and(|kind| !kind.is_dir()) {
                if found.len() >= MAX_GUARDED_FILES {
                    return Err(GuardError::TooMany(self.written.clone()));
                }
                found.push(entry.into_path());
            }
        }
        Ok(found)
    }
}

/// Digests a file. Of a link, where it leads and what is there; of what is no file, that it is none.
fn digest(path: &Path) -> Result<Digest, GuardError> {
    let unreadable = |error: &dyn std::fmt::Display| GuardError::Unreadable {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let metadata = path.symlink_metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_symlink() {
        return content(path).map_err(|error| unreadable(&why(&error)));
    }
    let target = fs::read_link(path).map_err(|error| unreadable(&error))?;
    let there = match path.canonicalize() {
        Ok(resolved) => content(&resolved).map_err(|error| unreadable(&why(&error)))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Digest::default(),
        Err(error) => return Err(unreadable(&error)),
    };
    Ok(Digest::of(format!("{}\0{there}", target.display()).as_bytes()))
}

/// Says why a file cannot be protected.
fn why(error: &FileError) -> String {
    match error {
        FileError::TooLarge { bytes, .. } => format!(
            "it has {bytes} bytes, and only files of at most {MAX_FILE_BYTES} can be protected; name what matters by \
             a pattern"
        ),
        FileError::Missing(_) | FileError::Directory(_) | FileError::Special(_) | FileError::Io { .. } => {
            error.to_string()
        }
    }
}

fn content(path: &Path) -> Result<Digest, FileError> {
    match files::read(path) {
        Ok(content) => Ok(content.digest),
        Err(FileError::Directory(_)) => Ok(Digest::of(b"a directory")),
        Err(FileError::Special(_)) => Ok(Digest::of(b"no regular file")),
        Err(error) => Err(error),
    }
}
