//! What can change while a node runs: its identities from their files, peers and trust from the store.
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
use tracing::{info, warn};

use super::Error;
use crate::{
    config::{Config, IdentityFiles},
    peer::Peers,
    store::{self, Store, Transaction, audit, meta, peers},
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
    federation_problem: Mutex<Option<String>>,
    phone_problem: Mutex<Option<String>>,
    /// The revision of peers and trust that is in force.
    revision: AtomicU64,
    /// Held from the look into the store until what was seen is in force, so that an older look never replaces a
    /// newer one.
    refreshing: tokio::sync::Mutex<()>,
}

/// A burst of changes in the store is looked at once: half of what a change may take to be in force.
const SETTLE: Duration = Duration::from_millis(200);

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
            federation_problem: Mutex::new(None),
            phone_problem: Mutex::new(None),
            revision: AtomicU64::new(u64::MAX),
            refreshing: tokio::sync::Mutex::new(()),
        })
    }

    /// The phone listener's settings, as they are at each handshake.
    pub(super) fn phone_tls(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.phone_tls)
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
        federation.and(phone).and(peers)
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
                        action: "cert.reload",
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
        let (revision, records, bundles) = self
            .store
            .read(|tx: &mut dyn Transaction| {
                let revision = revision_of(tx)?;
                let records = peers::list(tx)?;
                Ok::<_, stored_trust::Error>((revision, records, stored_trust::bundles(tx)?))
            })
            .await?;
        self.trust
            .publish_bundles(bundles)
            .map_err(|error| Error::StoredTrust(stored_trust::Error::Trust(error)))?;
        self.peers.set(records);
        self.revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Takes up what other processes and nodes change, until the node shuts down.
    pub(super) async fn watch_store(&self, tasks: &Tasks) {
        let mut changes = self.store.changes();
        loop {
            tokio::select! {
                biased;
                () = tasks.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            tokio::select! {
                biased;
                () = tasks.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            changes.mark_unchanged();
            let outcome = match self
                .store
                .read(|tx: &mut dyn Transaction| revision_of(tx))
                .await
            {
                Ok(revision) if revision == self.revision.load(Ordering::Acquire) => continue,
                Ok(_) => self.refresh_peers().await,
                Err(error) => Err(Error::StoredTrust(error)),
            };
            if let Err(error) = outcome {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "changed peers could not be taken up; the last good ones stay"
                );
            }
        }
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

fn revision_of(tx: &mut dyn Transaction) -> Result<u64, stored_trust::Error> {
    let text = meta::get(tx, peers::REVISION)?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}
