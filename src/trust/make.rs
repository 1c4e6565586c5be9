//! Makes certificates and keys, and writes key files so that nobody else can read them at any moment.
//!
//! The product makes self-signed ones, as voice platforms do. Authorities and certificates signed by them are
//! for laboratories; what is asked for is made, also when it is expired, nameless or for the wrong direction.

use std::{
    fs::{File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, RsaKeySize, SigningKey as _,
};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, public_key::PublicKey};
use zeroize::Zeroizing;

use crate::{
    clock::Timestamp,
    secret::Secret,
    trust::{certificate::Certificate, formats::pem::block},
};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that a certificate can't hold.
    #[error("{name:?} can't stand in a certificate as a name")]
    Name {
        /// The name.
        name: String,
        /// What the library says.
        source: rcgen::Error,
    },
    /// A key that was given.
    #[error(
        "the key can't be used: it must be a private key in PEM without a password, RSA or ECDSA"
    )]
    Key(#[source] rcgen::Error),
    /// The cryptographic library refused; a bug, or no random numbers.
    #[error("making a key or certificate failed")]
    Make(#[from] rcgen::Error),
    /// A validity that ends before it begins.
    #[error("the certificate would end before it begins")]
    Validity,
}

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: small and fast, for machines.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits: for old phones.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

impl KeyKind {
    /// That of a certificate: of an RSA key the next size that is made. None for kinds that aren't made here.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Option<Self> {
        let (_, x509) = X509Certificate::from_der(certificate.der()).ok()?;
        match x509.public_key().parsed().ok()? {
            PublicKey::RSA(key) => match key.key_size() {
                0..=2048 => Some(Self::Rsa2048),
                2049..=3072 => Some(Self::Rsa3072),
                3073..=4096 => Some(Self::Rsa4096),
                _ => None,
            },
            PublicKey::EC(point) => match point.key_size() {
                256 => Some(Self::P256),
                384 => Some(Self::P384),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it is RSA.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }
}

/// What a certificate says that it may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Both directions.
    Both,
    /// Connections that its owner opens.
    Client,
    /// Connections that its owner accepts.
    Server,
    /// It says nothing.
    Unsaid,
}

/// Parts of a subject that authorities may ask for beside the common name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Organization (O).
    pub organization: Option<String>,
    /// Organizational unit (OU).
    pub unit: Option<String>,
    /// Locality, such as a town (L).
    pub locality: Option<String>,
    /// State or province (ST).
    pub state: Option<String>,
    /// Country, two letters (C).
    pub country: Option<String>,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct CertRequest {
    /// Common name of the subject.
    pub common_name: String,
    /// The other parts of it.
    pub subject: Subject,
    /// The whole of it as it is encoded, in place of the parts. For what is self-signed.
    pub subject_der: Option<Vec<u8>>,
    /// DNS names and IP addresses it is for.
    pub names: Vec<String>,
    /// The key to make for it.
    pub key: KeyKind,
    /// First moment at which it is valid.
    pub not_before: Timestamp,
    /// Last moment at which it is valid.
    pub not_after: Timestamp,
    /// Directions it is for.
    pub usage: Usage,
}

/// How far before its making a certificate begins: the clocks of two clusters may differ.
const BACKDATE: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(86_400);

impl CertRequest {
    /// A request for both directions that begins an hour before `now` and ends `days` after it.
    #[must_use]
    pub fn new(
        common_name: impl Into<String>,
        names: Vec<String>,
        key: KeyKind,
        now: Timestamp,
        days: u32,
    ) -> Self {
        let backdate = i64::try_from(BACKDATE.as_millis()).unwrap_or(0);
        Self {
            common_name: common_name.into(),
            subject: Subject::default(),
            subject_der: None,
            names,
            key,
            not_before: Timestamp::from_millis(now.as_millis().saturating_sub(backdate)),
            not_after: now.plus(DAY.saturating_mul(days)),
            usage: Usage::Both,
        }
    }

    /// The same for other directions.
    #[must_use]
    pub const fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// The same with the whole subject, and the directions, of another certificate.
    #[must_use]
    pub fn like(mut self, before: &Certificate) -> Self {
        self.subject_der = Some(before.subject_raw().to_vec());
        self.usage = match before.usages() {
            None => Usage::Unsaid,
            Some(usages) => match (usages.client, usages.server) {
                (true, false) => Usage::Client,
                (false, true) => Usage::Server,
                (true, true) | (false, false) => Usage::Both,
            },
        };
        self
    }

    /// The same with another validity.
    #[must_use]
    pub const fn valid(mut self, not_before: Timestamp, not_after: Timestamp) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    fn params(&self) -> Result<CertificateParams, Error> {
        if self.not_after <= self.not_before {
            return Err(Error::Validity);
        }
        let mut params = CertificateParams::default();
        for name in &self.names {
            let made = CertificateParams::new([name.clone()]).map_err(|source| Error::Name {
                name: name.clone(),
                source,
            })?;
            params.subject_alt_names.extend(made.subject_alt_names);
        }
        params.distinguished_name = DistinguishedName::new();
        let subject = &self.subject;
        for (kind, part) in [
            (DnType::CountryName, &subject.country),
            (DnType::StateOrProvinceName, &subject.state),
            (DnType::LocalityName, &subject.locality),
            (DnType::OrganizationName, &subject.organization),
            (DnType::OrganizationalUnitName, &subject.unit),
            (DnType::CommonName, &Some(self.common_name.clone())),
        ] {
            if let Some(part) = part {
                params.distinguished_name.push(kind, part.clone());
            }
        }
        set_validity(&mut params, self.not_before, self.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if self.key.is_rsa() {
            // Old phones look for it in an RSA certificate, whatever the key exchange.
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = match self.usage {
            Usage::Both => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Unsaid => Vec::new(),
        };
        Ok(params)
    }

    fn authority_params(&self) -> Result<CertificateParams, Error> {
        let mut params = self.params()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = Vec::new();
        Ok(params)
    }
}

/// A certificate in PEM.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    block("CERTIFICATE", der)
}

/// A private key in PEM, from PKCS#8 in DER.
#[must_use]
pub fn key_pem(der: &[u8]) -> Secret {
    Secret::new(block("PRIVATE KEY", der).into_bytes())
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Made {
    /// The certificate in PEM; where an authority below the root signed it, with the chain up to but without
    /// the root.
    pub certificate_pem: String,
    /// The certificate in DER, without the chain.
    pub certificate_der: Vec<u8>,
    /// The key in PEM (PKCS#8).
    pub key_pem: Secret,
}

impl Made {
    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate_der).into()
    }

    /// The fingerprint as `openssl` and `keytool` print it.
    #[must_use]
    pub fn fingerprint_text(&self) -> String {
        let bytes = self.fingerprint();
        let pairs: Vec<_> = bytes.iter().map(|b| format!("{b:02X}")).collect();
        pairs.join(":")
    }
}

/// A certificate signing request and its key.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request in PEM (PKCS#10).
    pub request_pem: String,
    /// The key in PEM: as it was given, or a new one (PKCS#8).
    pub key_pem: Secret,
}

