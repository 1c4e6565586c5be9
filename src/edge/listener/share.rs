//! How much one of many has of something that all of them share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts what each one holds, a peer or a network. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::edge) struct Shares<K: Ord> {
    most: usize,
    held: Arc<Mutex<BTreeMap<K, usize>>>,
}

/// One piece of somebody's share, until it is dropped.
#[derive(Debug)]
pub(in crate::edge) struct Share<K: Ord> {
    of: K,
    shares: Shares<K>,
}

impl<K: Ord + Clone> Shares<K> {
    /// At most this many for each.
    pub(in crate::edge) fn new(most: usize) -> Self {
        Self {
            most,
            held: Arc::default(),
        }
    }

    /// One more for `of`, unless it has its share already.
    pub(in crate::edge) fn take(&self, of: &K) -> Option<Share<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(of).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        held.insert(of.clone(), count + 1);
        drop(held);
        Some(Share {
            of: of.clone(),
            shares: self.clone(),
        })
    }

    /// How many `of` holds.
    pub(in crate::edge) fn held(&self, of: &K) -> usize {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(of).copied().unwrap_or_default()
    }
}

impl<K: Ord> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self
            .shares
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ClusterId;

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
