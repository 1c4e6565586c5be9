//! PKCS#12: the store that OpenSSL, Windows and today's Java share.
//!
//! Reading takes every certificate, also those that Java would not show as trusted because no attribute says so:
//! what an operator hands in is what is meant. Salts are drawn at random when one is written, so the same entries
//! don't make the same bytes: with a salt made from the content, whoever sees two files learns that they are equal.

use std::collections::{HashMap, HashSet};

use p12_keystore::{
    Certificate as Bag, CertificateBag, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm,
    Pkcs12Archive, PrivateKey, PrivateKeyChain,
};

use crate::{
    secret::Secret,
    trust::{
        certificate::{Certificate, fingerprint_of},
        formats::{
            Entry, Error, Format, Keys, Meant, Stored,
            asn1::{self, CONTEXT_0, INTEGER, OID, SEQUENCE},
            certificate, clean_alias, in_order, pkcs7, text,
        },
    },
};

/// Whether it is one: version 3, and then what is sealed.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    parts(bytes).is_some()
}

/// Reads a store.
pub(super) fn read(
    bytes: &[u8],
    password: Option<&Secret>,
    keys: Keys<'_>,
) -> Result<Vec<Entry>, Error> {
    let archive = open(bytes, password)?;
    if let (Some(key), Keys::Refuse) = (archive.keys.first(), keys) {
        let what = key.friendly_name.as_deref().and_then(clean_alias);
        let what = what.unwrap_or_else(|| "without a name".to_owned());
        return Err(match archive.certs.is_empty() {
            true => Error::OnlyKey { what },
            false => Error::PrivateKey { what },
        });
    }
    let mut entries = link(&archive)?;
    if matches!(keys, Keys::Drop) {
        entries.retain(|entry| !entry.chain.is_empty());
        entries.iter_mut().for_each(|entry| entry.key = None);
    }
    Ok(entries)
}

/// The store with another key and certificates in the place of the one that is meant.
///
/// The others stay what they are. Certificates that neither are trusted nor belong to a key go: written anew they would
/// be trusted. Where another key may need one of them, nothing is written.
pub(super) fn with_key(bytes: &[u8], meant: &Meant<'_>, next: &Entry) -> Result<Vec<u8>, Error> {
    let archive = open(bytes, meant.password)?;
    if !archive.secrets.is_empty() {
        return Err(Error::Unsupported {
            what: "a PKCS#12 file with a secret key in it, which would be lost when it is written anew".to_owned(),
            next: "give the identity a key store of its own",
        });
    }
    let mut entries = link(&archive)?;
    let at = meant.find(key_aliases(&entries))?;
    if let Some(entry) = entries.get_mut(at) {
        entry.chain.clone_from(&next.chain);
        entry.key.clone_from(&next.key);
    }
    let trusted = archive.certs.iter().filter(|bag| bag.trusted);
    let trusted: HashSet<_> = trusted
        .map(|bag| fingerprint_of(bag.cert.as_der()))
        .collect();
    let stays = |entry: &Entry| {
        let leaf = entry.chain.first().map(Certificate::fingerprint);
        entry.key.is_some() || leaf.is_some_and(|leaf| trusted.contains(&leaf))
    };
    let (kept, gone): (Vec<_>, Vec<_>) = entries.into_iter().partition(stays);
    let others = kept.iter().zip(0..).filter(|(_, place)| *place != at);
    check_loss(others.map(|(entry, _)| entry), &gone)?;
    let entries = kept;
    // Whoever made it with old ciphers has programs that know no others.
    let is_modern = bytes.windows(PBES2.len()).any(|part| part == PBES2);
    let (format, ciphers) = match is_modern {
        true => (Format::Pkcs12, Ciphers::Modern),
        false => (Format::Pkcs12Legacy, Ciphers::Legacy),
    };
    let none = Secret::new(Vec::new());
    let password = meant.password.unwrap_or(&none);
    write(&in_order(format, &entries), password, ciphers)
}

