//! How two clusters that are strangers become peers: the words for it, and what may follow what. Pure.
//!
//! An invitation is `open` until somebody proves to know its secret, which binds it to the certificate that was shown
//! (`proven`). Then both clusters tell what they are (`told`), and both operators compare words and confirm. The
//! inviting side commits first and says so; the joining one follows, and acknowledges.
//!
//! ```text
//! inviting   open → proven → told → committed → done
//! joining           proven → told → committed → done
//! either     → refused | cancelled | expired;  inviting → burned;  joining → lost
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, domain::ids::ClusterId};

/// How many wrong proofs burn an invitation.
pub const MAX_FAILURES: u32 = 5;

/// Which invitation; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvitationId(pub [u8; 8]);

impl fmt::Display for InvitationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that names no invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 16 hexadecimal digits")]
pub struct InvalidInvitationId;

impl FromStr for InvitationId {
    type Err = InvalidInvitationId;

    fn from_str(text: &str) -> Result<Self, InvalidInvitationId> {
        let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).map_err(|_| InvalidInvitationId);
        if is_hex {
            number.map(|number| Self(number.to_be_bytes()))
        } else {
            Err(InvalidInvitationId)
        }
    }
}

/// Our part in a pairing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// We made the invitation.
    Inviting,
    /// We were given one.
    Joining,
}

impl Side {
    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inviting => "inviting",
            Self::Joining => "joining",
        }
    }

    /// The command that it is handled with.
    #[must_use]
    pub const fn command(self) -> &'static str {
        match self {
            Self::Inviting => "emccd cluster invite",
            Self::Joining => "emccd cluster join",
        }
    }
}

impl FromStr for Side {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let all = [Self::Inviting, Self::Joining];
        all.into_iter()
            .find(|side| side.as_str() == word)
            .ok_or(UnknownWord)
    }
}

/// A word that no version up to this one has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an unknown word")]
pub struct UnknownWord;

/// How far a pairing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nobody has proved anything yet.
    Open,
    /// The other side knows the secret, and its certificate is bound to it.
    Proven,
    /// Each side has told what it is: there are words to compare.
    Told,
    /// The trust and the record are in the store of this side.
    Committed,
    /// And in that of the other side.
    Done,
    /// One of the operators did not confirm.
    Refused,
    /// An operator took it back.
    Cancelled,
    /// Too many wrong proofs.
    Burned,
    /// Its time was over.
    Expired,
    /// The joining side can't learn any more what became of it.
    Lost,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Proven,
        Self::Told,
        Self::Committed,
        Self::Done,
        Self::Refused,
        Self::Cancelled,
        Self::Burned,
        Self::Expired,
        Self::Lost,
    ];

    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Proven => "proven",
            Self::Told => "told",
            Self::Committed => "committed",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Burned => "burned",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }

    /// Whether something can still come of it, before either side has committed.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Open | Self::Proven | Self::Told)
    }
}

impl FromStr for State {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or(UnknownWord)
    }
}

/// What a cluster tells the other one of itself, once both have proved that they know the secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which cluster it is.
    pub cluster_id: String,
    /// What people call it.
    pub name: String,
    /// Software and version of the node that told.
    pub software: String,
    /// Protocol versions that it speaks.
    pub versions: String,
    /// The security mode of the cluster.
    pub security_mode: String,
    /// Where its nodes listen.
    pub addresses: Vec<ToldAddress>,
    /// What its nodes show to other clusters.
    pub certificates: Vec<ToldCertificate>,
}

impl Told {
    /// The addresses that answered with a certificate of that cluster: no others are believed.
    pub fn believed(&self) -> impl Iterator<Item = &ToldAddress> {
        self.addresses.iter().filter(|told| told.trouble.is_none())
    }
}

/// An address, and what became of dialling it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldAddress {
    /// `host:port`.
    pub address: String,
    /// Why it is not believed; none when it answered as it should.
    pub trouble: Option<String>,
    /// What an operator should know of it all the same.
    pub warning: Option<String>,
}

