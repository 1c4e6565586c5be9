//! How many there are of what an operator watches. Each count goes over an index of living rows alone.

use crate::{
    domain::{
        agreement::still_held,
        ids::ClusterId,
        session::{Role, State},
    },
    store::{Transaction, agreements, error::Error},
};

/// How many sessions live, and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions by role, by state, and by whether another cluster takes part; also those of which there are none.
    pub sessions: Vec<(Role, State, bool, i64)>,
    /// Ends that other clusters are still to be told of.
    pub owed: i64,
    /// Those of them that they refuse to hear of.
    pub parked: i64,
    /// Of each peer with which a mass end is held back, how many ends that is.
    pub held_back: Vec<(ClusterId, u32)>,
    /// Base devices.
    pub base_devices: i64,
    /// Those of them that a session holds.
    pub held: i64,
}

/// The states that live, by role.
const KINDS: [(Role, State); 3] = [
    (Role::Home, State::Active),
    (Role::Visiting, State::Pending),
    (Role::Visiting, State::Active),
];

/// Counts them. `own` is our own cluster.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn living(tx: &mut dyn Transaction, own: &ClusterId) -> Result<Counts, Error> {
    let mut sessions: Vec<_> = KINDS
        .iter()
        .flat_map(|&(role, state)| [false, true].map(|is_remote| (role, state, is_remote, 0)))
        .collect();
    // The states of the index, in its words.
    let rows = tx.query(
        "SELECT role, state, CASE WHEN counterpart = $1 THEN 0 ELSE 1 END AS remote, COUNT(*) FROM sessions
         WHERE state IN ('pending', 'active') GROUP BY role, state, remote",
        &[own.as_str().into()],
    )?;
    for mut row in rows {
        let kind = (row.parse::<Role>()?, row.parse::<State>()?, row.int()? != 0);
        let count = row.int()?;
        match sessions
            .iter_mut()
            .find(|(r, s, remote, _)| (*r, *s, *remote) == kind)
        {
            Some((_, _, _, known)) => *known = count,
            None => sessions.push((kind.0, kind.1, kind.2, count)),
        }
    }
    let now = tx.cluster_now()?;
    Ok(Counts {
        sessions,
        owed: one(tx, "SELECT COUNT(*) FROM sessions WHERE owed = 1")?,
        parked: one(tx, "SELECT COUNT(parked) FROM sessions WHERE owed = 1")?,
        held_back: agreements::all(tx)?
            .into_iter()
            .filter(|(_, agreement)| still_held(agreement.held_since, now).is_some())
            .map(|(peer, agreement)| (peer, agreement.held_ends))
            .collect(),
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
