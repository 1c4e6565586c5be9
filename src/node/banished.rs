//! Peers that have taken back what they accepted from this cluster: there the sessions that are shared with us are over,
//! and nobody can tell us. Where a peer says so for long enough, and says nothing else, they end here too.
//!
//! Each node listens for itself, on its own attempts to reach the peer. One that hears it asks for the claim on that peer,
//! so that none has it that can't hear; the one that has it ends the sessions, unless another node of ours has a link.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    domain::{
        banishment::{Heard, Watch},
        ids::ClusterId,
        rejection::Rejection,
    },
    home::{self, HomeRole},
    peer::{LinkState, LinkStatus, NodeStatus, Peers},
    store::{
        self,
        claims::{Claim, Task},
        membership::Membership,
    },
    tasks::Tasks,
};

/// How often it is listened.
const LOOK: Duration = Duration::from_secs(5);

/// Listens to all peers until the node shuts down.
pub(super) async fn watch(home: HomeRole, peers: Peers, membership: Membership, tasks: Tasks) {
    let (mut listener, mut asked) = (Listener::default(), BTreeSet::new());
    let watching = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let banishers = listener.look(&peers.status(), crate::clock::instant());
            for (cluster, claim) in rights_to_end(&membership, &mut asked, banishers) {
                match home.end_with_banisher(&cluster, &claim).await {
                    Ok(_) | Err(home::Error::Store(store::Error::ClaimLost { .. })) => {}
                    Err(error) => warn!(
                        peer.cluster_id = %cluster, cause = crate::telemetry::error_chain(&error),
                        "sessions with cluster {cluster}, which accepts nothing of ours any more, could not be ended; it \
                         is tried again"
                    ),
                }
            }
        }
    };
    tasks.token().run_until_cancelled(watching).await;
}

/// The claims that we hold of those peers, each of which is `asked` for as long as the peer says so.
fn rights_to_end(
    membership: &Membership,
    asked: &mut BTreeSet<ClusterId>,
    banishers: BTreeSet<ClusterId>,
) -> Vec<(ClusterId, Claim)> {
    for cluster in asked.difference(&banishers) {
        membership.let_go(&Task::banishment(cluster));
    }
    *asked = banishers;
    let held = asked.iter().filter_map(|cluster| {
        let task = Task::banishment(cluster);
        membership.want(&task);
        Some((cluster.clone(), membership.claim(&task)?))
    });
    held.collect()
}

/// What was heard of each peer so far.
#[derive(Debug, Default)]
struct Listener(BTreeMap<ClusterId, Watch>);

impl Listener {
    /// Notes how the peers stand now; those that have said nothing but "revoked" for long enough.
    fn look(&mut self, status: &[LinkStatus], now: Instant) -> BTreeSet<ClusterId> {
        let known: BTreeSet<_> = status.iter().map(|peer| &peer.cluster).collect();
        self.0.retain(|cluster, _| known.contains(cluster));
        let said = status.iter().filter(|peer| {
            let watch = self.0.entry(peer.cluster.clone()).or_default();
            watch.heard(heard(peer), now)
        });
        said.map(|peer| peer.cluster.clone()).collect()
    }
}

