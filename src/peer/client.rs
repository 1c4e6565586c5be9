//! A peer as a home cluster: typed calls with a deadline over its link.

use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use crate::{
    domain::{
        capability::Traits,
        em_code::EmCode,
        ids::ClusterId,
        login::{
            Answer, Context, FindUser, HomeCluster, LoginAnswer, LoginRequest, LoginType,
            LogoutRequest, Ownership,
        },
        refusal::{Detail, Refusal},
        session::EndReason,
        version::Version,
    },
    peer::{
        Config,
        connector::Spent,
        error::{bounded, with_sources},
        shared::{Client, Live, Shared, now},
    },
    wire::{Malformed, federation, metadata, pb, status},
};

/// When a caller may try again whom we turned away for the number of calls under way.
const RETRY_WHEN_FULL: std::time::Duration = std::time::Duration::from_secs(1);

type Sent<R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send>>;

/// The home role of a peer.
#[derive(Debug)]
pub(super) struct PeerHome {
    pub(super) config: Arc<Config>,
    pub(super) shared: Arc<Shared>,
}

impl PeerHome {
    /// Sends over the live link and waits for the answer, at most until the deadline. What was never sent is
    /// sent once more over the next connection, whatever it is.
    async fn call<R, T>(
        &self,
        context: &Context,
        login_type: LoginType,
        send: impl Fn(Client, Version) -> Sent<R> + Send + Sync,
        read: impl FnOnce(R) -> Result<T, Malformed> + Send,
    ) -> Result<T, Refusal>
    where
        R: Send,
    {
        let _room = self
            .shared
            .in_flight
            .try_acquire()
            .map_err(|_| self.full())?;
        let mut spent = None;
        loop {
            let live = self.shared.live(context.deadline, spent).await?;
            self.check_version(&live, login_type)?;
            let sent = send(live.client, live.version);
            let Ok(outcome) = timeout_at(context.deadline.into(), sent).await else {
                return Err(self.silent("no answer by the deadline"));
            };
            match outcome {
                Ok(answer) => {
                    // What can't be read is no answer: the caller must not take it for a decision.
                    return read(answer.into_inner()).map_err(|malformed| {
                        self.silent(&format!("an answer that breaks the protocol: {malformed}"))
                    });
                }
                Err(status) if spent.is_none() && was_never_sent(&status) => {
                    spent = Some(live.serial);
                    self.shared.report_spent(live.serial);
                }
                Err(status) => return Err(self.refused(&status, context.deadline)),
            }
        }
    }

    /// A request with the metadata of every call, and the rest of the deadline as its timeout.
    fn request<M>(&self, message: M, context: &Context, version: Version) -> Request<M> {
        let mut request = Request::new(message);
        metadata::write(
            request.metadata_mut(),
            &self.config.cluster_id,
            version,
            context.reference,
        );
        request.set_timeout(context.deadline.saturating_duration_since(now()));
        request
    }

    fn cluster(&self) -> &ClusterId {
        &self.shared.cluster
    }

    fn check_version(&self, live: &Live, login_type: LoginType) -> Result<(), Refusal> {
        if login_type == LoginType::Uid || live.version.knows_login_types() {
            return Ok(());
        }
        let (peer, theirs, ours) = (self.cluster(), live.versions, self.config.versions);
        let upgrade = if ours.max().knows_login_types() {
            format!("upgrade {peer}, or raise its --protocol-max")
        } else {
            "upgrade this cluster, or raise its --protocol-max".to_owned()
        };
        let cause = format!(
            "login type {login_type} needs protocol version {}: this cluster speaks {ours}, {peer} speaks {theirs}; {upgrade}",
            Version::V1_1
        );
        let refusal = Refusal::new(EmCode::ErrorOnParsing, cause);
        // Where it is we who lack it, the peer may well have such users.
        Err(if theirs.max().knows_login_types() {
            refusal
        } else {
            refusal.with_detail(Detail::LacksLoginType)
        })
    }

    fn refused(&self, status: &Status, deadline: Instant) -> Refusal {
        // At the deadline several timers race; whichever wins, it was silence.
        let is_timer = matches!(
            status.code(),
            tonic::Code::Cancelled | tonic::Code::DeadlineExceeded
        );
        if is_timer && now() >= deadline {
            return self.silent("no answer by the deadline");
        }
        let mut refusal = status::from_status(status, self.cluster());
        if refusal.code == EmCode::ServiceConnectionError && status.details().is_empty() {
            refusal.cause = bounded(&format!(
                "the call to {} failed: {}",
                self.cluster(),
                with_sources(status)
            ));
        }
        refusal
    }

    fn silent(&self, what: &str) -> Refusal {
        let cause = format!("{} gave {what}", self.cluster());
        Refusal::new(EmCode::NoResponseFromRemoteHost, cause)
    }

    fn full(&self) -> Refusal {
        let cause = format!("too many calls to {} are under way", self.cluster());
        Refusal::new(EmCode::Busy, cause).with_detail(Detail::RetryAfter(RETRY_WHEN_FULL))
    }
}

impl HomeCluster for PeerHome {
    fn cluster_id(&self) -> &ClusterId {
        self.cluster()
    }

    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership> {
        let send = |mut client: Client, version| -> Sent<pb::FindUserResponse> {
            let message = federation::encode_find(query, version);
            let request = self.request(message, context, version);
            Box::pin(async move { client.find_user(request).await })
        };
        Box::pin(self.call(context, query.login_type, send, Ownership::try_from))
    }

    fn login<'a>(
        &'a self,
        context: &'a Context,
        login: &'a LoginRequest,
    ) -> Answer<'a, LoginAnswer> {
        let send = |mut client: Client, version| -> Sent<pb::LoginResponse> {
            let message = federation::encode_login(login, version);
            let request = self.request(message, context, version);
            Box::pin(async move { client.login(request).await })
        };
        Box::pin(self.call(context, login.user.login_type, send, LoginAnswer::try_from))
    }

    fn logout<'a>(&'a self, context: &'a Context, logout: LogoutRequest) -> Answer<'a, EndReason> {
        let send = move |mut client: Client, version| -> Sent<pb::LogoutResponse> {
            let message = pb::LogoutRequest::from(&logout);
            let request = self.request(message, context, version);
            Box::pin(async move { client.logout(request).await })
        };
        // A session id says all: no login type is needed to end a session.
        Box::pin(self.call(context, LoginType::Uid, send, EndReason::try_from))
    }

    fn traits(&self) -> Option<Traits> {
        self.shared.traits()
    }
}

/// Whether the request never left: the connection had ended before, or was going away.
fn was_never_sent(status: &Status) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(error) = next {
        if error.is::<Spent>() {
            return true;
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            return hyper.is_canceled();
        }
        next = error.source();
    }
    false
}
