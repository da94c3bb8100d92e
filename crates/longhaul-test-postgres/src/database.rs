//! A database of a test's own, gone when the test ends.

use std::sync::OnceLock;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;

use crate::{Server, Settings, URL_VARIABLE};

/// The server of this process, when none was named.
static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();

/// A new, empty database. Dropped with this value.
#[derive(Debug)]
pub struct Database {
    /// The server's first database, from which others are created and dropped.
    server: String,
    name: String,
}

impl Database {
    /// Creates a database on the server that tests use.
    ///
    /// # Errors
    /// Says what is missing and what to do about it.
    pub async fn create() -> Result<Self, String> {
        Self::create_on(&server_url()?).await
    }

    /// Creates a database as [`Database::create`] does, for a test that has no runtime, or cannot wait in it.
    ///
    /// # Errors
    /// Says what is missing and what to do about it.
    pub fn create_aside() -> Result<Self, String> {
        aside(Self::create())
    }

    /// Creates a database as [`Database::create_on`] does, likewise.
    ///
    /// # Errors
    /// What the server said.
    pub fn create_on_aside(server: &str) -> Result<Self, String> {
        let server = server.to_owned();
        aside(async move { Self::create_on(&server).await })
    }

    /// Creates a database on a server, named by the URL of another of its databases.
    ///
    /// # Errors
    /// What the server said.
    pub async fn create_on(server: &str) -> Result<Self, String> {
        let name = format!("longhaul_test_{}", Uuid::new_v4().simple());
        run(server, &format!("CREATE DATABASE {name}")).await?;
        Ok(Database { server: server.to_owned(), name })
    }

    /// Returns its URL.
    #[must_use]
    pub fn url(&self) -> String {
        let (address, options) = self.server.split_once('?').unwrap_or((&self.server, ""));
        let end = address.find("://").map_or(0, |scheme| scheme + 3);
        let path = address[end..].find('/').map_or(address.len(), |path| end + path);
        let separator = if options.is_empty() { "" } else { "?" };
        format!("{}/{}{separator}{options}", &address[..path], self.name)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts the connections of others that wait for work after a statement with a given part in it.
    ///
    /// # Errors
    /// What the server said.
    pub async fn idle_after(&self, part: &str) -> Result<usize, String> {
        let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() \
                   AND pid <> pg_backend_pid() AND state = 'idle' AND position($1 IN query) > 0";
        let client = self.connect().await?;
        let found = client.query(sql, &[&part]).await.map_err(|error| error.to_string())?;
        Ok(found.len())
    }

    /// Runs a statement on a connection and a thread of its own. Returns the first column of its rows.
    ///
    /// # Errors
    /// What the server said.
    pub fn ask_aside(&self, sql: &str) -> Result<Vec<String>, String> {
        let (url, sql) = (self.url(), sql.to_owned());
        aside(async move {
            let client = connect(&url).await?;
            let messages = client.simple_query(&sql).await;
            let messages = messages.map_err(|error| format!("`{sql}` failed: {}", told(&error)))?;
            let first = |message: &SimpleQueryMessage| {
                // Nothing else that the server says has columns.
                let SimpleQueryMessage::Row(row) = message else { return None };
                row.get(0).map(str::to_owned)
            };
            Ok(messages.iter().filter_map(first).collect())
        })
    }

    /// Connects to it, beside whatever is tested.
    ///
    /// # Errors
    /// What the server said.
    pub async fn connect(&self) -> Result<Client, String> {
        connect(&self.url()).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let server = self.server.clone();
        // A server that has gone has no database to drop.
        let _ = aside(async move { run(&server, &sql).await });
    }
}

/// Waits on a thread of its own: a test's runtime cannot wait where nothing is asynchronous.
fn aside<T: Send + 'static>(
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(work)
    });
    waiting.join().unwrap_or_else(|_| Err("the thread that waited for the server broke".to_owned()))
}

#[expect(clippy::disallowed_methods, reason = "the one setting of the tests")]
fn server_url() -> Result<String, String> {
    if let Ok(url) = std::env::var(URL_VARIABLE) {
        return Ok(url);
    }
    let server = SERVER.get_or_init(|| Server::start(&Settings::default()));
    server.as_ref().map(Server::url).map_err(Clone::clone)
}

async fn run(url: &str, sql: &str) -> Result<(), String> {
    let client = connect(url).await?;
    client.batch_execute(sql).await.map_err(|error| format!("`{sql}` failed: {}", told(&error)))
}

async fn connect(url: &str) -> Result<Client, String> {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.map_err(|error| {
        format!("the tests' Postgres server cannot be reached: {}; see {URL_VARIABLE}", told(&error))
    })?;
    // Its end shows at the client.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

fn told(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
