//! A peer as a home cluster: typed calls with a deadline, spread over its nodes.

use std::{
    error::Error as _,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::{
    sync::SemaphorePermit,
    time::{sleep_until, timeout_at},
};
use tonic::{Request, Response, Status};
use tracing::warn;

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
        shared::{Client, Live, UnderWay, now},
    },
    wire::{Malformed, federation, metadata, pb, status},
};

/// When a caller may try again whom we turned away for the number of calls under way.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(1);

/// To how many connections one call is sent at most.
const MAX_TRIES: usize = 4;

/// How long a node has for the answer to a probe, and how often the nodes are looked after that owe an answer.
const PROBE: Duration = Duration::from_millis(250);

type Sent<R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send>>;

/// The home role of a peer.
#[derive(Debug)]
pub(super) struct PeerHome {
    pub(super) config: Arc<Config>,
    pub(super) group: Arc<Group>,
}

/// What there is to know of a call before it is sent.
#[derive(Clone, Copy, Debug)]
struct Errand {
    needs: Needs,
    twice: Twice,
    /// Whether it ends a session.
    is_end: bool,
}

/// When another node is asked beside one that has not answered for [`hedge_after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twice {
    /// Only where that one does not answer a probe either: the call costs a PIN check wherever it arrives.
    WhereSilent,
    /// Also where it is only slow, within [`Budget`](crate::peer::balance::Budget).
    WhereSlow,
}

/// How one sending of a call ended.
struct Landed<R> {
    way: Way,
    outcome: Result<Response<R>, Status>,
}

/// What has become of the sendings of one call.
struct Course {
    deadline: Instant,
    tried: Tried,
    /// Those that are under way.
    waiting: Vec<Way>,
    /// The first that broke.
    broken: Option<Status>,
    /// The first answer that its node does not keep: it says nothing of what the others do.
    unkept: Option<Refusal>,
}

impl Course {
    fn landed(&mut self, way: &Way) {
        self.waiting.retain(|w| !w.is(way));
    }

    /// For who gives up now, in place of `refusal` where a node has said more.
    fn or_unkept(&mut self, refusal: impl FnOnce() -> Refusal) -> Refusal {
        let refusal = self.unkept.take().unwrap_or_else(refusal);
        self.marked(refusal)
    }

    /// A refusal that may not be on record at home, with whether a copy of the call may yet be carried out.
    fn marked(&self, mut refusal: Refusal) -> Refusal {
        let others = self.tried.times() > 1;
        refusal.is_one_of_several = others && Weight::of(refusal.code) != Weight::Kept;
        refusal
    }
}

impl PeerHome {
    /// Sends to one of the peer's nodes and waits for the answer, at most until the deadline. Where a connection fails
    /// before there is an answer, and where a node is silent, another node is asked: all calls may be repeated, since
    /// they change nothing or are known by their id. The first answer that home keeps counts; one that it does not keep
    /// is given when no other node is left.
    async fn call<R, T>(
        &self,
        context: &Context,
        errand: Errand,
        send: impl Fn(Client, Version) -> Sent<R> + Send + Sync,
        read: impl FnOnce(R) -> Result<T, Malformed> + Send,
    ) -> Result<T, Refusal>
    where
        R: Send,
    {
        let deadline = context.deadline;
        let _room = self.room(errand, deadline).await?;
        self.group.budget().earn();
        let begin = |way: Way| {
            let sent = send(way.live.client.clone(), way.live.facts.version);
            let under_way = UnderWay::on(&way.link);
            async move {
                let outcome = sent.await;
                drop(under_way);
                Landed { way, outcome }
            }
        };
        let mut course = Course {
            deadline,
            tried: Tried::default(),
            waiting: Vec::new(),
            broken: None,
            unkept: None,
        };
        let mut flights = FuturesUnordered::new();
        // One at most.
        let mut looks: FuturesUnordered<Pin<Box<dyn Future<Output = bool> + Send>>> =
            FuturesUnordered::new();
        let mut another = true;
        let mut look_at = later(deadline);
        loop {
            if std::mem::take(&mut another) || flights.is_empty() {
                let next = self.next(&mut course, errand.needs).await?;
                if let Some(way) = next {
                    course.tried.add(&way);
                    course.waiting.push(way.clone());
                    flights.push(begin(way));
                }
            }
            let landed = tokio::select! {
                biased;
                Some(landed) = flights.next() => landed,
                () = sleep_until(deadline.into()) => {
                    return Err(course.or_unkept(|| self.silent("no answer by the deadline")));
                }
                Some(is_alive) = looks.next() => {
                    another = !is_alive
                        || errand.twice == Twice::WhereSlow && self.group.budget().spend();
                    look_at = if another { later(deadline) } else { now() + PROBE };
                    continue;
                }
                () = sleep_until(look_at.into()), if looks.is_empty() => {
                    looks.push(Box::pin(is_any_alive(course.waiting.clone(), deadline)));
                    continue;
                }
            };
            course.landed(&landed.way);
            match landed.outcome {
                Ok(answer) => {
                    landed.way.link.answered();
                    // What can't be read is no answer: the caller must not take it for a decision.
                    return read(answer.into_inner()).map_err(|malformed| {
                        self.silent(&format!("an answer that breaks the protocol: {malformed}"))
                    });
                }
                Err(status) => another = self.failed(&mut course, &landed.way, status)?,
            }
        }
    }

