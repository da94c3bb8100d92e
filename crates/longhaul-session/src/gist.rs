//! The gist of an output: what it says but for how long something took and at what time of day. By it
//! repetition is found: a command that does the same again rarely takes as long.

use crate::id::Digest;

/// What stands for a time.
const TIME: u8 = b'~';
/// Units of durations, as programs write them.
const UNITS: [&str; 14] = [
    "ns", "us", "µs", "ms", "s", "sec", "secs", "second", "seconds", "min", "mins", "minute", "minutes", "h",
];

/// Returns the digest of an output without the durations and times of day in it.
pub(crate) fn gist(output: &str) -> Digest {
    let bytes = output.as_bytes();
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        // `T` stands between a date and a time.
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() && byte != b'T' || matches!(byte, b'.' | b'_');
        let begins = at == 0 || !in_word(bytes[at - 1]);
        let length = if begins { time(&bytes[at..]) } else { None };
        kept.push(if length.is_some() { TIME } else { bytes[at] });
        at += length.unwrap_or(1);
    }
    Digest::of(&kept)
}

/// Returns how long the time is that a text begins with, if it begins with one.
fn time(text: &[u8]) -> Option<usize> {
    clock(text).or_else(|| duration(text))
}

/// `09:00:01`, also with a fraction.
fn clock(text: &[u8]) -> Option<usize> {
    let is_part = |(at, byte): (usize, &u8)| {
        if at % 3 == 2 { *byte == b':' } else { byte.is_ascii_digit() }
    };
    let fits = text.get(..8)?.iter().enumerate().all(is_part);
    fits.then(|| 8 + fraction(&text[8..]))
}

/// `12.3 s` and the like; also `0m0.003s`.
fn duration(text: &[u8]) -> Option<usize> {
    let mut at = number(text)?;
    if text.get(at) == Some(&b'm') {
        at += number(&text[at + 1..]).map_or(0, |length| 1 + length);
    }
    at += usize::from(text.get(at) == Some(&b' '));
    let ends =
        UNITS.iter().filter(|unit| text[at..].starts_with(unit.as_bytes())).map(|unit| at + unit.len());
    let ends_word = |end: &usize| !text.get(*end).is_some_and(u8::is_ascii_alphanumeric);
    ends.filter(ends_word).max()
}

fn number(text: &[u8]) -> Option<usize> {
    let whole = digits(text);
    (whole > 0).then(|| whole + fraction(&text[whole..]))
}

fn fraction(text: &[u8]) -> usize {
    match text {
        [b'.' | b',', rest @ ..] if digits(rest) > 0 => 1 + digits(rest),
        _ => 0,
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}
