//! What we accept from each peer, and what was taken back.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    str::FromStr,
};

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    store::{Transaction, announcements, error::Error, meta, peers, value::Row},
};

/// What an entry vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A CA: chains to it, under the peer's node names.
    Anchor,
    /// One leaf, by its fingerprint.
    Pinned,
}

impl EntryKind {
    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Pinned => "pinned",
        }
    }
}

/// How an entry came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The peer announced it over a link that was trusted; by its record at once, or after an operator had agreed.
    Announced,
    /// Among many, from a file.
    Imported,
    /// An operator added it, by itself or with the peer's record.
    Operator,
    /// The two clusters were paired.
    Paired,
}

impl Source {
    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Imported => "imported",
            Self::Operator => "operator",
            Self::Paired => "paired",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Source {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [
            Self::Announced,
            Self::Imported,
            Self::Operator,
            Self::Paired,
        ]
        .into_iter()
        .find(|source| source.as_str() == word)
        .ok_or(())
    }
}

/// One certificate that we accept for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustEntry {
    /// For which peer; worth nothing for any other.
    pub cluster_id: ClusterId,
    /// As what.
    pub kind: EntryKind,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// The certificate.
    pub der: Vec<u8>,
    /// Since when.
    pub added_at: Timestamp,
    /// From where.
    pub source: Source,
    /// The name that it has in key stores.
    pub alias: Option<String>,
}

/// An entry that was taken back, remembered so that its holder can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// For which peer it was.
    pub cluster_id: ClusterId,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Since when.
    pub revoked_at: Timestamp,
}

/// What was taken back at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Whether the certificate itself was an entry.
    pub was_entry: bool,
    /// Entries, and certificates that waited, which had been announced on its word: gone with it.
    pub descendants: Vec<[u8; 32]>,
}

/// Adds an entry, and forgets that it was ever revoked; whether it is new.
///
/// What somebody of ours adds rests on nobody else's word from then on, also when it is there already, as announced;
/// and it waits no more.
///
/// # Errors
/// [`Error::FingerprintTaken`] when the leaf is pinned for another peer.
pub fn add(tx: &mut dyn Transaction, entry: &TrustEntry) -> Result<bool, Error> {
    if entry.kind == EntryKind::Pinned {
        let holder = tx.query_one(
            "SELECT cluster_id FROM trust_entries
             WHERE kind = 'pinned' AND fingerprint = $1 AND cluster_id <> $2",
            &[(&entry.fingerprint).into(), (&entry.cluster_id).into()],
        )?;
        if let Some(mut holder) = holder {
            return Err(Error::FingerprintTaken(holder.parse()?));
        }
    }
    unrevoke(tx, &entry.cluster_id, &entry.fingerprint)?;
    let added = insert(tx, entry)?;
    announcements::take_waiting(tx, &entry.cluster_id, &entry.fingerprint)?;
    if entry.source != Source::Announced {
        announcements::adopt(tx, &entry.cluster_id, &entry.fingerprint)?;
        tx.execute(
            "UPDATE trust_entries SET source = $1, alias = COALESCE($2, alias)
             WHERE cluster_id = $3 AND kind IN ('anchor', 'pinned') AND fingerprint = $4
             AND source = 'announced'",
            &[
                entry.source.as_str().into(),
                entry.alias.as_deref().into(),
                (&entry.cluster_id).into(),
                (&entry.fingerprint).into(),
            ],
        )?;
    }
    Ok(added)
}

