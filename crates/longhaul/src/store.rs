//! Which database sessions are kept in, how it is opened, and what it is called where people read it: without
//! the passwords of its address.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use longhaul_store::{PostgresStore, SqliteStore, Store, postgres};

use crate::cli::Options;
use crate::environment;
use crate::manifest::{self, Kept};

/// The name of the database in its home.
const DATABASE: &str = "sessions.db";
/// What may be said of a store.
const FORMS: &str = "give a path, sqlite:PATH, or postgres://user:password@host/database";

/// A store that was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The file in a home, which is made if there is none.
    Home(PathBuf),
    /// A file, whose directory is there.
    File(PathBuf),
    /// A server's database, by its address.
    Postgres(String),
}

/// A store that was opened.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept_in: String,
    /// Other machines may have it too.
    pub(crate) shared: bool,
}

/// Chooses a store: what the command line says goes before what the environment says, and that before what a
/// manifest says.
pub(crate) fn choose(options: &Options, manifest: Option<&Path>) -> anyhow::Result<Choice> {
    if let Some(text) = &options.store {
        return parse(text).context("--store names no database");
    }
    if let Some(home) = &options.home {
        return Ok(Choice::Home(home.clone()));
    }
    if let Some(text) = environment::store() {
        return parse(&text).context("LONGHAUL_STORE names no database");
    }
    if let Some(home) = environment::chosen_home() {
        return Ok(Choice::Home(home));
    }
    match manifest {
        Some(manifest) => said_by(manifest),
        None => Ok(Choice::Home(environment::usual_home()?)),
    }
}

/// Returns the store that a manifest names, if it names any.
fn said_by(manifest: &Path) -> anyhow::Result<Choice> {
    match manifest::kept(manifest)
        .context("where sessions are kept is not known; name a store with --store")?
    {
        Some(Kept::File(path)) => Ok(Choice::File(path)),
        Some(Kept::Address(address)) => Ok(Choice::Postgres(address)),
        Some(Kept::Variable(name)) => {
            let said = environment::secret(&name).with_context(|| {
                format!(
                    "the variable {name}, which {} names for the store, is not set; set it to an address, or name \
                     a store with --store",
                    manifest.display()
                )
            })?;
            parse(&said.to_string_lossy()).with_context(|| format!("{name} names no database"))
        }
        None => Ok(Choice::Home(environment::usual_home()?)),
    }
}

/// Tells whether a text is the address of a server's database.
pub(crate) fn is_address(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// Tells whether an address holds a password, or may: it is not known where what stands before an `@` ends.
pub(crate) fn holds_password(address: &str) -> bool {
    let (_, rest) = address.split_once("://").unwrap_or_default();
    rest.rsplit_once('@').is_some_and(|(user, _)| user.contains([':', '?'])) || rest.contains("password=")
}

/// Reads what names a store. An address may hold a password, so it is never repeated.
fn parse(text: &str) -> anyhow::Result<Choice> {
    if is_address(text) {
        return Ok(Choice::Postgres(text.to_owned()));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        bail!("an address that begins with {scheme}:// is not one Longhaul knows; {FORMS}");
    }
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        bail!("two slashes follow the colon of an address; {FORMS}");
    }
    let path = text.strip_prefix("sqlite:").unwrap_or(text);
    if path.trim().is_empty() {
        bail!("it is empty; {FORMS}");
    }
    Ok(Choice::File(path.into()))
}

/// Opens a store.
pub(crate) async fn open(choice: Choice) -> anyhow::Result<Opened> {
    match choice {
        Choice::Home(home) => {
            std::fs::create_dir_all(&home).with_context(|| {
                format!(
                    "the home of the sessions, {}, cannot be made; use --home for another",
                    home.display()
                )
            })?;
            let home = home.canonicalize().unwrap_or(home);
            let store = SqliteStore::open(home.join(DATABASE))?;
            Ok(Opened { store: Arc::new(store), kept_in: home.display().to_string(), shared: false })
        }
        Choice::File(path) => {
            let store = SqliteStore::open(&path)?;
            let path = path.canonicalize().unwrap_or(path);
            Ok(Opened { store: Arc::new(store), kept_in: path.display().to_string(), shared: false })
        }
        Choice::Postgres(address) => {
            let store = PostgresStore::open(&address, postgres::Options::default()).await?;
            Ok(Opened { store: Arc::new(store), kept_in: without_secrets(&address), shared: true })
        }
    }
}

/// Returns where a server's database is: neither who signs on, nor options, which may hold a password too.
pub(crate) fn without_secrets(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or_default();
    let (before, after) = rest.split_once('@').unwrap_or(("", rest));
    // Nobody can tell whether the @ is in an option or the ? in a password.
    let host = if before.contains('?') { "…" } else { after.split('?').next().unwrap_or_default() };
    format!("{scheme}://{}", host.rsplit('@').next().unwrap_or_default())
}

/// Makes a store that ends with the program.
pub(crate) fn in_memory() -> anyhow::Result<Opened> {
    let store = Arc::new(SqliteStore::in_memory()?);
    Ok(Opened { store, kept_in: "memory".to_owned(), shared: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_a_path_or_an_address() {
        for (text, path) in [("x.db", "x.db"), ("sqlite:/a/b.db", "/a/b.db"), ("sqlite:x", "x")] {
            assert_eq!(parse(text).unwrap(), Choice::File(path.into()));
        }
    }

    #[test]
    fn an_address_is_shown_without_what_is_secret() {
        for (address, shown) in [
            ("postgres://me:hush@host:5432/db?sslmode=require", "postgres://host:5432/db"),
            ("postgresql://host/db?user=me&password=hush", "postgresql://host/db"),
            ("postgresql://host/db?user=me&password=hush@1", "postgresql://…"),
            ("postgres://me:hu@hush@host/db", "postgres://host/db"),
            ("postgres://me:hush?@host/db", "postgres://…"),
        ] {
            assert_eq!(parse(address).unwrap(), Choice::Postgres(address.to_owned()));
            assert_eq!(without_secrets(address), shown);
        }
    }

    #[test]
    fn a_password_is_found_wherever_it_stands_in_an_address() {
        for (address, holds) in [
            ("postgres://host/db", false),
            ("postgres://me@host:5432/db?sslmode=require", false),
            ("postgres://me:hush@host/db", true),
            ("postgres://host/db?user=me&password=hush", true),
            ("postgres://me:hu@hush@host/db", true),
            ("postgres://host/db?sslpassword=hush", true),
        ] {
            assert_eq!(holds_password(address), holds, "{address}");
        }
    }

    #[test]
    fn what_names_no_store_is_refused_without_its_password() {
        for text in [
            "mysql://me:secret@host/db",
            "postgres:me:secret@host/db",
            "postgresql:/me:secret@host/db",
            "sqlite:",
            "",
            " ",
            "sqlite://me:secret@host",
        ] {
            let said = format!("{:#}", parse(text).unwrap_err());
            assert!(said.contains(FORMS) && !said.contains("secret"), "{said}");
        }
    }
}
