//! Cluster time on record: one row, which the holder of the claim [`Task::expiry`](super::claims::Task::expiry)
//! advances.
//!
//! Operations ask for it with [`Transaction::cluster_now`]: the row, and the monotonic time since this store first saw
//! that value.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{
    clock::{Clock, Timestamp},
    domain::cluster_time::{Counting, Reading},
    store::{Transaction, error::Error},
};

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