/// One certificate of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldCertificate {
    /// Which node shows it, for people.
    pub node: String,
    /// What for: `federation` or `federation-client`.
    pub purpose: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// How its proof is made, as TLS numbers signature schemes.
    #[serde(default)]
    pub scheme: u16,
    /// Made with its own key over [`certificate_text`]; empty where there is none.
    #[serde(default)]
    pub signature: Vec<u8>,
    /// Of our own: that the node does not show it now. Peers are told of it because it is to take the place of the one
    /// that is shown, or because that one took its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_only_told: bool,
}

/// What is signed with a certificate's key to show that it is one of that cluster. It names no connection: any node tells
/// for all, and what each has signed lies in the store for that.
#[must_use]
pub fn certificate_text(cluster_id: &str, fingerprint: &[u8; 32]) -> Vec<u8> {
    // No ID has a zero byte in it, and the fingerprint has one length.
    let parts: [&[u8]; 4] = [
        b"emcc-join/1 certificate\0",
        cluster_id.as_bytes(),
        b"\0",
        fingerprint,
    ];
    parts.concat()
}

/// What is needed to decide on a pairing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How far it has come.
    pub state: State,
    /// Wrong proofs so far.
    pub failures: u32,
    /// The certificate that it is bound to.
    pub bound_to: Option<[u8; 32]>,
    /// Whether our operator has confirmed.
    pub we_confirmed: bool,
    /// Whether the other side's has.
    pub they_confirmed: bool,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A proof, as the one to whom it was given sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The certificate that the caller showed.
    pub leaf: [u8; 32],
    /// Whether it was made with the secret.
    pub knows_secret: bool,
    /// Whether it was made for this very connection.
    pub same_connection: bool,
}

/// What follows from a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proved {
    /// The invitation is bound to the caller's certificate now.
    Bound,
    /// It counts as a failure.
    Failed(Failed),
    /// Somebody who knows the secret comes after another one.
    Used,
    /// It is not open any more.
    NotOpen,
}

/// A proof that is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How many more may follow.
    pub left: u32,
    /// Whether it was made with the secret, on another connection: something stands between.
    pub is_relayed: bool,
}

impl Standing {
    /// Decides on a proof. Right ones bind the invitation to a certificate, once; who shows the same one may prove it
    /// again until it has told what it is, so that a crash between the two costs no invitation.
    #[must_use]
    pub fn prove(&self, attempt: &Attempt, now: Timestamp) -> Proved {
        if !self.state.is_under_way() || now >= self.expires_at {
            return Proved::NotOpen;
        }
        let is_right = attempt.knows_secret && attempt.same_connection;
        if is_right {
            let is_first = self.state == State::Open;
            let is_again = self.state == State::Proven && self.bound_to == Some(attempt.leaf);
            return if is_first || is_again {
                Proved::Bound
            } else {
                Proved::Used
            };
        }
        if self.state != State::Open {
            // Whoever it is bound to needs no proof any more: nothing is left to burn.
            return if attempt.knows_secret {
                Proved::Used
            } else {
                Proved::NotOpen
            };
        }
        Proved::Failed(Failed {
            left: MAX_FAILURES.saturating_sub(self.failures + 1),
            is_relayed: attempt.knows_secret,
        })
    }

    /// Whether a caller that shows this certificate is the one it is bound to.
    #[must_use]
    pub fn is_bound_to(&self, leaf: &[u8; 32]) -> bool {
        self.bound_to.as_ref() == Some(leaf)
    }

    /// Whether the inviting side commits now: when both have confirmed, in time, and not before.
    #[must_use]
    pub fn is_agreed(&self, now: Timestamp) -> bool {
        self.state == State::Told
            && self.we_confirmed
            && self.they_confirmed
            && now < self.expires_at
    }
}

