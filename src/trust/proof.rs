//! Whether somebody holds the key of a certificate, by a signature made with it. Pure.
//!
//! What the certificate says of itself plays no part: also of one that calls itself an authority, as Tomcat makes them,
//! the key is proved.

use rustls::{SignatureScheme, crypto::CryptoProvider};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::trust::identity::Identity;

/// Why a proof is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The certificate can't be read, or not for this.
    #[error("the certificate can't be used to check a signature: {0}")]
    Certificate(webpki::Error),
    /// Nobody here can check that.
    #[error("the signature scheme 0x{0:04x} is not known here")]
    Scheme(u16),
    /// The signature is of something else, or made with another key.
    #[error("the signature is not that of the certificate's own key over this text")]
    Signature,
}

/// Checks a signature over `text` that the key of `certificate` is said to have made.
///
/// # Errors
/// [`Unproven`].
pub fn verify(
    provider: &CryptoProvider,
    certificate: &CertificateDer<'_>,
    scheme: u16,
    text: &[u8],
    signature: &[u8],
) -> Result<(), Unproven> {
    let certificate = EndEntityCert::try_from(certificate).map_err(Unproven::Certificate)?;
    let known = provider.signature_verification_algorithms.mapping;
    let named = SignatureScheme::from(scheme);
    let (_, algorithms) = known
        .iter()
        .find(|(known, _)| *known == named)
        .ok_or(Unproven::Scheme(scheme))?;
    // One scheme may be several algorithms: of ECDSA, one for each curve.
    let fits = |algorithm: &&&dyn rustls_pki_types::SignatureVerificationAlgorithm| {
        certificate
            .verify_signature(**algorithm, text, signature)
            .is_ok()
    };
    algorithms
        .iter()
        .find(fits)
        .map(drop)
        .ok_or(Unproven::Signature)
}

/// Signs `text` with the identity's key: the number of the scheme, as TLS has it, and the signature. None when its kind of
/// key can't.
#[must_use]
pub fn sign(identity: &Identity, text: &[u8]) -> Option<(u16, Vec<u8>)> {
    const OFFERED: [SignatureScheme; 5] = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP521_SHA512,
    ];
    let key = identity.certified_key();
    let signer = key.key.choose_scheme(&OFFERED)?;
    let signature = signer.sign(text).ok()?;
    Some((signer.scheme().into(), signature))
}

#[cfg(test)]
mod tests {
    use rustls::sign::SigningKey;

    use super::*;
    use crate::{
        clock::Clock,
        trust::{
            fixtures::{Leaf, Spec},
            identity::Identity,
            make::{self, CertRequest, KeyKind},
            tls::provider,
        },
    };

    fn signed(key: &dyn SigningKey, scheme: SignatureScheme, text: &[u8]) -> Vec<u8> {
        key.choose_scheme(&[scheme]).unwrap().sign(text).unwrap()
    }

    fn check(leaf: &Leaf, scheme: u16, text: &[u8], signature: &[u8]) -> Result<(), Unproven> {
        verify(&provider(), leaf.der(), scheme, text, signature)
    }

    #[test]
    fn the_key_of_any_certificate_is_proved_also_of_one_that_calls_itself_an_authority() {
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        for leaf in [
            Spec::new("n1.example").self_signed(),
            Spec::new("n1.example").ca().self_signed(),
        ] {
            let key = leaf.identity().certified_key();
            let signature = signed(&*key.key, scheme, b"text");
            check(&leaf, scheme.into(), b"text", &signature).unwrap();
        }
    }

    #[test]
    fn rsa_is_proved_by_the_schemes_of_tls() {
        let request = CertRequest::new(
            "a",
            vec!["a.example".to_owned()],
            KeyKind::Rsa2048,
            Clock::system().now(),
            30,
        );
        let made = make::self_signed(&request).unwrap();
        let der = CertificateDer::from(made.certificate_der.clone());
        let identity = Identity::from_pem(made.certificate_pem.as_bytes(), &made.key_pem).unwrap();
        let key = identity.certified_key();
        for scheme in [
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA512,
        ] {
            let signature = signed(&*key.key, scheme, b"text");
            verify(&provider(), &der, scheme.into(), b"text", &signature).unwrap();
        }
    }

    #[test]
    fn another_text_another_key_another_scheme_or_a_broken_signature_proves_nothing() {
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let (leaf, other) = (
            Spec::new("n1.example").self_signed(),
            Spec::new("n1.example").self_signed(),
        );
        let good = signed(&*leaf.identity().certified_key().key, scheme, b"text");
        let mut bent = good.clone();
        bent[10] ^= 1;
        for (who, text, signature) in [
            (&leaf, &b"other"[..], &good),
            (&other, b"text", &good),
            (&leaf, b"text", &bent),
            (&leaf, b"text", &Vec::new()),
        ] {
            assert_eq!(
                check(who, scheme.into(), text, signature),
                Err(Unproven::Signature)
            );
        }
        let wrong_kind = SignatureScheme::RSA_PSS_SHA256.into();
        assert_eq!(
            check(&leaf, wrong_kind, b"text", &good),
            Err(Unproven::Signature)
        );
        assert_eq!(
            check(&leaf, 0xfafa, b"text", &good),
            Err(Unproven::Scheme(0xfafa))
        );
        let no_certificate = CertificateDer::from(vec![0x30, 0x00]);
        assert!(matches!(
            verify(&provider(), &no_certificate, scheme.into(), b"text", &good),
            Err(Unproven::Certificate(_))
        ));
    }
}
