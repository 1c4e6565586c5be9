//! The sessions that we share with another cluster, as `SyncSessions` looks at them.
//!
//! Each function is told the counterpart and touches no row of another one.

use crate::{
    clock::Timestamp,
    domain::{
        agreement::{Buckets, Digest, Digests, Ours, Theirs},
        ids::{ClusterId, SessionId},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        Transaction,
        error::Error,
        sessions::{self, Session},
        value::Value,
    },
};

/// Rows that are in memory at a time.
pub const PAGE: u32 = 4_096;

/// What of a role lives, summed up.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn digest(tx: &mut dyn Transaction, role: Role, peer: &ClusterId) -> Result<Digest, Error> {
    let mut digest = Digest::default();
    let mut after = None;
    loop {
        let ids = living_ids(tx, role, peer, after)?;
        ids.iter().for_each(|id| digest.add(*id));
        match ids.last() {
            Some(last) => after = Some(*last),
            None => return Ok(digest),
        }
    }
}

/// What of both roles lives, summed up.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn digests(tx: &mut dyn Transaction, peer: &ClusterId) -> Result<Digests, Error> {
    Ok(Digests {
        home: digest(tx, Role::Home, peer)?,
        visiting: digest(tx, Role::Visiting, peer)?,
    })
}

/// When the oldest began, in cluster time, of what lives that we share with a cluster, by the ids: they begin with the
/// time that they were made at, so a wall clock that was set may make it a younger one. None where nothing lives.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn oldest(tx: &mut dyn Transaction, peer: &ClusterId) -> Result<Option<Timestamp>, Error> {
    let mut oldest = None;
    for role in [Role::Home, Role::Visiting] {
        let first = living_page(tx, role, peer, None, 1)?;
        oldest = oldest
            .into_iter()
            .chain(first.first().map(|ours| ours.changed_at))
            .min();
    }
    Ok(oldest)
}

/// Whether anything lives that we share with a cluster.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn is_any(tx: &mut dyn Transaction, peer: &ClusterId) -> Result<bool, Error> {
    let any = tx.query_one(
        "SELECT 1 FROM sessions WHERE counterpart = $1 AND state <> 'ended' LIMIT 1",
        &[peer.into()],
    )?;
    Ok(any.is_some())
}

/// A page of the rows that live, by their ids; empty when there are none behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn living_page(
    tx: &mut dyn Transaction,
    role: Role,
    peer: &ClusterId,
    after: Option<SessionId>,
    limit: u32,
) -> Result<Vec<Ours>, Error> {
    tx.query(
        "SELECT id, state, changed_at FROM sessions
         WHERE counterpart = $1 AND role = $2 AND state <> 'ended' AND id > $3 ORDER BY id LIMIT $4",
        &[peer.into(), role.into(), behind(after), limit.into()],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Ours {
            role,
            id: row.parse()?,
            state: row.parse()?,
            changed_at: row.time()?,
        })
    })
    .collect()
}

/// The next ids that live and are in these buckets, at most `limit`, and whether there may be more behind them.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn living_in(
    tx: &mut dyn Transaction,
    role: Role,
    peer: &ClusterId,
    buckets: &Buckets,
    mut after: Option<SessionId>,
    limit: usize,
) -> Result<(Vec<SessionId>, bool), Error> {
    let mut found = Vec::new();
    if buckets.is_empty() {
        return Ok((found, false));
    }
    loop {
        let page = living_ids(tx, role, peer, after)?;
        let Some(last) = page.last() else {
            return Ok((found, false));
        };
        after = Some(*last);
        for id in page.into_iter().filter(|id| buckets.has(*id)) {
            if found.len() == limit {
                return Ok((found, true));
            }
            found.push(id);
        }
    }
}

fn living_ids(
    tx: &mut dyn Transaction,
    role: Role,
    peer: &ClusterId,
    after: Option<SessionId>,
) -> Result<Vec<SessionId>, Error> {
    tx.query(
        "SELECT id FROM sessions
         WHERE counterpart = $1 AND role = $2 AND state <> 'ended' AND id > $3 ORDER BY id LIMIT $4",
        &[peer.into(), role.into(), behind(after), PAGE.into()],
    )?
    .into_iter()
    .map(|mut row| row.parse())
    .collect()
}

/// The order of ids is that of their texts; the empty one comes before all.
fn behind(after: Option<SessionId>) -> Value {
    after.map_or_else(|| Value::Text(String::new()), Value::from)
}

/// How these stand here, in their order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn standing_of(
    tx: &mut dyn Transaction,
    role: Role,
    peer: &ClusterId,
    ids: &[SessionId],
) -> Result<Vec<Theirs>, Error> {
    let mut standing = Vec::with_capacity(ids.len());
    for id in ids {
        let row = tx.query_one(
            "SELECT state, end_reason FROM sessions WHERE role = $1 AND counterpart = $2 AND id = $3",
            &[role.into(), peer.into(), (*id).into()],
        )?;
        standing.push(match row {
            None => Theirs::Lacks,
            Some(mut row) => match row.parse()? {
                State::Ended => Theirs::Ended(row.opt_parse()?.unwrap_or(EndReason::Abandoned)),
                State::Pending | State::Active | State::Ending => Theirs::Living,
            },
        });
    }
    Ok(standing)
}

/// Ends a row as the other side knows it to be; the row as it was, if this ended it. Nobody is owed the news. A login
/// under way is left alone.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn end_as_told(
    tx: &mut dyn Transaction,
    ours: &Ours,
    peer: &ClusterId,
    reason: EndReason,
    initiator: Initiator,
    now: Timestamp,
) -> Result<Option<Session>, Error> {
    let before = sessions::get(tx, ours.role, peer, ours.id)?;
    let ended = sessions::transition(
        tx,
        ours.role,
        peer,
        ours.id,
        &[State::Active, State::Ending],
        State::Ended,
        Some((reason, initiator, now)),
        false,
    )?;
    Ok(before.filter(|_| ended))
}
