//! Coming to agree with each peer on the sessions that we share: a pull, which mends our own rows and no others.
//!
//! Each enabled peer has a task of its own, and one node at a time works for a peer: it holds the claim on that (see
//! [`claims`]), and each end is written down under it. A pass is due when a link comes up, when the peer says that it
//! has ends for us which it could not deliver, and at least every two heartbeats. Where nothing of ours lives there is
//! nothing to mend, and nobody is asked.
//!
//! When there is a pass is decided here; what one does is in [`pass`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Peers, backoff::Backoff, shared::now, sync};
use crate::{
    chance::Chance,
    clock::{Clock, Timestamp},
    domain::{federation::Links as _, ids::ClusterId},
    store::{
        self, Store, Transaction, agreements,
        claims::{Claim, Task},
        membership::Membership,
        shared,
    },
    tasks::Tasks,
    watch,
};

mod pass;

/// What the tasks are made of.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Where our rows are.
    pub store: Store,
    /// Who is asked.
    pub peers: Peers,
    /// Our place among the nodes that could do this.
    pub membership: Membership,
    /// For the audit.
    pub clock: Clock,
    /// So that not all nodes look at the same moment.
    pub chance: Chance,
    /// Ends the tasks.
    pub tasks: Tasks,
}

/// How long one pass may take; what it has not come to is left to the next one.
const DEADLINE: Duration = Duration::from_secs(20);
/// The least time from one pass to the next, however often the peer rings.
const SPACING: Duration = Duration::from_secs(1);
/// The least of two heartbeats.
const LEAST: Duration = Duration::from_secs(2);

/// How it goes where passes fail: the cause that was told last, and how long to wait for the next one.
struct Failing {
    complaint: Option<String>,
    backoff: Backoff,
}

/// What one peer's task listens to.
struct Serving {
    bell: Arc<Notify>,
    stop: CancellationToken,
    mark: Mark,
}

/// What has happened with a peer; another one is a reason for a pass.
type Mark = (u64, u64, bool);

