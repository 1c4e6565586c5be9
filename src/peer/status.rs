//! What an operator sees of one peer: both directions, each with the age of its last proof, and each of its nodes.

use std::time::{Duration, Instant};

use crate::{
    domain::{accepted::AcceptedList, ids::ClusterId, rejection::Rejection, version::Version},
    peer::{
        balance::Failing,
        inbound::Inbound,
        link::{Failure, Link, LinkState},
    },
};

/// One peer at one moment. What is told of "the link" is told of the best of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Which peer.
    pub cluster: ClusterId,
    /// Whether the operator has it enabled; a disabled peer is not dialled.
    pub enabled: bool,
    /// From us to the peer: the best of its nodes.
    pub outbound: LinkState,
    /// How long ago the peer last proved to us that it lives; none while no link is up.
    pub proof_age: Option<Duration>,
    /// The version in use; none while no link is up.
    pub version: Option<Version>,
    /// The node that we are, or were last, linked to.
    pub node: Option<String>,
    /// That node's software.
    pub software: Option<String>,
    /// The address that led there.
    pub address: Option<String>,
    /// Fingerprint of the certificate that the peer shows on the link, or showed last.
    pub certificate: Option<String>,
    /// Fingerprint of our certificate on the link, as shown last.
    pub shown: Option<String>,
    /// How long `outbound` has been what it is, at least.
    pub since: Duration,
    /// Why no link is up, with what mends it.
    pub last_error: Option<String>,
    /// The reason at the door, when trust is why no link is up.
    pub rejection: Option<Rejection>,
    /// The peer's wall clock minus ours, as told last.
    pub clock_offset_ms: Option<i64>,
    /// From the peer to us.
    pub inbound: Inbound,
    /// One for each address, the operator's first.
    pub nodes: Vec<NodeStatus>,
}

/// The link to one address of a peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The address, `host:port`.
    pub address: String,
    /// Whether the peer told it; else the operator gave it.
    pub learned: bool,
    /// From us to what is there.
    pub state: LinkState,
    /// Whether the node has said that it shuts down: it gets no more calls while there is another.
    pub draining: bool,
    /// For how long calls have waited there longer than they should; none once one is answered.
    pub overdue_for: Option<Duration>,
    /// The calls that it has failed of late by an error of its own.
    pub failing: Option<Failing>,
    /// How long ago it last proved that it lives; none while the link isn't up.
    pub proof_age: Option<Duration>,
    /// The version in use; none while the link isn't up.
    pub version: Option<Version>,
    /// The node that is there, or was last.
    pub node: Option<String>,
    /// Which start of that node; two addresses with the same node and instance lead to one node.
    pub instance: Option<String>,
    /// Its software.
    pub software: Option<String>,
    /// Fingerprint of the certificate that it shows, or showed last.
    pub certificate: Option<String>,
    /// Fingerprint of our certificate on this link, as shown last.
    pub shown: Option<String>,
    /// How long `state` has been what it is.
    pub since: Duration,
    /// Why the link isn't up, with what mends it.
    pub last_error: Option<String>,
    /// The reason at the door, when trust is why it isn't up.
    pub rejection: Option<Rejection>,
    /// Whether that is the peer's word about our certificate, over a connection whose other end we have accepted as the
    /// peer's; else it is ours about the peer's.
    pub by_peer: bool,
    /// Its wall clock minus ours, as told last.
    pub clock_offset_ms: Option<i64>,
    /// What its cluster accepts from us, as it told last.
    pub accepted: Option<AcceptedList>,
}

/// The state of a peer whose links have these; none when it has no link.
pub(super) fn best_state(states: impl Iterator<Item = LinkState>) -> Option<LinkState> {
    states.min_by_key(|state| rank(*state))
}

/// A peer that says "no version in common" on one node speaks for all; one that is not known to be down on all of its
/// addresses is not called connecting because of the last of them.
const fn rank(state: LinkState) -> u8 {
    match state {
        LinkState::Up => 0,
        LinkState::Incompatible => 1,
        LinkState::Down => 2,
        LinkState::Connecting => 3,
    }
}

impl NodeStatus {
    /// Why the link isn't up, or else how the node meets calls where it fails them; none when all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let failing = self.failing.map(|Failing { code, calls, of }| {
            let number = code.number();
            format!(
                "calls failed there, {calls} of the last {of}, the last one with EM code {number}"
            )
        });
        let overdue = self.overdue_for.map(|time| {
            let seconds = time.as_secs();
            format!("calls have waited there for longer than they should for {seconds} s")
        });
        self.last_error.clone().or(failing).or(overdue)
    }

    /// Puts together what is known at `now`.
    #[must_use]
    pub fn of(address: &str, link: &Link, draining: bool, now: Instant) -> Self {
        let facts = link.facts();
        let up = link.state() == LinkState::Up;
        Self {
            address: address.to_owned(),
            learned: false,
            state: link.state(),
            draining: draining && up,
            overdue_for: None,
            failing: None,
            proof_age: link.proof_age(now),
            version: facts.filter(|_| up).map(|f| f.version),
            node: facts.map(|f| f.node.clone()),
            instance: facts.map(|f| f.instance.clone()),
            software: facts.map(|f| f.software.clone()),
            certificate: facts.and_then(|f| f.certificate.clone()),
            shown: facts.and_then(|f| f.shown.clone()),
            since: now.saturating_duration_since(link.since()),
            last_error: link.failure().map(|f| f.text.clone()),
            rejection: link.failure().and_then(|f| f.rejection),
            by_peer: link.failure().is_some_and(|f| f.by_peer),
            clock_offset_ms: facts.map(|f| f.clock_offset_ms),
            accepted: None,
        }
    }
}

