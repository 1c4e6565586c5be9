//! The nodes of this cluster: one row each, which its owner moves on every two seconds.
//!
//! A row belongs to one run of a node. Who starts under a name takes the row over; a process that was stopped and wakes
//! finds that it has been replaced, and changes nothing. The row says nothing of whether its owner lives: each watcher
//! judges that by seeing the beat move, on its own monotonic time ([`crate::domain::liveness::Pulses`]).
//!
//! Whoever needs the nodes that live reads them from [`super::membership::Membership::living`], a watch channel that
//! moves when one comes, goes, or changes its addresses.

use crate::{
    clock::Timestamp,
    domain::liveness::Incarnation,
    store::{
        Transaction,
        error::Error,
        value::{Row, Value},
    },
};

/// A node as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who it is.
    pub run: Incarnation,
    /// Where peers should dial it: `host:port`, the best first. Empty when it listens on all addresses and nobody has
    /// said which of them others can reach.
    pub addresses: Vec<String>,
    /// Its software and version.
    pub software: String,
    /// When it was started, by its own clock.
    pub started_at: Timestamp,
    /// Moves on for as long as it lives.
    pub beat: i64,
}

/// What became of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// It counts.
    Kept,
    /// The row was removed, for example because its owner was taken for dead: it registers again.
    Gone,
    /// Another run stands under the name now, and the row is that one's.
    Replaced,
}

/// Puts a node on record, also over another run of the same name; which one that was.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn register(tx: &mut dyn Transaction, node: &Node) -> Result<Option<Incarnation>, Error> {
    let before = get(tx, &node.run.node)?
        .map(|before| before.run)
        .filter(|before| *before != node.run);
    tx.execute(
        "INSERT INTO nodes (name, instance, addresses, software, started_at, beat) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (name) DO UPDATE SET instance = excluded.instance, addresses = excluded.addresses, loaded_trust = NULL,
           software = excluded.software, started_at = excluded.started_at, beat = excluded.beat",
        &[
            (&node.run.node).into(),
            (&node.run.instance).into(),
            Value::json(&node.addresses)?,
            (&node.software).into(),
            node.started_at.into(),
            node.beat.into(),
        ],
    )?;
    Ok(before)
}

/// Moves the node's row on, if it is still that run's.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn beat(tx: &mut dyn Transaction, run: &Incarnation) -> Result<Beat, Error> {
    let moved = tx.execute(
        "UPDATE nodes SET beat = beat + 1 WHERE name = $1 AND instance = $2",
        &[(&run.node).into(), (&run.instance).into()],
    )?;
    if moved > 0 {
        return Ok(Beat::Kept);
    }
    Ok(match get(tx, &run.node)? {
        Some(_) => Beat::Replaced,
        None => Beat::Gone,
    })
}

/// Notes which revision of peers and trust a run has in force; whether it is still on record.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn set_loaded_trust(
    tx: &mut dyn Transaction,
    run: &Incarnation,
    revision: i64,
) -> Result<bool, Error> {
    let noted = tx.execute(
        "UPDATE nodes SET loaded_trust = $1 WHERE name = $2 AND instance = $3",
        &[revision.into(), (&run.node).into(), (&run.instance).into()],
    )?;
    Ok(noted > 0)
}

/// Which revision of peers and trust a run has noted as in force; none before the first, or when it is off the record.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn loaded_trust(tx: &mut dyn Transaction, run: &Incarnation) -> Result<Option<i64>, Error> {
    let noted = tx.query_one(
        "SELECT loaded_trust FROM nodes WHERE name = $1 AND instance = $2",
        &[(&run.node).into(), (&run.instance).into()],
    )?;
    noted.map_or(Ok(None), |mut row| row.opt_int())
}

/// The runs on record that do not have this revision of peers and trust in force, or a later one, by name. Whether they
/// live is for the caller to know.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn behind_trust(tx: &mut dyn Transaction, revision: i64) -> Result<Vec<Incarnation>, Error> {
    tx.query(
        "SELECT name, instance FROM nodes WHERE loaded_trust IS NULL OR loaded_trust < $1 ORDER BY name",
        &[revision.into()],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Incarnation {
            node: row.text()?,
            instance: row.text()?,
        })
    })
    .collect()
}

/// Takes the row of that run away; whether it was there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, run: &Incarnation) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM nodes WHERE name = $1 AND instance = $2",
        &[(&run.node).into(), (&run.instance).into()],
    )?;
    Ok(removed > 0)
}

/// Takes the row of a run away that was seen to stand still at this beat; not of one that has beaten since. Whether it
/// was there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove_silent(
    tx: &mut dyn Transaction,
    run: &Incarnation,
    beat: i64,
) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM nodes WHERE name = $1 AND instance = $2 AND beat = $3",
        &[(&run.node).into(), (&run.instance).into(), beat.into()],
    )?;
    Ok(removed > 0)
}

/// All nodes on record, whether they live or not, by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<Node>, Error> {
    tx.query(&format!("SELECT {COLUMNS} FROM nodes ORDER BY name"), &[])?
        .into_iter()
        .map(record)
        .collect()
}

/// The node of that name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, name: &str) -> Result<Option<Node>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM nodes WHERE name = $1"),
        &[name.into()],
    )?
    .map(record)
    .transpose()
}

const COLUMNS: &str = "name, instance, addresses, software, started_at, beat";

fn record(mut row: Row) -> Result<Node, Error> {
    Ok(Node {
        run: Incarnation {
            node: row.text()?,
            instance: row.text()?,
        },
        addresses: row.json()?,
        software: row.text()?,
        started_at: row.time()?,
        beat: row.int()?,
    })
}
