//! Exchanges with providers, as files: what came over the wire, and what is to be made of it. Each
//! is decoded whole and cut in many ways, and must come to the same. The format is
//! `longhaul-wire/1`; a case's `expect` is explained where it is compared.

use std::path::Path;

use longhaul_model::codec::{Codec, Decoder, ResponseHead};
use longhaul_model::{Error, FinishReason, Part, anthropic, gemini, openai_chat, openai_responses};
use longhaul_session::failure::FailureClass;
use longhaul_session::item::Item;
use longhaul_session::usage::Usage;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{calls_of, collect};

pub(crate) const OUR_CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
pub(crate) const OTHER_CASES: &str = "LONGHAUL_WIRE_CASES";

/// A wire, and what its cases are checked with.
pub(crate) struct Wire {
    /// Its name in a case.
    pub(crate) api: &'static str,
    /// The folder of our own cases.
    pub(crate) folder: &'static str,
    /// How many of ours there are at least.
    ours: usize,
    pub(crate) codec: fn() -> Box<dyn Codec>,
    /// Tells whether a text, without its white space, holds the word that ends an answer.
    ends: fn(&str) -> bool,
}

pub(crate) static WIRES: [Wire; 4] = [
    Wire {
        api: "openai-chat",
        folder: "openai_chat",
        ours: 165,
        codec: || Box::new(openai_chat::Codec::new(openai_chat::Options::new(URL, "test-model"))),
        ends: |text| text.contains("\"finish_reason\":\""),
    },
    Wire {
        api: "openai-responses",
        folder: "openai_responses",
        ours: 119,
        codec: || Box::new(openai_responses::Codec::new(openai_responses::Options::new(URL, "test-model"))),
        ends: |text| {
            ["completed", "incomplete", "done"].iter().any(|end| text.contains(&format!("response.{end}")))
        },
    },
    Wire {
        api: "anthropic",
        folder: "anthropic",
        ours: 113,
        codec: || Box::new(anthropic::Codec::new(anthropic::Options::new(URL, "test-model"))),
        ends: |text| text.contains("\"stop_reason\":\"") || text.contains("message_stop"),
    },
    Wire {
        api: "gemini",
        folder: "gemini",
        ours: 113,
        codec: || Box::new(gemini::Codec::new(gemini::Options::new(URL, "test-model"))),
        ends: |text| text.contains("\"finishReason\":\"") || text.contains("\"blockReason\":\""),
    },
];

const URL: &str = "https://provider.test/v1";

pub(crate) struct Case {
    wire: &'static Wire,
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    head: ResponseHead,
    pub(crate) expect: Value,
}

/// What became of an answer.
pub(crate) struct Outcome {
    pub(crate) parts: Vec<Part>,
    pub(crate) error: Option<Error>,
}

#[test]
fn every_case_of_ours_is_read_as_expected() {
    for wire in &WIRES {
        let cases = load(&Path::new(OUR_CASES).join(wire.folder), wire);
        assert!(cases.len() >= wire.ours, "{}: {} cases", wire.api, cases.len());
        check_all(&cases);
    }
}

#[test]
fn every_case_of_a_named_folder_is_read_as_expected() {
    #[expect(clippy::disallowed_methods, reason = "recordings are kept outside of the repository")]
    let Some(folder) = std::env::var_os(OTHER_CASES) else {
        println!("skipped: set {OTHER_CASES} to a folder of recorded cases to check them as well");
        return;
    };
    for wire in &WIRES {
        let cases = load(Path::new(&folder), wire);
        assert!(!cases.is_empty(), "no case for {} in {}", wire.api, folder.display());
        check_all(&cases);
        println!("checked {} cases of {}", cases.len(), wire.api);
    }
}

#[test]
fn a_cut_stream_is_never_a_finished_answer() {
    for wire in &WIRES {
        load(&Path::new(OUR_CASES).join(wire.folder), wire).iter().for_each(check_cuts);
    }
}

