//! The doctor asks the provider: what works is said, and what does not with what to do.

use serde_json::{Value, json};

use crate::endpoint::{Act, Endpoint, GOOD, KEY, KEY_VARIABLE, Nobody, good_usage};
use crate::spoken::{self, Spoken};
use crate::world::{Ran, Running, World};

fn refusal(status: &str, message: &str, code: &str) -> Act {
    Act::json(
        status,
        "",
        &json!({ "error": { "message": message, "type": "invalid_request_error", "code": code } }),
    )
}

fn ping() -> Act {
    Act::call(&[("call_a", "ping", json!({}))])
}

/// Refuses to list models, as many servers do.
fn no_list() -> Act {
    refusal("404 Not Found", "There is nothing here.", "not_found")
}

fn world(url: &str, rest: &str) -> World {
    let world = World::new();
    let manifest = format!(
        "[model]\nprovider = \"openai-chat\"\nname = \"test\"\nbase_url = \"{url}\"\n\
         key = {{ env = \"{KEY_VARIABLE}\" }}\n{rest}"
    );
    world.write("longhaul.toml", &manifest);
    world
}

fn doctor(world: &World, args: &[&str]) -> Ran {
    let mut command = world.command(&[&["doctor"], args].concat());
    command.env(KEY_VARIABLE, KEY);
    Running::start(command).finish()
}

/// Returns what the doctor says of the provider, after how it begins; and how it ends.
fn asked(endpoint: &Endpoint, rest: &str) -> (i32, String) {
    let world = world(&endpoint.url(), rest);
    let ran = doctor(&world, &[]);
    assert_eq!(ran.stderr, "");
    assert!(!ran.stdout.contains(KEY), "{}", ran.stdout);
    let (_, said) = ran.stdout.split_once("ok  asking   ").unwrap();
    let (_, said) = said.split_once("; --offline leaves it out\n").unwrap();
    (ran.code, said.to_owned())
}

