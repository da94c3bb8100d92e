//! A run is recorded and run again without its provider: the same answers, or the difference; and no key in
//! the file.

use serde_json::{Value, json};

use crate::endpoint::{Act, Endpoint, GOOD, KEY, KEY_VARIABLE, facts, half_stream, lines};
use crate::spoken::{self, Spoken};
use crate::world::{Ran, Running, World};

/// A key of six characters, the shortest that is looked for.
const SHORT_KEY: &str = "q7#x\"9";

fn manifest(url: &str, rest: &str) -> String {
    format!(
        "[model]\nprovider = \"openai-chat\"\nname = \"test\"\nbase_url = \"{url}\"\n\
         key = {{ env = \"{KEY_VARIABLE}\" }}\n{rest}\n[agent]\ndirectory = \"work\"\nprompt = \"You mend clocks.\"\n"
    )
}

/// Runs the program with the key in its environment.
fn with_key(world: &World, args: &[&str]) -> Ran {
    let mut command = world.command(args);
    command.env(KEY_VARIABLE, KEY).env("OTHER_TOKEN", SHORT_KEY);
    Running::start(command).finish()
}

/// Records a run that uses tools, is refused once and cut off once, in a world of its own.
fn recorded() -> World {
    let endpoint = Endpoint::start([
        Act::call(&[
            (
                "call_a",
                "bash",
                json!({ "command": "cat clock.txt; pwd; date -u +%FT%TZ; echo $OTHER; sleep 0.1" }),
            ),
            ("call_b", "read", json!({ "path": "clock.txt" })),
        ]),
        Act::json(
            "429 Too Many Requests",
            "Retry-After: 1\r\n",
            &json!({ "error": { "message": format!("slow, {KEY}") } }),
        ),
        Act::Send(half_stream()),
        Act::call(&[
            ("call_c", "write", json!({ "path": "done.txt", "content": "mended\n" })),
            ("call_d", "bash", json!({ "command": format!("true # it was given {SHORT_KEY} and likes it") })),
        ]),
        Act::say(GOOD),
    ]);
    let world = World::new();
    world.write(
        "longhaul.toml",
        &manifest(&endpoint.url(), "headers = { X-Title = \"a-title-nobody-needs\" }"),
    );
    std::fs::write(world.work("clock.txt"), "tick\n").unwrap();
    let ran = with_key(&world, &["record", "run.jsonl", "--", "--json", "run", "Mend the clock."]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "5 requests recorded in run.jsonl\n"), "{}", ran.stdout);
    assert_eq!(said(&ran), GOOD);
    assert_eq!(endpoint.asked().len(), 5);
    std::fs::remove_file(world.work("done.txt")).unwrap();
    world
}

