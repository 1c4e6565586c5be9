//! The other clusters, as visiting sees them. Pure.

use std::{fmt, sync::Arc};

use crate::domain::{
    ids::ClusterId,
    login::{FindUser, HomeCluster},
};

/// What a peer's record says of its right to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A pattern of the record admits the name.
    Admitted,
    /// The record has patterns for this kind of name, and none admits it: the peer is not asked.
    Excluded,
    /// The record has no patterns for this kind of name.
    Unrestricted,
}

/// Which clusters can be told of something now.
pub trait Links: Send + Sync + fmt::Debug {
    /// Whether our link to that cluster is up.
    fn is_up(&self, cluster: &ClusterId) -> bool;
}

/// The clusters that we federate with.
pub trait Federation: Send + Sync {
    /// Every enabled peer.
    fn enabled(&self) -> Vec<Arc<dyn HomeCluster>>;

    /// One peer by name, enabled or not.
    fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>>;

    /// What the peer's record says of its right to the name.
    fn claim(&self, cluster: &ClusterId, query: &FindUser) -> Claim;
}
