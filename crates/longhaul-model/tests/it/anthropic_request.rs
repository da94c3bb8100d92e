//! The bodies that conversations become on Anthropic's wire, held against a strict reading of the API.

use std::sync::Arc;

use longhaul_model::Secret;
use longhaul_model::anthropic::{Cache, Codec, DEFAULT_MAX_OUTPUT_TOKENS, Options};
use longhaul_model::codec::{Codec as _, HttpRequest, ResponseHead};
use longhaul_session::agent::{OutputFormat, Request, ToolSpec};
use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::steering::SteeringReason;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{assistant, result, user};

const HOST: &str = "provider.test";

fn options() -> Options {
    Options::new("https://provider.test", "test-model")
}

/// Options without cache markers, where these are not the point.
fn plain() -> Options {
    Options { cache: Cache::Off, ..options() }
}

fn request(items: Vec<Item>) -> Request {
    Request {
        system: "Be brief.".to_owned(),
        items: items.into_iter().map(Arc::new).collect(),
        tools: Arc::new(vec![ToolSpec {
            name: "read".to_owned(),
            description: "Reads a file.".to_owned(),
            input_schema: json!({ "type": "object", "properties": { "path": { "type": "string" } } }),
            effect: EffectClass::Pure,
            exclusive: false,
            stop_after: false,
        }]),
        previous: None,
    }
}

fn asked(options: Options, items: Vec<Item>) -> HttpRequest {
    Codec::new(options).request(&request(items))
}

fn body(options: Options, items: Vec<Item>) -> Value {
    let body = serde_json::from_slice(&asked(options, items).body).unwrap();
    validate(&body).unwrap_or_else(|why| panic!("{why}: {body:#}"));
    body
}

fn messages(items: Vec<Item>) -> Vec<Value> {
    body(plain(), items)["messages"].as_array().unwrap().clone()
}

fn called(id: &str, arguments: &str) -> Item {
    Item::ToolCall(ToolCall {
        id: id.into(),
        name: "read".to_owned(),
        arguments: arguments.to_owned(),
        opaque: None,
    })
}

fn answered(id: &str) -> Item {
    result(&id.into(), &format!("result of {id}"))
}

fn ended(id: &str, outcome: Outcome, output: &str) -> Item {
    let (files, artifact) = (Vec::new(), None);
    Item::ToolResult(ToolResult { call: id.into(), outcome, output: output.to_owned(), files, artifact })
}

fn from(host: &str, key: &str, value: Value) -> Value {
    json!({ "api": "anthropic", "host": host, key: value })
}

fn thought(text: &str, block: Value) -> Item {
    Item::Reasoning { text: text.to_owned(), opaque: Some(from(HOST, "block", block)) }
}

fn signed(text: &str) -> Item {
    thought(text, json!({ "type": "thinking", "signature": "sig" }))
}

fn made(block: Value) -> Item {
    Item::Opaque { provider: HOST.to_owned(), value: from(HOST, "block", block) }
}

fn search(id: &str) -> Item {
    made(json!({ "type": "server_tool_use", "id": id, "name": "web_search", "input": { "query": "news" } }))
}

fn found(id: &str) -> Item {
    made(json!({ "type": "web_search_tool_result", "tool_use_id": id, "content": [] }))
}

fn file(media_type: &str, data: &str) -> Item {
    Item::File { name: Some("it".to_owned()), media_type: media_type.to_owned(), data: data.to_owned() }
}

