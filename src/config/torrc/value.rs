//! Parses values as C tor does (confmgt/type_defs.c, unitparse.c).

use super::options::{OptionKind, OptionSpec};

/// The largest value of C's `int`, the type of most numbers in a torrc.
const INT_MAX: u64 = i32::MAX as u64;
/// Seconds in C tor's month, 30.437 days.
const MONTH: u64 = 2_629_728;

/// Units of time, in seconds.
const SECONDS: &[(&str, u64)] = &[
    ("", 1),
    ("second", 1),
    ("seconds", 1),
    ("minute", 60),
    ("minutes", 60),
    ("hour", 3600),
    ("hours", 3600),
    ("day", 86_400),
    ("days", 86_400),
    ("week", 604_800),
    ("weeks", 604_800),
    ("month", MONTH),
    ("months", MONTH),
];
/// Units of time, in milliseconds.
const MILLISECONDS: &[(&str, u64)] = &[
    ("", 1),
    ("msec", 1),
    ("millisecond", 1),
    ("milliseconds", 1),
    ("second", 1000),
    ("seconds", 1000),
    ("minute", 60_000),
    ("minutes", 60_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
    ("week", 604_800_000),
    ("weeks", 604_800_000),
];

/// Checks the value of an option and returns its canonical form: `0` or `1`, a number in base units,
/// words separated by bare commas. An empty value is C tor's zero.
///
/// # Errors
/// The problem and the remedy.
pub(super) fn canonicalize(option: &OptionSpec, value: &str) -> Result<String, String> {
    let zero = || "0".to_owned();
    let quoted = |what: &str| format!("{value:?} {what}");
    if value.is_empty() {
        return Ok(match option.kind {
            OptionKind::Csv | OptionKind::Nodes | OptionKind::Text | OptionKind::Lines => {
                String::new()
            }
            OptionKind::Obsolete | OptionKind::ReadOnly => String::new(),
            _ => zero(),
        });
    }
    let number = |units, max| {
        let scaled = parse_scaled(value, units).filter(|number| *number <= max);
        scaled.map(|number| number.to_string())
    };
    match option.kind {
        OptionKind::Bool => match value {
            "0" | "1" => Some(value.to_owned()),
            _ => None,
        }
        .ok_or_else(|| quoted("is neither 0 nor 1; write 1 for on or 0 for off")),
        OptionKind::AutoBool => match value.to_ascii_lowercase().as_str() {
            word @ ("0" | "1" | "auto") => Ok(word.to_owned()),
            _ => Err(quoted("is neither 0, 1 nor auto; write one of them")),
        },
        OptionKind::Uint => parse_integer(value)
            .filter(|number| *number >= 0)
            .map(|number| number.to_string())
            .ok_or_else(|| quoted("is not a whole number from 0 to 2147483647; write one")),
        OptionKind::Int => parse_integer(value)
            .map(|number| number.to_string())
            .ok_or_else(|| quoted("is not a whole number of 32 bits; write one")),
        OptionKind::Float => value
            .trim()
            .parse::<f64>()
            .map(|number| number.to_string())
            .map_err(|_| quoted("is not a number; write one")),
        // C tor accepts a list of times here, and uses only the first.
        OptionKind::Interval => {
            let first = match option.name.ends_with("DownloadInitialDelay") {
                true => value.split(',').next().unwrap_or(value),
                false => value,
            };
            parse_scaled(first, SECONDS)
                .filter(|seconds| *seconds <= INT_MAX)
                .map(|seconds| seconds.to_string())
                .ok_or_else(|| {
                    quoted(
                        "is not a duration; write a number and second, minute, hour, day, week or \
                         month, such as 2 minutes",
                    )
                })
        }
        OptionKind::Msec => number(MILLISECONDS, INT_MAX).ok_or_else(|| {
            quoted("is not a duration; write a number and msec, second, minute, hour or day")
        }),
        OptionKind::Size => parse_size(value)
            .map(|bytes| bytes.to_string())
            .ok_or_else(|| {
                quoted(
                    "is not an amount of data; write a number and bytes, KBytes, MBytes or GBytes",
                )
            }),
        OptionKind::Csv | OptionKind::Nodes => Ok(words(value).collect::<Vec<_>>().join(",")),
        OptionKind::Text | OptionKind::Lines | OptionKind::Obsolete => Ok(value.to_owned()),
        OptionKind::ReadOnly => Err(match option.name.strip_suffix("Lines") {
            Some(name) => format!("a torrc cannot set this name; write {name} instead"),
            None => "a torrc cannot set this name; remove the line".to_owned(),
        }),
    }
}

/// Splits a list at its commas, and skips empty words.
pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(|word| word.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b'))
        .filter(|word| !word.is_empty())
}

/// Parses a whole number that fits C's `int`.
fn parse_integer(value: &str) -> Option<i32> {
    value
        .trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
        .parse()
        .ok()
}

/// Parses an amount of data into bytes.
fn parse_size(value: &str) -> Option<u64> {
    let split = value.trim_start().find(|c: char| c.is_ascii_alphabetic());
    let unit = match split {
        Some(at) => value.trim_start().get(at..)?.to_ascii_lowercase(),
        None => String::new(),
    };
    // k, m, g and t combine with every word for bytes or bits; alone only m is valid.
    let factor = match unit.as_str() {
        "" | "b" | "byte" | "bytes" => 1,
        "m" => 1 << 20,
        _ => {
            let powers = [
                ("k", "kilo", 10),
                ("m", "mega", 20),
                ("g", "giga", 30),
                ("t", "tera", 40),
            ];
            powers.iter().find_map(|(letter, word, power)| {
                let short = unit.strip_prefix(letter);
                let rest = unit.strip_prefix(word).or(short)?;
                let long = unit.starts_with(word);
                match rest {
                    "b" if !long => Some(1_u64 << power),
                    "byte" | "bytes" => Some(1 << power),
                    "bit" | "bits" => Some(1 << (power - 3)),
                    _ => None,
                }
            })?
        }
    };
    parse_scaled(value, &[(unit.as_str(), factor)])
}

/// Parses a number, white space and a unit into the base unit, and rounds down.
fn parse_scaled(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let value = value.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let digits = value.strip_prefix('+').unwrap_or(value);
    let end = digits
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(digits.len());
    let (number, unit) = digits.split_at(end);
    let unit = unit.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let result = match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(*factor)?,
        Some((whole, part)) => {
            if whole.is_empty() && part.is_empty() || part.contains('.') {
                return None;
            }
            let whole: u64 = match whole {
                "" => 0,
                _ => whole.parse().ok()?,
            };
            // Nine digits after the point are more than any unit needs.
            let part = part.get(..9).unwrap_or(part);
            let tens = 10_u64.pow(u32::try_from(part.len()).ok()?);
            let part: u64 = match part {
                "" => 0,
                _ => part.parse().ok()?,
            };
            let behind = u128::from(part) * u128::from(*factor) / u128::from(tens);
            whole
                .checked_mul(*factor)?
                .checked_add(u64::try_from(behind).ok()?)?
        }
    };
    (result <= i64::MAX as u64).then_some(result)
}
