//! Dialling a cluster that is no peer: to join it, and to look whether its nodes are where it says.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    domain::{address::HostPort, pairing::ToldAddress},
    pairing::{
        proof::{EXPORTER_LABEL, View},
        told,
    },
    trust::{
        self, Snapshot,
        certificate::{Fingerprint, fingerprint_of, fingerprint_text},
        joining::{ALPN_JOIN, joining, looking},
    },
    wire::join::join_service_client::JoinServiceClient,
};

/// How long each step on the way may take.
const STEP: Duration = Duration::from_secs(3);
/// How many addresses are looked at at a time.
const LOOKS: usize = 4;

/// Why nobody was reached at an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// We have nothing to show.
    #[error("this node has no usable identity")]
    NoIdentity(#[from] trust::Error),
    /// The name leads nowhere.
    #[error("the name leads nowhere: {0}")]
    Unresolved(io::Error),
    /// Nobody is there.
    #[error("{0}")]
    Unreachable(io::Error),
    /// Somebody is, and does not answer.
    #[error("it does not answer within 3 s")]
    Silent,
    /// No invitation is open there.
    #[error("it is not open to anybody who joins")]
    Closed,
    /// It is something else.
    #[error("it does not speak TLS 1.3 as the nodes of clusters do: {0}")]
    Tls(io::Error),
}

/// One connection to a cluster that may be the one that invited.
pub(super) struct Reached {
    /// Calls over it; it is never dialled again.
    pub(super) client: JoinServiceClient<Channel>,
    /// The connection, as we see it.
    pub(super) view: View,
    /// Where it leads.
    pub(super) remote: SocketAddr,
}

/// Dials an address to join.
pub(super) async fn join(snapshot: &Snapshot, address: &HostPort) -> Result<Reached, Failed> {
    let config = joining(snapshot)?;
    let own = snapshot.client_identity().ok_or(trust::Error::NoIdentity)?;
    let caller_leaf = own.leaf().fingerprint();
    let (tls, remote) = handshake(config, address).await?;
    let (_, session) = tls.get_ref();
    if session.alpn_protocol() != Some(ALPN_JOIN) {
        return Err(Failed::Closed);
    }
    let server_leaf = leaf_of(&tls).ok_or_else(|| Failed::Tls(no_certificate()))?;
    let exporter = session.export_keying_material([0; 32], EXPORTER_LABEL, None);
    let exporter = exporter.map_err(|error| Failed::Tls(io::Error::other(error)))?;
    let client =
        JoinServiceClient::new(channel(tls).await?).max_decoding_message_size(MAX_ANSWER_BYTES);
    Ok(Reached {
        client,
        view: View {
            exporter,
            caller_leaf,
            server_leaf,
        },
        remote,
    })
}

/// All certificates of a large cluster.
const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// Looks at each address that a cluster told: what answers there must show one of its certificates.
pub(super) async fn look_at_all(
    snapshot: &Snapshot,
    addresses: Vec<String>,
    leaves: &[Fingerprint],
) -> Vec<ToldAddress> {
    let looks = addresses.into_iter();
    let looks = looks.map(|address: String| look(snapshot, address, leaves));
    stream::iter(looks).buffered(LOOKS).collect().await
}

async fn look(snapshot: &Snapshot, address: String, leaves: &[Fingerprint]) -> ToldAddress {
    let mut told = ToldAddress {
        address,
        ..ToldAddress::default()
    };
    match seen(snapshot, &told.address).await {
        Ok((leaf, remote)) => {
            told.warning = told::warning(remote.ip()).map(str::to_owned);
            if leaf.is_none_or(|leaf| !leaves.contains(&leaf)) {
                let shown = leaf.as_ref().map(fingerprint_text).unwrap_or_default();
                told.trouble = Some(format!(
                    "what answers there shows none of the certificates that were told (SHA-256 {shown})"
                ));
            }
        }
        Err(failed) => {
            told.trouble = Some(failed.to_string());
            let literal = told.address.parse::<SocketAddr>().ok();
            told.warning = literal
                .and_then(|address| told::warning(address.ip()))
                .map(str::to_owned);
        }
    }
    told
}

async fn seen(
    snapshot: &Snapshot,
    address: &str,
) -> Result<(Option<Fingerprint>, SocketAddr), Failed> {
    let address: HostPort = address
        .parse()
        .map_err(|error| Failed::Unresolved(io::Error::other(error)))?;
    let (tls, remote) = handshake(looking(snapshot)?, &address).await?;
    Ok((leaf_of(&tls), remote))
}

fn leaf_of(tls: &TlsStream<TcpStream>) -> Option<Fingerprint> {
    let chain = tls.get_ref().1.peer_certificates()?;
    chain.first().map(|leaf| fingerprint_of(leaf))
}

fn no_certificate() -> io::Error {
    io::Error::other("it shows no certificate")
}

async fn handshake(
    config: ClientConfig,
    address: &HostPort,
) -> Result<(TlsStream<TcpStream>, SocketAddr), Failed> {
    let host = (address.host.as_str(), address.port);
    let found = timeout(STEP, lookup_host(host)).await;
    let found = found
        .map_err(|_| Failed::Silent)?
        .map_err(Failed::Unresolved)?;
    let mut failed = Failed::Unresolved(io::ErrorKind::NotFound.into());
    // Two are the two families of a name.
    for socket in found.take(2) {
        match timeout(STEP, TcpStream::connect(socket)).await {
            Ok(Ok(tcp)) => {
                let tls = secured(config, address, tcp).await?;
                return Ok((tls, socket));
            }
            Ok(Err(error)) => failed = Failed::Unreachable(error),
            Err(_) => failed = Failed::Silent,
        }
    }
    Err(failed)
}

async fn secured(
    config: ClientConfig,
    address: &HostPort,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, Failed> {
    let name = ServerName::try_from(address.host.clone());
    let name = name.map_err(|error| Failed::Unresolved(io::Error::other(error)))?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    match timeout(STEP, shaken).await {
        Ok(Ok(tls)) => Ok(tls),
        Ok(Err(error)) if is_closed(&error) => Err(Failed::Closed),
        Ok(Err(error)) => Err(Failed::Tls(error)),
        Err(_) => Err(Failed::Silent),
    }
}

/// Whether the other side speaks TLS, and none of what we want to speak over it.
fn is_closed(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(
            AlertDescription::NoApplicationProtocol
        ))
    )
}

async fn channel(tls: TlsStream<TcpStream>) -> Result<Channel, Failed> {
    let once = Arc::new(Mutex::new(Some(TokioIo::new(tls))));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    // With an https URI tonic would insist on TLS of its own; the origin keeps `:scheme` right.
    let endpoint = Endpoint::from_static("http://inviter")
        .origin(Uri::from_static("https://inviter"))
        .http2_max_header_list_size(32 * 1024);
    timeout(STEP, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_| Failed::Silent)?
        .map_err(|error| Failed::Unreachable(io::Error::other(error)))
}
