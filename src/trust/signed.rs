//! Whose signature a certificate or a revocation list bears. Pure.

use rustls_pki_types::{AlgorithmIdentifier, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    certificate::Certificate,
    formats::asn1::{BIT_STRING, SEQUENCE, only, take, take_tag},
};

impl Certificate {
    /// Whether a certificate or a list, in DER, bears the signature of this one's key, whatever their dates and what
    /// this one may sign. By the algorithms that a handshake knows.
    #[must_use]
    pub fn signed(&self, der: &[u8]) -> bool {
        let Some(signed) = Signed::read(der) else {
            return false;
        };
        let Ok((_, own)) = X509Certificate::from_der(self.der()) else {
            return false;
        };
        let key = SubjectPublicKeyInfoDer::from(own.public_key().raw);
        let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
            return false;
        };
        let mut fitting = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .filter(|known| known.signature_alg_id() == signed.algorithm);
        fitting.any(|algorithm| {
            key.verify_signature(*algorithm, signed.content, signed.signature)
                .is_ok()
        })
    }
}

/// `SEQUENCE { content, algorithm, BIT STRING }`: the outside of everything that X.509 signs.
struct Signed<'a> {
    content: &'a [u8],
    algorithm: AlgorithmIdentifier,
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let mut inside = only(der, SEQUENCE)?.content;
        let content = take(&mut inside)?;
        let algorithm = take_tag(&mut inside, SEQUENCE)?;
        let signature = only(inside, BIT_STRING)?;
        // The first byte is how many bits of the last one are unused: none.
        let (0, signature) = signature.content.split_first()? else {
            return None;
        };
        // The identifiers that this is compared with live as long as the program.
        let known = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .map(|known| known.signature_alg_id())
            .find(|known| known.as_ref() == algorithm.content)?;
        Some(Self {
            content: content.whole,
            algorithm: known,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::trust::fixtures::{Authority, Spec};

    #[test]
    fn it_is_the_key_that_signs_and_not_the_name() {
        let (root, twin) = (Authority::new("Root"), Authority::new("Root"));
        let leaf = Spec::new("a.example").signed_by(&root).certificate();
        let alone = Spec::new("a.example").self_signed().certificate();
        let (root_is, twin_is) = (root.certificate(), twin.certificate());
        assert!(root_is.signed(leaf.der()) && root_is.signed(root_is.der()));
        assert!(!twin_is.signed(leaf.der()) && !leaf.signed(leaf.der()));
        assert!(alone.signed(alone.der()));
        let list = root.crl(1, &[], 30);
        assert!(root_is.signed(&list) && !twin_is.signed(&list));
        for broken in [&b""[..], &[0x30, 0x00], &list[..list.len() - 1]] {
            assert!(!root_is.signed(broken));
        }
    }
}
