//! The end of a session at visiting: from the phone, by an operator, or on home's word.
//!
//! Our row ends first, durably, and home is owed the news in the same transaction; then home is told.

use std::time::Instant;

use tracing::{info, warn};

use super::{Error, Inner, LoggedOut};
use crate::{
    admission::Permit,
    clock,
    domain::{
        ids::{ClusterId, DeviceName, Ref, SessionId, UserId},
        login::{Context, LogoutRequest},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        Transaction, audit, devices, peers,
        sessions::{self, Session},
    },
};

const LIVING: [State; 3] = [State::Pending, State::Active, State::Ending];

pub(super) async fn logout(
    inner: &Inner,
    device: &str,
    reference: Ref,
    place: Permit,
    deadline: Instant,
) -> Result<LoggedOut, Error> {
    let name = DeviceName::new(device).map_err(|_| Error::DeviceUnknown)?;
    let now = inner.clock.now();
    let session = inner
        .write(deadline, move |tx: &mut dyn Transaction| {
            devices::get(tx, &name)?.ok_or(Error::DeviceUnknown)?;
            let session = sessions::active_on_device(tx, Role::Visiting, &name)?
                .ok_or_else(|| Error::NobodyLoggedIn(name.clone()))?;
            if session.state == State::Pending {
                return Err(Error::LoginInProgress(name.clone()));
            }
            // The phone was told long ago that it failed. Who logged in since does not go by that.
            let late = clock::since(deadline);
            if !late.is_zero() && session.changed_at > tx.cluster_now()?.minus(late) {
                return Err(Error::StoreSlow);
            }
            end_row(
                tx,
                &session,
                EndReason::User,
                now,
                &format!("phone {name}"),
                reference,
            )?;
            Ok(session)
        })
        .await?;
    // The phone is free. How long its home takes to answer must hold up nobody else's logout.
    drop(place);
    tell_home(inner, session, EndReason::User, reference, deadline).await
}

pub(super) async fn end(
    inner: &Inner,
    counterpart: &ClusterId,
    id: SessionId,
    actor: &str,
    reference: Ref,
) -> Result<LoggedOut, Error> {
    let (counterpart, actor, now) = (counterpart.clone(), actor.to_owned(), inner.clock.now());
    let deadline = inner.deadline();
    let session = inner
        .write(deadline, move |tx: &mut dyn Transaction| {
            let session = sessions::get(tx, Role::Visiting, &counterpart, id)?
                .filter(|s| s.state != State::Ended)
                .ok_or(Error::NoSession)?;
            end_row(tx, &session, EndReason::Operator, now, &actor, reference)?;
            Ok::<_, Error>(session)
        })
        .await?;
    tell_home(inner, session, EndReason::Operator, reference, deadline).await
}

fn end_row(
    tx: &mut dyn Transaction,
    session: &Session,
    reason: EndReason,
    now: crate::clock::Timestamp,
    actor: &str,
    reference: Ref,
) -> Result<(), Error> {
    let end = Some((reason, Initiator::Visiting, now));
    sessions::transition(
        tx,
        Role::Visiting,
        &session.counterpart,
        session.id,
        &LIVING,
        State::Ended,
        end,
        true,
    )?;
    audit::append(
        tx,
        &audit::Entry {
            at: now,
            actor: actor.to_owned(),
            action: audit::Action::SessionLogout,
            subject: format!(
                "{} of {} on {}",
                session.login_name, session.counterpart, session.device
            ),
            outcome: reason.to_string(),
            reference: Some(reference),
        },
    )?;
    Ok(())
}

