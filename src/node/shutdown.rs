//! How a node ends: in steps, so that what is under way finds what it needs.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::tasks::Tasks;

/// The tasks of a node, by when they end.
#[derive(Clone, Debug)]
pub(super) struct Stages {
    /// What accepts from outside, and the calls that came in; it ends first.
    pub(super) doors: Tasks,
    /// Logins and logouts whose callers may be gone by now, the admin socket, and whatever runs by itself.
    pub(super) work: Tasks,
    /// The links to peers: all of the others need them to their end.
    pub(super) links: Tasks,
}

impl Stages {
    /// What links have to end in, if nothing of the grace is left. They do it at once.
    const LEAST: Duration = Duration::from_millis(250);

    /// Tasks whose log lines carry `span`.
    pub(super) fn in_span(span: &Span) -> Self {
        let tasks = || Tasks::in_span(span.clone());
        Self {
            doors: tasks(),
            work: tasks(),
            links: tasks(),
        }
    }

    /// Tells everything to end, without waiting: of a node that did not come to be.
    pub(super) fn cancel(&self) {
        self.doors.cancel();
        self.work.cancel();
        self.links.cancel();
    }

    /// Ends one after the other. The grace is for all of them together.
    pub(super) async fn shut_down(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.doors.shut_down_by(deadline).await;
        self.work.shut_down_by(deadline).await;
        let least = Instant::now() + Self::LEAST;
        self.links.shut_down_by(deadline.max(least)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test]
    async fn links_stay_up_until_the_last_work_is_done() {
        let stages = Stages::in_span(&Span::none());
        let link = stages.links.clone();
        stages
            .links
            .spawn("link", async move { link.cancelled().await });
        // A login whose phone has hung up: the doors are empty.
        let (work, links) = (stages.work.clone(), stages.links.clone());
        let answered = Arc::new(Notify::new());
        let answer = Arc::clone(&answered);
        let login = stages.work.spawn("login", async move {
            answer.notified().await;
            (work.is_shutting_down(), links.is_shutting_down())
        });
        let ending = stages.clone();
        let ended = stages.links.spawn("test", async move {
            ending.shut_down(Duration::from_secs(60)).await;
        });
        timeout(Duration::from_secs(20), stages.work.cancelled())
            .await
            .unwrap();
        assert!(!stages.links.is_shutting_down());
        answered.notify_one();
        let seen = timeout(Duration::from_secs(20), login).await.unwrap();
        assert_eq!(seen.unwrap(), (true, false));
        timeout(Duration::from_secs(20), stages.links.cancelled())
            .await
            .unwrap();
        ended.abort();
    }

    #[tokio::test]
    async fn what_hangs_costs_the_grace_once() {
        const GRACE: Duration = Duration::from_secs(1);
        let stages = Stages::in_span(&Span::none());
        for tasks in [&stages.doors, &stages.work, &stages.links] {
            tasks.spawn("hangs", pending::<()>());
        }
        let began = Instant::now();
        stages.shut_down(GRACE).await;
        let took = began.elapsed();
        assert!(GRACE <= took && took < GRACE * 2, "{took:?}");
    }
}
