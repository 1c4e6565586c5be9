//! How simulated nodes reach each other.

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{
    super::net::{Chain, Pipe},
    *,
};
use crate::{
    edge::listener::Line,
    peer::{
        transport::{Ask, Transport, Wire},
        untrusted,
    },
};

/// Links over the simulated network.
pub(super) struct SimTransport {
    pub(super) net: Net,
    pub(super) node: Node,
}

impl Transport for SimTransport {
    fn dial<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Wire, peer::Error>> {
        Box::pin(async move {
            let shown: Chain = ask
                .snapshot
                .client_identity_for(ask.cluster)
                .map(stage::ders)
                .unwrap_or_default();
            let waited = ask.connect_timeout + ask.handshake_timeout;
            let address = ask.address.to_owned();
            let (pipe, chain) =
                match timeout(waited, self.net.dial(self.node.host(), shown, ask.socket)).await {
                    Ok(Ok(connected)) => connected,
                    Ok(Err(source)) => return Err(peer::Error::Unreachable { address, source }),
                    Err(_) => {
                        return Err(peer::Error::Silent {
                            address,
                            step: "the connection",
                            waited,
                        });
                    }
                };
            let verdict = ask.snapshot.identify_dialled(ask.cluster, &chain);
            if let Some(error) = untrusted(ask.address, verdict) {
                return Err(error);
            }
            Ok(Wire {
                stream: Box::new(pipe),
                chain,
            })
        })
    }
}

impl Line for Pipe {
    fn hung_up(&self) -> impl Future<Output = ()> + Send {
        // A caller that waits for its turn gives up by itself.
        std::future::pending()
    }
}
