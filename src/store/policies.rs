//! Credential policies. The one named `default` is always there; it has a row only where somebody has changed it.

use crate::{
    domain::{
        ids::PolicyName,
        policy::{BUILT_IN, Policy, Rules},
    },
    store::{
        Transaction, batch,
        error::Error,
        imports,
        value::{Row, Value},
    },
};

const COLUMNS: &str = "name, failures_before_lock, failure_window, lock_duration, min_length, max_length, trivial_check";

/// Adds a policy or replaces the one with the same name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, policy: &Policy) -> Result<(), Error> {
    let rules = &policy.rules;
    if *policy == Policy::built_in() {
        return remove(tx, policy.name.as_str()).map(drop);
    }
    let sql = format!(
        "INSERT INTO policies ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (name) DO UPDATE SET
           failures_before_lock = excluded.failures_before_lock, failure_window = excluded.failure_window,
           lock_duration = excluded.lock_duration, min_length = excluded.min_length,
           max_length = excluded.max_length, trivial_check = excluded.trivial_check"
    );
    let values: [Value; 7] = [
        (&policy.name).into(),
        rules.failures_before_lock.into(),
        rules.failure_window.into(),
        rules.lock_duration.into(),
        rules.min_length.into(),
        rules.max_length.into(),
        rules.trivial_check.into(),
    ];
    tx.execute(&sql, &values)?;
    imports::data_changed(tx)
}

/// The policies whose names are among `names`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, names: &[String]) -> Result<Vec<Policy>, Error> {
    let select = format!("SELECT {COLUMNS} FROM policies");
    let mut found = batch::among(tx, &select, "name", names, record)?;
    let built_in = Policy::built_in();
    if names.iter().any(|name| name == built_in.name.as_str()) {
        with_default(&mut found);
    }
    Ok(found)
}

/// At most `limit` policies that have a row, by name, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Policy>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM policies WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Every policy, `default` first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<Policy>, Error> {
    let found = tx.query(
        &format!("SELECT {COLUMNS} FROM policies ORDER BY name"),
        &[],
    )?;
    let mut found = found
        .into_iter()
        .map(record)
        .collect::<Result<Vec<_>, _>>()?;
    with_default(&mut found);
    found.sort_by_key(|policy| !policy.name.is_of_all_others());
    Ok(found)
}

/// What goes for a user with this policy: their own one, or `default`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn rules_of(tx: &mut dyn Transaction, policy: Option<&PolicyName>) -> Result<Rules, Error> {
    let of_all_others = PolicyName::of_all_others();
    let name = policy.unwrap_or(&of_all_others);
    let found = tx.query_one(
        &format!(
            "SELECT {COLUMNS} FROM policies WHERE name IN ($1, $2)
             ORDER BY CASE WHEN name = $1 THEN 0 ELSE 1 END LIMIT 1"
        ),
        &[name.into(), (&of_all_others).into()],
    )?;
    let found = found.map(record).transpose()?;
    Ok(found.map_or(BUILT_IN, |policy| policy.rules))
}

/// A user who has this policy by name, and how many there are; none where there are none.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn holders(tx: &mut dyn Transaction, name: &str) -> Result<Option<(String, u32)>, Error> {
    let row = tx.query_one(
        "SELECT min(user_id), count(*) FROM users WHERE policy = $1",
        &[name.into()],
    )?;
    let Some(mut row) = row else { return Ok(None) };
    let (first, count) = (row.opt_text()?, row.count()?);
    Ok(first.map(|first| (first, count)))
}

/// Removes a policy, or takes back what was changed of `default`; whether there was a row.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM policies WHERE name = $1", &[name.into()])?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn with_default(found: &mut Vec<Policy>) {
    if !found.iter().any(|policy| policy.name.is_of_all_others()) {
        found.push(Policy::built_in());
    }
}

fn record(mut row: Row) -> Result<Policy, Error> {
    Ok(Policy {
        name: row.parse()?,
        rules: Rules {
            failures_before_lock: row.count()?,
            failure_window: row.count()?,
            lock_duration: row.count()?,
            min_length: row.count()?,
            max_length: row.count()?,
            trivial_check: row.flag()?,
        },
    })
}