pub(crate) fn load(folder: &Path, wire: &'static Wire) -> Vec<Case> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut cases: Vec<Case> = files
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .filter_map(|it| read(&it, wire))
        .collect();
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    cases
}

fn read(path: &Path, wire: &'static Wire) -> Option<Case> {
    let mut case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    // One classifier serves all wires.
    if case["api"] != wire.api && case["response"]["status"].as_u64() < Some(400) {
        return None;
    }
    assert_eq!(case["format"], "longhaul-wire/1", "{}", path.display());
    let response = case["response"].take();
    let headers = response["headers"].as_object().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some(Case {
        wire,
        id: text(&case["id"]),
        body: text(&response["body"]).into_bytes(),
        head: ResponseHead {
            status: u16::try_from(response["status"].as_u64().unwrap()).unwrap(),
            headers: headers.map(|(name, value)| (name.clone(), text(value))).collect(),
        },
        expect: case["expect"].take(),
    })
}

fn check_all(cases: &[Case]) {
    for case in cases {
        if case.head.status >= 300 {
            let error = Some((case.wire.codec)().failure(&case.head, &case.body));
            compare(case, "as a status", &Outcome { parts: Vec::new(), error });
            continue;
        }
        compare(case, "whole", &decode(case.wire, [case.body.as_slice()]));
        compare(case, "byte by byte", &decode(case.wire, case.body.chunks(1)));
        let mut chance = Chance::new(&case.id);
        for round in 0..8 {
            compare(
                case,
                &format!("in random pieces, {round}"),
                &decode(case.wire, chance.pieces(&case.body)),
            );
        }
        if case.body.first().is_some_and(|byte| b":deir".contains(byte)) {
            let body = String::from_utf8(case.body.clone()).unwrap();
            let crlf = body.replace('\n', "\r\n");
            compare(case, "with CRLF", &decode(case.wire, chance.pieces(crlf.as_bytes())));
            let cr = body.replace('\n', "\r");
            compare(case, "with CR", &decode(case.wire, chance.pieces(cr.as_bytes())));
            let pinged = body.replace("\n\n", "\n\n: still here\n\nevent: ping\ndata: {}\n\n");
            compare(case, "with pings", &decode(case.wire, chance.pieces(pinged.as_bytes())));
        }
        check_cuts(case);
    }
}

pub(crate) fn decode<'a>(wire: &Wire, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder: Box<dyn Decoder> = (wire.codec)().decoder();
    let mut parts = Vec::new();
    let pushed = pieces.into_iter().try_for_each(|piece| decoder.push(piece, &mut parts));
    let error = pushed.and_then(|()| decoder.finish(&mut parts)).err();
    Outcome { parts, error }
}

/// A stream that is cut has not ended, unless the finish reason had come; a document has not
/// unless all of it had.
fn check_cuts(case: &Case) {
    let mut chance = Chance::new(&case.id);
    for _ in 0..40 {
        let cut = chance.below(case.body.len().max(1));
        let body = &case.body[..cut];
        let outcome = decode(case.wire, chance.pieces(body));
        let finished = matches!(outcome.parts.last(), Some(Part::Finished { .. }));
        assert_eq!(finished, outcome.error.is_none(), "{} cut at {cut}", case.id);
        let text = String::from_utf8_lossy(body).replace(char::is_whitespace, "");
        let reason_came = (case.wire.ends)(&text);
        let all_came = case.body[cut..].trim_ascii().is_empty();
        assert!(!finished || reason_came || all_came, "{} cut at {cut} counts as finished", case.id);
    }
}

