//! Files of certificates as other programs make and read them: PEM, DER, PKCS#7, PKCS#12 and JKS.
//!
//! Bytes in, entries out, and back: which format it is, the content tells, never the file's name. Nothing here
//! decides whether a certificate is good for anything, and none is refused for how it looks: negative serial
//! numbers, old versions and odd names are their owner's matter.

pub(super) mod asn1;
mod error;
mod jks;
pub(super) mod pem;
mod pkcs12;
mod pkcs7;
mod pkcs8;
pub mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
};

pub use self::error::Error;
use self::pkcs12::Ciphers;
use crate::{secret::Secret, trust::certificate::Certificate};

/// How certificates stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One certificate, bare.
    Der,
    /// The store of older Javas.
    Jks,
    /// Text, with any number of certificates.
    Pem,
    /// AES-256 and SHA-256 where one is written; any of them where one is read.
    Pkcs12,
    /// The same with triple DES and SHA-1. It is only ever written: reading takes either.
    Pkcs12Legacy,
    /// Certificates alone, without aliases.
    Pkcs7,
}

/// What is in a file.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What it is.
    pub format: Format,
    /// What it holds, in its order.
    pub entries: Vec<Entry>,
}

/// A certificate that is trusted, or a key with its certificates.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name there, if it has one: no line breaks, no other control characters.
    pub alias: Option<String>,
    /// One certificate; for a key the leaf and its issuers, or nothing when the file has none for it.
    pub chain: Vec<Certificate>,
    /// The key, as PKCS#8 in DER.
    pub key: Option<Secret>,
}

/// What to do with keys in a store.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// Leave them out, unopened where the format allows.
    Drop,
    /// Open them: with this password in JKS, where each key can have its own, or with the store's.
    Open(Option<&'a Secret>),
    /// Take no file that has one.
    Refuse,
}

/// One of the keys in a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meant<'a> {
    /// What opens the store.
    pub password: Option<&'a Secret>,
    /// What opens the key, where that is another one. Only JKS knows such.
    pub key_password: Option<&'a Secret>,
    /// Its alias, whatever the case; the store's only key when none is named.
    pub alias: Option<&'a str>,
}

/// An entry and the alias under which it is written.
struct Stored<'a> {
    alias: String,
    entry: &'a Entry,
}

impl Format {
    /// All of them, in the order in which they are named.
    pub const ALL: [Self; 6] = [
        Self::Pem,
        Self::Der,
        Self::Pkcs7,
        Self::Pkcs12,
        Self::Pkcs12Legacy,
        Self::Jks,
    ];

    /// Its name on a command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Der => "der",
            Self::Jks => "jks",
            Self::Pem => "pem",
            Self::Pkcs12 => "pkcs12",
            Self::Pkcs12Legacy => "pkcs12-legacy",
            Self::Pkcs7 => "pkcs7",
        }
    }

    /// Whether it is sealed with a password.
    #[must_use]
    pub const fn takes_password(self) -> bool {
        matches!(self, Self::Jks | Self::Pkcs12 | Self::Pkcs12Legacy)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Der => "DER",
            Self::Jks => "JKS",
            Self::Pem => "PEM",
            Self::Pkcs12 | Self::Pkcs12Legacy => "PKCS#12",
            Self::Pkcs7 => "PKCS#7",
        })
    }
}

impl Entry {
    /// A certificate to be trusted.
    #[must_use]
    pub fn trusted(alias: Option<String>, certificate: Certificate) -> Self {
        Self {
            alias,
            chain: vec![certificate],
            key: None,
        }
    }

    /// The subject of its leaf.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.chain.first().map_or("", Certificate::subject)
    }
}

impl Contents {
    /// Each certificate once, in the order of the file.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        let mut seen = HashSet::new();
        let all = self.entries.iter().flat_map(|entry| &entry.chain);
        all.filter(|certificate| seen.insert(certificate.fingerprint()))
            .cloned()
            .collect()
    }
}

impl Meant<'_> {
    /// The place of the entry that is meant, among the aliases of those that have a key.
    fn find(&self, aliases: impl Iterator<Item = Option<String>>) -> Result<usize, Error> {
        let keys: Vec<_> = aliases
            .enumerate()
            .filter_map(|(at, alias)| Some((at, alias?)))
            .collect();
        // Java looks aliases up without regard to case.
        let is_meant = |alias: &str| {
            self.alias
                .is_none_or(|a| a.to_lowercase() == alias.to_lowercase())
        };
        let mut meant = keys.iter().filter(|(_, alias)| is_meant(alias));
        match (meant.next(), meant.next()) {
            (Some((at, _)), None) => Ok(*at),
            _ => Err(Error::WhichKey {
                wanted: self.alias.map(str::to_owned),
                aliases: keys.into_iter().map(|(_, alias)| alias).collect(),
            }),
        }
    }
}

