//! How much one of many has of something that all of them share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::ids::ClusterId;

/// Counts what each peer holds. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::edge) struct Shares {
    most: usize,
    held: Arc<Mutex<BTreeMap<ClusterId, usize>>>,
}

/// One piece of a peer's share, until it is dropped.
#[derive(Debug)]
pub(in crate::edge) struct Share {
    peer: ClusterId,
    shares: Shares,
}

impl Shares {
    /// At most this many for each peer.
    pub(in crate::edge) fn new(most: usize) -> Self {
        Self {
            most,
            held: Arc::default(),
        }
    }

    /// One more for `peer`, unless it has its share already.
    pub(in crate::edge) fn take(&self, peer: &ClusterId) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(peer).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        held.insert(peer.clone(), count + 1);
        drop(held);
        Some(Share {
            peer: peer.clone(),
            shares: self.clone(),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self
            .shares
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_share_and_gives_it_back() {
        let shares = Shares::new(2);
        let (berlin, paris) = (
            ClusterId::new("berlin").unwrap(),
            ClusterId::new("paris").unwrap(),
        );
        let first = shares.take(&berlin).unwrap();
        let second = shares.take(&berlin).unwrap();
        assert!(shares.take(&berlin).is_none());
        assert!(shares.take(&paris).is_some());
        drop(first);
        let third = shares.take(&berlin).unwrap();
        assert!(shares.take(&berlin).is_none());
        drop((second, third));
        assert!(
            shares.held.lock().unwrap().is_empty(),
            "nothing is kept of peers that hold nothing"
        );
    }
}
