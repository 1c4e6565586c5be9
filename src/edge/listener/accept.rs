//! Taking connections off a socket, and finding out whether they speak TLS at all.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

use crate::tasks::Tasks;

/// A connection off the socket, with its place among those that are not yet past their handshake.
pub(super) struct Accepted {
    pub(super) tcp: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) pending: OwnedSemaphorePermit,
}

/// Accepts until the node shuts down. It never waits for a connection that was accepted: `begin` must only
/// start a task.
pub(super) async fn accept_all(
    listener: &TcpListener,
    pending: &Arc<Semaphore>,
    tasks: &Tasks,
    begin: impl Fn(Accepted),
) {
    /// Running out of file descriptors passes only when connections end.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        let accepted = tokio::select! {
            () = tasks.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, remote)) => match Arc::clone(pending).try_acquire_owned() {
                Ok(pending) => {
                    // Small answers must not wait for the next acknowledgement.
                    if let Err(error) = tcp.set_nodelay(true) {
                        debug!(%remote, %error, "can't set TCP_NODELAY");
                    }
                    begin(Accepted {
                        tcp,
                        remote,
                        pending,
                    });
                }
                Err(_) => {
                    debug!(%remote, "too many connections are not past their handshake; closed the newest");
                }
            },
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "can't accept connections for the moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It was closed without a byte, as port checks do.
    Closed,
    /// Not with a TLS record.
    Plaintext,
    /// With a TLS handshake record.
    Tls,
}

/// Looks at the first byte without taking it.
pub(super) async fn opening(tcp: &TcpStream) -> io::Result<Opening> {
    /// Content type of a TLS record that carries a handshake message.
    const HANDSHAKE: u8 = 0x16;
    let mut first = [0u8; 1];
    Ok(match tcp.peek(&mut first).await? {
        0 => Opening::Closed,
        _ if first == [HANDSHAKE] => Opening::Tls,
        _ => Opening::Plaintext,
    })
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