fn said(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// Checks what the API demands: people and the model take turns, a person begins, results stand first and directly
/// after their calls, one for each; no text is blank, no answer ends in thinking, and at most four markers.
fn validate(body: &Value) -> Result<(), String> {
    let messages = body["messages"].as_array().ok_or("no messages")?;
    body["model"].as_str().ok_or("no model")?;
    body["max_tokens"].as_u64().ok_or("no limit")?;
    if body.to_string().matches("cache_control").count() > 4 {
        return Err("too many cache markers".to_owned());
    }
    let mut open: Vec<&str> = Vec::new();
    let mut provider_calls: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let wanted = if at % 2 == 0 { "user" } else { "assistant" };
        if message["role"] != wanted {
            return Err(format!("message {at} is not of the {wanted}"));
        }
        let blocks = message["content"].as_array().filter(|it| !it.is_empty()).ok_or("an empty message")?;
        let mut results = 0;
        for (place, block) in blocks.iter().enumerate() {
            let text = |key: &str| block[key].as_str().ok_or_else(|| format!("no {key}: {block}"));
            match (wanted, text("type")?) {
                (_, "text") if !text("text")?.trim().is_empty() => {}
                ("user", "image" | "document") if block["source"]["type"].is_string() => {}
                ("user", "tool_result") if place == results => {
                    results += 1;
                    let id = text("tool_use_id")?;
                    let found = open.iter().position(|it| *it == id);
                    open.remove(found.ok_or_else(|| format!("nobody called {id}"))?);
                }
                ("assistant", "thinking" | "redacted_thinking") if block.get("cache_control").is_none() => {}
                ("assistant", "tool_use") if block["input"].is_object() => open.push(text("id")?),
                ("assistant", "server_tool_use") => provider_calls.push(text("id")?),
                ("assistant", "web_search_tool_result") => {
                    let id = text("tool_use_id")?;
                    let found = provider_calls.iter().position(|it| *it == id);
                    provider_calls.remove(found.ok_or_else(|| format!("the provider did not call {id}"))?);
                }
                _ => return Err(format!("message {at} may not have {block}")),
            }
        }
        let last = blocks.last().map_or(&Value::Null, |block| &block["type"]);
        if wanted == "user" && !open.is_empty() || *last == "thinking" || *last == "redacted_thinking" {
            return Err(format!("message {at} leaves {open:?} open, or ends in thinking"));
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("calls {open:?} are not answered at the end")) }
}

#[test]
fn a_conversation_becomes_messages() {
    let items = vec![
        Item::Summary { text: "They met.".to_owned() },
        Item::ContextFile {
            path: "AGENTS.md".to_owned(),
            digest: Digest::of(b"x"),
            text: "Use tabs.\n".to_owned(),
        },
        user("Read both."),
        signed("Hm."),
        assistant("I read."),
        called("c1", r#"{ "path": "b", "n": 1.50, "a": [] }"#),
        called("c2", "{}"),
        answered("c2"),
        ended("c1", Outcome::Error, "no such file"),
        Item::Steering { reason: SteeringReason::Hook, text: "Hurry.".to_owned() },
        Item::Opaque { provider: "elsewhere".to_owned(), value: json!({ "x": 1 }) },
        assistant("Done."),
        Item::Redacted,
    ];
    let sent = asked(plain(), items.clone()).body;
    let raw = r#""input":{ "path": "b", "n": 1.50, "a": [] }"#;
    assert!(String::from_utf8(sent).unwrap().contains(raw), "arguments go back as the model wrote them");
    let input = json!({ "path": "b", "n": 1.5, "a": [] });
    let expected = [
        json!({ "role": "user", "content": [
            said("<summary of=\"the conversation before\">\nThey met.\n</summary>"),
            said("<context_file path=\"AGENTS.md\">\nUse tabs.\n</context_file>"),
            said("Read both."),
        ] }),
        json!({ "role": "assistant", "content": [
            { "type": "thinking", "thinking": "Hm.", "signature": "sig" },
            said("I read."),
            { "type": "tool_use", "id": "c1", "name": "read", "input": input },
            { "type": "tool_use", "id": "c2", "name": "read", "input": {} },
        ] }),
        json!({ "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "c1", "content": "no such file", "is_error": true },
            { "type": "tool_result", "tool_use_id": "c2", "content": "result of c2" },
            said("<note from=\"longhaul\">\nHurry.\n</note>"),
        ] }),
        json!({ "role": "assistant", "content": [said("Done.")] }),
        json!({ "role": "user", "content": [said("[A part of the conversation was removed here.]")] }),
    ];
    assert_eq!(messages(items), expected);
}

