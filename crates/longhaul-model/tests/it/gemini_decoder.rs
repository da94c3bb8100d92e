//! The decoder of Google's format against servers that keep to no order.

use longhaul_model::codec::Codec as _;
use longhaul_model::gemini::{Codec, Options};
use longhaul_model::{Accumulator, Error, Part};
use longhaul_session::id::CallId;
use proptest::prelude::*;
use serde_json::{Value, json};

fn decode(pieces: &[&[u8]]) -> (Vec<Part>, Result<(), Error>) {
    let mut decoder = Codec::new(Options::new("https://provider.test/v1beta", "m")).decoder();
    let mut parts = Vec::new();
    let pushed = pieces.iter().try_for_each(|piece| decoder.push(piece, &mut parts));
    let outcome = pushed.and_then(|()| decoder.finish(&mut parts));
    (parts, outcome)
}

/// Takes the parts as a runner would, which fails for parts that make no sense together.
fn take(parts: Vec<Part>) -> Result<(), Error> {
    let mut answer = Accumulator::new(|| CallId("made".to_owned()));
    parts.into_iter().try_for_each(|part| answer.push(part))
}

#[test]
fn an_event_or_element_without_end_is_given_up() {
    let megabyte = vec![b'x'; 1024 * 1024];
    for begin in ["data: ", "[\""] {
        let mut pieces: Vec<&[u8]> = vec![begin.as_bytes()];
        pieces.extend(std::iter::repeat_n(megabyte.as_slice(), 20));
        let error = decode(&pieces).1.unwrap_err();
        assert!(error.message.contains("larger than"), "{error}");
    }
}

#[test]
fn the_elements_of_an_array_are_read_as_they_come() {
    let mut decoder = Codec::new(Options::new("https://provider.test", "m")).decoder();
    let mut parts = Vec::new();
    let chunk = json!({ "candidates": [{ "content": { "parts": [{ "text": "Yes" }] } }], "responseId": "r" });
    decoder.push(format!("[{chunk}").as_bytes(), &mut parts).unwrap();
    let started = Part::Started { response_id: Some("r".to_owned()) };
    assert_eq!(parts, [started, Part::Text { text: "Yes".to_owned() }]);
}

#[test]
fn places_that_lead_nowhere_take_no_memory() {
    for place in ["$[4000000000]", "$.a[7]", "a", "", "$", "$.a]", "$[", "$['a"] {
        let call = json!({ "name": "x", "partialArgs": [{ "jsonPath": place, "stringValue": "y" }] });
        let chunk = json!({ "candidates": [{ "content": { "parts": [{ "functionCall": call }] } }] });
        let outcome = decode(&[format!("data: {chunk}\n\n").as_bytes()]).1;
        assert!(outcome.is_err(), "{place}");
    }
    let deep = "[0]".repeat(100_000);
    let call =
        json!({ "name": "x", "partialArgs": [{ "jsonPath": format!("${deep}"), "stringValue": "y" }] });
    let chunk = json!({ "candidates": [{ "content": { "parts": [{ "functionCall": call }] } }] });
    assert!(decode(&[chunk.to_string().as_bytes()]).1.unwrap_err().message.contains("no place"));
}

#[test]
fn why_a_call_could_not_be_read_is_told() {
    let candidate = json!({ "finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "bad:\nread(" });
    let chunk = json!({ "candidates": [candidate] });
    let error = decode(&[format!("data: {chunk}\n\n").as_bytes()]).1.unwrap_err();
    assert!(error.message.ends_with("(MALFORMED_FUNCTION_CALL, bad: read()"), "{error}");
}

#[test]
fn tokens_that_only_the_total_shows_were_generated() {
    let usage = json!({ "promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 72 });
    let chunk = json!({ "candidates": [{ "finishReason": "STOP" }], "usageMetadata": usage });
    let parts = decode(&[chunk.to_string().as_bytes()]).0;
    let output = parts
        .iter()
        .find_map(|part| if let Part::Usage { usage } = part { Some(usage.output) } else { None });
    assert_eq!(output, Some(62));
}

fn any_word() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!("a")),
        Just(json!(true)),
        Just(json!(1)),
        Just(json!("$.a[0]")),
        Just(json!([{ "jsonPath": "$.a", "stringValue": "v" }, 3])),
        Just(json!({ "name": "read", "args": { "p": 1 } })),
        Just(json!({ "name": "read", "willContinue": true })),
        Just(json!({ "partialArgs": [{ "jsonPath": "$.a[0]", "stringValue": "v" }] })),
    ]
}

fn object(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec((prop::sample::select(keys), any_word()), 0..4);
    fields.prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn any_part() -> impl Strategy<Value = Value> {
    prop_oneof![
        object(&["text", "thought", "thoughtSignature", "functionCall", "inlineData"]),
        "[a-z]{0,2}".prop_map(|text| json!({ "text": text })),
        "[a-z]{0,2}".prop_map(|text| json!({ "text": text, "thought": true, "thoughtSignature": text })),
        object(&["name", "args", "id", "partialArgs", "willContinue"])
            .prop_map(|call| json!({ "functionCall": call })),
    ]
}

fn any_chunk() -> impl Strategy<Value = String> {
    let reason = prop_oneof![
        6 => Just(Value::Null),
        1 => any_word(),
        1 => Just(json!("STOP")),
        1 => Just(json!("MAX_TOKENS")),
        1 => Just(json!("MALFORMED_FUNCTION_CALL")),
    ];
    let usage = object(&["promptTokenCount", "candidatesTokenCount", "totalTokenCount"]);
    let parts = prop::collection::vec(any_part(), 0..3);
    prop_oneof![
        9 => (parts, reason, usage, any_word()).prop_map(|(parts, reason, usage, id)| {
            let candidate = json!({ "content": { "parts": parts }, "finishReason": reason });
            json!({ "responseId": id, "candidates": [candidate], "usageMetadata": usage }).to_string()
        }),
        1 => any_word().prop_map(|word| word.to_string()),
        1 => object(&["candidates", "error", "message", "usageMetadata", "promptFeedback", "response"])
            .prop_map(|it| it.to_string()),
        1 => Just("[DONE]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_the_parts_make_sense(
        chunks in prop::collection::vec(any_chunk(), 0..12),
        array in any::<bool>(),
    ) {
        let stream = match array {
            true => format!("[{}", chunks.join(",")),
            false => chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect(),
        };
        let (parts, outcome) = decode(&[stream.as_bytes()]);
        let finished = matches!(parts.last(), Some(Part::Finished { .. }));
        prop_assert_eq!(finished, outcome.is_ok());
        prop_assert_eq!(take(parts.clone()), Ok(()));
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        prop_assert_eq!(decode(&bytes), (parts, outcome));
    }

    #[test]
    fn no_bytes_break_the_decoder(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        begin in "(|data: |\\{|\\[|<|\u{feff})",
    ) {
        let (parts, outcome) = decode(&[begin.as_bytes(), &bytes]);
        prop_assert!(outcome.is_err() || !parts.is_empty());
    }
}
