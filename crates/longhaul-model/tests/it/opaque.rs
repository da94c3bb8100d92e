//! What a provider wants back unchanged (signatures, encrypted reasoning) stands in the next request as it came,
//! in every case that holds such a thing: ours, and those of a named folder.

use std::path::Path;
use std::sync::Arc;

use longhaul_session::agent::Request;
use longhaul_session::item::Item;
use serde_json::Value;

use crate::support::{calls_of, collect, result, user};
use crate::wire::{Case, OTHER_CASES, OUR_CASES, WIRES, Wire, decode, is_opaque, kept_in, load, texts_in};

/// Goes on from an answer and checks what is sent back of it. Returns how many values were looked for.
fn check(wire: &Wire, case: &Case) -> usize {
    let expected: Vec<&Value> = kept_in(&case.expect).collect();
    let ended = case.expect["error"].is_null() && case.expect["incomplete"] != true;
    let answer = decode(wire, [case.body.as_slice()]);
    if expected.is_empty() || !ended || answer.error.is_some() {
        return 0;
    }
    let mut items = vec![user("Go.")];
    let answer = collect(answer.parts).unwrap().items;
    let results: Vec<_> = calls_of(&answer).iter().map(|call| result(&call.id, "done")).collect();
    items.extend(answer);
    items.extend(results);
    // Where code ran is told as long as nobody has spoken since.
    let at_once = next_request(wire, &items);
    items.push(user("And?"));
    let later = next_request(wire, &items);
    let texts = [texts_in(&at_once), texts_in(&later)].concat();
    // What Google searched for is told of an answer and is no part of it.
    let part_of_it = |value: &&&Value| wire.api != "gemini" || value["kind"] != "query";
    for value in expected.iter().filter(part_of_it) {
        let sent = texts.iter().any(|text| is_opaque(value, text));
        assert!(sent, "{}, {}: {value} is not sent back in {later}", wire.api, case.id);
    }
    expected.len()
}

fn next_request(wire: &Wire, items: &[Item]) -> Value {
    let items = items.iter().cloned().map(Arc::new).collect();
    let request = Request { system: String::new(), items, tools: Arc::default(), previous: None };
    serde_json::from_slice(&(wire.codec)().request(&request).body).unwrap()
}

#[test]
fn what_is_opaque_goes_back_as_it_came() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let others = std::env::var_os(OTHER_CASES);
    for wire in &WIRES {
        let ours = load(&Path::new(OUR_CASES).join(wire.folder), wire);
        let checked: usize = ours.iter().map(|case| check(wire, case)).sum();
        assert!(checked > 0, "{}: none of our cases holds anything opaque", wire.api);
        if let Some(folder) = &others {
            let cases = load(Path::new(folder), wire);
            let cases = cases.iter().filter(|case| case.expect["error"].is_null());
            println!("{}: {} values sent back", wire.api, cases.map(|case| check(wire, case)).sum::<usize>());
        }
    }
}
