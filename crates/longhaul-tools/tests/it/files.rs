//! `read`, `write` and `edit`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use longhaul_session::id::Digest;
use longhaul_session::item::Outcome;
use longhaul_tools::tool::ToolOutput;
use serde_json::{Value, json};

use crate::world::World;

impl World {
    async fn read(&self, path: &str) -> ToolOutput {
        self.call("read", json!({"path": path})).await
    }

    async fn ends(&self, name: &str, arguments: Value, outcome: Outcome, text: &str) {
        let output = self.call(name, arguments).await;
        assert_eq!(output.outcome, outcome, "{}", output.text);
        assert!(output.text.contains(text), "{}", output.text);
    }
}

#[tokio::test]
async fn read_numbers_lines_and_reports_the_file() {
    let world = World::new();
    let path = world.put("a", "one\ntwo\n");
    let output = world.read("a").await;
    assert_eq!(output.text, "     1\tone\n     2\ttwo\n");
    assert_eq!(output.files[0].path, path.display().to_string());
    assert_eq!(output.files[0].digest, Digest::of(b"one\ntwo\n"));
}

#[tokio::test]
async fn read_stops_at_its_limits_and_says_how_to_go_on() {
    let world = World::new();
    world.put("many", "x\n".repeat(5_000));
    let output = world.read("many").await;
    assert!(output.text.ends_with("[lines 1 to 2000 of 5000; go on with offset 2001]\n"));
    world.ends("read", json!({"path": "many", "offset": 4999}), Outcome::Ok, "  4999\tx\n  5000\tx\n").await;
    world
        .ends("read", json!({"path": "many", "offset": 3, "limit": 2}), Outcome::Ok, "go on with offset 5")
        .await;
    world.ends("read", json!({"path": "many", "offset": 5001}), Outcome::Error, "has 5000 lines").await;
    world.put("wide", format!("{}\n", "é".repeat(1_500)).repeat(100));
    let output = world.read("wide").await;
    assert!(output.text.len() <= 32 * 1024 && output.whole.is_none());
    assert!(
        output.text.contains("[… 1000 more bytes in this line]") && output.text.contains("go on with offset")
    );
}

#[tokio::test]
async fn read_explains_what_it_cannot_show() {
    let world = World::new();
    world.put("binary", [1, 0, 2]);
    world.put("clock.txt", b"\x89PNG\r\n\x1a\n\0");
    world.put("latin", b"caf\xe9\n");
    world.put("empty", "");
    rustix::fs::mkfifoat(rustix::fs::CWD, world.directory.join("pipe"), 0o600.into()).unwrap();
    world.ends("read", json!({"path": "binary"}), Outcome::Error, "binary file of 3 bytes").await;
    world
        .ends("read", json!({"path": "clock.txt"}), Outcome::Error, "is a picture (image/png) of 9 bytes")
        .await;
    world.ends("read", json!({"path": "latin"}), Outcome::Ok, "caf\u{fffd}\n[not valid UTF-8").await;
    world.ends("read", json!({"path": "empty"}), Outcome::Ok, "[The file is empty.]").await;
    world.ends("read", json!({"path": "."}), Outcome::Error, "is a directory").await;
    world.ends("read", json!({"path": "missing"}), Outcome::Error, "does not exist").await;
    world.ends("read", json!({"path": "pipe"}), Outcome::Error, "not a regular file").await;
    world.ends("read", json!({"path": "empty/x"}), Outcome::Error, "cannot be resolved").await;
}

#[tokio::test]
async fn a_whole_output_that_was_cut_can_be_read_in_pages() {
    let world = World::new();
    world.put("a", "needle in a haystack, somewhere\n");
    let cut = world.call("bash", json!({"command": "for i in $(seq 20000); do echo line $i; done"})).await;
    let digest = world.artifacts.keep(cut.whole.unwrap());
    assert!(cut.text.contains(&format!("artifact:{digest}")));
    let path = format!("artifact:{digest}");
    world.ends("read", json!({"path": path, "offset": 15000, "limit": 1}), Outcome::Ok, "line 15000\n").await;
    world
        .ends("read", json!({"path": format!("artifact:{}", "0".repeat(64))}), Outcome::Error, "no artifact")
        .await;
    world.ends("read", json!({"path": "artifact:xyz"}), Outcome::Error, "64 hexadecimal digits").await;
}

#[tokio::test]
async fn write_creates_a_file_and_its_directories() {
    let world = World::new();
    let output = world.call("write", json!({"path": "a/b/c", "content": "new"})).await;
    assert_eq!(output.text, "Created a/b/c (3 bytes).");
    assert_eq!(world.text("a/b/c"), "new");
    assert_eq!(output.files[0].digest, Digest::of(b"new"));
    let left = fs::read_dir(world.directory.join("a/b")).unwrap().count();
    assert_eq!(left, 1, "the draft is gone");
}

