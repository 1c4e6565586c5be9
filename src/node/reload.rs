//! What can change while a node runs: its identities from their files, peers, trust and parameters from the store.
//!
//! Everything is checked before it is put in force; on any error the last good one stays.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Error;
use crate::{
    admission::Admission,
    config::{Config, IdentityFiles},
    domain::parameters::Parameters,
    peer::Peers,
    store::{self, Store, Transaction, audit, learned, meta, parameters, peers},
    tasks::Tasks,
    trust::{
        TrustStore,
        certificate::Certificate,
        identity::Identity,
        stored as stored_trust,
        tls::{phone_server_config, refusing_server_config},
    },
};

/// Reads again, and publishes.
pub(super) struct Reloader {
    federation_files: IdentityFiles,
    phone_files: IdentityFiles,
    store: Store,
    trust: TrustStore,
    peers: Peers,
    phone_tls: Arc<ArcSwap<ServerConfig>>,
    phone_identity: ArcSwapOption<Identity>,
    phone_reloads: watch::Sender<()>,
    federation_problem: Mutex<Option<String>>,
    phone_problem: Mutex<Option<String>>,
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
            .field("federation_files", &self.federation_files)
            .finish_non_exhaustive()
    }
}

/// An identity as operators see it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) purpose: &'static str,
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
        admission: Admission,
    ) -> Result<Self, Error> {
        // Until there is an identity every handshake is refused.
        let tls = refusing_server_config()
            .map_err(|source| unfit("phone", &config.phone.identity, source))?;
        Ok(Self {
            federation_files: config.identity.clone(),
            phone_files: config.phone.identity.clone(),
            store,
            trust,
            peers,
            phone_tls: Arc::new(ArcSwap::from_pointee(tls)),
            phone_identity: ArcSwapOption::empty(),
            phone_reloads: watch::Sender::new(()),
            federation_problem: Mutex::new(None),
            phone_problem: Mutex::new(None),
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

    /// The federation identity: read, checked, in force.
    pub(super) fn reload_federation_identity(&self) -> Result<(), Error> {
        let outcome = read_identity("federation", &self.federation_files).and_then(|identity| {
            let subject = identity.leaf().subject().to_owned();
            self.trust
                .publish_identity(identity)
                .map_err(|source| Error::Unpublished {
                    what: "federation",
                    files: Box::new(self.federation_files.clone()),
                    source,
                })?;
            info!(subject, "the federation identity is in force");
            Ok(())
        });
        remember(&self.federation_problem, &outcome);
        outcome
    }

    /// The phone listener's identity: read, its dates and its usage checked, in force.
    pub(super) fn reload_phone_identity(&self) -> Result<(), Error> {
        let now = self.trust.clock().now();
        let outcome = read_identity("phone", &self.phone_files).and_then(|identity| {
            identity
                .check_server(now)
                .map_err(|source| unfit("phone", &self.phone_files, source))?;
            let tls = phone_server_config(&identity)
                .map_err(|source| unfit("phone", &self.phone_files, source))?;
            self.phone_tls.store(Arc::new(tls));
            self.phone_identity.store(Some(Arc::new(identity)));
            self.phone_reloads.send_replace(());
            Ok(())
        });
        remember(&self.phone_problem, &outcome);
        outcome
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
        outcome: &Result<(), Error>,
    ) -> Result<(), store::Error> {
        let in_force = self.shown().map(|shown| {
            let leaf = shown.identity.as_ref().map(Identity::leaf);
            let fingerprint = leaf.map_or_else(|| "none".to_owned(), Certificate::fingerprint_text);
            format!("{} {fingerprint}", shown.purpose)
        });
        let in_force = in_force.join(", ");
        let outcome = match outcome {
            Ok(()) => format!("in force: {in_force}"),
            Err(error) => {
                format!(
                    "refused: {}; still in force: {in_force}",
                    crate::telemetry::error_chain(error)
                )
            }
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
        let (revision, records, learned, bundles) = self
            .store
            .read(|tx: &mut dyn Transaction| {
                let revision = revision_of(tx, peers::REVISION)?;
                let (records, learned) = (peers::list(tx)?, learned::all(tx)?);
                let bundles = stored_trust::bundles(tx)?;
                Ok::<_, stored_trust::Error>((revision, records, learned, bundles))
            })
            .await?;
        self.trust
            .publish_bundles(bundles)
            .map_err(|error| Error::StoredTrust(stored_trust::Error::Trust(error)))?;
        self.peers.set_with(records, &learned);
        self.revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Parameters as the store has them now. One that this version can't use is told, and its default holds.
    pub(super) async fn refresh_parameters(&self) -> Result<(), store::Error> {
        let _refreshing = self.refreshing.lock().await;
        let (revision, stored) = self
            .store
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
        self.parameters.publish(now);
        self.admission.set_places(places);
        self.parameters_revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Takes up what other processes and nodes change, until the node shuts down.
    pub(super) async fn watch_store(&self, tasks: &Tasks) {
        follow(self.store.changes(), tasks, || self.take_up()).await;
    }

    /// Looks whether peers or parameters have moved, and reads those that have.
    async fn take_up(&self) -> Result<(), Error> {
        let (of_peers, of_parameters, own) = self
            .store
            .read(|tx: &mut dyn Transaction| {
                let of_peers = revision_of(tx, peers::REVISION)?;
                let of_parameters = revision_of(tx, parameters::REVISION)?;
                Ok::<_, store::Error>((of_peers, of_parameters, learned::own(tx)?))
            })
            .await?;
        self.peers.publish_addresses(own);
        // Trust that was taken back comes first, and neither waits for the other to be right.
        let peers = if of_peers == self.revision.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.refresh_peers().await
        };
        let parameters = if of_parameters == self.parameters_revision.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.refresh_parameters().await.map_err(Error::Store)
        };
        peers.and(parameters)
    }

    /// Our identities, the federation's first.
    pub(super) fn shown(&self) -> [Shown; 2] {
        let problem = |kept: &Mutex<Option<String>>| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        [
            Shown {
                purpose: "federation",
                files: self.federation_files.clone(),
                identity: self.trust.snapshot().identity().cloned(),
                problem: problem(&self.federation_problem),
            },
            Shown {
                purpose: "phone",
                files: self.phone_files.clone(),
                identity: self.phone_identity.load().as_deref().cloned(),
                problem: problem(&self.phone_problem),
            },
        ]
    }

    /// Why peers can't be served, if they can't.
    pub(super) fn federation_down(&self) -> Option<String> {
        if self.trust.snapshot().identity().is_some() {
            return None;
        }
        self.federation_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Calls `take_up` after each burst of changes, and again and again after a failure, until the node shuts down. A
/// store that is stuck does not hold that up.
async fn follow<F: Future<Output = Result<(), Error>>>(
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

fn remember(place: &Mutex<Option<String>>, outcome: &Result<(), Error>) {
    let problem = outcome
        .as_ref()
        .err()
        .map(|error| crate::telemetry::error_chain(error));
    *place.lock().unwrap_or_else(PoisonError::into_inner) = problem;
}

fn read_identity(what: &'static str, files: &IdentityFiles) -> Result<Identity, Error> {
    Identity::from_files(&files.certificate, &files.key)
        .map_err(|source| unfit(what, files, source))
}

fn unfit(what: &'static str, files: &IdentityFiles, source: crate::trust::Error) -> Error {
    Error::Identity {
        what,
        files: Box::new(files.clone()),
        source,
    }
}

fn revision_of(tx: &mut dyn Transaction, key: &str) -> Result<u64, store::Error> {
    let text = meta::get(tx, key)?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
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
