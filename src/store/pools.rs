//! Device pools: where a phone finds its call control.

use std::collections::BTreeMap;

use crate::{
    domain::{
        ids::{CallGroupName, DevicePoolName, GeolocationName},
        login::CallManager,
    },
    store::{
        Transaction, batch,
        error::Error,
        imports,
        value::{Row, Value},
    },
};

/// A device pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePool {
    /// Its name, unique.
    pub name: DevicePoolName,
    /// The place it is for: civic address fields by name; none where it has a name.
    pub geolocation: BTreeMap<String, String>,
    /// The same by the name of a geolocation.
    pub location: Option<GeolocationName>,
    /// Call-control servers of its own; none where it has a group.
    pub call_managers: Vec<CallManager>,
    /// The same by the name of a call-control group.
    pub call_group: Option<CallGroupName>,
    /// TFTP servers, first one first.
    pub tftp_servers: Vec<String>,
    /// Whether it may be chosen for a phone of another cluster.
    pub roaming: bool,
}

const COLUMNS: &str =
    "name, geolocation, location, call_managers, call_group, tftp_servers, roaming";

/// With what the names stand for in the place of the pool's own.
const WHOLE: &str = "SELECT p.name, COALESCE(l.fields, p.geolocation), p.location,
      COALESCE(g.members, p.call_managers), p.call_group, p.tftp_servers, p.roaming
    FROM device_pools p LEFT JOIN geolocations l ON l.name = p.location
    LEFT JOIN call_groups g ON g.name = p.call_group";

/// Adds a pool or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, pool: &DevicePool) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO device_pools (name, geolocation, location, call_managers, call_group, tftp_servers, roaming)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (name) DO UPDATE SET
           geolocation = excluded.geolocation, location = excluded.location,
           call_managers = excluded.call_managers, call_group = excluded.call_group,
           tftp_servers = excluded.tftp_servers, roaming = excluded.roaming",
        &[
            (&pool.name).into(),
            Value::json(&pool.geolocation)?,
            pool.location.as_ref().into(),
            Value::json(&pool.call_managers)?,
            pool.call_group.as_ref().into(),
            Value::json(&pool.tftp_servers)?,
            pool.roaming.into(),
        ],
    )?;
    imports::data_changed(tx)
}

/// The pool with this name, with the geolocation and the call-control servers that its names stand for.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, name: &DevicePoolName) -> Result<Option<DevicePool>, Error> {
    tx.query_one(&format!("{WHOLE} WHERE p.name = $1"), &[name.into()])?
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

/// The pools that may be chosen for a phone of another cluster, by name; each as [`get`] gives it.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn roaming(tx: &mut dyn Transaction) -> Result<Vec<DevicePool>, Error> {
    tx.query(&format!("{WHOLE} WHERE p.roaming = 1 ORDER BY p.name"), &[])?
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
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<DevicePool, Error> {
    Ok(DevicePool {
        name: row.parse()?,
        geolocation: row.json()?,
        location: row.opt_parse()?,
        call_managers: row.json()?,
        call_group: row.opt_parse()?,
        tftp_servers: row.json()?,
        roaming: row.flag()?,
    })
}
