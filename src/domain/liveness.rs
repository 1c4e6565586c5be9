//! Who still beats: judged from what a watcher sees change, by the watcher's own monotonic time. Pure.
//!
//! A node moves a number on every [`BEAT`]; nobody compares clocks. Whoever has seen the same number for [`SILENCE`]
//! takes its owner for dead. A watcher that was itself stopped does not blame others for the time it missed: between
//! two looks no more than [`MOST_BETWEEN`] counts.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

/// How often a node beats.
pub const BEAT: Duration = Duration::from_secs(2);
/// For how long the same beat must be seen before its owner counts as dead: three beats, so that one late write is no
/// death.
pub const SILENCE: Duration = Duration::from_secs(6);
/// What counts at most between two looks.
pub const MOST_BETWEEN: Duration = Duration::from_secs(3);

/// One run of a node: two processes that were given the same name differ in the instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// The node's name.
    pub node: String,
    /// What is made anew at each start.
    pub instance: String,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (instance {})", self.node, self.instance)
    }
}

/// What one watcher has seen of others: for each key the last mark, and for how long it has stayed the same.
#[derive(Debug)]
pub struct Pulses<K, M> {
    seen: BTreeMap<K, Seen<M>>,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Seen<M> {
    mark: M,
    silent: Duration,
}

impl<K, M> Default for Pulses<K, M> {
    fn default() -> Self {
        Self {
            seen: BTreeMap::new(),
            last: None,
        }
    }
}

impl<K: Ord, M: PartialEq> Pulses<K, M> {
    /// Takes in one look that began at `now`. What is not in it any more is forgotten; what is seen for the first time
    /// counts as alive.
    pub fn look(&mut self, now: Instant, rows: impl IntoIterator<Item = (K, M)>) {
        let passed = self.last.map_or(Duration::ZERO, |last| {
            now.saturating_duration_since(last).min(MOST_BETWEEN)
        });
        self.last = Some(now);
        let mut before = std::mem::take(&mut self.seen);
        for (key, mark) in rows {
            let silent = match before.remove(&key) {
                Some(seen) if seen.mark == mark => seen.silent.saturating_add(passed),
                _ => Duration::ZERO,
            };
            self.seen.insert(key, Seen { mark, silent });
        }
    }

    /// For how long nothing was heard of it; none for what is not there.
    #[must_use]
    pub fn silence(&self, key: &K) -> Option<Duration> {
        self.seen.get(key).map(|seen| seen.silent)
    }

    /// Whether it is there and has been silent for too long.
    #[must_use]
    pub fn is_dead(&self, key: &K) -> bool {
        self.silence(key).is_some_and(|silent| silent >= SILENCE)
    }

    /// Whether it is there and beats.
    #[must_use]
    pub fn is_alive(&self, key: &K) -> bool {
        self.silence(key).is_some_and(|silent| silent < SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_same_beat_for_six_seconds_is_death_and_a_new_one_is_life() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        for second in 0..6 {
            pulses.look(
                start + SECOND * second,
                [("a", 7), ("b", i64::from(second))],
            );
            assert!(pulses.is_alive(&"a") && pulses.is_alive(&"b"), "{second}");
        }
        pulses.look(start + SECOND * 6, [("a", 7), ("b", 6)]);
        assert!(pulses.is_dead(&"a") && !pulses.is_alive(&"a"));
        assert!(pulses.is_alive(&"b"));
        pulses.look(start + SECOND * 7, [("a", 8)]);
        assert!(pulses.is_alive(&"a"));
        assert!(
            !pulses.is_alive(&"b") && !pulses.is_dead(&"b"),
            "it has left"
        );
    }

    #[test]
    fn who_was_stopped_does_not_take_the_others_for_dead() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        pulses.look(start, [("a", 1)]);
        pulses.look(start + SECOND * 60, [("a", 1)]);
        assert!(pulses.is_alive(&"a"));
        pulses.look(start + SECOND * 63, [("a", 1)]);
        assert!(pulses.is_dead(&"a"));
    }

    #[test]
    fn who_comes_back_begins_anew() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        for second in 0..7 {
            pulses.look(start + SECOND * second, [("a", 1)]);
        }
        assert!(pulses.is_dead(&"a"));
        pulses.look(start + SECOND * 8, []);
        pulses.look(start + SECOND * 9, [("a", 1)]);
        assert!(pulses.is_alive(&"a"));
    }

    proptest! {
        /// Whoever beats between any two looks is never dead, and silence never outruns the time that passed.
        #[test]
        fn silence_is_never_more_than_what_passed(steps in prop::collection::vec((0u64..10_000, any::<bool>()), 1..50)) {
            let (mut pulses, mut now, mut beat) = (Pulses::default(), Instant::now(), 0i64);
            let mut since = now;
            for (millis, beats) in steps {
                now += Duration::from_millis(millis);
                if beats {
                    beat += 1;
                    since = now;
                }
                pulses.look(now, [((), beat)]);
                let silent = pulses.silence(&()).unwrap();
                prop_assert!(silent <= now - since);
                prop_assert!(!beats || pulses.is_alive(&()));
            }
        }
    }
}
