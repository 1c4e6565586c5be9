//! Places that are taken for the length of a piece of work, and the line of those who wait for one.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::oneshot,
    time::{sleep_until, timeout_at},
};

use super::{
    line::{Line, Source},
    rate::Rate,
};
use crate::{clock, watch};

/// What there is of a kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many may be taken at a time.
    pub places: usize,
    /// How many may wait for one.
    pub line: usize,
    /// Whether a request takes about as long as the others did, so that what is left after the wait must be that
    /// long. Not so where it depends on who is asked.
    pub alike: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It could not be done by the deadline, or the line is full.
    #[error("all {places} places are taken and {waiting} wait for one")]
    Busy {
        /// How many there are.
        places: usize,
        /// How many waited at that moment.
        waiting: usize,
        /// When it is worth trying again, by the rate at which places become free.
        retry_after: Duration,
    },
    /// The node ends.
    #[error("the node is shutting down")]
    Closed,
}

/// Nobody is told to come back sooner.
const LEAST_RETRY: Duration = Duration::from_millis(100);
/// Nor later: whatever the line is like now, it will be another one by then.
const MOST_RETRY: Duration = Duration::from_secs(60);

impl Refused {
    /// When it is worth trying again.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            // Another node of the cluster, or this one's next start.
            Self::Closed => Duration::from_secs(1),
        }
    }
}

/// Until when it is of use to wait: the answer has a way to go, and what is asked for takes its time as well.
fn last_moment(deadline: Instant) -> Instant {
    /// What is kept back of a short time, as its part, and of a long one.
    const PART: u32 = 8;
    const MOST: Duration = Duration::from_millis(200);
    let left = deadline.saturating_duration_since(clock::instant());
    deadline
        .checked_sub((left / PART).min(MOST))
        .unwrap_or(deadline)
}

/// What a pool has done and does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Places taken now.
    pub running: usize,
    /// Requests that wait now.
    pub waiting: usize,
    /// Requests that got a place, so far.
    pub admitted: u64,
    /// Requests that were refused one, so far.
    pub refused: u64,
}

/// Places, and who waits for them. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    state: Mutex<State>,
    /// From then on nobody waits any longer.
    closing: watch::Sender<Option<Instant>>,
}

struct State {
    places: usize,
    running: usize,
    line: Line<oneshot::Sender<Turn>>,
    rate: Rate,
    /// When the newest of those that run got its place: nothing that runs is younger.
    began: Instant,
    admitted: u64,
    refused: u64,
}

/// What one who waits is told.
type Turn = Result<Permit, Refused>;

/// A place, until it is dropped.
#[must_use = "the place is free again when this is dropped"]
pub struct Permit {
    /// None when there is nothing to give back any more.
    shared: Option<Arc<Shared>>,
    /// When the work began; none until somebody has it.
    began: Option<Instant>,
}

/// One who waits, taken out of the line when it is dropped.
struct InLine<'a> {
    shared: &'a Shared,
    source: &'a Source,
    number: u64,
}

impl Pool {
    /// All places free.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State {
            places: config.places.max(1),
            running: 0,
            line: Line::default(),
            rate: Rate::new(clock::instant()),
            began: clock::instant(),
            admitted: 0,
            refused: 0,
        };
        Self {
            shared: Arc::new(Shared {
                config,
                state: Mutex::new(state),
                closing: watch::Sender::new(None),
            }),
        }
    }

    /// A place for a piece of work that must be done by `deadline`; without one it waits as long as it takes.
    ///
    /// Cancel safe: whoever goes away leaves the line, and a place that was just given is free again.
    ///
    /// # Errors
    /// [`Refused::Busy`], at once where it is known that the deadline can't be kept or the line is full;
    /// [`Refused::Closed`] when the node ends before there is a place.
    pub async fn enter(
        &self,
        source: &Source,
        deadline: Option<Instant>,
    ) -> Result<Permit, Refused> {
        let (number, turn) = match self.shared.arrive(source, deadline)? {
            Arrived::At(permit) => return Ok(permit.begin(clock::instant())),
            Arrived::InLine(number, turn) => (number, turn),
        };
        let in_line = InLine {
            shared: &self.shared,
            source,
            number,
        };
        let turn = async { turn.await.unwrap_or(Err(Refused::Closed)) };
        let turn = async {
            match deadline {
                None => turn.await,
                Some(deadline) => timeout_at(last_moment(deadline).into(), turn)
                    .await
                    .unwrap_or_else(|_| Err(self.shared.busy(source))),
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = turn => outcome,
            () = self.shared.closed() => Err(Refused::Closed),
        };
        drop(in_line);
        let permit = outcome.inspect_err(|_| self.shared.state().refused += 1)?;
        // The wait may have taken longer than expected: what ends too late is work for nobody, and the next in line
        // may still be in time.
        let now = clock::instant();
        if deadline.is_some_and(|deadline| now + self.shared.own_length(now) >= deadline) {
            self.shared.state().refused += 1;
            return Err(self.shared.busy(source));
        }
        Ok(permit.begin(now))
    }

    /// Changes how many there are. More are given out at once; with fewer, those that are taken stay so.
    pub fn set_places(&self, places: usize) {
        self.shared.state().places = places.max(1);
        Shared::grant(&self.shared);
    }

    /// From `at` on nobody waits any longer, and what then finds no free place is refused.
    pub fn close_at(&self, at: Instant) {
        self.shared.closing.send_replace(Some(at));
    }

    /// What it has done and does.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.shared.state();
        Counts {
            running: state.running,
            waiting: state.line.len(),
            admitted: state.admitted,
            refused: state.refused,
        }
    }

    /// What a request is expected to take.
    #[must_use]
    pub fn expected(&self) -> Duration {
        self.shared.state().rate.length(clock::instant())
    }

    /// As if recent requests had taken so long.
    #[cfg(test)]
    pub(crate) fn expect(&self, length: Duration) {
        self.shared.state().rate = Rate::known(length, clock::instant());
    }
}

