//! Sessions with a server of Chat Completions: what it is asked, what its refusals come to, and where its
//! key does not go. What a server that misbehaves does to a run is left to `endpoint`.

use serde_json::{Value, json};

use crate::endpoint::{
    Act, Asked, Endpoint, GOOD, HALF, KEY, KEY_VARIABLE, Nobody, facts, good_usage, half_stream, lines,
};
use crate::world::{Ran, Running, World};

const SYSTEM: &str = "You mend clocks.";

/// A world with a manifest for the server, to which these lines are added.
fn world(endpoint_url: &str, of_model: &str, rest: &str) -> World {
    let world = World::new();
    let manifest = format!(
        "[model]\nprovider = \"openai-chat\"\nname = \"test\"\nbase_url = \"{endpoint_url}\"\n{of_model}\n\
         [agent]\ndirectory = \"work\"\nprompt = \"{SYSTEM}\"\n{rest}\n"
    );
    world.write("longhaul.toml", &manifest);
    world
}

/// A world whose manifest says where the key is.
fn world_with_key(endpoint: &Endpoint) -> World {
    world(&endpoint.url(), &format!("key = {{ env = \"{KEY_VARIABLE}\" }}"), "")
}

/// Starts the program with the key in its environment.
fn start(world: &World, args: &[&str]) -> Running {
    let mut command = world.command(args);
    command.env(KEY_VARIABLE, KEY);
    Running::start(command)
}

fn run(world: &World, args: &[&str]) -> Ran {
    start(world, args).finish()
}

/// Runs the program to its end, which must be a success.
fn succeed(world: &World, args: &[&str]) -> String {
    let ran = run(world, args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}: {}", ran.stdout);
    ran.stdout
}

fn refusal(message: &str, code: &str) -> Value {
    json!({ "error": { "message": message, "type": "invalid_request_error", "param": null, "code": code } })
}

/// Checks that a session failed at the first request, of this class, and says so with advice.
fn fails_at_once(act: Act, class: &str, said: &str) {
    let endpoint = Endpoint::start([act]);
    let world = world_with_key(&endpoint);
    let ran = run(&world, &["run", "Mend it."]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(said), "{}", ran.stdout);
    assert_eq!(endpoint.asked().len(), 1);
    let shown = world.show("@last");
    assert_eq!((&shown["status"], &shown["last_error"]["class"]), (&json!("failed"), &json!(class)));
    world.succeed(&["verify", "--all"]);
    assert_eq!(world.kept.holding(KEY), Vec::<String>::new());
}

/// Checks that a request continues the one before: nothing it has said is said differently.
fn continues(earlier: &Asked, later: &Asked) {
    let shared = earlier.body.strip_suffix("]}").unwrap();
    assert!(later.body.starts_with(shared), "{}\n{}", earlier.body, later.body);
}

