//! The door for peers: TLS 1.3, HTTP/2, an identity per connection.

use std::{
    convert::Infallible,
    future::{Future, ready},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tracing::debug;

use super::{
    accept::{Accepted, Opening, accept_all, answer_plaintext, opening},
    call::{Begun, RETRY, answer, come_later},
    caller::{Caller, ConnIdentity, Leaving, report_refusal},
    joining::JoiningDoor,
    limits::{self, Config, Slots},
    share::Share,
    turned::Bound,
    waste::Account,
};
use crate::{
    chance::Chance,
    domain::{ids::ClusterId, rejection::Rejection},
    tasks::Tasks,
    trust::{
        TrustStore,
        certificate::{Fingerprint, fingerprint_of},
        in_use::{Opened, Use},
        judge::Verdict,
        mend::mend_called,
        refusals::Side,
        tls::{is_alert, rejection_of},
    },
    watch,
};

/// Serves `routes` to identified peers until the node shuts down. Connections drain in tasks of their own.
///
/// Handlers find a [`ConnIdentity`](super::ConnIdentity) in the extensions of their request.
pub async fn serve_federation(
    listener: TcpListener,
    trust: TrustStore,
    routes: Routes,
    tasks: Tasks,
    config: Config,
) {
    let door = Door::new(trust, routes, tasks.clone(), config);
    let pending = door.slots.pending.clone();
    let turned = &door.config.turned;
    let accepting = accept_all(&listener, &pending, turned, &tasks, |accepted| {
        tasks.spawn(
            "federation connection",
            Arc::clone(&door).connection(accepted),
        );
    });
    // A peer that comes now would only be sent away again, and has other nodes to go to.
    let draining = door.config.draining.clone();
    draining.run_until_cancelled(accepting).await;
}

/// How long after a connection that had to wait the next one of its peer is served.
const BETWEEN_TURNS: Duration = Duration::from_millis(100);
/// How often it is looked whether a connection that waits still stands, when its caller has sent something.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection lasts that is told to come again later.
const TOLD: Duration = Duration::from_millis(200);
/// What a connection gets that ends for what its caller does: what is written goes out.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// What serves connections of peers, however they came.
pub struct Door {
    trust: TrustStore,
    routes: Routes,
    tasks: Tasks,
    config: Config,
    slots: Slots,
}

/// Whom a handshake was done with.
enum Shaken {
    /// A peer, or who takes itself for one, with the certificate that it was shown.
    Federation(TlsStream<TcpStream>, Fingerprint),
    /// Who comes to join, with the certificate that it was shown.
    Joining(JoiningDoor, TlsStream<TcpStream>, Fingerprint),
}

/// Why we end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// It was never identified, and has had its time to hear why.
    LifeOver,
    /// The node shuts down.
    Shutdown,
    /// It wasted the last of what its peer may.
    Waste,
    /// It does not take its answers.
    Stalled,
    /// Its certificate is no longer what it was to us.
    TrustChanged,
    /// It was accepted with a certificate that we don't show any more, and was told to come again.
    Renewed,
}

/// What becomes of a connection whose peer may have wasted what it may.
enum Turn {
    Now,
    /// Not in time.
    Late,
    /// The caller has gone, or the node ends.
    Gone,
}

/// A connection's place: among those of peers in all and those of its own, or among those of strangers.
#[derive(Default)]
struct Place {
    _of_peer: Option<(OwnedSemaphorePermit, Share<ClusterId>)>,
    _of_stranger: Option<limits::Place>,
}

/// A connection once its caller has shown who it is.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// Completes when the caller has closed it or it was cut. What the caller has sent stays where it is.
    fn hung_up(&self) -> impl Future<Output = ()> + Send;
}

impl Line for TlsStream<TcpStream> {
    fn hung_up(&self) -> impl Future<Output = ()> + Send {
        hung_up(self.get_ref().0)
    }
}

