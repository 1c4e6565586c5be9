//! PEM: blocks of base64 between lines of dashes, with any text around them. Pure.
//!
//! An alias stands before its block, as `openssl pkcs12` prints it: a line `friendlyName: …` among the bag
//! attributes. What we write is read by us, alias and all, and by everything else that reads PEM.

use data_encoding::BASE64;

use crate::trust::{
    certificate::Certificate,
    formats::{Entry, Error, Format, Keys, asn1, certificate, clean_alias, pkcs7},
};

pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|part| part == BEGIN)
}

/// Reads all blocks.
pub(super) fn read(bytes: &[u8], keys: Keys<'_>) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let mut alias = None;
    let mut other = None;
    let mut lines = lines(bytes);
    while let Some((line, number)) = lines.next() {
        let Some(label) = label(line, BEGIN) else {
            alias = named(line).or(alias);
            continue;
        };
        refuse(label, keys).map_err(|error| match error {
            Error::PrivateKey { what } if !has_certificates(bytes) => Error::OnlyKey { what },
            error => error,
        })?;
        let body = body(&mut lines, label, number)?;
        let decoded = decode(&body).ok_or_else(|| damaged(label, "it is no base64"))?;
        let alias = alias.take();
        let position = entries.len() + 1;
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                entries.push(Entry::trusted(alias, certificate(&decoded, position)?));
            }
            "TRUSTED CERTIFICATE" => {
                // Openssl's own settings follow the certificate. They are about its use there.
                let first = asn1::take(&mut &*decoded).map_or(&*decoded, |element| element.whole);
                entries.push(Entry::trusted(alias, certificate(first, position)?));
            }
            "PKCS7" | "CMS" => entries.extend(pkcs7::read(&decoded)?),
            _ => other = Some(format!("a block {label}")),
        }
    }
    if entries.is_empty() {
        return Err(Error::NoCertificate { what: other });
    }
    Ok(entries)
}

/// Writes certificates, each with its alias.
pub(super) fn write(entries: &[(String, &Certificate)]) -> Vec<u8> {
    let mut text = String::new();
    for (alias, certificate) in entries {
        text.push_str("Bag Attributes\n    friendlyName: ");
        text.push_str(alias);
        text.push('\n');
        text.push_str(&block("CERTIFICATE", certificate.der()));
    }
    text.into_bytes()
}

/// One block.
pub(in crate::trust) fn block(label: &str, der: &[u8]) -> String {
    // It never grows, for what is written may be a key, and would stay behind where it was before.
    let lines = der.len().div_ceil(LINE);
    let mut text =
        String::with_capacity(BASE64.encode_len(der.len()) + lines + 2 * label.len() + 32);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(LINE) {
        BASE64.encode_append(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The content of the first block whose label ends so, if it is whole.
pub(in crate::trust) fn find(bytes: &[u8], label_end: &str) -> Option<Vec<u8>> {
    let mut lines = lines(bytes);
    while let Some((line, number)) = lines.next() {
        let Some(label) = label(line, BEGIN) else {
            continue;
        };
        let body = body(&mut lines, label, number).ok()?;
        if label.ends_with(label_end) {
            return decode(&body);
        }
    }
    None
}

/// The lines with their numbers. Old Macs end them with CR alone; the empty ones that CRLF makes this way don't matter.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    bytes.split(|byte| matches!(byte, b'\n' | b'\r')).zip(1..)
}

/// Whether some block is to have certificates in it, whatever else there is.
fn has_certificates(bytes: &[u8]) -> bool {
    let mut labels = lines(bytes).filter_map(|(line, _)| label(line, BEGIN));
    labels.any(|label| label.ends_with("CERTIFICATE") || matches!(label, "PKCS7" | "CMS"))
}

/// What is no certificate, by its label.
fn refuse(label: &str, keys: Keys<'_>) -> Result<(), Error> {
    if label.ends_with("PRIVATE KEY") && !matches!(keys, Keys::Drop) {
        return Err(Error::PrivateKey {
            what: format!("a block {label}"),
        });
    }
    match label {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Err(Error::Request),
        "X509 CRL" => Err(Error::RevocationList),
        _ => Ok(()),
    }
}

/// The lines of a block, to its end.
fn body<'a>(
    lines: &mut impl Iterator<Item = (&'a [u8], usize)>,
    begun: &str,
    number: usize,
) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    for (line, _) in lines {
        if let Some(ended) = label(line, END) {
            return if ended == begun {
                Ok(body)
            } else {
                Err(damaged(begun, &format!("it ends as {ended}")))
            };
        }
        if label(line, BEGIN).is_some() {
            break;
        }
        // Headers as in RFC 1421: no digit of base64 is a colon.
        if !line.contains(&b':') {
            body.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        }
    }
    let reason = format!("it begins in line {number} and has no end");
    Err(damaged(begun, &reason))
}

fn damaged(label: &str, reason: &str) -> Error {
    Error::Damaged {
        format: Format::Pem,
        reason: format!("the block {label}: {reason}"),
    }
}

/// The label of a line of dashes.
fn label<'a>(line: &'a [u8], begin: &[u8]) -> Option<&'a str> {
    let line = line.trim_ascii();
    // A file may begin with a mark of its encoding.
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    let label = line.strip_prefix(begin)?.strip_suffix(b"-----")?;
    std::str::from_utf8(label).ok()
}

