//! A peer as a home cluster: typed calls with a deadline, spread over its nodes.

use std::{error::Error as _, future::Future, pin::Pin, sync::Arc, time::Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep_until;
use tonic::{Request, Response, Status};

use crate::{
    domain::{
        capability::Traits,
        em_code::EmCode,
        ids::ClusterId,
        login::{
            Answer, Context, FindUser, HomeCluster, LoginAnswer, LoginRequest, LoginType,
            LogoutRequest, Ownership, SecurityMode,
        },
        refusal::{Detail, Refusal},
        session::EndReason,
        version::Version,
    },
    peer::{
        Config,
        balance::hedge_after,
        connector::Spent,
        error::{bounded, with_sources},
        group::{Group, Needs, NoWay, Pick, Tried, Way},
        shared::{Client, Live, Shared, UnderWay, now},
    },
    wire::{Malformed, federation, metadata, pb, status},
};

/// When a caller may try again whom we turned away for the number of calls under way.
const RETRY_WHEN_FULL: std::time::Duration = std::time::Duration::from_secs(1);

/// To how many connections one call is sent at most.
const MAX_TRIES: usize = 4;

type Sent<R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send>>;

/// The home role of a peer.
#[derive(Debug)]
pub(super) struct PeerHome {
    pub(super) config: Arc<Config>,
    pub(super) group: Arc<Group>,
}

/// How one sending of a call ended.
struct Landed<R> {
    way: Way,
    outcome: Result<Response<R>, Status>,
}

impl PeerHome {
    /// Sends to one of the peer's nodes and waits for the answer, at most until the deadline. Where a connection fails
    /// before there is an answer, and where a node is silent for [`hedge_after`], another node is asked: all calls may
    /// be repeated, since they change nothing or are known by their id. The first answer counts, whatever it is.
    async fn call<R, T>(
        &self,
        context: &Context,
        needs: Needs,
        send: impl Fn(Client, Version) -> Sent<R> + Send + Sync,
        read: impl FnOnce(R) -> Result<T, Malformed> + Send,
    ) -> Result<T, Refusal>
    where
        R: Send,
    {
        let room = self.group.calls.try_acquire();
        let _room = room.map_err(|_| self.full())?;
        let deadline = context.deadline;
        let begin = |way: Way| {
            let sent = send(way.live.client.clone(), way.live.facts.version);
            let under_way = UnderWay::on(&way.link);
            async move {
                let outcome = sent.await;
                drop(under_way);
                Landed { way, outcome }
            }
        };
        let mut tried = Tried::default();
        let mut waiting: Vec<Arc<Shared>> = Vec::new();
        let mut flights = FuturesUnordered::new();
        let mut failed: Option<Status> = None;
        let mut hedge_at = now();
        loop {
            let next = if flights.is_empty() {
                match self.group.way(deadline, &tried, needs).await {
                    Ok(way) => Some(way),
                    Err(none) => {
                        return Err(failed.map_or_else(
                            || self.no_way(none, needs),
                            |status| self.refused(&status, deadline),
                        ));
                    }
                }
            } else if now() >= hedge_at && tried.times() < MAX_TRIES {
                match self.group.pick(&tried, needs) {
                    Pick::Way(way) => Some(way),
                    Pick::Lacking(_) | Pick::Nothing => None,
                }
            } else {
                None
            };
            if let Some(way) = next {
                tried.add(&way);
                waiting.push(Arc::clone(&way.link));
                flights.push(begin(way));
            }
            if now() >= hedge_at {
                hedge_at = now() + hedge_after(deadline.saturating_duration_since(now()));
            }
            let landed = tokio::select! {
                biased;
                Some(landed) = flights.next() => landed,
                () = sleep_until(deadline.into()) => {
                    return Err(self.silent("no answer by the deadline"));
                }
                () = sleep_until(hedge_at.into()) => {
                    // Until they give a sign of life others are asked first.
                    waiting.iter().for_each(|link| link.suspect());
                    continue;
                }
            };
            waiting.retain(|link| link.number != landed.way.link.number);
            let status = match landed.outcome {
                Ok(answer) => {
                    landed.way.link.answered();
                    // What can't be read is no answer: the caller must not take it for a decision.
                    return read(answer.into_inner()).map_err(|malformed| {
                        self.silent(&format!("an answer that breaks the protocol: {malformed}"))
                    });
                }
                Err(status) => status,
            };
            let broke = Broke::of(&status);
            if broke == Broke::Answered || now() >= deadline {
                return Err(self.refused(&status, deadline));
            }
            if broke == Broke::Connection {
                landed.way.link.report_spent(landed.way.live.serial);
            }
            if tried.times() >= MAX_TRIES && flights.is_empty() {
                return Err(self.refused(&status, deadline));
            }
            // What was never sent has no story of its own.
            if broke == Broke::Call {
                failed.get_or_insert(status);
            }
            // Another node is asked at once.
            hedge_at = now();
        }
    }

    fn no_way(&self, none: NoWay, needs: Needs) -> Refusal {
        match none {
            NoWay::Refused(refusal) => refusal,
            NoWay::Lacking(live) => self.lacking(&live, needs),
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
        self.group.cluster()
    }

    /// Why no node that is up can be asked; `live` is one of them.
    fn lacking(&self, live: &Live, needs: Needs) -> Refusal {
        let (peer, theirs, ours) = (self.cluster(), live.facts.versions, self.config.versions);
        if !needs.login_types || live.facts.version.knows_login_types() {
            let cause = format!(
                "the phone is secure, and no node of {peer} that is up has the capability secure-config"
            );
            return Refusal::new(EmCode::RemoteVersionNotSupported, cause);
        }
        let upgrade = if ours.max().knows_login_types() {
            format!("upgrade {peer}, or raise its --protocol-max")
        } else {
            "upgrade this cluster, or raise its --protocol-max".to_owned()
        };
        let cause = format!(
            "this login type needs protocol version {}: this cluster speaks {ours}, {peer} speaks {theirs}; {upgrade}",
            Version::V1_1
        );
        let refusal = Refusal::new(EmCode::ErrorOnParsing, cause);
        // Where it is we who lack it, the peer may well have such users.
        if theirs.max().knows_login_types() {
            refusal
        } else {
            refusal.with_detail(Detail::LacksLoginType)
        }
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
        let needs = needs(query.login_type, SecurityMode::NonSecure);
        Box::pin(self.call(context, needs, send, Ownership::try_from))
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
        let needs = needs(login.user.login_type, login.device.security_mode);
        Box::pin(self.call(context, needs, send, LoginAnswer::try_from))
    }

    fn logout<'a>(&'a self, context: &'a Context, logout: LogoutRequest) -> Answer<'a, EndReason> {
        let send = move |mut client: Client, version| -> Sent<pb::LogoutResponse> {
            let message = pb::LogoutRequest::from(&logout);
            let request = self.request(message, context, version);
            Box::pin(async move { client.logout(request).await })
        };
        // A session id says all: no login type is needed to end a session.
        Box::pin(self.call(context, Needs::default(), send, EndReason::try_from))
    }

    fn traits(&self) -> Option<Traits> {
        self.group.traits()
    }
}

fn needs(login_type: LoginType, phone: SecurityMode) -> Needs {
    Needs {
        login_types: login_type != LoginType::Uid,
        secure_config: phone == SecurityMode::Secure,
    }
}

/// What a status says of the connection that a call was sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broke {
    /// The node answered.
    Answered,
    /// The call did not get through, or its answer did not.
    Call,
    /// Nor will another one: it had ended before, or was going away.
    Connection,
}

impl Broke {
    fn of(status: &Status) -> Self {
        let mut next = status.source();
        // Where our own side made the status, it has what it was made from; a node's answer has none. What a node says
        // of trust comes before any role has heard of the call.
        if next.is_none() && status::rejection_from_status(status).is_none() {
            return Self::Answered;
        }
        while let Some(error) = next {
            if error.is::<Spent>() {
                return Self::Connection;
            }
            if let Some(hyper) = error.downcast_ref::<hyper::Error>()
                && hyper.is_canceled()
            {
                return Self::Connection;
            }
            next = error.source();
        }
        Self::Call
    }
}
