//! How long a provider asks to wait. Without a clock: dates are compared with the answer's own.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use crate::codec::ResponseHead;
use crate::limits::MAX_RETRY_AFTER_MS;

/// The status of an answer that refuses for now.
const RATE_LIMITED: u16 = 429;

/// Numbers from here on are seconds since 1970, and from the next on milliseconds: both are far
/// longer than any wait and far before today.
const EPOCH_S: f64 = 1e9;
const EPOCH_MS: f64 = 1e12;

/// Returns the wait the answer asks for, in milliseconds. What is most to the point wins.
pub(super) fn asked_for_ms(head: &ResponseHead, retry_delay: Option<&str>) -> Option<u64> {
    let exact = head.header("retry-after-ms").and_then(|value| bounded(value.trim().parse().ok()?));
    // LiteLLM passes the headers of whom it asked on under names of its own.
    let usual = || {
        let named = ["retry-after", "llm_provider-retry-after"];
        named.iter().find_map(|name| wait_ms(head.header(name)?, head))
    };
    let google = || retry_delay.and_then(|value| bounded(duration_ms(value)?));
    exact.or_else(usual).or_else(google).or_else(|| until_reset_ms(head))
}

/// Of the limits that are used up, the one that takes longest counts. When none says that it is
/// used up, the one that was hit is unknown, and the shortest is the least to wait; it is none of those that
/// say that something is left. Other failures have nothing to do with limits.
fn until_reset_ms(head: &ResponseHead) -> Option<u64> {
    let mut used_up = None;
    let mut shortest = None;
    for (name, reset) in head.headers.iter().filter(|_| head.status == RATE_LIMITED) {
        let Some(remaining) = what_remains(name) else { continue };
        // A limit that is full again says nothing of how long to wait.
        let Some(wait) = wait_ms(reset, head).filter(|wait| *wait > 0) else { continue };
        match head.header(&remaining).map(|left| left.trim() == "0") {
            Some(true) => used_up = used_up.max(Some(wait)),
            Some(false) => {}
            None => shortest = Some(shortest.map_or(wait, |it: u64| it.min(wait))),
        }
    }
    used_up.or(shortest)
}

/// Returns the name of the header that says how much is left of a limit, where the one named says when the limit is
/// full again. What is limited stands in the middle or at the end of both, as in `x-ratelimit-reset-tokens-minute`.
fn what_remains(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let is_reset = name.replace("rate-limit", "ratelimit").contains("ratelimit")
        && name.split('-').any(|part| part == "reset");
    is_reset.then(|| name.replacen("reset", "remaining", 1))
}

/// Reads a number of seconds, a duration ("6m0s"), an instant in seconds or milliseconds since
/// 1970, or a date. Instants need the answer's own date.
fn wait_ms(value: &str, head: &ResponseHead) -> Option<u64> {
    let value = value.trim();
    if let Ok(number) = value.parse::<f64>() {
        return match number {
            instant if instant >= EPOCH_MS => bounded(instant - answered_ms(head)?),
            instant if instant >= EPOCH_S => bounded(instant * 1_000.0 - answered_ms(head)?),
            seconds => bounded(seconds * 1_000.0),
        };
    }
    match duration_ms(value) {
        Some(duration) => bounded(duration),
        None => bounded(date_ms(value)? - answered_ms(head)?),
    }
}

fn answered_ms(head: &ResponseHead) -> Option<f64> {
    head.header("date").and_then(date_ms)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
fn date_ms(value: &str) -> Option<f64> {
    let value = value.trim();
    let http = rfc2822::parse(value).map(|date| date.timestamp());
    let usual = http.or_else(|_| value.parse::<Timestamp>()).ok();
    Some(usual.or_else(|| outdated(value))?.as_millisecond() as f64)
}

/// Reads the two forms of dates that HTTP had before, and that must still be understood (RFC 9110, 5.6.7).
fn outdated(value: &str) -> Option<Timestamp> {
    let forms = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let date = forms.iter().find_map(|form| DateTime::strptime(form, value).ok())?;
    date.to_zoned(TimeZone::UTC).ok().map(|date| date.timestamp())
}

/// Reads durations as the Go language writes them: "1.4s", "120ms", "6m0s", "1h2m3s".
fn duration_ms(value: &str) -> Option<f64> {
    let mut total = 0.0;
    let mut rest = value.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let units = &rest[digits..];
        let end = units.find(|c: char| c.is_ascii_digit()).unwrap_or(units.len());
        total += number
            * match &units[..end] {
                "ms" => 1.0,
                "s" => 1_000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                "d" => 86_400_000.0,
                _ => return None,
            };
        rest = &units[end..];
    }
    Some(total)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to 0 and a day"
)]
fn bounded(wait_ms: f64) -> Option<u64> {
    wait_ms.is_finite().then(|| wait_ms.ceil().clamp(0.0, MAX_RETRY_AFTER_MS as f64) as u64)
}
