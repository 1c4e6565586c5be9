//! Users whose home we are.

use crate::{
    domain::{
        ids::{LoginName, PolicyName, UserId},
        login::LoginType,
    },
    store::{
        Transaction, batch,
        error::Error,
        imports, meta,
        value::{Row, Value, fold},
    },
};

/// A user as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their ID; unique, whatever its case.
    pub user_id: UserId,
    /// Their self-service user ID; unique.
    pub self_service_id: Option<LoginName>,
    /// Their primary extension; several users may share one.
    pub primary_extension: Option<LoginName>,
    /// Their name as people read it.
    pub display_name: String,
    /// Whether they may log in at all.
    pub enabled: bool,
    /// Whether they may log in at other clusters.
    pub emcc_enabled: bool,
    /// Their credential policy; none for the one of all others.
    pub policy: Option<PolicyName>,
}

/// Where the number stands that moves when a user may have lost a right to be logged in.
pub const REVOCATIONS: &str = "revocations";

/// The unique index over self-service user IDs.
pub const SELF_SERVICE_ID: &str = "users_self_service_id";

const COLUMNS: &str =
    "user_id, self_service_id, primary_extension, display_name, enabled, emcc_enabled, policy";

const INTO: &str = "INSERT INTO users (user_key, user_id, self_service_id, primary_extension, display_name, enabled, emcc_enabled, policy)";
const REPLACE: &str = "ON CONFLICT (user_key) DO UPDATE SET
    user_id = excluded.user_id, self_service_id = excluded.self_service_id,
    primary_extension = excluded.primary_extension, display_name = excluded.display_name,
    enabled = excluded.enabled, emcc_enabled = excluded.emcc_enabled,
    policy = excluded.policy";

/// The values of a user's row, its key first.
#[must_use]
pub fn values(user: &User) -> Vec<Value> {
    vec![
        fold(user.user_id.as_str()).into(),
        (&user.user_id).into(),
        user.self_service_id.as_ref().into(),
        user.primary_extension.as_ref().into(),
        (&user.display_name).into(),
        user.enabled.into(),
        user.emcc_enabled.into(),
        user.policy.as_ref().into(),
    ]
}

/// Adds a user or replaces the one with the same ID.
///
/// # Errors
/// [`Error::Unique`] on [`SELF_SERVICE_ID`] when another user has that self-service user ID.
pub fn upsert(tx: &mut dyn Transaction, user: &User) -> Result<(), Error> {
    let sql = format!("{INTO} VALUES ($1, $2, $3, $4, $5, $6, $7, $8) {REPLACE}");
    tx.execute(&sql, &values(user))?;
    imports::data_changed(tx)?;
    if !user.enabled || !user.emcc_enabled {
        meta::bump(tx, REVOCATIONS)?;
    }
    Ok(())
}

/// Puts the users of an import in place. `hands_over` where one of them gets the self-service user ID that another
/// one of them has.
///
/// # Errors
/// As [`upsert`].
pub fn put_waiting(tx: &mut dyn Transaction, import: i64, hands_over: bool) -> Result<(), Error> {
    if hands_over {
        tx.execute(
            "UPDATE users SET self_service_id = NULL WHERE self_service_id IS NOT NULL AND user_key IN (
               SELECT key FROM import_rows WHERE import = $1 AND kind = 'user' AND action = 'put')",
            &[import.into()],
        )?;
    }
    let values = "c1, c2, c3, c4, CAST(c5 AS INTEGER), CAST(c6 AS INTEGER), c7";
    imports::put(tx, import, "user", [INTO, values, REPLACE])?;
    let revoked = tx.query_one(
        "SELECT 1 FROM import_rows WHERE import = $1 AND kind = 'user' AND action = 'put'
         AND (c5 = '0' OR c6 = '0') LIMIT 1",
        &[import.into()],
    )?;
    if revoked.is_some() {
        meta::bump(tx, REVOCATIONS)?;
    }
    Ok(())
}

/// Takes the self-service user ID from who is about to get another one, or none: within one import it may go to a
/// user who is written earlier.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn release_self_service_id(tx: &mut dyn Transaction, user: &User) -> Result<(), Error> {
    tx.execute(
        "UPDATE users SET self_service_id = NULL
         WHERE user_key = $1 AND self_service_id IS NOT NULL AND self_service_id <> $2",
        &[
            fold(user.user_id.as_str()).into(),
            user.self_service_id
                .as_ref()
                .map_or("", LoginName::as_str)
                .into(),
        ],
    )?;
    Ok(())
}

/// The user with this ID, whatever its case.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, user_id: &UserId) -> Result<Option<User>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM users WHERE user_key = $1"),
        &[fold(user_id.as_str()).into()],
    )?
    .map(record)
    .transpose()
}

/// At most `limit` users in order of their IDs, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction, after: Option<&str>, limit: u32) -> Result<Vec<User>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM users WHERE user_key > $1 ORDER BY user_key LIMIT $2"),
        &[fold(after.unwrap_or_default()).into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// The users whose IDs, in lower case, are among `keys`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<User>, Error> {
    let select = format!("SELECT {COLUMNS} FROM users");
    batch::among(tx, &select, "user_key", keys, record)
}

/// The users whose self-service user IDs are among `ids`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among_self_service_ids(
    tx: &mut dyn Transaction,
    ids: &[String],
) -> Result<Vec<User>, Error> {
    let select = format!("SELECT {COLUMNS} FROM users");
    batch::among(tx, &select, "self_service_id", ids, record)
}

/// The users whom a name means: at most one, except for an extension.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn find(
    tx: &mut dyn Transaction,
    login_type: LoginType,
    name: &LoginName,
) -> Result<Vec<User>, Error> {
    let (condition, name) = match login_type {
        LoginType::Uid => ("user_key = $1", fold(name.as_str())),
        LoginType::SelfService => ("self_service_id = $1", name.as_str().to_owned()),
        LoginType::Extension => ("primary_extension = $1", name.as_str().to_owned()),
    };
    tx.query(
        &format!("SELECT {COLUMNS} FROM users WHERE {condition} ORDER BY user_key"),
        &[name.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a user with their credential and profiles; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, user_id: &UserId) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM users WHERE user_key = $1",
        &[fold(user_id.as_str()).into()],
    )?;
    if removed > 0 {
        imports::data_changed(tx)?;
        meta::bump(tx, REVOCATIONS)?;
    }
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<User, Error> {
    Ok(User {
        user_id: row.parse()?,
        self_service_id: row.opt_parse()?,
        primary_extension: row.opt_parse()?,
        display_name: row.text()?,
        enabled: row.flag()?,
        emcc_enabled: row.flag()?,
        policy: row.opt_parse()?,
    })
}
