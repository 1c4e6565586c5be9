//! Clusters that become peers while a new certificate is shown: they are given that one, or still the one from before,
//! and either way the link comes up, they learn what they don't know, and the old one can go.

use std::collections::BTreeSet;

use emccd::{
    lab::{Cluster, Lab, Spec},
    wire::admin as pb,
};

use super::operator::{self, Named, accepted, shown, until, until_agreed};

/// `at` adds `of` and trusts this certificate.
async fn add(at: &Cluster, of: &Cluster, pem: String) {
    let addresses = of
        .members
        .iter()
        .map(|m| m.addresses.federation.to_string());
    let request = pb::AddClusterRequest {
        cluster: Some(pb::Cluster {
            cluster_id: of.id.to_string(),
            enabled: true,
            allow_emcc: true,
            addresses: addresses.collect(),
            ..pb::Cluster::default()
        }),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: pem.into_bytes(),
        }),
    };
    at.admin()
        .await
        .unwrap()
        .add_cluster(request)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_becomes_a_peer_meanwhile_is_linked_and_learns_what_it_does_not_know() {
    let lab = Lab::start(&Spec {
        clusters: 4,
        paired: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    operator::hurry(&lab).await;
    let [berlin, tokyo, third, fourth] = &lab.clusters[..] else {
        panic!("four clusters");
    };
    berlin.trust(tokyo).await.unwrap();
    tokyo.trust(berlin).await.unwrap();
    berlin.wait_linked(&tokyo.id).await.unwrap();
    let here = berlin.member().unwrap();
    let old = shown(here).await;
    operator::announce(here).await;
    until("it is activated", async || {
        operator::activate(here, Named::Nobody).await
    })
    .await;
    let new = until("the new one is shown", async || match shown(here).await {
        now if now == old => Err(now),
        now => Ok(now),
    })
    .await;

    // One is given what is shown, the other what lies in the configured file until the old one goes.
    add(third, berlin, operator::next_certificate(here)).await;
    fourth.trust(berlin).await.unwrap();
    berlin.trust(third).await.unwrap();
    berlin.trust(fourth).await.unwrap();
    let both = BTreeSet::from([old, new.clone()]);
    for late in [third, fourth] {
        berlin.wait_linked(&late.id).await.unwrap();
        late.wait_linked(&berlin.id).await.unwrap();
        until("it has both", async || match accepted(late, berlin).await {
            has if has == both => Ok(()),
            has => Err(format!("{has:?}")),
        })
        .await;
    }
    until("it may be retired", async || {
        operator::may_retire(here).await
    })
    .await;
    operator::retire(here).await.unwrap();
    until("the rotation is over", async || {
        operator::nothing_on_record(here)
    })
    .await;
    assert_eq!(shown(here).await, new);
    for peer in [tokyo, third, fourth] {
        until_agreed(peer, berlin, &BTreeSet::new()).await;
        berlin.wait_linked(&peer.id).await.unwrap();
        peer.wait_linked(&berlin.id).await.unwrap();
    }
    lab.shut_down().await;
}