/// The key of a store that is meant, with its certificates.
///
/// # Errors
/// [`Error`], which says what is wrong and what to do.
pub fn key_of(bytes: &[u8], meant: &Meant<'_>) -> Result<Entry, Error> {
    match format_of(bytes)? {
        Format::Jks => jks::key_of(bytes, meant),
        Format::Pkcs12 | Format::Pkcs12Legacy => pkcs12::key_of(bytes, meant),
        format @ (Format::Der | Format::Pem | Format::Pkcs7) => Err(Error::NoStore { format }),
    }
}

/// A store of the same kind, with another key and other certificates in the place of the key that is meant, under the
/// same alias and the same passwords. What else is in it stays.
///
/// # Errors
/// [`Error`], which says what is wrong and what to do.
pub fn with_key(
    bytes: &[u8],
    meant: &Meant<'_>,
    chain: &[Certificate],
    key_pem: &Secret,
) -> Result<Secret, Error> {
    let key = pkcs8::of_pem(key_pem).ok_or(Error::Key)?;
    let next = Entry {
        alias: None,
        chain: chain.to_vec(),
        key: Some(key),
    };
    let written = match format_of(bytes)? {
        Format::Jks => jks::with_key(bytes, meant, &next),
        Format::Pkcs12 | Format::Pkcs12Legacy => pkcs12::with_key(bytes, meant, &next),
        format @ (Format::Der | Format::Pem | Format::Pkcs7) => Err(Error::NoStore { format }),
    };
    written.map(Secret::new)
}

/// Reads a file of which only certificates are wanted: a private key in it is an error.
///
/// # Errors
/// [`Error`], which says what is wrong and what to do.
pub fn read_trust(bytes: &[u8], password: Option<&Secret>) -> Result<Contents, Error> {
    read_with(bytes, password, Keys::Refuse)
}

/// Reads a file, and deals with keys in it as told. A key in PEM is not for here: who shows an identity reads it beside
/// its certificate.
///
/// # Errors
/// [`Error`], which says what is wrong and what to do.
pub fn read_with(
    bytes: &[u8],
    password: Option<&Secret>,
    keys: Keys<'_>,
) -> Result<Contents, Error> {
    let format = format_of(bytes)?;
    let entries = match format {
        Format::Der => vec![Entry::trusted(None, certificate(bytes, 1)?)],
        Format::Jks => jks::read(bytes, password, keys)?,
        Format::Pem => pem::read(bytes, keys)?,
        Format::Pkcs7 => pkcs7::read(bytes)?,
        Format::Pkcs12 | Format::Pkcs12Legacy => pkcs12::read(bytes, password, keys)?,
    };
    Ok(Contents { format, entries })
}

/// What a file is, by its content.
///
/// # Errors
/// When it is nothing that has certificates to read, with what it is instead.
pub fn format_of(bytes: &[u8]) -> Result<Format, Error> {
    if bytes.starts_with(&jks::MAGIC) {
        return Ok(Format::Jks);
    }
    if bytes.starts_with(&jks::MAGIC_JCEKS) {
        return Err(Error::Unsupported {
            what: "a JCEKS file".to_owned(),
            next: "turn it into PKCS#12 with keytool -importkeystore -deststoretype PKCS12",
        });
    }
    if bytes.first() == Some(&asn1::SEQUENCE) {
        // Text before a block may begin with the same byte, which is a zero.
        if asn1::only(bytes, asn1::SEQUENCE).is_some() || !pem::looks_like(bytes) {
            return format_of_der(bytes);
        }
    }
    if pem::looks_like(bytes) {
        return Ok(Format::Pem);
    }
    let what = bytes.is_empty().then(|| "nothing at all".to_owned());
    Err(Error::NoCertificate { what })
}

/// Writes entries: sorted, each once, and under an alias of its own whatever the case. In JKS aliases are in lower
/// case, as Java looks them up.
///
/// # Errors
/// When the format has no place for an entry, or wants a password.
pub fn write(
    format: Format,
    entries: &[Entry],
    password: Option<&Secret>,
) -> Result<Vec<u8>, Error> {
    let stored = in_order(format, entries);
    let only_certificates = || {
        let mut found = Vec::with_capacity(stored.len());
        for stored in &stored {
            let (Some(certificate), None) = (stored.entry.chain.first(), &stored.entry.key) else {
                let what = "a private key";
                return Err(Error::NoPlace { what, format });
            };
            found.push((stored.alias.clone(), certificate));
        }
        Ok(found)
    };
    let password = || password.ok_or(Error::PasswordNeeded { format });
    match format {
        Format::Pem => Ok(pem::write(&only_certificates()?)),
        Format::Pkcs7 => {
            let found = only_certificates()?;
            let found: Vec<_> = found.iter().map(|(_, certificate)| *certificate).collect();
            Ok(pkcs7::write(&found))
        }
        Format::Der => match &*only_certificates()? {
            [(_, certificate)] => Ok(certificate.der().to_vec()),
            [] => Err(Error::NoCertificate { what: None }),
            _ => Err(Error::NoPlace {
                what: "more than one certificate",
                format,
            }),
        },
        Format::Pkcs12 => pkcs12::write(&stored, password()?, Ciphers::Modern),
        Format::Pkcs12Legacy => pkcs12::write(&stored, password()?, Ciphers::Legacy),
        Format::Jks => jks::write(&stored, password()?),
    }
}

