//! What the task of a link, its callers and its readers share.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::{Notify, Semaphore, watch};
use tonic::transport::Channel;

use crate::{
    domain::{
        capability::Traits,
        em_code::EmCode,
        ids::ClusterId,
        refusal::Refusal,
        version::{Version, VersionRange},
    },
    peer::{
        inbound::InboundRecord,
        link::{Facts, Failure, FailureKind, Link, LinkState, Standing},
        status::LinkStatus,
    },
    wire::pb::federation_service_client::FederationServiceClient,
};

/// A typed client over the one live connection.
pub(super) type Client = FederationServiceClient<Channel>;

/// How many calls to one peer may be under way at once. One connection carries about what two cores can do;
/// more waiting than this only makes all of them late.
const MAX_IN_FLIGHT: usize = 256;

/// What a call needs of a link that is up.
#[derive(Clone)]
pub(super) struct Live {
    /// The client; its connection is never replaced under it.
    pub(super) client: Client,
    /// Negotiated for it.
    pub(super) version: Version,
    /// All that the peer speaks.
    pub(super) versions: VersionRange,
    /// Counts connections, so that a call can ask for another than the one that failed it.
    pub(super) serial: u64,
}

struct Published {
    link: Link,
    live: Option<Live>,
}

/// One link's shared state.
pub(super) struct Shared {
    pub(super) cluster: ClusterId,
    pub(super) addresses: watch::Sender<Vec<String>>,
    pub(super) wake: Wake,
    pub(super) in_flight: Arc<Semaphore>,
    published: watch::Sender<Published>,
    inbound: Arc<Mutex<InboundRecord>>,
    changes: watch::Sender<u64>,
    /// Serial of the newest connection that takes no more calls.
    spent: AtomicU64,
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
    /// The state of a link that has never been tried. `changes` is bumped at every change of state.
    pub(super) fn new(
        cluster: ClusterId,
        addresses: Vec<String>,
        inbound: Arc<Mutex<InboundRecord>>,
        changes: watch::Sender<u64>,
    ) -> Self {
        let link = Link::new(now());
        Self {
            cluster,
            addresses: watch::Sender::new(addresses),
            wake: Wake::default(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            published: watch::Sender::new(Published { link, live: None }),
            inbound,
            changes,
            spent: AtomicU64::new(0),
        }
    }

    pub(super) fn inbound(&self) -> MutexGuard<'_, InboundRecord> {
        // A record of counters is whole even if a holder panicked.
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbound_record(&self) -> Arc<Mutex<InboundRecord>> {
        Arc::clone(&self.inbound)
    }

    /// What the peer has told of itself: as a caller, else on our own link.
    pub(super) fn traits(&self) -> Option<Traits> {
        let told = self.inbound().traits();
        told.or_else(|| {
            self.link(|link| {
                link.facts()
                    .map(|facts| Traits::told(facts.security_mode, &facts.capabilities))
            })
        })
    }

    pub(super) fn attempt_began(&self) {
        self.published.send_modify(|p| p.link.attempt_began());
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
        self.published.send_modify(|p| {
            event(&mut p.link, now());
            p.live = None;
        });
        self.inbound().forget_told();
        self.announce();
    }

    pub(super) fn came_up(&self, client: Client, facts: Facts) {
        self.published.send_modify(|p| {
            p.live = Some(Live {
                client,
                version: facts.version,
                versions: facts.versions,
                serial: p.link.attempts_begun(),
            });
            p.link.came_up(facts, now());
        });
        self.announce();
    }

    /// The live connection takes no more calls; what comes now waits for the next one.
    pub(super) fn withdraw(&self) {
        self.published.send_modify(|p| p.live = None);
    }

    /// A heartbeat. Nobody is woken: no decision hangs on it.
    pub(super) fn proved(&self, clock_offset_ms: Option<i64>) {
        self.published.send_if_modified(|p| {
            p.link.proved(clock_offset_ms, now());
            false
        });
    }

    /// A call found that this connection takes no more calls: the peer sends its callers away.
    pub(super) fn report_spent(&self, serial: u64) {
        self.spent.fetch_max(serial, Ordering::Relaxed);
        self.wake.spent.notify_one();
    }

    /// Whether the live connection is known to take no more calls.
    pub(super) fn is_spent(&self) -> bool {
        let spent = self.spent.load(Ordering::Relaxed);
        self.published
            .borrow()
            .live
            .as_ref()
            .is_some_and(|live| live.serial <= spent)
    }

    /// Tells whoever watches all links that something has changed.
    pub(super) fn announce(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Reads the link's state.
    pub(super) fn link<T>(&self, read: impl FnOnce(&Link) -> T) -> T {
        read(&self.published.borrow().link)
    }

    /// Wakes its receivers at each change of the link's state, for the reverse proof.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut published = self.published.subscribe();
        async move {
            // The sender lives as long as the peer's record; when it goes, so does the caller.
            let _ = published.changed().await;
        }
    }

    pub(super) fn status(&self, enabled: bool) -> LinkStatus {
        let link = self.published.borrow().link.clone();
        LinkStatus::of(&self.cluster, enabled, &link, &self.inbound(), now())
    }

    /// The live connection. When there is none, the link is woken at once, and the outcome of an attempt
    /// that begins now is waited for, at most until `deadline`. `spent` is a connection that won't do.
    pub(super) async fn live(
        &self,
        deadline: Instant,
        spent: Option<u64>,
    ) -> Result<Live, Refusal> {
        let mut published = self.published.subscribe();
        let mark = {
            let now = published.borrow_and_update();
            if let Some(live) = usable(&now, spent) {
                return Ok(live);
            }
            now.link.attempts_begun()
        };
        self.wake.call.notify_one();
        loop {
            let changed = tokio::time::timeout_at(deadline.into(), published.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(self.silent());
            }
            let now = published.borrow_and_update();
            if let Some(live) = usable(&now, spent) {
                return Ok(live);
            }
            if let Standing::Failed(failure) = now.link.standing(mark) {
                return Err(refusal(failure));
            }
        }
    }

    fn silent(&self) -> Refusal {
        let cause = self.link(|link| match link.failure() {
            Some(failure) => format!(
                "{} did not answer in time; its link has been {}: {}",
                self.cluster,
                link.state().as_str(),
                failure.text
            ),
            None => format!("{} did not answer in time", self.cluster),
        });
        Refusal::new(EmCode::NoResponseFromRemoteHost, cause)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

fn usable(published: &Published, spent: Option<u64>) -> Option<Live> {
    published
        .live
        .as_ref()
        .filter(|live| published.link.state() == LinkState::Up && spent != Some(live.serial))
        .cloned()
}

fn refusal(failure: &Failure) -> Refusal {
    let code = match failure.kind {
        FailureKind::Incompatible => EmCode::ErrorOnParsing,
        FailureKind::Refused => EmCode::ServiceConnectionError,
        FailureKind::Silent => EmCode::NoResponseFromRemoteHost,
    };
    Refusal::new(code, failure.text.clone())
}

/// Tokio's clock, so that a test can pause it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
