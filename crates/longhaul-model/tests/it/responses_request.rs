//! The bodies that conversations become on the Responses wire, held against a strict reading of the API.

use std::sync::Arc;

use longhaul_model::codec::{Codec as _, Method, ResponseHead};
use longhaul_model::openai_responses::{Codec, Options};
use longhaul_model::{Part, Secret};
use longhaul_session::agent::{OutputFormat, Previous, Request, ToolSpec};
use longhaul_session::failure::FailureClass;
use longhaul_session::id::CallId;
use longhaul_session::item::{EffectClass, Item, ToolCall};
use longhaul_session::steering::SteeringReason;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{assistant, collect, result, user};

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
            input_schema: json!({ "type": "object" }),
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
    serde_json::from_slice(&bytes(options, items)).unwrap()
}

fn input(items: Vec<Item>) -> Value {
    body(options(), items)["input"].take()
}

fn called(id: &str, arguments: &str) -> Item {
    let (name, arguments) = ("read".to_owned(), arguments.to_owned());
    Item::ToolCall(ToolCall { id: id.into(), name, arguments, opaque: None })
}

fn answered(id: &str) -> Item {
    result(&id.into(), &format!("result of {id}"))
}

fn message(role: &str, text: &str) -> Value {
    json!({ "type": "message", "role": role, "content": text })
}

fn wire_call(id: &str) -> Value {
    json!({ "type": "function_call", "call_id": id, "name": "read", "arguments": "{}" })
}

fn wire_result(id: &str, output: &str) -> Value {
    json!({ "type": "function_call_output", "call_id": id, "output": output })
}

/// Decodes an answer as a document and returns its items.
fn decoded(options: Options, output: Value) -> Vec<Item> {
    let mut decoder = Codec::new(options).decoder();
    let mut parts: Vec<Part> = Vec::new();
    let answer = json!({ "id": "resp_1", "status": "completed", "output": output });
    decoder.push(answer.to_string().as_bytes(), &mut parts).unwrap();
    decoder.finish(&mut parts).unwrap();
    collect(parts).unwrap().items
}

/// Each call has exactly one result, behind it; roles and kinds are known; nothing is empty.
fn validate(input: &[Value]) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut before = "";
    for (at, item) in input.iter().enumerate() {
        let wrong = |why: &str| Err(format!("item {at} {why}: {item}"));
        let kind = item["type"].as_str().unwrap_or_default();
        match kind {
            "function_call" => open.push(item["call_id"].as_str().ok_or("no id")?),
            "function_call_output" => {
                let id = item["call_id"].as_str().ok_or("no id")?;
                match open.iter().position(|it| *it == id) {
                    Some(found) if !item["output"].as_str().unwrap_or_default().is_empty() => {
                        open.remove(found)
                    }
                    Some(_) | None => return wrong("answers nobody, or with nothing"),
                };
            }
            "message" => {
                let said = item["content"].as_str().is_some_and(|text| !text.is_empty());
                if !said && !item["content"].is_array() {
                    return wrong("is empty");
                }
                if item["role"] == "user" && !open.is_empty() {
                    return wrong("comes before a result");
                }
                if item["role"] == "user" && before == "reasoning" {
                    return wrong("follows reasoning");
                }
            }
            "reasoning" if item["summary"].is_array() => {}
            "web_search_call" => {}
            _ => return wrong("is not allowed"),
        }
        before = kind;
    }
    let whole = open.is_empty() && before != "reasoning";
    if whole { Ok(()) } else { Err(format!("it ends with {before}, and {open:?} are not answered")) }
}

#[test]
fn a_conversation_becomes_input_in_its_order() {
    let items = vec![
        Item::Summary { text: "They met.".to_owned() },
        user("Read both."),
        assistant("I read."),
        called("c1", ""),
        called("c2", "{}"),
        answered("c2"),
        answered("c1"),
        Item::Steering { reason: SteeringReason::Hook, text: "Hurry.".to_owned() },
        assistant("Done."),
        Item::Redacted,
    ];
    let expected = json!([
        message("user", "<summary of=\"the conversation before\">\nThey met.\n</summary>"),
        message("user", "Read both."),
        message("assistant", "I read."),
        wire_call("c1"),
        wire_call("c2"),
        wire_result("c1", "result of c1"),
        wire_result("c2", "result of c2"),
        message("user", "<note from=\"longhaul\">\nHurry.\n</note>"),
        message("assistant", "Done."),
        message("user", "[A part of the conversation was removed here.]"),
    ]);
    assert_eq!(input(items), expected);
}

