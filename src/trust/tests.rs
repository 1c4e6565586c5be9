use std::{io, time::Duration};

use rustls_pki_types::{DnsName, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::{
    domain::rejection::Rejection,
    trust::{
        fixtures::{Leaf, Spec, anchored, bundle, cluster, pinned},
        tls::rejection_of,
    },
};

/// Two clusters, each with an identity, and what berlin (the client) and tokyo (the server) trust.
struct Pair {
    client: TrustStore,
    server: TrustStore,
}

impl Pair {
    fn new(berlin: &Leaf, tokyo: &Leaf) -> Self {
        let client = TrustStore::new(Some(berlin.identity()), Clock::system());
        let server = TrustStore::new(Some(tokyo.identity()), Clock::system());
        Self { client, server }
    }

    /// What the client's verifier recorded, what its handshake gave, what the server said of the client.
    async fn shake_hands(
        &self,
    ) -> (
        Option<Verdict>,
        Result<(), Option<Rejection>>,
        Result<Verdict, Option<Rejection>>,
    ) {
        let slot = VerdictSlot::default();
        let config = self
            .client
            .snapshot()
            .client_config(&cluster("tokyo"), Arc::clone(&slot))
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let snapshot = self.server.snapshot();
            let accepted = TlsAcceptor::from(snapshot.server_config().unwrap())
                .accept(tcp)
                .await;
            let mut tls = accepted.map_err(|e| rejection_of(&e))?;
            tls.write_all(b"x").await.map_err(|e| rejection_of(&e))?;
            tls.flush().await.map_err(|e| rejection_of(&e))?;
            Ok(snapshot.identify(tls.get_ref().1.peer_certificates().unwrap_or_default()))
        };
        let call = async {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = ServerName::DnsName(DnsName::try_from("ignored.example").unwrap());
            let connected = TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await;
            let mut tls = connected.map_err(|e| rejection_of(&e))?;
            assert_eq!(tls.read_u8().await.unwrap(), b'x');
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(tls::ALPN_H2));
            Ok(())
        };
        let both = async { tokio::join!(serve, call) };
        let (served, called) = tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .unwrap();
        (slot.lock().unwrap().take(), called, served)
    }
}

#[tokio::test]
async fn two_pinned_clusters_recognise_each_other() {
    let (berlin, tokyo) = (
        Spec::new("berlin").ca().self_signed(),
        Spec::new("tokyo").self_signed(),
    );
    let pair = Pair::new(&berlin, &tokyo);
    pair.client
        .publish_bundles(vec![pinned("tokyo", &tokyo)])
        .unwrap();
    pair.server
        .publish_bundles(vec![pinned("berlin", &berlin)])
        .unwrap();
    let (recorded, called, served) = pair.shake_hands().await;
    assert_eq!(recorded, Some(Verdict::Peer(cluster("tokyo"))));
    assert_eq!(called, Ok(()));
    assert_eq!(served, Ok(Verdict::Peer(cluster("berlin"))));
}

#[tokio::test]
async fn an_unknown_client_gets_through_the_handshake_and_is_told_apart() {
    let (berlin, tokyo) = (
        Spec::new("berlin").self_signed(),
        Spec::new("tokyo").self_signed(),
    );
    let pair = Pair::new(&berlin, &tokyo);
    pair.client
        .publish_bundles(vec![pinned("tokyo", &tokyo)])
        .unwrap();
    let (_, called, served) = pair.shake_hands().await;
    assert_eq!(called, Ok(()));
    assert_eq!(served.unwrap().rejection(), Some(Rejection::UnknownIssuer));
}

#[tokio::test]
async fn a_client_records_why_it_refused_and_the_server_hears_of_it() {
    let berlin = Spec::new("berlin").self_signed();
    let cases = [
        (Spec::new("tokyo"), Rejection::WrongCluster, "paris"),
        (
            Spec::new("tokyo").eku(true, true),
            Rejection::UnknownIssuer,
            "none",
        ),
    ];
    for (spec, expected, whose) in cases {
        let tokyo = spec.self_signed();
        let pair = Pair::new(&berlin, &tokyo);
        let mut bundles = vec![bundle("tokyo")];
        if whose == "paris" {
            bundles.push(pinned("paris", &tokyo));
        }
        pair.client.publish_bundles(bundles).unwrap();
        let (recorded, called, served) = pair.shake_hands().await;
        assert_eq!(recorded.unwrap().rejection(), Some(expected));
        assert!(called.is_err());
        assert!(matches!(served, Err(Some(_))), "{served:?}");
    }
}

#[tokio::test]
async fn the_nodes_own_clock_counts_in_the_handshake() {
    let (berlin, tokyo) = (
        Spec::new("berlin").self_signed(),
        Spec::new("tokyo").self_signed(),
    );
    let clock = Clock::system();
    let pair = Pair {
        client: TrustStore::new(Some(berlin.identity()), clock.clone()),
        server: TrustStore::new(Some(tokyo.identity()), Clock::system()),
    };
    pair.client
        .publish_bundles(vec![pinned("tokyo", &tokyo)])
        .unwrap();
    clock.set_offset_millis(40 * 86_400_000);
    let (recorded, _, served) = pair.shake_hands().await;
    assert_eq!(recorded.unwrap().rejection(), Some(Rejection::Expired));
    assert_eq!(served.unwrap_err(), Some(Rejection::Expired));
}