#[test]
fn calls_without_a_result_and_results_without_a_call_are_made_good() {
    let all = messages(vec![user("Go."), answered("lost"), called("c1", ""), Item::Redacted, user("Well?")]);
    assert_eq!(all[0]["content"][1], said("<tool_result call=\"lost\">\nresult of lost\n</tool_result>"));
    let none = json!({ "type": "tool_result", "tool_use_id": "c1", "is_error": true,
        "content": "No result of this call is recorded." });
    assert_eq!(all[2]["content"][0], none);
    let silent = messages(vec![user("Go."), called("c1", "{}"), ended("c1", Outcome::NotRun, "")]);
    assert_eq!(silent[2]["content"][0]["content"], "The call was not run.");
    assert_eq!(silent[2]["content"][0]["is_error"], true);
}

#[test]
fn a_conversation_that_the_model_begins_is_opened_by_a_person() {
    let all = messages(vec![assistant("Hello."), user("Go.")]);
    assert_eq!(all[0]["content"], json!([said("[The conversation begins with an answer.]")]));
    assert_eq!(all[1]["content"], json!([said("Hello.")]));
}

#[test]
fn nothing_blank_is_sent_and_no_answer_ends_in_thinking() {
    let all = messages(vec![
        user("Go."),
        user(" \n"),
        signed("Hm."),
        assistant(""),
        assistant("\n\n"),
        user("Well?"),
    ]);
    assert_eq!(all, [json!({ "role": "user", "content": [said("Go."), said("Well?")] })]);
    let last = messages(vec![user("Go."), assistant("So far, \n")]);
    assert_eq!(last[1]["content"], json!([said("So far,")]));
    let later = messages(vec![user("Go."), assistant("So far, \n"), user("On.")]);
    assert_eq!(later[1]["content"], json!([said("So far, \n")]));
}

