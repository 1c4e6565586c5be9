//! A peer with several nodes: where calls go, and what becomes of them when a node fails.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::rig::{Node, PATIENCE, Proxy, cluster_of, context, find, login, record, relay};
use crate::{
    domain::{
        address_list::AddressList,
        em_code::EmCode,
        ids::SessionId,
        login::{LoginType, LogoutRequest},
        rejection::Rejection,
        session::{EndReason, Initiator},
        version::Version,
    },
    peer::{LinkState, LinkStatus, NodeStatus},
    store::peers::Peer,
};

/// What a login may take that its caller still wants.
const LOGIN: Duration = Duration::from_secs(3);

async fn berlin(nth: u32) -> Node {
    Node::with("berlin", |config| config.node = format!("berlin-{nth}")).await
}

/// Tokyo, which knows the cluster that these nodes are of, by these addresses of theirs.
async fn tokyo_with(nodes: &[&Node], addresses: &[String]) -> Node {
    let tokyo = Node::new("tokyo").await;
    tokyo
        .trust
        .publish_bundles(vec![cluster_of(nodes)])
        .unwrap();
    for node in nodes {
        node.trusts(&[&tokyo]);
        // Known, and not dialled: their own calls would wake our links.
        node.peers.set(vec![Peer {
            enabled: false,
            ..record(&tokyo.id, tokyo.address)
        }]);
        node.serve().await;
    }
    let first = nodes[0];
    tokyo.peers.set(vec![Peer {
        addresses: addresses.to_vec(),
        ..record(&first.id, first.address)
    }]);
    tokyo
}

async fn two() -> (Node, Node, Node) {
    let (one, other) = (berlin(1).await, berlin(2).await);
    let addresses = [one.address.to_string(), other.address.to_string()];
    let tokyo = tokyo_with(&[&one, &other], &addresses).await;
    until_all_up(&tokyo).await;
    (tokyo, one, other)
}

async fn until_all_up(tokyo: &Node) -> LinkStatus {
    let up = |s: &LinkStatus| s.nodes.iter().all(|n| n.state == LinkState::Up);
    tokyo.until("all nodes up", up).await
}

fn node<'a>(status: &'a LinkStatus, address: &str) -> &'a NodeStatus {
    let mut all = status.nodes.iter();
    all.find(|n| n.address == address).unwrap()
}

fn calls(node: &Node) -> usize {
    node.roles.seen().len()
}

