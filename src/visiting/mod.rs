//! The role that owns phones: finds the home of whoever stands before one, asks it for a session, and keeps the
//! row that says who is on the phone.
//!
//! It never asks whether a home cluster is its own or a peer's: both are a [`HomeCluster`].

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

mod choose;
mod ends;
pub mod error;
mod locate;
mod login;
mod pending;
mod refs;
pub mod types;

pub use error::Error;
pub use types::{
    Caller, Choice, Failure, LoggedIn, LoggedOut, LoginOutcome, PhoneChoice, PhoneLogin, PhoneState,
};

use crate::{
    admission::{Admission, Kind, Party, Permit, Source},
    chance::Chance,
    clock::{self, Clock},
    domain::{
        capability::Traits,
        federation::Federation,
        ids::{ClusterId, DeviceName, Ref, SessionId},
        liveness::Incarnation,
        login::{Context, HomeCluster, LogoutRequest, SecurityMode},
        session::{EndReason, Role, State},
        version::Version,
    },
    fault::FaultPoints,
    store::{Store, Transaction, devices, membership::Membership, parameters, sessions},
    tasks::Tasks,
};

/// Settings of the role.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own cluster.
    pub cluster: ClusterId,
    /// How long a login may take, from the phone's request to its answer.
    pub login_deadline: Duration,
    /// How long all peers together may take to say whether a name is theirs.
    pub find_deadline: Duration,
    /// The newest protocol version that we may speak.
    pub newest_version: Version,
    /// What this node tells of itself: it does no more than that.
    pub traits: Traits,
}

/// The visiting role of one node. Cheap to clone.
#[derive(Clone)]
pub struct VisitingRole {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    store: Store,
    clock: Clock,
    local: Arc<dyn HomeCluster>,
    federation: Arc<dyn Federation>,
    faults: FaultPoints,
    tasks: Tasks,
    parameters: parameters::Live,
    admission: Admission,
    /// Told whenever a home cluster is owed the end of a session.
    owed: Arc<Notify>,
    membership: Membership,
    chance: Chance,
    refs: refs::Refs,
    swept: pending::Swept,
}

