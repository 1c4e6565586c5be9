//! SQLite without threads, on a database that outlives the nodes that use it.
//!
//! A [`Disk`] is what is durable of one cluster. Each of its nodes opens a store on it and has a task in place of the
//! writer's thread: it waits as long as a disk would, runs what has come meanwhile with the writer's own code, waits
//! again, and answers. So a node whose [`Power`] is cut before the commit leaves nothing behind, and one that is cut
//! between the commit and the answer leaves what nobody was told of.

pub(crate) mod journal;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, backup::Backup};
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    Pending, Shared, connection,
    connection::{Author, SqliteTransaction},
    locks::LockWait,
    migrate,
    writer::{self, Answers},
};
use crate::{
    chance::Chance,
    fault::{self, Bug, FaultPoints},
    store::{
        Saved, Store, Transaction, audit,
        engine::{Access, Engine, Job, Stats},
        error::Error,
        queue::Refused,
    },
    watch,
};

/// What is durable of a cluster. Cheap to clone; clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Platter>);

struct Platter {
    connection: Mutex<Connection>,
    /// The nodes that have it open.
    users: Mutex<Vec<Weak<Shared>>>,
    refuses_commits: Arc<AtomicBool>,
    is_busy: AtomicBool,
    /// Since when there is a journal of its sessions.
    journal: OnceLock<Instant>,
}

/// What a disk was at one moment.
pub(crate) struct Snapshot(Mutex<Connection>);

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// No commit comes through.
    Commits,
    /// What takes more room is refused.
    Full,
    /// Too many operations wait.
    Busy,
}

impl Disk {
    /// An empty one, with the schema.
    pub(crate) fn new() -> Self {
        let mut connection = connection::open_in_memory().unwrap();
        migrate::run(&mut connection).unwrap();
        Self::of(connection)
    }

    /// A disk of its own that begins as this one is.
    pub(crate) fn copy(&self) -> Self {
        let mut connection = connection::open_in_memory().unwrap();
        copy(&self.connection(), &mut connection);
        Self::of(connection)
    }

    fn of(mut connection: Connection) -> Self {
        let refuses_commits = Arc::new(AtomicBool::new(false));
        let refuses = Arc::clone(&refuses_commits);
        connection
            .commit_hook(Some(move || refuses.load(Ordering::Relaxed)))
            .unwrap();
        Self(Arc::new(Platter {
            connection: Mutex::new(connection),
            users: Mutex::default(),
            refuses_commits,
            is_busy: AtomicBool::new(false),
            journal: OnceLock::new(),
        }))
    }

