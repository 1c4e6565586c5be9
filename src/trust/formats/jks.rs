//! JKS, the store of older Javas. Pure.
//!
//! ```text
//! magic, version, count                                  each 32 bits
//! 1, alias, time, protected key, certificates            for a key
//! 2, alias, time, certificate                            for a certificate
//! SHA-1 of password, "Mighty Aphrodite" and all of that
//! ```
//! Every length is compared with the bytes that are left before anything is made of it, and no entry is believed
//! before the digest is right. The digest and the protection of keys are as weak as SHA-1 and one pass over the
//! password make them: the format is for exchange, not for keeping.

use sha1::{Digest, Sha1};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    secret::Secret,
    trust::{
        certificate::Certificate,
        formats::{
            Entry, Error, Format, Keys, Meant, Stored,
            asn1::{self, NULL, OCTET_STRING, OID, SEQUENCE},
            certificate, clean_alias, text,
        },
    },
};

pub(super) const MAGIC: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
/// JCEKS, which is JKS with other ciphers and serialised Java objects.
pub(super) const MAGIC_JCEKS: [u8; 4] = [0xCE, 0xCE, 0xCE, 0xCE];

/// Reads a store.
pub(super) fn read(
    bytes: &[u8],
    password: Option<&Secret>,
    keys: Keys<'_>,
) -> Result<Vec<Entry>, Error> {
    let (password, body) = open_store(bytes, password)?;
    let mut read_so_far = 0;
    let mut entries = Vec::new();
    for raw in parse(body)? {
        let mut chain = Vec::new();
        for der in raw.chain {
            read_so_far += 1;
            chain.push(certificate(der, read_so_far)?);
        }
        let alias = clean_alias(&raw.alias);
        let key = match raw.protected {
            None => None,
            Some(_) if matches!(keys, Keys::Drop) => None,
            Some(key) => Some(open(key, alias.as_deref(), &password, keys)?),
        };
        entries.push(Entry { alias, chain, key });
    }
    Ok(entries)
}

/// The key that is meant, with its certificates. Other keys may have passwords that nobody told us.
pub(super) fn key_of(bytes: &[u8], meant: &Meant<'_>) -> Result<Entry, Error> {
    let (password, body) = open_store(bytes, meant.password)?;
    let raw = parse(body)?;
    let at = which(&raw, meant)?;
    let raw = raw
        .into_iter()
        .nth(at)
        .ok_or_else(|| damaged("it breaks off"))?;
    let chain = raw
        .chain
        .iter()
        .zip(1..)
        .map(|(der, number)| certificate(der, number));
    let chain = chain.collect::<Result<_, _>>()?;
    let alias = clean_alias(&raw.alias);
    let protected = raw.protected.unwrap_or_default();
    let key = open(
        protected,
        alias.as_deref(),
        &password,
        Keys::Open(meant.key_password),
    )?;
    Ok(Entry {
        alias,
        chain,
        key: Some(key),
    })
}

/// The store with another key and certificates in the place of the one that is meant. All others stay as they are, to
/// the byte.
pub(super) fn with_key(bytes: &[u8], meant: &Meant<'_>, next: &Entry) -> Result<Vec<u8>, Error> {
    let (password, body) = open_store(bytes, meant.password)?;
    let raw = parse(body)?;
    let at = which(&raw, meant)?;
    let mut written = Vec::with_capacity(body.len());
    written.extend(MAGIC);
    let version = body.get(MAGIC.len()..MAGIC.len() + size_of::<u32>());
    if version != Some(&2_u32.to_be_bytes()) {
        // Its entries are laid out otherwise.
        return Err(Error::Unsupported {
            what: "a JKS file of version 1, which is not written".to_owned(),
            next: "write it anew with keytool -importkeystore",
        });
    }
    written.extend(2_u32.to_be_bytes());
    put_length(&mut written, raw.len());
    for (entry, place) in raw.iter().zip(0..) {
        if place != at {
            written.extend(entry.whole);
            continue;
        }
        // It keeps the password that it had.
        let own = meant.key_password.map(utf16).transpose()?;
        let protected = entry.protected.unwrap_or_default();
        let own = own.filter(|own| unprotect(protected, own).is_some());
        let stored = Stored {
            alias: entry.alias.clone(),
            entry: next,
        };
        put_entry(&mut written, &stored, own.as_ref().unwrap_or(&password))?;
    }
    let digest = seal(&password, &written);
    written.extend(digest);
    Ok(written)
}

