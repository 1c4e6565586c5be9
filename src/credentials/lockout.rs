//! When wrong PINs lock a user out. Pure.
//!
//! ```text
//! open --wrong, fewer than the limit in the window--> open (counted)
//! open --wrong, the limit reached-------------------> locked until now + lock duration
//! locked --time over--------------------------------> open (count from zero)
//! open --right--------------------------------------> open (count from zero)
//! ```
//! While locked, no PIN is right and no failure is counted.
//!
//! Times are cluster time: a wall clock that is set neither ends a lock nor prolongs one. The nodes of a cluster count it
//! each for itself, so that it may be a little further on one of them than on another: the time of a row never goes
//! back. A row that is ahead by more than [`APART`], as no policy has it written, is damaged: it counts as over, so that
//! nobody is locked out until that time comes.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    domain::policy::{LOCK, Rules, WINDOW, minutes},
    store::credentials::Credential,
};

/// Two nodes are never so far apart: the longest window, so that none lasts much longer than a policy may say.
const APART: Duration = minutes(*WINDOW.end());
/// No lock has more left.
const LONGEST: Duration = minutes(*LOCK.end() + *WINDOW.end());

/// What to answer, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The PIN is right and counts.
    Right,
    /// The user is locked; right or wrong is not told.
    Locked {
        /// Until when.
        until: Timestamp,
    },
    /// The PIN is wrong and was counted.
    Wrong {
        /// How many are counted now.
        failures: u32,
        /// Until when the user is locked from now on, if this one was the last that was allowed.
        locked: Option<Timestamp>,
    },
}

/// Until when the user is locked, if that is so at `now`.
#[must_use]
pub fn locked(row: &Credential, now: Timestamp) -> Option<Timestamp> {
    row.locked_until
        .filter(|until| now < *until && until.since(now) <= LONGEST)
}

/// How many wrong PINs count at `now`: while a lock lasts those that led to it, else those whose window is still open.
#[must_use]
pub fn counted(row: &Credential, now: Timestamp, rules: Rules) -> u32 {
    let counts = match row.locked_until {
        Some(_) => locked(row, now).is_some(),
        None => is_open(row, now, rules),
    };
    if counts { row.failures } else { 0 }
}

/// Whether one more wrong PIN at `now` is counted with those before.
fn is_open(row: &Credential, now: Timestamp, rules: Rules) -> bool {
    row.window_started
        .is_some_and(|last| now.since(last) <= rules.window() && last.since(now) <= APART)
}

/// Decides on one verified attempt, and writes the new counters into the row.
pub fn decide(row: &mut Credential, matches: bool, now: Timestamp, rules: Rules) -> Outcome {
    if let Some(until) = locked(row, now) {
        return Outcome::Locked { until };
    }
    if row.locked_until.is_some() {
        clear(row);
    }
    if matches {
        clear(row);
        return Outcome::Right;
    }
    // Where another node is a little ahead, its time goes on: one that is behind shortens nothing.
    let (before, at) = match row.window_started.filter(|_| is_open(row, now, rules)) {
        Some(last) => (row.failures, last.max(now)),
        None => (0, now),
    };
    row.failures = before.saturating_add(1);
    row.window_started = Some(at);
    if rules.failures_before_lock > 0 && row.failures >= rules.failures_before_lock {
        row.locked_until = Some(at.plus(rules.lock()));
    }
    Outcome::Wrong {
        failures: row.failures,
        locked: row.locked_until,
    }
}

