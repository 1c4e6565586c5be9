//! The key that seals the heads of the audit's chains. It is made from the pepper, which is in no database: whoever can
//! write to the database alone can't make a seal. Pure.

use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// The key of one cluster.
#[derive(Clone, Debug)]
pub struct Key(Secret);

impl Key {
    /// The key that goes with a cluster's pepper.
    #[must_use]
    pub fn from_pepper(pepper: &Secret) -> Self {
        let key = hmac(pepper.expose(), &[b"emccd audit key 1"]);
        Self(Secret::new(key.to_vec()))
    }

    /// The seal of a chain's head.
    pub(in crate::store) fn seal(&self, node: &str, seq: i64, hash: &[u8; 32]) -> [u8; 32] {
        let length = u64::try_from(node.len()).unwrap_or(u64::MAX).to_be_bytes();
        let parts: [&[u8]; 5] = [
            b"emccd audit head 1",
            &length,
            node.as_bytes(),
            &seq.to_be_bytes(),
            hash,
        ];
        hmac(self.0.expose(), &parts)
    }

    /// Whether it is the seal of that head, told in the same time wherever it differs.
    pub(super) fn is_seal(&self, seal: &[u8], node: &str, seq: i64, hash: &[u8; 32]) -> bool {
        let right = self.seal(node, seq, hash);
        let differing = right.iter().zip(seal).fold(0, |all, (a, b)| all | (a ^ b));
        seal.len() == right.len() && differing == 0
    }
}

/// HMAC with SHA-256, as in RFC 2104.
fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let hashed: [u8; 32];
    let key = if key.len() > BLOCK {
        hashed = Sha256::digest(key).into();
        &hashed[..]
    } else {
        key
    };
    let padded = |with: u8| {
        let mut block = [with; BLOCK];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let mut inner = Sha256::new_with_prefix(padded(0x36));
    for part in message {
        inner.update(part);
    }
    let mut outer = Sha256::new_with_prefix(padded(0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn it_is_hmac_sha_256() {
        // RFC 4231, cases 1, 2 and 6.
        for (key, message, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex(&hmac(key, &[message])), expected);
        }
    }

    #[test]
    fn a_seal_is_of_one_head_and_one_key() {
        let key = |byte| Key::from_pepper(&Secret::new(vec![byte; 32]));
        let seal = key(1).seal("n1", 7, &[9; 32]);
        assert!(key(1).is_seal(&seal, "n1", 7, &[9; 32]));
        assert!(!key(2).is_seal(&seal, "n1", 7, &[9; 32]));
        assert!(!key(1).is_seal(&seal, "n2", 7, &[9; 32]));
        assert!(!key(1).is_seal(&seal, "n1", 6, &[9; 32]));
        assert!(!key(1).is_seal(&seal, "n1", 7, &[8; 32]));
        assert!(!key(1).is_seal(&[], "n1", 7, &[9; 32]));
    }
}
