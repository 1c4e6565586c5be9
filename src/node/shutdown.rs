//! How a node ends: in steps, so that what is under way finds what it needs.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{domain::phase::Phase, tasks::Tasks, watch};

/// The tasks of a node, by when they end.
#[derive(Clone, Debug)]
pub(super) struct Stages {
    /// Cancelled first, while everything still runs: whoever may choose another node is told to.
    pub(super) drain: CancellationToken,
    /// Where the node is in its life, for health checks.
    phase: watch::Sender<Phase>,
    /// What accepts from outside, and the calls that came in; it ends first.
    pub(super) doors: Tasks,
    /// What keeps the node on record. It is off it before `work` ends, the admin socket among that: whoever starts next
    /// under its name knows that it ended by itself, and that its logins are not to be given up.
    pub(super) standing: Tasks,
    /// Logins and logouts whose callers may be gone by now, the admin socket, and whatever runs by itself.
    pub(super) work: Tasks,
    /// The links to peers: all of the others need them to their end.
    pub(super) links: Tasks,
}

impl Stages {
    /// What links, and leaving the record, have to end in, if nothing of the grace is left. They do it at once.
    const LEAST: Duration = Duration::from_millis(250);

    /// How long others have to turn to another node before connections are ended: a round trip to the far side of the
    /// world. It is part of the grace, and a quarter of it at most.
    const NOTICE: Duration = Duration::from_millis(250);

    /// Tasks whose log lines carry `span`.
    pub(super) fn in_span(span: &Span) -> Self {
        let tasks = || Tasks::in_span(span.clone());
        Self {
            drain: CancellationToken::new(),
            phase: watch::Sender::default(),
            doors: tasks(),
            standing: tasks(),
            work: tasks(),
            links: tasks(),
        }
    }

    /// Tells everything to end, without waiting: of a node that did not come to be.
    pub(super) fn cancel(&self) {
        self.drain.cancel();
        self.doors.cancel();
        self.standing.cancel();
        self.work.cancel();
        self.links.cancel();
    }

    /// All parts are there.
    pub(super) fn serving(&self) {
        self.phase.send_replace(Phase::Serving);
    }

    /// Where the node is in its life, now and from now on.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Tells that the node ends, and then ends one stage after the other. The grace is for all of it together.
    pub(super) async fn shut_down(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.phase.send_replace(Phase::Draining);
        self.drain.cancel();
        sleep(Self::NOTICE.min(grace / 4)).await;
        self.doors.shut_down_by(deadline).await;
        let least = Instant::now() + Self::LEAST;
        self.standing.shut_down_by(deadline.max(least)).await;
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
        let (mut phase, doors) = (stages.phase(), stages.doors.clone());
        stages.serving();
        let (leaving, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (standing, leaves, may) = (
            stages.standing.clone(),
            Arc::clone(&leaving),
            Arc::clone(&left),
        );
        stages.standing.spawn("membership", async move {
            standing.cancelled().await;
            leaves.notify_one();
            may.notified().await;
        });
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
        // Whoever can go elsewhere is told while the doors are open.
        let told = phase.wait_for(|phase| !phase.is_ready());
        let told = timeout(Duration::from_secs(20), told).await.unwrap();
        assert_eq!(*told.unwrap(), Phase::Draining);
        timeout(Duration::from_secs(20), stages.drain.cancelled())
            .await
            .unwrap();
        assert!(!doors.is_shutting_down());
        // Nobody is on record whose admin socket has closed.
        timeout(Duration::from_secs(20), leaving.notified())
            .await
            .unwrap();
        assert!(doors.is_shutting_down() && !stages.work.is_shutting_down());
        left.notify_one();
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
