//! Which paths an agent may read and write: rules over resolved paths, and the resolving of paths.
//!
//! Resolving follows every symbolic link there is, so a link never leads out of the scope. That the
//! path is still the same one when it is opened is the business of whoever opens it.

use std::io;
use std::path::{Path, PathBuf};

use longhaul_session::agent::{Permission, ScopeEffect, ScopeRule};

/// The rules of one agent, bound to its working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    directory: PathBuf,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    effect: ScopeEffect,
    target: PathBuf,
    permission: Permission,
    recursive: bool,
}

/// Why a path may not be used.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The rules do not allow it.
    #[error("{path} may not be {verb}: it is outside the scope of this agent. {summary}")]
    Denied {
        /// The resolved path.
        path: String,
        /// What was to be done with it.
        verb: &'static str,
        /// What the scope allows.
        summary: String,
    },
    /// A symbolic link on the way leads to nothing.
    #[error("{0} is a symbolic link to something that does not exist. Name the file itself.")]
    Dangling(String),
    /// `..` follows a directory that does not exist.
    #[error("{0} goes up from a directory that does not exist. Write the path without \"..\".")]
    Upwards(String),
    /// The path leads to a name that is not UTF-8.
    #[error("{0} leads to a name that is not UTF-8, which cannot be used here. Rename it.")]
    NotUtf8(String),
    /// The operating system could not resolve the path.
    #[error("{path} cannot be resolved: {source}. Check the path.")]
    Unresolved {
        /// The path as it was given.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Scope {
    /// Binds rules to a working directory, which must be canonical. Relative targets are relative to
    /// it. Without rules, the directory and everything below it may be read and written, and nothing
    /// else.
    ///
    /// # Errors
    /// [`ScopeError`], when the target of a rule cannot be resolved.
    pub fn new(rules: &[ScopeRule], directory: &Path) -> Result<Self, ScopeError> {
        let rules = if rules.is_empty() {
            vec![Rule {
                effect: ScopeEffect::Allow,
                target: directory.to_owned(),
                permission: Permission::Write,
                recursive: true,
            }]
        } else {
            rules.iter().map(|rule| bind(rule, directory)).collect::<Result<_, _>>()?
        };
        Ok(Scope { directory: directory.to_owned(), rules })
    }

    /// Returns what may be done with a resolved path; `None`: nothing.
    ///
    /// The rules that name the path, or recursively a directory above it, count: it is granted the
    /// highest level allowed, capped strictly below the lowest level denied.
    #[must_use]
    pub fn level(&self, resolved: &Path) -> Option<Permission> {
        let mut granted = None;
        let mut cap = Some(Permission::Write);
        for rule in self.rules.iter().filter(|rule| rule.names(resolved)) {
            match rule.effect {
                ScopeEffect::Allow => granted = granted.max(Some(rule.permission)),
                ScopeEffect::Deny => cap = cap.min(below(rule.permission)),
            }
        }
        granted.min(cap)
    }

    /// Tells whether a rule says that a resolved path may not be read, whatever is allowed.
    #[must_use]
    pub fn forbids_reading(&self, resolved: &Path) -> bool {
        self.rules.iter().any(|rule| {
            (rule.effect, rule.permission) == (ScopeEffect::Deny, Permission::Read) && rule.names(resolved)
        })
    }

    /// Resolves a path, relative to the working directory: it holds no link.
    pub(crate) fn resolved(&self, path: &str) -> Result<PathBuf, ScopeError> {
        resolve(&self.directory, path)
    }

    /// Resolves a path, relative to the working directory, and checks that it may be used so.
    ///
    /// # Errors
    /// [`ScopeError`], when it cannot be resolved or may not be used.
    pub fn check(&self, path: &str, permission: Permission) -> Result<PathBuf, ScopeError> {
        let resolved = resolve(&self.directory, path)?;
        self.require(&resolved, permission)?;
        Ok(resolved)
    }

    /// Checks that a resolved path may be used so.
    ///
    /// # Errors
    /// [`ScopeError::Denied`], when it may not.
    pub fn require(&self, resolved: &Path, permission: Permission) -> Result<(), ScopeError> {
        if self.level(resolved) >= Some(permission) {
            return Ok(());
        }
        let verb = match permission {
            Permission::Read => "read",
            Permission::Write => "written",
        };
        Err(ScopeError::Denied { path: resolved.display().to_string(), verb, summary: self.summary() })
    }

    /// Tells a model what it may do with which paths.
    #[must_use]
    pub fn summary(&self) -> String {
        let rules: Vec<String> = self.rules.iter().map(Rule::describe).collect();
        format!(
            "File tools may use only these paths: {}. Where rules disagree, the stricter one holds. \
             Commands run by `bash` are not confined by these rules; keep to them there as well.",
            rules.join("; ")
        )
    }
}

impl Rule {
    fn names(&self, path: &Path) -> bool {
        if self.recursive { path.starts_with(&self.target) } else { path == self.target }
    }

    fn describe(&self) -> String {
        let verb = match (self.effect, self.permission) {
            (ScopeEffect::Allow, Permission::Read) => "read",
            (ScopeEffect::Allow, Permission::Write) => "read and write",
            (ScopeEffect::Deny, Permission::Read) => "never read or write",
            (ScopeEffect::Deny, Permission::Write) => "never write",
        };
        let reach = if self.recursive { " and everything below it" } else { " itself" };
        format!("{verb} {}{reach}", self.target.display())
    }
}

/// Returns the level strictly below one.
fn below(permission: Permission) -> Option<Permission> {
    match permission {
        Permission::Read => None,
        Permission::Write => Some(Permission::Read),
    }
}

fn bind(rule: &ScopeRule, directory: &Path) -> Result<Rule, ScopeError> {
    Ok(Rule {
        effect: rule.effect,
        target: resolve(directory, &rule.target)?,
        permission: rule.permission,
        recursive: rule.recursive,
    })
}

/// Resolves a path to one without links, `.` or `..`. Of a path that does not exist, the nearest
/// ancestor that does is resolved; the names after it are kept as they are.
fn resolve(directory: &Path, given: &str) -> Result<PathBuf, ScopeError> {
    let joined = directory.join(given);
    let mut existing = joined.as_path();
    let mut missing = Vec::new();
    let mut resolved = loop {
        match existing.canonicalize() {
            Ok(path) => break path,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                // A link to nothing would be followed by whoever creates the file.
                if existing.symlink_metadata().is_ok() {
                    return Err(ScopeError::Dangling(existing.display().to_string()));
                }
                let (Some(name), Some(parent)) = (existing.file_name(), existing.parent()) else {
                    return Err(ScopeError::Upwards(given.to_owned()));
                };
                missing.push(name);
                existing = parent;
            }
            Err(source) => return Err(ScopeError::Unresolved { path: given.to_owned(), source }),
        }
    };
    resolved.extend(missing.iter().rev());
    if resolved.to_str().is_none() {
        return Err(ScopeError::NotUtf8(given.to_owned()));
    }
    Ok(resolved)
}
