//! What the program takes from its environment: read here, once, and nowhere else.

use std::ffi::OsString;
use std::path::PathBuf;

use longhaul_model::Secret;
use tracing_subscriber::EnvFilter;

use crate::cli::When;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns where sessions are kept, if the environment says so.
pub(crate) fn chosen_home() -> Option<PathBuf> {
    variable("LONGHAUL_HOME")
}

/// Returns where sessions are kept when nothing says so.
pub(crate) fn usual_home() -> anyhow::Result<PathBuf> {
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let below_home = || home_directory().map(|home| home.join(".local/share"));
    let data = data.or_else(below_home).ok_or_else(|| {
        anyhow::anyhow!("there is no place for sessions: neither HOME nor LONGHAUL_HOME is set; use --home")
    })?;
    Ok(data.join("longhaul"))
}

/// Returns which database sessions are kept in, if the environment says so.
pub(crate) fn store() -> Option<String> {
    // What is no text names no database; it is shown as well as it can be when it is refused.
    variable("LONGHAUL_STORE").map(|value| value.to_string_lossy().into_owned())
}

/// Returns where configuration is kept, if the environment says so.
pub(crate) fn configuration_home() -> Option<PathBuf> {
    let set = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    set.or_else(|| home_directory().map(|home| home.join(".config")))
}

/// Returns what `~` stands for.
pub(crate) fn home_directory() -> Option<PathBuf> {
    variable("HOME")
}

/// Returns a variable that a configuration names for its key; `None` when it is not set, or empty.
pub(crate) fn secret(name: &str) -> Option<OsString> {
    variable(name).map(PathBuf::into_os_string)
}

/// Returns what stands in variables whose names say that it is secret.
pub(crate) fn secrets() -> Vec<Secret> {
    let named = std::env::vars_os().filter(|(name, _)| longhaul_tools::is_secret(&name.to_string_lossy()));
    named.map(|(_, value)| Secret::new(value.to_string_lossy())).collect()
}

/// Returns a directory for temporary files.
pub(crate) fn temporary_directory() -> PathBuf {
    variable("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// Returns whether a program of that name is on the path.
pub(crate) fn has_program(name: &str) -> bool {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// Sends traces to standard error; `LONGHAUL_LOG` says which, warnings of none by default.
pub(crate) fn set_up_tracing() {
    let wanted = variable("LONGHAUL_LOG").and_then(|value| value.into_os_string().into_string().ok());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("off")).unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Decides about colours for all output of the process.
pub(crate) fn set_up_colours(when: When) {
    match when {
        // The default looks at the terminal, NO_COLOR and CLICOLOR_FORCE.
        When::Auto => {}
        When::Always => anstream::ColorChoice::Always.write_global(),
        When::Never => anstream::ColorChoice::Never.write_global(),
    }
}
