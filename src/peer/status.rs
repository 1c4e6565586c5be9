//! What an operator sees of one peer: both directions, each with the age of its last proof.

use std::time::{Duration, Instant};

use crate::{
    domain::{ids::ClusterId, rejection::Rejection, version::Version},
    peer::{
        inbound::{Inbound, InboundRecord},
        link::{Link, LinkState},
    },
};

/// One peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Which peer.
    pub cluster: ClusterId,
    /// Whether the operator has it enabled; a disabled peer is not dialled.
    pub enabled: bool,
    /// From us to the peer.
    pub outbound: LinkState,
    /// How long ago the peer last proved to us that it lives; none while the link isn't up.
    pub proof_age: Option<Duration>,
    /// The version in use; none while the link isn't up.
    pub version: Option<Version>,
    /// The peer's node that we are, or were last, linked to.
    pub node: Option<String>,
    /// That node's software.
    pub software: Option<String>,
    /// The configured address that we are, or were last, linked to.
    pub address: Option<String>,
    /// Fingerprint of the certificate that the peer shows on the link, or showed last.
    pub certificate: Option<String>,
    /// Fingerprint of our certificate on the link, as shown last.
    pub shown: Option<String>,
    /// How long `outbound` has been what it is.
    pub since: Duration,
    /// Why the link isn't up, with what mends it.
    pub last_error: Option<String>,
    /// The reason at the door, when trust is why the link isn't up.
    pub rejection: Option<Rejection>,
    /// The peer's wall clock minus ours, as told last.
    pub clock_offset_ms: Option<i64>,
    /// From the peer to us.
    pub inbound: Inbound,
}

impl LinkStatus {
    /// Puts together what the records hold at `now`.
    #[must_use]
    pub fn of(
        cluster: &ClusterId,
        enabled: bool,
        link: &Link,
        inbound: &InboundRecord,
        now: Instant,
    ) -> Self {
        let facts = link.facts();
        let up = link.state() == LinkState::Up;
        Self {
            cluster: cluster.clone(),
            enabled,
            outbound: link.state(),
            proof_age: link.proof_age(now),
            version: facts.filter(|_| up).map(|f| f.version),
            node: facts.map(|f| f.node.clone()),
            software: facts.map(|f| f.software.clone()),
            address: facts.map(|f| f.address.clone()),
            certificate: facts.and_then(|f| f.certificate.clone()),
            shown: facts.and_then(|f| f.shown.clone()),
            since: now.saturating_duration_since(link.since()),
            last_error: link.failure().map(|f| f.text.clone()),
            rejection: link.failure().and_then(|f| f.rejection),
            clock_offset_ms: facts.map(|f| f.clock_offset_ms),
            inbound: inbound.view(now),
        }
    }
}
