//! One certificate as people and rules see it: names, usages, validity, fingerprint. Pure.
//!
//! It parses and decides nothing: [`judge`](super::judge) does.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, x509::X509Name,
};

use crate::{
    clock::Timestamp,
    trust::{Error, formats},
};

/// SHA-256 of a certificate's DER bytes.
pub type Fingerprint = [u8; 32];

/// A parsed certificate. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    subject: String,
    issuer: String,
    subject_raw: Vec<u8>,
    issuer_raw: Vec<u8>,
    key_hash: [u8; 32],
    names: Vec<Name>,
    not_before: Timestamp,
    not_after: Timestamp,
    usages: Option<Usages>,
    is_ca: bool,
}

/// A subject alternative name that can identify a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A DNS name in lower case; its first label may be `*`.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

/// What an extended key usage extension allows, as far as TLS is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usages {
    /// May be shown by a TLS client.
    pub client: bool,
    /// May be shown by a TLS server.
    pub server: bool,
}

impl Certificate {
    /// Reads DER bytes.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`] when they are anything else than exactly one X.509 certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|e| malformed(&e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow the certificate"));
        }
        let names = match x509.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(name)
                .collect(),
            Ok(None) => Vec::new(),
            Err(_) => return Err(malformed("its subject alternative names can't be read")),
        };
        let usages = match x509.extended_key_usage() {
            Ok(Some(extension)) => Some(Usages {
                client: extension.value.any || extension.value.client_auth,
                server: extension.value.any || extension.value.server_auth,
            }),
            Ok(None) => None,
            Err(_) => return Err(malformed("its extended key usage can't be read")),
        };
        let is_ca = match x509.basic_constraints() {
            Ok(extension) => extension.is_some_and(|e| e.value.ca),
            Err(_) => return Err(malformed("its basic constraints can't be read")),
        };
        let validity = x509.validity();
        Ok(Self(Arc::new(Parsed {
            fingerprint: fingerprint_of(der),
            subject: printable(x509.subject()),
            issuer: printable(x509.issuer()),
            subject_raw: x509.subject().as_raw().to_vec(),
            issuer_raw: x509.issuer().as_raw().to_vec(),
            key_hash: fingerprint_of(x509.public_key().raw),
            names,
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
            usages,
            is_ca,
            der: CertificateDer::from(der.to_vec()),
        })))
    }

    /// Reads every certificate of a file of any format that takes no password, in the order of the file.
    ///
    /// # Errors
    /// [`Error::Format`] when there is a key among them, when there is none, and when one of them can't be read.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, Error> {
        // What is sealed is read where somebody waits for it: its makers decide how long that takes.
        let format = formats::format_of(bytes)?;
        if format.takes_password() {
            return Err(formats::Error::Sealed { format }.into());
        }
        let entries = formats::read_trust(bytes, None)?.entries;
        Ok(entries.into_iter().flat_map(|entry| entry.chain).collect())
    }

    /// The bytes.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// The fingerprint as people compare it: `AB:CD:…`.
    #[must_use]
    pub fn fingerprint_text(&self) -> String {
        fingerprint_text(&self.0.fingerprint)
    }

    /// The subject, for display: at most 256 characters, none of them a control character.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The issuer, for display, like the subject.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Whether `self` names the subject of `issuer` as its issuer. No signature is checked.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Self) -> bool {
        self.0.issuer_raw == issuer.0.subject_raw
    }

    /// Whether `issuer` signed it, whatever their names and dates are. Methods that no handshake takes count as none.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        issuer.signed(self.der())
    }

    /// Whether it names `issuer` as its issuer and was signed by it, by methods, too, that no handshake takes: what is
    /// only put in order may be as old as it likes.
    #[must_use]
    pub(super) fn comes_from(&self, issuer: &Self) -> bool {
        // Each of the two knows methods that the other one does not: SHA-1 here, P-521 there.
        let by_old_methods = || {
            let (_, signed) = X509Certificate::from_der(self.der()).ok()?;
            let (_, signer) = X509Certificate::from_der(issuer.der()).ok()?;
            signed.verify_signature(Some(signer.public_key())).ok()
        };
        self.names_issuer(issuer) && (self.is_signed_by(issuer) || by_old_methods().is_some())
    }

    /// Whether it is where a chain ends: it names itself as its issuer, and signed itself. By methods, too, that no
    /// handshake takes: nobody looks at a root's own signature, and many an old one is by SHA-1.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.comes_from(self)
    }

    /// The issuer as it is encoded.
    pub(super) fn issuer_raw(&self) -> &[u8] {
        &self.0.issuer_raw
    }

    /// The subject as it is encoded.
    pub(super) fn subject_raw(&self) -> &[u8] {
        &self.0.subject_raw
    }

    /// SHA-256 of its public key: certificates of one authority that was renewed without a new key have the same.
    #[must_use]
    pub fn key_hash(&self) -> [u8; 32] {
        self.0.key_hash
    }

    /// DNS names and IP addresses among the subject alternative names. The common name is not one.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.0.names
    }

    /// Begin of the validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.0.not_before
    }

    /// End of the validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// The extended key usage; `None` when there is no such extension, which allows everything.
    #[must_use]
    pub fn usages(&self) -> Option<Usages> {
        self.0.usages
    }

    /// Whether it says `CA:TRUE`.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.0.is_ca
    }

    /// Whether one of its names is the node name `wanted`: an IP address, or a DNS name without regard to case.
    #[must_use]
    pub fn is_for(&self, wanted: &str) -> bool {
        self.0.names.iter().any(|name| name.covers(wanted))
    }
}

