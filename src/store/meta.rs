//! Single values of the cluster, by name.

use crate::store::{Transaction, error::Error};

/// Which cluster a store belongs to.
pub const CLUSTER_ID: &str = "cluster-id";

/// What tells which pepper its PINs were hashed with.
pub const PEPPER_MARK: &str = "pepper-mark";

/// The value under a key.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, key: &str) -> Result<Option<String>, Error> {
    tx.query_one("SELECT value FROM meta WHERE name = $1", &[key.into()])?
        .map(|mut row| row.text())
        .transpose()
}

/// Sets the value under a key.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, key: &str, value: &str) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[key.into(), value.into()],
    )?;
    Ok(())
}

/// Moves the number under a key on by one, from 0. Whoever remembers the last number sees that something has
/// changed without reading what.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn bump(tx: &mut dyn Transaction, key: &str) -> Result<(), Error> {
    let before = get(tx, key)?
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0);
    put(tx, key, &before.wrapping_add(1).to_string())
}
