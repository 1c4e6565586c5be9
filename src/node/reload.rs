//! What can change while a node runs: its identities from their files, peers, trust and parameters from the store.
//!
//! Everything is checked before it is put in force; on any error the last good one stays.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use tracing::{info, warn};

use super::{Error, rotation::RotationAlarms};
use crate::{
    admission::Admission,
    config::{Config, IdentityFiles},
    domain::{
        accepted::{Accepted, AcceptedKind},
        parameters::Parameters,
        purpose::Purpose,
    },
    peer::{Accepts, Peers},
    store::{
        self, Store, Transaction,
        announcements::{self, WaitingEntry},
        audit, learned,
        membership::Membership,
        meta, nodes, parameters, peers,
    },
    tasks::Tasks,
    trust::{
        Identities, InForce, TrustStore,
        bundle::Bundle,
        certificate::Certificate,
        folder::IdentityFolder,
        identity::Identity,
        stored as stored_trust,
        tls::{phone_server_config, refusing_server_config},
    },
    watch,
};

/// Reads again, and publishes.
pub(super) struct Reloader {
    folder: IdentityFolder,
    store: Store,
    trust: TrustStore,
    peers: Peers,
    membership: Membership,
    phone_tls: Arc<ArcSwap<ServerConfig>>,
    phone_identity: ArcSwapOption<Identity>,
    phone_reloads: watch::Sender<()>,
    /// Why an identity's files are not in force, for those whose are not.
    problems: Mutex<BTreeMap<Purpose, String>>,
    /// What rotations say of what is to be shown.
    in_force: Mutex<BTreeMap<Purpose, InForce>>,
    /// Held from the look at what is in force until it is shown, so that an older look never replaces a newer one.
    reading: Mutex<()>,
    rotation_alarms: RotationAlarms,
    parameters: parameters::Live,
    /// Goes by one of the parameters.
    admission: Admission,
    /// The revision of peers and trust that is in force.
    revision: AtomicU64,
    /// That of the parameters.
    parameters_revision: AtomicU64,
    /// Held from the look into the store until what was seen is in force, so that an older look never replaces a
    /// newer one.
    refreshing: tokio::sync::Mutex<()>,
}

/// A burst of changes in the store is looked at once: half of what a change may take to be in force.
const SETTLE: Duration = Duration::from_millis(200);

/// When what could not be taken up is tried again, if nothing changes before.
const RETRY: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// An identity as operators see it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) purpose: Purpose,
    pub(super) files: IdentityFiles,
    pub(super) identity: Option<Identity>,
    pub(super) problem: Option<String>,
}

impl Reloader {
    pub(super) fn new(
        config: &Config,
        store: Store,
        trust: TrustStore,
        peers: Peers,
        membership: Membership,
        admission: Admission,
    ) -> Result<Self, Error> {
        // Until there is an identity every handshake is refused.
        let tls = refusing_server_config()
            .map_err(|source| unfit(Purpose::Phone, &config.phone.identity, source))?;
        Ok(Self {
            folder: config.identity_folder(),
            store,
            trust,
            peers,
            membership,
            phone_tls: Arc::new(ArcSwap::from_pointee(tls)),
            phone_identity: ArcSwapOption::empty(),
            phone_reloads: watch::Sender::new(()),
            problems: Mutex::default(),
            in_force: Mutex::default(),
            reading: Mutex::default(),
            rotation_alarms: RotationAlarms::default(),
            parameters: parameters::Live::default(),
            admission,
            revision: AtomicU64::new(u64::MAX),
            parameters_revision: AtomicU64::new(u64::MAX),
            refreshing: tokio::sync::Mutex::new(()),
        })
    }

    /// The cluster's parameters, as they are at each request.
    pub(super) fn parameters(&self) -> parameters::Live {
        self.parameters.clone()
    }

