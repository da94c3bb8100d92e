//! The decoder of Anthropic's wire against servers that keep to no order.

use longhaul_model::anthropic::{Codec, Options};
use longhaul_model::codec::Codec as _;
use longhaul_model::{Accumulator, Error, Part};
use longhaul_session::id::CallId;
use longhaul_session::item::Item;
use proptest::prelude::*;
use serde_json::{Value, json};

fn decode(pieces: &[&[u8]]) -> (Vec<Part>, Result<(), Error>) {
    let mut decoder = Codec::new(Options::new("https://provider.test", "m")).decoder();
    let mut parts = Vec::new();
    let pushed = pieces.iter().try_for_each(|piece| decoder.push(piece, &mut parts));
    let outcome = pushed.and_then(|()| decoder.finish(&mut parts));
    (parts, outcome)
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

/// Takes the parts as a runner would, which fails for parts that make no sense together.
fn take(parts: Vec<Part>) -> Result<(), Error> {
    let mut answer = Accumulator::new(|| CallId("made".to_owned()));
    parts.into_iter().try_for_each(|part| answer.push(part))
}

fn begin(index: u64, block: Value) -> Value {
    json!({ "type": "content_block_start", "index": index, "content_block": block })
}

fn delta(index: u64, delta: Value) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": delta })
}

#[test]
fn an_endless_number_of_calls_is_given_up() {
    let calls: Vec<Value> =
        (0..2_000).map(|n| begin(n, json!({ "type": "tool_use", "name": "x" }))).collect();
    let error = decode(&[stream(&calls).as_bytes()]).1.unwrap_err();
    assert!(error.message.contains("tool calls"), "{error}");
}

#[test]
fn what_is_held_back_without_end_is_given_up() {
    let megabyte = "x".repeat(1024 * 1024);
    let held = [
        (json!({ "type": "server_tool_use" }), json!({ "partial_json": megabyte })),
        (json!({ "type": "sketch", "note": "" }), json!({ "note": megabyte })),
        (json!({ "type": "text", "text": "a" }), json!({ "citation": { "cited_text": megabyte } })),
        (json!({ "type": "thinking", "thinking": "a" }), json!({ "signature": megabyte })),
    ];
    let streams =
        held.map(|(block, piece)| stream(&[begin(0, block)]) + &stream(&[delta(0, piece)]).repeat(17));
    let pieces: Vec<&[u8]> = streams.iter().map(String::as_bytes).collect();
    let error = decode(&pieces).1.unwrap_err();
    assert!(error.message.contains("larger than"), "{error}");
    assert_eq!(
        decode(&pieces[1..]).1.unwrap_err().message,
        "the stream ended before the answer was complete"
    );
}

#[test]
fn the_name_of_the_answer_is_told_with_its_first_event() {
    let mut decoder = Codec::new(Options::new("https://provider.test", "m")).decoder();
    let mut parts = Vec::new();
    let start = json!({ "type": "message_start", "message": { "id": "msg_1" } });
    decoder.push(stream(&[start]).as_bytes(), &mut parts).unwrap();
    assert_eq!(parts, [Part::Started { response_id: Some("msg_1".to_owned()) }]);
}

#[test]
fn the_request_is_named_in_an_error_within_a_stream() {
    let event = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" }, "request_id": "req_7" });
    let error = decode(&[stream(&[event]).as_bytes()]).1.unwrap_err();
    assert!(error.message.ends_with("Overloaded (request req_7)"), "{error}");
}

#[test]
fn a_provider_call_that_was_cut_off_is_not_kept() {
    let events = [
        begin(0, json!({ "type": "server_tool_use", "id": "s1", "name": "web_search", "input": {} })),
        delta(0, json!({ "type": "input_json_delta", "partial_json": "{\"que" })),
        json!({ "type": "message_delta", "delta": { "stop_reason": "max_tokens" } }),
        json!({ "type": "message_stop" }),
    ];
    let (parts, outcome) = decode(&[stream(&events).as_bytes()]);
    assert_eq!(outcome, Ok(()));
    assert!(!parts.iter().any(|part| matches!(part, Part::Item { item: Item::Opaque { .. } })), "{parts:?}");
}

