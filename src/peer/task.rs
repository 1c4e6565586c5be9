//! The task of one link: dial, hold, dial again, until the peer is removed or the node stops.
//!
//! A change of trust, of our identity or of the peer's addresses replaces a live connection by a new one
//! before the old one is let go; calls under way finish on the old one. Only when the new trust has no place
//! for the peer is the old one cut.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, info, warn};

use crate::{
    clock::{Clock, Timestamp},
    domain::ids::ClusterId,
    peer::{
        Config, Error,
        attempt::{Attempt, Session, offset_of, shown_by},
        backoff::Backoff,
        error::bounded,
        link::{Failure, FailureKind, LinkState},
        shared::Shared,
    },
    trust::{Snapshot, TrustStore, bundle::Bundle, certificate::Certificate},
    wire::{federation::Beat, pb, status},
};

/// The least time between the begins of two attempts when a call asks for one.
const CALL_SPACING: Duration = Duration::from_millis(10);
/// The same when the peer called us. Two sides that can't agree would wake each other without end.
const INBOUND_SPACING: Duration = Duration::from_millis(100);
/// How long calls may go on over a connection whose certificate lost its trust: a peer that swaps its
/// certificate loses no call, and one that was revoked has no more to say.
const TRUST_GRACE: Duration = Duration::from_millis(500);
/// A peer without a common version changes only when somebody upgrades it, and then it calls us.
const INCOMPATIBLE_FACTOR: u32 = 4;

/// What runs one link.
pub(super) struct LinkTask {
    pub(super) config: Arc<Config>,
    pub(super) trust: TrustStore,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
}

/// What of a trust snapshot a link depends on.
#[derive(PartialEq)]
struct Ground {
    identity: Option<String>,
    bundle: Option<Bundle>,
}

impl Ground {
    fn of(snapshot: &Snapshot, cluster: &ClusterId) -> Self {
        Self {
            identity: shown_by(snapshot),
            bundle: snapshot
                .bundles()
                .iter()
                .find(|b| b.cluster == *cluster)
                .cloned(),
        }
    }
}

/// Why holding a connection ended.
enum Held {
    /// The connection is of no use any more.
    Lost(Failure),
    /// It is to be replaced.
    Replace(Replace),
}

/// What becomes of a connection that is to be replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    /// It stays if there is no other.
    May,
    /// It ends if there is no other; otherwise calls under way finish on it.
    Must,
    /// No call is sent over it any more, and those under way have [`TRUST_GRACE`].
    Untrusted,
}

impl LinkTask {
    /// Runs until told to stop.
    pub(super) async fn run(self) {
        self.stop.run_until_cancelled(self.keep_linked()).await;
        self.shared.close(ended(&self.shared.cluster));
    }

    async fn keep_linked(&self) {
        let mut trust = self.trust.subscribe();
        let mut backoff = Backoff::new(self.config.backoff_cap);
        let mut first = 0;
        loop {
            let began = Instant::now();
            trust.mark_unchanged();
            match self.attempt(first).await {
                Ok((session, ground)) => {
                    backoff.reset();
                    first = self.hold(session, ground, &mut trust).await;
                }
                Err(error) => self.failed(&error),
            }
            self.pause(&mut backoff, began, &mut trust).await;
        }
    }

    async fn attempt(&self, first: usize) -> Result<(Session, Ground), Error> {
        let addresses = self.shared.addresses.borrow().clone();
        let snapshot = self.trust.snapshot();
        self.shared.attempt_began();
        let attempt = Attempt {
            config: &self.config,
            clock: &self.clock,
            trust: &self.trust,
            cluster: &self.shared.cluster,
            snapshot: &snapshot,
        };
        let session = attempt.run(&addresses, first).await?;
        Ok((session, Ground::of(&snapshot, &self.shared.cluster)))
    }

    fn failed(&self, error: &Error) {
        let failure = error.failure();
        let news = self.shared.link(|link| {
            link.failure()
                .is_none_or(|before| before.text != failure.text)
        });
        let peer = self.shared.cluster.as_str();
        if news {
            warn!(peer.cluster_id = peer, reason = %failure.text, "the link to {peer} is down");
        } else {
            debug!(peer.cluster_id = peer, "the link to {peer} is still down");
        }
        self.shared.attempt_failed(failure);
    }