/// Entries as they are written: sorted by alias and fingerprint, so that the same ones make the same file.
fn in_order(format: Format, entries: &[Entry]) -> Vec<Stored<'_>> {
    let mut sorted: Vec<_> = entries
        .iter()
        .map(|entry| (named(format, entry), entry))
        .collect();
    let place = |(alias, entry): &(String, &Entry)| {
        let fingerprint = entry.chain.first().map(Certificate::fingerprint);
        (alias.to_lowercase(), fingerprint, entry.key.is_some())
    };
    sorted.sort_by_cached_key(place);
    sorted.dedup_by_key(|stored| place(stored));
    let mut names = BTreeSet::new();
    let mut numbers = HashMap::new();
    let stored = |(alias, entry): (String, _)| Stored {
        alias: unique(alias, &mut numbers, |name| names.insert(name)),
        entry,
    };
    sorted.into_iter().map(stored).collect()
}

/// The alias, with a number where it is taken already; `take` says whether a name was free. The last number of each is
/// kept: thousands may have one name.
fn unique(
    alias: String,
    numbers: &mut HashMap<String, u32>,
    mut take: impl FnMut(String) -> bool,
) -> String {
    let lower = alias.to_lowercase();
    if take(lower.clone()) {
        return alias;
    }
    let number = numbers.entry(lower).or_insert(1);
    loop {
        *number += 1;
        let unique = format!("{alias}#{number}");
        if take(unique.to_lowercase()) {
            return unique;
        }
    }
}

fn named(format: Format, entry: &Entry) -> String {
    let alias = entry.alias.as_deref().and_then(clean_alias);
    let alias = alias.or_else(|| clean_alias(entry.subject()));
    let alias = alias.unwrap_or_else(|| "certificate".to_owned());
    match format {
        Format::Jks => alias.to_lowercase(),
        _ => alias,
    }
}

/// An alias as it can stand in a line; `None` when nothing is left of it.
fn clean_alias(alias: &str) -> Option<String> {
    let alias = alias.trim();
    let clean = |char: char| {
        if char.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            char
        }
    };
    (!alias.is_empty()).then(|| alias.chars().map(clean).collect())
}

fn text(password: &Secret) -> Result<&str, Error> {
    std::str::from_utf8(password.expose()).map_err(|_| Error::PasswordNotText)
}

/// The certificate with this number in its file.
fn certificate(der: &[u8], number: usize) -> Result<Certificate, Error> {
    Certificate::from_der(der).map_err(|cause| Error::Certificate {
        number,
        cause: Box::new(cause),
    })
}

/// Tells apart what begins alike: by the shape of its first elements.
fn format_of_der(bytes: &[u8]) -> Result<Format, Error> {
    use asn1::{
        BIT_STRING, CONTEXT_0, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, UTC_TIME,
    };
    if pkcs7::looks_like(bytes) {
        return Ok(Format::Pkcs7);
    }
    if pkcs12::looks_like(bytes) {
        return Ok(Format::Pkcs12);
    }
    if bytes.starts_with(b"\x30\x80") {
        return Err(pkcs7::indefinite());
    }
    let Some(outer) = asn1::take(&mut &*bytes).and_then(|outer| asn1::children(outer.content))
    else {
        // Cut short or damaged: the reader of certificates says where.
        return Ok(Format::Der);
    };
    let tags: Vec<u8> = outer.iter().map(|element| element.tag).collect();
    let key = |what: &str| {
        Err(Error::OnlyKey {
            what: what.to_owned(),
        })
    };
    match &*tags {
        [INTEGER, SEQUENCE, OCTET_STRING, ..] => key("PKCS#8 in DER"),
        [INTEGER, INTEGER, INTEGER, ..] => key("RSA in DER"),
        [INTEGER, OCTET_STRING, ..] => key("EC in DER"),
        [SEQUENCE, OCTET_STRING] => key("encrypted, in DER"),
        [OID, ..]
        | [INTEGER, SEQUENCE]
        | [INTEGER, SEQUENCE, SEQUENCE]
        | [SEQUENCE, BIT_STRING] => Err(Error::NoCertificate {
            what: Some("another structure in DER".to_owned()),
        }),
        [SEQUENCE, SEQUENCE, BIT_STRING] => {
            let signed = outer
                .first()
                .and_then(|signed| asn1::children(signed.content));
            let signed: Vec<u8> = signed.iter().flatten().map(|element| element.tag).collect();
            if signed
                .iter()
                .any(|tag| matches!(*tag, UTC_TIME | GENERALIZED_TIME))
            {
                return Err(Error::RevocationList);
            }
            match &*signed {
                [INTEGER, SEQUENCE, SEQUENCE] | [INTEGER, SEQUENCE, SEQUENCE, CONTEXT_0] => {
                    Err(Error::Request)
                }
                _ => Ok(Format::Der),
            }
        }
        _ => Ok(Format::Der),
    }
}
