//! What an authority answered to a request: which certificate is ours, what goes with it, and whether it is what was
//! asked for. Everything that is wrong is told at once. Pure.

use x509_parser::{
    certificate::X509Certificate,
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use super::{
    bundle::Direction,
    certificate::{Certificate, Name},
    formats::pem::find,
};
use crate::clock::Timestamp;

/// What the answer is held against.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The public half of the key: its `SubjectPublicKeyInfo` in DER.
    pub public_key: &'a [u8],
    /// Names that the certificate must be for.
    pub names: &'a [String],
    /// Directions that it must be for.
    pub directions: &'a [Direction],
    /// Whether a chain is taken that ends below its root without the root being there.
    pub may_lack_issuers: bool,
    /// The time.
    pub now: Timestamp,
}

/// A certificate with what is sent along.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Our certificate, then each one's issuer, without the root.
    pub chain: Vec<Certificate>,
    /// The root, where it was among what was given.
    pub root: Option<Certificate>,
    /// What was given and is of no use here.
    pub unused: Vec<Certificate>,
}

/// What is wrong with an answer, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Nothing of it is for our key.
    #[error(
        "none of the certificates is for that key ({subjects}): the authority signed another request, or the key is \
         another one; name the request's key with --key-file"
    )]
    AnotherKey {
        /// What was given.
        subjects: String,
    },
    /// It ended.
    #[error("{subject} expired at {at}: ask the authority for a new one")]
    Expired {
        /// Whose certificate.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// It begins later.
    #[error(
        "{subject} is not valid before {at}: wait until then, or set this machine's clock if it is wrong"
    )]
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// It is not for a name that it should be for.
    #[error(
        "it is not for {name} (it is for {names}): ask the authority again with all names, or give the names that will do \
         with --name"
    )]
    Name {
        /// The one that is missing.
        name: String,
        /// Those that it has.
        names: String,
    },
    /// It may not be used for what it is to be used for.
    #[error(
        "it may not be used as a {side}: ask the authority for the extended key usage {usage}{other}"
    )]
    Usage {
        /// Client or server.
        side: &'static str,
        /// The usage as authorities call it.
        usage: &'static str,
        /// What else may be done.
        other: &'static str,
    },
    /// The chain stops before its root.
    #[error(
        "the chain is not complete: {subject} is signed by {issuer}, and that one's certificate is in no file that was \
         given; give the authority's own certificates as well, or --without-issuers if peers trust {issuer} itself"
    )]
    NoIssuer {
        /// Where it stops.
        subject: String,
        /// Who comes next.
        issuer: String,
    },
    /// A certificate has the issuer's name but not the key.
    #[error(
        "{subject} names {issuer} as its issuer, and the certificate of that name that was given did not sign it: it is an \
         older or newer one of the same name; give the right one"
    )]
    NotSigned {
        /// Whose certificate.
        subject: String,
        /// Who did not sign it.
        issuer: String,
    },
    /// Its issuer may not sign.
    #[error(
        "{subject} is signed by {issuer}, which is no authority (its basic constraints don't say CA), so nobody takes \
         what it signed; ask the authority for its own certificate"
    )]
    NoAuthority {
        /// Whose certificate.
        subject: String,
        /// Who signed it.
        issuer: String,
    },
    /// There are more issuers than anybody follows.
    #[error(
        "the chain is longer than {MAX_DEPTH} certificates, and goes on above {subject}; ask the authority for one that \
         is signed nearer to its root"
    )]
    TooDeep {
        /// Where it is left.
        subject: String,
    },
}

/// Deeper than any real hierarchy.
const MAX_DEPTH: usize = 6;