/// Returns the last thing the model said.
fn said(ran: &Ran) -> String {
    let lines = lines(&ran.stdout);
    let mut steps = lines.iter().filter(|line| line["record"]["fact"]["kind"] == "model_step");
    steps.next_back().unwrap()["content"]["items"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_recorded_run_is_run_again_without_key_and_network() {
    let world = recorded();
    // The server is gone, and no proxy or key is needed either.
    let ran = world.run(&["replay", "run.jsonl"]);
    let told = "5 requests answered as recorded in run.jsonl\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (0, told), "{}", ran.stdout);
    assert_eq!(said(&ran), GOOD);
    assert_eq!(std::fs::read_to_string(world.work("done.txt")).unwrap(), "mended\n");
    let replayed = lines(&ran.stdout);
    let retries: Vec<&Value> = facts(&replayed).into_iter().filter(|fact| fact["kind"] == "retry").collect();
    let classes: Vec<&Value> = retries.iter().map(|fact| &fact["failure"]["class"]).collect();
    assert_eq!(classes, ["rate_limited", "network"]);
    for retry in retries {
        let at = |name: &str| retry["retry"][name].as_u64().unwrap();
        // The recorded server asked for a second.
        assert!(at("not_before") - at("since") < 900, "nobody is waited for: {retry}");
    }
    // With the 40 and 2 tokens of the answer that was cut off.
    assert_eq!(world.show("@last")["ledger"]["measured"], json!({ "input": 340, "output": 62 }));
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_provider_of_each_wire_is_recorded_and_run_again() {
    for spoken in &spoken::ALL {
        let Spoken { provider, say, call, models, listed_at } = spoken;
        let command = json!({ "command": "echo tick" });
        let list = Act::json("200 OK", "", &models());
        let endpoint = Endpoint::start([
            call("bash", &command),
            say(GOOD),
            say("Bye."),
            list,
            say("yes"),
            call("ping", &json!({})),
        ]);
        let world = World::new();
        let named = manifest(&endpoint.url(), "").replace("openai-chat", provider);
        world.write("longhaul.toml", &named);
        let all: [(&str, &[&str], &str); 3] = [
            ("run.jsonl", &["run", "Mend the clock."], GOOD),
            ("send.jsonl", &["send", "@last", "Thanks."], "Bye."),
            ("doctor.jsonl", &["doctor"], "the model calls tools"),
        ];
        for (file, args, said) in all {
            let ran = with_key(&world, &[&["record", file, "--"], args].concat());
            assert_eq!(ran.code, 0, "{provider}: {}{}", ran.stdout, ran.stderr);
            assert!(ran.stdout.contains(said), "{provider}: {}", ran.stdout);
        }
        assert_eq!(endpoint.asked().len(), 6);
        drop(endpoint);
        for ((file, _, said), count) in all.iter().zip([2, 1, 3]) {
            let text = std::fs::read_to_string(world.path(file)).unwrap();
            assert!(!text.contains(KEY), "{provider}: {text}");
            let ran = world.run(&["replay", file]);
            let (told, number) = (format!("answered as recorded in {file}\n"), format!("{count} request"));
            assert!(
                ran.stderr.starts_with(&number) && ran.stderr.ends_with(&told),
                "{provider}: {}",
                ran.stderr
            );
            assert!(ran.code == 0 && ran.stdout.contains(said), "{provider}: {}", ran.stdout);
        }
        let listed = std::fs::read_to_string(world.path("doctor.jsonl")).unwrap();
        let path = listed_at.split(' ').nth(1).unwrap();
        assert_eq!(lines(&listed)[1]["request"]["path"], path);
        world.succeed(&["verify", "--all"]);
    }
}

#[test]
fn a_recorded_run_is_run_again_in_another_place() {
    let world = recorded();
    std::fs::create_dir_all(world.path("elsewhere/work")).unwrap();
    std::fs::write(world.path("elsewhere/work/clock.txt"), "tick\n").unwrap();
    std::fs::copy(world.path("longhaul.toml"), world.path("elsewhere/longhaul.toml")).unwrap();
    let mut command = world.command(&["replay", "../run.jsonl", "--", "--json", "run", "Mend the clock."]);
    command.current_dir(world.path("elsewhere"));
    let ran = Running::start(command).finish();
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(said(&ran), GOOD);
}

#[test]
fn a_time_limit_that_passed_passes_again_at_once() {
    const LIMIT_MS: u64 = 4_000;
    // Where even a good answer takes longer than the limit, there is another.
    let good = || Act::say(GOOD);
    let endpoint = Endpoint::start([Act::Hold(Vec::new()), good(), good(), good(), good()]);
    let world = World::new();
    let limit = &format!("[limits]\nmodel_first_part = \"{LIMIT_MS}ms\"\n");
    world.write("longhaul.toml", &(manifest(&endpoint.url(), "") + limit));
    let ran = with_key(&world, &["record", "run.jsonl", "--", "--json", "run", "Mend the clock."]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let ran = world.run(&["replay", "run.jsonl"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let all = lines(&ran.stdout);
    let retry = facts(&all).into_iter().find(|fact| fact["kind"] == "retry").unwrap().clone();
    assert_eq!(retry["failure"]["class"], "timeout");
    let worked = retry["charge"]["spend"]["active_ms"].as_u64().unwrap_or_default();
    assert!(worked < LIMIT_MS, "it was waited for: {retry}");
    assert_eq!(said(&ran), GOOD);
}

#[test]
fn a_run_that_asks_something_else_is_told_how() {
    let world = recorded();
    let ran = world.run(&["replay", "run.jsonl", "--", "run", "Mend the bell."]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let error =
        "error: request 1 of 5 is not the one that was recorded: the prompt, the configuration, or something";
    assert!(ran.stderr.starts_with(error), "{}", ran.stderr);
    assert!(ran.stderr.contains("\n--- recorded\n+++ asked now\n@@ "), "{}", ran.stderr);
    for line in
        ["-        \"content\": \"Mend the clock.\",\n", "+        \"content\": \"Mend the bell.\",\n"]
    {
        assert!(ran.stderr.contains(line), "{}", ran.stderr);
    }
    assert!(ran.stdout.contains("this is not the run that was recorded"), "{}", ran.stdout);
    // A file that a tool reads is asked about as well.
    std::fs::write(world.work("clock.txt"), "tock\n").unwrap();
    let ran = world.run(&["replay", "run.jsonl"]);
    assert!(ran.stderr.contains("request 2 of 5") && ran.stderr.contains("tock"), "{}", ran.stderr);
}

#[test]
fn a_difference_is_shown_in_at_most_forty_lines() {
    let world = recorded();
    let text = std::fs::read_to_string(world.path("longhaul.toml")).unwrap();
    let long = (0..200).map(|n| format!("Clock {n} is late.\\n")).collect::<String>();
    world.write("longhaul.toml", &text.replace("You mend clocks.", &long));
    let ran = world.run(&["replay", "run.jsonl"]);
    assert_eq!(ran.code, 1);
    let shown: Vec<&str> = ran.stderr.lines().skip(1).collect();
    assert_eq!(shown.len(), 41, "{}", ran.stderr);
    assert!(shown[40].ends_with(" more lines differ)"), "{}", ran.stderr);
}

#[test]
fn a_run_that_asks_more_or_less_often_is_told_so() {
    let world = recorded();
    let text = std::fs::read_to_string(world.path("run.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    world.write("short.jsonl", &format!("{}\n", lines[..5].join("\n")));
    let ran = world.run(&["replay", "short.jsonl"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with("error: the run makes more requests than the 4 that were recorded"),
        "{}",
        ran.stderr
    );
    std::fs::remove_file(world.work("done.txt")).unwrap();
    let again = lines[5].replace("\"n\":5", "\"n\":6");
    world.write("long.jsonl", &format!("{text}{again}\n"));
    let ran = world.run(&["replay", "long.jsonl"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with("error: the run made 5 of the 6 requests that were recorded"),
        "{}",
        ran.stderr
    );
}

#[test]
fn no_key_is_in_the_file() {
    let world = recorded();
    let text = std::fs::read_to_string(world.path("run.jsonl")).unwrap();
    let quoted = json!(SHORT_KEY).to_string();
    for secret in [KEY, SHORT_KEY, quoted.trim_matches('"'), "a-title-nobody-needs", "uthorization", "Bearer"]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("slow, [masked]") && text.contains("given [masked] and"), "{text}");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(world.path("run.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let lines = lines(&text);
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0]["command"], json!(["--json", "run", "Mend the clock."]));
    for line in &lines[1..] {
        assert_eq!(
            (&line["request"]["method"], &line["request"]["path"]),
            (&json!("POST"), &json!("/v1/chat/completions"))
        );
        let headers: Vec<&String> = line["request"]["headers"].as_object().unwrap().keys().collect();
        assert_eq!(headers, ["accept", "content-type"]);
        assert_eq!(line["request"]["body"]["model"], "test", "a body is JSON, to be read");
    }
    assert_eq!(lines[2]["response"]["status"], 429);
}

#[test]
fn a_key_from_a_file_is_not_in_the_recording_either() {
    let endpoint = Endpoint::start([
        Act::call(&[("call_a", "bash", json!({ "command": "cat ../key" }))]),
        Act::say(&format!("Your key is {KEY}.")),
    ]);
    let world = World::new();
    let manifest =
        manifest(&endpoint.url(), "").replace(&format!("env = \"{KEY_VARIABLE}\""), "file = \"key\"");
    world.write("longhaul.toml", &manifest);
    world.write("key", &format!("{KEY}\n"));
    let ran = world.run(&["record", "run.jsonl", "--", "run", "Print the key."]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let text = std::fs::read_to_string(world.path("run.jsonl")).unwrap();
    assert!(!text.contains(KEY) && text.contains("Your key is [masked]."), "{text}");
    assert_eq!(world.run(&["replay", "run.jsonl"]).code, 0);
}

#[test]
fn what_cannot_be_recorded_or_replayed_is_refused() {
    let world = World::new();
    world.write("there", "");
    let refused = |args: &[&str], said: &str| {
        let ran = world.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.stdout);
        assert!(ran.stderr.starts_with(&format!("error: {said}")), "{args:?}: {}", ran.stderr);
    };
    refused(
        &["record", "there", "--", "ls"],
        "the recording there cannot be made; name a file that does not exist",
    );
    refused(
        &["record", "new", "--", "record", "x", "--", "ls"],
        "a recording is not made or used within another",
    );
    refused(
        &["record", "new", "--", "--store", "postgres://me:secret@host/db", "ls"],
        "the command is kept in the recording, and the address of a database may hold a password",
    );
    refused(&["replay", "gone"], "the recording gone cannot be read: No such file");
    refused(&["replay", "there"], "line 1 of there does not belong in a recording: the file is empty");
    world.write("there", "{\"recording\":9,\"program\":\"\",\"command\":[],\"directories\":{}}\n");
    refused(&["replay", "there"], "line 1 of there does not belong in a recording: its form is 9");
    assert_eq!(world.run(&["record", "new", "--", "rnu"]).code, 2);
    assert!(!world.path("new").exists());
}

#[test]
fn a_script_asks_no_provider() {
    let world = World::new();
    world.write("script.toml", "[[turn]]\n[[turn.step]]\ntext = \"Fine.\"\n");
    let ran =
        world.run(&["record", "run.jsonl", "--", "run", "--script", "script.toml", "--dir", "work", "go"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "0 requests recorded in run.jsonl\n"));
    assert_eq!(world.run(&["replay", "run.jsonl"]).stderr, "0 requests answered as recorded in run.jsonl\n");
}