#[test]
fn nothing_is_kept_at_the_provider_and_reasoning_is_asked_for_in_its_encrypted_form() {
    let sent = body(options(), vec![user("Go.")]);
    let expected = json!({
        "model": "test-model", "stream": true, "store": false, "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief.",
        "tools": [{ "type": "function", "name": "read", "description": "Reads a file.", "strict": false,
            "parameters": { "type": "object" } }],
        "input": [message("user", "Go.")],
    });
    assert_eq!(sent, expected);
    for model in ["gpt-4o", "openai/gpt-4.1-mini", "ft:gpt-4o:x", "gpt-5-chat-latest", "chatgpt-4o-latest"] {
        assert_eq!(body(Options::new(URL, model), Vec::new()).get("include"), None, "{model}");
    }
    for model in ["gpt-5", "o3", "my-deployment", "gpt-5-codex", "x/gpt-oss-120b"] {
        assert!(body(Options::new(URL, model), Vec::new())["include"].is_array(), "{model}");
    }
}

#[test]
fn options_become_fields_and_parameters_override_them() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
        "additionalProperties": false });
    let search = json!({ "type": "web_search", "user_location": null });
    let mut options = Options {
        max_output_tokens: Some(500),
        temperature: Some(0.5),
        provider_tools: vec![search.clone()],
        output: Some(OutputFormat { name: "answer".to_owned(), schema: schema.clone() }),
        ..options()
    };
    let sent = body(options.clone(), vec![user("Go.")]);
    assert_eq!((&sent["max_output_tokens"], &sent["temperature"]), (&json!(500), &json!(0.5)));
    assert_eq!(sent["tools"][1], search);
    let format = json!({ "type": "json_schema", "name": "answer", "schema": schema, "strict": true });
    assert_eq!(sent["text"], json!({ "format": format }));
    let loose = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    options.output = Some(OutputFormat { name: "answer".to_owned(), schema: loose });
    assert_eq!(body(options.clone(), Vec::new())["text"]["format"]["strict"], false);
    let parameters = json!({ "temperature": 1, "stream": false, "include": null, "store": true, "seed": 7 });
    options.parameters = parameters.as_object().unwrap().clone();
    let asked = Codec::new(options).request(&request(vec![user("Go.")]));
    let sent: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((&sent["temperature"], &sent["store"], &sent["seed"]), (&json!(1), &json!(true), &json!(7)));
    assert_eq!((sent.get("include"), asked.streamed), (None, false));
}

#[test]
fn reasoning_goes_back_word_for_word_where_it_came_from_without_the_id_that_would_be_looked_up() {
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "Hm." }],
        "encrypted_content": "ZW5j", "format": "x", "status": null });
    let call = json!({ "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "read",
        "arguments": "{}", "status": "completed", "namespace": "files" });
    let mut items = vec![user("Go.")];
    items.extend(decoded(options(), json!([thought, call])));
    items.push(answered("c1"));
    let mut sent_thought = thought.clone();
    sent_thought.as_object_mut().unwrap().retain(|field, _| field != "id" && field != "status");
    let mut sent_call = wire_call("c1");
    sent_call["namespace"] = json!("files");
    let expected = json!([sent_thought, sent_call, wire_result("c1", "result of c1")]);
    let sent = |options: Options| json!(body(options, items.clone())["input"].as_array().unwrap()[1..]);
    assert_eq!(sent(options()), expected);
    assert_eq!(sent(Options { item_ids: true, ..options() })[0]["id"], "rs_1");
    let plain = json!([wire_call("c1"), wire_result("c1", "result of c1")]);
    assert_eq!(sent(Options::new("https://other.test/v1", "m")), plain);
    let silent = sent(Options { replay_reasoning: false, ..options() });
    assert_eq!((silent.as_array().unwrap().len(), &silent[0]), (2, &sent_call));
}

