//! The roles as the edges ask for them.

use tracing::warn;

use crate::{
    clock,
    domain::{
        announcement::{Acknowledgement, Announcement},
        em_code::EmCode,
        ids::ClusterId,
        login::{Answer, Context, FindUser, LoginAnswer, LoginRequest, LogoutRequest, Ownership},
        refusal::Refusal,
        session::{EndReason, Role},
    },
    edge::{
        federation::{
            Roles,
            sync::{PAGE, SyncReply, SyncStep},
        },
        metrics::{By, Metrics, Outcome},
    },
    home::HomeRole,
    store::{self, Store, Transaction, peers, sessions, shared},
    trust::receive::{Call, Receiver},
    visiting::VisitingRole,
};

/// Both roles, as peers call them.
#[derive(Debug)]
pub(super) struct FederationRoles {
    pub(super) home: HomeRole,
    pub(super) visiting: VisitingRole,
    pub(super) metrics: Metrics,
    pub(super) receiver: Receiver,
    pub(super) store: Store,
}

/// Why a peer is told nothing of sessions.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(
        "there is no peer record of {0} here: nothing is shared with it; mend with: emccd cluster add {0} --address \
         HOST:PORT"
    )]
    NoRecord(ClusterId),
    #[error("the sessions that are shared could not be read")]
    Store(#[from] store::Error),
}

impl Untold {
    fn to_refusal(&self) -> Refusal {
        match self {
            Self::NoRecord(_) => Refusal::new(EmCode::VisitingClusterUnknown, self.to_string()),
            Self::Store(error) => {
                warn!(cause = crate::telemetry::error_chain(error), "{self}");
                Refusal::new(EmCode::DatabaseError, self.to_string())
            }
        }
    }
}

/// One step of an exchange with `peer`. A disabled one is told as well: it may end its own rows, and has to know that
/// ours have ended.
fn take_step(
    tx: &mut dyn Transaction,
    peer: &ClusterId,
    step: &SyncStep,
) -> Result<SyncReply, Untold> {
    // One without a record would be told that we lack them all, and end them before it is told why.
    if peers::get(tx, peer)?.is_none() {
        return Err(Untold::NoRecord(peer.clone()));
    }
    Ok(match step {
        SyncStep::Digests => SyncReply::Digests(Box::new(shared::digests(tx, peer)?)),
        SyncStep::Living {
            role,
            buckets,
            after,
        } => {
            let (ids, more) = shared::living_in(tx, *role, peer, buckets, *after, PAGE)?;
            SyncReply::Living { ids, more }
        }
        SyncStep::Standing { role, ids } => {
            SyncReply::Standing(shared::standing_of(tx, *role, peer, ids)?)
        }
        SyncStep::Settled { role, ids } => {
            for id in ids {
                sessions::acknowledge(tx, *role, peer, *id)?;
            }
            SyncReply::Settled
        }
    })
}

impl FederationRoles {
    /// The end of a session that another cluster told of has its answer; `role` is the one that we play in it.
    fn ended(&self, role: Role, outcome: &Result<EndReason, Refusal>) {
        let what = match outcome {
            Ok(_) => Outcome::Success,
            Err(refusal) => Outcome::Refused(refusal.code),
        };
        self.metrics.logout(role, By::Peer, what);
    }
}

impl Roles for FederationRoles {
    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership> {
        self.metrics.peer_call("find_user");
        Box::pin(async move {
            self.home
                .find_user(context, query)
                .await
                .map_err(|e| e.to_refusal(false))
        })
    }

    fn login<'a>(
        &'a self,
        context: &'a Context,
        request: &'a LoginRequest,
    ) -> Answer<'a, LoginAnswer> {
        self.metrics.peer_call("login");
        Box::pin(async move {
            let began = clock::instant();
            let outcome = self.home.login(context, request).await;
            let outcome = outcome.map_err(|e| e.to_refusal(false));
            let what = match &outcome {
                Ok(LoginAnswer::Opened(_)) => Outcome::Success,
                Ok(LoginAnswer::Choose(_)) => Outcome::Choice,
                Err(refusal) => Outcome::Refused(refusal.code),
            };
            self.metrics.login(Role::Home, what, began);
            outcome
        })
    }

    fn announced<'a>(
        &'a self,
        call: &'a Call,
        announcement: &'a Announcement,
    ) -> Answer<'a, Acknowledgement> {
        self.metrics.peer_call("announce");
        Box::pin(async move {
            let outcome = self.receiver.announced(call, announcement).await;
            outcome.map_err(|error| error.to_refusal())
        })
    }

    fn end_from_visiting<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        self.metrics.peer_call("logout");
        Box::pin(async move {
            let outcome = self.home.logout(context, request).await;
            let outcome = outcome.map_err(|e| e.to_refusal(false));
            self.ended(Role::Home, &outcome);
            outcome
        })
    }

    fn sync<'a>(&'a self, context: &'a Context, step: SyncStep) -> Answer<'a, SyncReply> {
        if step == SyncStep::Digests {
            self.metrics.peer_call("sync_sessions");
        }
        Box::pin(async move {
            let peer = context.caller.clone();
            let is_write = matches!(step, SyncStep::Settled { .. });
            let work = move |tx: &mut dyn Transaction| take_step(tx, &peer, &step);
            let outcome = if is_write {
                self.store.write(work).await
            } else {
                self.store.read(work).await
            };
            outcome.map_err(|untold| untold.to_refusal())
        })
    }

    fn end_from_home<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        self.metrics.peer_call("logout");
        Box::pin(async move {
            let outcome = self.visiting.end_from_home(context, request).await;
            let outcome = outcome.map_err(|error| {
                warn!(
                    peer.cluster_id = %context.caller, session.id = %request.session_id,
                    r#ref = %context.reference, cause = crate::telemetry::error_chain(&error),
                    "a session could not be ended on the word of cluster {}", context.caller
                );
                error.to_refusal()
            });
            self.ended(Role::Visiting, &outcome);
            outcome
        })
    }
}
