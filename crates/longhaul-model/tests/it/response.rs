//! Parts become an answer.

use longhaul_model::{Accumulator, FinishReason, Part};
use longhaul_session::failure::FailureClass;
use longhaul_session::id::CallId;
use longhaul_session::item::{Item, ToolCall};
use longhaul_session::usage::Usage;
use proptest::prelude::*;
use serde_json::json;

use crate::support::{assistant, calls_of, collect};

fn text(text: &str) -> Part {
    Part::Text { text: text.to_owned() }
}

fn reasoning(text: &str) -> Part {
    Part::Reasoning { text: text.to_owned() }
}

fn started(index: u32, id: Option<&str>) -> Part {
    Part::ToolCallStarted { index, id: id.map(str::to_owned), name: "bash".to_owned() }
}

fn arguments(index: u32, text: &str) -> Part {
    Part::ToolCallArguments { index, text: text.to_owned() }
}

fn ended(index: u32) -> Part {
    Part::ToolCallEnd { index, opaque: None }
}

fn finished(reason: FinishReason) -> Part {
    Part::Finished { reason, raw: None }
}

fn ids(parts: Vec<Part>) -> Vec<String> {
    calls_of(&collect(parts).unwrap().items).into_iter().map(|call| call.id.0).collect()
}

fn partial(parts: Vec<Part>) -> Vec<Item> {
    let mut answer = Accumulator::new(|| CallId::from("made"));
    for part in parts {
        answer.push(part).unwrap();
    }
    answer.partial()
}

#[test]
fn parts_become_items_in_the_order_they_began() {
    let opaque = Item::Opaque { provider: "x".to_owned(), value: json!({"type": "search"}) };
    let response = collect([
        Part::Started { response_id: Some("r1".to_owned()) },
        reasoning("hm"),
        Part::ReasoningEnd { opaque: Some(json!("signature")) },
        text("I look. "),
        started(7, Some("a")),
        started(3, Some("b")),
        arguments(3, "{\"b\""),
        arguments(7, "{}"),
        arguments(3, ":1}"),
        Part::ToolCallEnd { index: 3, opaque: Some(json!("thought")) },
        ended(7),
        Part::Item { item: opaque.clone() },
        text("Wait."),
        Part::Usage { usage: Usage { input: 3, ..Usage::default() } },
        Part::Usage { usage: Usage { input: 3, output: 4, ..Usage::default() } },
        finished(FinishReason::ToolCalls),
    ])
    .unwrap();
    let call = |id: &str, arguments: &str, opaque| {
        Item::ToolCall(ToolCall {
            id: CallId::from(id),
            name: "bash".to_owned(),
            arguments: arguments.to_owned(),
            opaque,
        })
    };
    assert_eq!(
        response.items,
        [
            Item::Reasoning { text: "hm".to_owned(), opaque: Some(json!("signature")) },
            assistant("I look. "),
            call("a", "{}", None),
            call("b", "{\"b\":1}", Some(json!("thought"))),
            opaque,
            assistant("Wait."),
        ]
    );
    assert_eq!(response.usage, Usage { input: 3, output: 4, ..Usage::default() });
    assert_eq!(response.finish, FinishReason::ToolCalls);
    assert_eq!(response.response_id.as_deref(), Some("r1"));
}

#[test]
fn hidden_reasoning_is_kept_for_its_opaque_value() {
    let end = Part::ReasoningEnd { opaque: Some(json!("sealed")) };
    let response = collect([end, text("Yes."), finished(FinishReason::Stop)]).unwrap();
    let hidden = Item::Reasoning { text: String::new(), opaque: Some(json!("sealed")) };
    assert_eq!(response.items, [hidden, assistant("Yes.")]);
}

#[test]
fn reasoning_after_an_end_is_reasoning_of_its_own() {
    let end = || Part::ReasoningEnd { opaque: None };
    let parts = [reasoning("a"), end(), reasoning("b"), end(), finished(FinishReason::Stop)];
    assert_eq!(collect(parts).unwrap().items.len(), 2);
}

#[test]
fn an_answer_without_its_end_is_a_failed_attempt_that_still_tells_its_usage() {
    let usage = Usage { input: 9, ..Usage::default() };
    let error = collect([text("so far"), Part::Usage { usage }]).unwrap_err();
    assert_eq!(error.class, FailureClass::Network);
    assert_eq!(error.message, "the stream ended before the answer was complete");
    assert_eq!(error.usage, Some(usage));
}

#[test]
fn calls_without_an_id_get_one_and_doubled_ids_are_told_apart() {
    let parts = vec![
        started(0, None),
        started(1, Some("a")),
        started(2, Some("a")),
        started(3, Some("")),
        started(4, Some("a_2")),
        finished(FinishReason::ToolCalls),
    ];
    assert_eq!(ids(parts), ["made_1", "a", "a_2", "made_2", "a_2_2"]);
}

