//! Connections of those who come to join: under their own protocol, before any judgement of who they are, with nothing
//! behind it but the join service.
//!
//! Who has proved nothing has seconds, and a handful of places that those who have do not need.

use std::{convert::Infallible, fmt, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes};
use tower::ServiceExt as _;
use tracing::debug;

use super::{federation::TrackedTasks, limits::Places};
use crate::{
    tasks::Tasks,
    trust::{
        certificate::{Fingerprint, fingerprint_of},
        joining::{ALPN_JOIN, open_to_joining},
    },
};

/// How long one may stay that has proved nothing.
const UNPROVEN: Duration = Duration::from_secs(5);
/// How long one may stay that has.
const PROVEN: Duration = Duration::from_secs(5 * 60);
/// How many may stay at a time that have.
const MAX_PROVEN: usize = 16;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(60);

/// Whether anybody may come to join now.
type IsOpen = Arc<dyn Fn() -> bool + Send + Sync>;

/// What those find who come to join. Cheap to clone.
#[derive(Clone)]
pub struct JoiningDoor {
    routes: Routes,
    is_open: IsOpen,
    exporter_label: &'static [u8],
    unproven: Places,
    proven: Arc<Semaphore>,
}

impl fmt::Debug for JoiningDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoiningDoor")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// Who comes to join: every handler finds it in the extensions of its request.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// From where.
    pub remote: SocketAddr,
    /// SHA-256 of the certificate that it showed.
    pub leaf: Fingerprint,
    /// SHA-256 of the certificate that it was shown.
    pub shown: Fingerprint,
    /// What TLS exports for this connection.
    pub exporter: [u8; 32],
    proven: CancellationToken,
    turned: CancellationToken,
}

impl Stranger {
    /// It has failed to prove that it was invited, and goes: another attempt takes another connection.
    pub fn is_turned_away(&self) {
        self.turned.cancel();
    }

    /// It has proved that it was invited, and may stay.
    pub fn is_proven(&self) {
        self.proven.cancel();
    }
}

impl JoiningDoor {
    /// A door to `routes`, open whenever `is_open` says so.
    #[must_use]
    pub fn new(
        routes: Routes,
        exporter_label: &'static [u8],
        is_open: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            routes: routes.prepare(),
            is_open: Arc::new(is_open),
            exporter_label,
            unproven: Places::for_joining(),
            proven: Arc::new(Semaphore::new(MAX_PROVEN)),
        }
    }

    /// Whether anybody may come now.
    pub(super) fn is_open(&self) -> bool {
        (self.is_open)()
    }

    /// The listener's settings while it is open.
    pub(super) fn settings(config: &ServerConfig) -> Arc<ServerConfig> {
        Arc::new(open_to_joining(config))
    }

    /// Whether a connection is for this door.
    pub(super) fn is_for(tls: &TlsStream<TcpStream>) -> bool {
        tls.get_ref().1.alpn_protocol() == Some(ALPN_JOIN)
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(
        &self,
        tls: TlsStream<TcpStream>,
        shown: Fingerprint,
        remote: SocketAddr,
        tasks: &Tasks,
    ) {
        let session = tls.get_ref().1;
        let exporter = session.export_keying_material([0; 32], self.exporter_label, None);
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let (Ok(exporter), Some(leaf)) = (exporter, leaf) else {
            debug!(%remote, "who comes to join must show a certificate; closed the connection");
            return;
        };
        let (proven, turned) = (CancellationToken::new(), CancellationToken::new());
        let stranger = Stranger {
            remote,
            leaf: fingerprint_of(leaf),
            shown,
            exporter,
            proven: proven.clone(),
            turned: turned.clone(),
        };
        let Ok(place) = self.unproven.take(remote.ip()) else {
            debug!(%remote, "too many come to join; closed the newest");
            return;
        };
        let service = service_fn(|request| answer(self.routes.clone(), stranger.clone(), request));
        let mut http2 = http2::Builder::new(TrackedTasks(tasks.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(4)
            .max_header_list_size(8 * 1024)
            .max_pending_accept_reset_streams(4)
            .max_local_error_reset_streams(8)
            .max_send_buf_size(64 * 1024);
        let mut connection = pin!(http2.serve_connection(TokioIo::new(tls), service));
        let stay = async {
            if timeout(UNPROVEN, proven.cancelled()).await.is_err() {
                return;
            }
            drop(place);
            let Ok(_place) = self.proven.try_acquire() else {
                return;
            };
            sleep(PROVEN).await;
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                debug!(%remote, ?ended, "a connection of somebody who came to join ended");
                return;
            }
            () = stay => {}
            () = turned.cancelled() => {}
            () = tasks.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        // How it ends is all the same.
        drop(timeout(Duration::from_millis(500), connection).await);
    }
}

async fn answer(
    routes: Routes,
    stranger: Stranger,
    mut request: Request<Incoming>,
) -> Result<http::Response<Body>, Infallible> {
    request.extensions_mut().insert(stranger);
    match timeout(CALL, routes.oneshot(request)).await {
        Ok(answered) => answered,
        Err(_) => Ok(Status::deadline_exceeded("it took too long").into_http()),
    }
}
