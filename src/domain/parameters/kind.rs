//! The kinds of parameters: which texts are values, and how a value is written. Pure.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::domain::parameters::{
    MultipleLoginBehavior, Parameters, UnknownUserAnswer, WhenUnreachable,
};

/// What a parameter may hold, and where it stands among the [`Parameters`].
#[derive(Debug)]
pub enum Kind {
    /// IP addresses.
    Addresses(Place<BTreeSet<IpAddr>>),
    /// Names of civic address fields, or none.
    CivicFields(Place<Option<BTreeSet<String>>>),
    /// A whole number from the first to the second.
    Count(u32, u32, Place<u32>),
    /// A host name or an IP address, or none.
    Host(Place<Option<String>>),
    /// `allowed`, `not-allowed`, `auto-logout`.
    MultipleLogin(Place<MultipleLoginBehavior>),
    /// `on` or `off`.
    Switch(Place<bool>),
    /// Hours and minutes, up to a week.
    Time(Place<Duration>),
    /// `unknown`, `as-wrong-pin`.
    UnknownUser(Place<UnknownUserAnswer>),
    /// `take-over`, `refuse`.
    Unreachable(Place<WhenUnreachable>),
}

/// A field of the [`Parameters`], to look at and to change.
#[derive(Debug)]
pub struct Place<T> {
    pub(super) get: fn(&Parameters) -> &T,
    pub(super) get_mut: fn(&mut Parameters) -> &mut T,
}

/// The longest value, as the incumbent has it for its list of addresses.
pub(super) const MAX_LENGTH: usize = 1_024;

const MULTIPLE_LOGIN: &[(MultipleLoginBehavior, &str)] = &[
    (MultipleLoginBehavior::Allowed, "allowed"),
    (MultipleLoginBehavior::NotAllowed, "not-allowed"),
    (MultipleLoginBehavior::AutoLogout, "auto-logout"),
];
const UNREACHABLE: &[(WhenUnreachable, &str)] = &[
    (WhenUnreachable::TakeOver, "take-over"),
    (WhenUnreachable::Refuse, "refuse"),
];
const UNKNOWN_USER: &[(UnknownUserAnswer, &str)] = &[
    (UnknownUserAnswer::Unknown, "unknown"),
    (UnknownUserAnswer::AsWrongPin, "as-wrong-pin"),
];
const SWITCH: &[(bool, &str)] = &[(true, "on"), (false, "off")];

/// What stands for an empty value.
const NONE: &str = "none";

type Reason = &'static str;

impl Kind {
    /// What is allowed, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Addresses(_) => format!(
                "none, or IP addresses with ; between them, at most {MAX_LENGTH} characters"
            ),
            Self::CivicFields(_) => {
                "none, or names of civic address fields with commas between them, for example country,A3"
                    .to_owned()
            }
            Self::Count(min, max, _) => format!("{min} to {max}"),
            Self::Host(_) => "none, a host name or an IP address".to_owned(),
            Self::MultipleLogin(_) => words(MULTIPLE_LOGIN),
            Self::Switch(_) => words(SWITCH),
            Self::Time(_) => "hours and minutes from 0:00 to 168:00; 0:00 is no limit".to_owned(),
            Self::UnknownUser(_) => words(UNKNOWN_USER),
            Self::Unreachable(_) => words(UNREACHABLE),
        }
    }

    pub(super) fn put(&self, all: &mut Parameters, text: &str) -> Result<(), Reason> {
        if text.len() > MAX_LENGTH {
            return Err("has too many characters");
        }
        match self {
            Self::Addresses(place) => *(place.get_mut)(all) = read_addresses(text)?,
            Self::CivicFields(place) => *(place.get_mut)(all) = read_fields(text)?,
            Self::Count(min, max, place) => {
                *(place.get_mut)(all) = read_count(text, *min, *max)?;
            }
            Self::Host(place) => *(place.get_mut)(all) = read_host(text)?,
            Self::MultipleLogin(place) => *(place.get_mut)(all) = read_word(MULTIPLE_LOGIN, text)?,
            Self::Switch(place) => *(place.get_mut)(all) = read_switch(text)?,
            Self::Time(place) => *(place.get_mut)(all) = read_time(text)?,
            Self::UnknownUser(place) => *(place.get_mut)(all) = read_word(UNKNOWN_USER, text)?,
            Self::Unreachable(place) => *(place.get_mut)(all) = read_word(UNREACHABLE, text)?,
        }
        Ok(())
    }

    pub(super) fn value(&self, all: &Parameters) -> String {
        match self {
            Self::Addresses(place) => {
                let texts: Vec<_> = (place.get)(all).iter().map(IpAddr::to_string).collect();
                or_none(texts.join(";"))
            }
            Self::CivicFields(place) => {
                let fields = (place.get)(all).iter().flatten();
                or_none(fields.map(String::as_str).collect::<Vec<_>>().join(","))
            }
            Self::Count(_, _, place) => (place.get)(all).to_string(),
            Self::Host(place) => or_none((place.get)(all).clone().unwrap_or_default()),
            Self::MultipleLogin(place) => word(MULTIPLE_LOGIN, (place.get)(all)),
            Self::Switch(place) => word(SWITCH, (place.get)(all)),
            Self::Time(place) => {
                let minutes = (place.get)(all).as_secs() / 60;
                format!("{}:{:02}", minutes / 60, minutes % 60)
            }
            Self::UnknownUser(place) => word(UNKNOWN_USER, (place.get)(all)),
            Self::Unreachable(place) => word(UNREACHABLE, (place.get)(all)),
        }
    }
}

