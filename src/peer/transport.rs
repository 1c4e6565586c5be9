//! What carries a link: bytes both ways, and the certificates that whoever answers has shown.
//!
//! The daemon's links are TCP and TLS ([`TcpTls`](super::connector::TcpTls)). Whether what was shown is trusted is for
//! each transport to see before it gives the stream away; the simulation's has no handshake that would do it.

use std::{fmt, net::SocketAddr, time::Duration};

use futures_util::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    domain::ids::ClusterId,
    peer::Error,
    trust::{Snapshot, TrustStore},
};

/// Opens streams to nodes of peers.
pub trait Transport: Send + Sync {
    /// One stream to where `ask` says, from somebody who is trusted for that cluster.
    fn dial<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Wire, Error>>;
}

/// Whom a stream is wanted to.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The peer that is to answer.
    pub cluster: &'a ClusterId,
    /// What the operator calls it: `host:port`.
    pub address: &'a str,
    /// Where that leads.
    pub socket: SocketAddr,
    /// Where refusals are told.
    pub trust: &'a TrustStore,
    /// What is trusted, and what we show.
    pub snapshot: &'a Snapshot,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// And the handshake on it.
    pub handshake_timeout: Duration,
}

/// An open stream.
pub struct Wire {
    /// Carries HTTP/2.
    pub stream: Box<dyn Io>,
    /// What the peer showed, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("cluster", &self.cluster)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}
