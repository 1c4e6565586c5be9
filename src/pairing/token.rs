//! An invitation as one line of text, handed from operator to operator. Pure.
//!
//! `emcc1-` and base32 in lower case. Its bytes, numbers with the highest byte first:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | how many bytes follow, without the checksum: a paste that was cut short is told from one that is wrong |
//! | 8 | the invitation |
//! | 8 | until when it counts, in milliseconds since 1970 |
//! | 16 | the secret |
//! | 1 + n | the cluster ID |
//! | 1 + 32 × n | SHA-256 of the certificates that its nodes show |
//! | 1 + n × (2 + m) | where they listen |
//! | 4 | checksum: the beginning of the SHA-256 of all before it |

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    clock::Timestamp,
    domain::{
        address::HostPort, address_list::MAX_ADDRESSES, ids::ClusterId, pairing::InvitationId,
    },
    secret::Secret,
};

/// How every token of this version begins.
pub const PREFIX: &str = "emcc1-";
/// How many bytes the secret has.
pub const SECRET_BYTES: usize = 16;
/// The most certificates that a token names: those of so many nodes.
pub const MAX_LEAVES: usize = 8;
/// Longer texts are no tokens.
pub const MAX_CHARS: usize = 16 * 1024;

const CHECKSUM_BYTES: usize = 4;

/// An invitation in the hands of whoever was invited.
#[derive(Clone)]
pub struct Token {
    /// Which one.
    pub id: InvitationId,
    /// Who invites.
    pub cluster: ClusterId,
    /// Until when it counts, by the inviting cluster's clock.
    pub expires_at: Timestamp,
    /// SHA-256 of the certificates that the inviting nodes show.
    pub leaves: Vec<[u8; 32]>,
    /// Where they listen.
    pub addresses: Vec<HostPort>,
    /// What proves that its holder was invited. It is never sent.
    pub secret: Secret,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Why a text is no token. None of it repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error("this is no invitation: one begins with {PREFIX}")]
    NoToken,
    /// From a later version.
    #[error("this invitation was made by a later version than this one")]
    Later,
    /// Its end is missing.
    #[error("the invitation is cut short: {got} of {whole} characters are there")]
    CutShort {
        /// How many characters there are.
        got: usize,
        /// How many there must be.
        whole: usize,
    },
    /// More than it says there is.
    #[error("something follows the invitation: it has {whole} characters, and {got} are there")]
    TooLong {
        /// How many characters there are.
        got: usize,
        /// How many there must be.
        whole: usize,
    },
    /// A character is wrong.
    #[error("the invitation is not as it was made: a character in it is wrong")]
    Garbled,
}

impl Token {
    /// Its text: whoever has it may join.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut body = Zeroizing::new(Vec::with_capacity(512));
        body.extend_from_slice(&self.id.0);
        body.extend_from_slice(&self.expires_at.as_millis().to_be_bytes());
        body.extend_from_slice(self.secret.expose());
        put_short(&mut body, self.cluster.as_str().as_bytes());
        let leaves = self.leaves.get(..MAX_LEAVES).unwrap_or(&self.leaves);
        body.push(u8::try_from(leaves.len()).unwrap_or(u8::MAX));
        leaves.iter().for_each(|leaf| body.extend_from_slice(leaf));
        let addresses = self.addresses.iter().take(MAX_ADDRESSES);
        body.push(u8::try_from(addresses.len()).unwrap_or(u8::MAX));
        for address in addresses {
            let text = address.to_string();
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut whole = Zeroizing::new(Vec::with_capacity(body.len() + 8));
        whole.extend_from_slice(&length.to_be_bytes());
        whole.extend_from_slice(&body);
        let checksum = checksum(&whole);
        whole.extend_from_slice(&checksum);
        let mut encoded = Zeroizing::new(BASE32_NOPAD.encode(&whole));
        encoded.make_ascii_lowercase();
        Zeroizing::new(format!("{PREFIX}{}", *encoded))
    }

