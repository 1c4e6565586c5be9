//! Machines in between, and what can be reached by somebody who was not invited.

use std::sync::Arc;

use emccd::{
    lab::{Cluster, Hosting},
    tasks::Tasks,
    trust::{
        certificate::read_fingerprint,
        make::{self, CertRequest, KeyKind, Made},
    },
    wire::{
        join::{self as pb, join_service_client::JoinServiceClient},
        pb::{self as wire, federation_service_client::FederationServiceClient},
    },
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tonic::{
    Code,
    transport::{Channel, Endpoint, Uri},
};

use super::*;
use crate::support::tls::identity_made;

pub(super) const JOIN: &[u8] = b"emcc-join/1";

/// Takes whatever is shown: a machine in between asks nobody.
#[derive(Debug)]
struct Anything;

fn schemes() -> Vec<SignatureScheme> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .signature_verification_algorithms
        .supported_schemes()
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Anything {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

pub(super) fn made(name: &str) -> Made {
    let names = vec!["localhost".to_owned()];
    let now = emccd::clock::Clock::system().now();
    make::self_signed(&CertRequest::new(name, names, KeyKind::P256, now, 30)).unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client that shows a certificate and takes whatever it is shown.
fn client(shown: &Made, protocol: &[u8]) -> TlsConnector {
    let (chain, key) = identity_made(shown);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

pub(super) async fn dialled(
    cluster: &Cluster,
    shown: &Made,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address(cluster)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    client(shown, protocol).connect(name, tcp).await
}

pub(super) async fn channel_over(tls: TlsStream<TcpStream>) -> Channel {
    let mut once = Some(TokioIo::new(tls));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or(std::io::ErrorKind::NotConnected);
        std::future::ready(stream.map_err(std::io::Error::from))
    });
    let endpoint = Endpoint::from_static("http://inviter");
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// Ends TLS for whoever comes, and passes on what they say over a connection of its own.
async fn machine_between(to: &str, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let own = made("in between");
    let (chain, key) = identity_made(&own);
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anything))
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![JOIN.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (to, passing) = (to.to_owned(), tasks.clone());
    tasks.spawn("machine in between", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            let connector = client(&own, JOIN);
            passing.spawn("passing on", async move {
                let mut theirs = acceptor.accept(tcp).await.unwrap();
                let tcp = TcpStream::connect(to).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut ours = connector.connect(name, tcp).await.unwrap();
                // How it ends is all the same.
                let _ = tokio::io::copy_bidirectional(&mut theirs, &mut ours).await;
            });
        }
    });
    here
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_between_that_ends_tls_is_found_out_on_both_sides() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let tasks = Tasks::default();
    let between = machine_between(address(berlin), &tasks).await;
    let (text, id) = invited(berlin, &[]).await;
    let mut token = Token::read(&text).unwrap();
    token.addresses = vec![between.parse().unwrap()];
    let told = refused(tokyo, &join_words(tokyo), &token.text()).await;
    assert!(told.contains("something between ends TLS"), "{told}");
    let seen = standing(berlin, "invite", &id).await;
    assert_eq!(
        (&seen["state"], &seen["failures"]),
        (&"open".into(), &1.into())
    );
    let trouble = seen["trouble"].as_str().unwrap();
    assert!(trouble.contains("something between ends TLS"), "{trouble}");
    // One that knows what to show, because the invitation was changed on its way: the connection gives it away.
    let (_, shown) = told.rsplit_once("SHA-256 ").unwrap();
    token.leaves = vec![read_fingerprint(shown.split(')').next().unwrap()).unwrap()];
    let told = refused(tokyo, &join_words(tokyo), &token.text()).await;
    assert!(told.contains("something between ends TLS"), "{told}");
    assert_eq!(standing(berlin, "invite", &id).await["failures"], 2);
    // Around it, the same invitation is good.
    json(tokyo, &join_words(tokyo), &text).await;
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_invited_reaches_nothing_and_holds_nothing() {
    let lab = strangers(1, 1, Hosting::InProcess).await;
    let berlin = &lab.clusters[0];
    let stranger = made("stranger");
    // While nobody is invited there is no such door.
    let closed = dialled(berlin, &stranger, JOIN).await.unwrap_err();
    assert!(
        closed.to_string().contains("NoApplicationProtocol"),
        "{closed}"
    );
    let (text, _) = invited(berlin, &[]).await;
    let open = dialled(berlin, &stranger, JOIN).await.unwrap();
    let channel = channel_over(open).await;
    let mut federation = FederationServiceClient::new(channel.clone());
    let hello = federation.hello(wire::HelloRequest::default()).await;
    assert_eq!(hello.unwrap_err().code(), Code::Unimplemented);
    let mut join = JoinServiceClient::new(channel);
    let id = Token::read(&text).unwrap().id.0.to_vec();
    let asked = pb::ConcludeRequest {
        invitation_id: id.clone(),
        decision: 1,
        reason: String::new(),
    };
    let turned = join.conclude(asked).await.unwrap_err();
    assert_eq!(turned.code(), Code::PermissionDenied);
    // Who was turned away once begins anew.
    let told = pb::ExchangeRequest {
        invitation_id: id,
        cluster: None,
    };
    assert!(join.exchange(told.clone()).await.is_err());
    let open = dialled(berlin, &stranger, JOIN).await.unwrap();
    let mut join = JoinServiceClient::new(channel_over(open).await);
    let turned = join.exchange(told).await.unwrap_err();
    assert_eq!(turned.code(), Code::PermissionDenied);
    // The handful of places of one network is taken, and given back without anybody's doing.
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(dialled(berlin, &stranger, JOIN).await.unwrap());
    }
    let freed = async {
        for mut connection in held {
            let mut rest = Vec::new();
            // Ended by the other side, with or without a farewell.
            let _ = connection.read_to_end(&mut rest).await;
        }
    };
    timeout(Duration::from_secs(20), freed).await.unwrap();
    // A connection for peers goes on as ever.
    dialled(berlin, &stranger, b"h2").await.unwrap();
}
