//! Connections, statements and errors of SQLite.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, Statement, ToSql,
    config::DbConfig,
    ffi,
    types::{ToSqlOutput, ValueRef},
};
use tracing::warn;

use crate::store::{
    audit,
    cluster_time::ClusterClock,
    engine::Transaction,
    error::Error,
    value::{Row, Value},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens the writing connection, makes the file if it is new.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let open = || -> Result<Connection, Failure> {
        make_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(io::Error::other("the file system can't hold a write-ahead log").into());
        }
        connection.busy_timeout(WRITER_PATIENCE)?;
        // NORMAL would lose the last commits at a power failure.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        // Not before it has turned out to be a database: the path may be a slip.
        make_private(path)?;
        Ok(connection)
    };
    open().map_err(|e| unopened(path, e))
}

/// Makes the file if there is none: hashes come into it, so nobody else may read it at any time. SQLite's side files
/// take over the permissions.
fn make_file(path: &Path) -> io::Result<()> {
    // Only a file that did not exist is opened here: closing another one would take SQLite's locks from it.
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes the right to read from others: a copy may have been put back with what the one who did it had.
fn make_private(path: &Path) -> io::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        let Ok(metadata) = fs::metadata(&file) else {
            continue;
        };
        let mode = metadata.permissions().mode();
        if metadata.is_file() && mode & 0o077 != 0 {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode & 0o700))?;
            warn!(
                file = %Path::new(&file).display(),
                "others could read the database (mode {:04o}); they no longer can", mode & 0o7777
            );
        }
    }
    Ok(())
}

/// Opens a connection that can't change anything.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let open = || -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|e| unopened(path, e))
}

/// Opens a database without a file.
pub(super) fn open_in_memory() -> Result<Connection, Error> {
    let open = || -> Result<Connection, rusqlite::Error> {
        let connection = Connection::open_in_memory()?;
        configure(&connection)?;
        Ok(connection)
    };
    open().map_err(|e| unopened(Path::new(":memory:"), e))
}

/// How long the writer waits for a program that has locked the database behind our turns: less than a login may take, so
/// that a phone can be told what is wrong.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a statement without values.
pub(super) fn execute(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.raw_execute())
        .map(drop)
        .map_err(|e| refused(sql, e))
}

/// Who writes the audit, and what seals it; and what counts the time of what is written.
#[derive(Debug)]
pub(super) struct Author {
    pub(super) node: String,
    pub(super) key: OnceLock<audit::Key>,
    pub(super) time: ClusterClock,
}

impl Author {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            key: OnceLock::new(),
            time: ClusterClock::default(),
        }
    }
}

/// A transaction that is open on a connection.
pub(super) struct SqliteTransaction<'c> {
    connection: &'c Connection,
    author: &'c Author,
    only_reads: bool,
    has_changed: bool,
    trouble: Option<Error>,
}

impl<'c> SqliteTransaction<'c> {
    pub(super) fn new(connection: &'c Connection, author: &'c Author) -> Self {
        Self {
            connection,
            author,
            only_reads: false,
            has_changed: false,
            trouble: None,
        }
    }

    /// One that changes nothing. On a connection that others write on this is the only guard: setting and clearing
    /// `query_only` for each read would have SQLite compile every statement anew.
    pub(super) fn reading(connection: &'c Connection, author: &'c Author) -> Self {
        Self {
            only_reads: true,
            ..Self::new(connection, author)
        }
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'c>, rusqlite::Error> {
        let statement = self.connection.prepare_cached(sql)?;
        if self.only_reads && !statement.readonly() {
            let message = "attempt to write where only reading was asked for".to_owned();
            let failure = ffi::Error::new(ffi::SQLITE_READONLY);
            return Err(rusqlite::Error::SqliteFailure(failure, Some(message)));
        }
        Ok(statement)
    }

    /// Whether any row was changed through it.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// What kept a statement of it from writing that has nothing to do with what was asked.
    pub(super) fn into_trouble(self) -> Option<Error> {
        self.trouble
    }

    fn refused(&mut self, sql: &str, source: rusqlite::Error) -> Error {
        let is_trouble = source.sqlite_error_code().is_some_and(is_trouble);
        let error = refused(sql, source);
        if is_trouble {
            self.trouble = Some(error.clone());
        }
        error
    }
}

