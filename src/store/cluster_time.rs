//! Cluster time on record: one row, which the holder of the claim [`Task::expiry`](super::claims::Task::expiry)
//! advances.
//!
//! Operations ask for it with [`Transaction::cluster_now`]: the row, and the monotonic time since this store first saw
//! that value.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock::{self, Clock, Timestamp},
    domain::{
        cluster_time::{Counting, Reading},
        liveness::SILENCE,
    },
    store::{
        Store, Transaction,
        claims::{self, Claim},
        error::Error,
        nodes,
    },
};

/// How often the holder of the claim advances what is on record.
pub const KEPT_EVERY: Duration = Duration::from_secs(2);
/// A record as old as this may be one that nobody advances any more.
const STALE: Duration = Duration::from_secs(4);
/// For how long a record stands still when nobody lives who would advance it: a silent holder is replaced within less.
const STILL: Duration = SILENCE.saturating_add(KEPT_EVERY);
/// How often a starting node looks whether the record moves.
const LOOK: Duration = Duration::from_millis(200);

/// What a store remembers of cluster time between transactions.
#[derive(Debug, Default)]
pub struct ClusterClock {
    counting: Mutex<Counting>,
    /// For a store that no node has been started on yet.
    wall: Clock,
}

impl ClusterClock {
    /// Cluster time at `now`, given what is on record; what the machine's clock says if nothing is.
    #[must_use]
    pub fn at(&self, recorded: Option<Timestamp>, now: Instant) -> Timestamp {
        let Some(recorded) = recorded else {
            return self.wall.now();
        };
        // No await and nothing that can fail goes on under this lock: what it holds is whole.
        self.counting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .now(recorded, now)
    }
}

/// What is on record; none before a node was started.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn reading(tx: &mut dyn Transaction) -> Result<Option<Reading>, Error> {
    tx.query_one("SELECT at, wall FROM cluster_time WHERE only = 1", &[])?
        .map(|mut row| {
            Ok(Reading {
                at: row.time()?,
                wall: row.time()?,
            })
        })
        .transpose()
}

/// Puts a reading on record; one that would go back changes nothing.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, reading: Reading) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO cluster_time (only, at, wall) VALUES (1, $1, $2)
         ON CONFLICT (only) DO UPDATE SET at = excluded.at, wall = excluded.wall WHERE excluded.at >= cluster_time.at",
        &[reading.at.into(), reading.wall.into()],
    )?;
    Ok(())
}

/// What must be added to cluster time to show it as wall time, in milliseconds.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn shift(tx: &mut dyn Transaction) -> Result<i64, Error> {
    let on_record = reading(tx)?;
    Ok(on_record.map_or(0, |on_record| {
        let wall = on_record.wall.as_millis();
        wall.saturating_sub(on_record.at.as_millis())
    }))
}

/// A moment of cluster time as people read it, by how it stands to wall time now.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn to_wall(tx: &mut dyn Transaction, at: Timestamp) -> Result<Timestamp, Error> {
    Ok(at.shifted(shift(tx)?))
}

/// Advances what is on record, under the claim to do so.
///
/// # Errors
/// [`Error::ClaimLost`] when another node does it now; [`Error`] when the store fails.
pub async fn keep(store: &Store, claim: &Claim, clock: &Clock) -> Result<(), Error> {
    let (claim, clock) = (claim.clone(), clock.clone());
    store
        .write(move |tx: &mut dyn Transaction| {
            claims::check(tx, &claim)?;
            let at = tx.cluster_now()?;
            put(
                tx,
                Reading {
                    at,
                    wall: clock.now(),
                },
            )
        })
        .await
}

/// Readies cluster time for a node that starts, before it serves anybody: begins it in a new store, and brings it across
/// a time in which no node counted. Wall clocks are asked for nothing else. Where another node is on record, one that
/// lives would advance it: that is waited for, for as long as a silent one would be replaced. Where it is `counted` until
/// now, by the process from which this one takes over, it only goes on.
///
/// # Errors
/// [`Error`] when the store fails.
pub async fn begin(store: &Store, node: &str, clock: &Clock, counted: bool) -> Result<(), Error> {
    let own = node.to_owned();
    let (before, is_alone) = store
        .read(move |tx: &mut dyn Transaction| {
            let others = nodes::all(tx)?
                .into_iter()
                .any(|other| other.run.node != own);
            let before = reading(tx)?;
            if before.is_some() {
                // Counted from here on, as below.
                tx.cluster_now()?;
            }
            Ok::<_, Error>((before, !others))
        })
        .await?;
    if let Some(before) = before {
        if counted {
            return Ok(());
        }
        // Alone, nobody has counted since: that a start takes a moment only would add up over many.
        if !is_alone && before.gap(clock.now()) <= STALE {
            return Ok(());
        }
        let began = clock::instant();
        while !is_alone && clock::since(began) < STILL {
            tokio::time::sleep(LOOK).await;
            if store.read(|tx: &mut dyn Transaction| reading(tx)).await? != Some(before) {
                return Ok(());
            }
        }
    }
    let clock = clock.clone();
    store
        .write(move |tx: &mut dyn Transaction| {
            // Another one that starts may have been faster.
            if reading(tx)? == before {
                let wall = clock.now();
                let next = match before {
                    None => Reading::first(wall),
                    Some(before) => before.after_gap(wall),
                };
                put(tx, next)?;
            }
            // Counted from here on: who began only when somebody asks would be behind by as long.
            tx.cluster_now().map(drop)
        })
        .await
}

#[cfg(test)]
mod tests;
