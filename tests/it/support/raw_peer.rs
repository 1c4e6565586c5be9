//! A peer without a daemon: a plain gRPC client that shows a cluster's own identity to another cluster, and says
//! what it likes.

use std::{
    io,
    sync::{Arc, Mutex},
};

use emccd::{
    clock::Clock,
    domain::{
        ids::{ClusterId, Ref, SessionId},
        refusal::Refusal,
        version::Version,
    },
    lab::{Cluster, dataset::User},
    trust::{TrustStore, bundle::Bundle, certificate::Certificate, identity::Identity, make::Made},
    wire::{metadata, pb, pb::federation_service_client::FederationServiceClient, status},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Uri},
};
use uuid::Uuid;

use super::tls;

/// The client.
pub(crate) type Client = FederationServiceClient<Channel>;

/// A client that shows `me`'s identity to `them`. It dials again by itself when the other side was restarted.
pub(crate) fn peer_client(me: &Cluster, them: &Cluster) -> Client {
    FederationServiceClient::new(channel(me, them))
}

/// A client that shows any certificate to `them`, also one that no daemon would show. It knows `them` as other
/// programs do: by the authority and the name.
pub(crate) fn client_showing(made: &Made, them: &Cluster) -> Client {
    client_with(Some(tls::identity_made(made)), them)
}

/// The same without any certificate.
pub(crate) fn client_showing_none(them: &Cluster) -> Client {
    client_with(None, them)
}

fn client_with(identity: Option<tls::Identity>, them: &Cluster) -> Client {
    let config = tls::federation_client(them, identity, &[&rustls::version::TLS13]);
    let (connector, address) = (
        TlsConnector::from(Arc::new(config)),
        them.member().unwrap().addresses.federation.clone(),
    );
    let connector = tower::service_fn(move |_: Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://peer").origin(Uri::from_static("https://peer"));
    FederationServiceClient::new(endpoint.connect_with_connector_lazy(connector))
}

/// What the client runs on, for calls that no client would make.
pub(crate) fn channel(me: &Cluster, them: &Cluster) -> Channel {
    let trust = trust(me, them);
    let (address, wanted) = (
        them.member().unwrap().addresses.federation.clone(),
        them.id.clone(),
    );
    let connector = tower::service_fn(move |_: Uri| {
        let (trust, address, wanted) = (trust.clone(), address.clone(), wanted.clone());
        async move { dial(&trust, &address, &wanted).await.map(TokioIo::new) }
    });
    // With an https URI tonic would insist on TLS of its own; the origin keeps `:scheme` right.
    let endpoint = Endpoint::from_static("http://peer").origin(Uri::from_static("https://peer"));
    endpoint.connect_with_connector_lazy(connector)
}

/// What `me` would trust and show, made anew from its files.
fn trust(me: &Cluster, them: &Cluster) -> TrustStore {
    let (me, them_node) = (me.member().unwrap(), them.member().unwrap());
    let identity = Identity::from_files(&me.federation_certificate, &me.federation_key).unwrap();
    let pem = std::fs::read(&them_node.federation_certificate).unwrap();
    let trust = TrustStore::new(Some(identity), Clock::system());
    let pinned = Certificate::read_all(&pem).unwrap();
    trust
        .publish_bundles(vec![Bundle {
            pinned,
            ..Bundle::new(them.id.clone())
        }])
        .unwrap();
    trust
}

async fn dial(
    trust: &TrustStore,
    address: &str,
    wanted: &ClusterId,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let verdict = Arc::new(Mutex::new(None));
    let config = trust
        .snapshot()
        .client_config(wanted, verdict)
        .map_err(io::Error::other)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// A call with the metadata that a peer sends.
pub(crate) fn call<M>(me: &Cluster, message: M) -> Request<M> {
    call_as(&me.id, message)
}

/// The same with whatever cluster ID.
pub(crate) fn call_as<M>(claimed: &ClusterId, message: M) -> Request<M> {
    let mut request = Request::new(message);
    metadata::write(
        request.metadata_mut(),
        claimed,
        Version::V1_1,
        Ref::from_bits(rand::random()),
    );
    request
}

/// A new session id.
pub(crate) fn new_id() -> SessionId {
    SessionId::from_uuid(Uuid::now_v7())
}

/// A login of `user` by user ID on the phone `device`.
pub(crate) fn login(id: SessionId, user: &User, device: &str) -> pb::LoginRequest {
    let mut request = pb::LoginRequest::default();
    request.session_id = id.as_bytes().to_vec();
    request.login_type = pb::LoginType::Uid.into();
    request.name.clone_from(&user.user_id);
    request.pin.clone_from(&user.pin);
    request.device = Some(pb::Device {
        name: device.to_owned(),
        model: "CP-8841".to_owned(),
        protocol: "SIP".to_owned(),
        ..pb::Device::default()
    });
    request
}

/// The end of a session that the caller holds as visiting.
pub(crate) fn logout(id: SessionId) -> pb::LogoutRequest {
    pb::LogoutRequest {
        session_id: id.as_bytes().to_vec(),
        reason: pb::EndReason::User.into(),
        initiator: pb::Initiator::Visiting.into(),
    }
}

/// What a status means, as a daemon would read it.
pub(crate) fn refusal(status: &Status, from: &Cluster) -> Refusal {
    status::from_status(status, &from.id)
}