/// What goes must not be a certificate that another key lacks: the leaf that nothing assigns to it, or the next issuer of
/// its chain.
fn check_loss<'a>(others: impl Iterator<Item = &'a Entry>, gone: &[Entry]) -> Result<(), Error> {
    let mut lost = HashSet::new();
    for other in others.filter(|entry| entry.key.is_some()) {
        let last = other.chain.last();
        let is_lost = |candidate: &Certificate| match last {
            Some(last) => !last.is_root() && last.names_issuer(candidate),
            None => true,
        };
        let leaves = gone.iter().filter_map(|entry| entry.chain.first());
        lost.extend(
            leaves
                .filter(|leaf| is_lost(leaf))
                .map(Certificate::subject),
        );
    }
    if lost.is_empty() {
        return Ok(());
    }
    let mut certificates: Vec<_> = lost.into_iter().map(str::to_owned).collect();
    certificates.sort();
    Err(Error::WouldLose { certificates })
}

/// The key that is meant, with its certificates.
pub(super) fn key_of(bytes: &[u8], meant: &Meant<'_>) -> Result<Entry, Error> {
    let mut entries = read(bytes, meant.password, Keys::Open(None))?;
    let at = meant.find(key_aliases(&entries))?;
    Ok(entries.swap_remove(at))
}

fn key_aliases(entries: &[Entry]) -> impl Iterator<Item = Option<String>> {
    entries.iter().map(|entry| {
        let alias = || entry.alias.clone().unwrap_or_default();
        entry.key.as_ref().map(|_| alias())
    })
}

fn open(bytes: &[u8], password: Option<&Secret>) -> Result<Pkcs12Archive, Error> {
    if bytes.starts_with(b"\x30\x80") {
        return Err(pkcs7::indefinite());
    }
    let parts = parts(bytes).ok_or_else(|| damaged("its parts don't fit together"))?;
    let given = password.map(text).transpose()?;
    if !parts.is_sealed && given.is_some() {
        return Err(if parts.is_encrypted() {
            encrypted_and_unsealed()
        } else {
            Error::NotSealed {
                format: Format::Pkcs12,
            }
        });
    }
    let password = given.unwrap_or_default();
    if password.chars().any(|char| u32::from(char) >= 0xFFFF) {
        return Err(Error::Unsupported {
            what: "a PKCS#12 file, and the password has a character beyond the first 65,535 of Unicode".to_owned(),
            next: "if it is the right one, write the file anew with another one",
        });
    }
    Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| why(error, &parts, given))
}

/// Writes a store, with the attribute by which Java knows a trusted certificate.
pub(super) fn write(
    entries: &[Stored<'_>],
    password: &Secret,
    ciphers: Ciphers,
) -> Result<Vec<u8>, Error> {
    let mut store = KeyStore::new();
    for Stored { alias, entry } in entries {
        let refused = |reason| Error::Alias {
            subject: entry.subject().to_owned(),
            format: Format::Pkcs12,
            reason,
        };
        if alias.chars().any(|char| u32::from(char) > 0xFFFF) {
            return Err(refused(
                "it has a character beyond the first 65,536 of Unicode",
            ));
        }
        let mut chain = Vec::new();
        for certificate in &entry.chain {
            let bag = Bag::from_der(certificate.der());
            chain.push(bag.map_err(|_| refused("its certificate can't be written"))?);
        }
        let written = match &entry.key {
            Some(key) => {
                let key = PrivateKey::from_der(key.expose())
                    .map_err(|_| refused("its key can't be written"))?;
                let id = entry.chain.first().map(Certificate::fingerprint);
                let id = id.unwrap_or_default().to_vec();
                KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(id, key, chain))
            }
            None => match chain.into_iter().next() {
                Some(bag) => KeyStoreEntry::Certificate(bag),
                None => continue,
            },
        };
        store.add_entry(alias, written);
    }
    let writer = store.writer(text(password)?);
    let writer = match ciphers {
        Ciphers::Modern => writer,
        Ciphers::Legacy => writer
            .encryption_algorithm(EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc)
            .mac_algorithm(MacAlgorithm::HmacSha1),
    };
    writer.write().map_err(|error| Error::Unsupported {
        what: format!("a store that can't be written ({error})"),
        next: "choose another format",
    })
}

