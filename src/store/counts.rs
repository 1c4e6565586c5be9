//! How many there are of what an operator watches. Each count goes over an index of living rows alone.

use crate::{
    domain::{
        ids::ClusterId,
        session::{Role, State},
    },
    store::{Transaction, error::Error},
};

/// How many sessions live, and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions by role, by state, and by whether another cluster takes part.
    pub sessions: Vec<(Role, State, bool, i64)>,
    /// Ends that other clusters are still to be told of.
    pub owed: i64,
    /// Base devices.
    pub base_devices: i64,
    /// Those of them that a session holds.
    pub held: i64,
}

/// Counts them. `own` is our own cluster.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn living(tx: &mut dyn Transaction, own: &ClusterId) -> Result<Counts, Error> {
    let mut sessions = Vec::new();
    // The states of the index, in its words.
    let rows = tx.query(
        "SELECT role, state, CASE WHEN counterpart = $1 THEN 0 ELSE 1 END AS remote, COUNT(*) FROM sessions
         WHERE state IN ('pending', 'active') GROUP BY role, state, remote",
        &[own.as_str().into()],
    )?;
    for mut row in rows {
        sessions.push((row.parse()?, row.parse()?, row.int()? != 0, row.int()?));
    }
    Ok(Counts {
        sessions,
        owed: one(tx, "SELECT COUNT(*) FROM sessions WHERE owed = 1")?,
        base_devices: one(tx, "SELECT COUNT(*) FROM base_devices")?,
        held: one(
            tx,
            "SELECT COUNT(*) FROM sessions
             WHERE role = 'home' AND state = 'active' AND base_device IS NOT NULL",
        )?,
    })
}

fn one(tx: &mut dyn Transaction, sql: &str) -> Result<i64, Error> {
    match tx.query_one(sql, &[])? {
        Some(mut row) => row.int(),
        None => Ok(0),
    }
}
