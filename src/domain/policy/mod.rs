//! Credential policies: when a user is locked, and which PINs a user may get. Pure.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::domain::ids::PolicyName;

mod trivial;

pub use trivial::{Rule, TRIVIAL};

/// What goes for the PINs of the users who have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, unique.
    pub name: PolicyName,
    /// What it says.
    pub rules: Rules,
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// This many wrong PINs within the window lock the user; 0 never does.
    pub failures_before_lock: u32,
    /// The window in minutes, sliding from the last failure.
    pub failure_window: u32,
    /// How long the lock lasts, in minutes.
    pub lock_duration: u32,
    /// The fewest digits of a PIN.
    pub min_length: u32,
    /// The most digits of a PIN.
    pub max_length: u32,
    /// Whether trivial PINs are refused: [`TRIVIAL`].
    pub trivial_check: bool,
}

/// What the policy `default` says as long as nobody has changed it, and a new policy where it is not told otherwise.
pub const BUILT_IN: Rules = Rules {
    failures_before_lock: 5,
    failure_window: 30,
    lock_duration: 15,
    min_length: 6,
    max_length: 16,
    trivial_check: true,
};

/// How many wrong PINs may lock; 0 is none.
pub const FAILURES: RangeInclusive<u32> = 0..=100;
/// Minutes of the window.
pub const WINDOW: RangeInclusive<u32> = 1..=120;
/// Minutes of a lock: up to a day.
pub const LOCK: RangeInclusive<u32> = 1..=1_440;
/// The fewest digits: what a policy may ask for.
pub const MIN_LENGTH: RangeInclusive<u32> = 4..=20;
/// The most digits: what a policy may allow.
pub const MAX_LENGTH: RangeInclusive<u32> = 4..=64;

/// A number that is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its column.
    pub column: &'static str,
    /// The fewest.
    pub least: u32,
    /// The most.
    pub most: u32,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it must be {} to {}", self.least, self.most)
    }
}

impl Policy {
    /// The policy of all users who have none of their own, which is always there, as long as nobody has changed it.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            name: PolicyName::of_all_others(),
            rules: BUILT_IN,
        }
    }
}

impl Rules {
    /// The numbers that are out of their ranges.
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        let most = *MAX_LENGTH.end();
        let at_least_min = self.min_length.min(most)..=most;
        let all = [
            ("failures-before-lock", self.failures_before_lock, FAILURES),
            ("failure-window", self.failure_window, WINDOW),
            ("lock-duration", self.lock_duration, LOCK),
            ("min-length", self.min_length, MIN_LENGTH),
            ("max-length", self.max_length, at_least_min),
        ];
        all.into_iter()
            .filter(|(_, number, range)| !range.contains(number))
            .map(|(column, _, range)| Broken {
                column,
                least: *range.start(),
                most: *range.end(),
            })
            .collect()
    }

    /// The window.
    #[must_use]
    pub fn window(&self) -> Duration {
        minutes(self.failure_window)
    }

    /// How long a lock lasts.
    #[must_use]
    pub fn lock(&self) -> Duration {
        minutes(self.lock_duration)
    }

    /// Every rule that a PIN of this user breaks.
    #[must_use]
    pub fn violations(&self, pin: &str, user: &Person<'_>) -> Vec<Violation> {
        let mut found = Vec::new();
        let length = u32::try_from(pin.chars().count()).unwrap_or(u32::MAX);
        if length < self.min_length {
            found.push(Violation::TooShort {
                min: self.min_length,
            });
        }
        if length > self.max_length {
            found.push(Violation::TooLong {
                max: self.max_length,
            });
        }
        if !pin.bytes().all(|b| b.is_ascii_digit()) {
            found.push(Violation::NotDigits);
        } else if self.trivial_check {
            let broken = TRIVIAL
                .iter()
                .filter(|rule| (rule.is_broken)(pin.as_bytes(), user));
            found.extend(broken.map(Violation::Trivial));
        }
        found
    }
}

/// So many minutes.
#[must_use]
pub const fn minutes(count: u32) -> Duration {
    Duration::from_secs(count as u64 * 60)
}

/// What of a user must not be the PIN.
#[derive(Clone, Copy, Debug, Default)]
pub struct Person<'a> {
    /// The primary extension.
    pub extension: Option<&'a str>,
    /// The name as people read it.
    pub name: &'a str,
}

