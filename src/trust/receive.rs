//! Announcements of peers, received: proofs are checked, what they change is decided
//! ([`reconcile`](crate::domain::announcement::reconcile)) and stored with its audit entry in one transaction, and the
//! answer waits until every living node of this cluster goes by it. A process that is killed in between has stored all of
//! it or nothing; the peer announces again, and finds it done.

mod candidates;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls_pki_types::CertificateDer;
use tokio::time::timeout_at;
use tracing::{error, info, warn};

use self::candidates::{Told, authority, request_of};
use super::{
    TrustStore,
    bundle::Bundle,
    certificate::{Certificate, Fingerprint, fingerprint_of, fingerprint_text},
    proof::{self, Unproven},
};
use crate::{
    clock::Timestamp,
    domain::{
        announcement::{
            Acknowledgement, Announcement, Outcome, Proof, proof_text,
            reconcile::{Change, Newest, Reconciled, Refused, Request, Standing, reconcile},
        },
        em_code::EmCode,
        ids::{ClusterId, Ref},
        refusal::Refusal,
    },
    store::{
        self, Store, Transaction,
        announcements::{self, Announced, WaitingEntry},
        audit,
        membership::Membership,
        meta, nodes, peers,
        trust_entries::{self, EntryKind, Source, TrustEntry},
    },
};

/// How long before the caller's deadline waiting ends, so that the answer that names the node still arrives.
const ANSWER: Duration = Duration::from_millis(500);

/// How far a number may be beyond our clock: as much as clocks of sane nodes differ.
const MOST_AHEAD: Duration = Duration::from_hours(24);

/// Takes announcements. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Our own cluster.
    pub cluster_id: ClusterId,
    /// Where it is kept.
    pub store: Store,
    /// Which nodes live.
    pub membership: Membership,
    /// What is in force here.
    pub trust: TrustStore,
}

/// Who announces, and until when it waits for an answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// The peer, as its certificate proves.
    pub cluster: ClusterId,
    /// What it proved, the leaf first.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// The attempt.
    pub reference: Ref,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// Why an announcement is not taken as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no record of the caller.
    #[error(
        "cluster {0} is trusted but not configured here; add it with `emccd cluster add {0} --address HOST:PORT`"
    )]
    CallerUnknown(ClusterId),
    /// The record of the caller is disabled.
    #[error(
        "the record of cluster {0} is disabled here, so nothing is taken from it; enable it with `emccd cluster set {0} --enabled true`"
    )]
    CallerDisabled(ClusterId),
    /// What the connection shows was taken back while it lived: it vouches for nothing any more.
    #[error(
        "what cluster {0} shows on this connection is not accepted here any more, so it vouches for nothing; what it \
         shall show is accepted with `emccd trust add {0} --pin FILE`"
    )]
    CallerDistrusted(ClusterId),
    /// The connection has no certificate that could vouch for anything.
    #[error("the connection shows no certificate")]
    NoCertificate,
    /// What is announced as a certificate is none.
    #[error("certificate {number} of {identity} can't be read")]
    Unreadable {
        /// Whose.
        identity: String,
        /// Which one, from 1.
        number: usize,
        /// Why.
        source: super::Error,
    },
    /// A certificate came without the proof of its key.
    #[error("{} of {identity} is not proved to be the caller's", fingerprint_text(.fingerprint))]
    Unproven {
        /// Whose.
        identity: String,
        /// Which one.
        fingerprint: Fingerprint,
        /// Why.
        source: Unproven,
    },
    /// It would cut the connection that it came over.
    #[error(
        "the announcement of {identity} leaves out {}, which this call's own connection rests on; announce it over a connection with the new certificate",
        fingerprint_text(.fingerprint)
    )]
    RestsOn {
        /// Whose.
        identity: String,
        /// Which one.
        fingerprint: Fingerprint,
    },
    /// The number is one that the identity could never go above again.
    #[error(
        "{identity} was announced under the number {sequence}, which is beyond this cluster's clock in milliseconds by more than a day; compare the clocks of both sides (timedatectl)"
    )]
    NumberTooHigh {
        /// Whose.
        identity: String,
        /// Which number.
        sequence: u64,
    },
    /// The same number came before with other certificates.
    #[error(
        "{identity} was announced under the number {sequence} with other certificates; numbers only grow"
    )]
    OtherContent {
        /// Whose.
        identity: String,
        /// Which.
        sequence: u64,
    },
    /// The caller announces more identities than a cluster has.
    #[error(
        "{cluster} has announced {} identities and may announce no more; remove certificates of nodes that are gone with `emccd trust remove {cluster} --fingerprint HEX`",
        crate::domain::announcement::MAX_IDENTITIES
    )]
    TooManyIdentities {
        /// Who.
        cluster: ClusterId,
    },
    /// Stored, but some node does not go by it yet.
    #[error("stored, but not yet in force on {}; announce it again", .nodes.join(", "))]
    NotLoaded {
        /// Which nodes.
        nodes: Vec<String>,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
}

