//! Dials one socket: a transport (TCP, TLS with the current trust snapshot), one HTTP/2 connection.
//!
//! The channel that comes out lives on exactly that one connection: when it ends, the channel is of no use,
//! and the link's own task decides when and how to dial again.

use std::{
    error::Error as StdError,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    domain::{ids::ClusterId, rejection::Rejection},
    peer::{
        Error,
        transport::{Ask, Io, Transport, Wire},
    },
    trust::{
        Snapshot, TrustStore,
        certificate::{fingerprint_of, fingerprint_text},
        in_use::{Guard, Opened, Use},
        judge::Verdict,
        refusals::Side,
        tls::{ALPN_H2, rejection_of, rejection_of_alert},
    },
};

/// What dialling takes.
pub(super) struct Dialer<'a> {
    pub(super) transport: &'a dyn Transport,
    pub(super) cluster: &'a ClusterId,
    pub(super) trust: &'a TrustStore,
    pub(super) snapshot: &'a Snapshot,
    pub(super) connect_timeout: Duration,
    pub(super) handshake_timeout: Duration,
}

/// One live connection.
pub(super) struct Connection {
    /// Ends with the connection; never dials.
    pub(super) channel: Channel,
    /// What the peer showed, to be judged again when trust changes.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Ends the connection under every call that still uses it.
    pub(super) cut: CancellationToken,
}

/// The connection of a channel is gone; nothing that is given to the channel is sent any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection to the peer has ended")]
pub(super) struct Spent;

/// Headers of an answer: a status with its details at most.
const MAX_HEADER_LIST_BYTES: u32 = 32 * 1024;

impl Dialer<'_> {
    /// Dials `socket`, which is where `address` (`host:port`) leads.
    pub(super) async fn dial(
        &self,
        address: &str,
        socket: SocketAddr,
    ) -> Result<Connection, Error> {
        let ask = Ask {
            cluster: self.cluster,
            address,
            socket,
            trust: self.trust,
            snapshot: self.snapshot,
            connect_timeout: self.connect_timeout,
            handshake_timeout: self.handshake_timeout,
        };
        let Wire { stream, chain } = self.transport.dial(ask).await?;
        if let Some(leaf) = chain.first() {
            let shown = fingerprint_text(&fingerprint_of(leaf));
            self.trust.refusals().answerer_accepted(&shown);
        }
        self.trust.note_shown(self.cluster, &chain);
        let cut = CancellationToken::new();
        let in_use = self.trust.in_use().enter(Use {
            opened: Opened::ByUs,
            cluster: self.cluster.clone(),
            address: address.to_owned(),
            own: self
                .snapshot
                .client_identity_for(self.cluster)
                .map(|own| own.leaf().fingerprint()),
            shown: chain.iter().map(|der| fingerprint_of(der)).collect(),
        });
        let channel = self.channel(address, stream, &cut, in_use).await?;
        Ok(Connection {
            channel,
            chain,
            cut,
        })
    }

    async fn channel(
        &self,
        address: &str,
        stream: Box<dyn Io>,
        cut: &CancellationToken,
        in_use: Guard,
    ) -> Result<Channel, Error> {
        let stream = Cuttable {
            _in_use: in_use,
            stream,
            cut: Box::pin(cut.clone().cancelled_owned()),
        };
        let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            std::future::ready(stream.ok_or(Spent))
        });
        // With an https URI tonic would insist on TLS of its own; the origin keeps `:scheme` right.
        let endpoint = Endpoint::from_static("http://peer")
            .origin(Uri::from_static("https://peer"))
            .http2_max_header_list_size(MAX_HEADER_LIST_BYTES);
        let waited = self.handshake_timeout;
        timeout(waited, endpoint.connect_with_connector(connector))
            .await
            .map_err(|_| silent(address, "HTTP/2", waited))?
            .map_err(|source| unreachable(address, io::Error::other(source)))
    }
}

/// Links over TCP and TLS, as the daemon has them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpTls;

impl Transport for TcpTls {
    fn dial<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Wire, Error>> {
        Box::pin(async move {
            let tls = Self::handshake(ask, Self::connect(ask).await?).await?;
            let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
            Ok(Wire {
                stream: Box::new(tls),
                chain,
            })
        })
    }
}

