//! Numbers as servers write them: whole ones also as floats and as texts.

use serde_json::Value;

/// Reads a number that counts something.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number that is not negative; larger ones become the largest"
)]
pub(crate) fn count(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && *number >= 0.0;
    let float = || value.as_f64().filter(whole).map(|number| number as u64);
    value.as_u64().or_else(float).or_else(|| value.as_str()?.trim().parse().ok())
}

/// Reads dollars, as routers state what they charge, and returns millionths of one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a number that is not negative; larger ones become the largest"
)]
pub(crate) fn micros(dollars: &Value) -> Option<u64> {
    dollars.as_f64().filter(|it| *it >= 0.0).map(|it| (it * 1e6).round() as u64)
}
