//! Visiting's memory of what a phone was asked to choose from: whose home, which name, which profiles.
//!
//! It is found by the hash of the ticket that the phone brings back. Whether that ticket is good is home's to say.

use crate::{
    clock::Timestamp,
    domain::{
        ids::{ClusterId, DeviceName, LoginName, ProfileName},
        login::LoginType,
    },
    store::{
        Transaction,
        error::Error,
        value::{Value, fold},
    },
};

/// A choice that a phone shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The phone.
    pub device: DeviceName,
    /// Of the ticket that home gave with it.
    pub hash: [u8; 32],
    /// Who asked.
    pub home: ClusterId,
    /// What kind of name home knows the user by.
    pub login_type: LoginType,
    /// The name home knows the user by.
    pub login_name: LoginName,
    /// Whether that is what was typed, and not a part of it.
    pub as_typed: bool,
    /// What there is to choose from.
    pub profiles: Vec<ProfileName>,
    /// Until when it is of any use.
    pub expires_at: Timestamp,
}

/// Remembers what a phone shows now, in place of what it showed before.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, choice: &Choice) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO choices (device_key, hash, home, login_type, login_name, as_typed, profiles, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (device_key) DO UPDATE SET
           hash = excluded.hash, home = excluded.home, login_type = excluded.login_type,
           login_name = excluded.login_name, as_typed = excluded.as_typed,
           profiles = excluded.profiles, expires_at = excluded.expires_at",
        &[
            fold(choice.device.as_str()).into(),
            (&choice.hash).into(),
            (&choice.home).into(),
            choice.login_type.into(),
            (&choice.login_name).into(),
            choice.as_typed.into(),
            Value::json(&choice.profiles)?,
            choice.expires_at.into(),
        ],
    )?;
    Ok(())
}

/// What a phone was asked with this ticket, unless that is too long ago.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(
    tx: &mut dyn Transaction,
    device: &DeviceName,
    hash: &[u8; 32],
    now: Timestamp,
) -> Result<Option<Choice>, Error> {
    let row = tx.query_one(
        "SELECT home, login_type, login_name, as_typed, profiles, expires_at FROM choices
         WHERE device_key = $1 AND hash = $2 AND expires_at > $3",
        &[fold(device.as_str()).into(), hash.into(), now.into()],
    )?;
    row.map(|mut row| {
        Ok(Choice {
            device: device.clone(),
            hash: *hash,
            home: row.parse()?,
            login_type: row.parse()?,
            login_name: row.parse()?,
            as_typed: row.flag()?,
            profiles: row.json()?,
            expires_at: row.time()?,
        })
    })
    .transpose()
}

/// Forgets what is of no use any more, at most `limit`; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn purge(tx: &mut dyn Transaction, now: Timestamp, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM choices WHERE device_key IN (
           SELECT device_key FROM choices WHERE expires_at <= $1 LIMIT $2)",
        &[now.into(), limit.into()],
    )
}
