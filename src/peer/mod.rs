//! Other clusters, outbound: a warm link to each node of a peer, what is known of it, and a home cluster behind them.
//!
//! [`Peers`] holds the set. Each address of an enabled peer has one task that dials, says `Hello`, opens `Watch` and
//! holds the connection for as long as heartbeats prove it. Callers hold [`HomeCluster`]s and never see a connection:
//! a call goes to one of the nodes that are up, and to another one when that fails; when none is up it wakes the links
//! and waits for fresh attempts, within its deadline.

pub mod agreement;
pub mod announce;
pub mod backoff;
pub mod balance;
pub mod error;
pub mod inbound;
pub mod link;
pub mod outbox;
pub mod probe;
pub mod status;
pub mod sync;
pub mod theirs;
pub mod transport;

mod attempt;
mod client;
mod connector;
mod federation;
mod group;
mod lookup;
mod race;
mod shared;
mod task;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

#[cfg(test)]
pub(crate) use self::connector::untrusted;
use self::{
    attempt::HEARTBEAT_BOUNDS,
    client::PeerHome,
    connector::TcpTls,
    group::Group,
    inbound::InboundRecord,
    lookup::Lookups,
    shared::{Common, Giver, Shared, lock, now},
    task::LinkTask,
    transport::Transport,
};
pub use self::{
    error::Error,
    link::LinkState,
    status::{LinkStatus, NodeStatus},
};
use crate::{
    chance::Chance,
    clock::{Clock, Timestamp},
    domain::{
        accepted::{Accepted, AcceptedList},
        address_list::AddressList,
        capability::{self, Traits},
        ids::ClusterId,
        login::{HomeCluster, SecurityMode},
        version::VersionRange,
    },
    store::peers::Peer,
    tasks::Tasks,
    trust::TrustStore,
    watch,
    wire::federation::Hello,
};

/// What links need to know of the node, and how they behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own cluster.
    pub cluster_id: ClusterId,
    /// Our node's name.
    pub node: String,
    /// Which start of our node this is.
    pub instance: String,
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
    /// Jitter, references, and which of two nodes a call goes to.
    pub chance: Chance,
}

impl Config {
    /// The defaults: a dead peer is seen within 8 s, a healed one is usable within 2 s.
    #[must_use]
    pub fn new(cluster_id: ClusterId, node: impl Into<String>) -> Self {
        let chance = Chance::system();
        Self {
            cluster_id,
            node: node.into(),
            instance: format!("{:016x}", chance.u64()),
            software: concat!("emccd ", env!("CARGO_PKG_VERSION")).to_owned(),
            security_mode: SecurityMode::NonSecure,
            versions: VersionRange::SUPPORTED,
            heartbeat: Duration::from_secs(5),
            dead_after: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(1),
            hello_timeout: Duration::from_millis(1_500),
            backoff_cap: Duration::from_millis(500),
            chance,
        }
    }

    /// How we introduce ourselves, in both directions.
    #[must_use]
    pub fn hello(&self, now: Timestamp, told: Sequences) -> Hello {
        Hello {
            versions: self.versions,
            capabilities: capability::names(self.versions.max()),
            cluster_id: self.cluster_id.clone(),
            node: self.node.clone(),
            instance: self.instance.clone(),
            software: self.software.clone(),
            now,
            security_mode: self.security_mode,
            trust_sequence: told.trust,
            address_sequence: told.addresses,
        }
    }

    /// Brings a caller's wish for heartbeats into the bounds of the wire.
    #[must_use]
    pub fn bound_heartbeat(wish: Duration) -> Duration {
        let (shortest, longest) = HEARTBEAT_BOUNDS;
        wish.clamp(shortest, longest)
    }
}

