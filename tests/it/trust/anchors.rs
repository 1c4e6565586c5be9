//! Several clusters under one authority: the name decides who it is.

use super::*;

fn corporate_authority() -> Authority {
    make::ca(&CertRequest::new(
        "Corporate CA",
        Vec::new(),
        KeyKind::P256,
        now(),
        365,
    ))
    .unwrap()
}

fn corporate(authority: &Authority, names: &[&str]) -> Made {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let request = CertRequest::new(names[0].clone(), names, KeyKind::P256, now(), 30);
    make::signed_by(&request, authority).unwrap()
}

const TOKYO_NAME: &str = "emcc.tokyo.corp.test";
const LIMA_NAME: &str = "emcc.lima.corp.test";

/// Berlin trusts tokyo and lima by the authority that both have their certificates from.
pub(super) async fn under_one_authority() -> (Lab, Authority, Made, Made) {
    let lab = strangers(3, &[]).await;
    let authority = corporate_authority();
    let [berlin, tokyo, lima] = lab.clusters.as_slice() else {
        panic!("three clusters")
    };
    let leaves = [
        corporate(&authority, &[TOKYO_NAME]),
        corporate(&authority, &[LIMA_NAME]),
    ];
    for (them, (leaf, name)) in [tokyo, lima]
        .into_iter()
        .zip(leaves.iter().zip([TOKYO_NAME, LIMA_NAME]))
    {
        swap(them, leaf).await.unwrap();
        them.trust(berlin).await.unwrap();
        let addresses = vec![them.member().unwrap().addresses.federation.clone()];
        // Names are compared as DNS does.
        let cluster = record(them.id.as_str(), addresses, &[&name.to_ascii_uppercase()]);
        add(berlin, cluster, "anchor", &authority.made().certificate_pem)
            .await
            .unwrap();
    }
    linked(berlin, tokyo).await;
    linked(berlin, lima).await;
    let [tokyo_leaf, lima_leaf] = leaves;
    (lab, authority, tokyo_leaf, lima_leaf)
}

#[tokio::test]
async fn under_one_authority_the_name_decides_who_it_is() {
    let (mut lab, authority, tokyo_leaf, lima_leaf) = under_one_authority().await;
    works(&lab.clusters[1], &lab.clusters[0]).await;
    works(&lab.clusters[2], &lab.clusters[0]).await;

    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    // Tokyo's own certificate, in lima's name.
    let mut client = client_showing(&tokyo_leaf, berlin);
    client.hello(call(tokyo, hello("tokyo"))).await.unwrap();
    is_42(&client.hello(call(lima, hello("lima"))).await.unwrap_err());
    // A name of the authority that nobody has here, a certificate without names, and one with both names.
    let nobody = corporate(&authority, &["emcc.oslo.corp.test"]);
    let greedy = corporate(&authority, &[TOKYO_NAME, LIMA_NAME]);
    for (leaf, rejection) in [
        (&nobody, Rejection::WrongName),
        (&greedy, Rejection::Ambiguous),
    ] {
        let refused = client_showing(leaf, berlin)
            .hello(call(lima, hello("lima")))
            .await;
        is_rejected(&refused.unwrap_err(), rejection, leaf);
        is_recorded(&door(berlin).await, "caller", rejection, leaf);
    }
    // The same name from another authority is worth nothing.
    let forged = corporate(&corporate_authority(), &[LIMA_NAME]);
    let refused = client_showing(&forged, berlin)
        .hello(call(lima, hello("lima")))
        .await;
    is_rejected(&refused.unwrap_err(), Rejection::UnknownIssuer, &forged);

    // Lima's node shows what was issued for tokyo.
    let before = rows(lima).await.sessions.len();
    swap(lima, &tokyo_leaf).await.unwrap();
    restart(&mut lab.clusters[2]).await;
    let (berlin, lima) = (&lab.clusters[0], &lab.clusters[2]);
    let seen = rejected(berlin, lima, Rejection::WrongCluster).await;
    let reason = seen.reason.unwrap();
    assert!(reason.contains("trusted for tokyo"), "{reason}");
    let is_told = |peer: &pb::PeerStatus| {
        let reason = peer.outbound.as_ref().and_then(|o| o.reason.clone());
        reason.is_some_and(|reason| reason.contains("the certificate identifies tokyo"))
    };
    let told = lima
        .wait_status(&berlin.id, "told that it is taken for tokyo", is_told)
        .await
        .unwrap();
    let reason = told.outbound.unwrap().reason.unwrap();
    assert!(
        reason.contains("42") && reason.contains("emccd config show"),
        "{reason}"
    );
    let shown = log_in(lima, 0, berlin).await;
    assert_eq!(shown.em_code, Some(208), "{}", shown.body);
    assert_eq!(rows(lima).await.sessions.len(), before);
    // The one whose certificate it is has not noticed.
    works(&lab.clusters[1], berlin).await;

    // A name that berlin was not told of: neither direction, and both know why.
    swap(lima, &nobody).await.unwrap();
    restart(&mut lab.clusters[2]).await;
    let (berlin, lima) = (&lab.clusters[0], &lab.clusters[2]);
    let seen = rejected(berlin, lima, Rejection::WrongName)
        .await
        .reason
        .unwrap();
    assert!(
        seen.contains("we refuse its certificate (wrong_name)"),
        "{seen}"
    );
    assert!(seen.contains("emcc.oslo.corp.test"), "{seen}");
    let told = rejected(lima, berlin, Rejection::WrongName)
        .await
        .reason
        .unwrap();
    assert!(
        told.contains("berlin refuses our certificate (wrong_name)"),
        "{told}"
    );
    is_recorded(&door(berlin).await, "caller", Rejection::WrongName, &nobody);
    is_recorded(
        &door(berlin).await,
        "answerer",
        Rejection::WrongName,
        &nobody,
    );

    swap(lima, &lima_leaf).await.unwrap();
    linked(berlin, lima).await;
    works(lima, berlin).await;
    lab.shut_down().await;
}