impl Error {
    /// For the caller.
    #[must_use]
    pub fn to_refusal(&self) -> Refusal {
        let code = match self {
            Self::CallerUnknown(_) => EmCode::VisitingClusterUnknown,
            Self::CallerDisabled(_) | Self::CallerDistrusted(_) => EmCode::EmccNotAllowed,
            Self::NoCertificate | Self::Unreadable { .. } | Self::Unproven { .. } => {
                EmCode::ErrorOnParsing
            }
            Self::RestsOn { .. }
            | Self::NumberTooHigh { .. }
            | Self::OtherContent { .. }
            | Self::TooManyIdentities { .. } => EmCode::PolicyValidationError,
            Self::NotLoaded { .. } => EmCode::ServiceConnectionError,
            Self::Store(_) => EmCode::DatabaseError,
        };
        Refusal::new(code, crate::telemetry::error_chain(self))
    }
}

impl Receiver {
    /// Takes an announcement, and answers when every living node of this cluster goes by it.
    ///
    /// # Errors
    /// [`Error`]. Nothing has changed then, except with [`Error::NotLoaded`].
    pub async fn announced(
        &self,
        call: &Call,
        announcement: &Announcement,
    ) -> Result<Acknowledgement, Error> {
        let Some(leaf) = call.chain.first() else {
            return Err(Error::NoCertificate);
        };
        let now = self.trust.clock().now();
        check_number(announcement, now)?;
        let bundle = self.bundle(&call.cluster);
        let told = self.proven(call, announcement, &bundle)?;
        let work = Work {
            cluster: call.cluster.clone(),
            reference: call.reference,
            authority: authority(&bundle, call, now),
            request: request_of(announcement, &told, fingerprint_of(leaf), &bundle, now),
            certificates: told.into_iter().map(|one| one.certificate).collect(),
            now,
        };
        let stored = self.store.write(move |tx| work.take(tx)).await?;
        stored.tell(call, &announcement.identity);
        self.in_force(stored.revision, call.deadline).await?;
        Ok(Acknowledgement {
            sequence: stored.done.sequence,
            outcomes: stored.done.outcomes,
        })
    }

    /// What is in force here for the caller; nothing where there is none.
    fn bundle(&self, cluster: &ClusterId) -> Bundle {
        let snapshot = self.trust.snapshot();
        let mut bundles = snapshot.bundles().iter();
        let found = bundles.find(|bundle| bundle.cluster == *cluster);
        found
            .cloned()
            .unwrap_or_else(|| Bundle::new(cluster.clone()))
    }

    /// The certificates, each with its key proved, and with its parent where that one's key vouches for it.
    fn proven(
        &self,
        call: &Call,
        announcement: &Announcement,
        bundle: &Bundle,
    ) -> Result<Vec<Told>, Error> {
        let provider = super::tls::provider();
        let identity = &announcement.identity;
        let check = |of: &Certificate, proof: &Proof, text: &[u8]| {
            let (scheme, signature) = (proof.scheme, &proof.signature);
            let checked = proof::verify(&provider, of.der(), scheme, text, signature);
            checked.map_err(|source| Error::Unproven {
                identity: identity.clone(),
                fingerprint: of.fingerprint(),
                source,
            })
        };
        let mut texts = Vec::with_capacity(announcement.certificates.len());
        let mut told: Vec<Told> = Vec::with_capacity(announcement.certificates.len());
        for (number, proven) in (1..).zip(&announcement.certificates) {
            let certificate =
                Certificate::from_der(&proven.der).map_err(|source| Error::Unreadable {
                    identity: identity.clone(),
                    number,
                    source,
                })?;
            let text = proof_text(
                &call.cluster,
                &self.cluster_id,
                identity,
                announcement.sequence,
                &certificate.fingerprint(),
                proven.parent.as_ref(),
            );
            check(&certificate, &proven.proof, &text)?;
            texts.push(text);
            told.push(Told {
                certificate,
                parent: None,
            });
        }
        for (at, (proven, text)) in announcement.certificates.iter().zip(&texts).enumerate() {
            let (Some(parent), Some(proof)) = (proven.parent, &proven.parent_proof) else {
                continue;
            };
            // The old one is told beside the new one; of others only what is in force here counts.
            let beside = told.iter().map(|one| &one.certificate);
            let mut known = beside.chain(&bundle.pinned);
            let Some(known) = known.find(|known| known.fingerprint() == parent) else {
                continue;
            };
            check(known, proof, text)?;
            if let Some(one) = told.get_mut(at) {
                one.parent = Some(parent);
            }
        }
        Ok(told)
    }

