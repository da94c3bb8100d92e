//! The repository as the checks see it: its root, its crates, its files. It checks nothing.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::process::Program;

/// Folders that hold nothing of the repository's own.
const SKIPPED_FOLDERS: [&str; 3] = ["target", ".git", "node_modules"];

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// The package's name.
    pub(crate) name: String,
    /// Its folder, relative to the root.
    pub(crate) folder: String,
    /// Its `Cargo.toml` as text.
    pub(crate) text: String,
    /// The same, parsed.
    pub(crate) manifest: Table,
}

impl Member {
    /// Makes a crate from the text of its `Cargo.toml`.
    ///
    /// # Errors
    /// When the text is no manifest of a package.
    pub(crate) fn parse(folder: &str, text: String) -> Result<Self, String> {
        let manifest: Table =
            text.parse().map_err(|error| format!("{folder}/Cargo.toml is not valid: {error}"))?;
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{folder}/Cargo.toml has no package name"))?
            .to_owned();
        Ok(Member { name, folder: folder.to_owned(), text, manifest })
    }
}

/// Finds the workspace's root, from the current directory upwards.
///
/// # Errors
/// When no directory above holds a `Cargo.toml` with a `[workspace]`.
pub(crate) fn find_root() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|error| format!("no current directory: {error}"))?;
    for folder in here.ancestors() {
        if let Ok(text) = fs::read_to_string(folder.join("Cargo.toml"))
            && text.lines().any(|line| line.trim() == "[workspace]")
        {
            return Ok(folder.to_owned());
        }
    }
    Err(format!("{} is not inside a cargo workspace; run this in the repository", here.display()))
}

/// Reads a file of the repository.
///
/// # Errors
/// When it is missing or is not text.
pub(crate) fn read(root: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|error| format!("cannot read {file}: {error}"))
}

/// Reads the root's `Cargo.toml`.
///
/// # Errors
/// When it is missing or not valid.
pub(crate) fn root_manifest(root: &Path) -> Result<Table, String> {
    read(root, "Cargo.toml")?.parse().map_err(|error| format!("Cargo.toml is not valid: {error}"))
}

/// The entries of `workspace.members`, as written.
///
/// # Errors
/// When the manifest lists none.
pub(crate) fn member_patterns(manifest: &Table) -> Result<Vec<String>, String> {
    let members = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(Value::as_array)
        .ok_or("Cargo.toml lists no workspace.members")?;
    Ok(members.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Reads the workspace's crates, in the order of their folders.
///
/// # Errors
/// When a manifest is missing or not valid.
pub(crate) fn members(root: &Path) -> Result<Vec<Member>, String> {
    let mut folders = Vec::new();
    for pattern in member_patterns(&root_manifest(root)?)? {
        match pattern.strip_suffix("/*") {
            None => folders.push(pattern),
            Some(parent) => {
                let names = folder_names(&root.join(parent))?;
                folders.extend(names.into_iter().map(|name| format!("{parent}/{name}")));
            }
        }
    }
    folders.retain(|folder| root.join(folder).join("Cargo.toml").is_file());
    folders.sort();
    folders.iter().map(|folder| Member::parse(folder, read(root, &format!("{folder}/Cargo.toml"))?)).collect()
}

/// Lists the repository's files, relative to the root and sorted: what git tracks or would track,
/// or, without git, everything but build output.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn files(root: &Path) -> Result<Vec<String>, String> {
    let mut files = match files_of_git(root) {
        Some(files) => files,
        None => {
            let mut files = Vec::new();
            walk(root, "", &mut files)?;
            files
        }
    };
    files.sort();
    files.dedup();
    Ok(files)
}

/// Lists the files below `folder` with their paths relative to `root`, without build output.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn files_below(root: &Path, folder: &str) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    walk(root, folder, &mut files)?;
    Ok(files)
}

fn files_of_git(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let list = Program::new("git ls-files -z --cached --others --exclude-standard");
    let output = list.capture(root).ok().filter(|output| output.status.success())?;
    let names = String::from_utf8(output.stdout).ok()?;
    let files = names.split('\0').filter(|name| !name.is_empty() && is_plain_file(&root.join(name)));
    Some(files.map(str::to_owned).collect())
}

fn is_plain_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.is_file())
}

fn walk(root: &Path, folder: &str, files: &mut Vec<String>) -> Result<(), String> {
    let place = root.join(folder);
    let entries =
        fs::read_dir(&place).map_err(|error| format!("cannot list {}: {error}", place.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot list {}: {error}", place.display()))?;
        let kind = entry.file_type().map_err(|error| format!("cannot list {}: {error}", place.display()))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if kind.is_file() {
            files.push(path);
        } else if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

fn folder_names(place: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(place).map_err(|error| format!("cannot list {}: {error}", place.display()))?;
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    Ok(folders.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
