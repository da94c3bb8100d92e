//! Amounts as people write them, on the command line and in manifests: tokens, times, money.

/// The longest time of work that may be given.
const MAX_TIME_MS: u64 = 365 * 24 * 3_600_000;
/// The most of anything else.
const MAX_AMOUNT: u64 = 1_000_000_000_000;

/// A limit, or the word for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

/// Reads a limit that `read` understands, or `none`.
pub(crate) fn limit(text: &str, read: fn(&str) -> Result<u64, String>) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    read(text).map(|amount| Limit(Some(amount))).map_err(|what| format!("{what}, or none for no limit"))
}

/// Reads a number of tokens: `50000`, `200k`, `1.5M`.
pub(crate) fn tokens(text: &str) -> Result<u64, String> {
    let hint = "give a number of tokens: 50000, 200k or 1.5M";
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000),
        None => text.strip_suffix(['M', 'm']).map_or((text, 1), |number| (number, 1_000_000)),
    };
    positive(scaled(number, factor), "tokens").map_err(|what| format!("{what}; {hint}"))
}

/// Reads a time of work, in milliseconds: `90s`, `2h`, `1h30m`.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    let hint = "give a time with its units: 90s, 15m, 2h or 1h30m";
    let (mut rest, mut sum, mut last) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, units) = rest.split_at(end);
        let unit = &units[..units.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(units.len())];
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            _ => return Err(format!("this is no time; {hint}")),
        };
        // 1m1h is a slip of somebody.
        let part = scaled(number, unit_ms).filter(|_| unit_ms < last);
        sum =
            part.and_then(|part| sum.checked_add(part)).ok_or_else(|| format!("this is no time; {hint}"))?;
        (rest, last) = (&units[unit.len()..], unit_ms);
    }
    let sum = positive(Some(sum), "time").map_err(|what| format!("{what}; {hint}"))?;
    if sum > MAX_TIME_MS { Err(format!("this is more than a year; {hint}")) } else { Ok(sum) }
}

/// Reads an amount of US dollars, in millionths: `5usd`, `$5`, `0.50`.
pub(crate) fn money(text: &str) -> Result<u64, String> {
    let hint = "give an amount of US dollars: 5usd, $5 or 0.50";
    let number = text.strip_prefix('$').unwrap_or(text);
    let number = number.strip_suffix("usd").or_else(|| number.strip_suffix("USD")).unwrap_or(number);
    positive(scaled(number.trim(), 1_000_000), "money").map_err(|what| format!("{what}; {hint}"))
}

/// Reads a number of turns. There is always a limit to them.
pub(crate) fn turns(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(turns @ 1..=MAX_AMOUNT) => Ok(turns),
        Ok(_) | Err(_) => Err("turns are always limited; give a whole number of them: 20 or 1000".to_owned()),
    }
}

fn positive(amount: Option<u64>, what: &str) -> Result<u64, String> {
    match amount {
        None => Err(format!("this is no amount of {what}")),
        Some(0) => Err("a limit is more than nothing".to_owned()),
        Some(amount) if amount > MAX_AMOUNT => Err(format!("this is too much {what} to be meant")),
        Some(amount) => Ok(amount),
    }
}

/// Reads a number, which may have a part after a point, in smaller units. What is smaller still is dropped.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || number.contains('.') && !digits(part) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let factor = u128::from(factor);
    u64::try_from(whole * factor + part * factor / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_with_and_without_a_unit() {
        let read: Vec<_> = ["50000", "200k", "1.5M", "0.5k"].into_iter().map(tokens).collect();
        assert_eq!(read, [Ok(50_000), Ok(200_000), Ok(1_500_000), Ok(500)]);
        for wrong in ["", "k", "-5", "1.5.2k", "2g", "0", "1e6", " 5", "99999999999999999999"] {
            assert!(tokens(wrong).is_err_and(|error| error.contains("200k")), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_in_units_that_fall() {
        let read: Vec<_> = ["90s", "2h", "1h30m", "1.5h", "1d2h"].into_iter().map(time).collect();
        assert_eq!(read, [Ok(90_000), Ok(7_200_000), Ok(5_400_000), Ok(5_400_000), Ok(93_600_000)]);
        for wrong in ["", "90", "h", "30m1h", "1h1h", "0s", "2 h", "3w", "400d"] {
            assert!(time(wrong).is_err_and(|error| error.contains("1h30m")), "{wrong}");
        }
    }

    #[test]
    fn money_is_read_in_each_usual_form() {
        let read: Vec<_> = ["5usd", "$5", "0.50", "5USD", "$0.000001"].into_iter().map(money).collect();
        assert_eq!(read, [Ok(5_000_000), Ok(5_000_000), Ok(500_000), Ok(5_000_000), Ok(1)]);
        for wrong in ["", "$", "5eur", "-1", "0", "five", "1,50"] {
            assert!(money(wrong).is_err_and(|error| error.contains("$5")), "{wrong}");
        }
    }

    #[test]
    fn turns_are_a_whole_number() {
        assert_eq!(["1", "1000"].map(turns), [Ok(1), Ok(1_000)]);
        for wrong in ["", "0", "-1", "1.5", "2k", "none", "99999999999999999999"] {
            assert!(turns(wrong).is_err_and(|error| error.contains("1000")), "{wrong}");
        }
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!((limit("none", tokens), limit("3k", tokens)), (Ok(Limit(None)), Ok(Limit(Some(3_000)))));
        assert!(limit("nothing", tokens).is_err_and(|error| error.ends_with("or none for no limit")));
    }
}
