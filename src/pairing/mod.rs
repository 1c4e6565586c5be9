//! How two clusters that are strangers become peers: one invites, the other joins, both operators compare words.
//!
//! [`token`] is what one operator hands to the other, [`proof`] what the two nodes show each other, [`invite`] and
//! [`join`] the two sides. What counts is in the store, so that any node of the inviting cluster can be dialled, and so
//! that a node that is killed at any point goes on where it was: the inviting side commits first, and remembers; the
//! joining one asks again until it knows.

pub mod invite;
pub mod join;
pub mod proof;
pub mod token;
pub mod told;

mod commit;
mod dial;
mod error;
mod novelty;
mod ours;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::warn;

pub use self::error::Error;
use self::novelty::Novelties;
use crate::{
    clock::{Clock, Timestamp},
    domain::{
        ids::ClusterId,
        pairing::{InvitationId, Side, State},
    },
    fault::FaultPoints,
    store::{
        self, Store, Transaction,
        audit::{self, Action},
        pairings::{self, Pairing},
        peers,
    },
    tasks::Tasks,
    trust::{TrustStore, folder::IdentityFolder},
};

/// What a node pairs with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Our own cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: String,
    /// Its software and version.
    pub software: String,
    /// What it speaks, for people.
    pub versions: String,
    /// The security mode of the cluster, for people.
    pub security_mode: &'static str,
    /// The database.
    pub store: Store,
    /// Who we are.
    pub trust: TrustStore,
    /// Where our identities lie, also those that are not shown yet.
    pub folder: IdentityFolder,
    /// Our wall clock.
    pub clock: Clock,
    /// Where a test may stop it.
    pub faults: FaultPoints,
}

/// Pairing, on one node. Cheap to clone.
#[derive(Clone)]
pub struct Pairings(Arc<Inner>);

struct Inner {
    parts: Parts,
    /// Until when somebody may come to join, in milliseconds.
    open_until: AtomicI64,
    /// Told when an operator here has decided.
    decided: Notify,
    /// Which strangers were turned away lately, for the log.
    turned: Novelties,
}

impl fmt::Debug for Pairings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairings")
            .field("cluster", &self.0.parts.cluster)
            .finish_non_exhaustive()
    }
}

/// What an operator says to a pairing whose words are known.
#[derive(Clone, Debug, Default)]
pub struct Confirmation {
    /// The words that the other operator read, where they are to be compared here.
    pub words: Option<String>,
    /// Whether certificates are added to a peer that is one already.
    pub is_update: bool,
}

/// A pairing, and whether the other cluster is a peer already.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The pairing.
    pub pairing: Pairing,
    /// Whether there is a record of the other cluster.
    pub is_peer: bool,
}