#[test]
fn a_cut_answer_leaves_a_call_open_that_may_be_half() {
    let answer = |pieces: &[&str]| {
        let mut events = vec![begin(0, json!({ "type": "tool_use", "id": "c1", "name": "x", "input": {} }))];
        events.extend(pieces.iter().map(|piece| delta(0, json!({ "partial_json": piece }))));
        events.push(json!({ "type": "message_delta", "delta": { "stop_reason": "max_tokens" } }));
        decode(&[stream(&events).as_bytes()]).0.iter().any(|part| matches!(part, Part::ToolCallEnd { .. }))
    };
    assert_eq!([answer(&[]), answer(&["{\"a\":"]), answer(&["{\"a\":", "1}"])], [false, false, true]);
}

fn any_word() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!("a")),
        Just(json!("{\"p\":")),
        Just(json!("1}")),
        Just(json!(0)),
        Just(json!(1)),
        Just(json!("1")),
        Just(json!({ "p": 1 })),
        Just(json!([{ "type": "text", "text": "t" }, 3])),
    ]
}

fn object(kinds: &'static [&'static str], keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec((prop::sample::select(keys), any_word()), 0..4);
    (prop::sample::select(kinds), fields).prop_map(|(kind, fields)| {
        let mut object: Value = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        if !kind.is_empty() {
            object["type"] = json!(kind);
        }
        object
    })
}

const BLOCKS: &[&str] =
    &["", "text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "sketch"];
const BLOCK_KEYS: &[&str] =
    &["id", "name", "input", "text", "thinking", "signature", "data", "citations", "caller"];
const DELTA_KEYS: &[&str] =
    &["text", "thinking", "partial_json", "signature", "citation", "note", "stop_reason"];
const EVENTS: &[&str] = &["", "ping", "error", "message", "message_stop", "message_delta", "note"];
const EVENT_KEYS: &[&str] = &["message", "delta", "error", "usage", "content", "stop_reason", "detail"];

fn any_event() -> impl Strategy<Value = String> {
    let block = object(BLOCKS, BLOCK_KEYS);
    let delta = object(&["", "text_delta"], DELTA_KEYS);
    let usage = || object(&[""], &["input_tokens", "output_tokens", "cache_creation", "cost"]);
    let reason =
        prop_oneof![any_word(), Just(json!("end_turn")), Just(json!("max_tokens")), Just(json!("tool_use"))];
    prop_oneof![
        4 => (any_word(), block).prop_map(|(index, block)|
            json!({ "type": "content_block_start", "index": index, "content_block": block }).to_string()),
        6 => (any_word(), delta).prop_map(|(index, delta)|
            json!({ "type": "content_block_delta", "index": index, "delta": delta }).to_string()),
        2 => any_word().prop_map(|index| json!({ "type": "content_block_stop", "index": index }).to_string()),
        2 => (reason, usage()).prop_map(|(reason, usage)|
            json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": usage }).to_string()),
        1 => (any_word(), usage()).prop_map(|(id, usage)|
            json!({ "type": "message_start", "message": { "id": id, "usage": usage } }).to_string()),
        1 => object(EVENTS, EVENT_KEYS).prop_map(|event| event.to_string()),
        1 => any_word().prop_map(|word| word.to_string()),
        1 => Just("[DONE]".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_comes_the_parts_make_sense(events in prop::collection::vec(any_event(), 0..14)) {
        let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let (parts, outcome) = decode(&[stream.as_bytes()]);
        let finished = matches!(parts.last(), Some(Part::Finished { .. }));
        prop_assert_eq!(finished, outcome.is_ok());
        let begun = parts.first().is_none_or(|part| matches!(part, Part::Started { .. }));
        prop_assert!(begun);
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
    fn any_document_is_an_answer_or_an_error(
        blocks in prop::collection::vec(object(BLOCKS, BLOCK_KEYS), 0..5),
        more in object(&["", "message", "error"], &["error", "usage", "id", "stop_reason", "message"]),
    ) {
        let mut answer = more;
        answer["content"] = json!(blocks);
        let (parts, outcome) = decode(&[answer.to_string().as_bytes()]);
        prop_assert_eq!(matches!(parts.last(), Some(Part::Finished { .. })), outcome.is_ok());
        prop_assert_eq!(take(parts), Ok(()));
    }
}
