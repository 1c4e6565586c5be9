//! The other clusters, as visiting sees them. Pure.

use std::sync::Arc;

use crate::domain::{
    ids::ClusterId,
    login::{FindUser, HomeCluster},
};

/// The clusters that we federate with.
pub trait Federation: Send + Sync {
    /// Every enabled peer.
    fn enabled(&self) -> Vec<Arc<dyn HomeCluster>>;

    /// One peer by name, enabled or not.
    fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>>;

    /// Whether the peer's record has a pattern that admits the name.
    fn admits(&self, cluster: &ClusterId, query: &FindUser) -> bool;
}