fn compare(case: &Case, how: &str, outcome: &Outcome) {
    let at = format!("{}, {how}: error {:?}, parts {:#?}", case.id, outcome.error, outcome.parts);
    let expect = &case.expect;
    let said = |key: &str| expect[key].as_str().unwrap_or_default().to_owned();
    let text: String = outcome.parts.iter().filter_map(text_of).collect();
    assert_eq!(text, said("text"), "text: {at}");
    let refusal: String = outcome.parts.iter().filter_map(refusal_of).collect();
    assert_eq!(refusal, said("refusal"), "refusal: {at}");
    let thought: String = outcome.parts.iter().filter_map(reasoning_of).collect();
    assert_eq!(bare(&thought), bare(&said("reasoning_text")), "reasoning: {at}");
    let started: Vec<&Option<String>> = outcome.parts.iter().filter_map(response_id_of).collect();
    assert_eq!(started.first().and_then(|id| id.as_deref()), expect["response_id"].as_str(), "id: {at}");
    assert!(matches!(outcome.parts.first(), Some(Part::Started { .. }) | None), "begins: {at}");
    compare_usage(expect, outcome, &at);
    if expect["error"].is_object() || expect["incomplete"] == true {
        compare_error(case, outcome, &at);
    } else {
        compare_answer(case, outcome, &at);
    }
}

fn compare_answer(case: &Case, outcome: &Outcome, at: &str) {
    let expect = &case.expect;
    assert_eq!(outcome.error, None, "{at}");
    let answer = collect(outcome.parts.iter().cloned()).unwrap_or_else(|error| panic!("{error}: {at}"));
    let finish = match expect["finish_reason"].as_str() {
        Some("stop") | None => FinishReason::Stop,
        Some("tool_calls") => FinishReason::ToolCalls,
        Some("length") => FinishReason::Length,
        Some("content_filter") => FinishReason::ContentFilter,
        Some("pause") => FinishReason::Pause,
        Some(_) => FinishReason::Other,
    };
    assert_eq!(answer.finish, finish, "{at}");
    // Half a call is no call when something else than the model ended the answer.
    let whole = |call: &Value| call["args_invalid"] != true && call["args_text"] != "";
    let half = |call: &&Value| !whole(call) && !finish.is_natural();
    let wanted = expect["tool_calls"].as_array().unwrap().iter().filter(|call| !half(call));
    let calls = calls_of(&answer.items);
    assert_eq!(calls.len(), wanted.clone().count(), "calls: {at}");
    for (call, wanted) in calls.iter().zip(wanted) {
        assert_eq!(call.name, wanted["name"], "{at}");
        if let Some(id) = wanted["id"].as_str() {
            assert_eq!(call.id.0, id, "{at}");
        }
        match wanted["args_invalid"].as_bool() {
            Some(true) => assert_eq!(call.arguments, wanted["args_text"], "{at}"),
            Some(false) | None => {
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                assert_eq!(arguments, wanted["args"], "{at}");
            }
        }
    }
    let kept: Vec<&str> = answer.items.iter().filter_map(opaque_of).flat_map(texts_in).collect();
    for opaque in kept_in(expect) {
        assert!(kept.iter().any(|text| is_opaque(opaque, text)), "no {opaque} in {kept:?}: {at}");
    }
    if let Some(wanted) = expect["other_items"].as_array().filter(|_| case.wire.api == "openai-responses") {
        let others = answer.items.iter().filter_map(|item| {
            if let Item::Opaque { provider: _, value } = item { Some(value["type"].clone()) } else { None }
        });
        assert_eq!(&others.collect::<Vec<Value>>(), wanted, "other items: {at}");
    }
}

/// Returns what a case says must be kept as it came: signatures and what is encrypted, and of our own cases
/// also (`kept`) what else is the provider's.
pub(crate) fn kept_in(expect: &Value) -> impl Iterator<Item = &Value> {
    ["opaque", "kept"].iter().filter_map(|key| expect[*key].as_array()).flatten()
}

/// Tells whether a text is the one described by its length and the beginning of its digest.
pub(crate) fn is_opaque(described: &Value, text: &str) -> bool {
    let digest = || Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let same = |wanted: &str| digest() == wanted;
    described["chars"] == text.chars().count() && described["sha256"].as_str().is_none_or(same)
}

