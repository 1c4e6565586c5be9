//! Ends of sessions that other clusters have still to be told of: what is owed and why it has not been told, and an
//! operator's word on those that are refused.

use std::str::FromStr;

use crate::{
    clock::Timestamp,
    domain::{
        ids::{ClusterId, Ref},
        session::Role,
    },
    edge::admin::{
        error::Error,
        roles::Actor,
        sessions::{self, Which},
        views,
    },
    store::{
        self, Store, Transaction,
        audit::{self, Action},
        debts, peers,
        sessions::Session,
    },
    wire::admin as pb,
};

/// Puts to each session whose end is owed why the other cluster has not been told yet.
pub(super) fn explain(sessions: &mut [pb::Session], status: &pb::GetClusterStatusResponse) {
    for session in sessions.iter_mut().filter(|session| session.owed) {
        session.owed_cause = Some(why(session, status));
    }
}

/// Why the other cluster has not been told.
fn why(session: &pb::Session, status: &pb::GetClusterStatusResponse) -> String {
    let id = &session.peer;
    if let Some(cause) = &session.parked {
        return format!(
            "parked: {id} refuses to hear of it ({cause}); it is told again when a link comes up, or with: emccd session \
             retry {}",
            session.id
        );
    }
    if *id == status.cluster_id {
        return "our own other row is ended in a moment".to_owned();
    }
    let Some(peer) = status.peers.iter().find(|peer| peer.cluster_id == *id) else {
        return format!(
            "{id} is no longer a peer, so nobody can tell it; drop it with: emccd session drop {}",
            session.id
        );
    };
    if !peer.enabled {
        return format!(
            "the peer {id} is disabled; it is told once enabled: emccd cluster set {id} --enabled true"
        );
    }
    let out = peer.outbound.clone().unwrap_or_default();
    let is_linked = out.state == "up" || peer.own_links.iter().any(|own| own.state == "up");
    if is_linked {
        return "the link is up: it is being told".to_owned();
    }
    let reason = out
        .reason
        .unwrap_or_else(|| "no reason is known yet".to_owned());
    match out.rejection {
        Some(rejection) => format!(
            "no trust ({rejection}), so the link is {}: {reason}",
            out.state
        ),
        None => format!("the link is {}: {reason}", out.state),
    }
}

