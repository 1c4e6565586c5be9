//! Proofs that both ends of one TLS connection know the secret of an invitation, and the words that people compare.
//! Pure.
//!
//! The secret is never sent. Each side sends an HMAC over what only the two ends of this very connection have in common:
//! the TLS exporter, and the certificates that both have shown. Whoever ends TLS in between has two connections, with
//! two exporters, so that what is right on one of them is worth nothing on the other.

use std::fmt;

use aws_lc_rs::hmac;
use bip39::Language;

use crate::{
    domain::{
        ids::ClusterId,
        pairing::{InvitationId, Side},
    },
    secret::Secret,
};

/// The label under which TLS gives out what only the two ends of a connection know.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-emcc-join-1";

/// How many words are compared: 11 bits each.
pub const WORDS: usize = 6;

/// A connection as one end of it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What TLS exports under [`EXPORTER_LABEL`].
    pub exporter: [u8; 32],
    /// SHA-256 of the certificate that the joining side showed.
    pub caller_leaf: [u8; 32],
    /// SHA-256 of the certificate that the inviting side showed.
    pub server_leaf: [u8; 32],
}

/// What proofs of one invitation are made and checked with: made from the secret, which can't be had from it.
#[derive(Clone)]
pub struct ProofKey {
    bytes: Secret,
    key: hmac::Key,
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(…)")
    }
}

impl ProofKey {
    /// The key of an invitation with that secret.
    #[must_use]
    pub fn derive(secret: &Secret, cluster: &ClusterId, id: InvitationId) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let mut context = hmac::Context::with_key(&secret);
        context.update(b"emcc-join/1 key\0");
        context.update(&id.0);
        context.update(cluster.as_str().as_bytes());
        Self::from_bytes(context.sign().as_ref())
    }

    /// The key that the store has.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            bytes: Secret::new(bytes.to_vec()),
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes),
        }
    }

    /// What the store keeps while the invitation is open.
    #[must_use]
    pub fn bytes(&self) -> &Secret {
        &self.bytes
    }

    /// The proof of one side for a connection.
    #[must_use]
    pub fn prove(&self, side: Side, view: &View) -> Vec<u8> {
        self.mac(side, view).as_ref().to_vec()
    }

    /// Whether a proof is that of this side for this connection. It takes the same time wherever they differ.
    #[must_use]
    pub fn is_proof(&self, side: Side, view: &View, proof: &[u8]) -> bool {
        hmac::verify(&self.key, &content(side.as_str(), view), proof).is_ok()
    }

    /// The words that both operators read, the same on both sides of one connection and on no other.
    #[must_use]
    pub fn words(&self, view: &View) -> String {
        let mac = hmac::sign(&self.key, &content("words", view));
        let list = Language::English.word_list();
        let mut bits = mac
            .as_ref()
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| usize::from(byte >> bit & 1)));
        let words: Vec<&str> = (0..WORDS)
            .filter_map(|_| {
                let number = bits
                    .by_ref()
                    .take(11)
                    .fold(0, |number, bit| number << 1 | bit);
                list.get(number).copied()
            })
            .collect();
        words.join(" ")
    }

    fn mac(&self, side: Side, view: &View) -> hmac::Tag {
        hmac::sign(&self.key, &content(side.as_str(), view))
    }
}

/// Whether somebody typed these words: blanks, case and dashes between them don't count.
#[must_use]
pub fn are_same_words(typed: &str, words: &str) -> bool {
    let plain = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    plain(typed) == plain(words)
}

/// Every part has one length, but for the purpose, which ends with a zero byte.
fn content(purpose: &str, view: &View) -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        b"emcc-join/1 ",
        purpose.as_bytes(),
        b"\0",
        &view.exporter,
        &view.caller_leaf,
        &view.server_leaf,
    ];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(secret: u8, id: u8) -> ProofKey {
        let cluster = ClusterId::new("berlin").unwrap();
        ProofKey::derive(
            &Secret::new(vec![secret; 16]),
            &cluster,
            InvitationId([id; 8]),
        )
    }

    const VIEW: View = View {
        exporter: [1; 32],
        caller_leaf: [2; 32],
        server_leaf: [3; 32],
    };

    #[test]
    fn a_proof_is_worth_something_for_one_side_of_one_connection_and_one_invitation() {
        let ours = key(1, 1);
        let proof = ours.prove(Side::Joining, &VIEW);
        assert!(ours.is_proof(Side::Joining, &VIEW, &proof));
        // What the store has says the same.
        let stored = ProofKey::from_bytes(ours.bytes().expose());
        assert!(stored.is_proof(Side::Joining, &VIEW, &proof));
        assert!(!ours.is_proof(Side::Inviting, &VIEW, &proof), "sent back");
        for other in [key(2, 1), key(1, 2)] {
            assert!(!other.is_proof(Side::Joining, &VIEW, &proof));
        }
        for view in [
            View {
                exporter: [9; 32],
                ..VIEW
            },
            View {
                caller_leaf: [9; 32],
                ..VIEW
            },
            View {
                server_leaf: [9; 32],
                ..VIEW
            },
            View {
                caller_leaf: VIEW.server_leaf,
                server_leaf: VIEW.caller_leaf,
                ..VIEW
            },
        ] {
            assert!(!ours.is_proof(Side::Joining, &view, &proof));
            assert_ne!(ours.words(&view), ours.words(&VIEW));
        }
        for short in [&proof[..31], &[]] {
            assert!(!ours.is_proof(Side::Joining, &VIEW, short));
        }
        assert!(!format!("{ours:?}").contains(char::is_numeric));
    }

    #[test]
    fn words_are_six_of_a_list_and_compared_as_people_type_them() {
        let words = key(1, 1).words(&VIEW);
        assert_eq!(words.split(' ').count(), WORDS);
        assert_ne!(words, key(2, 1).words(&VIEW));
        let typed = format!(" {} ", words.to_uppercase().replace(' ', " - "));
        assert!(are_same_words(&typed, &words));
        assert!(!are_same_words("", &words));
        let fewer = words.rsplit_once(' ').unwrap().0;
        assert!(!are_same_words(fewer, &words));
        let mut turned: Vec<_> = words.split(' ').collect();
        turned.rotate_left(1);
        assert!(!are_same_words(&turned.join(" "), &words));
    }

    proptest! {
        #[test]
        fn no_bit_of_a_proof_can_be_turned(bit in 0_usize..256) {
            let ours = key(1, 1);
            let mut proof = ours.prove(Side::Joining, &VIEW);
            proof[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!ours.is_proof(Side::Joining, &VIEW, &proof));
        }
    }
}
