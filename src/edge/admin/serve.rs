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
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::PollSemaphore;
use tonic::transport::{
    Server,
    server::{Connected, UdsConnectInfo},
};
use tracing::{info, warn};

use crate::{
    edge::{
        admin::{service::AdminEdge, socket::AdminSocket},
        listener::{PAUSE_AFTER_ERROR, concerns_one_connection},
    },
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

/// Accepts while fewer than [`MAX_CONNECTIONS`] are open; the others wait in the system's queue. It tells of no
/// error: whoever reads this would ask again at once, for as long as the error lasts.
struct Connections<L> {
    listener: L,
    free: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// What connections come from.
trait Accept {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>>;
}

impl Accept for UnixListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.poll_accept(cx)
            .map_ok(|(stream, _address): (UnixStream, _)| stream)
    }
}

impl<L> Connections<L> {
    fn new(listener: L) -> Self {
        Self {
            listener,
            free: PollSemaphore::new(Arc::new(Semaphore::new(MAX_CONNECTIONS))),
            permit: None,
            pause: None,
        }
    }
}

impl<L: Accept + Unpin> Stream for Connections<L> {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let permit = match self.permit.take() {
            Some(permit) => permit,
            None => match ready!(self.free.poll_acquire(cx)) {
                Some(permit) => permit,
                None => return Poll::Ready(None),
            },
        };
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    self.permit = Some(permit);
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Ready(Ok(stream)) => {
                    return Poll::Ready(Some(Ok(Connection {
                        stream,
                        _permit: permit,
                    })));
                }
                Poll::Ready(Err(error)) if concerns_one_connection(&error) => {}
                Poll::Ready(Err(error)) => {
                    warn!(%error, "can't accept commands for the moment");
                    self.pause = Some(Box::pin(sleep(PAUSE_AFTER_ERROR)));
                }
                Poll::Pending => {
                    self.permit = Some(permit);
                    return Poll::Pending;
                }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio_stream::StreamExt as _;

    use super::*;

    /// Has no file descriptor left for the first two, and counts.
    #[derive(Default)]
    struct Exhausted(AtomicUsize);

    impl Accept for Exhausted {
        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
            const EMFILE: i32 = 24;
            let result = match self.0.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Err(io::Error::from_raw_os_error(EMFILE)),
                _ => UnixStream::pair().map(|(near, _)| near),
            };
            Poll::Ready(result)
        }
    }

    #[tokio::test]
    async fn running_out_of_file_descriptors_is_a_pause_and_no_spin() {
        let began = tokio::time::Instant::now();
        let mut connections = Connections::new(Exhausted::default());
        let first = tokio::time::timeout(Duration::from_secs(20), connections.next()).await;
        assert!(matches!(first, Ok(Some(Ok(_)))));
        assert!(began.elapsed() >= PAUSE_AFTER_ERROR * 2);
        assert_eq!(connections.listener.0.load(Ordering::SeqCst), 3);
    }
}