enum Arrived {
    At(Permit),
    InLine(u64, oneshot::Receiver<Turn>),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Counters are whole even if a holder panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(
        self: &Arc<Self>,
        source: &Source,
        deadline: Option<Instant>,
    ) -> Result<Arrived, Refused> {
        let now = clock::instant();
        let is_closed = self.closing.borrow().is_some_and(|at| at <= now);
        let mut state = self.state();
        let is_late = deadline.is_some_and(|deadline| deadline <= now);
        // With a place to spare, trying costs nobody anything, whatever recent requests took.
        if state.running < state.places && state.line.is_empty() && !is_late {
            state.running += 1;
            state.began = now;
            return Ok(Arrived::At(Permit::new(self)));
        }
        let mut shed = None;
        let refused = if is_closed {
            Some(Refused::Closed)
        } else if let Some(deadline) = deadline {
            let ahead = state.line.ahead(source);
            let expected = state.rate.wait(ahead, state.places, now) + self.own(&state, now);
            if is_late || expected > deadline.saturating_duration_since(now) {
                Some(state.busy(source, self.own(&state, now), now))
            } else if state.line.len() >= self.config.line {
                shed = state.line.shed(source);
                let is_full = shed.is_none();
                is_full.then(|| state.busy(source, self.own(&state, now), now))
            } else {
                None
            }
        } else {
            None
        };
        if let Some(refused) = refused {
            state.refused += 1;
            return Err(refused);
        }
        let (sender, turn) = oneshot::channel();
        let number = state.line.push(source, sender);
        let all = state.rate.wait(state.line.len(), state.places, now);
        let (places, waiting) = (state.places, state.line.len());
        drop(state);
        if let Some(shed) = shed {
            // Who is gone needs no answer.
            let _ = shed.send(Err(Refused::Busy {
                places,
                waiting,
                retry_after: all.clamp(LEAST_RETRY, MOST_RETRY),
            }));
        }
        // A place may have become free while others were in the line that have left it since.
        Self::grant(self);
        Ok(Arrived::InLine(number, turn))
    }

    /// Gives free places to those whose turn it is.
    fn grant(shared: &Arc<Self>) {
        loop {
            let mut state = shared.state();
            if state.running >= state.places {
                return;
            }
            let Some(next) = state.line.pop() else {
                return;
            };
            state.running += 1;
            state.began = clock::instant();
            drop(state);
            if let Err(Ok(mut permit)) = next.send(Ok(Permit::new(shared))) {
                // They went away a moment ago. Taken back here, since a permit that is dropped comes here again.
                permit.shared = None;
                shared.state().running -= 1;
            }
        }
    }

    /// What the work itself will take, where that can be told from the others.
    fn own(&self, state: &State, now: Instant) -> Duration {
        if self.config.alike {
            state.rate.length(now)
        } else {
            Duration::ZERO
        }
    }

    fn own_length(&self, now: Instant) -> Duration {
        self.own(&self.state(), now)
    }

    fn busy(&self, source: &Source) -> Refused {
        let (now, state) = (clock::instant(), self.state());
        state.busy(source, self.own(&state, now), now)
    }

    /// Completes when nobody is to wait any longer. Cancel safe.
    async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // We hold the sender; an earlier time may follow a later one.
        while let Ok(at) = closing.wait_for(Option::is_some).await.map(|at| *at) {
            let Some(at) = at else { continue };
            tokio::select! {
                biased;
                () = sleep_until(at.into()) => return,
                changed = closing.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl State {
    fn busy(&self, source: &Source, own: Duration, now: Instant) -> Refused {
        let ahead = self.line.ahead(source);
        let expected = self.rate.wait(ahead, self.places, now) + own;
        // What holds all places may be slower than all that are through: it takes as long as it has taken already.
        let age = now.saturating_duration_since(self.began);
        let expected = if self.running >= self.places && age > self.rate.length(now) {
            expected.max(Rate::known(age, now).wait(ahead, self.places, now).max(age))
        } else {
            expected
        };
        Refused::Busy {
            places: self.places,
            waiting: self.line.len(),
            retry_after: expected.clamp(LEAST_RETRY, MOST_RETRY),
        }
    }
}

impl Permit {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Some(Arc::clone(shared)),
            began: None,
        }
    }

    /// Somebody has it, in time.
    fn begin(mut self, now: Instant) -> Self {
        self.began = Some(now);
        if let Some(shared) = &self.shared {
            shared.state().admitted += 1;
        }
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let now = clock::instant();
        let mut state = shared.state();
        state.running -= 1;
        if let Some(began) = self.began {
            state.rate.learn(now.saturating_duration_since(began), now);
        }
        drop(state);
        Shared::grant(&shared);
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.shared.state().line.remove(self.source, self.number);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.shared.config)
            .field("counts", &self.counts())
            .finish()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