/// What a [`VisitingRole`] is made of.
pub struct Parts {
    /// Settings.
    pub config: Config,
    /// Where phones and sessions are.
    pub store: Store,
    /// The node's clock.
    pub clock: Clock,
    /// Our own home role.
    pub local: Arc<dyn HomeCluster>,
    /// The other clusters.
    pub federation: Arc<dyn Federation>,
    /// Where a test may stop us.
    pub faults: FaultPoints,
    /// The cluster's parameters, as they are at each request.
    pub parameters: parameters::Live,
    /// How many requests of phones may be in progress.
    pub admission: Admission,
    /// Runs what must outlive a phone's connection.
    pub tasks: Tasks,
    /// Told whenever a home cluster is owed the end of a session.
    pub owed: Arc<Notify>,
    /// This node's place among those of its cluster.
    pub membership: Membership,
    /// Makes the ids of sessions, and refs while the cluster's numbers can't be had.
    pub chance: Chance,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl VisitingRole {
    /// Puts the role together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            config,
            store,
            clock,
            local,
            federation,
            faults,
            parameters,
            admission,
            tasks,
            owed,
            membership,
            chance,
        } = parts;
        let inner = Inner {
            config,
            store,
            clock,
            local,
            federation,
            faults,
            tasks,
            parameters,
            admission,
            owed,
            membership,
            refs: refs::Refs::new(chance.clone()),
            swept: pending::Swept::default(),
            chance,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A new ref, for one attempt: no other attempt of this cluster has had it.
    #[must_use]
    pub fn new_ref(&self) -> Ref {
        self.inner.refs.take()
    }

    /// Keeps numbers for refs at hand until the node shuts down.
    pub async fn keep_refs(&self) {
        let inner = &self.inner;
        refs::keep_filled(&inner.refs, &inner.store, &inner.tasks).await;
    }

    /// Whether `loginType` has a meaning here: a 1.0 cluster ignores it.
    #[must_use]
    pub fn knows_login_types(&self) -> bool {
        self.inner.config.newest_version.knows_login_types()
    }

    /// Who is on a phone. A login that was never answered is nobody's, once its deadline is over. It only looks.
    ///
    /// # Errors
    /// [`Failure`]: the phone is unknown (11) or the store failed (6).
    pub async fn phone_state(&self, device: &str) -> Result<PhoneState, Failure> {
        self.state_of(device)
            .await
            .map_err(|e| e.into_failure(self.new_ref()))
    }

    async fn state_of(&self, device: &str) -> Result<PhoneState, Error> {
        let name = DeviceName::new(device).map_err(|_| Error::DeviceUnknown)?;
        let (found, now) = self
            .inner
            .look_up(self.inner.deadline(), move |tx: &mut dyn Transaction| {
                devices::get(tx, &name)?.ok_or(Error::DeviceUnknown)?;
                let found = sessions::active_on_device(tx, Role::Visiting, &name)?;
                Ok::<_, Error>((found, tx.cluster_now()?))
            })
            .await?;
        let Some(session) = found else {
            return Ok(PhoneState::Nobody);
        };
        match (session.state, session.user_id) {
            (State::Active, Some(user)) => Ok(PhoneState::LoggedIn {
                user,
                home: session.counterpart,
            }),
            (State::Pending, _) if session.deadline.is_some_and(|d| d <= now) => {
                // Ended by the next login, or by the sweep.
                Ok(PhoneState::Nobody)
            }
            (State::Pending, _) => Ok(PhoneState::Busy),
            _ => Ok(PhoneState::Nobody),
        }
    }

    /// Logs a user in on a phone of ours. The work goes on when the caller hangs up: no half a login.
    ///
    /// # Errors
    /// [`Failure`] with the EM code for the phone and the cause for the operator.
    pub async fn login(&self, request: PhoneLogin) -> Result<LoginOutcome, Failure> {
        let (reference, device) = (request.reference, request.device.clone());
        self.submit(device, reference, login::Submission::Typed(request))
            .await
    }

    /// Goes on with a login whose user has chosen a device profile.
    ///
    /// # Errors
    /// As [`login`](Self::login).
    pub async fn choose(&self, request: PhoneChoice) -> Result<LoginOutcome, Failure> {
        let (reference, device) = (request.reference, request.device.clone());
        self.submit(device, reference, login::Submission::Chosen(request))
            .await
    }

    async fn submit(
        &self,
        device: String,
        reference: Ref,
        submission: login::Submission,
    ) -> Result<LoginOutcome, Failure> {
        let inner = Arc::clone(&self.inner);
        let task = self.inner.tasks.spawn("login", async move {
            login::login(&inner, &device, reference, submission).await
        });
        match task.await {
            Ok(outcome) => outcome.map_err(|e| e.into_failure(reference)),
            Err(broken) if broken.is_panic() => Err(Error::Broken.into_failure(reference)),
            Err(_) => Err(Error::Stopped.into_failure(reference)),
        }
    }

    /// Logs out whoever is on a phone of ours, and tells home.
    ///
    /// # Errors
    /// [`Failure`]: the phone is unknown (11), nobody is on it (19), or the store failed (6). That home could
    /// not be told is no failure: it is owed, and delivered later.
    pub async fn logout(
        &self,
        device: &str,
        caller: Caller,
        reference: Ref,
    ) -> Result<LoggedOut, Failure> {
        let (inner, device) = (Arc::clone(&self.inner), device.to_owned());
        let task = self.inner.tasks.spawn("logout", async move {
            let deadline = inner.deadline();
            let place = inner.admit(Kind::Logout, caller, deadline).await?;
            login::check_caller(&inner, caller)?;
            ends::logout(&inner, &device, reference, place, deadline).await
        });
        match task.await {
            Ok(outcome) => outcome.map_err(|e| e.into_failure(reference)),
            Err(broken) if broken.is_panic() => Err(Error::Broken.into_failure(reference)),
            Err(_) => Err(Error::Stopped.into_failure(reference)),
        }
    }

    /// Ends a session on an operator's word, and tells home.
    ///
    /// # Errors
    /// [`Error::NoSession`] when there is none; [`Error::Store`] when the store fails.
    pub async fn end(
        &self,
        counterpart: &ClusterId,
        id: SessionId,
        actor: &str,
    ) -> Result<LoggedOut, Error> {
        ends::end(&self.inner, counterpart, id, actor, self.new_ref()).await
    }

    /// Ends a session on home's word; the answer is the reason now on record.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn end_from_home(
        &self,
        context: &Context,
        request: LogoutRequest,
    ) -> Result<EndReason, Error> {
        ends::end_from_home(&self.inner, context, request).await
    }

