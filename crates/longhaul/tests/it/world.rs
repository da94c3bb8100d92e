//! A place for sessions, a directory to work in, and the program run in them. What a run must do is left to the tests.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use longhaul_test_postgres::Database;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::kept::Kept;

/// How long anything may take, on a machine that has much else to do.
const BOUND: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// A place for sessions and a directory to work in, removed at the end.
pub(crate) struct World {
    root: TempDir,
    pub(crate) kept: Kept,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; the negative number of the signal that ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A run under way. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    read: usize,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = TempDir::with_prefix("longhaul-it-").unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        let kept = Kept::below(&root.path().canonicalize().unwrap());
        World { root, kept }
    }

    /// A world for tests that wait until a lease is over by its time.
    pub(crate) fn with_short_leases() -> Self {
        World::new().losing_the_dead_soon()
    }

    /// The same world with leases of 8 s, where there are any.
    pub(crate) fn losing_the_dead_soon(self) -> Self {
        World { kept: self.kept.with_short_leases(), ..self }
    }

    /// The same world, in which a process may get no turn, or no answer, for minutes and keeps its sessions.
    pub(crate) fn losing_nobody(self) -> Self {
        World { kept: self.kept.with_long_leases(), ..self }
    }

    /// A world whose sessions are kept in this database, wherever those of other worlds are.
    pub(crate) fn in_database(database: Database) -> Self {
        World { kept: Kept::Server(database, ""), ..World::new() }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Returns the path of a file of the directory to work in.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.path("work").join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Returns the program in the root, with an environment that has only what every user's has.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(&[]);
        self.kept.tell(&mut command);
        command.args(args);
        command
    }

    /// Returns the program in the root, without a home being named.
    pub(crate) fn bare(&self, args: &[&str]) -> Command {
        self.other(env!("CARGO_BIN_EXE_longhaul"), args)
    }

    /// Returns any program in the root, with the same environment.
    pub(crate) fn other(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env_clear().env("PATH", path).env("TZ", "UTC").env("HOME", self.root());
        command.current_dir(self.root()).args(args);
        command
    }

    /// Returns the program as one that a terminal's end reaches: where the tests themselves are to outlive theirs, it
    /// would not.
    pub(crate) fn in_terminal(&self, args: &[&str]) -> Command {
        let mut command = self.other("env", &["--default-signal=HUP", env!("CARGO_BIN_EXE_longhaul")]);
        self.kept.tell(&mut command);
        command.args(args);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.start(args).finish()
    }

    /// Runs the program to its end, which must be a success.
    pub(crate) fn succeed(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}: {}", ran.stdout);
        ran.stdout
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Makes a session with this script that no process drives yet. Returns its id.
    pub(crate) fn create(&self, script: &str, args: &[&str]) -> String {
        self.write("script.toml", script);
        let all = [&["run", "--script", "script.toml", "--dir", "work", "--detach", "go"], args].concat();
        self.succeed(&all).trim().to_owned()
    }

    /// Lets workers count as dead whose processes have ended, and waits until none counts as alive.
    pub(crate) fn until_all_are_dead(&self) {
        self.kept.end_leases_of_the_dead();
        until("all workers are dead", || {
            let top: Value = serde_json::from_str(&self.succeed(&["--json", "top"])).unwrap();
            top["workers"].as_array().unwrap().iter().all(|worker| worker["alive"] == false)
        });
    }

    /// Returns a session's overview.
    pub(crate) fn show(&self, session: &str) -> Value {
        serde_json::from_str(&self.succeed(&["--json", "show", session])).unwrap()
    }

    /// Returns a session's entries as they are printed for programs.
    pub(crate) fn log(&self, session: &str) -> Vec<Value> {
        let text = self.succeed(&["--json", "log", session]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the kinds of a session's entries.
    pub(crate) fn kinds(&self, session: &str) -> Vec<String> {
        let kind = |entry: &Value| entry["record"]["fact"]["kind"].as_str().unwrap().to_owned();
        self.log(session).iter().map(kind).collect()
    }
}

impl Running {
    pub(crate) fn start(command: Command) -> Self {
        Running::start_into(command, Stdio::piped())
    }

    /// Starts a program whose output goes elsewhere.
    pub(crate) fn start_into(mut command: Command, stdout: impl Into<Stdio>) -> Self {
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map_or_else(|| channel().1, collect);
        let stderr = collect(child.stderr.take().unwrap());
        Running { child, stdout, stderr, seen: Vec::new(), read: 0 }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the output holds a text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.output().contains(text) {
            if !self.take_more(BOUND) {
                let rest: Vec<u8> = self.stderr.iter().flatten().collect();
                let rest = String::from_utf8_lossy(&rest);
                panic!("the program ended without saying {text:?}:\n{}\n{rest}", self.output());
            }
        }
    }

    /// Returns the next whole line; `None` after the last.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.ready_line() {
                return Some(line);
            }
            if !self.take_more(BOUND) {
                return None;
            }
        }
    }

    /// Returns the next whole line if it is there already.
    pub(crate) fn ready_line(&mut self) -> Option<String> {
        loop {
            let rest = &self.seen[self.read..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(rest[..end].to_vec()).unwrap();
                self.read += end + 1;
                return Some(line);
            }
            self.seen.extend(self.stdout.try_recv().ok()?);
        }
    }

    /// Waits for the end, and returns all that was written.
    pub(crate) fn finish(mut self) -> Ran {
        while self.take_more(BOUND) {}
        let mut errors = Vec::new();
        while let Ok(bytes) = self.stderr.recv_timeout(BOUND) {
            errors.extend(bytes);
        }
        let status = self.wait();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
        Ran {
            code: status.code().unwrap_or(-signal),
            stdout: self.output(),
            stderr: String::from_utf8(errors).unwrap(),
        }
    }

    /// Ends the program with SIGKILL and returns the lines that were not read yet.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.wait();
        std::iter::from_fn(|| self.next_line()).collect()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it was waited for")
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    fn take_more(&mut self, bound: Duration) -> bool {
        match self.stdout.recv_timeout(bound) {
            Ok(bytes) => {
                self.seen.extend(bytes);
                true
            }
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("nothing more is said after:\n{}", self.output()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            // Fails when nobody wants to know any more.
            let _ = sender.send(buffer[..bytes].to_vec());
        }
    });
    receiver
}

/// Waits until something is so that no output tells of.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..BOUND.as_millis() / POLL.as_millis() {
        if is_so() {
            return;
        }
        pause(POLL);
    }
    panic!("for {BOUND:?} it was not so that {what}");
}

/// Tells whether a process has ended, also when nobody has reaped it.
pub(crate) fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the last parenthesis may hold anything; then follows the state.
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.starts_with(" Z"))
}

/// Waits until a file holds a text.
pub(crate) fn until_file_says(path: &Path, text: &str) {
    let says = || std::fs::read_to_string(path).is_ok_and(|found| found.contains(text));
    until(&format!("{} says {text:?}", path.display()), says);
}

#[expect(clippy::disallowed_methods, reason = "another process cannot be given a clock of ours")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