#[test]
fn a_conversation_with_tools_is_asked_for_as_servers_expect() {
    let endpoint = Endpoint::start([
        Act::call(&[
            ("call_a", "bash", json!({ "command": "echo first" })),
            ("call_b", "read", json!({ "path": "clock.txt" })),
        ]),
        Act::call(&[("call_c", "write", json!({ "path": "done.txt", "content": "mended\n" }))]),
        Act::say(GOOD),
        Act::say("You are welcome."),
    ]);
    let world = world_with_key(&endpoint);
    std::fs::write(world.work("clock.txt"), "tick\n").unwrap();
    let out = succeed(&world, &["run", "Mend the clock."]);
    assert!(out.contains(GOOD), "{out}");
    assert!(succeed(&world, &["send", "@last", "Thanks."]).contains("You are welcome."));
    assert_eq!(std::fs::read_to_string(world.work("done.txt")).unwrap(), "mended\n");

    let asked = endpoint.asked();
    assert_eq!(asked.len(), 4);
    for pair in asked.windows(2) {
        continues(&pair[0], &pair[1]);
    }
    for one in &asked {
        assert_eq!(one.request_line, "POST /v1/chat/completions HTTP/1.1");
        assert_eq!(one.authorization(), Some(format!("Bearer {KEY}").as_str()));
        assert_eq!(one.headers["content-type"], "application/json");
        check_frame(&one.json());
    }
    let said = asked[3].messages();
    let roles: Vec<_> = said.iter().map(|message| message["role"].as_str().unwrap()).collect();
    let expected = ["system", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant", "user"];
    assert_eq!(roles, expected);
    let calls = |message: &Value| {
        let calls = message["tool_calls"].as_array().unwrap().iter();
        calls.map(|call| (call["id"].clone(), call["function"]["name"].clone())).collect::<Vec<_>>()
    };
    let expected = [(json!("call_a"), json!("bash")), (json!("call_b"), json!("read"))];
    assert_eq!(calls(&said[2]), expected);
    assert_eq!(calls(&said[5]), [(json!("call_c"), json!("write"))]);
    let arguments = said[2]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(arguments).unwrap(), json!({ "command": "echo first" }));
    for (at, call, output) in [(3, "call_a", "first"), (4, "call_b", "tick"), (6, "call_c", "")] {
        assert_eq!(said[at]["tool_call_id"], call);
        assert!(said[at]["content"].as_str().unwrap().contains(output), "{}", said[at]);
    }
    assert_eq!(said[7]["content"], GOOD);
    assert_eq!(said[8]["content"], "Thanks.");
    let measured = json!({ "input": 400, "output": 80 });
    assert_eq!(world.show("@last")["ledger"]["measured"], measured);
    world.succeed(&["verify", "--all"]);
}

/// Checks what is the same in all requests.
fn check_frame(body: &Value) {
    assert_eq!((&body["model"], &body["stream"]), (&json!("test"), &json!(true)));
    assert_eq!(body["stream_options"], json!({ "include_usage": true }));
    assert_eq!(body["messages"][0]["role"], "system");
    assert!(body["messages"][0]["content"].as_str().unwrap().starts_with(SYSTEM));
    assert_eq!(body["messages"][1]["content"], "Mend the clock.");
    let tools = body["tools"].as_array().unwrap();
    let mut names = Vec::new();
    for tool in tools {
        let function = &tool["function"];
        assert_eq!((&tool["type"], &function["parameters"]["type"]), (&json!("function"), &json!("object")));
        assert!(jsonschema::validator_for(&function["parameters"]).is_ok(), "{tool}");
        assert!(!function["description"].as_str().unwrap().is_empty(), "{tool}");
        names.push(function["name"].as_str().unwrap());
    }
    assert_eq!(
        names,
        ["bash", "create_goal", "edit", "get_goal", "glob", "grep", "read", "update_goal", "write"]
    );
}

#[test]
fn a_stream_that_was_killed_is_asked_for_again_and_counted_as_an_estimate() {
    let endpoint = Endpoint::start([Act::Hold(half_stream()), Act::say(GOOD)]);
    let world = world_with_key(&endpoint);
    let mut running = start(&world, &["--json", "run", "Mend it."]);
    running.wait_for(HALF.trim());
    drop(running.kill());
    let out = succeed(&world, &["--json", "resume"]);
    let answers = lines(&out);
    let answer = answers.iter().find(|line| line["record"]["fact"]["kind"] == "model_step").unwrap();
    assert_eq!(answer["content"]["items"][0]["text"], GOOD);
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, asked[1].body);
    let ledger = &world.show("@last")["ledger"];
    assert_eq!(ledger["measured"], json!({ "input": 100, "output": 20 }));
    assert!(ledger["estimated"]["input"].as_u64().unwrap() > 0, "{ledger}");
    let lost = facts(&answers).iter().filter(|fact| fact["lost"] == true).count();
    assert_eq!(lost, 1, "{out}");
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_wrong_key_fails_at_once() {
    let message = format!("Incorrect API key provided: {KEY}. You can find your API key at your account.");
    fails_at_once(
        Act::json("401 Unauthorized", "", &refusal(&message, "invalid_api_key")),
        "auth",
        "failed: the provider answered 401: Incorrect API key provided: [masked]. You can find your API key at \
         your account.\n  Check the provider's key: it is missing, wrong, or lacks the permission.\n",
    );
}

