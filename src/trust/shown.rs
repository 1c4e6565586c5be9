//! The certificates that peers have shown of late and that were accepted: what an authority vouches for is listed
//! nowhere else. In memory, and bounded.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::{domain::ids::ClusterId, trust::certificate::Certificate};

/// More nodes than a peer has, with room for certificates that it has replaced.
const MAX_PER_PEER: usize = 16;

/// More issuers than a chain has that is accepted.
const MAX_ISSUERS: usize = 6;

/// What a peer has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which peer.
    pub cluster: ClusterId,
    /// Its certificate.
    pub leaf: Certificate,
    /// What it sent along.
    pub issuers: Vec<Certificate>,
}

/// The chains of late. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Shown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Newest last.
    chains: Mutex<VecDeque<Chain>>,
    changes: watch::Sender<()>,
}

impl Default for Shown {
    fn default() -> Self {
        Self(Arc::new(Inner {
            chains: Mutex::default(),
            changes: watch::Sender::new(()),
        }))
    }
}

impl Shown {
    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<Chain> {
        let chains = self.0.chains.lock().unwrap_or_else(PoisonError::into_inner);
        chains.iter().cloned().collect()
    }

    /// Tells of each one that is new.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Notes a chain that was accepted from `cluster`. One that takes the place of an older one (the same subject and
    /// names, and a later end) supersedes it.
    pub(super) fn note(&self, cluster: &ClusterId, chain: &[CertificateDer<'_>]) {
        let Some((leaf, issuers)) = chain.split_first() else {
            return;
        };
        let mut chains = self.0.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |known: &Chain| known.cluster == *cluster && known.leaf.der() == leaf;
        if chains.iter().any(is_there) {
            return;
        }
        let Ok(leaf) = Certificate::from_der(leaf) else {
            return;
        };
        let issuers = issuers.iter().take(MAX_ISSUERS);
        let new = Chain {
            cluster: cluster.clone(),
            leaf,
            issuers: issuers
                .filter_map(|der| Certificate::from_der(der).ok())
                .collect(),
        };
        chains.retain(|known| !new.supersedes(known));
        let of_peer = |known: &Chain| known.cluster == *cluster;
        if chains.iter().filter(|known| of_peer(known)).count() >= MAX_PER_PEER
            && let Some(oldest) = chains.iter().position(of_peer)
        {
            chains.remove(oldest);
        }
        chains.push_back(new);
        drop(chains);
        self.0.changes.send_replace(());
    }
}

impl Chain {
    fn supersedes(&self, other: &Self) -> bool {
        self.cluster == other.cluster
            && self.leaf.subject() == other.leaf.subject()
            && self.leaf.names() == other.leaf.names()
            && self.leaf.not_after() > other.leaf.not_after()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::{Authority, Leaf, Spec};

    fn id(text: &str) -> ClusterId {
        ClusterId::new(text).unwrap()
    }

    fn note(shown: &Shown, cluster: &str, leaf: &Leaf) {
        let chain = [leaf.certificate().der().clone()];
        shown.note(&id(cluster), &chain);
    }

    #[test]
    fn a_chain_is_noted_once_and_told_of() {
        let shown = Shown::default();
        let mut changes = shown.subscribe();
        let authority = Authority::new("CA");
        let leaf = Spec::new("a.example").signed_by(&authority);
        let chain = [
            leaf.certificate().der().clone(),
            authority.certificate().der().clone(),
        ];
        shown.note(&id("tokyo"), &chain);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        shown.note(&id("tokyo"), &chain);
        assert!(!changes.has_changed().unwrap());
        shown.note(&id("tokyo"), &[]);
        shown.note(&id("tokyo"), &[CertificateDer::from(vec![1, 2, 3])]);
        let listed = shown.list();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].issuers, [authority.certificate()]);
    }

    #[test]
    fn a_renewed_certificate_takes_the_place_of_the_one_before_and_no_others() {
        let shown = Shown::default();
        let ending = |name: &str, days| Spec::new(name).valid_days(-1, days).self_signed();
        let (old, new) = (ending("a.example", 5), ending("a.example", 300));
        let other_node = ending("b.example", 5);
        note(&shown, "tokyo", &old);
        note(&shown, "tokyo", &other_node);
        note(&shown, "lima", &old);
        note(&shown, "tokyo", &new);
        let left: Vec<_> = shown
            .list()
            .into_iter()
            .map(|chain| (chain.cluster.to_string(), chain.leaf))
            .collect();
        let expected = [
            ("tokyo".to_owned(), other_node.certificate()),
            ("lima".to_owned(), old.certificate()),
            ("tokyo".to_owned(), new.certificate()),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_peer_that_shows_ever_others_fills_its_own_places_only() {
        let shown = Shown::default();
        note(&shown, "lima", &Spec::new("l.example").self_signed());
        for number in 0..MAX_PER_PEER + 3 {
            let leaf = Spec::new(&format!("n{number}.example")).self_signed();
            note(&shown, "tokyo", &leaf);
        }
        let listed = shown.list();
        assert_eq!(listed.len(), MAX_PER_PEER + 1);
        assert_eq!(listed[0].cluster, id("lima"));
        assert_eq!(listed[1].leaf.subject(), "CN=n3.example");
    }
}
