//! Phone services: pages that phones can open. Profiles and phones name those that they are subscribed to.

use crate::{
    domain::{
        ids::ServiceName,
        login::{PhoneService, ServiceMenu},
    },
    store::{Transaction, batch, error::Error, imports, value::Row},
};

const COLUMNS: &str = "name, url, menu";

/// Adds a service or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, service: &PhoneService) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO phone_services (name, url, menu) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET url = excluded.url, menu = excluded.menu",
        &[
            (&service.name).into(),
            (&service.url).into(),
            service.menu.as_str().into(),
        ],
    )?;
    imports::data_changed(tx)
}

/// The services of a subscription, in its order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn subscribed(
    tx: &mut dyn Transaction,
    names: &[ServiceName],
) -> Result<Vec<PhoneService>, Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = names.iter().map(ToString::to_string).collect();
    let found = among(tx, &keys)?;
    let by_name = |name: &ServiceName| found.iter().find(|service| service.name == *name);
    Ok(names.iter().filter_map(by_name).cloned().collect())
}

/// The services whose names are among `names`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, names: &[String]) -> Result<Vec<PhoneService>, Error> {
    let select = format!("SELECT {COLUMNS} FROM phone_services");
    batch::among(tx, &select, "name", names, record)
}

/// At most `limit` services by name, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<PhoneService>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM phone_services WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a service; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM phone_services WHERE name = $1", &[name.into()])?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<PhoneService, Error> {
    let (name, url) = (row.parse()?, row.text()?);
    Ok(PhoneService {
        name,
        url,
        // The table takes no other word.
        menu: ServiceMenu::named(&row.text()?).unwrap_or_default(),
    })
}
