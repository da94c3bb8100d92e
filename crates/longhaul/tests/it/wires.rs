//! A session with a provider of each wire: tools, two turns, the key where the provider looks for it, and what
//! the provider marked as its own sent back as it came.

use serde_json::json;

use crate::endpoint::{Act, Asked, Endpoint, GOOD, KEY, KEY_VARIABLE};
use crate::spoken::{self, Spoken};
use crate::world::{Running, World};

const COMMAND: &str = "echo tick";

/// Lets a session call a tool and answer, thanks it, and returns what the provider was asked.
fn converse(provider: &str, of_model: &str, acts: [Act; 3]) -> Vec<Asked> {
    let endpoint = Endpoint::start(acts);
    let world = World::new();
    let url = endpoint.url();
    let manifest = format!(
        "[model]\nprovider = \"{provider}\"\nname = \"test\"\nbase_url = \"{url}\"\nkey = {{ env = \
         \"{KEY_VARIABLE}\" }}\n{of_model}\n[agent]\ndirectory = \"work\"\n"
    );
    world.write("longhaul.toml", &manifest);
    for (args, said) in
        [(["run", "Mend the clock."].as_slice(), GOOD), (&["send", "@last", "Thanks."], "Bye.")]
    {
        let mut command = world.command(args);
        command.env(KEY_VARIABLE, KEY);
        let ran = Running::start(command).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        assert!(ran.stdout.contains(said), "{}", ran.stdout);
    }
    assert_eq!(world.show("@last")["ledger"]["measured"], json!({ "input": 300, "output": 60 }));
    world.succeed(&["verify", "--all"]);
    assert_eq!(world.kept.holding(KEY), Vec::<String>::new());
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 3);
    asked
}

fn says(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{text} does not say {wanted}");
}

#[test]
fn responses_are_asked_for_with_the_reasoning_so_far() {
    let [_, Spoken { provider, say, .. }, ..] = spoken::ALL;
    let called = json!([
        { "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed-1" },
        spoken::called_function("bash", &json!({ "command": COMMAND })),
    ]);
    let rest = "output = { schema = { type = \"object\" } }\nprovider_tools = [{ type = \"web_search\" }]\n\
                item_ids = true";
    let asked = converse(provider, rest, [spoken::response(1, &called), say(GOOD), say("Bye.")]);
    for one in &asked {
        assert_eq!(one.request_line, "POST /v1/responses HTTP/1.1");
        assert_eq!(one.authorization(), Some(format!("Bearer {KEY}").as_str()));
        let body = one.json();
        assert_eq!((&body["store"], body.get("background")), (&json!(false), None));
        assert!(body["tools"].as_array().unwrap().contains(&json!({ "type": "web_search" })), "{body}");
        assert_eq!(body["text"]["format"]["schema"], json!({ "type": "object" }));
    }
    let input = asked[2].json()["input"].clone();
    let sealed = input.as_array().unwrap().iter().find(|item| item["type"] == "reasoning").unwrap();
    assert_eq!((&sealed["encrypted_content"], &sealed["id"]), (&json!("sealed-1"), &json!("rs_1")));
    let result =
        input.as_array().unwrap().iter().find(|item| item["type"] == "function_call_output").unwrap();
    assert_eq!(result["call_id"], "call_a");
    says(&result["output"].to_string(), "tick");
}

/// Returns what a provider is asked that refuses everything.
fn asked_once(provider: &str, of_model: &str) -> Asked {
    let refusal = json!({ "error": { "message": "no", "type": "invalid_request_error" } });
    let endpoint = Endpoint::start([Act::json("400 Bad Request", "", &refusal)]);
    let world = World::new();
    let (url, key) = (endpoint.url(), format!("key = {{ env = \"{KEY_VARIABLE}\" }}"));
    let model = format!("[model]\nprovider = \"{provider}\"\nname = \"test\"\nbase_url = \"{url}\"\n{key}");
    world.write("longhaul.toml", &format!("{model}\n{of_model}\n[agent]\ndirectory = \"work\"\n"));
    let mut command = world.command(&["run", "Mend the clock."]);
    command.env(KEY_VARIABLE, KEY);
    assert_eq!(Running::start(command).finish().code, 1);
    endpoint.asked().remove(0)
}

#[test]
fn settings_of_a_format_reach_its_requests() {
    let bearer = Some(format!("Bearer {KEY}"));
    let plain = asked_once("anthropic", "");
    assert_eq!((plain.authorization(), plain.headers["x-api-key"].as_str()), (None, KEY));
    says(&plain.body, "\"cache_control\":{\"type\":\"ephemeral\"}");
    let hour = asked_once("anthropic", "bearer = true\ncache = \"1h\"");
    assert_eq!((hour.authorization(), hour.headers.get("x-api-key")), (bearer.as_deref(), None));
    says(&hour.body, "\"ttl\":\"1h\"");
    assert!(!asked_once("anthropic", "cache = \"off\"").body.contains("cache_control"));
    says(&asked_once("openai-chat", "").body, "\"include_usage\":true");
    assert!(!asked_once("openai-chat", "include_usage = false").body.contains("include_usage"));
    says(&asked_once("openai-responses", "").body, "reasoning.encrypted_content");
    assert!(!asked_once("openai-responses", "replay_reasoning = false").body.contains("encrypted_content"));
}

