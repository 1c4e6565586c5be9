//! The door for phones and browsers: HTTP/1.1 with or without TLS, and no client certificates.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{
    accept::{Accepted, Opening, accept_all, answer_plaintext, opening},
    limits::{Config, Full, Places, pending},
    turned::Bound,
};
use crate::tasks::Tasks;

/// Serves `router` until the node shuts down: over TLS with the newest of `tls`, in the clear without.
///
/// Its connections take their places from `places`; those not past their handshake are counted apart.
/// Handlers find the caller's address as `ConnectInfo<SocketAddr>` in the extensions of their request.
pub async fn serve_http(
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    router: Router,
    tasks: Tasks,
    places: Places,
    config: Config,
) {
    let pending = pending(&config);
    let router = router.with_state(());
    let door = Arc::new(Door {
        tls,
        router,
        tasks: tasks.clone(),
        places,
        config,
    });
    let turned = &door.config.turned;
    let accepting = accept_all(&listener, &pending, turned, &tasks, |accepted| {
        tasks.spawn("http connection", Arc::clone(&door).connection(accepted));
    });
    // What is in its handshake now has time to be served; a later one would be cut in the middle of it.
    let draining = door.config.draining.clone();
    draining.run_until_cancelled(accepting).await;
}

/// How long after the doors have closed a connection that was just opened or used may still send a request: a handshake
/// and a round trip. The answer ends it.
const MOMENT: Duration = Duration::from_secs(1);

struct Door {
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    router: Router,
    tasks: Tasks,
    config: Config,
    places: Places,
}

impl Door {
    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let Accepted {
            tcp,
            remote,
            pending,
        } = accepted;
        let place = match self.places.take(remote.ip()) {
            Ok(place) => place,
            Err(full) => return self.tell(remote, full),
        };
        match &self.tls {
            None => {
                drop(pending);
                self.serve(tcp, remote).await;
            }
            Some(config) => {
                let deadline = Instant::now() + self.config.handshake_timeout;
                let closed = async {
                    self.tasks.cancelled().await;
                    sleep(self.moment()).await;
                };
                let shaken = tokio::select! {
                    biased;
                    () = closed => return,
                    shaken = timeout_at(deadline, self.shake_hands(tcp, config.load_full(), remote)) => shaken,
                };
                drop(pending);
                match shaken {
                    Ok(Some(tls)) => self.serve(tls, remote).await,
                    Ok(None) => {}
                    Err(_) => debug!(%remote, "the caller did not finish its handshake in time"),
                }
            }
        }
        drop(place);
    }

    fn moment(&self) -> Duration {
        MOMENT.min(self.config.drain_grace / 4)
    }

    /// A phone that gets no answer shows nothing that an operator could search for.
    fn tell(&self, remote: SocketAddr, full: Full) {
        self.config.turned.add(match full {
            Full::Network => Bound::Address,
            Full::All => Bound::Connections,
        });
        let whose = self.places.whose();
        let (what, key, callers) = match full {
            Full::Network => ("from its address", whose.of_network, whose.callers),
            Full::All => ("in all", whose.of_all, whose.callers),
        };
        match self.places.tell(Instant::now().into_std()) {
            Some(muted) => warn!(
                peer.address = %remote, muted,
                "too many connections of {callers} {what}; closed the newest ({key})"
            ),
            None => debug!(%remote, "too many connections of {callers} {what}; closed the newest"),
        }
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        remote: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        match opening(&tcp).await {
            Ok(Opening::Tls) => {}
            Ok(Opening::Plaintext) => {
                debug!(%remote, "the caller does not speak TLS; let it use https on this port");
                let sentence = "this port speaks https; begin the URL with https://";
                if let Err(error) = answer_plaintext(tcp, sentence).await {
                    debug!(%remote, %error, "the caller could not be told");
                }
                return None;
            }
            Ok(Opening::Closed) | Err(_) => return None,
        }
        match TlsAcceptor::from(config).accept(tcp).await {
            Ok(tls) => Some(tls),
            Err(error) => {
                debug!(%remote, %error, "the handshake failed; phones that only speak TLS 1.0 need the plain listener");
                None
            }
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, remote: SocketAddr) {
        let used = Mutex::new(Instant::now());
        let service = service_fn(|request| {
            *used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            self.answer(request, remote)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.header_timeout)
            .max_headers(64)
            // Phones send small forms; this also bounds the head of a request.
            .max_buf_size(64 * 1024);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let closed = async {
            self.tasks.cancelled().await;
            // Whoever was here a moment ago may have the next request on the way.
            loop {
                let last = *used.lock().unwrap_or_else(PoisonError::into_inner);
                let until = last + self.moment();
                if until <= Instant::now() {
                    return;
                }
                sleep_until(until).await;
            }
        };
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = closed => {
                connection.as_mut().graceful_shutdown();
                timeout(self.config.drain_grace, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(%remote, %error, "an http connection broke");
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        remote: SocketAddr,
    ) -> Result<Response<Body>, std::convert::Infallible> {
        request.extensions_mut().insert(ConnectInfo(remote));
        let answered = timeout(self.config.max_call, self.router.clone().oneshot(request)).await;
        let mut answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let mut late = Response::new(Body::empty());
                *late.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                late
            }
        };
        if self.config.draining.is_cancelled() {
            // The next request is for another connection, and by then perhaps for another node.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(answer)
    }
}