    /// The phone listener's settings, as they are at each handshake.
    pub(super) fn phone_tls(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.phone_tls)
    }

    /// Tells of each identity that is put in force for phones.
    pub(super) fn phone_reloads(&self) -> watch::Receiver<()> {
        self.phone_reloads.subscribe()
    }

    /// What peers are shown: read, checked, in force, whole or not at all.
    pub(super) fn reload_federation_identity(&self) -> Result<(), Error> {
        let reading = &self.reading;
        let _reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.read_federation().and_then(|identities| {
            let (server, client) = (&identities.server, &identities.client);
            let server = server.leaf().subject().to_owned();
            let client = client.as_ref().map(|c| c.leaf().subject().to_owned());
            self.trust
                .publish_identities(identities)
                .map_err(|source| {
                    let what = Purpose::Federation;
                    let files = Box::new(self.files(what));
                    (
                        what,
                        Error::Unpublished {
                            what,
                            files,
                            source,
                        },
                    )
                })?;
            info!(
                subject = server,
                client_subject = client,
                "the federation identity is in force"
            );
            Ok(())
        });
        self.remember(&[Purpose::Federation, Purpose::FederationClient], outcome)
    }

    /// What is configured to be shown to peers. Each is checked by itself, so that it can be said which one is at fault.
    fn read_federation(&self) -> Result<Identities, (Purpose, Error)> {
        let told = |what, source| (what, unfit(what, &self.files(what), source));
        let server = self.in_force(Purpose::Federation);
        let client = self.in_force(Purpose::FederationClient);
        let identities = self.folder.federation(&server, &client);
        let identities = identities.map_err(|(what, source)| told(what, source))?;
        let now = self.trust.clock().now();
        if let Some(client) = &identities.client {
            let checked = client.check_client(now);
            checked.map_err(|source| told(Purpose::FederationClient, source))?;
        }
        let checked = identities.check(now);
        checked.map_err(|source| told(Purpose::Federation, source))?;
        Ok(identities)
    }

    /// The phone listener's identity: read, its dates and its usage checked, in force.
    pub(super) fn reload_phone_identity(&self) -> Result<(), Error> {
        const WHAT: Purpose = Purpose::Phone;
        let read = || {
            let identity = match self.in_force(WHAT).active {
                Some(active) => self.folder.find(WHAT, &active)?,
                None => self.folder.configured(WHAT)?,
            };
            identity.check_server(self.trust.clock().now())?;
            let tls = phone_server_config(&identity)?;
            self.phone_tls.store(Arc::new(tls));
            self.phone_identity.store(Some(Arc::new(identity)));
            self.phone_reloads.send_replace(());
            Ok(())
        };
        let outcome = read().map_err(|source| (WHAT, unfit(WHAT, &self.files(WHAT), source)));
        self.remember(&[WHAT], outcome)
    }

    /// Has the identity of that purpose be what a rotation says. On any error it stays what it was.
    pub(super) fn show(&self, purpose: Purpose, in_force: InForce) -> Result<(), Error> {
        let set = |in_force| {
            let mut all = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(purpose, in_force).unwrap_or_default()
        };
        let before = set(in_force);
        let outcome = match purpose {
            Purpose::Federation | Purpose::FederationClient => self.reload_federation_identity(),
            Purpose::Phone => self.reload_phone_identity(),
        };
        if outcome.is_err() {
            set(before);
        }
        outcome
    }

    /// The same for what is shown already, and for what is to be read next.
    pub(super) fn say(&self, purpose: Purpose, in_force: InForce) {
        let mut all = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(purpose, in_force);
    }

    /// What rotations say is in force from the start, before the identities are read.
    pub(super) fn begin_with(&self, in_force: BTreeMap<Purpose, InForce>) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = in_force;
    }

    /// What a rotation says of that purpose.
    pub(super) fn in_force(&self, purpose: Purpose) -> InForce {
        let all = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&purpose).cloned().unwrap_or_default()
    }

    /// Which rotations need a person.
    pub(super) fn rotation_alarms(&self) -> &RotationAlarms {
        &self.rotation_alarms
    }

    /// Where the identities lie.
    pub(super) fn folder(&self) -> &IdentityFolder {
        &self.folder
    }

    fn files(&self, purpose: Purpose) -> IdentityFiles {
        let files = self.folder.files(purpose).cloned();
        files.unwrap_or_default()
    }

    /// Notes what became of reading the identities of these purposes.
    fn remember(&self, of: &[Purpose], outcome: Result<(), (Purpose, Error)>) -> Result<(), Error> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.retain(|purpose, _| !of.contains(purpose));
        outcome.map_err(|(purpose, error)| {
            problems.insert(purpose, crate::telemetry::error_chain(&error));
            error
        })
    }

    /// Everything; each part on its own, the first problem is the answer.
    pub(super) async fn reload_all(&self) -> Result<(), Error> {
        let federation = self.reload_federation_identity();
        let phone = self.reload_phone_identity();
        let peers = self.refresh_peers().await;
        let parameters = self.refresh_parameters().await.map_err(Error::Store);
        federation.and(phone).and(peers).and(parameters)
    }

    /// Who had the identity files read again, and what is in force since. The change itself is outside of the
    /// store, so the entry can only follow it.
    pub(super) async fn audit(
        &self,
        actor: &str,
        outcome: Result<(), String>,
    ) -> Result<(), store::Error> {
        let in_force = self.shown().into_iter().map(|shown| {
            let leaf = shown.identity.as_ref().map(Identity::leaf);
            let fingerprint = leaf.map_or_else(|| "none".to_owned(), Certificate::fingerprint_text);
            format!("{} {fingerprint}", shown.purpose)
        });
        let in_force = in_force.collect::<Vec<_>>().join(", ");
        let outcome = match outcome {
            Ok(()) => format!("in force: {in_force}"),
            Err(why) => format!("refused: {why}; still in force: {in_force}"),
        };
        let (at, actor) = (self.trust.clock().now(), actor.to_owned());
        self.store
            .write(move |tx: &mut dyn Transaction| {
                audit::append(
                    tx,
                    &audit::Entry {
                        at,
                        actor: actor.clone(),
                        action: audit::Action::CertReload,
                        subject: "identities".to_owned(),
                        outcome: outcome.clone(),
                        reference: None,
                    },
                )
            })
            .await
    }

    /// Peers and trust as the store has them now.
    pub(super) async fn refresh_peers(&self) -> Result<(), Error> {
        let _refreshing = self.refreshing.lock().await;
        let revision = peers_in_force(&self.store, &self.trust, &self.peers).await?;
        self.revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Parameters as the store has them now. One that this version can't use is told, and its default holds.
    pub(super) async fn refresh_parameters(&self) -> Result<(), store::Error> {
        let _refreshing = self.refreshing.lock().await;
        let revision = parameters_in_force(&self.store, &self.parameters, &self.admission).await?;
        self.parameters_revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Takes up what other processes and nodes change, until the node shuts down.
    pub(super) async fn watch_store(&self, tasks: &Tasks) {
        follow(self.store.changes(), tasks, || self.take_up()).await;
    }

    /// Looks whether peers or parameters have moved, and reads those that have.
    async fn take_up(&self) -> Result<(), Error> {
        let run = self.membership.run().clone();
        let (of_peers, of_parameters, own, noted) = self
            .store
            .read(move |tx: &mut dyn Transaction| {
                let of_peers = revision_of(tx, peers::REVISION)?;
                let of_parameters = revision_of(tx, parameters::REVISION)?;
                let noted = nodes::loaded_trust(tx, &run)?;
                Ok::<_, store::Error>((of_peers, of_parameters, learned::own(tx)?, noted))
            })
            .await?;
        self.peers.publish_addresses(own);
        // Trust that was taken back comes first, and neither waits for the other to be right.
        let peers = if of_peers == self.revision.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.refresh_peers().await
        };
        // Others wait to hear of it.
        let peers = match peers {
            Ok(()) => self.note_loaded(noted).await.map_err(Error::Store),
            failed => failed,
        };
        let parameters = if of_parameters == self.parameters_revision.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.refresh_parameters().await.map_err(Error::Store)
        };
        peers.and(parameters)
    }

    /// Says in the store which trust is in force here, if it says something else.
    async fn note_loaded(&self, noted: Option<i64>) -> Result<(), store::Error> {
        let in_force = i64::try_from(self.revision.load(Ordering::Acquire)).ok();
        let Some(in_force) = in_force.filter(|_| noted != in_force) else {
            return Ok(());
        };
        let run = self.membership.run().clone();
        self.store
            .write(move |tx: &mut dyn Transaction| nodes::set_loaded_trust(tx, &run, in_force))
            .await
            .map(drop)
    }

    /// Our identities, the federation's first.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let problems = self
            .problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let snapshot = self.trust.snapshot();
        let shown = |purpose| Shown {
            purpose,
            files: self.files(purpose),
            identity: match purpose {
                Purpose::Federation => snapshot.identity().cloned(),
                Purpose::FederationClient => snapshot.client_identity().cloned(),
                Purpose::Phone => self.phone_identity.load().as_deref().cloned(),
            },
            problem: problems.get(&purpose).cloned(),
        };
        self.folder.purposes().map(shown).collect()
    }

    /// Why peers can't be served, if they can't.
    pub(super) fn federation_down(&self) -> Option<String> {
        if self.trust.snapshot().identity().is_some() {
            return None;
        }
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let of_federation = problems
            .iter()
            .find(|(purpose, _)| **purpose != Purpose::Phone);
        of_federation.map(|(_, problem)| problem.clone())
    }
}

