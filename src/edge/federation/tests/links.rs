//! Links: coming up, going down, healing, and what trust does to them.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::rig::{DEAD_AFTER, HEARTBEAT, Node, Proxy, context, find, linked, pair, record};
use crate::{
    domain::{em_code::EmCode, login::LoginType, rejection::Rejection, version::Version},
    peer::{LinkState, LinkStatus},
    trust::fixtures::{Spec, pinned},
};

/// Whether logins can go both ways, as far as this node can know.
fn healthy(status: &LinkStatus) -> bool {
    status.outbound == LinkState::Up && status.inbound.reverse_proof_age.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_see_both_directions() {
    let (tokyo, berlin) = pair().await;
    for (here, there) in [(&tokyo, &berlin), (&berlin, &tokyo)] {
        let status = here
            .until("healthy", |s| healthy(s) && s.inbound.watching)
            .await;
        assert_eq!(status.cluster, there.id);
        assert_eq!(status.version, Some(Version::V1_1));
        assert_eq!(
            status.node.as_deref(),
            Some(format!("{}-1", there.id).as_str())
        );
        assert_eq!(status.address, Some(there.address.to_string()));
        assert!(status.proof_age.unwrap() < DEAD_AFTER);
        assert!(status.last_error.is_none() && status.rejection.is_none());
        assert!(status.clock_offset_ms.unwrap().abs() < 2_000);
        assert!(status.inbound.last_seen_age.is_some());
        assert_eq!(status.inbound.reverse_down_reason, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_direction_down_is_seen_by_the_other_side() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    tokyo.serve().await;
    berlin.serve().await;
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    berlin.dials(&tokyo, nobody);
    tokyo.dials(&berlin, berlin.address);
    let status = tokyo
        .until("told of berlin's trouble", |s| {
            s.outbound == LinkState::Up && s.inbound.reverse_down_reason.is_some()
        })
        .await;
    assert_eq!(status.inbound.reverse_proof_age, None);
    assert!(!healthy(&status));
    let reason = status.inbound.reverse_down_reason.unwrap();
    assert!(reason.contains(&nobody.to_string()), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_dead_in_time_and_usable_soon_after_it_heals() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    let proxy = Proxy::to(berlin.address).await;
    tokyo.dials(&berlin, proxy.address);
    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    tokyo.until_up().await;

    proxy.cut();
    let cut_at = Instant::now();
    let status = tokyo.until_down().await;
    let seen_after = cut_at.elapsed();
    assert!(seen_after + HEARTBEAT >= DEAD_AFTER, "{seen_after:?}");
    assert!(
        seen_after < DEAD_AFTER + Duration::from_secs(1),
        "{seen_after:?}"
    );
    assert!(status.last_error.unwrap().contains("no sign of life"));

    // Silence is 40, at the deadline and not later.
    let asked_at = Instant::now();
    let context = context(&tokyo, Duration::from_millis(300));
    let refusal = tokyo
        .home(&berlin)
        .find_user(&context, &find(LoginType::Uid))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, EmCode::NoResponseFromRemoteHost, "{refusal}");
    assert!(asked_at.elapsed() < Duration::from_secs(2));

    proxy.heal();
    let healed_at = Instant::now();
    tokyo.until_up().await;
    // The attempt that ran into the cut has to be over first: its handshake may take 2 s of it.
    assert!(
        healed_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        healed_at.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_the_peer_ends_the_pause() {
    let slow = |config: &mut crate::peer::Config| config.backoff_cap = Duration::from_secs(3_600);
    let tokyo = Node::with("tokyo", slow).await;
    let berlin = Node::new("berlin").await;
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    tokyo.serve().await;
    // At first nobody listens at the address that tokyo has: its pauses grow with each refusal.
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    tokyo.dials(&berlin, address);
    tokyo.until_down().await;
    for _ in 0..12 {
        let context = context(&tokyo, Duration::from_secs(5));
        let refusal = tokyo
            .home(&berlin)
            .find_user(&context, &find(LoginType::Uid))
            .await;
        assert_eq!(refusal.unwrap_err().code, EmCode::ServiceConnectionError);
    }
    // The pause is now of minutes; only berlin's own call can end it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let relay = socket.listen(16).unwrap();
    let target = berlin.address;
    berlin.serve().await;
    tokyo.tasks.spawn("relay", async move {
        while let Ok((mut inbound, _)) = relay.accept().await {
            let mut outbound = tokio::net::TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
        }
    });
    let called_at = Instant::now();
    berlin.dials(&tokyo, tokyo.address);
    tokyo.until_up().await;
    assert!(
        called_at.elapsed() < Duration::from_secs(5),
        "{:?}",
        called_at.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_is_208_with_the_address() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    tokyo.dials(&berlin, nobody);
    let context = context(&tokyo, Duration::from_secs(5));
    let refusal = tokyo
        .home(&berlin)
        .find_user(&context, &find(LoginType::Uid))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, EmCode::ServiceConnectionError);
    assert!(refusal.cause.contains(&nobody.to_string()), "{refusal}");
    assert!(refusal.cause.contains("refused"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_address_is_tried() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut peer = record(&berlin.id, nobody);
    peer.addresses.push(berlin.address.to_string());
    tokyo.peers.set(vec![peer]);
    let status = tokyo.until_up().await;
    assert_eq!(status.address, Some(berlin.address.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_refuses_us_is_shown_with_the_reason_and_what_mends_it() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.serve().await;
    tokyo.dials(&berlin, berlin.address);
    let status = tokyo.until("refused", |s| s.rejection.is_some()).await;
    assert_eq!(status.outbound, LinkState::Down);
    assert_eq!(status.rejection, Some(Rejection::UnknownIssuer));
    let text = status.last_error.unwrap();
    assert!(text.contains("berlin refuses our certificate"), "{text}");
    assert!(
        text.contains("mend on berlin with: emccd trust add tokyo"),
        "{text}"
    );
    assert!(
        text.contains(&tokyo.leaf.certificate().fingerprint_text()),
        "{text}"
    );

    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    berlin.trusts(&[&tokyo]);
    let status = tokyo.until_up().await;
    assert_eq!((status.rejection, status.last_error), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_we_refuse_is_shown_with_the_reason_and_what_mends_it() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    let other = Spec::new("other.example").self_signed();
    tokyo
        .trust
        .publish_bundles(vec![pinned("berlin", &other)])
        .unwrap();
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    tokyo.dials(&berlin, berlin.address);
    let status = tokyo.until("refused", |s| s.rejection.is_some()).await;
    assert_eq!(status.rejection, Some(Rejection::UnknownIssuer));
    let text = status.last_error.unwrap();
    assert!(text.contains("we refuse its certificate"), "{text}");
    assert!(
        text.contains(&berlin.leaf.certificate().fingerprint_text()),
        "{text}"
    );
    let context = context(&tokyo, Duration::from_secs(5));
    let refusal = tokyo
        .home(&berlin)
        .find_user(&context, &find(LoginType::Uid))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, EmCode::ServiceConnectionError, "{refusal}");
    assert!(berlin.roles.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_another_cluster_is_refused() {
    let (tokyo, berlin) = pair().await;
    let paris = Node::new("paris").await;
    // Everybody trusts everybody, but berlin's record leads to paris.
    paris.trusts(&[&tokyo]);
    paris.serve().await;
    tokyo.trusts(&[&berlin, &paris]);
    tokyo.dials(&berlin, paris.address);
    let status = tokyo.until("refused", |s| s.rejection.is_some()).await;
    assert_eq!(
        status.rejection,
        Some(Rejection::WrongCluster),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_swapped_without_losing_a_call() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    berlin.until_up().await;
    let next = Spec::new("berlin-2.example").self_signed();
    let mut both = pinned("berlin", &berlin.leaf);
    both.pinned.push(next.certificate());
    tokyo.trust.publish_bundles(vec![both]).unwrap();

    let stop = tokio_util::sync::CancellationToken::new();
    let (home, token) = (tokyo.home(&berlin), stop.clone());
    let id = tokyo.id.clone();
    let load = tokyo.tasks.spawn("load", async move {
        let mut calls = 0u32;
        while !token.is_cancelled() {
            let context = crate::domain::login::Context {
                reference: "7K3Q-9M2X".parse().unwrap(),
                caller: id.clone(),
                deadline: Instant::now() + Duration::from_secs(5),
            };
            home.find_user(&context, &find(LoginType::Uid))
                .await
                .unwrap();
            calls += 1;
        }
        calls
    });
    berlin.trust.publish_identity(next.identity()).unwrap();
    tokyo
        .trust
        .publish_bundles(vec![pinned("berlin", &next)])
        .unwrap();
    berlin.until("healthy again", healthy).await;
    let status = tokyo.until("healthy again", healthy).await;
    assert_eq!(status.last_error, None);
    stop.cancel();
    assert!(load.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_trust_ends_the_link_at_once() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    tokyo.trust.publish_bundles(Vec::new()).unwrap();
    let status = tokyo.until_down().await;
    assert!(status.rejection.is_some(), "{status:?}");
    berlin
        .until("told why", |s| {
            s.rejection == Some(Rejection::UnknownIssuer)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_common_version_both_ranges_and_the_older_side_are_named() {
    let old = Node::speaking("tokyo", Version::V1_0, Version::V1_0).await;
    let new = Node::speaking("berlin", Version::V1_1, Version::V1_1).await;
    let (tokyo, berlin) = linked(old, new).await;
    for (here, there, upgrade) in [
        (&tokyo, &berlin, "upgrade this cluster"),
        (&berlin, &tokyo, "upgrade tokyo"),
    ] {
        let status = here
            .until("incompatible", |s| s.outbound == LinkState::Incompatible)
            .await;
        let text = status.last_error.unwrap();
        assert!(
            text.contains("1.0") && text.contains("1.1") && text.contains(upgrade),
            "{text}"
        );
        let context = context(here, Duration::from_secs(5));
        let refusal = here
            .home(there)
            .find_user(&context, &find(LoginType::Uid))
            .await
            .unwrap_err();
        assert_eq!(refusal.code, EmCode::ErrorOnParsing);
        assert_eq!(refusal.cause, text);
    }
    assert!(tokyo.roles.seen().is_empty() && berlin.roles.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_peer_is_not_dialled_and_an_enabled_one_is_again() {
    let (tokyo, berlin) = pair().await;
    let mut ups = tokyo.peers.on_up();
    assert_eq!(ups.next().await, berlin.id);
    let mut peer = record(&berlin.id, berlin.address);
    peer.enabled = false;
    tokyo.peers.set(vec![peer.clone()]);
    assert!(tokyo.peers.get(&berlin.id).is_none() && tokyo.peers.homes().is_empty());
    let status = tokyo.until_down().await;
    assert!(!status.enabled && status.last_error.unwrap().contains("disabled"));
    berlin
        .until("told that it is disabled", |s| {
            s.inbound
                .reverse_down_reason
                .as_deref()
                .is_some_and(|r| r.contains("disabled"))
        })
        .await;
    peer.enabled = true;
    tokyo.peers.set(vec![peer]);
    assert_eq!(ups.next().await, berlin.id);
    tokyo.peers.set(Vec::new());
    assert!(tokyo.peers.status().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_stranger_may_say_hello_but_not_watch() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    tokyo.dials(&berlin, berlin.address);
    let status = tokyo.until_down().await;
    let text = status.last_error.unwrap();
    assert!(
        text.contains("Watch failed") && text.contains("35"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_node_is_seen_at_once() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    let ended_at = Instant::now();
    berlin.tasks.cancel();
    let status = tokyo.until_down().await;
    assert!(
        ended_at.elapsed() < DEAD_AFTER + Duration::from_secs(1),
        "{status:?}"
    );
}