#[test]
fn open_reasoning_keeps_its_id_and_reasoning_that_led_to_nothing_stays_out() {
    let open = json!({ "type": "reasoning", "id": "rs_1",
        "content": [{ "type": "reasoning_text", "text": "Hm." }] });
    let said = json!({ "type": "message", "content": [{ "type": "output_text", "text": "Hi." }] });
    let items = |output| [vec![user("Go.")], decoded(options(), output), vec![user("Well?")]].concat();
    let sent = input(items(json!([open, said])));
    assert_eq!(
        (&sent[1]["id"], &sent[1]["summary"], &sent[2]),
        (&json!("rs_1"), &json!([]), &message("assistant", "Hi."))
    );
    assert_eq!(input(items(json!([said, open]))).as_array().unwrap().len(), 3);
}

#[test]
fn reasoning_whose_encrypted_form_came_last_stands_where_it_was_thought() {
    let mut decoder = Codec::new(options()).decoder();
    let mut parts: Vec<Part> = Vec::new();
    let said =
        json!({ "type": "message", "id": "msg_1", "content": [{ "type": "output_text", "text": "Hi." }] });
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [] });
    let mut whole = thought.clone();
    whole["encrypted_content"] = json!("bGF0ZQ==");
    for event in [
        json!({ "type": "response.output_item.done", "output_index": 0, "item": thought }),
        json!({ "type": "response.output_item.done", "output_index": 1, "item": said }),
        json!({ "type": "response.completed", "response": { "output": [whole, said] } }),
    ] {
        decoder.push(format!("data: {event}\n\n").as_bytes(), &mut parts).unwrap();
    }
    let mut items = vec![user("Go.")];
    items.extend(collect(parts).unwrap().items);
    let sent = input(items);
    assert_eq!((&sent[1]["encrypted_content"], &sent[2]), (&json!("bGF0ZQ=="), &message("assistant", "Hi.")));
}

#[test]
fn items_of_the_provider_go_back_word_for_word_and_in_their_place() {
    let search =
        json!({ "type": "web_search_call", "id": "ws_1", "status": "completed", "action": { "x": null } });
    let text =
        |text: &str| json!({ "type": "message", "content": [{ "type": "output_text", "text": text }] });
    let items = decoded(options(), json!([text("One."), search, text("Two.")]));
    let expected = json!([message("assistant", "One."), search, message("assistant", "Two.")]);
    assert_eq!(input(items.clone()), expected);
    let elsewhere = body(Options::new("https://other.test/v1", "m"), items);
    assert_eq!(elsewhere["input"], json!([message("assistant", "One."), message("assistant", "Two.")]));
}

