//! The writer: many operations, one durable commit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    Pending, Shared,
    connection::{self, SqliteTransaction},
    locks::Locks,
};
use crate::{
    fault::Side,
    store::{
        engine::{Access, Job, Outcome},
        error::Error,
        queue::Popped,
    },
};

/// The thread that alone writes.
pub(super) struct Writer<'s> {
    shared: &'s Shared,
    connection: Connection,
    locks: Option<Arc<Locks>>,
    /// SQLite's count of other connections' commits, when last looked at.
    data_version: Option<i64>,
}

/// What the operations of one commit came to.
#[derive(Default)]
struct Batch {
    jobs: Vec<Box<dyn Job>>,
    kept: u64,
    has_changed: bool,
    /// What has changed something; only where a test wants to know.
    writes: Vec<&'static str>,
    /// The engine has given up the whole transaction, for example because the disk is full.
    is_lost: bool,
    /// Why the file could not be written, where a statement ran into that.
    trouble: Option<Error>,
}

impl<'s> Writer<'s> {
    pub(super) fn new(
        shared: &'s Shared,
        connection: Connection,
        locks: Option<Arc<Locks>>,
        data_version: Option<i64>,
    ) -> Self {
        Self {
            shared,
            connection,
            locks,
            data_version,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            match self.shared.writes.pop(POLL) {
                Popped::Closed => return,
                Popped::Idle => self.notice_others(),
                Popped::Item(first) => self.run_batch(first),
            }
        }
    }

    fn run_batch(&mut self, first: Pending) {
        let shared = self.shared;
        let locks = self.locks.clone();
        let turn = match locks
            .as_ref()
            .map(|l| l.take(&shared.lock_wait))
            .transpose()
        {
            Ok(turn) => turn,
            Err(error) => {
                shared.has_failed(&error);
                return first.job.answer(Err(error));
            }
        };
        self.notice_others();
        let answers = run_together(shared, &self.connection, first, LONGEST);
        drop(turn);
        answers.send(shared);
    }

    /// Announces commits of other processes.
    fn notice_others(&mut self) {
        if self.locks.is_none() {
            return;
        }
        let version = read_data_version(&self.connection);
        if version != self.data_version {
            self.data_version = version;
            self.shared.announce();
        }
    }
}

/// Operations that shared a commit, which has come out one way or the other; nobody has been told.
pub(super) struct Answers {
    batch: Batch,
    verdict: Result<(), Error>,
}

impl Answers {
    /// Whether something has changed for good.
    #[cfg(test)]
    pub(super) fn is_durable(&self) -> bool {
        self.verdict.is_ok() && self.batch.has_changed
    }

    /// Lets those who watch know what has changed, and everybody what came of their operation.
    pub(super) fn send(self, shared: &Shared) {
        let Self { batch, verdict } = self;
        if verdict.is_ok() && batch.has_changed {
            let kept = &shared.writes_kept;
            kept.fetch_add(batch.kept, Ordering::Relaxed);
            shared.has_committed();
        }
        if let Some(trouble) = batch.trouble.as_ref().or_else(|| verdict.as_ref().err()) {
            shared.has_failed(trouble);
        }
        for job in batch.jobs {
            job.answer(verdict.clone());
        }
    }
}

/// Runs the first operation and those that wait, for as long as more may join, and commits.
pub(super) fn run_together(
    shared: &Shared,
    connection: &Connection,
    first: Pending,
    longest: Duration,
) -> Answers {
    let mut batch = Batch::default();
    let run = Run { shared, connection };
    let verdict = match connection::execute(connection, "BEGIN IMMEDIATE") {
        Ok(()) => {
            run.run_waiting(first, &mut batch, longest);
            run.commit(&batch)
        }
        Err(error) => {
            batch.jobs.push(first.job);
            // What stood in the way of this one does in that of the others: none waits as long by itself.
            while let Some(pending) = shared.writes.try_pop() {
                batch.jobs.push(pending.job);
            }
            Err(uncommitted(error))
        }
    };
    Answers { batch, verdict }
}

/// One transaction of the writer's.
struct Run<'s> {
    shared: &'s Shared,
    connection: &'s Connection,
}