/// Tells home now, for as long as there is time until `deadline`. What it can't be told now stays owed, and is delivered
/// when the link returns.
async fn tell_home(
    inner: &Inner,
    session: Session,
    reason: EndReason,
    reference: Ref,
    deadline: Instant,
) -> Result<LoggedOut, Error> {
    inner.faults.pass("visiting.logout.ended").await;
    let home = session.counterpart.clone();
    let context = inner.context_until(reference, deadline);
    let request = LogoutRequest {
        session_id: session.id,
        reason,
        initiator: Initiator::Visiting,
    };
    let told = match inner.home(&home) {
        None => Err(format!("cluster {home} is no longer configured")),
        Some(cluster) => {
            match tokio::time::timeout_at(
                context.deadline.into(),
                cluster.logout(&context, request),
            )
            .await
            {
                Ok(Ok(reason)) => Ok(reason),
                Ok(Err(refusal)) => Err(refusal.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            }
        }
    };
    inner.faults.pass("visiting.logout.acknowledged").await;
    let mut acknowledged = told.is_ok();
    match told {
        // Both sides have ended it; that we could not write down that home knows only means it is told again.
        Ok(theirs) => {
            let id = session.id;
            if let Err(error) = acknowledge(inner, &home, id, theirs, context.deadline).await {
                acknowledged = false;
                warn!(
                    cause = crate::telemetry::error_chain(&error), session.id = %session.id,
                    "an acknowledged end could not be written down"
                );
            }
        }
        Err(cause) => {
            warn!(
                peer.cluster_id = %home, session.id = %session.id, r#ref = %reference, cause,
                "cluster {home} could not be told that a session ended; it will be told when the link returns"
            );
            inner.owed.notify_one();
        }
    }
    let user = session
        .user_id
        .map_or_else(|| session.login_name.to_string(), |u| u.to_string());
    info!(user, peer.cluster_id = %home, device = %session.device, r#ref = %reference, "user {user} logged out");
    let user = UserId::new(user).map_err(|_| Error::NoSession)?;
    Ok(LoggedOut {
        user,
        home,
        acknowledged,
    })
}

async fn acknowledge(
    inner: &Inner,
    home: &ClusterId,
    id: SessionId,
    theirs: EndReason,
    deadline: Instant,
) -> Result<(), Error> {
    let home = home.clone();
    inner
        .write(deadline, move |tx: &mut dyn Transaction| {
            let role = Role::Visiting;
            Ok::<_, Error>(sessions::acknowledge_as(tx, role, &home, id, theirs)?)
        })
        .await?;
    Ok(())
}

pub(super) async fn end_from_home(
    inner: &Inner,
    context: &Context,
    request: LogoutRequest,
) -> Result<EndReason, Error> {
    let (home, reference, now) = (context.caller.clone(), context.reference, inner.clock.now());
    let reason = inner
        .write(context.deadline, move |tx: &mut dyn Transaction| {
            // One without a record has no session here, and gets no row: it could fill the disk.
            if peers::get(tx, &home)?.is_none() {
                return Err(Error::NoRecord(home.clone()));
            }
            let before = sessions::get(tx, Role::Visiting, &home, request.session_id)?;
            if let Some(before) = &before
                && before.state == State::Ended
            {
                let (role, id) = (Role::Visiting, request.session_id);
                if sessions::acknowledge_as(tx, role, &home, id, request.reason)? {
                    return Ok::<_, Error>(request.reason);
                }
                return Ok(before.end_reason.unwrap_or(request.reason));
            }
            sessions::tombstone(
                tx,
                Role::Visiting,
                &home,
                request.session_id,
                request.reason,
                request.initiator,
                now,
            )?;
            let subject = before.map_or_else(
                || format!("session {}", request.session_id),
                |s| format!("{} of {home} on {}", s.login_name, s.device),
            );
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: format!("cluster {home}"),
                    action: audit::Action::SessionLogout,
                    subject,
                    outcome: request.reason.to_string(),
                    reference: Some(reference),
                },
            )?;
            Ok(request.reason)
        })
        .await?;
    info!(
        session.id = %request.session_id, peer.cluster_id = %context.caller, r#ref = %reference,
        "cluster {} ended a session on a phone here ({reason})", context.caller
    );
    Ok(reason)
}
