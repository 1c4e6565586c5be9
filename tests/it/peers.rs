//! A peer's record and its trust, changed while its link lives.

use std::time::Duration;

use emccd::{
    lab::{Lab, Spec, member::Versions},
    wire::admin as pb,
};
use tokio::time::timeout;

use crate::support;

fn state(peer: &pb::PeerStatus) -> &str {
    peer.outbound.as_ref().map_or("", |o| &*o.state)
}

fn watching(peer: &pb::PeerStatus) -> bool {
    peer.inbound.as_ref().is_some_and(|i| i.watching)
}

async fn set(lab: &Lab, at: usize, request: pb::SetClusterRequest) -> Vec<String> {
    let mut admin = lab.clusters[at].admin().await.unwrap();
    let cluster_id = lab.clusters[1 - at].id.to_string();
    let request = pb::SetClusterRequest {
        cluster_id,
        ..request
    };
    admin.set_cluster(request).await.unwrap().changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_switched_off_and_on_and_led_astray_and_back() {
    let lab = support::lab(2).await;
    let (here, there) = (&lab.clusters[0], &lab.clusters[1].id);
    let enabled = |enabled| pb::SetClusterRequest {
        enabled: Some(enabled),
        ..pb::SetClusterRequest::default()
    };
    assert_eq!(set(&lab, 0, enabled(false)).await, ["enabled"]);
    let off = here
        .wait_status(there, "disabled", |p| state(p) == "disabled")
        .await
        .unwrap();
    assert!(!off.enabled);
    assert!(set(&lab, 0, enabled(false)).await.is_empty());
    assert_eq!(set(&lab, 0, enabled(true)).await, ["enabled"]);
    here.wait_status(there, "up", |p| state(p) == "up" && watching(p))
        .await
        .unwrap();

    let addresses = |values: Vec<String>| pb::SetClusterRequest {
        addresses: Some(pb::TextList { values }),
        ..pb::SetClusterRequest::default()
    };
    let good = off.outbound.unwrap().address;
    let good = match good {
        Some(address) => address,
        None => here
            .wait_status(there, "up", |p| state(p) == "up")
            .await
            .unwrap()
            .outbound
            .unwrap()
            .address
            .unwrap(),
    };
    // Nobody listens on port 1.
    set(&lab, 0, addresses(vec!["127.0.0.1:1".to_owned()])).await;
    here.wait_status(there, "down", |p| state(p) == "down")
        .await
        .unwrap();
    set(&lab, 0, addresses(vec![good])).await;
    here.wait_status(there, "up", |p| state(p) == "up")
        .await
        .unwrap();
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_peer_that_stands_still_is_silent_and_heals() {
    let lab = support::lab_of_processes(2).await;
    let (here, there) = (&lab.clusters[1], &lab.clusters[0]);
    there.member().unwrap().pause().unwrap();
    // First the link seems up, and nobody answers the question; then it is down, for the same reason.
    for state_before in ["up", "down"] {
        here.wait_status(&there.id, state_before, |p| state(p) == state_before)
            .await
            .unwrap();
        let shown = support::log_in(&lab, 0, 0, 1, 0).await;
        assert_eq!(shown.em_code, Some(40), "{state_before}: {shown:?}");
        assert_eq!(support::living(&lab, 1).await, []);
    }
    there.member().unwrap().resume().unwrap();
    let (here_id, there_id) = (&here.id, &there.id);
    here.wait_linked(there_id).await.unwrap();
    there.wait_linked(here_id).await.unwrap();
    let shown = support::log_in(&lab, 0, 0, 1, 0).await;
    assert_eq!(shown.em_code, None, "{shown:?}");
    assert_eq!(support::living(&lab, 0).await.len(), 1);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_that_is_taken_back_ends_the_link_in_both_directions() {
    let lab = support::lab(2).await;
    let (here, there) = (&lab.clusters[0], &lab.clusters[1].id);
    here.wait_status(there, "up", |p| state(p) == "up" && watching(p))
        .await
        .unwrap();
    let mut admin = here.admin().await.unwrap();
    let cluster_id = there.to_string();
    let query = pb::ListTrustRequest {
        cluster_id: Some(cluster_id.clone()),
    };
    let entries = admin.trust(query).await.unwrap().entries;
    assert!(!entries.is_empty());
    for entry in &entries {
        let request = pb::RemoveTrustRequest {
            cluster_id: cluster_id.clone(),
            fingerprint: entry.certificate.as_ref().unwrap().fingerprint.clone(),
            mode: "unlink".to_owned(),
        };
        let removed = admin.remove_trust(request).await.unwrap();
        assert_eq!(removed.removed, std::slice::from_ref(entry));
    }
    let down = here
        .wait_status(there, "cut", |p| state(p) != "up" && !watching(p))
        .await
        .unwrap();
    let outbound = down.outbound.unwrap();
    assert!(outbound.reason.is_some(), "{outbound:?}");
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_start_calls_nobody() {
    let mut lab = Lab::start(&Spec {
        clusters: 2,
        paired: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    // Its peer would be found here.
    let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = peer.local_addr().unwrap().to_string();
    lab.clusters[0]
        .trust_at(&lab.clusters[1], vec![address])
        .await
        .unwrap();
    let (_dialled, _) = peer.accept().await.unwrap();
    lab.clusters[0].member_mut().unwrap().stop().await;
    while let Ok(Ok(_)) = timeout(Duration::from_millis(50), peer.accept()).await {}

    let phones = lab.clusters[0].member().unwrap().addresses.phone.clone();
    let phones = phones.rsplit_once(':').unwrap().1.trim_end_matches('/');
    let phones = ("127.0.0.1", phones.parse::<u16>().unwrap());
    let taken = tokio::net::TcpListener::bind(phones).await.unwrap();
    let member = lab.clusters[0].member_mut().unwrap();
    let refused = member.start(&Versions::default()).await.unwrap_err();
    assert!(
        format!("{refused:#}").contains("phone listener"),
        "{refused:#}"
    );
    let dialled = timeout(Duration::from_millis(700), peer.accept()).await;
    assert!(dialled.is_err(), "{dialled:?}");
    drop(taken);
    // That it would have called is seen when it may.
    member.start(&Versions::default()).await.unwrap();
    timeout(Duration::from_secs(20), peer.accept())
        .await
        .unwrap()
        .unwrap();
    lab.shut_down().await;
}
