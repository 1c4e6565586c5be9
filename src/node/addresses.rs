//! Addresses of nodes, told and learned: ours to our peers over `Watch`, theirs into the store.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::OptionFuture;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    domain::{address_list::AddressList, ids::ClusterId},
    peer::Peers,
    store::{
        self, Store, Transaction,
        claims::{self, Claim, Task},
        learned,
        membership::Membership,
    },
    tasks::Tasks,
};

/// When what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Puts the addresses of the nodes that live on record for all nodes to tell, as long as this node is the one that
/// does so for its cluster.
pub(super) async fn publish(store: Store, membership: Membership, clock: Clock, tasks: Tasks) {
    let task = Task::addresses();
    let publishing = async {
        loop {
            let claim = membership.held(&task).await;
            tokio::select! {
                biased;
                () = membership.lost(&claim) => {}
                () = publish_as(&store, &membership, &clock, &claim) => {}
            }
        }
    };
    tasks.token().run_until_cancelled(publishing).await;
}

async fn publish_as(store: &Store, membership: &Membership, clock: &Clock, claim: &Claim) {
    let mut living = membership.living();
    loop {
        let addresses: Vec<String> = living
            .borrow_and_update()
            .iter()
            .flat_map(|node| node.addresses.iter().cloned())
            .collect();
        let (claim, now) = (claim.clone(), clock.now());
        let told = store
            .write(move |tx: &mut dyn Transaction| {
                claims::check(tx, &claim)?;
                learned::tell(tx, addresses.clone(), now.as_millis())
            })
            .await;
        match told {
            Ok(true) => info!("peers are told of other addresses of this cluster's nodes"),
            Ok(false) => {}
            Err(error) => {
                warn!(cause = %error, "the addresses of this cluster's nodes could not be put on record");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        if living.changed().await.is_err() {
            return;
        }
    }
}

/// How many changes of a peer's list are taken as they come: a cluster that is started or stopped node by node.
const CHANGES_AT_ONCE: u32 = 3;
/// And how long after one the next is taken from then on: each is written, and has all nodes read their peers anew.
const CHANGE_EVERY: Duration = Duration::from_secs(10);

/// How often peers have changed their lists of late: when each would be back at its first change, had it come evenly.
#[derive(Debug, Default)]
struct Pace(BTreeMap<ClusterId, Instant>);

impl Pace {
    /// The lists that may be taken now, which counts, and when the next of the others may.
    fn due(
        &mut self,
        told: Vec<(ClusterId, AddressList)>,
        now: Instant,
    ) -> (Vec<(ClusterId, AddressList)>, Option<Instant>) {
        let ahead = CHANGE_EVERY * (CHANGES_AT_ONCE - 1);
        self.0.retain(|_, even| *even > now);
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (cluster, list) in told {
            let even = self.0.get(&cluster).copied().unwrap_or(now);
            if even <= now + ahead {
                self.0.insert(cluster.clone(), even + CHANGE_EVERY);
                due.push((cluster, list));
            } else if let Some(at) = even.checked_sub(ahead) {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        (due, next)
    }
}

/// Keeps what peers tell of their nodes, for all nodes and the next start: the newest list of each, and none of those
/// that a peer has replaced before their turn came.
pub(super) async fn learn(store: Store, peers: Peers, tasks: Tasks) {
    let learning = async {
        let (mut changes, mut pace) = (peers.changes(), Pace::default());
        loop {
            changes.mark_unchanged();
            let (due, next) = pace.due(peers.told_addresses(), Instant::now());
            if !due.is_empty()
                && let Err(error) = keep(&store, &due).await
            {
                warn!(cause = %error, "addresses that peers told could not be kept");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            peers.addresses_kept(&due);
            let turn = OptionFuture::from(next.map(sleep_until));
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                Some(()) = turn => {}
            }
        }
    };
    tasks.token().run_until_cancelled(learning).await;
}

async fn keep(store: &Store, told: &[(ClusterId, AddressList)]) -> Result<(), store::Error> {
    let all = told.to_vec();
    let learned = store
        .write(move |tx: &mut dyn Transaction| {
            let mut learned = Vec::new();
            for (cluster, list) in &all {
                if learned::learn(tx, cluster, list)? {
                    learned.push((cluster.clone(), list.addresses.join(", ")));
                }
            }
            Ok::<_, store::Error>(learned)
        })
        .await?;
    for (cluster, addresses) in learned {
        info!(peer.cluster_id = %cluster, addresses, "cluster {cluster} told the addresses of its nodes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_changes_its_list_all_the_time_is_heard_now_and_then() {
        let id = |name: &str| ClusterId::new(name).unwrap();
        let list = |sequence| AddressList {
            sequence,
            addresses: vec![format!("10.0.0.{}:22", sequence % 200)],
        };
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut taken = Vec::new();
        // A thousand lists within a minute.
        for beat in 0..1_000_u64 {
            let now = begin + Duration::from_millis(60 * beat);
            let (due, next) = pace.due(vec![(id("berlin"), list(beat))], now);
            assert_eq!(due.is_empty(), next.is_some(), "{beat}");
            assert!(next.is_none_or(|at| at > now && at <= now + CHANGE_EVERY));
            taken.extend(due.into_iter().map(|(_, list)| list.sequence));
        }
        assert_eq!(&taken[..3], [0, 1, 2], "the first come as they are told");
        assert!((7..=9).contains(&taken.len()), "{taken:?}");
        // Another one waits for nobody.
        let now = begin + Duration::from_millis(59_950);
        let both = vec![(id("berlin"), list(2_000)), (id("paris"), list(1))];
        let (due, next) = pace.due(both, now);
        assert_eq!(due, [(id("paris"), list(1))]);
        // What waits is taken when its turn has come, and what is forgotten is only what is paid.
        let (due, _) = pace.due(vec![(id("berlin"), list(2_001))], next.unwrap());
        assert_eq!(due, [(id("berlin"), list(2_001))]);
        pace.due(Vec::new(), now + CHANGE_EVERY * 10);
        assert!(pace.0.is_empty());
    }
}