#[test]
fn a_call_cut_by_a_limit_is_not_made() {
    let parts =
        |reason| vec![started(0, Some("whole")), ended(0), started(1, Some("half")), finished(reason)];
    assert_eq!(ids(parts(FinishReason::Length)), ["whole"]);
    assert_eq!(ids(parts(FinishReason::ContentFilter)), ["whole"]);
    assert_eq!(ids(parts(FinishReason::ToolCalls)), ["whole", "half"]);
}

#[test]
fn an_interrupted_answer_keeps_its_text_and_complete_reasoning_and_no_call() {
    let items = partial(vec![
        reasoning("done"),
        Part::ReasoningEnd { opaque: None },
        text("first"),
        started(0, Some("a")),
        ended(0),
        text("second"),
        reasoning("half"),
    ]);
    assert_eq!(
        items,
        [
            Item::Reasoning { text: "done".to_owned(), opaque: None },
            assistant("first"),
            Item::Assistant { text: "second".to_owned(), partial: true },
        ]
    );
    assert_eq!(partial(vec![started(0, None)]), []);
}

#[test]
fn parts_that_make_no_sense_fail_the_attempt_and_say_why() {
    let check = |parts: Vec<Part>, why: &str| {
        let error = collect(parts).unwrap_err();
        assert_eq!(error.class, FailureClass::Server);
        assert_eq!(error.message, format!("the provider's stream made no sense: {why}"));
    };
    let start = || Part::Started { response_id: None };
    check(vec![start(), start()], "it began twice");
    check(vec![finished(FinishReason::Stop), text("more")], "it went on after its end");
    check(vec![started(0, None), started(0, None)], "call 0 began twice");
    check(vec![arguments(2, "{}")], "call 2 went on without having begun");
    check(vec![started(0, None), ended(0), arguments(0, "{}")], "call 0 went on after its end");
}

#[test]
fn an_answer_without_end_is_given_up_before_it_fills_the_memory() {
    let mebibyte = "x".repeat(1024 * 1024);
    let error = collect((0..100).map(|_| text(&mebibyte))).unwrap_err();
    assert_eq!(error.class, FailureClass::Server);
    assert!(error.message.contains("67108864 bytes"), "{error}");
}

#[test]
fn parts_are_read_back_as_they_were_written() {
    let item = Item::Opaque { provider: "x".to_owned(), value: json!({"type": "search"}) };
    let parts = [
        Part::Started { response_id: Some("r".to_owned()) },
        text("a"),
        reasoning("b"),
        Part::ReasoningEnd { opaque: Some(json!({"signature": "c"})) },
        started(1, Some("d")),
        arguments(1, "{}"),
        ended(1),
        Part::Item { item },
        Part::Usage { usage: Usage { output: 1, ..Usage::default() } },
        Part::Finished { reason: FinishReason::ToolCalls, raw: Some("tool_use".to_owned()) },
    ];
    for part in parts {
        let json = serde_json::to_string(&part).unwrap();
        assert_eq!(serde_json::from_str::<Part>(&json).unwrap(), part, "{json}");
    }
    assert_eq!(serde_json::to_string(&text("a")).unwrap(), r#"{"type":"text","text":"a"}"#);
}

/// Something an answer holds, before it is cut into parts.
#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Reasoning(String),
    Call(String),
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        "\\PC{0,12}".prop_map(Piece::Text),
        "\\PC{0,12}".prop_map(Piece::Reasoning),
        "\\PC{0,12}".prop_map(Piece::Call),
    ]
}

fn split(text: &str, sizes: &mut impl Iterator<Item = usize>) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let end = (at + sizes.next().expect("sizes repeat")).min(chars.len());
        pieces.push(chars[at..end].iter().collect());
        at = end;
    }
    pieces
}

fn parts_of(pieces: &[Piece], sizes: &[usize]) -> Vec<Part> {
    // A size of 0 is an empty part; the 1 makes sure that the splitting comes to an end.
    let mut sizes = sizes.iter().copied().chain([1]).cycle();
    let mut parts = Vec::new();
    for (index, piece) in (0_u32..).zip(pieces) {
        match piece {
            Piece::Text(all) => parts.extend(split(all, &mut sizes).iter().map(|piece| text(piece))),
            Piece::Reasoning(all) => {
                parts.extend(split(all, &mut sizes).iter().map(|piece| reasoning(piece)));
                parts.push(Part::ReasoningEnd { opaque: Some(json!(index)) });
            }
            Piece::Call(all) => {
                parts.push(started(index, None));
                parts.extend(split(all, &mut sizes).iter().map(|piece| arguments(index, piece)));
                parts.push(ended(index));
            }
        }
    }
    parts.push(finished(FinishReason::Stop));
    parts
}

proptest! {
    #[test]
    fn the_answer_is_the_same_however_it_was_cut(
        pieces in prop::collection::vec(piece(), 0..8),
        sizes in prop::collection::vec(0_usize..5, 0..8),
    ) {
        let whole = collect(parts_of(&pieces, &[usize::from(u8::MAX)])).unwrap();
        let cut = collect(parts_of(&pieces, &sizes)).unwrap();
        prop_assert_eq!(whole, cut);
    }
}