impl Name {
    /// The address of four or sixteen bytes, as certificates have it.
    #[must_use]
    pub fn of_address(bytes: &[u8]) -> Option<Self> {
        address(bytes).map(Self::Ip)
    }

    /// Whether this name of a certificate covers the node name `wanted`. A first label `*` stands for any one
    /// label; an address is covered by itself alone.
    #[must_use]
    pub fn covers(&self, wanted: &str) -> bool {
        let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
        let address = wanted
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        match (self, address) {
            (Self::Ip(own), Ok(address)) => *own == address,
            (Self::Dns(_), Ok(_)) | (Self::Ip(_), Err(_)) => false,
            (Self::Dns(own), Err(_)) => {
                let own = own.strip_suffix('.').unwrap_or(own);
                if own.is_empty() || own.eq_ignore_ascii_case(wanted) {
                    return !own.is_empty();
                }
                match (own.strip_prefix("*."), wanted.split_once('.')) {
                    // `*.com` would be everyone, so at least two labels must follow the star.
                    (Some(suffix), Some((label, rest))) => {
                        !label.is_empty()
                            && suffix.contains('.')
                            && suffix.eq_ignore_ascii_case(rest)
                    }
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.0.subject)
            .field("fingerprint", &self.fingerprint_text())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate's DER bytes.
#[must_use]
pub fn fingerprint_of(der: &[u8]) -> Fingerprint {
    Sha256::digest(der).into()
}

/// A fingerprint as people compare it: `AB:CD:…`.
#[must_use]
pub fn fingerprint_text(fingerprint: &Fingerprint) -> String {
    let pairs: Vec<String> = fingerprint
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    pairs.join(":")
}

/// A fingerprint in a file's name: lower-case digits alone.
#[must_use]
pub fn fingerprint_hex(fingerprint: &Fingerprint) -> String {
    fingerprint
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads a fingerprint as people hand it on: hex of any case, with colons or without.
#[must_use]
pub fn read_fingerprint(text: &str) -> Option<Fingerprint> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    Fingerprint::try_from(bytes)
        .ok()
        .filter(|_| rest.is_empty())
}

/// Whether a PEM text has a private key of any kind in it, encrypted ones included.
pub(super) fn holds_private_key(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).lines().any(|line| {
        line.trim_start().starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----")
    })
}

fn malformed(reason: &str) -> Error {
    Error::MalformedCertificate {
        reason: reason.to_owned(),
    }
}

pub(super) fn seconds(unix: i64) -> Timestamp {
    Timestamp::from_millis(unix.saturating_mul(1_000))
}

/// A name as one line that can go into a log: whoever connects chooses its content.
pub(super) fn printable(name: &X509Name<'_>) -> String {
    const MAX_CHARS: usize = 256;
    name.to_string()
        .chars()
        .take(MAX_CHARS)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn name(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::DNSName(text) => Some(Name::Dns(
            text.chars()
                .map(|c| {
                    if c.is_control() {
                        char::REPLACEMENT_CHARACTER
                    } else {
                        c.to_ascii_lowercase()
                    }
                })
                .collect(),
        )),
        GeneralName::IPAddress(bytes) => Name::of_address(bytes),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| Ipv6Addr::from(sixteen).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::fixtures::{Authority, Spec};

    #[test]
    fn fields_are_read_as_they_were_written() {
        let leaf = Spec::new("node-1.berlin.example")
            .ip("192.0.2.7")
            .eku(true, false)
            .self_signed();
        let parsed = leaf.certificate();
        assert_eq!(parsed.subject(), "CN=node-1.berlin.example");
        assert_eq!(
            parsed.names(),
            [
                Name::Dns("node-1.berlin.example".to_owned()),
                Name::Ip("192.0.2.7".parse().unwrap())
            ]
        );
        assert_eq!(
            parsed.usages(),
            Some(Usages {
                client: true,
                server: false
            })
        );
        assert!(!parsed.is_ca());
        assert_eq!(parsed.fingerprint_text().len(), 32 * 3 - 1);
        assert_eq!(parsed.fingerprint(), fingerprint_of(leaf.der()));
    }

    #[test]
    fn names_cover_exactly_what_they_should() {
        let dns = |text: &str| Name::Dns(text.to_owned());
        let ip = |text: &str| Name::Ip(text.parse().unwrap());
        for (name, wanted, covered) in [
            (dns("a.berlin.example"), "A.Berlin.example", true),
            (dns("a.berlin.example"), "a.berlin.example.", true),
            (dns("a.berlin.example"), "b.berlin.example", false),
            (dns("*.berlin.example"), "b.berlin.example", true),
            (dns("*.berlin.example"), "b.c.berlin.example", false),
            (dns("*.berlin.example"), "berlin.example", false),
            (dns("*.berlin.example"), ".berlin.example", false),
            (dns("*.example"), "berlin.example", false),
            (dns("a*.berlin.example"), "ab.berlin.example", false),
            (dns("*"), "localhost", false),
            (dns(""), "", false),
            (dns("192.0.2.7"), "192.0.2.7", false),
            (dns("*.0.2.7"), "192.0.2.7", false),
            (ip("192.0.2.7"), "192.0.2.7", true),
            (ip("192.0.2.7"), "192.0.2.8", false),
            (ip("2001:db8::7"), "2001:DB8:0::7", true),
            (ip("2001:db8::7"), "[2001:db8::7]", true),
            (ip("192.0.2.7"), "a.berlin.example", false),
        ] {
            assert_eq!(name.covers(wanted), covered, "{name:?} and {wanted}");
        }
    }

    #[test]
    fn a_subject_can_not_break_a_log_line() {
        let parsed = Spec::new("a\nWARN all is well\u{1b}[2J")
            .without_names()
            .self_signed()
            .certificate();
        assert!(
            !parsed.subject().chars().any(char::is_control),
            "{}",
            parsed.subject()
        );
    }

    #[test]
    fn a_fingerprint_is_read_in_every_way_it_is_written() {
        let fingerprint = fingerprint_of(b"x");
        let text = fingerprint_text(&fingerprint);
        let bare = text.replace(':', "");
        for good in [&text, &text.to_lowercase(), &bare, &bare.to_lowercase()] {
            assert_eq!(read_fingerprint(good), Some(fingerprint), "{good}");
        }
        let long = format!("{bare}0");
        for bad in [
            "",
            ":",
            "HEX",
            &bare[2..],
            &bare[1..],
            &long,
            &bare.replace(&bare[..1], "ü"),
        ] {
            assert_eq!(read_fingerprint(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_root_signed_itself_by_whatever_method() {
        for (key, hash) in [
            ("rsa:2048", "-sha1"),
            ("ec -pkeyopt ec_paramgen_curve:P-521", "-sha512"),
            ("ec -pkeyopt ec_paramgen_curve:P-384", "-sha512"),
            ("ec -pkeyopt ec_paramgen_curve:P-256", "-sha512"),
            ("ed25519", "-sha512"),
        ] {
            let line =
                format!("req -x509 -newkey {key} -nodes -keyout /dev/null -subj /CN=Old {hash}");
            let made = std::process::Command::new("openssl")
                .args(line.split(' '))
                .output()
                .unwrap();
            let old = Certificate::read_all(&made.stdout).unwrap().remove(0);
            assert!(old.is_root(), "{key} {hash}");
        }
        let root = Authority::new("Root");
        assert!(root.certificate().is_root());
        // The name alone makes none.
        let namesake = Spec::new("Root").without_names().signed_by(&root);
        let namesake = namesake.certificate();
        assert!(namesake.names_issuer(&namesake) && !namesake.is_root());
    }

    #[test]
    fn garbage_is_no_certificate() {
        let mut longer = Spec::new("a.example").self_signed().der().to_vec();
        longer.push(0);
        for bytes in [b"".as_slice(), b"hello", b"0", &longer] {
            assert!(matches!(
                Certificate::from_der(bytes),
                Err(Error::MalformedCertificate { .. })
            ));
            assert!(matches!(
                Certificate::read_all(bytes),
                Err(Error::Format(_))
            ));
        }
    }

    #[test]
    fn what_is_sealed_is_not_opened_where_nobody_can_be_asked() {
        let leaf = Spec::new("a.example").self_signed().certificate();
        let entries = [formats::Entry::trusted(None, leaf)];
        let password = crate::secret::Secret::new(b"changeit".to_vec());
        for format in formats::Format::ALL {
            let written = formats::write(format, &entries, Some(&password)).unwrap();
            let read = Certificate::read_all(&written);
            match format.takes_password() {
                true => assert!(
                    matches!(&read, Err(Error::Format(told)) if told.to_string().contains("key-store")),
                    "{format}: {read:?}"
                ),
                false => assert_eq!(read.unwrap().len(), 1, "{format}"),
            }
        }
    }

    #[test]
    fn pem_and_der_hold_the_same_certificate() {
        let authority = Authority::new("CA");
        let leaf = Spec::new("a.example").signed_by(&authority);
        let text = format!("{}{}", leaf.pem(), authority.pem());
        assert_eq!(
            Certificate::read_all(text.as_bytes()).unwrap(),
            [leaf.certificate(), authority.certificate()]
        );
        assert_eq!(
            Certificate::read_all(leaf.der()).unwrap(),
            [leaf.certificate()]
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            drop(Certificate::from_der(&bytes));
            drop(Certificate::read_all(&bytes));
        }

        #[test]
        fn damaged_certificates_never_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let mut bytes = sample().to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            drop(Certificate::from_der(&bytes));
            bytes.truncate(cut.index(bytes.len()));
            drop(Certificate::read_all(&bytes));
        }
    }

    fn sample() -> &'static [u8] {
        static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        SAMPLE.get_or_init(|| {
            Spec::new("node-1.berlin.example")
                .ip("192.0.2.7")
                .eku(true, true)
                .ca()
                .self_signed()
                .der()
                .to_vec()
        })
    }
}
