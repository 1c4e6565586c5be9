//! A day, or a moment of it.

use crate::clock::Timestamp;

/// Reads a day as its end, in UTC, so that whatever ends on it has ended; or a moment.
pub(super) fn day(text: &str) -> Result<Timestamp, String> {
    const HOW: &str =
        "give a day, as 2027-03-31 (its end, in UTC), or a moment, as 2027-03-31T12:00:00Z";
    if text
        .get(10..11)
        .is_some_and(|between| matches!(between, "T" | "t" | " "))
    {
        let moment = text.parse::<jiff::Timestamp>();
        return moment
            .map(|moment| Timestamp::from_millis(moment.as_millisecond()))
            .map_err(|_| format!("it is no moment with its offset from UTC; {HOW}"));
    }
    let is_shaped = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !is_shaped {
        return Err(format!("it is no date; {HOW}"));
    }
    let end = text.parse::<jiff::civil::Date>().and_then(|date| {
        let next = date.tomorrow()?;
        next.to_zoned(jiff::tz::TimeZone::UTC)
    });
    match end {
        Ok(end) => Ok(Timestamp::from_millis(
            end.timestamp().as_millisecond().saturating_sub(1),
        )),
        Err(_) => Err(format!("there is no such day; {HOW}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_end_and_a_moment_itself() {
        for (text, moment) in [
            ("2027-03-31", "2027-03-31T23:59:59.999Z"),
            ("2028-02-29", "2028-02-29T23:59:59.999Z"),
            ("1999-12-31", "1999-12-31T23:59:59.999Z"),
            ("2027-03-31T12:00:00Z", "2027-03-31T12:00:00.000Z"),
            ("2027-03-31T12:00:00+02:00", "2027-03-31T10:00:00.000Z"),
        ] {
            assert_eq!(day(text).unwrap().to_string(), moment, "{text}");
        }
    }

    #[test]
    fn what_is_no_day_is_refused_in_words() {
        for (text, why) in [
            ("2027-02-29", "no such day"),
            ("2027-13-01", "no such day"),
            ("9999-12-31", "no such day"),
            ("tomorrow", "no date"),
            ("", "no date"),
            ("31.03.2027", "no date"),
            ("2027-3-1", "no date"),
            ("20270331", "no date"),
            ("2027-03-31T12:00:00", "no moment"),
            ("2027-03-31 25:00:00Z", "no moment"),
        ] {
            let told = day(text).unwrap_err();
            assert!(told.contains(why) && told.contains("2027-03-31"), "{told}");
        }
    }
}
