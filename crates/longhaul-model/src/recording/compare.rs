//! Compares a request with the recorded one, after taking out of both what differs from run to run: the
//! places of directories, dates, ids and durations.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use similar::TextDiff;

use super::Request;
use crate::secret::MASK;

/// The most lines of a difference that are told.
const MAX_LINES: usize = 40;
/// The longest line of a request when it is laid out for comparison, in characters: texts are folded there.
const FOLD: usize = 110;

/// Directories, and what stands for them in comparisons. The longest comes first: one may be in another.
#[derive(Debug)]
pub(super) struct Places(Vec<(String, String)>);

impl Places {
    pub(super) fn new(directories: &BTreeMap<String, String>) -> Self {
        let mut places: Vec<(String, String)> = directories
            .iter()
            .filter(|(_, path)| path.len() > 1)
            .map(|(name, path)| (path.clone(), format!("<{name}>")))
            .collect();
        places.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Places(places)
    }
}

/// Returns how a request differs from the recorded one; `None` when it does not.
pub(super) fn difference(recorded: &Request, asked: &Request, places: &(Places, Places)) -> Option<String> {
    let recorded = settled(&laid_out(recorded), &places.0);
    let mut asked = settled(&laid_out(asked), &places.1);
    mask_alike(&recorded, &mut asked);
    if recorded == asked {
        return None;
    }
    let (old, new) = (lines(&recorded), lines(&asked));
    let diff = TextDiff::from_lines(&old, &new);
    let diff = diff.unified_diff().context_radius(3).header("recorded", "asked now").to_string();
    let all: Vec<&str> = diff.lines().collect();
    let more = all.len().saturating_sub(MAX_LINES);
    let mut shown = all[..all.len() - more].join("\n");
    if more > 0 {
        shown.push_str(&format!("\n({more} more lines differ)"));
    }
    Some(shown)
}

fn laid_out(request: &Request) -> Value {
    let Request { method, path, headers, body } = request;
    json!({ "method": method, "path": path, "headers": headers, "body": body })
}

/// Masks in what is asked now what was masked when it was recorded: nobody may know the keys any more.
fn mask_alike(recorded: &Value, asked: &mut Value) {
    match (recorded, asked) {
        (Value::String(recorded), Value::String(asked)) => {
            if recorded.contains(MASK) && is_masked(recorded, asked) {
                asked.clone_from(recorded);
            }
        }
        (Value::Array(recorded), Value::Array(asked)) => {
            recorded.iter().zip(asked).for_each(|(recorded, asked)| mask_alike(recorded, asked));
        }
        (Value::Object(recorded), Value::Object(asked)) => {
            for (name, asked) in asked {
                if let Some(recorded) = recorded.get(name) {
                    mask_alike(recorded, asked);
                }
            }
        }
        (_, _) => {}
    }
}

/// Tells whether a text is the masked one but for what is masked.
fn is_masked(masked: &str, text: &str) -> bool {
    let pieces: Vec<&str> = masked.split(MASK).collect();
    let [first, between @ .., last] = &pieces[..] else { return masked == text };
    let rest = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let rest = rest.and_then(|rest| {
        between.iter().try_fold(rest, |rest, piece| rest.find(piece).map(|at| &rest[at + piece.len()..]))
    });
    rest.is_some()
}

