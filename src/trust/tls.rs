//! rustls settings made from trust, and what a failed handshake means.
//!
//! Federation is TLS 1.3 with ALPN `h2` and without resumption: a ticket would outlive the trust it was given
//! under. The cryptography provider is always handed over; the process-wide default is never used.

use std::{io, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, Error as TlsError, InvalidMessage, PeerIncompatible,
    ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use crate::{
    clock::Clock,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        Error,
        bundle::Bundle,
        identity::Identity,
        verifier::{AnyProvenKey, DialledPeer, VerdictSlot},
    },
};

/// The one application protocol of federation links.
pub const ALPN_H2: &[u8] = b"h2";

/// The cryptography that every TLS setting of this daemon uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Settings of the federation listener: any proven client key, or none.
pub(super) fn federation_server(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, Error> {
    let verifier = AnyProvenKey {
        provider: Arc::clone(provider),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    without_resumption(&mut config);
    Ok(config)
}

/// Settings for dialling one peer.
pub(super) fn federation_client(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    dialled: Dialled,
) -> Result<ClientConfig, Error> {
    let verifier = DialledPeer {
        provider: Arc::clone(provider),
        bundles: dialled.bundles,
        wanted: dialled.wanted,
        clock: dialled.clock,
        slot: dialled.slot,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// What a call of one peer is judged by.
pub(super) struct Dialled {
    pub(super) bundles: Arc<[Bundle]>,
    pub(super) wanted: ClusterId,
    pub(super) clock: Clock,
    pub(super) slot: VerdictSlot,
}

/// Settings of the phone listener: TLS 1.2 and 1.3, no client certificates. Phones don't know how to pin, so
/// its identity is a separate one; old ones need an RSA key.
///
/// # Errors
/// [`Error::Tls`] when the library refuses the settings.
pub fn phone_server_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .map_err(Error::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    without_resumption(&mut config);
    Ok(config)
}

/// Settings of a phone listener that has no identity yet: every handshake is refused.
///
/// # Errors
/// [`Error::Tls`] when the library refuses the settings.
pub fn refusing_server_config() -> Result<ServerConfig, Error> {
    #[derive(Debug)]
    struct NoCertificate;
    impl rustls::server::ResolvesServerCert for NoCertificate {
        fn resolve(
            &self,
            _: rustls::server::ClientHello<'_>,
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
    }
    Ok(ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .map_err(Error::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate)))
}

fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}

/// What a failed handshake, or a connection cut by an alert, says about the other side. `None` when it has
/// nothing to do with trust, such as a connection that was reset.
#[must_use]
pub fn rejection_of(error: &io::Error) -> Option<Rejection> {
    match error.get_ref()?.downcast_ref::<TlsError>()? {
        TlsError::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => Some(Rejection::Plaintext),
        TlsError::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => Some(Rejection::TlsVersion),
        TlsError::AlertReceived(alert) => rejection_of_alert(*alert),
        _ => None,
    }
}

/// What an alert of the other side says about us. Some name the reason, some only that there is one.
#[must_use]
pub fn rejection_of_alert(alert: AlertDescription) -> Option<Rejection> {
    match alert {
        AlertDescription::CertificateExpired => Some(Rejection::Expired),
        AlertDescription::CertificateRevoked => Some(Rejection::Revoked),
        AlertDescription::CertificateRequired => Some(Rejection::NoClientCertificate),
        AlertDescription::UnknownCA | AlertDescription::CertificateUnknown => {
            Some(Rejection::UnknownIssuer)
        }
        AlertDescription::UnsupportedCertificate => Some(Rejection::WrongEku),
        AlertDescription::BadCertificate => Some(Rejection::WrongName),
        // Our own nodes send it for nothing else.
        AlertDescription::AccessDenied => Some(Rejection::Ambiguous),
        AlertDescription::ProtocolVersion => Some(Rejection::TlsVersion),
        _ => None,
    }
}

/// Whether the other side ended the handshake with an alert: then the refusal is its own, and about us.
#[must_use]
pub fn is_alert(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>())
        .is_some_and(|error| matches!(error, TlsError::AlertReceived(_)))
}
