//! Certificate revocation lists: what an authority says of the certificates that it has issued. Pure.
//!
//! A list is read and its signature checked when it is taken in and when it is loaded, not in each handshake. It counts
//! for the chains of one peer, and for the authority that signed it, which is told by its key and not by its name.

use std::{cmp::Ordering, fmt, sync::Arc};

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    trust::certificate::{Certificate, holds_private_key, printable, seconds},
};

/// The largest file that is read: some 80,000 revoked certificates.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// More authorities between a list's signer and an anchor than any sane chain has.
const MAX_DEPTH: usize = 6;
/// How many authorities that peers have sent along are looked at.
const MAX_OTHERS: usize = 32;

/// Why a list is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file holds something else.
    #[error(
        "{found} is no revocation list; give the file that the authority publishes, in PEM or DER"
    )]
    NotAList {
        /// What it holds.
        found: &'static str,
    },
    /// It is larger than any list that is read.
    #[error("it is larger than {} MiB; ask the authority for a list of what is still valid only", MAX_BYTES >> 20)]
    TooLarge,
    /// It can't be read.
    #[error("the revocation list can't be read: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// It names what has changed since another list.
    #[error("it is a delta list, which only says what has changed; give the authority's full list")]
    Delta,
    /// It has no number.
    #[error(
        "it has no number, so that nobody can tell an older one from a newer one; have the authority number it"
    )]
    Unnumbered,
    /// No anchor of that peer has signed it.
    #[error(
        "it is a list of {issuer}, which is no authority of {cluster} here (they are: {anchors}); give the list of one of \
         them, or, for one below them, a PEM file with that authority's certificate beside the list"
    )]
    WrongIssuer {
        /// Who it says has signed it.
        issuer: String,
        /// For which peer it was given.
        cluster: ClusterId,
        /// The peer's authorities.
        anchors: String,
    },
    /// It bears the authority's name and another one's signature.
    #[error(
        "it bears the name of {issuer}, and its signature is not of that authority's key: it is another one's, or was changed"
    )]
    BadSignature {
        /// The authority.
        issuer: String,
    },
    /// The authority's certificate does not let it sign lists.
    #[error(
        "the certificate of {issuer} does not allow it to sign revocation lists (key usage cRLSign); ask the authority"
    )]
    NotASigner {
        /// The authority.
        issuer: String,
    },
    /// A newer one is in force.
    #[error(
        "it is number {number}, and number {in_force} of that authority is in force; give one that is newer"
    )]
    Older {
        /// Its own number.
        number: String,
        /// The other one's.
        in_force: String,
    },
    /// Another one of the same number is in force.
    #[error(
        "another list of that authority with the same number {number} is in force; one number must not name two lists: ask \
         the authority for a newer one"
    )]
    Differs {
        /// The number of both.
        number: String,
    },
}

/// A list as it was read; whose signature it bears is not known yet.
#[derive(Clone)]
pub struct Unsigned {
    der: Vec<u8>,
    issuer: String,
    issuer_raw: Vec<u8>,
    number: String,
    this_update: Timestamp,
    next_update: Timestamp,
    revoked: usize,
}

impl fmt::Debug for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsigned")
            .field("issuer", &self.issuer)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What a file holds: lists, and certificates of authorities beside them.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// One at least.
    pub lists: Vec<Unsigned>,
    /// Other authorities', by which the lists may be signed.
    pub certificates: Vec<Certificate>,
}

/// Reads a file: one list in DER, or lists and certificates in PEM.
///
/// # Errors
/// [`Error`] with what it is instead, or what is wrong with a list.
pub fn read(bytes: &[u8]) -> Result<Contents, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge);
    }
    let mut contents = Contents::default();
    // A DER list is a SEQUENCE; no PEM text begins with this byte.
    if bytes.first() == Some(&0x30) {
        if Certificate::from_der(bytes).is_ok() {
            return Err(Error::NotAList {
                found: "a certificate",
            });
        }
        contents.lists.push(Unsigned::from_der(bytes)?);
        return Ok(contents);
    }
    if holds_private_key(bytes) {
        return Err(Error::NotAList {
            found: "a private key",
        });
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|_| malformed("the PEM text is broken"))?;
        match kind {
            SectionKind::Crl => contents.lists.push(Unsigned::from_der(&der)?),
            SectionKind::Certificate => {
                let read = Certificate::from_der(&der);
                let read = read.map_err(|error| malformed(error.to_string()))?;
                contents.certificates.push(read);
            }
            _ => {}
        }
    }
    match (&*contents.lists, &*contents.certificates) {
        ([], []) => Err(Error::NotAList { found: "the file" }),
        ([], _) => Err(Error::NotAList {
            found: "a certificate",
        }),
        _ => Ok(contents),
    }
}

