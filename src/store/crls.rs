//! Revocation lists of the peers' authorities, one per peer and authority.

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    store::{Transaction, error::Error, meta, peers, value::Row},
};

/// A list as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCrl {
    /// For which peer it counts.
    pub cluster_id: ClusterId,
    /// SHA-256 of the public key that signed it.
    pub issuer_key: [u8; 32],
    /// The certificate of the authority that signed it.
    pub issuer_der: Vec<u8>,
    /// Its number, in decimal.
    pub number: String,
    /// When it was made.
    pub this_update: Timestamp,
    /// By when the next one is due.
    pub next_update: Timestamp,
    /// Whether its authority's word counts for nothing while it is stale.
    pub is_strict: bool,
    /// Since when it counts.
    pub added_at: Timestamp,
    /// The list.
    pub der: Vec<u8>,
}

const COLUMNS: &str =
    "cluster_id, issuer_key, issuer_der, number, this_update, next_update, strict, added_at, der";

/// Stores a list in place of the one that the authority had for that peer.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, crl: &StoredCrl) -> Result<(), Error> {
    meta::bump(tx, peers::REVISION)?;
    tx.execute(
        "INSERT INTO crls (cluster_id, issuer_key, issuer_der, number, this_update, next_update, strict, added_at, der)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (cluster_id, issuer_key) DO UPDATE SET issuer_der = excluded.issuer_der,
             number = excluded.number, this_update = excluded.this_update, next_update = excluded.next_update,
             strict = excluded.strict, added_at = excluded.added_at, der = excluded.der",
        &[
            (&crl.cluster_id).into(),
            (&crl.issuer_key).into(),
            crl.issuer_der.clone().into(),
            crl.number.as_str().into(),
            crl.this_update.into(),
            crl.next_update.into(),
            crl.is_strict.into(),
            crl.added_at.into(),
            crl.der.clone().into(),
        ],
    )?;
    Ok(())
}

/// The list of one authority for one peer.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    issuer_key: &[u8; 32],
) -> Result<Option<StoredCrl>, Error> {
    let row = tx.query_one(
        &format!("SELECT {COLUMNS} FROM crls WHERE cluster_id = $1 AND issuer_key = $2"),
        &[cluster_id.into(), issuer_key.into()],
    )?;
    row.map(record).transpose()
}

/// All lists, by peer and authority.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<StoredCrl>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM crls ORDER BY cluster_id, issuer_key"),
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes the list of one authority for one peer; whether it was there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    issuer_key: &[u8; 32],
) -> Result<bool, Error> {
    meta::bump(tx, peers::REVISION)?;
    let removed = tx.execute(
        "DELETE FROM crls WHERE cluster_id = $1 AND issuer_key = $2",
        &[cluster_id.into(), issuer_key.into()],
    )?;
    Ok(removed > 0)
}

/// Removes all lists of one peer.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove_all(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<(), Error> {
    meta::bump(tx, peers::REVISION)?;
    tx.execute(
        "DELETE FROM crls WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?;
    Ok(())
}

fn record(mut row: Row) -> Result<StoredCrl, Error> {
    Ok(StoredCrl {
        cluster_id: row.parse()?,
        issuer_key: row.digest()?,
        issuer_der: row.blob()?,
        number: row.text()?,
        this_update: row.time()?,
        next_update: row.time()?,
        is_strict: row.flag()?,
        added_at: row.time()?,
        der: row.blob()?,
    })
}
