//! Other clusters, outbound: one warm link per peer, what is known of it, and a home cluster behind it.
//!
//! [`Peers`] holds the set. Each enabled peer has one task that dials, says `Hello`, opens `Watch` and holds
//! the connection for as long as heartbeats prove it. Callers hold [`HomeCluster`]s and never see a
//! connection: a call that finds the link down wakes it and waits for a fresh attempt, within its deadline.

pub mod backoff;
pub mod error;
pub mod inbound;
pub mod link;
pub mod outbox;
pub mod status;

mod attempt;
mod client;
mod connector;
mod federation;
mod lookup;
mod race;
mod shared;
mod task;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout_at};
use tokio_util::sync::CancellationToken;

use self::{
    attempt::HEARTBEAT_BOUNDS,
    client::PeerHome,
    inbound::InboundRecord,
    lookup::Lookups,
    shared::{Shared, now},
    task::LinkTask,
};
pub use self::{error::Error, link::LinkState, status::LinkStatus};
use crate::{
    clock::{Clock, Timestamp},
    domain::{
        capability::{self, Traits},
        ids::ClusterId,
        login::{HomeCluster, SecurityMode},
        version::VersionRange,
    },
    store::peers::Peer,
    tasks::Tasks,
    trust::TrustStore,
    wire::federation::Hello,
};

/// What links need to know of the node, and how they behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own cluster.
    pub cluster_id: ClusterId,
    /// Our node's name.
    pub node: String,
    /// Our software and its version.
    pub software: String,
    /// The security mode of our cluster.
    pub security_mode: SecurityMode,
    /// What we speak.
    pub versions: VersionRange,
    /// How often we want a sign of life; 100 ms to 60 s.
    pub heartbeat: Duration,
    /// How long a link without one counts as alive; more than the heartbeat.
    pub dead_after: Duration,
    /// How long one address may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long the TLS handshake and each of the first calls may take.
    pub hello_timeout: Duration,
    /// The longest pause between two attempts.
    pub backoff_cap: Duration,
}

impl Config {
    /// The defaults: a dead peer is seen within 8 s, a healed one is usable within 2 s.
    #[must_use]
    pub fn new(cluster_id: ClusterId, node: impl Into<String>) -> Self {
        Self {
            cluster_id,
            node: node.into(),
            software: concat!("emccd ", env!("CARGO_PKG_VERSION")).to_owned(),
            security_mode: SecurityMode::NonSecure,
            versions: VersionRange::SUPPORTED,
            heartbeat: Duration::from_secs(5),
            dead_after: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(1),
            hello_timeout: Duration::from_millis(1_500),
            backoff_cap: Duration::from_millis(500),
        }
    }

    /// How we introduce ourselves, in both directions.
    #[must_use]
    pub fn hello(&self, now: Timestamp) -> Hello {
        Hello {
            versions: self.versions,
            capabilities: capability::names(self.versions.max()),
            cluster_id: self.cluster_id.clone(),
            node: self.node.clone(),
            software: self.software.clone(),
            now,
            security_mode: self.security_mode,
            trust_sequence: 0,
            address_sequence: 0,
        }
    }

    /// Brings a caller's wish for heartbeats into the bounds of the wire.
    #[must_use]
    pub fn bound_heartbeat(wish: Duration) -> Duration {
        let (shortest, longest) = HEARTBEAT_BOUNDS;
        wish.clamp(shortest, longest)
    }
}

/// All peers of one node. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    trust: TrustStore,
    clock: Clock,
    tasks: Tasks,
    entries: Mutex<BTreeMap<ClusterId, Entry>>,
    changes: watch::Sender<u64>,
    /// Numbers the links that were begun, so that no two are taken for one.
    begun: AtomicU64,
}

struct Entry {
    number: u64,
    record: Peer,
    shared: Arc<Shared>,
    home: Arc<PeerHome>,
    stop: CancellationToken,
}

/// What our own link to a peer has to say to that peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundView {
    /// The age of our last proof of it; none while our link is down.
    pub proof_age: Option<Duration>,
    /// Why it is down; empty when it is up.
    pub down_reason: String,
}