fn named(line: &[u8]) -> Option<String> {
    let alias = line.trim_ascii().strip_prefix(b"friendlyName:")?;
    clean_alias(&String::from_utf8_lossy(alias))
}

/// Base64 without white space.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
/// Bytes in a line of 64 characters.
const LINE: usize = 48;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::fixtures::Spec;

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
        super::read(bytes, Keys::Refuse)
    }

    fn block_of(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn blocks_are_found_in_any_text_and_with_any_ends_of_lines() {
        let a = Spec::new("a.example").self_signed();
        let b = Spec::new("b.example").self_signed();
        let text = format!(
            "\u{FEFF}{}subject: x\n\nBag Attributes\n    friendlyName: Zürich 東京\nkey: -----\n{}trailing: text",
            a.pem().replace('\n', "\r\n"),
            b.pem()
        );
        let unix = text.replace("\r\n", "\n");
        for text in [
            &text,
            &unix,
            &unix.replace('\n', "\r\n"),
            &unix.replace('\n', "\r"),
        ] {
            let read = read(text.as_bytes()).unwrap();
            let aliases: Vec<_> = read.iter().map(|entry| entry.alias.as_deref()).collect();
            assert_eq!(aliases, [None, Some("Zürich 東京")]);
            assert_eq!(read[0].chain, [a.certificate()]);
            assert_eq!(read[1].chain, [b.certificate()]);
        }
    }

    #[test]
    fn trusted_certificates_of_openssl_lose_their_settings() {
        let leaf = Spec::new("a.example").self_signed();
        let with_settings = [leaf.der(), &b"\x30\x04\x0C\x02hi"[..]].concat();
        let text = block("TRUSTED CERTIFICATE", &with_settings);
        assert_eq!(
            read(text.as_bytes()).unwrap()[0].chain,
            [leaf.certificate()]
        );
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let leaf = Spec::new("a.example").self_signed();
        for (label, word) in [
            ("PRIVATE KEY", "private key"),
            ("ENCRYPTED PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            ("RSA PRIVATE KEY", "private key"),
            ("OPENSSH PRIVATE KEY", "private key"),
            ("CERTIFICATE REQUEST", "CSR"),
            ("NEW CERTIFICATE REQUEST", "CSR"),
            ("X509 CRL", "CRL"),
        ] {
            // It need not even be whole, and nothing of it is told.
            let other = block_of(label, "Proc-Type: 4,ENCRYPTED\n\nc2VjcmV0");
            for text in [
                leaf.pem() + &other,
                other.clone() + &leaf.pem(),
                other.clone(),
            ] {
                let told = read(text.as_bytes()).unwrap_err().to_string();
                assert!(told.contains(word) && !told.contains("c2Vj"), "{told}");
            }
        }
        let both = leaf.key_pem() + &leaf.pem();
        let dropped = super::read(both.as_bytes(), Keys::Drop).unwrap();
        assert_eq!(dropped[0].chain, [leaf.certificate()]);
        let told = read(block_of("EC PARAMETERS", "AAAA").as_bytes()).unwrap_err();
        assert!(told.to_string().contains("EC PARAMETERS"), "{told}");
        // Parameters beside a certificate are no harm.
        let beside = block_of("EC PARAMETERS", "AAAA") + &leaf.pem();
        assert_eq!(read(beside.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_broken_block_is_told_with_its_place() {
        let leaf = Spec::new("a.example").self_signed().pem();
        let cut = &leaf[..leaf.len() - 40];
        for (text, word) in [
            (cut.to_owned(), "begins in line 1"),
            (format!("x\n{cut}\n{leaf}"), "begins in line 2"),
            (block_of("CERTIFICATE", "A*=="), "no base64"),
            (block_of("CERTIFICATE", "AAA"), "no base64"),
            (block_of("CERTIFICATE", ""), "no base64"),
            (block_of("CERTIFICATE", "=A=="), "no base64"),
            (
                leaf.replace("END CERTIFICATE", "END PKCS7"),
                "ends as PKCS7",
            ),
        ] {
            let told = read(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(word) && told.contains("damaged"), "{told}");
        }
        let told = read(format!("{leaf}{}", block_of("CERTIFICATE", "AAAA")).as_bytes());
        let told = told.unwrap_err().to_string();
        assert!(told.contains("certificate 2"), "{told}");
    }

    proptest! {
        #[test]
        fn base64_is_read_as_it_was_written(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let text = block("X", &bytes);
            let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(find(text.as_bytes(), "X"), Some(bytes.clone()));
            prop_assert_eq!(decode(body.as_bytes()), Some(bytes));
        }
    }
}
