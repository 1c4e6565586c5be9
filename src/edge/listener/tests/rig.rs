//! A listening tokyo, and clients of all sorts.

use super::*;

pub(super) type Stream<T> =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// Answers `Hello` with the peer it sees, `FindUser` never, `Watch` with one message and then silence.
#[derive(Clone, Default)]
pub(super) struct Echo {
    pub(super) seen: Arc<Mutex<Vec<ConnIdentity>>>,
    /// How many `FindUser` have begun.
    pub(super) finding: Arc<std::sync::atomic::AtomicUsize>,
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

    async fn announce(
        &self,
        _: Request<pb::AnnounceRequest>,
    ) -> Result<Response<pb::AnnounceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type SyncSessionsStream = Stream<pb::SyncSessionsResponse>;

    async fn sync_sessions(
        &self,
        _: Request<tonic::Streaming<pb::SyncSessionsRequest>>,
    ) -> Result<Response<Self::SyncSessionsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn logout(
        &self,
        _request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

pub(super) type Client = pb::federation_service_client::FederationServiceClient<Channel>;

/// A listening tokyo.
pub(super) struct Tokyo {
    pub(super) trust: TrustStore,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) address: SocketAddr,
    pub(super) leaf: Leaf,
    pub(super) echo: Echo,
}

impl Tokyo {
    pub(super) async fn start(bundles: Vec<Bundle>) -> Self {
        Self::start_with(bundles, Config::default()).await
    }

    pub(super) async fn start_with(bundles: Vec<Bundle>, config: Config) -> Self {
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
    pub(super) fn client(&self, own: &Leaf) -> Client {
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
    pub(super) fn client_with(&self, config: rustls::ClientConfig) -> Client {
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
    pub(super) fn careless_client(&self, shown: Option<&Leaf>) -> Client {
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

    pub(super) async fn refusal(&self, wanted: Rejection) -> Refused {
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

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), future)
        .await
        .expect("took too long")
}

pub(super) async fn hello(client: &mut Client) -> Result<String, Status> {
    let answered = within(client.hello(pb::HelloRequest::default())).await;
    answered.map(|response| response.into_inner().cluster_id)
}

/// The reason that a call is refused for. One that races with the end of a connection may just be cut.
pub(super) async fn rejected_hello(client: &mut Client) -> Rejection {
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

pub(super) fn without(id: &str, bundles: &[Bundle]) -> Vec<Bundle> {
    let id = ClusterId::new(id).unwrap();
    bundles
        .iter()
        .filter(|bundle| bundle.cluster != id)
        .cloned()
        .collect()
}

/// What the other side says until it ends the connection.
pub(super) async fn told(tcp: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = within(tcp.read(&mut chunk)).await {
        rest.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(rest).unwrap()
}

pub(super) async fn watch(client: &mut Client) -> tonic::Streaming<pb::WatchResponse> {
    let mut stream = within(client.watch(pb::WatchRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(within(stream.message()).await.unwrap().is_some());
    stream
}

pub(super) fn rustls_client(tokyo: &Tokyo, own: &Leaf) -> rustls::ClientConfig {
    let trust = TrustStore::new(Some(own.identity()), Clock::system());
    trust
        .publish_bundles(vec![pinned("tokyo", &tokyo.leaf)])
        .unwrap();
    trust
        .snapshot()
        .client_config(&cluster("tokyo"), VerdictSlot::default())
        .unwrap()
}

pub(super) type Bytes = http_body_util::Full<bytes::Bytes>;

/// A gRPC message without fields.
pub(super) fn empty_message() -> Bytes {
    http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]))
}

/// HTTP/2 and nothing of gRPC.
pub(super) async fn bare_client(
    tokyo: &Tokyo,
    own: &Leaf,
) -> hyper::client::conn::http2::SendRequest<Bytes> {
    let tls = within(raw_tls(tokyo.address, rustls_client(tokyo, own)))
        .await
        .unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(tls));
    let (sender, connection) = within(handshake).await.unwrap();
    tokyo.tasks.spawn("client", connection);
    sender
}

pub(super) async fn raw_tls(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    raw_tls_to(address, "tokyo", config).await
}

pub(super) async fn raw_tls_to(
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