/// Finds our certificate among what was given, in any order, and completes its chain.
///
/// # Errors
/// Every [`Mismatch`].
pub fn complete(given: &[Certificate], wanted: &Wanted<'_>) -> Result<Answer, Vec<Mismatch>> {
    let ours = given.iter().filter(|c| is_for_key(c, wanted.public_key));
    // The same key may have been signed more than once.
    let Some(leaf) = ours.max_by_key(|c| (c.not_before(), c.not_after())) else {
        let subjects: Vec<_> = given.iter().map(Certificate::subject).collect();
        let subjects = subjects.join("; ");
        return Err(vec![Mismatch::AnotherKey { subjects }]);
    };
    let mut wrong = Vec::new();
    let mut chain = vec![leaf.clone()];
    let root = climb(given, &mut chain, wanted, &mut wrong);
    for certificate in chain.iter().chain(&root) {
        wrong.extend(out_of_time(certificate, wanted.now));
    }
    for name in wanted.names.iter().filter(|name| !leaf.is_for(name)) {
        let names: Vec<_> = leaf.names().iter().map(ToString::to_string).collect();
        wrong.push(Mismatch::Name {
            name: name.clone(),
            names: if names.is_empty() {
                "no name at all".to_owned()
            } else {
                names.join(" ")
            },
        });
    }
    wrong.extend(wrong_usages(leaf, wanted.directions));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let is_used = |c: &&Certificate| chain.contains(c) || root.as_ref() == Some(*c);
    let unused = given.iter().filter(|c| !is_used(c)).cloned().collect();
    Ok(Answer {
        chain,
        root,
        unused,
    })
}

/// Adds issuer after issuer. Gives the root back when it gets there; it is not sent along.
fn climb(
    given: &[Certificate],
    chain: &mut Vec<Certificate>,
    wanted: &Wanted<'_>,
    wrong: &mut Vec<Mismatch>,
) -> Option<Certificate> {
    while let Some(last) = chain.last().cloned() {
        if last.is_root() {
            // A certificate that signed itself is its own root, and is sent when it is ours.
            return if chain.len() > 1 { chain.pop() } else { None };
        }
        let named: Vec<_> = given
            .iter()
            .filter(|c| last.names_issuer(c) && !chain.contains(c))
            .collect();
        let signers: Vec<_> = named.iter().filter(|c| last.is_signed_by(c)).collect();
        let authorities = signers.iter().filter(|issuer| issuer.is_ca());
        match authorities.max_by_key(|issuer| issuer.not_after()) {
            Some(next) if chain.len() < MAX_DEPTH => chain.push((**next).clone()),
            None if named.is_empty() && wanted.may_lack_issuers => return None,
            next => {
                let (subject, issuer) = (last.subject().to_owned(), last.issuer().to_owned());
                wrong.push(match next {
                    Some(_) => Mismatch::TooDeep { subject },
                    None if named.is_empty() => Mismatch::NoIssuer { subject, issuer },
                    None if signers.is_empty() => Mismatch::NotSigned { subject, issuer },
                    None => Mismatch::NoAuthority { subject, issuer },
                });
                return None;
            }
        }
    }
    None
}

fn out_of_time(certificate: &Certificate, now: Timestamp) -> Option<Mismatch> {
    let subject = || certificate.subject().to_owned();
    if now > certificate.not_after() {
        return Some(Mismatch::Expired {
            subject: subject(),
            at: certificate.not_after(),
        });
    }
    (now < certificate.not_before()).then(|| Mismatch::NotYetValid {
        subject: subject(),
        at: certificate.not_before(),
    })
}

fn wrong_usages(leaf: &Certificate, directions: &[Direction]) -> Vec<Mismatch> {
    let Some(usages) = leaf.usages() else {
        return Vec::new();
    };
    let for_both = directions.len() > 1;
    let wrong = directions.iter().filter_map(|direction| {
        let (side, usage, may) = match direction {
            Direction::Client => ("client", "clientAuth", usages.client),
            Direction::Server => ("server", "serverAuth", usages.server),
        };
        let other = match (for_both, direction) {
            (true, Direction::Client) => {
                " as well, or configure another certificate for calling peers under [identity.client]"
            }
            _ => "",
        };
        (!may).then_some(Mismatch::Usage { side, usage, other })
    });
    wrong.collect()
}

/// Whether a certificate is for that public key.
#[must_use]
pub fn is_for_key(certificate: &Certificate, public_key: &[u8]) -> bool {
    X509Certificate::from_der(certificate.der())
        .is_ok_and(|(_, x509)| x509.public_key().raw == public_key)
}

/// The names that a request asks for, if it is one for that key. In PEM.
#[must_use]
pub fn names_asked(request_pem: &[u8], public_key: &[u8]) -> Option<Vec<String>> {
    let der = find(request_pem, "CERTIFICATE REQUEST")?;
    let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
    if request.certification_request_info.subject_pki.raw != public_key {
        return None;
    }
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension {
            names.extend(alternative.general_names.iter().filter_map(text_of));
        }
    }
    Some(names)
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => Name::of_address(bytes).map(|name| name.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
