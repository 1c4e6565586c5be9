//! What of the sessions, and of other records, stands in the way of removing a record.

use crate::store::{Transaction, error::Error, value::Row};

/// The users of ours who are logged in somewhere: their IDs in lower case.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn users(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
    tx.query(
        "SELECT DISTINCT user_key FROM sessions
         WHERE role = 'home' AND state = 'active' AND user_key IS NOT NULL ORDER BY user_key",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| row.text())
    .collect()
}

/// The phones of ours with somebody on them: their names in lower case.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn devices(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
    tx.query(
        "SELECT DISTINCT lower(device) FROM sessions
         WHERE role = 'visiting' AND state IN ('pending', 'active', 'ending')",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| row.text())
    .collect()
}

/// The peers with whom a session lives, or who are still to be told of an end.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn peers(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
    tx.query(
        "SELECT DISTINCT counterpart FROM sessions WHERE state <> 'ended' OR owed = 1",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| row.text())
    .collect()
}

/// Devices and profiles in a device pool that there is not: the kind, the name and the pool of some of them.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn without_pool(tx: &mut dyn Transaction) -> Result<Vec<(String, String, String)>, Error> {
    tx.query(
        "SELECT 'device', name, device_pool FROM devices
         WHERE device_pool IS NOT NULL AND device_pool NOT IN (SELECT name FROM device_pools)
         UNION ALL
         SELECT 'profile', name, device_pool FROM profiles
         WHERE device_pool IS NOT NULL AND device_pool NOT IN (SELECT name FROM device_pools)
         LIMIT 100",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| Ok((row.text()?, row.text()?, row.text()?)))
    .collect()
}
