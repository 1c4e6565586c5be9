//! Who is who: our identity, what we accept from each peer, and the judgement on a connection.
//!
//! All of it is published as one immutable [`Snapshot`], whole or not at all: what does not stand its own
//! check leaves the last good one in force. New handshakes take the newest snapshot; live connections are
//! judged again under it.

pub mod answer;
pub mod bundle;
pub mod certificate;
pub mod crl;
pub mod expiry;
pub mod explain;
pub mod folder;
pub mod forecast;
pub mod formats;
pub mod identity;
pub mod impact;
pub mod in_use;
pub mod install;
pub mod joining;
pub mod judge;
pub mod key_store;
pub mod keys;
pub mod make;
pub mod mend;
pub mod proof;
pub mod receive;
pub mod refusals;
pub mod rotation;
pub mod shown;
mod signed;
pub mod stored;
pub mod tls;
pub mod verifier;

mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod path;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig, crypto::CryptoProvider};
use rustls_pki_types::CertificateDer;

pub use self::error::Error;
use self::{
    bundle::{Bundle, Direction},
    certificate::Fingerprint,
    identity::Identity,
    in_use::InUse,
    judge::{Verdict, judge, judge_dialled},
    refusals::RecentRefusals,
    shown::{Chain, Shown},
    verifier::VerdictSlot,
};
use crate::{
    clock::{self, Clock, Timestamp},
    domain::{ids::ClusterId, rejection::Rejection},
    watch,
};

/// The trust of one node: its current [`Snapshot`], and who waits for the next. Cheap to clone.
#[derive(Clone)]
pub struct TrustStore(Arc<Inner>);

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is made from the one before, so that no publication is lost.
    publishing: Mutex<()>,
    generations: watch::Sender<u64>,
    refusals: RecentRefusals,
    in_use: InUse,
    shown: Shown,
    clock: Clock,
}

impl TrustStore {
    /// Begins with an identity, or without one, and with no peers. An identity that fails its check is left
    /// out; [`TrustStore::publish_identity`] tells why.
    #[must_use]
    pub fn new(identity: Option<Identity>, clock: Clock) -> Self {
        let empty = Snapshot {
            generation: 0,
            identities: None,
            bundles: Vec::new().into(),
            server: None,
            provider: tls::provider(),
            clock: clock.clone(),
        };
        let store = Self(Arc::new(Inner {
            snapshot: ArcSwap::from_pointee(empty),
            publishing: Mutex::new(()),
            generations: watch::Sender::new(0),
            refusals: RecentRefusals::default(),
            in_use: InUse::default(),
            shown: Shown::default(),
            clock,
        }));
        if let Some(identity) = identity {
            // Whoever must know what is wrong with it publishes it.
            drop(store.publish_identity(identity));
        }
        store
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// The number of the snapshot in force; it grows with each publication.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.snapshot.load().generation
    }

    /// Tells of each new generation. The newest wins.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.generations.subscribe()
    }

    /// Replaces what we accept from all peers.
    ///
    /// # Errors
    /// As [`bundle::check`]; the last good set then stays in force.
    pub fn publish_bundles(&self, bundles: Vec<Bundle>) -> Result<(), Error> {
        bundle::check(&bundles)?;
        let publishing = self
            .0
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.publish(Snapshot {
            bundles: bundles.into(),
            ..Snapshot::clone(&self.snapshot())
        });
        drop(publishing);
        Ok(())
    }

    /// Replaces all that we show, whole or not at all. An old identity that nobody would take any more is left out:
    /// whom it was for is shown what everybody is shown.
    ///
    /// # Errors
    /// As [`Identities::check`], and [`Error::Tls`]; the last good ones then stay in force.
    pub fn publish_identities(&self, identities: Identities) -> Result<(), Error> {
        let publishing = self
            .0
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.publish(self.with_identities(identities)?);
        drop(publishing);
        Ok(())
    }

    /// Replaces all that we show by one identity for both directions.
    ///
    /// # Errors
    /// As [`TrustStore::publish_identities`].
    pub fn publish_identity(&self, identity: Identity) -> Result<(), Error> {
        self.publish_identities(identity.into())
    }

    /// The refusals of late, at the door and when dialling.
    #[must_use]
    pub fn refusals(&self) -> &RecentRefusals {
        &self.0.refusals
    }

    /// The live connections, by the certificates that they rest on.
    #[must_use]
    pub fn in_use(&self) -> &InUse {
        &self.0.in_use
    }

    /// What peers have shown of late.
    #[must_use]
    pub fn shown_of_late(&self) -> Vec<Chain> {
        self.0.shown.list(&self.0.in_use, clock::instant())
    }

    /// Tells of each chain that a peer has not shown before.
    #[must_use]
    pub fn newly_shown(&self) -> watch::Receiver<()> {
        self.0.shown.subscribe()
    }

    /// Notes the chain of a connection that was accepted as one of `cluster`.
    pub fn note_shown(&self, cluster: &ClusterId, chain: &[CertificateDer<'_>]) {
        self.0.shown.note(cluster, chain, clock::instant());
    }

    /// The clock that validity is measured by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn with_identities(&self, mut identities: Identities) -> Result<Snapshot, Error> {
        let now = self.0.clock.now();
        identities.check(now)?;
        identities
            .old_for
            .retain(|(_, old)| old.check_client(now).is_ok());
        let last = self.snapshot();
        let server = tls::federation_server(&identities.server, &last.provider)?;
        Ok(Snapshot {
            identities: Some(Arc::new(identities)),
            server: Some(Arc::new(server)),
            ..Snapshot::clone(&last)
        })
    }

    fn publish(&self, mut next: Snapshot) {
        next.generation = self.generation() + 1;
        let generation = next.generation;
        self.0.snapshot.store(Arc::new(next));
        self.0.generations.send_replace(generation);
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrustStore").field(&self.snapshot()).finish()
    }
}

