//! How far we agree with each peer on the sessions that we share. Of our own rows only: the peer looks after its own.
//!
//! All times are of our cluster's clock. A row goes with the peer's record.

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    store::{Transaction, error::Error, value::Row},
};

/// What is on record of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// When a pass last came to its end.
    pub passed_at: Option<Timestamp>,
    /// When one last left nothing in doubt: what lives here lives there too, or has ended there and so here.
    pub agreed_at: Option<Timestamp>,
    /// Since when a mass end is held back.
    pub held_since: Option<Timestamp>,
    /// How many ends that is.
    pub held_ends: u32,
}

const COLUMNS: &str = "passed_at, agreed_at, held_since, held_ends";

/// That of one peer; nothing known where there was none yet.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<Agreement, Error> {
    let row = tx.query_one(
        &format!("SELECT {COLUMNS} FROM agreements WHERE cluster_id = $1"),
        &[cluster.into()],
    )?;
    Ok(row.map(record).transpose()?.unwrap_or_default())
}

/// Those of all peers that have one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<(ClusterId, Agreement)>, Error> {
    tx.query(
        &format!("SELECT cluster_id, {COLUMNS} FROM agreements ORDER BY cluster_id"),
        &[],
    )?
    .into_iter()
    .map(|mut row| Ok((row.parse()?, record(row)?)))
    .collect()
}

/// Puts it on record, if there is a record of the peer.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(
    tx: &mut dyn Transaction,
    cluster: &ClusterId,
    agreement: &Agreement,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO agreements (cluster_id, passed_at, agreed_at, held_since, held_ends)
         SELECT cluster_id, $1, $2, $3, $4 FROM peers WHERE cluster_id = $5
         ON CONFLICT (cluster_id) DO UPDATE SET passed_at = excluded.passed_at, agreed_at = excluded.agreed_at,
           held_since = excluded.held_since, held_ends = excluded.held_ends",
        &[
            agreement.passed_at.into(),
            agreement.agreed_at.into(),
            agreement.held_since.into(),
            agreement.held_ends.into(),
            cluster.into(),
        ],
    )?;
    Ok(())
}

/// Forgets that of a peer whose record goes.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM agreements WHERE cluster_id = $1",
        &[cluster.into()],
    )?;
    Ok(())
}

fn record(mut row: Row) -> Result<Agreement, Error> {
    Ok(Agreement {
        passed_at: row.opt_time()?,
        agreed_at: row.opt_time()?,
        held_since: row.opt_time()?,
        held_ends: row.count()?,
    })
}
