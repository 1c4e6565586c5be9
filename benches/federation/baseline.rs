//! The baselines: the least that the same transports, disk and hash can cost.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use argon2::{Algorithm, Argon2, Params, Version};
use axum::{Router, extract::State, routing::get};
use emccd::{
    credentials,
    domain::ids::ClusterId,
    lab::{authority::ClusterAuthority, phone::Phone},
    store::{self, Store, Transaction, meta},
    wire::pb::{
        self,
        federation_service_client::FederationServiceClient,
        federation_service_server::{FederationService, FederationServiceServer},
    },
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

/// One durable commit, the median of `count` in a row: an insert by itself, on its own connection.
pub(crate) fn durable_commit(folder: &Path, count: usize) -> Result<Duration> {
    let file = folder.join("commit.db");
    let database = rusqlite::Connection::open(file)?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS t (x INTEGER, y TEXT);",
    )?;
    let mut lengths = Vec::with_capacity(count);
    for number in 0..count {
        let began = Instant::now();
        database.execute(
            "INSERT INTO t VALUES (?1, 'a row about as long as a short session row')",
            [i64::try_from(number)?],
        )?;
        lengths.push(began.elapsed());
    }
    lengths.sort_unstable();
    lengths.get(count / 2).copied().context("no commits")
}

/// Argon2id hashes per second on all cores with the shipped settings, memory reused; `each` on every core.
pub(crate) fn argon2id(each: usize) -> Result<f64> {
    let shipped = credentials::Config::default();
    let params = Params::new(
        shipped.memory_kib,
        shipped.iterations,
        shipped.parallelism,
        Some(32),
    )
    .map_err(|e| anyhow::anyhow!("{e}"))?;
    let cores = std::thread::available_parallelism()?.get();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                let params = params.clone();
                scope.spawn(move || {
                    let mut memory = vec![argon2::Block::default(); params.block_count()];
                    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                    let mut output = [0; 32];
                    for _ in 0..each {
                        argon.hash_password_into_with_memory(
                            b"135790",
                            b"sixteen bytes ..",
                            &mut output,
                            memory.as_mut_slice(),
                        )?;
                    }
                    Ok::<_, argon2::Error>(())
                })
            })
            .collect();
        for worker in workers {
            let done = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a hashing thread panicked"))?;
            done.map_err(|e| anyhow::anyhow!("{e}"))?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok((each * cores) as f64 / began.elapsed().as_secs_f64())
}

/// A tonic server over mutual TLS that answers one constant, and a client of it.
pub(crate) struct Echo {
    client: FederationServiceClient<Channel>,
}

impl Echo {
    /// Starts both ends.
    pub(crate) async fn start(folder: &Path) -> Result<Arc<Self>> {
        let client = echo(folder, "echo", Constant { store: None }).await?;
        Ok(Arc::new(Self { client }))
    }

    /// One call.
    pub(crate) async fn call(&self) -> Result<()> {
        let request = pb::FindUserRequest {
            login_type: 0,
            name: "ana.berlin".to_owned(),
        };
        self.client.clone().find_user(Request::new(request)).await?;
        Ok(())
    }
}

/// HTTPS, then an mTLS echo, with the three grouped commits of a login: before the call, behind it, after it.
pub(crate) struct Chain {
    phones: Vec<Phone>,
}

#[derive(Clone)]
struct Near {
    store: Store,
    client: FederationServiceClient<Channel>,
}

impl Chain {
    /// Starts everything.
    pub(crate) async fn start(folder: &Path) -> Result<Arc<Self>> {
        let far = open(folder, "far")?;
        let client = echo(folder, "chain", Constant { store: Some(far) }).await?;
        let authority = ClusterAuthority::create(&ClusterId::new("chain")?, folder)?;
        let made = authority.sign(&authority.request("front"))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                certificates(made.certificate_pem.as_bytes())?,
                key(made.key_pem.expose())?,
            )?;
        let router = Router::new().route("/", get(front)).with_state(Near {
            store: open(folder, "near")?,
            client,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("https://{}", listener.local_addr()?);
        serve(listener, config, router);
        let pem = std::fs::read_to_string(&authority.file)?;
        let phones = (0..super::CONCURRENCY)
            .map(|_| Phone::https(&base, &pem))
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { phones }))
    }

    /// One request.
    pub(crate) async fn request(&self, number: usize) -> Result<()> {
        let phone = self
            .phones
            .get(number % self.phones.len())
            .context("no phones")?;
        let shown = phone.raw_get("/").await?;
        ensure!(shown.status == 200, "the chain answered {}", shown.status);
        Ok(())
    }
}