/// How far what we tell our peers has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// Of what we accept.
    pub trust: u64,
    /// Of where we can be dialled.
    pub addresses: u64,
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
    transport: Arc<dyn Transport>,
    entries: Mutex<BTreeMap<ClusterId, Entry>>,
    changes: watch::Sender<u64>,
    /// Where our own cluster can be dialled, for our peers.
    own: watch::Sender<Arc<AddressList>>,
    /// What our own cluster accepts, for our peers.
    accepts: watch::Sender<Arc<Accepts>>,
    /// Numbers the links that were begun, so that no two are taken for one.
    begun: AtomicU64,
}

struct Entry {
    number: u64,
    record: Peer,
    group: Arc<Group>,
    home: Arc<PeerHome>,
}

/// What our own cluster accepts, of each peer what that one is told of.
#[derive(Debug, Default)]
pub struct Accepts {
    /// Grows with each change.
    pub sequence: u64,
    lists: BTreeMap<ClusterId, AcceptedList>,
}

impl Accepts {
    /// What is accepted from each peer, as of that number.
    #[must_use]
    pub fn new(sequence: u64, entries: Vec<(ClusterId, Vec<Accepted>)>) -> Self {
        let lists = entries.into_iter();
        Self {
            sequence,
            lists: lists
                .map(|(cluster, entries)| (cluster, AcceptedList::new(sequence, entries)))
                .collect(),
        }
    }

    /// What that peer is told; none when there is no record of it.
    #[must_use]
    pub fn of(&self, cluster: &ClusterId) -> Option<&AcceptedList> {
        self.lists.get(cluster)
    }
}

/// What our own links have to say to a node of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundView {
    /// The age of our last proof of it; none while our link is down. Of any node where we know no link to that one.
    pub proof_age: Option<Duration>,
    /// Why it is down; empty when it is up. Where we know no link to it: which addresses of its cluster we can't reach.
    pub down_reason: String,
}

impl Peers {
    /// No peers yet.
    #[must_use]
    pub fn new(config: Config, trust: TrustStore, clock: Clock, tasks: Tasks) -> Self {
        Self::over(config, trust, clock, tasks, Arc::new(TcpTls))
    }

