//! When wrong PINs lock a user out. Pure.
//!
//! ```text
//! open --wrong, fewer than the limit in the window--> open (counted)
//! open --wrong, the limit reached-------------------> locked until now + lock duration
//! locked --time over--------------------------------> open (count from zero)
//! open --right--------------------------------------> open (count from zero)
//! ```
//! While locked, no PIN is right and no failure is counted.

use std::time::Duration;

use crate::{clock::Timestamp, store::credentials::Credential};

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// This many wrong PINs within the window lock the user.
    pub failures_before_lock: u32,
    /// The window, sliding from the last failure.
    pub window: Duration,
    /// How long the lock lasts.
    pub lock: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            failures_before_lock: 5,
            window: Duration::from_secs(30 * 60),
            lock: Duration::from_secs(15 * 60),
        }
    }
}

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
        .is_some_and(|last| now.since(last) <= rules.window);
    row.failures = if in_window {
        row.failures.saturating_add(1)
    } else {
        1
    };
    row.window_started = Some(now);
    if row.failures >= rules.failures_before_lock {
        row.locked_until = Some(now.plus(rules.lock));
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
    use crate::{domain::ids::UserId, store::credentials::Phc};

    const RULES: Rules = Rules {
        failures_before_lock: 3,
        window: Duration::from_secs(60),
        lock: Duration::from_secs(600),
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

    proptest::proptest! {
        #[test]
        fn never_more_counted_failures_than_the_limit_per_lock_time(steps in proptest::collection::vec((0i64..30, proptest::bool::ANY), 1..200)) {
            let mut row = row();
            let mut now = 0;
            let mut counted: Vec<i64> = Vec::new();
            for (gap, matches) in steps {
                now += gap;
                match decide(&mut row, matches, at(now), RULES) {
                    Outcome::Wrong { .. } => counted.push(now),
                    Outcome::Right => counted.clear(),
                    Outcome::Locked { .. } => {}
                }
                let recent = counted.iter().filter(|t| now - **t < 600).count();
                let per_lock = usize::try_from(RULES.failures_before_lock).unwrap();
                // Failures that fell out of the window before the lock may come on top, never beyond ten windows' worth.
                proptest::prop_assert!(recent <= per_lock * 10);
                if let Some(until) = row.locked_until {
                    proptest::prop_assert!(until <= at(now).plus(RULES.lock));
                }
            }
        }
    }
}
