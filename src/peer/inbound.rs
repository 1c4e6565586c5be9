//! What we know of the direction from a peer to us. Pure: the time is handed in.

use std::time::{Duration, Instant};

use crate::domain::capability::Traits;

/// What an operator sees of the direction from the peer to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    /// Whether the peer holds a `Watch` on this node.
    pub watching: bool,
    /// How long ago the peer last called this node; none when it never has.
    pub last_seen_age: Option<Duration>,
    /// How long ago the peer last had proof of us, as it told on our own link to it; none when it says
    /// that its link is down, or when our own link is and we can't know.
    pub reverse_proof_age: Option<Duration>,
    /// Why the peer's link to us is down, in its words.
    pub reverse_down_reason: Option<String>,
}

/// The record behind [`Inbound`].
#[derive(Clone, Debug, Default)]
pub struct InboundRecord {
    watches: usize,
    last_seen: Option<Instant>,
    reverse: Option<Reverse>,
    traits: Option<Traits>,
}

#[derive(Clone, Debug)]
struct Reverse {
    proof_age: Option<Duration>,
    down_reason: String,
    told_at: Instant,
}

impl InboundRecord {
    /// The peer called.
    pub const fn seen(&mut self, now: Instant) {
        self.last_seen = Some(now);
    }

    /// The peer said `Hello`: every connection begins with it.
    pub const fn introduced(&mut self, traits: Traits) {
        self.traits = Some(traits);
    }

    /// What it told of itself then.
    #[must_use]
    pub const fn traits(&self) -> Option<Traits> {
        self.traits
    }

    /// The peer opened a `Watch`; false when it has as many as it may have.
    #[must_use]
    pub const fn watch_opened(&mut self, most: usize) -> bool {
        let room = self.watches < most;
        if room {
            self.watches += 1;
        }
        room
    }

    /// A `Watch` of the peer ended.
    pub const fn watch_closed(&mut self) {
        self.watches = self.watches.saturating_sub(1);
    }

    /// The peer told what it sees of us.
    pub fn told(&mut self, proof_age: Option<Duration>, down_reason: String, now: Instant) {
        self.reverse = Some(Reverse {
            proof_age,
            down_reason,
            told_at: now,
        });
    }

    /// Our link to the peer went down: what it told is of no worth any more.
    pub fn forget_told(&mut self) {
        self.reverse = None;
    }

    /// What to show. A proof that was told ages by the time since.
    #[must_use]
    pub fn view(&self, now: Instant) -> Inbound {
        let reverse = self.reverse.as_ref();
        Inbound {
            watching: self.watches > 0,
            last_seen_age: self.last_seen.map(|t| now.saturating_duration_since(t)),
            reverse_proof_age: reverse.and_then(|r| {
                r.proof_age
                    .map(|age| age.saturating_add(now.saturating_duration_since(r.told_at)))
            }),
            reverse_down_reason: reverse
                .filter(|r| !r.down_reason.is_empty())
                .map(|r| r.down_reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_proof_ages_and_is_forgotten_with_our_link() {
        let start = Instant::now();
        let mut record = InboundRecord::default();
        record.told(Some(Duration::from_secs(2)), String::new(), start);
        let view = record.view(start + Duration::from_secs(3));
        assert_eq!(view.reverse_proof_age, Some(Duration::from_secs(5)));
        assert_eq!(view.reverse_down_reason, None);
        record.forget_told();
        assert_eq!(record.view(start).reverse_proof_age, None);
    }

    #[test]
    fn the_peers_reason_is_shown_in_its_words() {
        let start = Instant::now();
        let mut record = InboundRecord::default();
        record.told(None, "connection refused".to_owned(), start);
        let view = record.view(start);
        assert_eq!(view.reverse_proof_age, None);
        assert_eq!(
            view.reverse_down_reason.as_deref(),
            Some("connection refused")
        );
    }

    #[test]
    fn watches_are_counted_and_bounded() {
        let start = Instant::now();
        let mut record = InboundRecord::default();
        assert!(record.watch_opened(2) && record.watch_opened(2));
        assert!(!record.watch_opened(2));
        record.watch_closed();
        assert!(record.view(start).watching);
        record.watch_closed();
        record.watch_closed();
        assert!(!record.view(start).watching);
    }
}
