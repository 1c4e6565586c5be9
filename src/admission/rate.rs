//! How long requests take, from those that are through, and what that means for one that waits. Pure.

use std::time::{Duration, Instant};

/// Length of recent requests, smoothed; zero before the first.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    length: Duration,
    /// When the last of them ended.
    learned: Instant,
}

/// After this long without a request, half as much of the estimate is believed: one that is out of date must not
/// refuse for ever, and refusing must not make it smaller, or a rush talks itself into the line.
const HALF_LIFE: Duration = Duration::from_secs(10);

impl Rate {
    /// Knows nothing yet.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self::known(Duration::ZERO, now)
    }

    /// As if recent requests had taken so long.
    #[must_use]
    pub const fn known(length: Duration, now: Instant) -> Self {
        Self {
            length,
            learned: now,
        }
    }

    /// Counts one more in: a quarter of the estimate is the newest.
    pub fn learn(&mut self, took: Duration, now: Instant) {
        self.length = if self.length.is_zero() {
            took
        } else {
            self.length / 4 * 3 + took / 4
        };
        self.learned = now;
    }

    /// What a request is expected to take.
    #[must_use]
    pub fn length(&self, now: Instant) -> Duration {
        let age = now.saturating_duration_since(self.learned);
        let halvings = u32::try_from(age.as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX);
        self.length / 2_u32.saturating_pow(halvings)
    }

    /// When the turn comes of one that has `ahead` before it in the line, with all of `places` taken: they become
    /// free one after the other, so many within the length of one request.
    #[must_use]
    pub fn wait(&self, ahead: usize, places: usize, now: Instant) -> Duration {
        let turns = u32::try_from(ahead.saturating_add(1)).unwrap_or(u32::MAX);
        let places = u32::try_from(places.max(1)).unwrap_or(u32::MAX);
        self.length(now).saturating_mul(turns) / places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_estimate_fades_with_time_and_not_by_asking() {
        let start = Instant::now();
        let rate = Rate::known(SECOND * 8, start);
        assert_eq!(rate.length(start + SECOND * 5), SECOND * 8);
        assert_eq!(rate.length(start + SECOND * 25), SECOND * 2);
        assert!(rate.length(start + SECOND * 10_000_000) < Duration::from_micros(1));
    }

    #[test]
    fn one_slow_request_is_recovered_from() {
        let start = Instant::now();
        let mut rate = Rate::known(SECOND * 60, start);
        for _ in 0..20 {
            rate.learn(Duration::from_millis(1), start);
        }
        assert!(rate.length(start) < SECOND);
    }

    #[test]
    fn the_wait_is_what_the_places_let_through() {
        let start = Instant::now();
        let rate = Rate::known(SECOND, start);
        assert_eq!(rate.wait(0, 2, start), SECOND / 2);
        assert_eq!(rate.wait(199, 2, start), SECOND * 100);
        assert_eq!(rate.wait(199, 0, start), SECOND * 200);
        assert_eq!(Rate::new(start).wait(usize::MAX, 1, start), Duration::ZERO);
    }
}
