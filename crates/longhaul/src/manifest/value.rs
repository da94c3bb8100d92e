//! Values of a manifest that have a unit or a range. Each reads itself, says what is wrong and what to
//! write instead, and knows its JSON schema.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::quoted;
use crate::amount;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The longest time that can be set.
const MAX_TIME_MS: u64 = 365 * DAY_MS;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The shortest output a tool may be held to: less would not hold the note that it was cut.
const MIN_SIZE_BYTES: u64 = KIB;
/// The longest one: no more than this is kept of an output anyway.
const MAX_SIZE_BYTES: u64 = longhaul_tools::limits::MAX_WHOLE_BYTES as u64;
/// The largest file that may be meant.
const MAX_FILE_BYTES: u64 = 1024 * MIB;

/// Far more tokens than any model takes.
const MAX_TOKENS: i64 = 1_000_000_000;
/// Far more dollars than a million tokens cost anywhere.
const MAX_PRICE: f64 = 1e6;

/// How long something goes on, in milliseconds; may be nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) u64);

/// How long something may take, in milliseconds; more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeLimit(pub(super) u64);

/// How long an output may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

/// How often something may happen; at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

/// A number of tokens; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Tokens(pub(super) u64);

/// How many tokens a goal may use; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenBudget(pub(super) u64);

/// How long a goal may be worked on, in milliseconds; more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkTime(pub(super) u64);

/// What a goal may cost, in millionths of a US dollar; more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Money(pub(super) u64);

/// How much chance there is in answers; not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Temperature(pub(super) f64);

/// What a million tokens cost, in millionths of a US dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Price(pub(super) u64);

/// How full a context may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threshold {
    /// So many hundredths of the model's window.
    Percent(u64),
    /// So many tokens.
    Tokens(u64),
}

/// What stands in the file, before it is known to fit.
enum Scalar {
    Text(String),
    Whole(i64),
    Number(f64),
    Other(&'static str),
}

/// A value that is read from one scalar.
trait FromScalar: Sized {
    /// Says what to write, as the second line of a fault.
    const HINT: &'static str;

    /// Takes the scalar, or says in a few words why it does not fit.
    fn from_scalar(scalar: Scalar) -> Result<Self, String>;

    fn schema() -> Schema;
}

macro_rules! scalar_values {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let scalar = deserializer.deserialize_any(AnyScalar)?;
                $name::from_scalar(scalar)
                    .map_err(|what| serde::de::Error::custom(format!("{what}\n{}", $name::HINT)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $name::schema()
            }
        }
    )*};
}

scalar_values!(
    Period,
    TimeLimit,
    Size,
    FileSize,
    Count,
    Tokens,
    Temperature,
    Price,
    Threshold,
    TokenBudget,
    WorkTime,
    Money
);

impl FromScalar for Period {
    const HINT: &'static str =
        "write a whole number with its unit, such as \"90s\", \"15m\" or \"2h\" (ms, s, m, h, d)";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let Scalar::Text(text) = scalar else { return Err(scalar.is_no("time")) };
        let units = [("ms", 1), ("s", SECOND_MS), ("m", MINUTE_MS), ("h", HOUR_MS), ("d", DAY_MS)];
        let ms = with_unit(&text, &units).ok_or_else(|| format!("{} is no time", quoted(&text)))?;
        if ms > MAX_TIME_MS {
            return Err(format!("{} is more than a year", quoted(&text)));
        }
        Ok(Period(ms))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$", "examples": ["90s", "15m"] })
    }
}

/// How large a file may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSize(pub(super) u64);

impl FromScalar for TimeLimit {
    const HINT: &'static str = Period::HINT;

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        match Period::from_scalar(scalar)?.0 {
            0 => Err("with no time at all nothing can be done".to_owned()),
            ms => Ok(TimeLimit(ms)),
        }
    }

    fn schema() -> Schema {
        Period::schema()
    }
}

impl FromScalar for Size {
    const HINT: &'static str =
        "write a size from 1 KiB to 4 MiB: bytes, or a text such as \"64KiB\" (B, kB, KiB, MB, MiB)";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let bytes = bytes(&scalar, MAX_SIZE_BYTES)?;
        Ok(Size(usize::try_from(bytes).expect("the largest size fits the memory")))
    }

    fn schema() -> Schema {
        bytes_schema(MAX_SIZE_BYTES)
    }
}

impl FromScalar for FileSize {
    const HINT: &'static str =
        "write a size from 1 KiB to 1024 MiB: bytes, or a text such as \"5MB\" (B, kB, KiB, MB, MiB)";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        bytes(&scalar, MAX_FILE_BYTES).map(FileSize)
    }

    fn schema() -> Schema {
        bytes_schema(MAX_FILE_BYTES)
    }
}

fn bytes(scalar: &Scalar, most: u64) -> Result<u64, String> {
    let units = [("B", 1), ("kB", 1_000), ("KiB", KIB), ("MB", 1_000_000), ("MiB", MIB)];
    let (bytes, written) = match scalar {
        Scalar::Text(text) => {
            let bytes = with_unit(text, &units).ok_or_else(|| format!("{} is no size", quoted(text)))?;
            (bytes, quoted(text))
        }
        Scalar::Whole(bytes) => (u64::try_from(*bytes).unwrap_or(0), bytes.to_string()),
        Scalar::Number(_) | Scalar::Other(_) => return Err(scalar.is_no("size")),
    };
    if bytes < MIN_SIZE_BYTES {
        return Err(format!("{written} is too small"));
    }
    if bytes > most { Err(format!("{written} is too large")) } else { Ok(bytes) }
}

