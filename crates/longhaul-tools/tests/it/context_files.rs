//! What a workspace tells an agent, and what it cannot be made to tell.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use longhaul_session::agent::{Permission, ScopeEffect, ScopeRule};
use longhaul_session::id::Digest;
use longhaul_session::item::Outcome;
use longhaul_tools::context_files::ContextFile;
use longhaul_tools::limits::{MAX_CONTEXT_BYTES, MAX_CONTEXT_FILE_BYTES, MAX_SKILL_DESCRIPTION_CHARS};
use serde_json::json;

use crate::world::World;

fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn seen(world: &World) -> Vec<ContextFile> {
    world.cx.workspace.look_around(None)
}

fn texts(world: &World) -> Vec<String> {
    seen(world).into_iter().map(|file| file.text).collect()
}

fn skill(name: &str, description: &str) -> String {
    format!("---\nname: {name}\ndescription: {description}\n---\n\nDo it well.\n")
}

#[test]
fn without_a_repository_only_the_working_directory_counts() {
    let world = World::new();
    assert_eq!(seen(&world), []);
    put(&world.outside().join("AGENTS.md"), "of the folder above");
    world.put("AGENTS.md", "of the directory\n");
    world.put("below/AGENTS.md", "of a folder below");
    let path = world.directory.join("AGENTS.md").display().to_string();
    let digest = Digest::of(b"of the directory\n");
    assert_eq!(seen(&world), [ContextFile { path, digest, text: "of the directory".to_owned() }]);
}

#[test]
fn in_a_repository_the_files_up_to_its_root_count_and_the_nearest_comes_last() {
    let world = World::new();
    put(&world.outside().join("AGENTS.md"), "of the root");
    world.put("AGENTS.md", "of the directory");
    fs::create_dir(world.outside().join(".git")).unwrap();
    assert_eq!(texts(&world), ["of the root", "of the directory"]);
}

#[test]
fn a_worktree_has_its_root_where_its_git_file_is() {
    let world = World::new();
    put(&world.outside().join(".git"), "gitdir: elsewhere");
    put(&world.outside().join("AGENTS.md"), "of the root");
    assert_eq!(texts(&world), ["of the root"]);
}

#[test]
fn what_says_nothing_is_passed_over() {
    let world = World::new();
    world.put("AGENTS.md", " \n\n");
    assert_eq!(seen(&world), []);
    fs::remove_file(world.directory.join("AGENTS.md")).unwrap();
    fs::create_dir(world.directory.join("AGENTS.md")).unwrap();
    assert_eq!(seen(&world), []);
}

#[test]
fn a_long_file_is_cut_between_characters_and_says_so() {
    let world = World::new();
    let long = format!("x{}", "é".repeat(MAX_CONTEXT_FILE_BYTES));
    world.put("AGENTS.md", &long);
    let [file] = &seen(&world)[..] else { panic!("there is one file") };
    let (shown, note) = file.text.rsplit_once('\n').unwrap();
    assert_eq!(shown.len(), MAX_CONTEXT_FILE_BYTES - 1);
    assert_eq!(note, format!("[cut: these are the first {} of {} bytes]", shown.len(), long.len()));
    assert_eq!(file.digest, Digest::of(long.as_bytes()));
    world.put("AGENTS.md", vec![b'x'; 1024 * 1024 + 1]);
    assert_eq!(seen(&world), []);
}

#[test]
fn all_files_together_are_bounded_and_the_nearest_is_cut_last() {
    let world = World::new();
    fs::create_dir(world.outside().join(".git")).unwrap();
    let full = "x".repeat(MAX_CONTEXT_FILE_BYTES);
    put(&world.outside().join("AGENTS.md"), &full);
    world.put("AGENTS.md", &full);
    let nested = longhaul_tools::workspace::Workspace::new(
        world.put("a/b/AGENTS.md", &full).parent().unwrap(),
        &[],
        world.artifacts.clone(),
    );
    let found = nested.unwrap().look_around(None);
    let shown: usize = found.iter().map(|file| file.text.matches('x').count()).sum();
    assert_eq!((found.len(), shown), (3, MAX_CONTEXT_BYTES));
    assert_eq!(found[2].text, full);
    assert!(found[0].text.ends_with("[cut: these are the first 0 of 32768 bytes]"), "{}", found[0].text);
}