impl Transaction for SqliteTransaction<'_> {
    fn node(&self) -> &str {
        &self.author.node
    }

    fn audit_key(&self) -> Option<&audit::Key> {
        self.author.key.get()
    }

    fn cluster_clock(&self) -> &ClusterClock {
        &self.author.time
    }

    fn query(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        let run = || -> Result<Vec<Row>, rusqlite::Error> {
            let mut statement = self.prepare(sql)?;
            bind(&mut statement, args)?;
            let columns = statement.column_count();
            let mut rows = statement.raw_query();
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let values = (0..columns)
                    .map(|column| row.get_ref(column).map(value))
                    .collect::<Result<Vec<_>, _>>()?;
                all.push(Row::new(values));
            }
            Ok(all)
        };
        run().map_err(|e| self.refused(sql, e))
    }

    fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, Error> {
        let run = || -> Result<usize, rusqlite::Error> {
            let mut statement = self.prepare(sql)?;
            bind(&mut statement, args)?;
            statement.raw_execute()
        };
        let changed = run().map_err(|e| self.refused(sql, e))?;
        self.has_changed |= changed > 0;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Null => ValueRef::Null,
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    // Turns are taken by lock file; this is for backups and for whoever looks in with other tools.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Otherwise SQLite weighs partial indexes against bound values, and compiles a statement anew whenever they
    // change: a seventh of what a login costs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(())
}

fn bind(statement: &mut Statement<'_>, args: &[Value]) -> Result<(), rusqlite::Error> {
    if statement.parameter_count() != args.len() {
        return Err(rusqlite::Error::InvalidParameterCount(
            args.len(),
            statement.parameter_count(),
        ));
    }
    for (place, arg) in (1..).zip(args) {
        // SQLite takes `$2` as a name and numbers names as they come; PostgreSQL takes it as a number.
        if cfg!(debug_assertions) && statement.parameter_name(place) != Some(&format!("${place}")) {
            return Err(rusqlite::Error::InvalidParameterName(format!(
                "${place} does not come in order"
            )));
        }
        statement.raw_bind_parameter(place, arg)?;
    }
    Ok(())
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        ValueRef::Integer(number) => Value::Int(number),
        // No column holds one, so whoever reads it finds it wrong.
        ValueRef::Null | ValueRef::Real(_) => Value::Null,
        // Text that isn't UTF-8 can't have come through here; as bytes it is refused by its reader.
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_or_else(
            |_| Value::Blob(bytes.to_vec()),
            |text| Value::Text(text.to_owned()),
        ),
    }
}

/// Whether it is the file or the disk that stands in the way, and not the statement.
fn is_trouble(code: ErrorCode) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseCorrupt, DiskFull, NoLargeFileSupport, NotADatabase, PermissionDenied,
        ReadOnly, SystemIoFailure,
    };
    matches!(
        code,
        CannotOpen
            | DatabaseCorrupt
            | DiskFull
            | NoLargeFileSupport
            | NotADatabase
            | PermissionDenied
            | ReadOnly
            | SystemIoFailure
    )
}

fn unopened(path: &Path, source: impl Into<Failure>) -> Error {
    Error::Open {
        path: path.to_owned(),
        source: Arc::from(source.into()),
    }
}

fn refused(sql: &str, source: rusqlite::Error) -> Error {
    unique(&source).unwrap_or_else(|| Error::Statement {
        sql: sql.split_whitespace().collect::<Vec<_>>().join(" "),
        source: Arc::new(source),
    })
}

/// Names the unique index that a row runs into as PostgreSQL would.
///
/// SQLite tells the columns, or for an index over expressions its name.
fn unique(source: &rusqlite::Error) -> Option<Error> {
    let rusqlite::Error::SqliteFailure(failure, Some(message)) = source else {
        return None;
    };
    let (_, what) = message.split_once("constraint failed: ")?;
    let constraint = match failure.extended_code {
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => format!("{}_pkey", what.split('.').next()?),
        ffi::SQLITE_CONSTRAINT_UNIQUE => what
            .strip_prefix("index '")
            .and_then(|name| name.strip_suffix('\''))
            .map_or_else(|| what.replace('.', "_"), str::to_owned),
        _ => return None,
    };
    Some(Error::Unique { constraint })
}
