//! What a peer accepts of ours is seen before a handshake fails, with the command that mends it.

use super::*;

fn first(peer: &pb::PeerStatus) -> pb::OurCertificate {
    peer.our_certificates.first().cloned().unwrap_or_default()
}

#[tokio::test]
async fn what_the_peer_accepts_is_seen_at_the_other_side_before_a_handshake_fails() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    let old = Held::shown_by(tokyo);
    let told = tokyo
        .wait_status(&berlin.id, "told what is accepted", |peer| {
            first(peer).standing == "accepted"
        })
        .await
        .unwrap();
    let shown = first(&told);
    assert_eq!(shown.fingerprint, fingerprint_text(&old.fingerprint()));
    assert_eq!((&*shown.purpose, shown.note), ("federation", None));
    assert!(shown.until.is_some());
    assert_eq!(told.accepts_otherwise, Vec::<String>::new());

    let hello = wire::HelloRequest {
        cluster_id: tokyo.id.to_string(),
        ..wire::HelloRequest::default()
    };
    let answer = peers.client.hello(call(tokyo, hello)).await.unwrap();
    assert!(answer.into_inner().trust_sequence > 0);

    // The next one is announced, waits, and is shown too early.
    peers
        .set(|r| r.accept_announcements = Some("approve".to_owned()))
        .await;
    let made = another("t-next", KeyKind::P256);
    let next = Held::made(&made, Some(old.fingerprint()));
    let answer = peers.announce(2, &[&old, &next]).await.unwrap();
    assert_eq!(outcomes(&answer)[1], Outcome::Waiting);
    let fingerprint = fingerprint_text(&next.fingerprint());
    tokyo
        .wait_status(&berlin.id, "told what waits", |peer| {
            let mut accepted = peer.accepted.iter();
            accepted.any(|a| a.kind == "waiting" && a.fingerprint == fingerprint)
        })
        .await
        .unwrap();
    tokyo.member().unwrap().install(&made).unwrap();
    let mut admin = tokyo.admin().await.unwrap();
    admin
        .reload(pb::ReloadIdentitiesRequest::default())
        .await
        .unwrap();
    let waits = tokyo
        .wait_status(&berlin.id, "told that it waits", |peer| {
            first(peer).standing == "waiting"
        })
        .await
        .unwrap();
    let hint = first(&waits).hint.unwrap();
    let command = format!("emccd trust accept tokyo --fingerprint {fingerprint}");
    assert!(hint.ends_with(&command), "{hint}");

    // The operator who has to agree sees it as well.
    let mut admin = berlin.admin().await.unwrap();
    let request = pb::GetClusterStatusRequest {};
    let status = admin.status(request).await.unwrap();
    let of_tokyo = status.peers.iter().find(|p| p.cluster_id == "tokyo");
    assert_eq!(of_tokyo.unwrap().waiting, 1);

    // What the hint says mends it.
    peers.decide(Some(&next), false).await.unwrap();
    tokyo.wait_linked(&berlin.id).await.unwrap();
    berlin.wait_linked(&tokyo.id).await.unwrap();
    tokyo
        .wait_status(&berlin.id, "told that it is accepted", |peer| {
            first(peer).standing == "accepted" && first(peer).fingerprint == fingerprint
        })
        .await
        .unwrap();
    lab.shut_down().await;
}