impl Run<'_> {
    /// Runs the first operation and all that wait. There is nothing yet that undoing the first one could take
    /// with it, so only those behind it need a savepoint, and a lone operation never pays for one. Undone, it ends
    /// the batch, whose transaction is then over.
    fn run_waiting(&self, mut first: Pending, batch: &mut Batch, longest: Duration) {
        let began = Instant::now();
        let undone = self.run_first(&mut first, batch);
        batch.jobs.push(first.job);
        match undone {
            Ok(true) => return,
            Ok(false) if !self.connection.is_autocommit() => {}
            Ok(false) | Err(_) => {
                batch.is_lost = true;
                return;
            }
        }
        while batch.jobs.len() < MOST_JOBS && began.elapsed() < longest {
            let Some(mut pending) = self.shared.writes.try_pop() else {
                return;
            };
            let outcome = self.run_in_savepoint(&mut pending, batch);
            batch.jobs.push(pending.job);
            if outcome.is_err() || self.connection.is_autocommit() {
                batch.is_lost = true;
                return;
            }
        }
    }

    /// In the transaction itself, which is over when the operation is undone: whether it is.
    fn run_first(&self, pending: &mut Pending, batch: &mut Batch) -> Result<bool, Error> {
        let outcome = self.run_operation(pending, batch);
        if self.connection.is_autocommit() || outcome == Outcome::Keep {
            return Ok(false);
        }
        connection::execute(self.connection, "ROLLBACK")?;
        Ok(true)
    }

    fn run_in_savepoint(&self, pending: &mut Pending, batch: &mut Batch) -> Result<(), Error> {
        let connection = self.connection;
        connection::execute(connection, "SAVEPOINT operation")?;
        let outcome = self.run_operation(pending, batch);
        if connection.is_autocommit() {
            return Ok(());
        }
        if outcome == Outcome::Undo {
            connection::execute(connection, "ROLLBACK TO operation")?;
        }
        connection::execute(connection, "RELEASE operation")
    }

    /// Runs one operation, and counts it if it is to stand.
    fn run_operation(&self, pending: &mut Pending, batch: &mut Batch) -> Outcome {
        let (connection, author) = (self.connection, &self.shared.author);
        let mut transaction = match pending.access {
            Access::LookUp | Access::Read => SqliteTransaction::reading(connection, author),
            Access::Write => SqliteTransaction::new(connection, author),
        };
        let mut outcome = pending.job.run(&mut transaction);
        if pending.access != Access::Write {
            self.shared.reads_run.fetch_add(1, Ordering::Relaxed);
            outcome = Outcome::Undo;
        }
        if outcome == Outcome::Keep && !connection.is_autocommit() && transaction.has_changed() {
            batch.kept += 1;
            batch.has_changed = true;
            if self.shared.points.is_at_commit() {
                batch.writes.push(pending.job.name());
            }
        }
        if pending.access == Access::Write {
            batch.trouble = batch.trouble.take().or_else(|| transaction.into_trouble());
        }
        outcome
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        let began = Instant::now();
        let number = self.shared.commits.load(Ordering::Relaxed).wrapping_add(1);
        let is_durable = batch.has_changed && !batch.is_lost;
        if is_durable {
            let points = &self.shared.points;
            points.pass_commit(Side::Before, number, &batch.writes);
        }
        let committed = if batch.is_lost {
            Err(uncommitted_silently())
        } else if self.connection.is_autocommit() {
            // Its only operation was undone: there is nothing to commit.
            Ok(())
        } else {
            connection::execute(self.connection, "COMMIT").map_err(uncommitted)
        };
        if is_durable && committed.is_ok() {
            let points = &self.shared.points;
            points.pass_commit(Side::After, number, &batch.writes);
        }
        if batch.has_changed {
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.shared.commit_nanos.fetch_add(took, Ordering::Relaxed);
        }
        if committed.is_err() && !self.connection.is_autocommit() {
            // If even this fails, the next BEGIN does too, and all are refused until it works again.
            let _ = connection::execute(self.connection, "ROLLBACK");
        }
        committed
    }
}

/// SQLite's count of other connections' commits, as this connection sees it.
pub(super) fn read_data_version(connection: &Connection) -> Option<i64> {
    connection
        .prepare_cached("PRAGMA data_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .ok()
}

fn uncommitted(error: Error) -> Error {
    match error {
        Error::Statement { source, .. } => Error::Commit(source),
        other => Error::Commit(Arc::new(other)),
    }
}

fn uncommitted_silently() -> Error {
    Error::Commit(Arc::new(Lost))
}

/// The engine ended the transaction under an operation.
#[derive(Debug, thiserror::Error)]
#[error("the database gave up the transaction")]
struct Lost;

// How soon commits of other processes are seen by an idle writer.
const POLL: Duration = Duration::from_millis(200);

// The most operations that share a commit.
const MOST_JOBS: usize = 512;

// After this long no further operation joins a commit: those in it wait for their answers.
const LONGEST: Duration = Duration::from_millis(50);
