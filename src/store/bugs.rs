//! What a buggy product would do to sessions, for [`crate::fault::Bug`]: see there.

use crate::{
    domain::ids::{ClusterId, SessionId},
    store::{Transaction, error::Error},
};

/// A pending session that has ended is pending again.
pub(crate) fn reopen(
    tx: &mut dyn Transaction,
    home: &ClusterId,
    id: SessionId,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE sessions SET state = 'pending', ended_at = NULL, end_reason = NULL, initiator = NULL, owed = 0,
           parked = NULL, parked_at = NULL
         WHERE counterpart = $1 AND id = $2 AND role = 'visiting' AND state = 'ended'",
        &[home.into(), id.into()],
    )
    .map(drop)
}

/// Nothing is known any more of a session that has ended.
pub(crate) fn forget_ended(
    tx: &mut dyn Transaction,
    caller: &ClusterId,
    id: SessionId,
) -> Result<(), Error> {
    let forgotten = tx.execute(
        "DELETE FROM sessions WHERE counterpart = $1 AND id = $2 AND role = 'home' AND state = 'ended'",
        &[caller.into(), id.into()],
    )?;
    if forgotten > 0 {
        tx.execute(
            "DELETE FROM answers WHERE counterpart = $1 AND id = $2",
            &[caller.into(), id.into()],
        )?;
    }
    Ok(())
}
