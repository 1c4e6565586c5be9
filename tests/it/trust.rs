//! Who may speak for whom: refusals as both operators read them, clusters under one authority, false claims, users
//! claimed twice or by one alone, and certificates swapped while everything runs.

use std::{sync::Arc, time::Duration};

use emccd::{
    clock::{Clock, Timestamp},
    domain::rejection::Rejection,
    lab::{
        Cluster, Lab, Spec,
        member::Versions,
        phone::Shown,
        proxy::{Mode, Proxy},
    },
    tasks::Tasks,
    trust::make::{self, Authority, CertRequest, KeyKind, Made, Usage},
    wire::{admin as pb, pb as wire, status::rejection_from_status},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    self, DAY_MILLIS, days_from_now, lab, living, pin,
    raw_peer::{self, call, call_as, client_showing, client_showing_none, peer_client},
    rows::rows,
    tls::identity_made,
};

mod anchors;
mod breakglass;
pub(crate) mod claims;
mod crl;
mod expiry;
mod explain;
mod identities;
mod openssl;
mod refusals;
mod swaps;
mod table;
mod typed;

fn now() -> Timestamp {
    Clock::system().now()
}

/// Clusters that run and don't know each other yet.
async fn strangers(clusters: usize, settings: &[(&str, &str)]) -> Lab {
    let settings = settings
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    let spec = Spec {
        clusters,
        paired: false,
        settings,
        ..Spec::default()
    };
    Lab::start(&spec).await.unwrap()
}

fn record(id: &str, addresses: Vec<String>, node_names: &[&str]) -> pb::Cluster {
    pb::Cluster {
        cluster_id: id.to_owned(),
        enabled: true,
        allow_emcc: true,
        addresses,
        node_names: node_names.iter().map(|name| (*name).to_owned()).collect(),
        ..pb::Cluster::default()
    }
}

/// Adds a peer that is trusted by one kind of entry.
async fn add(us: &Cluster, cluster: pb::Cluster, kind: &str, pem: &str) -> Result<(), String> {
    let trust = pb::TrustMaterial {
        kind: kind.to_owned(),
        certificates: pem.as_bytes().to_vec(),
    };
    let request = pb::AddClusterRequest {
        cluster: Some(cluster),
        trust: Some(trust),
    };
    let added = us.admin().await.unwrap().add_cluster(request).await;
    added.map(drop).map_err(|error| error.to_string())
}

/// Another certificate for the first node, from its own authority.
fn another(cluster: &Cluster) -> Made {
    let node = &cluster.member().unwrap().name;
    cluster
        .authority
        .sign(&cluster.authority.request(node))
        .unwrap()
}

/// Writes the certificate into the node's files and puts it in force; says why when that is refused.
async fn swap(cluster: &Cluster, made: &Made) -> Result<pb::ReloadIdentitiesResponse, String> {
    cluster.member().unwrap().install(made).unwrap();
    reload(cluster).await
}

async fn reload(cluster: &Cluster) -> Result<pb::ReloadIdentitiesResponse, String> {
    let mut admin = cluster.admin().await.unwrap();
    let reloaded = admin.reload(pb::ReloadIdentitiesRequest {}).await;
    reloaded.map_err(|error| error.to_string())
}

/// What the node shows to other clusters.
async fn shown_by(cluster: &Cluster) -> pb::Identity {
    let mut admin = cluster.admin().await.unwrap();
    let all = admin
        .identities(pb::ListIdentitiesRequest {})
        .await
        .unwrap()
        .identities;
    all.into_iter()
        .find(|identity| identity.purpose == "federation")
        .unwrap()
}

fn fingerprint(identity: &pb::Identity) -> &str {
    identity
        .certificate
        .as_ref()
        .map_or("none", |c| &*c.fingerprint)
}

/// The same node again; its connections are new.
async fn restart(cluster: &mut Cluster) {
    let member = cluster.member_mut().unwrap();
    member.stop().await;
    member.start(&Versions::default()).await.unwrap();
}

/// Both are linked, and both know it of the other one: its word follows its link.
async fn linked(a: &Cluster, b: &Cluster) {
    for (us, them) in [(a, b), (b, a)] {
        us.wait_linked(&them.id).await.unwrap();
        let is_so = |peer: &pb::PeerStatus| {
            let word = peer.inbound.as_ref().map(|seen| &seen.peer_down_reason);
            word.is_some_and(Option::is_none)
        };
        us.wait_status(&them.id, "told that all is well", is_so)
            .await
            .unwrap();
    }
}

async fn door(cluster: &Cluster) -> Vec<pb::DoorRefusal> {
    let mut admin = cluster.admin().await.unwrap();
    admin
        .status(pb::GetClusterStatusRequest {})
        .await
        .unwrap()
        .refusals
}

