//! What is wrong with a manifest is told all at once, each fault with its place and what to do, and no
//! key is shown on the way.

use std::fmt::Write as _;

use serde_json::Value;

use crate::world::{Ran, World};

/// A model that is in order, to be put before what is not.
const MODEL: &str = "[model]\nprovider = \"openai-chat\"\nname = \"m\"\n";

/// Checks a manifest.
fn check(world: &World, manifest: &[u8]) -> Ran {
    std::fs::write(world.path("longhaul.toml"), manifest).unwrap();
    world.run(&["agent", "check", "longhaul.toml"])
}

/// Returns what is said of manifests that cannot be used, one after the other.
fn faults(cases: &[(&str, &str)]) -> String {
    let world = World::new();
    world.write("work/file", "x");
    world.write("work/empty.md", " \n");
    world.write("work/broken.md", "Summarise.\n{% for file in files %}{{ fil }}\n");
    world.write("work/unknown.md", "You are {{ agent }}.\nIt is {{ time }}.\n");
    std::os::unix::fs::symlink("gone", world.path("work/dangling")).unwrap();
    let mut said = String::new();
    for (name, manifest) in cases {
        let ran = check(&world, manifest.as_bytes());
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{name}: {manifest}\n{}", ran.stderr);
        let stderr = ran.stderr.replace(&*world.root().to_string_lossy(), "ROOT");
        writeln!(said, "=== {name}\n{stderr}").unwrap();
    }
    said
}

fn with_model(rest: &str) -> String {
    format!("{MODEL}{rest}")
}

fn check_all(name: &str, cases: &[(&str, String)]) {
    let cases: Vec<(&str, &str)> = cases.iter().map(|(name, text)| (*name, text.as_str())).collect();
    insta::assert_snapshot!(name, faults(&cases));
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let cases = [
        ("an open table", "[model\nprovider = \"scripted\"\n".to_owned()),
        ("no quotes", with_model("[agent]\nname = me\nprompt = 'x\n")),
        ("a key twice", with_model("name = \"n\"\n")),
        ("a table twice", with_model("[agent]\n[tools.bash]\n[agent]\n")),
        ("control characters and tabs", with_model("[agent]\n\tname =\t\u{1b}[31m\n")),
        ("a long line", with_model(&format!("parameters = {{ a = \"{}\", b = }}\n", "ä".repeat(200)))),
    ];
    check_all("no_toml", &cases);
}

#[test]
fn a_key_nobody_knows_is_refused_with_a_suggestion() {
    let cases = [
        ("at the top", "[modle]\nprovider = \"scripted\"\n".to_owned()),
        (
            "nested",
            with_model("[agent]\ndirectry = \".\"\n[[scope.allow]]\ntarget = \".\"\npermision = \"read\"\n"),
        ),
        ("dotted", with_model("agent.\"na me\" = 1\n")),
        ("nothing near", with_model("[compaction]\nwhen = \"late\"\n")),
        ("a tool", with_model("[tools.bsh]\n[tools.fetch]\nurl = 1\n[tools.read]\nmax_ouput = 5\n")),
        (
            "a value",
            "[model]\nprovider = \"openai_chat\"\nname = \"m\"\n[tools.bash]\npermission = \"ax\"\n"
                .to_owned(),
        ),
        ("a name with control characters", with_model("\"\\u001b[31m\" = 1\n")),
    ];
    check_all("unknown", &cases);
}

#[test]
fn what_has_no_meaning_yet_is_refused() {
    let rest = "[[hooks]]\n[sandbox]\n[mcp]\n[[tools.mcp]]\nname = \"x\"\n";
    check_all("not_yet", &[("all", with_model(rest))]);
}

