//! Links: coming up, going down, healing, and what trust does to them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::rig::{
    DEAD_AFTER, HEARTBEAT, Node, PATIENCE, Proxy, context, find, linked, pair, record, relay,
};
use crate::{
    domain::{
        em_code::EmCode, ids::ClusterId, login::LoginType, rejection::Rejection, version::Version,
    },
    edge::federation::Parts,
    peer::{LinkState, LinkStatus},
    trust::{
        Identities,
        bundle::Bundle,
        fixtures::{Authority, Spec, anchored, pinned},
    },
    watch,
};

/// Whether logins can go both ways, as far as this node can know.
fn healthy(status: &LinkStatus) -> bool {
    status.outbound == LinkState::Up && status.inbound.reverse_proof_age.is_some()
}

/// What we promise of a peer that heals.
const USABLE_WITHIN: Duration = Duration::from_secs(2);

/// A relay that can swallow: what arrives while it doesn't work is lost for good, and so is its connection.
struct Relay {
    address: SocketAddr,
    works: watch::Sender<bool>,
}

impl Relay {
    async fn to(target: SocketAddr, node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (works, mut receiver) = watch::channel(true);
        let (tasks, token) = (node.tasks.clone(), node.tasks.token());
        let accept = async move {
            while let Ok((mut inbound, _)) = listener.accept().await {
                receiver.mark_unchanged();
                let (mut works, token) = (receiver.clone(), token.clone());
                let relay = async move {
                    if *works.borrow() {
                        let mut outbound = TcpStream::connect(target).await.unwrap();
                        tokio::select! {
                            biased;
                            _ = copy_bidirectional(&mut inbound, &mut outbound) => return,
                            _ = works.changed() => {}
                        }
                        // Both ends stay open, as after a cut cable.
                        std::future::pending::<()>().await;
                    }
                    std::future::pending::<()>().await;
                };
                tasks.spawn("relayed", async move {
                    token.run_until_cancelled(relay).await;
                });
            }
        };
        let token = node.tasks.token();
        node.tasks.spawn("relay", async move {
            token.run_until_cancelled(accept).await;
        });
        Self { address, works }
    }
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
    // At first berlin says no more than that it tries.
    let is_told = |s: &LinkStatus| {
        let reason = s.inbound.reverse_down_reason.as_ref();
        reason.is_some_and(|reason| reason.contains(&nobody.to_string()))
    };
    let status = tokyo
        .until("told of berlin's trouble", |s| {
            s.outbound == LinkState::Up && is_told(s)
        })
        .await;
    assert_eq!(status.inbound.reverse_proof_age, None);
    assert!(!healthy(&status));
    assert!(status.inbound.reverse_down_age.unwrap() < PATIENCE);

    // It finds the way. That it still says otherwise for a moment is nothing to tell anybody.
    let began = Instant::now();
    let soon = || Instant::now() + PATIENCE;
    tokyo.peers.wait_for_word(&berlin.id, soon()).await;
    assert!(
        began.elapsed() < PATIENCE,
        "it does not watch us: that fits"
    );
    berlin.dials(&tokyo, tokyo.address);
    tokyo.until("watched", |s| s.inbound.watching).await;
    tokyo.peers.wait_for_word(&berlin.id, soon()).await;
    let all = tokyo.peers.status();
    let status = all.iter().find(|link| link.cluster == berlin.id).unwrap();
    assert_eq!(status.inbound.reverse_down_reason, None);
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
    let usable_after = healed_at.elapsed();
    assert!(usable_after <= USABLE_WITHIN, "{usable_after:?}");
}