/// Adds entries of one peer as [`add`] does one by one, and tells after each how many are done.
///
/// What nothing is known of yet, which is most of what is imported, costs one statement.
///
/// # Errors
/// [`Error::FingerprintTaken`] when a leaf is pinned for another peer.
pub fn add_all(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    entries: &[TrustEntry],
    mut done: impl FnMut(u64),
) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    meta::bump(tx, peers::REVISION)?;
    let known = tx.query(
        "SELECT fingerprint FROM trust_entries WHERE cluster_id = $1 OR kind = 'pinned'
         UNION SELECT fingerprint FROM revoked_entries WHERE cluster_id = $1
         UNION SELECT fingerprint FROM waiting_entries WHERE cluster_id = $1
         UNION SELECT fingerprint FROM trust_lineage WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?;
    let known = known.into_iter().map(|mut row| row.digest());
    let mut known = known.collect::<Result<HashSet<[u8; 32]>, Error>>()?;
    for (entry, number) in entries.iter().zip(1..) {
        if known.insert(entry.fingerprint) {
            insert(tx, entry)?;
        } else {
            add(tx, entry)?;
        }
        done(number);
    }
    Ok(())
}

fn insert(tx: &mut dyn Transaction, entry: &TrustEntry) -> Result<bool, Error> {
    let added = tx.execute(
        "INSERT INTO trust_entries (cluster_id, kind, fingerprint, der, added_at, source, alias)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (cluster_id, kind, fingerprint) DO NOTHING",
        &[
            (&entry.cluster_id).into(),
            entry.kind.as_str().into(),
            (&entry.fingerprint).into(),
            entry.der.clone().into(),
            entry.added_at.into(),
            entry.source.as_str().into(),
            entry.alias.as_deref().into(),
        ],
    )?;
    Ok(added > 0)
}

/// All entries, by peer, kind and time.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<TrustEntry>, Error> {
    tx.query(
        &format!(
            "SELECT {COLUMNS} FROM trust_entries ORDER BY cluster_id, kind, added_at, fingerprint"
        ),
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// The entries of one peer, by kind and time.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn of(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<Vec<TrustEntry>, Error> {
    tx.query(
        &format!(
            "SELECT {COLUMNS} FROM trust_entries WHERE cluster_id = $1 ORDER BY kind, added_at, fingerprint"
        ),
        &[cluster_id.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

const COLUMNS: &str = "cluster_id, kind, fingerprint, der, added_at, source, alias";

/// For whom a certificate is accepted, and as what.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn holders(
    tx: &mut dyn Transaction,
    fingerprint: &[u8; 32],
) -> Result<Vec<(ClusterId, EntryKind)>, Error> {
    tx.query(
        "SELECT cluster_id, kind FROM trust_entries WHERE fingerprint = $1 ORDER BY cluster_id, kind",
        &[fingerprint.into()],
    )?
    .into_iter()
    .map(|mut row| Ok((row.parse()?, kind(&mut row, 1)?)))
    .collect()
}

fn kind(row: &mut Row, column: usize) -> Result<EntryKind, Error> {
    match row.text()?.as_str() {
        "anchor" => Ok(EntryKind::Anchor),
        "pinned" => Ok(EntryKind::Pinned),
        _ => Err(Error::Stored {
            column,
            expected: "a kind of trust entry",
        }),
    }
}

/// Whether an authority vouches for a peer's certificates.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn has_anchor(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<bool, Error> {
    let found = tx.query_one(
        "SELECT 1 FROM trust_entries WHERE cluster_id = $1 AND kind = 'anchor' LIMIT 1",
        &[cluster_id.into()],
    )?;
    Ok(found.is_some())
}

/// The peers of whom an authority vouches for the certificates.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn anchored(tx: &mut dyn Transaction) -> Result<Vec<ClusterId>, Error> {
    tx.query(
        "SELECT DISTINCT cluster_id FROM trust_entries WHERE kind = 'anchor' ORDER BY cluster_id",
        &[],
    )?
    .into_iter()
    .map(|mut row| row.parse())
    .collect()
}

/// Removes a certificate from what we accept for one peer, as whatever kind; whether it was there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &[u8; 32],
) -> Result<bool, Error> {
    meta::bump(tx, peers::REVISION)?;
    let removed = tx.execute(
        "DELETE FROM trust_entries
         WHERE cluster_id = $1 AND kind IN ('anchor', 'pinned') AND fingerprint = $2",
        &[cluster_id.into(), fingerprint.into()],
    )?;
    Ok(removed > 0)
}

