//! Steps of this node's own wall clock. Nothing of a session goes by it; certificates and whatever people read do: each
//! is told in the log, counted, and shown by `emccd doctor`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    clock::{self, Clock, Timestamp},
    domain::cluster_time::StepWatch,
    tasks::Tasks,
    wire::admin as pb,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

/// What was seen since the node's start. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockSteps(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    watch: StepWatch,
    count: u64,
    newest: Option<Newest>,
}

/// The newest step.
#[derive(Clone, Copy, Debug)]
struct Newest {
    by_ms: i64,
    /// What the clock showed when it was seen.
    shown: Timestamp,
    seen: Instant,
}

impl ClockSteps {
    /// Looks until the node shuts down.
    pub(super) async fn watch(self, clock: Clock, tasks: Tasks) {
        let watching = async {
            loop {
                self.look(clock.now(), clock::instant());
                tokio::time::sleep(LOOK).await;
            }
        };
        tasks.token().run_until_cancelled(watching).await;
    }

    /// Looks at both clocks, and tells of a step.
    fn look(&self, wall: Timestamp, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(step) = seen.watch.look(wall, now) else {
            return;
        };
        seen.count += 1;
        seen.newest = Some(Newest {
            by_ms: step.by_ms,
            shown: wall,
            seen: now,
        });
        drop(seen);
        let which = if step.by_ms < 0 { "back" } else { "forth" };
        warn!(
            alarm = "clock_step",
            by_ms = step.by_ms,
            "this node's wall clock was set {which} by {} s: sessions don't go by it, but certificates and the times in logs \
             and audit do; look with timedatectl status what keeps its time",
            step.by_ms.unsigned_abs() / 1_000
        );
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// As an operator is told of it at `now`; nothing when there was none.
    pub(super) fn told(&self, now: Instant) -> Option<pb::ClockStep> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = seen.newest?;
        let ago = now.saturating_duration_since(newest.seen).as_millis();
        Some(pb::ClockStep {
            by_ms: newest.by_ms,
            shown: newest.shown.to_string(),
            ago_ms: u64::try_from(ago).unwrap_or(u64::MAX),
            count: seen.count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[tokio::test(start_paused = true)]
    async fn steps_are_counted_and_the_newest_one_is_told() {
        let clock = Clock::simulated(Timestamp::from_millis(DAY_MS));
        let (steps, tasks) = (ClockSteps::default(), Tasks::default());
        tasks.spawn("steps", steps.clone().watch(clock.clone(), tasks.clone()));
        let pass = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        pass(3_601).await;
        assert_eq!((steps.count(), steps.told(clock::instant())), (0, None));
        // Within the bound.
        clock.set_offset_millis(900);
        pass(4).await;
        assert_eq!(steps.count(), 0);
        clock.set_offset_millis(900 + DAY_MS);
        pass(4).await;
        clock.set_offset_millis(900 - 2_500);
        pass(62).await;
        let told = steps.told(clock::instant()).unwrap();
        assert_eq!((told.count, told.by_ms), (2, -DAY_MS - 2_500));
        assert!((60_000..=62_000).contains(&told.ago_ms), "{told:?}");
        assert!(told.shown.starts_with("1970-01-02T01:0"), "{told:?}");
        tasks.cancel();
    }
}
