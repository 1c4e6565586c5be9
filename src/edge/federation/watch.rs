//! `Watch`: a heartbeat that says what we see of the caller.
//!
//! Each message is made when it can be sent, from what is true then: nothing queues up behind a slow reader.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::stream::{self, Stream, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    clock::Clock,
    domain::{accepted::Accepted, address_list::AddressList, ids::ClusterId},
    peer::{Accepts, Peers, WatchGuard},
    watch,
    wire::{federation::Beat, pb},
};

/// The stream of one caller.
pub type Beats = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

/// The least time between two messages: a link of ours that flaps must not flood the peer with the news.
const SPACING: Duration = Duration::from_millis(50);

/// How long a stream goes on after it has said that this node shuts down: time for the message to arrive, and for
/// the caller to begin a link to another node. Calls under way don't need the stream.
const LINGER: Duration = Duration::from_millis(300);

/// The same after it has said that the caller is to begin another connection to this node, which it does first.
const LINGER_LEAVING: Duration = Duration::from_secs(8);

/// What a stream of heartbeats is made of.
#[derive(Debug)]
pub struct Watch {
    /// The caller.
    pub cluster: ClusterId,
    /// Its node, if it said so.
    pub node: String,
    /// How often it wants to hear of us, within bounds.
    pub heartbeat: Duration,
    /// Counts this stream for as long as it lives.
    pub guard: WatchGuard,
    /// What we see of the caller.
    pub peers: Peers,
    /// Our wall clock.
    pub clock: Clock,
    /// Cancelled when this node begins to shut down: the caller is told.
    pub drain: CancellationToken,
    /// Cancelled when the caller is to begin another connection in place of this one: it is told the same.
    pub leaving: CancellationToken,
    /// Cancelled when this node ends its connections: the stream ends, so that they can.
    pub stop: CancellationToken,
}

struct Beating {
    watch: Watch,
    sequence: u64,
    sent_at: Instant,
    told_draining: bool,
    /// Our own addresses, and the sequence of those that were told.
    own: watch::Receiver<Arc<AddressList>>,
    told_addresses: u64,
    /// What our cluster accepts, and what of that was told.
    accepts: watch::Receiver<Arc<Accepts>>,
    told_accepted: Option<Arc<[Accepted]>>,
    /// Completes when what the last message told is no longer true.
    changed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Watch {
    /// The heartbeats: one at once, then at each interval and at each change of our own link to the caller.
    /// Shortly after the one that says that we are shutting down they end, so that the connection can.
    #[must_use]
    pub fn beats(self) -> Beats {
        let start = Beating {
            own: self.peers.own_addresses(),
            told_addresses: 0,
            accepts: self.peers.accepts(),
            told_accepted: None,
            watch: self,
            sequence: 0,
            sent_at: Instant::now(),
            told_draining: false,
            changed: Box::pin(std::future::pending()),
        };
        let (stop, drain) = (start.watch.stop.clone(), start.watch.drain.clone());
        let leaving = start.watch.leaving.clone();
        let ended = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = async { drain.cancelled().await; sleep(LINGER).await } => {}
                () = async { leaving.cancelled().await; sleep(LINGER_LEAVING).await } => {}
            }
        };
        let beats = stream::unfold(start, |mut beating| async move {
            let beat = beating.next().await;
            Some((Ok(beat), beating))
        });
        Box::pin(beats.take_until(Box::pin(ended)))
    }
}

impl Watch {
    /// Whether the caller is to go elsewhere.
    fn goes(&self) -> bool {
        self.drain.is_cancelled() || self.leaving.is_cancelled()
    }
}

impl Beating {
    async fn next(&mut self) -> pb::WatchResponse {
        if self.sequence > 0 {
            self.pause().await;
        }
        self.sequence += 1;
        self.sent_at = Instant::now();
        self.told_draining = self.watch.goes();
        // Subscribed before the state is read: no change falls in between.
        self.changed = Box::pin(self.watch.peers.outbound_changed(&self.watch.cluster));
        let Watch { cluster, node, .. } = &self.watch;
        let view = self.watch.peers.outbound_view(cluster, node);
        let (reverse_proof_age, reverse_down_reason) = match view {
            Some(view) => (view.proof_age, view.down_reason),
            None => (
                None,
                format!("there is no peer record of {} here", self.watch.cluster),
            ),
        };
        let own = Arc::clone(&self.own.borrow_and_update());
        let addresses = own.replaces(self.told_addresses).then(|| (*own).clone());
        self.told_addresses = own.sequence;
        let accepted = self.accepts.borrow_and_update().of(cluster).cloned();
        let accepted =
            accepted.filter(|list| self.told_accepted.as_ref() != Some(&list.certificates));
        if let Some(list) = &accepted {
            self.told_accepted = Some(Arc::clone(&list.certificates));
        }
        pb::WatchResponse::from(&Beat {
            sequence: self.sequence,
            now: self.watch.clock.now(),
            reverse_proof_age,
            reverse_down_reason,
            draining: self.told_draining,
            addresses,
            accepted,
            session_ends: self.watch.peers.undelivered(cluster),
        })
    }

    async fn pause(&mut self) {
        let soonest = self.sent_at + SPACING.min(self.watch.heartbeat);
        tokio::select! {
            biased;
            () = sleep_until(self.sent_at + self.watch.heartbeat) => {}
            () = &mut self.changed => sleep_until(soonest).await,
            Ok(()) = self.own.changed() => sleep_until(soonest).await,
            () = otherwise(&mut self.accepts, &self.watch.cluster, self.told_accepted.as_deref()) => {
                sleep_until(soonest).await;
            }
            () = self.watch.drain.cancelled(), if !self.told_draining => {}
            () = self.watch.leaving.cancelled(), if !self.told_draining => {}
        }
    }
}

/// Completes when something else is accepted from that peer than what it was told. What changes for others wakes nobody
/// else. Cancel safe.
async fn otherwise(
    accepts: &mut watch::Receiver<Arc<Accepts>>,
    cluster: &ClusterId,
    told: Option<&[Accepted]>,
) {
    loop {
        if accepts.changed().await.is_err() {
            return std::future::pending().await;
        }
        let now = accepts.borrow_and_update();
        let list = now.of(cluster).map(|list| &*list.certificates);
        if list.is_some() && list != told {
            return;
        }
    }
}