    /// Waits until every living node has this revision of trust, or a later one, in force.
    async fn in_force(&self, revision: i64, deadline: Instant) -> Result<(), Error> {
        let until = deadline.checked_sub(ANSWER).unwrap_or(deadline);
        // Subscribed before the first look: no change falls in between.
        let (mut changes, mut living) = (self.store.changes(), self.membership.living());
        loop {
            let behind = self
                .store
                .read(move |tx: &mut dyn Transaction| nodes::behind_trust(tx, revision))
                .await?;
            let live = Arc::clone(&living.borrow_and_update());
            let nodes: Vec<_> = behind
                .into_iter()
                .filter(|run| live.iter().any(|node| node.run == *run))
                .map(|run| run.node)
                .collect();
            if nodes.is_empty() {
                return Ok(());
            }
            let moved = async {
                tokio::select! {
                    biased;
                    changed = changes.changed() => changed.is_ok(),
                    changed = living.changed() => changed.is_ok(),
                }
            };
            if timeout_at(until.into(), moved).await != Ok(true) {
                return Err(Error::NotLoaded { nodes });
            }
        }
    }
}

/// Whoever holds a key for a while must not end an identity's announcements for good: a number has to leave room above.
fn check_number(announcement: &Announcement, now: Timestamp) -> Result<(), Error> {
    let most = u64::try_from(now.plus(MOST_AHEAD).as_millis()).unwrap_or(0);
    if announcement.sequence <= most {
        return Ok(());
    }
    Err(Error::NumberTooHigh {
        identity: announcement.identity.clone(),
        sequence: announcement.sequence,
    })
}

/// What one transaction does.
#[derive(Clone)]
struct Work {
    cluster: ClusterId,
    reference: Ref,
    authority: Option<Fingerprint>,
    request: Request,
    certificates: Vec<Certificate>,
    now: Timestamp,
}

/// What it did.
struct Stored {
    done: Reconciled,
    /// Of peers and trust, with what was done.
    revision: i64,
    /// In words; none when nothing was changed.
    told: Option<String>,
}