fn words<T>(all: &[(T, &str)]) -> String {
    all.iter().map(|(_, w)| *w).collect::<Vec<_>>().join(", ")
}

fn word<T: PartialEq>(all: &[(T, &'static str)], value: &T) -> String {
    let found = all.iter().find(|(v, _)| v == value);
    found.map_or_else(String::new, |(_, word)| (*word).to_owned())
}

fn read_word<T: Copy>(all: &[(T, &str)], text: &str) -> Result<T, Reason> {
    all.iter()
        .find(|(_, word)| *word == text)
        .map(|(value, _)| *value)
        .ok_or("is none of its words")
}

/// The incumbent's words are taken as well.
fn read_switch(text: &str) -> Result<bool, Reason> {
    match text {
        "on" | "true" | "True" => Ok(true),
        "off" | "false" | "False" => Ok(false),
        _ => Err("must be on or off"),
    }
}

fn read_count(text: &str, min: u32, max: u32) -> Result<u32, Reason> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("must be a whole number");
    }
    text.parse()
        .ok()
        .filter(|n| (min..=max).contains(n))
        .ok_or("is out of range")
}

fn read_time(text: &str) -> Result<Duration, Reason> {
    const SHAPE: Reason = "must be hours and minutes, for example 8:00";
    let (hours, minutes) = text.split_once(':').ok_or(SHAPE)?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) || minutes.len() != 2 {
        return Err(SHAPE);
    }
    let minutes = minutes.parse::<u64>().ok().filter(|m| *m < 60);
    let minutes = minutes.ok_or("has more than 59 minutes")?;
    let hours = hours.parse::<u64>().ok().filter(|h| *h <= MAX_HOURS);
    let whole = hours.ok_or("is longer than a week")? * 60 + minutes;
    if whole > MAX_HOURS * 60 {
        return Err("is longer than a week");
    }
    Ok(Duration::from_secs(whole * 60))
}

/// A week, as the incumbent has it.
const MAX_HOURS: u64 = 168;

fn read_addresses(text: &str) -> Result<BTreeSet<IpAddr>, Reason> {
    if text == NONE {
        return Ok(BTreeSet::new());
    }
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<IpAddr>().map(|a| a.to_canonical()))
        .collect::<Result<BTreeSet<_>, _>>()
        .map_err(|_| "has something that is no IP address")
        .and_then(|all| {
            if all.is_empty() {
                Err("names no address")
            } else {
                Ok(all)
            }
        })
}

fn read_fields(text: &str) -> Result<Option<BTreeSet<String>>, Reason> {
    if text == NONE {
        return Ok(None);
    }
    let is_name = |part: &str| {
        (1..=64).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    if !parts.iter().all(|part| is_name(part)) {
        return Err("has something that is no name of a field");
    }
    Ok(Some(parts.into_iter().map(str::to_owned).collect()))
}

fn read_host(text: &str) -> Result<Option<String>, Reason> {
    if text == NONE {
        return Ok(None);
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let digits_end = text
        .rsplit('.')
        .next()
        .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let is_name = text.len() <= 253 && text.split('.').all(label) && !digits_end;
    if is_name || text.parse::<IpAddr>().is_ok() {
        Ok(Some(text.to_owned()))
    } else {
        Err("must be a host name or an IP address")
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        NONE.to_owned()
    } else {
        text
    }
}