#[test]
fn arguments_that_are_no_object_are_sent_inside_one() {
    for (arguments, sent) in [
        ("  ", json!({})),
        ("path=/", json!({ "not_an_object": "path=/" })),
        ("[1]", json!({ "not_an_object": "[1]" })),
        (r#"{"a":"\ud800"}"#, json!({ "not_an_object": r#"{"a":"\ud800"}"# })),
    ] {
        let all = messages(vec![user("Go."), called("c1", arguments), answered("c1")]);
        assert_eq!(all[1]["content"][0]["input"], sent);
    }
}

#[test]
fn ids_that_the_api_refuses_are_replaced_by_the_same_one_everywhere() {
    let all = messages(vec![user("Go."), called("functions.read:0", "{}"), answered("functions.read:0")]);
    let id = all[1]["content"][0]["id"].as_str().unwrap();
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{id}");
    assert_eq!(all[2]["content"][0]["tool_use_id"], id);
}

#[test]
fn reasoning_goes_back_word_for_word_and_only_to_where_it_came_from() {
    let redacted = thought("", json!({ "type": "redacted_thinking", "data": "xyz" }));
    let unsigned = thought("Well.", json!({ "type": "thinking" }));
    let foreign = Item::Reasoning {
        text: "No.".to_owned(),
        opaque: Some(json!({ "api": "openai-chat", "host": HOST })),
    };
    let none = Item::Reasoning { text: "No.".to_owned(), opaque: None };
    let items = vec![user("Go."), signed(""), redacted, unsigned, foreign, none, assistant("Done.")];
    let sent = messages(items.clone());
    assert_eq!(
        sent[1]["content"],
        json!([
            { "type": "thinking", "thinking": "", "signature": "sig" },
            { "type": "redacted_thinking", "data": "xyz" },
            { "type": "thinking", "thinking": "Well." },
            said("Done."),
        ])
    );
    let bare = json!([said("Done.")]);
    let other = Options { cache: Cache::Off, ..Options::new("https://other.test", "m") };
    assert_eq!(body(other, items.clone())["messages"][1]["content"], bare);
    let silent = Options { replay_reasoning: false, ..plain() };
    assert_eq!(body(silent, items)["messages"][1]["content"], bare);
}

#[test]
fn what_the_provider_made_goes_back_in_its_place() {
    let cited = |text: &str, bytes: usize| {
        let value =
            json!({ "api": "anthropic", "host": HOST, "citations": [{ "index": "e" }], "bytes": bytes });
        [assistant(text), Item::Opaque { provider: HOST.to_owned(), value }]
    };
    let mut items = vec![user("Go."), search("s1"), found("s1")];
    items.extend(cited("Here it rains", 5));
    items.push(assistant("."));
    items.extend([called("c1", "{}"), answered("c1")]);
    items.extend(cited("Off the mark", 99));
    let all = messages(items);
    let wanted = json!([
        { "type": "server_tool_use", "id": "s1", "name": "web_search", "input": { "query": "news" } },
        { "type": "web_search_tool_result", "tool_use_id": "s1", "content": [] },
        said("Here it "),
        { "type": "text", "text": "rains", "citations": [{ "index": "e" }] },
        said("."),
        { "type": "tool_use", "id": "c1", "name": "read", "input": {} },
    ]);
    assert_eq!(all[1]["content"], wanted);
    assert_eq!(all[3]["content"], json!([said("Off the mark")]));
}

#[test]
fn calls_of_the_providers_tools_go_back_without_a_result_only_while_it_goes_on_with_them() {
    let kinds = |items: Vec<Item>| -> Vec<String> {
        let all = messages(items);
        let blocks = all
            .iter()
            .filter(|it| it["role"] == "assistant")
            .flat_map(|it| it["content"].as_array().unwrap());
        blocks.map(|block| block["type"].as_str().unwrap().to_owned()).collect()
    };
    let paused = vec![user("Go."), assistant("I look."), search("s1")];
    assert_eq!(kinds(paused.clone()), ["text", "server_tool_use"]);
    let beside = vec![user("Go."), search("s1"), called("c1", "{}"), answered("c1")];
    assert_eq!(kinds(beside.clone()), ["server_tool_use", "tool_use"]);
    let told = [paused.clone(), vec![user("Stop.")]].concat();
    assert_eq!(kinds(told), ["text"]);
    let went_on = [paused, vec![found("s1"), assistant("There.")]].concat();
    assert_eq!(kinds(went_on), ["text", "server_tool_use", "web_search_tool_result", "text"]);
    let later = [beside.clone(), vec![found("s1"), assistant("There.")]].concat();
    assert_eq!(kinds(later), ["server_tool_use", "tool_use", "web_search_tool_result", "text"]);
    let never = [beside, vec![assistant("There.")]].concat();
    assert_eq!(kinds(never), ["tool_use", "text"]);
    assert_eq!(kinds(vec![user("Go."), found("s1"), assistant("There.")]), ["text"]);
}

#[test]
fn a_call_keeps_what_the_provider_said_of_it() {
    let caller = json!({ "caller": { "type": "code_execution_20260120", "tool_id": "s1" } });
    let call = |host: &str| {
        let opaque = Some(from(host, "fields", caller.clone()));
        Item::ToolCall(ToolCall { id: "c1".into(), name: "read".into(), arguments: "{}".into(), opaque })
    };
    let sent = |host: &str| messages(vec![user("Go."), call(host), answered("c1")])[1]["content"][0].clone();
    assert_eq!(sent(HOST)["caller"]["tool_id"], "s1");
    assert_eq!(sent("other.test").get("caller"), None);
}

#[test]
fn a_container_is_named_while_its_turn_goes_on() {
    let container =
        Item::Opaque { provider: HOST.to_owned(), value: from(HOST, "container", json!("box_1")) };
    let turn = vec![user("Go."), called("c1", "{}"), container, answered("c1")];
    let sent = |items: &[Item]| body(plain(), items.to_vec()).get("container").cloned();
    assert_eq!(sent(&turn), Some(json!("box_1")));
    assert_eq!(sent(&[turn.clone(), vec![assistant("Done."), user("More.")]].concat()), None);
    assert_eq!(sent(&[turn.clone(), vec![user("More.")]].concat()), None);
    let mut own = plain();
    own.parameters.insert("container".to_owned(), json!("mine"));
    assert_eq!(body(own, turn)["container"], "mine");
}

#[test]
fn files_become_pictures_documents_or_a_note() {
    let items = [
        user("look"),
        file("image/png", "aGk="),
        file("application/pdf", "aGk="),
        file("text/csv", "YSxi"),
        file("application/json", "e30="),
        file("audio/mpeg", "//79"),
        file("image/tiff", "not base64"),
    ];
    let source = |media_type: &str| json!({ "type": "base64", "media_type": media_type, "data": "aGk=" });
    let text = |data: &str| json!({ "type": "text", "media_type": "text/plain", "data": data });
    assert_eq!(
        messages(items.to_vec())[0]["content"],
        json!([
            said("look"),
            { "type": "image", "source": source("image/png") },
            { "type": "document", "source": source("application/pdf"), "title": "it" },
            { "type": "document", "source": text("a,b"), "title": "it" },
            { "type": "document", "source": text("{}"), "title": "it" },
            said("[A file was here that this model cannot read: it, audio/mpeg]"),
            said("[A file was here that this model cannot read: it, image/tiff]"),
        ])
    );
}

#[test]
fn options_become_fields_and_parameters_override_them() {
    let sent = body(plain(), vec![user("Go.")]);
    assert_eq!(sent["max_tokens"], DEFAULT_MAX_OUTPUT_TOKENS);
    assert_eq!((&sent["stream"], &sent["system"]), (&json!(true), &json!("Be brief.")));
    let schema = json!({ "type": "object" });
    let mut options = Options {
        max_output_tokens: Some(500),
        temperature: Some(0.5),
        output: Some(OutputFormat { name: "it".to_owned(), schema: schema.clone() }),
        provider_tools: vec![json!({ "type": "web_search_20260318", "name": "web_search" })],
        ..plain()
    };
    let sent = body(options.clone(), vec![user("Go.")]);
    assert_eq!((&sent["max_tokens"], &sent["temperature"]), (&json!(500), &json!(0.5)));
    assert_eq!(sent["output_config"], json!({ "format": { "type": "json_schema", "schema": schema } }));
    assert_eq!(
        sent["tools"][0],
        json!({ "name": "read", "description": "Reads a file.",
        "input_schema": { "type": "object", "properties": { "path": { "type": "string" } } } })
    );
    assert_eq!(sent["tools"][1], options.provider_tools[0]);
    let parameters = json!({ "temperature": null, "stream": false, "thinking": { "type": "adaptive" },
        "output_config": { "effort": "low" } });
    options.parameters = parameters.as_object().unwrap().clone();
    let request = asked(options.clone(), vec![user("Go.")]);
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&sent["stream"], sent.get("temperature"), request.streamed), (&json!(false), None, false));
    assert_eq!(sent["thinking"], json!({ "type": "adaptive" }));
    assert_eq!(sent["output_config"]["effort"], "low");
    assert_eq!(sent["output_config"]["format"]["schema"], schema);
    options.parameters =
        Map::from_iter([("messages".to_owned(), json!([])), ("output_config".to_owned(), Value::Null)]);
    let sent: Value = serde_json::from_slice(&asked(options, vec![user("Go.")]).body).unwrap();
    assert_eq!((&sent["messages"], sent.get("output_config")), (&json!([]), None));
}

