//! Geolocations: places that phones and device pools name.

use std::collections::BTreeMap;

use crate::{
    domain::ids::GeolocationName,
    store::{
        Transaction, batch,
        error::Error,
        imports,
        value::{Row, Value},
    },
};

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geolocation {
    /// Its name, unique.
    pub name: GeolocationName,
    /// Civic address fields by name.
    pub fields: BTreeMap<String, String>,
}

const COLUMNS: &str = "name, fields";

/// Adds a geolocation or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, place: &Geolocation) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO geolocations (name, fields) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET fields = excluded.fields",
        &[(&place.name).into(), Value::json(&place.fields)?],
    )?;
    imports::data_changed(tx)
}

/// The geolocations whose names are among `names`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, names: &[String]) -> Result<Vec<Geolocation>, Error> {
    let select = format!("SELECT {COLUMNS} FROM geolocations");
    batch::among(tx, &select, "name", names, record)
}

/// At most `limit` geolocations by name, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Geolocation>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM geolocations WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a geolocation; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM geolocations WHERE name = $1", &[name.into()])?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<Geolocation, Error> {
    Ok(Geolocation {
        name: row.parse()?,
        fields: row.json()?,
    })
}