    /// Holds a link until it is lost. Gives the place of the address to begin with next.
    async fn hold(
        &self,
        mut session: Session,
        mut ground: Ground,
        trust: &mut watch::Receiver<u64>,
    ) -> usize {
        self.came_up(&session);
        let mut draining = false;
        loop {
            match self
                .watch(&mut session, &ground, trust, &mut draining)
                .await
            {
                Held::Lost(failure) => {
                    let peer = self.shared.cluster.as_str();
                    warn!(peer.cluster_id = peer, reason = %failure.text, "the link to {peer} was lost");
                    self.shared.lost(failure);
                    return session.index + usize::from(draining);
                }
                Held::Replace(how) => {
                    let next = session.index + usize::from(draining);
                    match self.replace(&session, how, next).await {
                        Ok(new) => {
                            (session, ground) = new;
                            draining = false;
                        }
                        Err(error) if how == Replace::May => {
                            debug!(%error, "no other node of the peer takes over");
                        }
                        Err(error) => {
                            session.cut.cancel();
                            self.failed(&error);
                            return session.index;
                        }
                    }
                }
            }
        }
    }

    /// Brings up a new connection beside the live one, and lets go of that one as `how` says.
    async fn replace(
        &self,
        old: &Session,
        how: Replace,
        first: usize,
    ) -> Result<(Session, Ground), Error> {
        if how != Replace::Untrusted {
            let (new, ground) = self.attempt(first).await?;
            self.came_up(&new);
            return Ok((new, ground));
        }
        self.shared.withdraw();
        let cut = async {
            sleep(TRUST_GRACE).await;
            old.cut.cancel();
        };
        let mut cut = pin!(cut);
        let mut attempt = pin!(self.attempt(first));
        let (new, ground) = tokio::select! {
            outcome = attempt.as_mut() => outcome?,
            () = cut.as_mut() => attempt.await?,
        };
        self.came_up(&new);
        if !old.cut.is_cancelled() {
            cut.await;
        }
        Ok((new, ground))
    }

    fn came_up(&self, session: &Session) {
        let (peer, facts) = (self.shared.cluster.as_str(), &session.facts);
        info!(
            peer.cluster_id = peer,
            peer.node = %facts.node,
            peer.address = %facts.address,
            version = %facts.version,
            "the link to {peer} is up"
        );
        self.shared.came_up(session.client.clone(), facts.clone());
    }

    async fn watch(
        &self,
        session: &mut Session,
        ground: &Ground,
        trust: &mut watch::Receiver<u64>,
        draining: &mut bool,
    ) -> Held {
        let mut addresses = self.shared.addresses.subscribe();
        if !addresses.borrow().contains(&session.facts.address) {
            return Held::Replace(Replace::Must);
        }
        let leaf = session
            .chain
            .first()
            .and_then(|der| Certificate::from_der(der).ok());
        let not_after = leaf.map(|leaf| leaf.not_after());
        loop {
            let dead_at = self
                .shared
                .link(|link| link.dead_at(self.config.dead_after))
                .map_or_else(Instant::now, Instant::from_std);
            tokio::select! {
                message = session.beats.message() => {
                    match self.heard(&session.facts.address, message) {
                        Ok(beat) => {
                            self.shared.proved(Some(offset_of(&beat, &self.clock)));
                            self.told(beat.reverse_proof_age, &beat.reverse_down_reason);
                            if beat.draining && !*draining && addresses.borrow().len() > 1 {
                                *draining = true;
                                return Held::Replace(Replace::May);
                            }
                        }
                        Err(failure) => return Held::Lost(failure),
                    }
                }
                () = sleep_until(dead_at) => return Held::Lost(self.dead(&session.facts.address)),
                Ok(()) = trust.changed() => {
                    let snapshot = self.trust.snapshot();
                    if *ground != Ground::of(&snapshot, &self.shared.cluster) {
                        let verdict =
                            snapshot.identify_dialled(&self.shared.cluster, &session.chain);
                        return Held::Replace(if verdict.peer().is_some() {
                            Replace::Must
                        } else {
                            Replace::Untrusted
                        });
                    }
                }
                Ok(()) = addresses.changed() => {
                    if !addresses.borrow_and_update().contains(&session.facts.address) {
                        return Held::Replace(Replace::Must);
                    }
                }
                () = self.shared.wake.spent.notified() => {
                    if self.shared.is_spent() {
                        return Held::Replace(Replace::Must);
                    }
                }
                () = self.leaf_ends(not_after) => return Held::Replace(Replace::Must),
            }
        }
    }