/// Who is at the other end of a connection, as far as its begin told.
#[derive(Debug)]
pub struct Comer {
    /// Where from.
    pub remote: SocketAddr,
    /// What it showed, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What it was shown.
    pub own: Option<Fingerprint>,
    /// Trust as it was before the two were judged.
    pub generations: watch::Receiver<u64>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// A door to `routes`, with nobody at it.
    #[must_use]
    pub fn new(trust: TrustStore, routes: Routes, tasks: Tasks, config: Config) -> Arc<Self> {
        Arc::new(Self {
            trust,
            routes: routes.prepare(),
            tasks,
            slots: Slots::new(&config),
            config,
        })
    }

    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let Accepted {
            tcp,
            remote,
            pending,
        } = accepted;
        // Taken before the judgement, so that no generation between the two goes unseen.
        let generations = self.trust.subscribe();
        let deadline = Instant::now() + self.config.handshake_timeout;
        let (tls, own) = tokio::select! {
            biased;
            () = self.tasks.cancelled() => return,
            shaken = timeout_at(deadline, self.shake_hands(tcp, remote)) => match shaken {
                Ok(Some(Shaken::Joining(door, tls, shown))) => {
                    drop(pending);
                    return door.serve(tls, shown, remote, &self.tasks).await;
                }
                Ok(Some(Shaken::Federation(tls, own))) => (tls, Some(own)),
                Ok(None) => return,
                Err(_) => {
                    debug!(%remote, "the caller did not finish its handshake in time");
                    return;
                }
            },
        };
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let comer = Comer {
            remote,
            chain: chain.to_vec(),
            own,
            generations,
        };
        self.connected(tls, comer, pending).await;
    }

    /// Serves one connection until it ends. `pending` is kept until the caller has a place.
    pub async fn connected<S: Line, P: Send>(&self, stream: S, comer: Comer, pending: P) {
        let Comer {
            remote,
            chain,
            own,
            generations,
        } = comer;
        let all = chain.iter().map(|der| fingerprint_of(der)).collect();
        let caller = Caller::new(self.trust.clone(), remote, chain, own);
        let caller = Arc::new(caller);
        let identity = caller.identity();
        if let (Some(_), Some(shown)) = (identity.peer(), &identity.fingerprint) {
            self.trust.refusals().caller_accepted(shown, remote.ip());
        }
        let place = match self.place_for(&identity.verdict, remote) {
            Ok(place) => place,
            Err(bound) => {
                self.config.turned.add(bound);
                debug!(%remote, peer = ?identity.peer(), "too many connections of this kind; closed the newest");
                return;
            }
        };
        // Who gets no answer gets no line either: places for strangers are few, and so are their refusals then.
        report_refusal(&self.trust, Side::Caller, remote, &identity.verdict);
        drop(pending);
        let in_use = identity.peer().map(|peer| {
            self.trust.in_use().enter(Use {
                opened: Opened::ByPeer,
                cluster: peer.clone(),
                address: remote.to_string(),
                own,
                shown: all,
            })
        });
        let turn = match identity.peer() {
            Some(peer) => self.turn(peer, &stream).await,
            None => Turn::Now,
        };
        match turn {
            Turn::Now => self.serve(stream, caller, generations).await,
            Turn::Late => self.send_away(stream, &identity).await,
            Turn::Gone => {}
        }
        drop((place, in_use));
    }

    /// Waits while this peer has wasted what it may, one connection at a time.
    async fn turn<S: Line>(&self, peer: &ClusterId, stream: &S) -> Turn {
        let turn = tokio::select! {
            biased;
            () = self.tasks.cancelled() => return Turn::Gone,
            () = stream.hung_up() => return Turn::Gone,
            turn = timeout(self.config.turn_timeout, self.slots.waste.turn(peer)) => turn,
        };
        let Ok(turn) = turn else {
            return Turn::Late;
        };
        if let Some(turn) = turn {
            debug!(%peer, "a connection is served that waited since its peer had wasted what it may");
            // The next one must see what became of this one.
            self.tasks.spawn("turn of a peer", async move {
                sleep(BETWEEN_TURNS).await;
                drop(turn);
            });
        }
        Turn::Now
    }

    /// Says on a connection when its peer may come again, and ends it. That must not cost more than its handshake did.
    async fn send_away<S: Line>(&self, stream: S, identity: &ConnIdentity) {
        let wait = identity.peer().and_then(|peer| self.slots.waste.wait(peer));
        let wait = wait.unwrap_or(RETRY);
        let told = CancellationToken::new();
        let service = service_fn({
            let told = told.clone();
            move |_: Request<Incoming>| {
                told.cancel();
                ready(Ok::<_, Infallible>(come_later(wait).into_http::<Body>()))
            }
        });
        let mut http2 = self.http2();
        http2
            .max_concurrent_streams(1)
            .max_local_error_reset_streams(8);
        let connection = http2.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let told = async {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = told.cancelled() => {}
            }
            connection.as_mut().graceful_shutdown();
            // How it ends is all the same.
            drop(connection.await);
        };
        let was_told = timeout(TOLD, told).await.is_ok();
        debug!(remote = %identity.remote, peer = ?identity.peer(), was_told, "a connection's turn has not come in time");
    }

    /// Finds out what the caller speaks and does the handshake. `None` when there is nothing to serve, which
    /// has been reported by then.
    async fn shake_hands(&self, tcp: TcpStream, remote: SocketAddr) -> Option<Shaken> {
        match opening(&tcp).await {
            Ok(Opening::Tls) => {}
            Ok(Opening::Plaintext) => {
                let expectation = "a TLS handshake; the first byte is none of a TLS record";
                let verdict = Verdict::rejected(Rejection::Plaintext, None, expectation, None);
                report_refusal(&self.trust, Side::Caller, remote, &verdict);
                let sentence = "This port speaks gRPC over TLS, to peers that show a certificate.";
                if let Err(error) = answer_plaintext(tcp, sentence).await {
                    debug!(%remote, %error, "the caller could not be told");
                }
                return None;
            }
            Ok(Opening::Closed) | Err(_) => return None,
        }
        let snapshot = self.trust.snapshot();
        let (Ok(config), Some(identity)) = (snapshot.server_config(), snapshot.identity()) else {
            debug!(%remote, "this node has no usable identity; closed the connection");
            return None;
        };
        let door = self.config.joining.as_ref().filter(|door| door.is_open());
        let config = door.map_or_else(|| Arc::clone(&config), |_| JoiningDoor::settings(&config));
        match TlsAcceptor::from(config).accept(tcp).await {
            Ok(tls) => Some(match door.filter(|_| JoiningDoor::is_for(&tls)) {
                Some(door) => Shaken::Joining(door.clone(), tls, identity.leaf().fingerprint()),
                None => Shaken::Federation(tls, identity.leaf().fingerprint()),
            }),
            Err(error) => {
                self.report_failed_handshake(remote, &error);
                None
            }
        }
    }

    fn report_failed_handshake(&self, remote: SocketAddr, error: &io::Error) {
        let Some(rejection) = rejection_of(error) else {
            debug!(%remote, %error, "the handshake failed");
            return;
        };
        if !is_alert(error) {
            let verdict = Verdict::rejected(rejection, None, format!("TLS 1.3; {error}"), None);
            report_refusal(&self.trust, Side::Caller, remote, &verdict);
            return;
        }
        let snapshot = self.trust.snapshot();
        let own = snapshot.identity().map(|identity| identity.leaf().clone());
        let verdict = Verdict::Rejected {
            rejection,
            certificate: own,
            expectation: format!("the caller refused our own certificate: {error}"),
            mend: mend_called(rejection),
        };
        report_refusal(&self.trust, Side::Own, remote, &verdict);
    }

    fn place_for(&self, verdict: &Verdict, remote: SocketAddr) -> Result<Place, Bound> {
        let slots = &self.slots;
        Ok(match verdict {
            Verdict::Peer(peer) => {
                let share = slots.peers.take(peer).ok_or(Bound::Peer)?;
                let one = Arc::clone(&slots.connections).try_acquire_owned();
                let one = one.map_err(|_| Bound::Connections)?;
                Place {
                    _of_peer: Some((one, share)),
                    ..Place::default()
                }
            }
            Verdict::Rejected { .. } => {
                let place = slots.unidentified.take(remote.ip());
                Place {
                    _of_stranger: Some(place.map_err(|_| Bound::Strangers)?),
                    ..Place::default()
                }
            }
        })
    }

    async fn serve<S: Line>(
        &self,
        stream: S,
        caller: Arc<Caller>,
        generations: watch::Receiver<u64>,
    ) {
        let account = caller.identity().peer().cloned();
        let account = account.map(|peer| Account::new(peer, self.slots.waste.clone()));
        let service = service_fn({
            let (caller, routes, account) =
                (Arc::clone(&caller), self.routes.clone(), account.clone());
            let begun = Begun {
                shares: self.slots.begun.clone(),
                unfinished: self.slots.unfinished.clone(),
                turned: self.config.turned.clone(),
            };
            let max_call = self.config.max_call;
            move |request| {
                let (caller, routes) = (Arc::clone(&caller), routes.clone());
                let (begun, account) = (begun.clone(), account.clone());
                answer(caller, routes, begun, account, max_call, request)
            }
        });
        let connection = self.http2().serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let leave = tokio::select! {
            biased;
            // First: a caller that keeps its connection busy does not put off its end.
            leave = self.until_leaving(&caller, account.as_ref(), generations) => leave,
            ended = connection.as_mut() => {
                if let (Err(_), Some(account)) = (&ended, &account) {
                    account.cut(self.config.max_streams);
                }
                report_end(&caller, ended);
                return;
            }
        };
        debug!(?leave, peer = ?caller.identity().peer(), "ending a federation connection");
        connection.as_mut().graceful_shutdown();
        let grace = match leave {
            Leave::Shutdown => self.config.drain_grace,
            Leave::Waste | Leave::Stalled => LAST_WORDS,
            Leave::LifeOver | Leave::TrustChanged => self.config.trust_grace,
            // Calls under way come to their end.
            Leave::Renewed => self.config.max_call,
        };
        // What is not done by then is cut with the connection.
        if let Ok(ended) = timeout(grace, connection).await {
            report_end(&caller, ended);
        }
    }

    fn http2(&self) -> http2::Builder<TrackedTasks> {
        let mut builder = http2::Builder::new(TrackedTasks(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            // Peers don't ask what the time is here but where they are told it.
            .auto_date_header(false)
            .max_concurrent_streams(self.config.max_streams)
            // Our own calls carry below 1 KiB of headers.
            .max_header_list_size(16 * 1024)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(128)
            .max_send_buf_size(256 * 1024)
            // A caller that is gone without a word is noticed within 8 s.
            .keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(3));
        builder
    }

    /// Completes when the connection has to end, whatever it is doing.
    async fn until_leaving(
        &self,
        caller: &Caller,
        account: Option<&Account>,
        mut generations: watch::Receiver<u64>,
    ) -> Leave {
        let first = caller.identity();
        let life_over = async {
            if first.peer().is_some() {
                std::future::pending::<()>().await;
            }
            sleep(self.config.unidentified_life).await;
        };
        let mut life_over = pin!(life_over);
        let wasted = async {
            match account {
                Some(account) => account.over().await,
                None => std::future::pending().await,
            }
        };
        let mut wasted = pin!(wasted);
        let begun = Instant::now();
        let mut renewal: Option<Renewal> = None;
        loop {
            renewal = match renewal {
                Some(under_way) => Some(under_way),
                None if caller.is_out_of_date() => Some(Renewal::begun(
                    begun.elapsed(),
                    self.config.parameters.load().certificate_drain_time,
                    &self.config.chance,
                )),
                None => None,
            };
            let step_at = renewal.as_ref().map(|renewal| renewal.at);
            let now = caller.judged_again();
            if !now.verdict.agrees_with(&first.verdict) {
                report_refusal(&self.trust, Side::Caller, now.remote, &now.verdict);
                return Leave::TrustChanged;
            }
            if account.is_some_and(|account| account.is_stalled(self.config.answer_timeout)) {
                return Leave::Stalled;
            }
            let left = match now.leaf_not_after {
                // One millisecond past the end: until then the leaf is valid.
                Some(end) if now.peer().is_some() => end
                    .since(self.trust.clock().now())
                    .saturating_add(Duration::from_millis(1)),
                _ => self.config.look_again,
            };
            tokio::select! {
                biased;
                () = self.tasks.cancelled() => return Leave::Shutdown,
                () = wasted.as_mut() => return Leave::Waste,
                () = life_over.as_mut() => return Leave::LifeOver,
                Ok(()) = generations.changed() => {}
                () = until(step_at) => {
                    let Some(next) = renewal.and_then(|renewal| renewal.stepped(&first.leaving)) else {
                        return Leave::Renewed;
                    };
                    renewal = Some(next);
                }
                () = sleep(left.min(self.config.look_again)) => {}
            }
        }
    }
}

