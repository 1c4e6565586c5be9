//! Device profiles: what a user's phone becomes.

use crate::{
    domain::{
        ids::{DevicePoolName, ProfileName, ServiceName, UserId},
        login::Line,
    },
    store::{
        Transaction, batch,
        error::Error,
        imports,
        value::{Row, Value, fold},
    },
};

/// A user's lines and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, unique.
    pub name: ProfileName,
    /// Whose.
    pub user_id: UserId,
    /// Whether it is taken when the user chooses none.
    pub is_default: bool,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Locale, or none to leave the phone's own.
    pub locale: Option<String>,
    /// The device pool when no roaming pool fits.
    pub device_pool: Option<DevicePoolName>,
    /// The phone services that it is subscribed to, in order.
    pub services: Vec<ServiceName>,
}

const SELECT: &str =
    "SELECT p.name, u.user_id, p.is_default, p.lines, p.locale, p.device_pool, p.services
    FROM profiles p JOIN users u ON u.user_key = p.user_key";

const INTO: &str =
    "INSERT INTO profiles (name, user_key, is_default, lines, locale, device_pool, services)";
const REPLACE: &str = "ON CONFLICT (name) DO UPDATE SET
           user_key = excluded.user_key, is_default = excluded.is_default, lines = excluded.lines,
           locale = excluded.locale, device_pool = excluded.device_pool, services = excluded.services";

/// The values of its row, the key first.
///
/// # Errors
/// [`Error::Unencodable`] when it has no JSON form.
pub fn values(profile: &Profile) -> Result<Vec<Value>, Error> {
    Ok(vec![
        (&profile.name).into(),
        fold(profile.user_id.as_str()).into(),
        profile.is_default.into(),
        Value::json(&profile.lines)?,
        profile.locale.as_ref().into(),
        profile.device_pool.as_ref().into(),
        Value::json(&profile.services)?,
    ])
}

/// Adds a profile or replaces the one with the same name.
///
/// # Errors
/// [`Error::Statement`] when there is no such user.
pub fn upsert(tx: &mut dyn Transaction, profile: &Profile) -> Result<(), Error> {
    let sql = format!("{INTO} VALUES ($1, $2, $3, $4, $5, $6, $7) {REPLACE}");
    tx.execute(&sql, &values(profile)?)?;
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
        "profile",
        [INTO, "c1, CAST(c2 AS INTEGER), c3, c4, c5, c6", REPLACE],
    )
}

/// A user's profiles: the default first, then by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn for_user(tx: &mut dyn Transaction, user_id: &UserId) -> Result<Vec<Profile>, Error> {
    tx.query(
        &format!("{SELECT} WHERE p.user_key = $1 ORDER BY p.is_default DESC, p.name"),
        &[fold(user_id.as_str()).into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// The profiles whose names are among `names`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, names: &[String]) -> Result<Vec<Profile>, Error> {
    batch::among(tx, SELECT, "p.name", names, record)
}

/// The profiles of the users whose IDs, in lower case, are among `keys`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among_users(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Profile>, Error> {
    batch::among(tx, SELECT, "p.user_key", keys, record)
}

/// At most `limit` profiles by name, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Profile>, Error> {
    tx.query(
        &format!("{SELECT} WHERE p.name > $1 ORDER BY p.name LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// All profiles by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<Profile>, Error> {
    tx.query(&format!("{SELECT} ORDER BY p.name"), &[])?
        .into_iter()
        .map(record)
        .collect()
}

/// Removes a profile; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &ProfileName) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM profiles WHERE name = $1", &[name.into()])?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<Profile, Error> {
    Ok(Profile {
        name: row.parse()?,
        user_id: row.parse()?,
        is_default: row.flag()?,
        lines: row.json()?,
        locale: row.opt_text()?,
        device_pool: row.opt_parse()?,
        services: row.json()?,
    })
}
