//! How long to wait before the next attempt: grows, is jittered, never passes the cap. Pure.

use std::time::Duration;

/// The delays of one link. Time and randomness are handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays that end at `cap`.
    #[must_use]
    pub const fn new(cap: Duration) -> Self {
        Self { cap, failures: 0 }
    }

    /// The delay after one more failure; `random` is any number, and chooses within the jitter.
    ///
    /// The base doubles from [`Backoff::FIRST`] to the cap; the delay lies between half of the base and
    /// the base, so that peers that failed together don't come back together.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let base = Self::FIRST
            .saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1).min(31);
        let half = base / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The next failure is the first one again: there was a sign of life.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The base of the first delay: a peer that restarts is back within a few of these.
    pub const FIRST: Duration = Duration::from_millis(50);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_is_never_above_the_cap_nor_below_half_of_the_first(
            cap_ms in 1u64..10_000,
            draws in proptest::collection::vec(any::<u32>(), 1..60),
        ) {
            let cap = Duration::from_millis(cap_ms);
            let mut backoff = Backoff::new(cap);
            for random in draws {
                let delay = backoff.next_delay(random);
                prop_assert!(delay <= cap);
                prop_assert!(delay >= Backoff::FIRST.min(cap) / 2);
            }
        }

        #[test]
        fn with_the_same_draw_delays_never_shrink(random in any::<u32>()) {
            let mut backoff = Backoff::new(Duration::from_secs(60));
            let delays: Vec<_> = (0..40).map(|_| backoff.next_delay(random)).collect();
            prop_assert!(delays.is_sorted());
        }
    }

    #[test]
    fn a_reset_begins_again() {
        let mut backoff = Backoff::new(Duration::from_millis(500));
        for _ in 0..10 {
            backoff.next_delay(u32::MAX);
        }
        assert_eq!(backoff.next_delay(u32::MAX), Duration::from_millis(500));
        backoff.reset();
        assert_eq!(backoff.next_delay(u32::MAX), Backoff::FIRST);
    }

    #[test]
    fn the_draw_spreads_over_half_of_the_base() {
        let delay = |random| Backoff::new(Duration::from_secs(1)).next_delay(random);
        assert_eq!(delay(0), Backoff::FIRST / 2);
        assert_eq!(delay(u32::MAX), Backoff::FIRST);
    }
}
