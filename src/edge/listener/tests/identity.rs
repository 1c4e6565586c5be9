//! Whom a connection speaks for, what the unidentified are told, and what changes under living connections.

use super::*;

#[tokio::test]
async fn handlers_see_the_peer_that_the_certificate_names() {
    let (berlin, paris) = (
        Spec::new("berlin").ca().self_signed(),
        Spec::new("paris").self_signed(),
    );
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin), pinned("paris", &paris)]).await;
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    assert_eq!(hello(&mut tokyo.client(&paris)).await.unwrap(), "paris");
    let seen = tokyo.echo.seen.lock().unwrap().clone();
    assert_eq!(
        seen[0].fingerprint,
        Some(berlin.certificate().fingerprint_text())
    );
    assert_eq!(
        seen[0].leaf_not_after,
        Some(berlin.certificate().not_after())
    );
    assert!(seen[0].remote.ip().is_loopback());
    assert!(tokyo.trust.refusals().list().is_empty());
}

#[tokio::test]
async fn the_unidentified_are_told_the_reason_and_reach_no_handler() {
    let berlin = Spec::new("berlin").self_signed();
    let expired = Spec::new("old").valid_days(-20, -10).self_signed();
    let early = Spec::new("early").valid_days(10, 20).self_signed();
    let server_only = Spec::new("server").eku(false, true).self_signed();
    let authority = Authority::new("CA");
    let misnamed = Spec::new("n9.rome.example").signed_by(&authority);
    let revoked = Spec::new("gone").self_signed();
    let mut oslo = bundle("oslo");
    oslo.revoked.push(revoked.certificate().fingerprint());
    let tokyo = Tokyo::start(vec![
        pinned("berlin", &berlin),
        pinned("old", &expired),
        pinned("early", &early),
        pinned("server", &server_only),
        anchored("rome", &authority, &["n1.rome.example"]),
        oslo,
    ])
    .await;
    let stranger = Spec::new("stranger").self_signed();
    for (shown, expected) in [
        (None, Rejection::NoClientCertificate),
        (Some(&stranger), Rejection::UnknownIssuer),
        (Some(&expired), Rejection::Expired),
        (Some(&early), Rejection::NotYetValid),
        (Some(&server_only), Rejection::WrongEku),
        (Some(&misnamed), Rejection::WrongName),
        (Some(&revoked), Rejection::Revoked),
    ] {
        let status = hello(&mut tokyo.careless_client(shown)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert_eq!(rejection_from_status(&status), Some(expected), "{status:?}");
        let recorded = tokyo.refusal(expected).await;
        assert_eq!(
            recorded.fingerprint,
            shown.map(|leaf| leaf.certificate().fingerprint_text())
        );
        // Neither what would have been accepted nor how to mend it goes over the wire.
        assert!(!format!("{status:?}").contains("n1.rome.example"));
    }
    assert!(tokyo.echo.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_removed_pin_ends_its_connection_and_no_other() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let tokyo = Tokyo::start(bundles.clone()).await;
    let (mut from_berlin, mut from_paris) = (tokyo.client(&berlin), tokyo.client(&paris));
    let mut berlin_watch = watch(&mut from_berlin).await;
    let mut paris_watch = watch(&mut from_paris).await;
    tokyo
        .trust
        .publish_bundles(without("berlin", &bundles))
        .unwrap();
    // The stream breaks, and what follows is refused with the reason.
    assert!(within(berlin_watch.message()).await.is_err());
    assert_eq!(
        rejected_hello(&mut from_berlin).await,
        Rejection::UnknownIssuer
    );
    assert_eq!(hello(&mut from_paris).await.unwrap(), "paris");
    let still_open = tokio::time::timeout(Duration::from_millis(20), paris_watch.message()).await;
    assert!(still_open.is_err(), "{still_open:?}");
    // And back again without a restart.
    tokyo.trust.publish_bundles(bundles).unwrap();
    within(async { while hello(&mut from_berlin).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_call_after_the_removal_is_refused_even_on_the_old_connection() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut client = tokyo.client(&berlin);
    hello(&mut client).await.unwrap();
    tokyo.trust.publish_bundles(Vec::new()).unwrap();
    assert_eq!(rejected_hello(&mut client).await, Rejection::UnknownIssuer);
    assert_eq!(tokyo.echo.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_connection_outlives_its_leaf() {
    let berlin = Spec::new("berlin").valid_seconds(-60, 60).self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    // Seconds before the end by tokyo's clock, then over the end by waiting for it.
    let end = berlin.certificate().not_after();
    let left = end.since(Clock::system().now());
    tokyo
        .clock
        .set_offset_millis(i64::try_from(left.as_millis()).unwrap() - 4_000);
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    assert!(within(stream.message()).await.is_err());
    assert!(tokyo.clock.now() > end);
    assert_eq!(rejected_hello(&mut client).await, Rejection::Expired);
}

#[tokio::test]
async fn no_connection_outlives_the_anchor_that_vouches_for_it() {
    let authority = Authority::with(Spec::new("CA").ca().valid_seconds(-60, 600));
    let berlin = Spec::new("n1.berlin.example").signed_by(&authority);
    let config = Config {
        look_again: Duration::from_millis(50),
        ..Config::default()
    };
    let bundles = vec![anchored("berlin", &authority, &["n1.berlin.example"])];
    let tokyo = Tokyo::start_with(bundles, config).await;
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    let still_open = tokio::time::timeout(Duration::from_millis(150), stream.message()).await;
    assert!(still_open.is_err(), "{still_open:?}");
    // Its own certificate is good for longer.
    tokyo.clock.set_offset_millis(601_000);
    assert!(tokyo.clock.now() < berlin.certificate().not_after());
    assert!(within(stream.message()).await.is_err());
    assert_eq!(rejected_hello(&mut client).await, Rejection::Expired);
}

#[tokio::test]
async fn plaintext_is_closed_and_reported_with_a_hint() {
    let tokyo = Tokyo::start(Vec::new()).await;
    for (opening, is_told) in [
        ("GET / HTTP/1.1\r\nHost: tokyo\r\n\r\n", true),
        ("POST ", true),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
        ("GETTING NOWHERE", false),
        ("\0\0\0\0", false),
    ] {
        let mut tcp = TcpStream::connect(tokyo.address).await.unwrap();
        tcp.write_all(opening.as_bytes()).await.unwrap();
        let answer = told(&mut tcp).await;
        if is_told {
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{answer}"
            );
            assert!(answer.contains("TLS"), "{answer}");
        } else {
            assert_eq!(answer, "", "{opening}");
        }
    }
    // In pieces as well, and never for longer than a handshake may take.
    let mut tcp = TcpStream::connect(tokyo.address).await.unwrap();
    for piece in ["H", "EA", "D "] {
        tcp.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = told(&mut tcp).await;
    assert!(answer.contains("Connection: close\r\n\r\n"), "{answer}");
    let mut stuck = TcpStream::connect(tokyo.address).await.unwrap();
    stuck.write_all(b"GE").await.unwrap();
    assert_eq!(told(&mut stuck).await, "");
    let refused = tokyo.refusal(Rejection::Plaintext).await;
    assert!(refused.mend.contains("TLS"), "{}", refused.mend);
    assert_eq!(refused.fingerprint, None);
}

#[tokio::test]
async fn an_old_tls_version_is_reported() {
    let tokyo = Tokyo::start(Vec::new()).await;
    let config = rustls::ClientConfig::builder_with_provider(crate::trust::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    assert!(within(raw_tls(tokyo.address, config)).await.is_err());
    assert!(
        tokyo
            .refusal(Rejection::TlsVersion)
            .await
            .mend
            .contains("1.3")
    );
}

#[tokio::test]
async fn a_caller_that_refuses_us_is_reported_as_such() {
    let tokyo = Tokyo::start(Vec::new()).await;
    let berlin = Spec::new("berlin").self_signed();
    let trust = TrustStore::new(Some(berlin.identity()), Clock::system());
    let slot = VerdictSlot::default();
    let config = trust
        .snapshot()
        .client_config(&cluster("tokyo"), Arc::clone(&slot))
        .unwrap();
    assert!(within(raw_tls(tokyo.address, config)).await.is_err());
    let recorded = slot.lock().unwrap().take().unwrap();
    assert_eq!(recorded.rejection(), Some(Rejection::UnknownIssuer));
    let refused = tokyo.refusal(Rejection::UnknownIssuer).await;
    assert!(
        refused.expectation.contains("refused our own certificate"),
        "{}",
        refused.expectation
    );
    assert_eq!(
        refused.fingerprint,
        Some(tokyo.leaf.certificate().fingerprint_text())
    );
}

#[tokio::test]
async fn a_new_identity_serves_new_handshakes_and_leaves_old_connections_alone() {
    let berlin = Spec::new("berlin").self_signed();
    let mut tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut old = tokyo.client(&berlin);
    let mut late = tokyo.client(&berlin);
    let mut stream = watch(&mut old).await;
    let next = Spec::new("tokyo").self_signed();
    tokyo.trust.publish_identity(next.identity()).unwrap();
    tokyo.leaf = next;
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    // Both believe the former certificate alone: who is answered was connected before.
    assert!(hello(&mut late).await.is_err());
    assert_eq!(hello(&mut old).await.unwrap(), "berlin");
    assert!(stream.message().now_or_never().is_none());
}

#[tokio::test]
async fn nothing_is_resumed() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut config = rustls_client(&tokyo, &berlin);
    // A client that would like to.
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    for _ in 0..2 {
        let mut tls = within(raw_tls(tokyo.address, config.clone()))
            .await
            .unwrap();
        // The server's SETTINGS come after any ticket.
        let mut frame = [0u8; 9];
        within(tls.read_exact(&mut frame)).await.unwrap();
        assert_eq!(
            tls.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn without_an_identity_the_door_stays_shut_until_there_is_one() {
    let berlin = Spec::new("berlin").self_signed();
    let trust = TrustStore::new(None, Clock::system());
    trust
        .publish_bundles(vec![pinned("berlin", &berlin)])
        .unwrap();
    let leaf = Spec::new("tokyo").self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks, echo) = (
        listener.local_addr().unwrap(),
        Tasks::default(),
        Echo::default(),
    );
    let service = pb::federation_service_server::FederationServiceServer::new(echo.clone());
    let routes = tonic::service::Routes::new(service);
    tasks.spawn(
        "listener",
        serve_federation(
            listener,
            trust.clone(),
            routes,
            tasks.clone(),
            Config::default(),
        ),
    );
    let tokyo = Tokyo {
        trust,
        clock: Clock::system(),
        tasks,
        address,
        leaf,
        echo,
    };
    let mut client = tokyo.client(&berlin);
    assert!(hello(&mut client).await.is_err());
    tokyo.trust.publish_identity(tokyo.leaf.identity()).unwrap();
    assert_eq!(hello(&mut client).await.unwrap(), "berlin");
}

#[test]
fn a_verdict_that_moves_to_another_peer_does_not_agree() {
    let (berlin, tokyo) = (
        Verdict::Peer(cluster("berlin")),
        Verdict::Peer(cluster("tokyo")),
    );
    assert!(berlin.agrees_with(&berlin.clone()));
    assert!(!berlin.agrees_with(&tokyo));
}