impl Peers {
    /// No peers yet.
    #[must_use]
    pub fn new(config: Config, trust: TrustStore, clock: Clock, tasks: Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: Arc::new(config),
                trust,
                clock,
                tasks,
                entries: Mutex::default(),
                changes: watch::Sender::new(0),
                begun: AtomicU64::new(0),
            }),
        }
    }

    /// Makes `records` the set of peers: links of new ones are begun, of missing and disabled ones ended; a
    /// changed list of addresses replaces a connection only if its own address is gone.
    pub fn set(&self, records: Vec<Peer>) {
        let mut entries = self.entries();
        let mut before = std::mem::take(&mut *entries);
        for record in records {
            let entry = match before.remove(&record.cluster_id) {
                Some(entry) if entry.record.enabled == record.enabled => entry.changed_to(record),
                Some(entry) => {
                    entry.stop.cancel();
                    self.begin(record, entry.shared.inbound_record())
                }
                None => self.begin(record, Arc::default()),
            };
            entries.insert(entry.record.cluster_id.clone(), entry);
        }
        for removed in before.into_values() {
            removed.stop.cancel();
        }
        drop(entries);
        self.inner.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The enabled peers, as home clusters.
    #[must_use]
    pub fn homes(&self) -> Vec<Arc<dyn HomeCluster>> {
        let entries = self.entries();
        entries
            .values()
            .filter(|e| e.record.enabled)
            .map(Entry::home)
            .collect()
    }

    /// One peer as home cluster, if it is known and enabled.
    #[must_use]
    pub fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>> {
        let entries = self.entries();
        entries
            .get(cluster)
            .filter(|e| e.record.enabled)
            .map(Entry::home)
    }

    /// The records of all peers, disabled ones too.
    #[must_use]
    pub fn records(&self) -> Vec<Peer> {
        self.entries().values().map(|e| e.record.clone()).collect()
    }

    /// What is known of each peer now, in both directions.
    #[must_use]
    pub fn status(&self) -> Vec<LinkStatus> {
        let entries = self.entries();
        entries
            .values()
            .map(|e| e.shared.status(e.record.enabled))
            .collect()
    }

    /// Our own settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// A call of that peer arrived: it lives, so our own link to it is tried at once if it is down.
    pub fn on_inbound(&self, cluster: &ClusterId) {
        let Some(shared) = self.shared(cluster) else {
            return;
        };
        shared.inbound().seen(now());
        if shared.link(|link| link.state() != LinkState::Up) {
            shared.wake.inbound.notify_one();
        }
    }

    /// A node of that peer introduced itself to this one.
    pub fn introduced(&self, cluster: &ClusterId, traits: Traits) {
        if let Some(shared) = self.shared(cluster) {
            shared.inbound().introduced(traits);
        }
    }

    /// What that peer has told of itself; nothing where it is not known.
    #[must_use]
    pub fn traits(&self, cluster: &ClusterId) -> Traits {
        let shared = self.shared(cluster);
        shared.and_then(|s| s.traits()).unwrap_or_default()
    }

    /// Has our link to that peer tried at once, where it is down; false when there is no record of the peer.
    #[must_use]
    pub fn dial_now(&self, cluster: &ClusterId) -> bool {
        let Some(shared) = self.shared(cluster) else {
            return false;
        };
        if shared.link(|link| link.state() != LinkState::Up) {
            shared.wake.call.notify_one();
        }
        true
    }

    /// What our link to that peer has to say to it; none when there is no record of the peer.
    #[must_use]
    pub fn outbound_view(&self, cluster: &ClusterId) -> Option<OutboundView> {
        let shared = self.shared(cluster)?;
        Some(shared.link(|link| OutboundView {
            proof_age: link.proof_age(now()),
            down_reason: match (link.state(), link.failure()) {
                (LinkState::Up, _) => String::new(),
                (_, Some(failure)) => error::bounded(&failure.text),
                (state, None) => state.as_str().to_owned(),
            },
        }))
    }

    /// Completes when our link to that peer changes its state, or its record its place.
    pub fn outbound_changed(&self, cluster: &ClusterId) -> impl Future<Output = ()> + Send + use<> {
        let changed = self.shared(cluster).map(|shared| shared.changed());
        async move {
            match changed {
                Some(changed) => changed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Counts a `Watch` of that peer on us for as long as the guard lives; none when it holds `most` already,
    /// or is not known.
    #[must_use]
    pub fn watch_opened(&self, cluster: &ClusterId, most: usize) -> Option<WatchGuard> {
        let record = self.shared(cluster)?.inbound_record();
        let opened = lock(&record).watch_opened(most);
        opened.then(|| {
            self.inner.changes.send_modify(|n| *n = n.wrapping_add(1));
            WatchGuard {
                record,
                changes: self.inner.changes.clone(),
            }
        })
    }

    /// Tells of links that come up from now on; those that are up already are told first.
    #[must_use]
    pub fn on_up(&self) -> Ups {
        Ups {
            peers: self.clone(),
            changes: self.inner.changes.subscribe(),
            told: BTreeMap::new(),
        }
    }

    /// Bumps whenever any link's state changes, in either direction.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Waits until `holds` is true of the status; false when the deadline came first.
    pub async fn wait_for(&self, holds: impl Fn(&[LinkStatus]) -> bool, deadline: Instant) -> bool {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if holds(&self.status()) {
                return true;
            }
            if !matches!(
                timeout_at(deadline.into(), changes.changed()).await,
                Ok(Ok(()))
            ) {
                return holds(&self.status());
            }
        }
    }

    fn begin(&self, record: Peer, inbound: Arc<Mutex<InboundRecord>>) -> Entry {
        let inner = &self.inner;
        let shared = Arc::new(Shared::new(
            record.cluster_id.clone(),
            record.addresses.clone(),
            inbound,
            inner.changes.clone(),
        ));
        let stop = inner.tasks.token().child_token();
        if record.enabled {
            let task = LinkTask {
                config: Arc::clone(&inner.config),
                trust: inner.trust.clone(),
                clock: inner.clock.clone(),
                shared: Arc::clone(&shared),
                lookups: Lookups::default(),
                stop: stop.clone(),
            };
            inner.tasks.spawn("peer link", task.run());
        } else {
            shared.close(task::disabled(&record.cluster_id));
        }
        let home = PeerHome {
            config: Arc::clone(&inner.config),
            shared: Arc::clone(&shared),
        };
        Entry {
            number: inner.begun.fetch_add(1, Ordering::Relaxed),
            record,
            shared,
            home: Arc::new(home),
            stop,
        }
    }

    fn shared(&self, cluster: &ClusterId) -> Option<Arc<Shared>> {
        self.entries().get(cluster).map(|e| Arc::clone(&e.shared))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Entry>> {
        lock(&self.inner.entries)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries().keys()).finish()
    }
}

impl Entry {
    fn home(&self) -> Arc<dyn HomeCluster> {
        Arc::clone(&self.home) as Arc<dyn HomeCluster>
    }

    fn changed_to(mut self, record: Peer) -> Self {
        self.shared.addresses.send_if_modified(|addresses| {
            let changed = *addresses != record.addresses;
            addresses.clone_from(&record.addresses);
            changed
        });
        self.record = record;
        self
    }
}

/// A `Watch` that a peer holds on us.
#[derive(Debug)]
pub struct WatchGuard {
    record: Arc<Mutex<InboundRecord>>,
    changes: watch::Sender<u64>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        lock(&self.record).watch_closed();
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// A subscription to links that come up. It can't fall behind: what it misses it sees from the state.
#[derive(Debug)]
pub struct Ups {
    peers: Peers,
    changes: watch::Receiver<u64>,
    told: BTreeMap<ClusterId, (u64, u64)>,
}

impl Ups {
    /// The next peer whose link has come up since it was told last. It never ends by itself. Cancel safe.
    pub async fn next(&mut self) -> ClusterId {
        loop {
            self.changes.mark_unchanged();
            if let Some(cluster) = self.untold() {
                return cluster;
            }
            if self.changes.changed().await.is_err() {
                // The sender lives in `peers`, which this holds.
                std::future::pending::<()>().await;
            }
        }
    }

    fn untold(&mut self) -> Option<ClusterId> {
        let entries = self.peers.entries();
        self.told.retain(|cluster, _| entries.contains_key(cluster));
        for (cluster, entry) in entries.iter() {
            let (up, times) = entry
                .shared
                .link(|l| (l.state() == LinkState::Up, l.times_up()));
            // A peer that was disabled and enabled again has a new link, which counts from the start.
            let mark = (entry.number, times);
            if up && self.told.get(cluster) != Some(&mark) {
                self.told.insert(cluster.clone(), mark);
                return Some(cluster.clone());
            }
        }
        None
    }
}

/// The records behind these locks are whole even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