impl Work {
    fn take(&self, tx: &mut dyn Transaction) -> Result<Stored, Error> {
        let peer = peers::get(tx, &self.cluster)?
            .ok_or_else(|| Error::CallerUnknown(self.cluster.clone()))?;
        if !peer.enabled {
            return Err(Error::CallerDisabled(self.cluster.clone()));
        }
        // Another node of ours may have been told before this one has cut the connection. What is pinned now came after
        // all that goes with a revoked key, and would stay.
        let connection = &self.request.connection;
        let entries = trust_entries::of(tx, &self.cluster)?;
        if trust_entries::is_revoked(tx, &self.cluster, connection)? || !self.rests_on(&entries) {
            return Err(Error::CallerDistrusted(self.cluster.clone()));
        }
        let standing = self.standing(tx, &entries)?;
        let done = reconcile(&standing, peer.accept_announcements, &self.request)
            .map_err(|refused| self.refused(refused))?;
        if !done.changes.is_empty() {
            for change in &done.changes {
                self.carry_out(tx, change)?;
            }
            let rests = |change: &Change| {
                matches!(change, Change::Pin(_, Some(parent)) | Change::Wait(_, Some(parent))
                    if parent == connection)
            };
            if let Some(authority) = &self.authority
                && !standing.pinned.contains(connection)
                && done.changes.iter().any(rests)
            {
                announcements::descend(tx, &self.cluster, connection, authority)?;
            }
            announcements::prune_lineage(tx, &self.cluster)?;
        }
        let told = self.told(&done);
        if let Some(told) = &told {
            audit::append(
                tx,
                &audit::Entry {
                    at: self.now,
                    actor: format!("peer {}", self.cluster),
                    action: audit::Action::TrustAnnounce,
                    subject: self.cluster.to_string(),
                    outcome: told.clone(),
                    reference: Some(self.reference),
                },
            )?;
        }
        let revision = meta::get(tx, peers::REVISION)?;
        let revision = revision.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Stored {
            done,
            revision,
            told,
        })
    }

    /// Whether what the connection rests on is an entry still: its own certificate, or the authority that vouches for it.
    fn rests_on(&self, entries: &[TrustEntry]) -> bool {
        entries.iter().any(|entry| match entry.kind {
            EntryKind::Pinned => entry.fingerprint == self.request.connection,
            EntryKind::Anchor => self.authority == Some(entry.fingerprint),
        })
    }

    fn standing(
        &self,
        tx: &mut dyn Transaction,
        entries: &[TrustEntry],
    ) -> Result<Standing, Error> {
        let mut standing = Standing::default();
        for entry in entries {
            if entry.kind == EntryKind::Pinned {
                standing.pinned.insert(entry.fingerprint);
            }
        }
        for entry in announcements::waiting(tx)? {
            if entry.cluster_id == self.cluster {
                standing.waiting.insert(entry.fingerprint);
            }
        }
        let mut own = BTreeMap::<_, BTreeSet<_>>::new();
        for label in announcements::labels_of(tx, &self.cluster)? {
            own.entry(label.identity)
                .or_default()
                .insert(label.fingerprint);
        }
        for newest in announcements::identities(tx, &self.cluster)? {
            let known = Newest {
                sequence: u64::try_from(newest.sequence).unwrap_or(0),
                digest: newest.digest,
                own: own.remove(&newest.identity).unwrap_or_default(),
            };
            standing.identities.insert(newest.identity, known);
        }
        for candidate in &self.request.certificates {
            let fingerprint = candidate.fingerprint;
            if trust_entries::is_revoked(tx, &self.cluster, &fingerprint)? {
                standing.revoked.insert(fingerprint);
            }
            for (holder, kind) in trust_entries::holders(tx, &fingerprint)? {
                match kind {
                    EntryKind::Anchor => {
                        standing.authorities.insert(fingerprint);
                    }
                    EntryKind::Pinned if holder != self.cluster => {
                        standing.elsewhere.insert(fingerprint, holder);
                    }
                    EntryKind::Pinned => {}
                }
            }
        }
        Ok(standing)
    }

    fn refused(&self, refused: Refused) -> Error {
        let identity = self.request.identity.clone();
        match refused {
            Refused::RestsOn(fingerprint) => Error::RestsOn {
                identity,
                fingerprint,
            },
            Refused::OtherContent(sequence) => Error::OtherContent { identity, sequence },
            Refused::TooManyIdentities => Error::TooManyIdentities {
                cluster: self.cluster.clone(),
            },
        }
    }

    fn carry_out(&self, tx: &mut dyn Transaction, change: &Change) -> Result<(), Error> {
        let cluster = &self.cluster;
        match change {
            Change::Forget(identity) => announcements::forget_identity(tx, cluster, identity)?,
            Change::Pin(fingerprint, parent) => {
                let entry = TrustEntry {
                    cluster_id: cluster.clone(),
                    kind: EntryKind::Pinned,
                    fingerprint: *fingerprint,
                    der: self.der(fingerprint),
                    added_at: self.now,
                    source: Source::Announced,
                    alias: None,
                };
                trust_entries::add(tx, &entry)?;
                if let Some(parent) = parent {
                    announcements::descend(tx, cluster, fingerprint, parent)?;
                }
            }
            Change::Wait(fingerprint, parent) => {
                let entry = WaitingEntry {
                    cluster_id: cluster.clone(),
                    fingerprint: *fingerprint,
                    der: self.der(fingerprint),
                    since: self.now,
                };
                announcements::wait(tx, &entry)?;
                if let Some(parent) = parent {
                    announcements::descend(tx, cluster, fingerprint, parent)?;
                }
            }
            Change::Remove(fingerprint) => {
                trust_entries::remove(tx, cluster, fingerprint)?;
            }
            Change::Unwait(fingerprint) => {
                announcements::take_waiting(tx, cluster, fingerprint)?;
            }
            Change::Keep(identity, newest) => {
                let announced = Announced {
                    identity: identity.clone(),
                    sequence: i64::try_from(newest.sequence).unwrap_or(i64::MAX),
                    digest: newest.digest,
                    told_at: self.now,
                };
                announcements::put(tx, cluster, &announced, &newest.own)?;
            }
        }
        Ok(())
    }

    fn der(&self, fingerprint: &Fingerprint) -> Vec<u8> {
        let mut certificates = self.certificates.iter();
        certificates
            .find(|certificate| certificate.fingerprint() == *fingerprint)
            .map(|certificate| certificate.der().to_vec())
            .unwrap_or_default()
    }

    /// What was done, in one line; none when nothing of what is accepted or waits was changed.
    fn told(&self, done: &Reconciled) -> Option<String> {
        let steps: Vec<_> = done.changes.iter().filter_map(step_told).collect();
        if steps.is_empty() {
            return None;
        }
        let (identity, sequence) = (&self.request.identity, done.sequence);
        Some(format!(
            "{identity} number {sequence}: {}",
            steps.join("; ")
        ))
    }
}

