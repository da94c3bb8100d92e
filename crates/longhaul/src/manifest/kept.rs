//! Where a manifest has sessions kept. It is read alone as well: a command that looks at sessions needs no more
//! of a manifest, and works beside one whose other parts are at fault.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::Error;
use super::form::Store;
use super::resolve::Resolver;
use super::source::is_variable;
use super::{Document, reader};
use crate::store;

/// Where a manifest has sessions kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In a file.
    File(PathBuf),
    /// In a server's database, by its address.
    Address(String),
    /// Where this variable says.
    Variable(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::File(path) => path.display().fmt(f),
            Kept::Address(address) => f.write_str(&store::without_secrets(address)),
            Kept::Variable(name) => write!(f, "as the variable {name} says"),
        }
    }
}

/// A manifest of which nothing else is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alone {
    store: Option<Store>,
}

/// Reads where a manifest has sessions kept; `None` when it does not say.
///
/// # Errors
/// The file cannot be read or is not TOML, or what it says of the store cannot be used.
pub(crate) fn kept(path: &Path) -> Result<Option<Kept>, Error> {
    Document::read(path)?.only("store").resolved(|source, folder, faults| {
        let manifest = reader::read::<Alone>(source.root(), faults)?;
        match manifest.store {
            Some(store) => Resolver::new(source, folder, faults).store(store).map(Some),
            None => Some(None),
        }
    })
}

impl Resolver<'_> {
    pub(super) fn store(&mut self, store: Store) -> Option<Kept> {
        match (store.path, store.url, store.env) {
            (Some(path), None, None) => Some(Kept::File(self.path(&["store", "path"], &path)?)),
            (None, Some(url), None) => self.address(url),
            (None, None, Some(name)) if is_variable(&name) => Some(Kept::Variable(name)),
            (None, None, Some(_)) => {
                let hint = "write the variable's name, such as \"DATABASE_URL\"; an address is `url`";
                self.wrong(&["store", "env"], "this is no name of a variable", hint);
                None
            }
            (None, None, None) => {
                // What stands there and could not be read was told of.
                if self.source.table(&["store"]).is_some_and(|table| table.is_empty()) {
                    let hint = "write path = \"sessions.db\", or remove [store]";
                    self.wrong(&["store"], "the store has no place", hint);
                }
                None
            }
            _ => {
                let hint = "keep one of `path`, `url` and `env`";
                self.wrong(&["store"], "the store has more than one place", hint);
                None
            }
        }
    }

    fn address(&mut self, url: String) -> Option<Kept> {
        let at = ["store", "url"];
        if !store::is_address(&url) {
            let hint = "write postgres://user@host/database, or name a file with `path`";
            self.wrong(&at, "this is no address of a Postgres database", hint);
            return None;
        }
        if store::holds_password(&url) {
            let hint =
                "put the address into a variable of the environment and name it: env = \"DATABASE_URL\"";
            self.wrong(&at, "this address holds a password, which does not belong in this file", hint);
            return None;
        }
        Some(Kept::Address(url))
    }
}
