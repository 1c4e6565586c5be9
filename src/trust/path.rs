//! Whether a presented chain builds to one anchor, and if not, how far it gets. Pure.
//!
//! The path itself is built and its signatures are checked by `webpki`. A failed path is tried again under
//! relaxed conditions, only to tell "expired" and "wrong usage" from "unknown".

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy, anchor_from_trusted_cert,
};

use crate::{
    clock::Timestamp,
    trust::{bundle::Direction, certificate::Certificate, crl::Crl},
};

/// How a chain stands to one anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// It builds, in time and for this direction.
    Valid,
    /// It builds, but a certificate of it was valid only earlier.
    Expired,
    /// It builds, but a certificate of it will be valid only later.
    NotYetValid,
    /// It builds, but not for this direction.
    WrongEku,
    /// It does not build to this anchor.
    None,
}

/// What lists say against a chain.
pub(super) enum Revocation<'a> {
    /// A certificate of it is listed: which, and by which list.
    Listed(Option<(&'a Crl, Certificate)>),
    /// Nothing, but this list is stale, and strict.
    Stale(&'a Crl),
}

/// A chain as presented: the leaf, and what came with it.
pub(super) struct Presented {
    pub(super) leaf: Certificate,
    others: Vec<Certificate>,
    known: Vec<(Certificate, Path)>,
}

/// More intermediates than any sane chain has; each costs a bounded search, and the caller chooses them.
const MAX_INTERMEDIATES: usize = 6;

impl Presented {
    /// Parses what was presented; `None` when there is no leaf or it can't be read. Intermediates that can't
    /// be read are left out.
    pub(super) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (leaf, others) = chain.split_first()?;
        Some(Self {
            leaf: Certificate::from_der(leaf).ok()?,
            others: others
                .iter()
                .take(MAX_INTERMEDIATES)
                .filter_map(|der| Certificate::from_der(der).ok())
                .collect(),
            known: Vec::new(),
        })
    }

    /// How the chain stands to `anchor`. Each anchor is looked at once, however many peers share it.
    pub(super) fn path_to(
        &mut self,
        anchor: &Certificate,
        direction: Direction,
        now: Timestamp,
    ) -> Path {
        if let Some((_, path)) = self.known.iter().find(|(known, _)| known == anchor) {
            return *path;
        }
        let path = self.search(anchor, direction, now);
        self.known.push((anchor.clone(), path));
        path
    }

    fn search(&self, anchor: &Certificate, direction: Direction, now: Timestamp) -> Path {
        if !self
            .certificates()
            .any(|certificate| certificate.names_issuer(anchor))
        {
            return Path::None;
        }
        if self.builds(anchor, now, Usage::Only(direction)) {
            return in_time(anchor, now);
        }
        if self.builds(anchor, now, Usage::Any) {
            return match in_time(anchor, now) {
                Path::Valid => Path::WrongEku,
                out_of_time => out_of_time,
            };
        }
        self.moments(now)
            .into_iter()
            .find(|(moment, _)| self.builds(anchor, *moment, Usage::Any))
            .map_or(Path::None, |(_, path)| path)
    }

    /// Moments at which a chain that does not build now may have built, with what that would mean.
    fn moments(&self, now: Timestamp) -> Vec<(Timestamp, Path)> {
        let mut moments = Vec::new();
        match in_time(&self.leaf, now) {
            Path::Expired => moments.push((self.leaf.not_after(), Path::Expired)),
            Path::NotYetValid => moments.push((self.leaf.not_before(), Path::NotYetValid)),
            _ => {}
        }
        let ended = self
            .certificates()
            .map(Certificate::not_after)
            .filter(|end| *end < now)
            .min();
        let begins = self
            .certificates()
            .map(Certificate::not_before)
            .filter(|begin| *begin > now)
            .max();
        moments.extend(ended.map(|end| (end, Path::Expired)));
        moments.extend(begins.map(|begin| (begin, Path::NotYetValid)));
        moments.dedup();
        moments
    }

    fn builds(&self, anchor: &Certificate, at: Timestamp, usage: Usage) -> bool {
        let all: Vec<_> = self.others.iter().collect();
        self.build(anchor, &all, at, usage, None).is_ok()
    }

    /// Searches a path through `others`; gives those it goes through.
    fn build(
        &self,
        anchor: &Certificate,
        others: &[&Certificate],
        at: Timestamp,
        usage: Usage,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<Vec<&Certificate>, webpki::Error> {
        let leaf = EndEntityCert::try_from(self.leaf.der())?;
        let anchor = anchor_from_trusted_cert(anchor.der())?;
        let intermediates: Vec<CertificateDer<'_>> = others
            .iter()
            .map(|other| CertificateDer::from(other.der().as_ref()))
            .collect();
        let unix = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
        let anchors = [anchor];
        let path = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(unix),
            usage,
            revocation,
            None,
        )?;
        let passed: Vec<_> = path.intermediate_certificates().map(|c| c.der()).collect();
        let through = |other: &&Certificate| passed.iter().any(|der| der == other.der());
        Ok(self.others.iter().filter(through).collect())
    }

    /// What the lists of a peer's authorities say against a chain that builds to `anchor` now.
    pub(super) fn revocation<'a>(
        &self,
        anchor: &Certificate,
        crls: &'a [Crl],
        now: Timestamp,
    ) -> Option<Revocation<'a>> {
        if crls.is_empty() {
            return None;
        }
        let all: Vec<_> = self.others.iter().collect();
        let through = self.build(anchor, &all, now, Usage::Any, None).ok()?;
        // Authorities may share a name, and webpki goes by that alone.
        let signs = |crl: &&Crl| {
            let key = crl.issuer().key_hash();
            key == anchor.key_hash() || through.iter().any(|c| c.key_hash() == key)
        };
        let of_path: Vec<_> = crls.iter().filter(signs).collect();
        let lists: Vec<_> = of_path.iter().map(|crl| crl.list()).collect();
        let options = RevocationOptionsBuilder::new(&lists).ok()?;
        let options = options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Ignore)
            .build();
        // Whatever else is wrong with a list that was checked when it was taken in: it must let nobody in.
        if self
            .build(anchor, &through, now, Usage::Any, Some(options))
            .is_err()
        {
            let path = || std::iter::once(&self.leaf).chain(through.iter().copied());
            let by = |crl: &&Crl| path().find(|c| crl.revokes(c)).cloned();
            let found = of_path.iter().find_map(|crl| Some((*crl, by(crl)?)));
            return Some(Revocation::Listed(found));
        }
        let is_over = |crl: &&Crl| crl.is_strict() && crl.is_stale(now);
        of_path.into_iter().find(is_over).map(Revocation::Stale)
    }

    fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.others)
    }
}

