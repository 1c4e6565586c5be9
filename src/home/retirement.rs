//! A peer that is to be removed: no session with it begins any more, those that live end, and it is told, before its
//! record goes. Whatever stands in the way leaves it as it was.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{
    HomeRole,
    reach::Reach,
    revocation::{BATCH, REST, entry},
};
use crate::{
    clock,
    domain::{ids::ClusterId, session::EndReason},
    store::{self, Transaction, debts, parameters::ends_sessions_on_revocation, peers, sessions},
};

/// How much longer than the removal may take the peer is marked: nobody has to take back the mark of a node that
/// ended meanwhile.
const SLACK: Duration = Duration::from_secs(30);
/// How often it is looked whether the link is still there that the news would take.
const LOOK: Duration = Duration::from_millis(250);

/// A peer that is to be removed.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Which.
    pub cluster: ClusterId,
    /// Who wants it.
    pub actor: String,
    /// How long it may take until it knows of all ends.
    pub within: Duration,
    /// Whether it may go without knowing of them.
    pub forget_owed: bool,
}

/// What became of the sessions shared with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// How many were ended.
    pub ended: u64,
    /// Whether the peer knows of all of them.
    pub delivered: bool,
}

/// Why a peer stays. Logins between the two clusters are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Stays {
    /// There is no record of it.
    #[error("there is no peer {0}")]
    Unknown(ClusterId),
    /// Nothing has happened: an operator has said that such sessions don't end by themselves.
    #[error(
        "{living} sessions with {cluster} live, and end-sessions-on-revocation is off; nothing was ended"
    )]
    SessionsLive {
        /// The peer.
        cluster: ClusterId,
        /// How many live.
        living: u64,
    },
    /// Nothing has happened: there is news for it and no link that could take it.
    #[error(
        "no node of this cluster has a link to {cluster}, so it can't be told of the end of {news} sessions; nothing was ended"
    )]
    Unreachable {
        /// The peer.
        cluster: ClusterId,
        /// How many ends it would have to be told of, or has to be already.
        news: u64,
    },
    /// The sessions are over, and it has not said in time that it knows.
    #[error(
        "{ended} sessions with {cluster} were ended, and it has still to be told of {owed}; it stays, and logins between \
         the two are as they were"
    )]
    NotTold {
        /// The peer.
        cluster: ClusterId,
        /// How many sessions were ended.
        ended: u64,
        /// Of how many ends it has to be told.
        owed: u64,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
}

/// Marks it, ends what lives, and waits until it knows. On success the mark stays until the record goes, or lapses.
pub(super) async fn retire(role: &HomeRole, leaving: &Leaving) -> Result<Retired, Stays> {
    let deadline = clock::instant() + leaving.within;
    begin(role, leaving).await?;
    let outcome = end_and_tell(role, leaving, deadline).await;
    if outcome.is_err() {
        stay(role, &leaving.cluster).await;
    }
    outcome
}

/// Takes the mark back. Where that fails it lapses by itself.
pub(super) async fn stay(role: &HomeRole, cluster: &ClusterId) {
    let them = cluster.clone();
    let taken_back = role
        .store
        .write(move |tx: &mut dyn Transaction| peers::set_leaving(tx, &them, None))
        .await;
    if let Err(error) = taken_back {
        warn!(
            peer.cluster_id = %cluster, cause = crate::telemetry::error_chain(&error),
            "cluster {cluster} stays, and logins with it are refused for a minute longer"
        );
    }
}

/// What can be known before is looked at in the transaction that sets the mark: from then on no session with the peer
/// begins, in either direction.
async fn begin(role: &HomeRole, leaving: &Leaving) -> Result<(), Stays> {
    let (cluster, forget) = (leaving.cluster.clone(), leaving.forget_owed);
    let lasts = leaving.within + SLACK;
    let reach = Reach::now(role);
    role.store
        .write(move |tx: &mut dyn Transaction| {
            let (living, owed) = sessions::shared_with(tx, &cluster)?;
            if living > 0 && !ends_sessions_on_revocation(tx)? {
                let cluster = cluster.clone();
                return Err(Stays::SessionsLive { cluster, living });
            }
            if living + owed > 0 && !forget && !reach.is_reached(tx, &cluster)? {
                let (cluster, news) = (cluster.clone(), living + owed);
                return Err(Stays::Unreachable { cluster, news });
            }
            let until = tx.cluster_now()?.plus(lasts);
            if peers::set_leaving(tx, &cluster, Some(until))? {
                // What it refused before is told once more: there is no later.
                debts::unpark_all(tx, &cluster)?;
                Ok(())
            } else {
                Err(Stays::Unknown(cluster.clone()))
            }
        })
        .await
}

async fn end_and_tell(
    role: &HomeRole,
    leaving: &Leaving,
    deadline: Instant,
) -> Result<Retired, Stays> {
    let cluster = &leaving.cluster;
    let ended = end_all(role, leaving).await?;
    role.owed.notify_one();
    let owed = wait_told(role, leaving, deadline).await?;
    if owed > 0 && !leaving.forget_owed {
        let cluster = cluster.clone();
        return Err(Stays::NotTold {
            cluster,
            ended,
            owed,
        });
    }
    let delivered = owed == 0;
    info!(peer.cluster_id = %cluster, ended, delivered, "ended all sessions shared with cluster {cluster}");
    Ok(Retired { ended, delivered })
}

/// Ends what lives, in both roles, batch by batch; how many.
async fn end_all(role: &HomeRole, leaving: &Leaving) -> Result<u64, store::Error> {
    let mut total = 0;
    loop {
        let (own, now) = (role.cluster.clone(), role.clock.now());
        let (cluster, actor) = (leaving.cluster.clone(), leaving.actor.clone());
        let ended = role
            .store
            .write(move |tx: &mut dyn Transaction| {
                let all = sessions::living_with(tx, &cluster, BATCH)?;
                for session in &all {
                    sessions::end_here(tx, &own, session, EndReason::Revoked, now)?;
                }
                let entries: Vec<_> = all.iter().map(|one| entry(one, &actor, now)).collect();
                crate::store::audit::append_all(tx, &entries)?;
                Ok::<_, store::Error>(u64::try_from(all.len()).unwrap_or(u64::MAX))
            })
            .await?;
        if ended == 0 {
            return Ok(total);
        }
        total += ended;
        if ended >= u64::from(BATCH) {
            tokio::time::sleep(REST).await;
        }
    }
}

/// Waits until the cluster is owed nothing, or the deadline; of how many ends it has to be told then. Where it may go
/// without, a link that is down is waited for no longer.
async fn wait_told(
    role: &HomeRole,
    leaving: &Leaving,
    deadline: Instant,
) -> Result<u64, store::Error> {
    let mut changes = role.store.changes();
    loop {
        changes.mark_unchanged();
        let (them, reach) = (leaving.cluster.clone(), Reach::now(role));
        let (owed, is_reached) = role
            .store
            .read(move |tx: &mut dyn Transaction| {
                let (_, owed) = sessions::shared_with(tx, &them)?;
                Ok::<_, store::Error>((owed, reach.is_reached(tx, &them)?))
            })
            .await?;
        let in_vain = leaving.forget_owed && !is_reached;
        if owed == 0 || in_vain || clock::instant() >= deadline {
            return Ok(owed);
        }
        let next = deadline.min(clock::instant() + LOOK);
        if let Ok(Err(_)) = tokio::time::timeout_at(next.into(), changes.changed()).await {
            return Ok(owed);
        }
    }
}