/// All that a node shows to peers.
#[derive(Clone, Debug)]
pub struct Identities {
    /// Shown to those that call us.
    pub server: Identity,
    /// Shown to those that we call; none when it is the same.
    pub client: Option<Identity>,
    /// Peers that don't know the current one yet, and what they are shown in its place when we call them.
    pub old_for: Vec<(ClusterId, Identity)>,
}

impl Identities {
    /// What is shown to peers that we call, if nothing else is said for one.
    #[must_use]
    pub fn client(&self) -> &Identity {
        self.client.as_ref().unwrap_or(&self.server)
    }

    /// Checks each as those would that are shown it.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] with the reason that they would give, [`Error::OneDirection`] when one identity can't do for
    /// both.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        if let Some(client) = &self.client {
            self.server.check_server(now)?;
            return client.check_client(now);
        }
        let is_wrong_way = |outcome: &Result<(), Error>| {
            matches!(
                outcome,
                Err(Error::SelfCheck {
                    rejection: Rejection::WrongEku,
                    ..
                })
            )
        };
        let (server, client) = (self.server.check_server(now), self.server.check_client(now));
        if is_wrong_way(&server) != is_wrong_way(&client) {
            let for_servers = server.is_ok();
            return Err(Error::OneDirection { for_servers });
        }
        server.and(client)
    }
}

impl From<Identity> for Identities {
    fn from(identity: Identity) -> Self {
        Self {
            server: identity,
            client: None,
            old_for: Vec::new(),
        }
    }
}

/// What the state of a rotation says of one purpose. While nothing is said the configured certificate is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The certificate that is shown.
    pub active: Option<Fingerprint>,
    /// The one from before.
    pub old: Option<Fingerprint>,
    /// Peers that are still shown that one when we call them.
    pub old_for: Vec<ClusterId>,
}

/// Identities, bundles and the settings made from them, as of one moment.
#[derive(Clone)]
pub struct Snapshot {
    generation: u64,
    identities: Option<Arc<Identities>>,
    bundles: Arc<[Bundle]>,
    server: Option<Arc<ServerConfig>>,
    provider: Arc<CryptoProvider>,
    clock: Clock,
}

impl Snapshot {
    /// Its number; later ones are higher.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What those are shown that call us, unless there is no usable identity.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identities.as_deref().map(|all| &all.server)
    }

    /// What those are shown that we call, if nothing else is said for one.
    #[must_use]
    pub fn client_identity(&self) -> Option<&Identity> {
        self.identities.as_deref().map(Identities::client)
    }

    /// What that peer is shown when we call it.
    #[must_use]
    pub fn client_identity_for(&self, peer: &ClusterId) -> Option<&Identity> {
        let all = self.identities.as_deref()?;
        let old = all.old_for.iter().find(|(cluster, _)| cluster == peer);
        Some(old.map_or_else(|| all.client(), |(_, old)| old))
    }

    /// What we accept from each peer.
    #[must_use]
    pub fn bundles(&self) -> &[Bundle] {
        &self.bundles
    }

    /// Settings of the federation listener. They accept any proven client key, or none: the connection must
    /// be [identified](Self::identify) after the handshake.
    ///
    /// # Errors
    /// [`Error::NoIdentity`].
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        self.server.clone().ok_or(Error::NoIdentity)
    }

    /// Settings for dialling `wanted`. They refuse every other server, and leave the verdict in `slot` either
    /// way; for a refusal, the handshake's error itself says no more than "invalid certificate".
    ///
    /// # Errors
    /// [`Error::NoIdentity`], and [`Error::Tls`] when the library refuses the settings.
    pub fn client_config(
        &self,
        wanted: &ClusterId,
        slot: VerdictSlot,
    ) -> Result<ClientConfig, Error> {
        let identity = self.client_identity_for(wanted).ok_or(Error::NoIdentity)?;
        let dialled = tls::Dialled {
            bundles: Arc::clone(&self.bundles),
            wanted: wanted.clone(),
            clock: self.clock.clone(),
            slot,
        };
        tls::federation_client(identity, &self.provider, dialled)
    }

    /// Judges a caller by the chain it proved in the handshake (empty when it showed none).
    #[must_use]
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Verdict {
        judge(&self.bundles, chain, Direction::Client, self.clock.now())
    }

    /// Judges the server of a live connection again, as the handshake to `wanted` did.
    #[must_use]
    pub fn identify_dialled(&self, wanted: &ClusterId, chain: &[CertificateDer<'_>]) -> Verdict {
        judge_dialled(&self.bundles, wanted, chain, self.clock.now())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation)
            .field("identities", &self.identities)
            .field("peers", &self.bundles.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
