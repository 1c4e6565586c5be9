//! The listener over real sockets and real TLS, with a service behind it that says whom it sees.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{DnsName, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    clock::Clock,
    domain::{ids::ClusterId, rejection::Rejection},
    tasks::Tasks,
    trust::{
        TrustStore,
        bundle::Bundle,
        fixtures::{Authority, Leaf, Spec, anchored, bundle, cluster, pinned},
        judge::Verdict,
        refusals::Refused,
        verifier::VerdictSlot,
    },
    wire::{pb, status::rejection_from_status},
};

mod allowance;
mod bounds;
mod identity;
mod phones;
mod rig;

use rig::*;
