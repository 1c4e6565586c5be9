//! The schema, brought up to date when the database is opened.

use std::sync::Arc;

use refinery::{Migration, Runner};
use rusqlite::Connection;

use crate::store::{Schema, error::Error};

/// Numbered, forward only, and never changed once released: their checksums are kept in the database.
const MIGRATIONS: &[(&str, &str)] = &[(
    "V1__first",
    include_str!("../migrations/sqlite/V1__first.sql"),
)];

/// Applies what is missing, all of it or nothing. The caller holds the turn to write.
pub(super) fn run(connection: &mut Connection) -> Result<(), Error> {
    let migrations = migrations()?;
    let schema = schema(connection)?;
    if schema.found > schema.known {
        return Err(Error::NewerSchema {
            found: schema.found,
            known: schema.known,
        });
    }
    if schema.found == 0 && has_tables(connection)? {
        return Err(failed(Foreign));
    }
    Runner::new(&migrations)
        .set_grouped(true)
        .run(connection)
        .map(drop)
        .map_err(failed)
}

/// Which schema there is, and what is missing to ours.
pub(super) fn schema(connection: &Connection) -> Result<Schema, Error> {
    let migrations = migrations()?;
    let number = |migration: &Migration| i64::from(migration.version());
    let found = version(connection)?;
    Ok(Schema {
        found,
        known: migrations.iter().map(number).max().unwrap_or(0),
        missing: migrations
            .iter()
            .filter(|migration| number(migration) > found)
            .map(ToString::to_string)
            .collect(),
    })
}

fn migrations() -> Result<Vec<Migration>, Error> {
    MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// The newest migration that was applied; 0 for a new database.
fn version(connection: &Connection) -> Result<i64, Error> {
    let has_history = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history'")
        .and_then(|mut statement| statement.exists([]))
        .map_err(failed)?;
    if !has_history {
        return Ok(0);
    }
    let mut newest = 0;
    let mut statement = connection
        .prepare("SELECT version, applied_on, checksum FROM refinery_schema_history")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        // The runner would panic on a history that it can't read.
        let version: i64 = row.get(0).map_err(|_| failed(Damaged))?;
        let applied_on: String = row.get(1).map_err(|_| failed(Damaged))?;
        let checksum: String = row.get(2).map_err(|_| failed(Damaged))?;
        if applied_on.parse::<jiff::Timestamp>().is_err() || checksum.parse::<u64>().is_err() {
            return Err(failed(Damaged));
        }
        newest = newest.max(version);
    }
    Ok(newest)
}

/// Whether a database without our history holds anything.
fn has_tables(connection: &Connection) -> Result<bool, Error> {
    connection
        .prepare(
            "SELECT 1 FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'
               AND name <> 'refinery_schema_history'",
        )
        .and_then(|mut statement| statement.exists([]))
        .map_err(failed)
}

/// It is another program's.
#[derive(Debug, thiserror::Error)]
#[error("it is no database of emccd, and it is not empty")]
struct Foreign;

/// Someone else has written to the table of what was applied.
#[derive(Debug, thiserror::Error)]
#[error("the record of applied migrations is damaged")]
struct Damaged;

fn failed(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Migration(Arc::new(source))
}
