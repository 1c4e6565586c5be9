//! Sessions shared with a peer where one side trusts the other no more: they end on both, each by itself, since there is
//! no link that could take the news. What is owed is told when there is trust again.

use tracing::info;

use super::{
    Error, HomeRole,
    reach::Reach,
    revocation::{BATCH, REST, entry},
};
use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, session::EndReason},
    store::{
        self, Transaction, audit,
        claims::{self, Claim},
        debts,
        parameters::ends_sessions_on_revocation,
        sessions,
    },
};

/// Why the sessions shared with a peer end.
#[derive(Clone, Debug)]
enum Why {
    /// We have taken back all that we accepted from it.
    Ours,
    /// It has taken back what it accepted from us, and no node of ours has a link to it.
    Theirs(Reach),
}

impl Why {
    /// Whether it is so still, in the transaction that ends sessions.
    fn holds(&self, tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<bool, store::Error> {
        match self {
            Self::Ours => debts::is_distrusted(tx, cluster),
            Self::Theirs(reach) => Ok(!reach.is_reached(tx, cluster)?),
        }
    }

    const fn told(&self) -> &'static str {
        match self {
            Self::Ours => "nothing is accepted from it any more",
            Self::Theirs(_) => "it accepts nothing from this cluster any more",
        }
    }
}

/// Ends what is shared with peers of whom nothing is accepted any more. A look that finds none is one read.
pub(super) async fn sweep(role: &HomeRole, claim: &Claim) -> Result<(), Error> {
    let distrusted = role
        .store
        .read(|tx: &mut dyn Transaction| debts::distrusted(tx))
        .await?;
    for cluster in distrusted {
        end_all(role, &cluster, &Why::Ours, claim).await?;
    }
    Ok(())
}

/// Ends what is shared with a peer that has said for long enough that it accepts nothing of ours; how many sessions.
/// Nothing where a living node of ours has a link to it, and where the switch is off.
pub(super) async fn end_with(
    role: &HomeRole,
    cluster: &ClusterId,
    claim: &Claim,
) -> Result<u64, Error> {
    let theirs = cluster.clone();
    let (living, _) = role
        .store
        .read(move |tx: &mut dyn Transaction| sessions::shared_with(tx, &theirs))
        .await?;
    if living == 0 {
        return Ok(0);
    }
    end_all(role, cluster, &Why::Theirs(Reach::now(role)), claim).await
}

/// Batch by batch, in both roles.
async fn end_all(
    role: &HomeRole,
    cluster: &ClusterId,
    why: &Why,
    claim: &Claim,
) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let (own, now) = (role.cluster.clone(), role.clock.now());
        let (theirs, claim, asked) = (cluster.clone(), claim.clone(), why.clone());
        let ended = role
            .store
            .write(move |tx: &mut dyn Transaction| {
                if !ends_sessions_on_revocation(tx)? || !asked.holds(tx, &theirs)? {
                    return Ok(0);
                }
                end_batch(tx, &own, &theirs, &claim, now)
            })
            .await?;
        if ended == 0 {
            break;
        }
        total += ended;
        if ended < u64::from(BATCH) {
            break;
        }
        tokio::time::sleep(REST).await;
    }
    if total > 0 {
        role.owed.notify_one();
        info!(
            peer.cluster_id = %cluster, ended = total,
            "ended all sessions shared with cluster {cluster}: {}", why.told()
        );
    }
    Ok(total)
}

fn end_batch(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    cluster: &ClusterId,
    claim: &Claim,
    now: Timestamp,
) -> Result<u64, store::Error> {
    let all = sessions::living_with(tx, cluster, BATCH)?;
    for session in &all {
        sessions::end_here(tx, own, session, EndReason::Revoked, now)?;
    }
    let entries: Vec<_> = all.iter().map(|one| entry(one, "the node", now)).collect();
    audit::append_all(tx, &entries)?;
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
    if count > 0 {
        claims::effect(
            tx,
            claim,
            &format!("ended {count} sessions with {cluster}"),
            now,
        )?;
    }
    Ok(count)
}
