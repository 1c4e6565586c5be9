//! Private keys as stores have them: PKCS#8, whatever they were in PEM. Pure.

use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroize as _;

use crate::{
    secret::Secret,
    trust::formats::asn1::{self, CONTEXT_0, INTEGER, NULL, OCTET_STRING, OID, SEQUENCE},
};

/// A private key in PEM as PKCS#8 in DER; `None` when it is none, or of a curve that it does not name.
pub(super) fn of_pem(key_pem: &Secret) -> Option<Secret> {
    let mut der = PrivateKeyDer::from_pem_slice(key_pem.expose()).ok()?;
    let wrapped = match &der {
        PrivateKeyDer::Pkcs8(key) => Some(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Pkcs1(key) => {
            let parameters = asn1::element(NULL, &[]);
            Some(wrapped(RSA, &parameters, key.secret_pkcs1_der()))
        }
        PrivateKeyDer::Sec1(key) => {
            let key = key.secret_sec1_der();
            curve(key).map(|curve| wrapped(EC, curve, key))
        }
        _ => None,
    };
    der.zeroize();
    wrapped.map(Secret::new)
}

/// The curve that a key of elliptic curves names: version, key, and then its name.
fn curve(key: &[u8]) -> Option<&[u8]> {
    let mut parts = asn1::only(key, SEQUENCE)?.content;
    asn1::take_tag(&mut parts, INTEGER)?;
    asn1::take_tag(&mut parts, OCTET_STRING)?;
    let named = asn1::take_tag(&mut parts, CONTEXT_0)?;
    asn1::only(named.content, OID).map(|oid| oid.whole)
}

fn wrapped(algorithm: &[u8], parameters: &[u8], key: &[u8]) -> Vec<u8> {
    let version = asn1::element(INTEGER, &[&[0]]);
    let algorithm = asn1::element(SEQUENCE, &[algorithm, parameters]);
    let mut octets = asn1::element(OCTET_STRING, &[key]);
    let whole = asn1::element(SEQUENCE, &[&version, &algorithm, &octets]);
    octets.zeroize();
    whole
}

/// 1.2.840.113549.1.1.1
const RSA: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x01";
/// 1.2.840.10045.2.1
const EC: &[u8] = b"\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::trust::{identity::public_key, make};

    fn openssl(line: &str) -> Secret {
        let run = Command::new("openssl").args(line.split(' ')).output();
        Secret::new(run.unwrap().stdout)
    }

    #[test]
    fn older_forms_of_keys_become_pkcs8_of_the_same_key() {
        for (line, kind) in [
            ("genrsa -traditional 2048", "RSA PRIVATE KEY"),
            ("ecparam -name prime256v1 -genkey -noout", "EC PRIVATE KEY"),
            ("genpkey -algorithm ED25519", "BEGIN PRIVATE KEY"),
        ] {
            let old = openssl(line);
            assert!(
                String::from_utf8_lossy(old.expose()).contains(kind),
                "{line}"
            );
            let new = make::key_pem(of_pem(&old).unwrap().expose());
            assert!(String::from_utf8_lossy(new.expose()).contains("BEGIN PRIVATE KEY"));
            assert_eq!(
                public_key(&new).unwrap(),
                public_key(&old).unwrap(),
                "{line}"
            );
        }
        assert!(of_pem(&Secret::new(b"no key".to_vec())).is_none());
    }
}
