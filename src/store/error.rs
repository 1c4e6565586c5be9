//! What can go wrong in the store, by who must act.

use std::{io, path::PathBuf, sync::Arc};

use crate::domain::ids::ClusterId;

/// The error of an engine under the store, shared by all whom it concerns.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// Why an operation on the store was not done.
///
/// No variant carries a stored or bound value: any of them may be logged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A backup could not be written; the operator must name a file that can be made.
    #[error("could not write the backup {}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What the system or the engine said.
        #[source]
        source: Source,
    },
    /// Too many operations wait; try again later.
    #[error("too many operations are waiting for the store")]
    Busy,
    /// Another node does the task now; whoever held it before may change nothing more.
    #[error("another node has taken over \"{task}\" after generation {generation}")]
    ClaimLost {
        /// What.
        task: String,
        /// The generation that was held.
        generation: i64,
    },
    /// The store was closed before the operation ran.
    #[error("the store is closed")]
    Closed,
    /// The transaction that held the operation could not be made durable: nothing of it stands.
    #[error("could not commit to the store")]
    Commit(#[source] Source),
    /// The fingerprint is pinned for another peer; the operator must decide whose it is.
    #[error("the fingerprint is already pinned for {0}")]
    FingerprintTaken(ClusterId),
    /// The lock that processes sharing the store take in turn failed; the operator must mend the file system.
    #[error("could not lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The schema could not be brought up to date.
    #[error("could not migrate the store's schema")]
    Migration(#[source] Source),
    /// A newer emccd has written here; this one must not.
    #[error(
        "the store's schema is version {found}, this emccd knows versions up to {known}: run the newer emccd"
    )]
    NewerSchema {
        /// The version in the store.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// The database could not be opened.
    #[error("could not open the store {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// What the engine said.
        #[source]
        source: Source,
    },
    /// The operation panicked: our bug. Nothing of it stands.
    #[error("the operation panicked and was undone")]
    Panicked,
    /// A statement failed.
    #[error("a statement failed: {sql}")]
    Statement {
        /// Its text, without values.
        sql: String,
        /// What the engine said.
        #[source]
        source: Source,
    },
    /// A stored value is not what the schema promises: the file was changed by others, or our bug.
    #[error("column {column} of a stored row is not {expected}")]
    Stored {
        /// Counted from 0, in the order of the query.
        column: usize,
        /// What it should have been.
        expected: &'static str,
    },
    /// A thread of the store could not be started.
    #[error("could not start a thread of the store")]
    Thread(#[source] Arc<io::Error>),
    /// The row would break a rule of uniqueness.
    #[error("another row stands in the way of {constraint}")]
    Unique {
        /// The name of the unique index.
        constraint: String,
    },
    /// A value can't be written as JSON: our bug.
    #[error("could not encode a value for the store")]
    Unencodable(#[source] Arc<serde_json::Error>),
    /// The store URL names something this build can't use.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl Error {
    /// Whether it says that the file is no whole database, whoever opens it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self.engine_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
        )
    }

    /// What an operator does about it, where it is the disk or another process that stands in the way.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        use rusqlite::ErrorCode;
        Some(match self.engine_code()? {
            ErrorCode::DiskFull => "make room on the disk that the database is on",
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                "see that the file system is mounted for writing and the files belong to the daemon's user"
            }
            ErrorCode::SystemIoFailure => {
                "see what the system's log says of that disk (dmesg), and that its file system is mounted for writing \
                 (findmnt -T FILE)"
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                "end the other program that has locked the database (fuser -v FILE names it)"
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                "stop the daemon and restore a backup; emccd db verify FILE tells more"
            }
            _ => return None,
        })
    }

    /// What the engine said, however deep it is.
    fn engine_code(&self) -> Option<rusqlite::ErrorCode> {
        let (Self::Commit(source)
        | Self::Migration(source)
        | Self::Open { source, .. }
        | Self::Statement { source, .. }) = self
        else {
            return None;
        };
        match source.downcast_ref::<Self>() {
            Some(inner) => inner.engine_code(),
            None => source
                .downcast_ref::<rusqlite::Error>()?
                .sqlite_error_code(),
        }
    }

    /// The file that could not be opened or locked.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Self::Lock { path, .. } | Self::Open { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether it is the unique index `constraint` that stands in the way.
    #[must_use]
    pub fn is_unique(&self, constraint: &str) -> bool {
        matches!(self, Self::Unique { constraint: found } if found == constraint)
    }
}