fn which(raw: &[Raw<'_>], meant: &Meant<'_>) -> Result<usize, Error> {
    let aliases = raw.iter().map(|raw| {
        let alias = clean_alias(&raw.alias);
        raw.protected.map(|_| alias.unwrap_or_default())
    });
    meant.find(aliases)
}

/// The store's password as Java digests it, and what is sealed with it.
fn open_store<'a>(
    bytes: &'a [u8],
    password: Option<&Secret>,
) -> Result<(Zeroizing<Vec<u8>>, &'a [u8]), Error> {
    let password = password.ok_or(Error::PasswordNeeded {
        format: Format::Jks,
    })?;
    let password = utf16(password)?;
    let (body, digest) = bytes
        .split_last_chunk::<DIGEST>()
        .ok_or_else(|| damaged("it breaks off"))?;
    if seal(&password, body) == *digest {
        return Ok((password, body));
    }
    // What a wrong password can't explain is damage.
    let raw = parse(body)?;
    let mut protected = raw.iter().filter_map(|entry| entry.protected);
    if protected.any(|key| unprotect(key, &password).is_some()) {
        return Err(damaged("its digest is another one"));
    }
    Err(Error::WrongPassword {
        format: Format::Jks,
    })
}

/// Writes a store. It tells time by its certificates, and salts a key with itself, so that the same entries and the
/// same password make the same bytes.
pub(super) fn write(entries: &[Stored<'_>], password: &Secret) -> Result<Vec<u8>, Error> {
    let password = utf16(password)?;
    let mut body = Vec::new();
    body.extend(MAGIC);
    body.extend(2_u32.to_be_bytes());
    put_length(&mut body, entries.len());
    for entry in entries {
        put_entry(&mut body, entry, &password)?;
    }
    let digest = seal(&password, &body);
    body.extend(digest);
    Ok(body)
}

fn put_entry(body: &mut Vec<u8>, stored: &Stored<'_>, password: &[u8]) -> Result<(), Error> {
    let Stored { alias, entry } = stored;
    let tag: u32 = if entry.key.is_some() { KEY } else { TRUSTED };
    body.extend(tag.to_be_bytes());
    put_text(body, alias).ok_or_else(|| Error::Alias {
        subject: entry.subject().to_owned(),
        format: Format::Jks,
        reason: "it is longer than 65,535 bytes",
    })?;
    let made = entry
        .chain
        .first()
        .map_or(0, |leaf| leaf.not_before().as_millis());
    body.extend(made.to_be_bytes());
    if let Some(key) = &entry.key {
        let protected = protect(key, password);
        put_length(body, protected.len());
        body.extend(protected);
        put_length(body, entry.chain.len());
    }
    for certificate in &entry.chain {
        put_certificate(body, certificate);
    }
    Ok(())
}

/// An entry as it stands in the file.
struct Raw<'a> {
    /// All of it.
    whole: &'a [u8],
    alias: String,
    protected: Option<&'a [u8]>,
    chain: Vec<&'a [u8]>,
}

