//! A private server: started in a temporary directory, stopped and removed with its owner.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::programs;

/// The shell script that runs a server for as long as its input is open.
const SCRIPT: &str = include_str!("server.sh");

/// Another process may take the free port before the server does.
const PORT_TRIES: usize = 5;

/// The ports that servers are given, without those that the system gives to whoever asks for any.
const PORTS: Range<u16> = 10_000..65_535;
/// As many of them are enough for servers not to meet.
const ENOUGH_PORTS: usize = 1_000;

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Commits reach the disk, as they do in production. Tests that do not cut the power need not wait for it.
    pub durable: bool,
    /// A certificate and its key (PEM): with it, the server offers TLS.
    pub certificate: Option<(String, String)>,
}

/// A private server on this machine.
#[derive(Debug)]
pub struct Server {
    port: u16,
    password: String,
    script: Mutex<Script>,
}

/// The script that runs it.
#[derive(Debug)]
struct Script {
    process: Child,
    /// Closed to end it.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// Says what is missing and what to do about it.
    pub fn start(settings: &Settings) -> Result<Self, String> {
        let programs = programs::find()?;
        let password = Uuid::new_v4().simple().to_string();
        let mut complaint = String::new();
        for _ in 0..PORT_TRIES {
            let port = free_port()?;
            let mut command = programs::shell(SCRIPT)?;
            let (certificate, key) = settings.certificate.clone().unwrap_or_default();
            command
                .env("CERTIFICATE", certificate)
                .env("KEY", key)
                .env("BIN", &programs)
                .env("PLACE", programs::place())
                .env("PASSWORD", &password)
                .env("SETTINGS", configuration(port, settings))
                .current_dir("/")
                // A signal to the tests' process group is not for the server: it ends with its input.
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut process =
                command.spawn().map_err(|error| format!("cannot start a Postgres server: {error}"))?;
            let input = process.stdin.take();
            let output = BufReader::new(process.stdout.take().expect("the output is piped"));
            let mut script = Script { process, input, output };
            match script.answer("ready") {
                Ok(()) => return Ok(Server { port, password, script: Mutex::new(script) }),
                Err(error) => complaint = error,
            }
        }
        Err(format!("a Postgres server does not start:\n{complaint}"))
    }

    /// Returns the URL of its first database, for a user who may do everything.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://longhaul:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// Returns the port it listens on, of 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it as an administrator does: whoever is connected is told, and everything is kept.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&self) -> Result<(), String> {
        self.tell("stop")
    }

    /// Stops it as a crash does.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn crash(&self) -> Result<(), String> {
        self.tell("crash")
    }

    /// Starts it again, with all it had.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<(), String> {
        self.tell("start")
    }

    fn tell(&self, word: &str) -> Result<(), String> {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let input = script.input.as_mut().expect("it is open until the server is dropped");
        writeln!(input, "{word}").map_err(|error| format!("the Postgres server has gone: {error}"))?;
        script.answer("done")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let script = self.script.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(script.input.take());
        // The script stops the server and removes its directory: then all is gone when this returns.
        let _ = script.process.wait();
    }
}

impl Script {
    /// Waits until the script says a word. Everything else that it says is the error.
    fn answer(&mut self, expected: &str) -> Result<(), String> {
        let mut complaint = String::new();
        for line in self.output.by_ref().lines() {
            let line = line.map_err(|error| error.to_string())?;
            if line == expected {
                return Ok(());
            }
            complaint.push_str(&line);
            complaint.push('\n');
        }
        Err(complaint)
    }
}

fn configuration(port: u16, settings: &Settings) -> String {
    let mut lines = vec![
        format!("port = {port}"),
        "listen_addresses = '127.0.0.1'".to_owned(),
        "max_connections = 600".to_owned(),
        // Dropping a database waits for all who are just signing on, and a test that drops its database lets
        // its own connections wait: so long, at most. On a busy machine others need as long to sign on.
        "authentication_timeout = 30s".to_owned(),
    ];
    if !settings.durable {
        lines.push("fsync = off".to_owned());
    }
    if settings.certificate.is_some() {
        lines.push("ssl = on".to_owned());
    }
    lines.join("\n")
}

/// Returns a free port. Where there are enough of them, it is none that the system gives to whoever asks for any,
/// be it for the near end of a connection: those would be taken while the server is stopped, to be started again.
fn free_port() -> Result<u16, String> {
    let given = given_ports().unwrap_or(0..0);
    let others: Vec<u16> = PORTS.filter(|port| !given.contains(port)).collect();
    let any_other = |_| {
        let chance =
            usize::from(u16::from_le_bytes(*Uuid::new_v4().as_bytes().first_chunk().expect("it has 16")));
        others[chance % others.len()]
    };
    let tries = if others.len() < ENOUGH_PORTS { 0 } else { PORT_TRIES };
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|it| it.local_addr());
    let other = (0..tries).map(any_other).find_map(|port| listen(port).ok());
    let free = other.map_or_else(|| listen(0), Ok);
    free.map(|address| address.port()).map_err(|error| format!("there is no free port: {error}"))
}

/// Returns the ports that the system gives to whoever asks for any, where it says so.
fn given_ports() -> Option<Range<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..last.trim().parse::<u16>().ok()?.saturating_add(1))
}