/// Of a node that can't be reached nothing is heard: what the others say counts. What we refuse ourselves is no word of
/// the peer's.
fn heard(peer: &LinkStatus) -> Heard {
    let is_up = |node: &NodeStatus| node.state == LinkState::Up;
    if peer.inbound.watching || peer.outbound == LinkState::Up || peer.nodes.iter().any(is_up) {
        return Heard::Linked;
    }
    if !peer.enabled {
        return Heard::Other;
    }
    let mut says_so = false;
    for node in &peer.nodes {
        match node.rejection {
            Some(Rejection::Revoked) if node.by_peer => says_so = true,
            Some(_) if node.by_peer => return Heard::Other,
            Some(_) => {}
            // Another word of somebody who answered.
            None if node.state == LinkState::Incompatible => return Heard::Other,
            None => {}
        }
    }
    if says_so {
        Heard::Revoked
    } else {
        Heard::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        domain::banishment::AFTER,
        peer::{inbound::Inbound, link::Link},
        store::{Store, membership},
    };

    fn node(rejection: Option<Rejection>, by_peer: bool) -> NodeStatus {
        let now = Instant::now();
        NodeStatus {
            state: LinkState::Down,
            rejection,
            by_peer,
            ..NodeStatus::of("a:1", &Link::new(now), false, now)
        }
    }

    fn peer(nodes: Vec<NodeStatus>) -> LinkStatus {
        let cluster = ClusterId::new("tokyo").unwrap();
        LinkStatus::of(&cluster, true, nodes, None, Inbound::default())
    }

    async fn members(store: &Store, tasks: &Tasks) -> [Membership; 2] {
        let join = async |node: &str| {
            let config = membership::Config {
                node: node.to_owned(),
                ..membership::Config::default()
            };
            let member = Membership::new(store.clone(), Clock::system(), config);
            member.join().await.unwrap();
            let (keeper, ends) = (member.clone(), tasks.clone());
            tasks.spawn("member", async move { keeper.keep(&ends).await });
            member
        };
        [join("n1").await, join("n2").await]
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_hears_a_peer_has_the_claim_on_it_whoever_hears_another_one_or_was_first() {
        let url = "sqlite::memory:".to_owned();
        let node = "n1".to_owned();
        let store = Store::open(&store::Config { url, node }).unwrap();
        let tasks = Tasks::default();
        let [one, other] = members(&store, &tasks).await;
        let [tokyo, lima] = ["tokyo", "lima"].map(|name| ClusterId::new(name).unwrap());
        let hears = |peers: &[&ClusterId]| peers.iter().map(|peer| (*peer).clone()).collect();
        let held = async |member: &Membership, by: &ClusterId| {
            let task = Task::banishment(by);
            tokio::time::timeout(PATIENCE, member.held(&task))
                .await
                .expect("the other node keeps it")
        };
        let [mut of_one, mut of_other] = [BTreeSet::new(), BTreeSet::new()];
        let mut ones = |peers: &[&ClusterId]| rights_to_end(&one, &mut of_one, hears(peers));
        let mut others = |peers: &[&ClusterId]| rights_to_end(&other, &mut of_other, hears(peers));
        assert_eq!(ones(&[&tokyo]), []);
        let first = held(&one, &tokyo).await;
        assert_eq!(ones(&[&tokyo]), [(tokyo.clone(), first.clone())]);
        // What one hears of tokyo for days keeps nobody from ending what is shared with lima.
        assert_eq!(others(&[&lima]), []);
        let of_lima = held(&other, &lima).await;
        assert_eq!(others(&[&lima]), [(lima.clone(), of_lima.clone())]);
        assert_eq!(ones(&[&tokyo]), [(tokyo.clone(), first.clone())]);
        // It hears tokyo no longer, and the other one does.
        assert_eq!(ones(&[]), []);
        assert_eq!(others(&[&lima, &tokyo]), [(lima.clone(), of_lima.clone())]);
        let second = held(&other, &tokyo).await;
        assert!(second.generation > first.generation);
        let both = [(lima.clone(), of_lima), (tokyo.clone(), second)];
        assert_eq!(others(&[&lima, &tokyo]), both);
        tasks.shut_down(PATIENCE).await;
    }

    #[test]
    fn only_the_peers_own_word_counts_and_only_while_nobody_says_otherwise() {
        let revoked = || node(Some(Rejection::Revoked), true);
        let silent = || node(None, false);
        let up = || NodeStatus {
            state: LinkState::Up,
            ..node(None, false)
        };
        for (nodes, expected) in [
            (vec![revoked()], Heard::Revoked),
            (vec![revoked(), silent()], Heard::Revoked),
            // Nor is it when something else has its old address by now.
            (
                vec![revoked(), node(Some(Rejection::UnknownIssuer), false)],
                Heard::Revoked,
            ),
            (vec![silent()], Heard::Other),
            (vec![], Heard::Other),
            // It is we who refuse it.
            (vec![node(Some(Rejection::Revoked), false)], Heard::Other),
            (
                vec![revoked(), node(Some(Rejection::UnknownIssuer), true)],
                Heard::Other,
            ),
            (vec![revoked(), up()], Heard::Linked),
        ] {
            assert_eq!(heard(&peer(nodes.clone())), expected, "{nodes:?}");
        }
        let calls_us = LinkStatus {
            inbound: Inbound {
                watching: true,
                ..Inbound::default()
            },
            ..peer(vec![revoked()])
        };
        assert_eq!(heard(&calls_us), Heard::Linked);
        let disabled = LinkStatus {
            enabled: false,
            ..peer(vec![revoked()])
        };
        assert_eq!(heard(&disabled), Heard::Other);
    }

    #[test]
    fn each_peer_has_a_time_of_its_own_that_goes_with_it() {
        let (begin, mut listener) = (Instant::now(), Listener::default());
        let says = [peer(vec![node(Some(Rejection::Revoked), true)])];
        let mut told = BTreeSet::new();
        for second in (0..=AFTER.as_secs()).step_by(5) {
            told = listener.look(&says, begin + Duration::from_secs(second));
            assert_eq!(told.is_empty(), second < AFTER.as_secs(), "{second}");
        }
        assert_eq!(told, BTreeSet::from([ClusterId::new("tokyo").unwrap()]));
        assert!(listener.look(&[], begin + AFTER).is_empty());
        assert!(listener.look(&says, begin + AFTER).is_empty());
    }
}