fn parse(body: &[u8]) -> Result<Vec<Raw<'_>>, Error> {
    let mut input = Input(body);
    input.bytes(MAGIC.len())?;
    let version = input.number()?;
    if !matches!(version, 1 | 2) {
        return Err(Error::Unsupported {
            what: format!("a JKS file of version {version}"),
            next: "write it anew with keytool -importkeystore",
        });
    }
    let count = input.number()?;
    // Not allocated by what the file says: each entry that is there takes some of it.
    let mut entries = Vec::new();
    for _ in 0..count {
        let before = input.0;
        let tag = input.number()?;
        let alias = input.text()?;
        input.bytes(size_of::<i64>())?;
        let protected = match tag {
            KEY => Some(input.sized()?),
            TRUSTED => None,
            _ => return Err(damaged(&format!("an entry of the unknown kind {tag}"))),
        };
        let certificates = match protected {
            Some(_) => input.number()?,
            None => 1,
        };
        let mut chain = Vec::new();
        for _ in 0..certificates {
            chain.push(input.certificate(version)?);
        }
        let length = before.len() - input.0.len();
        entries.push(Raw {
            whole: before.get(..length).unwrap_or_default(),
            alias,
            protected,
            chain,
        });
    }
    if input.0.is_empty() {
        Ok(entries)
    } else {
        Err(damaged("more follows its last entry"))
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, left) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| damaged("it breaks off"))?;
        self.0 = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, Error> {
        let bytes = self.bytes(size_of::<u32>())?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn sized(&mut self) -> Result<&'a [u8], Error> {
        let length = self.number()?;
        // What doesn't fit a usize doesn't fit the file.
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Modified UTF-8: UTF-16 units, each in UTF-8's way, and a zero in two bytes.
    fn text(&mut self) -> Result<String, Error> {
        let length = self.bytes(size_of::<u16>())?;
        let length = length
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        let units = units(self.bytes(length)?).ok_or_else(|| damaged("an alias is no text"))?;
        Ok(String::from_utf16_lossy(&units))
    }

    fn certificate(&mut self, version: u32) -> Result<&'a [u8], Error> {
        if version > 1 {
            let kind = self.text()?;
            if kind != X509 {
                return Err(Error::Unsupported {
                    what: format!("a JKS file with a certificate of the kind {kind:.20?}"),
                    next: "take that entry out with keytool -delete",
                });
            }
        }
        self.sized()
    }
}

fn units(bytes: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::new();
    let mut bytes = bytes.iter().copied();
    while let Some(first) = bytes.next() {
        let mut more = || bytes.next().filter(|byte| byte & 0xC0 == 0x80);
        let unit = match first {
            0..0x80 => u16::from(first),
            0xC0..0xE0 => u16::from(first & 0x1F) << 6 | u16::from(more()? & 0x3F),
            0xE0..0xF0 => {
                let high = u16::from(first & 0x0F) << 12 | u16::from(more()? & 0x3F) << 6;
                high | u16::from(more()? & 0x3F)
            }
            _ => return None,
        };
        units.push(unit);
    }
    Some(units)
}

