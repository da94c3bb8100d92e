//! A shell and all that it starts, as one process group; and the watcher that outlives us.
//! What leaves the group is left to `strays`.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use super::strays::Mark;
use crate::limits::{GROUP_POLL, REAP_GRACE};
use crate::tool::CallContext;

/// Parts of the names of variables that hold secrets.
const SECRETS: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"];

/// Reads the group's id and a line of the environment of all its processes, then waits for the end of its input,
/// which comes when this process dies. Then it ends the group, and what has left the group.
const WATCH: &str = "read -r group && read -r mark || exit; read -r end; kill -9 \"-$group\"
for process in /proc/[0-9]*; do
    grep -qzxF -e \"$mark\" \"$process/environ\" && kill -9 \"${process#/proc/}\"
done";

/// Waits for leave to begin, then becomes the shell that runs the command. Without it, it ends.
const BEGIN: &str = "read -r _ || exit; \
                     command -v bash >/dev/null && exec bash -c \"$1\" </dev/null; exec sh -c \"$1\" </dev/null";

/// How often processes outside the group are looked for where nobody can wait.
const DROP_ROUNDS: u32 = 5;

/// A running shell, the leader of its group.
pub(super) struct Group {
    leader: Child,
    id: Pid,
    mark: Mark,
    watcher: Child,
    /// Its closing is what the watcher waits for.
    alive: PipeWriter,
    closed: bool,
}

impl Group {
    /// Starts a shell that runs a command and writes to `output`.
    pub(super) fn start(command: &str, output: PipeWriter, cx: &CallContext) -> io::Result<Self> {
        let (input, alive) = io::pipe()?;
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH]).current_dir("/").stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
        let watcher = watch.process_group(0).kill_on_drop(true).spawn()?;
        let mark = Mark::fresh();
        let (leave, mut give_leave) = io::pipe()?;
        let leader = shell(command, leave, output, &mark, cx)?.spawn()?;
        let id = leader.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.expect("a child that was not waited for has an id");
        let (name, value) = mark.variable();
        let told = format!("{}\n{name}={value}\n", id.as_raw_nonzero());
        let mut group = Group { leader, id, mark, watcher, alive, closed: false };
        group.alive.write_all(told.as_bytes())?;
        // Only now: should this process die before, nobody would end what the command has begun.
        writeln!(give_leave)?;
        Ok(group)
    }

    /// Waits for the shell's end, and reaps it. May be asked again.
    pub(super) async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.leader.wait().await
    }

    /// Tells whether any process of the group still runs.
    pub(super) async fn lives(&self) -> bool {
        let id = self.id;
        test_kill_process_group(id).is_ok()
            && tokio::task::spawn_blocking(move || has_living_member(id)).await.unwrap_or(true)
    }

    /// Waits until no process of the group runs any more.
    pub(super) async fn gone(&mut self) {
        let mut poll = interval(GROUP_POLL);
        while self.lives().await {
            // Not yet reaped, the shell itself may count as one that runs.
            let _ = self.leader.try_wait();
            poll.tick().await;
        }
    }

    /// Asks every process of the group to end, the suspended ones too.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// Ends every process of the group.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Ends every process that was begun in the group, also where it has left it since.
    pub(super) async fn kill_with_strays(&self) {
        self.kill();
        let gone = async {
            let mut poll = interval(GROUP_POLL);
            loop {
                poll.tick().await;
                let mark = self.mark.clone();
                if !tokio::task::spawn_blocking(move || mark.kill_all()).await.unwrap_or(false) {
                    return;
                }
            }
        };
        let _ = timeout(REAP_GRACE, gone).await;
    }

    /// Reaps the shell and the watcher. A process that even KILL does not end at once is left to the
    /// runtime to reap.
    pub(super) async fn close(&mut self) {
        let _ = timeout(REAP_GRACE, self.leader.wait()).await;
        let _ = timeout(REAP_GRACE, self.watcher.kill()).await;
        self.closed = true;
    }

    fn signal(&self, signal: Signal) {
        // It fails when the group is gone, which is what was wanted.
        let _ = kill_process_group(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.closed {
            self.kill();
            // Nobody waits here, so what they begin meanwhile is looked for at once.
            let _ = (0..DROP_ROUNDS).all(|_| self.mark.kill_all());
        }
    }
}

fn shell(
    command: &str,
    leave: PipeReader,
    output: PipeWriter,
    mark: &Mark,
    cx: &CallContext,
) -> io::Result<Command> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", BEGIN, "sh", command])
        .current_dir(&cx.workspace.directory)
        .stdin(leave)
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if is_secret(&name.to_string_lossy()) {
            shell.env_remove(name);
        }
    }
    // Its name looks like a secret's too, so it comes last.
    shell.env("LONGHAUL_IDEMPOTENCY_KEY", cx.key.to_string());
    let (name, value) = mark.variable();
    shell.env(name, value);
    Ok(shell)
}

/// Tells by its name whether a variable of the environment may hold a secret. Commands are not given those.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let upper = name.to_uppercase();
    SECRETS.iter().any(|part| upper.contains(part))
}

/// Looks for a process of the group that has not ended. One that has, but was not reaped by whoever
/// inherited it, cannot be told from a living one by signals. Where there is no `/proc`, it counts.
fn has_living_member(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    let mut known = false;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        known = true;
        // The name before the last parenthesis may hold anything; then follow state, parent, group.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let (state, in_group) = (fields.next(), fields.nth(1) == Some(&group.as_raw_nonzero().to_string()));
        if in_group && !matches!(state, Some("Z" | "X")) {
            return true;
        }
    }
    !known
}
