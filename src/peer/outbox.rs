//! What we owe other clusters: ends of sessions that they have not acknowledged.
//!
//! The debt is in the session rows themselves, written in the transaction that ended the session; this task
//! only delivers. It wakes when a debt is made, when a link comes up, and every few seconds.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::{
    domain::{
        federation::Federation,
        ids::ClusterId,
        login::{Context, HomeCluster, LogoutRequest},
        session::{EndReason, Initiator, Role},
    },
    store::{
        self, Store, Transaction,
        sessions::{self, Session},
    },
    tasks::Tasks,
};

/// What the task is made of.
pub struct Outbox {
    /// Our own cluster.
    pub cluster: ClusterId,
    /// Where the debts are.
    pub store: Store,
    /// Our own home role: a crash between our two rows of a local login leaves a debt to ourselves.
    pub local: Arc<dyn HomeCluster>,
    /// The other clusters.
    pub federation: Arc<dyn Federation>,
    /// Told when a debt is made or a link comes up.
    pub wake: Arc<Notify>,
    /// Ends the task.
    pub tasks: Tasks,
    /// How long one delivery may take.
    pub deadline: Duration,
}

/// How often debts are looked for without a reason.
const INTERVAL: Duration = Duration::from_secs(2);
/// Debts to one cluster that are delivered in one pass.
const BATCH: u32 = 256;

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Delivers until the node shuts down.
    pub async fn run(self) {
        let mut failures: HashMap<ClusterId, String> = HashMap::new();
        loop {
            if let Err(error) = self.pass(&mut failures).await {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "debts to other clusters could not be read"
                );
            }
            tokio::select! {
                biased;
                () = self.tasks.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn pass(&self, failures: &mut HashMap<ClusterId, String>) -> Result<(), store::Error> {
        let creditors = self
            .store
            .read(|tx: &mut dyn Transaction| sessions::counterparts_owed(tx))
            .await?;
        // One cluster that hangs does not hold up the others.
        let outcomes = join_all(creditors.iter().map(|cluster| self.deliver(cluster))).await;
        for (cluster, outcome) in creditors.into_iter().zip(outcomes) {
            match outcome? {
                Ok(0) => {}
                Ok(delivered) => {
                    failures.remove(&cluster);
                    info!(peer.cluster_id = %cluster, delivered, "told cluster {cluster} which sessions have ended");
                }
                Err(cause) => {
                    // Once per cause, not once per pass.
                    if failures.get(&cluster) != Some(&cause) {
                        warn!(peer.cluster_id = %cluster, cause, "cluster {cluster} is still owed ends of sessions");
                        failures.insert(cluster, cause);
                    }
                }
            }
        }
        Ok(())
    }

    /// Delivers in order; stops at the first that can't be delivered.
    async fn deliver(&self, cluster: &ClusterId) -> Result<Result<usize, String>, store::Error> {
        let creditor = if *cluster == self.cluster {
            Some(Arc::clone(&self.local))
        } else {
            self.federation.get(cluster)
        };
        let Some(creditor) = creditor else {
            return Ok(Err("it is no longer configured".to_owned()));
        };
        let owed = {
            let cluster = cluster.clone();
            self.store
                .read(move |tx: &mut dyn Transaction| sessions::owed(tx, &cluster, BATCH))
                .await?
        };
        let mut delivered = Vec::new();
        let mut failure = None;
        for session in &owed {
            match self.tell(creditor.as_ref(), session).await {
                Ok(()) => delivered.push((session.role, session.id)),
                Err(cause) => {
                    failure = Some(cause);
                    break;
                }
            }
        }
        let count = delivered.len();
        if count > 0 {
            let cluster = cluster.clone();
            self.store
                .write(move |tx: &mut dyn Transaction| {
                    for (role, id) in &delivered {
                        sessions::acknowledge(tx, *role, &cluster, *id)?;
                    }
                    Ok::<_, store::Error>(())
                })
                .await?;
        }
        Ok(failure.map_or(Ok(count), Err))
    }

    async fn tell(&self, creditor: &dyn HomeCluster, session: &Session) -> Result<(), String> {
        let context = Context {
            reference: session.reference,
            caller: self.cluster.clone(),
            deadline: Instant::now() + self.deadline,
        };
        let request = LogoutRequest {
            session_id: session.id,
            reason: session.end_reason.unwrap_or(EndReason::Abandoned),
            initiator: match session.role {
                Role::Home => Initiator::Home,
                Role::Visiting => Initiator::Visiting,
            },
        };
        debug!(session.id = %session.id, peer.cluster_id = %creditor.cluster_id(), "delivering an owed end");
        match tokio::time::timeout_at(context.deadline.into(), creditor.logout(&context, request))
            .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(refusal.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}
