//! The script as it is written, and its steps by number. What the keys mean is in
//! [`crate::scripted`]; nothing is played here.

use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroU64};

use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::part::FinishReason;
use crate::scripted::position::Position;

/// A whole script.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) delay_ms: u64,
    #[serde(rename = "turn")]
    turns: Vec<Turn>,
    #[serde(default, rename = "aside")]
    pub(super) asides: Vec<Aside>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "TurnText")]
struct Turn {
    steps: Vec<Step>,
    /// For each step, how many answers it and the steps before it give.
    ends: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnText {
    step: Vec<Step>,
}

/// An answer to a request outside of the turns.
#[derive(Debug, Deserialize)]
#[serde(try_from = "AsideText")]
pub(super) struct Aside {
    pub(super) when: String,
    pub(super) step: Step,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsideText {
    when: String,
    step: Step,
}

/// One answer, or several alike.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Step {
    pub(super) reasoning: String,
    pub(super) text: String,
    #[serde(rename = "call")]
    pub(super) calls: Vec<Call>,
    #[serde(rename = "fail", deserialize_with = "one_or_many")]
    failures: Vec<Failure>,
    pub(super) usage: StatedUsage,
    pub(super) finish: Option<FinishReason>,
    pub(super) repeat: Option<NonZeroU64>,
    pub(super) delay_ms: Option<u64>,
    pub(super) first_delay_ms: u64,
}

/// A request for a tool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) tool: String,
    #[serde(default)]
    pub(super) arguments: Arguments,
}

/// The arguments of a call: a JSON object, or a text taken word for word.
#[derive(Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct Arguments(pub(super) Value);

/// How an attempt at a step fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "FailureText")]
pub(super) struct Failure {
    pub(super) how: How,
    pub(super) after_chars: usize,
    pub(super) usage: Option<StatedUsage>,
    times: NonZeroU32,
}

/// What the caller sees of a failure.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// An error.
    Error { class: FailureClass, message: String, retry_after_ms: Option<u64> },
    /// The stream ends too early.
    Cut,
    /// Nothing more comes.
    Hang,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureText {
    class: Option<FailureClass>,
    message: Option<String>,
    retry_after_ms: Option<u64>,
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    after_chars: usize,
    usage: Option<StatedUsage>,
    times: Option<NonZeroU32>,
}

/// The tokens a step or a failure reports, as far as the script says.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StatedUsage {
    input: Option<u64>,
    cached_input: u64,
    cache_write: u64,
    output: Option<u64>,
    reasoning: Option<u64>,
    cost_micros: u64,
}

impl Script {
    /// Returns the step at a position and which repetition of it, from 1.
    pub(super) fn step(&self, position: Position) -> Option<(&Step, u64)> {
        let turn = self.turns.get(usize::try_from(position.turn.checked_sub(1)?).ok()?)?;
        let at = turn.ends.partition_point(|end| *end <= position.step);
        let step = turn.steps.get(at)?;
        let before = at.checked_sub(1).map_or(0, |previous| turn.ends[previous]);
        Some((step, position.step - before + 1))
    }
}

impl Step {
    /// Makes a step that says a text and nothing else.
    pub(super) fn saying(text: &str) -> Self {
        Step { text: text.to_owned(), ..Step::default() }
    }

    /// Returns how the attempt fails; `None` if it gets the answer.
    pub(super) fn failure(&self, attempt: u32) -> Option<&Failure> {
        let mut failed = 0_u32;
        self.failures.iter().find(|failure| {
            failed = failed.saturating_add(failure.times.get());
            attempt < failed
        })
    }
}

impl StatedUsage {
    /// Returns the stated numbers, and the counted ones where none is stated. Input is counted only
    /// if it has to be: a request can be long.
    pub(super) fn or_counted(self, input: impl FnOnce() -> u64, output: u64, reasoning: u64) -> Usage {
        Usage {
            input: self.input.unwrap_or_else(input),
            cached_input: self.cached_input,
            cache_write: self.cache_write,
            output: self.output.unwrap_or(output),
            reasoning: self.reasoning.unwrap_or(reasoning),
            cost_micros: self.cost_micros,
        }
    }
}

impl TryFrom<TurnText> for Turn {
    type Error = String;

    fn try_from(text: TurnText) -> Result<Self, String> {
        let mut end = 0_u64;
        let mut ends = Vec::with_capacity(text.step.len());
        for step in &text.step {
            end = end
                .checked_add(step.repeat.map_or(1, NonZeroU64::get))
                .ok_or("the turn has more steps than can be counted; make `repeat` smaller")?;
            ends.push(end);
        }
        Ok(Turn { steps: text.step, ends })
    }
}

impl TryFrom<AsideText> for Aside {
    type Error = &'static str;

    fn try_from(text: AsideText) -> Result<Self, Self::Error> {
        if text.when.is_empty() {
            return Err("`when` is empty and would match every request; give it a text to look for");
        }
        if text.step.repeat.is_some() {
            return Err("the step of an aside answers as often as it is asked; remove `repeat`");
        }
        Ok(Aside { when: text.when, step: text.step })
    }
}

impl TryFrom<FailureText> for Failure {
    type Error = &'static str;

    fn try_from(text: FailureText) -> Result<Self, Self::Error> {
        let how = match (text.class, text.cut, text.hang) {
            (Some(class), false, false) => How::Error {
                class,
                message: text.message.unwrap_or_else(|| "The script lets this attempt fail.".to_owned()),
                retry_after_ms: text.retry_after_ms,
            },
            (None, true, false) | (None, false, true)
                if text.message.is_some() || text.retry_after_ms.is_some() =>
            {
                return Err("`message` and `retry_after_ms` are told with an error only; add `class`");
            }
            (None, true, false) => How::Cut,
            (None, false, true) => How::Hang,
            (None, false, false) | (Some(_), _, _) | (None, true, true) => {
                return Err("a failure is exactly one of `class = \"…\"`, `cut = true` and `hang = true`");
            }
        };
        Ok(Failure {
            how,
            after_chars: text.after_chars,
            usage: text.usage,
            times: text.times.unwrap_or(NonZeroU32::MIN),
        })
    }
}

impl Default for Arguments {
    fn default() -> Self {
        Arguments(Value::Object(serde_json::Map::new()))
    }
}

impl TryFrom<toml::Value> for Arguments {
    type Error = &'static str;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::Table(_) | toml::Value::String(_) => json(value).map(Arguments),
            toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => Err("arguments are a table, or a string that is taken word for word"),
        }
    }
}

fn json(value: toml::Value) -> Result<Value, &'static str> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or("JSON has no such number; use a finite one, or a string")?,
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(at) => Value::String(at.to_string()),
        toml::Value::Array(values) => Value::Array(values.into_iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => Value::Object(
            table
                .into_iter()
                .map(|(key, value)| Ok((key, json(value)?)))
                .collect::<Result<_, &'static str>>()?,
        ),
    })
}

/// Reads a table as a list of one. By hand, because an untagged enum would lose the place of an error.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table or a list of tables")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}