/// Makes a request for an authority to sign, for a key that is there or for a new one. The dates of the request don't
/// count: they are the authority's business.
///
/// # Errors
/// [`Error`] when the request can't be made; [`Error::Key`] when the key that is given can't be used.
pub fn ask(request: &CertRequest, key_pem: Option<&Secret>) -> Result<Asked, Error> {
    let key = match key_pem {
        Some(given) => KeyPair::from_pem(&Zeroizing::new(
            String::from_utf8_lossy(given.expose()).into_owned(),
        ))
        .map_err(Error::Key)?,
        None => generate(request.key)?,
    };
    let mut params = request.params()?;
    if key_pem.is_some() && key.algorithm() == &PKCS_RSA_SHA256 {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        params.key_usages.dedup();
    }
    let asked = params.serialize_request(&key)?;
    Ok(Asked {
        request_pem: asked.pem()?,
        key_pem: match key_pem {
            Some(given) => given.clone(),
            None => Secret::new(key.serialize_pem().into_bytes()),
        },
    })
}

/// An authority that signs.
#[derive(Debug)]
pub struct Authority {
    made: Made,
    /// What a certificate signed here needs beside it: our own chain without the root.
    chain_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Its own certificate and key.
    #[must_use]
    pub const fn made(&self) -> &Made {
        &self.made
    }

    /// An authority below this one.
    ///
    /// # Errors
    /// [`Error`] when the request can't be made.
    pub fn subordinate(&self, request: &CertRequest) -> Result<Self, Error> {
        let params = request.authority_params()?;
        let (made, key) = self.sign(params.clone(), request.key)?;
        Ok(Self {
            chain_pem: made.certificate_pem.clone(),
            made,
            issuer: Issuer::new(params, key),
        })
    }

    fn sign(&self, mut params: CertificateParams, kind: KeyKind) -> Result<(Made, KeyPair), Error> {
        let key = generate(kind)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((made(&certificate, &key, &self.chain_pem), key))
    }
}

