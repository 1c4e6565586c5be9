//! The roles as the edges ask for them.

use tracing::warn;

use crate::{
    clock,
    domain::{
        announcement::{Acknowledgement, Announcement},
        login::{Answer, Context, FindUser, LoginAnswer, LoginRequest, LogoutRequest, Ownership},
        refusal::Refusal,
        session::{EndReason, Role},
    },
    edge::{
        federation::Roles,
        metrics::{By, Metrics, Outcome},
    },
    home::HomeRole,
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