/// Has ends tried again that the other cluster refused.
///
/// # Errors
/// [`Error::Missing`] when there is no such session or peer, [`Error::Refused`] when nothing of it is owed.
pub(super) async fn retry(
    store: &Store,
    request: pb::RetrySessionRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::RetrySessionResponse, Error> {
    use pb::retry_session_request::Which as Asked;
    match request.which {
        Some(Asked::Id(id)) => retry_one(store, Which::id_or_ref(&id)?, actor, now).await,
        Some(Asked::Peer(peer)) => {
            let peer = ClusterId::from_str(&peer)
                .map_err(|rule| Error::invalid("the peer", rule.to_string()))?;
            retry_all(store, peer, actor, now).await
        }
        None => Err(Error::invalid("the session or the peer", "named")),
    }
}

async fn retry_one(
    store: &Store,
    which: Which,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::RetrySessionResponse, Error> {
    let actor = actor.to_string();
    let rows = owed_rows(store, which).await?;
    let unparked = store
        .write(move |tx: &mut dyn Transaction| {
            let mut unparked = 0;
            for row in &rows {
                if debts::unpark(tx, row.role, &row.counterpart, row.id)? {
                    unparked += 1;
                    let entry = entry(Action::SessionRetry, row, "tried again", (&actor, now));
                    audit::append(tx, &entry)?;
                }
            }
            Ok::<_, store::Error>((unparked, stand(tx, &rows)?))
        })
        .await?;
    Ok(pb::RetrySessionResponse {
        unparked: unparked.0,
        sessions: unparked.1,
    })
}

async fn retry_all(
    store: &Store,
    peer: ClusterId,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::RetrySessionResponse, Error> {
    let actor = actor.to_string();
    let unparked = store
        .write(move |tx: &mut dyn Transaction| {
            let unparked = debts::unpark_all(tx, &peer)?;
            if unparked == 0 && peers::get(tx, &peer)?.is_none() {
                return Err(Error::missing(format!("peer {peer}"), "emccd cluster list"));
            }
            if unparked > 0 {
                audit::append(
                    tx,
                    &audit::Entry {
                        at: now,
                        actor: actor.clone(),
                        action: Action::SessionRetry,
                        subject: peer.to_string(),
                        outcome: format!("{unparked} refused ends are tried again"),
                        reference: None,
                    },
                )?;
            }
            Ok(unparked)
        })
        .await?;
    Ok(pb::RetrySessionResponse {
        unparked: u32::try_from(unparked).unwrap_or(u32::MAX),
        sessions: Vec::new(),
    })
}

/// Forgets that the other cluster has still to be told of the end of a session.
///
/// # Errors
/// [`Error::Missing`] when there is no such session, [`Error::Refused`] when nothing of it is owed.
pub(super) async fn drop_one(
    store: &Store,
    request: pb::DropSessionRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::DropSessionResponse, Error> {
    let actor = actor.to_string();
    let rows = owed_rows(store, Which::id_or_ref(&request.id)?).await?;
    let sessions = store
        .write(move |tx: &mut dyn Transaction| {
            for row in &rows {
                if debts::forget(tx, row.role, &row.counterpart, row.id)? {
                    let outcome = match &row.parked {
                        Some(cause) => {
                            format!("{} is not told; it refused: {cause}", row.counterpart)
                        }
                        None => format!("{} is not told", row.counterpart),
                    };
                    let entry = entry(Action::SessionDrop, row, &outcome, (&actor, now));
                    audit::append(tx, &entry)?;
                }
            }
            stand(tx, &rows)
        })
        .await?;
    Ok(pb::DropSessionResponse { sessions })
}

/// The rows of a session whose end is owed.
async fn owed_rows(store: &Store, which: Which) -> Result<Vec<Session>, Error> {
    let found = sessions::rows_of(store, &which).await?;
    let lives = found.iter().any(|row| row.ended_at.is_none());
    let owed: Vec<_> = found.into_iter().filter(|row| row.owed).collect();
    match (owed.is_empty(), lives) {
        (false, _) => Ok(owed),
        (true, true) => Err(Error::refused(
            "the session lives, so nobody is owed its end",
            "end it with: emccd session logout ID",
        )),
        (true, false) => Err(Error::refused(
            "nobody is owed the end of this session: the other cluster knows of it, or it was dropped",
            "emccd session list --owed shows what is owed",
        )),
    }
}

/// The rows as they stand.
fn stand(tx: &mut dyn Transaction, rows: &[Session]) -> Result<Vec<pb::Session>, store::Error> {
    let mut stand = Vec::new();
    for row in rows {
        stand.extend(store::sessions::get(
            tx,
            row.role,
            &row.counterpart,
            row.id,
        )?);
    }
    let stand = sessions::as_wall_time(tx, stand)?;
    Ok(stand.iter().map(views::session).collect())
}

fn entry(action: Action, row: &Session, outcome: &str, by: (&str, Timestamp)) -> audit::Entry {
    audit::Entry {
        at: by.1,
        actor: by.0.to_owned(),
        action,
        subject: format!(
            "{} on {} of {}",
            row.login_name,
            row.device,
            match row.role {
                Role::Home => row.counterpart.to_string(),
                Role::Visiting => format!("this cluster, with {}", row.counterpart),
            }
        ),
        outcome: outcome.to_owned(),
        reference: Some(row.reference).filter(|reference| *reference != Ref::from_bits(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(peer: pb::PeerStatus) -> pb::GetClusterStatusResponse {
        pb::GetClusterStatusResponse {
            cluster_id: "berlin".to_owned(),
            peers: vec![peer],
            ..pb::GetClusterStatusResponse::default()
        }
    }

    fn peer(state: &str, rejection: Option<&str>) -> pb::PeerStatus {
        pb::PeerStatus {
            cluster_id: "tokyo".to_owned(),
            enabled: true,
            outbound: Some(pb::OutboundStatus {
                state: state.to_owned(),
                reason: (state != "up").then(|| "nobody is there".to_owned()),
                rejection: rejection.map(str::to_owned),
                ..pb::OutboundStatus::default()
            }),
            ..pb::PeerStatus::default()
        }
    }

    #[test]
    fn each_debt_says_why_it_has_not_been_told() {
        let owed = |to: &str| pb::Session {
            id: "7K3Q-9M2X".to_owned(),
            peer: to.to_owned(),
            owed: true,
            ..pb::Session::default()
        };
        let parked = pb::Session {
            parked: Some("it has no record of us".to_owned()),
            ..owed("tokyo")
        };
        let disabled = pb::PeerStatus {
            enabled: false,
            ..peer("disabled", None)
        };
        let by_another = pb::PeerStatus {
            own_links: vec![pb::OwnLink {
                state: "up".to_owned(),
                ..pb::OwnLink::default()
            }],
            ..peer("down", None)
        };
        for (session, seen, expected) in [
            (owed("tokyo"), peer("up", None), "it is being told"),
            (owed("tokyo"), by_another, "it is being told"),
            (
                owed("tokyo"),
                peer("down", None),
                "the link is down: nobody is there",
            ),
            (
                owed("tokyo"),
                peer("down", Some("revoked")),
                "no trust (revoked), so the link is down",
            ),
            (owed("tokyo"), disabled, "the peer tokyo is disabled"),
            (owed("lima"), peer("up", None), "lima is no longer a peer"),
            (owed("berlin"), peer("up", None), "our own other row"),
            (parked, peer("up", None), "(it has no record of us)"),
        ] {
            let mut all = [session];
            explain(&mut all, &status(seen));
            let cause = all[0].owed_cause.clone().unwrap();
            assert!(cause.contains(expected), "{cause}");
        }
        let mut told = [pb::Session::default()];
        explain(&mut told, &status(peer("down", None)));
        assert_eq!(told[0].owed_cause, None);
    }
}
