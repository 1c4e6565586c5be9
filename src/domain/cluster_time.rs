//! Cluster time: what deadlines go by. Pure.
//!
//! It begins as the wall clock of a cluster's first start. One node advances it for all, by monotonic time. In between
//! each node counts on from the value that it saw last. Steps of a wall clock don't reach it; a wall clock only tells
//! how long nobody was there to count.

use std::time::{Duration, Instant};

use crate::clock::Timestamp;

/// A wall clock that moves this much more or less than monotonic time has been set.
pub const STEP: Duration = Duration::from_secs(1);

/// Cluster time at one moment, as it is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Cluster time.
    pub at: Timestamp,
    /// The wall clock of the node that wrote it.
    pub wall: Timestamp,
}

impl Reading {
    /// The first one of a cluster.
    #[must_use]
    pub const fn first(wall: Timestamp) -> Self {
        Self { at: wall, wall }
    }

    /// The one after a time without anybody who counted: it went on as the wall clock says, and never back.
    #[must_use]
    pub fn after_gap(self, wall: Timestamp) -> Self {
        Self {
            at: self.at.plus(self.gap(wall)),
            wall,
        }
    }

    /// For how long nobody has counted, by the wall clock.
    #[must_use]
    pub fn gap(self, wall: Timestamp) -> Duration {
        wall.since(self.wall)
    }
}

/// How one node counts on from what is on record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting {
    /// A value, and when it was first seen.
    base: Option<(Timestamp, Instant)>,
    last: Option<Timestamp>,
}

impl Counting {
    /// Cluster time now: a value that is further than what was counted is taken over, anything else changes nothing.
    /// Never goes back.
    pub fn now(&mut self, recorded: Timestamp, now: Instant) -> Timestamp {
        let counted = self
            .base
            .map(|(at, seen)| at.plus(now.saturating_duration_since(seen)));
        let value = match counted {
            Some(counted) if counted >= recorded => counted,
            _ => {
                self.base = Some((recorded, now));
                recorded
            }
        };
        // Two threads may have taken their moments in one order and come here in the other.
        let value = self.last.map_or(value, |last| last.max(value));
        self.last = Some(value);
        value
    }
}

/// A wall clock that was set, as its own node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How far it went, in milliseconds; negative: back.
    pub by_ms: i64,
}

/// Watches one node's wall clock against monotonic time.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepWatch {
    last: Option<(Timestamp, Instant)>,
}

impl StepWatch {
    /// Looks at both clocks; the step since the look before, if there was one.
    pub fn look(&mut self, wall: Timestamp, now: Instant) -> Option<Step> {
        let (wall_before, before) = self.last.replace((wall, now))?;
        let passed = now.saturating_duration_since(before);
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let by_ms = wall
            .as_millis()
            .saturating_sub(wall_before.as_millis())
            .saturating_sub(passed);
        (u128::from(by_ms.unsigned_abs()) > STEP.as_millis()).then_some(Step { by_ms })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const DAY_MS: i64 = 86_400_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_gap_is_as_long_as_the_wall_clock_says_and_never_negative() {
        let before = Reading {
            at: at(5_000),
            wall: at(1_000_000),
        };
        let after = before.after_gap(at(1_060_000));
        assert_eq!((after.at, after.wall), (at(65_000), at(1_060_000)));
        let back = before.after_gap(at(1_000_000 - DAY_MS));
        assert_eq!(back.at, at(5_000));
        assert_eq!(Reading::first(at(7)).at, at(7));
    }

    #[test]
    fn what_is_counted_goes_on_from_what_is_on_record() {
        let start = clock::instant();
        let mut counting = Counting::default();
        assert_eq!(counting.now(at(1_000), start), at(1_000));
        assert_eq!(counting.now(at(1_000), start + ms(1_500)), at(2_500));
        // What another counted, a little behind.
        assert_eq!(counting.now(at(2_000), start + ms(1_500)), at(2_500));
        assert_eq!(counting.now(at(9_000), start + ms(1_600)), at(9_000));
        assert_eq!(counting.now(at(9_000), start + ms(1_700)), at(9_100));
        assert_eq!(counting.now(at(9_000), start), at(9_100));
    }

    #[test]
    fn a_clock_that_was_set_is_seen_and_one_that_is_slow_is_not() {
        let start = clock::instant();
        let mut watch = StepWatch::default();
        assert_eq!(watch.look(at(0), start), None);
        assert_eq!(watch.look(at(1_990), start + ms(2_000)), None);
        let forth = watch.look(at(3_990 + DAY_MS), start + ms(4_000)).unwrap();
        assert_eq!(forth.by_ms, DAY_MS);
        let back = watch.look(at(5_990), start + ms(6_000)).unwrap();
        assert_eq!(back.by_ms, -DAY_MS);
        assert_eq!(watch.look(at(25_990), start + ms(26_000)), None);
    }

    /// One node of several, and what its wall clock is off by.
    #[derive(Clone, Copy, Default)]
    struct Node {
        counting: Counting,
        off_ms: i64,
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        Step(usize, i64),
        /// The one that writes the record.
        Keep(usize),
        Look(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..5_000u64).prop_map(Event::Pass),
            (0..3usize, prop::sample::select(vec![DAY_MS, -DAY_MS, 0]))
                .prop_map(|(n, by)| Event::Step(n, by)),
            (0..3usize).prop_map(Event::Keep),
            (0..3usize).prop_map(Event::Look),
        ];
        prop::collection::vec(event, 1..80)
    }

    proptest! {
        #[test]
        fn while_somebody_watches_steps_change_nothing_and_nothing_goes_back(events in events()) {
            let start = clock::instant();
            let mut passed = 0;
            let mut row = Reading::first(at(1_000_000));
            let mut nodes = [Node::default(); 3];
            for node in &mut nodes {
                node.counting.now(row.at, start);
            }
            for event in events {
                let now = start + ms(passed);
                match event {
                    Event::Pass(by) => passed += by,
                    Event::Step(n, by) => nodes[n].off_ms = by,
                    Event::Keep(n) => {
                        let value = nodes[n].counting.now(row.at, now);
                        prop_assert!(value >= row.at);
                        let wall = 1_000_000 + i64::try_from(passed).unwrap() + nodes[n].off_ms;
                        row = Reading { at: value, wall: at(wall) };
                    }
                    Event::Look(n) => {
                        let value = nodes[n].counting.now(row.at, now);
                        // True time: all of them have watched from the start.
                        prop_assert_eq!(value, at(1_000_000).plus(ms(passed)));
                    }
                }
            }
        }

        #[test]
        fn a_wall_clock_never_takes_it_back(
            before in 0..DAY_MS, wall in 0..DAY_MS, later in -DAY_MS..(2 * DAY_MS)
        ) {
            let before = Reading { at: at(before), wall: at(wall) };
            let after = before.after_gap(at(later));
            prop_assert!(after.at >= before.at);
            prop_assert_eq!(after.at.since(before.at), before.gap(at(later)));
        }
    }
}