#[tokio::test]
async fn a_file_that_was_not_read_or_has_changed_is_not_overwritten() {
    let world = World::new();
    world.put("a", "theirs");
    world.ends("write", json!({"path": "a", "content": "mine"}), Outcome::Error, "has not been read").await;
    world.read("a").await;
    world.put("a", "theirs, later");
    world.ends("write", json!({"path": "a", "content": "mine"}), Outcome::Error, "has changed").await;
    world
        .ends("edit", json!({"path": "a", "old": "theirs", "new": "mine"}), Outcome::Error, "has changed")
        .await;
    assert_eq!(world.text("a"), "theirs, later");
    world.read("a").await;
    world.ends("write", json!({"path": "a", "content": "mine"}), Outcome::Ok, "Replaced a").await;
    world.ends("write", json!({"path": "a", "content": "mine again"}), Outcome::Ok, "Replaced a").await;
}

#[tokio::test]
async fn replacing_a_file_keeps_its_permissions() {
    let world = World::new();
    let path = world.put("script", "old");
    fs::set_permissions(&path, Permissions::from_mode(0o751)).unwrap();
    world.read("script").await;
    world
        .ends("edit", json!({"path": "script", "old": "old", "new": "new"}), Outcome::Ok, "-old\n+new")
        .await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o751);
}

#[tokio::test]
async fn a_session_that_is_rebuilt_knows_what_it_read() {
    let world = World::new();
    world.put("a", "old");
    let seen = world.read("a").await.files.remove(0);
    *world.cx.workspace.tracker() = Default::default();
    world.ends("write", json!({"path": "a", "content": "new"}), Outcome::Error, "has not been read").await;
    world.cx.workspace.tracker().seen(&seen);
    world.ends("write", json!({"path": "a", "content": "new"}), Outcome::Ok, "Replaced").await;
}

#[tokio::test]
async fn edit_needs_text_that_is_there_exactly_once() {
    let world = World::new();
    world.put("a", "fn one() {\n    body();\n}\nfn two() {\n    body();\n}\n");
    world.read("a").await;
    let edit = |old: &str, new: &str| json!({"path": "a", "old": old, "new": new});
    world.ends("edit", edit("    body();", "x"), Outcome::Error, "2 times (first in lines 2, 5)").await;
    world.ends("edit", edit("fn  one() {", "x"), Outcome::Error, "is line 1:\nfn one() {\n").await;
    world.ends("edit", edit("zzz", "x"), Outcome::Error, "No line is like").await;
    world.ends("edit", edit("body", "body"), Outcome::Error, "are the same").await;
    world.ends("edit", edit("", "x"), Outcome::Rejected, "/old").await;
    world
        .ends(
            "edit",
            edit("one() {\n    body", "one() {\n    soul"),
            Outcome::Ok,
            "-    body();\n+    soul();",
        )
        .await;
    let all = json!({"path": "a", "old": "()", "new": "(0)", "replace_all": true});
    world.ends("edit", all, Outcome::Ok, "Edited a.").await;
    assert_eq!(world.text("a"), "fn one(0) {\n    soul(0);\n}\nfn two(0) {\n    body(0);\n}\n");
}

#[tokio::test]
async fn edit_tells_of_line_ends_and_bytes_that_are_no_text() {
    let world = World::new();
    world.put("dos", "one\r\ntwo\r\n");
    world.put("latin", b"caf\xe9\n");
    world.read("dos").await;
    world.read("latin").await;
    world.ends("edit", json!({"path": "dos", "old": "one\ntwo", "new": "x"}), Outcome::Error, "\\r\\n").await;
    world
        .ends("edit", json!({"path": "latin", "old": "caf", "new": "x"}), Outcome::Error, "not valid UTF-8")
        .await;
    world
        .ends("edit", json!({"path": "missing", "old": "a", "new": "x"}), Outcome::Error, "`write` creates")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_edits_none_is_lost() {
    let world = World::new();
    let lines: Vec<String> = (0..20).map(|n| format!("<{n}>")).collect();
    world.put("a", lines.join("\n"));
    world.read("a").await;
    let mut calls = tokio::task::JoinSet::new();
    for line in &lines {
        let (toolbox, cx) = (world.toolbox.clone(), world.cx.clone());
        let arguments = json!({"path": "a", "old": line, "new": "done"}).to_string();
        calls.spawn(async move { toolbox.run("edit", &arguments, &cx).await });
    }
    let outputs = calls.join_all().await;
    assert!(outputs.iter().all(|output| output.outcome == Outcome::Ok), "{outputs:?}");
    assert_eq!(world.text("a"), vec!["done"; 20].join("\n"));
}
