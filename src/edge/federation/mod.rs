//! What peers call on us: decode, look who calls, call a role, encode.
//!
//! The listener has identified the connection; here the call's own claim is compared with it. Beside the
//! federation service stand health and reflection, and reflection lists nothing else than these.

mod budget;
pub mod caller;
pub mod hello;
pub mod refused;
pub mod sync;
pub mod watch;

#[cfg(test)]
mod tests;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tonic_health::server::HealthReporter;
use tracing::{Instrument, info_span};

use self::{
    budget::Budgets,
    caller::{Caller, Door, MEND_CLAIM},
    refused::RefusalLog,
    sync::{Conversation, Steps, SyncReply, SyncStep},
    watch::{Beats, Watch},
};
use crate::{
    clock::{self, Clock},
    domain::{
        announcement::{Acknowledgement, Announcement, MAX_IDENTITIES},
        capability::Traits,
        em_code::EmCode,
        ids::ClusterId,
        login::{Answer, Context, FindUser, LoginAnswer, LoginRequest, LogoutRequest, Ownership},
        refusal::{Detail, Refusal},
        session::{EndReason, Initiator},
    },
    edge::listener::{Bound, Share, Shares, TurnedAway},
    peer::{self, Peers},
    tasks::Tasks,
    trust::{receive::Call, refusals::RecentRefusals},
    wire::{
        self,
        federation::{
            Hello, decode_announcement, decode_find, decode_login, encode_acknowledgement,
        },
        pb::{
            self,
            federation_service_server::{FederationService, FederationServiceServer},
        },
    },
};

/// The most that a caller's message may be, in bytes: a login with all its bounds used is a third of it.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The most that an answer may be, in bytes: what our own clients take.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How many searches and logins of one peer may be under way on one node, with the work that goes on after its caller
/// hung up. One node of ours has less than half as many under way with one peer. Where several nodes of a peer are left
/// with one node of ours, that is more than it could do in time anyway: who is refused goes to another one, or comes
/// again. And one peer that opens calls without end leaves the rest to the others.
const MAX_CALLS_PER_PEER: usize = 512;
/// How many ends of sessions: logins of the same peer must not stand in the way of what frees its users' sessions and
/// base devices.
const MAX_ENDS_PER_PEER: usize = 64;
/// When a peer may try again that has too many calls under way.
const RETRY_CALL: Duration = Duration::from_secs(1);
/// How many exchanges on the sessions that we share: one node of a peer at a time asks, and the one after it when that
/// one is stuck.
const MAX_SYNCS_PER_PEER: usize = 2;
/// How many `Watch` one peer may hold on one node: as many as a large cluster has nodes, with two addresses that lead
/// here, and for each the old and the new one while a link is replaced.
const MAX_WATCHES_PER_PEER: usize = 64;
/// The heartbeat of a caller that asks for none.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// When a peer may try again that holds too many `Watch`.
const RETRY_WATCH: Duration = Duration::from_secs(5);

/// What the roles do for peers.
///
/// Whether the caller is configured and enabled is theirs to decide, per call: a `Logout` is taken from a
/// peer that is known but disabled.
pub trait Roles: Send + Sync {
    /// Is this name a user of ours?
    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership>;

    /// Opens a session here, as home, or asks for a device profile.
    fn login<'a>(
        &'a self,
        context: &'a Context,
        request: &'a LoginRequest,
    ) -> Answer<'a, LoginAnswer>;

    /// Ends a session that we hold as home; its visiting cluster calls.
    fn end_from_visiting<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason>;

    /// Takes the certificates that a peer's identity has, and answers when every living node of ours goes by them.
    fn announced<'a>(
        &'a self,
        call: &'a Call,
        announcement: &'a Announcement,
    ) -> Answer<'a, Acknowledgement>;

    /// Tells a peer how the sessions stand that we share with it, and forgets the debts that it says are settled.
    fn sync<'a>(&'a self, context: &'a Context, step: SyncStep) -> Answer<'a, SyncReply>;

    /// Ends a session that we hold as visiting; its home cluster calls.
    fn end_from_home<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason>;
}

