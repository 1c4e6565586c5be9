use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{DnsName, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    clock::Clock,
    domain::{ids::ClusterId, rejection::Rejection},
    tasks::Tasks,
    trust::{
        TrustStore,
        bundle::Bundle,
        fixtures::{Authority, Leaf, Spec, anchored, bundle, cluster, pinned},
        judge::Verdict,
        refusals::Refused,
        verifier::VerdictSlot,
    },
    wire::{pb, status::rejection_from_status},
};

type Stream<T> = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// Answers `Hello` with the peer it sees, `FindUser` never, `Watch` with one message and then silence.
#[derive(Clone, Default)]
struct Echo {
    seen: Arc<Mutex<Vec<ConnIdentity>>>,
    /// How many `FindUser` have begun.
    finding: Arc<std::sync::atomic::AtomicUsize>,
}

#[tonic::async_trait]
impl pb::federation_service_server::FederationService for Echo {
    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        let identity = request.extensions().get::<ConnIdentity>().unwrap().clone();
        let cluster_id = identity.peer().map(ToString::to_string).unwrap_or_default();
        self.seen.lock().unwrap().push(identity);
        Ok(Response::new(pb::HelloResponse {
            cluster_id,
            ..Default::default()
        }))
    }

    type WatchStream = Stream<pb::WatchResponse>;

    async fn watch(
        &self,
        _request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        use futures_util::StreamExt;
        let first = futures_util::stream::iter([Ok(pb::WatchResponse::default())]);
        Ok(Response::new(Box::pin(
            first.chain(futures_util::stream::pending()),
        )))
    }

    async fn find_user(
        &self,
        _request: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        self.finding
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::future::pending().await
    }

    async fn login(
        &self,
        _request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn logout(
        &self,
        _request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

type Client = pb::federation_service_client::FederationServiceClient<Channel>;

/// A listening tokyo.
struct Tokyo {
    trust: TrustStore,
    clock: Clock,
    tasks: Tasks,
    address: SocketAddr,
    leaf: Leaf,
    echo: Echo,
}

impl Tokyo {
    async fn start(bundles: Vec<Bundle>) -> Self {
        Self::start_with(bundles, Config::default()).await
    }

    async fn start_with(bundles: Vec<Bundle>, config: Config) -> Self {
        let leaf = Spec::new("tokyo").self_signed();
        let clock = Clock::system();
        let trust = TrustStore::new(Some(leaf.identity()), clock.clone());
        trust.publish_bundles(bundles).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, echo) = (Tasks::default(), Echo::default());
        let service = pb::federation_service_server::FederationServiceServer::new(echo.clone());
        let routes = tonic::service::Routes::new(service);
        let serve = serve_federation(listener, trust.clone(), routes, tasks.clone(), config);
        tasks.spawn("listener", serve);
        Self {
            trust,
            clock,
            tasks,
            address,
            leaf,
            echo,
        }
    }

    /// A client with this identity that trusts tokyo.
    fn client(&self, own: &Leaf) -> Client {
        let trust = TrustStore::new(Some(own.identity()), Clock::system());
        trust
            .publish_bundles(vec![pinned("tokyo", &self.leaf)])
            .unwrap();
        let config = trust
            .snapshot()
            .client_config(&cluster("tokyo"), VerdictSlot::default())
            .unwrap();
        self.client_with(config)
    }

    /// A client that is only pinned here, whatever its own checks would say of its certificate.
    fn client_with(&self, config: rustls::ClientConfig) -> Client {
        let connector = TlsConnector::from(Arc::new(config));
        let address = self.address;
        let dial = tower::service_fn(move |_: ::http::Uri| {
            let connector = connector.clone();
            async move {
                let tcp = TcpStream::connect(address).await?;
                let name = ServerName::DnsName(DnsName::try_from("tokyo").unwrap());
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        });
        Client::new(
            Endpoint::from_static("http://tokyo")
                .origin("https://tokyo".parse().unwrap())
                .connect_with_connector_lazy(dial),
        )
    }

    /// A client that shows `chain`, or nothing, without any check of its own.
    fn careless_client(&self, shown: Option<&Leaf>) -> Client {
        #[derive(Debug)]
        struct Anything(Arc<rustls::crypto::CryptoProvider>);
        impl rustls::client::danger::ServerCertVerifier for Anything {
            fn verify_server_cert(
                &self,
                _: &rustls_pki_types::CertificateDer<'_>,
                _: &[rustls_pki_types::CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                _: rustls_pki_types::UnixTime,
            ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
                Ok(rustls::client::danger::ServerCertVerified::assertion())
            }
            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &rustls_pki_types::CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error>
            {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }
            fn verify_tls13_signature(
                &self,
                _: &[u8],
                _: &rustls_pki_types::CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error>
            {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }
            fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
                self.0.signature_verification_algorithms.supported_schemes()
            }
        }
        let provider = crate::trust::tls::provider();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything(provider)));
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let key =
                    rustls_pki_types::pem::PemObject::from_pem_slice(leaf.key_pem().as_bytes())
                        .unwrap();
                builder
                    .with_client_auth_cert(vec![leaf.der().clone()], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        self.client_with(config)
    }

    async fn refusal(&self, wanted: Rejection) -> Refused {
        within(async {
            loop {
                if let Some(found) = self
                    .trust
                    .refusals()
                    .list()
                    .into_iter()
                    .find(|r| r.rejection == wanted)
                {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), future)
        .await
        .expect("took too long")
}

async fn hello(client: &mut Client) -> Result<String, Status> {
    let answered = within(client.hello(pb::HelloRequest::default())).await;
    answered.map(|response| response.into_inner().cluster_id)
}

/// The reason that a call is refused for. One that races with the end of a connection may just be cut.
async fn rejected_hello(client: &mut Client) -> Rejection {
    within(async {
        loop {
            let status = hello(client).await.unwrap_err();
            if let Some(rejection) = rejection_from_status(&status) {
                return rejection;
            }
        }
    })
    .await
}

fn without(id: &str, bundles: &[Bundle]) -> Vec<Bundle> {
    let id = ClusterId::new(id).unwrap();
    bundles
        .iter()
        .filter(|bundle| bundle.cluster != id)
        .cloned()
        .collect()
}

#[tokio::test]
async fn handlers_see_the_peer_that_the_certificate_names() {
    let (berlin, paris) = (
        Spec::new("berlin").ca().self_signed(),
        Spec::new("paris").self_signed(),
    );
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin), pinned("paris", &paris)]).await;
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    assert_eq!(hello(&mut tokyo.client(&paris)).await.unwrap(), "paris");
    let seen = tokyo.echo.seen.lock().unwrap().clone();
    assert_eq!(
        seen[0].fingerprint,
        Some(berlin.certificate().fingerprint_text())
    );
    assert_eq!(
        seen[0].leaf_not_after,
        Some(berlin.certificate().not_after())
    );
    assert!(seen[0].remote.ip().is_loopback());
    assert!(tokyo.trust.refusals().list().is_empty());
}

#[tokio::test]
async fn the_unidentified_are_told_the_reason_and_reach_no_handler() {
    let berlin = Spec::new("berlin").self_signed();
    let expired = Spec::new("old").valid_days(-20, -10).self_signed();
    let early = Spec::new("early").valid_days(10, 20).self_signed();
    let server_only = Spec::new("server").eku(false, true).self_signed();
    let authority = Authority::new("CA");
    let misnamed = Spec::new("n9.rome.example").signed_by(&authority);
    let revoked = Spec::new("gone").self_signed();
    let mut oslo = bundle("oslo");
    oslo.revoked.push(revoked.certificate().fingerprint());
    let tokyo = Tokyo::start(vec![
        pinned("berlin", &berlin),
        pinned("old", &expired),
        pinned("early", &early),
        pinned("server", &server_only),
        anchored("rome", &authority, &["n1.rome.example"]),
        oslo,
    ])
    .await;
    let stranger = Spec::new("stranger").self_signed();
    for (shown, expected) in [
        (None, Rejection::NoClientCertificate),
        (Some(&stranger), Rejection::UnknownIssuer),
        (Some(&expired), Rejection::Expired),
        (Some(&early), Rejection::NotYetValid),
        (Some(&server_only), Rejection::WrongEku),
        (Some(&misnamed), Rejection::WrongName),
        (Some(&revoked), Rejection::Revoked),
    ] {
        let status = hello(&mut tokyo.careless_client(shown)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert_eq!(rejection_from_status(&status), Some(expected), "{status:?}");
        let recorded = tokyo.refusal(expected).await;
        assert_eq!(
            recorded.fingerprint,
            shown.map(|leaf| leaf.certificate().fingerprint_text())
        );
        // Neither what would have been accepted nor how to mend it goes over the wire.
        assert!(!format!("{status:?}").contains("n1.rome.example"));
    }
    assert!(tokyo.echo.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unidentified_connection_is_short() {
    let config = Config {
        unidentified_life: Duration::from_millis(50),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let config = rustls_client(&tokyo, &Spec::new("stranger").self_signed());
    let mut tls = within(raw_tls(tokyo.address, config)).await.unwrap();
    let mut rest = Vec::new();
    // Never a byte of HTTP/2 is sent; it ends all the same.
    drop(within(tls.read_to_end(&mut rest)).await);
}

#[tokio::test]
async fn the_unidentified_do_not_crowd_out_peers() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_unidentified: 1,
        unidentified_life: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let stranger = Spec::new("stranger").self_signed();
    let mut first = tokyo.client(&stranger);
    assert_eq!(
        hello(&mut first).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let second = hello(&mut tokyo.client(&stranger)).await.unwrap_err();
    assert_eq!(
        rejection_from_status(&second),
        None,
        "the second is cut: {second:?}"
    );
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
}

#[tokio::test]
async fn a_removed_pin_ends_its_connection_and_no_other() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let tokyo = Tokyo::start(bundles.clone()).await;
    let (mut from_berlin, mut from_paris) = (tokyo.client(&berlin), tokyo.client(&paris));
    let mut berlin_watch = watch(&mut from_berlin).await;
    let mut paris_watch = watch(&mut from_paris).await;
    tokyo
        .trust
        .publish_bundles(without("berlin", &bundles))
        .unwrap();
    // The stream breaks, and what follows is refused with the reason.
    assert!(within(berlin_watch.message()).await.is_err());
    assert_eq!(
        rejected_hello(&mut from_berlin).await,
        Rejection::UnknownIssuer
    );
    assert_eq!(hello(&mut from_paris).await.unwrap(), "paris");
    let still_open = tokio::time::timeout(Duration::from_millis(20), paris_watch.message()).await;
    assert!(still_open.is_err(), "{still_open:?}");
    // And back again without a restart.
    tokyo.trust.publish_bundles(bundles).unwrap();
    within(async { while hello(&mut from_berlin).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_call_after_the_removal_is_refused_even_on_the_old_connection() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut client = tokyo.client(&berlin);
    hello(&mut client).await.unwrap();
    tokyo.trust.publish_bundles(Vec::new()).unwrap();
    assert_eq!(rejected_hello(&mut client).await, Rejection::UnknownIssuer);
    assert_eq!(tokyo.echo.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_connection_outlives_its_leaf() {
    let berlin = Spec::new("berlin").valid_seconds(-60, 60).self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    // Seconds before the end by tokyo's clock, then over the end by waiting for it.
    let end = berlin.certificate().not_after();
    let left = end.since(Clock::system().now());
    tokyo
        .clock
        .set_offset_millis(i64::try_from(left.as_millis()).unwrap() - 4_000);
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    assert!(within(stream.message()).await.is_err());
    assert!(tokyo.clock.now() > end);
    assert_eq!(rejected_hello(&mut client).await, Rejection::Expired);
}

#[tokio::test]
async fn silent_connections_delay_nobody() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut silent = Vec::new();
    // Some say nothing, some begin a handshake and stall. No small number of turns outlasts them.
    for _ in 0..150 {
        silent.push(TcpStream::connect(tokyo.address).await.unwrap());
        let mut stalled = TcpStream::connect(tokyo.address).await.unwrap();
        stalled.write_all(&[0x16]).await.unwrap();
        silent.push(stalled);
    }
    // Connections are accepted in turn: this one comes behind all of them.
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
}

#[tokio::test]
async fn stalled_handshakes_delay_no_phone() {
    let leaf = Spec::new("phones.example").self_signed();
    let config = crate::trust::tls::phone_server_config(&leaf.identity()).unwrap();
    let tasks = Tasks::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Config {
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let config = Arc::new(arc_swap::ArcSwap::from_pointee(config));
    let router = axum::Router::new();
    let door = serve_http(listener, Some(config), router, tasks.clone(), limits);
    tasks.spawn("phones", door);
    let mut stalled = Vec::new();
    for _ in 0..150 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&[0x16]).await.unwrap();
        stalled.push(tcp);
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(leaf.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(crate::trust::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    within(raw_tls_to(address, "phones.example", client))
        .await
        .unwrap();
    // And one that forgot the TLS is told so.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET /emcc HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = told(&mut plain).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("https"), "{answer}");
    within(tasks.shut_down(Duration::from_secs(10))).await;
}

/// What the other side says until it ends the connection.
async fn told(tcp: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = within(tcp.read(&mut chunk)).await {
        rest.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(rest).unwrap()
}

#[tokio::test]
async fn connections_that_are_not_past_their_handshake_are_bounded() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_pending: 2,
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let silent = TcpStream::connect(tokyo.address).await.unwrap();
    let _other = TcpStream::connect(tokyo.address).await.unwrap();
    // The next is closed at once, not after the minute.
    let mut third = TcpStream::connect(tokyo.address).await.unwrap();
    assert_eq!(told(&mut third).await, "");
    assert!(hello(&mut tokyo.client(&berlin)).await.is_err());
    drop(silent);
    let mut client = tokyo.client(&berlin);
    within(async { while hello(&mut client).await.is_err() {} }).await;
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_per_peer() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let per_peer = Config {
        max_connections_per_peer: 2,
        ..Config::default()
    };
    let total = Config {
        max_connections: 2,
        ..Config::default()
    };
    for (config, others_are_served) in [(per_peer, true), (total, false)] {
        let tokyo = Tokyo::start_with(bundles.clone(), config).await;
        let (mut first, mut second) = (tokyo.client(&berlin), tokyo.client(&berlin));
        hello(&mut first).await.unwrap();
        hello(&mut second).await.unwrap();
        assert!(hello(&mut tokyo.client(&berlin)).await.is_err());
        let mut other = tokyo.client(&paris);
        assert_eq!(hello(&mut other).await.is_ok(), others_are_served);
        // Those that have their places keep them, and one that ends leaves its own.
        hello(&mut first).await.unwrap();
        drop(second);
        let mut next = tokyo.client(&berlin);
        within(async { while hello(&mut next).await.is_err() {} }).await;
        assert!(hello(&mut tokyo.client(&berlin)).await.is_err());
    }
}

#[tokio::test]
async fn strangers_without_a_place_leave_no_trace() {
    let config = Config {
        max_unidentified: 1,
        unidentified_life: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let first = Spec::new("first").self_signed();
    let mut told = tokyo.client(&first);
    assert_eq!(rejected_hello(&mut told).await, Rejection::UnknownIssuer);
    for _ in 0..5 {
        let next = Spec::new("next").self_signed();
        assert!(hello(&mut tokyo.client(&next)).await.is_err());
    }
    let list = tokyo.trust.refusals().list();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(
        list[0].fingerprint,
        Some(first.certificate().fingerprint_text())
    );
}

#[tokio::test]
async fn calls_of_one_connection_are_bounded() {
    use std::sync::atomic::Ordering;
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_streams: 2,
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut client = tokyo.client(&berlin);
    hello(&mut client).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut client = client.clone();
        calls.spawn(async move { client.find_user(pb::FindUserRequest::default()).await });
    }
    within(async {
        while tokyo.echo.finding.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // No third is begun, and neither is another call of this connection.
    let waited = Duration::from_millis(200);
    let beyond = client.hello(pb::HelloRequest::default());
    assert!(!matches!(
        tokio::time::timeout(waited, beyond).await,
        Ok(Ok(_))
    ));
    assert_eq!(tokyo.echo.finding.load(Ordering::SeqCst), 2);
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    // Calls that end make room.
    calls.shutdown().await;
    within(async { while hello(&mut client).await.is_err() {} }).await;
}

#[tokio::test]
async fn headers_are_bounded() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut sender = bare_client(&tokyo, &berlin).await;
    let request = |bytes: usize| {
        let method = "https://tokyo/emcc.federation.v1.FederationService/Hello";
        ::http::Request::post(method)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-padding", "x".repeat(bytes))
            .body(empty_message())
            .unwrap()
    };
    let refused = within(sender.send_request(request(20 * 1024))).await;
    let is_refused = refused.as_ref().map_or(true, |r| r.status() == 431);
    assert!(is_refused, "{refused:?}");
    assert!(tokyo.echo.seen.lock().unwrap().is_empty());
    // Well below the bound it is served.
    let mut sender = bare_client(&tokyo, &berlin).await;
    let served = within(sender.send_request(request(8 * 1024))).await;
    assert_eq!(served.unwrap().status(), 200);
    assert_eq!(tokyo.echo.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_connection_outlives_the_anchor_that_vouches_for_it() {
    let authority = Authority::with(Spec::new("CA").ca().valid_seconds(-60, 600));
    let berlin = Spec::new("n1.berlin.example").signed_by(&authority);
    let config = Config {
        look_again: Duration::from_millis(50),
        ..Config::default()
    };
    let bundles = vec![anchored("berlin", &authority, &["n1.berlin.example"])];
    let tokyo = Tokyo::start_with(bundles, config).await;
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    let still_open = tokio::time::timeout(Duration::from_millis(150), stream.message()).await;
    assert!(still_open.is_err(), "{still_open:?}");
    // Its own certificate is good for longer.
    tokyo.clock.set_offset_millis(601_000);
    assert!(tokyo.clock.now() < berlin.certificate().not_after());
    assert!(within(stream.message()).await.is_err());
    assert_eq!(rejected_hello(&mut client).await, Rejection::Expired);
}

#[tokio::test]
async fn silent_connections_are_let_go() {
    let config = Config {
        handshake_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let mut silent = TcpStream::connect(tokyo.address).await.unwrap();
    // Half a handshake is no better than none.
    let mut stuck = TcpStream::connect(tokyo.address).await.unwrap();
    stuck.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let mut rest = Vec::new();
    drop(within(silent.read_to_end(&mut rest)).await);
    drop(within(stuck.read_to_end(&mut rest)).await);
    assert!(rest.is_empty());
}

#[tokio::test]
async fn plaintext_is_closed_and_reported_with_a_hint() {
    let tokyo = Tokyo::start(Vec::new()).await;
    for (opening, is_told) in [
        ("GET / HTTP/1.1\r\nHost: tokyo\r\n\r\n", true),
        ("POST ", true),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
        ("GETTING NOWHERE", false),
        ("\0\0\0\0", false),
    ] {
        let mut tcp = TcpStream::connect(tokyo.address).await.unwrap();
        tcp.write_all(opening.as_bytes()).await.unwrap();
        let answer = told(&mut tcp).await;
        if is_told {
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{answer}"
            );
            assert!(answer.contains("TLS"), "{answer}");
        } else {
            assert_eq!(answer, "", "{opening}");
        }
    }
    // In pieces as well, and never for longer than a handshake may take.
    let mut tcp = TcpStream::connect(tokyo.address).await.unwrap();
    for piece in ["H", "EA", "D "] {
        tcp.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = told(&mut tcp).await;
    assert!(answer.contains("Connection: close\r\n\r\n"), "{answer}");
    let mut stuck = TcpStream::connect(tokyo.address).await.unwrap();
    stuck.write_all(b"GE").await.unwrap();
    assert_eq!(told(&mut stuck).await, "");
    let refused = tokyo.refusal(Rejection::Plaintext).await;
    assert!(refused.mend.contains("TLS"), "{}", refused.mend);
    assert_eq!(refused.fingerprint, None);
}

#[tokio::test]
async fn an_old_tls_version_is_reported() {
    let tokyo = Tokyo::start(Vec::new()).await;
    let config = rustls::ClientConfig::builder_with_provider(crate::trust::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    assert!(within(raw_tls(tokyo.address, config)).await.is_err());
    assert!(
        tokyo
            .refusal(Rejection::TlsVersion)
            .await
            .mend
            .contains("1.3")
    );
}

#[tokio::test]
async fn a_caller_that_refuses_us_is_reported_as_such() {
    let tokyo = Tokyo::start(Vec::new()).await;
    let berlin = Spec::new("berlin").self_signed();
    let trust = TrustStore::new(Some(berlin.identity()), Clock::system());
    let slot = VerdictSlot::default();
    let config = trust
        .snapshot()
        .client_config(&cluster("tokyo"), Arc::clone(&slot))
        .unwrap();
    assert!(within(raw_tls(tokyo.address, config)).await.is_err());
    let recorded = slot.lock().unwrap().take().unwrap();
    assert_eq!(recorded.rejection(), Some(Rejection::UnknownIssuer));
    let refused = tokyo.refusal(Rejection::UnknownIssuer).await;
    assert!(
        refused.expectation.contains("refused our own certificate"),
        "{}",
        refused.expectation
    );
    assert_eq!(
        refused.fingerprint,
        Some(tokyo.leaf.certificate().fingerprint_text())
    );
}

#[tokio::test]
async fn a_deadline_is_kept_and_named_and_streams_outlive_it() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_call: Duration::from_millis(100),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut client = tokyo.client(&berlin);
    // The longest time that we allow.
    let status = within(client.find_user(pb::FindUserRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let mut stream = watch(&mut client).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(300), stream.message())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_deadline_in_the_header_is_kept() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    // Not tonic's client, which would run its own timer on the header.
    let mut sender = bare_client(&tokyo, &berlin).await;
    let request =
        ::http::Request::post("https://tokyo/emcc.federation.v1.FederationService/FindUser")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "20m")
            .body(empty_message())
            .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_new_identity_serves_new_handshakes_and_leaves_old_connections_alone() {
    let berlin = Spec::new("berlin").self_signed();
    let mut tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut old = tokyo.client(&berlin);
    let mut late = tokyo.client(&berlin);
    let mut stream = watch(&mut old).await;
    let next = Spec::new("tokyo").self_signed();
    tokyo.trust.publish_identity(next.identity()).unwrap();
    tokyo.leaf = next;
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    // Both believe the former certificate alone: who is answered was connected before.
    assert!(hello(&mut late).await.is_err());
    assert_eq!(hello(&mut old).await.unwrap(), "berlin");
    assert!(stream.message().now_or_never().is_none());
}

#[tokio::test]
async fn nothing_is_resumed() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut config = rustls_client(&tokyo, &berlin);
    // A client that would like to.
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    for _ in 0..2 {
        let mut tls = within(raw_tls(tokyo.address, config.clone()))
            .await
            .unwrap();
        // The server's SETTINGS come after any ticket.
        let mut frame = [0u8; 9];
        within(tls.read_exact(&mut frame)).await.unwrap();
        assert_eq!(
            tls.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn shutdown_drains_and_leaves_no_task_behind() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        drain_grace: Duration::from_millis(100),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    within(tokyo.tasks.shut_down(Duration::from_secs(10))).await;
    assert!(within(stream.message()).await.is_err());
    assert!(TcpStream::connect(tokyo.address).await.is_err());
}

#[tokio::test]
async fn without_an_identity_the_door_stays_shut_until_there_is_one() {
    let berlin = Spec::new("berlin").self_signed();
    let trust = TrustStore::new(None, Clock::system());
    trust
        .publish_bundles(vec![pinned("berlin", &berlin)])
        .unwrap();
    let leaf = Spec::new("tokyo").self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks, echo) = (
        listener.local_addr().unwrap(),
        Tasks::default(),
        Echo::default(),
    );
    let service = pb::federation_service_server::FederationServiceServer::new(echo.clone());
    let routes = tonic::service::Routes::new(service);
    tasks.spawn(
        "listener",
        serve_federation(
            listener,
            trust.clone(),
            routes,
            tasks.clone(),
            Config::default(),
        ),
    );
    let tokyo = Tokyo {
        trust,
        clock: Clock::system(),
        tasks,
        address,
        leaf,
        echo,
    };
    let mut client = tokyo.client(&berlin);
    assert!(hello(&mut client).await.is_err());
    tokyo.trust.publish_identity(tokyo.leaf.identity()).unwrap();
    assert_eq!(hello(&mut client).await.unwrap(), "berlin");
}

#[tokio::test]
async fn phones_are_served_over_tls_and_in_the_clear() {
    use axum::extract::ConnectInfo;
    let router = axum::Router::new().route(
        "/who",
        axum::routing::get(|ConnectInfo(remote): ConnectInfo<SocketAddr>| async move {
            remote.ip().to_string()
        }),
    );
    let leaf = Spec::new("phones.example").self_signed();
    let config = crate::trust::tls::phone_server_config(&leaf.identity()).unwrap();
    let config = Arc::new(arc_swap::ArcSwap::from_pointee(config));
    let tasks = Tasks::default();
    let secure = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (secure_at, plain_at) = (secure.local_addr().unwrap(), plain.local_addr().unwrap());
    let limits = Config {
        header_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    tasks.spawn(
        "secure",
        serve_http(
            secure,
            Some(config),
            router.clone(),
            tasks.clone(),
            limits.clone(),
        ),
    );
    tasks.spawn(
        "plain",
        serve_http(plain, None, router, tasks.clone(), limits),
    );

    let get = b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(leaf.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(crate::trust::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tls = within(raw_tls_to(secure_at, "phones.example", client))
            .await
            .unwrap();
        tls.write_all(get).await.unwrap();
        let mut answer = String::new();
        drop(within(tls.read_to_string(&mut answer)).await);
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
    }
    let mut tcp = TcpStream::connect(plain_at).await.unwrap();
    tcp.write_all(get).await.unwrap();
    let mut answer = String::new();
    within(tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"),
        "{answer}"
    );

    // Half a request does not hold a connection for ever.
    let mut tcp = TcpStream::connect(plain_at).await.unwrap();
    tcp.write_all(b"GET /who HT").await.unwrap();
    let mut rest = Vec::new();
    drop(within(tcp.read_to_end(&mut rest)).await);
    within(tasks.shut_down(Duration::from_secs(10))).await;
}

async fn watch(client: &mut Client) -> tonic::Streaming<pb::WatchResponse> {
    let mut stream = within(client.watch(pb::WatchRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(within(stream.message()).await.unwrap().is_some());
    stream
}

fn rustls_client(tokyo: &Tokyo, own: &Leaf) -> rustls::ClientConfig {
    let trust = TrustStore::new(Some(own.identity()), Clock::system());
    trust
        .publish_bundles(vec![pinned("tokyo", &tokyo.leaf)])
        .unwrap();
    trust
        .snapshot()
        .client_config(&cluster("tokyo"), VerdictSlot::default())
        .unwrap()
}

type Bytes = http_body_util::Full<bytes::Bytes>;

/// A gRPC message without fields.
fn empty_message() -> Bytes {
    http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]))
}

/// HTTP/2 and nothing of gRPC.
async fn bare_client(tokyo: &Tokyo, own: &Leaf) -> hyper::client::conn::http2::SendRequest<Bytes> {
    let tls = within(raw_tls(tokyo.address, rustls_client(tokyo, own)))
        .await
        .unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(tls));
    let (sender, connection) = within(handshake).await.unwrap();
    tokyo.tasks.spawn("client", connection);
    sender
}

async fn raw_tls(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    raw_tls_to(address, "tokyo", config).await
}

async fn raw_tls_to(
    address: SocketAddr,
    name: &'static str,
    config: rustls::ClientConfig,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::DnsName(DnsName::try_from(name).unwrap());
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

#[test]
fn a_verdict_that_moves_to_another_peer_does_not_agree() {
    let (berlin, tokyo) = (
        Verdict::Peer(cluster("berlin")),
        Verdict::Peer(cluster("tokyo")),
    );
    assert!(berlin.agrees_with(&berlin.clone()));
    assert!(!berlin.agrees_with(&tokyo));
}
