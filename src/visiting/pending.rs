//! Logins begun and not answered: none outlives its deadline, also after a crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tracing::{error, warn};

use super::{Error, Inner};
use crate::{
    clock::Timestamp,
    domain::{
        liveness::Incarnation,
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        self, Transaction,
        audit::{self, Action},
        claims::{self, Claim, Task},
        nodes,
        sessions::{self, Session},
    },
};

/// How often overdue rows are looked for. A phone that logs in earlier is served earlier.
const INTERVAL: Duration = Duration::from_secs(1);

/// Ends overdue rows, and those of dead nodes, until the node shuts down, whenever this is the node that does so.
pub(super) async fn sweep(inner: &Inner) {
    let task = Task::pending_logins();
    loop {
        let claim = tokio::select! {
            biased;
            () = inner.tasks.cancelled() => return,
            claim = inner.membership.held(&task) => claim,
        };
        tokio::select! {
            biased;
            () = inner.tasks.cancelled() => return,
            () = inner.membership.lost(&claim) => {}
            () = sweep_under(inner, &claim) => {}
        }
    }
}

async fn sweep_under(inner: &Inner, claim: &Claim) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match end_abandoned(inner, &inner.membership.dead(), Some(claim)).await {
            // Whoever has taken over ends what is left.
            Ok(()) | Err(Error::Store(store::Error::ClaimLost { .. })) => {}
            Err(error) => error!(
                cause = crate::telemetry::error_chain(&error),
                "overdue logins could not be ended"
            ),
        }
    }
}

/// Ends every pending row that is past its deadline, or carried by one of the `dead`: runs that were seen to stand still
/// at these beats. A login that finds one in its way does so without being the node that sweeps.
pub(super) async fn end_abandoned(
    inner: &Inner,
    dead: &BTreeMap<Incarnation, i64>,
    claim: Option<&Claim>,
) -> Result<(), Error> {
    let seen = dead.clone();
    let rows = inner
        .store
        .read(move |tx: &mut dyn Transaction| {
            let now = tx.cluster_now()?;
            let overdue = sessions::overdue_pending(tx, now)?.into_iter();
            let mut rows: Vec<Abandoned> = overdue.map(|row| Abandoned { row, by: None }).collect();
            for (carrier, beat) in &seen {
                let carried = sessions::carried_by(tx, carrier)?.into_iter();
                let early = carried.filter(|row| row.deadline.is_none_or(|until| until > now));
                rows.extend(early.map(|row| Abandoned {
                    row,
                    by: Some((carrier.clone(), *beat)),
                }));
            }
            Ok::<_, Error>(rows)
        })
        .await?;
    let why = "never answered; given up";
    end_rows(inner, rows, why, claim.cloned()).await?;
    inner.swept.note(dead);
    Ok(())
}

/// Which dead runs have nothing left behind, and at which beat each stands: it begins nothing while it stands there, so
/// the logins that meet it need not look again. What one does begin that wakes, and dies before its next beat, is the
/// sweep's.
#[derive(Default)]
pub(super) struct Swept(Mutex<BTreeMap<Incarnation, i64>>);

impl Swept {
    fn note(&self, dead: &BTreeMap<Incarnation, i64>) {
        if !self.has(dead) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone_from(dead);
        }
    }

    /// Whether nothing is left of any of these.
    pub(super) fn has(&self, dead: &BTreeMap<Incarnation, i64>) -> bool {
        let swept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dead.iter().all(|(run, beat)| swept.get(run) == Some(beat))
    }
}

/// Ends the rows of the run of this node that was on record when this one took its place: it did not end by itself. One
/// that did, or that handed over, may still carry some to their end; what it does not is overdue soon.
pub(super) async fn end_left_behind(inner: &Inner, before: &Incarnation) -> Result<(), Error> {
    let before = before.clone();
    let rows = inner
        .store
        .read(move |tx: &mut dyn Transaction| {
            let left = sessions::carried_by(tx, &before)?.into_iter();
            let rows = left.map(|row| Abandoned { row, by: None });
            Ok::<_, Error>(rows.collect::<Vec<_>>())
        })
        .await?;
    end_rows(inner, rows, "the node ended before the answer", None).await
}

/// A row to be ended.
struct Abandoned {
    row: Session,
    /// Whose silence is why, and its beat: if it has beaten since, the row stays.
    by: Option<(Incarnation, i64)>,
}

/// Ends rows that are still pending; home is owed the end, since it may hold a session.
async fn end_rows(
    inner: &Inner,
    rows: Vec<Abandoned>,
    why: &'static str,
    claim: Option<Claim>,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let now = inner.clock.now();
    let ended = inner
        .store
        .write(move |tx: &mut dyn Transaction| {
            let mut ended = Vec::new();
            let stand = match rows.iter().any(|abandoned| abandoned.by.is_some()) {
                true => nodes::all(tx)?,
                false => Vec::new(),
            };
            let stand: BTreeSet<_> = stand.into_iter().map(|n| (n.run, n.beat)).collect();
            for Abandoned { row, by } in &rows {
                if by.as_ref().is_some_and(|by| !stand.contains(by)) {
                    continue;
                }
                let end = Some((EndReason::Abandoned, Initiator::Visiting, now));
                let from = [State::Pending];
                if sessions::transition(
                    tx,
                    Role::Visiting,
                    &row.counterpart,
                    row.id,
                    &from,
                    State::Ended,
                    end,
                    true,
                )? {
                    audit::append(tx, &entry(row, why, now))?;
                    ended.push((
                        row.id,
                        row.device.clone(),
                        row.counterpart.clone(),
                        row.reference,
                    ));
                }
            }
            if let Some(claim) = claim.as_ref().filter(|_| !ended.is_empty()) {
                let what = format!("gave up {} logins", ended.len());
                claims::effect(tx, claim, &what, now)?;
            }
            Ok::<_, Error>(ended)
        })
        .await?;
    for (id, device, home, reference) in &ended {
        warn!(
            session.id = %id, %device, peer.cluster_id = %home, r#ref = %reference,
            "a login on {device} was never answered and has been ended"
        );
    }
    if !ended.is_empty() {
        inner.owed.notify_one();
    }
    Ok(())
}

fn entry(row: &Session, why: &str, now: Timestamp) -> audit::Entry {
    audit::Entry {
        at: now,
        actor: "the node".to_owned(),
        action: Action::SessionLogin,
        subject: format!(
            "{} of {} on {}",
            row.login_name, row.counterpart, row.device
        ),
        outcome: why.to_owned(),
        reference: Some(row.reference),
    }
}
