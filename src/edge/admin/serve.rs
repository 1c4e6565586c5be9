//! Serves the admin service on its socket: a bounded number of connections, each with its caller's user id.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::Stream;
use tokio_util::sync::PollSemaphore;
use tonic::transport::{
    Server,
    server::{Connected, UdsConnectInfo},
};
use tracing::{info, warn};

use crate::{
    edge::admin::{service::AdminEdge, socket::AdminSocket},
    tasks::Tasks,
    wire::admin::admin_service_server::AdminServiceServer,
};

/// Serves until the node shuts down; answers that are under way are finished. The socket's file goes away
/// with the task.
pub fn serve(socket: AdminSocket, edge: AdminEdge, tasks: &Tasks) {
    let path = socket.path().to_owned();
    let (listener, file) = socket.into_parts();
    let service = AdminServiceServer::new(edge)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    let ended = tasks.token();
    tasks.spawn("admin socket", async move {
        let _file = file;
        info!(path = %path.display(), "the admin socket is open");
        let served = Server::builder()
            .concurrency_limit_per_connection(MAX_CALLS_PER_CONNECTION)
            .max_concurrent_streams(Some(MAX_STREAMS_PER_CONNECTION))
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
            .add_service(service)
            .serve_with_incoming_shutdown(Connections::new(listener), ended.cancelled_owned())
            .await;
        if let Err(cause) = served {
            warn!(%cause, "the admin socket ended");
        }
    });
}

/// Accepts while fewer than [`MAX_CONNECTIONS`] are open; the others wait in the system's queue.
struct Connections {
    listener: UnixListener,
    free: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
}

impl Connections {
    fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            free: PollSemaphore::new(Arc::new(Semaphore::new(MAX_CONNECTIONS))),
            permit: None,
        }
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let permit = match self.permit.take() {
            Some(permit) => permit,
            None => match ready!(self.free.poll_acquire(cx)) {
                Some(permit) => permit,
                None => return Poll::Ready(None),
            },
        };
        match self.listener.poll_accept(cx) {
            Poll::Ready(Ok((stream, _))) => Poll::Ready(Some(Ok(Connection {
                stream,
                _permit: permit,
            }))),
            Poll::Ready(Err(cause)) => {
                self.permit = Some(permit);
                Poll::Ready(Some(Err(cause)))
            }
            Poll::Pending => {
                self.permit = Some(permit);
                Poll::Pending
            }
        }
    }
}

/// A connection that gives its place back when it ends.
struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The files of one `apply`, and room for the message around them.
const MAX_REQUEST_BYTES: usize = MAX_APPLY_BYTES + 64 * 1024;

/// What the files of one `apply` may hold together. It bounds what one caller can make a node hold.
pub(super) const MAX_APPLY_BYTES: usize = 4 * 1024 * 1024;

/// A full page of the largest records stays far below.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Operators and their scripts; each connection costs memory and a file descriptor.
const MAX_CONNECTIONS: usize = 64;

/// One command makes one call at a time.
const MAX_CALLS_PER_CONNECTION: usize = 4;

/// Above the calls that run at once, so that a caller waits rather than being turned away.
const MAX_STREAMS_PER_CONNECTION: u32 = 16;

/// A caller that is stopped gives its place back after twice this.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Our own client sends a few hundred.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