/// Why two clusters can't be paired, whatever their operators say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its ID is none.
    #[error("the other cluster has no ID that can be one")]
    Unnamed,
    /// Not the one that invited.
    #[error("the invitation is one of {0}, and who answers is {1}")]
    Another(ClusterId, String),
    /// A cluster with itself.
    #[error("{0} is this cluster's own ID")]
    Ourselves(ClusterId),
    /// It did not tell the certificate that it shows.
    #[error("{0} does not count the certificate that it shows among its own")]
    NotItsOwn(ClusterId),
    /// A certificate came without the proof of its key, and was not shown either.
    #[error(
        "{cluster} has not proved that the certificate of its node {node} is its own: SHA-256 {fingerprint}"
    )]
    Unproven {
        /// Which cluster.
        cluster: ClusterId,
        /// Of which of its nodes, as it says.
        node: String,
        /// Which certificate.
        fingerprint: String,
    },
    /// One of our own certificates.
    #[error("{cluster} counts a certificate of this cluster among its own: SHA-256 {fingerprint}")]
    Ours {
        /// Which cluster.
        cluster: ClusterId,
        /// Which certificate.
        fingerprint: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn open() -> Standing {
        Standing {
            state: State::Open,
            failures: 0,
            bound_to: None,
            we_confirmed: false,
            they_confirmed: false,
            expires_at: at(1_000),
        }
    }

    const RIGHT: Attempt = Attempt {
        leaf: [1; 32],
        knows_secret: true,
        same_connection: true,
    };

    #[test]
    fn a_right_proof_binds_once() {
        assert_eq!(open().prove(&RIGHT, at(0)), Proved::Bound);
        let bound = Standing {
            state: State::Proven,
            bound_to: Some(RIGHT.leaf),
            ..open()
        };
        assert_eq!(bound.prove(&RIGHT, at(0)), Proved::Bound, "after a crash");
        let thief = Attempt {
            leaf: [2; 32],
            ..RIGHT
        };
        assert_eq!(bound.prove(&thief, at(0)), Proved::Used);
        let told = Standing {
            state: State::Told,
            ..bound
        };
        assert_eq!(told.prove(&RIGHT, at(0)), Proved::Used);
    }

    #[test]
    fn wrong_proofs_are_counted_while_there_is_something_to_guess() {
        let wrong = Attempt {
            knows_secret: false,
            ..RIGHT
        };
        let relayed = Attempt {
            same_connection: false,
            ..RIGHT
        };
        let failed = |left, is_relayed| Proved::Failed(Failed { left, is_relayed });
        assert_eq!(open().prove(&wrong, at(0)), failed(4, false));
        assert_eq!(open().prove(&relayed, at(0)), failed(4, true));
        let last = Standing {
            failures: 4,
            ..open()
        };
        assert_eq!(last.prove(&wrong, at(0)), failed(0, false));
        assert_eq!(last.prove(&RIGHT, at(0)), Proved::Bound);
        let bound = Standing {
            state: State::Proven,
            bound_to: Some([9; 32]),
            ..open()
        };
        assert_eq!(bound.prove(&wrong, at(0)), Proved::NotOpen);
    }

    #[test]
    fn words_and_states_read_back() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("opened".parse::<State>().is_err());
        let id = InvitationId([0, 1, 2, 3, 0xAB, 5, 6, 7]);
        assert_eq!(id.to_string(), "00010203ab050607");
        assert_eq!(id.to_string().parse(), Ok(id));
        for odd in ["", "+0010203ab05060", "0001", "00010203ab05060g"] {
            assert!(odd.parse::<InvitationId>().is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_agreed_or_bound_but_in_its_time_and_state(
            state in 0_usize..10, failures in 0_u32..5, we: bool, they: bool, leaf in 0_u8..3, knows: bool, same: bool,
            now in 0_i64..2_000,
        ) {
            let standing = Standing {
                state: State::ALL[state],
                failures,
                bound_to: Some([1; 32]),
                we_confirmed: we,
                they_confirmed: they,
                expires_at: at(1_000),
            };
            let agreed = standing.is_agreed(at(now));
            prop_assert_eq!(agreed, standing.state == State::Told && we && they && now < 1_000);
            let attempt = Attempt { leaf: [leaf; 32], knows_secret: knows, same_connection: same };
            if standing.prove(&attempt, at(now)) == Proved::Bound {
                prop_assert!(knows && same && now < 1_000);
                prop_assert!(standing.state == State::Open || (standing.state == State::Proven && leaf == 1));
            }
        }
    }
}
