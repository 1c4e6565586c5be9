//! What goes on beside the requests of a node so that its sessions, and those of its peers, stay true: begun by the
//! daemon, and by a node of the simulation in just the same way.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::{addresses, banished, clock_steps::ClockSteps, links, skew};
use crate::{
    chance::Chance,
    clock::Clock,
    domain::{federation::Federation, ids::ClusterId, login::HomeCluster},
    home::HomeRole,
    peer::{Peers, agreement::Agreement, outbox::Outbox},
    store::{self, Store, Transaction, claims, membership::Membership, nodes, retention},
    tasks::Tasks,
    visiting::VisitingRole,
};

/// What the tasks work with.
pub(super) struct SessionParts {
    /// Our own cluster.
    pub(super) cluster: ClusterId,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) chance: Chance,
    pub(super) membership: Membership,
    pub(super) peers: Peers,
    pub(super) home: HomeRole,
    pub(super) visiting: VisitingRole,
    /// Our own home role, as another cluster sees it.
    pub(super) local: Arc<dyn HomeCluster>,
    /// The other clusters.
    pub(super) others: Arc<dyn Federation>,
    /// Told when a debt to another cluster is made.
    pub(super) owed: Arc<Notify>,
    /// How long one delivery to another cluster may take.
    pub(super) deadline: Duration,
    /// Where steps of the wall clock are noted.
    pub(super) steps: ClockSteps,
}

/// Begins them; each goes on until `tasks` end.
pub(super) fn begin_session_tasks(parts: SessionParts, tasks: &Tasks) {
    let up = Arc::new(Notify::new());
    tasks.spawn("outbox", outbox(&parts, &up, tasks).run());
    tasks.spawn("agreement", agreement(&parts, tasks).run());
    let SessionParts {
        store,
        clock,
        membership,
        peers,
        home,
        visiting,
        steps,
        ..
    } = parts;
    let publishing = addresses::publish(
        store.clone(),
        membership.clone(),
        clock.clone(),
        tasks.clone(),
    );
    tasks.spawn("own addresses", publishing);
    let learning = addresses::learn(store.clone(), peers.clone(), tasks.clone());
    tasks.spawn("learned addresses", learning);
    let telling = links::tell(
        store.clone(),
        membership.clone(),
        peers.clone(),
        clock.clone(),
        tasks.clone(),
    );
    tasks.spawn("links on record", telling);
    let listening = banished::watch(
        home.clone(),
        peers.clone(),
        membership.clone(),
        tasks.clone(),
    );
    tasks.spawn("peers that accept nothing of ours", listening);
    tasks.spawn("own clock", steps.watch(clock.clone(), tasks.clone()));
    tasks.spawn("clocks of peers", skew::watch(peers.clone(), tasks.clone()));
    let (expiring, in_time, of_expiry) = (home.clone(), tasks.clone(), membership.clone());
    tasks.spawn("expiry", async move {
        expiring.watch_expiry(&of_expiry, &in_time).await;
    });
    let (watching, of_home) = (tasks.clone(), membership.clone());
    tasks.spawn("revocations", async move {
        home.watch_revocations(&of_home, &watching).await;
    });
    let counting = visiting.clone();
    tasks.spawn("refs", async move { counting.keep_refs().await });
    tasks.spawn(
        "pending logins",
        async move { visiting.sweep_pending().await },
    );
    let (mut ups, waking) = (peers.on_up(), tasks.clone());
    tasks.spawn("links that come up", async move {
        loop {
            tokio::select! {
                biased;
                () = waking.cancelled() => return,
                _ = ups.next() => up.notify_one(),
            }
        }
    });
    let ended = tasks.clone();
    tasks.spawn("retention", async move {
        forget(&store, &membership, &clock, &ended).await;
    });
}

fn outbox(parts: &SessionParts, up: &Arc<Notify>, tasks: &Tasks) -> Outbox {
    Outbox {
        cluster: parts.cluster.clone(),
        store: parts.store.clone(),
        local: Arc::clone(&parts.local),
        federation: Arc::clone(&parts.others),
        links: Arc::new(parts.peers.clone()),
        membership: parts.membership.clone(),
        clock: parts.clock.clone(),
        wake: Arc::clone(&parts.owed),
        up: Arc::clone(up),
        tasks: tasks.clone(),
        deadline: parts.deadline,
        chance: parts.chance.clone(),
    }
}

fn agreement(parts: &SessionParts, tasks: &Tasks) -> Agreement {
    Agreement {
        store: parts.store.clone(),
        peers: parts.peers.clone(),
        membership: parts.membership.clone(),
        clock: parts.clock.clone(),
        chance: parts.chance.fork("agreement"),
        tasks: tasks.clone(),
    }
}

/// Forgets what is older than it need be, once an hour, on one node at a time.
async fn forget(store: &Store, membership: &Membership, clock: &Clock, tasks: &Tasks) {
    const INTERVAL: Duration = Duration::from_secs(3_600);
    let task = claims::Task::retention();
    loop {
        let round = async {
            let claim = membership.held(&task).await;
            forget_now(store, membership, &claim, clock).await;
            tokio::select! {
                biased;
                () = membership.lost(&claim) => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        };
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            () = round => {}
        }
    }
}

async fn forget_now(store: &Store, membership: &Membership, claim: &claims::Claim, clock: &Clock) {
    match retention::purge(store, claim, clock.now()).await {
        // Whoever has taken over forgets the rest.
        Ok(0) | Err(store::Error::ClaimLost { .. }) => {}
        Ok(rows) => info!(
            rows,
            "forgot ended sessions and answers of more than 7 days ago"
        ),
        Err(error) => {
            error!(
                cause = crate::telemetry::error_chain(&error),
                "old sessions could not be forgotten"
            );
        }
    }
    let dead = membership.dead();
    let (claim, now) = (claim.clone(), clock.now());
    let forgotten = store.write(move |tx: &mut dyn Transaction| {
        for (run, beat) in dead.iter() {
            if nodes::remove_silent(tx, run, *beat)? {
                claims::effect(
                    tx,
                    &claim,
                    &format!("forgot node {run}, which is silent"),
                    now,
                )?;
            }
        }
        Ok::<_, store::Error>(())
    });
    if let Err(error) = forgotten.await {
        warn!(
            cause = crate::telemetry::error_chain(&error),
            "nodes that are gone could not be forgotten"
        );
    }
}
