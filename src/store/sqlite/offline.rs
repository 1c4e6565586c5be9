//! Backups of a database in use, and what can be told of a file that no daemon has open.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, backup::StepResult};

use super::{
    connection::{self, SqliteTransaction},
    migrate,
};
use crate::store::{
    Glance, Inspection, Saved, Schema, audit, engine::Transaction as _, error::Error, meta,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Copies the database `from` into the new file `to`, as it was at one moment. Writers are not held up.
pub(super) fn back_up(from: &Path, to: &Path) -> Result<Saved, Error> {
    copy(from, to).map_err(|source| Error::Backup {
        path: to.to_owned(),
        source: Arc::from(source),
    })
}

fn copy(from: &Path, to: &Path) -> Result<Saved, Failure> {
    if to.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Whoever finds a file under its own name finds a whole one. Only its owner can read it: hashes are in there.
    let partial = tempfile::Builder::new()
        .prefix(".emccd-backup-")
        .tempfile_in(folder)?
        .into_temp_path();
    let source = connection::open_reader(from)?;
    let mut target = Connection::open_with_flags(
        &partial,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    copy_pages(&source, &mut target)?;
    // One file and no log beside it: it can be moved as it is, and be read where nothing can be written.
    target.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    let schema = migrate::schema(&target)?;
    target.close().map_err(|(_, error)| error)?;
    let file = File::open(&partial)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    drop(file);
    partial.persist_noclobber(to)?;
    File::open(folder)?.sync_all()?;
    Ok(Saved {
        path: to.to_owned(),
        bytes,
        schema: schema.found,
    })
}

/// All pages in one step, which is one read transaction: in several, each commit between would begin it anew.
fn copy_pages(source: &Connection, target: &mut Connection) -> Result<(), Failure> {
    let backup = rusqlite::backup::Backup::new(source, target)?;
    match backup.step(-1)? {
        StepResult::Done | StepResult::More => Ok(()),
        // SQLite has waited for the lock as long as its connections do.
        _ => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// What a file holds, and whether it is whole. Nothing in it is changed.
pub(super) fn inspect(path: &Path) -> Result<Inspection, Error> {
    let connection = open_to_look(path)?;
    let schema = migrate::schema(&connection)?;
    let mut problems = check(&connection).map_err(|e| unopened(path, e))?;
    let mut found = Inspection {
        path: path.to_owned(),
        cluster: None,
        schema: schema.clone(),
        counts: Vec::new(),
        audit: None,
        problems: Vec::new(),
    };
    if schema.found == schema.known {
        let mut tx = SqliteTransaction::new(&connection, "");
        found.cluster = meta::get(&mut tx, "cluster-id")?;
        for table in COUNTED {
            let sql = format!("SELECT count(*) FROM {table}");
            let row = tx.query_one(&sql, &[])?;
            let count = row.map_or(Ok(0), |mut row| row.int())?;
            found.counts.push((table, count));
        }
        found.audit = Some(audit::verify(&mut tx)?);
    } else {
        problems.extend(schema.problem());
    }
    found.problems = problems;
    Ok(found)
}

/// What a quick look at a file tells.
pub(super) fn glance(path: &Path) -> Result<Glance, Error> {
    let connection = open_to_look(path)?;
    let schema = migrate::schema(&connection)?;
    let sql = format!("PRAGMA quick_check({MOST_PROBLEMS})");
    let problems = said(&connection, &sql).map_err(|e| unopened(path, e))?;
    Ok(Glance { schema, problems })
}

/// The schema of a file.
pub(super) fn schema(path: &Path) -> Result<Schema, Error> {
    migrate::schema(&open_to_look(path)?)
}

fn open_to_look(path: &Path) -> Result<Connection, Error> {
    let open = || -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // The first look at the content: a file of another kind is found out here.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|e| unopened(path, e.into()))
}

/// What SQLite itself finds wrong.
fn check(connection: &Connection) -> Result<Vec<String>, Failure> {
    let sql = format!("PRAGMA integrity_check({MOST_PROBLEMS})");
    let mut problems = said(connection, &sql)?;
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if problems.len() >= MOST_PROBLEMS {
            break;
        }
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        problems.push(format!("a row of {table} points at none of {parent}"));
    }
    Ok(problems)
}

/// What one of the checks says besides that all is well.
fn said(connection: &Connection, sql: &str) -> Result<Vec<String>, Failure> {
    let mut problems = Vec::new();
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        if text != "ok" {
            problems.push(text);
        }
    }
    Ok(problems)
}

fn unopened(path: &Path, source: Failure) -> Error {
    Error::Open {
        path: PathBuf::from(path),
        source: Arc::from(source),
    }
}

/// What people count their cluster by.
const COUNTED: [&str; 5] = ["users", "devices", "peers", "sessions", "audit"];

/// Enough to see what kind of damage it is.
const MOST_PROBLEMS: usize = 20;
