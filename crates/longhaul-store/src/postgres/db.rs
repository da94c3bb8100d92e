//! Connections that count: the only place where statements run. What they say stands in `append`, `read`
//! and `write`; what their errors mean, in `fault`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Notification, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Address;
use super::fault::{self, Answer};
use super::tls;
use crate::Error;

/// What each connection is told first. Every statement finds its rows by an index, whatever the statistics
/// of a young table make the planner believe; and where the server says otherwise, a commit waits for the
/// disk.
const SET_UP: &str = "\
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
    SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') = 'off'";

/// What a store has done since it was opened, for tests and benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections made.
    pub connections: u64,
    /// Statements run, each in a round trip of its own, looks for growth and notifications included. Preparing
    /// one the first time is another round trip, which is not counted.
    pub statements: u64,
    /// Appends committed by those statements.
    pub appends: u64,
    /// Bytes of records, contents and states given to writing statements.
    pub bytes_written: u64,
    /// Entries read.
    pub entries_read: u64,
    /// Entries inserted.
    pub entries_written: u64,
}

/// The counters while they count, shared by all connections of a store.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) connections: AtomicU64,
    pub(super) statements: AtomicU64,
    pub(super) appends: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) entries_read: AtomicU64,
    pub(super) entries_written: AtomicU64,
}

impl Tally {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            connections: self.connections.load(Ordering::Relaxed),
            statements: self.statements.load(Ordering::Relaxed),
            appends: self.appends.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            entries_read: self.entries_read.load(Ordering::Relaxed),
            entries_written: self.entries_written.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Makes connections to one database.
pub(super) struct Opener {
    pub(super) database: Arc<str>,
    pub(super) tally: Arc<Tally>,
    config: Config,
    tls: MakeRustlsConnect,
}

impl Opener {
    pub(super) fn new(address: Address) -> Result<Self, Error> {
        let tls = tls::connector(&address.database, &address.proof)?;
        Ok(Opener { database: address.database, tally: Arc::default(), config: address.config, tls })
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Answer<Db> {
        self.connect_listening(drop).await
    }

    /// Connects, with somebody who is told what the server notifies of.
    pub(super) async fn connect_listening(
        &self,
        mut notified: impl FnMut(Notification) + Send + 'static,
    ) -> Answer<Db> {
        let connected = self.config.connect(self.tls.clone()).await;
        let (client, mut connection) =
            connected.map_err(|error| fault::of_connecting(&self.database, &error))?;
        count(&self.tally.connections, 1);
        let ended = Arc::new(OnceLock::new());
        let end = Arc::clone(&ended);
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => notified(notification),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        let _ = end.set(fault::told(&error));
                        return;
                    }
                    None => return,
                }
            }
        });
        let (database, tally) = (Arc::clone(&self.database), Arc::clone(&self.tally));
        let db = Db { client, statements: Mutex::default(), database, tally, ended, driver };
        db.batch(SET_UP).await?;
        Ok(db)
    }
}

/// What a row that cannot be read is refused with.
pub(super) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// A connection.
pub(super) struct Db {
    client: Client,
    /// Prepared when they are first needed. Found by where their texts stand: a long one need not be read
    /// through for each use.
    statements: Mutex<HashMap<(usize, usize), Statement>>,
    database: Arc<str>,
    pub(super) tally: Arc<Tally>,
    /// What the connection ended with.
    ended: Arc<OnceLock<String>>,
    driver: JoinHandle<()>,
}

impl Db {
    /// Runs a statement. Returns its rows.
    pub(super) async fn all<T>(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
        read: impl FnMut(&Row) -> Result<T, Unreadable>,
    ) -> Answer<Vec<T>> {
        let statement = self.prepared(sql).await?;
        count(&self.tally.statements, 1);
        let rows = self.checked(self.client.query(&statement, params).await)?;
        let read: Result<Vec<T>, Unreadable> = rows.iter().map(read).collect();
        Ok(read.map_err(|error| self.damaged(error.to_string()))?)
    }

    /// Runs a statement. Returns its first row, if any.
    pub(super) async fn one<T>(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
        read: impl FnMut(&Row) -> Result<T, Unreadable>,
    ) -> Answer<Option<T>> {
        Ok(self.all(sql, params, read).await?.into_iter().next())
    }

    /// Runs a statement. Returns how many rows it changed.
    pub(super) async fn write(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Answer<u64> {
        let statement = self.prepared(sql).await?;
        count(&self.tally.statements, 1);
        self.checked(self.client.execute(&statement, params).await)
    }

    /// Runs statements that are not worth preparing.
    pub(super) async fn batch(&self, sql: &str) -> Answer<()> {
        count(&self.tally.statements, 1);
        self.checked(self.client.batch_execute(sql).await)
    }

    /// Does work in one transaction.
    pub(super) async fn transaction<T>(&self, work: impl Future<Output = Answer<T>>) -> Answer<T> {
        self.batch("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        match work.await {
            Ok(value) => {
                self.batch("COMMIT").await?;
                Ok(value)
            }
            Err(fault) => {
                // A connection that cannot even do this has ended, and is not used again.
                let _ = self.batch("ROLLBACK").await;
                Err(fault)
            }
        }
    }

    /// Says whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends the connection, and waits until the server is told.
    pub(super) async fn close(self) {
        drop(self.client);
        // It fails when it panicked: it has ended all the same.
        let _ = self.driver.await;
    }

    pub(super) fn damaged(&self, detail: impl Into<String>) -> Error {
        Error::Damaged { database: self.database.to_string(), detail: detail.into() }
    }

    /// Returns the database's name, for messages.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    async fn prepared(&self, sql: &'static str) -> Answer<Statement> {
        let place = (sql.as_ptr().addr(), sql.len());
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.checked(self.client.prepare(sql).await)?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(place, statement.clone());
        Ok(statement)
    }

    fn checked<T>(&self, result: Result<T, tokio_postgres::Error>) -> Answer<T> {
        let ended = || self.ended.get().map(String::as_str);
        result.map_err(|error| fault::of_statement(&self.database, &error, ended()))
    }
}
