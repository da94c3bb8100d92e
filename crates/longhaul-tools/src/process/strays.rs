//! Processes that have left the group of the command they began in: found by a mark in the environment that
//! they inherit, unless they wipe it. What is not to be found is left to a sandbox.

use std::io;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use uuid::Uuid;

/// The variable that marks the processes of one command.
const VARIABLE: &str = "LONGHAUL_COMMAND";
/// What the processes of one command have in their environment, and no others.
#[derive(Clone)]
pub(super) struct Mark(String);

impl Mark {
    pub(super) fn fresh() -> Self {
        Mark(Uuid::new_v4().to_string())
    }

    /// Returns the variable's name and value.
    pub(super) fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.0)
    }

    /// Kills the processes that bear the mark now; tells whether there were any. They may have begun others meanwhile,
    /// and may take a moment to be gone.
    pub(super) fn kill_all(&self) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc") else { return false };
        let mut found = false;
        for process in processes.flatten() {
            let id = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some(id) = id
                && self.is_borne(&process.path())
            {
                // One that cannot be signalled is not looked for again.
                found |= self.kill(id, &process.path()).is_ok();
            }
        }
        found
    }

    /// Kills a process, if it is the one that bears the mark, and not one that has its number since.
    fn kill(&self, id: Pid, process: &Path) -> io::Result<()> {
        let handle = pidfd_open(id, PidfdFlags::empty())?;
        if self.is_borne(process) {
            pidfd_send_signal(&handle, Signal::KILL)?;
        }
        Ok(())
    }

    fn is_borne(&self, process: &Path) -> bool {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        let entry = format!("{VARIABLE}={}", self.0);
        environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
    }
}
