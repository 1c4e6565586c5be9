//! The store: what a cluster knows, durable before it is answered.
//!
//! An operation is a function over a [`Transaction`], written once for all engines; the table families
//! ([`users`], [`sessions`], …) are such functions. A use case is one closure, handed to [`Store::write`] or
//! [`Store::read`]. Closures can be run again and have no effect outside the store.

pub mod agreements;
pub mod announcements;
pub mod answers;
pub mod applications;
pub mod audit;
pub mod base_devices;
pub mod call_groups;
pub mod choices;
pub mod claims;
pub mod cluster_time;
pub mod counts;
pub mod credentials;
pub mod crls;
pub mod debts;
pub mod devices;
pub mod geolocations;
pub mod hints;
pub mod imports;
pub mod learned;
pub mod live;
pub mod living;
pub mod membership;
pub mod meta;
pub mod node_links;
pub mod nodes;
pub mod pairings;
pub mod parameters;
pub mod peers;
pub mod phone_services;
pub mod policies;
pub mod pools;
pub mod profiles;
pub mod refs;
pub mod retention;
pub mod rotations;
pub mod sessions;
pub mod shared;
pub mod tickets;
pub mod trust_entries;
pub mod users;

mod batch;
mod engine;
mod error;
mod queue;
mod sqlite;
mod value;

#[cfg(test)]
pub(crate) mod bugs;
#[cfg(test)]
mod suite;

#[cfg(test)]
pub(crate) use self::sqlite::inline;

/// What others do to a database behind our back.
#[cfg(test)]
pub(crate) fn tamper(file: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch(sql).unwrap();
}

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use self::{
    audit::AuditReport,
    engine::{Stats, Transaction},
    error::{Error, Source},
    value::{Row, Value, fold},
};

use self::engine::{Access, Engine, Task};
use crate::{fault::FaultPoints, watch};

/// Which database, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `sqlite:PATH`, or `sqlite::memory:` for one that ends with the last handle.
    pub url: String,
    /// The node's name, under which it keeps its audit.
    pub node: String,
}

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Where it is.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
    /// Its schema's version.
    pub schema: i64,
}

/// Which schema a database has, and which this version would give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The one it has; 0 for none.
    pub found: i64,
    /// The newest that this version knows.
    pub known: i64,
    /// The steps that would be done, in their order.
    pub missing: Vec<String>,
}

impl Schema {
    /// Why this version can't look at the rows of such a database, if it can't.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let Self { found, known, .. } = self;
        if found > known {
            Some(format!(
                "its schema is version {found}, this emccd knows versions up to {known}"
            ))
        } else if *found == 0 {
            Some("it is no database of emccd".to_owned())
        } else if found < known {
            Some(format!(
                "its schema is version {found}: bring it to {known} first, with `emccd db migrate`"
            ))
        } else {
            None
        }
    }
}

/// What was found in a file that no daemon has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// Whose it is.
    pub cluster: Option<String>,
    /// Its schema.
    pub schema: Schema,
    /// How many rows some tables have.
    pub counts: Vec<(&'static str, i64)>,
    /// The state of its audit; none when the schema is another version's.
    pub audit: Option<AuditReport>,
    /// What is wrong with the file, its audit aside.
    pub problems: Vec<String>,
}

impl Inspection {
    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.audit.as_ref().is_some_and(AuditReport::is_intact)
    }
}

/// What a file's audit is held against, beyond itself.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// What sealed it; without it seals are not looked at.
    pub key: Option<audit::Key>,
    /// Heads that were noted elsewhere.
    pub noted: Vec<audit::Noted>,
}

/// Looks through a file that no daemon has open, and changes nothing. Blocks.
///
/// # Errors
/// [`Error::Open`] when it is no database or can't be read.
pub fn inspect(path: &Path, check: &Check) -> Result<Inspection, Error> {
    sqlite::inspect(path, check)
}

/// What a quick look at a file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its schema.
    pub schema: Schema,
    /// Whose it is; none while it says nothing of that, or in words that this version does not know.
    pub cluster: Option<String>,
    /// The mark of the pepper that its PINs were hashed with; none while there are no PINs.
    pub pepper_mark: Option<String>,
    /// What is wrong with its pages.
    pub problems: Vec<String>,
    /// Whether there was no time to look at all of them.
    pub is_cut_short: bool,
}

/// Looks at a file quickly, also while a daemon has it open, and changes nothing. Looking at the pages ends after
/// `patience`: a long look keeps a daemon's log of changes from being taken over. Blocks.
///
/// # Errors
/// [`Error::Open`] when it is no database or can't be read.
pub fn glance(path: &Path, patience: Duration) -> Result<Glance, Error> {
    sqlite::glance(path, patience)
}

/// The files beside a database that whoever works on it must be able to write, too, where they are there.
#[must_use]
pub fn side_files(path: &Path) -> Vec<PathBuf> {
    sqlite::side_files(path)
}

