//! What we owe other clusters: ends of sessions that they have not acknowledged.
//!
//! The debt is in the session rows themselves, written in the transaction that ended the session; the tasks
//! here only deliver. Each creditor has one of its own, so that one that hangs holds up nobody else. It is rung
//! when a debt is made, when a link comes up, and every few seconds as long as it is owed anything.
//!
//! One node at a time delivers to a creditor: it holds the claim on that (see [`claims`]), and each acknowledgement is
//! written down under it. A node whose link is down lets go of the claim, so that one with a link may have it; what
//! another node owes is seen by the change in the store.
//!
//! A debt that the creditor refuses, though it is well, is parked in its row with the reason: the later ones go on, and
//! it is told again once when a link comes up, or when an operator says so. One that it fails to take (a full disk, for
//! example) is tried again soon, and ever less often up to a limit. Where nothing can be delivered the creditor is rung
//! for ([`Links::ring`]): it may be able to come and ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::{
    chance::Chance,
    clock::{self, Clock, Timestamp},
    domain::{
        capability::Traits,
        em_code::EmCode,
        federation::{Federation, Links},
        ids::{ClusterId, SessionId},
        login::{Context, HomeCluster, LogoutRequest},
        session::{EndReason, Initiator, Role},
    },
    fault::{self, Bug},
    store::{
        self, Store, Transaction,
        claims::{self, Claim, Task},
        debts::{self, Owed},
        membership::Membership,
        sessions::{self, Debt},
    },
    tasks::Tasks,
    watch,
};

use super::backoff::Backoff;

/// What the tasks are made of.
pub struct Outbox {
    /// Our own cluster.
    pub cluster: ClusterId,
    /// Where the debts are.
    pub store: Store,
    /// Our own home role: a crash between our two rows of a local login leaves a debt to ourselves.
    pub local: Arc<dyn HomeCluster>,
    /// The other clusters.
    pub federation: Arc<dyn Federation>,
    /// Which of them can be told of something now.
    pub links: Arc<dyn Links>,
    /// Our place among the nodes that could do this.
    pub membership: Membership,
    /// For the audit.
    pub clock: Clock,
    /// Told when a debt is made.
    pub wake: Arc<Notify>,
    /// Told when a link comes up.
    pub up: Arc<Notify>,
    /// Ends the tasks.
    pub tasks: Tasks,
    /// How long one delivery may take.
    pub deadline: Duration,
    /// Spreads what is tried again.
    pub chance: Chance,
}

/// How long a debt that another node made may stand before it is looked at: its own node is likely to settle it at once.
const SETTLE: Duration = Duration::from_millis(300);
/// Acknowledgements that are written down together.
const SETTLED_AT_ONCE: usize = 32;
/// How often debts are looked for without a reason.
const INTERVAL: Duration = Duration::from_secs(2);
/// Debts to one cluster that are read at a time.
const BATCH: u32 = 256;
/// Deliveries to one cluster that are under way at a time.
const IN_FLIGHT: usize = 8;
/// The longest pause before a debt is tried again that the creditor failed to take. Both sides are to agree
/// within 30 s of the creditor's recovery, and this is half of that.
const RETRY_WITHIN: Duration = Duration::from_secs(15);

/// What rings for one creditor. It has one listener, so a ring is never lost.
#[derive(Default)]
struct Bell {
    ring: Notify,
    /// A link came up: what was refused may be taken now.
    afresh: AtomicBool,
    /// What it is owed, as seen last.
    owed: Mutex<Option<Owed>>,
}

/// What became of one delivery.
enum Delivery {
    /// The creditor knows of the end, for this reason.
    Taken(EndReason),
    /// The creditor is well and does not take this one, whenever it is asked.
    Refused(String),
    /// The creditor was reached, and failed: the next try may find it well.
    Failed(String),
    /// The creditor can't be told of anything now.
    Unreachable(String),
}

/// What one creditor's task remembers.
#[derive(Default)]
struct Memory {
    /// What it failed to take, and until when it is set aside.
    aside: BTreeMap<(Role, SessionId), Aside>,
    /// The last complaint; one is made per cause, not per attempt.
    complaint: Option<String>,
    /// The newest debt for which the creditor was rung for: it is rung once for each, not again and again.
    rung: Option<(u64, Option<Timestamp>)>,
    /// A link came up, and what it refused has not been told again since.
    afresh: bool,
    /// How often its link had come up when that was seen last: the link that came up may be another cluster's.
    times_up: Option<u64>,
}

/// A debt that waits for its next try.
struct Aside {
    until: Instant,
    backoff: Backoff,
}

impl Memory {
    /// What the creditor failed to take is tried again soon, at first.
    fn put_off(&mut self, key: (Role, SessionId), chance: &Chance) {
        let aside = self.entry(key);
        aside.until = clock::instant() + aside.backoff.next_delay(chance.u32());
    }

