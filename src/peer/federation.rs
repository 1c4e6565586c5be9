//! The peers as visiting sees them.

use std::sync::Arc;

use wildmatch::WildMatch;

use super::{Entry, Peers};
use crate::domain::{
    federation::Federation,
    ids::ClusterId,
    login::{FindUser, HomeCluster, LoginType},
};

impl Federation for Peers {
    fn enabled(&self) -> Vec<Arc<dyn HomeCluster>> {
        self.homes()
    }

    fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>> {
        self.entries().get(cluster).map(Entry::home)
    }

    fn admits(&self, cluster: &ClusterId, query: &FindUser) -> bool {
        let entries = self.entries();
        let Some(entry) = entries.get(cluster) else {
            return false;
        };
        let patterns = match query.login_type {
            LoginType::Uid | LoginType::SelfService => &entry.record.user_patterns,
            LoginType::Extension => &entry.record.dn_patterns,
        };
        let name = query.name.as_str().to_ascii_lowercase();
        patterns
            .iter()
            .any(|pattern| WildMatch::new(&pattern.to_ascii_lowercase()).matches(&name))
    }
}
