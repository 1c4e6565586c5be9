//! Peers that have taken back what they accepted from this cluster: there the sessions that are shared with us are over,
//! and nobody can tell us. Where a peer says so for long enough, and says nothing else, they end here too.
//!
//! Each node listens for itself, on its own attempts to reach the peer. One that hears it asks for the claim, so that none
//! has it that can't hear; the one that has it ends the sessions, unless another node of ours has a link.

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
    let mut listener = Listener::default();
    let watching = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let banishers = listener.look(&peers.status(), crate::clock::instant());
            let Some(claim) = right_to_end(&membership, !banishers.is_empty()) else {
                continue;
            };
            for cluster in banishers {
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

/// The claim, which is asked for while there is something to end by it.
fn right_to_end(membership: &Membership, has_banishers: bool) -> Option<Claim> {
    let task = Task::banishment();
    if has_banishers {
        membership.want(&task);
    } else {
        membership.let_go(&task);
    }
    membership.claim(&task).filter(|_| has_banishers)
}

/// What was heard of each peer so far.
#[derive(Debug, Default)]
struct Listener(BTreeMap<ClusterId, Watch>);

impl Listener {
    /// Notes how the peers stand now; those that have said nothing but "revoked" for long enough.
    fn look(&mut self, status: &[LinkStatus], now: Instant) -> Vec<ClusterId> {
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

    #[tokio::test]
    async fn who_hears_it_has_the_claim_whoever_was_first() {
        let url = "sqlite::memory:".to_owned();
        let node = "n1".to_owned();
        let store = Store::open(&store::Config { url, node }).unwrap();
        let tasks = Tasks::default();
        let mut members = Vec::new();
        for node in ["n1", "n2"] {
            let config = membership::Config {
                node: node.to_owned(),
                ..membership::Config::default()
            };
            let member = Membership::new(store.clone(), Clock::system(), config);
            member.join().await.unwrap();
            let (keeper, ends) = (member.clone(), tasks.clone());
            tasks.spawn("member", async move { keeper.keep(&ends).await });
            members.push(member);
        }
        let [deaf, hears] = members.try_into().unwrap();
        // It has heard it once, and does no longer.
        assert_eq!(right_to_end(&deaf, true), None);
        let first = deaf.held(&Task::banishment()).await;
        assert_eq!(right_to_end(&deaf, true), Some(first.clone()));
        assert_eq!(right_to_end(&deaf, false), None);
        assert_eq!(right_to_end(&hears, true), None);
        let patience = Duration::from_secs(20);
        let second = tokio::time::timeout(patience, hears.held(&Task::banishment())).await;
        let second = second.unwrap();
        assert!(second.generation > first.generation);
        assert_eq!(right_to_end(&hears, true), Some(second));
        tasks.shut_down(patience).await;
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
        let mut told = Vec::new();
        for second in (0..=AFTER.as_secs()).step_by(5) {
            told = listener.look(&says, begin + Duration::from_secs(second));
            assert_eq!(told.is_empty(), second < AFTER.as_secs(), "{second}");
        }
        assert_eq!(told, [ClusterId::new("tokyo").unwrap()]);
        assert!(listener.look(&[], begin + AFTER).is_empty());
        assert!(listener.look(&says, begin + AFTER).is_empty());
    }
}
