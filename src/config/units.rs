//! Values with a unit: lengths of time.
//!
//! A bare number is refused, so that nobody has to guess whether `5` is seconds or minutes.

use std::time::Duration;

/// Units of time, the largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is no value of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It doesn't begin with a whole number, or has something odd after it.
    #[error("must be a whole number and a unit, for example {0}")]
    Malformed(&'static str),
    /// There is a number only.
    #[error("needs a unit, for example {0}")]
    NoUnit(&'static str),
    /// More than fits.
    #[error("is too large")]
    TooLarge,
    /// The letters after the number are none of the units.
    #[error("has an unknown unit; the units are {0}")]
    UnknownUnit(&'static str),
}

/// Reads a length of time such as `5s`, `1500ms`, `15min`, `12h`, `7d`.
///
/// # Errors
/// [`UnitError`] when it is none.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    split(text, &TIME_UNITS, "5s or 1500ms", "ms, s, min, h, d").map(Duration::from_millis)
}

/// Writes a length of time in the largest unit that keeps it whole.
#[must_use]
pub fn show_duration(length: Duration) -> String {
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    show(millis, &TIME_UNITS)
}

fn split(
    text: &str,
    units: &[(&str, u64)],
    sample: &'static str,
    names: &'static str,
) -> Result<u64, UnitError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() || unit.starts_with(['.', ',']) {
        return Err(UnitError::Malformed(sample));
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(UnitError::NoUnit(sample));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit(names));
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(*factor))
        .ok_or(UnitError::TooLarge)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor)
        .map_or_else(
            || format!("{value}{}", units.last().map_or("", |(name, _)| name)),
            |(name, factor)| format!("{}{name}", value / factor),
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_of_time_needs_a_known_unit() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("15 min"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("5"), Err(UnitError::NoUnit("5s or 1500ms")));
        assert!(matches!(
            parse_duration("5sec"),
            Err(UnitError::UnknownUnit(_))
        ));
        assert!(matches!(
            parse_duration("5m"),
            Err(UnitError::UnknownUnit(_))
        ));
        for odd in ["", "s", "-5s", "1.5s", "1,5s"] {
            assert!(
                matches!(parse_duration(odd), Err(UnitError::Malformed(_))),
                "{odd}"
            );
        }
        assert_eq!(
            parse_duration("99999999999999999999d"),
            Err(UnitError::TooLarge)
        );
        assert_eq!(
            parse_duration("999999999999999999d"),
            Err(UnitError::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0u64..u64::MAX / 2) {
            let length = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(length)), Ok(length));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
