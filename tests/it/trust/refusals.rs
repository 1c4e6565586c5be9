//! Refused certificates, as the operators of both sides read them.

use super::*;

#[tokio::test]
async fn a_refused_certificate_is_explained_on_both_sides_and_mended_without_a_restart() {
    let mut lab = strangers(2, &[]).await;
    // Berlin's own certificate outlives what its clock goes through here.
    let berlin = &lab.clusters[0];
    let long = berlin
        .authority
        .request("node-1")
        .valid(days_from_now(-400), days_from_now(400));
    swap(berlin, &berlin.authority.sign(&long).unwrap())
        .await
        .unwrap();
    let tokyo = &lab.clusters[1];
    berlin.trust(tokyo).await.unwrap();
    tokyo.trust(berlin).await.unwrap();
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;

    // Living links are cut when the certificate ends by berlin's clock, and come back by themselves.
    let shown = std::fs::read_to_string(&tokyo.member().unwrap().federation_certificate).unwrap();
    let certificate_der = CertificateDer::from_pem_slice(shown.as_bytes())
        .unwrap()
        .to_vec();
    let shown = Made {
        certificate_pem: shown,
        certificate_der,
        key_pem: emccd::secret::Secret::new(Vec::new()),
    };
    let clock = &berlin.member().unwrap().clock;
    for (days, rejection) in [(181, Rejection::Expired), (-1, Rejection::NotYetValid)] {
        clock.set_offset_millis(days * DAY_MILLIS);
        let seen = rejected(berlin, tokyo, rejection).await;
        let reason = seen.reason.unwrap();
        assert!(
            reason.contains(&format!("we refuse its certificate ({rejection})")),
            "{reason}"
        );
        assert!(reason.contains(&shown.fingerprint_text()), "{reason}");
        let told = rejected(tokyo, berlin, rejection).await;
        let reason = told.reason.unwrap();
        assert!(
            reason.contains(&format!("berlin refuses our certificate ({rejection})")),
            "{reason}"
        );
        assert!(
            reason.contains("mend here with: emccd cert new"),
            "{reason}"
        );
        assert!(reason.contains(&shown.fingerprint_text()), "{reason}");
        is_recorded(&door(berlin).await, "caller", rejection, &shown);
        is_recorded(&door(berlin).await, "answerer", rejection, &shown);
        for (home, visiting) in [(tokyo, berlin), (berlin, tokyo)] {
            let shown = log_in(home, 0, visiting).await;
            assert_eq!(shown.em_code, Some(208), "{rejection}: {}", shown.body);
        }
    }
    clock.set_offset_millis(0);
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;

    // A certificate that berlin was not told of.
    let other = another(tokyo);
    swap(tokyo, &other).await.unwrap();
    rejected(tokyo, berlin, Rejection::UnknownIssuer).await;
    is_recorded(
        &door(berlin).await,
        "caller",
        Rejection::UnknownIssuer,
        &other,
    );
    restart(&mut lab.clusters[1]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    rejected(berlin, tokyo, Rejection::UnknownIssuer).await;
    is_recorded(
        &door(berlin).await,
        "answerer",
        Rejection::UnknownIssuer,
        &other,
    );
    pin(berlin, tokyo, &other).await;
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    // What is mended is no longer complained about.
    let left = door(berlin).await;
    let print = other.fingerprint_text();
    assert!(
        left.iter()
            .all(|refusal| refusal.fingerprint.as_ref() != Some(&print)),
        "{left:#?}"
    );

    // Trust taken back: the living link is cut, and both say why, also though an authority vouches for the leaf.
    let request = pb::RemoveTrustRequest {
        cluster_id: tokyo.id.to_string(),
        fingerprint: print,
        mode: "unlink".to_owned(),
    };
    berlin
        .admin()
        .await
        .unwrap()
        .remove_trust(request)
        .await
        .unwrap();
    rejected(berlin, tokyo, Rejection::Revoked).await;
    rejected(tokyo, berlin, Rejection::Revoked).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert_eq!(shown.em_code, Some(208), "{}", shown.body);
    pin(berlin, tokyo, &other).await;
    linked(berlin, tokyo).await;
    lab.shut_down().await;
}

#[tokio::test]
async fn a_certificate_for_the_wrong_direction_is_refused_in_each() {
    let mut lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let request = |usage| tokyo.authority.request("node-1").with_usage(usage);
    let only_server = tokyo.authority.sign(&request(Usage::Server)).unwrap();
    let only_client = tokyo.authority.sign(&request(Usage::Client)).unwrap();
    // As a caller: who is pinned is told the reason.
    let refused = client_showing(&only_server, berlin)
        .hello(call(tokyo, hello("tokyo")))
        .await;
    is_rejected(
        &refused.unwrap_err(),
        Rejection::UnknownIssuer,
        &only_server,
    );
    pin(berlin, tokyo, &only_server).await;
    let refused = client_showing(&only_server, berlin)
        .hello(call(tokyo, hello("tokyo")))
        .await;
    is_rejected(&refused.unwrap_err(), Rejection::WrongEku, &only_server);
    is_recorded(
        &door(berlin).await,
        "caller",
        Rejection::WrongEku,
        &only_server,
    );
    // As a server.
    let (address, serving) = server_showing(&only_client).await;
    let oslo = record("oslo", vec![address], &[]);
    add(berlin, oslo, "pinned", &only_client.certificate_pem)
        .await
        .unwrap();
    let oslo = emccd::domain::ids::ClusterId::new("oslo").unwrap();
    let is_so = |p: &pb::PeerStatus| {
        p.outbound
            .as_ref()
            .is_some_and(|o| o.rejection.as_deref() == Some("wrong_eku"))
    };
    let seen = berlin
        .wait_status(&oslo, "wrong_eku", is_so)
        .await
        .unwrap()
        .outbound
        .unwrap();
    let reason = seen.reason.unwrap();
    assert!(
        reason.contains("serverAuth") && reason.contains(&only_client.fingerprint_text()),
        "{reason}"
    );
    is_recorded(
        &door(berlin).await,
        "answerer",
        Rejection::WrongEku,
        &only_client,
    );
    serving.cancel();
    // Or it would be asked whose user somebody is.
    let off = pb::SetClusterRequest {
        cluster_id: "oslo".to_owned(),
        enabled: Some(false),
        ..pb::SetClusterRequest::default()
    };
    let mut admin = berlin.admin().await.unwrap();
    admin.set_cluster(off).await.unwrap();

    // A node refuses to show such a thing: it calls and is called with one certificate.
    let before = shown_by(tokyo).await;
    let said = swap(tokyo, &only_server).await.unwrap_err();
    assert!(
        said.contains("for servers alone") && said.contains("[identity.client]"),
        "{said}"
    );
    assert!(said.contains("last good one stays"), "{said}");
    assert_eq!(fingerprint(&shown_by(tokyo).await), fingerprint(&before));
    works(tokyo, berlin).await;
    // With nothing good to keep it serves its own phones, and says what is wrong.
    restart(&mut lab.clusters[1]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut admin = tokyo.admin().await.unwrap();
    let status = admin.status(pb::GetClusterStatusRequest {}).await.unwrap();
    let reason = status.federation_down_reason.unwrap();
    assert!(reason.contains("for servers alone"), "{reason}");
    assert!(status.federation_hint.unwrap().contains("emccd cert"));
    let shown = log_in(tokyo, 0, tokyo).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(tokyo).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert!(matches!(shown.em_code, Some(40 | 208)), "{}", shown.body);
    let good = another(tokyo);
    pin(berlin, tokyo, &good).await;
    swap(tokyo, &good).await.unwrap();
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    lab.shut_down().await;
}
