//! Logins begun and not answered: none outlives its deadline, also after a crash.

use std::time::Duration;

use tracing::{error, warn};

use super::{Error, Inner};
use crate::{
    clock::Timestamp,
    domain::session::{EndReason, Initiator, Role, State},
    store::{
        self, Transaction,
        audit::{self, Action},
        claims::{self, Claim, Task},
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
        match end_abandoned(inner, Some(claim)).await {
            // Whoever has taken over ends what is left.
            Ok(()) | Err(Error::Store(store::Error::ClaimLost { .. })) => {}
            Err(error) => error!(
                cause = crate::telemetry::error_chain(&error),
                "overdue logins could not be ended"
            ),
        }
    }
}

/// Ends every pending row that is past its deadline, or carried by a node that has died.
/// A login that finds one in its way does so without being the node that sweeps.
pub(super) async fn end_abandoned(inner: &Inner, claim: Option<&Claim>) -> Result<(), Error> {
    let (now, dead) = (inner.clock.now(), inner.membership.dead());
    let rows = inner
        .store
        .read(move |tx: &mut dyn Transaction| {
            let mut rows = sessions::overdue_pending(tx, now)?;
            if !dead.is_empty() {
                let carried = sessions::carried(tx)?.into_iter();
                rows.extend(
                    carried
                        .filter(|(carrier, row)| {
                            dead.contains(carrier) && row.deadline.is_none_or(|until| until > now)
                        })
                        .map(|(_, row)| row),
                );
            }
            Ok::<_, Error>(rows)
        })
        .await?;
    let why = "never answered; given up";
    end_rows(inner, rows, why, claim.cloned()).await
}

/// Ends the rows of earlier runs of this node.
pub(super) async fn end_left_behind(inner: &Inner) -> Result<(), Error> {
    let run = inner.membership.run().clone();
    let rows = inner
        .store
        .read(move |tx: &mut dyn Transaction| {
            let carried = sessions::carried(tx)?.into_iter();
            let earlier = carried.filter(|(carrier, _)| {
                carrier.node == run.node && carrier.instance != run.instance
            });
            Ok::<_, Error>(earlier.map(|(_, row)| row).collect::<Vec<_>>())
        })
        .await?;
    end_rows(inner, rows, "the node ended before the answer", None).await
}

/// Ends rows that are still pending; home is owed the end, since it may hold a session.
async fn end_rows(
    inner: &Inner,
    rows: Vec<Session>,
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
            for row in &rows {
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