    /// Completes when the certificate that the peer showed is no longer valid by our clock.
    async fn leaf_ends(&self, not_after: Option<Timestamp>) {
        // The wall clock can be set: it is read again now and then.
        const LOOK_AGAIN: Duration = Duration::from_secs(10);
        let Some(not_after) = not_after else {
            return std::future::pending().await;
        };
        loop {
            let left = not_after.since(self.clock.now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }

    /// Keeps what the peer sees of us, and wakes who waits for news of it.
    fn told(&self, age: Option<Duration>, reason: &str) {
        let now = crate::peer::shared::now();
        let news = {
            let mut inbound = self.shared.inbound();
            let before = inbound.view(now);
            inbound.told(age, bounded(reason), now);
            let after = inbound.view(now);
            before.reverse_proof_age.is_some() != after.reverse_proof_age.is_some()
                || before.reverse_down_reason != after.reverse_down_reason
        };
        if news {
            self.shared.announce();
        }
    }

    fn heard(
        &self,
        address: &str,
        message: Result<Option<pb::WatchResponse>, Status>,
    ) -> Result<Beat, Failure> {
        let address = address.to_owned();
        let error = match message {
            Ok(Some(beat)) => match Beat::try_from(beat) {
                Ok(beat) => return Ok(beat),
                Err(malformed) => Error::Broken {
                    address,
                    step: "Watch",
                    what: malformed.to_string(),
                },
            },
            Ok(None) => Error::Ended { address },
            Err(refused) => {
                let rejection = status::rejection_from_status(&refused);
                let refusal = status::from_status(&refused, &self.shared.cluster);
                return Err(Failure {
                    kind: FailureKind::Refused,
                    text: bounded(&format!("{address}: the link ended: {}", refusal.cause)),
                    rejection,
                });
            }
        };
        Err(error.failure())
    }

    fn dead(&self, address: &str) -> Failure {
        Failure::new(
            FailureKind::Silent,
            format!(
                "{address}: no sign of life from {} for {} ms",
                self.shared.cluster,
                self.config.dead_after.as_millis()
            ),
        )
    }

    /// Waits before the next attempt: the back-off, or less when there is a reason to try at once.
    async fn pause(&self, backoff: &mut Backoff, began: Instant, trust: &mut watch::Receiver<u64>) {
        let incompatible = self.shared.link(|l| l.state() == LinkState::Incompatible);
        let factor = if incompatible { INCOMPATIBLE_FACTOR } else { 1 };
        let mut until = Instant::now() + backoff.next_delay(rand::random()) * factor;
        let mut addresses = self.shared.addresses.subscribe();
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.shared.wake.call.notified() => until = until.min(began + CALL_SPACING),
                () = self.shared.wake.inbound.notified() => {
                    backoff.reset();
                    until = until.min(began + INBOUND_SPACING);
                }
                Ok(()) = trust.changed() => return,
                Ok(()) = addresses.changed() => return,
            }
        }
    }
}

/// What calls are told that come to a link which will not be dialled.
pub(super) fn disabled(cluster: &ClusterId) -> Failure {
    let cluster = cluster.clone();
    Error::Disabled { cluster }.failure()
}

fn ended(cluster: &ClusterId) -> Failure {
    Failure::new(
        FailureKind::Refused,
        format!(
            "the link to {cluster} was closed here: the peer was removed or disabled, or this node stops"
        ),
    )
}