    /// Reads a text as it was pasted: blanks and line ends in it and around it don't count, nor does its case.
    ///
    /// # Errors
    /// [`TokenError`], which tells a text that was cut short from one that is wrong.
    pub fn read(pasted: &str) -> Result<Self, TokenError> {
        let mut text = Zeroizing::new(String::with_capacity(pasted.len().min(MAX_CHARS)));
        text.extend(
            pasted
                .chars()
                .filter(|c| !c.is_whitespace())
                .take(MAX_CHARS),
        );
        text.make_ascii_uppercase();
        let Some(encoded) = text.strip_prefix("EMCC1-") else {
            let is_later = text
                .strip_prefix("EMCC")
                .and_then(|rest| rest.split_once('-'))
                .is_some_and(|(version, _)| version.parse::<u16>().is_ok_and(|v| v > 1));
            return Err(if is_later {
                TokenError::Later
            } else {
                TokenError::NoToken
            });
        };
        let whole = whole_length(encoded)?;
        match encoded.len() {
            got if got < whole => return Err(TokenError::CutShort { got, whole }),
            got if got > whole => return Err(TokenError::TooLong { got, whole }),
            _ => {}
        }
        let bytes = BASE32_NOPAD.decode(encoded.as_bytes());
        let bytes = Zeroizing::new(bytes.map_err(|_| TokenError::Garbled)?);
        let end = bytes.len().saturating_sub(CHECKSUM_BYTES);
        let (content, told) = bytes.split_at_checked(end).ok_or(TokenError::Garbled)?;
        if checksum(content) != told {
            return Err(TokenError::Garbled);
        }
        let body = content.get(2..).ok_or(TokenError::Garbled)?;
        read_body(body).ok_or(TokenError::Garbled)
    }
}

/// How many characters of base32 there must be, by the first of them.
fn whole_length(encoded: &str) -> Result<usize, TokenError> {
    /// So many characters are 5 whole bytes.
    const HEAD: usize = 8;
    let Some(head) = encoded.as_bytes().get(..HEAD) else {
        let (got, whole) = (encoded.len(), HEAD);
        return Err(TokenError::CutShort { got, whole });
    };
    let head = BASE32_NOPAD.decode(head);
    let head = head.map_err(|_| TokenError::Garbled)?;
    let length: [u8; 2] = head.first_chunk().copied().ok_or(TokenError::Garbled)?;
    let bytes = 2 + usize::from(u16::from_be_bytes(length)) + CHECKSUM_BYTES;
    Ok((bytes * 8).div_ceil(5))
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut digest = Sha256::new();
    digest.update(PREFIX.as_bytes());
    digest.update(content);
    let whole: [u8; 32] = digest.finalize().into();
    whole.first_chunk().copied().unwrap_or_default()
}

fn put_short(body: &mut Vec<u8>, bytes: &[u8]) {
    body.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    body.extend_from_slice(bytes);
}

