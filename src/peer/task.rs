//! The task of the link to one address: dial, hold, dial again, until the address or the peer is removed or the node
//! stops.
//!
//! A change of trust or of our identity replaces a live connection by a new one before the old one is let go; calls
//! under way finish on the old one. Only when the new trust has no place for the peer is the old one cut.

use std::{pin::pin, sync::Arc, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::{
    clock::Clock,
    domain::{address_list::AddressList, ids::ClusterId},
    peer::{
        Accepts, Config, Error, Sequences,
        attempt::{Attempt, Session, offset_of, shown_to},
        backoff::Backoff,
        connector::untrusted,
        error::bounded,
        group::Group,
        inbound::Told,
        link::{Failure, FailureKind},
        lookup::Lookups,
        shared::{Giver, Shared},
        transport::Transport,
    },
    trust::{Snapshot, TrustStore, bundle::Bundle, certificate::Certificate},
    watch,
    wire::{federation::Beat, pb, status},
};

/// The least time between the begins of two attempts when a call asks for one.
const CALL_SPACING: Duration = Duration::from_millis(10);
/// The same when the peer called us. Two sides that can't agree would wake each other without end.
const INBOUND_SPACING: Duration = Duration::from_millis(100);
/// How long calls may go on over a connection whose certificate lost its trust: a peer that swaps its
/// certificate loses no call, and one that was revoked has no more to say.
const TRUST_GRACE: Duration = Duration::from_millis(500);
/// How often a live connection is judged anew: an issuer may have expired, or the clock been set.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What runs one link.
pub(super) struct LinkTask {
    pub(super) config: Arc<Config>,
    pub(super) trust: TrustStore,
    pub(super) clock: Clock,
    pub(super) group: Arc<Group>,
    pub(super) shared: Arc<Shared>,
    pub(super) lookups: Lookups,
    pub(super) transport: Arc<dyn Transport>,
    /// What we tell of our own addresses.
    pub(super) own: watch::Receiver<Arc<AddressList>>,
    /// What our own cluster accepts.
    pub(super) accepts: watch::Receiver<Arc<Accepts>>,
}

/// What of a trust snapshot a link depends on.
#[derive(PartialEq)]
struct Ground {
    /// What this peer is shown: a change of what others are shown, or of our server's identity, is nothing to its link.
    identity: Option<String>,
    bundle: Option<Bundle>,
}

impl Ground {
    fn of(snapshot: &Snapshot, cluster: &ClusterId) -> Self {
        Self {
            identity: shown_to(snapshot, cluster),
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

/// What becomes of a connection that is to be replaced. While its successor is tried it is watched as before.
#[derive(Debug, PartialEq, Eq)]
enum Replace {
    /// It stays if there is no other.
    May,
    /// It ends if there is no other; otherwise calls under way finish on it.
    Must,
    /// No call is sent over it any more, and those under way have [`TRUST_GRACE`].
    Untrusted(Failure),
}

impl LinkTask {
    /// Runs until told to stop, or until a link is lost whose address is gone.
    pub(super) async fn run(self) {
        let stop = &self.shared.stop;
        let stopped = stop.run_until_cancelled(self.keep_linked()).await;
        let last = match stopped {
            Some(()) => self.shared.link(|link| link.failure().cloned()),
            None => None,
        };
        let closed = last.unwrap_or_else(|| ended(self.shared.cluster()));
        self.shared.close(closed);
    }

    async fn keep_linked(&self) {
        let mut trust = self.trust.subscribe();
        let mut backoff = Backoff::new(self.config.backoff_cap);
        while !self.shared.is_retiring() {
            let mut began = Instant::now();
            trust.mark_unchanged();
            match self.attempt().await {
                Ok((session, ground)) => {
                    let up = Instant::now();
                    self.hold(session, ground, &mut trust).await;
                    // A peer that answers and hangs up, or says nonsense, is no better than one that is down.
                    if up.elapsed() >= self.config.heartbeat {
                        backoff.reset();
                    } else {
                        began = Instant::now();
                    }
                }
                Err(error) => self.failed(&error),
            }
            if !self.shared.is_retiring() {
                self.pause(&mut backoff, began, &mut trust).await;
            }
        }
    }

    async fn attempt(&self) -> Result<(Session, Ground), Error> {
        let cluster = self.shared.cluster();
        let snapshot = self.trust.snapshot();
        self.shared.attempt_began();
        let attempt = Attempt {
            config: &self.config,
            clock: &self.clock,
            told: Sequences {
                trust: self.accepts.borrow().sequence,
                addresses: self.own.borrow().sequence,
            },
            trust: &self.trust,
            cluster,
            snapshot: &snapshot,
            lookups: &self.lookups,
            transport: self.transport.as_ref(),
            may_be_near: match self.shared.giver() {
                Giver::Operator => true,
                Giver::Peer { may_be_near } => may_be_near,
            },
            inbound: &self.shared.wake.inbound,
        };
        let session = attempt.run(&self.shared.address).await?;
        Ok((session, Ground::of(&snapshot, cluster)))
    }

    fn failed(&self, error: &Error) {
        let failure = error.failure();
        let news = self.shared.link(|link| {
            link.failure()
                .is_none_or(|before| before.text != failure.text)
        });
        let (peer, address) = (self.shared.cluster().as_str(), &self.shared.address);
        if news {
            warn!(
                peer.cluster_id = peer, peer.address = address, reason = %failure.text,
                "the link to {peer} at {address} is down"
            );
        } else {
            debug!(
                peer.cluster_id = peer,
                peer.address = address,
                "the link to {peer} is still down"
            );
        }
        self.shared.attempt_failed(failure);
        if !self.shared.is_retiring() {
            self.group.settle_failed();
        }
    }

    /// Holds a link until it is lost.
    async fn hold(
        &self,
        mut session: Session,
        mut ground: Ground,
        trust: &mut watch::Receiver<u64>,
    ) {
        self.came_up(&session);
        let mut draining = false;
        loop {
            match self
                .watch(&mut session, &ground, trust, &mut draining)
                .await
            {
                Held::Lost(failure) => return self.lost(failure),
                Held::Replace(how) => {
                    let may_stay = how == Replace::May;
                    match self.replace(&mut session, how, trust.clone()).await {
                        Ok(new) => {
                            (session, ground) = new;
                            draining = false;
                        }
                        Err(error) if may_stay && self.shared.is_up() => {
                            debug!(%error, "nothing else answers at the address of a node that shuts down");
                        }
                        Err(error) => {
                            session.cut.cancel();
                            return self.failed(&error);
                        }
                    }
                }
            }
        }
    }

    /// Brings up a new connection beside the old one, and lets go of that one as `how` says. Until then the
    /// old one is watched: when it ends, the link is down.
    async fn replace(
        &self,
        old: &mut Session,
        how: Replace,
        mut trust: watch::Receiver<u64>,
    ) -> Result<(Session, Ground), Error> {
        let mut untrusted = None;
        let distrust = |failure| {
            self.shared.withdraw();
            (Instant::now() + TRUST_GRACE, failure)
        };
        if let Replace::Untrusted(failure) = how {
            untrusted = Some(distrust(failure));
        }
        let mut lives = true;
        let mut look_at = self.next_look(&old.chain);
        let mut attempt = pin!(self.attempt());
        let (mut new, ground) = loop {
            let cut_at = untrusted.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                outcome = attempt.as_mut() => break outcome?,
                () = news(&mut trust, look_at), if lives && cut_at.is_none() => {
                    look_at = self.next_look(&old.chain);
                    untrusted = self
                        .verdict(&self.trust.snapshot(), &old.facts.address, &old.chain)
                        .map(distrust);
                }
                () = at(cut_at) => {
                    old.cut.cancel();
                    if let (true, Some((_, failure))) = (lives, untrusted.take()) {
                        self.lost(failure);
                    }
                    (lives, untrusted) = (false, None);
                }
                // Last, so that a peer that says much keeps nothing else waiting.
                beat = self.beat(&old.facts.address, &mut old.beats), if lives => {
                    if let Err(failure) = beat {
                        lives = false;
                        self.lost(failure);
                    }
                }
            }
        };
        self.came_up(&new);
        new.replaced = untrusted.map(|(at, _)| (at, old.cut.clone().drop_guard()));
        Ok((new, ground))
    }

    fn lost(&self, failure: Failure) {
        let (peer, address) = (self.shared.cluster().as_str(), &self.shared.address);
        warn!(
            peer.cluster_id = peer, peer.address = address, reason = %failure.text,
            "the link to {peer} at {address} was lost"
        );
        self.shared.lost(failure);
    }

    fn came_up(&self, session: &Session) {
        let (peer, facts) = (self.shared.cluster().as_str(), &session.facts);
        info!(
            peer.cluster_id = peer,
            peer.node = %facts.node,
            peer.address = %facts.address,
            version = %facts.version,
            "the link to {peer} is up"
        );
        let (client, probe) = (session.client.clone(), session.probe.clone());
        self.shared.came_up(client, probe, facts.clone());
        self.group.settle();
    }

    async fn watch(
        &self,
        session: &mut Session,
        ground: &Ground,
        trust: &mut watch::Receiver<u64>,
        draining: &mut bool,
    ) -> Held {
        let mut look_at = self.next_look(&session.chain);
        loop {
            let cut_at = session.replaced.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                Ok(()) = trust.changed() => {
                    let snapshot = self.trust.snapshot();
                    if *ground != Ground::of(&snapshot, self.shared.cluster()) {
                        return Held::Replace(match self.verdict(&snapshot, &session.facts.address, &session.chain) {
                            None => Replace::Must,
                            Some(failure) => Replace::Untrusted(failure),
                        });
                    }
                }
                () = self.shared.wake.spent.notified() => {
                    if self.shared.is_spent() {
                        return Held::Replace(Replace::Must);
                    }
                }
                () = sleep_until(look_at) => {
                    look_at = self.next_look(&session.chain);
                    let verdict = self.verdict(
                        &self.trust.snapshot(), &session.facts.address, &session.chain,
                    );
                    if let Some(failure) = verdict {
                        return Held::Replace(Replace::Untrusted(failure));
                    }
                }
                () = at(cut_at) => session.replaced = None,
                // Last, so that a peer that says much keeps nothing else waiting.
                beat = self.beat(&session.facts.address, &mut session.beats) => match beat {
                    Ok(beat) => {
                        if beat.draining && !*draining {
                            *draining = true;
                            // A successor may answer at the same address by now.
                            self.shared.drains();
                            return Held::Replace(Replace::May);
                        }
                    }
                    Err(failure) => return Held::Lost(failure),
                },
            }
        }
    }

    /// The next heartbeat, noted, or why there will be none. Cancel safe.
    async fn beat(
        &self,
        address: &str,
        beats: &mut Streaming<pb::WatchResponse>,
    ) -> Result<Beat, Failure> {
        let dead_at = self
            .shared
            .link(|link| link.dead_at(self.config.dead_after))
            .map_or_else(Instant::now, Instant::from_std);
        tokio::select! {
            biased;
            message = beats.message() => {
                let beat = self.heard(address, message)?;
                self.shared.proved(Some(offset_of(&beat, &self.clock)));
                self.told(beat.reverse_proof_age, &beat.reverse_down_reason);
                if let Some(list) = beat.addresses.clone() {
                    self.shared.common.hear_addresses(list, self.clock.now());
                }
                if let Some(list) = beat.accepted.clone()
                    && self.shared.accepted(list)
                {
                    self.shared.common.announce();
                }
                if self.shared.has_ends(beat.session_ends) {
                    self.shared.common.was_rung();
                }
                Ok(beat)
            }
            () = sleep_until(dead_at) => Err(self.dead(address)),
        }
    }

    /// Why what the peer showed is not trusted now.
    fn verdict(
        &self,
        snapshot: &Snapshot,
        address: &str,
        chain: &[CertificateDer<'_>],
    ) -> Option<Failure> {
        let verdict = snapshot.identify_dialled(self.shared.cluster(), chain);
        untrusted(address, verdict).map(|error| error.failure())
    }

    /// When a connection is to be judged anew: soon, or earlier when its certificate ends.
    fn next_look(&self, chain: &[CertificateDer<'_>]) -> Instant {
        let leaf = chain.first().map(|der| Certificate::from_der(der));
        let left = match leaf {
            Some(Ok(leaf)) => leaf.not_after().since(self.clock.now()),
            _ => Duration::ZERO,
        };
        // What has ended and is trusted all the same was judged already. The last moment still belongs to it.
        let look = if left.is_zero() {
            LOOK_AGAIN
        } else {
            LOOK_AGAIN.min(left + Duration::from_millis(1))
        };
        Instant::now() + look
    }

    /// Keeps what the peer sees of us, and wakes who waits for news of it.
    fn told(&self, age: Option<Duration>, reason: &str) {
        let told = Told::new(age, bounded(reason), crate::peer::shared::now());
        if self.shared.told(told) {
            self.shared.common.announce();
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
                let refusal = status::from_status(&refused, self.shared.cluster());
                return Err(Failure {
                    kind: FailureKind::Refused,
                    text: bounded(&format!("{address}: the link ended: {}", refusal.cause)),
                    rejection,
                    by_peer: rejection.is_some(),
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
                self.shared.cluster(),
                self.config.dead_after.as_millis()
            ),
        )
    }

    /// Waits before the next attempt: the back-off, or less when there is a reason to try at once.
    async fn pause(&self, backoff: &mut Backoff, began: Instant, trust: &mut watch::Receiver<u64>) {
        // Time that an attempt spent on silence counts: a peer that heals meanwhile waits for no more than it.
        let least = Instant::now() + Backoff::FIRST / 2;
        let mut until = least.max(began + backoff.next_delay(self.config.chance.u32()));
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                () = self.shared.wake.call.notified() => until = until.min(began + CALL_SPACING),
                () = self.shared.wake.inbound.notified() => {
                    backoff.reset();
                    until = until.min(began + INBOUND_SPACING);
                }
                Ok(()) = trust.changed() => {
                    // What was in the way may be gone, on both sides, but not to the second.
                    backoff.reset();
                    return;
                }
            }
        }
    }
}

/// Completes when trust has changed, or at that moment. Cancel safe.
async fn news(trust: &mut watch::Receiver<u64>, moment: Instant) {
    tokio::select! {
        biased;
        Ok(()) = trust.changed() => {}
        () = sleep_until(moment) => {}
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{
        Identities,
        fixtures::{Spec, cluster, pinned},
    };

    #[test]
    fn a_link_rests_on_what_its_own_peer_is_shown_and_on_nothing_else() {
        let (old, new) = (
            Spec::new("old").self_signed(),
            Spec::new("new").self_signed(),
        );
        let trust = TrustStore::new(Some(old.identity()), Clock::system());
        let ground = || Ground::of(&trust.snapshot(), &cluster("tokyo"));
        let before = ground();
        let identities = |old_for: &str, client| Identities {
            client,
            old_for: vec![(cluster(old_for), old.identity())],
            ..Identities::from(new.identity())
        };
        for nothing_to_it in [
            identities("tokyo", None),
            identities("lima", Some(old.identity())),
        ] {
            trust.publish_identities(nothing_to_it).unwrap();
            assert!(ground() == before);
        }
        let theirs = pinned("lima", &Spec::new("lima").self_signed());
        trust.publish_bundles(vec![theirs]).unwrap();
        assert!(ground() == before);
        trust.publish_identities(identities("lima", None)).unwrap();
        assert!(ground() != before);
    }
}
