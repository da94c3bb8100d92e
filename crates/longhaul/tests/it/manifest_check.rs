//! What a manifest comes to, which one is used, where its key is, and the published schema.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::{Ran, Running, World};

const MODEL: &str = "[model]\nprovider = \"openai-chat\"\nname = \"m\"\n";

/// Runs `agent check` in a directory of the world, with more in its environment.
fn check_in(world: &World, directory: &str, set: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = world.bare(&[&["agent", "check"], args].concat());
    command.current_dir(world.path(directory)).envs(set.iter().copied());
    Running::start(command).finish()
}

/// Returns what a manifest comes to, for programs.
fn found(world: &World, directory: &str, set: &[(&str, &str)]) -> Value {
    let ran = check_in(world, directory, set, &["--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    serde_json::from_str(&ran.stdout.replace(&*world.root().to_string_lossy(), "ROOT")).unwrap()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn a_model_alone_is_a_manifest() {
    let world = World::new();
    world.write("longhaul.toml", MODEL);
    let found = found(&world, ".", &[]);
    assert_eq!(found["ok"], true);
    let configuration = json!({
        "agent": "default",
        "model": {
            "provider": "openai-chat", "name": "m", "stream": true, "key": { "env": "OPENAI_API_KEY" }
        },
        "directory": "ROOT",
        "instructions": null,
        "scope": [],
        "tools": [],
        "limits": {
            "max_steps": 200, "max_crashes": 3, "retry_for_ms": 900_000, "retry_for_goal_ms": 86_400_000,
            "max_compaction_failures": 3, "compact_above_tokens": 102_400, "retained_turns": 2,
            "retained_tokens": 8_192, "model_call_ms": 1_800_000,
            "model_first_part_ms": 300_000, "model_idle_ms": 120_000, "check_ms": 600_000
        }
    });
    assert_eq!(found["configuration"], configuration);
    assert_eq!(found["key_is_there"], false);
}

#[test]
fn a_provider_has_its_usual_place_and_the_usual_variable_of_its_key() {
    let world = World::new();
    let of = |model: &str, set: &[(&str, &str)]| {
        world.write("longhaul.toml", &format!("[model]\nname = \"m\"\n{model}\n"));
        found(&world, ".", set)["configuration"]["model"]["key"]["env"].as_str().map(str::to_owned)
    };
    for (provider, variable) in [
        ("openai-chat", Some("OPENAI_API_KEY")),
        ("openai-responses", Some("OPENAI_API_KEY")),
        ("anthropic", Some("ANTHROPIC_API_KEY")),
        ("gemini", Some("GEMINI_API_KEY")),
        ("openrouter", Some("OPENROUTER_API_KEY")),
        ("groq", Some("GROQ_API_KEY")),
        ("xai", Some("XAI_API_KEY")),
        ("mistral", Some("MISTRAL_API_KEY")),
        ("deepseek", Some("DEEPSEEK_API_KEY")),
        ("ollama", None),
        ("llama.cpp", None),
        ("lm-studio", None),
        ("vllm", None),
    ] {
        let model = format!("provider = \"{provider}\"");
        assert_eq!(of(&model, &[]).as_deref(), variable, "{provider}");
        let elsewhere = format!("{model}\nbase_url = \"https://example.com/v1\"");
        assert_eq!(of(&elsewhere, &[]), None, "{provider}");
        let named = format!("{elsewhere}\nkey = {{ env = \"MINE\" }}");
        assert_eq!(of(&named, &[]).as_deref(), Some("MINE"), "{provider}");
    }
    let google = of("provider = \"gemini\"", &[("GOOGLE_API_KEY", "0123456789")]);
    assert_eq!(google.as_deref(), Some("GOOGLE_API_KEY"));
    let azure = of("provider = \"azure\"\nbase_url = \"https://me.openai.azure.com/openai/v1\"", &[]);
    assert_eq!(azure.as_deref(), Some("AZURE_OPENAI_API_KEY"));
}

#[test]
fn templates_are_kept_as_they_were_when_the_session_began() {
    let world = World::new();
    world.write("own.md", "Before all else: {{ directory }}, for {{ agent }}.");
    world.write("script.toml", "[[turn]]\n[[turn.step]]\ntext = \"Done.\"\n");
    let manifest = "[model]\nprovider = \"scripted\"\nscript = \"script.toml\"\n[agent]\ndirectory = \"work\"\n\
        [prompts]\nsystem = { file = \"own.md\" }\ngoal_removed = \"Stop: {{ 1 + 1 }}.\"\n";
    world.write("longhaul.toml", manifest);
    let kept = found(&world, ".", &[])["configuration"]["prompts"].clone();
    let own = "Before all else: {{ directory }}, for {{ agent }}.";
    assert_eq!(kept, json!({ "system": own, "goal_removed": "Stop: {{ 1 + 1 }}." }));
    let described = check_in(&world, ".", &[], &[]).stdout;
    assert!(described.contains("\nprompts    system, goal_removed of its own\n"), "{described}");
    let session = world.succeed(&["run", "--manifest", "longhaul.toml", "--detach", "go"]).trim().to_owned();
    world.write("own.md", "Changed afterwards.");
    assert_eq!(world.run(&["resume", &session]).code, 0);
    let system = world.log(&session).into_iter().find(|entry| entry["record"]["fact"]["kind"] == "prepared");
    let system = system.unwrap()["content"]["system"].as_str().unwrap().to_owned();
    assert_eq!(system, format!("Before all else: {}, for default.", world.path("work").display()));
}

#[test]
fn agents_files_and_skills_are_shown_to_the_agent_and_on_the_screen() {
    let world = World::new();
    world.write("work/AGENTS.md", "Be kind.");
    std::fs::create_dir_all(world.path(".config/longhaul/skills/tidy")).unwrap();
    world.write(
        ".config/longhaul/skills/tidy/SKILL.md",
        "---\nname: tidy\ndescription: Tidies up.\n---\nSweep.\n",
    );
    let skill = world.path(".config/longhaul/skills/tidy/SKILL.md");
    let script = format!(
        "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"read\"\narguments = {{ path = \"{}\" }}\n\
         [[turn.step]]\ntext = \"Done.\"\n",
        skill.display()
    );
    world.write("script.toml", &script);
    let ran = world.run(&["run", "--script", "script.toml", "--dir", "work", "tidy up"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = format!("the agent was shown {}", world.work("AGENTS.md").display());
    let screen = format!("{}{}", ran.stdout, ran.stderr);
    assert!(screen.contains(&shown) && screen.contains("the agent was shown skills"), "{screen}");
    let log = world.log("@last");
    let of = |kind: &str| {
        log.iter().find(|entry| entry["record"]["fact"]["kind"] == kind).unwrap()["content"].clone()
    };
    assert_eq!(of("context")["items"][0]["text"], "Be kind.");
    assert!(of("context")["items"][1]["text"].as_str().unwrap().contains("- tidy: Tidies up."));
    assert!(of("tool_step")["items"][0]["output"].as_str().unwrap().contains("Sweep."));
}

const EVERYTHING: &str = r#"
[model]
provider = "openai-chat"
name = "m"
base_url = "http://localhost:8080/v1"
key = { env = "MY_KEY" }
window_tokens = 10_000
max_output_tokens = 512
prices = { input = 3, cached_input = 0.30, cache_write = 3.75, output = 15.00 }
ca_file = "prompt.md"
temperature = 0
stream = false
headers = { X-Title = "longhaul" }
parameters = { reasoning = { effort = "low" }, stop = ["a", 1, 0.5, true] }
[agent]
name = "worker"
prompt_file = "prompt.md"
directory = "work"
[[scope.allow]]
target = "."
permission = "read"
[[scope.allow]]
target = "src"
permission = "write"
recursive = false
[[scope.deny]]
target = "~/private"
permission = "read"
[tools.bash]
permission = "ask"
time_limit = "90s"
[tools.read]
max_output = "64KiB"
[tools.edit]
permission = "deny"
max_output = 2000
[limits]
max_steps = 7
max_crashes = 2
retry_for = "0s"
retry_for_goal = "2h"
model_call = "10m"
model_first_part = "1500ms"
model_idle = "1 d"
[compaction]
threshold = "75%"
retained_turns = 3
retained_tokens = 1000
[compaction.model]
provider = "openai-chat"
name = "small"
base_url = "http://localhost:8080/v1"
window_tokens = 8_000
[goal]
tokens = "1.5M"
time = "1h30m"
cost = 0.5
continuations = 7
checks = ["make test"]
check_time = "90s"
protected = ["tests/**/*.py"]
"#;

#[test]
fn every_setting_reaches_the_configuration() {
    let world = World::new();
    world.write("longhaul.toml", EVERYTHING);
    world.write("prompt.md", "Be brief.\n");
    let found = found(&world, ".", &[("MY_KEY", "0123456789")]);
    let configuration = json!({
        "agent": "worker",
        "model": {
            "provider": "openai-chat", "name": "m", "base_url": "http://localhost:8080/v1",
            "key": { "env": "MY_KEY" }, "max_output_tokens": 512, "temperature": 0.0, "stream": false,
            "headers": { "X-Title": "longhaul" },
            "parameters": { "reasoning": { "effort": "low" }, "stop": ["a", 1, 0.5, true] },
            "window_tokens": 10_000,
            "prices": { "rates": {
                "input": 3_000_000, "cached_input": 300_000, "cache_write": 3_750_000, "output": 15_000_000
            } },
            "ca_file": "ROOT/prompt.md"
        },
        "directory": "ROOT/work",
        "instructions": "Be brief.\n",
        "scope": [
            { "effect": "allow", "target": ".", "permission": "read", "recursive": true },
            { "effect": "allow", "target": "src", "permission": "write", "recursive": false },
            { "effect": "deny", "target": "ROOT/private", "permission": "read", "recursive": true }
        ],
        "tools": [
            { "name": "bash", "permission": "ask", "max_output_bytes": null, "time_limit_ms": 90_000 },
            { "name": "edit", "permission": "deny", "max_output_bytes": 2000, "time_limit_ms": null },
            { "name": "read", "permission": "allow", "max_output_bytes": 65_536, "time_limit_ms": null }
        ],
        "limits": {
            "max_steps": 7, "max_crashes": 2, "retry_for_ms": 0, "retry_for_goal_ms": 7_200_000,
            "max_compaction_failures": 3, "compact_above_tokens": 6_000, "retained_turns": 3,
            "retained_tokens": 1_000, "model_call_ms": 600_000,
            "model_first_part_ms": 1_500, "model_idle_ms": 86_400_000, "check_ms": 90_000
        },
        "summariser": {
            "provider": "openai-chat", "name": "small", "base_url": "http://localhost:8080/v1", "stream": true,
            "window_tokens": 8_000
        },
        "goal": {
            "budget": {
                "tokens": 1_500_000, "active_ms": 5_400_000, "cost_micros": 500_000, "continuations": 7,
                "hard": false
            },
            "checks": ["make test"],
            "protected": ["tests/**/*.py"]
        }
    });
    assert_eq!(found["configuration"], configuration);
    assert_eq!(found["tools"]["edit"], "deny");
    assert_eq!(found["tools"]["glob"], "allow");
    assert_eq!(found["key_is_there"], true);
}

#[test]
fn what_a_manifest_comes_to_can_be_read() {
    let world = World::new();
    world.write("longhaul.toml", EVERYTHING);
    world.write("prompt.md", "Be brief.\n");
    let ran = check_in(&world, ".", &[("MY_KEY", "0123456789")], &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("readable", ran.stdout.replace(&*world.root().to_string_lossy(), "ROOT"));
}

#[test]
fn a_model_that_is_known_needs_no_window_and_no_prices() {
    let world = World::new();
    let of_model = |name: &str, rest: &str| {
        world.write(
            "longhaul.toml",
            &format!("[model]\nprovider = \"openai-chat\"\nname = \"{name}\"\n{rest}"),
        );
        let found = found(&world, ".", &[]);
        let model = &found["configuration"]["model"];
        let above = found["configuration"]["limits"]["compact_above_tokens"].clone();
        (
            model["window_tokens"].clone(),
            above,
            model["prices"]["rates"]["input"].clone(),
            found["unknown"].clone(),
        )
    };
    let mini = of_model("gpt-5-mini", "");
    assert_eq!(mini, (json!(400_000), json!(320_000), json!(250_000), Value::Null));
    let elsewhere = of_model("gpt-5-mini", "base_url = \"http://localhost:8080/v1\"\n");
    assert_eq!(
        (&elsewhere.0, &elsewhere.2),
        (&json!(400_000), &Value::Null),
        "who serves it asks its own price"
    );
    assert!(elsewhere.3.as_str().unwrap().starts_with("what its tokens cost is not known"), "{elsewhere:?}");
    let stated = of_model("gpt-5-mini", "window_tokens = 1000\nprices = { input = 1, output = 2 }\n");
    assert_eq!(stated, (json!(1_000), json!(800), json!(1_000_000), Value::Null));
    let unknown = of_model("nobody-knows-it", "");
    assert_eq!((&unknown.0, &unknown.1, &unknown.2), (&Value::Null, &json!(102_400), &Value::Null));
    assert!(unknown.3.as_str().unwrap().contains("128000 tokens are assumed"), "{unknown:?}");
}

#[test]
fn a_window_that_nobody_looked_up_is_shown_as_such() {
    let world = World::new();
    for (name, rest, shown) in [
        ("gemini-2.5-pro", "", "1048576 tokens (unverified)\n"),
        ("gemini-2.5-pro", "window_tokens = 1000\n", "1000 tokens\n"),
        ("gpt-5-mini", "", "400000 tokens\n"),
    ] {
        let model = format!("[model]\nprovider = \"openai-chat\"\nname = \"{name}\"\n{rest}");
        world.write("longhaul.toml", &model);
        let ran = check_in(&world, ".", &[], &[]);
        assert!(ran.stdout.contains(&format!("window     {shown}")), "{}", ran.stdout);
    }
}

#[test]
fn a_threshold_in_tokens_is_taken_as_it_is() {
    let world = World::new();
    world.write("longhaul.toml", &format!("{MODEL}[compaction]\nthreshold = 5000\n"));
    assert_eq!(found(&world, ".", &[])["configuration"]["limits"]["compact_above_tokens"], 5_000);
}

#[test]
fn a_script_is_relative_to_the_manifest_and_must_be_playable() {
    let world = World::new();
    world.write("work/longhaul.toml", "[model]\nprovider = \"scripted\"\nscript = \"s.toml\"\n");
    world.write("work/s.toml", "[[turn]]\n[[turn.step]]\ntext = \"Fine.\"\n");
    let model = &found(&world, "work", &[])["configuration"]["model"];
    assert_eq!(*model, json!({ "provider": "scripted", "name": "ROOT/work/s.toml", "stream": true }));
    world.write("work/s.toml", "[[turn]]\n");
    for args in [&[][..], &["--json"]] {
        let ran = check_in(&world, "work", &[], args);
        assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
        assert!(ran.stdout.contains("cannot play the script"), "{}", ran.stdout);
    }
}

#[test]
fn the_nearest_manifest_is_used_and_else_ones_own() {
    let world = World::new();
    std::fs::create_dir_all(world.path("work/a/b")).unwrap();
    std::fs::create_dir_all(world.path(".config/longhaul")).unwrap();
    std::fs::create_dir_all(world.path("xdg/longhaul")).unwrap();
    let named = |name: &str| format!("{MODEL}[agent]\nname = \"{name}\"\n");
    let used = |set: &[(&str, &str)]| {
        let found = found(&world, "work/a/b", set);
        let text = |key: &str| found["configuration"][key].as_str().unwrap().to_owned();
        (text("agent"), text("directory"))
    };
    let none = check_in(&world, "work/a/b", &[], &[]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.starts_with("error: there is no longhaul.toml in "), "{}", none.stderr);

    world.write(".config/longhaul/longhaul.toml", &named("home"));
    assert_eq!(used(&[]), ("home".to_owned(), "ROOT/work/a/b".to_owned()));
    world.write("xdg/longhaul/longhaul.toml", &named("xdg"));
    let xdg = world.path("xdg");
    let set = [("XDG_CONFIG_HOME", xdg.to_str().unwrap())];
    assert_eq!(used(&set), ("xdg".to_owned(), "ROOT/work/a/b".to_owned()));
    world.write("work/longhaul.toml", &named("work"));
    assert_eq!(used(&set), ("work".to_owned(), "ROOT/work".to_owned()));
    std::fs::create_dir(world.path("work/a/longhaul.toml")).unwrap();
    assert_eq!(used(&set).0, "work", "a directory is no manifest");
    world.write("work/a/b/longhaul.toml", &named("b"));
    assert_eq!(used(&set), ("b".to_owned(), "ROOT/work/a/b".to_owned()));
}

#[test]
fn a_manifest_that_somebody_else_left_up_the_tree_is_passed_over() {
    let world = World::new();
    let stranger = 65_533;
    world.write("longhaul.toml", MODEL);
    // Only root can give a file away; elsewhere there is nobody to test it with.
    if std::os::unix::fs::chown(world.path("longhaul.toml"), Some(stranger), None).is_err() {
        return;
    }
    let ran = check_in(&world, "work", &[], &[]);
    assert!(ran.stderr.starts_with("error: there is no longhaul.toml"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(check_in(&world, "work", &[], &["../longhaul.toml"]).code, 0, "named, it is used");
    std::os::unix::fs::chown(world.path("work"), Some(stranger), None).unwrap();
    assert_eq!(check_in(&world, "work", &[], &[]).code, 0, "it is of the directory's owner");
}

#[test]
fn whether_a_key_is_there_is_told_and_the_key_is_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let secret = "sk-0123456789";
    let said = |key: &str, set: &[(&str, &str)]| {
        let manifest = format!("{MODEL}key = {key}\nbase_url = \"http://host/{secret}/v1\"\n");
        world.write("longhaul.toml", &manifest);
        let ran = check_in(&world, ".", set, &[]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        let keep = |line: &&str| line.starts_with("key") || line.starts_with("warning");
        let lines: Vec<&str> = ran.stdout.lines().filter(keep).collect();
        assert_eq!(ran.stdout.contains(secret), lines[0].ends_with("none is"), "{}", ran.stdout);
        assert!(!lines.join("").contains(secret), "{lines:?}");
        lines.join("\n").replace(&*world.root().to_string_lossy(), "ROOT")
    };
    let mut all = Vec::new();
    for value in [Some(secret), Some("two words"), Some(" "), None] {
        let set: Vec<(&str, &str)> = value.map(|value| ("MY_KEY", value)).into_iter().collect();
        all.push(said("{ env = \"MY_KEY\" }", &set));
    }
    let set_mode = |mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.path("key"), permissions).unwrap();
    };
    for (text, mode) in
        [(format!("\n {secret}\r\n"), 0o600), (secret.to_owned(), 0o644), (String::new(), 0o600)]
    {
        world.write("key", &text);
        set_mode(mode);
        all.push(said("{ file = \"~/key\" }", &[]));
    }
    all.push(said("{ file = \"none\" }", &[]));
    all.push(said("{ file = \"work\" }", &[]));
    insta::assert_snapshot!("key_places", all.join("\n\n"));
}

#[test]
fn the_published_schema_is_the_programs() {
    let world = World::new();
    let published = std::fs::read_to_string(repository().join("docs/longhaul.schema.json")).unwrap();
    let printed = world.succeed(&["agent", "schema"]);
    assert!(
        published == printed,
        "docs/longhaul.schema.json is old; run `cargo run -- agent schema > docs/longhaul.schema.json`"
    );
}

#[test]
fn the_schema_takes_what_the_program_takes() {
    let world = World::new();
    let schema: Value = serde_json::from_str(&world.succeed(&["agent", "schema"])).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let is_valid = |text: &str| validator.is_valid(&json!(toml::from_str::<toml::Value>(text).unwrap()));
    for text in [MODEL, EVERYTHING, "[model]\nprovider = \"scripted\"\nscript = \"s\"\n"] {
        assert!(is_valid(text), "{text}");
    }
    let refused = [
        "",
        "[model]\nname = \"m\"\n",
        "[model]\nprovider = \"other\"\nname = \"m\"\n",
        &format!("{MODEL}key = \"plain\"\n"),
        &format!("{MODEL}key = {{}}\n"),
        &format!("{MODEL}[agent]\nnmae = \"x\"\n"),
        &format!("{MODEL}[goal]\ntime = \"soon\"\n"),
        &format!("{MODEL}[goal]\ntokens = \"lots\"\n"),
        &format!("{MODEL}[goal]\ncost = 0\n"),
        &format!("{MODEL}[limits]\nretry_for = \"soon\"\n"),
        &format!("{MODEL}[limits]\nmax_steps = 0\n"),
        &format!("{MODEL}[tools.bash]\npermission = \"never\"\n"),
        &format!("{MODEL}[tools.bash]\nmax_output = \"64 kib\"\n"),
        &format!("{MODEL}[compaction]\nthreshold = \"100%\"\n"),
        &format!("{MODEL}[[scope.allow]]\ntarget = \".\"\n"),
    ];
    for text in refused {
        assert!(!is_valid(text), "{text}");
    }
}

#[test]
fn the_examples_are_in_order() {
    let world = World::new();
    let folder = repository().join("examples/agents");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let manifests: Vec<&PathBuf> = files.iter().filter(|file| file.extension().is_some()).collect();
    assert!(manifests.len() >= 4, "{files:?}");
    for manifest in manifests {
        let ran = check_in(&world, ".", &[("OPENAI_API_KEY", "0123456789")], &[manifest.to_str().unwrap()]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        assert!(!ran.stdout.contains("warning"), "{}", ran.stdout);
    }
}
