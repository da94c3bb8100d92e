//! Clocks, pairs of measurements, and how they are reported. What is measured is left to the benchmarks.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// An instant by both clocks: the wall's, and the processor time of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: Instant,
    processor: Duration,
}

/// What some work took, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall_us: f64,
    pub(crate) processor_us: f64,
}

/// Measurements of two ways to do the same, taken in turn.
pub(crate) struct Pairs(Vec<(f64, f64)>);

/// The middle of some numbers, and the quarters around it.
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "measuring time is what this program is for")]
    pub(crate) fn now() -> Self {
        let at = clock_gettime(ClockId::ProcessCPUTime);
        let (seconds, nanos) = (u64::try_from(at.tv_sec), u32::try_from(at.tv_nsec));
        let processor = Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default());
        Moment { wall: Instant::now(), processor }
    }

    /// Returns the processor time of this process up to this moment, in microseconds.
    pub(crate) fn processor_us(self) -> f64 {
        self.processor.as_secs_f64() * 1e6
    }

    /// Returns what was spent from an earlier moment to this one.
    pub(crate) fn since(self, earlier: Moment) -> Cost {
        let us = |duration: Duration| duration.as_secs_f64() * 1e6;
        Cost {
            wall_us: us(self.wall - earlier.wall),
            processor_us: us(self.processor.saturating_sub(earlier.processor)),
        }
    }

    /// Returns what was spent since this moment.
    pub(crate) fn cost(self) -> Cost {
        Moment::now().since(self)
    }
}

/// Does one and the other in turn, once for nothing and then `pairs` times; who goes first changes, so
/// that neither always meets what the other left.
pub(crate) fn in_turn<T>(
    pairs: usize,
    mut one: impl FnMut() -> anyhow::Result<T>,
    mut other: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<(T, T)>> {
    one()?;
    other()?;
    let pair = |n: usize| {
        if n.is_multiple_of(2) {
            let first = one()?;
            Ok((first, other()?))
        } else {
            let second = other()?;
            Ok((one()?, second))
        }
    };
    (0..pairs).map(pair).collect()
}

impl Pairs {
    /// Takes one number of each measurement.
    pub(crate) fn of<T>(measured: &[(T, T)], number: impl Fn(&T) -> f64) -> Self {
        Pairs(measured.iter().map(|(one, other)| (number(one), number(other))).collect())
    }

    /// Returns the quotients, pair by pair.
    pub(crate) fn ratio(&self) -> Spread {
        Spread::of(self.0.iter().map(|(one, other)| one / other).collect())
    }

    fn one(&self) -> f64 {
        Spread::of(self.0.iter().map(|(one, _)| *one).collect()).median
    }

    fn other(&self) -> f64 {
        Spread::of(self.0.iter().map(|(_, other)| *other).collect()).median
    }

    /// Writes the quotient with its spread, the numbers behind it, and whether it is within its aim.
    pub(crate) fn report(&self, what: &str, unit: &str, aim: Aim) {
        let Spread { low, median, high } = self.ratio();
        let (one, other) = (self.one(), self.other());
        say(&format!(
            "  {what:<44} {median:5.2}x [{low:.2}..{high:.2}]  {one:9.1} / {other:9.1} {unit}{}",
            aim.verdict(median)
        ));
    }
}

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
    /// It is there to be compared with.
    None,
}

impl Aim {
    pub(crate) fn verdict(self, number: f64) -> String {
        let (met, aim) = match self {
            Aim::AtMost(most) => (number <= most, format!("at most {most}")),
            Aim::AtLeast(least) => (number >= least, format!("at least {least}")),
            Aim::None => return String::new(),
        };
        format!("  aim: {aim}, {}", if met { "met" } else { "MISSED" })
    }
}

impl Spread {
    /// Sorts numbers out.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |quarters: usize| {
            let last = numbers.len().saturating_sub(1);
            numbers.get((last * quarters + 2) / 4).copied().unwrap_or(f64::NAN)
        };
        Spread { low: at(1), median: at(2), high: at(3) }
    }

    /// Writes the numbers and whether they are within their aim.
    pub(crate) fn report(&self, what: &str, unit: &str, aim: Aim) {
        let Spread { low, median, high } = self;
        say(&format!("  {what:<44} {median:9.1} {unit} [{low:.1}..{high:.1}]{}", aim.verdict(*median)));
    }
}

/// Writes a line of the report.
pub(crate) fn say(line: &str) {
    // Nobody reads it: then there is nobody to tell.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
