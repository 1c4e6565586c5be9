//! The schema, brought up to date when the database is opened.

use std::sync::Arc;

use refinery::{Migration, Runner};
use rusqlite::Connection;

use crate::store::error::Error;

/// Numbered, forward only, and never changed once released: their checksums are kept in the database.
const MIGRATIONS: &[(&str, &str)] = &[(
    "V1__first",
    include_str!("../migrations/sqlite/V1__first.sql"),
)];

/// Applies what is missing, all of it or nothing. The caller holds the turn to write.
pub(super) fn run(connection: &mut Connection) -> Result<(), Error> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let known = migrations
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0);
    let found = version(connection).map_err(failed)?;
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    Runner::new(&migrations)
        .set_grouped(true)
        .run(connection)
        .map(drop)
        .map_err(failed)
}

/// The newest migration that was applied; 0 for a new database.
fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let is_new = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history'")?
        .query([])?
        .next()?
        .is_none();
    if is_new {
        return Ok(0);
    }
    connection.query_row(
        "SELECT COALESCE(MAX(version), 0) FROM refinery_schema_history",
        [],
        |row| row.get(0),
    )
}

fn failed(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Migration(Arc::new(source))
}
