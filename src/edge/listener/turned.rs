//! How often a door has turned somebody away, and by which bound.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What a connection or a call can run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Connections that are not past their handshake.
    Handshakes,
    /// Connections in all.
    Connections,
    /// Connections of one address.
    Address,
    /// Connections of one peer.
    Peer,
    /// Connections of callers that were not identified.
    Strangers,
    /// Calls of one peer that are begun and have no answer.
    Begun,
    /// Searches and logins of one peer that are worked on.
    Calls,
    /// Ends of sessions that one peer tells of, and that are worked on.
    Ends,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Handshakes,
        Self::Connections,
        Self::Address,
        Self::Peer,
        Self::Strangers,
        Self::Begun,
        Self::Calls,
        Self::Ends,
    ];

    /// As it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Peer => "peer",
            Self::Strangers => "strangers",
            Self::Begun => "begun",
            Self::Calls => "calls",
            Self::Ends => "ends",
        }
    }

    const fn place(self) -> usize {
        self as usize
    }
}

/// The counts of one door. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct TurnedAway(Arc<[AtomicU64; Bound::ALL.len()]>);

impl TurnedAway {
    /// One more.
    pub(in crate::edge) fn add(&self, bound: Bound) {
        if let Some(count) = self.0.get(bound.place()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self, bound: Bound) -> u64 {
        let count = self.0.get(bound.place());
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_has_a_count_of_its_own() {
        let turned = TurnedAway::default();
        for (nth, bound) in Bound::ALL.into_iter().enumerate() {
            assert_eq!(bound.place(), nth);
            for _ in 0..=nth {
                turned.clone().add(bound);
            }
        }
        let counts = Bound::ALL.map(|bound| turned.count(bound));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
