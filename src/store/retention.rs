//! How long ended sessions and kept answers stay: long enough that no repeat of a request can find them gone.
//! Tickets and choices go as soon as their time is over.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    store::{
        Error, Store, Transaction, answers, choices,
        claims::{self, Claim},
        sessions, tickets,
    },
};

/// Tombstones and answers stay this long; tombstones longer where a peer has yet to acknowledge them.
pub const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Rows of one transaction: the writer is held for milliseconds.
const BATCH: u32 = 1_000;

/// Forgets what is older than [`KEPT`], and what is no longer good, in cluster time; how many rows. One node at a time
/// does it, and its claim says so with the wall time `now`.
///
/// # Errors
/// [`Error::ClaimLost`] when another node does it now; [`Error`] when the store fails; what was forgotten before stays forgotten.
pub async fn purge(store: &Store, claim: &Claim, now: Timestamp) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let claim = claim.clone();
        let gone = store
            .write(move |tx: &mut dyn Transaction| {
                let time = tx.cluster_now()?;
                let before = time.minus(KEPT);
                let gone = sessions::purge(tx, before, BATCH)?
                    + answers::purge(tx, before, BATCH)?
                    + tickets::purge(tx, time, BATCH)?
                    + choices::purge(tx, time, BATCH)?;
                if gone > 0 {
                    claims::effect(tx, &claim, &format!("forgot {gone} rows"), now)?;
                }
                Ok::<_, Error>(gone)
            })
            .await?;
        total += gone;
        if gone == 0 {
            return Ok(total);
        }
    }
}