#[test]
fn a_call_of_a_tool_that_takes_a_text_is_answered_as_such() {
    let call = json!({ "type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "shell", "input": "ls -l" });
    let mut items = decoded(options(), json!([call]));
    items.push(answered("c1"));
    let wire = json!({ "type": "custom_tool_call", "call_id": "c1", "name": "shell", "input": "ls -l" });
    let output = json!({ "type": "custom_tool_call_output", "call_id": "c1", "output": "result of c1" });
    assert_eq!(input(items.clone()), json!([wire, output]));
    let elsewhere = body(Options::new("https://other.test/v1", "m"), items)["input"][0].clone();
    assert_eq!(
        (&elsewhere["type"], &elsewhere["arguments"]),
        (&json!("function_call"), &json!("{\"not_an_object\":\"ls -l\"}"))
    );
}

#[test]
fn files_stand_beside_the_words_they_came_with() {
    let file = |media_type: &str| Item::File {
        name: Some("it".to_owned()),
        media_type: media_type.to_owned(),
        data: "aGk=".to_owned(),
    };
    let sent = input(vec![user("look"), file("image/png"), file("application/pdf"), user("now")]);
    let content = json!([
        { "type": "input_text", "text": "look" },
        { "type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto" },
        { "type": "input_file", "filename": "it", "file_data": "data:application/pdf;base64,aGk=" },
    ]);
    let first = json!({ "type": "message", "role": "user", "content": content });
    assert_eq!(sent, json!([first, message("user", "now")]));
    assert_eq!(input(vec![file("image/png")])[0]["content"].as_array().unwrap().len(), 1);
}

#[test]
fn a_chain_sends_only_what_the_provider_has_not() {
    let chain = Options { chain: true, ..options() };
    let id = "fc_".to_owned() + &"x".repeat(60);
    let items = vec![
        user("Go."),
        assistant("I read."),
        called(&id, "{}"),
        called("c2", "{}"),
        answered(&id),
        user("And?"),
    ];
    let mut asked = request(items.clone());
    asked.previous = Some(Previous { response_id: "resp_1".to_owned(), items: 4 });
    let sent: Value = serde_json::from_slice(&Codec::new(chain.clone()).request(&asked).body).unwrap();
    assert_eq!((&sent["store"], &sent["previous_response_id"]), (&json!(true), &json!("resp_1")));
    let new = json!([
        wire_result(&id, &format!("result of {id}")),
        wire_result("c2", "No result of this call is recorded."),
        message("user", "And?"),
    ]);
    assert_eq!((&sent["input"], &sent["instructions"]), (&new, &json!("Be brief.")));
    for previous in [None, Some(Previous { response_id: "resp_1".to_owned(), items: 6 })] {
        asked.previous = previous;
        let sent: Value = serde_json::from_slice(&Codec::new(chain.clone()).request(&asked).body).unwrap();
        assert_eq!((sent.get("previous_response_id"), sent["input"].as_array().unwrap().len()), (None, 7));
    }
}

#[test]
fn a_background_answer_is_stored_streamed_picked_up_and_cancelled() {
    let codec =
        Codec::new(Options { resumable: true, stream: false, key: Some(Secret::new("key")), ..options() });
    let asked = codec.request(&request(Vec::new()));
    let sent: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(
        (&sent["background"], &sent["store"], &sent["stream"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert!(asked.streamed);
    let resumed = codec.resume("resp_1", Some("17")).unwrap();
    assert_eq!((resumed.method, resumed.body.len()), (Method::Get, 0));
    assert_eq!(resumed.url, "https://provider.test/v1/responses/resp_1?stream=true&starting_after=17");
    assert!(
        resumed.headers.iter().any(|(name, value)| name == "authorization" && value.expose() == "Bearer key")
    );
    let from_the_start = codec.resume("../a b", None).unwrap();
    assert_eq!(from_the_start.url, "https://provider.test/v1/responses/%2E%2E%2Fa%20b?stream=true");
    assert_eq!(codec.retrieve("resp_1").unwrap().url, "https://provider.test/v1/responses/resp_1");
    let cancelled = codec.cancel("resp_1").unwrap();
    assert_eq!(
        (cancelled.method, cancelled.url.as_str()),
        (Method::Post, "https://provider.test/v1/responses/resp_1/cancel")
    );
    let plain = Codec::new(options());
    assert!(plain.resume("resp_1", None).is_none() && plain.retrieve("resp_1").is_none());
    assert!(plain.cancel("resp_1").is_none());
}

#[test]
fn the_url_and_the_key_are_made_for_any_way_to_write_the_base() {
    for (base, url, header) in [
        ("https://api.openai.com", "https://api.openai.com/v1/responses", "authorization"),
        ("https://api.openai.com/v1/ ", "https://api.openai.com/v1/responses", "authorization"),
        ("http://localhost:8080/v1/responses", "http://localhost:8080/v1/responses", "authorization"),
        ("http://localhost:8080/api/v1?x=1", "http://localhost:8080/api/v1/responses?x=1", "authorization"),
        ("https://n.openai.azure.com", "https://n.openai.azure.com/openai/v1/responses", "api-key"),
        ("https://n.openai.azure.com/openai/v1", "https://n.openai.azure.com/openai/v1/responses", "api-key"),
        (
            "https://n.openai.azure.com/openai/deployments/d?api-version=2025-04-01-preview",
            "https://n.openai.azure.com/openai/responses?api-version=2025-04-01-preview",
            "api-key",
        ),
    ] {
        let key = Some(Secret::new("very-secret-key"));
        let asked = Codec::new(Options { key, ..Options::new(base, "m") }).request(&request(Vec::new()));
        assert_eq!(asked.url, url);
        let shown = asked.headers.iter().find(|(_, value)| value.expose().contains("very-secret-key"));
        assert_eq!(shown.unwrap().0, header, "{base}");
        assert!(!format!("{asked:?}").contains("very-secret"));
    }
    let codec = Codec::new(Options { resumable: true, ..Options::new("https://a.test/v1?x=1", "m") });
    assert_eq!(codec.resume("r", None).unwrap().url, "https://a.test/v1/responses/r?x=1&stream=true");
}

#[test]
fn refusals_say_what_to_switch_and_a_lost_chain_is_told() {
    let failure = |options: Options, message: &str| {
        let head = ResponseHead { status: 400, headers: Vec::new() };
        Codec::new(options).failure(&head, json!({ "error": { "message": message } }).to_string().as_bytes())
    };
    for (message, advice) in [
        ("Encrypted content is not supported with this model.", "replay_reasoning"),
        ("The encrypted content gAAA could not be verified.", "replay_reasoning"),
        ("Missing required parameter: 'input[1].id'.", "item_ids"),
    ] {
        let error = failure(options(), message);
        assert!(error.message.contains(advice), "{error}");
        assert_eq!(error.class, FailureClass::InvalidRequest);
    }
    let chain = Options { chain: true, ..options() };
    for message in ["No tool output found for function call call_1.", "Item with id 'rs_1' not found."] {
        assert_eq!(failure(chain.clone(), message).class, FailureClass::ChainBroken);
        assert_eq!(failure(options(), message).class, FailureClass::InvalidRequest);
    }
    assert_eq!(
        failure(options(), "Previous response with id 'r' not found.").class,
        FailureClass::ChainBroken
    );
}

#[test]
fn a_conversation_that_goes_on_begins_with_the_same_bytes() {
    let mut items = vec![user("Go."), assistant("I read."), called("c1", "{}"), answered("c1")];
    for more in [
        vec![assistant("Next."), called("c2", "{}"), answered("c2")],
        vec![assistant("Done.")],
        vec![user("More?")],
    ] {
        let before = bytes(options(), items.clone());
        items.extend(more);
        let shared = before.len() - b"]}".len();
        assert_eq!(before[..shared], bytes(options(), items.clone())[..shared]);
    }
}

fn any_item() -> impl Strategy<Value = Item> {
    let id = prop_oneof![Just("c1"), Just("c2"), Just("c 3"), Just("")];
    let text = "[a-z\"<>äß\n]{1,8}";
    let thought = |place: Option<u64>| {
        let item = json!({ "type": "reasoning", "encrypted_content": "x" });
        let mut opaque = json!({ "api": "openai-responses", "host": "provider.test", "item": item });
        opaque["place"] = json!(place);
        Item::Reasoning { text: String::new(), opaque: Some(opaque) }
    };
    let search = json!({ "type": "web_search_call" });
    prop_oneof![
        2 => text.prop_map(|text| user(&text)),
        2 => "[a-z]{0,4}".prop_map(|text| assistant(&text)),
        2 => prop::option::of(0..3_u64).prop_map(thought),
        3 => (id.clone(), "[{}a\"]{0,3}").prop_map(|(id, arguments)| called(id, &arguments)),
        3 => id.prop_map(|id| result(&CallId(id.to_owned()), "output")),
        1 => Just(Item::File { name: None, media_type: "image/png".to_owned(), data: "aGk=".to_owned() }),
        1 => Just(Item::Opaque { provider: "openai-responses/provider.test".to_owned(), value: search }),
        1 => Just(Item::Opaque { provider: "x".to_owned(), value: json!({}) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Sessions keep their items in order; a request must be valid even where one did not.
    #[test]
    fn any_items_become_a_valid_input(items in prop::collection::vec(any_item(), 0..14)) {
        let sent = input(items);
        prop_assert_eq!(validate(sent.as_array().unwrap()), Ok(()));
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