/// Makes a key, and a certificate that it signs itself.
///
/// # Errors
/// [`Error`] when the request can't be made.
pub fn self_signed(request: &CertRequest) -> Result<Made, Error> {
    let key = generate(request.key)?;
    let certificate = request.params()?.self_signed(&key)?;
    let mut made = made(&certificate, &key, "");
    if let Some(subject) = &request.subject_der {
        made.certificate_der = with_subject(&made.certificate_der, subject, &key)?;
        made.certificate_pem = pem(&made.certificate_der);
    }
    Ok(made)
}

/// A self-signed certificate with another subject, byte for byte: names may have parts, repetitions and encodings that
/// can't be asked for.
fn with_subject(der: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, Error> {
    let odd = || Error::Make(rcgen::Error::CouldNotParseCertificate);
    let parts = elements(content(der).ok_or_else(odd)?).ok_or_else(odd)?;
    let [tbs, algorithm, _] = parts[..] else {
        return Err(odd());
    };
    let mut fields = elements(content(tbs).ok_or_else(odd)?).ok_or_else(odd)?;
    // Version, serial number, algorithm, issuer, validity, subject, key, extensions.
    for place in [3, 5] {
        *fields.get_mut(place).ok_or_else(odd)? = subject;
    }
    let tbs = wrapped(SEQUENCE, &fields);
    let signature = key.sign(&tbs)?;
    let signature = wrapped(BIT_STRING, &[&[0], &signature]);
    Ok(wrapped(SEQUENCE, &[&tbs, algorithm, &signature]))
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Where the content of the first element of DER lies.
fn span(der: &[u8]) -> Option<std::ops::Range<usize>> {
    let first = *der.get(1)?;
    let (header, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let header = 2 + usize::from(first & 0x7f);
        let bytes = der.get(2..header).filter(|bytes| bytes.len() <= 4)?;
        let length = bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
        (header, length)
    };
    Some(header..header.checked_add(length)?)
}

fn content(der: &[u8]) -> Option<&[u8]> {
    der.get(span(der)?)
}

fn elements(mut der: &[u8]) -> Option<Vec<&[u8]>> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (element, rest) = der.split_at_checked(span(der)?.end)?;
        all.push(element);
        der = rest;
    }
    Some(all)
}

fn wrapped(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut der = vec![tag];
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|b| *b == 0).collect();
    match (significant.first(), u8::try_from(significant.len())) {
        (Some(short), Ok(1)) if *short < 0x80 => der.push(*short),
        (None, _) => der.push(0),
        (_, count) => {
            der.push(0x80 | count.unwrap_or(0));
            der.extend(significant);
        }
    }
    der.extend(content);
    der
}

/// Makes an authority. The names and directions of the request don't count.
///
/// # Errors
/// [`Error`] when the request can't be made.
pub fn ca(request: &CertRequest) -> Result<Authority, Error> {
    let params = request.authority_params()?;
    let key = generate(request.key)?;
    let certificate = params.self_signed(&key)?;
    Ok(Authority {
        made: made(&certificate, &key, ""),
        chain_pem: String::new(),
        issuer: Issuer::new(params, key),
    })
}

/// Makes a key, and a certificate that the authority signs.
///
/// # Errors
/// [`Error`] when the request can't be made.
pub fn signed_by(request: &CertRequest, authority: &Authority) -> Result<Made, Error> {
    let (made, _) = authority.sign(request.params()?, request.key)?;
    Ok(made)
}

/// Writes a file that only its owner can read (mode 0600 before there is anything in it), in one step: it is
/// there in full or not at all. What is there already is never overwritten.
///
/// # Errors
/// The system's, `AlreadyExists` among them.
pub fn write_private(path: &Path, content: &Secret) -> io::Result<()> {
    write(path, content.expose(), 0o600)
}

/// The same for a file that everyone may read.
///
/// # Errors
/// The system's, `AlreadyExists` among them.
pub fn write_public(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    write(path, content.as_ref(), 0o644)
}

/// Puts a file in the place of the one that is there, if one is, in one step: whoever reads it finds the old content or
/// the new. Where a link leads is replaced, not the link; the owner stays who it was, or is that of the folder.
///
/// # Errors
/// The system's.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = folder_of(&target);
    let file = new_file(folder, content, mode)?;
    let like = if target.exists() { &*target } else { folder };
    as_owned_as(like, file.path())?;
    file.persist(&target).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// Gives a file that root makes to whom the other one belongs: a daemon that runs as somebody else must be able to read