#[test]
fn the_url_is_made_from_any_way_to_write_the_base() {
    for (base, url) in [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/ ", "https://api.anthropic.com/v1/messages"),
        ("https://a.test/v1/messages", "https://a.test/v1/messages"),
        ("https://a.test/anthropic/", "https://a.test/anthropic/v1/messages"),
        ("https://a.test/api/v1?beta=true", "https://a.test/api/v1/messages?beta=true"),
    ] {
        assert_eq!(Codec::new(Options::new(base, "m")).request(&request(Vec::new())).url, url);
    }
}

#[test]
fn the_key_is_sent_in_one_header_and_nowhere_else() {
    let header = |asked: &HttpRequest, name: &str| {
        let found = asked.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.expose().to_owned())
    };
    let options = Options { key: Some(Secret::new("very-secret-key")), ..options() };
    let plain = asked(options.clone(), vec![user("Go.")]);
    assert_eq!(header(&plain, "x-api-key").as_deref(), Some("very-secret-key"));
    assert_eq!(header(&plain, "authorization"), None);
    assert_eq!(header(&plain, "anthropic-version").as_deref(), Some("2023-06-01"));
    assert!(!String::from_utf8(plain.body.clone()).unwrap().contains("very-secret"));
    assert!(!format!("{plain:?}").contains("very-secret"));
    let bearer = asked(Options { bearer: true, ..options }, vec![user("Go.")]);
    assert_eq!(header(&bearer, "authorization").as_deref(), Some("Bearer very-secret-key"));
    assert_eq!(header(&bearer, "x-api-key"), None);
}