/// The worst that a heal can meet: a dead node listed first, and tries of ours that were lost on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healed_node_behind_a_dead_one_is_usable_in_time() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    // Connections come up in its backlog, and nobody ever answers.
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::to(berlin.address, &tokyo).await;
    let mut peer = record(&berlin.id, hole.local_addr().unwrap());
    peer.addresses.push(relay.address.to_string());
    let begun_at = Instant::now();
    tokyo.peers.set(vec![peer]);
    let status = tokyo.until_up().await;
    assert_eq!(status.address, Some(relay.address.to_string()));
    // The handshake with the first one alone would take longer.
    let up_after = begun_at.elapsed();
    assert!(
        up_after < tokyo.peers.config().hello_timeout,
        "{up_after:?}"
    );

    // Whenever it heals.
    for down_for in [100, 700, 1_300].map(Duration::from_millis) {
        relay.works.send_replace(false);
        let status = tokyo.until_down().await;
        assert!(status.last_error.unwrap().contains("no sign of life"));
        tokio::time::sleep(down_for).await;
        relay.works.send_replace(true);
        let healed_at = Instant::now();
        let context = context(&tokyo, Duration::from_secs(10));
        let home = tokyo.home(&berlin);
        home.find_user(&context, &find(LoginType::Uid))
            .await
            .unwrap();
        let usable_after = healed_at.elapsed();
        assert!(
            usable_after <= USABLE_WITHIN,
            "{down_for:?}: {usable_after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_dies_while_it_is_replaced_is_down_in_time() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    let proxy = Proxy::to(berlin.address).await;
    tokyo.dials(&berlin, proxy.address);
    tokyo.until_up().await;
    // Its address is gone, and the attempt at the new one hangs: the old connection still carries calls.
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokyo.dials(&berlin, hole.local_addr().unwrap());
    let call = async |length| {
        let context = context(&tokyo, length);
        let home = tokyo.home(&berlin);
        home.find_user(&context, &find(LoginType::Uid)).await
    };
    let _began = hole.accept().await.unwrap();
    call(Duration::from_secs(5)).await.unwrap();
    proxy.cut();
    let status = tokyo.until_down().await;
    let reason = status.last_error.unwrap();
    assert!(reason.contains("no sign of life"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_takes_no_more_calls() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    let ca = Authority::new("Berlin CA");
    let short = Spec::new("berlin.example")
        .valid_seconds(-60, 4)
        .signed_by(&ca);
    berlin.trust.publish_identity(short.identity()).unwrap();
    let bundle = anchored("berlin", &ca, &["berlin.example"]);
    tokyo.trust.publish_bundles(vec![bundle]).unwrap();
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    tokyo.dials(&berlin, berlin.address);
    tokyo.until_up().await;
    let status = tokyo.until_down().await;
    assert_eq!(status.rejection, Some(Rejection::Expired), "{status:?}");
    let context = context(&tokyo, Duration::from_secs(5));
    let home = tokyo.home(&berlin);
    let refusal = home.find_user(&context, &find(LoginType::Uid)).await;
    assert_eq!(refusal.unwrap_err().code, EmCode::ServiceConnectionError);
    assert!(berlin.roles.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_expires_ends_the_link() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    // The leaf outlives what vouches for it.
    let ca = Authority::with(Spec::new("Berlin CA").without_names().valid_seconds(-60, 4));
    let long = Spec::new("berlin.example").signed_by(&ca);
    berlin.trust.publish_identity(long.identity()).unwrap();
    let bundle = anchored("berlin", &ca, &["berlin.example"]);
    tokyo.trust.publish_bundles(vec![bundle]).unwrap();
    berlin.trusts(&[&tokyo]);
    berlin.serve().await;
    berlin.peers.set(vec![record(&tokyo.id, tokyo.address)]);
    tokyo.dials(&berlin, berlin.address);
    tokyo.until_up().await;
    let status = tokyo.until_down().await;
    assert_eq!(status.rejection, Some(Rejection::Expired), "{status:?}");
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
    let answered = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&answered);
    let load = tokyo.tasks.spawn("load", async move {
        while !token.is_cancelled() {
            let context = crate::domain::login::Context {
                reference: "7K3Q-9M2X".parse().unwrap(),
                caller: id.clone(),
                certificate: None,
                deadline: Instant::now() + Duration::from_secs(5),
                traits: crate::domain::capability::Traits::default(),
            };
            home.find_user(&context, &find(LoginType::Uid))
                .await
                .unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    berlin.trust.publish_identity(next.identity()).unwrap();
    tokyo
        .trust
        .publish_bundles(vec![pinned("berlin", &next)])
        .unwrap();
    let wanted = Some(next.certificate().fingerprint_text());
    let status = tokyo
        .until("linked to the new certificate", |s| {
            healthy(s) && s.certificate == wanted
        })
        .await;
    assert_eq!(status.last_error, None);
    berlin
        .until("linked with the new certificate", |s| {
            healthy(s) && s.shown == wanted
        })
        .await;
    // The old connection has been cut by the time that these have been answered.
    let mark = answered.load(Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    let cut_by = Instant::now() + Duration::from_secs(1);
    while answered.load(Ordering::Relaxed) < mark + 50 || Instant::now() < cut_by {
        assert!(!load.is_finished(), "a call was lost");
        assert!(Instant::now() < deadline, "calls hang");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    load.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_knows_the_old_certificate_alone_is_called_with_it() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    let next = Spec::new("berlin-2.example").self_signed();
    let old = berlin.leaf.identity();
    let shows = |old_for: Vec<ClusterId>| {
        let identities = Identities {
            old_for: old_for.into_iter().map(|id| (id, old.clone())).collect(),
            ..Identities::from(next.identity())
        };
        berlin.trust.publish_identities(identities).unwrap();
    };
    shows(vec![tokyo.id.clone()]);
    berlin.trusts(&[&tokyo]);
    // What knows the old one alone takes our calls, and refuses what our own listener shows.
    tokyo.trusts(&[&berlin]);
    tokyo.serve().await;
    berlin.serve().await;
    tokyo.dials(&berlin, berlin.address);
    berlin.dials(&tokyo, tokyo.address);
    let status = berlin.until_up().await;
    let known = berlin.leaf.certificate().fingerprint_text();
    assert_eq!(status.shown, Some(known));
    let status = tokyo.until_down().await;
    assert_eq!(
        status.rejection,
        Some(Rejection::UnknownIssuer),
        "{status:?}"
    );

    let mut both = pinned("berlin", &berlin.leaf);
    both.pinned.push(next.certificate());
    tokyo.trust.publish_bundles(vec![both]).unwrap();
    tokyo.until_up().await;
    shows(Vec::new());
    let wanted = Some(next.certificate().fingerprint_text());
    berlin
        .until("linked with the new certificate", |s| {
            healthy(s) && s.shown == wanted
        })
        .await;
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
    // Remembered as revoked, that is what both say, each of whom it is who refuses.
    let remembered = Bundle {
        pinned: Vec::new(),
        revoked: vec![berlin.leaf.certificate().fingerprint()],
        ..pinned("berlin", &berlin.leaf)
    };
    tokyo.trust.publish_bundles(vec![remembered]).unwrap();
    let revoked = |s: &LinkStatus| s.rejection == Some(Rejection::Revoked);
    let here = tokyo.until("revoked by itself", revoked).await;
    assert!(here.nodes.iter().all(|node| !node.by_peer), "{here:?}");
    let there = berlin.until("told that it is revoked", revoked).await;
    assert!(there.nodes.iter().all(|node| node.by_peer), "{there:?}");
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
    let up = tokio::time::timeout(Duration::from_secs(20), ups.next()).await;
    assert_eq!(up.expect("nobody was told of the new link"), berlin.id);
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
    // Whoever wants to log in there is told so, and not that nobody was reached.
    let home = tokyo.peers.get(&berlin.id).unwrap();
    let context = context(&tokyo, Duration::from_secs(5));
    let refusal = home.find_user(&context, &find(LoginType::Uid)).await;
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.code, EmCode::VisitingClusterUnknown, "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_node_is_seen_at_once() {
    // Silence would be noticed after an hour.
    let patient = |config: &mut crate::peer::Config| config.dead_after = Duration::from_secs(3_600);
    let tokyo = Node::with("tokyo", patient).await;
    let (tokyo, berlin) = linked(tokyo, Node::new("berlin").await).await;
    tokyo.until_up().await;
    let ended_at = Instant::now();
    berlin.tasks.cancel();
    let status = tokyo.until_down().await;
    let seen_after = ended_at.elapsed();
    assert!(seen_after < Duration::from_secs(5), "{seen_after:?}");
    let reason = status.last_error.unwrap();
    assert!(!reason.contains("no sign of life"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_dies_as_soon_as_it_is_up_is_not_dialled_without_a_pause() {
    let tokyo = Node::with("tokyo", |config| {
        config.heartbeat = Duration::from_secs(5);
        config.dead_after = Duration::from_secs(8);
        config.backoff_cap = Duration::from_secs(60);
    })
    .await;
    let berlin = Node::new("berlin").await;
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    // It is known and not dialled: its own calls would end the pauses.
    berlin.peers.set(vec![crate::store::peers::Peer {
        enabled: false,
        ..record(&tokyo.id, tokyo.address)
    }]);
    // Each `Watch` is answered and ends at once.
    let ended = crate::tasks::Tasks::default();
    ended.cancel();
    berlin
        .serve_as(Parts {
            tasks: ended,
            ..berlin.parts()
        })
        .await;
    let (address, dialled, _relays) = relay(berlin.address, Duration::ZERO).await;
    tokyo.dials(&berlin, address);
    tokyo.until_down().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // At 25 to 50 ms each there would be dozens.
    let dialled = dialled.load(Ordering::SeqCst);
    assert!((2..=9).contains(&dialled), "{dialled}");
    let reason = tokyo.status().last_error.unwrap_or_default();
    assert!(reason.contains("ended"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_slow_at_each_step_comes_up() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin.peers.set(vec![crate::store::peers::Peer {
        enabled: false,
        ..record(&tokyo.id, tokyo.address)
    }]);
    berlin.serve().await;
    // The handshake, Hello and Watch stay below 1.5 s each and are above 3 s together.
    let (address, dialled, _relays) = relay(berlin.address, Duration::from_millis(1_050)).await;
    tokyo.dials(&berlin, address);
    tokyo.until_up().await;
    assert_eq!(dialled.load(Ordering::SeqCst), 1);
}
