//! PKCS#12: the store that OpenSSL, Windows and today's Java share.
//!
//! Reading takes every certificate, also those that Java would not show as trusted because no attribute says so:
//! what an operator hands in is what is meant. Salts are drawn at random when one is written, so the same entries
//! don't make the same bytes: with a salt made from the content, whoever sees two files learns that they are equal.

use std::collections::HashMap;

use p12_keystore::{
    Certificate as Bag, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, Pkcs12Archive,
    PrivateKey, PrivateKeyChain,
};

use crate::{
    secret::Secret,
    trust::{
        certificate::{Certificate, Fingerprint},
        formats::{
            Entry, Error, Format, Keys, Stored,
            asn1::{self, CONTEXT_0, INTEGER, OID, SEQUENCE},
            certificate, clean_alias, pkcs7, text,
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
    if bytes.starts_with(b"\x30\x80") {
        return Err(pkcs7::indefinite());
    }
    let parts = parts(bytes).ok_or_else(|| damaged("its parts don't fit together"))?;
    let given = password.map(text).transpose()?;
    if !parts.is_sealed && given.is_some() {
        return Err(Error::NotSealed {
            format: Format::Pkcs12,
        });
    }
    let archive = match Pkcs12Archive::from_pkcs12(bytes, given.unwrap_or_default()) {
        Ok(archive) => archive,
        Err(error) => return Err(why(error, &parts, given)),
    };
    if let (Some(key), Keys::Refuse) = (archive.keys.first(), keys) {
        let what = key.friendly_name.as_deref().and_then(clean_alias);
        return Err(Error::PrivateKey {
            what: what.unwrap_or_else(|| "without a name".to_owned()),
        });
    }
    let mut entries = link(&archive)?;
    if matches!(keys, Keys::Drop) {
        entries.retain(|entry| !entry.chain.is_empty());
        entries.iter_mut().for_each(|entry| entry.key = None);
    }
    Ok(entries)
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

/// Why a store doesn't open. A password that still decrypts something was the right one.
fn why(error: p12_keystore::error::Error, parts: &Parts<'_>, given: Option<&str>) -> Error {
    use p12_keystore::error::Error as P12;
    match error {
        P12::MacError(_) => {
            let unsealed = asn1::element(SEQUENCE, &parts.unsealed);
            match Pkcs12Archive::from_pkcs12(&unsealed, given.unwrap_or_default()) {
                Ok(_) | Err(P12::X509Error(_) | P12::InvalidPrivateKey | P12::DerError(_)) => {
                    damaged("its seal is another one")
                }
                Err(_) if given.is_none() => Error::PasswordNeeded {
                    format: Format::Pkcs12,
                },
                Err(_) => Error::WrongPassword {
                    format: Format::Pkcs12,
                },
            }
        }
        P12::UnpadError | P12::Pkcs5Error(_) if !parts.is_sealed => Error::PasswordNeeded {
            format: Format::Pkcs12,
        },
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
    let mut taken = HashMap::new();
    let mut entries = Vec::new();
    for key in &archive.keys {
        let id = key.local_key_id.as_ref().map(AsRef::as_ref);
        let is_its = |bag: &Option<Vec<u8>>| id.is_some() && bag.as_deref() == id;
        let leaf = found.iter().find(|(bag, _)| is_its(&bag.local_key_id));
        let chain = leaf.map_or_else(Vec::new, |(_, leaf)| chain(leaf, &found));
        taken.extend(chain.iter().map(|c| (c.fingerprint(), ())));
        entries.push(Entry {
            alias: key.friendly_name.as_deref().and_then(clean_alias),
            chain,
            key: Some(Secret::new(key.key.as_der().to_vec())),
        });
    }
    let is_rest = |bag: &p12_keystore::CertificateBag, fingerprint: &Fingerprint| {
        bag.trusted || !taken.contains_key(fingerprint)
    };
    for (bag, certificate) in found {
        if is_rest(bag, &certificate.fingerprint()) {
            let alias = bag.friendly_name.as_deref().and_then(clean_alias);
            entries.push(Entry::trusted(alias, certificate));
        }
    }
    Ok(entries)
}

/// From a leaf up, among the certificates that are not there to be trusted.
fn chain(
    leaf: &Certificate,
    found: &[(&p12_keystore::CertificateBag, Certificate)],
) -> Vec<Certificate> {
    let mut chain = vec![leaf.clone()];
    while let Some(last) = chain.last() {
        let next = found.iter().find(|(bag, certificate)| {
            !bag.trusted && last.names_issuer(certificate) && !chain.contains(certificate)
        });
        let Some((_, issuer)) = next else { break };
        chain.push(issuer.clone());
    }
    chain
}

fn damaged(reason: &str) -> Error {
    Error::Damaged {
        format: Format::Pkcs12,
        reason: reason.to_owned(),
    }
}

/// 1.2.840.113549.1.7, of which each kind of content is one.
const PKCS7: &[u8] = b"\x2A\x86\x48\x86\xF7\x0D\x01\x07";
