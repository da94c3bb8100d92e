//! Event streams, cut anywhere.

use longhaul_model::sse::{Event, Parser, TooLarge};
use proptest::prelude::*;

fn parse(pieces: &[&[u8]]) -> (Vec<Event>, Option<Event>) {
    let mut parser = Parser::new(1_000);
    let mut events = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut events).unwrap();
    }
    (events, parser.finish())
}

fn data(text: &str) -> Vec<String> {
    let (events, _) = parse(&[text.as_bytes()]);
    events.into_iter().map(|event| event.data).collect()
}

#[test]
fn fields_are_read_as_the_standard_says() {
    let stream = ": comment\nevent: add\nid: 7\nretry: 1500\ndata: one\ndata:two\ndata:  three\nother: x\n\n\
                  data: next\n\n";
    let (events, rest) = parse(&[stream.as_bytes()]);
    let first = Event {
        event: Some("add".to_owned()),
        data: "one\ntwo\n three".to_owned(),
        id: Some("7".to_owned()),
        retry_ms: Some(1_500),
    };
    let second = Event { data: "next".to_owned(), id: Some("7".to_owned()), ..Event::default() };
    assert_eq!(events, [first, second]);
    assert_eq!(rest, None);
}

#[test]
fn an_error_in_a_field_of_that_name_is_an_event_of_that_name() {
    let (events, _) = parse(&[b"data: one\n\nerror: {}\n\ndata: two\n\n"]);
    let read: Vec<_> = events.iter().map(|event| (event.event.as_deref(), event.data.as_str())).collect();
    assert_eq!(read, [(None, "one"), (Some("error"), "{}"), (None, "two")]);
}

#[test]
fn all_line_ends_may_be_mixed() {
    assert_eq!(data("data: a\r\n\r\ndata: b\r\rdata: c\n\ndata: d\r\n\n"), ["a", "b", "c", "d"]);
}

#[test]
fn an_event_without_data_is_none_and_empty_data_is_one() {
    assert_eq!(data("\n\n\nevent: ping\n\nid: 3\n\ndata\n\ndata:\n\n"), ["", ""]);
}

#[test]
fn only_the_first_line_may_begin_with_a_byte_order_mark() {
    assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\ndata: c\n\n"), ["a", "c"]);
}

#[test]
fn ids_with_nul_and_retries_that_are_no_number_are_ignored() {
    let (events, _) = parse(&[b"id: 1\ndata: a\n\nid: 2\0\nretry: 1s\ndata: b\n\n"]);
    assert_eq!(events[1], Event { data: "b".to_owned(), id: Some("1".to_owned()), ..Event::default() });
}

#[test]
fn an_event_that_the_end_cut_off_is_returned_apart() {
    let (events, rest) = parse(&[b"data: a\n\ndata: b"]);
    assert_eq!(events.len(), 1);
    assert_eq!(rest.unwrap().data, "b");
}

#[test]
fn an_event_that_is_too_large_is_an_error() {
    let mut one_line = Parser::new(1_000);
    let mut many_lines = Parser::new(1_000);
    let mut events = Vec::new();
    let outcomes = (0..200).map(|_| one_line.push(b"data: endless ", &mut events));
    assert!(outcomes.last().unwrap() == Err(TooLarge { max_bytes: 1_000 }));
    let outcomes = (0..200).map(|_| many_lines.push(b"data: endless \n", &mut events));
    assert!(outcomes.last().unwrap() == Err(TooLarge { max_bytes: 1_000 }));
    assert!(events.is_empty());
}

fn a_line() -> impl Strategy<Value = String> {
    let field = prop_oneof![Just("data"), Just("event"), Just("id"), Just("retry"), Just(""), Just("x")];
    let text = prop_oneof!["[a-z0-9äß東🚀: ]{0,12}", "[0-9]{1,4}"];
    prop_oneof![
        4 => (field, text).prop_map(|(field, text)| format!("{field}: {text}")),
        3 => Just(String::new()),
    ]
}

fn a_stream() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    let lines = prop::collection::vec((a_line(), end), 0..12);
    (any::<bool>(), lines).prop_map(|(marked, lines)| {
        let mut stream = if marked { "\u{feff}".to_owned() } else { String::new() };
        for (line, end) in lines {
            stream.push_str(&line);
            stream.push_str(end);
        }
        stream.into_bytes()
    })
}

proptest! {
    #[test]
    fn every_cut_gives_the_same_events(stream in a_stream()) {
        let whole = parse(&[&stream]);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            prop_assert_eq!(&parse(&[head, tail]), &whole);
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&parse(&bytes), &whole);
    }

    #[test]
    fn no_bytes_break_the_parser(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        let (events, _) = parse(&[&stream]);
        prop_assert!(events.iter().all(|event| event.data.len() <= 3 * stream.len()));
    }
}
