//! Opening a database: what is refused and how it is told, and many who open one at once.

use std::sync::Arc;

use longhaul_store::postgres::Options;
use longhaul_store::{Appended, Error, PostgresStore, Store};
use longhaul_test_postgres::Database;

use super::{create, fresh, open};
use crate::{append, session};

/// Returns why a URL is refused, with what differs from run to run replaced.
async fn refusal(url: &str, database: &Database) -> String {
    let Err(error) = PostgresStore::open(url, Options::default()).await else { panic!("{url} was opened") };
    let (_, place) = database.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (host, name) = place.split_once('/').unwrap();
    error.to_string().replace(host, "HOST").replace(name, "NAME")
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_what_to_do() {
    let database = Database::create().await.unwrap();
    let url = database.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, place) = rest.split_once('@').unwrap();
    let password = user.split_once(':').unwrap().1;
    let mut told = Vec::new();
    for url in [
        format!("{scheme}://longhaul:wrong-{password}@{place}"),
        format!("{scheme}://nobody:{password}@{place}"),
        url.replace(database.name(), "no_such_database"),
        format!("{scheme}://{user}@127.0.0.1:1/x"),
        format!("{url}?sslmode=require"),
        format!("{url}?sslmode=always"),
        format!("{url}?sslrootcert=/no/such/file.pem"),
        format!("{url}?options=-csearch_path%3Dno_such_schema"),
        format!("{scheme}://{user}@/x"),
        format!("mysql://{user}@{place}"),
    ] {
        told.push(refusal(&url, &database).await);
    }
    // Why a name is not known differs from system to system.
    let nowhere = refusal(&format!("{scheme}://{user}@no-such-host.invalid/x"), &database).await;
    assert!(nowhere.starts_with("no-such-host.invalid:5432/x cannot be reached ("), "{nowhere}");
    let client = database.connect().await.unwrap();
    let crowded = format!("crowded_{}", database.name());
    let role = format!("CREATE ROLE {crowded} LOGIN PASSWORD '{password}' CONNECTION LIMIT 0");
    client.batch_execute(&role).await.unwrap();
    let full = refusal(&format!("{scheme}://{crowded}:{password}@{place}"), &database).await;
    client.batch_execute(&format!("DROP ROLE {crowded}")).await.unwrap();
    assert!(full.contains("; raise its limit of connections, or start fewer workers)"), "{full}");
    let told = told.join("\n\n");
    assert!(!told.contains(password), "a password was told");
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn a_newer_or_foreign_schema_is_left_alone() {
    let (store, database) = fresh().await;
    create(&store, session(1)).await;
    store.close().await.unwrap();
    let client = database.connect().await.unwrap();
    client.batch_execute("UPDATE longhaul SET version = 99").await.unwrap();
    let newer = refusal(&database.url(), &database).await;
    let foreign = Database::create().await.unwrap();
    let client = foreign.connect().await.unwrap();
    client.batch_execute("CREATE TABLE sessions (id bigint)").await.unwrap();
    let url = foreign.url();
    let other = refusal(&url, &foreign).await;
    insta::assert_snapshot!(format!("{newer}\n\n{other}"));
    let tables = client.query("SELECT FROM pg_tables WHERE schemaname = 'public'", &[]).await.unwrap();
    assert_eq!(tables.len(), 1, "nothing was added");
}

#[tokio::test]
async fn many_who_open_a_new_database_at_once_find_one_schema() {
    let database = Arc::new(Database::create().await.unwrap());
    let opening = (0..12_u128).map(|n| {
        let url = database.url();
        tokio::spawn(async move {
            let store = PostgresStore::open(&url, Options::default()).await?;
            create(&store, session(n)).await;
            store.close().await
        })
    });
    for opened in opening.collect::<Vec<_>>() {
        assert_eq!(opened.await.unwrap(), Ok(()));
    }
    let client = database.connect().await.unwrap();
    let versions = client.query("SELECT FROM longhaul", &[]).await.unwrap();
    assert_eq!(versions.len(), 1);
}

#[tokio::test]
async fn schemas_of_one_database_are_strangers() {
    let database = Database::create().await.unwrap();
    let client = database.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE others (id bigint); CREATE SCHEMA one; CREATE SCHEMA \"Two 2\"")
        .await
        .unwrap();
    let url = |schema: &str| format!("{}?options=-csearch_path%3D{schema}", database.url());
    let one = open(&url("one"), Options::default()).await;
    let two = open(&url("%22Two%5C%202%22"), Options::default()).await;
    create(&one, session(1)).await;
    assert_eq!(two.load(session(1)).await.unwrap(), None);
    let public = PostgresStore::open(&database.url(), Options::default()).await.map(drop);
    assert!(matches!(public, Err(Error::Foreign { .. })), "{public:?}");
}

#[tokio::test]
async fn a_server_that_does_not_wait_for_its_disk_is_told_to() {
    let database = Database::create().await.unwrap();
    let client = database.connect().await.unwrap();
    let lazy = format!("ALTER DATABASE {} SET synchronous_commit = off", database.name());
    client.batch_execute(&lazy).await.unwrap();
    let store = open(&database.url(), Options::default()).await;
    // The setting of another session cannot be read from outside.
    let look = "CREATE TABLE seen (setting text); \
                CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS \
                  'BEGIN INSERT INTO seen SELECT current_setting(''synchronous_commit''); RETURN new; END'; \
                CREATE TRIGGER look BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION look()";
    database.connect().await.unwrap().batch_execute(look).await.unwrap();
    create(&store, session(1)).await;
    assert_eq!(store.append(append(session(1), 1, b"")).await, Ok(Appended::Done));
    let seen = client.query("SELECT setting FROM seen", &[]).await.unwrap();
    assert_eq!(seen.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["on", "on"]);
}
