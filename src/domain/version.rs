//! Protocol versions and their negotiation. Pure.

use std::{fmt, str::FromStr};

/// `major.minor` of the federation protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Versions talk to each other only within one major number.
    pub major: u32,
    /// Minor versions only add.
    pub minor: u32,
}

impl Version {
    /// The first one: knows `UID` only, and is meant when a caller names none.
    pub const V1_0: Self = Self { major: 1, minor: 0 };
    /// Adds the login types `SP` and `DN`.
    pub const V1_1: Self = Self { major: 1, minor: 1 };
    /// The newest that this software speaks.
    pub const CURRENT: Self = Self::V1_1;

    /// Whether login types other than `UID` exist in it.
    #[must_use]
    pub fn knows_login_types(self) -> bool {
        self >= Self::V1_1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text that is no `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a protocol version is written major.minor, for example 1.1")]
pub struct InvalidVersion;

impl FromStr for Version {
    type Err = InvalidVersion;
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let (major, minor) = text.split_once('.').ok_or(InvalidVersion)?;
        let number = |t: &str| {
            t.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| t.parse().ok())
                .flatten()
        };
        Ok(Self {
            major: number(major).ok_or(InvalidVersion)?,
            minor: number(minor).ok_or(InvalidVersion)?,
        })
    }
}

/// What a node is able and allowed to speak, both ends included, within one major number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    min: Version,
    max: Version,
}

impl VersionRange {
    /// All that this software speaks.
    pub const SUPPORTED: Self = Self {
        min: Version::V1_0,
        max: Version::CURRENT,
    };
    /// What a caller that names nothing speaks.
    pub const ONLY_1_0: Self = Self {
        min: Version::V1_0,
        max: Version::V1_0,
    };

    /// A range; none when the ends are the wrong way round or of different major numbers.
    #[must_use]
    pub fn new(min: Version, max: Version) -> Option<Self> {
        (min.major == max.major && min <= max).then_some(Self { min, max })
    }

    /// The lower end.
    #[must_use]
    pub const fn min(self) -> Version {
        self.min
    }

    /// The upper end.
    #[must_use]
    pub const fn max(self) -> Version {
        self.max
    }

    /// Whether it holds `version`.
    #[must_use]
    pub fn contains(self, version: Version) -> bool {
        self.min <= version && version <= self.max
    }

    /// The highest version that both ranges hold.
    #[must_use]
    pub fn highest_common(self, other: Self) -> Option<Version> {
        let (low, high) = (self.min.max(other.min), self.max.min(other.max));
        (self.max.major == other.max.major && low <= high).then_some(high)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn range(min: &str, max: &str) -> VersionRange {
        VersionRange::new(version(min), version(max)).unwrap()
    }

    #[test]
    fn the_highest_common_version_is_used() {
        let new = range("1.0", "1.1");
        assert_eq!(new.highest_common(new), Some(Version::V1_1));
        assert_eq!(
            new.highest_common(VersionRange::ONLY_1_0),
            Some(Version::V1_0)
        );
        assert_eq!(
            range("1.1", "1.9").highest_common(VersionRange::ONLY_1_0),
            None
        );
        assert_eq!(
            range("2.0", "2.5").highest_common(range("1.0", "1.9")),
            None
        );
    }

    #[test]
    fn a_range_stays_within_one_major_version() {
        assert_eq!(VersionRange::new(version("1.1"), version("1.0")), None);
        assert_eq!(VersionRange::new(version("1.0"), version("2.0")), None);
    }

    #[test]
    fn login_types_came_with_1_1() {
        assert!(!Version::V1_0.knows_login_types());
        assert!(Version::V1_1.knows_login_types());
        assert!(version("1.2").knows_login_types());
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("1.10") > version("1.9"));
        assert!(version("2.0") > version("1.99"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "1",
            "1.",
            ".1",
            "1.x",
            "1.0.0",
            "+1.0",
            "1.-0",
            " 1.0",
            "1.4294967296",
        ] {
            assert_eq!(text.parse::<Version>(), Err(InvalidVersion), "{text:?}");
        }
    }

    #[test]
    fn a_range_reads_as_a_sentence_needs_it() {
        assert_eq!(range("1.0", "1.1").to_string(), "1.0 to 1.1");
        assert_eq!(VersionRange::ONLY_1_0.to_string(), "1.0");
    }

    prop_compose! {
        fn any_range()(major in 1u32..3, a in 0u32..6, b in 0u32..6) -> VersionRange {
            let (min, max) = (a.min(b), a.max(b));
            VersionRange { min: Version { major, minor: min }, max: Version { major, minor: max } }
        }
    }

    proptest! {
        #[test]
        fn both_sides_choose_the_same(a in any_range(), b in any_range()) {
            prop_assert_eq!(a.highest_common(b), b.highest_common(a));
        }

        #[test]
        fn the_choice_is_in_both_and_nothing_higher_is(a in any_range(), b in any_range()) {
            let common: Vec<_> = (1..3)
                .flat_map(|major| (0..6).map(move |minor| Version { major, minor }))
                .filter(|version| a.contains(*version) && b.contains(*version))
                .collect();
            prop_assert_eq!(a.highest_common(b), common.last().copied());
        }

        #[test]
        fn a_version_survives_the_way(major: u32, minor: u32) {
            let version = Version { major, minor };
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }
    }
}