#[test]
fn a_value_of_the_wrong_type_or_out_of_range_says_what_to_write() {
    let cases = [
        (
            "types",
            with_model(
                "stream = \"yes\"\nbase_url = 5\nheaders = 1\nparameters = []\n[agent]\nname = 1\n[tools]\nread = \"deny\"\n[tools.bash]\npermission = true\n",
            ),
        ),
        ("lists", with_model("[scope.allow]\ntarget = \".\"\n[scope]\ndeny = [1]\n")),
        ("a table that is none", format!("agent = 1\n{MODEL}")),
        (
            "parameters TOML has and JSON has not",
            with_model("parameters = { a = 2026-11-20, b = nan, c = [{ d = inf }] }\n"),
        ),
        ("wide letters", with_model("parameters = { \"日本語\" = nan }\n")),
        (
            "times",
            with_model(
                "[limits]\nretry_for = \"15 minutes\"\nretry_for_goal = 900\nmodel_call = \"0s\"\nmodel_first_part = \"400d\"\nmodel_idle = \"99999999999999999999s\"\n",
            ),
        ),
        (
            "sizes",
            with_model(
                "[tools.bash]\nmax_output = \"64 kib\"\n[tools.read]\nmax_output = 100\n[tools.grep]\nmax_output = \"5MiB\"\n[tools.glob]\nmax_output = -1\n[tools.edit]\nmax_output = 1.5\n",
            ),
        ),
        ("percent", with_model("[compaction]\nthreshold = \"100%\"\n")),
        ("no percent", with_model("[compaction]\nthreshold = \"most\"\n")),
        ("counts", with_model("[limits]\nmax_steps = \"5\"\nmax_crashes = 0\n")),
        ("tokens", with_model("window_tokens = 0\nmax_output_tokens = 10_000_000_000\ntemperature = -0.1\n")),
        (
            "prices",
            with_model("prices = { input = -1, cached_input = \"0.30\", cache_write = 1e9, output = 1 }\n"),
        ),
        ("half of the prices", with_model("prices = { input = 3.00 }\nca_file = \"gone.pem\"\n")),
        ("a number that is too large", with_model("max_output_tokens = 99999999999999999999\n")),
        (
            "no room",
            with_model("window_tokens = 1000\nmax_output_tokens = 1000\n[compaction]\nthreshold = 1000\n"),
        ),
        (
            "a rule after a faulty one",
            with_model(
                "[[scope.deny]]\ntarget = 1\npermission = \"read\"\n[[scope.deny]]\ntarget = \"\"\npermission = \"read\"\n",
            ),
        ),
        (
            "missing in a rule",
            with_model(
                "[[scope.allow]]\ntarget = \"work\"\n[[scope.allow]]\ntarget = \"work\"\npermission = \"wirte\"\n",
            ),
        ),
    ];
    check_all("wrong", &cases);
}

#[test]
fn a_model_that_cannot_be_asked_is_refused() {
    let model = |rest: &str| format!("[model]\n{rest}");
    let cases = [
        ("an empty file", String::new()),
        ("no model", "[agent]\nname = \"x\"\n".to_owned()),
        ("no provider", model("name = \"x\"\n")),
        ("an unknown provider", model("provider = \"antrophic\"\nname = \"x\"\n")),
        ("no name", model("provider = \"openai-chat\"\n")),
        ("an empty name", model("provider = \"openai-chat\"\nname = \" \"\n")),
        ("a script of another", with_model("script = \"s.toml\"\n")),
        ("no script", model("provider = \"scripted\"\n")),
        ("no such script", model("provider = \"scripted\"\nscript = \"none.toml\"\n")),
        ("a script that is a directory", model("provider = \"scripted\"\nscript = \"work\"\n")),
        ("what a script does not take", model("provider = \"scripted\"\nname = \"s.toml\"\nstream = true\n")),
        ("no address", with_model("base_url = \"localhost:8080\"\n")),
        ("headers", with_model("headers = { \"X-Api-Key\" = \"0123456789\", \"a b\" = \"c\" }\n")),
    ];
    check_all("model", &cases);
}

