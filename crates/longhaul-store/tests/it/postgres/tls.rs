//! Connections are protected as the URL asks for.

use longhaul_store::postgres::Options;
use longhaul_store::{Error, PostgresStore, Store};
use longhaul_test_postgres::{Database, Server, Settings};

use super::create;
use crate::session;

#[tokio::test]
async fn a_server_must_prove_who_it_is_when_asked_to() {
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (mine, strangers) = (made("localhost"), made("localhost"));
    let directory = tempfile::tempdir().unwrap();
    let root = |name: &str, pem: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let trusted = root("mine.pem", mine.cert.pem());
    let unknown = root("strangers.pem", strangers.cert.pem());
    let empty = root("empty.pem", String::new());
    let certificate = Some((mine.cert.pem(), mine.signing_key.serialize_pem()));
    let settings = Settings { certificate, ..Settings::default() };
    let server = tokio::task::spawn_blocking(move || Server::start(&settings)).await.unwrap().unwrap();
    let database = Database::create_on(&server.url()).await.unwrap();
    let url = database.url();
    let named = url.replace("127.0.0.1", "localhost");

    for (url, protected) in [
        (format!("{named}?sslmode=disable"), false),
        (named.clone(), true),
        (format!("{url}?sslmode=require"), true),
        (format!("{named}?sslmode=verify-full&sslrootcert={trusted}"), true),
        (format!("{named}?sslrootcert={trusted}"), true),
    ] {
        let store = PostgresStore::open(&url, Options::default()).await.unwrap();
        let client = database.connect().await.unwrap();
        let others = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                      WHERE datname = current_database() AND application_name = 'longhaul' AND ssl";
        let encrypted: i64 = client.query_one(others, &[]).await.unwrap().get(0);
        assert_eq!(encrypted > 0, protected, "{url}");
        store.close().await.unwrap();
    }
    for (url, expected) in [
        (format!("{named}?sslrootcert={unknown}"), "name the certificate to trust with sslrootcert"),
        (format!("{named}?sslmode=verify-full"), "name the certificate to trust with sslrootcert"),
        (format!("{url}?sslrootcert={trusted}"), "certificate"),
        (format!("{named}?sslrootcert={empty}"), "it holds none"),
    ] {
        let refused = PostgresStore::open(&url, Options::default()).await.map(drop);
        let Err(Error::Refused { detail, .. }) = &refused else { panic!("{url}: {refused:?}") };
        assert!(detail.contains(expected), "{url}: {detail}");
    }
    let store =
        PostgresStore::open(&format!("{named}?sslrootcert={trusted}"), Options::default()).await.unwrap();
    create(&store, session(1)).await;
    assert!(store.load(session(1)).await.unwrap().is_some());
    drop((store, database));
}