    /// Keeps what is on it now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut kept = Connection::open_in_memory().unwrap();
        copy(&self.connection(), &mut kept);
        Snapshot(Mutex::new(kept))
    }

    /// Makes it what it was. Its nodes should be down.
    pub(crate) fn restore(&self, snapshot: &Snapshot) {
        let kept = snapshot.0.lock().unwrap();
        copy(&kept, &mut self.connection());
    }

    /// From here on each change of a session is kept; see [`journal`].
    pub(crate) fn begin_journal(&self) {
        if self.0.journal.set(Instant::now()).is_ok() {
            journal::begin(&self.connection());
        }
    }

    /// What has become of its sessions since then; nothing before there is a journal.
    pub(crate) fn journal(&self) -> Vec<journal::Change> {
        match self.0.journal.get() {
            Some(_) => self.with(journal::read),
            None => Vec::new(),
        }
    }

    /// Puts something wrong, or right.
    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        let has = |one| trouble == one;
        self.0
            .refuses_commits
            .store(has(Trouble::Commits), Ordering::Relaxed);
        self.0.is_busy.store(has(Trouble::Busy), Ordering::Relaxed);
        // Less than there are means as many as there are.
        let most: i64 = if has(Trouble::Full) { 1 } else { 1 << 30 };
        self.connection()
            .query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))
            .unwrap();
    }

    /// Looks at what is durable, or changes it behind the back of its nodes.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut dyn Transaction) -> T) -> T {
        let connection = self.connection();
        connection::execute(&connection, "BEGIN").unwrap();
        let author = Author::new("disk");
        let result = work(&mut SqliteTransaction::new(&connection, &author));
        connection::execute(&connection, "COMMIT").unwrap();
        result
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic of a test under the lock is that test's end.
        self.0
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, shared: &Shared, first: Pending) -> Answers {
        let connection = self.connection();
        if let Some(began) = self.0.journal.get() {
            journal::moment(&connection, began.elapsed());
        }
        // However long it takes on this machine: that must not decide what happens.
        writer::run_together(shared, &connection, first, Duration::MAX)
    }

    /// Tells the other nodes that something has changed.
    fn tell_others(&self, shared: &Arc<Shared>) {
        let mut users = self.0.users.lock().unwrap();
        users.retain(|user| user.strong_count() > 0);
        let others: Vec<_> = users.iter().filter_map(Weak::upgrade).collect();
        drop(users);
        for other in others {
            if !Arc::ptr_eq(&other, shared) {
                other.announce();
            }
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

fn copy(from: &Connection, to: &mut Connection) {
    let backup = Backup::new(from, to).unwrap();
    let all = backup.step(-1).unwrap();
    assert_eq!(all, rusqlite::backup::StepResult::Done);
}

/// How long a node's disk takes.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// What draws the lengths.
    pub(crate) chance: Chance,
    /// Before what waits is run: less than that.
    pub(crate) before: Duration,
    /// From the commit to the answers: less than that.
    pub(crate) after: Duration,
    /// One batch of so many waits for `stall` at most; none when it is 0.
    pub(crate) stalls: u64,
    /// See `stalls`.
    pub(crate) stall: Duration,
    /// One read of so many is answered only after `before`; none when it is 0.
    pub(crate) late_reads: u64,
}

impl Schedule {
    /// A common disk: up to 15 ms for a commit, a few ms until it is told, a stall of up to 3 s now and then.
    pub(crate) fn common(chance: Chance) -> Self {
        Self {
            chance,
            before: Duration::from_millis(15),
            after: Duration::from_millis(5),
            stalls: 400,
            stall: Duration::from_secs(3),
            late_reads: 8,
        }
    }

    /// A disk that never takes longer than a moment.
    pub(crate) fn prompt() -> Self {
        let moment = Duration::from_millis(1);
        Self {
            before: moment,
            after: moment,
            stalls: 0,
            ..Self::common(Chance::seeded(0))
        }
    }

    fn before(&self) -> Duration {
        if self.chance.one_in(self.stalls) {
            self.less_than(self.stall)
        } else {
            self.less_than(self.before)
        }
    }

    fn less_than(&self, length: Duration) -> Duration {
        let millis = u64::try_from(length.as_millis()).unwrap();
        Duration::from_millis(self.chance.range(0..millis))
    }
}

impl Store {
    /// A node's store on a disk, inside a runtime; and what feeds it.
    pub(crate) fn on(disk: &Disk, node: &str, schedule: Schedule) -> (Self, Power) {
        let points = FaultPoints::none();
        let shared = Arc::new(Shared::new(node, LockWait::default(), Vec::new(), points));
        disk.0.users.lock().unwrap().push(Arc::downgrade(&shared));
        let engine = Arc::new(Inner {
            shared,
            disk: disk.clone(),
            schedule,
            rung: Notify::new(),
            is_off: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            runtime: Handle::current(),
            writer: Mutex::default(),
            undone: Mutex::default(),
        });
        let writer = engine.runtime.spawn(Arc::clone(&engine).write());
        *engine.writer.lock().unwrap() = Some(writer.abort_handle());
        let store = Self {
            engine: Arc::new(Inline(Arc::clone(&engine))),
        };
        (store, Power(engine))
    }
}

/// What a node's store lives on.
#[derive(Clone)]
pub(crate) struct Power(Arc<Inner>);

impl Power {
    /// Cuts it: whatever waits, for the disk or for an answer, is gone.
    pub(crate) fn cut(&self) {
        let inner = &self.0;
        inner.is_off.store(true, Ordering::Relaxed);
        inner.shared.close();
        if let Some(writer) = inner.writer.lock().unwrap().take() {
            writer.abort();
        }
        while let Some(job) = inner.shared.writes.try_pop() {
            drop(job);
        }
        if let Some((_, before)) = inner.undone.lock().unwrap().take() {
            inner.disk.restore(&before);
        }
    }

    /// Holds the node's disk up, or lets go of it.
    pub(crate) fn hold(&self, is_held: bool) {
        self.0.is_held.store(is_held, Ordering::Relaxed);
        self.0.rung.notify_one();
    }
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Power")
    }
}

/// The engine; closed when the last handle is gone.
struct Inline(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    disk: Disk,
    schedule: Schedule,
    rung: Notify,
    is_off: AtomicBool,
    is_held: AtomicBool,
    runtime: Handle,
    writer: Mutex<Option<AbortHandle>>,
    /// What a disk that lies about being durable loses with its power: see [`Bug::AckBeforeCommit`].
    undone: Mutex<Option<(Instant, Snapshot)>>,
}

impl Inner {
    async fn write(self: Arc<Self>) {
        while self.work().await {
            sleep(self.schedule.before()).await;
            if self.is_held() {
                continue;
            }
            let Some(first) = self.shared.writes.try_pop() else {
                continue;
            };
            self.prepare_to_lose();
            let answers = self.disk.run(&self.shared, first);
            if answers.is_durable() {
                self.disk.tell_others(&self.shared);
            }
            sleep(self.schedule.less_than(self.schedule.after)).await;
            while self.is_held() {
                self.rung.notified().await;
            }
            answers.send(&self.shared);
        }
    }