/// What each peer is told of what is accepted from it: the newest first, as far as all of it is too much.
fn accepts(revision: u64, bundles: &[Bundle], waiting: &[WaitingEntry]) -> Accepts {
    let entry = |kind, certificate: &Certificate| Accepted {
        fingerprint: certificate.fingerprint(),
        kind,
        until: Some(certificate.not_after()),
    };
    let of = |bundle: &Bundle| {
        let anchors = bundle.anchors.iter().rev();
        let anchors = anchors.map(|anchor| entry(AcceptedKind::Anchor, anchor));
        let waits = waiting.iter().rev();
        let waits = waits.filter(|waits| waits.cluster_id == bundle.cluster);
        let waits = waits.filter_map(|waits| Certificate::from_der(&waits.der).ok());
        let waits = waits.map(|waits| entry(AcceptedKind::Waiting, &waits));
        let pinned = bundle.pinned.iter().rev();
        let pinned = pinned.map(|pin| entry(AcceptedKind::Pinned, pin));
        let revoked = bundle.revoked.iter().rev().map(|fingerprint| Accepted {
            fingerprint: *fingerprint,
            kind: AcceptedKind::Revoked,
            until: None,
        });
        let all = anchors.chain(waits).chain(pinned).chain(revoked);
        (bundle.cluster.clone(), all.collect())
    };
    Accepts::new(revision, bundles.iter().map(of).collect())
}

