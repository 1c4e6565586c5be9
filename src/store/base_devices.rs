//! The pool of EMCC base devices. Who holds one is not stored here: the home session that is active has its
//! name, and a unique index lets it be one session only.

use crate::{
    domain::ids::{BaseDeviceName, SessionId},
    store::{Transaction, error::Error, value::fold},
};

const HOLDER: &str = "s.role = 'home' AND s.state = 'active' AND s.base_device IS NOT NULL AND lower(s.base_device) = b.base_device_key";

/// Adds a base device; one with the same name stays as it is.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, name: &BaseDeviceName) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO base_devices (base_device_key, name) VALUES ($1, $2)
         ON CONFLICT (base_device_key) DO NOTHING",
        &[fold(name.as_str()).into(), name.into()],
    )?;
    Ok(())
}

/// All base devices by name, each with the session that holds it.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<(BaseDeviceName, Option<SessionId>)>, Error> {
    tx.query(
        &format!(
            "SELECT b.name, s.id FROM base_devices b LEFT JOIN sessions s ON {HOLDER}
             ORDER BY b.base_device_key"
        ),
        &[],
    )?
    .into_iter()
    .map(|mut row| Ok((row.parse()?, row.opt_parse()?)))
    .collect()
}

/// The first base device, by name, that no active session holds.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn first_free(tx: &mut dyn Transaction) -> Result<Option<BaseDeviceName>, Error> {
    tx.query_one(
        &format!(
            "SELECT b.name FROM base_devices b
             WHERE NOT EXISTS (SELECT 1 FROM sessions s WHERE {HOLDER})
             ORDER BY b.base_device_key LIMIT 1"
        ),
        &[],
    )?
    .map(|mut row| row.parse())
    .transpose()
}

/// Removes a base device; whether there was one. A session that holds it keeps its name until it ends.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &BaseDeviceName) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM base_devices WHERE base_device_key = $1",
        &[fold(name.as_str()).into()],
    )?;
    Ok(removed > 0)
}