async fn distrust(us: &Cluster, them: &Cluster, leaf: &Made) -> pb::RemoveTrustResponse {
    let request = pb::RemoveTrustRequest {
        cluster_id: them.id.to_string(),
        fingerprint: leaf.fingerprint_text(),
        mode: "unlink".to_owned(),
    };
    let mut admin = us.admin().await.unwrap();
    admin.remove_trust(request).await.unwrap()
}

#[tokio::test]
async fn a_leaf_that_was_taken_back_is_revoked_though_an_authority_vouches_for_it() {
    let (lab, _, tokyo_leaf, lima_leaf) = under_one_authority().await;
    let [berlin, tokyo, lima] = lab.clusters.as_slice() else {
        panic!("three clusters")
    };
    // One is pinned besides, the other is vouched for by the authority alone.
    pin(berlin, tokyo, &tokyo_leaf).await;
    for (them, leaf, listed) in [(tokyo, &tokyo_leaf, 1), (lima, &lima_leaf, 0)] {
        let removed = distrust(berlin, them, leaf).await;
        assert_eq!((removed.removed.len(), removed.left), (listed, 1));
        assert!(removed.revoked);
        rejected(berlin, them, Rejection::Revoked).await;
        rejected(them, berlin, Rejection::Revoked).await;
    }
    pin(berlin, lima, &lima_leaf).await;
    linked(berlin, lima).await;
    rejected(berlin, tokyo, Rejection::Revoked).await;
    lab.shut_down().await;
}

/// The rows between `us` and `them`, as `us` has them.
async fn between(us: &Cluster, them: &Cluster) -> Vec<pb::Session> {
    let request = pb::ListSessionsRequest {
        peer: Some(them.id.to_string()),
        include_ended: true,
        ..pb::ListSessionsRequest::default()
    };
    let mut admin = us.admin().await.unwrap();
    admin.sessions(request).await.unwrap().sessions
}

/// Waits until both rows between `us` and `them` are over at `us` since the right to them was lost.
async fn until_revoked(us: &Cluster, them: &Cluster, owed: bool) {
    let what = format!("both sessions are over at {}, owed: {owed}", us.id);
    let is_so =
        |row: &pb::Session| row.end_reason.as_deref() == Some("revoked") && row.owed == owed;
    support::until(Duration::from_secs(30), what, async || {
        let rows = between(us, them).await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        support::holds(rows.iter().all(is_so), &rows)
    })
    .await;
}

