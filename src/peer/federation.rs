//! The peers as visiting sees them.

use std::sync::Arc;

use wildmatch::WildMatch;

use super::{Entry, Peers};
use crate::domain::{
    federation::{Claim, Federation, Links},
    ids::ClusterId,
    login::{FindUser, HomeCluster, LoginType},
};

impl Links for Peers {
    fn is_up(&self, cluster: &ClusterId) -> bool {
        let entries = self.entries();
        let entry = entries.get(cluster).filter(|e| e.record.enabled);
        entry.is_some_and(|e| e.group.is_up())
    }

    fn ring(&self, cluster: &ClusterId) {
        if let Some(group) = self.group(cluster) {
            group.common.ring();
        }
    }

    fn times_up(&self, cluster: &ClusterId) -> u64 {
        let entries = self.entries();
        // A peer that was disabled and enabled again has a new link, which counts from the start.
        let mark = |e: &Entry| (e.number << u32::BITS) | (e.group.times_up() & u64::from(u32::MAX));
        entries.get(cluster).map_or(0, mark)
    }
}

impl Federation for Peers {
    fn enabled(&self) -> Vec<Arc<dyn HomeCluster>> {
        self.homes()
    }

    fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>> {
        self.entries().get(cluster).map(Entry::home)
    }

    fn claim(&self, cluster: &ClusterId, query: &FindUser) -> Claim {
        let entries = self.entries();
        let Some(entry) = entries.get(cluster) else {
            return Claim::Excluded;
        };
        let patterns = match query.login_type {
            LoginType::Uid | LoginType::SelfService => &entry.record.user_patterns,
            LoginType::Extension => &entry.record.dn_patterns,
        };
        if patterns.is_empty() {
            return Claim::Unrestricted;
        }
        let name = query.name.as_str().to_ascii_lowercase();
        let admits =
            |pattern: &String| WildMatch::new(&pattern.to_ascii_lowercase()).matches(&name);
        if patterns.iter().any(admits) {
            Claim::Admitted
        } else {
            Claim::Excluded
        }
    }
}
