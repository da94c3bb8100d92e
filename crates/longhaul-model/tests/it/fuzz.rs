//! Every decoder against what no provider would send: our cases and a small corpus, changed at random. No
//! input may panic, take memory out of proportion, make parts that make no sense together, or come to
//! something else when it is cut in other places.
//!
//! A run is short and the same each time. Two variables change that:
//! `LONGHAUL_FUZZ_SECONDS` makes it go on, with new inputs, for that long; `LONGHAUL_FUZZ_SEED` begins
//! elsewhere, or repeats one input that failed.

use std::path::Path;
use std::time::{Duration, Instant};

use longhaul_model::{Accumulator, Part};
use longhaul_session::id::CallId;
use serde_json::{Value, json};

use crate::wire::{Chance, OUR_CASES, Outcome, WIRES, Wire, decode, load};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// Inputs of a short run, for all wires together.
const SHORT_RUN: u64 = 6_000;

/// The parts of an answer may be this many times as large as what came over the wire, and a bit: an empty
/// opaque item names its wire and its server.
const MOST_GROWTH: usize = 64;
const SLACK_BYTES: usize = 4 * 1024;

/// The most memory a run may ever take, in KiB: the inputs are small, so it is that of the program.
const MAX_MEMORY_KIB: u64 = 512 * 1024;

/// What is put in the place of something else.
const WORDS: [&str; 20] = [
    "data: ",
    "\n\n",
    "\r\n\r\n",
    "\r",
    "event: error\n",
    "data: [DONE]\n\n",
    ": ping\n\n",
    "[",
    "]",
    "{",
    "}",
    "\"",
    ",",
    ":",
    "null",
    "\\",
    "\\ud800",
    "\u{feff}",
    "1e999",
    "\0",
];

/// Says how to repeat the input that a test was at when it failed.
struct Replay {
    seed: u64,
    wire: &'static str,
}

impl Drop for Replay {
    #[expect(clippy::print_stdout, reason = "whoever reads why a test failed wants to see it fail again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}: LONGHAUL_FUZZ_SEED={} repeats the input that failed", self.wire, self.seed);
        }
    }
}

#[test]
fn no_input_breaks_a_decoder() {
    let corpora: Vec<Vec<Vec<u8>>> = WIRES.iter().map(corpus).collect();
    let begin = number("LONGHAUL_FUZZ_SEED").unwrap_or(0);
    let seconds = number("LONGHAUL_FUZZ_SECONDS");
    #[expect(clippy::disallowed_methods, reason = "how long a run goes on is said in seconds")]
    let started = Instant::now();
    let goes_on = |done: u64| match seconds {
        Some(seconds) => started.elapsed() < Duration::from_secs(seconds),
        None => done < SHORT_RUN,
    };
    let mut seed = begin;
    while goes_on(seed - begin) {
        let at = usize::try_from(seed % WIRES.len() as u64).unwrap();
        let (wire, corpus) = (&WIRES[at], &corpora[at]);
        let _replay = Replay { seed, wire: wire.api };
        let mut chance = Chance::new(&format!("{} {seed}", wire.api));
        let input = changed(&mut chance, corpus);
        check(wire, &mut chance, &input);
        seed += 1;
    }
    println!("{} inputs, from seed {begin}", seed - begin);
    let peak_kib = peak_memory_kib().unwrap_or(0);
    assert!(peak_kib <= MAX_MEMORY_KIB, "{peak_kib} KiB of memory");
}

fn number(variable: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a run is made longer from outside")]
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a whole number, not {value:?}")))
}

/// The bodies of our cases of a wire, and what is bad for all wires.
fn corpus(wire: &'static Wire) -> Vec<Vec<u8>> {
    let cases = load(&Path::new(OUR_CASES).join(wire.folder), wire);
    let mut corpus: Vec<Vec<u8>> = cases.into_iter().map(|case| case.body).collect();
    let mut files: Vec<_> = std::fs::read_dir(CORPUS).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    corpus.extend(files.into_iter().map(|path| std::fs::read(path).unwrap()));
    corpus
}

