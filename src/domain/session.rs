//! Session states and their merge. Pure.
//!
//! `pending < active < ending < ended`: of two views of one session the later state wins. Home knows only
//! `active` and `ended`. A `pending` row past its deadline is ended, never promoted.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a session stands, in the order of the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Visiting has asked home and has no answer yet.
    Pending,
    /// The user is on the phone.
    Active,
    /// Visiting has begun to end it.
    Ending,
    /// Over; kept as a tombstone.
    Ended,
}

/// Which part our cluster plays in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// We own the user.
    Home,
    /// We own the phone.
    Visiting,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Given up: no answer in time, or one that came too late.
    Abandoned,
    /// Its time was over.
    Expired,
    /// An operator ended it.
    Operator,
    /// The login was refused; there never was a session.
    Refused,
    /// The user, the peer or its trust was revoked.
    Revoked,
    /// A later login of the same phone or user took its place.
    Superseded,
    /// The user logged out on the phone.
    User,
}

/// Which side began an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initiator {
    /// The home cluster.
    Home,
    /// The visiting cluster.
    Visiting,
}

macro_rules! words {
    ($name:ident, $what:literal, $($variant:ident = $word:literal),+ $(,)?) => {
        impl $name {
            /// Every value, with the word that stands for it in the store and in tables.
            pub const WORDS: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::WORDS.iter().find(|(_, word)| *word == text).map(|(value, _)| *value).ok_or(UnknownWord($what))
            }
        }
    };
}

/// A word that stands for no value of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {0}")]
pub struct UnknownWord(&'static str);

words!(
    State,
    "session state",
    Pending = "pending",
    Active = "active",
    Ending = "ending",
    Ended = "ended"
);
words!(Role, "role", Home = "home", Visiting = "visiting");
words!(
    EndReason,
    "end reason",
    Abandoned = "abandoned",
    Expired = "expired",
    Operator = "operator",
    Refused = "refused",
    Revoked = "revoked",
    Superseded = "superseded",
    User = "user",
);
words!(Initiator, "initiator", Home = "home", Visiting = "visiting");

/// What one side knows of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its state there.
    pub state: State,
    /// Why it ended, once it has.
    pub reason: Option<EndReason>,
}

impl View {
    /// Merges what home and visiting know: the later state wins, and for the reason of an end, home's.
    #[must_use]
    pub fn merge(home: Self, visiting: Self) -> Self {
        let state = home.state.max(visiting.state);
        let reason = match (home.state, visiting.state) {
            (State::Ended, _) => home.reason.or(visiting.reason),
            (_, State::Ended) => visiting.reason,
            _ => None,
        };
        Self { state, reason }
    }
}
