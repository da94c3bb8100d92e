//! The decoder of the chat format against servers that keep to no order.

use longhaul_model::codec::Codec as _;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_model::{Accumulator, Error, Part};
use longhaul_session::id::CallId;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn decode(pieces: &[&[u8]]) -> (Vec<Part>, Result<(), Error>) {
    let mut decoder = Codec::new(Options::new("https://provider.test/v1", "m")).decoder();
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
fn an_endless_number_of_calls_is_given_up() {
    let call = |n: usize| json!({ "index": n, "id": format!("c{n}"), "function": { "name": "x" } });
    let calls: Vec<Value> = (0..2_000).map(call).collect();
    let chunk = json!({ "choices": [{ "delta": { "tool_calls": calls } }] });
    let error = decode(&[format!("data: {chunk}\n\n").as_bytes()]).1.unwrap_err();
    assert!(error.message.contains("tool calls"), "{error}");
}

#[test]
fn an_event_without_end_is_given_up() {
    let megabyte = vec![b'x'; 1024 * 1024];
    let mut pieces: Vec<&[u8]> = vec![b"data: "];
    pieces.extend(std::iter::repeat_n(megabyte.as_slice(), 20));
    let error = decode(&pieces).1.unwrap_err();
    assert!(error.message.contains("larger than"), "{error}");
}

#[test]
fn blank_lines_without_end_take_no_memory_and_are_no_answer() {
    let blank = vec![b'\n'; 1024 * 1024];
    let error = decode(&vec![blank.as_slice(); 100]).1.unwrap_err();
    assert!(error.message.contains("before the answer was complete"), "{error}");
}

fn any_word() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!("a")),
        Just(json!("{}")),
        Just(json!("{\"p\":")),
        Just(json!("1}")),
        Just(json!(0)),
        Just(json!(1)),
        Just(json!([{ "type": "text", "text": "t" }, { "thinking": "h" }, 3])),
        Just(json!({ "type": "reasoning.text", "index": 0, "text": "r" })),
    ]
}

fn object(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec((prop::sample::select(keys), any_word()), 0..4);
    fields.prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn any_delta() -> impl Strategy<Value = Value> {
    let call = (object(&["index", "id", "extra_content"]), object(&["name", "arguments"]));
    let call = call.prop_map(|(mut call, function)| {
        call["function"] = function;
        call
    });
    let calls = prop::collection::vec(call, 0..3);
    let words = object(&["content", "reasoning", "reasoning_content", "refusal", "role"]);
    let details = prop::collection::vec(any_word(), 0..2);
    (words, calls, details).prop_map(|(mut delta, calls, details)| {
        delta["tool_calls"] = json!(calls);
        delta["reasoning_details"] = json!(details);
        delta
    })
}

fn any_chunk() -> impl Strategy<Value = String> {
    let reason = prop_oneof![6 => Just(Value::Null), 1 => any_word(), 1 => Just(json!("stop")), 1 => Just(json!("length"))];
    let usage = object(&["prompt_tokens", "completion_tokens", "total_tokens", "cost"]);
    prop_oneof![
        9 => (any_delta(), reason, usage, any_word()).prop_map(|(delta, reason, usage, id)| {
            let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
            json!({ "id": id, "choices": [choice], "usage": usage }).to_string()
        }),
        1 => any_word().prop_map(|word| word.to_string()),
        1 => object(&["choices", "error", "message", "usage", "x_groq"]).prop_map(|it| it.to_string()),
        1 => Just("[DONE]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_the_parts_make_sense(chunks in prop::collection::vec(any_chunk(), 0..12)) {
        let stream: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        let (parts, outcome) = decode(&[stream.as_bytes()]);
        let finished = matches!(parts.last(), Some(Part::Finished { .. }));
        prop_assert_eq!(finished, outcome.is_ok());
        prop_assert_eq!(take(parts.clone()), Ok(()));
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        prop_assert_eq!(decode(&bytes), (parts, outcome));
    }

    #[test]
    fn no_bytes_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..100), begin in "(|data: |\\{|<|\u{feff})") {
        let (parts, outcome) = decode(&[begin.as_bytes(), &bytes]);
        prop_assert!(outcome.is_err() || !parts.is_empty());
    }

    #[test]
    fn any_document_is_an_answer_or_an_error(message in any_delta(), more in object(&["error", "usage", "id"])) {
        let mut answer: Map<String, Value> = more.as_object().cloned().unwrap_or_default();
        answer.insert("choices".to_owned(), json!([{ "message": message }]));
        let (parts, outcome) = decode(&[Value::Object(answer).to_string().as_bytes()]);
        prop_assert_eq!(matches!(parts.last(), Some(Part::Finished { .. })), outcome.is_ok());
        prop_assert_eq!(take(parts), Ok(()));
    }
}
