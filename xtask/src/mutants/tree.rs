//! The copy of the repository that mutants are tried in, and how its tests are built and run there.
//! The repository itself is never changed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use super::verdict::Run;
use crate::process::{Program, timed};
use crate::workspace;

/// Where the copy and its build output are kept, so that a second run builds only what changed.
const FOLDER: &str = "target/mutants";
/// What is copied besides the crates.
const COPIED: [&str; 4] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo"];
/// The longest one build may take, in seconds.
const MAX_BUILD_S: u64 = 1_800;
/// The longest one run of tests may take, in seconds.
const MAX_TEST_S: u64 = 300;

/// A copy of the repository, for one user at a time.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    target: String,
    /// Held for as long as the copy is used.
    _lock: File,
}

impl Tree {
    /// Copies what is needed to build the workspace's crates.
    ///
    /// # Errors
    /// When another run uses the copy, or a file cannot be copied.
    pub(super) fn copy(root: &Path) -> Result<Self, String> {
        let folder = root.join(FOLDER);
        create_folder(&folder)?;
        let lock = lock(&folder)?;
        let tree = folder.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree).map_err(|error| format!("cannot clear {}: {error}", tree.display()))?;
        }
        let patterns = workspace::member_patterns(&workspace::root_manifest(root)?)?;
        let mut parts: Vec<&str> = COPIED.to_vec();
        parts.extend(patterns.iter().filter_map(|pattern| pattern.split('/').next()));
        parts.sort_unstable();
        parts.dedup();
        for part in parts {
            if root.join(part).is_dir() {
                for file in workspace::files_below(root, part)? {
                    copy_file(root, &tree, &file)?;
                }
            } else if root.join(part).exists() {
                copy_file(root, &tree, part)?;
            }
        }
        let target = folder.join("target").display().to_string();
        Ok(Tree { root: tree, target, _lock: lock })
    }

    /// The copy's root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file of the copy and gives what it held.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn replace(&self, file: &str, text: &str) -> Result<String, String> {
        let before = workspace::read(&self.root, file)?;
        let path = self.root.join(file);
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(before)
    }

    /// Builds a crate's tests as they are; dependencies may be downloaded.
    ///
    /// # Errors
    /// When it does not build, with the compiler's words.
    pub(super) fn build_first(&self, package: &str) -> Result<(), String> {
        self.program(MAX_BUILD_S, &format!("{} --no-run", tests_of(package)))
            .run(&self.root)
            .map_err(|error| format!("{package} does not build without any mutant: {error}"))
    }

    /// Builds a crate's tests with what is there. Gives the compiler's complaint, if any.
    ///
    /// # Errors
    /// When the compiler cannot be started.
    pub(super) fn build(&self, package: &str) -> Result<Option<String>, String> {
        let line = format!("{} --offline --no-run", tests_of(package));
        let output = self.program(MAX_BUILD_S, &line).capture(&self.root)?;
        Ok((!output.status.success()).then(|| first_error(&output)))
    }

    /// Runs the tests of a crate whose names contain one of the words of `filter`.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(super) fn test(&self, package: &str, filter: &str) -> Result<Run, String> {
        let line = format!("{} --offline -- {filter}", tests_of(package));
        let program = self.program(MAX_TEST_S, &line);
        let (output, duration) = timed(|| program.capture(&self.root));
        let output = output?;
        let success = output.status.success();
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rfind(|line| !line.trim().is_empty());
        Ok(Run {
            success,
            timed_out: !success && duration >= Duration::from_secs(MAX_TEST_S),
            complaint: last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    }

    /// A program with a time limit. `timeout` keeps it even when we are stopped ourselves, and
    /// ends the tests' processes along with cargo.
    fn program(&self, limit_s: u64, line: &str) -> Program {
        Program::new(&format!("timeout --kill-after=10 {limit_s} {line}"))
            .variable("CARGO_TARGET_DIR", &self.target)
            .variable("CARGO_TERM_COLOR", "never")
            .variable("INSTA_UPDATE", "no")
            .variable("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
    }
}

fn tests_of(package: &str) -> String {
    format!("cargo test -p {package} --test it --locked")
}

fn first_error(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().find(|line| line.starts_with("error"));
    line.map_or_else(|| output.status.to_string(), str::to_owned)
}

fn lock(folder: &Path) -> Result<File, String> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(format!("another run of the mutants uses {}; wait for it", folder.display()))
        }
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

fn create_folder(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))
}

fn copy_file(from: &Path, to: &Path, file: &str) -> Result<(), String> {
    let target = to.join(file);
    if let Some(folder) = target.parent() {
        create_folder(folder)?;
    }
    fs::copy(from.join(file), &target).map_err(|error| format!("cannot copy {file}: {error}"))?;
    Ok(())
}
