//! Why something is trusted or not: what the admin service asks of a running node.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;

use crate::{
    clock::{self, Clock},
    domain::ids::ClusterId,
    edge::admin::{
        error::Error,
        operations::{Explain, Explained},
    },
    peer::{
        LinkStatus, Peers,
        probe::{Found, Prober},
        theirs::Story,
    },
    trust::{
        TrustStore,
        bundle::Direction,
        certificate::fingerprint_of,
        explain::{Case, Part, Step},
    },
};

/// What explaining takes.
#[derive(Debug)]
pub(super) struct Explainer<'a> {
    pub(super) clock: &'a Clock,
    pub(super) trust: &'a TrustStore,
    pub(super) peers: &'a Peers,
    /// Fingerprints of what this node shows.
    pub(super) own: Vec<String>,
}

impl Explainer<'_> {
    /// The parts of the explanation.
    pub(super) async fn explain(&self, asked: &Explain) -> Result<Vec<Part>, Error> {
        if let Some(wanted) = &asked.wanted {
            self.find(wanted)?;
        }
        match &asked.what {
            Explained::Address(address) => {
                let wanted = asked.wanted.as_ref();
                Ok(vec![self.prober().look(address, wanted).await.part])
            }
            Explained::Chain(chain) => Ok(self.chain(chain, asked.wanted.as_ref())),
            Explained::Peer(cluster) => self.peer(cluster).await,
        }
    }

    async fn peer(&self, cluster: &ClusterId) -> Result<Vec<Part>, Error> {
        let link = self.find(cluster)?;
        let prober = self.prober();
        let addresses = link.nodes.iter().take(MAX_ADDRESSES);
        let looks = addresses.filter_map(|node| node.address.parse().ok()).map(
            |address: crate::domain::address::HostPort| {
                let prober = &prober;
                async move { prober.look(&address, Some(cluster)).await }
            },
        );
        let found: Vec<Found> = join_all(looks).await;
        let sockets: Vec<SocketAddr> = found.iter().flat_map(|f| f.sockets.clone()).collect();
        let mut parts: Vec<_> = found.into_iter().map(|found| found.part).collect();
        if parts.is_empty() {
            let mut part = Part::new(format!("to {cluster}"));
            let (text, mend) = if link.enabled {
                let mend = format!("emccd cluster set {cluster} --address HOST:PORT");
                ("no address is set for it", mend)
            } else {
                let mend = format!("emccd cluster set {cluster} --enabled true");
                ("its record is disabled, so that it is not dialled", mend)
            };
            part.steps.push(Step::bad("address", None, text));
            part.mend = Some(mend);
            parts.push(part);
        }
        // Of several nodes one may be cut off for good: then that is what there is to tell.
        self.peers
            .wait_for_word(cluster, clock::instant() + WORD)
            .await;
        let snapshot = self.trust.snapshot();
        let story = Story {
            link: &self.find(cluster)?,
            refusals: &self.trust.refusals().list(),
            bundle: snapshot.bundles().iter().find(|b| b.cluster == *cluster),
            sockets: &sockets,
            own: &self.peers.config().cluster_id,
        };
        parts.push(story.explain());
        Ok(parts)
    }

    /// A chain in both roles.
    fn chain(&self, chain: &[CertificateDer<'static>], wanted: Option<&ClusterId>) -> Vec<Part> {
        let snapshot = self.trust.snapshot();
        let is_own = chain.first().is_some_and(|leaf| {
            let print = crate::trust::certificate::fingerprint_text(&fingerprint_of(leaf));
            self.own.contains(&print)
        });
        let roles = [
            (Direction::Client, "shown by a caller of ours"),
            (Direction::Server, "shown where we call"),
        ];
        let parts = roles.map(|(direction, title)| {
            let mut part = Part::new(title);
            let own = "it is this node's own certificate: others trust it, and this node needs not";
            part.steps.extend(is_own.then(|| Step::noted("whose", own)));
            let case = Case {
                bundles: snapshot.bundles(),
                chain,
                direction,
                wanted,
                now: self.trust.clock().now(),
            };
            part.judged(case.explain());
            part
        });
        parts.into()
    }

    fn prober(&self) -> Prober {
        Prober {
            config: self.peers.config().clone(),
            trust: self.trust.clone(),
            clock: self.clock.clone(),
        }
    }

    fn find(&self, cluster: &ClusterId) -> Result<LinkStatus, Error> {
        let all = self.peers.status();
        all.into_iter()
            .find(|link| link.cluster == *cluster)
            .ok_or_else(|| Error::missing(format!("peer {cluster}"), "emccd cluster list"))
    }
}

/// How long the word of a peer that has just come back may be on its way: it speaks at once when its link changes.
const WORD: Duration = Duration::from_secs(2);

/// As many as a record may name.
const MAX_ADDRESSES: usize = 16;