fn put_length(body: &mut Vec<u8>, length: usize) {
    // 4 GiB of certificates are not held in memory to be written.
    body.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_text(body: &mut Vec<u8>, text: &str) -> Option<()> {
    let mut bytes = Vec::new();
    for unit in text.encode_utf16() {
        let low = |bits: u16| 0x80 | bits.to_be_bytes()[1] & 0x3F;
        let [_, last] = unit.to_be_bytes();
        match unit {
            1..0x80 => bytes.push(last),
            0 | 0x80..0x800 => bytes.extend([0xC0 | (unit >> 6).to_be_bytes()[1], low(unit)]),
            _ => bytes.extend([
                0xE0 | (unit >> 12).to_be_bytes()[1],
                low(unit >> 6),
                low(unit),
            ]),
        }
    }
    body.extend(u16::try_from(bytes.len()).ok()?.to_be_bytes());
    body.extend(bytes);
    Some(())
}

fn put_certificate(body: &mut Vec<u8>, certificate: &Certificate) {
    // Five letters always fit.
    let _ = put_text(body, X509);
    put_length(body, certificate.der().len());
    body.extend(certificate.der().iter());
}

fn open(
    protected: &[u8],
    alias: Option<&str>,
    store: &[u8],
    keys: Keys<'_>,
) -> Result<Secret, Error> {
    let alias = || alias.unwrap_or_default().to_owned();
    let opened = match keys {
        Keys::Refuse => return Err(Error::PrivateKey { what: alias() }),
        Keys::Open(None) | Keys::Drop => unprotect(protected, store),
        Keys::Open(Some(own)) => {
            unprotect(protected, &utf16(own)?).or_else(|| unprotect(protected, store))
        }
    };
    opened.ok_or_else(|| Error::KeyPassword { alias: alias() })
}

/// Takes the protection from a key: salt, key XOR a chain of digests, and a digest that shows the password was right.
fn unprotect(protected: &[u8], password: &[u8]) -> Option<Secret> {
    let mut info = asn1::only(protected, SEQUENCE)?.content;
    let algorithm = asn1::take_tag(&mut info, SEQUENCE)?;
    let mut algorithm = algorithm.content;
    if asn1::take_tag(&mut algorithm, OID)?.whole != PROTECTOR {
        return None;
    }
    let (salt, rest) = asn1::only(info, OCTET_STRING)?
        .content
        .split_first_chunk::<DIGEST>()?;
    let (hidden, check) = rest.split_last_chunk::<DIGEST>()?;
    let mut key = Zeroizing::new(hidden.to_vec());
    mask(&mut key, *salt, password);
    let digest: [u8; DIGEST] = Sha1::new()
        .chain_update(password)
        .chain_update(&*key)
        .finalize()
        .into();
    (digest == *check).then(|| Secret::new(std::mem::take(&mut key)))
}

fn protect(key: &Secret, password: &[u8]) -> Vec<u8> {
    let key = key.expose();
    // Known to nobody who doesn't have the key, and another one for each key and password.
    let salt: [u8; 32] = Sha256::new()
        .chain_update(b"salt of a protected key")
        .chain_update(password)
        .chain_update(key)
        .finalize()
        .into();
    let salt = salt.first_chunk::<DIGEST>().copied().unwrap_or_default();
    let mut hidden = key.to_vec();
    mask(&mut hidden, salt, password);
    let check: [u8; DIGEST] = Sha1::new()
        .chain_update(password)
        .chain_update(key)
        .finalize()
        .into();
    let algorithm = asn1::element(SEQUENCE, &[PROTECTOR, &[NULL, 0]]);
    let octets = asn1::element(OCTET_STRING, &[&salt, &hidden, &check]);
    asn1::element(SEQUENCE, &[&algorithm, &octets])
}

fn mask(bytes: &mut [u8], salt: [u8; DIGEST], password: &[u8]) {
    let mut link = salt;
    for part in bytes.chunks_mut(DIGEST) {
        link = Sha1::new()
            .chain_update(password)
            .chain_update(link)
            .finalize()
            .into();
        for (byte, mask) in part.iter_mut().zip(link) {
            *byte ^= mask;
        }
    }
    link.zeroize();
}

fn seal(password: &[u8], body: &[u8]) -> [u8; DIGEST] {
    let sealed = Sha1::new()
        .chain_update(password)
        .chain_update(b"Mighty Aphrodite");
    sealed.chain_update(body).finalize().into()
}

/// A body with its seal, for tests.
#[cfg(test)]
pub(super) fn sealed(body: &[u8], password: &Secret) -> Vec<u8> {
    let digest = seal(&utf16(password).unwrap(), body);
    [body, &digest].concat()
}

/// A password as Java digests it.
fn utf16(password: &Secret) -> Result<Zeroizing<Vec<u8>>, Error> {
    let password = text(password)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(password.len() * 2));
    bytes.extend(password.encode_utf16().flat_map(u16::to_be_bytes));
    Ok(bytes)
}

fn damaged(reason: &str) -> Error {
    Error::Damaged {
        format: Format::Jks,
        reason: reason.to_owned(),
    }
}

/// Bytes of a SHA-1.
const DIGEST: usize = 20;
const KEY: u32 = 1;
const TRUSTED: u32 = 2;
const X509: &str = "X.509";
/// 1.3.6.1.4.1.42.2.17.1.1
const PROTECTOR: &[u8] = b"\x06\x0A\x2B\x06\x01\x04\x01\x2A\x02\x11\x01\x01";
