//! What of the sessions, and of other records, stands in the way of removing a record.

use std::collections::BTreeSet;

use crate::store::{Transaction, error::Error, value::Row};

/// The users of ours who are logged in somewhere: their IDs in lower case.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn users(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
    tx.query(
        "SELECT DISTINCT user_key FROM sessions s
         WHERE role = 'home' AND state = 'active' AND user_key IS NOT NULL ORDER BY user_key",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| row.text())
    .collect()
}

/// The same with the phone and the cluster of each of their sessions.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn user_sessions(tx: &mut dyn Transaction) -> Result<Vec<(String, String, String)>, Error> {
    tx.query(
        "SELECT user_key, device, counterpart FROM sessions
         WHERE role = 'home' AND state = 'active' AND user_key IS NOT NULL ORDER BY user_key, device",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| Ok((row.text()?, row.text()?, row.text()?)))
    .collect()
}

/// The phones of ours with somebody on them: their names in lower case.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn devices(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
    tx.query(
        // The key begins with the role, and would be taken: with all that has ended.
        "SELECT DISTINCT lower(device) FROM sessions s WHERE role || '' = 'visiting' AND state <> 'ended'",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| row.text())
    .collect()
}

/// The peers with whom a session lives, or who are still to be told of an end.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn peers(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
    tx.query(
        "SELECT counterpart FROM sessions s WHERE state <> 'ended'
         UNION SELECT counterpart FROM sessions s WHERE owed = 1",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| row.text())
    .collect()
}

/// A record that names one that there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// What kind of record is missing, for example `device-pool`.
    pub missing: &'static str,
    /// Its name.
    pub name: String,
    /// The kind of the record that names it.
    pub kind: &'static str,
    /// Its name.
    pub holder: String,
}

/// Where one table names rows of another.
struct Names {
    /// Kind and table of what is named.
    there: (&'static str, &'static str),
    /// Kind and table of what names it, and the column of its own name.
    holder: (&'static str, &'static str, &'static str),
    /// Where the name stands.
    column: &'static str,
}

const fn names(
    there: (&'static str, &'static str),
    holder: (&'static str, &'static str, &'static str),
    column: &'static str,
) -> Names {
    Names {
        there,
        holder,
        column,
    }
}

const DEVICES: (&str, &str, &str) = ("device", "devices", "name");
const PROFILES: (&str, &str, &str) = ("profile", "profiles", "name");
const POOLS: (&str, &str, &str) = ("device-pool", "device_pools", "name");
const USERS: (&str, &str, &str) = ("user", "users", "user_id");

const NAMES: [Names; 6] = [
    names(("device-pool", "device_pools"), DEVICES, "device_pool"),
    names(("device-pool", "device_pools"), PROFILES, "device_pool"),
    names(("geolocation", "geolocations"), DEVICES, "location"),
    names(("geolocation", "geolocations"), POOLS, "location"),
    names(("call-control-group", "call_groups"), POOLS, "call_group"),
    names(("policy", "policies"), USERS, "policy"),
];

/// What is told of one kind of name; beyond that the list says no more.
const MOST_DANGLING: u32 = 100;

/// Records that name a record of a kind in `missing` that there is not.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn dangling(tx: &mut dyn Transaction, missing: &[&str]) -> Result<Vec<Dangling>, Error> {
    let mut found = Vec::new();
    for Names {
        there: (named, there),
        holder: (kind, table, name),
        column,
    } in NAMES
    {
        if !missing.contains(&named) {
            continue;
        }
        let sql = format!(
            "SELECT {column}, {name} FROM {table}
             WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT name FROM {there}) ORDER BY {name} LIMIT $1"
        );
        for mut row in tx.query(&sql, &[MOST_DANGLING.into()])? {
            found.push(Dangling {
                missing: named,
                name: row.text()?,
                kind,
                holder: row.text()?,
            });
        }
    }
    if missing.contains(&"phone-service") {
        subscriptions(tx, &mut found)?;
    }
    Ok(found)
}

/// Subscriptions are lists, of which there are few different ones.
fn subscriptions(tx: &mut dyn Transaction, found: &mut Vec<Dangling>) -> Result<(), Error> {
    let there = tx.query("SELECT name FROM phone_services", &[])?;
    let there = there
        .into_iter()
        .map(|mut row: Row| row.text())
        .collect::<Result<BTreeSet<_>, _>>()?;
    for (kind, table) in [("device", "devices"), ("profile", "profiles")] {
        let lists = tx.query(
            &format!("SELECT DISTINCT services, services FROM {table} WHERE services <> '[]'"),
            &[],
        )?;
        for mut row in lists {
            let text = row.text()?;
            let names: Vec<String> = row.json()?;
            let gone = names.into_iter().filter(|name| !there.contains(name));
            for name in gone {
                let holders = tx.query(
                    &format!("SELECT name FROM {table} WHERE services = $1 ORDER BY name LIMIT $2"),
                    &[text.as_str().into(), MOST_DANGLING.into()],
                )?;
                for mut row in holders {
                    found.push(Dangling {
                        missing: "phone-service",
                        name: name.clone(),
                        kind,
                        holder: row.text()?,
                    });
                }
            }
        }
    }
    Ok(())
}
