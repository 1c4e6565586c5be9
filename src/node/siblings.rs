//! The nodes of this cluster, and how each of them stands to a peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    clock::{Clock, Timestamp},
    domain::{ids::ClusterId, liveness::Incarnation},
    peer::LinkStatus,
    store::{
        self, Store, Transaction,
        membership::Membership,
        node_links::{self, Link},
        nodes::{self, Node},
    },
    wire::admin as pb,
};

/// The nodes that are on record, as this one sees them at one moment.
#[derive(Debug)]
pub(super) struct Siblings {
    own: Incarnation,
    living: BTreeSet<Incarnation>,
    /// By name, ourselves among them.
    nodes: Vec<Node>,
    links: BTreeMap<(Incarnation, ClusterId), Link>,
    now: Timestamp,
}

impl Siblings {
    /// Looks who is on record.
    pub(super) async fn look(
        store: &Store,
        membership: &Membership,
        clock: &Clock,
    ) -> Result<Self, store::Error> {
        let (nodes, links) = store
            .read(|tx: &mut dyn Transaction| {
                Ok::<_, store::Error>((nodes::all(tx)?, node_links::all(tx)?))
            })
            .await?;
        let living = Arc::clone(&membership.living().borrow());
        Ok(Self::of(
            membership.node(),
            &living,
            nodes,
            links,
            clock.now(),
        ))
    }

    fn of(
        own: &Node,
        living: &[Node],
        mut nodes: Vec<Node>,
        links: Vec<(Incarnation, Link)>,
        now: Timestamp,
    ) -> Self {
        // Another run under our name is not somebody else.
        nodes.retain(|node| node.run.node != own.run.node);
        nodes.push(own.clone());
        nodes.sort_by(|a, b| a.run.node.cmp(&b.run.node));
        let links = links.into_iter();
        Self {
            own: own.run.clone(),
            living: living.iter().map(|node| node.run.clone()).collect(),
            nodes,
            links: links
                .map(|(run, link)| ((run, link.cluster.clone()), link))
                .collect(),
            now,
        }
    }

    pub(super) fn nodes(&self) -> Vec<pb::OwnNode> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| pb::OwnNode {
                node: node.run.node.clone(),
                answers: node.run == self.own,
                lives: self.lives(&node.run),
                software: node.software.clone(),
                instance: node.run.instance.clone(),
            })
            .collect()
    }

    /// How each node stands to the peer whose links of this node are `status`. To a disabled one none has a link.
    pub(super) fn links(&self, status: &LinkStatus) -> Vec<pb::OwnLink> {
        let nodes = self.nodes.iter().filter(|_| status.enabled);
        nodes
            .map(|node| {
                let link = |state: &str| pb::OwnLink {
                    node: node.run.node.clone(),
                    answers: node.run == self.own,
                    state: state.to_owned(),
                    ..pb::OwnLink::default()
                };
                let said = self.links.get(&(node.run.clone(), status.cluster.clone()));
                match said {
                    // Of our own we know more than is on record.
                    _ if node.run == self.own => pb::OwnLink {
                        state_age_ms: Some(super::operations::millis(status.since)),
                        reason: status.last_error.clone(),
                        ..link(status.outbound.as_str())
                    },
                    _ if !self.lives(&node.run) => link("silent"),
                    None => link("unknown"),
                    Some(said) => pb::OwnLink {
                        state_age_ms: Some(super::operations::millis(self.now.since(said.since))),
                        reason: said.reason.clone(),
                        ..link(said.state.as_str())
                    },
                }
            })
            .collect()
    }

    fn lives(&self, run: &Incarnation) -> bool {
        *run == self.own || self.living.contains(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::federation::LinkState, peer::inbound::Inbound};

    fn node(name: &str, instance: &str) -> Node {
        Node {
            run: Incarnation {
                node: name.to_owned(),
                instance: instance.to_owned(),
            },
            addresses: Vec::new(),
            software: "emccd test".to_owned(),
            started_at: Timestamp::from_millis(1),
            beat: 0,
        }
    }

    fn says(node: &Node, cluster: &ClusterId, state: LinkState) -> (Incarnation, Link) {
        let link = Link {
            cluster: cluster.clone(),
            state,
            since: Timestamp::from_millis(4_000),
            reason: (state != LinkState::Up).then(|| "connection refused".to_owned()),
        };
        (node.run.clone(), link)
    }

    #[test]
    fn each_node_is_shown_with_what_it_says_of_itself_as_long_as_it_lives() {
        use LinkState::{Down, Up};
        let tokyo = ClusterId::new("tokyo").unwrap();
        let own = node("b2", "now");
        let (b1, b3, b4, b5) = (
            node("b1", "1"),
            node("b3", "3"),
            node("b4", "4"),
            node("b5", "5"),
        );
        let on_record = vec![
            b1.clone(),
            node("b2", "before"),
            b3.clone(),
            b4.clone(),
            b5.clone(),
        ];
        let links = vec![
            says(&b1, &tokyo, Up),
            // Of ourselves the record may be old, and another run is not us.
            says(&own, &tokyo, Up),
            says(&node("b2", "before"), &tokyo, Up),
            says(&b3, &tokyo, Up),
            says(&b4, &ClusterId::new("lima").unwrap(), Up),
            says(&b5, &tokyo, Down),
        ];
        let living = [b1, b4, b5];
        let now = Timestamp::from_millis(9_000);
        let siblings = Siblings::of(&own, &living, on_record, links, now);
        let nodes = siblings.nodes();
        let told: Vec<_> = nodes
            .iter()
            .map(|n| (&*n.node, n.answers, n.lives))
            .collect();
        assert_eq!(
            told,
            [
                ("b1", false, true),
                ("b2", true, true),
                ("b3", false, false),
                ("b4", false, true),
                ("b5", false, true),
            ]
        );
        assert_eq!(nodes[1].instance, "now");
        let status = LinkStatus {
            since: std::time::Duration::from_secs(2),
            last_error: Some("silence".to_owned()),
            ..LinkStatus::of(&tokyo, true, Vec::new(), None, Inbound::default())
        };
        let told = siblings.links(&status);
        let told: Vec<_> = told
            .iter()
            .map(|l| (&*l.node, &*l.state, l.state_age_ms, l.reason.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("b1", "up", Some(5_000), None),
                ("b2", "down", Some(2_000), Some("silence")),
                ("b3", "silent", None, None),
                ("b4", "unknown", None, None),
                ("b5", "down", Some(5_000), Some("connection refused")),
            ]
        );
        let disabled = LinkStatus {
            enabled: false,
            ..status
        };
        assert_eq!(siblings.links(&disabled), []);
    }
}