/// What a store is encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ciphers {
    /// Triple DES and SHA-1, for what is too old for anything else.
    Legacy,
    /// AES-256 and SHA-256.
    Modern,
}

/// The parts of a store as they stand in the file.
struct Parts<'a> {
    /// Version and content, without the seal.
    unsealed: [&'a [u8]; 2],
    is_sealed: bool,
}

fn parts(bytes: &[u8]) -> Option<Parts<'_>> {
    let mut outer = asn1::only(bytes, SEQUENCE)?.content;
    let version = asn1::take_tag(&mut outer, INTEGER)?;
    let content = asn1::take_tag(&mut outer, SEQUENCE)?;
    let mut inner = content.content;
    let name = asn1::take_tag(&mut inner, OID)?;
    asn1::only(inner, CONTEXT_0)?;
    // Sealed with a signature, if the name is SIGNED: the reader says that it can't.
    (version.content == [3] && name.content.starts_with(PKCS7)).then_some(Parts {
        unsealed: [version.whole, content.whole],
        is_sealed: !outer.is_empty(),
    })
}

impl Parts<'_> {
    /// Whether any of it is: by the names of what is, which a certificate may hold too. So it counts only where the
    /// store is refused anyway.
    fn is_encrypted(&self) -> bool {
        let has = |name: &[u8]| self.unsealed[1].windows(name.len()).any(|at| at == name);
        has(ENCRYPTED_DATA) || has(SHROUDED_KEY)
    }
}

/// Names of what is encrypted, with tag and length: pkcs7-encryptedData and pkcs8ShroudedKeyBag.
const ENCRYPTED_DATA: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x06";
const SHROUDED_KEY: &[u8] = b"\x06\x0B\x2A\x86\x48\x86\xF7\x0D\x01\x0C\x0A\x01\x02";

fn encrypted_and_unsealed() -> Error {
    Error::Unsupported {
        what: "a PKCS#12 file that is encrypted and has no seal (MAC), so that any change of it would go unseen"
            .to_owned(),
        next: "write it anew with a seal, as openssl pkcs12 -export does without -nomac",
    }
}

/// Why a store doesn't open. A password with which all of it is decrypted, or all up to a broken certificate, was the
/// right one, unless any other does the same since nothing is encrypted. That bytes don't end as they should proves
/// nothing, and nor does that they do: one wrong password of 256 makes such an end, and what comes of it is no DER and
/// no key.
fn why(error: p12_keystore::error::Error, parts: &Parts<'_>, given: Option<&str>) -> Error {
    use p12_keystore::error::Error as P12;
    match error {
        P12::MacError(_) => {
            let unsealed = asn1::element(SEQUENCE, &parts.unsealed);
            let opens = |password: &str| {
                let opened = Pkcs12Archive::from_pkcs12(&unsealed, password);
                matches!(opened, Ok(_) | Err(P12::X509Error(_)))
            };
            let password = given.unwrap_or_default();
            if opens(password) && !opens(&format!("{password}x")) {
                damaged("its seal is another one")
            } else if given.is_none() {
                Error::PasswordNeeded {
                    format: Format::Pkcs12,
                }
            } else {
                Error::WrongPassword {
                    format: Format::Pkcs12,
                }
            }
        }
        P12::UnpadError | P12::Pkcs5Error(_) | P12::DerError(_) | P12::InvalidPrivateKey
            if !parts.is_sealed && parts.is_encrypted() =>
        {
            encrypted_and_unsealed()
        }
        P12::InvalidParameters => Error::Unsupported {
            what: "a PKCS#12 file with more than 1,000,000 rounds over its password".to_owned(),
            next: "write it anew with fewer",
        },
        P12::UnsupportedEncryptionScheme
        | P12::UnsupportedMacAlgorithm
        | P12::UnsupportedContentType
        | P12::UnsupportedCertificateType
        | P12::InvalidVersion => Error::Unsupported {
            what: format!("a PKCS#12 file with something unknown in it ({error})"),
            next: "write it anew with openssl pkcs12 -export or keytool -importkeystore",
        },
        other => damaged(&other.to_string()),
    }
}