fn check(wire: &Wire, chance: &mut Chance, input: &[u8]) {
    let whole = decode(wire, [input]);
    let shown = || format!("{}: {:?}", wire.api, String::from_utf8_lossy(input));
    let cut = [decode(wire, input.chunks(1)), decode(wire, chance.pieces(input))];
    for Outcome { parts, error } in &cut {
        assert_eq!((parts, error), (&whole.parts, &whole.error), "cut elsewhere: {}", shown());
    }
    let ends = whole.parts.iter().filter(|part| matches!(part, Part::Finished { .. })).count();
    assert_eq!(ends, usize::from(whole.error.is_none()), "ends: {}", shown());
    let bytes = serde_json::to_vec(&whole.parts).unwrap().len();
    assert!(bytes <= input.len() * MOST_GROWTH + SLACK_BYTES, "{bytes} bytes of parts: {}", shown());
    let mut answer = Accumulator::new(|| CallId("made".to_owned()));
    for part in whole.parts {
        answer.push(part).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    }
    assert_eq!(answer.finish().is_ok(), whole.error.is_none(), "{}", shown());
}

/// Takes an input from the corpus and changes it in a few places.
fn changed(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[chance.below(corpus.len())].clone();
    for _ in 0..1 + chance.below(4) {
        let (from, to) = range(chance, input.len());
        match chance.below(9) {
            0 => input.truncate(from),
            1 => drop(input.drain(from..to)),
            2 => {
                let twice = input[from..to].to_vec();
                input.splice(from..from, twice);
            }
            3 => {
                let other = &corpus[chance.below(corpus.len())];
                let (begin, end) = range(chance, other.len());
                input.splice(from..to, other[begin..end].iter().copied());
            }
            4 => {
                let word = WORDS[chance.below(WORDS.len())];
                input.splice(from..from, word.bytes());
            }
            5 if from < input.len() => input[from] ^= 1 << chance.below(8),
            _ => input = restated(chance, &input),
        }
    }
    input
}

/// A range that is mostly short.
fn range(chance: &mut Chance, len: usize) -> (usize, usize) {
    let from = chance.below(len + 1);
    let most = if chance.below(4) == 0 { len - from } else { (len - from).min(40) };
    (from, from + chance.below(most + 1))
}

/// Changes the meaning of one event, or of the document, and leaves it JSON.
fn restated(chance: &mut Chance, input: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(input);
    if let Ok(mut document) = serde_json::from_str::<Value>(&text) {
        twist(chance, &mut document);
        return document.to_string().into_bytes();
    }
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let at = chance.below(lines.len());
    let line = lines.iter_mut().skip(at).find_map(|line| {
        let event = serde_json::from_str::<Value>(line.strip_prefix("data:")?.trim()).ok()?;
        Some((line, event))
    });
    if let Some((line, mut event)) = line {
        twist(chance, &mut event);
        *line = format!("data: {event}");
    }
    lines.join("\n").into_bytes()
}

/// Goes down to some value and puts another in its place, or takes it away, or gives it another's name.
fn twist(chance: &mut Chance, value: &mut Value) {
    let deeper = chance.below(4) != 0;
    match value {
        Value::Array(values) if deeper && !values.is_empty() => {
            let at = chance.below(values.len());
            match chance.below(8) {
                0 => drop(values.remove(at)),
                1 => values.push(values[at].clone()),
                _ => twist(chance, &mut values[at]),
            }
        }
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = &names[chance.below(names.len())];
            match chance.below(8) {
                0 => drop(fields.remove(name)),
                1 => {
                    let moved = fields.remove(name).unwrap();
                    fields.insert(names[chance.below(names.len())].clone(), moved);
                }
                _ => twist(chance, &mut fields[name]),
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => *value = strange(chance),
    }
}

fn strange(chance: &mut Chance) -> Value {
    let strange = [
        Value::Null,
        json!(""),
        json!("a"),
        json!("7"),
        json!("{\"a\":"),
        json!("é\u{1F600}".repeat(300)),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!([]),
        json!({}),
        json!([null, {}, "x"]),
        json!({ "text": "x", "type": "text", "error": { "message": "m", "code": 529 } }),
    ];
    strange[chance.below(strange.len())].clone()
}

/// Returns the most memory this process ever took, where the system tells.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