    /// What follows from a sending that was not answered with a success: whether another node is asked at once, or
    /// what the caller is told.
    fn failed(&self, course: &mut Course, way: &Way, status: Status) -> Result<bool, Refusal> {
        let broke = Broke::of(&status);
        if broke == Broke::Answered {
            let refusal = self.refused(&status, course.deadline);
            let weight = Weight::of(refusal.code);
            if weight == Weight::Failure {
                way.link.failed(refusal.code);
            } else {
                way.link.answered();
            }
            if weight == Weight::Kept {
                return Err(refusal);
            }
            let last = course.waiting.is_empty() && weight == Weight::NotKept;
            course.unkept.get_or_insert(refusal);
            if last || now() >= course.deadline {
                return Err(course.or_unkept(|| self.silent("no answer by the deadline")));
            }
            // While others are under way they are waited for.
            return Ok(course.waiting.is_empty());
        }
        if now() >= course.deadline {
            let deadline = course.deadline;
            return Err(course.or_unkept(|| self.refused(&status, deadline)));
        }
        if broke != Broke::Call {
            way.link.report_spent(way.live.serial);
        }
        // What was never sent has no story of its own.
        if broke != Broke::Unsent {
            course.broken.get_or_insert(status);
        }
        Ok(true)
    }

    /// To whom a call goes next: to nobody where none is left beside those under way, and otherwise there is a node, or
    /// what the caller is told.
    async fn next(&self, course: &mut Course, needs: Needs) -> Result<Option<Way>, Refusal> {
        let may = course.tried.times() < MAX_TRIES && now() < course.deadline;
        let pick = || match self.group.pick(&course.tried, needs) {
            Pick::Way(way) if may => Some(way),
            Pick::Way(_) | Pick::Lacking(_) | Pick::Nothing => None,
        };
        if !course.waiting.is_empty() {
            return Ok(pick());
        }
        if course.unkept.is_some() {
            // A node that has answered is not asked again by another address.
            let next = pick().filter(|way| !course.tried.knows(way));
            return match next {
                Some(way) => Ok(Some(way)),
                None => Err(course.or_unkept(|| self.silent("no answer"))),
            };
        }
        if let (false, Some(status)) = (may, &course.broken) {
            let refusal = self.refused(status, course.deadline);
            return Err(course.marked(refusal));
        }
        let way = self.group.way(course.deadline, &course.tried, needs).await;
        way.map(Some).map_err(|none| {
            let refusal = match &course.broken {
                Some(status) => self.refused(status, course.deadline),
                None => self.no_way(none, needs),
            };
            course.marked(refusal)
        })
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

    /// A place among the calls that are under way, as soon as there is one. How many wait for one is what admission
    /// lets in.
    async fn room(
        &self,
        errand: Errand,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, Refusal> {
        let places = if errand.is_end {
            &self.group.ends
        } else {
            &self.group.calls
        };
        match timeout_at(deadline.into(), places.acquire()).await {
            // Nobody closes it.
            Ok(Ok(place)) if now() < deadline => Ok(place),
            Ok(_) | Err(_) => Err(self.full()),
        }
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
        let errand = Errand {
            needs: needs(query.login_type, SecurityMode::NonSecure),
            twice: Twice::WhereSlow,
            is_end: false,
        };
        Box::pin(self.call(context, errand, send, Ownership::try_from))
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
        let errand = Errand {
            needs: needs(login.user.login_type, login.device.security_mode),
            twice: Twice::WhereSilent,
            is_end: false,
        };
        Box::pin(self.call(context, errand, send, LoginAnswer::try_from))
    }

    fn logout<'a>(&'a self, context: &'a Context, logout: LogoutRequest) -> Answer<'a, EndReason> {
        let send = move |mut client: Client, version| -> Sent<pb::LogoutResponse> {
            let message = pb::LogoutRequest::from(&logout);
            let request = self.request(message, context, version);
            Box::pin(async move { client.logout(request).await })
        };
        // A session id says all: no login type is needed to end a session.
        let errand = Errand {
            needs: Needs::default(),
            twice: Twice::WhereSilent,
            is_end: true,
        };
        Box::pin(self.call(context, errand, send, EndReason::try_from))
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

/// When a call that was just sent is looked after.
fn later(deadline: Instant) -> Instant {
    now() + hedge_after(deadline.saturating_duration_since(now()))
}

/// Whether any of the nodes that owe an answer gives a sign of life: something came from it just now, or it answers a
/// probe. Those that don't are avoided until they do.
async fn is_any_alive(waiting: Vec<Way>, deadline: Instant) -> bool {
    let limit = PROBE.min(hedge_after(deadline.saturating_duration_since(now())));
    let looks = waiting.into_iter().map(|Way { link, live }| async move {
        link.overdue();
        if link.conduct().lived_within(PROBE, now()) {
            return true;
        }
        let is_alive = live.answers_within(limit).await;
        if is_alive {
            link.lives();
        } else if link.silent() {
            let (peer, address) = (link.cluster().as_str(), &link.address);
            warn!(
                peer.cluster_id = peer, peer.address = address,
                "a node of {peer} is silent at {address}: a call waits there, and no sign of life comes"
            );
        }
        is_alive
    });
    join_all(looks).await.contains(&true)
}

/// What an answer of one node says of the copies of a call that other nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// They will be answered alike: home has decided, and keeps it.
    Kept,
    /// Nothing; but another node would say the same.
    NotKept,
    /// Nothing, and it says nothing of another node either.
    Failure,
}

impl Weight {
    const fn of(code: EmCode) -> Self {
        match code {
            EmCode::Busy
            | EmCode::DatabaseError
            | EmCode::UnknownError
            | EmCode::NoResponseFromRemoteHost
            | EmCode::ServiceConnectionError => Self::Failure,
            EmCode::NoFreeBaseDevice | EmCode::ErrorOnParsing | EmCode::VisitingClusterUnknown => {
                Self::NotKept
            }
            _ => Self::Kept,
        }
    }
}

/// What a status says of the connection that a call was sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broke {
    /// The node answered.
    Answered,
    /// The call did not get through, or its answer did not.
    Call,
    /// Nor will another one: the connection broke under it.
    Connection,
    /// Nor was it sent, or looked at: the connection had ended before, or was going away.
    Unsent,
}

impl Broke {
    fn of(status: &Status) -> Self {
        let mut next = status.source();
        // Where our own side made the status, it has what it was made from; a node's answer has none. What a node says
        // of trust comes before any role has heard of the call.
        if next.is_none() {
            return match status::rejection_from_status(status) {
                Some(_) => Self::Call,
                None => Self::Answered,
            };
        }
        while let Some(error) = next {
            if error.is::<Spent>() {
                return Self::Unsent;
            }
            if let Some(hyper) = error.downcast_ref::<hyper::Error>()
                && hyper.is_canceled()
            {
                return Self::Unsent;
            }
            if let Some(h2) = error.downcast_ref::<h2::Error>()
                && was_passed_over(h2)
            {
                return Self::Unsent;
            }
            next = error.source();
        }
        match status.code() {
            // Of the one call: a timer, or the stream was refused or reset with a reason.
            tonic::Code::Cancelled
            | tonic::Code::DeadlineExceeded
            | tonic::Code::ResourceExhausted
            | tonic::Code::PermissionDenied => Self::Call,
            _ => Self::Connection,
        }
    }
}

/// The other side closes its connection in peace, and this call came after the last that it looks at (RFC 9113,
/// section 6.8): no role has heard of it.
fn was_passed_over(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

#[cfg(test)]
mod tests {
    use super::Broke;
    use crate::wire::pb;
    use hyper_util::rt::TokioIo;
    use pb::federation_service_client::FederationServiceClient;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tonic::transport::{Endpoint, Uri};

    /// Length, type, flags and stream of a frame (RFC 9113, section 4.1).
    const FRAME_HEAD: usize = 9;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; FRAME_HEAD] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// The last stream that is looked at is 0, and there is no error.
    const GOAWAY: [u8; FRAME_HEAD + 8] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    async fn goes_away_at_the_first_call(mut stream: DuplexStream) {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&SETTINGS).await.unwrap();
        loop {
            let mut head = [0; FRAME_HEAD];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut body = vec![0; length as usize];
            stream.read_exact(&mut body).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        stream.write_all(&GOAWAY).await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_a_closing_connection_passed_over_was_never_sent() {
        let (ours, theirs) = tokio::io::duplex(65_536);
        let mut ours = Some(ours);
        let connector = tower::service_fn(move |_: Uri| {
            let stream = ours.take().map(TokioIo::new);
            async { stream.ok_or_else(|| std::io::Error::other("one connection is enough")) }
        });
        let channel = Endpoint::from_static("http://peer").connect_with_connector_lazy(connector);
        let mut client = FederationServiceClient::new(channel);
        let (answer, ()) = tokio::join!(
            client.find_user(pb::FindUserRequest::default()),
            goes_away_at_the_first_call(theirs),
        );
        let status = answer.unwrap_err();
        assert_eq!(Broke::of(&status), Broke::Unsent, "{status:?}");
    }
}
