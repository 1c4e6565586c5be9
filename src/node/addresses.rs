//! Addresses of nodes, told and learned: ours to our peers over `Watch`, theirs into the store.

use std::time::Duration;

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

/// Keeps what peers tell of their nodes, for all nodes and the next start.
pub(super) async fn learn(store: Store, peers: Peers, tasks: Tasks) {
    let learning = async {
        let mut changes = peers.changes();
        loop {
            changes.mark_unchanged();
            let told = peers.told_addresses();
            if !told.is_empty()
                && let Err(error) = keep(&store, &told).await
            {
                warn!(cause = %error, "addresses that peers told could not be kept");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            peers.addresses_kept(&told);
            if changes.changed().await.is_err() {
                return;
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
