//! Several stores on one file, in one process and in several.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use longhaul_session::id::Timestamp;
use longhaul_store::{Appended, Hint, Row, SqliteStore, Store};
use tokio::sync::broadcast::Receiver;

use super::{append, create, entry, place, row, session, worker};

/// How long a hint may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(100);

/// Starts one of this program's ignored tests as a process of its own and tells it a path.
pub(super) fn start_helper(name: &str, path: &Path) -> Helper {
    start_helper_of(&std::env::current_exe().unwrap(), name, path, None)
}

/// The same, from a copy of this program and as another user.
pub(super) fn start_helper_of(program: &Path, name: &str, path: &Path, uid: Option<u32>) -> Helper {
    let mut command = Command::new(program);
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
    if let Some(uid) = uid {
        std::os::unix::process::CommandExt::uid(&mut command, uid);
    }
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{}", path.display()).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Helper { child, lines }
}

pub(super) struct Helper {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Helper {
    /// Reads the helper's output up to the line that holds a mark. Returns what follows the mark.
    pub(super) fn read_after(&mut self, mark: &str) -> String {
        for line in self.lines.by_ref().lines() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.to_owned();
            }
        }
        panic!("the helper ended without saying {mark:?}");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The helper's side: the path it was told; nothing when somebody runs it by hand.
pub(super) fn told_path() -> Option<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    Some(line.trim().to_owned()).filter(|path| !path.is_empty())
}

#[tokio::test]
#[ignore = "started by the test that kills it"]
async fn helper_worker_that_never_ends() {
    let Some(path) = told_path() else { return };
    let store = SqliteStore::open(path).unwrap();
    let _announced = store.announce(worker(7)).await.unwrap();
    let owned = Row { owner: Some(worker(7).worker), epoch: 1, ..row(session(1), 1) };
    store.create(owned, vec![entry(1, b"first")], None).await.unwrap();
    println!("helper: ready");
    let mut end = String::new();
    std::io::stdin().lock().read_line(&mut end).unwrap();
}

#[tokio::test]
async fn a_killed_worker_is_dead_at_once() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    let mut hints = store.hints();
    let name = "sqlite::processes::helper_worker_that_never_ends";
    let mut helper = start_helper(name, &path);
    helper.read_after("helper: ready");
    heard(&mut hints, Hint { session: session(1), head: 1 }).await;
    let pid = helper.child.id();
    let victim = worker(7).worker;
    assert!(store.owner_is_alive(victim).await.unwrap());
    assert_eq!(store.claimable(Timestamp(9), "here", 9).await.unwrap(), []);
    let known = store.workers().await.unwrap();
    assert!(known.iter().any(|it| it.pid == pid && it.alive), "{known:?}");
    helper.child.kill().unwrap();
    helper.child.wait().unwrap();
    assert!(!store.owner_is_alive(victim).await.unwrap());
    heard(&mut hints, Hint { session: session(1), head: 1 }).await;
    let orphaned = store.claimable(Timestamp(9), "here", 9).await.unwrap();
    assert_eq!(orphaned.len(), 1);
    assert!(!store.workers().await.unwrap()[0].alive);
    let _announced = store.announce(worker(8)).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [worker(8)]);
    let lock_files = std::fs::read_dir(path.with_extension("db.workers")).unwrap().count();
    assert_eq!(lock_files, 1, "only the living worker's");
}

#[tokio::test]
async fn two_stores_on_one_file_see_each_others_appends_and_hints() {
    let (_directory, path) = place();
    let (one, two) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let (mut of_one, mut of_two) = (one.hints(), two.hints());
    create(&one, session(1)).await;
    heard(&mut of_two, Hint { session: session(1), head: 1 }).await;
    assert_eq!(two.append(append(session(1), 1, b"second")).await, Ok(Appended::Done));
    heard(&mut of_one, Hint { session: session(1), head: 2 }).await;
    let late = one.append(append(session(1), 1, b"late")).await;
    assert_eq!(late, Ok(Appended::Conflict { head: 2 }));
    assert_eq!(one.entries(session(1), 2..=2).await.unwrap(), [entry(2, b"second")]);
}

#[tokio::test]
async fn what_others_wrote_after_a_delete_is_heard_too() {
    let (_directory, path) = place();
    let (one, two) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let mut hints = two.hints();
    for n in 1..=3 {
        create(&one, session(n)).await;
        heard(&mut hints, Hint { session: session(n), head: 1 }).await;
        one.delete(session(n)).await.unwrap();
    }
}

#[tokio::test]
async fn own_appends_are_hinted_at_most_twice() {
    let (_directory, path) = place();
    let (store, other) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let mut hints = store.hints();
    for n in 1..=20 {
        create(&store, session(n)).await;
    }
    // The other's hint comes by way of the file: by then the watch has looked at all of it.
    create(&other, session(99)).await;
    let last = Hint { session: session(99), head: 1 };
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        let hint = tokio::time::timeout(PATIENCE, hints.recv()).await;
        heard.push(hint.unwrap().unwrap());
    }
    assert!(heard.len() <= 2 * 20 + 1, "{} hints", heard.len());
    for n in 1..=20 {
        assert!(heard.contains(&Hint { session: session(n), head: 1 }), "session {n}");
    }
}

async fn heard(hints: &mut Receiver<Hint>, expected: Hint) {
    let wait = async { while hints.recv().await.unwrap() != expected {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn a_store_reached_by_a_link_knows_the_same_workers() {
    let (directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let linked = SqliteStore::open(&link).unwrap();
    let _announced = store.announce(worker(1)).await.unwrap();
    assert!(linked.owner_is_alive(worker(1).worker).await.unwrap());
    let twice = linked.announce(worker(1)).await.map(drop);
    assert!(twice.is_err(), "the id is in use");
}

#[test]
fn looking_at_a_worker_never_makes_it_look_dead() {
    let (_directory, path) = place();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let _announced = runtime.block_on(store.announce(worker(1))).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let store = SqliteStore::open(&path).unwrap();
                for _ in 0..500 {
                    let alive = runtime.block_on(store.owner_is_alive(worker(1).worker));
                    assert_eq!(alive, Ok(true));
                }
            });
        }
    });
}

#[test]
fn many_may_open_a_new_file_at_once() {
    for _ in 0..10 {
        let (_directory, path) = place();
        std::thread::scope(|scope| {
            let openings: Vec<_> =
                (0..6).map(|_| scope.spawn(|| SqliteStore::open(&path).map(drop))).collect();
            for opening in openings {
                assert_eq!(opening.join().unwrap(), Ok(()));
            }
        });
    }
}
