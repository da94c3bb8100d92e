//! The bodies that conversations become, held against a strict reading of the API.

use std::sync::Arc;

use longhaul_model::codec::Codec as _;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_model::{Part, Secret};
use longhaul_session::agent::{Request, ToolSpec};
use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::steering::SteeringReason;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{assistant, collect, decoded, result, user};

const URL: &str = "https://provider.test/v1";

fn options() -> Options {
    Options::new(URL, "test-model")
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

fn bytes(options: Options, items: Vec<Item>) -> Vec<u8> {
    Codec::new(options).request(&request(items)).body
}

fn body(options: Options, items: Vec<Item>) -> Value {
    let body = serde_json::from_slice(&bytes(options, items)).unwrap();
    validate(&body).unwrap_or_else(|why| panic!("{why}: {body:#}"));
    body
}

fn messages(items: Vec<Item>) -> Vec<Value> {
    body(options(), items)["messages"].as_array().unwrap().clone()
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

/// Checks what the API demands: known fields of the right types, known roles, results directly
/// after their calls, one for each, and here also that people and models take turns.
fn validate(body: &Value) -> Result<(), String> {
    let messages = body["messages"].as_array().ok_or("no messages")?;
    body["model"].as_str().ok_or("no model")?;
    for tool in body["tools"].as_array().into_iter().flatten() {
        let named = tool["type"] == "function" && tool["function"]["name"].is_string();
        if !named || !tool["function"]["parameters"].is_object() {
            return Err(format!("a bad tool: {tool}"));
        }
    }
    let mut open: Vec<&str> = Vec::new();
    let mut before = "";
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().ok_or("no role")?;
        let says = message["content"].as_str().is_some_and(|text| !text.is_empty());
        if role != "tool" && !open.is_empty() {
            return Err(format!("message {at}: calls {open:?} are not answered"));
        }
        match role {
            "system" if at == 0 && says => {}
            "user" if says && before != "user" => {}
            "assistant" if before != "assistant" => open = validate_answer(message)?,
            "tool" if says => {
                let id = message["tool_call_id"].as_str().ok_or("a result without a call")?;
                let found = open.iter().position(|it| *it == id);
                open.remove(found.ok_or_else(|| format!("message {at}: nobody called {id}"))?);
            }
            _ => return Err(format!("message {at} is not allowed here: {message}")),
        }
        before = role;
    }
    if open.is_empty() { Ok(()) } else { Err(format!("calls {open:?} are not answered at the end")) }
}

fn validate_answer(message: &Value) -> Result<Vec<&str>, String> {
    let calls = message.get("tool_calls").map_or(Ok(&[][..]), |calls| {
        calls.as_array().filter(|calls| !calls.is_empty()).map(Vec::as_slice).ok_or("tool_calls is empty")
    })?;
    let text = message["content"].as_str();
    if text == Some("") || text.is_none() && calls.is_empty() {
        return Err(format!("an empty answer: {message}"));
    }
    let mut ids = Vec::new();
    for call in calls {
        let id = call["id"].as_str().filter(|id| (1..=40).contains(&id.len())).ok_or("a bad id")?;
        let arguments = call["function"]["arguments"].as_str().ok_or("arguments are no string")?;
        let object = serde_json::from_str::<Value>(arguments).is_ok_and(|it| it.is_object());
        if !object || call["type"] != "function" || !call["function"]["name"].is_string() || ids.contains(&id)
        {
            return Err(format!("a bad call: {call}"));
        }
        ids.push(id);
    }
    Ok(ids)
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
        Item::Reasoning { text: "Hm.".to_owned(), opaque: None },
        assistant("I read."),
        called("c1", r#"{"path": "a"}"#),
        called("c2", "{}"),
        answered("c2"),
        answered("c1"),
        Item::Steering { reason: SteeringReason::Hook, text: "Hurry.".to_owned() },
        Item::Opaque { provider: "elsewhere".to_owned(), value: json!({ "x": 1 }) },
        assistant("Done."),
        Item::Redacted,
    ];
    let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "read", "arguments": arguments } });
    let expected = [
        json!({ "role": "system", "content": "Be brief." }),
        json!({ "role": "user", "content": "<summary of=\"the conversation before\">\nThey met.\n</summary>\n\n\
            <context_file path=\"AGENTS.md\">\nUse tabs.\n</context_file>\n\nRead both." }),
        json!({ "role": "assistant", "content": "I read.",
            "tool_calls": [call("c1", r#"{"path": "a"}"#), call("c2", "{}")] }),
        json!({ "role": "tool", "tool_call_id": "c1", "content": "result of c1" }),
        json!({ "role": "tool", "tool_call_id": "c2", "content": "result of c2" }),
        json!({ "role": "user", "content": "<note from=\"longhaul\">\nHurry.\n</note>" }),
        json!({ "role": "assistant", "content": "Done." }),
        json!({ "role": "user", "content": "[A part of the conversation was removed here.]" }),
    ];
    assert_eq!(messages(items), expected);
}

#[test]
fn calls_without_a_result_and_results_without_a_call_are_made_good() {
    let all = messages(vec![user("Go."), answered("lost"), called("c1", ""), Item::Redacted, user("Well?")]);
    assert_eq!(all[1]["content"], "Go.\n\n<tool_result call=\"lost\">\nresult of lost\n</tool_result>");
    assert_eq!(all[2]["content"], Value::Null);
    assert_eq!(all[3]["content"], "No result of this call is recorded.");
}

#[test]
fn a_result_without_output_says_how_the_call_ended() {
    let silent = Item::ToolResult(ToolResult {
        call: "c1".into(),
        outcome: Outcome::NotRun,
        output: String::new(),
        files: Vec::new(),
        artifact: None,
    });
    let all = messages(vec![user("Go."), called("c1", "{}"), silent]);
    assert_eq!(all[3]["content"], "The call was not run.");
}

#[test]
fn arguments_that_are_no_object_are_sent_inside_one() {
    for (arguments, sent) in [
        (r#"{ "path" : 1 }"#, r#"{ "path" : 1 }"#),
        ("  ", "{}"),
        ("path=/", r#"{"not_an_object":"path=/"}"#),
        ("[1]", r#"{"not_an_object":"[1]"}"#),
    ] {
        let all = messages(vec![user("Go."), called("c1", arguments), answered("c1")]);
        assert_eq!(all[2]["tool_calls"][0]["function"]["arguments"], sent);
    }
}

#[test]
fn ids_that_servers_refuse_are_replaced_by_the_same_one_everywhere() {
    let id = "fc_".to_owned() + &"x".repeat(60);
    let all =
        messages(vec![user("Go."), called(&id, "{}"), called("a b", "{}"), answered(&id), answered("a b")]);
    assert_eq!(all[2]["tool_calls"][0]["id"], all[3]["tool_call_id"]);
    assert_eq!(all[2]["tool_calls"][1]["id"], all[4]["tool_call_id"]);
    assert_ne!(all[3]["tool_call_id"], all[4]["tool_call_id"]);
}

#[test]
fn an_id_goes_back_as_it_came_to_the_server_that_gave_it() {
    let id = "functions.read:0";
    let signed = format!("call_1__thought__{}==", "Ab+/".repeat(30));
    let call = |id: &str| json!({ "id": id, "function": { "name": "read", "arguments": "{}" } });
    let message = json!({ "tool_calls": [call(id), call(&signed)] });
    let answer = json!({ "choices": [{ "message": message, "finish_reason": "tool_calls" }] });
    let mut items = vec![user("Go.")];
    items.extend(decoded(&Codec::new(options()), &answer.to_string()));
    items.extend([answered(id), answered(&signed)]);
    let ids = |url: &str| {
        let asked = Codec::new(Options::new(url, "m")).request(&request(items.clone()));
        let sent: Value = serde_json::from_slice(&asked.body).unwrap();
        let all = sent["messages"].as_array().unwrap().clone();
        let called = all[2]["tool_calls"].as_array().unwrap().iter().map(|call| call["id"].clone());
        let answered = all[3..].iter().map(|message| message["tool_call_id"].clone());
        assert!(called.clone().eq(answered), "{all:?}");
        called.map(|id| id.as_str().unwrap().to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(ids(URL), [id, &signed]);
    let elsewhere = ids("https://other.test/v1");
    assert!(elsewhere.iter().all(|id| id.starts_with("call_") && id.len() < 40), "{elsewhere:?}");
    let strict = ids("https://api.mistral.ai/v1");
    assert!(strict.iter().all(|id| id.len() == 9 && id.bytes().all(|it| it.is_ascii_alphanumeric())));
    assert_ne!(strict[0], strict[1]);
}

#[test]
fn a_server_gets_what_it_is_known_to_take() {
    let sent = |url: &str| {
        let options =
            Options { base_url: url.to_owned(), max_output_tokens: Some(500), ..Options::new(url, "m") };
        let items = vec![user("Go."), called("c2345678x", "{}"), answered("c2345678x")];
        serde_json::from_slice::<Value>(&Codec::new(options).request(&request(items)).body).unwrap()
    };
    for (url, limit) in [
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://x.cognitiveservices.azure.com/openai/v1", "max_completion_tokens"),
        ("https://notapi.openai.com.test/v1", "max_tokens"),
        ("http://localhost:8080/v1", "max_tokens"),
    ] {
        assert_eq!(sent(url)[limit], 500, "{url}");
    }
    for (url, takes) in [
        ("https://api.mistral.ai/v1", false),
        ("https://api.cohere.ai/compatibility/v1", false),
        ("https://x.cloud.databricks.com/serving-endpoints", false),
        ("https://adb-1.2.azuredatabricks.net/serving-endpoints", false),
        ("https://api.groq.com/openai/v1", true),
        ("http://localhost:11434/v1", true),
    ] {
        assert_eq!(sent(url).get("stream_options").is_some(), takes, "{url}");
    }
    let content = |url: &str| sent(url)["messages"][2]["content"].clone();
    assert_eq!(content("https://api.cloudflare.com/client/v4/accounts/a/ai/v1"), "");
    assert_eq!(content("http://localhost:8080/v1"), Value::Null);
    assert_eq!(sent("https://api.mistral.ai/v1")["messages"][3]["tool_call_id"], "c2345678x");
}

#[test]
fn an_answer_without_reasoning_gets_a_blank_one_where_servers_insist() {
    for (url, replay_reasoning, reasoning) in [
        ("https://api.deepseek.com/v1", true, Some(" ")),
        ("https://api.moonshot.ai/v1", true, Some(" ")),
        ("https://api.moonshot.ai/v1", false, None),
        ("https://token-plan-eu.xiaomimimo.com/v1", true, Some(" ")),
        (URL, true, None),
    ] {
        let options = Options { replay_reasoning, ..Options::new(url, "m") };
        let opaque =
            json!({ "api": "openai-chat", "host": "api.deepseek.com", "field": "reasoning_content" });
        let thought = Item::Reasoning { text: "Hm.".to_owned(), opaque: Some(opaque) };
        let items = vec![user("Go."), called("c1", "{}"), answered("c1"), thought, assistant("Done.")];
        let sent = body(options, items)["messages"].clone();
        assert_eq!(sent[2]["reasoning_content"].as_str(), reasoning, "{url}");
        let said = if url.contains("deepseek") { Some("Hm.") } else { reasoning };
        assert_eq!(sent[4]["reasoning_content"].as_str(), said, "{url}");
    }
}

#[test]
fn reasoning_goes_back_only_in_the_form_and_to_the_server_it_came_from() {
    let stream = |deltas: &[Value]| {
        let mut decoder = Codec::new(options()).decoder();
        let mut parts: Vec<Part> = Vec::new();
        for delta in deltas.iter().chain([&json!({ "content": "Done" })]) {
            let chunk = json!({ "choices": [{ "delta": delta }] });
            decoder.push(format!("data: {chunk}\n\n").as_bytes(), &mut parts).unwrap();
        }
        let end = json!({ "choices": [{ "finish_reason": "stop" }] });
        decoder.push(format!("data: {end}\n\n").as_bytes(), &mut parts).unwrap();
        decoder.finish(&mut parts).unwrap();
        let mut items = vec![user("Go.")];
        items.extend(collect(parts).unwrap().items);
        items
    };
    let plain = stream(&[json!({ "reasoning_content": "Let " }), json!({ "reasoning_content": "me." })]);
    assert_eq!(messages(plain.clone())[2]["reasoning_content"], "Let me.");
    let other = |items| body(Options::new("https://other.test/v1", "m"), items)["messages"][2].clone();
    assert_eq!(other(plain.clone()), json!({ "role": "assistant", "content": "Done" }));
    let silent = body(Options { replay_reasoning: false, ..options() }, plain);
    assert_eq!(silent["messages"][2], json!({ "role": "assistant", "content": "Done" }));
    let detail = |more: Value| {
        let mut detail = json!({ "type": "reasoning.text", "index": 0 });
        detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "reasoning_details": [detail] })
    };
    let signed = stream(&[
        detail(json!({ "text": "Let " })),
        detail(json!({ "text": "me." })),
        detail(json!({ "signature": "abc" })),
        detail(json!({ "signature": null })),
        detail(json!({ "text": "More." })),
        detail(json!({ "text": "Last.", "index": 1 })),
    ]);
    let sent = messages(signed)[2].clone();
    let whole = json!({ "type": "reasoning.text", "index": 0, "text": "Let me.", "signature": "abc" });
    let more = json!({ "type": "reasoning.text", "index": 0, "text": "More." });
    let last = json!({ "type": "reasoning.text", "index": 1, "text": "Last." });
    assert_eq!(sent["reasoning_details"], json!([whole, more, last]));
    assert_eq!(sent.get("reasoning"), None);
}

#[test]
fn what_a_provider_signed_a_call_with_goes_back_with_it() {
    let mut call = ToolCall {
        id: "c1".into(),
        name: "read".to_owned(),
        arguments: "{}".to_owned(),
        opaque: Some(json!({ "api": "openai-chat", "host": "provider.test", "extra_content": { "s": 1 } })),
    };
    let all = messages(vec![user("Go."), Item::ToolCall(call.clone()), answered("c1")]);
    assert_eq!(all[2]["tool_calls"][0]["extra_content"], json!({ "s": 1 }));
    call.opaque.as_mut().unwrap()["host"] = json!("other.test");
    let all = messages(vec![user("Go."), Item::ToolCall(call), answered("c1")]);
    assert_eq!(all[2]["tool_calls"][0].get("extra_content"), None);
}

#[test]
fn options_become_fields_and_parameters_override_them() {
    let mut options = Options { max_output_tokens: Some(500), temperature: Some(0.5), ..options() };
    let sent = body(options.clone(), vec![user("Go.")]);
    assert_eq!(
        (&sent["stream"], &sent["max_tokens"], &sent["temperature"]),
        (&json!(true), &json!(500), &json!(0.5))
    );
    assert_eq!(sent["stream_options"], json!({ "include_usage": true }));
    assert_eq!(sent["tools"][0]["function"]["name"], "read");
    let parameters = json!({ "temperature": 1, "stream": false, "stream_options": null, "seed": 7 });
    options.parameters = parameters.as_object().unwrap().clone();
    let asked = Codec::new(options.clone()).request(&request(vec![user("Go.")]));
    let sent: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((&sent["stream"], &sent["temperature"], &sent["seed"]), (&json!(false), &json!(1), &json!(7)));
    assert_eq!(sent.get("stream_options"), None);
    assert!(!asked.streamed);
    let openai = Options { base_url: "https://api.openai.com/v1".to_owned(), ..options.clone() };
    assert_eq!(body(openai, vec![user("Go.")])["max_completion_tokens"], 500);
    let quiet = Options { include_usage: false, parameters: Default::default(), ..options };
    assert_eq!(body(quiet, vec![user("Go.")]).get("stream_options"), None);
}

#[test]
fn the_url_is_made_from_any_way_to_write_the_base() {
    for (base, url) in [
        ("http://localhost:8080/v1", "http://localhost:8080/v1/chat/completions"),
        ("http://localhost:8080/v1/ ", "http://localhost:8080/v1/chat/completions"),
        ("https://a.test/v1/chat/completions", "https://a.test/v1/chat/completions"),
        ("https://a.test/openai/m?api-version=1", "https://a.test/openai/m/chat/completions?api-version=1"),
    ] {
        assert_eq!(Codec::new(Options::new(base, "m")).request(&request(Vec::new())).url, url);
    }
}

#[test]
fn the_key_is_sent_in_a_header_and_nowhere_else() {
    let options = Options { key: Some(Secret::new("very-secret-key")), ..options() };
    let asked = Codec::new(options).request(&request(vec![user("Go.")]));
    let header = asked.headers.iter().find(|(name, _)| name == "authorization").unwrap();
    assert_eq!(header.1.expose(), "Bearer very-secret-key");
    assert!(!String::from_utf8(asked.body.clone()).unwrap().contains("very-secret"));
    assert!(!format!("{asked:?}").contains("very-secret"));
}

#[test]
fn a_conversation_that_goes_on_begins_with_the_same_bytes() {
    let mut items = vec![user("Go."), assistant("I read."), called("c1", "{}"), answered("c1")];
    let before = bytes(options(), items.clone());
    items.extend([assistant("Next."), called("c2", "{}"), answered("c2")]);
    let after = bytes(options(), items);
    let shared = before.len() - b"]}".len();
    assert_eq!(before[..shared], after[..shared]);
}

fn any_item() -> impl Strategy<Value = Item> {
    let id = prop_oneof![Just("c1"), Just("c2"), Just("c 3"), Just("")];
    let text = "[a-z\"<>äß\n]{1,8}";
    let opaque = prop_oneof![
        Just(None),
        Just(Some(json!({ "api": "openai-chat", "host": "provider.test", "field": "reasoning" }))),
        Just(Some(json!("signature of somebody else"))),
    ];
    prop_oneof![
        text.prop_map(|text| user(&text)),
        "[a-z]{0,4}".prop_map(|text| assistant(&text)),
        (text, opaque).prop_map(|(text, opaque)| Item::Reasoning { text, opaque }),
        (id.clone(), "[{}a\"]{0,3}").prop_map(|(id, arguments)| called(id, &arguments)),
        id.prop_map(|id| result(&CallId(id.to_owned()), "output")),
        text.prop_map(|text| Item::Steering { reason: SteeringReason::Continuation, text }),
        Just(Item::Redacted),
        Just(Item::Opaque { provider: "x".to_owned(), value: json!({}) }),
    ]
}

proptest! {
    /// Sessions keep their items in order; a request must be valid even where one did not.
    #[test]
    fn any_items_become_a_valid_request(items in prop::collection::vec(any_item(), 0..14)) {
        let mut seen: Vec<CallId> = Vec::new();
        let once = items.into_iter().filter(|item| match item.tool_call() {
            Some(call) if seen.contains(&call.id) => false,
            Some(call) => { seen.push(call.id.clone()); true }
            None => true,
        });
        let sent: Value = serde_json::from_slice(&bytes(options(), once.collect())).unwrap();
        prop_assert_eq!(validate(&sent), Ok(()));
    }

    /// What was written before is kept, also beside other conversations and through forks of one.
    #[test]
    fn a_request_that_goes_on_from_another_is_as_if_written_at_once(
        items in prop::collection::vec(any_item(), 0..14),
        others in prop::collection::vec(any_item(), 0..5),
        fork in 0..14_usize,
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

#[test]
fn files_stand_beside_the_words_they_came_with() {
    let file = |media_type: &str| Item::File {
        name: Some("it".to_owned()),
        media_type: media_type.to_owned(),
        data: "aGk=".to_owned(),
    };
    let items = [user("look"), file("image/png"), file("application/pdf"), file("audio/mpeg"), user("now")];
    let body: Value = serde_json::from_slice(&bytes(options(), items.to_vec())).unwrap();
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            { "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } },
            { "type": "file", "file": { "filename": "it", "file_data": "data:application/pdf;base64,aGk=" } },
            { "type": "input_audio", "input_audio": { "data": "aGk=", "format": "mp3" } },
            { "type": "text", "text": "now" },
        ])
    );
}