#[test]
fn a_failure_names_the_request_and_the_option_to_change() {
    let failure = |text: &str| {
        let body = json!({ "type": "error", "error": { "type": "invalid_request_error", "message": text } });
        let headers = vec![("Request-Id".to_owned(), "req_7".to_owned())];
        Codec::new(options())
            .failure(&ResponseHead { status: 400, headers }, body.to_string().as_bytes())
            .message
    };
    assert!(failure("max_tokens: 32000 > 8192").contains("Set `max_output_tokens`"));
    assert!(failure("tools.0.cache_control: unknown field").contains("switch `cache` off"));
    assert_eq!(failure("no").as_str(), "the provider answered 400: no (request req_7)");
}

/// Where the markers are: the text before each.
fn markers(options: Options, items: Vec<Item>) -> Vec<String> {
    let body = body(options, items);
    let blocks = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut all = blocks(&body["system"]);
    all.extend(blocks(&body["messages"]).iter().flat_map(|message| blocks(&message["content"])));
    let marked = all.iter().filter(|block| block.get("cache_control").is_some());
    marked
        .map(|block| ["text", "content", "id"].iter().find_map(|key| block[key].as_str()).unwrap().to_owned())
        .collect()
}

#[test]
fn each_request_reads_from_the_cache_what_the_one_before_wrote() {
    let mut items = vec![user("Go.")];
    assert_eq!(markers(options(), items.clone()), ["Be brief.", "Go."]);
    items.extend([signed("Hm."), called("c1", "{}"), called("c2", "{}"), answered("c1"), answered("c2")]);
    assert_eq!(markers(options(), items.clone()), ["Be brief.", "Go.", "result of c2"]);
    items.extend([assistant("Next."), called("c3", "{}"), answered("c3"), user("Hurry.")]);
    assert_eq!(markers(options(), items.clone()), ["Be brief.", "result of c2", "Hurry."]);
    items.extend([assistant("I look."), search("s1")]);
    assert_eq!(markers(options(), items.clone()), ["Be brief.", "Hurry.", "I look."]);
    let hour = body(Options { cache: Cache::OneHour, ..options() }, items.clone());
    assert_eq!(hour["system"][0]["cache_control"], json!({ "type": "ephemeral", "ttl": "1h" }));
    assert_eq!(markers(plain(), items), [""; 0]);
    let silent = Request { system: String::new(), ..request(vec![user("Go.")]) };
    let sent: Value = serde_json::from_slice(&Codec::new(options()).request(&silent).body).unwrap();
    assert_eq!(sent["tools"][0]["cache_control"], json!({ "type": "ephemeral" }));
}