fn step_told(change: &Change) -> Option<String> {
    let on_the_word = |parent: &Option<Fingerprint>| {
        parent.map_or_else(String::new, |parent| {
            format!(" on the word of {}", fingerprint_text(&parent))
        })
    };
    match change {
        Change::Pin(fingerprint, parent) => Some(format!(
            "added pinned {}{}",
            fingerprint_text(fingerprint),
            on_the_word(parent)
        )),
        Change::Wait(fingerprint, parent) => Some(format!(
            "{} waits{}",
            fingerprint_text(fingerprint),
            on_the_word(parent)
        )),
        Change::Remove(fingerprint) => Some(format!("removed {}", fingerprint_text(fingerprint))),
        Change::Unwait(fingerprint) => {
            Some(format!("{} waits no more", fingerprint_text(fingerprint)))
        }
        Change::Forget(_) | Change::Keep(..) => None,
    }
}

impl Stored {
    /// Tells our operator what a peer has changed, and what is for an operator to look at.
    fn tell(&self, call: &Call, identity: &str) {
        let cluster = &call.cluster;
        if let Some(told) = &self.told {
            info!(
                peer.cluster_id = cluster.as_str(), emcc.r#ref = %call.reference, changed = told.as_str(),
                "cluster {cluster} announced its certificates"
            );
        }
        let is_new = |fingerprint: &Fingerprint| {
            let waits = |change: &Change| matches!(change, Change::Wait(f, _) if f == fingerprint);
            self.done.changes.iter().any(waits)
        };
        for (fingerprint, outcome) in &self.done.outcomes {
            let text = fingerprint_text(fingerprint);
            match outcome {
                Outcome::Loaded => {}
                Outcome::Waiting(_) if is_new(fingerprint) => warn!(
                    peer.cluster_id = cluster.as_str(),
                    identity,
                    fingerprint = text,
                    next = format!(
                        "emccd trust accept {cluster}, or: emccd trust accept {cluster} --reject"
                    ),
                    "a new certificate of cluster {cluster} waits for an operator: it is not accepted before"
                ),
                // Its time has not come; told once, as a repeat changes nothing.
                Outcome::Waiting(why) if !self.done.changes.is_empty() => info!(
                    peer.cluster_id = cluster.as_str(),
                    identity,
                    fingerprint = text,
                    cause = why.as_str(),
                    "a certificate that cluster {cluster} announced waits"
                ),
                Outcome::Waiting(_) => {}
                // A repeat changes nothing, and has been told of.
                Outcome::Refused(_) if self.done.changes.is_empty() => {}
                Outcome::Refused(why) => error!(
                    peer.cluster_id = cluster.as_str(),
                    identity,
                    fingerprint = text,
                    cause = why.as_str(),
                    next = format!("emccd trust list {cluster}"),
                    "a certificate that cluster {cluster} announced was refused"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests;