/// What the service is made of.
#[derive(Clone)]
pub struct Parts {
    /// The roles.
    pub roles: Arc<dyn Roles>,
    /// Our own links: they are told of callers, and callers of them.
    pub peers: Peers,
    /// Where a caller that claims to be somebody else is kept for our operator.
    pub refusals: RecentRefusals,
    /// Our wall clock.
    pub clock: Clock,
    /// Where logins and logouts run, whatever becomes of the caller.
    pub tasks: Tasks,
    /// Cancelled when the node is about to shut down: callers are told, while everything still runs.
    pub drain: CancellationToken,
    /// Counts calls that are refused because their peer has too many under way.
    pub turned: TurnedAway,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// The descriptors that reflection is made of can't be read: a fault of the build.
#[derive(Debug, thiserror::Error)]
#[error("the reflection service could not be built")]
pub struct Error(#[from] tonic_reflection::server::Error);

/// The federation service with health and reflection, for the federation listener.
///
/// # Errors
/// [`Error`] when the descriptors are broken.
pub async fn service(parts: Parts) -> Result<Routes, Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    set_serving(&health, tonic_health::ServingStatus::Serving).await;
    let drain = parts.drain.clone();
    let stopped = parts.tasks.token();
    parts.tasks.spawn("federation health", async move {
        tokio::select! {
            biased;
            () = drain.cancelled() => {}
            () = stopped.cancelled() => {}
        }
        set_serving(&health, tonic_health::ServingStatus::NotServing).await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::FEDERATION_DESCRIPTOR)
            .register_encoded_file_descriptor_set(wire::HEALTH_DESCRIPTOR)
            .include_reflection_service(false)
    };
    let federation = FederationServiceServer::new(Federation::new(parts))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    Ok(Routes::new(federation)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

async fn set_serving(health: &HealthReporter, status: tonic_health::ServingStatus) {
    let named = <FederationServiceServer<Federation> as tonic::server::NamedService>::NAME;
    health.set_service_status(named, status).await;
    health.set_service_status("", status).await;
}

/// Which of a peer's places a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// A search or a login.
    Call,
    /// The end of a session.
    End,
    /// The certificates of an identity.
    Announce,
    /// An exchange on the sessions that we share.
    Sync,
}

struct Federation {
    parts: Parts,
    calls: Shares<ClusterId>,
    ends: Shares<ClusterId>,
    announcements: Shares<ClusterId>,
    syncs: Shares<ClusterId>,
    budgets: Budgets,
    log: Arc<RefusalLog>,
}

impl Federation {
    fn new(parts: Parts) -> Self {
        Self {
            log: Arc::new(RefusalLog::new(parts.refusals.clone())),
            parts,
            calls: Shares::new(MAX_CALLS_PER_PEER),
            ends: Shares::new(MAX_ENDS_PER_PEER),
            announcements: Shares::new(MAX_IDENTITIES),
            syncs: Shares::new(MAX_SYNCS_PER_PEER),
            budgets: Budgets::default(),
        }
    }

    fn config(&self) -> &peer::Config {
        self.parts.peers.config()
    }

    fn door(&self) -> Door<'_> {
        Door {
            cluster_id: &self.config().cluster_id,
            versions: self.config().versions,
            log: &self.log,
            wall: self.parts.clock.now(),
            now: clock::instant(),
            chance: &self.config().chance,
        }
    }

    /// The caller, if it may call and speaks a version of ours.
    fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.door().admit(request)?;
        self.parts.peers.on_inbound(&caller.cluster);
        Ok(caller)
    }

    /// A place among the calls of this peer. It is kept until the work is done, not only until the answer.
    fn place_for(&self, caller: &Caller, errand: Errand) -> Result<Share<ClusterId>, Status> {
        let cluster = &caller.cluster;
        let (shares, what, most, bound) = match errand {
            Errand::Call => (&self.calls, "calls", MAX_CALLS_PER_PEER, Bound::Calls),
            Errand::End => (
                &self.ends,
                "ends of sessions",
                MAX_ENDS_PER_PEER,
                Bound::Ends,
            ),
            // One for each identity that it may have.
            Errand::Announce => (
                &self.announcements,
                "announcements",
                MAX_IDENTITIES,
                Bound::Calls,
            ),
            Errand::Sync => (
                &self.syncs,
                "exchanges on sessions",
                MAX_SYNCS_PER_PEER,
                Bound::Calls,
            ),
        };
        shares.take(cluster).ok_or_else(|| {
            self.parts.turned.add(bound);
            let cause = format!("{cluster} has {most} {what} under way on this node already");
            let refusal = Refusal::new(EmCode::Busy, cause);
            self.refuse(caller, &refusal.with_detail(Detail::RetryAfter(RETRY_CALL)))
        })
    }