async fn finds(tokyo: &Node, berlin: &Node, how_many: usize) {
    let (home, context) = (tokyo.home(berlin), context(tokyo, PATIENCE));
    for _ in 0..how_many {
        let found = home.find_user(&context, &find(LoginType::Uid)).await;
        found.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_spread_over_the_nodes_and_each_is_shown() {
    let (tokyo, one, other) = two().await;
    finds(&tokyo, &one, 100).await;
    for node in [&one, &other] {
        assert!(calls(node) >= 20, "{} and {}", calls(&one), calls(&other));
    }
    let status = tokyo.status();
    for (shown, expected) in [(&one, "berlin-1"), (&other, "berlin-2")] {
        let shown = node(&status, &shown.address.to_string());
        assert_eq!(shown.node.as_deref(), Some(expected));
        assert_eq!(shown.version, Some(Version::V1_1));
        assert!(shown.proof_age.is_some() && shown.last_error.is_none() && !shown.draining);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_costs_no_call_that_it_was_working_on() {
    let (one, other) = (berlin(1).await, berlin(2).await);
    let (through, _, killed) = relay(one.address, Duration::ZERO).await;
    let addresses = [through.to_string(), other.address.to_string()];
    let tokyo = tokyo_with(&[&one, &other], &addresses).await;
    until_all_up(&tokyo).await;
    one.roles.hangs.store(true, Ordering::SeqCst);
    let home = tokyo.home(&one);
    // Longer than what a silent node would cost: it is the broken connection that is noticed.
    let context = context(&tokyo, Duration::from_secs(60));
    let requests: Vec<_> = (0..20).map(|_| login(LoginType::Uid)).collect();
    let end = LogoutRequest {
        session_id: SessionId::from_uuid(uuid::Uuid::now_v7()),
        reason: EndReason::User,
        initiator: Initiator::Visiting,
    };
    let logins = join_all(requests.iter().map(|r| home.login(&context, r)));
    let logouts = join_all((0..20).map(|_| home.logout(&context, end)));
    let kill = async {
        while one.roles.begun.load(Ordering::SeqCst) < 10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(killed);
        Instant::now()
    };
    let (logins, logouts, killed_at) = tokio::join!(logins, logouts, kill);
    assert!(
        killed_at.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed_at.elapsed()
    );
    for answer in logins {
        answer.unwrap();
    }
    for answer in logouts {
        assert_eq!(answer.unwrap(), EndReason::User);
    }
    // The peer is up, and nobody is told that the dead node is.
    let status = tokyo
        .until("down at one address", |s| {
            node(s, &through.to_string()).state == LinkState::Down
        })
        .await;
    assert_eq!(
        (status.outbound, &status.last_error),
        (LinkState::Up, &None)
    );
    let dead = node(&status, &through.to_string());
    assert!(dead.proof_age.is_none() && dead.version.is_none() && dead.last_error.is_some());
    let before = calls(&one);
    finds(&tokyo, &one, 50).await;
    assert_eq!(calls(&one), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_from_which_nothing_comes_costs_a_third_of_the_deadline_and_the_wait_for_a_probe() {
    let (one, other) = (berlin(1).await, berlin(2).await);
    let proxy = Proxy::to(one.address).await;
    let addresses = [proxy.address.to_string(), other.address.to_string()];
    let tokyo = tokyo_with(&[&one, &other], &addresses).await;
    until_all_up(&tokyo).await;
    proxy.cut();
    let home = tokyo.home(&one);
    let began = Instant::now();
    let context = context(&tokyo, LOGIN * 2);
    let request = login(LoginType::Uid);
    // Some go to the one that hangs, before anybody knows; it is not down for long enough to be noticed otherwise.
    let answers = join_all((0..8).map(|_| home.login(&context, &request))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(began.elapsed() < LOGIN, "{:?}", began.elapsed());
    assert_eq!((calls(&one), calls(&other)), (0, 8));
}

/// Else it could have us find out for it who listens where.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_does_not_hear_what_became_of_the_addresses_that_it_told() {
    let (one, paris) = (berlin(1).await, Node::new("paris").await);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = unused.local_addr().unwrap();
    drop(unused);
    let (closed_text, learned_text) = (closed.to_string(), paris.address.to_string());
    let tokyo = tokyo_with(&[&one], &[one.address.to_string()]).await;
    paris.trusts(&[&tokyo]);
    paris.serve().await;
    tokyo
        .trust
        .publish_bundles(vec![cluster_of(&[&one]), cluster_of(&[&paris])])
        .unwrap();
    let list = AddressList {
        sequence: 1,
        addresses: vec![learned_text.clone()],
    };
    let learned = [(one.id.clone(), list)].into_iter().collect();
    tokyo
        .peers
        .set_with(vec![record(&one.id, closed)], &learned);
    let reason = || tokyo.peers.outbound_view(&one.id, "").unwrap().down_reason;
    tokyo
        .until("refused here, another cluster there", |s| {
            s.nodes.len() == 2
                && node(s, &learned_text).rejection == Some(Rejection::WrongCluster)
                && reason().contains(&closed_text)
        })
        .await;
    assert!(!reason().contains(&learned_text), "{}", reason());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_can_not_be_reached_hears_so_though_its_sibling_can() {
    let (one, other) = (berlin(1).await, berlin(2).await);
    let (through, _, killed) = relay(one.address, Duration::ZERO).await;
    let addresses = [through.to_string(), other.address.to_string()];
    let tokyo = tokyo_with(&[&one, &other], &addresses).await;
    until_all_up(&tokyo).await;
    let hears = |node: &str| {
        let view = tokyo.peers.outbound_view(&one.id, node).unwrap();
        (view.proof_age.is_some(), view.down_reason)
    };
    let well = (true, String::new());
    for node in ["berlin-1", "berlin-2", "berlin-3", ""] {
        assert_eq!(hears(node), well, "{node}");
    }
    drop(killed);
    let is_down = |address: &str, s: &LinkStatus| {
        let mut all = s.nodes.iter();
        all.any(|n| n.address == address && n.state == LinkState::Down)
    };
    tokyo.until("down", |s| is_down(&addresses[0], s)).await;
    let (proven, reason) = hears("berlin-1");
    assert!(!proven && reason.contains(&addresses[0]), "{reason}");
    // One that we know no link to may be behind any address; all of them have led somewhere.
    for node in ["berlin-2", "berlin-3", ""] {
        assert_eq!(hears(node), well, "{node}");
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = unused.local_addr().unwrap().to_string();
    drop(unused);
    let mut three = addresses.to_vec();
    three.push(closed.clone());
    tokyo.peers.set(vec![Peer {
        addresses: three,
        ..record(&one.id, one.address)
    }]);
    tokyo.until("refused", |s| is_down(&closed, s)).await;
    let (proven, reason) = hears("berlin-3");
    assert!(proven, "its sibling is reached");
    assert!(
        reason.starts_with("1 of your 3 addresses can't be reached"),
        "{reason}"
    );
    assert!(reason.contains(&closed), "{reason}");
    assert_eq!((hears("berlin-2"), hears("")), (well.clone(), well));
}

/// A copy would cost another PIN check just where there are too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_works_is_waited_for_however_long_it_takes() {
    let (tokyo, one, other) = two().await;
    for node in [&one, &other] {
        *node.roles.takes.lock().unwrap() = LOGIN * 2 / 3;
    }
    let (home, context) = (tokyo.home(&one), context(&tokyo, LOGIN));
    let requests: Vec<_> = (0..10).map(|_| login(LoginType::Uid)).collect();
    let logins = join_all(requests.iter().map(|r| home.login(&context, r)));
    let look = async {
        let overdue = |s: LinkStatus| s.nodes.iter().any(|n| n.overdue_for.is_some());
        while !overdue(tokyo.status()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (answers, ()) = tokio::join!(logins, look);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(calls(&one) + calls(&other), 10, "it was sent twice");
    let status = tokyo.status();
    assert!(
        status.nodes.iter().all(|n| n.overdue_for.is_none()),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_asked_of_a_second_node_where_the_first_is_slow() {
    let (tokyo, one, other) = two().await;
    one.roles.hangs.store(true, Ordering::SeqCst);
    let (home, context) = (tokyo.home(&one), context(&tokyo, LOGIN));
    for _ in 0..4 {
        let found = home.find_user(&context, &find(LoginType::Uid)).await;
        found.unwrap();
    }
    assert_eq!(calls(&other), 4);
    one.roles.hangs.store(false, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_home_keeps_is_final_and_what_it_does_not_keep_is_asked_of_another_node() {
    for (code, sent) in [
        (EmCode::EmccAuthenticationError, 1),
        (EmCode::NoFreeBaseDevice, 1),
        (EmCode::ErrorOnParsing, 1),
        (EmCode::DatabaseError, 2),
        (EmCode::Busy, 2),
    ] {
        let (tokyo, one, other) = two().await;
        for node in [&one, &other] {
            *node.roles.refuses.lock().unwrap() = Some(code);
        }
        let context = context(&tokyo, LOGIN);
        let home = tokyo.home(&one);
        let refused = home.login(&context, &login(LoginType::Uid)).await;
        assert_eq!(refused.unwrap_err().code, code);
        assert_eq!(calls(&one) + calls(&other), sent, "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_refused_does_not_outweigh_the_one_that_is_under_way() {
    for code in [
        EmCode::Busy,
        EmCode::NoFreeBaseDevice,
        EmCode::ErrorOnParsing,
    ] {
        let (one, other) = (berlin(1).await, berlin(2).await);
        let proxy = Proxy::to(one.address).await;
        let addresses = [proxy.address.to_string(), other.address.to_string()];
        let tokyo = tokyo_with(&[&one, &other], &addresses).await;
        until_all_up(&tokyo).await;
        *other.roles.refuses.lock().unwrap() = Some(code);
        let (home, request) = (tokyo.home(&one), login(LoginType::Uid));
        // The first is silent until the second has answered.
        let far = context(&tokyo, LOGIN * 2);
        proxy.cut();
        let answer = async {
            loop {
                let before = calls(&other);
                let answer = home.login(&far, &request).await;
                // Where it went to the other one first there was no copy.
                if calls(&one) > 0 {
                    return answer;
                }
                assert!(calls(&other) > before && answer.is_err());
            }
        };
        let heal = async {
            while calls(&other) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            proxy.heal();
        };
        let (answer, ()) = tokio::join!(answer, heal);
        answer.unwrap();
        // And where the other copy's answer never comes, it is known that there was one.
        until_all_up(&tokyo).await;
        proxy.cut();
        let near = context(&tokyo, LOGIN / 3);
        let refused = loop {
            let before = calls(&other);
            match home.login(&near, &request).await {
                Err(refusal) if calls(&other) > before && refusal.is_one_of_several => {
                    break refusal;
                }
                Err(_) => {}
                Ok(answer) => panic!("{answer:?}"),
            }
        };
        assert_eq!(refused.code, code);
    }
}

/// It fails faster than the other one works, and so has always the fewest calls under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_calls_does_not_draw_them() {
    let (tokyo, one, other) = two().await;
    *one.roles.refuses.lock().unwrap() = Some(EmCode::DatabaseError);
    *other.roles.takes.lock().unwrap() = Duration::from_millis(20);
    let home = tokyo.home(&one);
    let context = context(&tokyo, PATIENCE);
    for _ in 0..10 {
        let requests: Vec<_> = (0..10).map(|_| login(LoginType::Uid)).collect();
        let logins = join_all(requests.iter().map(|r| home.login(&context, r)));
        for answer in logins.await {
            answer.unwrap();
        }
    }
    assert!(calls(&one) < 40 && calls(&other) == 100, "{}", calls(&one));
    let status = tokyo.status();
    let failing = node(&status, &one.address.to_string()).failing.unwrap();
    assert_eq!(failing.code, EmCode::DatabaseError);
    assert_eq!(node(&status, &other.address.to_string()).failing, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_under_calls_is_made_anew_for_them_where_there_is_no_other_node() {
    let one = berlin(1).await;
    let proxy = Proxy::to(one.address).await;
    let tokyo = tokyo_with(&[&one], &[proxy.address.to_string()]).await;
    until_all_up(&tokyo).await;
    one.roles.hangs.store(true, Ordering::SeqCst);
    let (home, context) = (tokyo.home(&one), context(&tokyo, PATIENCE));
    let requests: Vec<_> = (0..10).map(|_| login(LoginType::Uid)).collect();
    let logins = join_all(requests.iter().map(|r| home.login(&context, r)));
    let breaks = async {
        while one.roles.begun.load(Ordering::SeqCst) < 10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        one.roles.hangs.store(false, Ordering::SeqCst);
        proxy.reset();
    };
    let (logins, ()) = tokio::join!(logins, breaks);
    for answer in logins {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_gets_no_new_call_and_finishes_the_old_ones() {
    let (tokyo, one, other) = two().await;
    one.roles.hangs.store(true, Ordering::SeqCst);
    other.roles.hangs.store(true, Ordering::SeqCst);
    let home = tokyo.home(&one);
    let context = context(&tokyo, Duration::from_secs(60));
    let requests: Vec<_> = (0..20).map(|_| login(LoginType::Uid)).collect();
    let logins = join_all(requests.iter().map(|r| home.login(&context, r)));
    let drain = async {
        while calls(&one) + calls(&other) < 20 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let before = calls(&one);
        one.drain.cancel();
        let address = one.address.to_string();
        tokyo
            .until("draining", |s| node(s, &address).draining)
            .await;
        other.roles.hangs.store(false, Ordering::SeqCst);
        finds(&tokyo, &one, 50).await;
        assert_eq!(calls(&one), before, "it was called");
        one.roles.hangs.store(false, Ordering::SeqCst);
    };
    let (logins, ()) = tokio::join!(logins, drain);
    for answer in logins {
        answer.unwrap();
    }
    assert!(calls(&one) > 0, "nothing was under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_node_have_one_share() {
    let (one, other) = (berlin(1).await, berlin(2).await);
    let (second, _, _relays) = relay(one.address, Duration::ZERO).await;
    let (third, _, _more) = relay(one.address, Duration::ZERO).await;
    let addresses = [one.address, second, third, other.address].map(|a| a.to_string());
    let tokyo = tokyo_with(&[&one, &other], &addresses).await;
    until_all_up(&tokyo).await;
    finds(&tokyo, &one, 200).await;
    // With a share for each address it would be about 50.
    assert!(calls(&other) >= 75, "{} and {}", calls(&one), calls(&other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_to_the_node_that_understands_it() {
    let old = Node::with("berlin", |config| {
        config.versions = crate::domain::version::VersionRange::ONLY_1_0;
    })
    .await;
    let new = berlin(2).await;
    let addresses = [old.address.to_string(), new.address.to_string()];
    let tokyo = tokyo_with(&[&old, &new], &addresses).await;
    until_all_up(&tokyo).await;
    let home = tokyo.home(&old);
    let context = context(&tokyo, PATIENCE);
    for _ in 0..30 {
        let by_extension = find(LoginType::Extension);
        home.find_user(&context, &by_extension).await.unwrap();
    }
    assert_eq!((calls(&old), calls(&new)), (0, 30));
    finds(&tokyo, &old, 60).await;
    assert!(calls(&old) >= 10, "{}", calls(&old));
    // With the newer one gone there is nobody left who knows extensions.
    new.tasks.cancel();
    let address = new.address.to_string();
    tokyo
        .until("down", |s| node(s, &address).state == LinkState::Down)
        .await;
    let refused = home.find_user(&context, &find(LoginType::Extension)).await;
    assert_eq!(refused.unwrap_err().code, EmCode::ErrorOnParsing);
    finds(&tokyo, &old, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_down_when_all_its_nodes_are_and_each_has_its_reason() {
    let (one, paris) = (berlin(1).await, Node::new("paris").await);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = nobody.local_addr().unwrap();
    let addresses = [nobody, paris.address, one.address].map(|a| a.to_string());
    let tokyo = tokyo_with(&[&one], &addresses).await;
    // Another cluster, trusted as well, at one of berlin's addresses.
    paris.trusts(&[&tokyo]);
    paris.serve().await;
    tokyo
        .trust
        .publish_bundles(vec![cluster_of(&[&one]), cluster_of(&[&paris])])
        .unwrap();
    let status = tokyo
        .until("refused at two, up at one", |s| {
            node(s, &addresses[1]).rejection == Some(Rejection::WrongCluster)
                && node(s, &addresses[0]).state == LinkState::Down
                && s.outbound == LinkState::Up
        })
        .await;
    assert_eq!(status.address.as_ref(), Some(&addresses[2]));
    finds(&tokyo, &one, 20).await;
    assert!(paris.roles.seen().is_empty());
    one.tasks.cancel();
    let status = tokyo.until_down().await;
    let reason = status.last_error.unwrap();
    for address in &addresses {
        assert!(reason.contains(address), "{address}: {reason}");
    }
    assert_eq!(status.rejection, Some(Rejection::WrongCluster));
    let context = context(&tokyo, Duration::from_secs(5));
    let refused = tokyo
        .home(&one)
        .find_user(&context, &find(LoginType::Uid))
        .await;
    assert_eq!(refused.unwrap_err().code, EmCode::ServiceConnectionError);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_a_peer_tells_does_not_lead_to_this_machine() {
    let one = berlin(1).await;
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Written as a name; where it leads shows when it is looked up.
    let told = format!("0x7f000001:{}", door.local_addr().unwrap().port());
    let far = "192.0.2.1:8444".to_owned();
    let tokyo = tokyo_with(&[&one], std::slice::from_ref(&far)).await;
    let record = |addresses| Peer {
        addresses,
        ..record(&one.id, one.address)
    };
    let list = AddressList {
        sequence: 1,
        addresses: vec![told.clone()],
    };
    let learned = [(one.id.clone(), list)].into_iter().collect();
    tokyo.peers.set_with(vec![record(vec![far])], &learned);
    let refused = |s: &LinkStatus| {
        let all = s.nodes.iter();
        let mut told = all.filter(|n| n.learned && n.address == told);
        told.any(|n| {
            let said = n.last_error.as_deref().unwrap_or_default();
            n.state == LinkState::Down && said.contains("leads to this machine")
        })
    };
    tokyo.until("refused", refused).await;
    let dialled = tokio::time::timeout(Duration::from_millis(50), door.accept()).await;
    assert!(dialled.is_err(), "{dialled:?}");
    // The operator may.
    tokyo.peers.set(vec![record(vec![told])]);
    let dialled = tokio::time::timeout(PATIENCE, door.accept()).await;
    dialled.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_a_peer_tells_are_dialled_beside_the_operators() {
    let list = |sequence, addresses: &[String]| AddressList {
        sequence,
        addresses: addresses.to_vec(),
    };
    let (one, other, paris) = (berlin(1).await, berlin(2).await, Node::new("paris").await);
    let addresses = [one.address, other.address, paris.address].map(|a| a.to_string());
    let tokyo = tokyo_with(&[&one, &other], &addresses[..1]).await;
    paris.trusts(&[&tokyo]);
    paris.serve().await;
    tokyo
        .trust
        .publish_bundles(vec![cluster_of(&[&one, &other]), cluster_of(&[&paris])])
        .unwrap();
    until_all_up(&tokyo).await;
    assert!(tokyo.peers.told_addresses().is_empty());

    // The newest one wins; one of them leads to somebody else.
    one.peers.publish_addresses(list(6, &addresses[..2]));
    one.peers.publish_addresses(list(7, &addresses));
    let told = tokyo
        .until("told", |_| {
            let told = tokyo.peers.told_addresses();
            told.first().is_some_and(|(_, list)| list.sequence == 7)
        })
        .await;
    assert_eq!(told.nodes.len(), 1, "nothing is dialled before it is kept");
    let kept = tokyo.peers.told_addresses();
    assert_eq!(kept, [(one.id.clone(), list(7, &addresses))]);
    let learned = kept.into_iter().collect();
    let record = record(&one.id, one.address);
    tokyo.peers.set_with(vec![record.clone()], &learned);
    let status = tokyo
        .until("up at two, refused at one", |s| {
            s.nodes.len() == 3
                && node(s, &addresses[1]).state == LinkState::Up
                && node(s, &addresses[2]).rejection == Some(Rejection::WrongCluster)
        })
        .await;
    let shown: Vec<_> = status
        .nodes
        .iter()
        .map(|n| (&*n.address, n.learned))
        .collect();
    let expected = [
        (&*addresses[0], false),
        (&*addresses[1], true),
        (&*addresses[2], true),
    ];
    assert_eq!(shown, expected);
    finds(&tokyo, &one, 60).await;
    assert!(calls(&other) >= 10, "{}", calls(&other));
    assert!(paris.roles.seen().is_empty());

    // An old list changes nothing, and nor does the same one again.
    one.peers.publish_addresses(list(3, &[]));
    one.peers.publish_addresses(list(7, &[]));
    finds(&tokyo, &one, 5).await;
    assert!(tokyo.peers.told_addresses().is_empty());
    // A new one does, also when it is empty; what the operator gave stays.
    one.peers.publish_addresses(list(8, &[]));
    tokyo
        .until("told", |_| !tokyo.peers.told_addresses().is_empty())
        .await;
    let learned = tokyo.peers.told_addresses().into_iter().collect();
    tokyo.peers.set_with(vec![record], &learned);
    let status = tokyo.until("one node", |s| s.nodes.len() == 1).await;
    assert_eq!(
        (&*status.nodes[0].address, status.outbound),
        (&*addresses[0], LinkState::Up)
    );
    assert!(tokyo.peers.told_addresses().is_empty());
}
