//! What an engine is: it runs jobs in transactions. SQLite is one; others fit behind the same trait.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    clock::{self, Timestamp},
    store::{
        Saved, audit,
        cluster_time::ClusterClock,
        error::Error,
        value::{Row, Value},
    },
    watch,
};

/// A transaction, as the operations see it.
///
/// Statements are text that every engine takes: `$1`, `$2`, … appear in that order first. A statement that
/// fails undoes itself only; the transaction can go on.
pub trait Transaction {
    /// The node that runs it; its audit entries carry that name.
    fn node(&self) -> &str;

    /// What seals the audit; none where the node's pepper is not at hand.
    fn audit_key(&self) -> Option<&audit::Key> {
        None
    }

    /// What counts cluster time between the values on record.
    fn cluster_clock(&self) -> &ClusterClock;

    /// Cluster time now; see [`cluster_time`](super::cluster_time). It never goes back.
    ///
    /// # Errors
    /// [`Error`] when the store fails.
    fn cluster_now(&mut self) -> Result<Timestamp, Error> {
        let recorded = self
            .query_one("SELECT at FROM cluster_time WHERE only = 1", &[])?
            .map(|mut row| row.time())
            .transpose()?;
        Ok(self.cluster_clock().at(recorded, clock::instant()))
    }

    /// Runs a statement that gives rows.
    ///
    /// # Errors
    /// [`Error::Statement`] when the engine refuses it.
    fn query(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error>;

    /// Runs a statement that gives none, and tells how many rows it changed.
    ///
    /// # Errors
    /// [`Error::Unique`] or [`Error::Statement`] when the engine refuses it.
    fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, Error>;

    /// Runs a statement and gives the first of its rows.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    fn query_one(&mut self, sql: &str, args: &[Value]) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, args)?.into_iter().next())
    }
}

/// What a store has done since it was opened, for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Durable commits.
    pub commits: u64,
    /// Transactions that could not be written, so that nothing of them stands.
    pub commit_failures: u64,
    /// Write operations that stand and have changed something.
    pub writes: u64,
    /// Read operations that ran.
    pub reads: u64,
    /// How long the commits took, all together.
    pub commit_time: Duration,
    /// Write operations that wait for the writer.
    pub waiting_writes: usize,
    /// Read operations that wait for a reader.
    pub waiting_reads: usize,
    /// For how long the writer has been waiting for another process to let go of the database; zero when it isn't.
    pub lock_wait: Duration,
}

/// Whether a job may change rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A read of a few rows by key: worth less than the way to another thread and back.
    LookUp,
    Read,
    Write,
}

/// Whether what a job did should stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Keep,
    Undo,
}

/// One operation on its way through an engine: run (perhaps again), then answered once.
pub(super) trait Job: Send {
    /// Runs it in a transaction of its own, or in a savepoint of one that is shared.
    fn run(&mut self, tx: &mut dyn Transaction) -> Outcome;

    /// What it is: the path of its code.
    fn name(&self) -> &'static str;

    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;

    /// Answers: what it gave if the transaction stands, otherwise the error for all in it.
    fn answer(self: Box<Self>, verdict: Result<(), Error>);
}

/// Runs jobs. Every engine gives the same answers.
pub(super) trait Engine: fmt::Debug + Send + Sync {
    /// Takes a job, or answers it with [`Error::Busy`] or [`Error::Closed`]. Never waits.
    fn submit(&self, access: Access, job: Box<dyn Job>);

    /// Gives what seals the audit from here on. Once: a second key is not taken.
    fn set_audit_key(&self, key: audit::Key);

    /// Counts commits: our own, and those of others that share the database.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Writes a backup to a new file. Blocks, and holds up nobody else.
    fn back_up(&self, to: &Path) -> Result<Saved, Error>;

    /// What was done so far.
    fn stats(&self) -> Stats;

    /// Why the newest transaction that should have changed something could not be written; none when it was.
    fn failing(&self) -> Option<Error>;

    /// Takes no more jobs, finishes those it has, and waits for that.
    fn close(&self);
}

/// A job out of a closure, with the channel for its answer.
pub(super) struct Task<F, T, E> {
    operation: F,
    result: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Task<F, T, E>
where
    F: FnMut(&mut dyn Transaction) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    pub(super) fn new(operation: F) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (answer, receiver) = oneshot::channel();
        let task = Self {
            operation,
            result: None,
            answer,
        };
        (task, receiver)
    }
}

impl<F, T, E> Job for Task<F, T, E>
where
    F: FnMut(&mut dyn Transaction) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &mut dyn Transaction) -> Outcome {
        // What an unwound operation left behind is undone with its savepoint, and its captures are not used
        // again.
        let result = catch_unwind(AssertUnwindSafe(|| (self.operation)(tx)))
            .unwrap_or_else(|_| Err(E::from(Error::Panicked)));
        let outcome = if result.is_ok() {
            Outcome::Keep
        } else {
            Outcome::Undo
        };
        self.result = Some(result);
        outcome
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<F>()
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn answer(self: Box<Self>, verdict: Result<(), Error>) {
        let result = match verdict {
            Ok(()) => self.result.unwrap_or_else(|| Err(E::from(Error::Closed))),
            Err(error) => Err(E::from(error)),
        };
        // The caller may have gone; what was committed stands all the same.
        let _ = self.answer.send(result);
    }
}
