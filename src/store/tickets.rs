//! Home's one-time tickets: each stands in for a PIN that was right, for one user on one phone of one cluster.
//!
//! A login that reaches several nodes of its home is answered by each of them, with a ticket each, and only one of the
//! answers is used. So all tickets of one login are good, until one of them is used; those of a login before it are not.
//!
//! Only the hash of a ticket is here, so that nobody who reads the database can use one.

use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    domain::ids::{ClusterId, DeviceName, SessionId, UserId},
    secret,
    store::{Transaction, error::Error, value::fold},
};

/// What a ticket is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Setting a new PIN.
    ChangePin,
    /// Logging in with the profile that the user chose.
    ChooseProfile,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::ChangePin => "change-pin",
            Self::ChooseProfile => "choose-profile",
        }
    }
}

/// Who may use a ticket, where, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The cluster that asked; our own for a local login.
    pub caller: &'a ClusterId,
    /// The phone.
    pub device: &'a DeviceName,
    /// Whose PIN it stands in for.
    pub user: &'a UserId,
    /// What it is good for.
    pub purpose: Purpose,
}

/// What is stored of a ticket.
#[must_use]
pub fn hash_of(ticket: &secret::Ticket) -> [u8; 32] {
    Sha256::digest(ticket.bytes()).into()
}

/// How many tickets a holder has at most; beyond that the oldest are void. A login is sent to four connections at most.
const MOST: u32 = 8;

/// What a ticket is given out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// The first answer to a login: the tickets of earlier logins of the same holder are void with that.
    First(SessionId),
    /// Another answer to the same login. It may be one that was overtaken, so that it voids nothing.
    Again(SessionId),
}

impl Issue {
    const fn session(self) -> SessionId {
        match self {
            Self::First(id) | Self::Again(id) => id,
        }
    }
}

/// Gives a ticket out.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn issue(
    tx: &mut dyn Transaction,
    holder: Holder<'_>,
    why: Issue,
    hash: &[u8; 32],
    until: Timestamp,
) -> Result<(), Error> {
    if let Issue::First(_) = why {
        take_back(tx, holder)?;
    }
    tx.execute(
        "INSERT INTO tickets (caller, device_key, user_key, purpose, session_id, hash, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (caller, device_key, user_key, purpose, hash) DO UPDATE SET
           session_id = excluded.session_id, expires_at = excluded.expires_at",
        &[
            holder.caller.into(),
            fold(holder.device.as_str()).into(),
            fold(holder.user.as_str()).into(),
            holder.purpose.as_str().into(),
            why.session().into(),
            hash.into(),
            until.into(),
        ],
    )?;
    tx.execute(
        "DELETE FROM tickets WHERE caller = $1 AND device_key = $2 AND user_key = $3 AND purpose = $4
           AND hash NOT IN (
             SELECT hash FROM tickets WHERE caller = $1 AND device_key = $2 AND user_key = $3 AND purpose = $4
             ORDER BY expires_at DESC, hash LIMIT $5)",
        &[
            holder.caller.into(),
            fold(holder.device.as_str()).into(),
            fold(holder.user.as_str()).into(),
            holder.purpose.as_str().into(),
            MOST.into(),
        ],
    )?;
    Ok(())
}

/// All tickets of a holder.
fn take_back(tx: &mut dyn Transaction, holder: Holder<'_>) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM tickets WHERE caller = $1 AND device_key = $2 AND user_key = $3 AND purpose = $4",
        &[
            holder.caller.into(),
            fold(holder.device.as_str()).into(),
            fold(holder.user.as_str()).into(),
            holder.purpose.as_str().into(),
        ],
    )?;
    Ok(())
}

/// Takes a ticket back, once; whether it was good. With it go the others of the holder: they were given out for the
/// same login.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn redeem(
    tx: &mut dyn Transaction,
    holder: Holder<'_>,
    hash: &[u8; 32],
    now: Timestamp,
) -> Result<bool, Error> {
    let redeemed = tx.execute(
        "DELETE FROM tickets WHERE caller = $1 AND device_key = $2 AND user_key = $3 AND purpose = $4
           AND hash = $5 AND expires_at > $6",
        &[
            holder.caller.into(),
            fold(holder.device.as_str()).into(),
            fold(holder.user.as_str()).into(),
            holder.purpose.as_str().into(),
            hash.into(),
            now.into(),
        ],
    )?;
    if redeemed == 0 {
        return Ok(false);
    }
    take_back(tx, holder)?;
    Ok(true)
}

/// Takes back all tickets of a user: the PIN that they stand in for is no more.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn void(tx: &mut dyn Transaction, user: &UserId) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM tickets WHERE user_key = $1",
        &[fold(user.as_str()).into()],
    )?;
    Ok(())
}

/// Forgets what is no longer good, at most `limit`; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn purge(tx: &mut dyn Transaction, now: Timestamp, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM tickets WHERE (caller, device_key, user_key, purpose, hash) IN (
           SELECT caller, device_key, user_key, purpose, hash FROM tickets WHERE expires_at <= $1 LIMIT $2)",
        &[now.into(), limit.into()],
    )
}
