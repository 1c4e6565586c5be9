//! Sessions that may no longer be, since their user lost the right to them, or their cluster our trust.

use std::time::Duration;

use tracing::{info, warn};

use super::{Error, HomeRole, distrust};
use crate::{
    domain::{
        ids::{ClusterId, SessionId},
        session::EndReason,
    },
    store::{
        self, Transaction,
        audit::{self, Action},
        claims::{self, Claim, Task},
        membership::Membership,
        meta,
        parameters::ends_sessions_on_revocation,
        sessions::{self, Session},
        users,
    },
    tasks::Tasks,
};

/// Sessions that are ended in one transaction: the writer is held for some ten milliseconds.
pub(super) const BATCH: u32 = 256;
/// After a full batch the writer is left to others for that long.
pub(super) const REST: Duration = Duration::from_millis(20);
/// What is written in a row is looked at once.
const SETTLE: Duration = Duration::from_millis(50);
/// When a sweep that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// One node at a time does it, and looks through everything when it takes over.
pub(super) async fn watch(role: &HomeRole, membership: &Membership, tasks: &Tasks) {
    let task = Task::revocations();
    loop {
        let claim = tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            claim = membership.held(&task) => claim,
        };
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            () = membership.lost(&claim) => {}
            () = follow(role, &claim) => {}
        }
    }
}

/// Sweeps after changes, until the claim is found lost.
async fn follow(role: &HomeRole, claim: &Claim) {
    let mut changes = role.store.changes();
    let mut seen = None;
    loop {
        changes.mark_unchanged();
        let pause = match look(role, claim, &mut seen).await {
            Ok(()) => None,
            Err(Error::Store(store::Error::ClaimLost { .. })) => {
                // The handle hears of it at its next look.
                tokio::time::sleep(RETRY).await;
                return;
            }
            Err(error) => {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "sessions that may no longer be could not be ended; it is tried again"
                );
                Some(RETRY)
            }
        };
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            // The store's end is the node's.
            None if changes.changed().await.is_err() => std::future::pending().await,
            None => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Sweeps when a right may have been lost since the last look, and when the switch was turned on.
pub(super) async fn look(
    role: &HomeRole,
    claim: &Claim,
    seen: &mut Option<(Option<String>, bool)>,
) -> Result<(), Error> {
    let now = role
        .store
        .read(|tx: &mut dyn Transaction| {
            Ok::<_, store::Error>((
                meta::get(tx, users::REVOCATIONS)?,
                ends_sessions_on_revocation(tx)?,
            ))
        })
        .await?;
    if seen.as_ref() != Some(&now) {
        while now.1 && sweep(role, claim).await? {
            // The writer is left to others for about as long as a batch may hold it.
            tokio::time::sleep(REST).await;
        }
        *seen = Some(now.clone());
    }
    if now.1 {
        // At every look: a login that came over a connection from before may be written after the trust is gone.
        distrust::sweep(role, claim).await?;
    }
    Ok(())
}

/// Ends a batch of them; whether there may be more. They are looked for among all by a reader: mostly there are none, and
/// the writer, for whom every login waits, takes those that were found by their keys.
async fn sweep(role: &HomeRole, claim: &Claim) -> Result<bool, Error> {
    let own = role.cluster.clone();
    let found = role
        .store
        .read(move |tx: &mut dyn Transaction| sessions::revoked(tx, &own, BATCH))
        .await?;
    if found.is_empty() {
        return Ok(false);
    }
    end_batch(role, claim, found).await
}

/// Ends those of a batch that may still not be; whether there may be more behind them.
pub(super) async fn end_batch(
    role: &HomeRole,
    claim: &Claim,
    found: Vec<(ClusterId, SessionId)>,
) -> Result<bool, Error> {
    let is_full = u32::try_from(found.len()).is_ok_and(|found| found >= BATCH);
    // Also where all of them had ended meanwhile: there may be others behind them.
    Ok(end_found(role, claim, found).await?.is_some() && is_full)
}

/// Ends those of them that may still not be; how many. None where the switch is off by now.
pub(super) async fn end_found(
    role: &HomeRole,
    claim: &Claim,
    found: Vec<(ClusterId, SessionId)>,
) -> Result<Option<usize>, Error> {
    let (own, claim, now) = (role.cluster.clone(), claim.clone(), role.clock.now());
    let ended = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            if !ends_sessions_on_revocation(tx)? {
                return Ok(None);
            }
            let mut all = Vec::with_capacity(found.len());
            for (counterpart, id) in &found {
                // Since the look it may have ended, and its user may have the right again.
                let Some(session) = sessions::get_revoked(tx, &own, counterpart, *id)? else {
                    continue;
                };
                sessions::end_at_home(tx, &own, &session, EndReason::Revoked, now)?;
                all.push(session);
            }
            let entries: Vec<_> = all.iter().map(|one| entry(one, "the node", now)).collect();
            audit::append_all(tx, &entries)?;
            if !all.is_empty() {
                claims::effect(tx, &claim, &format!("ended {} sessions", all.len()), now)?;
            }
            Ok::<_, store::Error>(Some(all))
        })
        .await?;
    let Some(ended) = ended else {
        return Ok(None);
    };
    if !ended.is_empty() {
        role.owed.notify_one();
    }
    for session in &ended {
        info!(
            session.id = %session.id, peer.cluster_id = %session.counterpart, r#ref = %session.reference,
            "the session on {} of cluster {} was ended: its user may not be logged in there any more",
            session.device, session.counterpart
        );
    }
    Ok(Some(ended.len()))
}

/// What the audit has of such an end.
pub(super) fn entry(session: &Session, actor: &str, at: crate::clock::Timestamp) -> audit::Entry {
    audit::Entry {
        at,
        actor: actor.to_owned(),
        action: Action::SessionLogout,
        subject: format!(
            "{} on {} of {}",
            session.login_name, session.device, session.counterpart
        ),
        outcome: EndReason::Revoked.to_string(),
        reference: Some(session.reference),
    }
}