#[test]
fn an_unknown_model_fails_at_once() {
    let message = "The model `test` does not exist or you do not have access to it.";
    fails_at_once(
        Act::json("404 Not Found", "", &refusal(message, "model_not_found")),
        "invalid_request",
        "failed: the provider answered 404: The model `test` does not exist or you do not have access to it.\n  \
         Check the model's name and parameters in the configuration.\n",
    );
}

#[test]
fn a_context_that_is_too_large_is_summarised_and_the_turn_goes_on() {
    let message = "This model's maximum context length is 128000 tokens. However, your messages resulted in \
                   130000 tokens. Please reduce the length of the messages.";
    let endpoint = Endpoint::start([
        Act::say("The first part is done."),
        Act::json("400 Bad Request", "", &refusal(message, "context_length_exceeded")),
        Act::say("SUMMARY: the first part was done."),
        Act::say(GOOD),
    ]);
    let world = world_with_key(&endpoint);
    succeed(&world, &["run", "Mend the first part."]);
    let out = succeed(&world, &["send", "@last", "Now the second part."]);
    assert!(out.contains(GOOD), "{out}");
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 4);
    let summary = asked[2].json();
    assert_eq!(summary["tools"], asked[1].json()["tools"]);
    let last = summary["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
    assert!(last.contains("Summarise the conversation"), "{last}");
    let after = asked[3].messages();
    let text = json!(after).to_string();
    assert!(text.contains("SUMMARY: ") && text.contains("Now the second part."), "{text}");
    assert!(!text.contains("The first part is done."), "it is in the summary only: {text}");
    let kinds = world.kinds("@last");
    let place = |kind: &str| kinds.iter().position(|it| it == kind);
    assert!(place("retry").unwrap() < place("compacted").unwrap(), "{kinds:?}");
    let measured = json!({ "input": 300, "output": 60 });
    assert_eq!(world.show("@last")["ledger"]["measured"], measured);
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_key_that_is_not_there_is_missed_before_anything_is_stored() {
    let endpoint = Endpoint::start([]);
    let world = world_with_key(&endpoint);
    let ran = world.run(&["run", "Mend it."]);
    let said = "error: the variable ENDPOINT_KEY is not set, or empty; set it to the key, or change `key` of [model]\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (1, "", said));
    assert_eq!(world.succeed(&["--json", "ls", "--all"]), "");
    assert!(endpoint.asked().is_empty());
}

#[test]
fn a_server_that_is_not_there_is_tried_again_for_as_long_as_it_was_said() {
    let nobody = Nobody::new();
    let address = nobody.address;
    let world = world(&format!("http://{address}/v1"), "", "[limits]\nretry_for = \"1500ms\"");
    let ran = world.run(&["run", "Mend it."]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{}", ran.stdout);
    let refused = format!(
        "cannot connect to http://{address}/v1/chat/completions: the connection was refused (Connection refused \
         (os error 111)). Check that the server is running, and the port in the base URL"
    );
    let advice = "Check the network connection, then send a message to try again.";
    assert!(ran.stdout.ends_with(&format!("failed: {refused}\n  {advice}\n")), "{}", ran.stdout);
    assert_eq!(world.show("@last")["last_error"]["class"], "network");
    let log = world.log("@last");
    let retries: Vec<_> = log.iter().filter(|it| it["record"]["fact"]["kind"] == "retry").collect();
    assert!(!retries.is_empty());
    for retry in retries {
        let retry = &retry["record"]["fact"]["retry"];
        let at = |name: &str| retry[name].as_u64().unwrap();
        assert!(at("not_before") <= at("since") + 1500, "{retry}");
    }
    world.succeed(&["verify", "--all"]);
}

#[test]
fn answers_that_are_not_streamed_work_as_well() {
    let answer = |message: Value, finish: &str| {
        let choice = json!({ "index": 0, "message": message, "finish_reason": finish });
        let body = json!({ "id": "chatcmpl-1", "choices": [choice], "usage": good_usage() });
        Act::json("200 OK", "", &body)
    };
    let function = json!({ "name": "bash", "arguments": "{\"command\":\"echo tick\"}" });
    let call = json!({ "id": "call_a", "type": "function", "function": function });
    let endpoint = Endpoint::start([
        answer(json!({ "role": "assistant", "content": null, "tool_calls": [call] }), "tool_calls"),
        answer(json!({ "role": "assistant", "content": GOOD }), "stop"),
    ]);
    let world = world(&endpoint.url(), "stream = false", "");
    let out = world.succeed(&["run", "Mend it."]);
    assert!(out.contains(GOOD), "{out}");
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 2);
    for one in &asked {
        let body = one.json();
        assert_eq!((&body["stream"], body.get("stream_options")), (&json!(false), None));
    }
    continues(&asked[0], &asked[1]);
    let result = &asked[1].messages()[3];
    assert_eq!((&result["role"], &result["tool_call_id"]), (&json!("tool"), &json!("call_a")));
    assert!(result["content"].as_str().unwrap().contains("tick"), "{result}");
    assert_eq!(world.show("@last")["ledger"]["measured"], json!({ "input": 200, "output": 40 }));
}

#[test]
fn a_key_that_a_tool_prints_is_masked_for_everyone() {
    let endpoint = Endpoint::start([
        Act::call(&[
            ("call_a", "bash", json!({ "command": format!("echo variable ${KEY_VARIABLE}") })),
            ("call_b", "read", json!({ "path": "key.txt" })),
            ("call_c", "bash", json!({ "command": "echo failed $(cat key.txt); exit 3" })),
        ]),
        Act::say(GOOD),
    ]);
    let world = world_with_key(&endpoint);
    std::fs::write(world.work("key.txt"), format!("key={KEY}\n")).unwrap();
    let out = succeed(&world, &["--json", "run", "Print the key."]);
    assert!(!out.contains(KEY), "{out}");
    let told: Vec<Value> =
        endpoint.asked()[1].messages().into_iter().filter(|it| it["role"] == "tool").collect();
    let said = ["variable\n", "key=[masked]", "failed key=[masked]"];
    assert_eq!(told.len(), said.len());
    for (result, said) in told.iter().zip(said) {
        assert!(result["content"].as_str().unwrap().contains(said), "{result}");
    }
    let people = world.succeed(&["log"]) + &world.succeed(&["--json", "log"]);
    assert!(people.contains("[masked]") && !people.contains(KEY), "{people}");
    assert_eq!(world.kept.holding(KEY), Vec::<String>::new());
}

#[test]
fn a_server_that_needs_no_key_is_sent_none() {
    let endpoint = Endpoint::start([Act::say(GOOD)]);
    let world = World::new();
    let args = ["run", "--base-url", &endpoint.url(), "--model", "test", "--dir", "work", "Mend it."];
    let out = world.succeed(&args);
    assert!(out.contains(GOOD), "{out}");
    let asked = endpoint.asked();
    assert_eq!((asked.len(), asked[0].authorization()), (1, None));
}

#[test]
fn a_key_is_masked_where_a_long_output_is_cut() {
    for before in (400..450).step_by(5) {
        let command = format!("printf '%0{before}d' 0; cat key.txt; printf '%04000d' 0");
        let endpoint = Endpoint::start([
            Act::call(&[("call_a", "bash", json!({ "command": command }))]),
            Act::say(GOOD),
        ]);
        let key = format!("key = {{ env = \"{KEY_VARIABLE}\" }}");
        let world = world(&endpoint.url(), &key, "[tools.bash]\nmax_output = \"1KiB\"");
        std::fs::write(world.work("key.txt"), KEY).unwrap();
        let out = succeed(&world, &["--json", "run", "Print the key."]);
        let half = &KEY[..10];
        assert!(!out.contains(half), "{before}: {out}");
        assert!(!endpoint.asked()[1].body.contains(half), "{before}");
    }
}

#[test]
fn a_server_on_this_machine_is_asked_without_a_proxy() {
    let endpoint = Endpoint::start([Act::say(GOOD)]);
    let world = world(&endpoint.url(), "", "");
    let mut command = world.command(&["run", "Mend it."]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    let ran = Running::start(command).finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
}

/// The cost of each model step of the newest session, in millionths of a dollar.
fn costs(world: &World) -> Vec<Value> {
    let log = world.log("@last");
    let steps = log.iter().filter(|it| it["record"]["fact"]["kind"] == "model_step");
    steps.map(|it| it["record"]["fact"]["charge"]["spend"]["usage"]["cost_micros"].clone()).collect()
}

#[test]
fn what_a_call_costs_is_counted_by_the_prices_unless_the_provider_says() {
    let stated = {
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": GOOD }, "finish_reason": "stop" });
        let usage = json!({ "prompt_tokens": 100, "completion_tokens": 20, "cost": 0.0421 });
        Act::json("200 OK", "", &json!({ "id": "chatcmpl-1", "choices": [choice], "usage": usage }))
    };
    let endpoint =
        Endpoint::start([Act::call(&[("call_a", "bash", json!({ "command": "echo tick" }))]), stated]);
    let prices =
        "prices = { input = 3.00, cached_input = 0.30, cache_write = 3.75, output = 15.00 }\nstream = false";
    let world = world(&endpoint.url(), prices, "");
    let out = world.succeed(&["run", "Mend it."]);
    assert_eq!(costs(&world), [json!(600), json!(42_100)]);
    assert_eq!(world.show("@last")["ledger"]["measured"]["cost_micros"], 42_700);
    assert!(out.contains("200 in, 40 out, $0.0427, "), "{out}");
    assert!(!out.contains("what its tokens cost"), "{out}");
    let shown = world.succeed(&["show"]);
    assert!(shown.contains("spent      200 in, 40 out, $0.0427, "), "{shown}");
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_cost_that_is_not_known_is_not_shown_as_nothing() {
    let endpoint = Endpoint::start([Act::say(GOOD)]);
    let world = world(&endpoint.url(), "", "");
    let out = world.succeed(&["run", "Mend it."]);
    let said = "128000 tokens are assumed; set window_tokens of [model]; what its tokens cost is not known";
    assert_eq!(out.matches(said).count(), 1, "{out}");
    assert_eq!(costs(&world), [Value::Null]);
    let shown = world.succeed(&["show"]);
    assert!(shown.contains("spent      100 in, 20 out, cost unknown, "), "{shown}");
    assert!(!shown.contains('$'), "{shown}");
}

#[test]
fn a_failed_attempt_that_is_charged_has_its_cost_too() {
    let endpoint = Endpoint::start([Act::Hold(half_stream()), Act::say(GOOD)]);
    let world = world(&endpoint.url(), "prices = { input = 1, output = 10 }", "");
    let mut running = world.start(&["run", "Mend it."]);
    running.wait_for(HALF.trim());
    endpoint.let_go();
    assert_eq!(running.finish().code, 0);
    // 40 and 2 tokens of the attempt that was cut off, 100 and 20 of the one that was not.
    assert_eq!(world.show("@last")["ledger"]["measured"]["cost_micros"], 60 + 300);
}
