//! Which live connections rest on which certificates: ours and the peers', in both directions.
//!
//! A connection is listed from when its handshake is done until it has ended, by a guard that goes with it. So what is not
//! listed is not in use: a certificate can be taken away without cutting anybody off.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{domain::ids::ClusterId, trust::certificate::Fingerprint, watch};

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opened {
    /// We did.
    ByUs,
    /// The peer did.
    ByPeer,
}

/// One live connection with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Who opened it.
    pub opened: Opened,
    /// The peer.
    pub cluster: ClusterId,
    /// Where the peer's end is.
    pub address: String,
    /// The certificate that we showed.
    pub own: Option<Fingerprint>,
    /// What the peer showed, the leaf first.
    pub shown: Vec<Fingerprint>,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, address) = (&self.cluster, &self.address);
        match self.opened {
            Opened::ByUs => write!(f, "the link to {cluster} at {address}"),
            Opened::ByPeer => write!(f, "a connection of {cluster} from {address}"),
        }
    }
}

/// The live connections of one node. Clones share them.
#[derive(Clone, Default)]
pub struct InUse(Arc<Inner>);

#[derive(Default)]
struct Inner {
    uses: Mutex<BTreeMap<u64, Use>>,
    next: AtomicU64,
    changes: watch::Sender<u64>,
}

impl InUse {
    /// Lists a connection for as long as the guard lives.
    #[must_use]
    pub fn enter(&self, entry: Use) -> Guard {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.edit(|uses| drop(uses.insert(number, entry)));
        Guard {
            all: self.clone(),
            number,
        }
    }

    /// All of them, in the order in which they began.
    #[must_use]
    pub fn all(&self) -> Vec<Use> {
        self.that(|_| true)
    }

    /// Those that rest on this certificate of ours.
    #[must_use]
    pub fn of_own(&self, own: &Fingerprint) -> Vec<Use> {
        self.that(|entry| entry.own.as_ref() == Some(own))
    }

    /// Those on which that peer has shown this certificate, as its own or along with it.
    #[must_use]
    pub fn of_peer(&self, cluster: &ClusterId, shown: &Fingerprint) -> Vec<Use> {
        self.that(|entry| entry.cluster == *cluster && entry.shown.contains(shown))
    }

    /// Moves on whenever a connection is listed or goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn that(&self, is_meant: impl Fn(&Use) -> bool) -> Vec<Use> {
        let uses = self.0.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.values()
            .filter(|entry| is_meant(entry))
            .cloned()
            .collect()
    }

    fn edit(&self, edit: impl FnOnce(&mut BTreeMap<u64, Use>)) {
        edit(&mut self.0.uses.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

/// Keeps a connection listed.
#[derive(Debug)]
pub struct Guard {
    all: InUse,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let number = self.number;
        self.all.edit(|uses| drop(uses.remove(&number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(opened: Opened, cluster: &str, own: u8, shown: &[u8]) -> Use {
        Use {
            opened,
            cluster: ClusterId::new(cluster).unwrap(),
            address: "192.0.2.1:8444".to_owned(),
            own: Some([own; 32]),
            shown: shown.iter().map(|n| [*n; 32]).collect(),
        }
    }

    #[test]
    fn a_connection_is_listed_by_both_certificates_until_it_ends() {
        let in_use = InUse::default();
        let mut changes = in_use.changes();
        let out = in_use.enter(entry(Opened::ByUs, "tokyo", 1, &[7, 8]));
        let inward = in_use.enter(entry(Opened::ByPeer, "lima", 1, &[9]));
        assert!(changes.has_changed().unwrap());
        let told: Vec<_> = in_use
            .of_own(&[1; 32])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "the link to tokyo at 192.0.2.1:8444",
                "a connection of lima from 192.0.2.1:8444"
            ]
        );
        let (tokyo, lima) = (
            ClusterId::new("tokyo").unwrap(),
            ClusterId::new("lima").unwrap(),
        );
        assert_eq!(in_use.of_peer(&tokyo, &[8; 32]).len(), 1);
        assert_eq!(in_use.of_peer(&lima, &[8; 32]), []);
        assert_eq!(in_use.of_own(&[2; 32]), []);
        changes.mark_unchanged();
        drop(out);
        assert!(changes.has_changed().unwrap());
        assert_eq!(in_use.all(), [entry(Opened::ByPeer, "lima", 1, &[9])]);
        drop(inward);
        assert_eq!(in_use.all(), []);
    }
}