/// A rule that a PIN breaks. Nothing of the PIN is in it.
#[derive(Clone, Copy, Debug)]
pub enum Violation {
    /// It has too few digits.
    TooShort {
        /// The fewest.
        min: u32,
    },
    /// It has too many digits.
    TooLong {
        /// The most.
        max: u32,
    },
    /// Something in it is no digit; whether it is trivial is not looked at.
    NotDigits,
    /// It is too easy to guess.
    Trivial(&'static Rule),
}

impl Violation {
    /// What programs know it by; a word that was ever used stays.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "too_short",
            Self::TooLong { .. } => "too_long",
            Self::NotDigits => "not_digits",
            Self::Trivial(rule) => rule.code,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { min } => write!(f, "it must have at least {min} digits")?,
            Self::TooLong { max } => write!(f, "it must have at most {max} digits")?,
            Self::NotDigits => f.write_str("it must have digits only")?,
            Self::Trivial(rule) => f.write_str(rule.text)?,
        }
        write!(f, " ({})", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(rules: Rules, pin: &str, user: &Person<'_>) -> Vec<&'static str> {
        let found = rules.violations(pin, user);
        found.iter().map(Violation::code).collect()
    }

    #[test]
    fn every_rule_that_is_broken_is_told_with_its_number_and_not_the_pin() {
        let nobody = Person::default();
        let found = BUILT_IN.violations("1111", &nobody);
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "it must have at least 6 digits (too_short)",
                "one digit must not stand more than twice in a row (repeat_run)",
                "there must be three different digits at least (few_distinct)",
                "it must not be made of groups that repeat (repeated_group)",
            ]
        );
        assert!(!format!("{found:?}{told:?}").contains("1111"));
        let long = "91827364502468135";
        assert_eq!(codes(BUILT_IN, long, &nobody), ["too_long"]);
        assert_eq!(codes(BUILT_IN, "24680", &nobody), ["too_short"]);
        assert_eq!(codes(BUILT_IN, "24680x", &nobody), ["not_digits"]);
        // Characters are counted, not bytes.
        assert_eq!(codes(BUILT_IN, "ééé", &nobody), ["too_short", "not_digits"]);
        assert_eq!(codes(BUILT_IN, "246809", &nobody), [] as [&str; 0]);
        assert_eq!(codes(BUILT_IN, &long[..16], &nobody), [] as [&str; 0]);
    }

    /// No rule is without effect for those who change nothing.
    #[test]
    fn every_rule_refuses_some_pin_of_the_built_in_policy() {
        let user = Person {
            extension: Some("4711"),
            name: "Roe, Marco",
        };
        for (code, pin) in [
            ("repeat_run", "111846"),
            ("contains_extension", "904711"),
            ("reversed_extension", "901174"),
            ("few_distinct", "449494"),
            ("name_keypad", "62726763"),
            ("repeated_group", "408408"),
            ("keypad_line", "159753"),
            ("keypad_line", "147369"),
            ("keypad_line", "258963"),
            ("sequence", "345678"),
        ] {
            assert!(codes(BUILT_IN, pin, &user).contains(&code), "{code} {pin}");
        }
        let told = TRIVIAL.iter().map(|rule| rule.code);
        assert_eq!(told.count(), 8, "and each of them is above");
    }

    #[test]
    fn without_the_check_of_trivial_pins_only_length_and_digits_count() {
        let rules = Rules {
            min_length: 4,
            trivial_check: false,
            ..BUILT_IN
        };
        let user = Person {
            extension: Some("1111"),
            name: "",
        };
        assert_eq!(codes(rules, "1111", &user), [] as [&str; 0]);
        assert_eq!(codes(rules, "111", &user), ["too_short"]);
        assert_eq!(codes(rules, "111a", &user), ["not_digits"]);
    }

    #[test]
    fn numbers_have_ranges_and_a_pin_of_the_least_length_must_be_allowed() {
        assert_eq!(BUILT_IN.broken(), []);
        let told = |rules: Rules| {
            let broken = rules.broken().into_iter();
            let told: Vec<_> = broken.map(|b| format!("{}: {b}", b.column)).collect();
            told
        };
        let edges = |failures, window, lock, (min, max)| Rules {
            failures_before_lock: failures,
            failure_window: window,
            lock_duration: lock,
            min_length: min,
            max_length: max,
            trivial_check: true,
        };
        assert!(told(edges(0, 1, 1, (4, 4))).is_empty());
        assert!(told(edges(100, 120, 1_440, (20, 64))).is_empty());
        assert_eq!(
            told(edges(101, 0, 0, (3, 2))),
            [
                "failures-before-lock: it must be 0 to 100",
                "failure-window: it must be 1 to 120",
                "lock-duration: it must be 1 to 1440",
                "min-length: it must be 4 to 20",
                "max-length: it must be 3 to 64",
            ]
        );
        assert_eq!(
            told(edges(0, 121, 1_441, (21, 65))),
            [
                "failure-window: it must be 1 to 120",
                "lock-duration: it must be 1 to 1440",
                "min-length: it must be 4 to 20",
                "max-length: it must be 21 to 64",
            ]
        );
    }
}
