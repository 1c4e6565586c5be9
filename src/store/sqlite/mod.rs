//! The SQLite engine: one writer thread, a few readers.
//!
//! The writer takes all operations that wait, runs each in a savepoint, and commits them together: one
//! durable commit, then the answers. Readers see committed states only. An in-memory database has one
//! connection, so there the writer reads too.
//!
//! Several processes of one host may share a file; [`locks`] says how they take turns, and the writer sees the
//! others' commits by SQLite's `data_version`. The file is never opened but through SQLite: closing another
//! descriptor would drop SQLite's own locks.

mod connection;
#[cfg(test)]
pub(crate) mod inline;
mod locks;
mod migrate;
mod offline;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use rusqlite::Connection;
use tracing::{Span, info, warn};

use self::{
    connection::{Author, SqliteTransaction},
    locks::{LockWait, Locks},
    writer::Writer,
};
use crate::{
    fault::FaultPoints,
    store::{
        Check, Glance, Inspection, Saved, Schema, audit,
        engine::{Access, Engine, Job, Stats},
        error::Error,
        queue::{Popped, Queue, Refused},
    },
    telemetry::error_chain,
    watch,
};

/// An open SQLite database with its threads.
pub(super) struct Sqlite {
    shared: Arc<Shared>,
    /// Without readers, reads go to the writer.
    has_readers: bool,
    /// None for a database that ends with this engine.
    path: Option<PathBuf>,
}

/// What can be told of a file; see [`crate::store::inspect`].
pub(super) fn inspect(path: &Path, check: &Check) -> Result<Inspection, Error> {
    offline::inspect(path, check)
}

/// What a quick look at a file tells.
pub(super) fn glance(path: &Path, patience: Duration) -> Result<Glance, Error> {
    offline::glance(path, patience)
}

/// What belongs to a file.
pub(super) fn side_files(path: &Path) -> Vec<PathBuf> {
    let beside = |end: &str| {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        PathBuf::from(file)
    };
    vec![
        path.with_extension("turn"),
        path.with_extension("write"),
        beside("-wal"),
        beside("-shm"),
    ]
}

/// Whether some process holds the database for writing for longer than that: our own lock, or the engine's.
pub(super) fn is_lock_held(path: &Path, patience: Duration) -> std::io::Result<bool> {
    Ok(locks::is_held(path, patience)? || offline::is_locked(path, patience))
}

/// The schema of a file.
pub(super) fn schema(path: &Path) -> Result<Schema, Error> {
    offline::schema(path)
}

/// What the threads of one database have in common.
struct Shared {
    author: Author,
    /// Where a test stops the writer.
    points: FaultPoints,
    writes: Queue<Pending>,
    reads: Queue<Pending>,
    changes: watch::Sender<u64>,
    commits: AtomicU64,
    commit_failures: AtomicU64,
    /// Why the newest change could not be written.
    failing: Mutex<Option<Error>>,
    /// How long the commits took, in nanoseconds.
    commit_nanos: AtomicU64,
    writes_kept: AtomicU64,
    reads_run: AtomicU64,
    lock_wait: LockWait,
    desks: Vec<Desk>,
    running: Mutex<Threads>,
    ended: Condvar,
}

/// A reading connection that callers use on their own threads, one at a time; none once the database is closed.
type Desk = Mutex<Option<Connection>>;

/// The threads that have not ended.
#[derive(Default)]
struct Threads {
    count: usize,
    /// Those that ever ran, to tell our own from others.
    ids: Vec<ThreadId>,
}

/// A job that waits, with what it may do.
struct Pending {
    access: Access,
    job: Box<dyn Job>,
}

