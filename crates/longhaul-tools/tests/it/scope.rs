//! What rules allow, and that links do not lead around them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_session::agent::{Permission, ScopeEffect, ScopeRule};
use longhaul_session::item::Outcome;
use longhaul_tools::scope::{Scope, ScopeError};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{World, eventually};

fn rule(effect: ScopeEffect, target: &str, permission: Permission, recursive: bool) -> ScopeRule {
    ScopeRule { effect, target: target.to_owned(), permission, recursive }
}

fn allow(target: &str, permission: Permission) -> ScopeRule {
    rule(ScopeEffect::Allow, target, permission, true)
}

fn deny(target: &str, permission: Permission) -> ScopeRule {
    rule(ScopeEffect::Deny, target, permission, true)
}

#[test]
fn without_rules_the_working_directory_may_be_written_and_nothing_else() {
    let world = World::new();
    let scope = &world.cx.workspace.scope;
    assert_eq!(scope.level(&world.directory.join("a/b")), Some(Permission::Write));
    assert_eq!(scope.level(world.outside()), None);
    assert_eq!(scope.level(&world.outside().join("work2")), None);
}

#[test]
fn a_rule_that_is_not_recursive_is_about_its_target_alone() {
    let rules = [rule(ScopeEffect::Allow, "a", Permission::Read, false)];
    let world = World::with_rules(&rules);
    let scope = &world.cx.workspace.scope;
    assert_eq!(scope.level(&world.directory.join("a")), Some(Permission::Read));
    assert_eq!(scope.level(&world.directory.join("a/b")), None);
}

#[test]
fn a_deny_caps_strictly_below_its_level() {
    let world = World::with_rules(&[
        allow(".", Permission::Write),
        deny("a", Permission::Write),
        deny("a/b", Permission::Read),
    ]);
    let scope = &world.cx.workspace.scope;
    assert_eq!(scope.level(&world.directory.join("x")), Some(Permission::Write));
    assert_eq!(scope.level(&world.directory.join("a/x")), Some(Permission::Read));
    assert_eq!(scope.level(&world.directory.join("a/b/x")), None);
}

#[test]
fn the_summary_says_that_bash_is_not_confined() {
    let world = World::with_rules(&[allow("/usr", Permission::Read), deny("secret", Permission::Read)]);
    let summary = world.cx.workspace.scope.summary();
    assert!(summary.contains("read /usr and everything below it"), "{summary}");
    assert!(summary.contains("never read or write"), "{summary}");
    assert!(summary.contains("`bash` are not confined"), "{summary}");
}

#[test]
fn a_rule_about_a_link_is_about_what_it_leads_to() {
    let world = World::new();
    world.put("real/x", "");
    symlink("real", world.directory.join("link")).unwrap();
    let scope = Scope::new(&[allow("link", Permission::Read)], &world.directory).unwrap();
    assert_eq!(scope.level(&world.directory.join("real/x")), Some(Permission::Read));
    assert_eq!(scope.check("link/x", Permission::Read).unwrap(), world.directory.join("real/x"));
}

#[test]
fn going_up_from_what_does_not_exist_is_refused() {
    let world = World::new();
    let refused = world.cx.workspace.scope.check("missing/../../x", Permission::Write);
    assert!(matches!(refused, Err(ScopeError::Upwards(_))), "{refused:?}");
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_the_scope() {
    let world = World::new();
    let outside = world.outside().to_owned();
    fs::write(outside.join("secret"), "hidden").unwrap();
    fs::create_dir(outside.join("elsewhere")).unwrap();
    fs::write(outside.join("elsewhere/secret"), "hidden").unwrap();
    symlink("../secret", world.directory.join("file")).unwrap();
    symlink(outside.join("secret"), world.directory.join("absolute")).unwrap();
    symlink("../elsewhere", world.directory.join("directory")).unwrap();
    symlink("file", world.directory.join("chain")).unwrap();
    let absolute = outside.join("secret").display().to_string();
    for path in ["file", "absolute", "directory/secret", "chain", "../secret", "./../secret", &absolute] {
        let read = world.call("read", json!({"path": path})).await;
        assert_eq!(
            (read.outcome, read.text.contains("hidden")),
            (Outcome::Denied, false),
            "{path}: {}",
            read.text
        );
        let write = world.call("write", json!({"path": path, "content": "mine"})).await;
        assert_eq!(write.outcome, Outcome::Denied, "{path}: {}", write.text);
        let grep = world.call("grep", json!({"pattern": "hidden", "path": path})).await;
        assert_eq!(grep.outcome, Outcome::Denied, "{path}: {}", grep.text);
    }
    let write = world.call("write", json!({"path": "directory/new", "content": "mine"})).await;
    assert_eq!(write.outcome, Outcome::Denied, "{}", write.text);
    let grep = world.call("grep", json!({"pattern": "hidden"})).await;
    assert_eq!(grep.text, "[no line matches]");
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "hidden");
}

#[tokio::test]
async fn a_link_to_nothing_is_not_written_through() {
    let world = World::new();
    symlink("../planted", world.directory.join("dangling")).unwrap();
    symlink("../nowhere", world.directory.join("lost")).unwrap();
    for path in ["dangling", "lost/file"] {
        let write = world.call("write", json!({"path": path, "content": "mine"})).await;
        assert_eq!(write.outcome, Outcome::Error, "{}", write.text);
        assert!(write.text.contains("symbolic link"), "{}", write.text);
    }
    assert!(!world.outside().join("planted").exists() && !world.outside().join("nowhere").exists());
}