fn bytes_schema(most: u64) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": MIN_SIZE_BYTES, "maximum": most },
            { "type": "string", "pattern": "^[0-9]+ ?(B|kB|KiB|MB|MiB)$" },
        ],
        "examples": [65536, "64KiB"],
    })
}

impl FromScalar for Count {
    const HINT: &'static str = "write a whole number from 1 to 4294967295";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let Scalar::Whole(number) = scalar else { return Err(scalar.is_no("whole number")) };
        match u32::try_from(number) {
            Ok(count @ 1..) => Ok(Count(count)),
            Ok(0) | Err(_) => Err(format!("{number} is out of range")),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": u32::MAX })
    }
}

impl FromScalar for Tokens {
    const HINT: &'static str = "write a whole number of tokens from 1, without quotes";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let Scalar::Whole(number) = scalar else { return Err(scalar.is_no("number of tokens")) };
        tokens(number).map(Tokens)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_TOKENS })
    }
}

impl FromScalar for Temperature {
    const HINT: &'static str = "write a number from 0, such as 0.2; providers differ in how high it may be";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let number = match scalar {
            Scalar::Number(number) => Some(number),
            Scalar::Whole(number) => i32::try_from(number).ok().map(f64::from),
            Scalar::Text(_) | Scalar::Other(_) => return Err(scalar.is_no("number")),
        };
        let in_range = number.filter(|number| *number >= 0.0);
        in_range.map(Temperature).ok_or_else(|| "this is out of range".to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number", "minimum": 0 })
    }
}

impl FromScalar for TokenBudget {
    const HINT: &'static str = "write a number of tokens, such as 50000, \"200k\" or \"1.5M\"";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let written = match scalar {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Number(_) | Scalar::Other(_) => return Err(scalar.is_no("number of tokens")),
        };
        amount::tokens(&written)
            .map(TokenBudget)
            .map_err(|_| format!("{} is no number of tokens", quoted(&written)))
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?[kKmM]?$" },
            ],
            "examples": ["200k", 50_000],
        })
    }
}

impl FromScalar for WorkTime {
    const HINT: &'static str =
        "write a time with its units, such as \"90s\", \"2h\" or \"1h30m\" (ms, s, m, h, d)";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let Scalar::Text(text) = scalar else { return Err(scalar.is_no("time")) };
        amount::time(&text).map(WorkTime).map_err(|_| format!("{} is no time of work", quoted(&text)))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9.]+(ms|s|m|min|h|d))+$", "examples": ["2h", "1h30m"] })
    }
}

impl FromScalar for Money {
    const HINT: &'static str = "write an amount of US dollars, such as \"5usd\", \"$5\" or 0.50";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let written = match scalar {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Other(_) => return Err(scalar.is_no("amount of money")),
        };
        amount::money(&written)
            .map(Money)
            .map_err(|_| format!("{} is no amount of US dollars", quoted(&written)))
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "number", "exclusiveMinimum": 0 },
                { "type": "string", "pattern": "^[$]?[0-9]+(\\.[0-9]+)?(usd|USD)?$" },
            ],
            "examples": ["5usd", 0.5],
        })
    }
}

impl FromScalar for Price {
    const HINT: &'static str = "write US dollars for a million tokens, such as 3.00, without quotes";

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be from 0 to a million times a million"
    )]
    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        let dollars = match scalar {
            Scalar::Number(number) => number,
            Scalar::Whole(number) => i32::try_from(number).map_or(f64::INFINITY, f64::from),
            Scalar::Text(_) | Scalar::Other(_) => return Err(scalar.is_no("price")),
        };
        if !(0.0..=MAX_PRICE).contains(&dollars) {
            return Err("this is out of range".to_owned());
        }
        Ok(Price((dollars * 1e6).round() as u64))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": MAX_PRICE })
    }
}

impl FromScalar for Threshold {
    const HINT: &'static str =
        "write a part of the window from \"1%\" to \"99%\", or a number of tokens without quotes";

    fn from_scalar(scalar: Scalar) -> Result<Self, String> {
        match scalar {
            Scalar::Whole(number) => tokens(number).map(Threshold::Tokens),
            Scalar::Text(text) => match with_unit(&text, &[("%", 1)]) {
                Some(percent @ 1..100) => Ok(Threshold::Percent(percent)),
                Some(_) => Err(format!("{} is out of range", quoted(&text))),
                None => Err(format!("{} is no part of the window", quoted(&text))),
            },
            Scalar::Number(_) | Scalar::Other(_) => Err(scalar.is_no("threshold")),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": MAX_TOKENS },
                { "type": "string", "pattern": "^[1-9][0-9]? ?%$" },
            ],
            "examples": ["80%", 100_000],
        })
    }
}

impl Scalar {
    fn is_no(&self, what: &str) -> String {
        match self {
            Scalar::Text(text) => format!("the string {} is no {what}", quoted(text)),
            Scalar::Whole(number) => format!("{number} is no {what}"),
            Scalar::Number(number) => format!("{number} is no {what}"),
            Scalar::Other(kind) => format!("{kind} is no {what}"),
        }
    }
}

/// Reads a whole number followed by one of some units; a space may stand between them.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<u64>().ok()?.saturating_mul(*factor))
}

fn tokens(number: i64) -> Result<u64, String> {
    match number {
        1..=MAX_TOKENS => Ok(number.unsigned_abs()),
        _ => Err(format!("{number} is out of range")),
    }
}

/// Reads whatever there is: what does not fit is told by the value that was meant.
struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other("a boolean"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("a table"))
    }
}
