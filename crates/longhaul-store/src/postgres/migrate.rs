//! Brings a schema up to date, and refuses what is newer than this program or another program's.

use super::db::Db;
use super::fault::Answer;
use crate::Error;
use crate::limits::MIGRATION_LOCK_S;

/// The migrations, in order: the n-th brings a schema from version n - 1 to version n.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql")];

/// The oldest server that has what the statements need (`xid8`).
const OLDEST_SERVER: i32 = 130_000;

/// Brings the schema up to date. Others that open it at the same time wait.
pub(super) async fn migrate(db: &Db) -> Answer<()> {
    check_server(db).await?;
    if version(db).await? == MIGRATIONS.len() {
        return Ok(());
    }
    db.transaction(async {
        // A transaction's lock, not a session's: a pooler may give the next transaction another session.
        db.batch(&format!(
            "SET LOCAL lock_timeout = '{MIGRATION_LOCK_S}s'; \
             SELECT pg_advisory_xact_lock(hashtext('longhaul'), hashtext(current_schema()))"
        ))
        .await?;
        // Read again: another process may have migrated in the meantime.
        let from = version(db).await?;
        for migration in &MIGRATIONS[from..] {
            db.batch(migration).await?;
        }
        let to = MIGRATIONS.len();
        db.batch(&format!(
            "CREATE TABLE IF NOT EXISTS longhaul (version integer NOT NULL); \
             DELETE FROM longhaul; INSERT INTO longhaul VALUES ({to})"
        ))
        .await
    })
    .await
}

async fn check_server(db: &Db) -> Answer<()> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
               current_schema()::text";
    let found = db
        .one(sql, &[], |row| {
            Ok((row.try_get::<_, i32>(0)?, row.try_get(1)?, row.try_get::<_, Option<String>>(2)?))
        })
        .await?;
    let refused = |detail: String| Error::Refused { database: db.database().to_owned(), detail };
    let (number, name, schema): (i32, String, Option<String>) =
        found.ok_or_else(|| db.damaged("the server did not say its version"))?;
    if number < OLDEST_SERVER {
        return Err(refused(format!("the server is version {name}, and 13 or newer is needed")).into());
    }
    if schema.is_none() {
        let detail = "no schema of the search_path exists: create it with CREATE SCHEMA, or name another";
        return Err(refused(detail.to_owned()).into());
    }
    Ok(())
}

/// Returns the version of the schema; 0 when it is empty.
async fn version(db: &Db) -> Answer<usize> {
    let sql = "SELECT c.relname = 'longhaul' FROM pg_class c \
               WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) \
               AND c.relkind IN ('r', 'p', 'v', 'm') \
               AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
                 AND d.objid = c.oid AND d.deptype = 'e') \
               ORDER BY c.relname = 'longhaul' DESC LIMIT 1";
    let ours = db.one(sql, &[], |row| Ok(row.try_get::<_, bool>(0)?)).await?;
    match ours {
        None => return Ok(0),
        Some(false) => return Err(Error::Foreign { database: db.database().to_owned() }.into()),
        Some(true) => {}
    }
    let found = db.one("SELECT version FROM longhaul", &[], |row| Ok(row.try_get::<_, i32>(0)?)).await?;
    let found = found.ok_or_else(|| db.damaged("the version of the schema is missing"))?;
    let found = u32::try_from(found).map_err(|_| db.damaged("the version of the schema is negative"))?;
    let supported = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(version) if version <= supported => Ok(version),
        _ => Err(Error::TooNew {
            database: db.database().to_owned(),
            found,
            supported: u32::try_from(supported).unwrap_or(u32::MAX),
        }
        .into()),
    }
}
