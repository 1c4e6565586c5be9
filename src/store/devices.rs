//! Our phones.

use std::collections::BTreeMap;

use crate::{
    domain::{
        ids::{DeviceName, DevicePoolName, GeolocationName, ServiceName},
        login::SecurityMode,
    },
    store::{
        Transaction, batch,
        error::Error,
        imports,
        value::{Row, Value, fold},
    },
};

/// A phone of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name; unique, whatever its case.
    pub name: DeviceName,
    /// Its model.
    pub model: String,
    /// `SIP` or `SCCP`.
    pub protocol: String,
    /// Whether its signalling is secure.
    pub security_mode: SecurityMode,
    /// Whether its model can carry users of other clusters.
    pub emcc: bool,
    /// Whether users may log in on it.
    pub em_enabled: bool,
    /// Its device pool.
    pub device_pool: Option<DevicePoolName>,
    /// Its locale; none when that is not known.
    pub locale: Option<String>,
    /// Where it stands: civic address fields by name; none where that has a name.
    pub geolocation: BTreeMap<String, String>,
    /// The same by the name of a geolocation.
    pub location: Option<GeolocationName>,
    /// The phone services that it is subscribed to while nobody is logged in, in order.
    pub services: Vec<ServiceName>,
}

const COLUMNS: &str = "name, model, protocol, security_mode, emcc, em_enabled, device_pool, locale, geolocation, \
                       location, services";

const INTO: &str = "INSERT INTO devices (device_key, name, model, protocol, security_mode, emcc, em_enabled, device_pool, locale, geolocation,
           location, services)";
const REPLACE: &str = "ON CONFLICT (device_key) DO UPDATE SET
           name = excluded.name, model = excluded.model, protocol = excluded.protocol,
           security_mode = excluded.security_mode, emcc = excluded.emcc, em_enabled = excluded.em_enabled,
           device_pool = excluded.device_pool, locale = excluded.locale, geolocation = excluded.geolocation,
           location = excluded.location, services = excluded.services";

/// The values of its row, the key first.
///
/// # Errors
/// [`Error::Unencodable`] when it has no JSON form.
pub fn values(device: &Device) -> Result<Vec<Value>, Error> {
    Ok(vec![
        fold(device.name.as_str()).into(),
        (&device.name).into(),
        (&device.model).into(),
        (&device.protocol).into(),
        (device.security_mode == SecurityMode::Secure).into(),
        device.emcc.into(),
        device.em_enabled.into(),
        device.device_pool.as_ref().into(),
        device.locale.as_ref().into(),
        Value::json(&device.geolocation)?,
        device.location.as_ref().into(),
        Value::json(&device.services)?,
    ])
}

/// Adds a device or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, device: &Device) -> Result<(), Error> {
    let sql =
        format!("{INTO} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) {REPLACE}");
    tx.execute(&sql, &values(device)?)?;
    imports::data_changed(tx)
}

/// Puts those of an import in place.
///
/// # Errors
/// As [`upsert`].
pub fn put_waiting(tx: &mut dyn Transaction, import: i64) -> Result<(), Error> {
    imports::put(
        tx,
        import,
        "device",
        [
            INTO,
            "c1, c2, c3, CAST(c4 AS INTEGER), CAST(c5 AS INTEGER), CAST(c6 AS INTEGER), c7, c8, c9, c10, c11",
            REPLACE,
        ],
    )
}

/// The device with this name, whatever its case, with the geolocation that its name stands for.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, name: &DeviceName) -> Result<Option<Device>, Error> {
    tx.query_one(
        "SELECT d.name, d.model, d.protocol, d.security_mode, d.emcc, d.em_enabled, d.device_pool, d.locale,
           COALESCE(l.fields, d.geolocation), d.location, d.services
         FROM devices d LEFT JOIN geolocations l ON l.name = d.location WHERE d.device_key = $1",
        &[fold(name.as_str()).into()],
    )?
    .map(record)
    .transpose()
}

/// At most `limit` devices in order of their names, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(
    tx: &mut dyn Transaction,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Device>, Error> {
    tx.query(
        &format!(
            "SELECT {COLUMNS} FROM devices WHERE device_key > $1 ORDER BY device_key LIMIT $2"
        ),
        &[fold(after.unwrap_or_default()).into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// The devices whose names, in lower case, are among `keys`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Device>, Error> {
    let select = format!("SELECT {COLUMNS} FROM devices");
    batch::among(tx, &select, "device_key", keys, record)
}

/// Removes a device; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &DeviceName) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM devices WHERE device_key = $1",
        &[fold(name.as_str()).into()],
    )?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<Device, Error> {
    Ok(Device {
        name: row.parse()?,
        model: row.text()?,
        protocol: row.text()?,
        security_mode: if row.flag()? {
            SecurityMode::Secure
        } else {
            SecurityMode::NonSecure
        },
        emcc: row.flag()?,
        em_enabled: row.flag()?,
        device_pool: row.opt_parse()?,
        locale: row.opt_text()?,
        geolocation: row.json()?,
        location: row.opt_parse()?,
        services: row.json()?,
    })
}
