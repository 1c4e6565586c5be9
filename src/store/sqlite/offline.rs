//! Backups of a database in use, and what can be told of a file that no daemon has open.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, backup::StepResult, config::DbConfig};

use super::{
    connection::{self, Author, SqliteTransaction},
    migrate,
};
use crate::store::{
    Check, Glance, Inspection, Saved, Schema, announcements, audit, base_devices, credentials,
    crls, devices, engine::Transaction as _, error::Error, meta, parameters, peers, policies,
    pools, profiles, sessions, trust_entries, users,
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
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already").into());
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

/// Whether some program keeps others from writing for longer than that, by the engine's own lock. Nothing is changed.
pub(super) fn is_locked(path: &Path, patience: Duration) -> bool {
    // Without it nobody has the database open.
    let mut shared = path.as_os_str().to_owned();
    shared.push("-shm");
    if !Path::new(&shared).exists() {
        return false;
    }
    let try_it = || -> Result<(), rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        // The log of changes stays as it is, also where its writer has died.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_timeout(patience)?;
        connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")
    };
    let refused = try_it().err();
    refused.and_then(|e| e.sqlite_error_code()) == Some(ErrorCode::DatabaseBusy)
}

/// What a file holds, and whether it is whole. Nothing in it is changed.
pub(super) fn inspect(path: &Path, check_with: &Check) -> Result<Inspection, Error> {
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
        problems.extend(other_schema(&connection)?);
    }
    if schema.found == schema.known && problems.is_empty() {
        let author = Author::new("");
        if let Some(key) = &check_with.key {
            let _ = author.key.set(key.clone());
        }
        let mut tx = SqliteTransaction::new(&connection, &author);
        found.cluster = meta::get(&mut tx, meta::CLUSTER_ID)?;
        if found.cluster.is_none() {
            problems.push("it does not say whose it is: meta has no cluster-id".to_owned());
        }
        problems.extend(unreadable_rows(&mut tx));
        for table in COUNTED {
            let sql = format!("SELECT count(*) FROM {table}");
            let row = tx.query_one(&sql, &[])?;
            let count = row.map_or(Ok(0), |mut row| row.int())?;
            found.counts.push((table, count));
        }
        found.audit = Some(audit::verify(&mut tx, &check_with.noted)?);
    } else {
        problems.extend(schema.problem());
    }
    if found
        .audit
        .as_ref()
        .is_some_and(|report| report.chains.is_empty())
    {
        problems.push("its audit is empty".to_owned());
    }
    found.problems = problems;
    Ok(found)
}

/// What a quick look at a file tells.
pub(super) fn glance(path: &Path, patience: Duration) -> Result<Glance, Error> {
    let mut connection = open_to_look(path)?;
    let schema = migrate::schema(&connection)?;
    let (mut cluster, mut pepper_mark) = (None, None);
    if schema.found == schema.known {
        let author = Author::new("");
        let mut tx = SqliteTransaction::new(&connection, &author);
        cluster = meta::get(&mut tx, meta::CLUSTER_ID)?;
        if credentials::any(&mut tx)? {
            pepper_mark = meta::get(&mut tx, meta::PEPPER_MARK)?;
        }
    }
    let (problems, is_cut_short) = check_quickly(&mut connection, path, patience)?;
    Ok(Glance {
        schema,
        cluster,
        pepper_mark,
        problems,
        is_cut_short,
    })
}

/// What is wrong with the pages as far as they can be looked at in that time, and whether that was too short.
fn check_quickly(
    connection: &mut Connection,
    path: &Path,
    patience: Duration,
) -> Result<(Vec<String>, bool), Error> {
    /// Steps between two looks at the time: far less than a millisecond.
    const STEPS: i32 = 1_000;
    let began = Instant::now();
    let is_over = move || began.elapsed() >= patience;
    let refused = |e: Failure| unopened(path, e);
    connection
        .progress_handler(STEPS, Some(is_over))
        .map_err(|e| refused(e.into()))?;
    let sql = format!("PRAGMA quick_check({MOST_PROBLEMS})");
    match said(connection, &sql) {
        Ok(problems) => Ok((problems, false)),
        Err(error) if is_interrupted(&error) => Ok((Vec::new(), true)),
        Err(error) => Err(refused(error)),
    }
}

