//! Logins begun and not answered: none outlives its deadline, also after a crash.

use std::time::Duration;

use tracing::{error, warn};

use super::{Error, Inner};
use crate::{
    domain::session::{EndReason, Initiator, Role, State},
    store::{Transaction, audit, sessions},
};

/// How often overdue rows are looked for. A phone that logs in earlier is served earlier.
const INTERVAL: Duration = Duration::from_secs(1);

/// Ends overdue rows until the node shuts down.
pub(super) async fn sweep(inner: &Inner) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = inner.tasks.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let ended = tokio::select! {
            biased;
            () = inner.tasks.cancelled() => return,
            ended = end_overdue(inner) => ended,
        };
        if let Err(error) = ended {
            error!(
                cause = crate::telemetry::error_chain(&error),
                "overdue logins could not be ended"
            );
        }
    }
}

/// Ends every pending row past its deadline; home is owed the end, since it may hold a session.
pub(super) async fn end_overdue(inner: &Inner) -> Result<(), Error> {
    let now = inner.clock.now();
    let overdue = inner
        .store
        .read(move |tx: &mut dyn Transaction| Ok::<_, Error>(sessions::overdue_pending(tx, now)?))
        .await?;
    if overdue.is_empty() {
        return Ok(());
    }
    let ended = inner
        .store
        .write(move |tx: &mut dyn Transaction| {
            let mut ended = Vec::new();
            for row in &overdue {
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
                    audit::append(
                        tx,
                        &audit::Entry {
                            at: now,
                            actor: "the node".to_owned(),
                            action: audit::Action::SessionLogin,
                            subject: format!(
                                "{} of {} on {}",
                                row.login_name, row.counterpart, row.device
                            ),
                            outcome: "never answered; given up".to_owned(),
                            reference: Some(row.reference),
                        },
                    )?;
                    ended.push((
                        row.id,
                        row.device.clone(),
                        row.counterpart.clone(),
                        row.reference,
                    ));
                }
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