impl TcpTls {
    async fn connect(ask: Ask<'_>) -> Result<TcpStream, Error> {
        let (address, waited) = (ask.address, ask.connect_timeout);
        let tcp = timeout(waited, TcpStream::connect(ask.socket))
            .await
            .map_err(|_| silent(address, "the connection", waited))?
            .map_err(|source| unreachable(address, source))?;
        // Small messages both ways: waiting to fill packets only adds delay.
        tcp.set_nodelay(true)
            .map_err(|source| unreachable(address, source))?;
        Ok(tcp)
    }

    async fn handshake(ask: Ask<'_>, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let Ask { address, trust, .. } = ask;
        let verdict = Arc::new(Mutex::new(None));
        let config = ask
            .snapshot
            .client_config(ask.cluster, Arc::clone(&verdict));
        let config = config.map_err(|_| Error::NoIdentity)?;
        let name = server_name(address).ok_or_else(|| Error::Unresolved {
            address: address.to_owned(),
            source: None,
        })?;
        let remote = tcp.peer_addr().ok();
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let waited = ask.handshake_timeout;
        let outcome = timeout(waited, handshake)
            .await
            .map_err(|_| silent(address, "the TLS handshake", waited))?;
        let verdict = verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let (Some(verdict), Some(remote), Err(_)) = (&verdict, remote, &outcome) {
            let now = trust.clock().now();
            let refusals = trust.refusals();
            refusals.record(Side::Answerer, verdict, remote, now);
        }
        let stream = outcome.map_err(|source| refused(address, verdict, source))?;
        if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
            Ok(stream)
        } else {
            Err(Error::Tls {
                address: address.to_owned(),
                rejection: None,
                hint: "; is this the peer's federation listener?",
                source: io::Error::other("the other side does not offer HTTP/2"),
            })
        }
    }
}

/// The host of `host:port`, as TLS wants it.
fn server_name(address: &str) -> Option<ServerName<'static>> {
    let (host, _port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).ok()
}

fn silent(address: &str, step: &'static str, waited: Duration) -> Error {
    Error::Silent {
        address: address.to_owned(),
        step,
        waited,
    }
}

fn unreachable(address: &str, source: io::Error) -> Error {
    Error::Unreachable {
        address: address.to_owned(),
        source,
    }
}

fn refused(address: &str, verdict: Option<Verdict>, source: io::Error) -> Error {
    if let Some(error) = verdict.and_then(|verdict| untrusted(address, verdict)) {
        return error;
    }
    let address = address.to_owned();
    let rejection = rejection_of(&source);
    Error::Tls {
        address,
        rejection,
        hint: hint(rejection),
        source,
    }
}

/// What the operator is told of a verdict against what the peer shows; none when it is for it.
pub(crate) fn untrusted(address: &str, verdict: Verdict) -> Option<Error> {
    let Verdict::Rejected {
        rejection,
        certificate,
        expectation,
        mend,
    } = verdict
    else {
        return None;
    };
    let shown = certificate.map_or_else(
        || "no certificate that can be read".to_owned(),
        // Where the dates matter the expectation has them.
        |c| format!("{}, SHA-256 {}", c.subject(), c.fingerprint_text()),
    );
    Some(Error::WeRefuse {
        address: address.to_owned(),
        rejection,
        detail: format!(
            "{}; it shows {shown}; expected: {expectation}; mend with: {mend}",
            rejection.meaning()
        ),
    })
}

/// What mends a handshake that failed for this reason; a refusal of our certificate is not among them, since
/// in TLS 1.3 it shows only after the handshake.
fn hint(rejection: Option<Rejection>) -> &'static str {
    match rejection {
        Some(Rejection::Plaintext) => {
            "; the other side does not speak TLS: is this the peer's federation listener?"
        }
        Some(Rejection::TlsVersion) => "; the other side does not speak TLS 1.3",
        _ => "",
    }
}

/// The reason in a TLS alert that ended a connection after its handshake, anywhere in a chain of errors.
pub(super) fn alert_rejection(error: &(dyn StdError + 'static)) -> Option<Rejection> {
    let mut next = Some(error);
    while let Some(error) = next {
        let alert = error.downcast_ref::<io::Error>().and_then(|io| {
            match io.get_ref()?.downcast_ref::<rustls::Error>()? {
                rustls::Error::AlertReceived(alert) => Some(alert),
                _ => None,
            }
        });
        if let Some(alert) = alert {
            return rejection_of_alert(*alert);
        }
        next = error.source();
    }
    None
}

/// A stream that can be ended from elsewhere.
struct Cuttable {
    /// Lists the connection for as long as there is one.
    _in_use: Guard,
    stream: Box<dyn Io>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Cuttable {
    fn is_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
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