#[test]
fn a_conversation_that_goes_on_begins_with_the_same_bytes() {
    let mut items = vec![user("Go."), assistant("I read."), called("c1", "{}"), answered("c1")];
    for more in [vec![user("Hurry.")], vec![assistant("Next."), called("c2", "{}"), answered("c2")]] {
        let before = asked(plain(), items.clone()).body;
        items.extend(more);
        let after = asked(plain(), items.clone()).body;
        let shared = before.len() - b"]}]}".len();
        assert_eq!(before[..shared], after[..shared]);
    }
}

fn any_item() -> impl Strategy<Value = Item> {
    let id = prop_oneof![Just("c1"), Just("c2"), Just("c 3"), Just("")];
    let served = prop_oneof![Just("s1"), Just("s2")];
    let text = "[a-z\"<>äß\n ]{0,6}";
    let cited = (prop_oneof![Just(HOST), Just("other.test")], 0..4_usize).prop_map(|(host, bytes)| {
        let value = json!({ "api": "anthropic", "host": host, "citations": [1], "bytes": bytes });
        Item::Opaque { provider: host.to_owned(), value }
    });
    prop_oneof![
        2 => text.prop_map(|text| user(&text)),
        2 => text.prop_map(|text| assistant(&text)),
        1 => text.prop_map(|text| signed(&text)),
        1 => text.prop_map(|text| Item::Reasoning { text, opaque: Some(json!("of somebody else")) }),
        2 => (id.clone(), "[{}a\"]{0,3}").prop_map(|(id, arguments)| called(id, &arguments)),
        2 => id.prop_map(|id| result(&CallId(id.to_owned()), "output")),
        1 => text.prop_map(|text| Item::Steering { reason: SteeringReason::Continuation, text }),
        1 => Just(Item::Redacted),
        1 => Just(file("image/png", "aGk=")),
        1 => served.clone().prop_map(search),
        1 => served.prop_map(found),
        2 => cited,
    ]
}

/// Leaves one call of each id, as a session does.
fn once(items: Vec<Item>) -> Vec<Item> {
    let mut seen: Vec<String> = Vec::new();
    let served = |item: &Item| {
        if let Item::Opaque { value, .. } = item {
            value.pointer("/block/id").map(Value::to_string)
        } else {
            None
        }
    };
    let name = |item: &Item| item.tool_call().map(|call| call.id.0.clone()).or_else(|| served(item));
    items
        .into_iter()
        .filter(|item| match name(item) {
            Some(name) if seen.contains(&name) => false,
            Some(name) => {
                seen.push(name);
                true
            }
            None => true,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Sessions keep their items in order; a request must be valid even where one did not.
    #[test]
    fn any_items_become_a_valid_request(items in prop::collection::vec(any_item(), 0..16)) {
        let sent: Value = serde_json::from_slice(&asked(options(), once(items)).body).unwrap();
        prop_assert_eq!(validate(&sent), Ok(()));
    }

    /// What was written before is kept, also beside other conversations and through forks of one.
    #[test]
    fn a_request_that_goes_on_from_another_is_as_if_written_at_once(
        items in prop::collection::vec(any_item(), 0..16),
        others in prop::collection::vec(any_item(), 0..5),
        fork in 0..16_usize,
    ) {
        let (codec, whole) = (Codec::new(options()), request(items));
        let part = |end: usize| Request { items: whole.items[..end].to_vec(), ..whole.clone() };
        for end in 0..=whole.items.len() {
            prop_assert_eq!(codec.request(&part(end)).body, Codec::new(options()).request(&part(end)).body);
        }
        let mut forked = part(fork.min(whole.items.len()));
        forked.items.extend(request(others).items);
        for asked in [&forked, &whole] {
            prop_assert_eq!(codec.request(asked).body, Codec::new(options()).request(asked).body);
        }
    }
}