    fn complain(&mut self, cluster: &ClusterId, cause: String) {
        if self.complaint.as_ref() != Some(&cause) {
            warn!(peer.cluster_id = %cluster, cause, "cluster {cluster} is still owed ends of sessions");
            self.complaint = Some(cause);
        }
    }

    fn entry(&mut self, key: (Role, SessionId)) -> &mut Aside {
        self.aside.entry(key).or_insert_with(|| Aside {
            until: clock::instant(),
            backoff: Backoff::new(RETRY_WITHIN),
        })
    }
}

/// What became of one batch.
struct Round {
    /// How many were taken.
    taken: usize,
    /// Whether there may be more behind it.
    more: bool,
    /// Whether the creditor can't be told of anything now.
    stopped: bool,
    /// Whether some are parked now that were not.
    parked: bool,
    /// Why not all were taken.
    complaint: Option<String>,
}

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
        let outbox = Arc::new(self);
        let mut bells: BTreeMap<ClusterId, Arc<Bell>> = BTreeMap::new();
        let mut afresh = false;
        let (mut changes, mut claims) = (outbox.store.changes(), outbox.membership.claims());
        loop {
            changes.mark_unchanged();
            match outbox.creditors().await {
                Ok(creditors) => {
                    for owed in creditors {
                        let cluster = owed.counterpart.clone();
                        let bell = bells.entry(cluster.clone()).or_insert_with(|| {
                            let bell = Arc::new(Bell::default());
                            let task = Arc::clone(&outbox).serve(cluster, Arc::clone(&bell));
                            outbox.tasks.spawn("debts to a cluster", task);
                            bell
                        });
                        *bell.owed.lock().unwrap_or_else(PoisonError::into_inner) = Some(owed);
                        if afresh {
                            bell.afresh.store(true, Ordering::Release);
                        }
                        bell.ring.notify_one();
                    }
                    afresh = false;
                }
                Err(error) => complain(&error),
            }
            afresh |= tokio::select! {
                biased;
                () = outbox.tasks.cancelled() => return,
                () = outbox.up.notified() => true,
                () = outbox.wake.notified() => false,
                () = changed(&mut claims) => false,
                () = settled(&mut changes) => false,
                () = tokio::time::sleep(INTERVAL) => false,
            };
        }
    }

    async fn creditors(&self) -> Result<Vec<Owed>, store::Error> {
        self.store
            .read(|tx: &mut dyn Transaction| debts::creditors(tx))
            .await
    }

    /// Delivers to one cluster until the node shuts down.
    async fn serve(self: Arc<Self>, cluster: ClusterId, bell: Arc<Bell>) {
        let mut memory = Memory::default();
        let deliver = async {
            loop {
                bell.ring.notified().await;
                if bell.afresh.swap(false, Ordering::AcqRel) {
                    let times = Some(self.links.times_up(&cluster));
                    if memory.times_up != times {
                        memory.times_up = times;
                        memory.afresh = true;
                        memory.aside.clear();
                    }
                }
                let Some(claim) = self.claim(&cluster, &mut memory) else {
                    if !self.can_reach(&cluster) {
                        self.ring_for(&cluster, &bell, &mut memory);
                    }
                    continue;
                };
                match self.deliver_all(&cluster, &claim, &mut memory).await {
                    Ok(true) => {}
                    Ok(false) => self.ring_for(&cluster, &bell, &mut memory),
                    // Whoever has taken over delivers what is left.
                    Err(store::Error::ClaimLost { .. }) => {}
                    Err(error) => complain(&error),
                }
            }
        };
        tokio::select! {
            biased;
            () = self.tasks.cancelled() => {}
            () = deliver => {}
        }
    }

    /// The right to deliver to a cluster. Without one it is asked for, and whoever waits is rung when it comes; where
    /// we can't reach the cluster it is left to others.
    fn claim(&self, cluster: &ClusterId, memory: &mut Memory) -> Option<Claim> {
        let task = Task::deliveries(cluster);
        if !self.can_reach(cluster) {
            self.membership.let_go(&task);
            memory.complain(cluster, "this node has no link to it".to_owned());
            return None;
        }
        self.membership.want(&task);
        self.membership.claim(&task)
    }

    fn can_reach(&self, cluster: &ClusterId) -> bool {
        *cluster == self.cluster || self.links.is_up(cluster)
    }

    /// Has the creditor hear that there is something for it which this node can't bring.
    fn ring_for(&self, cluster: &ClusterId, bell: &Bell, memory: &mut Memory) {
        let owed = bell.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = owed.as_ref().map(|owed| (owed.parked, owed.newest));
        drop(owed);
        if newest.is_some() && memory.rung != newest {
            memory.rung = newest;
            self.links.ring(cluster);
        }
    }

    /// Delivers batch by batch, for as long as the cluster takes anything and more may be there; whether nothing of what
    /// was tried is left that can't be delivered.
    async fn deliver_all(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        memory: &mut Memory,
    ) -> Result<bool, store::Error> {
        if memory.afresh {
            self.unpark(cluster, claim).await?;
            memory.afresh = false;
        }
        let mut delivered = 0;
        let mut complaint = None;
        let mut all = true;
        loop {
            let round = self.deliver(cluster, claim, memory).await?;
            delivered += round.taken;
            complaint = complaint.or(round.complaint);
            all &= !round.stopped && !round.parked;
            if round.stopped || (round.taken == 0 && !round.parked) || !round.more {
                break;
            }
        }
        if delivered > 0 {
            memory.complaint = None;
            info!(peer.cluster_id = %cluster, delivered, "told cluster {cluster} which sessions have ended");
        }
        if let Some(cause) = complaint {
            memory.complain(cluster, cause);
        }
        Ok(all)
    }

    /// What the creditor refused is told again, once.
    async fn unpark(&self, cluster: &ClusterId, claim: &Claim) -> Result<(), store::Error> {
        let (cluster, claim, now) = (cluster.clone(), claim.clone(), self.clock.now());
        let parked = {
            let cluster = cluster.clone();
            let read = move |tx: &mut dyn Transaction| debts::parked_of(tx, &cluster);
            self.store.read(read).await?
        };
        if parked == 0 {
            return Ok(());
        }
        self.store
            .write(
                move |tx: &mut dyn Transaction| match debts::unpark_all(tx, &cluster)? {
                    0 => Ok(()),
                    n => claims::effect(tx, &claim, &format!("tries {n} refused ends again"), now),
                },
            )
            .await
    }

    /// Writes down what the creditor refuses, if the claim still stands.
    async fn park(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        refused: Vec<(Role, SessionId, String)>,
    ) -> Result<bool, store::Error> {
        let Some((_, id, cause)) = refused.first() else {
            return Ok(false);
        };
        warn!(
            peer.cluster_id = %cluster, session.id = %id, cause, parked = refused.len(),
            "cluster {cluster} refuses to hear of the end of a session; it is parked, and told again when a link comes \
             up, or with: emccd session retry --peer {cluster}"
        );
        let (cluster, claim, now) = (cluster.clone(), claim.clone(), self.clock.now());
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let mut parked = 0;
                for (role, id, cause) in &refused {
                    parked += u32::from(debts::park(tx, *role, &cluster, *id, cause, now)?);
                }
                if parked > 0 {
                    claims::effect(tx, &claim, &format!("parked {parked} refused ends"), now)?;
                }
                Ok(parked > 0)
            })
            .await
    }

    /// Delivers one batch, the oldest first.
    async fn deliver(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        memory: &mut Memory,
    ) -> Result<Round, store::Error> {
        let creditor = if *cluster == self.cluster {
            Some(Arc::clone(&self.local))
        } else {
            self.federation.get(cluster)
        };
        let Some(creditor) = creditor else {
            return Ok(Round {
                taken: 0,
                more: false,
                stopped: true,
                parked: false,
                complaint: Some("it is no longer configured".to_owned()),
            });
        };
        let (owed, more) = self.owed(cluster, memory).await?;
        let mut waiting = owed.into_iter();
        let mut flying = FuturesUnordered::new();
        let (mut taken, mut failed, mut stopped) = (0, 0, false);
        let mut refused = Vec::new();
        let mut complaint = None;
        let mut told = Vec::new();
        loop {
            while !stopped && flying.len() < IN_FLIGHT {
                let Some(debt) = waiting.next() else { break };
                flying.push(self.settle(Arc::clone(&creditor), debt));
            }
            let Some((role, id, delivery)) = flying.next().await else {
                break;
            };
            match delivery {
                Delivery::Taken(reason) => {
                    taken += 1;
                    told.push((role, id, reason));
                    memory.aside.remove(&(role, id));
                }
                Delivery::Unreachable(cause) => {
                    stopped = true;
                    complaint = Some(cause);
                }
                Delivery::Failed(cause) => {
                    failed += 1;
                    // Who fails at everything is spared the rest.
                    stopped |= taken == 0 && failed >= IN_FLIGHT;
                    memory.put_off((role, id), &self.chance);
                    complaint.get_or_insert(cause);
                }
                Delivery::Refused(cause) => {
                    memory.aside.remove(&(role, id));
                    refused.push((role, id, cause));
                }
            }
            if told.len() >= SETTLED_AT_ONCE || flying.is_empty() {
                self.acknowledge(cluster, claim, std::mem::take(&mut told))
                    .await?;
            }
        }
        let parked = self.park(cluster, claim, refused).await?;
        Ok(Round {
            taken,
            more,
            stopped,
            parked,
            complaint,
        })
    }

    /// The next batch without what is set aside, and whether there may be more behind it.
    async fn owed(
        &self,
        cluster: &ClusterId,
        memory: &mut Memory,
    ) -> Result<(Vec<Debt>, bool), store::Error> {
        let now = clock::instant();
        // What failed before takes nobody's place in the batch.
        let before = u32::try_from(memory.aside.len()).unwrap_or(u32::MAX);
        let limit = BATCH.saturating_add(before);
        let cluster = cluster.clone();
        let mut owed = self
            .store
            .read(move |tx: &mut dyn Transaction| debts::to_tell(tx, &cluster, limit))
            .await?;
        let more = u32::try_from(owed.len()).is_ok_and(|found| found >= limit);
        if !more {
            // These are all: what is not among them was settled some other way.
            let all: BTreeSet<_> = owed.iter().map(|debt| (debt.role, debt.id)).collect();
            memory.aside.retain(|key, _| all.contains(key));
        }
        owed.retain(|debt| {
            memory
                .aside
                .get(&(debt.role, debt.id))
                .is_none_or(|aside| aside.until <= now)
        });
        // What was never tried comes first: else some that always fail would keep the others from ever being told.
        owed.sort_by_key(|debt| memory.aside.contains_key(&(debt.role, debt.id)));
        Ok((owed, more))
    }

    /// Tells of one end.
    async fn settle(
        &self,
        creditor: Arc<dyn HomeCluster>,
        debt: Debt,
    ) -> (Role, SessionId, Delivery) {
        let delivery = self.tell(creditor.as_ref(), &debt).await;
        (debt.role, debt.id, delivery)
    }

    /// Writes down what the creditor knows, if the claim still stands.
    async fn acknowledge(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        told: Vec<(Role, SessionId, EndReason)>,
    ) -> Result<(), store::Error> {
        if told.is_empty() {
            return Ok(());
        }
        let (cluster, claim, now) = (cluster.clone(), claim.clone(), self.clock.now());
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let mut settled = 0;
                for (role, id, reason) in &told {
                    let knows = sessions::acknowledge_as(tx, *role, &cluster, *id, *reason)?;
                    settled += u32::from(knows);
                }
                if settled == 0 {
                    // Settled some other way meanwhile.
                    return Ok(());
                }
                claims::effect(tx, &claim, &format!("told of {settled} ends"), now)
            })
            .await
    }

    async fn tell(&self, creditor: &dyn HomeCluster, debt: &Debt) -> Delivery {
        let context = Context {
            reference: debt.reference,
            caller: self.cluster.clone(),
            certificate: None,
            deadline: clock::instant() + self.deadline,
            traits: Traits::default(),
        };
        let request = LogoutRequest {
            session_id: debt.id,
            reason: debt.reason.unwrap_or(EndReason::Abandoned),
            initiator: match debt.role {
                Role::Home => Initiator::Home,
                Role::Visiting => Initiator::Visiting,
            },
        };
        debug!(session.id = %debt.id, peer.cluster_id = %creditor.cluster_id(), "delivering an owed end");
        if fault::has(Bug::OutboxDropped) {
            return Delivery::Taken(request.reason);
        }
        match tokio::time::timeout_at(context.deadline.into(), creditor.logout(&context, request))
            .await
        {
            Ok(Ok(reason)) => Delivery::Taken(reason),
            Ok(Err(refusal)) => match refusal.code {
                EmCode::NoResponseFromRemoteHost
                | EmCode::ServiceConnectionError
                | EmCode::Busy => Delivery::Unreachable(refusal.to_string()),
                // Our own link says so of itself: no version in common, or no record of us there.
                EmCode::ErrorOnParsing | EmCode::VisitingClusterUnknown
                    if refusal.cluster.is_none() =>
                {
                    Delivery::Unreachable(refusal.to_string())
                }
                EmCode::DatabaseError | EmCode::ErrorOnParsing | EmCode::UnknownError => {
                    Delivery::Failed(refusal.to_string())
                }
                _ => Delivery::Refused(refusal.to_string()),
            },
            Err(_) => Delivery::Unreachable("no answer in time".to_owned()),
        }
    }
}

/// Waits until something has changed in the store, and a moment more.
async fn settled(changes: &mut watch::Receiver<u64>) {
    changed(changes).await;
    tokio::time::sleep(SETTLE).await;
}

/// Waits for a change; for ever when there can be none any more.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn complain(error: &store::Error) {
    warn!(
        cause = crate::telemetry::error_chain(error),
        "debts to other clusters could not be read or settled"
    );
}

#[cfg(test)]
mod tests;
