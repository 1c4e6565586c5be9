//! Why a certificate or a connection was refused: the closed set. Pure.

use std::fmt;

/// The reason of a refusal at the door, told to both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// More than one peer's entries accept the chain.
    Ambiguous,
    /// The leaf's validity is over.
    Expired,
    /// The caller showed no certificate.
    NoClientCertificate,
    /// The leaf's validity has not begun.
    NotYetValid,
    /// The other side does not speak TLS.
    Plaintext,
    /// The certificate or its entry was revoked.
    Revoked,
    /// No TLS version in common.
    TlsVersion,
    /// Nothing we trust vouches for it.
    UnknownIssuer,
    /// It identifies another cluster than the one that was meant or claimed.
    WrongCluster,
    /// Its extended key usage excludes this direction.
    WrongEku,
    /// Its issuer is trusted, but its names are not among those set for the peer.
    WrongName,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Ambiguous,
        Self::Expired,
        Self::NoClientCertificate,
        Self::NotYetValid,
        Self::Plaintext,
        Self::Revoked,
        Self::TlsVersion,
        Self::UnknownIssuer,
        Self::WrongCluster,
        Self::WrongEku,
        Self::WrongName,
    ];

    /// The stable word on the wire, in logs and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::Expired => "expired",
            Self::NoClientCertificate => "no_client_certificate",
            Self::NotYetValid => "not_yet_valid",
            Self::Plaintext => "plaintext",
            Self::Revoked => "revoked",
            Self::TlsVersion => "tls_version",
            Self::UnknownIssuer => "unknown_issuer",
            Self::WrongCluster => "wrong_cluster",
            Self::WrongEku => "wrong_eku",
            Self::WrongName => "wrong_name",
        }
    }

    /// The same word as it is typed: with dashes.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::Expired => "expired",
            Self::NoClientCertificate => "no-client-certificate",
            Self::NotYetValid => "not-yet-valid",
            Self::Plaintext => "plaintext",
            Self::Revoked => "revoked",
            Self::TlsVersion => "tls-version",
            Self::UnknownIssuer => "unknown-issuer",
            Self::WrongCluster => "wrong-cluster",
            Self::WrongEku => "wrong-eku",
            Self::WrongName => "wrong-name",
        }
    }

    /// The reason that a word names, typed or copied from a log.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let is_it = |r: &Self| word == r.word() || word == r.as_str();
        Self::ALL.into_iter().find(is_it)
    }

    /// What it means, in one sentence without its full stop. Every place that explains a refusal says this.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ambiguous => "the certificates trusted from two peers both accept it",
            Self::Expired => "the certificate, or one above it, is past the end of its validity",
            Self::NoClientCertificate => "the caller showed no certificate",
            Self::NotYetValid => {
                "the validity of the certificate, or of one above it, has not begun"
            }
            Self::Plaintext => "the other side does not speak TLS on this connection",
            Self::Revoked => "the certificate was revoked for this peer",
            Self::TlsVersion => "both sides have no version of TLS in common",
            Self::UnknownIssuer => "nothing that is trusted vouches for the certificate",
            Self::WrongCluster => {
                "the certificate is trusted for another cluster than the one that was meant or claimed"
            }
            Self::WrongEku => "the extended key usage of the certificate is not for this direction",
            Self::WrongName => {
                "an authority vouches for the certificate, but it carries none of the names set for the peer"
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_words_are_a_closed_set() {
        let words: BTreeSet<_> = Rejection::ALL
            .iter()
            .map(|rejection| rejection.as_str())
            .collect();
        let expected = BTreeSet::from([
            "ambiguous",
            "expired",
            "no_client_certificate",
            "not_yet_valid",
            "plaintext",
            "revoked",
            "tls_version",
            "unknown_issuer",
            "wrong_cluster",
            "wrong_eku",
            "wrong_name",
        ]);
        assert_eq!(words, expected);
        assert_eq!(Rejection::from_word("Expired"), None);
        for rejection in Rejection::ALL {
            assert_eq!(rejection.to_string(), rejection.as_str());
            assert_eq!(rejection.word(), rejection.as_str().replace('_', "-"));
            for word in [rejection.as_str(), rejection.word()] {
                assert_eq!(Rejection::from_word(word), Some(rejection));
            }
        }
    }
}
