//! Named, tracked tasks and the token that ends them. Nothing else in the daemon spawns.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span, debug, error, warn};

/// The tasks of one node. Cheap to clone; clones share the token and the tracker.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    span: Option<Span>,
    running: Running,
    /// All that were begun, so that a test can end them as a crash does.
    #[cfg(test)]
    begun: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
}

/// How many tasks of each name run.
type Running = Arc<Mutex<BTreeMap<&'static str, usize>>>;

/// Counts one task for as long as it lives, however it ends.
struct Counted {
    name: &'static str,
    running: Running,
}

impl Counted {
    fn new(name: &'static str, running: &Running) -> Self {
        *running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
        Self {
            name,
            running: Arc::clone(running),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(
                task = self.name,
                "a task panicked: this is a bug; what it did is no longer done"
            );
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

impl Tasks {
    /// A set of tasks whose log lines carry `span` (the node they belong to).
    #[must_use]
    pub fn in_span(span: Span) -> Self {
        Self {
            span: Some(span),
            ..Self::default()
        }
    }

    /// Starts a task. It should end soon after [`Tasks::cancelled`] does.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let counted = Counted::new(name, &self.running);
        let named = async move {
            let _counted = counted;
            let output = task.await;
            debug!(task = name, "task ended");
            output
        };
        let begun = match &self.span {
            Some(span) => tokio::spawn(self.tracker.track_future(named.instrument(span.clone()))),
            None => tokio::spawn(self.tracker.track_future(named)),
        };
        #[cfg(test)]
        self.note(begun.abort_handle());
        begun
    }

    #[cfg(test)]
    fn note(&self, begun: tokio::task::AbortHandle) {
        let mut all = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|task| !task.is_finished());
        }
        all.push(begun);
    }

    /// Ends every task where it stands, as a crash would.
    #[cfg(test)]
    pub(crate) fn abort_all(&self) {
        let mut all = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for task in all.drain(..) {
            task.abort();
        }
        self.token.cancel();
    }

    /// How many tasks of that name run.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(name).copied().unwrap_or_default()
    }

    /// Completes when the node begins to shut down. Cancel safe.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the node has begun to shut down.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The token itself, for parts that need a child of it.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Tells every task to end, without waiting for them.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Tells every task to end and waits for them, at most `grace`.
    pub async fn shut_down(&self, grace: Duration) {
        self.shut_down_by(Instant::now() + grace).await;
    }

    /// Tells every task to end and waits for them, at most until that moment.
    pub async fn shut_down_by(&self, deadline: Instant) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout_at(deadline, self.tracker.wait())
            .await
            .is_err()
        {
            let running = self
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            warn!(?running, "tasks were still running after the grace period");
        }
    }
}