/// Removes a certificate as [`remove`] does, and with it what was announced on its word.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn withdraw(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &[u8; 32],
) -> Result<Gone, Error> {
    let descendants = announcements::descendants(tx, cluster_id, fingerprint)?;
    for descendant in &descendants {
        drop_all(tx, cluster_id, descendant)?;
    }
    Ok(Gone {
        was_entry: drop_all(tx, cluster_id, fingerprint)?,
        descendants,
    })
}

/// Removes certificates of one peer as [`withdraw`] does one by one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn withdraw_all(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprints: &BTreeSet<[u8; 32]>,
) -> Result<(), Error> {
    let lineage = announcements::lineage(tx, cluster_id)?;
    let descendants = announcements::descending(&lineage, fingerprints);
    for gone in fingerprints.iter().chain(&descendants) {
        drop_all(tx, cluster_id, gone)?;
    }
    Ok(())
}

/// Removes a certificate as [`withdraw`] does, and remembers that it and what goes with it were revoked, whether they
/// were there or not.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn revoke(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &[u8; 32],
    now: Timestamp,
) -> Result<Gone, Error> {
    let gone = withdraw(tx, cluster_id, fingerprint)?;
    for revoked in gone.descendants.iter().chain([fingerprint]) {
        tx.execute(
            "INSERT INTO revoked_entries (cluster_id, fingerprint, revoked_at) VALUES ($1, $2, $3)
             ON CONFLICT (cluster_id, fingerprint) DO NOTHING",
            &[cluster_id.into(), revoked.into(), now.into()],
        )?;
    }
    Ok(gone)
}

/// Removes a certificate as an entry, and where it waits.
fn drop_all(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &[u8; 32],
) -> Result<bool, Error> {
    announcements::take_waiting(tx, cluster_id, fingerprint)?;
    announcements::unlabel(tx, cluster_id, fingerprint)?;
    remove(tx, cluster_id, fingerprint)
}

/// Whether a certificate is remembered as revoked for one peer.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn is_revoked(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &[u8; 32],
) -> Result<bool, Error> {
    let found = tx.query_one(
        "SELECT 1 FROM revoked_entries WHERE cluster_id = $1 AND fingerprint = $2",
        &[cluster_id.into(), fingerprint.into()],
    )?;
    Ok(found.is_some())
}

/// Forgets that a certificate was revoked for one peer; whether it was.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn unrevoke(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    fingerprint: &[u8; 32],
) -> Result<bool, Error> {
    meta::bump(tx, peers::REVISION)?;
    let forgotten = tx.execute(
        "DELETE FROM revoked_entries WHERE cluster_id = $1 AND fingerprint = $2",
        &[cluster_id.into(), fingerprint.into()],
    )?;
    Ok(forgotten > 0)
}

/// All remembered revocations, by peer and time.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn revoked(tx: &mut dyn Transaction) -> Result<Vec<RevokedEntry>, Error> {
    tx.query(
        "SELECT cluster_id, fingerprint, revoked_at FROM revoked_entries
         ORDER BY cluster_id, revoked_at, fingerprint",
        &[],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(RevokedEntry {
            cluster_id: row.parse()?,
            fingerprint: row.digest()?,
            revoked_at: row.time()?,
        })
    })
    .collect()
}

fn record(mut row: Row) -> Result<TrustEntry, Error> {
    Ok(TrustEntry {
        cluster_id: row.parse()?,
        kind: kind(&mut row, 1)?,
        fingerprint: row.digest()?,
        der: row.blob()?,
        added_at: row.time()?,
        source: row.text()?.parse().map_err(|()| Error::Stored {
            column: 5,
            expected: "a source of trust",
        })?,
        alias: row.opt_text()?,
    })
}