fn open(folder: &Path, name: &str) -> Result<Store> {
    let url = format!("sqlite:{}", folder.join(format!("{name}.db")).display());
    Ok(Store::open(&store::Config {
        url,
        node: name.to_owned(),
    })?)
}

async fn commit(store: &Store) -> Result<(), store::Error> {
    store
        .write(|tx: &mut dyn Transaction| meta::bump(tx, "bench"))
        .await
}

async fn front(State(near): State<Near>) -> Result<&'static str, http::StatusCode> {
    let failed = |_| http::StatusCode::INTERNAL_SERVER_ERROR;
    commit(&near.store).await.map_err(failed)?;
    let request = pb::FindUserRequest {
        login_type: 0,
        name: "ana.berlin".to_owned(),
    };
    near.client
        .clone()
        .find_user(Request::new(request))
        .await
        .map_err(|_| http::StatusCode::BAD_GATEWAY)?;
    commit(&near.store).await.map_err(failed)?;
    Ok("done")
}

/// The constant answer, after a commit where there is a store.
struct Constant {
    store: Option<Store>,
}

#[tonic::async_trait]
impl FederationService for Constant {
    type WatchStream = tokio_stream::Empty<Result<pb::WatchResponse, Status>>;

    async fn find_user(
        &self,
        _: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        if let Some(store) = &self.store {
            commit(store)
                .await
                .map_err(|e| Status::internal(e.to_string()))?;
        }
        Ok(Response::new(pb::FindUserResponse {
            ownership: pb::Ownership::Mine.into(),
        }))
    }

    async fn hello(
        &self,
        _: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn watch(
        &self,
        _: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn login(
        &self,
        _: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn announce(
        &self,
        _: Request<pb::AnnounceRequest>,
    ) -> Result<Response<pb::AnnounceResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    type SyncSessionsStream = tokio_stream::Empty<Result<pb::SyncSessionsResponse, Status>>;

    async fn sync_sessions(
        &self,
        _: Request<tonic::Streaming<pb::SyncSessionsRequest>>,
    ) -> Result<Response<Self::SyncSessionsStream>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn logout(
        &self,
        _: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_slice(pem)?)
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

/// A mutual-TLS server of `service`, and a client connected to it.
async fn echo(
    folder: &Path,
    name: &str,
    service: Constant,
) -> Result<FederationServiceClient<Channel>> {
    let folder = folder.join(format!("{name}-ca"));
    std::fs::create_dir_all(&folder)?;
    let authority = ClusterAuthority::create(&ClusterId::new(name)?, &folder)?;
    let made = authority.sign(&authority.request("server"))?;
    let ca = std::fs::read(&authority.file)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&ca)?, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(made.certificate_pem.as_bytes())?,
            key(made.key_pem.expose())?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = tonic::service::Routes::new(FederationServiceServer::new(service));
    serve(listener, config, routes.prepare().into_axum_router());
    let client = authority.sign(&authority.request("client"))?;
    let channel = connect(
        address,
        &ca,
        client.certificate_pem.as_bytes(),
        client.key_pem.expose(),
    )
    .await?;
    Ok(FederationServiceClient::new(channel))
}

/// A gRPC channel over mutual TLS.
pub(crate) async fn connect(
    address: SocketAddr,
    ca: &[u8],
    certificate: &[u8],
    private_key: &[u8],
) -> Result<Channel> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certificates(certificate)?, key(private_key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(Endpoint::from_static("http://localhost")
        .connect_with_connector(connect)
        .await?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a baseline is no node: it ends with the process"
)]
fn serve(listener: TcpListener, config: ServerConfig, router: Router) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let _no_delay = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let connection = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ended = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}
