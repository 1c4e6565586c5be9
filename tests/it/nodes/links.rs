//! Links that only one node of a cluster has: the others know of them, show them, and go by them.

use std::time::Duration;

use emccd::{
    lab::{Cluster, Lab, Spec},
    wire::admin as pb,
};

use crate::support::{log_in, log_out, set_parameter as set, until_living};

const HOME: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

/// How soon a cluster hears of an end that some node can tell it.
const SOON: Duration = Duration::from_secs(2);

/// Has `us` know one node of `them` only: its address, and its certificate.
async fn trust_one(us: &Cluster, them: &Cluster, node: usize) {
    let member = &them.members[node];
    let request = pb::AddClusterRequest {
        cluster: Some(pb::Cluster {
            cluster_id: them.id.to_string(),
            enabled: true,
            allow_emcc: true,
            addresses: vec![member.addresses.federation.clone()],
            ..pb::Cluster::default()
        }),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: std::fs::read(&member.federation_certificate).unwrap(),
        }),
    };
    us.admin()
        .await
        .unwrap()
        .add_cluster(request)
        .await
        .unwrap();
}

fn own<'a>(peer: &'a pb::PeerStatus, home: &Cluster, node: usize) -> &'a pb::OwnLink {
    let name = &home.members[node].name;
    peer.own_links.iter().find(|own| own.node == *name).unwrap()
}

/// The first phone's cluster knows only home's second node, the second phone's only its first one, which then decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_by_the_link_that_only_the_other_one_has() {
    let mut lab = Lab::start(&Spec {
        clusters: 3,
        nodes: 2,
        paired: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    let (home, first, second) = (
        &lab.clusters[HOME],
        &lab.clusters[FIRST],
        &lab.clusters[SECOND],
    );
    for other in [first, second] {
        home.trust(other).await.unwrap();
    }
    trust_one(first, home, 1).await;
    trust_one(second, home, 0).await;
    for visiting in [first, second] {
        let up = |peer: &pb::PeerStatus| peer.outbound.as_ref().is_some_and(|o| o.state == "up");
        visiting.wait_status(&home.id, "up", up).await.unwrap();
    }
    // Both nodes say the same of each other, and of themselves.
    let seen = |peer: &pb::PeerStatus| {
        own(peer, home, 0).state == "down" && own(peer, home, 1).state == "up"
    };
    for member in &home.members {
        let mut admin = member.admin().await.unwrap();
        let peer = admin
            .wait_status(&first.id, "up at the second node alone", seen)
            .await
            .unwrap();
        for (node, own) in peer.own_links.iter().enumerate() {
            assert_eq!(
                own.answers,
                home.members[node].name == member.name,
                "{own:?}"
            );
            assert_eq!(own.reason.is_some(), node == 0, "{own:?}");
        }
        let status = admin.status(pb::GetClusterStatusRequest {}).await.unwrap();
        assert_eq!(status.node, member.name);
        assert!(status.nodes.len() == 2 && status.nodes.iter().all(|node| node.lives));
    }

    // The user moves from the first phone to the second: the node that decides can't tell the first one's cluster, and
    // the other one does.
    set(home, "multiple-login-behavior", "auto-logout").await;
    set(home, "multiple-login-unreachable", "refuse").await;
    let shown = log_in(&lab, HOME, 0, FIRST, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    let shown = log_in(&lab, HOME, 0, SECOND, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    until_living(&lab, FIRST, 0, SOON).await;

    // No living node of home is linked to it any more: the setting decides.
    let shown = log_out(second, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    let shown = log_in(&lab, HOME, 0, FIRST, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    lab.clusters[HOME].members[1].stop().await;
    let home = &lab.clusters[HOME];
    let alone = |peer: &pb::PeerStatus| peer.own_links.len() == 1;
    let first = lab.clusters[FIRST].id.clone();
    home.wait_status(&first, "one node of ours", alone)
        .await
        .unwrap();
    let shown = log_in(&lab, HOME, 0, SECOND, 0).await;
    assert_eq!(shown.em_code, Some(25), "{}", shown.text);
    set(home, "multiple-login-unreachable", "take-over").await;
    let shown = log_in(&lab, HOME, 0, SECOND, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    lab.shut_down().await;
}