#[test]
fn a_provider_that_works_is_asked_twice() {
    let endpoint = Endpoint::start([no_list(), Act::say("yes"), ping()]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!((code, endpoint.asked().len()), (0, 3));
    assert_eq!(
        said,
        "ok  provider it can be reached, accepts the key, and the model answers\n\
         ok  stream   answers are streamed\nok  tools    the model calls tools\n"
    );
    for asked in &endpoint.asked()[1..] {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!((&body["max_tokens"], &body["stream"]), (&json!(256), &json!(true)));
    }
}

#[test]
fn the_cost_is_said_before_and_nothing_is_asked_offline() {
    let endpoint = Endpoint::start([]);
    let world = world(&endpoint.url(), "prices = { input = 10, output = 100 }\n");
    let ran = doctor(&world, &["--offline"]);
    assert_eq!((ran.code, ran.stdout.contains("asking")), (0, false), "{}", ran.stdout);
    assert!(endpoint.asked().is_empty());
    let ran = doctor(&world, &[]);
    // Twice 500 tokens at 10 and 256 at 100 dollars for a million.
    let said = "at most 2 calls, each with an answer of at most 256 tokens (at most $0.0612); --offline";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
}

#[test]
fn a_server_that_is_not_there_is_told_of() {
    let nobody = Nobody::new();
    let address = nobody.address;
    let ran = doctor(&world(&format!("http://{address}/v1"), ""), &[]);
    assert_eq!(ran.code, 1);
    let said =
        format!("bad reach    cannot connect to http://{address}/v1/models: the connection was refused");
    assert!(ran.stdout.contains(&said), "{}", ran.stdout);
    assert!(ran.stdout.contains("Check that the server is running"), "{}", ran.stdout);
}

#[test]
fn a_key_that_is_not_accepted_is_told_of() {
    let message = format!("Incorrect API key provided: {KEY}.");
    let endpoint = Endpoint::start([
        refusal("401 Unauthorized", &message, "invalid_api_key"),
        refusal("401 Unauthorized", &message, "invalid_api_key"),
    ]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!((code, endpoint.asked().len()), (1, 2));
    assert_eq!(
        said,
        "bad key      the provider answered 401: Incorrect API key provided: [masked].\n             \
         Check the provider's key: it is missing, wrong, or lacks the permission.\n"
    );
}

#[test]
fn a_model_that_does_not_exist_is_told_of() {
    let act = || refusal("404 Not Found", "The model `test` does not exist.", "model_not_found");
    let endpoint = Endpoint::start([no_list(), act(), act()]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!((code, endpoint.asked().len()), (1, 3));
    assert_eq!(
        said,
        "bad model    the provider answered 404: The model `test` does not exist.\n             \
         Check the model's name and parameters in the configuration.\n"
    );
}

#[test]
fn a_server_without_streams_is_told_of() {
    let choice =
        json!({ "index": 0, "message": { "role": "assistant", "content": GOOD }, "finish_reason": "stop" });
    let answer = json!({ "id": "chatcmpl-1", "choices": [choice], "usage": good_usage() });
    let endpoint = Endpoint::start([
        no_list(),
        refusal("400 Bad Request", "streaming is not supported", "unsupported_value"),
        Act::json("200 OK", "", &answer),
    ]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!((code, endpoint.asked().len()), (1, 3));
    assert_eq!(
        said,
        "ok  provider it can be reached, accepts the key, and the model answers\n\
         bad stream   the server answers, but not in a stream; write stream = false in [model]: the provider \
         answered 400: streaming is not supported\n"
    );
}

#[test]
fn a_model_without_tools_is_told_of() {
    let refused = refusal("400 Bad Request", "test does not support tools", "unsupported_parameter");
    for (second, expected) in [
        (
            refused,
            "bad tools    the provider answered 400: test does not support tools\n             agents work by",
        ),
        (
            Act::say("ping!"),
            "bad tools    the model was told to call a tool and did not; agents work by calling tools",
        ),
    ] {
        let endpoint = Endpoint::start([no_list(), Act::say("yes"), second]);
        let (code, said) = asked(&endpoint, "");
        assert_eq!(code, 1);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn another_provider_can_be_asked_than_the_manifests() {
    let endpoint = Endpoint::start([no_list(), Act::say("yes"), ping()]);
    let world = World::new();
    let args =
        ["--json", "doctor", "--model", "other", "--base-url", &endpoint.url(), "--key-env", KEY_VARIABLE];
    let mut command = world.command(&args);
    command.env(KEY_VARIABLE, KEY);
    let ran = Running::start(command).finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let all: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tools = all.iter().find(|finding| finding["what"] == "tools").unwrap();
    assert_eq!(tools["good"], true);
    assert_eq!(endpoint.asked()[0].authorization(), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(endpoint.asked()[1].json()["model"], "other");
}

#[test]
fn a_provider_of_each_wire_is_asked_for_its_models_its_words_and_its_calls() {
    for spoken in &spoken::ALL {
        let Spoken { provider, say, call, models, listed_at } = spoken;
        let list = Act::json("200 OK", "", &models());
        let endpoint = Endpoint::start([list, say("yes"), call("ping", &json!({}))]);
        let world = World::new();
        let url = endpoint.url();
        let args = ["--provider", provider, "--model", "test", "--base-url", &url, "--key-env", KEY_VARIABLE];
        let ran = doctor(&world, &args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{provider}: {}", ran.stdout);
        assert!(!ran.stdout.contains(KEY), "{}", ran.stdout);
        for said in [
            ", test among them\n",
            "ok  provider it can be reached, accepts the key, and the model answers\n",
            "ok  stream   answers are streamed\n",
            "ok  tools    the model calls tools\n",
            "ok  unknown  how much the model takes is not known: 128000 tokens are assumed",
        ] {
            assert!(ran.stdout.contains(said), "{provider}: {}", ran.stdout);
        }
        let assumed = "how long its answers may be is not known: 32000 tokens are assumed";
        assert_eq!(ran.stdout.contains(assumed), *provider == "anthropic", "{}", ran.stdout);
        let takes = "ok  window   the provider says that the model takes 200000 tokens";
        assert_eq!(ran.stdout.contains(takes), *provider != "openai-responses", "{provider}: {}", ran.stdout);
        let asked = endpoint.asked();
        assert_eq!((asked.len(), asked[0].request_line.as_str()), (3, *listed_at));
        assert!(
            asked[0].headers.values().any(|value| value.contains(KEY)),
            "{provider}: {:?}",
            asked[0].headers
        );
    }
}

#[test]
fn a_model_that_is_not_listed_is_told_of_with_those_that_are_like_it() {
    let listed = ["gpt-9", "test-large", "tester", "alpha", "beta", "gamma", "delta"];
    let listed: Vec<Value> = listed.iter().map(|name| json!({ "id": name })).collect();
    let list = || Act::json("200 OK", "", &json!({ "data": listed }));
    let unknown = || refusal("404 Not Found", "The model `test` does not exist.", "model_not_found");
    let endpoint = Endpoint::start([list(), unknown(), unknown()]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!(code, 1);
    let near = "bad listed   the provider lists 7 models, and no test; nearest are test";
    assert!(said.starts_with(near) && said.contains("\nbad model    "), "{said}");
    assert_eq!(said.lines().next().unwrap().matches(", ").count(), 5, "{said}");
    let endpoint = Endpoint::start([list(), Act::say("yes"), ping()]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!(code, 0);
    let anyway = "ok  listed   the provider lists 7 models, and no test, which answers all the same\n";
    assert!(said.starts_with(anyway), "{said}");
}

#[test]
fn a_model_that_takes_less_than_is_reckoned_with_is_told_of() {
    let list = json!({ "data": [{ "id": "test", "context_length": 32_768 }] });
    let endpoint = Endpoint::start([Act::json("200 OK", "", &list), Act::say("yes"), ping()]);
    let (code, said) = asked(&endpoint, "");
    assert_eq!(code, 1);
    let wanted = "bad window   the provider says that the model takes 32768 tokens, and the context is compacted \
                  only above 102400: set window_tokens = 32768 in [model]";
    assert!(said.contains(wanted), "{said}");
}
