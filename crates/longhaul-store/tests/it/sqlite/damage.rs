//! Files that are not as they should be, and disks that are full: reported, never a panic.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use longhaul_store::sqlite::Options;
use longhaul_store::{Appended, Error, SqliteStore, Store};
use rusqlite::Connection;
use tempfile::TempDir;

use super::processes::{start_helper_of, told_path};
use super::{append, create, entry, place, session};

/// Opens a store that is expected not to open.
fn refusal(path: &Path) -> Error {
    let error = SqliteStore::open(path).map(drop).unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "names the file: {message}");
    error
}

fn run_sql(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let (_directory, path) = place();
    drop(SqliteStore::open(&path).unwrap());
    run_sql(&path, "PRAGMA user_version = 99");
    let before = std::fs::read(&path).unwrap();
    let database = path.display().to_string();
    assert_eq!(refusal(&path), Error::TooNew { database, found: 99, supported: 1 });
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let (_directory, path) = place();
    run_sql(&path, "CREATE TABLE t (x)");
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(refusal(&path), Error::Foreign { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn an_empty_file_is_a_new_database() {
    let (_directory, path) = place();
    std::fs::write(&path, b"").unwrap();
    assert!(SqliteStore::open(&path).is_ok());
}

#[test]
fn a_file_of_something_else_is_reported() {
    let (_directory, path) = place();
    for garbage in [b"not a database, ".repeat(1_000), vec![b'x'; 600], b"x".to_vec()] {
        std::fs::write(&path, &garbage).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(".recover"), "says what to do: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), garbage, "and touches nothing");
    }
}

#[tokio::test]
async fn a_truncated_file_is_reported() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    create(&store, session(1)).await;
    store.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for len in [1, 100, 600, 4_096, whole.len() / 2, whole.len() - 4_096] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(matches!(refusal(&path), Error::Corrupt { .. }), "{len} of {}", whole.len());
    }
}

#[tokio::test]
async fn damaged_entries_are_reported() {
    for (sql, detail) in [
        ("DELETE FROM entries WHERE n = 2", "some are missing"),
        ("UPDATE entries SET encoding = 1 WHERE n = 2", "content of entry 2"),
        ("UPDATE entries SET encoding = 2 WHERE n = 2", "content of entry 2"),
        ("UPDATE entries SET encoding = 9 WHERE n = 2", "content of entry 2"),
        ("UPDATE entries SET hash = x'00' WHERE n = 2", ""),
        ("UPDATE sessions SET head = 9", "some are missing"),
    ] {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        create(&store, session(1)).await;
        for head in [1, 2] {
            let done = store.append(append(session(1), head, b"more")).await;
            assert_eq!(done, Ok(Appended::Done));
        }
        run_sql(&path, sql);
        let error = store.entries(session(1), 1..=9).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{sql}: {error:?}");
        assert!(error.to_string().contains(detail), "{sql}: {error}");
    }
}

#[test]
fn a_missing_directory_is_reported() {
    let (directory, _) = place();
    let error = refusal(&directory.path().join("missing/longhaul.db"));
    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
}

#[test]
#[ignore = "started by the test below, as a user who may not write"]
fn helper_open() {
    let Some(path) = told_path() else { return };
    println!("helper: opened {:?}", SqliteStore::open(path).map(drop));
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_reported() {
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Somebody else may not be let into where this program is.
    let elsewhere = TempDir::new().unwrap();
    let program = elsewhere.path().join("helper");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    [elsewhere.path(), &program].into_iter().for_each(|path| mode(path, 0o755));
    for (file_mode, in_use, what) in [
        (Some(0o444), false, "the file and its directory may only be read"),
        (Some(0o444), true, "another user has the file open"),
        (Some(0o666), false, "the directory may only be read"),
        (None, false, "there is no file, and none may be made"),
    ] {
        let (directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        create(&store, session(1)).await;
        if !in_use {
            store.close().await.unwrap();
        }
        // Root may write anywhere: then somebody else tries.
        let nobody = (std::fs::metadata(&path).unwrap().uid() == 0).then_some(65_534);
        match file_mode {
            Some(file_mode) => mode(&path, file_mode),
            None => std::fs::remove_file(&path).unwrap(),
        }
        mode(directory.path(), 0o555);
        let mut helper = start_helper_of(&program, "sqlite::damage::helper_open", &path, nobody);
        let opened = helper.read_after("helper: opened ");
        mode(directory.path(), 0o755);
        assert!(opened.starts_with("Err(NotWritable {"), "{what}: {opened}");
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_is_half_written() {
    let (_directory, path) = place();
    let store = SqliteStore::open_with(&path, Options { max_pages: Some(64) }).unwrap();
    create(&store, session(1)).await;
    let mut head = 1;
    let mut full = None;
    for _ in 0..100 {
        match store.append(append(session(1), head, &[7; 10_000])).await {
            Ok(done) => assert_eq!(done, Appended::Done),
            Err(error) => {
                full = Some(error);
                break;
            }
        }
        head += 1;
    }
    let full = full.expect("256 KiB do not hold a megabyte");
    assert!(matches!(full, Error::Full { .. }), "{full:?}");
    assert!(!full.is_transient());
    assert!(head > 10, "it was not full from the start");
    assert_eq!(store.load(session(1)).await.unwrap().unwrap().head, head);
    assert_eq!(store.entries(session(1), 1..=999).await.unwrap().len() as u64, head);
    store.close().await.unwrap();
    let larger = SqliteStore::open(&path).unwrap();
    let done = larger.append(append(session(1), head, b"goes on")).await;
    assert_eq!(done, Ok(Appended::Done));
    let last = larger.entries(session(1), head + 1..=head + 1).await.unwrap();
    assert_eq!(last, [entry(head + 1, b"goes on")]);
}
