//! Announcements: a peer tells which certificates one of its identities has, so that the next one is trusted before it
//! is used. Pure.
//!
//! An announcement is the whole of one identity, under a number that only grows. [`reconcile`] says what it does to what
//! we accept from that peer.

pub mod reconcile;

use std::{fmt, str::FromStr};

use crate::domain::ids::ClusterId;

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// How many certificates one identity has at most: the old and the new one, and two to spare.
pub const MAX_CERTIFICATES: usize = 4;
/// How many identities one peer may announce: two purposes of each node of a large cluster.
pub const MAX_IDENTITIES: usize = 64;

/// The whole of one identity, as its cluster tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Node and purpose.
    pub identity: String,
    /// Grows with each change of the identity.
    pub sequence: u64,
    /// Its certificates, each once; one at least.
    pub certificates: Vec<Proven>,
}

/// A certificate with the proof that its key is the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The certificate.
    pub der: Vec<u8>,
    /// The one that it is said to descend from.
    pub parent: Option<Fingerprint>,
    /// Made with its own key.
    pub proof: Proof,
    /// Made with the parent's key, over the same text: without it the parent is only said to be one.
    pub parent_proof: Option<Proof>,
}

/// A signature over [`proof_text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How it is made, as TLS numbers signature schemes.
    pub scheme: u16,
    /// The signature.
    pub signature: Vec<u8>,
}

/// What became of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is accepted.
    Loaded,
    /// An operator of the called cluster has to agree; why.
    Waiting(String),
    /// It is not taken; why.
    Refused(String),
}

/// The answer to an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The highest number known of this identity. Above that of the announcement: nothing was changed.
    pub sequence: u64,
    /// One for each certificate, in their order; none when nothing was changed.
    pub outcomes: Vec<(Fingerprint, Outcome)>,
}

/// What is signed with a certificate's own key, to show that it is the caller's, and with its parent's, to show that it
/// descends from that one: for this peer, this identity and this number only.
#[must_use]
pub fn proof_text(
    calling: &ClusterId,
    called: &ClusterId,
    identity: &str,
    sequence: u64,
    fingerprint: &Fingerprint,
    parent: Option<&Fingerprint>,
) -> Vec<u8> {
    let mut text = b"emcc trust-announce v1".to_vec();
    let parts: [&[u8]; 6] = [
        calling.as_str().as_bytes(),
        called.as_str().as_bytes(),
        identity.as_bytes(),
        &sequence.to_be_bytes(),
        fingerprint,
        parent.map_or(&[], |parent| parent.as_slice()),
    ];
    for part in parts {
        // None of them is anywhere near as long.
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        text.extend(length.to_be_bytes());
        text.extend(part);
    }
    text
}

/// What becomes of a certificate that a peer announces as the next one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Acceptance {
    /// It is trusted at once: the peer has proved its key, over a link that we trust.
    #[default]
    Auto,
    /// It waits until an operator of ours agrees.
    Approve,
    /// It is refused: certificates are exchanged by hand.
    Off,
}

impl Acceptance {
    /// Every word that [`str::parse`] takes, for usage and refusals.
    pub const WORDS: [&'static str; 3] = ["auto", "approve", "off"];

    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Approve => "approve",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is none of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be auto, approve or off")]
pub struct NoAcceptance;

impl FromStr for Acceptance {
    type Err = NoAcceptance;

    fn from_str(word: &str) -> Result<Self, NoAcceptance> {
        [Self::Auto, Self::Approve, Self::Off]
            .into_iter()
            .find(|acceptance| acceptance.as_str() == word)
            .ok_or(NoAcceptance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_names_everything_it_is_for() {
        let id = |name| ClusterId::new(name).unwrap();
        let text = proof_text(&id("a"), &id("bc"), "n/f", 258, &[7; 32], Some(&[8; 32]));
        let mut expected = b"emcc trust-announce v1\0\0\0\x01a\0\0\0\x02bc\0\0\0\x03n/f".to_vec();
        expected.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 32]);
        expected.extend([7; 32]);
        expected.extend([0, 0, 0, 32]);
        expected.extend([8; 32]);
        assert_eq!(text, expected);
        let orphan = proof_text(&id("a"), &id("bc"), "n/f", 258, &[7; 32], None);
        assert_eq!(orphan.len(), text.len() - 32);
        assert!(orphan.ends_with(&[0, 0, 0, 0]));
        // No two sets of parts give one text.
        assert_ne!(
            proof_text(&id("ab"), &id("c"), "", 1, &[7; 32], None),
            proof_text(&id("a"), &id("bc"), "", 1, &[7; 32], None)
        );
    }

    #[test]
    fn each_word_is_read_as_it_is_written_and_no_other() {
        for word in Acceptance::WORDS {
            assert_eq!(word.parse::<Acceptance>().unwrap().as_str(), word);
        }
        for odd in ["", "Auto", "on", "auto "] {
            assert_eq!(odd.parse::<Acceptance>(), Err(NoAcceptance), "{odd}");
        }
    }
}
