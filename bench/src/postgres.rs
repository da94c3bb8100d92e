//! What an append costs through the store on Postgres: alone, against a bare statement that does the same; with
//! many sessions, against `pgbench` on the same server with as many clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use longhaul_session::id::{Digest, SessionId};
use longhaul_store::postgres::Options;
use longhaul_store::{PostgresStore, Store};
use longhaul_test_postgres::{Database, Server, Settings};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::append::{APPENDS, append_all, appends, begin, prepared};
use crate::history::Taken;
use crate::measure::{Aim, Cost, Moment, Pairs, in_turn, say};
use crate::rig;

/// The tables of the bare statement: as few as the work allows.
const SCHEMA: &str = "
    CREATE TABLE bare_sessions (id bytea PRIMARY KEY, head bigint NOT NULL, state bytea NOT NULL);
    CREATE TABLE bare_entries (session bytea NOT NULL, n bigint NOT NULL, bytes bytea NOT NULL,
        PRIMARY KEY (session, n));
    CREATE TABLE clients (id int PRIMARY KEY, head bigint NOT NULL, state bytea NOT NULL);
    CREATE TABLE written (session int NOT NULL, n bigint NOT NULL, bytes bytea NOT NULL,
        PRIMARY KEY (session, n));
    INSERT INTO clients SELECT n, 0, '' FROM generate_series(0, 63) AS n;";

const BARE: &str = "
    WITH passed AS (UPDATE bare_sessions SET head = $2::bigint, state = $3 WHERE id = $1 AND head = $2::bigint - 1
        RETURNING id)
    INSERT INTO bare_entries SELECT id, $2::bigint, $4 FROM passed";

/// Seconds of one run of `pgbench`.
const PGBENCH_SECONDS: u32 = 3;

/// A server that waits for its disk, and a database on it.
struct Rig {
    runtime: Runtime,
    url: String,
    /// Dropped before its server.
    _database: Database,
    _server: Server,
}

/// Measures and reports.
pub(crate) fn run(folder: &Path, pairs: usize) -> anyhow::Result<()> {
    let settings = Settings { durable: true, ..Settings::default() };
    let server = Server::start(&settings).map_err(|problem| anyhow!(problem))?;
    let runtime = rig::runtime()?;
    let database =
        runtime.block_on(Database::create_on(&server.url())).map_err(|problem| anyhow!(problem))?;
    let rig = Rig { url: database.url(), runtime, _database: database, _server: server };
    let store: Arc<dyn Store> =
        Arc::new(rig.runtime.block_on(PostgresStore::open(&rig.url, Options::default()))?);
    alone(&rig, folder, pairs, &store)?;
    for sessions in [1, 16, 64] {
        together(&rig, folder, pairs.div_ceil(2), &store, sessions)?;
    }
    Ok(rig.runtime.block_on(store.close())?)
}

fn alone(rig: &Rig, folder: &Path, pairs: usize, store: &Arc<dyn Store>) -> anyhow::Result<()> {
    let client = Arc::new(rig.runtime.block_on(connect(&rig.url))?);
    let bare = rig.runtime.block_on(client.prepare(BARE))?;
    let through_store =
        || rig.runtime.block_on(rig.runtime.spawn(appends(Arc::clone(store), folder.to_owned())))?;
    // Both are driven by the runtime's threads.
    let in_place = || {
        let bare = statements(Arc::clone(&client), bare.clone(), folder.to_owned());
        rig.runtime.block_on(rig.runtime.spawn(bare))?
    };
    say("postgres: one sealed entry of about 1 KiB, one session");
    let measured = in_turn(pairs, through_store, in_place)?;
    let each = |cost: &Cost| cost.wall_us / APPENDS as f64;
    Pairs::of(&measured, each).report("store / bare statement, wall time", "us", Aim::AtMost(1.3));
    let processor = |cost: &Cost| cost.processor_us / APPENDS as f64;
    Pairs::of(&measured, processor).report("store / bare statement, processor time", "us", Aim::None);
    Ok(())
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its end shows at the client.
    tokio::spawn(async { drop(connection.await) });
    client.batch_execute("SET client_min_messages = warning").await?;
    if client.query("SELECT FROM pg_tables WHERE tablename = 'clients'", &[]).await?.is_empty() {
        client.batch_execute(SCHEMA).await?;
    }
    Ok(client)
}