/// What tells a database from all others on this machine, whatever it is called there: two processes that say the same
/// have the same one. It is not opened. Blocks for a moment.
///
/// # Errors
/// When there is none yet, or nobody but its owner has it.
pub fn mark(url: &str) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    match url.split_once(':') {
        Some(("sqlite", path)) if path != ":memory:" => {
            let file = std::fs::metadata(path)?;
            Ok(format!("file {} of device {}", file.ino(), file.dev()))
        }
        _ => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

/// Whether some process holds the write lock of a database for longer than `patience`. Blocks for as long at most.
///
/// # Errors
/// When the lock file is there and can't be opened.
pub fn is_lock_held(path: &Path, patience: Duration) -> std::io::Result<bool> {
    sqlite::is_lock_held(path, patience)
}

/// The schema of a file. Blocks.
///
/// # Errors
/// [`Error::Open`] when it is no database or can't be read.
pub fn schema(path: &Path) -> Result<Schema, Error> {
    sqlite::schema(path)
}

/// Brings a file to the schema of this version, as opening it for a node would. Blocks.
///
/// # Errors
/// [`Error::Open`], [`Error::NewerSchema`], [`Error::Migration`], [`Error::Lock`].
pub fn migrate(path: &Path) -> Result<(), Error> {
    sqlite::Sqlite::open(path, "migration", FaultPoints::none()).map(drop)
}

/// A handle on the database. Cheap to clone; the last one closes it.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Arc<dyn Engine>,
}

impl Store {
    /// Opens the database, makes it if it is new, and brings its schema up to date. Blocks.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::NewerSchema`], [`Error::Migration`], [`Error::Lock`], [`Error::Unsupported`].
    pub fn open(config: &Config) -> Result<Self, Error> {
        Self::open_with(config, FaultPoints::none())
    }

    /// As [`Store::open`], with the points at its commits at which a test may stop the node.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(config: &Config, points: FaultPoints) -> Result<Self, Error> {
        let engine = match config.url.split_once(':') {
            Some(("sqlite", ":memory:")) => sqlite::Sqlite::in_memory(&config.node, points)?,
            Some(("sqlite", path)) if !path.is_empty() => {
                sqlite::Sqlite::open(Path::new(path), &config.node, points)?
            }
            Some(("postgres" | "postgresql", _)) => {
                return Err(Error::Unsupported(
                    "PostgreSQL is not supported by this build yet",
                ));
            }
            _ => {
                return Err(Error::Unsupported(
                    "the store URL must be sqlite:PATH or sqlite::memory:",
                ));
            }
        };
        Ok(Self {
            engine: Arc::new(engine),
        })
    }

    /// Runs `operation` in a transaction that is durable when this returns `Ok`. On `Err` nothing of it stands.
    ///
    /// Not cancelled by being dropped: once begun, the operation is carried out.
    ///
    /// # Errors
    /// What `operation` returns; [`Error::Busy`], [`Error::Closed`], [`Error::Commit`], [`Error::Panicked`].
    pub async fn write<T, E>(
        &self,
        operation: impl FnMut(&mut dyn Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.submit(Access::Write, operation).await
    }

    /// Runs `operation` on one state of the database, all of it committed.
    ///
    /// # Errors
    /// What `operation` returns; [`Error::Busy`], [`Error::Closed`], [`Error::Panicked`].
    pub async fn read<T, E>(
        &self,
        operation: impl FnMut(&mut dyn Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.submit(Access::Read, operation).await
    }

    /// As [`Store::read`], for a few rows found by their keys: the engine may run it at once, on the thread of the
    /// caller. What reads more than that would hold up everybody else on that thread.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn look_up<T, E>(
        &self,
        operation: impl FnMut(&mut dyn Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.submit(Access::LookUp, operation).await
    }

    /// Moves on after every commit, also those of other processes on the same database.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.engine.changes()
    }

    /// What was done since the store was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Why the newest change could not be written: the disk is full or gone, say. None when it was; every node writes
    /// its beat each two seconds, so that this is about now.
    #[must_use]
    pub fn failing(&self) -> Option<Error> {
        self.engine.failing()
    }

    /// Checks the audit's chains.
    ///
    /// # Errors
    /// [`Error`] when the store fails; a fault in a chain stands in the report.
    pub async fn verify(&self) -> Result<AuditReport, Error> {
        self.read(|tx| audit::verify(tx, &[])).await
    }

    /// Seals the audit from here on, and begins this node's chain if it has none yet.
    ///
    /// # Errors
    /// [`Error`] when the store fails.
    pub async fn seal_audit(&self, key: audit::Key) -> Result<(), Error> {
        self.engine.set_audit_key(key);
        self.write(audit::begin).await
    }

    /// Writes a backup to a new file, as the database is at one moment, while it is in use.
    ///
    /// # Errors
    /// [`Error::Backup`] when the file is there already or can't be written, [`Error::Unsupported`] for a
    /// database without a file.
    pub async fn back_up(&self, to: PathBuf) -> Result<Saved, Error> {
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || engine.back_up(&to))
            .await
            .unwrap_or(Err(Error::Panicked))
    }

    /// Finishes what was begun and closes the database, for all handles. Blocks until that is done.
    pub fn close(self) {
        self.engine.close();
    }

    async fn submit<T, E>(
        &self,
        access: Access,
        operation: impl FnMut(&mut dyn Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (task, answer) = Task::new(operation);
        self.engine.submit(access, Box::new(task));
        answer.await.unwrap_or_else(|_| Err(E::from(Error::Closed)))
    }
}
