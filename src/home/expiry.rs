//! Sessions whose time is over, and the time by which it is.
//!
//! One node advances cluster time and ends what is due, for both roles. Home's rows are due at the end of the time that
//! the parameters give; visiting's a minute later, for when home's word does not come.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Error, HomeRole};
use crate::{
    clock::{self, Timestamp},
    domain::session::{EndReason, Initiator, Role, State},
    fault::{self, Bug},
    store::{
        self, Transaction,
        audit::{self, Action},
        claims::{self, Claim, Task},
        cluster_time,
        membership::Membership,
        sessions::{self, Session},
    },
    tasks::Tasks,
};

/// Sessions that are ended in one transaction: the writer is held for milliseconds.
pub(super) const BATCH: u32 = 64;
/// How often is looked for what is due.
const LOOK: Duration = Duration::from_millis(500);
/// After a full batch the writer is left to others for this many times what the batch took.
const REST: u32 = 2;
/// The longest such rest: what is due at one second ends within five.
const LONGEST_REST: Duration = Duration::from_millis(200);
/// When a look that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Until the tasks end.
pub(super) async fn watch(role: &HomeRole, membership: &Membership, tasks: &Tasks) {
    tokio::select! {
        biased;
        () = tasks.cancelled() => {}
        () = keep(role, membership) => {}
    }
}

async fn keep(role: &HomeRole, membership: &Membership) {
    let task = Task::expiry();
    loop {
        let claim = membership.held(&task).await;
        tokio::select! {
            biased;
            () = membership.lost(&claim) => {}
            () = follow(role, &claim) => {}
        }
    }
}

/// Advances cluster time and ends what is due, until the claim is found lost.
async fn follow(role: &HomeRole, claim: &Claim) {
    let mut kept = None;
    loop {
        let began = clock::instant();
        let pause = match look(role, claim, &mut kept).await {
            Ok(ended) if ended < BATCH as usize => LOOK,
            Ok(_) => LONGEST_REST.min(clock::since(began) * REST),
            Err(Error::Store(store::Error::ClaimLost { .. })) => {
                // The handle hears of it at its next look.
                tokio::time::sleep(RETRY).await;
                return;
            }
            Err(error) => {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "sessions whose time is over could not be ended; it is tried again"
                );
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Advances cluster time when it is time for that, then ends one batch; how many sessions.
pub(super) async fn look(
    role: &HomeRole,
    claim: &Claim,
    kept: &mut Option<Instant>,
) -> Result<usize, Error> {
    if kept.is_none_or(|at| clock::since(at) >= cluster_time::KEPT_EVERY) {
        let began = clock::instant();
        cluster_time::keep(&role.store, claim, &role.clock).await?;
        *kept = Some(began);
    }
    end_due(role, claim).await
}

/// What is due, home's first.
fn due(
    tx: &mut dyn Transaction,
    wall: Timestamp,
    limit: u32,
) -> Result<Vec<Session>, store::Error> {
    let now = if fault::has(Bug::ExpiryByWallClock) {
        wall
    } else {
        tx.cluster_now()?
    };
    let mut due = sessions::due(tx, Role::Home, now, limit)?;
    let left = limit.saturating_sub(u32::try_from(due.len()).unwrap_or(limit));
    if left > 0 {
        due.extend(sessions::due(tx, Role::Visiting, now, left)?);
    }
    Ok(due)
}

/// First it only looks: mostly there is nothing.
async fn end_due(role: &HomeRole, claim: &Claim) -> Result<usize, Error> {
    let wall = role.clock.now();
    let found = role
        .store
        .read(move |tx: &mut dyn Transaction| due(tx, wall, 1))
        .await?;
    if found.is_empty() {
        return Ok(0);
    }
    let (own, claim) = (role.cluster.clone(), claim.clone());
    let ended = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            let all = due(tx, wall, BATCH)?;
            for session in &all {
                match session.role {
                    Role::Home => {
                        sessions::end_at_home(tx, &own, session, EndReason::Expired, wall)?;
                    }
                    Role::Visiting => {
                        let is_local = session.counterpart == own;
                        let end = Some((EndReason::Expired, Initiator::Visiting, wall));
                        sessions::transition(
                            tx,
                            Role::Visiting,
                            &session.counterpart,
                            session.id,
                            &[State::Active],
                            State::Ended,
                            end,
                            !is_local,
                        )?;
                    }
                }
                audit::append(tx, &entry(session, wall))?;
            }
            claims::effect(tx, &claim, &format!("ended {} sessions", all.len()), wall)?;
            Ok::<_, store::Error>(all)
        })
        .await?;
    role.owed.notify_one();
    for session in &ended {
        info!(
            session.id = %session.id, peer.cluster_id = %session.counterpart, r#ref = %session.reference,
            role = %session.role, "the session on {} shared with cluster {} was ended: its time is over",
            session.device, session.counterpart
        );
    }
    Ok(ended.len())
}

fn entry(session: &Session, at: Timestamp) -> audit::Entry {
    let place = match session.role {
        Role::Home => format!("{} on {} of", session.login_name, session.device),
        Role::Visiting => format!("{} on {}, user of", session.login_name, session.device),
    };
    audit::Entry {
        at,
        actor: "the node".to_owned(),
        action: Action::SessionLogout,
        subject: format!("{place} {}", session.counterpart),
        outcome: EndReason::Expired.to_string(),
        reference: Some(session.reference),
    }
}
