//! Finds the server's programs, and the user they may run as. Starting them is left to `server`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian and its relatives put each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";

const MISSING: &str = "the tests need a Postgres server, and none is installed: install it (on Debian: apt-get \
                       install postgresql), put its programs (initdb, pg_ctl) on the PATH, or name a running \
                       server in LONGHAUL_TEST_POSTGRES_URL";

/// Returns the directory of the newest installed server's programs; installs the package where that is
/// possible.
pub(crate) fn find() -> Result<PathBuf, String> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let tried = if is_root() { install("apt-get") } else { Err("only root can install it".to_owned()) };
    // Another process may have installed it meanwhile.
    installed().ok_or_else(|| match tried {
        Ok(()) => format!("{MISSING}. The package was installed and has no such programs"),
        Err(problem) => format!("{MISSING}. It was not installed by itself: {problem}"),
    })
}

/// Installs the package. The lists of packages are fetched first: a fresh machine has none, and old ones name
/// versions that are gone.
fn install(apt_get: &str) -> Result<(), String> {
    let stale = apt(apt_get, "update").err();
    apt(apt_get, "install --yes --no-install-recommends postgresql").map_err(|problem| match stale {
        Some(stale) => format!("{stale}; {problem}"),
        None => problem,
    })
}

fn apt(apt_get: &str, line: &str) -> Result<(), String> {
    let mut command = Command::new(apt_get);
    command.args(["-o", "DPkg::Lock::Timeout=60"]).args(line.split(' '));
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let ended = command.output().map_err(|error| format!("`{apt_get}` cannot be started: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(format!("`{apt_get} {line}` ended with {}: {}", ended.status, said.trim()))
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use uuid::Uuid;

    use super::install;

    /// A program in the place of `apt-get`, gone with this value.
    struct Script(PathBuf);

    impl Script {
        fn new(script: &str) -> Self {
            let path = std::env::temp_dir().join(format!("apt-get-{}", Uuid::new_v4()));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            Script(path)
        }

        fn install(&self) -> Result<(), String> {
            install(self.0.to_str().unwrap())
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    // One test: a script that is being written cannot be started, and another test may just start its own.
    #[test]
    fn the_lists_are_fetched_first_and_what_fails_is_told_in_the_words_of_its_tool() {
        let obedient = Script::new(r#"[ "$3" = update ] && touch "$0.lists" || rm "$0.lists""#);
        obedient.install().unwrap();
        // Old lists may do.
        Script::new(r#"[ "$3" = install ]"#).install().unwrap();
        let offline = Script::new(r#"echo "no route for $3" >&2; exit 100"#).install().unwrap_err();
        assert!(offline.contains("no route for update"), "{offline}");
        assert!(offline.contains("no route for install"), "{offline}");
        assert!(install("/nowhere/apt-get").unwrap_err().contains("cannot be started"));
    }
}