#[test]
fn no_link_brings_in_what_the_scope_does_not_allow() {
    let world = World::new();
    put(&world.outside().join("secret"), "the secret");
    fs::create_dir(world.outside().join(".git")).unwrap();
    symlink(world.outside().join("secret"), world.directory.join("AGENTS.md")).unwrap();
    symlink(world.outside().join("secret"), world.outside().join("AGENTS.md")).unwrap();
    assert_eq!(seen(&world), []);
    fs::remove_file(world.directory.join("AGENTS.md")).unwrap();
    world.put("README.md", "of the readme");
    symlink("README.md", world.directory.join("AGENTS.md")).unwrap();
    assert_eq!(texts(&world), ["of the readme"]);
}

#[test]
fn what_a_rule_forbids_is_not_told() {
    let deny = |target: &str| ScopeRule {
        effect: ScopeEffect::Deny,
        target: target.to_owned(),
        permission: Permission::Read,
        recursive: true,
    };
    let allow = ScopeRule { effect: ScopeEffect::Allow, target: ".".to_owned(), ..deny(".") };
    let world = World::with_rules(&[allow, deny("AGENTS.md"), deny("../AGENTS.md"), deny("../.agents")]);
    fs::create_dir(world.outside().join(".git")).unwrap();
    put(&world.outside().join("AGENTS.md"), "of the root");
    put(&world.outside().join(".agents/skills/a/SKILL.md"), skill("a", "Is denied."));
    world.put("AGENTS.md", "of the directory");
    assert_eq!(seen(&world), []);
}

#[tokio::test]
async fn skills_are_listed_and_can_be_read_outside_of_the_scope() {
    let world = World::new();
    fs::create_dir(world.outside().join(".git")).unwrap();
    let users = world.outside().join("config/skills");
    let (root, near) = (world.outside().join(".agents/skills"), world.directory.join(".agents/skills"));
    put(&users.join("alpha/SKILL.md"), skill("alpha", "Of the user."));
    put(&users.join("beta/SKILL.md"), skill("beta", "Of the user."));
    put(&users.join("beta/notes.md"), "notes");
    put(&root.join("alpha/SKILL.md"), skill("alpha", "Of the root."));
    put(&near.join("gamma/SKILL.md"), skill("gamma", "Of the directory."));
    put(&users.join("notes.md"), "no skill's");
    let notes = users.join("beta/notes.md").display().to_string();
    let before = world.call("read", json!({ "path": notes })).await;
    assert_eq!(before.outcome, Outcome::Denied);
    let [list] = &world.cx.workspace.look_around(Some(&users))[..] else { panic!("there is a list") };
    let (_, lines) = list.text.split_once('\n').unwrap();
    let expected = format!(
        "- alpha: Of the root.\n  {}\n- beta: Of the user.\n  {}\n- gamma: Of the directory.\n  {}",
        root.join("alpha/SKILL.md").display(),
        users.join("beta/SKILL.md").display(),
        near.join("gamma/SKILL.md").display()
    );
    assert_eq!((list.path.as_str(), lines), ("skills", expected.as_str()));
    let read = world.call("read", json!({ "path": notes })).await;
    assert!(read.outcome == Outcome::Ok && read.text.contains("notes"), "{}", read.text);
    let skill_file = root.join("alpha/SKILL.md");
    let read = world.call("read", json!({ "path": skill_file })).await;
    assert!(read.text.contains("Do it well."), "{}", read.text);
    for outside in [users.join("notes.md"), users.join("beta/../notes.md"), users.join("alpha/SKILL.md")] {
        let denied = world.call("read", json!({ "path": outside })).await;
        assert_eq!(denied.outcome, Outcome::Denied, "{}", outside.display());
    }
    let written = world.call("write", json!({ "path": notes, "content": "changed" })).await;
    assert_eq!((written.outcome, fs::read_to_string(&notes).unwrap().as_str()), (Outcome::Denied, "notes"));
    fs::write(world.outside().join("secret"), "the secret").unwrap();
    symlink(world.outside().join("secret"), users.join("beta/link")).unwrap();
    let through = world.call("read", json!({ "path": users.join("beta/link") })).await;
    assert!(through.outcome == Outcome::Denied && !through.text.contains("the secret"), "{}", through.text);
}

