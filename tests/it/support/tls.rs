//! TLS clients of the tests' own: they know a server as other programs do, by the authority and the name, and show
//! what they like.

use std::{path::Path, sync::Arc};

use emccd::{lab::Cluster, trust::make::Made};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};

/// What a client shows of itself: a chain, and the key of its first certificate.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The identity of a cluster's first node, as its files have it.
pub(crate) fn identity_of(cluster: &Cluster) -> Identity {
    let node = cluster.member().unwrap();
    let chain = CertificateDer::pem_file_iter(&node.federation_certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&node.federation_key).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// A certificate that was made, with what stands below it in its PEM text.
pub(crate) fn identity_made(made: &Made) -> Identity {
    let chain = CertificateDer::pem_slice_iter(made.certificate_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(made.key_pem.expose()).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// A client that believes the authority in the file `root`.
pub(crate) fn client_config(
    root: &Path,
    identity: Option<Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
    }
}

/// A client of `server`'s federation port.
pub(crate) fn federation_client(
    server: &Cluster,
    identity: Option<Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut config = client_config(&server.authority.file, identity, versions);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A client that believes whatever certificate it is shown: for programs that outlive those of the nodes they call.
pub(crate) fn believing_anyone(identity: Identity) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let (chain, key) = identity;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(algorithms)))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