pub(crate) fn texts_in(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(values) => values.iter().flat_map(texts_in).collect(),
        Value::Object(values) => values.values().flat_map(texts_in).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn compare_usage(expect: &Value, outcome: &Outcome, at: &str) {
    let newest = outcome.parts.iter().rev().find_map(usage_of);
    let usage = newest.unwrap_or_default();
    let number = |key: &str| expect["usage"][key].as_u64().unwrap_or(0);
    let notes = expect["usage_notes"].as_array().cloned().unwrap_or_default();
    let hidden = notes.iter().any(|note| note == "usage-total-exceeds-parts");
    let output = if hidden { usage.output } else { number("output_tokens") };
    let wanted = Usage {
        input: number("input_tokens"),
        cached_input: number("cached_input_tokens"),
        cache_write: number("cache_write_tokens"),
        output,
        reasoning: number("reasoning_tokens"),
        cost_micros: expect["cost_micros"].as_u64().unwrap_or(usage.cost_micros),
    };
    assert_eq!(usage, wanted, "usage: {at}");
    if let Some(error) = outcome.error.as_ref().filter(|_| newest.is_some()) {
        assert_eq!(error.usage, newest, "what was paid is in the error: {at}");
    }
}

fn compare_error(case: &Case, outcome: &Outcome, at: &str) {
    let expect = &case.expect;
    let error = outcome.error.as_ref().unwrap_or_else(|| panic!("no error: {at}"));
    let wanted = &expect["error"];
    // The runtime asks again in another way; whether the same request may pass, only the status or the code tells.
    let asks_otherwise = matches!(error.class, FailureClass::ContextOverflow | FailureClass::ChainBroken);
    let limited = String::from_utf8_lossy(&case.body).contains("rate_limit_exceeded");
    let passing = limited || matches!(case.head.status, 408 | 409 | 429 | 500..);
    let again = error.class.is_retryable() && (passing || !asks_otherwise);
    assert_eq!(again, wanted["retryable"].as_bool().unwrap_or(true), "retryable: {at}");
    if let Some(after_s) = wanted["retry_after_s"].as_f64() {
        assert_eq!(error.retry_after_ms.unwrap() as f64, after_s * 1_000.0, "{at}");
    }
    let raw = expect["finish_reason_raw"].as_str();
    assert_eq!(error.finish_raw.as_deref(), raw, "the provider's word: {at}");
    if wanted["class"].is_string() {
        assert_eq!(serde_json::to_value(error.class).unwrap(), wanted["class"], "{at}");
    }
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{at}");
    let finished = outcome.parts.iter().any(|part| matches!(part, Part::Finished { .. }));
    assert!(!finished, "an answer that failed is not finished: {at}");
}

fn bare(text: &str) -> String {
    text.replace(char::is_whitespace, "")
}

fn text_of(part: &Part) -> Option<&str> {
    if let Part::Text { text } = part { Some(text) } else { None }
}

fn refusal_of(part: &Part) -> Option<&str> {
    if let Part::Refusal { text } = part { Some(text) } else { None }
}

fn reasoning_of(part: &Part) -> Option<&str> {
    if let Part::Reasoning { text } = part { Some(text) } else { None }
}

fn response_id_of(part: &Part) -> Option<&Option<String>> {
    if let Part::Started { response_id } = part { Some(response_id) } else { None }
}

fn usage_of(part: &Part) -> Option<Usage> {
    if let Part::Usage { usage } = part { Some(*usage) } else { None }
}

fn opaque_of(item: &Item) -> Option<&Value> {
    match (item.tool_call(), item) {
        (Some(call), _) => call.opaque.as_ref(),
        (None, Item::Reasoning { opaque, .. }) => opaque.as_ref(),
        (None, Item::Opaque { value, .. }) => Some(value),
        (None, _) => None,
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: &str) -> Self {
        Chance(
            seed.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            }),
        )
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    pub(crate) fn pieces<'a>(&mut self, mut body: &'a [u8]) -> Vec<&'a [u8]> {
        let longest = 1 + self.below(200);
        let mut pieces = Vec::new();
        while !body.is_empty() {
            let (piece, rest) = body.split_at((1 + self.below(longest)).min(body.len()));
            pieces.push(piece);
            body = rest;
        }
        pieces
    }
}