#[tokio::test]
async fn a_link_within_the_scope_may_be_used() {
    let world = World::new();
    world.put("real", "here");
    symlink("real", world.directory.join("link")).unwrap();
    assert!(world.call("read", json!({"path": "link"})).await.text.contains("here"));
    let write = world.call("write", json!({"path": "link", "content": "there"})).await;
    assert_eq!(write.outcome, Outcome::Ok, "{}", write.text);
    assert_eq!(world.text("real"), "there");
    assert!(world.directory.join("link").is_symlink());
}

#[tokio::test]
async fn directories_are_made_only_where_writing_is_allowed() {
    let world = World::with_rules(&[rule(ScopeEffect::Allow, "new/file", Permission::Write, false)]);
    let write = world.call("write", json!({"path": "new/file", "content": "x"})).await;
    assert_eq!(write.outcome, Outcome::Denied, "{}", write.text);
    assert!(!world.directory.join("new").exists());
}

#[tokio::test]
async fn denied_files_are_neither_found_nor_searched() {
    let world = World::with_rules(&[allow(".", Permission::Write), deny("secret", Permission::Read)]);
    world.put("secret/a.txt", "needle");
    world.put("open/a.txt", "needle");
    assert_eq!(world.call("glob", json!({"pattern": "*.txt"})).await.text, "open/a.txt");
    assert_eq!(world.call("grep", json!({"pattern": "needle"})).await.text, "open/a.txt:1:needle");
}

/// A swapper replaces a file by a link to a secret and back, while it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_put_in_place_of_a_checked_file_is_not_followed() {
    let world = World::new();
    fs::write(world.outside().join("secret"), "hidden").unwrap();
    let file = world.put("file", "open");
    let (a, b) = (world.directory.join("a"), world.directory.join("b"));
    let stop = tokio_util::sync::CancellationToken::new();
    let swaps = Arc::new(AtomicU64::new(0));
    let swapper = std::thread::spawn({
        let (stop, swaps) = (stop.clone(), Arc::clone(&swaps));
        move || {
            while !stop.is_cancelled() {
                symlink("../secret", &a).unwrap();
                fs::rename(&a, &file).unwrap();
                fs::write(&b, "open").unwrap();
                fs::rename(&b, &file).unwrap();
                swaps.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    eventually("the link comes and goes", || swaps.load(Ordering::SeqCst) > 0).await;
    let mut leaked = Vec::new();
    for _ in 0..2_000 {
        let read = world.call("read", json!({"path": "file"})).await;
        leaked.extend(read.text.contains("hidden").then_some(read.text));
    }
    stop.cancel();
    swapper.join().unwrap();
    assert_eq!(leaked, Vec::<String>::new());
}

fn rules() -> impl Strategy<Value = Vec<ScopeRule>> {
    let effect = prop_oneof![Just(ScopeEffect::Allow), Just(ScopeEffect::Deny)];
    let permission = prop_oneof![Just(Permission::Read), Just(Permission::Write)];
    let one = (effect, path(), permission, any::<bool>());
    let one = one.prop_map(|(effect, target, permission, recursive)| ScopeRule {
        effect,
        target: target.display().to_string(),
        permission,
        recursive,
    });
    prop::collection::vec(one, 1..6)
}

/// Paths that do not exist resolve to themselves, so the lattice needs no files.
fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(prop_oneof![Just("a"), Just("b")], 0..4)
        .prop_map(|names| Path::new("/no-such-root").join(names.iter().collect::<PathBuf>()))
}

fn level(rules: &[ScopeRule], path: &Path) -> Option<Permission> {
    Scope::new(rules, Path::new("/no-such-root")).unwrap().level(path)
}

proptest! {
    #[test]
    fn the_order_of_rules_does_not_matter(rules in rules(), path in path()) {
        let mut reversed = rules.clone();
        reversed.reverse();
        prop_assert_eq!(level(&rules, &path), level(&reversed, &path));
    }

    #[test]
    fn an_allow_never_takes_and_a_deny_never_gives(rules in rules(), more in rules(), path in path()) {
        let before = level(&rules, &path);
        for rule in more {
            let after = level(&[&rules[..], std::slice::from_ref(&rule)].concat(), &path);
            match rule.effect {
                ScopeEffect::Allow => prop_assert!(after >= before),
                ScopeEffect::Deny => prop_assert!(after <= before),
            }
        }
    }

    #[test]
    fn nothing_is_granted_that_no_rule_allows_or_that_some_rule_denies(rules in rules(), path in path()) {
        let named = |rule: &&ScopeRule| {
            let target = Path::new(&rule.target);
            path == target || (rule.recursive && path.starts_with(target))
        };
        if let Some(granted) = level(&rules, &path) {
            let mut named = rules.iter().filter(named);
            prop_assert!(named.clone().any(|rule| rule.effect == ScopeEffect::Allow && rule.permission >= granted));
            prop_assert!(!named.any(|rule| rule.effect == ScopeEffect::Deny && rule.permission <= granted));
        }
    }
}