#[test]
fn what_a_provider_cannot_do_is_refused() {
    let of = |provider: &str, rest: &str| format!("[model]\nprovider = \"{provider}\"\nname = \"m\"\n{rest}");
    let responses = |rest: &str| of("openai-responses", rest);
    let cases = [
        ("no keeping, no background", of("anthropic", "chain = true\nresumable = true\n")),
        (
            "settings of other formats",
            of(
                "gemini",
                "replay_reasoning = true\nitem_ids = false\ninclude_usage = true\nbearer = true\ncache = \"1h\"\n",
            ),
        ),
        ("settings of Chat Completions", of("anthropic", "include_usage = false\ncache = \"off\"\n")),
        ("a cache that is none", of("anthropic", "cache = \"2h\"\n")),
        ("no tools of the provider", of("groq", "[[model.provider_tools]]\ntype = \"web_search\"\n")),
        ("no usual place", of("azure", "")),
        ("picked up without a stream", responses("resumable = true\nstream = false\n")),
        ("a form without a schema", responses("output = { name = \"report\" }\n")),
        ("a form with two", responses("output = { schema = {}, schema_file = \"work/file\" }\n")),
        ("a form's name", responses("output = { name = \"a report\", schema = {} }\n")),
        ("a schema that is no JSON", responses("output = { schema_file = \"work/file\" }\n")),
        ("a schema that is not there", responses("output = { schema_file = \"none.json\" }\n")),
        ("tools that are none", responses("provider_tools = [\"web_search\"]\n")),
        ("a script", "[model]\nprovider = \"scripted\"\nscript = \"work/file\"\nchain = true\n".to_owned()),
    ];
    check_all("provider", &cases);
}

#[test]
fn an_agent_that_cannot_work_is_refused() {
    let cases = [
        ("no directory", with_model("[agent]\ndirectory = \"none\"\n")),
        ("a file", with_model("[agent]\ndirectory = \"work/file\"\n")),
        (
            "outside of the scope",
            with_model(
                "[agent]\ndirectory = \"work\"\n[[scope.allow]]\ntarget = \"src\"\npermission = \"write\"\n",
            ),
        ),
        ("denied", with_model("[[scope.deny]]\ntarget = \"src\"\npermission = \"read\"\n")),
        (
            "a link to nothing",
            with_model("[[scope.allow]]\ntarget = \"work/dangling\"\npermission = \"read\"\n"),
        ),
        (
            "empty paths",
            with_model("[agent]\ndirectory = \"\"\n[[scope.allow]]\ntarget = \"\"\npermission = \"read\"\n"),
        ),
        ("two prompts", with_model("[agent]\nprompt = \"x\"\nprompt_file = \"work/file\"\n")),
        ("no prompt", with_model("[agent]\nprompt = \"\"\n")),
        ("an empty prompt", with_model("[agent]\nprompt_file = \"work/empty.md\"\n")),
        ("a prompt that is not there", with_model("[agent]\nprompt_file = \"none.md\"\n")),
        ("a prompt that is a directory", with_model("[agent]\nprompt_file = \"work\"\n")),
        ("a name of two lines", with_model("[agent]\nname = \"a\\nb\"\n")),
    ];
    check_all("agent", &cases);
}

#[test]
fn a_template_that_cannot_be_used_is_told_with_its_place() {
    let cases = [
        (
            "inline",
            with_model(
                "[prompts]\ncontinuation = \"\"\"\nGo on: {{ objective }}\nfor {{ objektive }}\"\"\"\n",
            ),
        ),
        ("in a file", with_model("[prompts]\ncompaction = { file = \"work/broken.md\" }\n")),
        ("instructions", with_model("[agent]\nprompt = \"You are {{ nam }}.\"\n")),
        ("instructions in a file", with_model("[agent]\nprompt_file = \"work/unknown.md\"\n")),
        ("without the objective", with_model("[prompts]\ngoal_recalled = \"Go on.\"\n")),
        ("no such prompt", with_model("[prompts]\ncontinuatoin = \"Go on.\"\n")),
        ("a file that is not there", with_model("[prompts]\nsystem = { file = \"gone.md\" }\n")),
        ("an empty file", with_model("[prompts]\nsystem = { file = \"work/empty.md\" }\n")),
        ("no file", with_model("[prompts]\nsystem = {}\n")),
        ("another key", with_model("[prompts]\nsystem = { path = \"work/file\" }\n")),
        ("no text", with_model("[prompts]\nsystem = 1\n")),
    ];
    check_all("templates", &cases);
}

