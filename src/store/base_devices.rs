//! The pool of EMCC base devices. Who holds one is not stored here: the home session that is active has its
//! name, and a unique index lets it be one session only.

use crate::{
    domain::ids::{BaseDeviceName, SessionId},
    store::{
        Transaction, batch,
        error::Error,
        imports, meta,
        value::{Value, fold},
    },
};

// The `|| ''` takes the column's affinity away: compared with a bare column of another affinity, the expression
// in sessions_one_per_base_device is not looked up, and every session is read instead.
const HOLDER: &str = "s.role = 'home' AND s.state = 'active' AND s.base_device IS NOT NULL AND lower(s.base_device) = (b.base_device_key || '')";

/// Where the name that was given out last stands, so that the search for the next one does not pass all that
/// are held.
const LAST: &str = "base_devices.last";

const INTO: &str = "INSERT INTO base_devices (base_device_key, name)";
const KEEP: &str = "ON CONFLICT (base_device_key) DO NOTHING";

/// The values of its row, the key first.
#[must_use]
pub fn values(name: &BaseDeviceName) -> Vec<Value> {
    vec![fold(name.as_str()).into(), name.into()]
}

/// Adds a base device; one with the same name stays as it is.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, name: &BaseDeviceName) -> Result<(), Error> {
    tx.execute(&format!("{INTO} VALUES ($1, $2) {KEEP}"), &values(name))?;
    imports::data_changed(tx)
}

/// Puts those of an import in place.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put_waiting(tx: &mut dyn Transaction, import: i64) -> Result<(), Error> {
    imports::put(tx, import, "base-device", [INTO, "c1", KEEP])
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

/// The base devices whose names, in lower case, are among `keys`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<BaseDeviceName>, Error> {
    let select = "SELECT name FROM base_devices";
    batch::among(tx, select, "base_device_key", keys, |mut row| row.parse())
}

/// At most `limit` base devices in order of their names, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(
    tx: &mut dyn Transaction,
    after: &str,
    limit: u32,
) -> Result<Vec<BaseDeviceName>, Error> {
    tx.query(
        "SELECT name FROM base_devices WHERE base_device_key > $1 ORDER BY base_device_key LIMIT $2",
        &[fold(after).into(), limit.into()],
    )?
    .into_iter()
    .map(|mut row| row.parse())
    .collect()
}

/// A base device that no active session holds: the next one by name after the one given out last, and from the
/// front again behind the end. It is held once an active session has its name, which the caller sees to in the
/// same transaction.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn next_free(tx: &mut dyn Transaction) -> Result<Option<BaseDeviceName>, Error> {
    let last = meta::get(tx, LAST)?.unwrap_or_default();
    for part in [">", "<="] {
        let found = tx.query_one(
            &format!(
                "SELECT b.name FROM base_devices b
                 WHERE b.base_device_key {part} $1 AND NOT EXISTS (SELECT 1 FROM sessions s WHERE {HOLDER})
                 ORDER BY b.base_device_key LIMIT 1"
            ),
            &[last.as_str().into()],
        )?;
        if let Some(mut row) = found {
            let name: BaseDeviceName = row.parse()?;
            meta::put(tx, LAST, &fold(name.as_str()))?;
            return Ok(Some(name));
        }
    }
    Ok(None)
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
    imports::data_changed(tx)?;
    Ok(removed > 0)
}
