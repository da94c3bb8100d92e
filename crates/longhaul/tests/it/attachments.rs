//! Files given with `--attach`: what the provider is sent, what people see, and what cannot be given.

use std::fs;

use serde_json::{Value, json};

use crate::endpoint::{Act, Endpoint, GOOD};
use crate::world::{Running, World};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";
const PNG_BASE64: &str = "iVBORw0KGgogYW5kIHNvIG9u";

/// A world with a server of Chat Completions and two files.
fn world(acts: &[&str]) -> (World, Endpoint) {
    let endpoint = Endpoint::start(acts.iter().map(|text| Act::say(text)).collect::<Vec<_>>());
    let world = World::new();
    let url = endpoint.url();
    let model = format!("[model]\nprovider = \"openai-chat\"\nname = \"test\"\nbase_url = \"{url}\"\n");
    world.write("longhaul.toml", &(model + "[agent]\ndirectory = \"work\"\n"));
    fs::write(world.path("clock.jpg"), PNG).unwrap();
    world.write("notes.md", "# Notes\nIt is late.\n");
    (world, endpoint)
}

fn picture() -> Value {
    json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{PNG_BASE64}") } })
}

fn notes() -> String {
    "<file name=\"notes.md\" type=\"text/markdown\">\n# Notes\nIt is late.\n</file>".to_owned()
}

