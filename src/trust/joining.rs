//! TLS with those who are no peers yet: settings that judge nobody, and leave that to whoever uses them.
//!
//! Nothing of what is reached this way is believed for its certificate: pairing proves by other means who is there.

use std::sync::Arc;

use rustls::{
    ClientConfig, Error as TlsError, ServerConfig,
    client::{
        Resumption,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    sign::SingleCertAndKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::trust::{
    Error, Snapshot,
    tls::{ALPN_H2, provider},
    verifier::proofs_by_provider,
};

/// The application protocol under which strangers become peers.
pub const ALPN_JOIN: &[u8] = b"emcc-join/1";

/// The listener's settings while strangers may come to join. Who offers both protocols is no peer that calls.
#[must_use]
pub fn open_to_joining(config: &ServerConfig) -> ServerConfig {
    let mut config = config.clone();
    config.alpn_protocols.insert(0, ALPN_JOIN.to_vec());
    config
}

/// Settings for dialling a cluster that is to become a peer, as ourselves.
///
/// # Errors
/// [`Error::NoIdentity`], and [`Error::Tls`] when the library refuses the settings.
pub fn joining(snapshot: &Snapshot) -> Result<ClientConfig, Error> {
    client(snapshot, &[ALPN_JOIN])
}

/// Settings for looking whether a cluster's nodes are where it says. Where the other side is open to joining it says
/// nothing of us as a caller.
///
/// # Errors
/// As [`joining`].
pub fn looking(snapshot: &Snapshot) -> Result<ClientConfig, Error> {
    client(snapshot, &[ALPN_JOIN, ALPN_H2])
}

fn client(snapshot: &Snapshot, protocols: &[&[u8]]) -> Result<ClientConfig, Error> {
    let identity = snapshot.client_identity().ok_or(Error::NoIdentity)?;
    let provider = provider();
    let verifier = AnyProvenServer {
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Accepts any server that proves its key.
#[derive(Debug)]
struct AnyProvenServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyProvenServer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    proofs_by_provider!();
}
