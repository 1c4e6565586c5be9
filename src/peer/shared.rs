//! What the task of one link, its callers and its readers share.

use std::{
    error::Error as _,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tracing::warn;

use crate::{
    chance::Chance,
    clock::Timestamp,
    domain::{accepted::AcceptedList, address_list::AddressList, em_code::EmCode, ids::ClusterId},
    peer::{
        balance::{Candidate, Conduct},
        inbound::{InboundRecord, Told},
        link::{Facts, Failure, Link, LinkState},
    },
    watch,
    wire::pb::federation_service_client::FederationServiceClient,
};

/// A typed client over the one live connection.
pub(super) type Client = FederationServiceClient<Channel>;

/// The health service over the same connection.
pub(super) type Probe = HealthClient<Channel>;

/// What all links to one peer have in common.
pub(super) struct Common {
    pub(super) cluster: ClusterId,
    /// Counts how often any of its links came up.
    pub(super) times_up: AtomicU64,
    inbound: Arc<Mutex<InboundRecord>>,
    /// Bumped at each change of any of its links.
    ticks: watch::Sender<u64>,
    /// Bumped at each change of any link of any peer.
    changes: watch::Sender<u64>,
    /// The newest list of its addresses: what is on record, told under that sequence last.
    known_addresses: Mutex<AddressList>,
    /// A list of the far future was told, and the log has it.
    told_ahead: AtomicBool,
    /// A newer list that a node of it told.
    told_addresses: Mutex<Option<AddressList>>,
    /// How often we had ends of sessions for it that could not be delivered.
    rings: AtomicU64,
    /// How often it had such for us.
    rung: AtomicU64,
    pub(super) chance: Chance,
}

impl Common {
    pub(super) fn new(
        cluster: ClusterId,
        inbound: Arc<Mutex<InboundRecord>>,
        changes: watch::Sender<u64>,
        chance: Chance,
    ) -> Self {
        Self {
            cluster,
            times_up: AtomicU64::new(0),
            inbound,
            ticks: watch::Sender::new(0),
            changes,
            known_addresses: Mutex::default(),
            told_ahead: AtomicBool::new(false),
            told_addresses: Mutex::default(),
            rings: AtomicU64::new(0),
            rung: AtomicU64::new(0),
            chance,
        }
    }

    /// There are ends of sessions for the peer that can't be delivered: it is told so with the next heartbeat, which
    /// comes at once.
    pub(super) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.announce();
    }

    /// How often that was so.
    pub(super) fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }

    /// The peer has such for us.
    pub(super) fn was_rung(&self) {
        self.rung.fetch_add(1, Ordering::Relaxed);
        self.announce();
    }

    /// How often it said so.
    pub(super) fn rung(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }

    /// A node told where the peer can be dialled.
    pub(super) fn hear_addresses(&self, list: AddressList, now: Timestamp) {
        if list.is_ahead_of(now.as_millis()) {
            if !self.told_ahead.swap(true, Ordering::Relaxed) {
                warn!(
                    peer.cluster_id = %self.cluster, list.sequence,
                    "cluster {} tells a list of addresses that is more than a day ahead of this node's clock: it is \
                     not taken; one of the two clocks is wrong", self.cluster
                );
            }
            return;
        }
        let news = {
            let mut known = lock(&self.known_addresses);
            let mut told = lock(&self.told_addresses);
            let newest = told.as_ref().map_or(0, |told| told.sequence);
            if !list.replaces(newest.max(known.sequence)) {
                false
            } else if list.addresses == known.addresses {
                // Nothing is to be put on record, and what it told in between is out of date.
                known.sequence = list.sequence;
                *told = None;
                false
            } else {
                *told = Some(list);
                true
            }
        };
        if news {
            self.announce();
        }
    }

    /// What was told and is not on record yet.
    pub(super) fn told_addresses(&self) -> Option<AddressList> {
        lock(&self.told_addresses).clone()
    }

    /// The list, or a newer one, is on record; or there is no record to put it on.
    pub(super) fn addresses_known(&self, list: &AddressList) {
        let goes_back = {
            let mut known = lock(&self.known_addresses);
            let mut told = lock(&self.told_addresses);
            let goes_back = known.replaces(list.sequence)
                && known.addresses != list.addresses
                && told.is_none();
            if goes_back {
                // It was put on record while the peer went back to the list before: that one is to be there again.
                *told = Some(known.clone());
                *known = list.clone();
            } else if list.replaces(known.sequence) {
                known.clone_from(list);
            }
            if told
                .as_ref()
                .is_some_and(|told| !told.replaces(known.sequence))
            {
                *told = None;
            }
            goes_back
        };
        if goes_back {
            self.announce();
        }
    }

    pub(super) fn inbound(&self) -> MutexGuard<'_, InboundRecord> {
        lock(&self.inbound)
    }

    pub(super) fn inbound_record(&self) -> Arc<Mutex<InboundRecord>> {
        Arc::clone(&self.inbound)
    }

    /// Tells whoever watches this peer, or all of them, that something has changed.
    pub(super) fn announce(&self) {
        self.ticks.send_modify(|n| *n = n.wrapping_add(1));
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes whenever the state of one of the links does.
    pub(super) fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }
}