/// The messages of people in a request.
fn asked(endpoint: &Endpoint, at: usize) -> Vec<Value> {
    let messages = endpoint.asked()[at].messages();
    messages.into_iter().filter(|it| it["role"] == "user").map(|it| it["content"].clone()).collect()
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

#[test]
fn files_are_given_with_a_goal() {
    let (world, endpoint) = world(&[GOOD, GOOD]);
    let ran = world.run(&["run", "--goal", "Build what is drawn.", "--attach", "clock.jpg"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    let shown = "› Build what is drawn.\n  [clock.jpg: image/png, 18 B]\n";
    assert!(ran.stdout.contains(shown), "{}", ran.stdout);
    let told = &asked(&endpoint, 0)[0];
    assert_eq!((&told[0], &told[1]), (&text("Build what is drawn."), &picture()));
    assert!(told[2]["text"].as_str().unwrap().contains("<objective>\nBuild what is drawn.\n</objective>"));
    assert_eq!(world.show("@last")["goal"]["objective"], "Build what is drawn.");
}

#[test]
fn files_are_given_with_the_message_and_named_wherever_it_is_shown() {
    let (world, endpoint) = world(&[GOOD, GOOD, GOOD]);
    let ran = world.succeed(&["run", "Mend it.", "--attach", "clock.jpg", "--attach", "notes.md"]);
    let shown = "› Mend it.\n  [clock.jpg: image/png, 18 B]\n  [notes.md: text/markdown, 20 B]\n";
    assert!(ran.contains(shown), "{ran}");
    let first = json!([text("Mend it."), picture(), text(&notes())]);
    assert_eq!(asked(&endpoint, 0), std::slice::from_ref(&first));
    world.succeed(&["send", "@last", "And this.", "--attach", "clock.jpg"]);
    let second = json!([text("And this."), picture()]);
    assert_eq!(asked(&endpoint, 1), [first, second]);
    let shown = world.succeed(&["show"]);
    assert!(shown.contains("files      [clock.jpg: image/png, 18 B]\n"), "{shown}");
    let log = world.succeed(&["log"]);
    assert!(
        log.contains("“Mend it.” · [clock.jpg: image/png, 18 B] · [notes.md: text/markdown, 20 B]"),
        "{log}"
    );
    let holds = |entry: &Value| entry["content"]["items"].as_array().is_some_and(|items| items.len() == 3);
    let entry = world.log("@last").into_iter().find(holds).unwrap();
    let file = &entry["content"]["items"][1];
    assert_eq!((&file["type"], &file["bytes"]), (&json!("attachment"), &json!(PNG.len())));
    assert!(!entry.to_string().contains(PNG_BASE64), "its bytes are not in the log");
    assert_eq!(world.kept.ask("SELECT count(*) FROM artifacts"), [2], "each is kept once");
    let fork = world.succeed(&["--json", "fork", "@last", "Another way.", "--attach", "notes.md"]);
    assert!(fork.contains("Another way."), "{fork}");
    assert_eq!(asked(&endpoint, 2)[2], format!("Another way.\n\n{}", notes()));
    world.succeed(&["verify", "--all"]);
}

#[test]
fn files_wait_in_the_queue_with_their_message_and_leave_it_with_it() {
    let (world, endpoint) = world(&[GOOD, GOOD]);
    world.succeed(&["run", "Mend it.", "--detach"]);
    world.succeed(&["send", "@last", "And this.", "--attach", "clock.jpg", "--detach"]);
    world.succeed(&["send", "@last", "Not this.", "--attach", "notes.md", "--detach"]);
    let queued = world.succeed(&["queue"]);
    assert!(queued.contains("“And this.” · [clock.jpg: image/png, 18 B]"), "{queued}");
    world.succeed(&["queue", "--drop", "4"]);
    world.succeed(&["resume"]);
    assert_eq!(asked(&endpoint, 0), [json!("Mend it.")]);
    assert_eq!(asked(&endpoint, 1)[1], json!([text("And this."), picture()]));
    assert_eq!(endpoint.asked().len(), 2);
}

#[test]
fn an_edit_keeps_the_files_unless_it_gives_others_or_none() {
    let (world, endpoint) = world(&[GOOD; 4]);
    world.succeed(&["run", "Mend it.", "--attach", "clock.jpg"]);
    world.succeed(&["edit", "@last", "Mend it well."]);
    assert_eq!(asked(&endpoint, 1), [json!([text("Mend it well."), picture()])]);
    world.succeed(&["edit", "@last", "Read this.", "--attach", "notes.md"]);
    assert_eq!(asked(&endpoint, 2), [json!(format!("Read this.\n\n{}", notes()))]);
    world.succeed(&["edit", "@last", "Nothing.", "--no-attachments"]);
    assert_eq!(asked(&endpoint, 3), [json!("Nothing.")]);
}

#[test]
fn files_travel_with_the_session_and_go_with_it() {
    let (world, endpoint) = world(&[GOOD; 3]);
    world.succeed(&["run", "Mend it.", "--attach", "clock.jpg"]);
    world.succeed(&["export", "@last", "-o", "session.jsonl"]);
    let elsewhere = |args: &[&str]| {
        let ran = Running::start(world.bare(&[&["--home", "elsewhere"], args].concat())).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}: {}", ran.stdout);
    };
    elsewhere(&["import", "session.jsonl"]);
    elsewhere(&["send", "@last", "And?"]);
    assert_eq!(asked(&endpoint, 1)[0], json!([text("Mend it."), picture()]));
    let cut = fs::read_to_string(world.path("session.jsonl")).unwrap();
    let (cut, _) = cut.trim_end().rsplit_once('\n').unwrap();
    world.write("cut.jsonl", cut);
    let ran = Running::start(world.bare(&["--home", "third", "import", "cut.jsonl"])).finish();
    assert!(ran.code == 1 && ran.stderr.contains("entry 2 names the artifact"), "{}", ran.stderr);
    world.succeed(&["redact", "@last", "2"]);
    assert_eq!(world.kept.ask("SELECT count(*) FROM artifacts"), [0]);
    world.succeed(&["send", "@last", "And?"]);
    assert_eq!(asked(&endpoint, 2), ["[A part of the conversation was removed here.]", "And?"]);
    world.succeed(&["send", "@last", "And?", "--attach", "clock.jpg", "--detach"]);
    assert_eq!(world.kept.ask("SELECT count(*) FROM artifacts"), [1]);
    world.succeed(&["interrupt"]);
    world.succeed(&["delete", "@last", "--yes"]);
    assert_eq!(world.kept.ask("SELECT count(*) FROM artifacts"), [0]);
}

#[test]
fn a_run_that_is_repeated_with_its_request_id_gives_its_files_once() {
    let (world, endpoint) = world(&[GOOD]);
    for _ in 0..2 {
        world.succeed(&["run", "Mend it.", "--attach", "clock.jpg", "--request-id", "once"]);
    }
    assert_eq!(endpoint.asked().len(), 1);
    assert_eq!(world.kinds("@last").iter().filter(|kind| *kind == "message").count(), 1);
}

#[test]
fn what_cannot_be_given_is_said_with_the_reason() {
    let (world, endpoint) = world(&[]);
    world.write("empty.txt", "");
    world.write("a.zip", "PK\u{3}\u{4}\0");
    fs::write(world.path("large.png"), vec![0; 20 * 1024 * 1024 + 1]).unwrap();
    fs::write(world.path("large-picture.png"), [PNG, &vec![0; 4 * 1024 * 1024]].concat()).unwrap();
    let many = ["--attach", "notes.md"].repeat(21);
    for (args, said) in [
        (["--attach", "missing.png"].as_slice(), "missing.png cannot be attached: No such file"),
        (&["--attach", "work"], "work cannot be attached: it is a directory; attach its files one by one"),
        (&["--attach", "/dev/null"], "/dev/null cannot be attached: it is a device, a pipe or a socket"),
        (
            &["--attach", "https://clock.test/a.png"],
            "it is an address, and --attach takes files of this machine",
        ),
        (&["--attach", "empty.txt"], "empty.txt cannot be attached: it is empty"),
        (&["--attach", "large.png"], "large.png cannot be attached: it has more than 20971520 bytes"),
        (
            &["--attach", "a.zip"],
            "a.zip cannot be attached: it is application/zip, and openai-chat takes PNG, JPEG, GIF and WebP pictures",
        ),
        (
            &["--provider", "anthropic", "--model", "m", "--attach", "large-picture.png"],
            "it has 4.0 MiB, and anthropic takes pictures of at most 3.7 MiB; make it smaller",
        ),
        (&many, "a message carries at most 20 files, and this one has 21"),
    ] {
        let ran = world.run(&[&["run", "Mend it."], args].concat());
        assert_eq!(ran.code, 1, "{args:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(world.succeed(&["--json", "ls", "--all"]), "", "no session was made");
    assert!(endpoint.asked().is_empty());
    world.succeed(&["run", "Mend it.", "--detach"]);
    let ran = world.run(&["send", "@last", "This.", "--attach", "a.zip"]);
    assert!(ran.stderr.contains("it is application/zip, and openai-chat takes"), "{}", ran.stderr);
    assert_eq!(world.kinds("@last"), ["created", "message"]);
}

#[test]
fn no_more_and_no_larger_pictures_are_given_than_the_model_takes() {
    let (world, endpoint) = world(&[]);
    let path = world.path("longhaul.toml");
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(world.path("large.png"), [PNG, &vec![0; 2_000]].concat()).unwrap();
    fs::write(&path, manifest + "\n[model.images]\nmax_count = 1\nmax_size = \"2kB\"\n").unwrap();
    let two = ["run", "Mend it.", "--attach", "clock.jpg", "--attach", "clock.jpg", "--attach", "notes.md"];
    let ran = world.run(&two);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("2 pictures are attached, and test takes 1 in a request"), "{}", ran.stderr);
    let ran = world.run(&["run", "Mend it.", "--attach", "large.png"]);
    assert!(ran.stderr.contains("openai-chat takes pictures of at most 1.9 KiB"), "{}", ran.stderr);
    assert!(
        world
            .succeed(&["agent", "check"])
            .contains("images     at most 1 in a request, each of at most 1.9 KiB")
    );
    assert!(endpoint.asked().is_empty());
}