fn is_interrupted(error: &Failure) -> bool {
    let error = error.downcast_ref::<rusqlite::Error>();
    error.is_some_and(|e| e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
}

/// The schema of a file.
pub(super) fn schema(path: &Path) -> Result<Schema, Error> {
    migrate::schema(&open_to_look(path)?)
}

/// Where its tables and indexes are not those that this version makes.
fn other_schema(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut fresh = connection::open_in_memory()?;
    migrate::run(&mut fresh)?;
    let read = |connection: &Connection| -> Result<BTreeMap<(String, String), String>, Error> {
        let author = Author::new("");
        let rows = SqliteTransaction::new(connection, &author).query(
            "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL",
            &[],
        )?;
        rows.into_iter()
            .map(|mut row| Ok(((row.text()?, row.text()?), row.text()?)))
            .collect()
    };
    let (ours, theirs) = (read(&fresh)?, read(connection)?);
    let missing = ours.iter().filter_map(|(key, sql)| match theirs.get(key) {
        None => Some(format!("the {} {} is missing", key.0, key.1)),
        Some(found) if found != sql => Some(format!(
            "the {} {} is not as this version makes it",
            key.0, key.1
        )),
        Some(_) => None,
    });
    let foreign = theirs.keys().filter(|key| !ours.contains_key(key));
    let foreign = foreign.map(|(kind, name)| format!("the {kind} {name} is none of emccd"));
    Ok(missing.chain(foreign).take(MOST_PROBLEMS).collect())
}

/// Tables with a row that a node could not read.
fn unreadable_rows(tx: &mut SqliteTransaction<'_>) -> Vec<String> {
    type Look = fn(&mut SqliteTransaction<'_>) -> Result<(), Error>;
    let tables: [(&str, Look); 12] = [
        ("device_pools", |tx| pools::list(tx).map(drop)),
        ("users", |tx| {
            let mut after = None;
            while let Some(last) = users::list(tx, after.as_deref(), PAGE)?.pop() {
                after = Some(last.user_id.to_string());
            }
            Ok(())
        }),
        ("profiles", |tx| profiles::list(tx).map(drop)),
        ("devices", |tx| {
            let mut after = None;
            while let Some(last) = devices::list(tx, after.as_deref(), PAGE)?.pop() {
                after = Some(last.name.to_string());
            }
            Ok(())
        }),
        ("base_devices", |tx| base_devices::list(tx).map(drop)),
        ("policies", |tx| policies::all(tx).map(drop)),
        ("peers", |tx| peers::list(tx).map(drop)),
        ("trust_entries", |tx| trust_entries::list(tx).map(drop)),
        ("crls", |tx| crls::list(tx).map(drop)),
        ("waiting_entries", |tx| announcements::waiting(tx).map(drop)),
        ("sessions", |tx| {
            let mut filter = sessions::Filter::default();
            while let Some(last) = sessions::list(tx, &filter)?.pop() {
                filter.before = Some(sessions::Place {
                    created_at: last.created_at,
                    id: last.id,
                    role: last.role,
                });
            }
            Ok(())
        }),
        ("parameters", |tx| parameters::all(tx).map(drop)),
    ];
    let mut problems: Vec<_> = tables
        .into_iter()
        .filter_map(|(table, look)| {
            let error = look(tx).err()?;
            Some(format!("a row of {table} can't be read: {error}"))
        })
        .collect();
    let sql = "SELECT user_key FROM credentials WHERE phc NOT LIKE '$argon2id$v=%$m=%$%$%' LIMIT 3";
    match tx.query(sql, &[]) {
        Ok(rows) => problems.extend(rows.into_iter().filter_map(|mut row| {
            let user = row.text().ok()?;
            Some(format!(
                "a row of credentials can't be read: the one of {user} holds no hash"
            ))
        })),
        Err(error) => problems.push(format!("credentials can't be read: {error}")),
    }
    problems
}

/// Rows in memory at once.
const PAGE: u32 = 1_000;

fn open_to_look(path: &Path) -> Result<Connection, Error> {
    let open = || -> Result<Connection, Failure> {
        // What the system says of a file that is not there tells more than SQLite would.
        path.metadata()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // The first look at the content: a file of another kind is found out here.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|e| unopened(path, e))
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
