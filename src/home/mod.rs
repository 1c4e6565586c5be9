//! The role that owns users: says whose they are, checks their PINs, opens and ends their sessions.
//!
//! Each operation is one transaction, and its answer is what that transaction decided. A local login comes the
//! same way as a peer's; the caller is then our own cluster.

use std::sync::Arc;

use tokio::sync::Notify;
use tracing::warn;

mod decide;
mod desk;
mod distrust;
pub mod error;
mod expiry;
mod login;
mod logout;
mod reach;
mod retirement;
mod revocation;

pub use error::Error;
pub use retirement::{Leaving, Retired, Stays};

use crate::{
    admission::Admission,
    chance::Chance,
    clock::Clock,
    credentials::Credentials,
    domain::{
        capability::Traits,
        federation::Links,
        ids::{ClusterId, SessionId},
        login::{
            Answer, Context, FindUser, HomeCluster, LoginAnswer, LoginRequest, LogoutRequest,
            Ownership,
        },
        parameters::Parameters,
        session::EndReason,
    },
    fault::FaultPoints,
    store::{self, Store, Transaction, claims::Claim, membership::Membership, parameters, users},
    tasks::Tasks,
};

/// The home role of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HomeRole {
    cluster: ClusterId,
    traits: Traits,
    store: Store,
    credentials: Credentials,
    admission: Admission,
    clock: Clock,
    faults: FaultPoints,
    parameters: parameters::Live,
    links: Arc<dyn Links>,
    membership: Membership,
    /// Told whenever a peer is owed the end of a session.
    owed: Arc<Notify>,
    chance: Chance,
}

/// What a [`HomeRole`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Our own cluster.
    pub cluster: ClusterId,
    /// What this node tells of itself: it does no more than that.
    pub traits: Traits,
    /// Where users and sessions are.
    pub store: Store,
    /// Checks PINs.
    pub credentials: Credentials,
    /// How many logins of other clusters may be in progress.
    pub admission: Admission,
    /// The node's clock.
    pub clock: Clock,
    /// Where a test may stop us.
    pub faults: FaultPoints,
    /// The cluster's parameters, as they are at each request.
    pub parameters: parameters::Live,
    /// Which clusters this node can tell of an end now.
    pub links: Arc<dyn Links>,
    /// Which other nodes of ours live; what each of them is linked to is in the store.
    pub membership: Membership,
    /// Told whenever a peer is owed the end of a session.
    pub owed: Arc<Notify>,
    /// Makes the tickets of users who have to choose.
    pub chance: Chance,
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
            traits,
            store,
            credentials,
            admission,
            clock,
            faults,
            parameters,
            links,
            membership,
            owed,
            chance,
        } = parts;
        Self {
            cluster,
            traits,
            store,
            credentials,
            admission,
            clock,
            faults,
            parameters,
            links,
            membership,
            owed,
            chance,
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
        let (own, asking, query) = (self.cluster.clone(), context.clone(), query.clone());
        let answer = self.store.look_up(move |tx: &mut dyn Transaction| {
            decide::admit_caller(tx, &own, &asking)?;
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

    /// Opens a session, asks for a device profile, or refuses, in the order that the design gives; idempotent on (caller, session id).
    ///
    /// # Errors
    /// [`Error`], which maps to one EM code.
    pub async fn login(
        &self,
        context: &Context,
        request: &LoginRequest,
    ) -> Result<LoginAnswer, Error> {
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

/// Ends what may no longer be.
impl HomeRole {
    /// Ends the sessions of users that were disabled, removed, or barred from other clusters' phones, and those shared with
    /// peers of whom nothing is accepted any more, as that happens and by whatever way, until the node shuts down. The parameter `end-sessions-on-revocation` turns it
    /// off. Of the nodes of the cluster one at a time does it.
    pub async fn watch_revocations(&self, membership: &Membership, tasks: &Tasks) {
        revocation::watch(self, membership, tasks).await;
    }

    /// Advances cluster time and ends the sessions of both roles whose time is over, until the node shuts down, whenever
    /// this is the node that does so; and tells when this node's wall clock is set.
    pub async fn watch_expiry(&self, membership: &Membership, tasks: &Tasks) {
        expiry::watch(self, membership, tasks).await;
    }

    /// Ends all that we share with a peer that has said for long enough that it accepts nothing of ours any more, unless a
    /// living node of ours has a link to it or `end-sessions-on-revocation` is off; how many sessions. It is owed the
    /// news, which it has itself long since.
    ///
    /// # Errors
    /// [`Error::Store`], also when the claim is lost.
    pub async fn end_with_banisher(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
    ) -> Result<u64, Error> {
        distrust::end_with(self, cluster, claim).await
    }

    /// Ends all that we share with a peer that is to be removed, and waits until it knows. No session with it begins
    /// from then on, in either direction. The record itself is the caller's to remove: nothing more can be delivered
    /// after that.
    ///
    /// # Errors
    /// [`Stays`] when the peer can't be removed now; then all is as it was but for sessions that have ended.
    pub async fn retire_peer(&self, leaving: &Leaving) -> Result<Retired, Stays> {
        retirement::retire(self, leaving).await
    }

    /// Lets sessions with a peer begin again that was to be removed and stays after all.
    pub async fn keep_peer(&self, cluster: &ClusterId) {
        retirement::stay(self, cluster).await;
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
    ) -> Answer<'a, LoginAnswer> {
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
pub(crate) mod tests;
