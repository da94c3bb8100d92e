//! What is remembered of files.

use longhaul_session::id::Digest;
use longhaul_session::item::FileSeen;
use longhaul_tools::limits::MAX_TRACKED_FILES;
use longhaul_tools::tracker::{Stale, Tracker};

fn file(path: &str, content: &str) -> FileSeen {
    FileSeen { path: path.to_owned(), digest: Digest::of(content.as_bytes()) }
}

#[test]
fn a_file_may_be_changed_only_as_it_was_last_seen() {
    let mut tracker = Tracker::default();
    let now = |content: &str| Digest::of(content.as_bytes());
    assert_eq!(tracker.check("/a", now("1")), Err(Stale::Unread("/a".to_owned())));
    tracker.seen(&file("/a", "1"));
    assert_eq!(tracker.check("/a", now("1")), Ok(()));
    assert_eq!(tracker.check("/a", now("2")), Err(Stale::Changed("/a".to_owned())));
    tracker.seen(&file("/a", "2"));
    assert_eq!(tracker.check("/a", now("2")), Ok(()));
}

#[test]
fn recent_files_come_newest_first() {
    let mut tracker = Tracker::default();
    for path in ["/a", "/b", "/c", "/a"] {
        tracker.seen(&file(path, "x"));
    }
    assert_eq!(tracker.recent(2), ["/a", "/c"]);
}

#[test]
fn the_oldest_file_is_forgotten_beyond_the_limit() {
    let mut tracker = Tracker::default();
    for n in 0..=MAX_TRACKED_FILES {
        tracker.seen(&file(&n.to_string(), "x"));
    }
    assert_eq!(tracker.recent(usize::MAX).len(), MAX_TRACKED_FILES);
    assert_eq!(tracker.digest("0"), None);
    assert!(tracker.digest("1").is_some());
}
