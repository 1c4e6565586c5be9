//! What peers announced of their own certificates: the newest of each identity, what waits for an operator, and on whose
//! word each certificate was taken.
//!
//! What is accepted stands in [`trust_entries`]; here is what must be remembered beside it. Lineage outlives the entries:
//! a certificate that was retired long ago and is found to be stolen still takes along what was announced on its word.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    store::{Transaction, error::Error, meta, peers, value::Row},
};

/// The SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// How many generations of an announced certificate are remembered.
pub const MAX_GENERATIONS: usize = 64;

/// The newest announcement of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Node and purpose, as the peer names them.
    pub identity: String,
    /// Its number; those of one identity only grow.
    pub sequence: i64,
    /// SHA-256 of what was announced under it.
    pub digest: [u8; 32],
    /// When it came.
    pub told_at: Timestamp,
}

/// A certificate that a peer announced and that an operator has not agreed to yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingEntry {
    /// Of which peer.
    pub cluster_id: ClusterId,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// The certificate.
    pub der: Vec<u8>,
    /// Since when.
    pub since: Timestamp,
}

/// Which identity says that a certificate is its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Of which peer.
    pub cluster_id: ClusterId,
    /// Node and purpose.
    pub identity: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
}

/// The newest announcement of each identity of a peer, by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn identities(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
) -> Result<Vec<Announced>, Error> {
    tx.query(
        "SELECT identity, sequence, digest, told_at FROM announced_identities
         WHERE cluster_id = $1 ORDER BY identity",
        &[cluster_id.into()],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Announced {
            identity: row.text()?,
            sequence: row.int()?,
            digest: row.digest()?,
            told_at: row.time()?,
        })
    })
    .collect()
}

/// Keeps an announcement as the newest of its identity, with the certificates that are its own from now on. Those that
/// are neither accepted nor waiting are for the caller to leave out.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    announced: &Announced,
    own: &BTreeSet<Fingerprint>,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO announced_identities (cluster_id, identity, sequence, digest, told_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (cluster_id, identity) DO UPDATE SET
           sequence = excluded.sequence, digest = excluded.digest, told_at = excluded.told_at",
        &[
            cluster_id.into(),
            (&announced.identity).into(),
            announced.sequence.into(),
            (&announced.digest).into(),
            announced.told_at.into(),
        ],
    )?;
    tx.execute(
        "DELETE FROM announced_certificates WHERE cluster_id = $1 AND identity = $2",
        &[cluster_id.into(), (&announced.identity).into()],
    )?;
    for fingerprint in own {
        tx.execute(
            "INSERT INTO announced_certificates (cluster_id, identity, fingerprint) VALUES ($1, $2, $3)",
            &[
                cluster_id.into(),
                (&announced.identity).into(),
                fingerprint.into(),
            ],
        )?;
    }
    Ok(())
}

/// Forgets an identity of which nothing is left.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget_identity(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    identity: &str,
) -> Result<(), Error> {
    for table in ["announced_identities", "announced_certificates"] {
        tx.execute(
            &format!("DELETE FROM {table} WHERE cluster_id = $1 AND identity = $2"),
            &[cluster_id.into(), identity.into()],
        )?;
    }
    Ok(())
}

/// Whose each certificate is, of all peers.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn labels(tx: &mut dyn Transaction) -> Result<Vec<Label>, Error> {
    tx.query(
        "SELECT cluster_id, identity, fingerprint FROM announced_certificates
         ORDER BY cluster_id, identity, fingerprint",
        &[],
    )?
    .into_iter()
    .map(label)
    .collect()
}

/// Whose each certificate of one peer is.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn labels_of(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<Vec<Label>, Error> {
    tx.query(
        "SELECT cluster_id, identity, fingerprint FROM announced_certificates
         WHERE cluster_id = $1 ORDER BY identity, fingerprint",
        &[cluster_id.into()],
    )?
    .into_iter()
    .map(label)
    .collect()
}

/// Has no identity say any longer that a certificate is its own.
///
/// # Errors
/// [`Error`] when the store fails.
pub(super) fn unlabel(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &Fingerprint,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM announced_certificates WHERE cluster_id = $1 AND fingerprint = $2",
        &[cluster_id.into(), fingerprint.into()],
    )?;
    Ok(())
}

/// Has a certificate wait for an operator; whether it did not wait before.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn wait(tx: &mut dyn Transaction, entry: &WaitingEntry) -> Result<bool, Error> {
    let added = tx.execute(
        "INSERT INTO waiting_entries (cluster_id, fingerprint, der, since) VALUES ($1, $2, $3, $4)
         ON CONFLICT (cluster_id, fingerprint) DO NOTHING",
        &[
            (&entry.cluster_id).into(),
            (&entry.fingerprint).into(),
            entry.der.clone().into(),
            entry.since.into(),
        ],
    )?;
    if added > 0 {
        meta::bump(tx, peers::REVISION)?;
    }
    Ok(added > 0)
}