    /// Whoever announces too often is told when to come again.
    fn afford(&self, caller: &Caller, announcement: &Announcement) -> Result<(), Status> {
        let (cluster, identity) = (&caller.cluster, &announcement.identity);
        let now = clock::instant();
        self.budgets.take(cluster, identity, now).map_err(|wait| {
            self.parts.turned.add(Bound::Calls);
            let cause = format!("{cluster} announces {identity}, or all its identities, too often");
            let refusal = Refusal::new(EmCode::Busy, cause);
            self.refuse(caller, &refusal.with_detail(Detail::RetryAfter(wait)))
        })
    }

    fn refuse(&self, caller: &Caller, refusal: &Refusal) -> Status {
        self.door().refuse(caller, refusal)
    }

    /// For what a role refused and has told of itself, as the home role does of logins.
    fn relay(&self, caller: &Caller, refusal: &Refusal) -> Status {
        self.door().relay(caller, refusal)
    }

    fn unreadable(&self, caller: &Caller, rule: &dyn StdError) -> Status {
        let cause = format!("a message of {} can't be taken: {rule}", caller.cluster);
        self.refuse(caller, &Refusal::new(EmCode::ErrorOnParsing, cause))
    }

    /// Runs a role's work to its end even if the caller hangs up, and answers by the deadline. The work keeps
    /// its place among the calls of its peer for as long.
    async fn run<T, F>(
        &self,
        name: &'static str,
        caller: &Caller,
        errand: Errand,
        work: F,
        refuse: impl Fn(&Self, &Caller, &Refusal) -> Status,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let span = info_span!(
            "inbound",
            call = name,
            emcc.r#ref = %caller.reference,
            peer.cluster_id = caller.cluster.as_str()
        );
        let place = self.place_for(caller, errand)?;
        let work = async move {
            let _place = place;
            work.await
        };
        let running = self.parts.tasks.spawn(name, work.instrument(span));
        match timeout_at(caller.deadline.into(), running).await {
            Ok(Ok(outcome)) => outcome.map_err(|refusal| refuse(self, caller, &refusal)),
            Ok(Err(_)) => {
                let refusal = Refusal::new(EmCode::UnknownError, "the call broke off here");
                Err(self.refuse(caller, &refusal))
            }
            Err(_) => Err(Status::deadline_exceeded(
                "the deadline of the call has passed",
            )),
        }
    }

    /// Watches are for peers that we have a record of; a disabled one keeps its own, to deliver what it owes.
    fn refuse_watch(&self, caller: &Caller) -> Status {
        let cluster = &caller.cluster;
        let known = self.parts.peers.is_known(cluster);
        let refusal = if known {
            Refusal::new(
                EmCode::Busy,
                format!("{cluster} holds {MAX_WATCHES_PER_PEER} watches on this node already"),
            )
            .with_detail(Detail::RetryAfter(RETRY_WATCH))
        } else {
            Refusal::new(
                EmCode::VisitingClusterUnknown,
                format!(
                    "the certificate of {cluster} is trusted, but there is no peer record of it; mend with: emccd \
                     cluster add {cluster} --address HOST:PORT"
                ),
            )
        };
        self.refuse(caller, &refusal)
    }
}

