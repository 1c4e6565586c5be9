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

impl Role {
    /// The part that the other cluster plays.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Home => Self::Visiting,
            Self::Visiting => Self::Home,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{option, prelude::*, sample};

    use super::*;

    fn any_state() -> impl Strategy<Value = State> {
        sample::select(
            State::WORDS
                .iter()
                .map(|(state, _)| *state)
                .collect::<Vec<_>>(),
        )
    }

    fn any_reason() -> impl Strategy<Value = EndReason> {
        sample::select(
            EndReason::WORDS
                .iter()
                .map(|(reason, _)| *reason)
                .collect::<Vec<_>>(),
        )
    }

    /// A view as a store can hold it: only an end has a reason.
    fn any_view() -> impl Strategy<Value = View> {
        (any_state(), option::of(any_reason())).prop_map(|(state, reason)| View {
            state,
            reason: reason.filter(|_| state == State::Ended),
        })
    }

    #[test]
    fn the_order_is_the_one_of_the_merge() {
        assert!(State::Pending < State::Active);
        assert!(State::Active < State::Ending);
        assert!(State::Ending < State::Ended);
    }

    #[test]
    fn for_the_reason_of_an_end_home_wins() {
        let ended = |reason| View {
            state: State::Ended,
            reason,
        };
        let (user, expired) = (
            ended(Some(EndReason::User)),
            ended(Some(EndReason::Expired)),
        );
        assert_eq!(View::merge(user, expired), user);
        assert_eq!(View::merge(expired, user), expired);
        assert_eq!(View::merge(ended(None), user), user);
        let active = View {
            state: State::Active,
            reason: None,
        };
        assert_eq!(View::merge(active, user), user);
        assert_eq!(View::merge(user, active), user);
    }

    #[test]
    fn every_word_is_its_own_and_leads_back() {
        fn check<T: Copy + PartialEq + fmt::Debug + fmt::Display + FromStr<Err = UnknownWord>>(
            words: &[(T, &'static str)],
        ) {
            let unique: BTreeSet<_> = words.iter().map(|(_, word)| word).collect();
            assert_eq!(unique.len(), words.len());
            for (value, word) in words {
                assert_eq!(value.to_string(), *word);
                assert_eq!(word.parse(), Ok(*value));
                assert!(word.to_uppercase().parse::<T>().is_err());
            }
            assert!("".parse::<T>().is_err());
        }
        check(State::WORDS);
        check(Role::WORDS);
        check(EndReason::WORDS);
        check(Initiator::WORDS);
    }

    #[test]
    fn the_store_and_json_use_the_same_words() {
        for (reason, word) in EndReason::WORDS {
            assert_eq!(
                serde_json::to_string(reason).unwrap(),
                format!("\"{word}\"")
            );
        }
        for (state, word) in State::WORDS {
            assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{word}\""));
        }
    }

    proptest! {
        #[test]
        fn the_state_of_a_merge_does_not_depend_on_the_side(a in any_view(), b in any_view()) {
            prop_assert_eq!(View::merge(a, b).state, View::merge(b, a).state);
            prop_assert_eq!(View::merge(a, b).state, a.state.max(b.state));
        }

        #[test]
        fn merging_again_changes_nothing(a in any_view(), b in any_view()) {
            let merged = View::merge(a, b);
            prop_assert_eq!(View::merge(a, a), a);
            prop_assert_eq!(View::merge(merged, b), merged);
            prop_assert_eq!(View::merge(a, merged), merged);
            prop_assert_eq!(View::merge(merged, merged), merged);
        }

        #[test]
        fn nothing_comes_back_from_an_end(a in any_view(), b in any_view()) {
            let merged = View::merge(a, b);
            prop_assert!(merged.state >= a.state && merged.state >= b.state);
            prop_assert!(merged.reason.is_none() || merged.state == State::Ended);
        }
    }
}