/// Puts keys and certificates together that belong together; the rest are trusted certificates.
fn link(archive: &Pkcs12Archive) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    for (bag, number) in archive.certs.iter().zip(1..) {
        let certificate = certificate(bag.cert.as_der(), number)?;
        found.push((bag, certificate));
    }
    let mut by_key: HashMap<&[u8], &Certificate> = HashMap::new();
    for (bag, certificate) in &found {
        if let Some(id) = &bag.local_key_id {
            by_key.entry(id).or_insert(certificate);
        }
    }
    let mut issuers = Issuers::among(&found);
    let mut taken = HashSet::new();
    let mut entries = Vec::new();
    for key in &archive.keys {
        let id = key.local_key_id.as_ref().map(AsRef::as_ref);
        let leaf = id.and_then(|id: &[u8]| by_key.get(id));
        let chain = leaf.map_or_else(Vec::new, |leaf| issuers.chain(leaf));
        taken.extend(chain.iter().map(Certificate::fingerprint));
        entries.push(Entry {
            alias: key.friendly_name.as_deref().and_then(clean_alias),
            chain,
            key: Some(Secret::new(key.key.as_der().to_vec())),
        });
    }
    for (bag, certificate) in found {
        if bag.trusted || !taken.contains(&certificate.fingerprint()) {
            let alias = bag.friendly_name.as_deref().and_then(clean_alias);
            entries.push(Entry::trusted(alias, certificate));
        }
    }
    Ok(entries)
}

/// Certificates that are not there to be trusted, by subject.
struct Issuers<'a> {
    by_subject: HashMap<&'a [u8], Vec<&'a Certificate>>,
    /// How many more signatures are looked at: thousands of certificates can have one name.
    looks: usize,
}

impl<'a> Issuers<'a> {
    fn among(found: &'a [(&CertificateBag, Certificate)]) -> Self {
        let mut by_subject: HashMap<_, Vec<_>> = HashMap::new();
        for (_, certificate) in found.iter().filter(|(bag, _)| !bag.trusted) {
            let of_name = by_subject.entry(certificate.subject_raw()).or_default();
            of_name.push(certificate);
        }
        Self {
            by_subject,
            looks: MAX_LOOKS,
        }
    }

    /// From a leaf up to its root, or as far as it goes.
    fn chain(&mut self, leaf: &Certificate) -> Vec<Certificate> {
        let mut chain = vec![leaf.clone()];
        while let Some(last) = chain.last().filter(|_| chain.len() < LONGEST) {
            let named = self.by_subject.get(last.issuer_raw());
            let named = named.map_or(&[][..], |named| named);
            // What signed itself ends it, and is not looked for among others of its name.
            if self.looks == 0 || last.is_root() {
                break;
            }
            let looks = &mut self.looks;
            let next = named
                .iter()
                .filter(|issuer| !chain.contains(issuer))
                .take_while(|_| {
                    *looks = looks.saturating_sub(1);
                    *looks > 0
                })
                .find(|issuer| last.comes_from(issuer));
            let Some(issuer) = next else { break };
            chain.push(Certificate::clone(issuer));
        }
        chain
    }
}

fn damaged(reason: &str) -> Error {
    Error::Damaged {
        format: Format::Pkcs12,
        reason: reason.to_owned(),
    }
}

/// Far longer than any real chain.
const LONGEST: usize = 100;
/// More signatures than the chains of any store have; some tenths of a second.
const MAX_LOOKS: usize = 4096;
/// 1.2.840.113549.1.5.13, by which each of today's ciphers is named.
const PBES2: &[u8] = b"\x2A\x86\x48\x86\xF7\x0D\x01\x05\x0D";
/// 1.2.840.113549.1.7, of which each kind of content is one.
const PKCS7: &[u8] = b"\x2A\x86\x48\x86\xF7\x0D\x01\x07";
