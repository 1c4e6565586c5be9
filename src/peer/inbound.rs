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
    /// How long ago it said that.
    pub reverse_down_age: Option<Duration>,
}

/// The record behind [`Inbound`].
#[derive(Clone, Debug, Default)]
pub struct InboundRecord {
    watches: usize,
    last_seen: Option<Instant>,
    traits: Option<Traits>,
}

/// What a node of the peer told, on our link to it, of its cluster's view of us. It is of no worth once that link is
/// down.
#[derive(Clone, Debug)]
pub struct Told {
    proof_age: Option<Duration>,
    down_reason: String,
    at: Instant,
}

impl Told {
    /// Told now.
    #[must_use]
    pub const fn new(proof_age: Option<Duration>, down_reason: String, now: Instant) -> Self {
        Self {
            proof_age,
            down_reason,
            at: now,
        }
    }

    /// The age of its last proof of us, which ages by the time since; none when it has none.
    #[must_use]
    pub fn proof_age(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.at);
        self.proof_age.map(|age| age.saturating_add(since))
    }

    /// Why its link to us is down; none when it is up.
    #[must_use]
    pub fn down_reason(&self) -> Option<&str> {
        Some(&*self.down_reason).filter(|reason| !reason.is_empty())
    }

    /// Whether this says something else than `before`, other than that time has passed.
    #[must_use]
    pub fn is_news(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| {
            before.proof_age.is_some() != self.proof_age.is_some()
                || before.down_reason != self.down_reason
        })
    }
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

    /// What to show, with what the nodes told that we are linked to now. A node that can't reach us is told of even if
    /// others can: its phones are without their homes.
    pub fn view<'a>(&self, told: impl Iterator<Item = &'a Told>, now: Instant) -> Inbound {
        let (mut reverse_proof_age, mut down) = (None, None);
        for told in told {
            let age = told.proof_age(now);
            reverse_proof_age = match (reverse_proof_age, age) {
                (Some(before), Some(age)) => Some(age.min(before)),
                (before, age) => before.or(age),
            };
            let since = now.saturating_duration_since(told.at);
            down = down.or_else(|| Some((told.down_reason()?.to_owned(), since)));
        }
        let (reverse_down_reason, reverse_down_age) = down.unzip();
        Inbound {
            watching: self.watches > 0,
            last_seen_age: self.last_seen.map(|t| now.saturating_duration_since(t)),
            reverse_proof_age,
            reverse_down_reason,
            reverse_down_age,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_proof_ages_and_the_youngest_of_several_is_shown() {
        let start = Instant::now();
        let told = |seconds| Told::new(Some(Duration::from_secs(seconds)), String::new(), start);
        let record = InboundRecord::default();
        let view = record.view([told(2), told(1)].iter(), start + Duration::from_secs(3));
        assert_eq!(view.reverse_proof_age, Some(Duration::from_secs(4)));
        assert_eq!(view.reverse_down_reason, None);
        // With the last link goes what was told on it.
        let view = record.view(std::iter::empty(), start);
        assert_eq!(view.reverse_proof_age, None);
    }

    #[test]
    fn the_peers_reason_is_shown_in_its_words_also_where_another_node_reaches_us() {
        let start = Instant::now();
        let down = Told::new(None, "connection refused".to_owned(), start);
        let up = Told::new(Some(Duration::ZERO), String::new(), start);
        for (told, age) in [
            (vec![down.clone()], None),
            (vec![up.clone(), down.clone()], Some(Duration::ZERO)),
        ] {
            let later = start + Duration::from_secs(3);
            let view = InboundRecord::default().view(told.iter(), later);
            let age = age.map(|age: Duration| age + Duration::from_secs(3));
            assert_eq!(view.reverse_proof_age, age);
            assert_eq!(view.reverse_down_age, Some(Duration::from_secs(3)));
            assert_eq!(
                view.reverse_down_reason.as_deref(),
                Some("connection refused")
            );
        }
        assert!(down.is_news(Some(&up)) && down.is_news(None));
        assert!(!down.is_news(Some(&Told {
            at: start + Duration::from_secs(1),
            ..down.clone()
        })));
    }

    #[test]
    fn watches_are_counted_and_bounded() {
        let start = Instant::now();
        let mut record = InboundRecord::default();
        assert!(record.watch_opened(2) && record.watch_opened(2));
        assert!(!record.watch_opened(2));
        record.watch_closed();
        assert!(record.view(std::iter::empty(), start).watching);
        record.watch_closed();
        record.watch_closed();
        assert!(!record.view(std::iter::empty(), start).watching);
    }
}