/// What a call needs of a connection that is up.
#[derive(Clone)]
pub(super) struct Live {
    /// The client; its connection is never replaced under it.
    pub(super) client: Client,
    /// Asks over the same connection whether anybody is there.
    pub(super) probe: Probe,
    /// What its node told on it: what counts for a call is what the node can that gets it.
    pub(super) facts: Arc<Facts>,
    /// Counts the connections of its link, so that a call can ask for another than the one that failed it.
    pub(super) serial: u64,
}

impl Live {
    /// Whether the node answers at all, over this connection and within this time. No role of it is asked.
    pub(super) async fn answers_within(&self, limit: Duration) -> bool {
        let mut probe = self.probe.clone();
        let asked = probe.check(HealthCheckRequest::default());
        match timeout(limit, asked).await {
            Err(_) => false,
            Ok(Ok(_)) => true,
            // Who refuses to answer lives; what our own side says has a source.
            Ok(Err(status)) => status.source().is_none(),
        }
    }
}

struct Published {
    link: Link,
    live: Option<Live>,
    /// The node has said that it shuts down.
    draining: bool,
    told: Option<Told>,
    /// What the peer accepts from us, as the node told last.
    accepted: Option<AcceptedList>,
    /// The count of ends that the node could not deliver to us, as it told last on this stream.
    session_ends: u64,
}

/// One link's shared state: the way to one address of a peer.
pub(super) struct Shared {
    /// Tells the links of a node apart.
    pub(super) number: u64,
    /// Where it leads, `host:port`.
    pub(super) address: String,
    pub(super) common: Arc<Common>,
    pub(super) wake: Wake,
    /// Ends its task.
    pub(super) stop: CancellationToken,
    published: Mutex<Published>,
    in_flight: AtomicUsize,
    /// Serial of the newest connection that takes no more calls.
    spent: AtomicU64,
    conduct: Mutex<Conduct>,
    giver: Mutex<Giver>,
    /// Its address is the peer's no more: it goes when another link is up, or when it is lost.
    retiring: AtomicBool,
}

/// Whose word a link's address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giver {
    /// The operator's: it may lead anywhere.
    Operator,
    /// The peer's.
    Peer {
        /// Whether it may lead to this machine or this wire.
        may_be_near: bool,
    },
}

/// What ends the pause between two attempts early.
#[derive(Default)]
pub(super) struct Wake {
    /// Somebody waits for the link.
    pub(super) call: Notify,
    /// The peer called us: it lives.
    pub(super) inbound: Notify,
    /// A call found that its connection takes no more calls.
    pub(super) spent: Notify,
}

