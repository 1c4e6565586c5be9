//! The sockets that a node listens on: bound anew, or taken over from the process before.

use std::{net::SocketAddr, os::fd::OwnedFd};

use tokio::net::TcpListener;
use tracing::warn;

use super::{Addresses, Error, handover::Inherited};
use crate::{
    config::Config,
    edge::admin::socket::{self, AdminSocket},
};

/// All sockets of a node, listening.
pub(super) struct Sockets {
    pub(super) federation: TcpListener,
    pub(super) phone: TcpListener,
    pub(super) phone_plain: Option<TcpListener>,
    pub(super) admin: AdminSocket,
    /// For figures and health; none where that is off, or the port is taken for now.
    pub(super) metrics: Option<TcpListener>,
}

impl Sockets {
    /// Those that were inherited, where they listen at what is configured now; the others are bound.
    pub(super) async fn open(config: &Config, inherited: Inherited) -> Result<Self, Error> {
        let admin = socket::Config {
            path: config.admin.socket.clone(),
            group: socket::Config::DEFAULT_GROUP.to_owned(),
        };
        Ok(Self {
            federation: listen("federation", config.federation.listen, inherited.federation)
                .await?,
            phone: listen("phone", config.phone.listen, inherited.phone).await?,
            phone_plain: match config.phone.plain_listen {
                Some(address) => Some(listen("plain phone", address, inherited.phone_plain).await?),
                None => None,
            },
            admin: match inherited.admin {
                Some((path, listener)) if path == admin.path && path.exists() => {
                    AdminSocket::adopt(&path, listener)?
                }
                // Nobody reaches a socket whose file is gone.
                _ => AdminSocket::bind(&admin).await?,
            },
            metrics: match config.metrics.listen {
                Some(address) => listen("metrics", address, inherited.metrics)
                    .await
                    .inspect_err(|error| {
                        warn!(
                            cause = crate::telemetry::error_chain(error),
                            "figures and health can't be served (metrics.listen): the port is tried again every second"
                        );
                    })
                    .ok(),
                None => None,
            },
        })
    }

    /// Where they listen.
    pub(super) fn addresses(&self, config: &Config) -> Result<Addresses, Error> {
        let local = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|_| Error::Broken("reading a socket's address"))
        };
        Ok(Addresses {
            federation: local(&self.federation)?,
            phone: local(&self.phone)?,
            phone_plain: self.phone_plain.as_ref().map(local).transpose()?,
            admin: config.admin.socket.clone(),
            metrics: self.metrics.as_ref().map(local).transpose()?,
        })
    }
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
    inherited: Option<OwnedFd>,
) -> Result<TcpListener, Error> {
    let failed = |source| Error::Bind {
        what,
        address,
        source,
    };
    if let Some(socket) = inherited {
        let listener = std::net::TcpListener::from(socket);
        if listener.local_addr().map_err(failed)? == address {
            listener.set_nonblocking(true).map_err(failed)?;
            return TcpListener::from_std(listener).map_err(failed);
        }
    }
    TcpListener::bind(address).await.map_err(failed)
}