#[test]
fn messages_are_sent_with_the_thinking_so_far() {
    let [_, _, Spoken { provider, say, .. }, _] = spoken::ALL;
    let thinks = [
        json!({ "type": "thinking_delta", "thinking": "Hm." }),
        json!({ "type": "signature_delta", "signature": "signed-1" }),
    ];
    let arguments = json!({ "command": COMMAND }).to_string();
    let calls = [json!({ "type": "input_json_delta", "partial_json": arguments })];
    let called = spoken::message(
        &[
            (json!({ "type": "thinking", "thinking": "", "signature": "" }), &thinks),
            (json!({ "type": "tool_use", "id": "toolu_1", "name": "bash", "input": {} }), &calls),
        ],
        "tool_use",
    );
    let asked = converse(provider, "", [called, say(GOOD), say("Bye.")]);
    for one in &asked {
        assert_eq!(one.request_line, "POST /v1/messages HTTP/1.1");
        assert_eq!(one.json()["max_tokens"], 32_000, "what is assumed of a model that nobody knows");
        assert_eq!((one.headers["x-api-key"].as_str(), one.authorization()), (KEY, None));
    }
    let messages = asked[2].messages();
    let thought = &messages[1]["content"][0];
    assert_eq!((&thought["thinking"], &thought["signature"]), (&json!("Hm."), &json!("signed-1")));
    assert_eq!(messages[1]["content"][1]["input"], json!({ "command": COMMAND }));
    assert_eq!(messages[2]["content"][0]["tool_use_id"], "toolu_1");
    says(&messages[2].to_string(), "tick");
    says(&messages.last().unwrap().to_string(), "Thanks.");
}

#[test]
fn contents_are_generated_with_the_signatures_so_far() {
    let [.., Spoken { provider, say, .. }] = spoken::ALL;
    let call = json!({ "name": "bash", "args": { "command": COMMAND } });
    let called = json!({ "functionCall": call, "thoughtSignature": "c2lnbmVk" });
    let asked = converse(provider, "", [spoken::content(&called), say(GOOD), say("Bye.")]);
    for one in &asked {
        assert_eq!(one.request_line, "POST /v1/models/test:streamGenerateContent?alt=sse HTTP/1.1");
        assert_eq!((one.headers["x-goog-api-key"].as_str(), one.authorization()), (KEY, None));
    }
    let contents = asked[2].json()["contents"].clone();
    let part = &contents[1]["parts"][0];
    assert_eq!(
        (&part["functionCall"]["name"], &part["thoughtSignature"]),
        (&json!("bash"), &json!("c2lnbmVk"))
    );
    says(&contents[2]["parts"][0]["functionResponse"].to_string(), "tick");
}

#[test]
fn completions_are_asked_for_in_the_form_that_is_set() {
    let endpoint = Endpoint::start([Act::say(GOOD)]);
    let world = World::new();
    let schema = json!({ "type": "object", "properties": { "done": { "type": "boolean" } } });
    world.write("answer.json", &schema.to_string());
    let url = endpoint.url();
    let manifest = format!(
        "[model]\nprovider = \"groq\"\nname = \"test\"\nbase_url = \"{url}\"\noutput = {{ name = \"report\", \
         schema_file = \"answer.json\" }}\n"
    );
    world.write("longhaul.toml", &manifest);
    let mut command = world.command(&["run", "Mend it."]);
    command.env("GROQ_API_KEY", KEY);
    let ran = Running::start(command).finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let asked = endpoint.asked();
    let form = json!({ "type": "json_schema", "json_schema": { "name": "report", "schema": schema } });
    assert_eq!(asked[0].json()["response_format"], form);
    assert_eq!(asked[0].authorization(), None, "a usual key is for the provider's own host");
}

#[test]
fn another_provider_is_sent_nothing_that_the_manifest_says_of_its_own() {
    let endpoint = Endpoint::start([Act::say(GOOD), Act::say(GOOD)]);
    let world = World::new();
    let url = endpoint.url();
    let manifest = format!(
        "[model]\nprovider = \"openai-chat\"\nname = \"one\"\nbase_url = \"{url}\"\nkey = {{ env = \
         \"{KEY_VARIABLE}\" }}\nheaders = {{ X-Team = \"mine\" }}\n"
    );
    world.write("longhaul.toml", &manifest);
    for args in [&["--model", "two"][..], &["--provider", "ollama", "--model", "three", "--base-url", &url]] {
        let mut command = world.command(&[&["run", "Mend it."], args].concat());
        command.env(KEY_VARIABLE, KEY);
        let ran = Running::start(command).finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    }
    let [same, other] = <[Asked; 2]>::try_from(endpoint.asked()).unwrap();
    assert_eq!(same.json()["model"], "two");
    assert_eq!((same.authorization().is_some(), same.headers.contains_key("x-team")), (true, true));
    assert_eq!(other.json()["model"], "three");
    assert_eq!((other.authorization(), other.headers.contains_key("x-team")), (None, false));
    let ran = world.run(&["run", "--provider", "antrophic", "--model", "m", "Mend it."]);
    assert_eq!(ran.code, 2);
    says(&ran.stderr, "openai-responses, anthropic, gemini");
}
