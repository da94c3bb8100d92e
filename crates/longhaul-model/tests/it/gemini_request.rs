//! The bodies that conversations become for Google's servers, held against a strict reading of the API.

use std::sync::Arc;

use longhaul_model::codec::Codec as _;
use longhaul_model::gemini::{Codec, Options};
use longhaul_model::{Part, Secret};
use longhaul_session::agent::{OutputFormat, Request, ToolSpec};
use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::steering::SteeringReason;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{assistant, collect, result, user};

const URL: &str = "https://provider.test/v1beta";

fn options() -> Options {
    Options::new(URL, "gemini-3-pro")
}

fn request(items: Vec<Item>) -> Request {
    Request {
        system: "Be brief.".to_owned(),
        items: items.into_iter().map(Arc::new).collect(),
        tools: Arc::new(vec![ToolSpec {
            name: "read".to_owned(),
            description: "Reads a file.".to_owned(),
            input_schema: json!({ "type": "object", "additionalProperties": false, "$defs": {} }),
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

fn contents(items: Vec<Item>) -> Vec<Value> {
    body(options(), items)["contents"].as_array().unwrap().clone()
}

fn called(id: &str, arguments: &str) -> Item {
    Item::ToolCall(ToolCall {
        id: id.into(),
        name: "read".to_owned(),
        arguments: arguments.to_owned(),
        opaque: Some(json!({ "api": "gemini", "host": "provider.test" })),
    })
}

fn answered(id: &str) -> Item {
    result(&id.into(), &format!("result of {id}"))
}

/// Checks what the API demands: the two roles, no empty contents, results alone in the content directly
/// after their calls, as many and in the same order.
fn validate(body: &Value) -> Result<(), String> {
    let mut open: Vec<&Value> = Vec::new();
    let mut before = (Value::Null, false);
    for (at, content) in body["contents"].as_array().ok_or("no contents")?.iter().enumerate() {
        let parts = content["parts"].as_array().filter(|parts| !parts.is_empty()).ok_or("no parts")?;
        let named = |kind: &str| -> Vec<&Value> {
            parts.iter().filter_map(|part| part.get(kind)).map(|it| &it["name"]).collect()
        };
        let (calls, results) = (named("functionCall"), named("functionResponse"));
        if results != open || !results.is_empty() && results.len() != parts.len() {
            return Err(format!("content {at}: {open:?} are not answered"));
        }
        let role = &content["role"];
        if *role != "user" && *role != "model" || *role == "user" && !calls.is_empty() {
            return Err(format!("content {at} is not allowed: {content}"));
        }
        if before == (role.clone(), false) {
            return Err(format!("content {at} belongs to the one before"));
        }
        for part in parts {
            let unsigned = part.as_object().is_some_and(|part| part.len() == 1);
            if part["text"] == "" && unsigned {
                return Err(format!("content {at} has an empty text"));
            }
        }
        if parts.iter().any(|part| part.get("functionCall").is_some_and(|call| !call["args"].is_object())) {
            return Err(format!("content {at}: arguments are no object"));
        }
        before = (role.clone(), !results.is_empty());
        open = calls;
    }
    if open.is_empty() { Ok(()) } else { Err(format!("calls {open:?} are not answered at the end")) }
}

/// Reads one answer, as a document.
fn answer(parts: Value) -> Vec<Item> {
    let document = json!({ "candidates": [{ "content": { "parts": parts }, "finishReason": "STOP" }] });
    items_of(&Codec::new(options()), &[document.to_string().as_bytes()])
}

fn items_of(codec: &Codec, pieces: &[&[u8]]) -> Vec<Item> {
    let mut decoder = codec.decoder();
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut parts).unwrap();
    }
    decoder.finish(&mut parts).unwrap();
    collect(parts).unwrap().items
}

#[test]
fn a_conversation_becomes_contents() {
    let items = vec![
        Item::Summary { text: "They met.".to_owned() },
        Item::ContextFile {
            path: "A.md".to_owned(),
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
    let said = |id: &str| json!({ "functionResponse": { "name": "read", "response": { "output": format!("result of {id}") } } });
    let expected = json!({
        "systemInstruction": { "parts": [{ "text": "Be brief." }] },
        "tools": [{ "functionDeclarations": [{
            "name": "read",
            "description": "Reads a file.",
            "parametersJsonSchema": { "type": "object", "additionalProperties": false, "$defs": {} },
        }] }],
        "contents": [
            { "role": "user", "parts": [
                { "text": "<summary of=\"the conversation before\">\nThey met.\n</summary>" },
                { "text": "<context_file path=\"A.md\">\nUse tabs.\n</context_file>" },
                { "text": "Read both." },
            ] },
            { "role": "model", "parts": [
                { "text": "I read." },
                { "functionCall": { "name": "read", "args": { "path": "a" } } },
                { "functionCall": { "name": "read", "args": {} } },
            ] },
            { "role": "user", "parts": [said("c1"), said("c2")] },
            { "role": "user", "parts": [{ "text": "<note from=\"longhaul\">\nHurry.\n</note>" }] },
            { "role": "model", "parts": [{ "text": "Done." }] },
            { "role": "user", "parts": [{ "text": "[A part of the conversation was removed here.]" }] },
        ],
    });
    assert_eq!(body(options(), items), expected);
}

#[test]
fn what_became_of_a_call_is_told_as_output_or_error() {
    let failed = Item::ToolResult(ToolResult {
        call: "c1".into(),
        outcome: Outcome::NotRun,
        output: String::new(),
        files: Vec::new(),
        artifact: None,
    });
    let all = contents(vec![user("Go."), answered("lost"), called("c1", ""), called("c2", "[1]"), failed]);
    assert_eq!(all[0]["parts"][1]["text"], "<tool_result call=\"lost\">\nresult of lost\n</tool_result>");
    assert_eq!(all[1]["parts"][1]["functionCall"]["args"], json!({ "not_an_object": "[1]" }));
    let response = |at: usize| &all[2]["parts"][at]["functionResponse"]["response"];
    assert_eq!(response(0), &json!({ "error": "The call was not run." }));
    assert_eq!(response(1), &json!({ "error": "No result of this call is recorded." }));
}

#[test]
fn what_the_model_said_goes_back_part_by_part_as_it_came() {
    let parts = json!([
        { "text": "Let me think.", "thought": true, "thoughtSignature": "t1" },
        { "text": "Before " },
        { "text": "sïgned", "thoughtSignature": "t2" },
        { "text": " after." },
        { "executableCode": { "language": "PYTHON", "code": "1" }, "thoughtSignature": "t3" },
        { "codeExecutionResult": { "outcome": "OUTCOME_OK", "output": "1" } },
        { "inlineData": { "mimeType": "image/png", "data": "aGk=" }, "thoughtSignature": "t4" },
        { "functionCall": { "id": "f1", "name": "read", "args": { "b": 1, "a": [2] } }, "thoughtSignature": "t5" },
        { "functionCall": { "name": "list", "args": {} }, "novelty": { "x": 1 } },
        { "text": "", "thoughtSignature": "t6" },
    ]);
    let said = answer(parts.clone());
    let calls: Vec<CallId> = said.iter().filter_map(Item::tool_call).map(|call| call.id.clone()).collect();
    assert_eq!(calls[0].0, "f1");
    let mut items = vec![user("Go.")];
    items.extend(said);
    items.extend([result(&calls[1], "second"), result(&calls[0], "first")]);
    let all = contents(items.clone());
    assert_eq!(all[1], json!({ "role": "model", "parts": parts }));
    assert_eq!(
        all[2]["parts"],
        json!([
            { "functionResponse": { "id": "f1", "name": "read", "response": { "output": "first" } } },
            { "functionResponse": { "name": "list", "response": { "output": "second" } } },
        ])
    );
    let elsewhere = body(Options::new("https://other.test", "gemini-2.5-pro"), items);
    assert_eq!(
        elsewhere["contents"][1]["parts"],
        json!([
            { "text": "Before sïgned" },
            { "text": " after." },
            { "functionCall": { "name": "read", "args": { "b": 1, "a": [2] } } },
            { "functionCall": { "name": "list", "args": {} } },
        ])
    );
    assert_eq!(elsewhere["contents"][2]["parts"][0]["functionResponse"].get("id"), None);
}

#[test]
fn a_signed_piece_of_a_stream_is_a_part_of_its_own() {
    let event = |parts: Value, more: &str| {
        format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":{parts}}}{more}}}]}}\n\n")
    };
    let stream = [
        event(json!([{ "text": "One, " }]), ""),
        event(json!([{ "text": "two" }]), ""),
        event(json!([{ "text": ", three", "thoughtSignature": "s" }]), ""),
        event(json!([{ "text": ".", "thoughtSignature": "z" }]), ",\"finishReason\":\"STOP\""),
    ];
    let mut items = vec![user("Count.")];
    items.extend(items_of(&Codec::new(options()), &[stream.concat().as_bytes()]));
    assert_eq!(
        contents(items)[1]["parts"],
        json!([
            { "text": "One, two" },
            { "text": ", three", "thoughtSignature": "s" },
            { "text": ".", "thoughtSignature": "z" },
        ])
    );
}

#[test]
fn the_first_of_the_calls_that_another_model_made_is_marked() {
    let call = |id: &str| {
        let opaque = Some(json!({ "api": "openai-chat", "host": "provider.test", "extra_content": {} }));
        Item::ToolCall(ToolCall { id: id.into(), name: "read".to_owned(), arguments: String::new(), opaque })
    };
    let items = vec![user("Go."), call("c1"), call("c2"), answered("c1"), answered("c2"), call("c3")];
    let all = contents(items.clone());
    let mark = json!("skip_thought_signature_validator");
    assert_eq!(all[1]["parts"][0]["thoughtSignature"], mark);
    assert_eq!(all[1]["parts"][1].get("thoughtSignature"), None);
    assert_eq!(all[3]["parts"][0]["thoughtSignature"], mark);
    let older = body(Options { model: "gemini-2.5-flash".to_owned(), ..options() }, items);
    assert_eq!(older["contents"][1]["parts"][0].get("thoughtSignature"), None);
    assert_eq!(contents(vec![user("Go."), called("c1", "")])[1]["parts"][0].get("thoughtSignature"), None);
}

#[test]
fn files_stand_beside_the_words_they_came_with() {
    let file = |media_type: &str| Item::File {
        name: Some("it".to_owned()),
        media_type: media_type.to_owned(),
        data: "aGk=".to_owned(),
    };
    let all = contents(vec![user("look"), file("image/png"), file("application/pdf"), user("now")]);
    let expected = json!([{ "role": "user", "parts": [
        { "text": "look" },
        { "inlineData": { "mimeType": "image/png", "data": "aGk=" } },
        { "inlineData": { "mimeType": "application/pdf", "data": "aGk=" } },
        { "text": "now" },
    ] }]);
    assert_eq!(json!(all), expected);
}

#[test]
fn options_become_fields_and_parameters_override_them() {
    let mut options = Options {
        max_output_tokens: Some(500),
        temperature: Some(0.5),
        output: Some(OutputFormat { name: "verdict".to_owned(), schema: json!({ "type": "object" }) }),
        provider_tools: vec![json!({ "googleSearch": {} })],
        ..options()
    };
    let sent = body(options.clone(), vec![user("Go.")]);
    let expected = json!({
        "maxOutputTokens": 500,
        "temperature": 0.5,
        "responseMimeType": "application/json",
        "responseJsonSchema": { "type": "object" },
    });
    assert_eq!(sent["generationConfig"], expected);
    assert_eq!(sent["tools"][1], json!({ "googleSearch": {} }));
    let parameters = json!({
        "generationConfig": { "temperature": null, "maxOutputTokens": 9, "thinkingConfig": { "includeThoughts": true } },
        "tools": null,
        "cachedContent": "cachedContents/x",
    });
    options.parameters = parameters.as_object().unwrap().clone();
    let sent = body(options.clone(), vec![user("Go.")]);
    let config = &sent["generationConfig"];
    assert_eq!((&config["maxOutputTokens"], config.get("temperature")), (&json!(9), None));
    assert_eq!(config["thinkingConfig"], json!({ "includeThoughts": true }));
    assert_eq!((sent.get("tools"), &sent["cachedContent"]), (None, &json!("cachedContents/x")));
    options.parameters.insert("contents".to_owned(), json!([{ "role": "user", "parts": [{ "text": "x" }] }]));
    assert_eq!(body(options, vec![user("Go.")])["contents"][0]["parts"][0]["text"], "x");
}

#[test]
fn the_url_is_made_from_any_way_to_write_the_base() {
    let vertex = "https://eu-aiplatform.googleapis.com/v1/projects/p/locations/eu/publishers/google";
    let method = ":streamGenerateContent?alt=sse";
    for (base, model, url) in [
        ("https://g.test", "m-1", "https://g.test/v1beta/models/m-1"),
        (" https://g.test/ ", "m-1", "https://g.test/v1beta/models/m-1"),
        ("https://g.test/v1beta/", "models/m-1", "https://g.test/v1beta/models/m-1"),
        ("https://g.test/v1", "m 1", "https://g.test/v1/models/m%201"),
        ("https://g.test/v1alpha/models", "m-1", "https://g.test/v1alpha/models/m-1"),
        ("https://g.test/v1beta/models/old:generateContent", "m-1", "https://g.test/v1beta/models/m-1"),
        ("https://g.test/v1beta/openai/", "m-1", "https://g.test/v1beta/models/m-1"),
        ("https://g.test/voice/gemini", "m-1", "https://g.test/voice/gemini/v1beta/models/m-1"),
        ("https://g.test/v1beta", "tunedModels/t", "https://g.test/v1beta/tunedModels/t"),
        (vertex, "m-1", &format!("{vertex}/models/m-1")),
    ] {
        let asked = Codec::new(Options::new(base, model)).request(&request(Vec::new()));
        assert_eq!(asked.url, format!("{url}{method}"), "{base}");
        assert!(asked.streamed);
    }
    let whole = Options { stream: false, ..Options::new("https://g.test/v1?alt=sse&x=1", "m-1") };
    let asked = Codec::new(whole).request(&request(Vec::new()));
    assert_eq!(
        (asked.url.as_str(), asked.streamed),
        ("https://g.test/v1/models/m-1:generateContent?x=1", false)
    );
}

#[test]
fn the_key_is_sent_in_a_header_and_nowhere_else() {
    let in_url = Options::new("https://g.test/v1beta?key=very-secret-key", "m-1");
    let given = Options { key: Some(Secret::new("very-secret-key")), ..options() };
    for options in [in_url, given] {
        let asked = Codec::new(options).request(&request(vec![user("Go.")]));
        let header = asked.headers.iter().find(|(name, _)| name == "x-goog-api-key").unwrap();
        assert_eq!(header.1.expose(), "very-secret-key");
        assert!(!format!("{asked:?}").contains("very-secret"));
        assert!(!String::from_utf8(asked.body).unwrap().contains("very-secret"));
    }
}

#[test]
fn advice_follows_a_refusal() {
    let refused = |message: &str| {
        let head = longhaul_model::codec::ResponseHead { status: 400, headers: Vec::new() };
        let body = json!({ "error": { "code": 400, "message": message, "status": "INVALID_ARGUMENT" } });
        Codec::new(options()).failure(&head, body.to_string().as_bytes()).message
    };
    let unknown = refused("Unknown name \"parametersJsonSchema\" at 'tools[0]': Cannot find field.");
    assert!(unknown.ends_with("let the base URL end in /v1beta"), "{unknown}");
    let unsigned = refused("Function call is missing a thought_signature in functionCall parts.");
    assert!(unsigned.contains("start a new session"), "{unsigned}");
    assert!(refused("Nothing known.").ends_with("Nothing known."));
}

#[test]
fn a_conversation_that_goes_on_begins_with_the_same_bytes() {
    let mut items = vec![user("Go."), assistant("I read."), called("c1", "{}"), answered("c1")];
    let before = bytes(options(), items.clone());
    items.extend([assistant("Next."), called("c2", "{}"), answered("c2"), user("And?")]);
    let after = bytes(options(), items);
    let shared = before.len() - b"]}".len();
    assert_eq!(before[..shared], after[..shared]);
}

fn any_item() -> impl Strategy<Value = Item> {
    let id = prop_oneof![Just("c1"), Just("c2"), Just("c 3"), Just("")];
    let text = "[a-z\"<>äß\n]{1,8}";
    let ours = |more: Value| {
        let mut opaque = json!({ "api": "gemini", "host": "provider.test" });
        opaque.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        opaque
    };
    let opaque = prop_oneof![
        Just(None),
        Just(Some(ours(json!({ "fields": { "thoughtSignature": "s" } })))),
        Just(Some(json!("signature of somebody else"))),
    ];
    let kept = prop_oneof![
        (0..9_u64).prop_map(move |bytes| ours(
            json!({ "text_bytes": bytes, "fields": { "thoughtSignature": "s" } })
        )),
        Just(ours(json!({ "part": { "codeExecutionResult": {} } }))),
        Just(ours(json!({ "metadata": {} }))),
        Just(json!({ "x": 1 })),
    ];
    prop_oneof![
        text.prop_map(|text| user(&text)),
        "[a-zäß]{0,4}".prop_map(|text| assistant(&text)),
        (text, opaque).prop_map(|(text, opaque)| Item::Reasoning { text, opaque }),
        (id.clone(), "[{}a\"]{0,3}").prop_map(|(id, arguments)| called(id, &arguments)),
        id.prop_map(|id| result(&CallId(id.to_owned()), "output")),
        text.prop_map(|text| Item::Steering { reason: SteeringReason::Continuation, text }),
        Just(Item::Redacted),
        kept.prop_map(|value| Item::Opaque { provider: "provider.test".to_owned(), value }),
    ]
}

proptest! {
    /// Sessions keep their items in order; a request must be valid even where one did not.
    #[test]
    fn any_items_become_a_valid_request(items in prop::collection::vec(any_item(), 0..14)) {
        let sent: Value = serde_json::from_slice(&bytes(options(), items)).unwrap();
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