#[test]
fn a_key_in_a_manifest_is_refused_and_never_shown() {
    let cases = [
        ("plain", with_model("key = \"SECRET\"\n")),
        ("plain, and no TOML", with_model("key = SECRET\n")),
        ("in an open string", with_model("key = \"SECRET\n")),
        ("in an open table", with_model("key = { value = \"SECRET\"\n")),
        ("under another name", with_model("api_key = \"SECRET\"\n")),
        ("in the place of a name", with_model("key = { env = \"SECRET\" }\n")),
        ("under a name of its own", with_model("[model.key]\nvalue = \"SECRET\"\n")),
        ("in a list", with_model("key = [\"SECRET\"]\n")),
        ("in a header", with_model("headers = { Authorization = \"Bearer SECRET\" }\n")),
        ("in the address", with_model("base_url = \"https://me:SECRET@host/v1\"\n")),
        ("two places", with_model("key = { env = \"A\", file = \"b\" }\n")),
        ("no place", with_model("key = {}\n")),
    ];
    let secret = "sk-proj-0123456789abcdef";
    let cases: Vec<_> = cases.map(|(name, text)| (name, text.replace("SECRET", secret))).into();
    let world = World::new();
    for (name, manifest) in &cases {
        world.write("longhaul.toml", manifest);
        let json = world.run(&["--json", "agent", "check"]);
        assert_eq!((json.code, json.stderr.as_str()), (1, ""), "{name}");
        assert!(!json.stdout.contains("0123"), "{name}: {}", json.stdout);
    }
    let cases: Vec<(&str, &str)> = cases.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let said = faults(&cases);
    assert!(!said.contains("0123"), "{said}");
    insta::assert_snapshot!("keys", said);
}

#[test]
fn a_store_has_one_place_and_its_password_is_neither_kept_nor_shown() {
    let cases = [
        ("no place", with_model("[store]\n")),
        ("an empty path", with_model("[store]\npath = \"\"\n")),
        ("two places", with_model("[store]\npath = \"a.db\"\nurl = \"postgres://host/SECRET\"\n")),
        ("no address", with_model("[store]\nurl = \"mysql://SECRET@host/db\"\n")),
        ("a password", with_model("[store]\nurl = \"postgres://me:SECRET@host/db\"\n")),
        ("an option", with_model("[store]\nurl = \"postgres://host/db?password=SECRET\"\n")),
        ("in the place of a name", with_model("[store]\nenv = \"postgres://me:SECRET@host/db\"\n")),
        ("no text", with_model("[store]\npath = 1\n")),
        ("another key", with_model("[store]\nurn = \"postgres://me:SECRET@host/db\"\n")),
    ];
    let cases = cases.map(|(name, text)| (name, text.replace("SECRET", "hush-0123")));
    let said = faults(&cases.each_ref().map(|(name, text)| (*name, text.as_str())));
    assert!(!said.contains("0123"), "{said}");
    insta::assert_snapshot!("store", said);
}

#[test]
fn a_file_that_cannot_be_read_is_told_as_a_whole() {
    let world = World::new();
    let mut said = String::new();
    let mut say = |ran: Ran| {
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
        said.push_str(&ran.stderr.replace(&*world.root().to_string_lossy(), "ROOT"));
    };
    say(world.run(&["agent", "check"]));
    say(world.run(&["agent", "check", "none.toml"]));
    say(world.run(&["agent", "check", "work"]));
    say(check(&world, b"[model]\nprovider = \"\xff\"\n"));
    say(check(&world, "#".repeat(1024 * 1024 + 1).as_bytes()));
    insta::assert_snapshot!("unreadable", said);
}

#[test]
fn a_file_full_of_faults_names_the_first_of_them() {
    let world = World::new();
    let many: String = (0..200).map(|number| format!("[what{number:03}]\n")).collect();
    let ran = check(&world, many.as_bytes());
    assert_eq!(ran.code, 1);
    assert_eq!(ran.stderr.matches("there is no key").count(), 20, "{}", ran.stderr);
    assert!(ran.stderr.ends_with("\nlonghaul.toml: and more; correct these first\n"), "{}", ran.stderr);
}

#[test]
fn programs_get_the_faults_with_their_places() {
    let world = World::new();
    world.write("longhaul.toml", &with_model("[agent]\nnmae = \"x\"\n"));
    let ran = world.run(&["--json", "agent", "check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    let error = serde_json::json!({
        "line": 5, "column": 1, "what": "there is no key `nmae` in `agent`", "hint": "did you mean `name`?"
    });
    assert_eq!(said["errors"], serde_json::json!([error]));
    assert_eq!(said["ok"], false);
}
