//! `glob` and `grep`.

use std::os::unix::fs::symlink;

use longhaul_session::item::Outcome;
use serde_json::{Value, json};

use crate::world::World;

fn project() -> World {
    let world = World::new();
    world.put(".gitignore", "target/\n");
    world.put(".git/config.rs", "fn git() {}");
    world.put(".github/ci.rs", "fn ci() {}");
    world.put("src/main.rs", "fn main() {\n    let a = 1;\n    help();\n}\n");
    world.put("src/deep/mod.rs", "pub fn help() {}\n");
    world.put("target/out.rs", "fn help() {}");
    world.put("data.bin", b"help\0help");
    world
}

async fn check(name: &str, arguments: Value, expected: &[&str]) {
    let output = project().call(name, arguments).await;
    assert_eq!(output.text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(output.outcome, Outcome::Ok);
}

#[tokio::test]
async fn glob_finds_names_everywhere_and_paths_below_the_root() {
    check("glob", json!({"pattern": "*.rs"}), &[".github/ci.rs", "src/deep/mod.rs", "src/main.rs"]).await;
    check("glob", json!({"pattern": "src/*.rs"}), &["src/main.rs"]).await;
    check("glob", json!({"pattern": "./src/**/*.rs"}), &["src/deep/mod.rs", "src/main.rs"]).await;
    check("glob", json!({"pattern": "{mod,main}.rs", "path": "src/deep"}), &["src/deep/mod.rs"]).await;
    check("glob", json!({"pattern": "*.py"}), &["[no file matches]"]).await;
}

#[tokio::test]
async fn glob_says_how_many_there_are_beyond_its_limit() {
    let world = World::new();
    for n in 0..1_003 {
        world.put(&format!("{n:04}"), "");
    }
    let output = world.call("glob", json!({"pattern": "*"})).await;
    assert!(output.text.starts_with("0000\n0001\n"));
    assert!(output.text.ends_with("0999\n[the first 1000 of 1003 files; narrow the pattern]"));
}

#[tokio::test]
async fn grep_returns_paths_lines_and_context() {
    check(
        "grep",
        json!({"pattern": "help"}),
        &["src/deep/mod.rs:1:pub fn help() {}", "src/main.rs:3:    help();"],
    )
    .await;
    check("grep", json!({"pattern": "HELP"}), &["[no line matches]"]).await;
    check("grep", json!({"pattern": "(?i)HELP", "files_only": true}), &["src/deep/mod.rs", "src/main.rs"])
        .await;
    check(
        "grep",
        json!({"pattern": "help", "glob": "main.*", "context": 1}),
        &["src/main.rs-2-    let a = 1;", "src/main.rs:3:    help();", "src/main.rs-4-}"],
    )
    .await;
    check("grep", json!({"pattern": "^fn", "path": "src/main.rs"}), &["src/main.rs:1:fn main() {"]).await;
}

#[tokio::test]
async fn grep_stops_at_its_limits() {
    let world = World::new();
    world.put("many", "x\n".repeat(3_000));
    let output = world.call("grep", json!({"pattern": "x"})).await;
    assert_eq!(output.text.lines().count(), 1_001);
    assert!(output.text.ends_with("[there are more; narrow the expression, the path or the glob]"));
    assert!(output.whole.is_none());
}

#[tokio::test]
async fn a_bad_pattern_or_path_is_explained() {
    let world = World::new();
    for (name, arguments, text) in [
        ("grep", json!({"pattern": "("}), "cannot be read"),
        ("glob", json!({"pattern": "[z-"}), "cannot be read"),
        ("glob", json!({"pattern": "*", "path": "missing"}), "missing does not exist"),
        ("grep", json!({"pattern": "x", "context": 1_000}), "/context"),
    ] {
        let output = world.call(name, arguments).await;
        assert!(output.outcome != Outcome::Ok && output.text.contains(text), "{}", output.text);
    }
}

#[tokio::test]
async fn a_search_that_is_cancelled_says_that_it_did_not_see_everything() {
    let world = project();
    world.cx.cancel.cancel();
    for name in ["glob", "grep"] {
        let output = world.toolbox.get(name).unwrap().call(json!({"pattern": "x"}), &world.cx).await;
        assert_eq!(output.outcome, Outcome::Stopped);
        assert!(output.text.ends_with("[stopped before everything was searched]"), "{}", output.text);
    }
}

#[tokio::test]
async fn links_that_lead_in_circles_are_not_followed() {
    let world = World::new();
    world.put("a/x", "needle");
    symlink("..", world.directory.join("a/up")).unwrap();
    assert_eq!(world.call("grep", json!({"pattern": "needle"})).await.text, "a/x:1:needle");
}