/// Calls `take_up` after each burst of changes, and again and again after a failure, until the node shuts down. A
/// store that is stuck does not hold that up.
pub(super) async fn follow<F: Future<Output = Result<(), Error>>>(
    mut changes: watch::Receiver<u64>,
    tasks: &Tasks,
    take_up: impl Fn() -> F,
) {
    let rounds = async {
        let mut told = None;
        loop {
            let changed = async {
                match &told {
                    None => changes.changed().await,
                    Some(_) => tokio::time::timeout(RETRY, changes.changed())
                        .await
                        .unwrap_or(Ok(())),
                }
            };
            if changed.await.is_err() {
                return;
            }
            tokio::time::sleep(SETTLE).await;
            changes.mark_unchanged();
            let failed = take_up().await.err();
            let failed = failed.map(|error| crate::telemetry::error_chain(&error));
            if let Some(cause) = &failed
                && failed != told
            {
                warn!(
                    cause,
                    "changed peers or parameters could not be taken up; the last good ones stay, and it is tried again"
                );
            } else if failed.is_none() && told.is_some() {
                info!("changed peers and parameters are taken up after all");
            }
            told = failed;
        }
    };
    tokio::select! {
        biased;
        () = tasks.cancelled() => {}
        () = rounds => {}
    }
}

