//! Sessions that may no longer be: their user lost the right to them, or the cluster we share them with is leaving.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Error, HomeRole};
use crate::{
    domain::{
        ids::ClusterId,
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        self, Transaction,
        audit::{self, Action, Noun},
        meta, peers,
        sessions::{self, Session},
        users,
    },
    tasks::Tasks,
};

/// Sessions that are ended in one transaction: the writer is held for milliseconds.
const BATCH: u32 = 256;
/// What is written in a row is looked at once.
const SETTLE: Duration = Duration::from_millis(50);
/// When a sweep that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What became of the sessions shared with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// How many were ended.
    pub ended: usize,
    /// Whether the peer knows of all of them.
    pub delivered: bool,
}

pub(super) async fn watch(role: &HomeRole, tasks: &Tasks) {
    let mut changes = role.store.changes();
    let mut seen = None;
    loop {
        changes.mark_unchanged();
        let pause = match look(role, &mut seen).await {
            Ok(()) => None,
            Err(error) => {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "sessions of revoked users could not be ended; it is tried again"
                );
                Some(RETRY)
            }
        };
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            changed = changes.changed(), if pause.is_none() => if changed.is_err() { return },
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            () = tokio::time::sleep(SETTLE) => {}
        }
    }
}

/// Sweeps when a right may have been lost since the last look, and when the switch was turned on.
async fn look(role: &HomeRole, seen: &mut Option<(Option<String>, bool)>) -> Result<(), Error> {
    let revision = role
        .store
        .read(|tx: &mut dyn Transaction| meta::get(tx, users::REVOCATIONS))
        .await?;
    let now = (revision, role.parameters().end_sessions_on_revocation);
    if seen.as_ref() == Some(&now) {
        return Ok(());
    }
    while now.1 && sweep(role).await? == usize::try_from(BATCH).unwrap_or(usize::MAX) {}
    *seen = Some(now);
    Ok(())
}

/// Ends a batch of them; how many. First it only looks: mostly there are none.
async fn sweep(role: &HomeRole) -> Result<usize, Error> {
    let own = role.cluster.clone();
    let found = role
        .store
        .read(move |tx: &mut dyn Transaction| sessions::revoked(tx, &own, 1))
        .await?;
    if found.is_empty() {
        return Ok(0);
    }
    let (own, now) = (role.cluster.clone(), role.clock.now());
    let ended = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            let all = sessions::revoked(tx, &own, BATCH)?;
            for session in &all {
                sessions::end_at_home(tx, &own, session, EndReason::Revoked, now)?;
                audit::append(tx, &entry(session, "the node", now))?;
            }
            Ok::<_, store::Error>(all)
        })
        .await?;
    role.owed.notify_one();
    for session in &ended {
        info!(
            session.id = %session.id, peer.cluster_id = %session.counterpart, r#ref = %session.reference,
            "the session on {} of cluster {} was ended: its user may not be logged in there any more",
            session.device, session.counterpart
        );
    }
    Ok(ended.len())
}

fn entry(session: &Session, actor: &str, at: crate::clock::Timestamp) -> audit::Entry {
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

pub(super) async fn retire_peer(
    role: &HomeRole,
    cluster: &ClusterId,
    actor: &str,
    within: Duration,
) -> Result<Retired, Error> {
    let deadline = Instant::now() + within;
    bar(role, cluster, actor).await?;
    if !role.parameters().end_sessions_on_revocation {
        return Ok(Retired {
            ended: 0,
            delivered: true,
        });
    }
    let mut ended = end_all(role, cluster, actor).await?;
    let mut delivered = wait_delivered(role, cluster, deadline).await?;
    // On phones of ours its users may have logged in meanwhile.
    let late = end_all(role, cluster, actor).await?;
    if late > 0 {
        ended += late;
        delivered = wait_delivered(role, cluster, deadline).await?;
    }
    info!(peer.cluster_id = %cluster, ended, delivered, "ended all sessions shared with cluster {cluster}");
    Ok(Retired { ended, delivered })
}

/// From here on no phone of that cluster gets a user of ours.
async fn bar(role: &HomeRole, cluster: &ClusterId, actor: &str) -> Result<(), Error> {
    let (cluster, actor, now) = (cluster.clone(), actor.to_owned(), role.clock.now());
    role.store
        .write(move |tx: &mut dyn Transaction| {
            let mut peer =
                peers::get(tx, &cluster)?.ok_or_else(|| Error::CallerUnknown(cluster.clone()))?;
            if !peer.allow_emcc {
                return Ok(());
            }
            peer.allow_emcc = false;
            peers::upsert(tx, &peer)?;
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action: Action::Set(Noun::Cluster),
                    subject: cluster.to_string(),
                    outcome: "allow_emcc = false, since it is about to be removed".to_owned(),
                    reference: None,
                },
            )?;
            Ok(())
        })
        .await
}

/// Ends what lives, in both roles, batch by batch; how many.
async fn end_all(role: &HomeRole, cluster: &ClusterId, actor: &str) -> Result<usize, Error> {
    let mut total = 0;
    loop {
        let (own, cluster, actor, now) = (
            role.cluster.clone(),
            cluster.clone(),
            actor.to_owned(),
            role.clock.now(),
        );
        let ended = role
            .store
            .write(move |tx: &mut dyn Transaction| {
                let all = sessions::living_with(tx, &cluster, BATCH)?;
                for session in &all {
                    end(tx, &own, session, now)?;
                    audit::append(tx, &entry(session, &actor, now))?;
                }
                Ok::<_, store::Error>(all.len())
            })
            .await?;
        if ended == 0 {
            return Ok(total);
        }
        role.owed.notify_one();
        total += ended;
    }
}

fn end(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    session: &Session,
    now: crate::clock::Timestamp,
) -> Result<(), store::Error> {
    match session.role {
        Role::Home => sessions::end_at_home(tx, own, session, EndReason::Revoked, now)?,
        Role::Visiting => sessions::transition(
            tx,
            Role::Visiting,
            &session.counterpart,
            session.id,
            &[State::Pending, State::Active, State::Ending],
            State::Ended,
            Some((EndReason::Revoked, Initiator::Visiting, now)),
            true,
        )?,
    };
    Ok(())
}

/// Waits until the cluster is owed nothing; false when the deadline came first.
async fn wait_delivered(
    role: &HomeRole,
    cluster: &ClusterId,
    deadline: Instant,
) -> Result<bool, Error> {
    let mut changes = role.store.changes();
    loop {
        changes.mark_unchanged();
        let them = cluster.clone();
        let owed = role
            .store
            .read(move |tx: &mut dyn Transaction| sessions::owed(tx, &them, 1))
            .await?;
        if owed.is_empty() {
            return Ok(true);
        }
        let changed = tokio::time::timeout_at(deadline.into(), changes.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Ok(false);
        }
    }
}