impl LinkStatus {
    /// What the peer accepts from us, as the node told that knows the newest; of those that are up, if any has told.
    #[must_use]
    pub fn accepted(&self) -> Option<&AcceptedList> {
        let told = |node: &&NodeStatus| node.accepted.is_some();
        let newest = self.nodes.iter().filter(told).max_by_key(|node| {
            let sequence = node.accepted.as_ref().map(|list| list.sequence);
            (node.state == LinkState::Up, sequence)
        });
        newest.and_then(|node| node.accepted.as_ref())
    }

    /// Nodes that are up and accept something else from us than the one that knows the newest.
    #[must_use]
    pub fn accepts_otherwise(&self) -> Vec<&NodeStatus> {
        let newest = self.accepted().map(|list| &list.certificates);
        let differs = |node: &&NodeStatus| {
            let told = node.accepted.as_ref().map(|list| &list.certificates);
            node.state == LinkState::Up && told.is_some() && told != newest
        };
        self.nodes.iter().filter(differs).collect()
    }

    /// Puts together what is known of a peer's links, and of its calls to us. `failure` is why none is up.
    #[must_use]
    pub fn of(
        cluster: &ClusterId,
        enabled: bool,
        nodes: Vec<NodeStatus>,
        failure: Option<Failure>,
        inbound: Inbound,
    ) -> Self {
        let best = nodes
            .iter()
            .min_by_key(|node| (rank(node.state), node.draining, node.node.is_none()))
            .cloned();
        let outbound = best.as_ref().map_or(LinkState::Down, |node| node.state);
        let same = nodes.iter().filter(|node| node.state == outbound);
        // It is up for as long as the oldest link that is, and down since the newest that is.
        let since = match outbound {
            LinkState::Up => same.map(|node| node.since).max(),
            LinkState::Down | LinkState::Incompatible | LinkState::Connecting => {
                same.map(|node| node.since).min()
            }
        };
        Self {
            cluster: cluster.clone(),
            enabled,
            outbound,
            proof_age: nodes.iter().filter_map(|node| node.proof_age).min(),
            version: best.as_ref().and_then(|node| node.version),
            node: best.as_ref().and_then(|node| node.node.clone()),
            software: best.as_ref().and_then(|node| node.software.clone()),
            // One that was never answered at is told with the reason.
            address: best
                .as_ref()
                .filter(|node| node.node.is_some())
                .map(|node| node.address.clone()),
            certificate: best.as_ref().and_then(|node| node.certificate.clone()),
            shown: best.as_ref().and_then(|node| node.shown.clone()),
            since: since.unwrap_or_default(),
            last_error: failure.as_ref().map(|f| f.text.clone()),
            rejection: failure.and_then(|f| f.rejection),
            clock_offset_ms: best.and_then(|node| node.clock_offset_ms),
            inbound,
            nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::link::FailureKind;

    fn node(address: &str, state: LinkState, since: u64) -> NodeStatus {
        let now = Instant::now();
        let link = Link::new(now);
        NodeStatus {
            state,
            since: Duration::from_secs(since),
            proof_age: (state == LinkState::Up).then_some(Duration::from_secs(since)),
            node: Some(format!("node at {address}")),
            ..NodeStatus::of(address, &link, false, now)
        }
    }

    fn status(nodes: Vec<NodeStatus>) -> LinkStatus {
        let failure = Failure::new(FailureKind::Silent, "no answer");
        let up = nodes.iter().any(|n| n.state == LinkState::Up);
        let cluster = ClusterId::new("berlin").unwrap();
        let failure = (!up).then_some(failure);
        LinkStatus::of(&cluster, true, nodes, failure, Inbound::default())
    }

    #[test]
    fn a_peer_is_as_well_as_its_best_node() {
        use LinkState::{Connecting, Down, Incompatible, Up};
        for (states, expected) in [
            (vec![Down, Up, Connecting], Up),
            (vec![Down, Connecting], Down),
            (vec![Down, Incompatible], Incompatible),
            (vec![Connecting, Connecting], Connecting),
            (vec![], Down),
        ] {
            let all = states.iter().map(|state| node("a:1", *state, 1));
            let status = status(all.collect());
            assert_eq!(status.outbound, expected, "{states:?}");
            assert_eq!(status.proof_age.is_some(), expected == Up);
            assert_eq!(status.last_error.is_none(), expected == Up);
        }
    }

    #[test]
    fn a_node_that_is_up_and_fails_calls_is_told_of() {
        let well = node("a:1", LinkState::Up, 1);
        assert_eq!(well.trouble(), None);
        let waits = NodeStatus {
            overdue_for: Some(Duration::from_secs(3)),
            ..well
        };
        assert!(waits.trouble().unwrap().ends_with("for 3 s"));
        let fails = NodeStatus {
            failing: Some(Failing {
                code: crate::domain::em_code::EmCode::DatabaseError,
                calls: 40,
                of: 41,
            }),
            ..waits
        };
        let told = "calls failed there, 40 of the last 41, the last one with EM code 6";
        assert_eq!(fails.trouble().as_deref(), Some(told));
    }

    #[test]
    fn it_is_told_of_a_node_that_stays_where_there_is_one() {
        let leaving = NodeStatus {
            draining: true,
            ..node("a:1", LinkState::Up, 90)
        };
        let told = status(vec![leaving.clone(), node("b:1", LinkState::Up, 5)]);
        assert_eq!(told.address.as_deref(), Some("b:1"));
        assert_eq!(told.since, Duration::from_secs(90));
        assert_eq!(told.proof_age, Some(Duration::from_secs(5)));
        assert_eq!(status(vec![leaving]).address.as_deref(), Some("a:1"));
    }
}