/// it. For anybody else than root it does nothing.
///
/// # Errors
/// The system's.
pub fn as_owned_as(like: &Path, file: &Path) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let owner = like.metadata()?;
    std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid()))
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path);
    let file = new_file(folder, content, mode)?;
    file.persist_noclobber(path).map_err(|e| e.error)?;
    // The name is durable only once the folder is.
    File::open(folder)?.sync_all()
}

/// A file without its name yet, complete and on the disk.
fn new_file(folder: &Path, content: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn generate(kind: KeyKind) -> Result<KeyPair, rcgen::Error> {
    match kind {
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyKind::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyKind::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    }
}

fn made(certificate: &rcgen::Certificate, key: &KeyPair, chain_pem: &str) -> Made {
    Made {
        certificate_pem: format!("{}{chain_pem}", certificate.pem()),
        certificate_der: certificate.der().to_vec(),
        key_pem: Secret::new(key.serialize_pem().into_bytes()),
    }
}

/// The last second that X.509 can say, 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// Whole seconds, as X.509 has it; years before 1970 and after 9999 are cut off.
fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let moment = |at: Timestamp| {
        let seconds = u64::try_from(at.as_millis() / 1000).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(LAST_SECOND))
    };
    params.not_before = moment(not_before);
    params.not_after = moment(not_after);
}

#[cfg(test)]
mod tests {
    use x509_parser::{
        extensions::GeneralName,
        prelude::{FromDer as _, X509Certificate},
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    fn request(names: &[&str], key: KeyKind) -> CertRequest {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        CertRequest::new("emccd munich", names, key, NOW, 30)
    }

    fn seen(made: &Made) -> X509Certificate<'_> {
        X509Certificate::from_der(&made.certificate_der).unwrap().1
    }