impl Sqlite {
    /// Opens or makes the database in a file.
    pub(super) fn open(path: &Path, node: &str, points: FaultPoints) -> Result<Self, Error> {
        let locks = Locks::open(path)?;
        let lock_wait = LockWait::default();
        let turn = locks.take(&lock_wait)?;
        let mut connection = connection::open_writer(path)?;
        migrate::run(&mut connection)?;
        drop(turn);
        let desks = (0..thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MOST_DESKS))
            .map(|_| connection::open_reader(path).map(|desk| Mutex::new(Some(desk))))
            .collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared::new(node, lock_wait, desks, points));
        let sqlite = Self {
            shared: Arc::clone(&shared),
            has_readers: true,
            path: Some(path.to_owned()),
        };
        // From here on, dropping `sqlite` ends what was started.
        sqlite.start_writer(connection, Some(Arc::new(locks)))?;
        for number in 0..READERS {
            sqlite.start_reader(path, number)?;
        }
        Ok(sqlite)
    }

    /// Makes a database that ends with this engine.
    pub(super) fn in_memory(node: &str, points: FaultPoints) -> Result<Self, Error> {
        let mut connection = connection::open_in_memory()?;
        migrate::run(&mut connection)?;
        let sqlite = Self {
            shared: Arc::new(Shared::new(node, LockWait::default(), Vec::new(), points)),
            has_readers: false,
            path: None,
        };
        sqlite.start_writer(connection, None)?;
        Ok(sqlite)
    }

    fn start_writer(&self, connection: Connection, locks: Option<Arc<Locks>>) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        // Now and not in the thread: what others commit once the store is open must be noticed.
        let data_version = writer::read_data_version(&connection);
        self.start("store-writer", move || {
            Writer::new(&shared, connection, locks, data_version).run();
        })
    }

    fn start_reader(&self, path: &Path, number: usize) -> Result<(), Error> {
        let connection = connection::open_reader(path)?;
        let shared = Arc::clone(&self.shared);
        // One of them has an eye on the writer, which can't tell by itself that it is stuck.
        let patience = if number == 0 {
            WATCH_EVERY
        } else {
            Duration::MAX
        };
        self.start("store-reader", move || {
            shared.read_until_closed(&connection, patience);
        })
    }

    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let running = Running::new(&self.shared);
        let span = Span::current();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                running.note_thread();
                span.in_scope(work);
                drop(running);
            })
            .map(drop)
            .map_err(|e| Error::Thread(Arc::new(e)))
    }
}

impl Engine for Sqlite {
    fn submit(&self, access: Access, job: Box<dyn Job>) {
        let job = match access {
            Access::LookUp => match self.shared.look_up(job) {
                Some(job) => job,
                None => return,
            },
            Access::Read | Access::Write => job,
        };
        let queue = match access {
            Access::LookUp | Access::Read if self.has_readers => &self.shared.reads,
            Access::LookUp | Access::Read | Access::Write => &self.shared.writes,
        };
        match queue.push(Pending { access, job }) {
            Ok(()) => {}
            Err(Refused::Closed(pending)) => pending.job.answer(Err(Error::Closed)),
            Err(Refused::Full(pending)) => pending.job.answer(Err(Error::Busy)),
        }
    }

