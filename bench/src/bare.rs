//! The bare loop: what a careful person would write who needs one agent and nothing more. It asks the
//! endpoint, runs the tool, and commits both steps, each synced. It keeps the request as bytes and only
//! adds to them, and it has no state, no chain, no fence but a conditional update, nobody who watches.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context as _, bail};
use longhaul_model::sse::Parser;
use reqwest::header::CONTENT_TYPE;
use rusqlite::{Connection, TransactionBehavior, params};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::wire;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE sessions (id BLOB PRIMARY KEY NOT NULL, head INTEGER NOT NULL, state BLOB NOT NULL) STRICT;
    CREATE TABLE entries (position INTEGER PRIMARY KEY, session BLOB NOT NULL, n INTEGER NOT NULL,
        bytes BLOB NOT NULL) STRICT;
    CREATE UNIQUE INDEX entries_n ON entries (session, n);";

/// One synced transaction's worth.
pub(crate) struct Commit {
    pub(crate) session: [u8; 16],
    /// The entry's number; the session must have one less.
    pub(crate) n: u64,
    pub(crate) state: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
}

/// A database of the bare loop's own.
pub(crate) struct Log(Connection);

impl Log {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Log(connection))
    }

    /// Opens a database that is there, for another thread.
    pub(crate) fn again(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        Ok(Log(connection))
    }

    pub(crate) fn begin(&self, session: [u8; 16]) -> anyhow::Result<()> {
        self.0.execute("INSERT INTO sessions (id, head, state) VALUES (?1, 0, x'')", [session])?;
        Ok(())
    }

    /// Commits: when it returns, all of it is on disk.
    pub(crate) fn commit(&mut self, commits: &[Commit]) -> anyhow::Result<()> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for commit in commits {
            let Commit { session, n, state, bytes } = commit;
            let n = i64::try_from(*n)?;
            let mut update = transaction
                .prepare_cached("UPDATE sessions SET head = ?2, state = ?3 WHERE id = ?1 AND head = ?4")?;
            if update.execute(params![session, n, state, n - 1])? != 1 {
                bail!("another was faster");
            }
            transaction
                .prepare_cached("INSERT INTO entries (session, n, bytes) VALUES (?1, ?2, ?3)")?
                .execute(params![session, n, bytes])?;
        }
        Ok(transaction.commit()?)
    }
}

/// How the loop commits.
#[derive(Clone)]
pub(crate) enum Committer {
    /// By itself: there is one session.
    Alone(Arc<std::sync::Mutex<Log>>),
    /// Through a thread that commits all that wait in one transaction: there are many.
    Together(Sender<(Commit, oneshot::Sender<()>)>),
}

impl Committer {
    /// Starts the thread that commits for many sessions.
    pub(crate) fn together(log: Log) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || write_together(log, &receiver));
        Committer::Together(sender)
    }

    async fn commit(&self, commit: Commit) -> anyhow::Result<()> {
        match self {
            Committer::Alone(log) => log.lock().ok().context("a commit failed before")?.commit(&[commit]),
            Committer::Together(sender) => {
                let (reply, done) = oneshot::channel();
                sender.send((commit, reply))?;
                Ok(done.await?)
            }
        }
    }
}

/// Whoever waits for a commit that failed finds its reply dropped.
fn write_together(mut log: Log, receiver: &Receiver<(Commit, oneshot::Sender<()>)>) {
    while let Ok(first) = receiver.recv() {
        let (commits, replies): (Vec<_>, Vec<_>) = std::iter::once(first).chain(receiver.try_iter()).unzip();
        if log.commit(&commits).is_err() {
            return;
        }
        for reply in replies {
            let _ = reply.send(());
        }
    }
}

/// One agent in a loop.
pub(crate) struct Loop {
    http: reqwest::Client,
    url: String,
    committer: Committer,
    session: [u8; 16],
    n: u64,
    /// The request but for its end.
    request: Vec<u8>,
}

/// What the model said.
#[derive(Default)]
struct Answer {
    text: String,
    id: String,
    name: String,
    arguments: String,
}

/// Makes a client as plain as can be.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails when another thread was quicker, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Ok(reqwest::Client::builder().tls_certs_only([]).build()?)
}

