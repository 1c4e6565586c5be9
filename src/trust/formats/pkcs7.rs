//! PKCS#7: a message that nobody signed and that says nothing, for the certificates in it. Pure.
//!
//! The bytes of each certificate are taken as they stand, so that a fingerprint is what its owner sees.

use crate::trust::{
    certificate::Certificate,
    formats::{
        Entry, Error, Format,
        asn1::{self, CONTEXT_0, CONTEXT_1, INTEGER, OID, SEQUENCE, SET},
        certificate,
    },
};

/// Whether it is one, by the name at its front.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    content(bytes).is_some()
}

/// Reads the certificates, in the order of the file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let damaged = || Error::Damaged {
        format: Format::Pkcs7,
        reason: "its parts don't fit together".to_owned(),
    };
    if bytes.starts_with(b"\x30\x80") {
        return Err(indefinite());
    }
    let signed = content(bytes).ok_or_else(damaged)?;
    let mut signed = asn1::only(signed, SEQUENCE).ok_or_else(damaged)?.content;
    for tag in [INTEGER, SET, SEQUENCE] {
        asn1::take_tag(&mut signed, tag).ok_or_else(damaged)?;
    }
    let certificates = asn1::take_tag(&mut signed, CONTEXT_0);
    let lists = asn1::take_tag(&mut signed, CONTEXT_1);
    if lists.is_some_and(|lists| !lists.content.is_empty()) {
        return Err(Error::RevocationList);
    }
    let certificates = certificates.map_or(&[][..], |found| found.content);
    let mut entries = Vec::new();
    for found in asn1::children(certificates).ok_or_else(damaged)? {
        // Attribute certificates and the like have other tags.
        if found.tag == SEQUENCE {
            let certificate = certificate(found.whole, entries.len() + 1)?;
            entries.push(Entry::trusted(None, certificate));
        }
    }
    if entries.is_empty() {
        let what = Some("a PKCS#7 message without one".to_owned());
        return Err(Error::NoCertificate { what });
    }
    Ok(entries)
}

/// Writes certificates. The format has no aliases, and as a set it has an order of its own.
pub(super) fn write(certificates: &[&Certificate]) -> Vec<u8> {
    let mut set: Vec<&[u8]> = certificates.iter().map(|c| c.der().as_ref()).collect();
    set.sort_unstable();
    set.dedup();
    let nothing = asn1::element(SEQUENCE, &[DATA]);
    let signed = asn1::element(
        SEQUENCE,
        &[
            &[INTEGER, 1, 1],
            &[SET, 0],
            &nothing,
            &asn1::element(CONTEXT_0, &set),
            &[SET, 0],
        ],
    );
    asn1::element(
        SEQUENCE,
        &[SIGNED_DATA, &asn1::element(CONTEXT_0, &[&signed])],
    )
}

pub(super) fn indefinite() -> Error {
    Error::Unsupported {
        what: "written in BER with lengths left open".to_owned(),
        next: "write it anew in DER, such as with openssl pkcs7 or openssl pkcs12",
    }
}

/// What follows the name of a signed message.
fn content(bytes: &[u8]) -> Option<&[u8]> {
    let mut outer = asn1::only(bytes, SEQUENCE)?.content;
    let name = asn1::take_tag(&mut outer, OID)?;
    let content = asn1::only(outer, CONTEXT_0)?;
    (name.whole == SIGNED_DATA).then_some(content.content)
}

/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x02";
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x01";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::Spec;

    #[test]
    fn certificates_come_back_and_the_same_ones_make_the_same_bytes() {
        let a = Spec::new("a.example").self_signed().certificate();
        let b = Spec::new("b.example").self_signed().certificate();
        let written = write(&[&a, &b]);
        assert_eq!(written, write(&[&b, &a, &b]));
        let read = read(&written).unwrap();
        assert_eq!(read.len(), 2);
        assert!(read.iter().any(|entry| entry.chain == [a.clone()]));
        assert!(read.iter().any(|entry| entry.chain == [b.clone()]));
    }

    #[test]
    fn a_list_beside_them_a_message_without_any_and_open_lengths_are_told() {
        let a = Spec::new("a.example").self_signed().certificate();
        let list = asn1::element(CONTEXT_1, &[b"\x30\x00"]);
        let certificates = asn1::element(CONTEXT_0, &[a.der()]);
        let data = asn1::element(SEQUENCE, &[DATA]);
        let message = |parts: &[&[u8]]| {
            let head = [&[INTEGER, 1, 1, SET, 0][..], &data].concat();
            let signed = asn1::element(SEQUENCE, &[&head, &parts.concat(), &[SET, 0]]);
            asn1::element(
                SEQUENCE,
                &[SIGNED_DATA, &asn1::element(CONTEXT_0, &[&signed])],
            )
        };
        assert_eq!(read(&message(&[&certificates])).unwrap().len(), 1);
        let told = read(&message(&[&certificates, &list])).unwrap_err();
        assert!(matches!(told, Error::RevocationList), "{told}");
        let told = read(&message(&[])).unwrap_err();
        assert!(matches!(told, Error::NoCertificate { .. }), "{told}");
        let told = read(b"\x30\x80\x06\x09").unwrap_err();
        assert!(told.to_string().contains("BER"), "{told}");
    }
}