    /// Ends the logins that the run of this node left behind that was on record when this one took its place, and
    /// owes their homes the news: their phones, and their users on other phones, need not wait. Not to be called where
    /// that run still carries logins, as it does while it hands over.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn end_left_behind(&self, before: &Incarnation) -> Result<(), Error> {
        pending::end_left_behind(&self.inner, before).await
    }

    /// Ends logins that were never answered, as they fall due, and those of nodes that have died, until the node shuts
    /// down. Of the nodes of the cluster one at a time does it.
    pub async fn sweep_pending(&self) {
        pending::sweep(&self.inner).await;
    }
}

impl Inner {
    /// When a request that comes now must be answered.
    fn deadline(&self) -> Instant {
        clock::instant() + self.config.login_deadline
    }

    /// A place for a request of a phone, kept until it is answered.
    async fn admit(&self, kind: Kind, caller: Caller, deadline: Instant) -> Result<Permit, Error> {
        let source = Source::of(Party::Phones, Some(caller.address));
        let entered = self.admission.enter(kind, &source, deadline);
        entered.await.map_err(Error::NotAdmitted)
    }

    /// Reads, and waits for that until `deadline`.
    async fn look_up<T: Send + 'static>(
        &self,
        deadline: Instant,
        operation: impl FnMut(&mut dyn Transaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        in_time(deadline, self.store.look_up(operation)).await
    }

    /// Writes, and waits for that until `deadline`. What is no longer waited for is carried out all the same,
    /// after what was asked for before it; also what is asked for after the deadline is.
    async fn write<T: Send + 'static>(
        &self,
        deadline: Instant,
        operation: impl FnMut(&mut dyn Transaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        in_time(deadline, self.store.write(operation)).await
    }

    fn new_session_id(&self) -> SessionId {
        SessionId::from_uuid(self.chance.id(self.clock.now()))
    }

    fn context(&self, reference: Ref, length: Duration) -> Context {
        self.context_until(reference, clock::instant() + length)
    }

    fn context_until(&self, reference: Ref, deadline: Instant) -> Context {
        Context {
            reference,
            caller: self.config.cluster.clone(),
            certificate: None,
            deadline,
            // Of our own home role only; a peer goes by what our `Hello` told it.
            traits: Traits::ours(SecurityMode::NonSecure),
        }
    }

    /// The home cluster of that name: ourselves or a peer.
    fn home(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>> {
        if *cluster == self.config.cluster {
            Some(Arc::clone(&self.local))
        } else {
            self.federation.get(cluster)
        }
    }
}

/// What the store says, or that it took too long. The work is begun even when the deadline is over.
async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout_at(deadline.into(), work)
        .await
        .unwrap_or(Err(Error::StoreSlow))
}

impl fmt::Debug for VisitingRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VisitingRole")
            .field("cluster", &self.inner.config.cluster)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
