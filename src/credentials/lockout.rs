//! When wrong PINs lock a user out. Pure.
//!
//! ```text
//! open --wrong, fewer than the limit in the window--> open (counted)
//! open --wrong, the limit reached-------------------> locked until now + lock duration
//! locked --time over--------------------------------> open (count from zero)
//! open --right--------------------------------------> open (count from zero)
//! ```
//! While locked, no PIN is right and no failure is counted.

use crate::{clock::Timestamp, domain::policy::Rules, store::credentials::Credential};

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
    },
}

/// Decides on one verified attempt, and writes the new counters into the row.
pub fn decide(row: &mut Credential, matches: bool, now: Timestamp, rules: Rules) -> Outcome {
    if let Some(until) = row.locked_until {
        if now < until {
            return Outcome::Locked { until };
        }
        clear(row);
    }
    if matches {
        clear(row);
        return Outcome::Right;
    }
    let in_window = row
        .window_started
        .is_some_and(|last| now.since(last) <= rules.window());
    row.failures = if in_window {
        row.failures.saturating_add(1)
    } else {
        1
    };
    row.window_started = Some(now);
    if rules.failures_before_lock > 0 && row.failures >= rules.failures_before_lock {
        row.locked_until = Some(now.plus(rules.lock()));
    }
    Outcome::Wrong {
        failures: row.failures,
    }
}

fn clear(row: &mut Credential) {
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

    #[test]
    fn the_limit_locks_and_a_right_pin_is_not_told_while_locked() {
        let mut row = row();
        assert_eq!(
            decide(&mut row, false, at(0), RULES),
            Outcome::Wrong { failures: 1 }
        );
        assert_eq!(
            decide(&mut row, false, at(1), RULES),
            Outcome::Wrong { failures: 2 }
        );
        assert_eq!(
            decide(&mut row, false, at(2), RULES),
            Outcome::Wrong { failures: 3 }
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
        assert_eq!(
            decide(&mut row, false, at(111), RULES),
            Outcome::Wrong { failures: 1 }
        );
    }

    #[test]
    fn a_right_pin_clears_the_count() {
        let mut row = row();
        decide(&mut row, false, at(0), RULES);
        decide(&mut row, true, at(1), RULES);
        assert_eq!(
            decide(&mut row, false, at(2), RULES),
            Outcome::Wrong { failures: 1 }
        );
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
            assert_eq!(outcome, Outcome::Wrong { failures });
        }
        assert_eq!(decide(&mut row, true, at(0), rules), Outcome::Right);
    }

    proptest::proptest! {
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
                    Outcome::Wrong { failures } => {
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
                    }
                    Outcome::Right => (wrong, locked_until) = (0, None),
                    Outcome::Locked { until } => proptest::prop_assert_eq!(Some(until), locked_until),
                }
            }
        }
    }
}