#[tonic::async_trait]
impl FederationService for Federation {
    type WatchStream = Beats;
    type SyncSessionsStream = Steps;

    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        let caller = self.door().greet(&request)?;
        self.parts.peers.on_inbound(&caller.cluster);
        let theirs = Hello::try_from(request.into_inner())
            .map_err(|malformed| self.unreadable(&caller, &malformed))?;
        let answer = hello::answer(
            self.config(),
            &caller.cluster,
            &theirs,
            self.parts.clock.now(),
            self.parts.peers.sequences(),
        )
        .map_err(|cause| self.door().contradict(&caller, &cause, MEND_CLAIM))?;
        let traits = Traits::told(theirs.security_mode, &theirs.capabilities);
        caller.introduced.told(traits);
        self.parts.peers.introduced(&caller.cluster, traits);
        self.log.claim_accepted(caller.fingerprint.as_deref());
        Ok(Response::new(pb::HelloResponse::from(&answer)))
    }

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.admit(&request)?;
        let Some(guard) = self
            .parts
            .peers
            .watch_opened(&caller.cluster, MAX_WATCHES_PER_PEER)
        else {
            return Err(self.refuse_watch(&caller));
        };
        let pb::WatchRequest {
            heartbeat: wish,
            node,
        } = request.into_inner();
        let heartbeat = wish.map_or(DEFAULT_HEARTBEAT, |wish| wire::time::duration_from(&wish));
        let watch = Watch {
            cluster: caller.cluster,
            node,
            heartbeat: peer::Config::bound_heartbeat(heartbeat),
            guard,
            peers: self.parts.peers.clone(),
            clock: self.parts.clock.clone(),
            drain: self.parts.drain.clone(),
            leaving: caller.leaving.token(),
            stop: self.parts.tasks.token(),
        };
        Ok(Response::new(watch.beats()))
    }

    async fn find_user(
        &self,
        request: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        let caller = self.admit(&request)?;
        let query = decode_find(request.into_inner(), caller.version)
            .map_err(|malformed| self.unreadable(&caller, &malformed))?;
        let _place = self.place_for(&caller, Errand::Call)?;
        let (roles, context) = (Arc::clone(&self.parts.roles), caller.context());
        // It changes nothing: a caller that hangs up may take it along.
        let answer = timeout_at(caller.deadline.into(), roles.find_user(&context, &query)).await;
        match answer {
            Ok(Ok(ownership)) => Ok(Response::new(ownership.into())),
            Ok(Err(refusal)) => Err(self.refuse(&caller, &refusal)),
            Err(_) => Err(Status::deadline_exceeded(
                "the deadline of the call has passed",
            )),
        }
    }

    async fn login(
        &self,
        request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        let caller = self.admit(&request)?;
        let login = decode_login(request.into_inner(), caller.version)
            .map_err(|malformed| self.unreadable(&caller, &malformed))?;
        let (roles, mut context) = (Arc::clone(&self.parts.roles), caller.context());
        let told = caller.introduced.traits();
        context.traits = told.unwrap_or_else(|| self.parts.peers.traits(&caller.cluster));
        let work = async move { roles.login(&context, &login).await };
        let answer = self
            .run("federation login", &caller, Errand::Call, work, Self::relay)
            .await?;
        Ok(Response::new(pb::LoginResponse::from(&answer)))
    }

    async fn announce(
        &self,
        request: Request<pb::AnnounceRequest>,
    ) -> Result<Response<pb::AnnounceResponse>, Status> {
        let caller = self.admit(&request)?;
        if !Traits::of(self.config().security_mode, self.config().versions.max()).trust_announce {
            return Err(Status::unimplemented(
                "this node takes no announcements; it does not tell the capability trust-announce",
            ));
        }
        let announcement = decode_announcement(request.into_inner())
            .map_err(|malformed| self.unreadable(&caller, &malformed))?;
        self.afford(&caller, &announcement)?;
        let call = Call {
            cluster: caller.cluster.clone(),
            chain: Arc::clone(&caller.chain),
            reference: caller.reference,
            deadline: caller.deadline,
        };
        let roles = Arc::clone(&self.parts.roles);
        let work = async move { roles.announced(&call, &announcement).await };
        let answer = self
            .run(
                "federation announce",
                &caller,
                Errand::Announce,
                work,
                Self::refuse,
            )
            .await?;
        Ok(Response::new(encode_acknowledgement(&answer)))
    }

    async fn sync_sessions(
        &self,
        request: Request<Streaming<pb::SyncSessionsRequest>>,
    ) -> Result<Response<Self::SyncSessionsStream>, Status> {
        let caller = self.admit(&request)?;
        if !Traits::of(self.config().security_mode, self.config().versions.max()).sync_sessions {
            return Err(Status::unimplemented(
                "this node tells nothing of sessions; it does not tell the capability sync-sessions",
            ));
        }
        let place = self.place_for(&caller, Errand::Sync)?;
        let talk = Conversation {
            context: caller.context(),
            caller,
            incoming: request.into_inner(),
            roles: Arc::clone(&self.parts.roles),
            peers: self.parts.peers.clone(),
            clock: self.parts.clock.clone(),
            log: Arc::clone(&self.log),
            place,
        };
        let stop = self.parts.tasks.token();
        Ok(Response::new(sync::until(talk.steps(), stop)))
    }

    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        let caller = self.admit(&request)?;
        let logout = LogoutRequest::try_from(request.into_inner())
            .map_err(|malformed| self.unreadable(&caller, &malformed))?;
        let (roles, context) = (Arc::clone(&self.parts.roles), caller.context());
        let work = async move {
            match logout.initiator {
                Initiator::Home => roles.end_from_home(&context, logout).await,
                Initiator::Visiting => roles.end_from_visiting(&context, logout).await,
            }
        };
        let reason = self
            .run(
                "federation logout",
                &caller,
                Errand::End,
                work,
                Self::refuse,
            )
            .await?;
        Ok(Response::new(reason.into()))
    }
}
