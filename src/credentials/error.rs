//! What can go wrong with a PIN besides being wrong.

use std::time::Duration;

/// Why a PIN could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too much is waiting; try again later.
    #[error("PIN checks are busy")]
    Busy {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The hash settings are impossible: the operator must fix them.
    #[error("argon2id refuses the parameters")]
    Settings(#[source] argon2::Error),
    /// What the store holds for this user can't be checked: the operator must set the PIN anew.
    #[error("the stored PIN hash can't be used: {0}")]
    Stored(String),
    /// The node is shutting down.
    #[error("PIN checks have stopped")]
    Stopped,
}