/// Forgets lock and failures, as a right PIN would.
pub fn clear(row: &mut Credential) {
    row.failures = 0;
    row.window_started = None;
    row.locked_until = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ids::UserId, policy::BUILT_IN},
        store::credentials::Phc,
    };

    const RULES: Rules = Rules {
        failures_before_lock: 3,
        failure_window: 1,
        lock_duration: 10,
        ..BUILT_IN
    };

    fn row() -> Credential {
        Credential {
            user_id: UserId::new("ana").unwrap(),
            phc: Phc::new(String::new()),
            failures: 0,
            window_started: None,
            locked_until: None,
            must_change: false,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn wrong(failures: u32) -> Outcome {
        Outcome::Wrong {
            failures,
            locked: None,
        }
    }

    const YEAR: i64 = 365 * 24 * 3_600;

    /// A row that is a year ahead, with wrong PINs and with a lock.
    #[test]
    fn what_is_written_of_a_time_far_ahead_is_over() {
        let mut ahead = row();
        for _ in 0..3 {
            decide(&mut ahead, false, at(YEAR), RULES);
        }
        assert_eq!(locked(&ahead, at(YEAR)), Some(at(YEAR + 600)));
        assert_eq!(locked(&ahead, at(0)), None);
        assert_eq!(counted(&ahead, at(0), RULES), 0);
        assert_eq!(
            decide(&mut ahead.clone(), true, at(0), RULES),
            Outcome::Right
        );
        assert_eq!(decide(&mut ahead, false, at(0), RULES), wrong(1));
        // The window alone.
        let mut ahead = row();
        decide(&mut ahead, false, at(YEAR), RULES);
        assert_eq!(decide(&mut ahead, false, at(0), RULES), wrong(1));
        assert_eq!(decide(&mut ahead, false, at(1), RULES), wrong(2));
    }

    /// The longest lock, set by a node that is a little ahead, is one on the others as well.
    #[test]
    fn the_longest_lock_holds_on_nodes_that_are_behind() {
        let rules = Rules {
            lock_duration: *LOCK.end(),
            ..RULES
        };
        let mut row = row();
        for _ in 0..3 {
            decide(&mut row, false, at(30), rules);
        }
        let until = at(30 + 1_440 * 60);
        assert_eq!(
            decide(&mut row, true, at(0), rules),
            Outcome::Locked { until }
        );
    }

    /// Guesses that go to and fro between two nodes are judged no more often than the limit, or once more the limit
    /// where the lock is shorter than the nodes are apart.
    #[test]
    fn nodes_that_are_apart_count_together() {
        for (apart, lock_duration, most) in [(50, 10, 3), (120, 10, 3), (120, 1, 6), (3_600, 1, 6)]
        {
            let rules = Rules {
                lock_duration,
                ..RULES
            };
            for first in [0, apart] {
                let mut row = row();
                let guess = |row: &mut Credential, at_s: i64| {
                    let outcome = decide(row, false, at(at_s), rules);
                    u32::from(matches!(outcome, Outcome::Wrong { .. }))
                };
                // All at one node, then by turns, within half a minute.
                let mut judged = 0;
                for second in 0..10 {
                    judged += guess(&mut row, first + second);
                }
                for second in 10..30 {
                    judged += guess(&mut row, second + if second % 2 == 0 { apart } else { 0 });
                }
                assert!(
                    judged <= most,
                    "{judged} judged, {apart} s apart, first at {first}"
                );
            }
            let mut row = row();
            let by_turns = (0..40).map(|second| {
                let node = if second % 2 == 0 { apart } else { 0 };
                let outcome = decide(&mut row, false, at(second + node), rules);
                u32::from(matches!(outcome, Outcome::Wrong { .. }))
            });
            assert!(by_turns.sum::<u32>() <= 3, "by turns, {apart} s apart");
        }
    }

    #[test]
    fn failures_are_told_while_they_count() {
        let mut row = row();
        decide(&mut row, false, at(0), RULES);
        decide(&mut row, false, at(1), RULES);
        assert_eq!(counted(&row, at(61), RULES), 2);
        assert_eq!(counted(&row, at(62), RULES), 0);
        decide(&mut row, false, at(2), RULES);
        // The lock outlasts the window.
        assert_eq!(counted(&row, at(601), RULES), 3);
        assert_eq!(counted(&row, at(602), RULES), 0);
    }

    #[test]
    fn the_limit_locks_and_a_right_pin_is_not_told_while_locked() {
        let mut row = row();
        assert_eq!(decide(&mut row, false, at(0), RULES), wrong(1));
        assert_eq!(decide(&mut row, false, at(1), RULES), wrong(2));
        assert_eq!(
            decide(&mut row, false, at(2), RULES),
            Outcome::Wrong {
                failures: 3,
                locked: Some(at(602))
            }
        );
        let locked = Outcome::Locked { until: at(602) };
        assert_eq!(decide(&mut row, true, at(3), RULES), locked);
        assert_eq!(decide(&mut row, true, at(601), RULES), locked);
        assert_eq!(decide(&mut row, true, at(602), RULES), Outcome::Right);
        assert_eq!(row.failures, 0);
    }

    #[test]
    fn failures_outside_the_window_are_forgotten() {
        let mut row = row();
        decide(&mut row, false, at(0), RULES);
        decide(&mut row, false, at(50), RULES);
        assert_eq!(decide(&mut row, false, at(111), RULES), wrong(1));
    }

    #[test]
    fn a_right_pin_clears_the_count() {
        let mut row = row();
        decide(&mut row, false, at(0), RULES);
        decide(&mut row, true, at(1), RULES);
        assert_eq!(decide(&mut row, false, at(2), RULES), wrong(1));
    }

    #[test]
    fn where_nothing_locks_failures_are_counted_all_the_same() {
        let rules = Rules {
            failures_before_lock: 0,
            ..RULES
        };
        let mut row = row();
        for failures in 1..200 {
            let outcome = decide(&mut row, false, at(0), rules);
            assert_eq!(outcome, wrong(failures));
        }
        assert_eq!(decide(&mut row, true, at(0), rules), Outcome::Right);
    }

    proptest::proptest! {
        /// Whatever is written in a row: after the most that a policy may give, the right PIN is let in.
        #[test]
        fn nothing_outlasts_what_a_policy_may_give(
            past in proptest::collection::vec((-YEAR..YEAR, 1u32..=1_440, 1u32..=120), 0..60),
            now in -YEAR..YEAR,
        ) {
            let mut row = row();
            for (second, lock_duration, failure_window) in past {
                let rules = Rules { lock_duration, failure_window, ..RULES };
                decide(&mut row, false, at(second), rules);
            }
            let rest = locked(&row, at(now)).map_or(Duration::ZERO, |until| until.since(at(now)));
            proptest::prop_assert!(rest <= LONGEST);
            // Wrong PINs that are further apart than any window and any two nodes are not counted together.
            let mut later = row.clone();
            let first = decide(&mut later, false, at(now), RULES);
            let second = decide(&mut later, false, at(now).plus(LONGEST).plus(APART), RULES);
            if !matches!(first, Outcome::Locked { .. }) {
                proptest::prop_assert_eq!(second, wrong(1));
            }
            // Whoever tries now gets in then, also where a lock that does not count yet would by that time.
            decide(&mut row, true, at(now), RULES);
            proptest::prop_assert_eq!(decide(&mut row, true, at(now).plus(LONGEST), RULES), Outcome::Right);
        }

        #[test]
        fn a_lock_holds_and_comes_in_time(
            steps in proptest::collection::vec(
                // Mostly guesses in quick succession; now and then a pause, or the right PIN.
                (proptest::prop_oneof![9 => 0i64..5, 1 => 0i64..700], proptest::bool::weighted(0.05)),
                1..200,
            ),
        ) {
            let mut row = row();
            // The rule once more, from its description: wrong PINs no more than the window apart are counted.
            let (mut now, mut last, mut wrong, mut locked_until) = (0, i64::MIN / 2, 0, None);
            for (gap, matches) in steps {
                now += gap;
                let outcome = decide(&mut row, matches, at(now), RULES);
                let locked = locked_until.is_some_and(|until| at(now) < until);
                proptest::prop_assert_eq!(
                    locked,
                    matches!(outcome, Outcome::Locked { .. }),
                    "{:?} at {}", outcome, now
                );
                match outcome {
                    Outcome::Wrong { failures, locked } => {
                        if locked_until.take().is_some() {
                            wrong = 0;
                        }
                        wrong = if now - last <= 60 { wrong + 1 } else { 1 };
                        last = now;
                        proptest::prop_assert_eq!(failures, wrong);
                        proptest::prop_assert!(wrong <= RULES.failures_before_lock);
                        // The model's own lock: at the limit, from now on, for so long.
                        if wrong == RULES.failures_before_lock {
                            locked_until = Some(at(now).plus(RULES.lock()));
                        }
                        proptest::prop_assert_eq!(locked, locked_until);
                    }
                    Outcome::Right => (wrong, locked_until) = (0, None),
                    Outcome::Locked { until } => proptest::prop_assert_eq!(Some(until), locked_until),
                }
            }
        }
    }
}