fn unfit(what: Purpose, files: &IdentityFiles, source: crate::trust::Error) -> Error {
    Error::Identity {
        what,
        files: Box::new(files.clone()),
        source,
    }
}

pub(super) fn revision_of(tx: &mut dyn Transaction, key: &str) -> Result<u64, store::Error> {
    let text = meta::get(tx, key)?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}

/// Puts the stored peers, and what is trusted of them, in force; of which revision they are.
pub(super) async fn peers_in_force(
    store: &Store,
    trust: &TrustStore,
    links: &Peers,
) -> Result<u64, Error> {
    let (revision, records, learned, bundles, waiting) = store
        .read(|tx: &mut dyn Transaction| {
            let revision = revision_of(tx, peers::REVISION)?;
            let (records, learned) = (peers::list(tx)?, learned::all(tx)?);
            let bundles = stored_trust::bundles(tx)?;
            let waiting = announcements::waiting(tx)?;
            Ok::<_, stored_trust::Error>((revision, records, learned, bundles, waiting))
        })
        .await?;
    let accepts = accepts(revision, &bundles, &waiting);
    trust
        .publish_bundles(bundles)
        .map_err(|error| Error::StoredTrust(stored_trust::Error::Trust(error)))?;
    links.set_with(records, &learned);
    links.publish_accepts(accepts);
    Ok(revision)
}

/// Puts the stored parameters in force; of which revision they are.
pub(super) async fn parameters_in_force(
    store: &Store,
    live: &parameters::Live,
    admission: &Admission,
) -> Result<u64, store::Error> {
    let (revision, stored) = store
        .read(|tx: &mut dyn Transaction| {
            let revision = revision_of(tx, parameters::REVISION)?;
            Ok::<_, store::Error>((revision, parameters::all(tx)?))
        })
        .await?;
    let pairs = stored.iter().map(|s| (&*s.name, &*s.value));
    let (now, problems) = Parameters::from_stored(pairs);
    for problem in problems {
        warn!(cause = %problem, "a stored parameter can't be used; its default holds");
    }
    let places = now.maximum_concurrent_requests;
    live.publish(now);
    admission.set_places(places);
    Ok(revision)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn what_could_not_be_taken_up_is_tried_again_without_another_change() {
        let (changed, changes) = watch::channel(0);
        let (tasks, tries) = (Tasks::default(), AtomicU32::new(0));
        let take_up = || async {
            match tries.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Err(Error::Store(store::Error::Busy)),
                _ => {
                    tasks.token().cancel();
                    Ok(())
                }
            }
        };
        changed.send_replace(1);
        let followed = follow(changes, &tasks, take_up);
        tokio::time::timeout(Duration::from_secs(20), followed)
            .await
            .expect("the third time it is taken up");
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_store_that_is_stuck_does_not_hold_up_the_end() {
        let (changed, changes) = watch::channel(0);
        let tasks = Tasks::default();
        let take_up = || async {
            tasks.token().cancel();
            std::future::pending::<Result<(), Error>>().await
        };
        changed.send_replace(1);
        let followed = follow(changes, &tasks, take_up);
        tokio::time::timeout(Duration::from_secs(20), followed)
            .await
            .expect("it ends while the store is stuck");
    }
}