impl Unsigned {
    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|_| malformed("it is not what DER says a list is"))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow it"));
        }
        // What the judgement reads must be what is read here.
        match OwnedCertRevocationList::from_der(der) {
            Ok(_) => {}
            Err(webpki::Error::UnsupportedDeltaCrl) => return Err(Error::Delta),
            Err(error) => return Err(malformed(error.to_string())),
        }
        let Some(next_update) = list.next_update() else {
            return Err(malformed("it does not say when the next one is due"));
        };
        let Some(number) = list.crl_number() else {
            return Err(Error::Unnumbered);
        };
        Ok(Self {
            issuer: printable(list.issuer()),
            issuer_raw: list.issuer().as_raw().to_vec(),
            number: number.to_string(),
            this_update: seconds(list.last_update().timestamp()),
            next_update: seconds(next_update.timestamp()),
            revoked: list.iter_revoked_certificates().count(),
            der: der.to_vec(),
        })
    }

    /// Whether it bears that authority's name. Its signature is another question.
    #[must_use]
    pub fn names(&self, authority: &Certificate) -> bool {
        authority.subject_raw() == self.issuer_raw
    }

    /// Finds out who of a peer's authorities has signed it: an anchor, or one of `others` that an anchor vouches for.
    ///
    /// # Errors
    /// [`Error::WrongIssuer`], [`Error::BadSignature`], [`Error::NotASigner`].
    pub fn signed(
        self,
        cluster: &ClusterId,
        anchors: &[Certificate],
        others: &[Certificate],
        is_strict: bool,
    ) -> Result<Crl, Error> {
        // What peers sent along is looked at only where it can be the signer at all.
        let below = match others.iter().any(|other| self.names(other)) {
            true => vouched(anchors, others),
            false => Vec::new(),
        };
        let mut named = anchors
            .iter()
            .chain(below)
            .filter(|authority| self.names(authority))
            .peekable();
        if named.peek().is_none() {
            let anchors: Vec<_> = anchors.iter().map(Certificate::subject).collect();
            return Err(Error::WrongIssuer {
                issuer: self.issuer,
                cluster: cluster.clone(),
                anchors: if anchors.is_empty() {
                    "none".to_owned()
                } else {
                    anchors.join("; ")
                },
            });
        }
        let Some(signer) = named.find(|authority| authority.signed(&self.der)) else {
            return Err(Error::BadSignature {
                issuer: self.issuer,
            });
        };
        if !may_sign_lists(signer) {
            return Err(Error::NotASigner {
                issuer: self.issuer,
            });
        }
        let list = OwnedCertRevocationList::from_der(&self.der)
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Crl {
            issuer: signer.clone(),
            list: Arc::new(list.into()),
            told: self,
            is_strict,
        })
    }
}

/// A list whose signature was checked. Cheap to clone.
#[derive(Clone)]
pub struct Crl {
    issuer: Certificate,
    list: Arc<CertRevocationList<'static>>,
    told: Unsigned,
    is_strict: bool,
}

impl Crl {
    /// One that is stored, with the authority that was found to have signed it.
    ///
    /// # Errors
    /// As [`Unsigned::signed`]: somebody has changed what is stored.
    pub fn stored(
        der: &[u8],
        issuer: Certificate,
        cluster: &ClusterId,
        is_strict: bool,
    ) -> Result<Self, Error> {
        Unsigned::from_der(der)?.signed(cluster, &[issuer], &[], is_strict)
    }

    /// The authority that signed it.
    #[must_use]
    pub fn issuer(&self) -> &Certificate {
        &self.issuer
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.told.der
    }

