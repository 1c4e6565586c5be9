//! The rustls verifiers. They prove that the other side holds the key of what it shows, and forward the
//! question whom it speaks for to [`judge`](super::judge).

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    CertificateError, DistinguishedName, Error as TlsError,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    clock::Clock,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::Bundle,
        judge::{Verdict, judge_dialled},
    },
};

/// How a verifier of ours checks that the other side holds the key of what it shows, in either direction: by the
/// `provider` that it has.
macro_rules! proofs_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            let algorithms = &self.provider.signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    };
}

pub(super) use proofs_by_provider;

/// Where a server verifier leaves its verdict: rustls itself passes on no more than an error.
pub type VerdictSlot = Arc<Mutex<Option<Verdict>>>;

/// Accepts any client that proves its key, and clients without a certificate. The listener judges them after
/// the handshake, so that they can be told the reason in an answer instead of an alert.
#[derive(Debug)]
pub(super) struct AnyProvenKey {
    pub(super) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyProvenKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints would tell every caller who else is trusted, and keep clients with a pinned certificate from
        // showing it.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    proofs_by_provider!();
}

/// Accepts the one peer that was dialled. The dialled host name plays no part: names are matched against those
/// that the operator set.
#[derive(Debug)]
pub(super) struct DialledPeer {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) bundles: Arc<[Bundle]>,
    pub(super) wanted: ClusterId,
    pub(super) clock: Clock,
    pub(super) slot: VerdictSlot,
}

impl ServerCertVerifier for DialledPeer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        // Time is this node's own; rustls would read the machine's.
        let verdict = judge_dialled(&self.bundles, &self.wanted, &chain, self.clock.now());
        let outcome = match verdict.rejection() {
            None => Ok(ServerCertVerified::assertion()),
            Some(rejection) => Err(TlsError::InvalidCertificate(alert_for(rejection))),
        };
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        outcome
    }

    proofs_by_provider!();
}

/// The certificate error whose alert tells the other side most about the reason.
fn alert_for(rejection: Rejection) -> CertificateError {
    match rejection {
        Rejection::Expired => CertificateError::Expired,
        Rejection::NotYetValid => CertificateError::NotValidYet,
        Rejection::Revoked => CertificateError::Revoked,
        Rejection::UnknownIssuer => CertificateError::UnknownIssuer,
        Rejection::WrongCluster | Rejection::WrongName => CertificateError::NotValidForName,
        Rejection::WrongEku => CertificateError::InvalidPurpose,
        Rejection::Ambiguous
        | Rejection::NoClientCertificate
        | Rejection::Plaintext
        | Rejection::TlsVersion => CertificateError::ApplicationVerificationFailure,
    }
}