fn read_body(body: &[u8]) -> Option<Token> {
    let mut rest = body;
    let id = InvitationId(*take(&mut rest, 8)?.first_chunk()?);
    let expires_at = i64::from_be_bytes(*take(&mut rest, 8)?.first_chunk()?);
    let secret = Secret::new(take(&mut rest, SECRET_BYTES)?.to_vec());
    let length = usize::from(*take(&mut rest, 1)?.first()?);
    let cluster = std::str::from_utf8(take(&mut rest, length)?).ok()?;
    let count = usize::from(*take(&mut rest, 1)?.first()?);
    let mut leaves = Vec::new();
    for _ in 0..count {
        leaves.push(*take(&mut rest, 32)?.first_chunk()?);
    }
    let count = usize::from(*take(&mut rest, 1)?.first()?);
    let mut addresses = Vec::new();
    for _ in 0..count {
        let length = u16::from_be_bytes(*take(&mut rest, 2)?.first_chunk()?);
        let text = std::str::from_utf8(take(&mut rest, usize::from(length))?).ok()?;
        addresses.push(text.parse().ok()?);
    }
    let fits = rest.is_empty()
        && (1..=MAX_LEAVES).contains(&leaves.len())
        && (1..=MAX_ADDRESSES).contains(&addresses.len());
    fits.then_some(Token {
        id,
        cluster: ClusterId::new(cluster).ok()?,
        expires_at: Timestamp::from_millis(expires_at),
        leaves,
        addresses,
        secret,
    })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            id: InvitationId([1, 2, 3, 4, 5, 6, 7, 8]),
            cluster: ClusterId::new("berlin").unwrap(),
            expires_at: Timestamp::from_millis(1_800_000_000_000),
            leaves: vec![[7; 32], [9; 32]],
            addresses: vec![
                "emcc.berlin.example:8444".parse().unwrap(),
                "[2001:db8::1]:1".parse().unwrap(),
            ],
            secret: Secret::new(vec![0xA5; SECRET_BYTES]),
        }
    }

    fn same(a: &Token, b: &Token) -> bool {
        (a.id, &a.cluster, a.expires_at, &a.leaves, &a.addresses)
            == (b.id, &b.cluster, b.expires_at, &b.leaves, &b.addresses)
            && a.secret.expose() == b.secret.expose()
    }

    #[test]
    fn a_token_reads_back_however_it_was_pasted() {
        let text = token().text();
        assert!(text.starts_with("emcc1-") && text.len() < 300, "{}", *text);
        assert!(same(&Token::read(&text).unwrap(), &token()));
        let pasted = format!("  {}\r\n{}\n", &text[..40].to_uppercase(), &text[40..]);
        assert!(same(&Token::read(&pasted).unwrap(), &token()));
        assert!(!format!("{:?}", token()).contains("165"));
    }

    #[test]
    fn each_fault_has_its_own_words() {
        let text = token().text();
        for (odd, expected) in [
            ("", TokenError::NoToken),
            ("hello", TokenError::NoToken),
            ("emcc2-abc", TokenError::Later),
            ("emcc1-", TokenError::CutShort { got: 0, whole: 8 }),
        ] {
            assert_eq!(Token::read(odd).unwrap_err(), expected, "{odd}");
        }
        let whole = text.len() - PREFIX.len();
        let more = Token::read(&format!("{}aa", *text)).unwrap_err();
        assert_eq!(
            more,
            TokenError::TooLong {
                got: whole + 2,
                whole
            }
        );
    }

    proptest! {
        #[test]
        fn what_was_cut_short_says_so(at in 0_usize..600) {
            let text = token().text();
            let cut = PREFIX.len() + at % (text.len() - PREFIX.len());
            let error = Token::read(&text[..cut]).unwrap_err();
            let is_cut = matches!(error, TokenError::CutShort { .. });
            prop_assert!(is_cut, "{error}");
        }

        #[test]
        fn one_wrong_character_is_found(at in 0_usize..600, by in 1_u8..32) {
            const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
            let mut text = token().text().as_bytes().to_vec();
            let at = PREFIX.len() + at % (text.len() - PREFIX.len());
            let place = ALPHABET.iter().position(|c| *c == text[at]).unwrap();
            text[at] = ALPHABET[(place + usize::from(by)) % 32];
            prop_assert!(Token::read(std::str::from_utf8(&text).unwrap()).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in "(emcc1-)?[a-z2-7]{0,200}") {
            let _ = Token::read(&text);
        }

        #[test]
        fn no_bytes_under_a_right_checksum_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            whole.extend_from_slice(&body);
            let sum = checksum(&whole);
            whole.extend_from_slice(&sum);
            let _ = Token::read(&format!("{PREFIX}{}", BASE32_NOPAD.encode(&whole)));
        }
    }
}
