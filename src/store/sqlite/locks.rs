//! Turns between the processes that share a file.
//!
//! SQLite's own waiting is unfair: it sleeps and tries again, so a busy process starves the others. Instead a
//! process locks `store.turn`, then `store.write`, lets go of `turn`, and lets go of `write` after its commit.
//! Whoever waits longest in `turn` is next. (The names are the database's, with other endings.) The system
//! lets go of the locks of a process that has died; one that is stopped while it holds them blocks the file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::store::error::Error;

/// The two lock files of a database.
#[derive(Debug)]
pub(super) struct Locks {
    turn: LockFile,
    write: LockFile,
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'l> {
    write: &'l LockFile,
}

#[derive(Debug)]
struct LockFile {
    file: File,
    path: PathBuf,
}

impl Locks {
    pub(super) fn open(database: &Path) -> Result<Self, Error> {
        Ok(Self {
            turn: LockFile::open(database, "turn")?,
            write: LockFile::open(database, "write")?,
        })
    }

    /// Waits for the turn of this process.
    pub(super) fn take(&self, wait: &LockWait) -> Result<Turn<'_>, Error> {
        wait.begin(&self.write.path);
        let locked = self.turn.lock().and_then(|()| {
            let locked = self.write.lock();
            self.turn.unlock();
            locked
        });
        wait.end();
        locked.map(|()| Turn { write: &self.write })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.write.unlock();
    }
}

impl LockFile {
    fn open(database: &Path, extension: &str) -> Result<Self, Error> {
        let path = database.with_extension(extension);
        let open = || -> io::Result<File> {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            // Root may work on a service's database: whom that belongs to must be able to open these as well.
            if let Ok(database) = database.metadata() {
                let ours = file.metadata()?;
                if (ours.uid(), ours.gid()) != (database.uid(), database.gid()) {
                    // Others than root can give nothing away, and need not.
                    let _ = fchown(&file, Some(database.uid()), Some(database.gid()));
                }
            }
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err(unlocked(&path, error)),
        }
    }

    fn lock(&self) -> Result<(), Error> {
        loop {
            match self.file.lock() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(|e| unlocked(&self.path, e)),
            }
        }
    }

    fn unlock(&self) {
        if let Err(error) = self.file.unlock() {
            warn!(path = %self.path.display(), %error, "could not let go of a lock file");
        }
    }
}

fn unlocked(path: &Path, source: io::Error) -> Error {
    Error::Lock {
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

/// Whether some process holds the write lock for longer than `patience`. It is taken for a moment, if it can be.
pub(super) fn is_held(database: &Path, patience: Duration) -> io::Result<bool> {
    /// A writer that is busy lets go of it many times within this.
    const AGAIN: Duration = Duration::from_millis(2);
    let path = database.with_extension("write");
    if !path.exists() {
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock().map(|()| false),
            Err(TryLockError::WouldBlock) if Instant::now() < until => wait(AGAIN),
            Err(TryLockError::WouldBlock) => return Ok(true),
            Err(TryLockError::Error(cause)) => return Err(cause),
        }
    }
}

/// This thread has nothing else to do.
fn wait(length: Duration) {
    std::thread::park_timeout(length);
}

/// Since when the writer waits for its turn: looked at by another thread, since the writer itself is stuck then.
#[derive(Debug, Default)]
pub(super) struct LockWait(Mutex<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    path: PathBuf,
    is_told: bool,
}

impl LockWait {
    fn begin(&self, path: &Path) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Waiting {
            since: Instant::now(),
            path: path.to_owned(),
            is_told: false,
        });
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Says so once when the wait is long, with what to do.
    pub(super) fn warn_if_long(&self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = |waiting: &&mut Waiting| !waiting.is_told && waiting.since.elapsed() > LONG;
        if let Some(waiting) = waiting.as_mut().filter(is_news) {
            waiting.is_told = true;
            warn!(
                path = %waiting.path.display(),
                "another process holds the store's write lock and does not let go; \
                 a stopped one has to be continued or killed (`fuser` names it)"
            );
        }
    }

    /// For how long the writer has been waiting; zero when it isn't.
    pub(super) fn length(&self) -> Duration {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .as_ref()
            .map_or(Duration::ZERO, |waiting| waiting.since.elapsed())
    }
}

// Far longer than any transaction may hold the lock.
const LONG: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn one_writes_at_a_time_and_the_next_one_follows() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("store.db");
        let (one, two) = (
            Locks::open(&database).unwrap(),
            Locks::open(&database).unwrap(),
        );
        let turn = one.take(&LockWait::default()).unwrap();
        assert!(dir.path().join("store.write").exists());
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let turn = two.take(&LockWait::default()).unwrap();
                tell.send(()).unwrap();
                drop(turn);
            });
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
            drop(turn);
            told.recv_timeout(Duration::from_secs(5)).unwrap();
        });
    }

    #[test]
    fn a_lock_file_that_cannot_be_made_is_named() {
        let refused = Locks::open(Path::new("/nowhere/at/all/store.db")).unwrap_err();
        assert!(refused.to_string().contains("store.turn"), "{refused}");
    }
}
