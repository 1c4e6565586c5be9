//! Application users: programs that sign in by themselves.

use crate::{
    domain::ids::ApplicationId,
    store::{
        Transaction, batch,
        credentials::Phc,
        error::Error,
        imports,
        value::{Row, fold},
    },
};

/// An application user. The hash of its password is apart, so that it is in no listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its ID; unique, whatever its case.
    pub id: ApplicationId,
    /// Whether it may act for any user on any phone.
    pub proxy: bool,
}

const COLUMNS: &str = "application_id, proxy";

/// Adds an application user or replaces the one with the same ID, whose password stays.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, application: &Application) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO applications (application_key, application_id, proxy) VALUES ($1, $2, $3)
         ON CONFLICT (application_key) DO UPDATE SET
           application_id = excluded.application_id, proxy = excluded.proxy",
        &[
            fold(application.id.as_str()).into(),
            (&application.id).into(),
            application.proxy.into(),
        ],
    )?;
    imports::data_changed(tx)
}

/// Sets the hash of a password.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put_hash(tx: &mut dyn Transaction, id: &ApplicationId, phc: &Phc) -> Result<(), Error> {
    tx.execute(
        "UPDATE applications SET phc = $1 WHERE application_key = $2",
        &[phc.as_str().into(), fold(id.as_str()).into()],
    )?;
    imports::data_changed(tx)
}

/// The hashes of those whose IDs, in lower case, are among `keys`: each with the key.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn hashes(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<(String, Phc)>, Error> {
    let select = "SELECT application_key, phc FROM applications";
    let found = batch::among(tx, select, "application_key", keys, |mut row| {
        Ok((row.text()?, row.opt_text()?))
    })?;
    let with_hash = found.into_iter();
    Ok(with_hash
        .filter_map(|(key, phc)| Some((key, Phc::new(phc?))))
        .collect())
}

/// The application users whose IDs, in lower case, are among `keys`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Application>, Error> {
    let select = format!("SELECT {COLUMNS} FROM applications");
    batch::among(tx, &select, "application_key", keys, record)
}

/// At most `limit` application users in order of their IDs, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Application>, Error> {
    tx.query(
        &format!(
            "SELECT {COLUMNS} FROM applications WHERE application_key > $1
             ORDER BY application_key LIMIT $2"
        ),
        &[fold(after).into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes an application user with its password; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, id: &str) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM applications WHERE application_key = $1",
        &[fold(id).into()],
    )?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<Application, Error> {
    Ok(Application {
        id: row.parse()?,
        proxy: row.flag()?,
    })
}