async fn statements(client: Arc<Client>, bare: Statement, folder: PathBuf) -> anyhow::Result<Cost> {
    let id = Uuid::new_v4();
    let taken = prepared(&folder, SessionId(id))?;
    let id = id.into_bytes().to_vec();
    let begin = "INSERT INTO bare_sessions VALUES ($1, 0, '')";
    client.execute(begin, &[&id]).await?;
    let mut commits = Vec::new();
    for (Taken { row, mut entries }, n) in taken.into_iter().skip(1).zip(1_i64..) {
        let entry = entries.remove(0);
        let bytes = [entry.record, entry.content.unwrap_or_default(), entry.hash.0.to_vec()].concat();
        commits.push((n, row.state, bytes));
    }
    let start = Moment::now();
    for (n, state, bytes) in &commits {
        if client.execute(&bare, &[&id, n, state, bytes]).await? != 1 {
            bail!("another was faster");
        }
    }
    Ok(start.cost())
}

/// Many sessions at once: appends a second, through the store and by `pgbench`.
fn together(
    rig: &Rig,
    folder: &Path,
    pairs: usize,
    store: &Arc<dyn Store>,
    sessions: usize,
) -> anyhow::Result<()> {
    let script = script(folder)?;
    let through_store = || {
        rig.runtime.block_on(async {
            let mut begun = Vec::new();
            for _ in 0..sessions {
                begun.push(begin(&**store, folder).await?);
            }
            let start = Moment::now();
            let running = begun.into_iter().map(|begun| tokio::spawn(append_all(Arc::clone(store), begun)));
            for session in running.collect::<Vec<_>>() {
                session.await??;
            }
            anyhow::Ok((sessions * APPENDS) as f64 / start.cost().wall_us * 1e6)
        })
    };
    let by_pgbench = || pgbench(rig, &script, sessions);
    let measured = in_turn(pairs, through_store, by_pgbench)?;
    let aim = if sessions == 1 { 0.7 } else { 1.0 };
    let what = format!("{sessions} sessions: store / pgbench, appends a second");
    Pairs::of(&measured, |rate| *rate).report(&what, "/s", Aim::AtLeast(aim));
    Ok(())
}

/// Writes the bare statement for `pgbench`: one row for each client, with as many bytes.
fn script(folder: &Path) -> anyhow::Result<PathBuf> {
    let taken = prepared(folder, SessionId(Uuid::new_v4()))?;
    let last = taken.last().context("there are appends")?;
    let entry = last.entries.first().context("an append has an entry")?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut bytes = entry.record.clone();
    bytes.extend_from_slice(entry.content.as_deref().unwrap_or_default());
    bytes.extend_from_slice(&Digest::of(&bytes).0);
    let sql = format!(
        "WITH passed AS (UPDATE clients SET head = head + 1, state = '\\x{}' WHERE id = :client_id \
         RETURNING id, head) INSERT INTO written SELECT id, head, '\\x{}' FROM passed;\n",
        hex(&last.row.state),
        hex(&bytes)
    );
    let path = folder.join("append.sql");
    std::fs::write(&path, sql)?;
    Ok(path)
}

/// Returns the transactions a second that `pgbench` counts.
fn pgbench(rig: &Rig, script: &Path, clients: usize) -> anyhow::Result<f64> {
    let mut command = Command::new("pgbench");
    command.args(["--no-vacuum", "--protocol=prepared", "--jobs=2"]);
    command.arg(format!("--client={clients}")).arg(format!("--time={PGBENCH_SECONDS}"));
    command.arg("--file").arg(script).arg(&rig.url);
    let output = command.output().context("cannot start pgbench: is it on the PATH?")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.with_context(|| format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)))
}
