//! The decoder of the Responses format against servers that keep to no order, and over broken connections.

use longhaul_model::codec::{Codec as _, Decoder};
use longhaul_model::openai_responses::{Codec, Options};
use longhaul_model::{Accumulator, Error, Part};
use longhaul_session::failure::FailureClass;
use longhaul_session::id::CallId;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{collect, text_of};

fn decoder() -> Box<dyn Decoder> {
    Codec::new(Options::new("https://provider.test/v1", "m")).decoder()
}

fn decode(pieces: &[&[u8]]) -> (Vec<Part>, Result<(), Error>) {
    let mut decoder = decoder();
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

fn event(mut event: Value, number: u64) -> String {
    event["sequence_number"] = json!(number);
    format!("data: {event}\n\n")
}

/// A whole answer with reasoning, text and a call, as numbered events.
fn answer() -> Vec<String> {
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [{ "text": "Hm." }], "encrypted_content": "x" });
    let said =
        json!({ "type": "message", "id": "msg_1", "content": [{ "type": "output_text", "text": "Hello." }] });
    let call = json!({ "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "read", "arguments": "{\"p\":1}" });
    let begun =
        json!({ "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "read", "arguments": "" });
    let whole = json!({ "id": "resp_1", "status": "completed", "output": [thought, said, call],
        "usage": { "input_tokens": 3, "output_tokens": 2 } });
    let events = [
        json!({ "type": "response.created", "response": { "id": "resp_1", "status": "queued" } }),
        json!({ "type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "output_index": 0, "delta": "Hm." }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": thought }),
        json!({ "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "delta": "Hel" }),
        json!({ "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "delta": "lo." }),
        json!({ "type": "response.output_item.done", "output_index": 1, "item": said }),
        json!({ "type": "response.output_item.added", "output_index": 2, "item": begun }),
        json!({ "type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 2, "delta": "{\"p\":" }),
        json!({ "type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 2, "delta": "1}" }),
        json!({ "type": "response.output_item.done", "output_index": 2, "item": call }),
        json!({ "type": "response.completed", "response": whole }),
    ];
    (0..).zip(events).map(|(number, it)| event(it, number)).collect()
}

#[test]
fn an_answer_is_the_same_wherever_the_connection_broke_and_however_it_went_on() {
    let events = answer();
    let stream = events.concat();
    let whole = collect(decode(&[stream.as_bytes()]).0).unwrap();
    let document =
        events[10].split_once("\"response\":").unwrap().1.rsplit_once(",\"sequence_number\"").unwrap().0;
    serde_json::from_str::<Value>(document).unwrap();
    for cut in 0..stream.len() {
        let (head, end) = (&stream.as_bytes()[..cut], stream[..cut].matches("\n\n").count());
        let after = || events[end..].concat();
        for rest in [after(), stream.clone(), document.to_owned()] {
            let (mut decoder, mut parts) = (decoder(), Vec::new());
            decoder.push(head, &mut parts).unwrap();
            if decoder.finish(&mut parts).is_ok() {
                assert_eq!(end, 10, "only the blank line of the last event is missing");
            } else {
                decoder.reconnect();
                decoder.push(rest.as_bytes(), &mut parts).unwrap();
                decoder.finish(&mut parts).unwrap();
            }
            for part in &mut parts {
                if let Part::ReasoningEnd { opaque: Some(opaque) } = part {
                    // Where it stands is said besides when it came with the end.
                    opaque.as_object_mut().unwrap().remove("place");
                }
            }
            assert_eq!(collect(parts).unwrap(), whole, "cut at {cut}, then {rest}");
        }
    }
}

#[test]
fn the_cursor_is_the_number_of_the_newest_event() {
    let events = answer();
    let (mut decoder, mut parts) = (decoder(), Vec::new());
    assert_eq!(decoder.cursor(), None);
    for (number, event) in events.iter().enumerate() {
        decoder.push(event.as_bytes(), &mut parts).unwrap();
        assert_eq!(decoder.cursor(), Some(number.to_string()));
        assert_eq!(parts[0], Part::Started { response_id: Some("resp_1".to_owned()) });
    }
}

#[test]
fn a_stream_that_is_joined_in_its_middle_comes_to_an_end() {
    let events = answer()[6..].concat();
    let (parts, outcome) = decode(&[events.as_bytes()]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(text_of(&collect(parts).unwrap().items), "Hello.");
}

#[test]
fn an_endless_number_of_items_is_given_up() {
    let item = |n: u64| {
        event(json!({ "type": "response.output_item.done", "item": { "type": "x", "id": n.to_string() } }), n)
    };
    let stream: String = (0..2_000).map(item).collect();
    let error = decode(&[stream.as_bytes()]).1.unwrap_err();
    assert!(error.message.contains("items"), "{error}");
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
fn text_without_end_is_given_up() {
    let delta = event(json!({ "type": "response.output_text.delta", "delta": "x".repeat(1024 * 1024) }), 1);
    let mut decoder = decoder();
    let outcome = (0..100).try_for_each(|_| decoder.push(delta.as_bytes(), &mut Vec::new()));
    assert_eq!(outcome.unwrap_err().class, FailureClass::Server);
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
        Just(json!([{ "type": "output_text", "text": "ab" }, { "text": "a" }, 3])),
        Just(json!({ "text": "a" })),
    ]
}

fn object(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec((prop::sample::select(keys), any_word()), 0..4);
    fields.prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn any_item() -> impl Strategy<Value = Value> {
    let kinds = &["message", "reasoning", "function_call", "custom_tool_call", "web_search_call"];
    let fields =
        object(&["id", "call_id", "name", "arguments", "content", "summary", "encrypted_content", "status"]);
    (prop::sample::select(&kinds[..]), fields).prop_map(|(kind, mut item)| {
        item["type"] = json!(kind);
        item
    })
}

fn any_answer() -> impl Strategy<Value = Value> {
    let status = prop::sample::select(&["completed", "incomplete", "failed", "in_progress", "cancelled"][..]);
    let fields = object(&["id", "usage", "error", "incomplete_details", "output"]);
    (status, fields, prop::collection::vec(any_item(), 0..4)).prop_map(|(status, mut answer, output)| {
        answer["status"] = json!(status);
        if answer.get("output").is_none() {
            answer["output"] = json!(output);
        }
        answer
    })
}

fn any_event() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(
        &[
            "created",
            "output_item.added",
            "output_item.done",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "reasoning_summary_text.delta",
            "reasoning_text.delta",
            "reasoning_summary_part.done",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "custom_tool_call_input.delta",
        ][..],
    );
    let fields =
        object(&["item_id", "output_index", "delta", "text", "part", "arguments", "sequence_number"]);
    prop_oneof![
        20 => (kinds, fields, any_item()).prop_map(|(kind, mut event, item)| {
            event["type"] = json!(format!("response.{kind}"));
            event["item"] = item;
            event.to_string()
        }),
        1 => any_answer().prop_map(|answer| json!({ "type": "response.completed", "response": answer }).to_string()),
        1 => any_answer().prop_map(|answer| json!({ "type": "response.incomplete", "response": answer }).to_string()),
        1 => any_word().prop_map(|word| word.to_string()),
        1 => object(&["error", "message", "response", "type"]).prop_map(|it| it.to_string()),
        1 => Just("[DONE]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_the_parts_make_sense(events in prop::collection::vec(any_event(), 0..16), end in any_answer()) {
        let mut stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        stream.push_str(&format!("data: {}\n\n", json!({ "type": "response.completed", "response": end })));
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
    fn any_document_is_an_answer_or_an_error(answer in any_answer()) {
        let (parts, outcome) = decode(&[answer.to_string().as_bytes()]);
        prop_assert_eq!(matches!(parts.last(), Some(Part::Finished { .. })), outcome.is_ok());
        prop_assert_eq!(take(parts), Ok(()));
    }
}
