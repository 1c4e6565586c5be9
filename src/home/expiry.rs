//! Sessions whose time is over, and the time by which it is.
//!
//! One node advances cluster time and ends what is due, for both roles. Home's rows are due at the end of the time that
//! the parameters give; visiting's a minute later, for when home's word does not come.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{Error, HomeRole};
use crate::{
    clock::{self, Timestamp},
    domain::session::{EndReason, Role},
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

/// Sessions that are ended in one transaction: the writer is held for some milliseconds.
pub(super) const BATCH: u32 = 128;
/// The same once they are late: on a slow disk it is the transactions that take time, not the sessions.
const LATE_BATCH: u32 = 2 * BATCH;
/// How often is looked for what is due.
const LOOK: Duration = Duration::from_millis(500);
/// After a full batch the writer is left to others for so many percent of what it was held, as long as there is time.
const REST: u32 = 200;
/// Where there is none any more: others' writes come between all the same, only not as many.
const LEAST_REST: u32 = 25;
/// The longest rest: a disk that hangs once is no reason to wait for twice as long.
const LONGEST_REST: Duration = Duration::from_millis(200);
/// How late a session may be before rests are cut short.
const AT_EASE: Duration = Duration::from_secs(1);
/// From there to the shortest rests: what is due at one second ends within five.
const HASTENS: Duration = Duration::from_millis(1_500);
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
    let (mut kept, mut late) = (None, Duration::ZERO);
    loop {
        let pause = match look(role, claim, &mut kept, size(late)).await {
            Ok(batch) => {
                late = batch.late;
                if batch.is_full {
                    rest(batch.held, late)
                } else {
                    LOOK
                }
            }
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

/// What was ended in one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// How many sessions.
    pub(super) ended: usize,
    /// Whether more may be due.
    is_full: bool,
    /// How late the first of them was.
    late: Duration,
    /// How long the writer was held.
    held: Duration,
}

/// How many sessions are ended in one transaction, where the last one found them so late.
const fn size(late: Duration) -> u32 {
    if late.as_nanos() > AT_EASE.as_nanos() {
        LATE_BATCH
    } else {
        BATCH
    }
}

/// How long the writer is left to others after a full batch: the later the sessions, the shorter.
fn rest(held: Duration, late: Duration) -> Duration {
    let over = late.saturating_sub(AT_EASE).min(HASTENS).as_millis();
    let less = u128::from(REST - LEAST_REST) * over / HASTENS.as_millis();
    let percent = REST.saturating_sub(u32::try_from(less).unwrap_or(REST));
    LONGEST_REST.min(held.saturating_mul(percent) / 100)
}

/// Advances cluster time when it is time for that, then ends one batch of so many at most.
pub(super) async fn look(
    role: &HomeRole,
    claim: &Claim,
    kept: &mut Option<Instant>,
    limit: u32,
) -> Result<Batch, Error> {
    if kept.is_none_or(|at| clock::since(at) >= cluster_time::KEPT_EVERY) {
        let began = clock::instant();
        cluster_time::keep(&role.store, claim, &role.clock).await?;
        *kept = Some(began);
    }
    end_due(role, claim, limit).await
}

/// What is due, home's first, and cluster time.
fn due(
    tx: &mut dyn Transaction,
    wall: Timestamp,
    limit: u32,
) -> Result<(Vec<Session>, Timestamp), store::Error> {
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
    Ok((due, now))
}

/// First it only looks: mostly there is nothing.
async fn end_due(role: &HomeRole, claim: &Claim, limit: u32) -> Result<Batch, Error> {
    let wall = role.clock.now();
    let (found, _) = role
        .store
        .read(move |tx: &mut dyn Transaction| due(tx, wall, 1))
        .await?;
    if found.is_empty() {
        return Ok(Batch::default());
    }
    let (own, claim) = (role.cluster.clone(), claim.clone());
    let (ended, is_full, now, began) = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            // Until it is this one's turn the writer is others'.
            let began = clock::instant();
            let (mut all, now) = due(tx, wall, limit)?;
            let is_full = all.len() >= limit as usize;
            // With home's row of a login from here its visiting one has ended, too.
            let mut ended = BTreeSet::new();
            for session in &all {
                if sessions::end_here(tx, &own, session, EndReason::Expired, wall)? {
                    ended.insert((session.role, session.id));
                }
            }
            all.retain(|session| ended.contains(&(session.role, session.id)));
            if all.is_empty() {
                return Ok((all, is_full, now, began));
            }
            let entries: Vec<_> = all.iter().map(|session| entry(session, wall)).collect();
            audit::append_all(tx, &entries)?;
            claims::effect(tx, &claim, &format!("ended {} sessions", all.len()), wall)?;
            Ok::<_, store::Error>((all, is_full, now, began))
        })
        .await?;
    let held = clock::since(began);
    if !ended.is_empty() {
        role.owed.notify_one();
    }
    for session in &ended {
        info!(
            session.id = %session.id, peer.cluster_id = %session.counterpart, r#ref = %session.reference,
            role = %session.role, "the session on {} shared with cluster {} was ended: its time is over",
            session.device, session.counterpart
        );
    }
    let first = ended.iter().filter_map(|session| session.deadline).min();
    Ok(Batch {
        ended: ended.len(),
        is_full,
        late: first.map_or(Duration::ZERO, |deadline| now.since(deadline)),
        held,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u32 = 10_000;
    const WITHIN: Duration = Duration::from_secs(5);

    /// How long after the moment at which all were due the last one has ended, and the rest after the first batch.
    fn take(held: Duration, looked: Duration) -> (Duration, Duration) {
        let (mut at, mut first, mut left) = (looked, None, MANY);
        while left > 0 {
            let size = size(at);
            let held = held * size / BATCH;
            let rest = rest(held, at);
            at += held + rest;
            first.get_or_insert(rest);
            left = left.saturating_sub(size);
        }
        (at, first.unwrap())
    }

    #[test]
    fn rests_are_as_long_as_time_allows() {
        for held in 0..=35 {
            let held = Duration::from_millis(held);
            for looked in [Duration::ZERO, LOOK] {
                let (all, first) = take(held, looked);
                assert!(all < WITHIN, "{held:?}: {all:?}");
                assert_eq!(first, held * 2, "{held:?}");
            }
        }
    }

    #[test]
    fn the_later_the_shorter_and_never_none_nor_long() {
        let table = [
            (10, 0, 20),
            (10, 1_000, 20),
            (20, 1_750, 22),
            (20, 2_500, 5),
            (20, 3_600_000, 5),
            (3_000, 0, 200),
            (3_000, 2_500, 200),
            (0, 0, 0),
        ];
        for (held, late, wanted) in table {
            let [held, late, wanted] = [held, late, wanted].map(Duration::from_millis);
            let found = rest(held, late);
            assert!(
                found.abs_diff(wanted) < Duration::from_millis(1),
                "{held:?}, {late:?}: {found:?}"
            );
        }
    }
}
