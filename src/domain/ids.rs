//! Names and ids as types: a value that exists is well formed. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is no such name. It tells the rule, not the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
}

impl InvalidName {
    /// What the name must be.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text that keeps the rule.
            ///
            /// # Errors
            /// [`InvalidName`] with the rule when it does not.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(InvalidName { what: $what, rule: $rule }) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

fn is_plain(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

name_type!(
    /// A cluster's ID, unique in the federation.
    ClusterId, "a cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -", |t| is_plain(t, 64)
);
name_type!(
    /// A user's ID at home, whatever was typed to find it.
    UserId, "a user ID", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);
name_type!(
    /// What a user typed to say who they are: a user ID, a self-service user ID or a primary extension.
    LoginName, "a login name", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);
name_type!(
    /// A phone's name, for example `SEP00112233AABB`.
    DeviceName, "a device name", "1 to 64 characters of A-Z a-z 0-9 . _ -", |t| is_plain(t, 64)
);
name_type!(
    /// A device profile's name.
    ProfileName, "a profile name", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);
name_type!(
    /// The name of a slot in the pool of EMCC base devices.
    BaseDeviceName, "a base device name", "1 to 64 characters of A-Z a-z 0-9 . _ -", |t| is_plain(t, 64)
);
name_type!(
    /// The name of a device pool.
    DevicePoolName, "a device pool name", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);
name_type!(
    /// The name of a geolocation.
    GeolocationName, "a geolocation name", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);
name_type!(
    /// The name of a call-control group.
    CallGroupName, "a call-control group's name", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);
name_type!(
    /// The name of a phone service, as a phone shows it.
    ServiceName, "a phone service's name", "1 to 64 bytes of text without control characters or surrounding blanks", |t| is_text(t, 64)
);
name_type!(
    /// The ID of a program that signs in by itself.
    ApplicationId, "an application user ID", "1 to 128 bytes of text without control characters or surrounding blanks", |t| is_text(t, 128)
);

name_type!(
    /// The name of a credential policy.
    PolicyName, "a policy name", "1 to 64 bytes of text without control characters or surrounding blanks", |t| is_text(t, 64)
);

impl PolicyName {
    /// The policy of all users who have none of their own.
    #[must_use]
    pub fn of_all_others() -> Self {
        Self("default".to_owned())
    }

    /// Whether this is that one.
    #[must_use]
    pub fn is_of_all_others(&self) -> bool {
        self.0 == "default"
    }
}

/// The id of one session: a UUIDv7 made by the visiting cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Takes a UUID made elsewhere.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Takes 16 bytes; anything else is no session id.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "a UUID, for example 0192f0c1-2345-7abc-8def-0123456789ab";
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidName {
            what: "a session id",
            rule,
        })
    }
}

/// The id of one attempt: 8 characters of Crockford base32 (40 bits), shown in two groups (`7K3Q-9M2X`).
///
/// The same on both clusters, on the phone's error page, in logs and in the audit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(u64);

impl Ref {
    const ALPHABET: &'static [u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

    /// Makes a ref of 40 random bits; the others are cut off.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0xFF_FFFF_FFFF)
    }

    /// The 8 characters without the dash, as they go over the wire and into the store.
    #[must_use]
    pub fn compact(self) -> String {
        (0..8u32)
            .rev()
            .filter_map(|group| {
                let index = usize::try_from((self.0 >> (group * 5)) & 31).unwrap_or(0);
                Self::ALPHABET.get(index).map(|b| char::from(*b))
            })
            .collect()
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.compact();
        let (a, b) = text.split_at(4);
        write!(f, "{a}-{b}")
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({self})")
    }
}

impl FromStr for Ref {
    type Err = InvalidName;