/// All that waits, by peer and time.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn waiting(tx: &mut dyn Transaction) -> Result<Vec<WaitingEntry>, Error> {
    tx.query(
        "SELECT cluster_id, fingerprint, der, since FROM waiting_entries
         ORDER BY cluster_id, since, fingerprint",
        &[],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(WaitingEntry {
            cluster_id: row.parse()?,
            fingerprint: row.digest()?,
            der: row.blob()?,
            since: row.time()?,
        })
    })
    .collect()
}

/// Has a certificate wait no more; whether it did.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn take_waiting(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &Fingerprint,
) -> Result<bool, Error> {
    let taken = tx.execute(
        "DELETE FROM waiting_entries WHERE cluster_id = $1 AND fingerprint = $2",
        &[cluster_id.into(), fingerprint.into()],
    )?;
    if taken > 0 {
        meta::bump(tx, peers::REVISION)?;
    }
    Ok(taken > 0)
}

/// Keeps on whose word a certificate is taken, unless that is known already.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn descend(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &Fingerprint,
    parent: &Fingerprint,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO trust_lineage (cluster_id, fingerprint, parent) VALUES ($1, $2, $3)
         ON CONFLICT (cluster_id, fingerprint) DO NOTHING",
        &[cluster_id.into(), fingerprint.into(), parent.into()],
    )?;
    Ok(())
}

/// Has a certificate rest on no other one's word any longer.
///
/// # Errors
/// [`Error`] when the store fails.
pub(super) fn adopt(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &Fingerprint,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM trust_lineage WHERE cluster_id = $1 AND fingerprint = $2",
        &[cluster_id.into(), fingerprint.into()],
    )?;
    Ok(())
}

/// On whose word each certificate of a peer was taken.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn lineage(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
) -> Result<BTreeMap<Fingerprint, Fingerprint>, Error> {
    tx.query(
        "SELECT fingerprint, parent FROM trust_lineage WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?
    .into_iter()
    .map(|mut row| Ok((row.digest()?, row.digest()?)))
    .collect()
}

/// On whose word each certificate was taken, of all peers.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn lineages(
    tx: &mut dyn Transaction,
) -> Result<BTreeMap<(ClusterId, Fingerprint), Fingerprint>, Error> {
    tx.query(
        "SELECT cluster_id, fingerprint, parent FROM trust_lineage",
        &[],
    )?
    .into_iter()
    .map(|mut row| Ok(((row.parse()?, row.digest()?), row.digest()?)))
    .collect()
}

/// What was taken on the word of a certificate, and on the word of that, and so on; in the order of fingerprints.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn descendants(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    ancestor: &Fingerprint,
) -> Result<Vec<Fingerprint>, Error> {
    let lineage = lineage(tx, cluster_id)?;
    Ok(descending(&lineage, &BTreeSet::from([*ancestor])))
}

/// What descends from these certificates, by the word on which each one was taken; in the order of fingerprints.
#[must_use]
pub fn descending(
    lineage: &BTreeMap<Fingerprint, Fingerprint>,
    ancestors: &BTreeSet<Fingerprint>,
) -> Vec<Fingerprint> {
    let mut found = BTreeSet::new();
    let mut generation = ancestors.clone();
    while !generation.is_empty() {
        let next = lineage
            .iter()
            .filter(|(child, parent)| generation.contains(*parent) && !found.contains(*child))
            .map(|(child, _)| *child)
            .collect::<BTreeSet<_>>();
        found.extend(next.iter().copied());
        generation = next;
    }
    // A ring can't be announced; where one is stored none the less, nothing descends from itself.
    found.difference(ancestors).copied().collect()
}

/// Forgets the lineage of what is neither accepted nor waiting and has nothing left that descends from it, and of what
/// lies more than [`MAX_GENERATIONS`] back.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn prune_lineage(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<(), Error> {
    let lineage = lineage(tx, cluster_id)?;
    let living = tx.query(
        "SELECT fingerprint FROM trust_entries WHERE cluster_id = $1
         UNION SELECT fingerprint FROM waiting_entries WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?;
    let mut kept = BTreeSet::new();
    for mut row in living {
        let mut at = row.digest()?;
        for _ in 0..MAX_GENERATIONS {
            let Some(parent) = lineage.get(&at) else {
                break;
            };
            kept.insert(at);
            at = *parent;
        }
    }
    for gone in lineage.keys().filter(|child| !kept.contains(*child)) {
        adopt(tx, cluster_id, gone)?;
    }
    Ok(())
}

/// Forgets everything that a peer announced. What of it is accepted stays so.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<(), Error> {
    for table in [
        "announced_certificates",
        "announced_identities",
        "trust_lineage",
        "waiting_entries",
    ] {
        tx.execute(
            &format!("DELETE FROM {table} WHERE cluster_id = $1"),
            &[cluster_id.into()],
        )?;
    }
    meta::bump(tx, peers::REVISION)
}

fn label(mut row: Row) -> Result<Label, Error> {
    Ok(Label {
        cluster_id: row.parse()?,
        identity: row.text()?,
        fingerprint: row.digest()?,
    })
}