    /// No peers yet, with links over that transport.
    #[must_use]
    pub fn over(
        config: Config,
        trust: TrustStore,
        clock: Clock,
        tasks: Tasks,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: Arc::new(config),
                trust,
                clock,
                tasks,
                transport,
                entries: Mutex::default(),
                changes: watch::Sender::new(0),
                own: watch::Sender::default(),
                accepts: watch::Sender::default(),
                begun: AtomicU64::new(0),
            }),
        }
    }

    /// Makes `records` the set of peers: links of new ones are begun, of missing and disabled ones ended; a
    /// connection whose address is gone stays until another one is up.
    pub fn set(&self, records: Vec<Peer>) {
        self.set_with(records, &BTreeMap::new());
    }

    /// The same, with the addresses that each of them has told: they are dialled beside the operator's.
    pub fn set_with(&self, records: Vec<Peer>, learned: &BTreeMap<ClusterId, AddressList>) {
        let mut entries = self.entries();
        let mut before = std::mem::take(&mut *entries);
        for record in records {
            let entry = match before.remove(&record.cluster_id) {
                Some(entry) if entry.record.enabled == record.enabled => Entry { record, ..entry },
                Some(entry) => {
                    entry.group.stop();
                    self.begin(record, entry.group.common.inbound_record())
                }
                None => self.begin(record, Arc::default()),
            };
            let addresses = &entry.record.addresses;
            let list = learned.get(&entry.record.cluster_id);
            let beside = list.map(|list| list.beside(addresses));
            if let Some(list) = list {
                entry.group.common.addresses_known(list);
            }
            entry
                .group
                .set(addresses, &beside.unwrap_or_default(), |address, giver| {
                    self.link(&entry.group, address, giver)
                });
            entries.insert(entry.record.cluster_id.clone(), entry);
        }
        for removed in before.into_values() {
            removed.group.stop();
        }
        drop(entries);
        self.inner.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Has our peers told, from now on, where our own cluster can be dialled.
    pub fn publish_addresses(&self, list: AddressList) {
        self.inner.own.send_if_modified(|own| {
            let news = **own != list;
            if news {
                *own = Arc::new(list);
            }
            news
        });
    }

    /// How far what we tell our peers has come.
    #[must_use]
    pub fn sequences(&self) -> Sequences {
        Sequences {
            trust: self.inner.accepts.borrow().sequence,
            addresses: self.inner.own.borrow().sequence,
        }
    }

    /// What our peers are told of where our own cluster can be dialled.
    #[must_use]
    pub fn own_addresses(&self) -> watch::Receiver<Arc<AddressList>> {
        self.inner.own.subscribe()
    }

    /// Has our peers told, from now on, what of theirs our own cluster accepts.
    pub fn publish_accepts(&self, accepts: Accepts) {
        self.inner.accepts.send_replace(Arc::new(accepts));
    }

    /// What our peers are told of what our own cluster accepts.
    #[must_use]
    pub fn accepts(&self) -> watch::Receiver<Arc<Accepts>> {
        self.inner.accepts.subscribe()
    }

    /// What peers have told of where they can be dialled, and is not on record yet. [`Peers::changes`] moves with it.
    #[must_use]
    pub fn told_addresses(&self) -> Vec<(ClusterId, AddressList)> {
        let entries = self.entries();
        let told = entries
            .iter()
            .filter_map(|(id, entry)| Some((id.clone(), entry.group.common.told_addresses()?)));
        told.collect()
    }

    /// These are on record, or have none to be on.
    pub fn addresses_kept(&self, told: &[(ClusterId, AddressList)]) {
        for (cluster, list) in told {
            if let Some(group) = self.group(cluster) {
                group.common.addresses_known(list);
            }
        }
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
            .map(|e| e.group.status(e.record.enabled))
            .collect()
    }

    /// Our own settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// A call of that peer arrived: it lives, so our own links to it are tried at once if all are down.
    pub fn on_inbound(&self, cluster: &ClusterId) {
        let Some(group) = self.group(cluster) else {
            return;
        };
        group.inbound().seen(now());
        if !group.is_up() {
            group.peer_lives();
        }
    }

    /// A node of that peer introduced itself to this one: perhaps it is one that was down.
    pub fn introduced(&self, cluster: &ClusterId, traits: Traits) {
        if let Some(group) = self.group(cluster) {
            group.inbound().introduced(traits);
            group.peer_lives();
        }
    }

    /// What that peer has told of itself; nothing where it is not known.
    #[must_use]
    pub fn traits(&self, cluster: &ClusterId) -> Traits {
        let group = self.group(cluster);
        group.and_then(|g| g.traits_told()).unwrap_or_default()
    }

    /// Has our links to that peer tried at once, where they are down; false when there is no record of the peer.
    #[must_use]
    pub fn dial_now(&self, cluster: &ClusterId) -> bool {
        let group = self.group(cluster);
        if let Some(group) = &group {
            group.dial_now();
        }
        group.is_some()
    }

    /// What our links to that node of a peer have to say to it; of a node that has no name, those to any. None when
    /// there is no record of the peer.
    #[must_use]
    pub fn outbound_view(&self, cluster: &ClusterId, node: &str) -> Option<OutboundView> {
        Some(self.group(cluster)?.outbound_view(node))
    }

    /// Whether there is a record of the peer.
    #[must_use]
    pub fn is_known(&self, cluster: &ClusterId) -> bool {
        self.entries().contains_key(cluster)
    }

    /// Completes when our link to that peer changes its state, or its record its place.
    pub fn outbound_changed(&self, cluster: &ClusterId) -> impl Future<Output = ()> + Send + use<> {
        let ticks = self.group(cluster).map(|group| group.common.ticks());
        async move {
            match ticks {
                // The sender lives as long as the peer's record; when it goes, so does the caller.
                Some(mut ticks) => drop(ticks.changed().await),
                None => std::future::pending().await,
            }
        }
    }

    /// Counts a `Watch` of that peer on us for as long as the guard lives; none when it holds `most` already,
    /// or is not known.
    #[must_use]
    pub fn watch_opened(&self, cluster: &ClusterId, most: usize) -> Option<WatchGuard> {
        let record = self.group(cluster)?.common.inbound_record();
        let opened = lock(&record).watch_opened(most);
        opened.then(|| {
            self.inner.changes.send_modify(|n| *n = n.wrapping_add(1));
            WatchGuard {
                record,
                changes: self.inner.changes.clone(),
            }
        })
    }

    /// How often we had ends of sessions for that peer which could not be delivered.
    #[must_use]
    pub fn undelivered(&self, cluster: &ClusterId) -> u64 {
        self.group(cluster).map_or(0, |group| group.common.rings())
    }

    /// How often that peer said that it has ends of sessions for us which it could not deliver.
    #[cfg(test)]
    pub(crate) fn rung(&self, cluster: &ClusterId) -> u64 {
        self.group(cluster).map_or(0, |group| group.common.rung())
    }

    /// Of each enabled peer: how often its links came up, and how often it said that it has ends of sessions for us.
    pub(super) fn marks(&self) -> BTreeMap<ClusterId, (u64, u64)> {
        let entries = self.entries();
        let enabled = entries.iter().filter(|(_, entry)| entry.record.enabled);
        let mark = |entry: &Entry| (entry.group.times_up(), entry.group.common.rung());
        enabled
            .map(|(id, entry)| (id.clone(), mark(entry)))
            .collect()
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

    /// Waits until what that peer says of its link to us fits what is seen here, or until the deadline: while it watches
    /// us and we it, its word that its link is down is of a moment before, and the next one is on its way.
    pub async fn wait_for_word(&self, cluster: &ClusterId, deadline: Instant) {
        let fits = |all: &[LinkStatus]| {
            let link = all.iter().find(|link| link.cluster == *cluster);
            link.is_none_or(|link| {
                let (seen, up) = (&link.inbound, link.outbound == LinkState::Up);
                !(up && seen.watching && seen.reverse_down_reason.is_some())
            })
        };
        self.wait_for(fits, deadline).await;
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
        let cluster = record.cluster_id.clone();
        let closed = (!record.enabled).then(|| task::disabled(&cluster));
        let common = Common::new(
            cluster,
            inbound,
            inner.changes.clone(),
            inner.config.chance.clone(),
        );
        let group = Arc::new(Group::new(Arc::new(common), closed));
        let home = PeerHome {
            config: Arc::clone(&inner.config),
            group: Arc::clone(&group),
        };
        Entry {
            number: inner.begun.fetch_add(1, Ordering::Relaxed),
            record,
            group,
            home: Arc::new(home),
        }
    }

    /// Begins the link to one address.
    fn link(&self, group: &Arc<Group>, address: &str, giver: Giver) -> Arc<Shared> {
        let inner = &self.inner;
        let shared = Arc::new(Shared::new(
            inner.begun.fetch_add(1, Ordering::Relaxed),
            address.to_owned(),
            giver,
            Arc::clone(&group.common),
            inner.tasks.token().child_token(),
        ));
        let task = LinkTask {
            config: Arc::clone(&inner.config),
            trust: inner.trust.clone(),
            clock: inner.clock.clone(),
            group: Arc::clone(group),
            shared: Arc::clone(&shared),
            lookups: Lookups::default(),
            transport: Arc::clone(&inner.transport),
            own: inner.own.subscribe(),
            accepts: inner.accepts.subscribe(),
        };
        inner.tasks.spawn("peer link", task.run());
        shared
    }

    fn group(&self, cluster: &ClusterId) -> Option<Arc<Group>> {
        self.entries().get(cluster).map(|e| Arc::clone(&e.group))
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
            let (up, times) = (entry.group.is_up(), entry.group.times_up());
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