impl Shared {
    /// The state of a link that has never been tried.
    pub(super) fn new(
        number: u64,
        address: String,
        giver: Giver,
        common: Arc<Common>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            number,
            address,
            common,
            wake: Wake::default(),
            stop,
            published: Mutex::new(Published {
                link: Link::new(now()),
                live: None,
                draining: false,
                told: None,
                accepted: None,
                session_ends: 0,
            }),
            in_flight: AtomicUsize::new(0),
            spent: AtomicU64::new(0),
            conduct: Mutex::default(),
            giver: Mutex::new(giver),
            retiring: AtomicBool::new(false),
        }
    }

    pub(super) fn cluster(&self) -> &ClusterId {
        &self.common.cluster
    }

    pub(super) fn attempt_began(&self) {
        self.published().link.attempt_began();
    }

    pub(super) fn attempt_failed(&self, failure: Failure) {
        self.went_down(|link, now| link.attempt_failed(failure, now));
    }

    pub(super) fn lost(&self, failure: Failure) {
        self.went_down(|link, now| link.lost(failure, now));
    }

    pub(super) fn close(&self, failure: Failure) {
        self.went_down(|link, now| link.close(failure, now));
    }

    fn went_down(&self, event: impl FnOnce(&mut Link, Instant)) {
        {
            let mut published = self.published();
            event(&mut published.link, now());
            published.live = None;
            published.draining = false;
            published.told = None;
        }
        self.common.announce();
    }

    pub(super) fn came_up(&self, client: Client, probe: Probe, facts: Facts) {
        {
            let mut published = self.published();
            if published.link.state() != LinkState::Up {
                self.common.times_up.fetch_add(1, Ordering::Relaxed);
            }
            published.live = Some(Live {
                client,
                probe,
                facts: Arc::new(facts.clone()),
                serial: published.link.attempts_begun(),
            });
            published.link.came_up(facts, now());
            published.draining = false;
            published.told = None;
            published.session_ends = 0;
        }
        *lock(&self.conduct) = Conduct::default();
        self.common.announce();
    }

    /// The live connection takes no more calls; what comes now goes elsewhere, or waits for the next one.
    pub(super) fn withdraw(&self) {
        self.published().live = None;
        self.common.announce();
    }

    /// The node shuts down: calls go to another one, if there is one.
    pub(super) fn drains(&self) {
        self.published().draining = true;
        self.common.announce();
    }

    /// A heartbeat. Nobody is woken: no decision hangs on it.
    pub(super) fn proved(&self, clock_offset_ms: Option<i64>) {
        self.published().link.proved(clock_offset_ms, now());
        self.lives();
    }

    /// Keeps what the node told of its view of us; true when that is news.
    pub(super) fn told(&self, told: Told) -> bool {
        let mut published = self.published();
        let news = told.is_news(published.told.as_ref());
        published.told = Some(told);
        news
    }

    /// Keeps how often the node could not deliver ends to us; true when that has grown on this stream.
    pub(super) fn has_ends(&self, count: u64) -> bool {
        let mut published = self.published();
        let grew = count > published.session_ends;
        published.session_ends = count;
        grew
    }

    /// Keeps what the node told of what its cluster accepts from us; true when that is news.
    pub(super) fn accepted(&self, list: AcceptedList) -> bool {
        let mut published = self.published();
        let news = published.accepted.as_ref() != Some(&list);
        published.accepted = Some(list);
        news
    }

    /// What the node told last of what its cluster accepts from us.
    pub(super) fn accepts(&self) -> Option<AcceptedList> {
        self.published().accepted.clone()
    }

    /// Anything came from the node.
    pub(super) fn lives(&self) {
        lock(&self.conduct).lives(now());
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        lock(&self.conduct).answered(now());
    }

    /// A call was answered with an error of the node's own.
    pub(super) fn failed(&self, code: EmCode) {
        lock(&self.conduct).failed(code, now());
    }

    /// A call waits for its answer for too long.
    pub(super) fn overdue(&self) {
        lock(&self.conduct).overdue(now());
    }

    /// Not even a probe is answered. True when that is news.
    pub(super) fn silent(&self) -> bool {
        lock(&self.conduct).silent()
    }

    /// How the node has met our calls.
    pub(super) fn conduct(&self) -> Conduct {
        lock(&self.conduct).clone()
    }

    /// A call found that this connection takes no more calls: the peer sends its callers away.
    pub(super) fn report_spent(&self, serial: u64) {
        self.spent.fetch_max(serial, Ordering::Relaxed);
        self.wake.spent.notify_one();
    }

    /// Whether the live connection is known to take no more calls.
    pub(super) fn is_spent(&self) -> bool {
        self.published()
            .live
            .as_ref()
            .is_some_and(|live| self.has_spent(live.serial))
    }

    pub(super) fn has_spent(&self, serial: u64) -> bool {
        serial <= self.spent.load(Ordering::Relaxed)
    }

    /// The connection that calls may go over; none while the link is not up.
    pub(super) fn live(&self) -> Option<Live> {
        let published = self.published();
        let live = published.live.as_ref()?;
        let usable = published.link.state() == LinkState::Up && !self.has_spent(live.serial);
        usable.then(|| live.clone())
    }

    /// This connection of the link among others, for a call that was sent to these nodes before.
    pub(super) fn candidate<'a>(&self, live: &'a Live, asked: bool) -> Candidate<'a> {
        Candidate {
            node: live.facts.identity(),
            asked,
            suspect: lock(&self.conduct).is_suspect(now()),
            draining: self.is_draining(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.published().draining
    }

    pub(super) fn set_giver(&self, giver: Giver) {
        *lock(&self.giver) = giver;
    }

    pub(super) fn giver(&self) -> Giver {
        *lock(&self.giver)
    }

    pub(super) fn is_learned(&self) -> bool {
        self.giver() != Giver::Operator
    }

    pub(super) fn retire(&self, retiring: bool) {
        self.retiring.store(retiring, Ordering::Relaxed);
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.link(Link::state) == LinkState::Up
    }

    /// Reads the link's state.
    pub(super) fn link<T>(&self, read: impl FnOnce(&Link) -> T) -> T {
        read(&self.published().link)
    }

    /// The link's state, and what was told on it last.
    pub(super) fn view(&self) -> (Link, Option<Told>) {
        let published = self.published();
        (published.link.clone(), published.told.clone())
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        lock(&self.published)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("cluster", &self.common.cluster)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A call under way on a link, for as long as this lives.
pub(super) struct UnderWay(Arc<Shared>);

impl UnderWay {
    pub(super) fn on(link: &Arc<Shared>) -> Self {
        link.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(link))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The records behind these locks are whole even if a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokio's clock, so that a test can pause it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_heard_when_it_says_something_else_and_is_not_of_the_far_future() {
        let berlin = ClusterId::new("berlin").unwrap();
        let common = Common::new(
            berlin,
            Arc::default(),
            watch::Sender::new(0),
            Chance::system(),
        );
        let list = |sequence, address: &str| AddressList {
            sequence,
            addresses: vec![address.to_owned()],
        };
        let now = Timestamp::from_millis(1_000);
        common.addresses_known(&list(5, "a:1"));
        for sequence in 0..1_000 {
            common.hear_addresses(list(sequence, "a:1"), now);
        }
        assert_eq!(common.told_addresses(), None);
        common.hear_addresses(list(999, "b:1"), now);
        assert_eq!(common.told_addresses(), None, "it is no newer");
        common.hear_addresses(list(u64::MAX, "b:1"), now);
        assert_eq!(common.told_addresses(), None, "nothing could ever follow");
        common.hear_addresses(list(1_000, "b:1"), now);
        common.hear_addresses(list(1_001, "c:1"), now);
        assert_eq!(common.told_addresses(), Some(list(1_001, "c:1")));
        // Back to what is on record before the other was put there.
        common.hear_addresses(list(1_002, "a:1"), now);
        assert_eq!(common.told_addresses(), None);
    }

    #[test]
    fn a_peer_that_goes_back_while_its_list_is_being_written_is_heard() {
        let berlin = ClusterId::new("berlin").unwrap();
        let common = Common::new(
            berlin,
            Arc::default(),
            watch::Sender::new(0),
            Chance::system(),
        );
        let list = |sequence, address: &str| AddressList {
            sequence,
            addresses: vec![address.to_owned()],
        };
        let now = Timestamp::from_millis(1_000);
        common.addresses_known(&list(5, "a:1"));
        common.hear_addresses(list(6, "b:1"), now);
        let writing = common.told_addresses().unwrap();
        common.hear_addresses(list(7, "a:1"), now);
        assert_eq!(common.told_addresses(), None);
        let mut ticks = common.ticks();
        common.addresses_known(&writing);
        assert!(ticks.has_changed().unwrap(), "whoever writes is told");
        ticks.mark_unchanged();
        assert_eq!(common.told_addresses(), Some(list(7, "a:1")));
        // What is on record is read again and again; once it is the newest, nothing is left to write.
        common.addresses_known(&list(6, "b:1"));
        assert!(!ticks.has_changed().unwrap());
        common.addresses_known(&list(7, "a:1"));
        assert_eq!(common.told_addresses(), None);
        common.hear_addresses(list(8, "b:1"), now);
        assert_eq!(common.told_addresses(), Some(list(8, "b:1")));
    }
}
