//! Home's one-time tickets: each stands in for a PIN that was right, for one user on one phone of one cluster.
//!
//! Only the hash of a ticket is here, so that nobody who reads the database can use one.

use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    domain::ids::{ClusterId, DeviceName, UserId},
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

/// Gives a ticket out; an earlier one of the same holder is void with that.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn issue(
    tx: &mut dyn Transaction,
    holder: Holder<'_>,
    hash: &[u8; 32],
    until: Timestamp,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO tickets (caller, device_key, user_key, purpose, hash, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (caller, device_key, user_key, purpose) DO UPDATE SET
           hash = excluded.hash, expires_at = excluded.expires_at",
        &[
            holder.caller.into(),
            fold(holder.device.as_str()).into(),
            fold(holder.user.as_str()).into(),
            holder.purpose.as_str().into(),
            hash.into(),
            until.into(),
        ],
    )?;
    Ok(())
}

/// Takes a ticket back, once; whether it was good.
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
    Ok(redeemed > 0)
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
        "DELETE FROM tickets WHERE (caller, device_key, user_key, purpose) IN (
           SELECT caller, device_key, user_key, purpose FROM tickets WHERE expires_at <= $1 LIMIT $2)",
        &[now.into(), limit.into()],
    )
}
