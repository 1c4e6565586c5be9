//! PIN hashes and the counters of failed attempts.

use std::fmt;

use crate::{
    clock::Timestamp,
    domain::ids::UserId,
    store::{
        Transaction, batch,
        error::Error,
        imports, tickets,
        value::{Row, fold},
    },
};

/// A password hash as a PHC string. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Phc(String);

impl Phc {
    /// Takes the text of a PHC string; whoever verifies with it parses it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one call that verifies with it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Phc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phc(…)")
    }
}

/// A user's PIN and what was tried against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whose.
    pub user_id: UserId,
    /// The hash of the PIN.
    pub phc: Phc,
    /// Failed attempts in the present window.
    pub failures: u32,
    /// When the last of them was: the window slides.
    pub window_started: Option<Timestamp>,
    /// Until when every attempt is refused.
    pub locked_until: Option<Timestamp>,
    /// Whether the PIN has to be changed before it is good for a login.
    pub must_change: bool,
}

const SELECT: &str =
    "SELECT u.user_id, c.phc, c.failures, c.window_started, c.locked_until, c.must_change
     FROM credentials c JOIN users u ON u.user_key = c.user_key";

/// A user's credential.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, user_id: &UserId) -> Result<Option<Credential>, Error> {
    tx.query_one(
        &format!("{SELECT} WHERE c.user_key = $1"),
        &[fold(user_id.as_str()).into()],
    )?
    .map(record)
    .transpose()
}

/// Whether any user has a PIN.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn any(tx: &mut dyn Transaction) -> Result<bool, Error> {
    let found = tx.query_one("SELECT 1 FROM credentials LIMIT 1", &[])?;
    Ok(found.is_some())
}

/// The credentials of the users whose IDs, in lower case, are among `keys`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Credential>, Error> {
    batch::among(tx, SELECT, "c.user_key", keys, record)
}

fn record(mut row: Row) -> Result<Credential, Error> {
    Ok(Credential {
        user_id: row.parse()?,
        phc: Phc(row.text()?),
        failures: row.count()?,
        window_started: row.opt_time()?,
        locked_until: row.opt_time()?,
        must_change: row.flag()?,
    })
}

const INTO: &str = "INSERT INTO credentials (user_key, phc, changed_at, failures, must_change)";
const REPLACE: &str = "ON CONFLICT (user_key) DO UPDATE SET
    phc = excluded.phc, changed_at = excluded.changed_at,
    failures = 0, window_started = NULL, locked_until = NULL, must_change = 0";

/// Sets the hash of a user's PIN, and forgets failures, lock and the duty to change it. Tickets that stand in for the
/// PIN before are void with that.
///
/// # Errors
/// [`Error::Statement`] when there is no such user.
pub fn put_hash(
    tx: &mut dyn Transaction,
    user_id: &UserId,
    phc: &Phc,
    now: Timestamp,
) -> Result<(), Error> {
    tx.execute(
        &format!("{INTO} VALUES ($1, $2, $3, 0, 0) {REPLACE}"),
        &[
            fold(user_id.as_str()).into(),
            phc.as_str().into(),
            now.into(),
        ],
    )?;
    imports::data_changed(tx)?;
    tickets::void(tx, user_id)
}

/// The same for all hashes of an import.
///
/// # Errors
/// As [`put_hash`].
pub fn put_waiting(tx: &mut dyn Transaction, import: i64, now: Timestamp) -> Result<(), Error> {
    tx.execute(
        &format!(
            "{INTO} SELECT key, phc, CAST($1 AS INTEGER), 0, 0 FROM import_rows
             WHERE import = $2 AND kind = 'user' AND action = 'put' AND phc IS NOT NULL ORDER BY key {REPLACE}"
        ),
        &[now.into(), import.into()],
    )?;
    tx.execute(
        "DELETE FROM tickets WHERE user_key IN (
           SELECT key FROM import_rows
           WHERE import = $1 AND kind = 'user' AND action = 'put' AND phc IS NOT NULL)",
        &[import.into()],
    )?;
    imports::data_changed(tx)
}

/// Writes everything of a credential but its hash; whether there is one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn set_counters(tx: &mut dyn Transaction, credential: &Credential) -> Result<bool, Error> {
    let written = tx.execute(
        "UPDATE credentials SET failures = $1, window_started = $2, locked_until = $3, must_change = $4
         WHERE user_key = $5",
        &[
            credential.failures.into(),
            credential.window_started.into(),
            credential.locked_until.into(),
            credential.must_change.into(),
            fold(credential.user_id.as_str()).into(),
        ],
    )?;
    Ok(written > 0)
}