    #[test]
    fn a_self_signed_one_is_for_both_directions_and_no_authority() {
        let made = self_signed(&request(&["a.example.org", "127.0.0.1"], KeyKind::P256)).unwrap();
        let certificate = seen(&made);
        assert_eq!(certificate.subject().to_string(), "CN=emccd munich");
        assert_eq!(certificate.issuer(), certificate.subject());
        assert!(!certificate.is_ca());
        certificate.verify_signature(None).unwrap();
        let eku = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(eku.server_auth && eku.client_auth);
        let names = certificate
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value;
        assert_eq!(
            names.general_names,
            [
                GeneralName::DNSName("a.example.org"),
                GeneralName::IPAddress(&[127, 0, 0, 1])
            ]
        );
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), 1_780_000_000 - 3_600);
        assert_eq!(validity.not_after.timestamp(), 1_780_000_000 + 30 * 86_400);
    }

    #[test]
    fn a_successor_has_the_whole_subject_and_the_kind_of_key() {
        let subject = Subject {
            organization: Some("Müller, Söhne & Co".to_owned()),
            unit: Some("Voice".to_owned()),
            ..Subject::default()
        };
        for (key, usage) in [
            (KeyKind::P384, Usage::Both),
            (KeyKind::Rsa3072, Usage::Client),
        ] {
            let asked = CertRequest {
                common_name: "Foo, Inc".to_owned(),
                subject: subject.clone(),
                ..request(&["a"], key).with_usage(usage)
            };
            let first = self_signed(&asked).unwrap();
            let leaf = Certificate::from_der(&first.certificate_der).unwrap();
            assert_eq!(KeyKind::of(&leaf), Some(key));
            let next = request(&["b"], KeyKind::of(&leaf).unwrap()).like(&leaf);
            let next = self_signed(&next).unwrap();
            let (before, after) = (seen(&first), seen(&next));
            assert_eq!(before.subject().as_raw(), after.subject().as_raw());
            assert_eq!(after.issuer().as_raw(), after.subject().as_raw());
            after.verify_signature(None).unwrap();
            let (before, after) = (leaf, Certificate::read_all(next.certificate_pem.as_bytes()));
            let after = after.unwrap().remove(0);
            assert_eq!(after.usages(), before.usages());
            assert_ne!(after.key_hash(), before.key_hash());
            assert_eq!(KeyKind::of(&after), Some(key));
        }
    }

    #[test]
    fn a_subject_of_any_length_is_put_in_place() {
        for length in [0_usize, 90, 120, 130, 200, 300, 70_000] {
            let name = wrapped(SEQUENCE, &[&vec![0x31; length]]);
            assert_eq!(content(&name).map(<[u8]>::len), Some(length));
            assert_eq!(elements(&name).map(|all| all.len()), Some(1));
        }
        assert_eq!(elements(&[0x30, 0x05, 0]), None);
    }

    #[test]
    fn a_phone_identity_is_rsa() {
        let made = self_signed(&request(&["a"], KeyKind::Rsa2048)).unwrap();
        let certificate = seen(&made);
        match certificate.public_key().parsed().unwrap() {
            x509_parser::public_key::PublicKey::RSA(key) => assert_eq!(key.key_size(), 2048),
            other => panic!("{other:?}"),
        }
        certificate.verify_signature(None).unwrap();
    }

    #[test]
    fn an_authority_signs_and_a_subordinate_brings_its_chain() {
        let root = ca(&request(&[], KeyKind::P256)).unwrap();
        let leaf = signed_by(&request(&["a"], KeyKind::P256), &root).unwrap();
        let root_seen = seen(root.made());
        assert!(root_seen.is_ca());
        seen(&leaf)
            .verify_signature(Some(root_seen.public_key()))
            .unwrap();
        assert_eq!(leaf.certificate_pem.matches("BEGIN").count(), 1);

        let middle = root.subordinate(&request(&[], KeyKind::P256)).unwrap();
        seen(middle.made())
            .verify_signature(Some(root_seen.public_key()))
            .unwrap();
        let deep = signed_by(&request(&["a"], KeyKind::P256), &middle).unwrap();
        seen(&deep)
            .verify_signature(Some(seen(middle.made()).public_key()))
            .unwrap();
        assert!(
            seen(&deep)
                .verify_signature(Some(root_seen.public_key()))
                .is_err()
        );
        assert_eq!(deep.certificate_pem.matches("BEGIN").count(), 2);
    }

    #[test]
    fn bad_ones_are_made_as_asked() {
        let asked = request(&[], KeyKind::P256)
            .with_usage(Usage::Client)
            .valid(Timestamp::from_millis(0), Timestamp::from_millis(1_000));
        let made = self_signed(&asked).unwrap();
        let certificate = seen(&made);
        assert_eq!(certificate.validity().not_after.timestamp(), 1);
        assert_eq!(certificate.subject_alternative_name().unwrap(), None);
        let eku = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(eku.client_auth && !eku.server_auth);
        let unsaid = self_signed(&request(&[], KeyKind::P256).with_usage(Usage::Unsaid)).unwrap();
        assert!(seen(&unsaid).extended_key_usage().unwrap().is_none());
    }

    #[test]
    fn what_no_certificate_can_say_is_refused() {
        let name = self_signed(&request(&["mün.example.org"], KeyKind::P256)).unwrap_err();
        assert!(matches!(name, Error::Name { .. }), "{name}");
        let turned = request(&[], KeyKind::P256).valid(NOW, Timestamp::from_millis(0));
        assert!(matches!(self_signed(&turned).unwrap_err(), Error::Validity));
        let far = request(&[], KeyKind::P256).valid(NOW, Timestamp::from_millis(i64::MAX));
        assert!(self_signed(&far).is_ok());
    }

    #[test]
    fn every_key_is_new_and_none_is_printed() {
        let asked = request(&["a"], KeyKind::P256);
        let (one, two) = (self_signed(&asked).unwrap(), self_signed(&asked).unwrap());
        assert_ne!(one.key_pem.expose(), two.key_pem.expose());
        assert!(
            one.key_pem
                .expose()
                .starts_with(b"-----BEGIN PRIVATE KEY-----")
        );
        assert!(!format!("{one:?}").contains("PRIVATE"));
        let authority = ca(&asked).unwrap();
        assert!(!format!("{authority:?}").contains("PRIVATE"));
        assert_eq!(one.fingerprint_text().len(), 32 * 3 - 1);
    }

    #[test]
    fn files_have_their_mode_and_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (key, text) = (folder.path().join("a.key"), folder.path().join("a.pem"));
        write_private(&key, &Secret::new(b"first".to_vec())).unwrap();
        write_public(&text, "text").unwrap();
        assert_eq!((mode(&key), mode(&text)), (0o600, 0o644));
        let again = write_private(&key, &Secret::new(b"second".to_vec())).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&key).unwrap(), b"first");
        assert_eq!(
            folder.path().read_dir().unwrap().count(),
            2,
            "no half-written file is left"
        );
        assert!(write_public(&folder.path().join("none/a"), "").is_err());
    }

    #[test]
    fn what_is_replaced_is_there_in_full_with_its_mode_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("a.key"), folder.path().join("link.key"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&real, b"first", 0o600).unwrap();
        replace(&link, b"second", 0o600).unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"second");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 2);
        assert!(replace(&folder.path().join("none/a"), b"", 0o600).is_err());
    }
}
