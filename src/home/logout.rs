//! The end of a session at home: on visiting's word, or on an operator's.

use tracing::{info, warn};

use super::{Ended, Error, HomeRole};
use crate::{
    domain::{
        ids::{ClusterId, SessionId},
        login::{Context, LogoutRequest},
        session::{EndReason, Role, State},
    },
    store::{Transaction, audit, peers, sessions},
};

pub(super) async fn logout(
    role: &HomeRole,
    context: &Context,
    request: LogoutRequest,
) -> Result<EndReason, Error> {
    role.faults.pass("home.logout.received").await;
    let outcome = end_on_word(role, context, request).await;
    // Of a caller that is no peer the edge tells, and not each time.
    if let Err(error) = &outcome
        && !error.is_admission()
    {
        warn!(
            session.id = %request.session_id, peer.cluster_id = %context.caller, r#ref = %context.reference,
            em_code = error.em_code(context.caller == role.cluster).number(),
            cause = crate::telemetry::error_chain(error),
            "a session could not be ended on the word of cluster {}", context.caller
        );
    }
    outcome
}

async fn end_on_word(
    role: &HomeRole,
    context: &Context,
    request: LogoutRequest,
) -> Result<EndReason, Error> {
    let (own, context_in, now) = (role.cluster.clone(), context.clone(), role.clock.now());
    let reason = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            let caller = &context_in.caller;
            // A disabled peer may still end its sessions; one without a record has none here.
            if *caller != own && peers::get(tx, caller)?.is_none() {
                return Err(Error::CallerUnknown(caller.clone()));
            }
            let before = sessions::get(tx, Role::Home, caller, request.session_id)?;
            if let Some(before) = &before
                && before.state == State::Ended
            {
                // Both sides know now: nothing is owed any more.
                sessions::acknowledge(tx, Role::Home, caller, request.session_id)?;
                return Ok(before.end_reason.unwrap_or(request.reason));
            }
            sessions::tombstone(
                tx,
                Role::Home,
                caller,
                request.session_id,
                request.reason,
                request.initiator,
                now,
            )?;
            let subject = before.map_or_else(
                || format!("session {}", request.session_id),
                |s| format!("{} on {}", s.login_name, s.device),
            );
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: format!("cluster {caller}"),
                    action: audit::Action::SessionLogout,
                    subject,
                    outcome: request.reason.to_string(),
                    reference: Some(context_in.reference),
                },
            )?;
            Ok(request.reason)
        })
        .await?;
    role.faults.pass("home.logout.committed").await;
    info!(
        session.id = %request.session_id, peer.cluster_id = %context.caller, r#ref = %context.reference,
        "session of cluster {} ended here ({reason})", context.caller
    );
    Ok(reason)
}

pub(super) async fn end(
    role: &HomeRole,
    counterpart: &ClusterId,
    id: SessionId,
    actor: &str,
) -> Result<Ended, Error> {
    let (own, counterpart, actor, now) = (
        role.cluster.clone(),
        counterpart.clone(),
        actor.to_owned(),
        role.clock.now(),
    );
    let ended = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            let session =
                sessions::get(tx, Role::Home, &counterpart, id)?.ok_or(Error::NoSession)?;
            if session.state == State::Ended {
                return Ok::<_, Error>(Ended::Before(
                    session.end_reason.unwrap_or(EndReason::Operator),
                ));
            }
            let owed = sessions::end_at_home(tx, &own, &session, EndReason::Operator, now)?;
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action: audit::Action::SessionLogout,
                    subject: format!("{} on {}", session.login_name, session.device),
                    outcome: EndReason::Operator.to_string(),
                    reference: Some(session.reference),
                },
            )?;
            Ok(Ended::Now { owed })
        })
        .await?;
    role.owed.notify_one();
    Ok(ended)
}
