//! The roles as the edges ask for them.

use tracing::warn;

use crate::{
    domain::{
        ids::Ref,
        login::{Answer, Context, FindUser, LoginAnswer, LoginRequest, LogoutRequest, Ownership},
        session::EndReason,
    },
    edge::{
        federation::Roles,
        phone::{Desk, Reply},
    },
    home::HomeRole,
    visiting::{
        Caller, LoggedOut, LoginOutcome, PhoneChoice, PhoneLogin, PhoneState, VisitingRole,
    },
};

/// Both roles, as peers call them.
#[derive(Debug)]
pub(super) struct FederationRoles {
    pub(super) home: HomeRole,
    pub(super) visiting: VisitingRole,
}

impl Roles for FederationRoles {
    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership> {
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
        Box::pin(async move {
            self.home
                .login(context, request)
                .await
                .map_err(|e| e.to_refusal(false))
        })
    }

    fn end_from_visiting<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        Box::pin(async move {
            self.home
                .logout(context, request)
                .await
                .map_err(|e| e.to_refusal(false))
        })
    }

    fn end_from_home<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        Box::pin(async move {
            self.visiting
                .end_from_home(context, request)
                .await
                .map_err(|error| {
                    warn!(
                        peer.cluster_id = %context.caller, session.id = %request.session_id,
                        r#ref = %context.reference, cause = crate::telemetry::error_chain(&error),
                        "a session could not be ended on the word of cluster {}", context.caller
                    );
                    error.to_refusal()
                })
        })
    }
}

impl Desk for VisitingRole {
    fn phone_state<'a>(&'a self, device: &'a str) -> Reply<'a, PhoneState> {
        Box::pin(Self::phone_state(self, device))
    }

    fn login(&self, login: PhoneLogin) -> Reply<'_, LoginOutcome> {
        Box::pin(Self::login(self, login))
    }

    fn choose(&self, choice: PhoneChoice) -> Reply<'_, LoginOutcome> {
        Box::pin(Self::choose(self, choice))
    }

    fn logout<'a>(
        &'a self,
        device: &'a str,
        caller: Caller,
        reference: Ref,
    ) -> Reply<'a, LoggedOut> {
        Box::pin(Self::logout(self, device, caller, reference))
    }

    fn new_ref(&self) -> Ref {
        Self::new_ref(self)
    }

    fn knows_login_types(&self) -> bool {
        Self::knows_login_types(self)
    }
}
