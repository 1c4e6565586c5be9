//! Ends of sessions that another cluster has still to acknowledge, beyond their delivery: those that it refuses to hear
//! of are parked with its reason, tried again when there is a reason to, and forgotten where an operator says so.
//!
//! The debt itself is in the session's row (see [`sessions`]); it is parked there too, so that it outlives the node.

use crate::{
    clock::Timestamp,
    domain::{
        ids::{ClusterId, SessionId},
        session::Role,
    },
    store::{Transaction, error::Error, sessions::Debt},
};

/// The longest cause that is kept, in characters: it comes from another cluster.
const LONGEST_CAUSE: usize = 500;

/// What a cluster is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Who.
    pub counterpart: ClusterId,
    /// How many ends.
    pub ends: u64,
    /// How many of them it refuses to hear of.
    pub parked: u64,
    /// When the newest of them happened, in cluster time.
    pub newest: Option<Timestamp>,
}

/// The clusters that have not acknowledged all ends.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn creditors(tx: &mut dyn Transaction) -> Result<Vec<Owed>, Error> {
    tx.query(
        "SELECT counterpart, count(*), count(parked), max(changed_at) FROM sessions s WHERE owed = 1
         GROUP BY counterpart ORDER BY counterpart",
        &[],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Owed {
            counterpart: row.parse()?,
            ends: u64::try_from(row.int()?).unwrap_or(0),
            parked: u64::try_from(row.int()?).unwrap_or(0),
            newest: row.opt_time()?,
        })
    })
    .collect()
}

/// Ends that a cluster has not acknowledged and does not refuse, of both roles, in the order they happened.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn to_tell(
    tx: &mut dyn Transaction,
    counterpart: &ClusterId,
    limit: u32,
) -> Result<Vec<Debt>, Error> {
    tx.query(
        "SELECT role, id, reference, end_reason FROM sessions
         WHERE owed = 1 AND counterpart = $1 AND parked IS NULL ORDER BY changed_at, id LIMIT $2",
        &[counterpart.into(), limit.into()],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Debt {
            role: row.parse()?,
            id: row.parse()?,
            reference: row.parse()?,
            reason: row.opt_parse()?,
        })
    })
    .collect()
}

/// How many ends a cluster refuses to hear of.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn parked_of(tx: &mut dyn Transaction, counterpart: &ClusterId) -> Result<u64, Error> {
    let row = tx.query_one(
        "SELECT count(*) FROM sessions WHERE owed = 1 AND counterpart = $1 AND parked IS NOT NULL",
        &[counterpart.into()],
    )?;
    let count = row.map(|mut row| row.int()).transpose()?.unwrap_or(0);
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Sets an end aside that the counterpart refuses to hear of; whether it was owed.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn park(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
    cause: &str,
    at: Timestamp,
) -> Result<bool, Error> {
    let cause: String = cause.chars().take(LONGEST_CAUSE).collect();
    let parked = tx.execute(
        "UPDATE sessions SET parked = $1, parked_at = $2
         WHERE role = $3 AND counterpart = $4 AND id = $5 AND owed = 1",
        &[
            cause.as_str().into(),
            at.into(),
            role.into(),
            counterpart.into(),
            id.into(),
        ],
    )?;
    Ok(parked > 0)
}

/// Has everything tried again that a cluster refused; how much.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn unpark_all(tx: &mut dyn Transaction, counterpart: &ClusterId) -> Result<u64, Error> {
    tx.execute(
        "UPDATE sessions SET parked = NULL, parked_at = NULL
         WHERE owed = 1 AND counterpart = $1 AND parked IS NOT NULL",
        &[counterpart.into()],
    )
}

/// Has one end tried again; whether it was parked.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn unpark(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
) -> Result<bool, Error> {
    let unparked = tx.execute(
        "UPDATE sessions SET parked = NULL, parked_at = NULL
         WHERE role = $1 AND counterpart = $2 AND id = $3 AND parked IS NOT NULL",
        &[role.into(), counterpart.into(), id.into()],
    )?;
    Ok(unparked > 0)
}

/// Forgets that the counterpart has still to be told of an end; whether it had.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
) -> Result<bool, Error> {
    let forgotten = tx.execute(
        "UPDATE sessions SET owed = 0, parked = NULL, parked_at = NULL
         WHERE role = $1 AND counterpart = $2 AND id = $3 AND owed = 1",
        &[role.into(), counterpart.into(), id.into()],
    )?;
    Ok(forgotten > 0)
}

/// Whether no certificate is accepted from a cluster, as pinned or by an authority.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn is_distrusted(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<bool, Error> {
    let found = tx.query(
        "SELECT 1 FROM trust_entries WHERE cluster_id = $1 LIMIT 1",
        &[cluster.into()],
    )?;
    Ok(found.is_empty())
}

/// Peers that share living sessions with us and of which no certificate is accepted any more.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn distrusted(tx: &mut dyn Transaction) -> Result<Vec<ClusterId>, Error> {
    tx.query(
        "SELECT p.cluster_id FROM peers p
         WHERE NOT EXISTS (SELECT 1 FROM trust_entries t WHERE t.cluster_id = p.cluster_id)
           AND EXISTS (SELECT 1 FROM sessions s WHERE s.counterpart = p.cluster_id AND s.state <> 'ended')
         ORDER BY p.cluster_id",
        &[],
    )?
    .into_iter()
    .map(|mut row| row.parse())
    .collect()
}