#[test]
fn no_link_makes_another_folder_a_skill_of_the_workspace() {
    let world = World::new();
    put(&world.outside().join("private/SKILL.md"), skill("private", "Is not meant."));
    fs::create_dir_all(world.directory.join(".agents/skills")).unwrap();
    symlink(world.outside().join("private"), world.directory.join(".agents/skills/private")).unwrap();
    assert_eq!(seen(&world), []);
    let users = world.outside().join("skills");
    fs::create_dir_all(users.join("half")).unwrap();
    symlink(world.outside().join("private/SKILL.md"), users.join("half/SKILL.md")).unwrap();
    assert_eq!(world.cx.workspace.look_around(Some(&users)), []);
    symlink(world.outside().join("private"), users.join("whole")).unwrap();
    assert_eq!(world.cx.workspace.look_around(Some(&users)).len(), 1);
}

#[test]
fn the_head_of_a_skill_is_read_in_the_ways_it_is_written() {
    let world = World::new();
    let long = "d".repeat(MAX_SKILL_DESCRIPTION_CHARS + 1);
    for (folder, head) in [
        ("a", "---\nname: a\ndescription: Plain, with: a colon. # and a comment\nlicense: MIT\n---\n"),
        ("b", "---\ndescription: 'It''s quoted # here'\nname: \"b\"\n---\n"),
        (
            "c",
            "---\nname: c\ndescription: >-\n  Folded\n  over lines.\n\n  And more.\nmetadata:\n  name: no\n---\n",
        ),
        ("d", "---\r\nname: d\r\ndescription: |\r\n  Kept\r\n  lines.\r\n---\r\n"),
        ("e", "\u{feff}---\nname: e\ndescription: \"Escaped \\\"words\\\"\n  go on.\"\n---"),
        ("f", "---\nname: f\ndescription: Plain\n  goes on.\n---\n"),
        ("g", &format!("---\nname: g\ndescription: {long}\n---\n")),
        ("no-head", "name: x\ndescription: y\n"),
        ("no-end", "---\nname: x\ndescription: y\n"),
        ("no-name", "---\ndescription: y\n---\n"),
        ("no-description", "---\nname: x\n---\n"),
        ("empty-description", "---\nname: x\ndescription: \"\"\n---\n"),
        ("no-text", "---\nname: [x]\ndescription: y\n---\n"),
        ("long-name", &format!("---\nname: {}\ndescription: y\n---\n", "n".repeat(65))),
    ] {
        world.put(&format!(".agents/skills/{folder}/SKILL.md"), head);
    }
    world.put(".agents/skills/binary/SKILL.md", [0xff, 0xfe]);
    world.put(".agents/skills/README.md", "no skill");
    let [list] = &seen(&world)[..] else { panic!("there is a list") };
    let lines: Vec<&str> = list.text.lines().filter(|line| line.starts_with("- ")).collect();
    let cut = format!("- g: {}", "d".repeat(MAX_SKILL_DESCRIPTION_CHARS));
    assert_eq!(
        lines,
        [
            "- a: Plain, with: a colon.",
            "- b: It's quoted # here",
            "- c: Folded over lines. And more.",
            "- d: Kept lines.",
            "- e: Escaped \"words\" go on.",
            "- f: Plain goes on.",
            &cut,
        ]
    );
}
