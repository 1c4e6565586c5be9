//! The role that owns users: says whose they are, checks their PINs, opens and ends their sessions.
//!
//! Each operation is one transaction, and its answer is what that transaction decided. A local login comes the
//! same way as a peer's; the caller is then our own cluster.

use std::sync::Arc;

use tokio::sync::Notify;
use tracing::warn;

mod decide;
pub mod error;
mod login;
mod logout;

pub use error::Error;

use crate::{
    clock::Clock,
    credentials::Credentials,
    domain::{
        ids::{ClusterId, SessionId},
        login::{
            Answer, Context, FindUser, HomeCluster, HomeServices, LoginRequest, LogoutRequest,
            Ownership,
        },
        parameters::Parameters,
        session::EndReason,
    },
    fault::FaultPoints,
    store::{self, Store, Transaction, parameters, users},
};

/// The home role of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HomeRole {
    cluster: ClusterId,
    store: Store,
    credentials: Credentials,
    clock: Clock,
    faults: FaultPoints,
    parameters: parameters::Live,
    /// Told whenever a peer is owed the end of a session.
    owed: Arc<Notify>,
}

/// What a [`HomeRole`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Our own cluster.
    pub cluster: ClusterId,
    /// Where users and sessions are.
    pub store: Store,
    /// Checks PINs.
    pub credentials: Credentials,
    /// The node's clock.
    pub clock: Clock,
    /// Where a test may stop us.
    pub faults: FaultPoints,
    /// The cluster's parameters, as they are at each request.
    pub parameters: parameters::Live,
    /// Told whenever a peer is owed the end of a session.
    pub owed: Arc<Notify>,
}

/// What an operator's logout did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The session is over here; `owed` says whether the other cluster must still be told.
    Now {
        /// Whether the other cluster must still be told.
        owed: bool,
    },
    /// It was over before.
    Before(EndReason),
}

impl HomeRole {
    /// Puts the role together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            cluster,
            store,
            credentials,
            clock,
            faults,
            parameters,
            owed,
        } = parts;
        Self {
            cluster,
            store,
            credentials,
            clock,
            faults,
            parameters,
            owed,
        }
    }

    /// What the cluster goes by now.
    #[must_use]
    pub fn parameters(&self) -> Arc<Parameters> {
        self.parameters.load()
    }

    /// Says whether a name is a user of ours, and nothing more.
    ///
    /// # Errors
    /// [`Error`] when the caller may not ask, or the store can't answer.
    pub async fn find_user(&self, context: &Context, query: &FindUser) -> Result<Ownership, Error> {
        let (own, caller, query) = (self.cluster.clone(), context.caller.clone(), query.clone());
        let answer = self.store.look_up(move |tx: &mut dyn Transaction| {
            decide::admit_caller(tx, &own, &caller)?;
            let found = users::find(tx, query.login_type, &query.name)?;
            Ok(match found.len() {
                0 => Ownership::NotMine,
                1 => Ownership::Mine,
                _ => Ownership::SeveralUsers,
            })
        });
        // Nobody waits for it any longer than that.
        let answer = tokio::time::timeout_at(context.deadline.into(), answer)
            .await
            .unwrap_or(Err(Error::Store(store::Error::Busy)));
        // Of who may not ask at all the edge tells, and not each time.
        if let Err(error) = &answer
            && !error.is_admission()
        {
            warn!(
                peer.cluster_id = %context.caller, r#ref = %context.reference,
                em_code = Error::em_code(error, context.caller == self.cluster).number(),
                cause = crate::telemetry::error_chain(error),
                "cluster {} was not told whether a user lives here", context.caller
            );
        }
        answer
    }

    /// Opens a session, or refuses, in the order that the design gives; idempotent on (caller, session id).
    ///
    /// # Errors
    /// [`Error`], which maps to one EM code.
    pub async fn login(
        &self,
        context: &Context,
        request: &LoginRequest,
    ) -> Result<HomeServices, Error> {
        login::login(self, context, request).await
    }

    /// Ends a session on a visiting cluster's word; the answer is the reason now on record.
    ///
    /// # Errors
    /// [`Error`] only when the store fails or the caller is no peer at all.
    pub async fn logout(
        &self,
        context: &Context,
        request: LogoutRequest,
    ) -> Result<EndReason, Error> {
        logout::logout(self, context, request).await
    }

    /// Ends a session on an operator's word, and owes the visiting cluster the news.
    ///
    /// # Errors
    /// [`Error::NoSession`] when there is none; [`Error::Store`] when the store fails.
    pub async fn end(
        &self,
        counterpart: &ClusterId,
        id: SessionId,
        actor: &str,
    ) -> Result<Ended, Error> {
        logout::end(self, counterpart, id, actor).await
    }
}

/// Our own home role as one of the home clusters.
#[derive(Clone, Debug)]
pub struct LocalHome(pub HomeRole);

impl HomeCluster for LocalHome {
    fn cluster_id(&self) -> &ClusterId {
        &self.0.cluster
    }

    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership> {
        Box::pin(async move {
            self.0
                .find_user(context, query)
                .await
                .map_err(|e| e.to_refusal(true))
        })
    }

    fn login<'a>(
        &'a self,
        context: &'a Context,
        request: &'a LoginRequest,
    ) -> Answer<'a, HomeServices> {
        Box::pin(async move {
            self.0
                .login(context, request)
                .await
                .map_err(|e| e.to_refusal(true))
        })
    }

    fn logout<'a>(&'a self, context: &'a Context, request: LogoutRequest) -> Answer<'a, EndReason> {
        Box::pin(async move {
            self.0
                .logout(context, request)
                .await
                .map_err(|e| e.to_refusal(true))
        })
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        Self::Store(source)
    }
}

#[cfg(test)]
mod tests;
