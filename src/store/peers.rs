//! Peers: the clusters we federate with.

use crate::{
    domain::ids::ClusterId,
    store::{
        Transaction,
        error::Error,
        meta,
        value::{Row, Value},
    },
};

/// A cluster record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Whether we talk to it.
    pub enabled: bool,
    /// Whether its phones may carry our users.
    pub allow_emcc: bool,
    /// Where it listens: `host:port` each.
    pub addresses: Vec<String>,
    /// Names its certificates may carry under an anchor.
    pub node_names: Vec<String>,
    /// Patterns of user IDs it may claim alone.
    pub user_patterns: Vec<String>,
    /// Patterns of extensions it may claim alone.
    pub dn_patterns: Vec<String>,
    /// Whether its certificates' extended key usage is disregarded.
    pub ignore_eku: bool,
    /// For people.
    pub description: String,
}

const COLUMNS: &str = "cluster_id, enabled, allow_emcc, addresses, node_names, user_patterns, dn_patterns, ignore_eku, description";

/// Where the number stands that moves with every change of peers and of what is trusted.
pub const REVISION: &str = "peers-revision";

/// Adds a peer or replaces the one with the same cluster ID.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, peer: &Peer) -> Result<(), Error> {
    meta::bump(tx, REVISION)?;
    tx.execute(
        "INSERT INTO peers (cluster_id, enabled, allow_emcc, addresses, node_names, user_patterns, dn_patterns, ignore_eku, description)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (cluster_id) DO UPDATE SET
           enabled = excluded.enabled, allow_emcc = excluded.allow_emcc, addresses = excluded.addresses,
           node_names = excluded.node_names, user_patterns = excluded.user_patterns,
           dn_patterns = excluded.dn_patterns, ignore_eku = excluded.ignore_eku,
           description = excluded.description",
        &[
            (&peer.cluster_id).into(),
            peer.enabled.into(),
            peer.allow_emcc.into(),
            Value::json(&peer.addresses)?,
            Value::json(&peer.node_names)?,
            Value::json(&peer.user_patterns)?,
            Value::json(&peer.dn_patterns)?,
            peer.ignore_eku.into(),
            (&peer.description).into(),
        ],
    )?;
    Ok(())
}

/// The peer with this cluster ID.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<Option<Peer>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM peers WHERE cluster_id = $1"),
        &[cluster_id.into()],
    )?
    .map(record)
    .transpose()
}

/// All peers by cluster ID.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<Peer>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM peers ORDER BY cluster_id"),
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a peer; whether there was one. Its trust entries and sessions are left to the caller.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<bool, Error> {
    meta::bump(tx, REVISION)?;
    let removed = tx.execute(
        "DELETE FROM peers WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<Peer, Error> {
    Ok(Peer {
        cluster_id: row.parse()?,
        enabled: row.flag()?,
        allow_emcc: row.flag()?,
        addresses: row.json()?,
        node_names: row.json()?,
        user_patterns: row.json()?,
        dn_patterns: row.json()?,
        ignore_eku: row.flag()?,
        description: row.text()?,
    })
}
