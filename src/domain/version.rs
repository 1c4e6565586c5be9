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
