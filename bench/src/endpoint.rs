//! A provider that answers at once, in a process of its own so that its processor time is not counted
//! as anybody's. It keeps nothing: which answer is due, the request says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};

use crate::measure::{Moment, say};
use crate::wire;

/// The argument that makes this program an endpoint.
pub(crate) const ARGUMENT: &str = "endpoint";

/// How far before the end of a request its newest result is looked for, in bytes.
const TAIL: usize = 8 * 1024;

/// An endpoint in a process of its own, ended with this value.
pub(crate) struct Endpoint {
    process: Child,
    address: SocketAddr,
}

/// What an endpoint has done since it was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    /// Its processor time, in microseconds.
    pub(crate) processor_us: f64,
}

impl Endpoint {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start the endpoint")?;
        let stdout = process.stdout.take().context("the endpoint has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().context("the endpoint did not say its address")?;
        Ok(Endpoint { process, address })
    }

    /// Returns where the API begins.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Asks what it has done.
    pub(crate) fn seen(&self) -> anyhow::Result<Seen> {
        Endpoint::ask(self.address)
    }

    /// Asks the endpoint at an address what it has done.
    pub(crate) fn ask(address: SocketAddr) -> anyhow::Result<Seen> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /seen HTTP/1.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.lines().last().unwrap_or_default();
        let [connections, requests, processor_us] = body.split(' ').collect::<Vec<_>>()[..] else {
            bail!("the endpoint did not say what it has seen");
        };
        Ok(Seen {
            connections: connections.parse()?,
            requests: requests.parse()?,
            processor_us: processor_us.parse()?,
        })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

/// Serves until the process ends: when standard input does, so does whoever started it.
pub(crate) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&listener.local_addr()?.to_string());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let counts = Arc::<Counts>::default();
    for stream in listener.incoming() {
        let (stream, counts) = (stream?, Arc::clone(&counts));
        // A broken connection is the client's to report.
        std::thread::spawn(move || drop(converse(stream, &counts)));
    }
    Ok(())
}

fn converse(stream: TcpStream, counts: &Counts) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let (mut first, mut body) = (true, Vec::new());
    while let Some(line) = read_request(&mut reader, &mut body)? {
        if line.starts_with("GET /seen") {
            let [connections, requests] =
                [&counts.connections, &counts.requests].map(|it| it.load(Ordering::Relaxed));
            let processor_us = Moment::now().processor_us();
            let seen = format!("{connections} {requests} {processor_us}");
            write!(writer, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{seen}")?;
            return Ok(());
        }
        counts.connections.fetch_add(u64::from(std::mem::take(&mut first)), Ordering::Relaxed);
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let events = match asked_of(&body) {
            Some((n, calls)) => wire::answer(n, calls),
            None => ": waiting\n\n".to_owned(),
        };
        let silent = events.starts_with(':');
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let end = if silent { "" } else { "0\r\n\r\n" };
        let whole = format!("{head}{:x}\r\n{events}\r\n{end}", events.len());
        writer.write_all(whole.as_bytes())?;
    }
    Ok(())
}

/// Reads a request into `body`. Returns its first line; `None` when no more come.
fn read_request(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> anyhow::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("the connection ended within a request");
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    body.resize(length, 0);
    reader.read_exact(body)?;
    Ok(Some(first))
}

/// Reads which answer is due and how many calls the model makes; `None`: it never answers.
fn asked_of(body: &[u8]) -> Option<(u64, u64)> {
    let head = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let model = head.split_once("\"model\":\"")?.1.split('"').next()?;
    let calls = wire::calls_of(model)?;
    let tail = String::from_utf8_lossy(&body[body.len().saturating_sub(TAIL)..]);
    let newest = tail.rsplit_once("\"tool_call_id\":\"call_").map_or("0", |(_, rest)| rest);
    let digits = newest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse::<u64>().ok()? + 1, calls))
}