impl Loop {
    /// Prepares a session that has made some calls already and goes on to `calls`.
    pub(crate) fn new(
        http: reqwest::Client,
        url: &str,
        committer: Committer,
        session: [u8; 16],
        made: u64,
        calls: u64,
    ) -> anyhow::Result<Self> {
        let spec = wire::tool();
        let function =
            json!({ "name": spec.name, "description": spec.description, "parameters": spec.input_schema });
        let tools = json!([{ "type": "function", "function": function }]);
        let mut request = format!(
            "{{\"model\":\"{}\",\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\
             \"tools\":{tools},\"messages\":[",
            wire::model(calls)
        )
        .into_bytes();
        serde_json::to_writer(&mut request, &json!({ "role": "system", "content": "You keep notes." }))?;
        request.push(b',');
        serde_json::to_writer(&mut request, &json!({ "role": "user", "content": "Keep them all." }))?;
        let mut new =
            Loop { http, url: format!("{url}/chat/completions"), committer, session, n: 0, request };
        for n in 1..=made {
            let answer = Answer {
                text: wire::remark(n),
                id: wire::call_id(n),
                name: wire::TOOL.to_owned(),
                arguments: wire::arguments(n),
            };
            new.add(&answer.message())?;
            new.add(&answer.result(&wire::result(n)))?;
        }
        Ok(new)
    }

    fn add(&mut self, message: &Value) -> anyhow::Result<()> {
        self.request.push(b',');
        Ok(serde_json::to_writer(&mut self.request, message)?)
    }

    /// Runs until the model has nothing left to do. `seen` is told of each call before it is run.
    pub(crate) async fn run(mut self, seen: impl Fn()) -> anyhow::Result<()> {
        loop {
            let answer = self.ask().await?;
            let message = answer.message();
            self.commit(&message).await?;
            if answer.id.is_empty() {
                return Ok(());
            }
            self.add(&message)?;
            seen();
            let arguments: Value = serde_json::from_str(&answer.arguments)?;
            let result = wire::result(arguments["n"].as_u64().context("the call has no number")?);
            let result = answer.result(&result);
            self.commit(&result).await?;
            self.add(&result)?;
        }
    }

    async fn commit(&mut self, message: &Value) -> anyhow::Result<()> {
        self.n += 1;
        let bytes = serde_json::to_vec(message)?;
        let commit = Commit { session: self.session, n: self.n, state: Vec::new(), bytes };
        self.committer.commit(commit).await
    }

    async fn ask(&self) -> anyhow::Result<Answer> {
        let mut body = Vec::with_capacity(self.request.len() + 2);
        body.extend_from_slice(&self.request);
        body.extend_from_slice(b"]}");
        let sent = self.http.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        let mut response = sent.send().await?.error_for_status()?;
        let (mut parser, mut events, mut answer) = (Parser::new(1 << 20), Vec::new(), Answer::default());
        while let Some(bytes) = response.chunk().await? {
            parser.push(&bytes, &mut events)?;
            for event in events.drain(..).filter(|event| event.data != "[DONE]") {
                answer.take(&serde_json::from_str(&event.data)?);
            }
        }
        Ok(answer)
    }
}

impl Answer {
    fn take(&mut self, chunk: &Value) {
        let delta = &chunk["choices"][0]["delta"];
        self.text.push_str(delta["content"].as_str().unwrap_or_default());
        let call = &delta["tool_calls"][0];
        self.id.push_str(call["id"].as_str().unwrap_or_default());
        self.name.push_str(call["function"]["name"].as_str().unwrap_or_default());
        self.arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
    }

    fn message(&self) -> Value {
        if self.id.is_empty() {
            return json!({ "role": "assistant", "content": self.text });
        }
        let function = json!({ "name": self.name, "arguments": self.arguments });
        let call = json!({ "id": self.id, "type": "function", "function": function });
        json!({ "role": "assistant", "content": self.text, "tool_calls": [call] })
    }

    fn result(&self, text: &str) -> Value {
        json!({ "role": "tool", "tool_call_id": self.id, "content": text })
    }
}
