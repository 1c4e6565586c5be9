//! Taking connections off a socket, and finding out whether they speak TLS at all.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing::{debug, warn};

use super::{
    limits::{Place, Places},
    turned::{Bound, TurnedAway},
};
use crate::tasks::Tasks;

/// A connection off the socket, with its place among those that are not yet past their handshake.
pub(super) struct Accepted {
    pub(super) tcp: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) pending: Place,
}

/// Accepts until the node shuts down. It never waits for a connection that was accepted: `begin` must only
/// start a task.
pub(super) async fn accept_all(
    listener: &TcpListener,
    pending: &Places,
    turned: &TurnedAway,
    tasks: &Tasks,
    begin: impl Fn(Accepted),
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, remote)) => match pending.take(remote.ip()) {
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
                    turned.add(Bound::Handshakes);
                    debug!(%remote, "too many connections are not past their handshake; closed the newest");
                }
            },
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "can't accept connections for the moment");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
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

/// Tells a caller that speaks HTTP/1.1 without TLS what this port speaks; whoever speaks anything else learns it
/// from the end of the connection. It takes as long as the caller makes it: the deadline is for whoever awaits it to set.
pub(super) async fn answer_plaintext(mut tcp: TcpStream, sentence: &str) -> io::Result<()> {
    /// More than any request that deserves an answer.
    const MOST: u64 = 64 * 1024;
    let mut head = Vec::new();
    while could_be_http(&head) {
        if is_http(&head) {
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{sentence}\n",
                sentence.len() + 1
            );
            tcp.write_all(answer.as_bytes()).await?;
            tcp.shutdown().await?;
            // A connection closed over unread bytes is reset, and the answer may be lost with it.
            tokio::io::copy(&mut tcp.take(MOST), &mut tokio::io::sink()).await?;
            return Ok(());
        }
        if tcp.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// How a request of HTTP/1.1 may begin. The preface of HTTP/2 is none of them.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
];

fn is_http(head: &[u8]) -> bool {
    METHODS.iter().any(|method| head.starts_with(method))
}

fn could_be_http(head: &[u8]) -> bool {
    is_http(head) || METHODS.iter().any(|method| method.starts_with(head))
}

/// Running out of file descriptors passes only when connections end.
pub(in crate::edge) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// Whether it was that one connection that failed, and the next may be accepted at once.
pub(in crate::edge) fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