#[tokio::test]
async fn with_its_only_authority_a_peer_loses_what_is_shared_and_hears_of_it_when_there_is_one_again()
 {
    let (lab, authority, _, _) = under_one_authority().await;
    let [berlin, tokyo, lima] = lab.clusters.as_slice() else {
        panic!("three clusters")
    };
    for (home, visiting) in [(berlin, tokyo), (tokyo, berlin), (lima, berlin)] {
        let phone = usize::from(home.id == lima.id);
        let shown = support::log_in_at(home, 0, visiting, phone).await;
        assert_eq!(shown.em_code, None, "{}", shown.body);
    }
    let remove = async |mode: &str| {
        let request = pb::RemoveTrustRequest {
            cluster_id: tokyo.id.to_string(),
            fingerprint: authority.made().fingerprint_text(),
            mode: mode.to_owned(),
        };
        berlin.admin().await.unwrap().remove_trust(request).await
    };
    let refused = remove("refuse").await.unwrap_err().to_string();
    assert!(
        refused.contains("the 2 sessions shared with it would end"),
        "{refused}"
    );
    assert!(
        between(berlin, tokyo)
            .await
            .iter()
            .all(|row| row.state == "active")
    );
    let removed = remove("unlink").await.unwrap();
    assert_eq!(
        (removed.left, removed.revoked, removed.sessions),
        (0, false, 2)
    );
    until_revoked(berlin, tokyo, true).await;
    // The authority vouches for another peer still. That its own name is not the one is no reason to end anything.
    rejected(tokyo, berlin, Rejection::WrongName).await;
    assert!(
        between(tokyo, berlin)
            .await
            .iter()
            .all(|row| row.state == "active")
    );
    // Another peer under the same authority keeps what it has.
    assert!(
        between(berlin, lima)
            .await
            .iter()
            .all(|row| row.state == "active")
    );
    let pem = &authority.made().certificate_pem;
    support::trust_more(berlin, &tokyo.id, "anchor", pem).await;
    for (us, them) in [(berlin, tokyo), (tokyo, berlin)] {
        until_revoked(us, them, false).await;
    }
    works(tokyo, berlin).await;
    lab.shut_down().await;
}

#[tokio::test]
async fn what_would_belong_to_two_peers_is_refused_when_it_is_configured() {
    let (lab, authority, tokyo_leaf, _) = under_one_authority().await;
    let berlin = &lab.clusters[0];
    let anchor = &authority.made().certificate_pem;
    let oslo = |names: &[&str]| record("oslo", vec!["127.0.0.1:9".to_owned()], names);
    let named = add(berlin, oslo(&["Emcc.Tokyo.corp.test"]), "anchor", anchor)
        .await
        .unwrap_err();
    assert!(
        named.contains("two peers") && named.contains("tokyo"),
        "{named}"
    );
    let nameless = add(berlin, oslo(&[]), "anchor", anchor).await.unwrap_err();
    assert!(nameless.contains("node names"), "{nameless}");
    let leaf = add(
        berlin,
        oslo(&[TOKYO_NAME]),
        "anchor",
        &tokyo_leaf.certificate_pem,
    )
    .await
    .unwrap_err();
    assert!(leaf.contains("pin it instead"), "{leaf}");
    let key = format!(
        "{anchor}{}",
        String::from_utf8_lossy(tokyo_leaf.key_pem.expose())
    );
    let key = add(berlin, oslo(&["o.test"]), "anchor", &key)
        .await
        .unwrap_err();
    assert!(
        key.contains("private key") && !key.contains("BEGIN"),
        "{key}"
    );
    // Pinned for tokyo, then for lima as well.
    let tokyo_s = another(&lab.clusters[1]);
    pin(berlin, &lab.clusters[1], &tokyo_s).await;
    let mut admin = berlin.admin().await.unwrap();
    let twice = pb::AddTrustRequest {
        cluster_id: "lima".to_owned(),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: tokyo_s.certificate_pem.clone().into_bytes(),
        }),
        unrevoke: None,
    };
    let twice = admin.add_trust(twice).await.unwrap_err().to_string();
    assert!(twice.contains("tokyo"), "{twice}");
    // A name of tokyo's for lima, under the authority that they share.
    let renamed = pb::SetClusterRequest {
        cluster_id: "lima".to_owned(),
        node_names: Some(pb::TextList {
            values: vec![TOKYO_NAME.to_owned()],
        }),
        ..pb::SetClusterRequest::default()
    };
    let renamed = admin.set_cluster(renamed).await.unwrap_err().to_string();
    assert!(renamed.contains("two peers"), "{renamed}");
    let trust = admin.trust(pb::ListTrustRequest::default()).await.unwrap();
    let lima_s: Vec<_> = trust
        .entries
        .iter()
        .filter(|e| e.cluster_id == "lima")
        .collect();
    assert_eq!(lima_s.len(), 1, "{trust:?}");
    assert!(
        trust.entries.iter().all(|entry| entry.cluster_id != "oslo"),
        "{trust:?}"
    );
    let status = admin.status(pb::GetClusterStatusRequest {}).await.unwrap();
    assert!(
        status.peers.iter().all(|peer| peer.cluster_id != "oslo"),
        "{status:?}"
    );
    lab.shut_down().await;
}