#[test]
fn a_bad_identity_leaves_the_last_good_one_and_says_why() {
    let good = Spec::new("berlin").self_signed();
    let store = TrustStore::new(None, Clock::system());
    assert!(matches!(
        store.snapshot().server_config(),
        Err(Error::NoIdentity)
    ));
    store.publish_identity(good.identity()).unwrap();
    let before = store.generation();
    let expired = Spec::new("berlin").valid_days(-20, -10).self_signed();
    let error = store.publish_identity(expired.identity()).unwrap_err();
    assert!(matches!(
        error,
        Error::SelfCheck {
            rejection: Rejection::Expired,
            ..
        }
    ));
    assert_eq!(store.generation(), before);
    assert_eq!(
        store.snapshot().identity().unwrap().leaf(),
        &good.certificate()
    );
    store
        .publish_identity(Spec::new("berlin").self_signed().identity())
        .unwrap();
}

#[test]
fn each_direction_has_its_own_check_and_a_bad_one_leaves_both_as_they_were() {
    let store = TrustStore::new(None, Clock::system());
    let both = Spec::new("both").self_signed();
    let server = Spec::new("server").eku(false, true).self_signed();
    let client = Spec::new("client").eku(true, false).self_signed();
    for (one, for_what) in [
        (&server, "for servers alone"),
        (&client, "for clients alone"),
    ] {
        let error = store.publish_identity(one.identity()).unwrap_err();
        assert!(error.to_string().contains(for_what), "{error}");
        assert!(error.to_string().contains("[identity.client]"), "{error}");
    }
    let shown = |server: &Leaf, client: &Leaf| Identities {
        client: Some(client.identity()),
        ..Identities::from(server.identity())
    };
    store.publish_identities(shown(&server, &client)).unwrap();
    let expired = Spec::new("late").valid_days(-20, -10).self_signed();
    for (bad_server, bad_client) in [(&client, &client), (&server, &server), (&server, &expired)] {
        let error = store
            .publish_identities(shown(bad_server, bad_client))
            .unwrap_err();
        assert!(matches!(error, Error::SelfCheck { .. }), "{error}");
        let snapshot = store.snapshot();
        assert_eq!(snapshot.identity().unwrap().leaf(), &server.certificate());
        let called_with = snapshot.client_identity().unwrap();
        assert_eq!(called_with.leaf(), &client.certificate());
    }
    store.publish_identity(both.identity()).unwrap();
    let snapshot = store.snapshot();
    assert_eq!(
        snapshot.client_identity().unwrap().leaf(),
        &both.certificate()
    );
}

#[test]
fn a_peer_that_does_not_know_the_new_one_is_shown_the_old_one_while_it_is_good() {
    let (old, new) = (
        Spec::new("old").self_signed(),
        Spec::new("new").self_signed(),
    );
    let late = Spec::new("late").valid_days(-20, -10).self_signed();
    let store = TrustStore::new(Some(old.identity()), Clock::system());
    let identities = Identities {
        old_for: vec![
            (cluster("lima"), old.identity()),
            (cluster("oslo"), late.identity()),
        ],
        ..Identities::from(new.identity())
    };
    store.publish_identities(identities).unwrap();
    let snapshot = store.snapshot();
    for (peer, expected) in [("lima", &old), ("oslo", &new), ("tokyo", &new)] {
        let shown = snapshot.client_identity_for(&cluster(peer)).unwrap();
        assert_eq!(shown.leaf(), &expected.certificate(), "{peer}");
    }
    assert_eq!(snapshot.identity().unwrap().leaf(), &new.certificate());
}

#[test]
fn an_identity_that_is_bad_from_the_start_is_left_out() {
    let expired = Spec::new("berlin").valid_days(-20, -10).self_signed();
    let store = TrustStore::new(Some(expired.identity()), Clock::system());
    assert!(store.snapshot().identity().is_none());
    let error = store.publish_identity(expired.identity()).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert!(store.snapshot().identity().is_none());
}

#[test]
fn a_bad_set_of_bundles_leaves_the_last_good_one() {
    let leaf = Spec::new("a.example").self_signed();
    let store = TrustStore::new(None, Clock::system());
    let mut changes = store.subscribe();
    store
        .publish_bundles(vec![pinned("berlin", &leaf)])
        .unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), 1);
    let refused = store.publish_bundles(vec![pinned("berlin", &leaf), pinned("tokyo", &leaf)]);
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    assert!(!changes.has_changed().unwrap());
    assert_eq!(
        store.snapshot().identify(&[leaf.der().clone()]),
        Verdict::Peer(cluster("berlin"))
    );
}

#[test]
fn errors_without_tls_inside_say_nothing_of_trust() {
    assert_eq!(
        rejection_of(&io::Error::from(io::ErrorKind::ConnectionReset)),
        None
    );
    assert_eq!(rejection_of(&io::Error::other("something else")), None);
}

#[tokio::test]
async fn an_anchored_pair_with_a_chain_works_both_ways() {
    use crate::trust::fixtures::Authority;
    let root = Authority::new("Root");
    let issuing = Authority::under("Issuing", &root);
    let berlin = Spec::new("n1.berlin.example").signed_by(&issuing);
    let tokyo = Spec::new("n1.tokyo.example").signed_by(&issuing);
    let pair = Pair {
        client: TrustStore::new(Some(berlin.identity_with(&[&issuing])), Clock::system()),
        server: TrustStore::new(Some(tokyo.identity_with(&[&issuing])), Clock::system()),
    };
    pair.client
        .publish_bundles(vec![anchored("tokyo", &root, &["n1.tokyo.example"])])
        .unwrap();
    pair.server
        .publish_bundles(vec![anchored("berlin", &root, &["n1.berlin.example"])])
        .unwrap();
    let (recorded, called, served) = pair.shake_hands().await;
    assert_eq!(recorded, Some(Verdict::Peer(cluster("tokyo"))));
    assert_eq!(called, Ok(()));
    assert_eq!(served, Ok(Verdict::Peer(cluster("berlin"))));
}
