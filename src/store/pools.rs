//! Device pools: where a phone finds its call control.

use std::collections::BTreeMap;

use crate::{
    domain::{ids::DevicePoolName, login::CallManager},
    store::{
        Transaction, batch,
        error::Error,
        value::{Row, Value},
    },
};

/// A device pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePool {
    /// Its name, unique.
    pub name: DevicePoolName,
    /// The place it is for: civic address fields by name.
    pub geolocation: BTreeMap<String, String>,
    /// Call-control group, in order of priority.
    pub call_managers: Vec<CallManager>,
    /// TFTP servers, first one first.
    pub tftp_servers: Vec<String>,
    /// Whether it may be chosen for a phone of another cluster.
    pub roaming: bool,
}

const COLUMNS: &str = "name, geolocation, call_managers, tftp_servers, roaming";

/// Adds a pool or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, pool: &DevicePool) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO device_pools (name, geolocation, call_managers, tftp_servers, roaming)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name) DO UPDATE SET
           geolocation = excluded.geolocation, call_managers = excluded.call_managers,
           tftp_servers = excluded.tftp_servers, roaming = excluded.roaming",
        &[
            (&pool.name).into(),
            Value::json(&pool.geolocation)?,
            Value::json(&pool.call_managers)?,
            Value::json(&pool.tftp_servers)?,
            pool.roaming.into(),
        ],
    )?;
    Ok(())
}

/// The pool with this name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, name: &DevicePoolName) -> Result<Option<DevicePool>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM device_pools WHERE name = $1"),
        &[name.into()],
    )?
    .map(record)
    .transpose()
}

/// The pools whose names are among `names`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, names: &[String]) -> Result<Vec<DevicePool>, Error> {
    let select = format!("SELECT {COLUMNS} FROM device_pools");
    batch::among(tx, &select, "name", names, record)
}

/// At most `limit` pools by name, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<DevicePool>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM device_pools WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// All pools by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<DevicePool>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM device_pools ORDER BY name"),
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// The pools that may be chosen for a phone of another cluster, by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn roaming(tx: &mut dyn Transaction) -> Result<Vec<DevicePool>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM device_pools WHERE roaming = 1 ORDER BY name"),
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a pool; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &DevicePoolName) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM device_pools WHERE name = $1", &[name.into()])?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<DevicePool, Error> {
    Ok(DevicePool {
        name: row.parse()?,
        geolocation: row.json()?,
        call_managers: row.json()?,
        tftp_servers: row.json()?,
        roaming: row.flag()?,
    })
}