    /// Reads it as people write it: dashes and case don't matter, `O` is 0, `I` and `L` are 1.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName {
            what: "a ref",
            rule: "8 characters of Crockford base32, for example 7K3Q-9M2X",
        };
        let mut bits = 0u64;
        let mut count = 0;
        for c in text.chars().filter(|c| *c != '-') {
            let c = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let Some(digit) = Self::ALPHABET.iter().position(|b| char::from(*b) == c) else {
                return Err(invalid);
            };
            count += 1;
            if count > 8 {
                return Err(invalid);
            }
            bits = (bits << 5) | u64::try_from(digit).unwrap_or(0);
        }
        if count == 8 {
            Ok(Self(bits))
        } else {
            Err(invalid)
        }
    }
}

impl Serialize for Ref {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_keep_their_rules() {
        for good in ["berlin", "a", "A-1_b.c", &"c".repeat(64)] {
            assert!(ClusterId::new(good).is_ok(), "{good}");
            assert!(DeviceName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ber lin",
            "berlin\n",
            "bérlin",
            "a/b",
            "a\0b",
            &"c".repeat(65),
        ] {
            assert!(ClusterId::new(bad).is_err(), "{bad:?}");
            assert!(BaseDeviceName::new(bad).is_err(), "{bad:?}");
        }
        for good in [
            "alice",
            "alice@example.com",
            "<b>&",
            "Zoë Ü",
            &"x".repeat(128),
        ] {
            assert!(LoginName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " alice",
            "alice ",
            "al\nice",
            "al\0ice",
            &"x".repeat(129),
        ] {
            assert!(LoginName::new(bad).is_err(), "{bad:?}");
            assert!(UserId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_broken_name_is_not_repeated() {
        let error = UserId::new("48151623\n").unwrap_err();
        assert!(!error.to_string().contains("4815"), "{error}");
        assert!(error.to_string().contains(error.rule()), "{error}");
    }

    #[test]
    fn a_name_from_json_keeps_the_rule() {
        assert!(serde_json::from_str::<ClusterId>("\"berlin\"").is_ok());
        assert!(serde_json::from_str::<ClusterId>("\"ber lin\"").is_err());
    }

    #[test]
    fn a_ref_is_read_as_people_write_it() {
        let reference: Ref = "7K3Q-9M2X".parse().unwrap();
        assert_eq!(reference.to_string(), "7K3Q-9M2X");
        assert_eq!(reference.compact(), "7K3Q9M2X");
        for text in ["7k3q9m2x", "7K3Q9M2X", "7K-3Q-9M-2X"] {
            assert_eq!(text.parse(), Ok(reference), "{text}");
        }
        let looks_alike: Ref = "OIL0-1111".parse().unwrap();
        assert_eq!(looks_alike.to_string(), "0110-1111");
    }

    #[test]
    fn what_is_no_ref_is_refused() {
        for text in [
            "",
            "-",
            "7K3Q9M2",
            "7K3Q9M2XX",
            "7K3Q9M2U",
            "7K3Q 9M2X",
            "ÄK3Q9M2X",
        ] {
            assert!(text.parse::<Ref>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_session_id_needs_16_bytes() {
        assert_eq!(SessionId::from_bytes(&[0; 15]), None);
        assert_eq!(SessionId::from_bytes(&[0; 17]), None);
        assert_eq!(SessionId::from_bytes(&[]), None);
        assert!("0192f0c1-2345-7abc-8def".parse::<SessionId>().is_err());
    }

    proptest! {
        #[test]
        fn a_ref_survives_the_way(bits: u64) {
            let reference = Ref::from_bits(bits);
            prop_assert_eq!(reference.compact().len(), 8);
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            prop_assert_eq!(reference.compact().parse(), Ok(reference));
            prop_assert_eq!(Ref::from_bits(bits & 0xFF_FFFF_FFFF), reference);
        }

        #[test]
        fn different_bits_are_different_refs(a in 0u64..1 << 40, b in 0u64..1 << 40) {
            prop_assert_eq!(Ref::from_bits(a) == Ref::from_bits(b), a == b);
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = text.parse::<Ref>();
            let _ = text.parse::<SessionId>();
            let _ = ClusterId::new(text);
        }

        #[test]
        fn a_session_id_survives_the_way(bytes: [u8; 16]) {
            let id = SessionId::from_bytes(&bytes).unwrap();
            prop_assert_eq!(id.as_bytes(), &bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
