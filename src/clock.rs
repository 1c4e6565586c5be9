//! Time as a value.
//!
//! Only this file reads the wall clock. Every node is handed its own [`Clock`], so that nodes of one process
//! can disagree about the time, as machines do.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The present moment for measuring lengths of time. It stands still and goes on as the timers of the runtime do, so
/// that nodes can be run in a time of their own.
#[must_use]
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago `moment` was; zero when it is yet to come.
#[must_use]
pub fn since(moment: Instant) -> Duration {
    instant().saturating_duration_since(moment)
}

/// A point in wall-clock time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Takes Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Gives Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The point `length` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// The point in time that lies `length` before this one.
    #[must_use]
    pub fn minus(self, length: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// That many milliseconds later; earlier where they are negative.
    #[must_use]
    pub const fn shifted(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// The length from `earlier` to this point; zero when `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// Reads the wall clock of one node. Cheap to clone; clones share the offset.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
    simulated: Option<Epoch>,
}

/// What the wall clock of a simulation showed at some moment; it goes on with [`instant`].
#[derive(Clone, Copy, Debug)]
struct Epoch {
    shown: Timestamp,
    at: Instant,
}

impl Clock {
    /// The machine's own clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows `epoch` now and goes on with the timers of the runtime, whatever the machine's shows.
    #[must_use]
    pub fn simulated(epoch: Timestamp) -> Self {
        Self {
            simulated: Some(Epoch {
                shown: epoch,
                at: instant(),
            }),
            ..Self::default()
        }
    }

    /// The present moment, by this node's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let real = match self.simulated {
            Some(epoch) => epoch.shown.plus(since(epoch.at)),
            None => Self::real(),
        };
        let offset = self.offset_ms.load(Ordering::Relaxed);
        Timestamp(real.0.saturating_add(offset))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn real() -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Moves this clock by `millis` against the machine's (may be negative). For the lab.
    pub fn set_offset_millis(&self, millis: i64) {
        self.offset_ms.store(millis, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_an_offset_and_separate_clocks_do_not() {
        let (a, b) = (Clock::system(), Clock::system());
        let a2 = a.clone();
        a.set_offset_millis(3_600_000);
        assert!(a2.now().since(b.now()) > Duration::from_secs(3_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_on_with_the_timers() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000));
        let began = instant();
        assert_eq!(clock.now(), Timestamp::from_millis(1_000));
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(86_401_000));
        assert_eq!(since(began), Duration::from_secs(86_400));
        clock.clone().set_offset_millis(-86_400_000);
        assert_eq!(clock.now(), Timestamp::from_millis(1_000));
        assert_eq!(since(instant() + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_timestamp_prints_as_utc() {
        assert_eq!(
            Timestamp::from_millis(1_000).to_string(),
            "1970-01-01T00:00:01.000Z"
        );
    }
}