    /// Waits for work; false when there will be none.
    async fn work(&self) -> bool {
        loop {
            if !self.is_held() {
                if self.shared.writes.len() > 0 {
                    return true;
                }
                if self.shared.writes.is_closed() {
                    return false;
                }
            }
            self.rung.notified().await;
        }
    }

    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    fn read(&self, access: Access, job: Box<dyn Job>) {
        if access == Access::LookUp || !self.schedule.chance.one_in(self.schedule.late_reads) {
            return self.read_only(Pending { access, job });
        }
        // What it saw is of now; when it is told, others may have gone on.
        let (held, run) = held_back(job);
        self.read_only(Pending { access, job: run });
        let late = self.schedule.less_than(self.schedule.before);
        let told = self.runtime.spawn(async move {
            sleep(late).await;
            held.send();
        });
        drop(told);
    }

    fn read_only(&self, pending: Pending) {
        self.shared.read(&self.disk.connection(), pending);
    }

    fn prepare_to_lose(&self) {
        if !fault::has(Bug::AckBeforeCommit) {
            return;
        }
        let mut undone = self.undone.lock().unwrap();
        let is_recent = |(since, _): &(Instant, Snapshot)| since.elapsed() < LATE_COMMIT;
        if !undone.as_ref().is_some_and(is_recent) {
            *undone = Some((Instant::now(), self.disk.snapshot()));
        }
    }
}

/// Where a job waits with its outcome.
type Kept = Arc<Mutex<Option<(Box<dyn Job>, Result<(), Error>)>>>;

/// A job whose answer is kept until it is to be told.
struct HeldBack {
    job: Option<Box<dyn Job>>,
    kept: Kept,
}

/// Tells it.
struct Held(Kept);

fn held_back(job: Box<dyn Job>) -> (Held, Box<dyn Job>) {
    let kept = Arc::new(Mutex::new(None));
    let held = Held(Arc::clone(&kept));
    let job = Some(job);
    (held, Box::new(HeldBack { job, kept }))
}

impl Held {
    fn send(self) {
        if let Some((job, verdict)) = self.0.lock().unwrap().take() {
            job.answer(verdict);
        }
    }
}

impl Job for HeldBack {
    fn run(&mut self, tx: &mut dyn Transaction) -> crate::store::engine::Outcome {
        self.job.as_mut().unwrap().run(tx)
    }

    fn name(&self) -> &'static str {
        self.job.as_ref().unwrap().name()
    }

    fn is_abandoned(&self) -> bool {
        self.job.as_ref().unwrap().is_abandoned()
    }

    fn answer(mut self: Box<Self>, verdict: Result<(), Error>) {
        let job = self.job.take().unwrap();
        *self.kept.lock().unwrap() = Some((job, verdict));
    }
}

impl Engine for Inline {
    fn submit(&self, access: Access, job: Box<dyn Job>) {
        let inner = &self.0;
        if inner.is_off.load(Ordering::Relaxed) {
            return drop(job);
        }
        if inner.shared.writes.is_closed() {
            return job.answer(Err(Error::Closed));
        }
        if access != Access::Write && !inner.is_held() {
            return inner.read(access, job);
        }
        if inner.disk.0.is_busy.load(Ordering::Relaxed) {
            return job.answer(Err(Error::Busy));
        }
        match inner.shared.writes.push(Pending { access, job }) {
            Ok(()) => inner.rung.notify_one(),
            Err(Refused::Closed(pending)) => pending.job.answer(Err(Error::Closed)),
            Err(Refused::Full(pending)) => pending.job.answer(Err(Error::Busy)),
        }
    }

    fn set_audit_key(&self, key: audit::Key) {
        // Ours is already there, or nobody's.
        let _ = self.0.shared.author.key.set(key);
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.shared.changes.subscribe()
    }

    fn back_up(&self, _: &Path) -> Result<Saved, Error> {
        Err(Error::Unsupported(
            "a store in memory has no file to back up",
        ))
    }

    fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    fn failing(&self) -> Option<Error> {
        self.0.shared.failing().clone()
    }

    fn close(&self) {
        let inner = &self.0;
        inner.shared.close();
        while let Some(first) = inner.shared.writes.try_pop() {
            inner.disk.run(&inner.shared, first).send(&inner.shared);
        }
        inner.rung.notify_one();
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline")
            .field("node", &self.0.shared.author.node)
            .finish_non_exhaustive()
    }
}

// How long what was answered may be lost, where it is answered before it is durable.
const LATE_COMMIT: Duration = Duration::from_secs(1);