    /// Its number, in decimal.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.told.number
    }

    /// When it was made.
    #[must_use]
    pub fn this_update(&self) -> Timestamp {
        self.told.this_update
    }

    /// By when the next one is due.
    #[must_use]
    pub fn next_update(&self) -> Timestamp {
        self.told.next_update
    }

    /// How many certificates it revokes.
    #[must_use]
    pub fn revoked(&self) -> usize {
        self.told.revoked
    }

    /// Whether its authority's word counts for nothing while it is stale.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// The same list, strict or not.
    #[must_use]
    pub fn strict(self, is_strict: bool) -> Self {
        Self { is_strict, ..self }
    }

    /// Whether the next one is overdue.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now > self.next_update()
    }

    /// For the search of a path.
    pub(super) fn list(&self) -> &CertRevocationList<'static> {
        &self.list
    }

    /// Whether it revokes that certificate, which its authority has issued.
    #[must_use]
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        if !certificate.names_issuer(&self.issuer) {
            return false;
        }
        let Ok(read) = EndEntityCert::try_from(certificate.der()) else {
            return false;
        };
        matches!(self.list.find_serial(read.serial()), Ok(Some(_)))
    }

    /// Whether it may take the place of the one in force, of the same authority.
    ///
    /// # Errors
    /// [`Error::Older`], [`Error::Differs`].
    pub fn succeeds(&self, number: &str, der: &[u8]) -> Result<(), Error> {
        match compare(self.number(), number) {
            Ordering::Less => Err(Error::Older {
                number: self.number().to_owned(),
                in_force: number.to_owned(),
            }),
            Ordering::Equal if self.der() != der => Err(Error::Differs {
                number: number.to_owned(),
            }),
            Ordering::Equal | Ordering::Greater => Ok(()),
        }
    }

    /// That it is stale, and what follows.
    #[must_use]
    pub fn stale_alarm(&self) -> String {
        let what = match self.is_strict {
            true => "nothing that it has issued is accepted until there is a newer one",
            false => "it goes on counting, and what was revoked since is not known",
        };
        format!(
            "the revocation list number {} of {} is stale, the next one was due at {}: {what}",
            self.number(),
            self.issuer.subject(),
            self.next_update()
        )
    }

    /// Why a chain that rests on its authority is refused while it is stale.
    #[must_use]
    pub fn stale_text(&self) -> String {
        format!(
            "a newer revocation list of {}: its list number {} is stale, the next one was due at {}",
            self.issuer.subject(),
            self.number(),
            self.next_update()
        )
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer.subject())
            .field("number", &self.told.number)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.told.der == other.told.der
            && self.issuer == other.issuer
            && self.is_strict == other.is_strict
    }
}

impl Eq for Crl {}

/// What mends that a list has a certificate, on the side that refuses it.
#[must_use]
pub fn mend_listed(cluster: &ClusterId) -> String {
    format!(
        "on {cluster}: get another certificate from its authority; or, if it is trusted all the same, pin it here, since \
         pins are not subject to lists: emccd trust add {cluster} --pin FILE"
    )
}

/// What mends that a strict list is stale.
#[must_use]
pub fn mend_stale(cluster: &ClusterId) -> String {
    format!(
        "get the authority's newest list, then: emccd trust crl add {cluster} FILE (it stays strict; with --strict=false a \
         stale list goes on counting and keeps nobody else out)"
    )
}

/// Decimal numbers without leading zeros.
fn compare(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The authorities among `others` that an anchor vouches for, itself or by way of others. Whoever sends certificates
/// along must not make this long: it goes down from the anchors, and no two certificates are compared twice.
fn vouched<'a>(anchors: &'a [Certificate], others: &'a [Certificate]) -> Vec<&'a Certificate> {
    let mut left: Vec<&Certificate> = Vec::new();
    for other in others.iter().filter(|other| other.is_ca()) {
        if left.len() < MAX_OTHERS && !left.contains(&other) {
            left.push(other);
        }
    }
    let (mut found, mut issuers) = (Vec::new(), anchors.iter().collect::<Vec<_>>());
    for _ in 0..=MAX_DEPTH {
        let is_issued = |other: &&Certificate| {
            issuers
                .iter()
                .any(|issuer| other.names_issuer(issuer) && issuer.signed(other.der()))
        };
        let (below, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(is_issued);
        if below.is_empty() {
            break;
        }
        found.extend(&below);
        (issuers, left) = (below, rest);
    }
    found
}

fn may_sign_lists(authority: &Certificate) -> bool {
    let Ok((_, read)) = X509Certificate::from_der(authority.der()) else {
        return false;
    };
    match read.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.crl_sign()),
        Err(_) => false,
    }
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
