//! Finds the server's programs, and the user they may run as. Starting them is left to `server`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian and its relatives put each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Returns the directory of the newest installed server's programs; installs the package where that is
/// possible.
pub(crate) fn find() -> Result<PathBuf, String> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let missing = "the tests need a Postgres server, and none is installed: install it (on Debian: apt-get \
                   install postgresql), put its programs (initdb, pg_ctl) on the PATH, or name a running \
                   server in LONGHAUL_TEST_POSTGRES_URL";
    if !is_root() {
        return Err(missing.to_owned());
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends", "postgresql"]);
    install.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    match install.status() {
        Ok(status) if status.success() => installed().ok_or_else(|| missing.to_owned()),
        Ok(status) => Err(format!("{missing}; `apt-get install postgresql` ended with {status}")),
        Err(_) => Err(missing.to_owned()),
    }
}

fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .filter(|(_, programs)| is_complete(programs))
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs).or_else(on_path)
}

#[expect(clippy::disallowed_methods, reason = "programs are looked for where a shell would")]
fn on_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).find(|programs| is_complete(programs))
}

fn is_complete(programs: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|name| programs.join(name).is_file())
}

/// Returns a command that runs a shell script as a user the server accepts: it refuses to run as root.
pub(crate) fn shell(script: &str) -> Result<Command, String> {
    if !is_root() {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        return Ok(shell);
    }
    let user = ["postgres", "nobody"].into_iter().find(|user| works(Command::new("id").arg(user))).ok_or(
        "Postgres does not run as root, and there is neither a user `postgres` nor `nobody`: run the tests \
         as another user",
    )?;
    let group = Command::new("id").args(["-g", user]).output().map_err(|error| error.to_string())?;
    let group = String::from_utf8_lossy(&group.stdout).trim().to_owned();
    let mut shell = Command::new("setpriv");
    shell.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).args(["--clear-groups", "--"]);
    if !works(Command::new("setpriv").arg("--version")) {
        shell = Command::new("runuser");
        shell.args(["-u", user, "--"]);
    }
    shell.args(["sh", "-c", script]);
    Ok(shell)
}

/// Returns a directory in which that user may make its own.
pub(crate) fn place() -> PathBuf {
    // Root's own temporary directory may be closed to others.
    if is_root() { PathBuf::from("/tmp") } else { std::env::temp_dir() }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