/// Whether a certificate's own dates admit `now`; never [`Path::WrongEku`] or [`Path::None`].
pub(super) fn in_time(certificate: &Certificate, now: Timestamp) -> Path {
    if now < certificate.not_before() {
        return Path::NotYetValid;
    }
    if now > certificate.not_after() {
        return Path::Expired;
    }
    Path::Valid
}

/// Which extended key usages a path may have. An absent extension allows everything, as in RFC 5280, and so
/// does `anyExtendedKeyUsage`, which webpki's own rule does not know.
#[derive(Clone, Copy)]
enum Usage {
    Only(Direction),
    Any,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, present: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const ANY: &[usize] = &[2, 5, 29, 37, 0];
        let (wanted, required) = match self {
            Self::Any => return Ok(()),
            Self::Only(Direction::Client) => (KeyUsage::CLIENT_AUTH_REPR, KeyUsage::client_auth()),
            Self::Only(Direction::Server) => (KeyUsage::SERVER_AUTH_REPR, KeyUsage::server_auth()),
        };
        let mut found = Vec::new();
        for purpose in present {
            let purpose = purpose?.to_decoded_oid();
            if purpose == wanted || purpose == ANY {
                return Ok(());
            }
            found.push(purpose);
        }
        if found.is_empty() {
            return Ok(());
        }
        let context = RequiredEkuNotFoundContext {
            required,
            present: found,
        };
        Err(webpki::Error::RequiredEkuNotFoundContext(context))
    }
}
