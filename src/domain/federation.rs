//! The other clusters: how the links to them stand, and how visiting sees them. Pure.

use std::{fmt, str::FromStr, sync::Arc};

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

/// What an operator sees of the direction from us to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt has not ended.
    Connecting,
    /// There is no link; the last error says why.
    Down,
    /// The peer answers, but speaks no version that we speak.
    Incompatible,
    /// Proven within the time allowed.
    Up,
}

impl LinkState {
    const ALL: [Self; 4] = [Self::Connecting, Self::Down, Self::Incompatible, Self::Up];

    /// The stable word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Down => "down",
            Self::Incompatible => "incompatible",
            Self::Up => "up",
        }
    }
}

/// A word that is no state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state of a link")]
pub struct UnknownState;

impl FromStr for LinkState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or(UnknownState)
    }
}

/// Which clusters this node can tell of something now.
pub trait Links: Send + Sync + fmt::Debug {
    /// Whether this node's link to that cluster is up.
    fn is_up(&self, cluster: &ClusterId) -> bool;

    /// Another number for each time that a link to that cluster has come up.
    fn times_up(&self, _cluster: &ClusterId) -> u64 {
        0
    }

    /// Has that cluster hear, wherever it listens to us, that there is an end of a session for it which could not be
    /// brought: it may come and ask.
    fn ring(&self, _cluster: &ClusterId) {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_states_are_read_back_and_no_others() {
        for state in LinkState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("Up".parse::<LinkState>(), Err(UnknownState));
    }
}