    fn set_audit_key(&self, key: audit::Key) {
        // Ours is already there, or nobody's.
        let _ = self.shared.author.key.set(key);
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn back_up(&self, to: &Path) -> Result<Saved, Error> {
        match &self.path {
            Some(path) => offline::back_up(path, to),
            None => Err(Error::Unsupported(
                "a store in memory has no file to back up",
            )),
        }
    }

    fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn failing(&self) -> Option<Error> {
        self.shared.failing().clone()
    }

    fn close(&self) {
        self.shared.close();
        let running = self.shared.threads();
        // A thread of ours drops the last handle when an operation held it: it can't wait for itself.
        let own = usize::from(running.ids.contains(&thread::current().id()));
        let (running, _) = self
            .shared
            .ended
            .wait_timeout_while(running, CLOSE_WITHIN, |running| running.count > own)
            .unwrap_or_else(PoisonError::into_inner);
        if running.count > own {
            warn!("the store still waits for its lock file; what waits for it is not written yet");
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("node", &self.shared.author.node)
            .field("has_readers", &self.has_readers)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(node: &str, lock_wait: LockWait, desks: Vec<Desk>, points: FaultPoints) -> Self {
        Self {
            author: Author::new(node),
            points,
            writes: Queue::new(QUEUE),
            reads: Queue::new(QUEUE),
            changes: watch::Sender::new(0),
            commits: AtomicU64::new(0),
            commit_failures: AtomicU64::new(0),
            failing: Mutex::default(),
            commit_nanos: AtomicU64::new(0),
            writes_kept: AtomicU64::new(0),
            reads_run: AtomicU64::new(0),
            lock_wait,
            desks,
            running: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            commits: self.commits.load(Ordering::Relaxed),
            commit_failures: self.commit_failures.load(Ordering::Relaxed),
            writes: self.writes_kept.load(Ordering::Relaxed),
            reads: self.reads_run.load(Ordering::Relaxed),
            commit_time: Duration::from_nanos(self.commit_nanos.load(Ordering::Relaxed)),
            waiting_writes: self.writes.len(),
            waiting_reads: self.reads.len(),
            lock_wait: self.lock_wait.length(),
        }
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.reads.close();
        self.writes.close();
        for desk in &self.desks {
            desk.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Runs a look-up here and now if a connection is free; else gives it back, to take its turn with the readers.
    fn look_up(&self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let free = self.desks.iter().find_map(|desk| match desk.try_lock() {
            Ok(desk) => Some(desk),
            Err(TryLockError::Poisoned(desk)) => Some(desk.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        match free.as_deref() {
            Some(Some(connection)) => {
                let access = Access::LookUp;
                self.read(connection, Pending { access, job });
                None
            }
            Some(None) | None => Some(job),
        }
    }

    fn read_until_closed(&self, connection: &Connection, patience: Duration) {
        loop {
            match self.reads.pop(patience) {
                Popped::Closed => return,
                Popped::Idle => {}
                Popped::Item(pending) => self.read(connection, pending),
            }
            self.lock_wait.warn_if_long();
        }
    }

    fn read(&self, connection: &Connection, mut pending: Pending) {
        if pending.job.is_abandoned() {
            return;
        }
        let verdict = connection::execute(connection, "BEGIN").and_then(|()| {
            pending
                .job
                .run(&mut SqliteTransaction::reading(connection, &self.author));
            if connection.is_autocommit() {
                Ok(())
            } else {
                connection::execute(connection, "ROLLBACK")
            }
        });
        self.reads_run.fetch_add(1, Ordering::Relaxed);
        pending.job.answer(verdict);
    }

    fn failing(&self) -> MutexGuard<'_, Option<Error>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps why a change could not be written, until one is.
    fn has_failed(&self, error: &Error) {
        self.commit_failures.fetch_add(1, Ordering::Relaxed);
        let before = self.failing().replace(error.clone());
        if before.is_none() {
            warn!(
                cause = error_chain(error),
                hint = error.advice(),
                "the database can't be written: all that needs it is refused until it can be"
            );
        }
    }

    /// A change is durable.
    fn has_committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let before = self.failing().take();
        if before.is_some() {
            info!("the database can be written again");
        }
        self.announce();
    }

    /// Tells whoever watches that the database has changed.
    fn announce(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Counts a thread for as long as it lives.
struct Running(Arc<Shared>);

impl Running {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.threads().count += 1;
        Self(Arc::clone(shared))
    }

    fn note_thread(&self) {
        self.0.threads().ids.push(thread::current().id());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            // Without this thread nobody would be answered: better that all are refused.
            self.0.close();
            while self.0.reads.try_pop().is_some() || self.0.writes.try_pop().is_some() {}
        }
        let mut running = self.0.threads();
        running.count = running.count.saturating_sub(1);
        drop(running);
        self.0.ended.notify_all();
    }
}

// Threads that read. Reads are short and the hot ones come from memory, so few will do.
const READERS: usize = 2;

// Connections for look-ups on the callers' threads: one per core, since more can't run at once.
const MOST_DESKS: usize = 8;

// Operations that may wait for each kind of thread. Far more than the edges let in at once.
const QUEUE: usize = 8_192;

// How often the writer's wait for the lock file is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

// How long closing waits for what was begun.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
