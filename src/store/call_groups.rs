//! Call-control groups: servers with priorities, which device pools name.

use crate::{
    domain::{ids::CallGroupName, login::CallManager},
    store::{
        Transaction, batch,
        error::Error,
        imports,
        value::{Row, Value},
    },
};

/// A call-control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallGroup {
    /// Its name, unique.
    pub name: CallGroupName,
    /// Its servers, as they were given.
    pub members: Vec<CallManager>,
}

const COLUMNS: &str = "name, members";

/// Adds a group or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, group: &CallGroup) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO call_groups (name, members) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET members = excluded.members",
        &[(&group.name).into(), Value::json(&group.members)?],
    )?;
    imports::data_changed(tx)
}

/// The groups whose names are among `names`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, names: &[String]) -> Result<Vec<CallGroup>, Error> {
    let select = format!("SELECT {COLUMNS} FROM call_groups");
    batch::among(tx, &select, "name", names, record)
}

/// At most `limit` groups by name, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<CallGroup>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM call_groups WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a group; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM call_groups WHERE name = $1", &[name.into()])?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<CallGroup, Error> {
    Ok(CallGroup {
        name: row.parse()?,
        members: row.json()?,
    })
}
