//! Files that a goal protects: which are found, and how changes of them are seen.

use std::fs;
use std::os::unix::fs::symlink;

use longhaul_session::item::FileSeen;
use longhaul_tools::guarded::{Change, ChangeKind, GuardError, Guarded, changes};

use crate::world::World;

impl World {
    fn guarded(&self, patterns: &[&str]) -> Result<Vec<FileSeen>, GuardError> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Guarded::new(&patterns, &self.directory)?.digests(&self.directory)
    }

    fn paths(&self, patterns: &[&str]) -> Vec<String> {
        self.guarded(patterns).unwrap().into_iter().map(|file| file.path).collect()
    }
}

#[test]
fn files_are_found_by_path_directory_and_pattern() {
    let world = World::new();
    for path in ["Makefile", "tests/a.py", "tests/deep/b.py", "tests/deep/b.pyc", "src/a.py", "tests/.git/x"]
    {
        world.put(path, path);
    }
    assert_eq!(world.paths(&["Makefile", "./Makefile"]), ["Makefile"]);
    assert_eq!(world.paths(&["tests"]), ["tests/a.py", "tests/deep/b.py", "tests/deep/b.pyc"]);
    assert_eq!(world.paths(&["tests/**/*.py"]), ["tests/a.py", "tests/deep/b.py"]);
    assert_eq!(world.paths(&["tests/*.py"]), ["tests/a.py"]);
    assert_eq!(world.paths(&["**/{a,b}.py"]), ["src/a.py", "tests/a.py", "tests/deep/b.py"]);
    assert_eq!(world.paths(&["nothing", "no*thing", "not/there/*"]), Vec::<String>::new());
    let absolute = world.directory.join("src").display().to_string();
    assert_eq!(world.paths(&[&absolute]), ["src/a.py"]);
    let patterns = ["Makefile".to_owned(), "Mkefile".to_owned()];
    let guarded = Guarded::new(&patterns, &world.directory).unwrap();
    assert_eq!(guarded.without_files().unwrap(), ["Mkefile"]);
}

#[test]
fn a_change_a_removal_and_a_new_file_are_told_apart() {
    let world = World::new();
    for path in ["tests/changed", "tests/removed", "tests/kept"] {
        world.put(path, "before");
    }
    let before = world.guarded(&["tests"]).unwrap();
    assert_eq!(changes(&before, &before), []);
    world.put("tests/changed", "after");
    world.put("tests/new", "new");
    fs::remove_file(world.directory.join("tests/removed")).unwrap();
    let told = changes(&before, &world.guarded(&["tests"]).unwrap());
    let change = |path: &str, kind| Change { path: path.to_owned(), kind };
    assert_eq!(
        told,
        [
            change("tests/changed", ChangeKind::Changed),
            change("tests/removed", ChangeKind::Removed),
            change("tests/new", ChangeKind::Added)
        ]
    );
}

#[test]
fn a_link_in_place_of_a_file_or_a_directory_is_a_change() {
    let world = World::new();
    world.put("tests/a", "same");
    world.put("other/a", "same");
    let before = world.guarded(&["tests", "tests/a"]).unwrap();
    fs::remove_file(world.directory.join("tests/a")).unwrap();
    symlink("../other/a", world.directory.join("tests/a")).unwrap();
    assert!(!changes(&before, &world.guarded(&["tests", "tests/a"]).unwrap()).is_empty());
    fs::remove_dir_all(world.directory.join("tests")).unwrap();
    symlink("other", world.directory.join("tests")).unwrap();
    assert!(!changes(&before, &world.guarded(&["tests", "tests/a"]).unwrap()).is_empty());
}

#[test]
fn where_a_link_leads_and_what_is_there_both_count() {
    let world = World::new();
    world.put("lib/helper", "one");
    world.put("tests/own", "own");
    symlink("../lib/helper", world.directory.join("tests/helper")).unwrap();
    symlink("nowhere", world.directory.join("tests/dangling")).unwrap();
    let before = world.guarded(&["tests"]).unwrap();
    assert_eq!(before.len(), 3);
    world.put("lib/helper", "two");
    let told = changes(&before, &world.guarded(&["tests"]).unwrap());
    assert_eq!(told.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["tests/helper"]);
}

#[test]
fn a_pattern_that_makes_no_sense_is_refused_with_its_text() {
    let world = World::new();
    for wrong in ["tests/[", "../outside", "tests/../../outside/*", "{a"] {
        let error = world.guarded(&[wrong]).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn what_is_no_file_does_not_block_the_digesting() {
    let world = World::new();
    let pipe = world.directory.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert_eq!(world.paths(&["pipe"]), ["pipe"]);
}
