//! One running daemon: how its parts are put together, reloaded and stopped.
//!
//! `wiring` reads top to bottom: store, secrets, sockets, trust, roles, tasks. Sockets are bound before anything is
//! spawned; `shutdown` ends it in steps. Many nodes live in one process; none shares anything with another but the machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing::{Instrument as _, info, info_span};

mod addresses;
mod announced;
mod applied;
mod banished;
#[cfg(test)]
pub(crate) mod bare;
mod clock_steps;
mod crl_folder;
pub mod error;
mod expiry;
mod explaining;
mod handover;
mod links;
mod live;
mod mirror;
mod operations;
mod reload;
mod roles;
mod rotation;
mod session_tasks;
mod shutdown;
mod siblings;
mod sight;
mod skew;
mod sockets;
mod wiring;
mod witness;

pub use error::Error;
pub use wiring::most_files;

use self::{handover::HandOver, reload::Reloader, shutdown::Stages};
use crate::{
    clock::Clock,
    config::{Config, PEPPER_BYTES},
    domain::{phase::Phase, version::VersionRange},
    fault::FaultPoints,
    secret::Secret,
    store::audit,
    watch,
};

/// What a node is told besides its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it may speak.
    pub versions: VersionRange,
    /// Where a test may stop it.
    pub faults: FaultPoints,
    /// Its clock.
    pub clock: Clock,
    /// Whether it takes the place, and the listening sockets, of a process of the same node that runs.
    pub take_over: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            versions: VersionRange::SUPPORTED,
            faults: FaultPoints::none(),
            clock: Clock::system(),
            take_over: false,
        }
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Peers.
    pub federation: SocketAddr,
    /// Phones, over TLS.
    pub phone: SocketAddr,
    /// Phones, in the clear, where it is switched on.
    pub phone_plain: Option<SocketAddr>,
    /// Operators.
    pub admin: PathBuf,
    /// Figures and health; none where that is off, or the port was taken.
    pub metrics: Option<SocketAddr>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    addresses: Addresses,
    stages: Stages,
    reloader: Arc<Reloader>,
    hand_over: HandOver,
    grace: Duration,
}

/// Reads the key that seals a cluster's audit.
///
/// # Errors
/// [`Error`] when the file is no pepper, or others can read it.
pub fn read_audit_key(pepper_file: &Path) -> Result<audit::Key, Error> {
    Ok(audit::Key::from_pepper(&wiring::read_pepper(pepper_file)?))
}

/// What a store is marked with whose PINs were hashed with the pepper of this configuration.
///
/// # Errors
/// [`Error`] when the file is no pepper, or others can read it.
pub fn pepper_mark(config: &Config) -> Result<String, Error> {
    wiring::pepper_mark(config)
}

/// Makes a pepper for a new cluster.
#[must_use]
pub fn new_pepper() -> Secret {
    Secret::new(rand::random::<[u8; PEPPER_BYTES]>().to_vec())
}

impl Node {
    /// Starts a node; when this returns all its listeners are open. Whoever stops waiting for it stops the start: a
    /// process that it was taking over from then goes on.
    ///
    /// # Errors
    /// [`Error`]: which part could not start, and why. An identity that is not valid is no reason: the node then
    /// runs without federation, and says so.
    pub async fn start(config: Config, options: Options) -> Result<Self, Error> {
        let span = info_span!("node", cluster = %config.cluster_id, node = config.node);
        let stages = Stages::in_span(&span);
        let unfinished = Unfinished(&stages);
        let started = wiring::start(config, options, &stages)
            .instrument(span)
            .await;
        if started.is_ok() {
            std::mem::forget(unfinished);
        }
        started
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where it is in its life, now and from now on: for whatever answers that it is ready.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.stages.phase()
    }

    /// Completes when another process has taken over: this one is to be shut down.
    pub async fn handed_over(&self) {
        self.hand_over.done().await;
    }

    /// Reads identities, peers and trust again; what is not valid leaves the last good one in force. The audit
    /// has it in the name of `SIGHUP`, which is how a process is asked for it.
    ///
    /// # Errors
    /// The first thing that is not valid.
    pub async fn reload(&self) -> Result<(), Error> {
        let outcome = self.reloader.reload_all().await;
        let told = outcome
            .as_ref()
            .map_err(|error| crate::telemetry::error_chain(error));
        self.reloader.audit("SIGHUP", told.copied()).await?;
        outcome
    }

    /// Stops in steps, all of them together within the configured grace: peers and phones are told to go elsewhere; the
    /// doors close and connections end when their calls have; work in progress ends, with its links still up; then the
    /// links end.
    pub async fn shut_down(self) {
        info!("shutting down");
        self.hand_over.close();
        self.stages.shut_down(self.grace).await;
    }
}

/// Ends what a start has begun when it does not come to its end.
struct Unfinished<'a>(&'a Stages);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