/// What becomes of a connection that was accepted with a certificate that is not shown any more: the peer is told to
/// begin another one, and then this one takes no more calls.
struct Renewal {
    /// When its next step is.
    at: Instant,
    was_told: bool,
}

/// How long a peer that was told to begin another connection may take.
const TO_BEGIN_ANOTHER: Duration = Duration::from_secs(4);

impl Renewal {
    /// Older connections first, and no two at the same moment; all within `window`.
    fn begun(age: Duration, seconds: u32, chance: &Chance) -> Self {
        let window = Duration::from_secs(u64::from(seconds));
        let older = window.as_secs_f64() / (window + age).as_secs_f64().max(f64::MIN_POSITIVE);
        let share = (older * chance.unit()).clamp(0.0, 1.0);
        Self {
            at: Instant::now() + window.mul_f64(share),
            was_told: false,
        }
    }

    /// The next step; none when it is to end.
    fn stepped(self, leaving: &Leaving) -> Option<Self> {
        if self.was_told {
            return None;
        }
        leaving.cancel();
        Some(Self {
            at: Instant::now() + TO_BEGIN_ANOTHER,
            was_told: true,
        })
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Completes when the caller has closed the connection or it was cut. What the caller has sent stays where it is.
async fn hung_up(tcp: &TcpStream) {
    loop {
        match tcp.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {}
            Ok(_) | Err(_) => return,
        }
        sleep(LOOK).await;
    }
}

fn report_end(caller: &Caller, ended: Result<(), hyper::Error>) {
    let identity = caller.identity();
    match ended {
        Ok(()) => {
            debug!(remote = %identity.remote, peer = ?identity.peer(), "a federation connection ended");
        }
        Err(error) => {
            debug!(remote = %identity.remote, peer = ?identity.peer(), %error, "a federation connection broke");
        }
    }
}

/// Lets hyper run its streams as tasks of the node, so that shutdown waits for them.
#[derive(Clone)]
pub(super) struct TrackedTasks(pub(super) Tasks);

impl<F> Executor<F> for TrackedTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("federation call", stream);
    }
}