impl Pairings {
    /// Pairing for a node.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            open_until: AtomicI64::new(i64::MIN),
            decided: Notify::new(),
            turned: Novelties::default(),
        }))
    }

    /// Whether somebody may come to join now. Asked for every connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.now().as_millis() < self.0.open_until.load(Ordering::Acquire)
    }

    /// Everything of one side, the oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list(&self, side: Side) -> Result<Vec<Seen>, Error> {
        let read = self.0.parts.store.read(move |tx: &mut dyn Transaction| {
            pairings::list(tx, side)?
                .into_iter()
                .map(|pairing| seen(tx, pairing))
                .collect()
        });
        read.await
    }

    /// One pairing, once it is not as `known` says any more, or `within` has passed.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Store`].
    pub async fn get(
        &self,
        side: Side,
        id: InvitationId,
        known: Option<State>,
        within: Duration,
    ) -> Result<Seen, Error> {
        let deadline = Instant::now() + within;
        let mut changes = self.0.parts.store.changes();
        loop {
            changes.mark_unchanged();
            let read = self.0.parts.store.read(move |tx: &mut dyn Transaction| {
                let pairing = pairings::get(tx, side, id)?.ok_or(Error::Missing { side, id })?;
                seen(tx, pairing)
            });
            let seen = read.await?;
            let is_news = known != Some(seen.pairing.state);
            if is_news || Instant::now() >= deadline {
                return Ok(seen);
            }
            // A store that is closed changes no more.
            let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
        }
    }

    /// An operator has compared the words. Where both have, the inviting side commits at once.
    ///
    /// # Errors
    /// [`Error::NotNow`] when there is nothing to confirm, [`Error::WordsDiffer`], [`Error::AlreadyPeer`], and what
    /// stands against the pairing.
    pub async fn confirm(
        &self,
        side: Side,
        id: InvitationId,
        confirmation: Confirmation,
        actor: &str,
    ) -> Result<Seen, Error> {
        let (actor, now) = (actor.to_owned(), self.now());
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let mut pairing = pairings::get(tx, side, id)?.ok_or(Error::Missing { side, id })?;
            if pairing.confirmed_by.is_some()
                && matches!(pairing.state, State::Told | State::Committed | State::Done)
            {
                return seen(tx, pairing);
            }
            let Some(them) = pairing
                .told
                .clone()
                .filter(|_| pairing.state == State::Told)
            else {
                let why = "there are no words to compare";
                return Err(commit::not_now(&pairing, why));
            };
            if now >= pairing.expires_at {
                return Err(commit::not_now(&pairing, "its time is over"));
            }
            if let Some(typed) = &confirmation.words
                && !proof::are_same_words(typed, &pairing.words)
            {
                return Err(Error::WordsDiffer {
                    ours: pairing.words,
                });
            }
            let cluster = ClusterId::new(them.cluster_id.as_str())
                .map_err(|_| crate::domain::pairing::Unfit::Unnamed)?;
            commit::check(tx, &them, &cluster, confirmation.is_update, now)?;
            pairing.confirmed_by = Some(actor.clone());
            pairing.is_update = confirmation.is_update;
            let outcome = format!("the words are the same as at {cluster}");
            note(tx, &pairing, Action::PairingConfirm, &actor, outcome, now)?;
            if side == Side::Inviting && pairing.standing().is_agreed(now) {
                commit::commit(tx, &mut pairing, now)?;
            } else {
                pairings::put(tx, &pairing)?;
            }
            seen(tx, pairing)
        });
        let seen = write.await?;
        self.0.decided.notify_one();
        Ok(seen)
    }

    /// An operator takes a pairing back, or reads other words. The other side is told by the one that joins; of an
    /// invitation it hears when it asks.
    ///
    /// # Errors
    /// [`Error::NotNow`] when it has come too far.
    pub async fn cancel(&self, side: Side, id: InvitationId, actor: &str) -> Result<Seen, Error> {
        let (actor, now) = (actor.to_owned(), self.now());
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let mut pairing = pairings::get(tx, side, id)?.ok_or(Error::Missing { side, id })?;
            let may_be_committed = side == Side::Joining && pairing.confirmed_by.is_some();
            if !pairing.state.is_under_way() || may_be_committed {
                let why = match pairing.state {
                    State::Told => {
                        "it was confirmed, and the other side may have committed it: it \
                         is finished by itself once that one can be reached"
                    }
                    State::Committed | State::Done => {
                        "the clusters are peers; emccd cluster remove undoes that"
                    }
                    _ => "it is over",
                };
                return Err(commit::not_now(&pairing, why));
            }
            pairing.state = if side == Side::Joining || pairing.told.is_some() {
                State::Refused
            } else {
                State::Cancelled
            };
            let outcome = format!("{} by an operator of this cluster", pairing.state.as_str());
            note(tx, &pairing, Action::PairingEnd, &actor, outcome, now)?;
            pairings::put(tx, &pairing)?;
            seen(tx, pairing)
        });
        let seen = write.await?;
        if side == Side::Joining {
            self.tell_refused(&seen.pairing).await;
        }
        Ok(seen)
    }

    /// Keeps what depends on time and on other nodes as it should be, and finishes what this node has begun, until it
    /// shuts down.
    pub async fn keep(&self, tasks: &Tasks) {
        /// How long a burst of changes may last before it is looked at.
        const SETTLE: Duration = Duration::from_millis(50);
        /// How often it is looked though nothing has changed: for what runs out.
        const LOOK: Duration = Duration::from_secs(15);
        let mut changes = self.0.parts.store.changes();
        let mut generations = self.0.parts.trust.subscribe();
        let rounds = async {
            loop {
                changes.mark_unchanged();
                generations.mark_unchanged();
                if let Err(error) = self.look().await {
                    warn!(
                        cause = crate::telemetry::error_chain(&error),
                        "invitations could not be looked at; it is tried again"
                    );
                }
                tokio::select! {
                    biased;
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                    Ok(()) = generations.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                tokio::time::sleep(SETTLE).await;
            }
        };
        tokio::select! {
            biased;
            () = tasks.cancelled() => {}
            () = rounds => {}
            () = self.finish_all(tasks) => {}
        }
    }

    /// Tells the other nodes what this one shows, sees until when somebody may come, and ends what ran out. Once before the doors open, so that a node that comes
    /// back turns nobody away; [`Pairings::keep`] goes on with it.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn look(&self) -> Result<(), store::Error> {
        self.publish().await?;
        let now = self.now();
        let store = &self.0.parts.store;
        let read = move |tx: &mut dyn Transaction| {
            Ok::<_, store::Error>((pairings::open_until(tx)?, pairings::is_any_due(tx, now)?))
        };
        let (until, is_due) = store.look_up(read).await?;
        let until = until.map_or(i64::MIN, Timestamp::as_millis);
        self.0.open_until.store(until, Ordering::Release);
        if is_due {
            store
                .write(move |tx: &mut dyn Transaction| pairings::sweep(tx, now))
                .await?;
        }
        Ok(())
    }

    fn opened(&self, until: Timestamp) {
        self.0
            .open_until
            .fetch_max(until.as_millis(), Ordering::AcqRel);
    }

    fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }
}

fn seen(tx: &mut dyn Transaction, pairing: Pairing) -> Result<Seen, Error> {
    let cluster = pairing.told.as_ref().map(|told| told.cluster_id.as_str());
    let is_peer = match cluster.map(ClusterId::new) {
        Some(Ok(cluster)) => peers::get(tx, &cluster)?.is_some(),
        _ => false,
    };
    Ok(Seen { pairing, is_peer })
}

/// One entry of the audit about a pairing.
fn note(
    tx: &mut dyn Transaction,
    pairing: &Pairing,
    action: Action,
    actor: &str,
    outcome: String,
    now: Timestamp,
) -> Result<(), store::Error> {
    audit::append(
        tx,
        &audit::Entry {
            at: now,
            actor: actor.to_owned(),
            action,
            subject: format!("invitation {}", pairing.id),
            outcome,
            reference: None,
        },
    )
}