fn settled(value: &Value, places: &Places) -> Value {
    match value {
        Value::String(text) => Value::String(settled_text(text, places)),
        Value::Array(values) => values.iter().map(|value| settled(value, places)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), settled(value, places))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn settled_text(text: &str, Places(places): &Places) -> String {
    let text = places.iter().fold(text.to_owned(), |text, (path, name)| text.replace(path, name));
    let mut settled = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let begins_word = !settled.ends_with(|last: char| last.is_ascii_alphanumeric());
        match begins_word.then(|| volatile(rest)).flatten() {
            Some((length, name)) => {
                settled.push_str(name);
                rest = &rest[length..];
            }
            None => {
                settled.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    settled
}

/// Tells whether a text begins with something that differs from run to run: how long it is, and its name.
fn volatile(text: &str) -> Option<(usize, &'static str)> {
    const SHAPES: [(&str, &str); 7] = [
        ("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "<id>"),
        ("0000-00-00T00:00:00", "<time>"),
        ("0000-00-00 00:00:00", "<time>"),
        ("0000-00-00", "<date>"),
        ("call_#_#_#", "<call>"),
        ("after #.0 s", "after <duration>"),
        ("00:00:00", "<time>"),
    ];
    SHAPES.iter().find_map(|(shape, name)| {
        let mut length = matched(text, shape)?;
        if *name == "<time>" {
            length += fraction_and_zone(&text[length..]);
        }
        let ends_word = !text[length..].starts_with(|next: char| next.is_ascii_alphanumeric());
        ends_word.then_some((length, *name))
    })
}

/// Matches the beginning of a text with a shape, in which `0` is a digit, `#` some digits, `x` a digit of
/// sixteen, and all else itself. Returns how much of the text that is.
fn matched(text: &str, shape: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    for wanted in shape.bytes() {
        let next = *bytes.get(at)?;
        match wanted {
            b'#' => {
                let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits == 0 {
                    return None;
                }
                at += digits;
                continue;
            }
            b'0' if next.is_ascii_digit() => {}
            b'x' if next.is_ascii_hexdigit() => {}
            b'0' | b'x' => return None,
            same if same == next => {}
            _ => return None,
        }
        at += 1;
    }
    Some(at)
}

/// Returns how long a fraction of a second and a zone are that follow a time.
fn fraction_and_zone(text: &str) -> usize {
    let fraction = match text.strip_prefix(['.', ',']) {
        Some(rest) => 1 + rest.bytes().take_while(u8::is_ascii_digit).count(),
        None => 0,
    };
    let rest = &text[fraction..];
    let zone = if rest.starts_with('Z') { 1 } else { matched(rest, "+00:00").unwrap_or(0) };
    fraction + zone
}

/// Lays a value out in lines that can be compared: texts are folded at their line breaks, and where they are
/// long.
fn lines(value: &Value) -> String {
    let mut text = String::new();
    for line in format!("{value:#}").replace("\\n", "\\n\n").lines() {
        let letters: Vec<char> = line.chars().collect();
        for piece in letters.chunks(FOLD) {
            text.extend(piece);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Places, difference, is_masked, settled_text};
    use crate::recording::Request;

    fn places(directories: &[(&str, &str)]) -> Places {
        let pair = |(name, path): &(&str, &str)| ((*name).to_owned(), (*path).to_owned());
        Places::new(&directories.iter().map(pair).collect())
    }

    fn request(body: serde_json::Value) -> Request {
        let (method, path) = ("POST".to_owned(), "/v1/chat/completions".to_owned());
        Request { method, path, headers: BTreeMap::new(), body }
    }

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        let places = places(&[("directory", "/srv/a/work"), ("start", "/srv/a"), ("home", "/")]);
        for (text, expected) in [
            (
                "Today is 2026-11-20. In /srv/a/work/x and /srv/a.",
                "Today is <date>. In <directory>/x and <start>.",
            ),
            ("at 2026-11-20T13:57:35.123+01:00, 2026-11-20 13:57:35Z", "at <time>, <time>"),
            ("09:00:01 started", "<time> started"),
            ("id=01a1f951-5d64-7000-8000-00c0ffee0000!", "id=<id>!"),
            ("call_12_1_3 and call_a", "<call> and call_a"),
            ("[exit code 0 after 12.3 s]", "[exit code 0 after <duration>]"),
            ("1.2026-11-20x 2026-11-201 a2026-11-20", "1.2026-11-20x 2026-11-201 a2026-11-20"),
            ("version 1.2.3, 12 files, ünï 日本", "version 1.2.3, 12 files, ünï 日本"),
        ] {
            assert_eq!(settled_text(text, &places), expected);
        }
    }

    #[test]
    fn the_order_of_fields_and_masked_keys_are_no_difference() {
        let none = || (places(&[]), places(&[]));
        let text = |text: &str| request(serde_json::from_str(text).unwrap());
        let recorded = text(r#"{"a":1,"b":["[masked] and [masked]",{"c":null}]}"#);
        assert_eq!(difference(&recorded, &text(r#"{"b":["x and y",{"c":null}],"a":1}"#), &none()), None);
        let other = difference(&recorded, &text(r#"{"b":["x or y",{"c":null}],"a":1}"#), &none()).unwrap();
        assert!(other.contains("-      \"[masked] and [masked]\",\n+      \"x or y\","), "{other}");
        assert!(difference(&recorded, &text(r#"{"a":1}"#), &none()).is_some());
        let elsewhere = Request { path: "/v1/responses".to_owned(), ..recorded.clone() };
        assert!(difference(&recorded, &elsewhere, &none()).is_some());
    }

    #[test]
    fn a_masked_text_fits_what_differs_only_where_it_is_masked() {
        for (text, fits) in
            [("a-1-b", true), ("a--b", true), ("a-b", false), ("a-1-c", false), ("a-[masked]-b", true)]
        {
            assert_eq!(is_masked("a-[masked]-b", text), fits, "{text}");
        }
        assert!(
            is_masked("[masked]", "")
                && is_masked("[masked]x[masked]", "1x2")
                && !is_masked("[masked]x[masked]", "12")
        );
    }
}