/// What a pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Rows that were ended.
    pub(super) ended: u64,
    /// Rows that the other side lacks and that are too young to end.
    pub(super) young: u64,
    /// A mass end was held back until then.
    pub(super) held: Option<Timestamp>,
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Exchange(#[from] sync::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Agreement {
    /// Works until the node shuts down.
    pub async fn run(self) {
        let mut serving: BTreeMap<ClusterId, Serving> = BTreeMap::new();
        let mut changes = self.peers.changes();
        let mut claims = self.membership.claims();
        loop {
            changes.mark_unchanged();
            claims.mark_unchanged();
            self.serve_all(&mut serving);
            tokio::select! {
                biased;
                () = self.tasks.cancelled() => return,
                () = changed(&mut changes) => {}
                () = changed(&mut claims) => {}
            }
        }
    }

    /// Begins the tasks of peers that came, ends those of peers that went, and rings where there is a reason.
    fn serve_all(&self, serving: &mut BTreeMap<ClusterId, Serving>) {
        let marks = self.peers.marks();
        serving.retain(|cluster, serving| {
            let stays = marks.contains_key(cluster);
            if !stays {
                serving.stop.cancel();
            }
            stays
        });
        for (cluster, (up, rung)) in marks {
            let is_ours = self.membership.claim(&Task::agreement(&cluster)).is_some();
            let mark = (up, rung, is_ours);
            let one = serving.entry(cluster.clone()).or_insert_with(|| {
                let (bell, stop) = (Arc::new(Notify::new()), self.tasks.token().child_token());
                let task = self.clone().serve(cluster, Arc::clone(&bell), stop.clone());
                self.tasks.spawn("agreement with a cluster", task);
                Serving {
                    bell,
                    stop,
                    mark: Mark::default(),
                }
            });
            if one.mark != mark {
                one.mark = mark;
                one.bell.notify_one();
            }
        }
    }

    /// Works for one peer until it goes, or the node shuts down.
    async fn serve(self, cluster: ClusterId, bell: Arc<Notify>, stop: CancellationToken) {
        let mut failing = Failing {
            complaint: None,
            backoff: Backoff::new(self.period()),
        };
        let mut soonest = Instant::now();
        let mut latest = soonest + self.period();
        loop {
            let due = async {
                tokio::select! {
                    biased;
                    () = bell.notified() => sleep_until(soonest).await,
                    () = sleep_until(latest) => {}
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = due => {}
            }
            let pause = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                pause = self.round(&cluster, &mut failing) => pause,
            };
            soonest = Instant::now() + SPACING;
            latest = Instant::now() + pause.max(SPACING);
        }
        self.membership.let_go(&Task::agreement(&cluster));
    }

    /// Less than two heartbeats, and not the same on all nodes.
    fn period(&self) -> Duration {
        let most = (self.peers.config().heartbeat * 2).max(LEAST);
        most.mul_f64(0.1f64.mul_add(-self.chance.unit(), 0.95))
    }

    /// One pass, if it is ours to do; when the next one is due.
    async fn round(&self, cluster: &ClusterId, failing: &mut Failing) -> Duration {
        let period = self.period();
        let task = Task::agreement(cluster);
        // Where we can't ask it is left to others. A connection that is being replaced is no such case.
        if !self.peers.is_up(cluster) || self.peers.can_sync(cluster) == Some(false) {
            // Nobody is there to leave it to: each flap of a link would be on record for nothing.
            if self.membership.living().borrow().len() > 1 {
                self.membership.let_go(&task);
            }
            return period;
        }
        match self.is_any(cluster).await {
            Ok(true) => self.membership.want(&task),
            Ok(false) => return period,
            Err(error) => {
                complain(cluster, &mut failing.complaint, &error.into());
                return period;
            }
        }
        let Some(claim) = self.membership.claim(&task) else {
            // Whoever waits is rung when it comes.
            return period;
        };
        let began = Instant::now();
        match self.ask(cluster, &claim).await {
            Ok(passed) => {
                failing.complaint = None;
                failing.backoff.reset();
                tell(cluster, passed, Instant::now().duration_since(began));
                match (passed.held, self.now().await) {
                    (Some(until), Ok(now)) => period.min(until.since(now)),
                    _ => period,
                }
            }
            // Whoever has taken over does what is left.
            Err(Failed::Store(store::Error::ClaimLost { .. })) => period,
            Err(failed) => {
                complain(cluster, &mut failing.complaint, &failed);
                failing.backoff.next_delay(self.chance.u32())
            }
        }
    }

    /// Whether there is anything to compare: something of ours lives, or is on record as held back.
    async fn is_any(&self, cluster: &ClusterId) -> Result<bool, store::Error> {
        let cluster = cluster.clone();
        self.store
            .read(move |tx: &mut dyn Transaction| {
                let is_held = agreements::get(tx, &cluster)?.held_since.is_some();
                Ok(is_held || shared::is_any(tx, &cluster)?)
            })
            .await
    }

    async fn ask(&self, cluster: &ClusterId, claim: &Claim) -> Result<Passed, Failed> {
        let start = self.start(cluster).await?;
        let deadline = now() + DEADLINE;
        let begun = self.peers.exchange(cluster, &start.digests, deadline).await;
        let (exchange, theirs) = begun?;
        self.pass(cluster, claim, start, &theirs, exchange).await
    }
}

fn tell(cluster: &ClusterId, passed: Passed, took: Duration) {
    let Passed { ended, young, held } = passed;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if ended > 0 {
        info!(
            peer.cluster_id = %cluster, ended, took_ms,
            "ended {ended} sessions that did not live at cluster {cluster} any more"
        );
    } else {
        debug!(
            peer.cluster_id = %cluster, young, held = held.is_some(), took_ms,
            "compared sessions with cluster {cluster}"
        );
    }
}

/// Once per cause, not per attempt.
fn complain(cluster: &ClusterId, complaint: &mut Option<String>, failed: &Failed) {
    let cause = crate::telemetry::error_chain(failed);
    if complaint.as_ref() != Some(&cause) {
        warn!(
            peer.cluster_id = %cluster, cause,
            "sessions could not be compared with cluster {cluster}; it is tried again"
        );
        *complaint = Some(cause);
    }
}

/// Waits for a change; for ever when there can be none any more.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
