//! Which clusters can be told of something now: those that this node has a link to, or another node of ours that lives.
//! Whoever that is delivers.

use std::{collections::BTreeSet, sync::Arc};

use super::HomeRole;
use crate::{
    domain::{federation::Links, ids::ClusterId, liveness::Incarnation},
    store::{self, Transaction, node_links, nodes::Node},
};

/// What is known outside of the store, as it was when asked for.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    links: Arc<dyn Links>,
    own: Incarnation,
    living: Arc<Vec<Node>>,
}

impl Reach {
    pub(super) fn now(role: &HomeRole) -> Self {
        Self {
            links: Arc::clone(&role.links),
            own: role.membership.run().clone(),
            living: Arc::clone(&role.membership.living().borrow()),
        }
    }

    /// Those of `clusters` that can be told. Of our own links we know more than is on record.
    pub(super) fn of(
        &self,
        tx: &mut dyn Transaction,
        clusters: BTreeSet<ClusterId>,
    ) -> Result<BTreeSet<ClusterId>, store::Error> {
        let (mut reached, others): (BTreeSet<_>, BTreeSet<_>) = clusters
            .into_iter()
            .partition(|there| self.links.is_up(there));
        let others: Vec<_> = others.into_iter().collect();
        if !others.is_empty() && self.living.iter().any(|node| node.run != self.own) {
            let linked = node_links::linked(tx, &others)?.into_iter();
            let of_living = linked.filter(|(run, _)| {
                *run != self.own && self.living.iter().any(|node| node.run == *run)
            });
            reached.extend(of_living.map(|(_, there)| there));
        }
        Ok(reached)
    }

    pub(super) fn is_reached(
        &self,
        tx: &mut dyn Transaction,
        cluster: &ClusterId,
    ) -> Result<bool, store::Error> {
        Ok(!self.of(tx, BTreeSet::from([cluster.clone()]))?.is_empty())
    }
}