/// Waits until `us` has given up on `them` for that reason, and gives what the operator of `us` reads.
async fn rejected(us: &Cluster, them: &Cluster, rejection: Rejection) -> pb::OutboundStatus {
    let is_so = |peer: &pb::PeerStatus| {
        let told = peer.outbound.as_ref().and_then(|o| o.rejection.as_deref());
        told == Some(rejection.as_str())
    };
    let seen = us
        .wait_status(&them.id, rejection.as_str(), is_so)
        .await
        .unwrap();
    let outbound = seen.outbound.unwrap();
    assert_eq!(outbound.state, "down");
    // A reason without something to type about it is half of one.
    assert!(
        outbound
            .hint
            .as_ref()
            .is_some_and(|hint| hint.contains("emccd ")),
        "{outbound:?}"
    );
    outbound
}

/// The phone page for a user of `home` on the first phone of `visiting`.
async fn log_in(home: &Cluster, user: usize, visiting: &Cluster) -> Shown {
    support::log_in_at(home, user, visiting, 0).await
}

/// What a phone shows to a name and a PIN; `login_type` empty for none.
async fn enter(visiting: &Cluster, login_type: &str, name: &str, pin: &str) -> Shown {
    let device = &visiting.data.phone(0).unwrap().name;
    let login_type = emccd::domain::login::LoginType::ALL
        .into_iter()
        .find(|known| known.as_str() == login_type);
    let phone = visiting.member().unwrap().phone().unwrap();
    phone
        .login_at_once(device, login_type, name, pin)
        .await
        .unwrap()
}

async fn log_out(visiting: &Cluster) {
    let shown = support::log_out(visiting, 0).await;
    assert_eq!(shown.headline(), "Logout successful", "{}", shown.body);
}

async fn works(home: &Cluster, visiting: &Cluster) {
    let shown = log_in(home, 0, visiting).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(visiting).await;
}

fn hello(claimed: &str) -> wire::HelloRequest {
    wire::HelloRequest {
        cluster_id: claimed.to_owned(),
        ..wire::HelloRequest::default()
    }
}

/// The refusal is EM code 42, in all the ways in which it is written on the wire.
fn is_42(status: &Status) {
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (&*info.domain, &*info.reason),
        ("emcc", "INVALID_CLUSTER_ID")
    );
    assert_eq!(info.metadata.get("em_code").map(String::as_str), Some("42"));
    assert!(info.metadata.contains_key("ref"), "{info:?}");
    assert!(status.message().contains("identifies"), "{status:?}");
}

/// The refusal names this reason, the caller's own fingerprint and our time, and nothing of what we expect.
fn is_rejected(status: &Status, rejection: Rejection, shown: &Made) {
    assert_eq!(rejection_from_status(status), Some(rejection), "{status:?}");
    assert_eq!(status.code(), Code::Unauthenticated);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        info.metadata.get("fingerprint"),
        Some(&shown.fingerprint_text())
    );
    assert!(info.metadata.contains_key("time"), "{info:?}");
    assert_eq!(info.metadata.len(), 2, "{info:?}");
    assert_eq!(
        status.message(),
        format!(
            "this connection identifies no peer: {rejection}: {}",
            rejection.meaning()
        )
    );
}

/// The door's own record of it, with what would have been accepted and what mends it.
fn is_recorded(door: &[pb::DoorRefusal], side: &str, rejection: Rejection, shown: &Made) {
    let print = shown.fingerprint_text();
    let found = door.iter().find(|refusal| {
        refusal.side == side
            && refusal.rejection == rejection.as_str()
            && refusal.fingerprint.as_ref() == Some(&print)
    });
    let found = found.unwrap_or_else(|| panic!("no {rejection} of the {side} {print}: {door:#?}"));
    assert!(found.subject.is_some() && found.not_before.is_some() && found.not_after.is_some());
    assert!(
        !found.expectation.is_empty() && found.hint.contains("emccd "),
        "{found:?}"
    );
}

/// A server that shows a certificate, and nothing more.
async fn server_showing(made: &Made) -> (String, Tasks) {
    server_of(made, &rustls::version::TLS13).await
}

/// The same with another version of TLS.
async fn server_of(
    made: &Made,
    version: &'static rustls::SupportedProtocolVersion,
) -> (String, Tasks) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = identity_made(made);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = Tasks::default();
    let stop = serving.token();
    serving.spawn("server", async move {
        while let Some(Ok((tcp, _))) = stop.run_until_cancelled(listener.accept()).await {
            // The caller ends the handshake, or not; either way there is nothing to serve.
            let _ended = acceptor.accept(tcp).await;
        }
    });
    (address, serving)
}
