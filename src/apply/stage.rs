//! Many rows on their way into the store: they wait in batches, seen by nobody, and one short transaction puts
//! them in place. [`crate::store::imports`] has the picture.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::{
    Applier, Progress, Step, Undone,
    check::Rows,
    columns::KINDS,
    item::{Item, Stamp, for_every_kind},
    outcome,
    plan::{Plan, whose},
};
use crate::{
    store::{
        self, Transaction,
        imports::{self, Action, Waiting},
    },
    watch,
};

/// An import whose rows wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    pub(super) id: i64,
    /// How many.
    pub(super) rows: i64,
}

impl Applier {
    /// Has everything that the plan changes wait.
    pub(super) async fn stage(
        &self,
        rows: &Arc<Rows>,
        plan: &Arc<Plan>,
        stamp: &Stamp,
        told: &watch::Sender<Progress>,
    ) -> Result<Staged, Undone> {
        let (actor, now) = (stamp.actor.clone(), stamp.at);
        let begin = move |tx: &mut dyn Transaction| imports::begin(tx, &actor, now);
        let mut staged = Staged {
            id: self.store.write(begin).await?,
            rows: 0,
        };
        let added = self.add(&mut staged, rows, plan, told).await;
        if added.is_err() {
            self.forget(staged.id).await;
        }
        added.map(|()| staged)
    }

    async fn add(
        &self,
        staged: &mut Staged,
        rows: &Arc<Rows>,
        plan: &Arc<Plan>,
        told: &watch::Sender<Progress>,
    ) -> Result<(), Undone> {
        let of = plan.writes();
        for kind in KINDS {
            let places = plan.places.get(kind.name).into_iter().flatten();
            let places: Vec<_> = places.copied().collect();
            for some in places.chunks(BATCH) {
                let mut waiting = Vec::with_capacity(some.len());
                for_every_kind!(wait(rows, plan, kind.name, some, &mut waiting));
                self.add_batch(staged, waiting, of, told).await?;
            }
            let gone = plan.gone.waiting(kind);
            for some in gone.chunks(BATCH) {
                self.add_batch(staged, some.to_vec(), of, told).await?;
            }
        }
        Ok(())
    }

    async fn add_batch(
        &self,
        staged: &mut Staged,
        waiting: Vec<Waiting>,
        of: u64,
        told: &watch::Sender<Progress>,
    ) -> Result<(), Undone> {
        let count = i64::try_from(waiting.len()).unwrap_or(i64::MAX);
        let (id, first, now) = (staged.id, staged.rows + 1, self.clock.now());
        let is_there = self
            .store
            .write(move |tx: &mut dyn Transaction| imports::add(tx, id, first, &waiting, now))
            .await?;
        if !is_there {
            return Err(Undone::Scattered);
        }
        self.faults.pass("apply.staging").await;
        staged.rows += count;
        let done = u64::try_from(staged.rows).unwrap_or_default();
        Progress::on(told, Step::Staging, done, of);
        Ok(())
    }

    /// Tells the audit of each row of an import that is in place. What fails here is done later.
    pub(super) async fn record(&self, staged: Staged, told: &watch::Sender<Progress>) {
        let of = u64::try_from(staged.rows).unwrap_or_default();
        let mut done = 0;
        // A node that shuts down goes on when it starts, or another one does.
        while !self.tasks.is_shutting_down() {
            Progress::on(told, Step::Recording, done, of);
            match self.tell(staged.id).await {
                Ok(count) if count < TOLD => return,
                Ok(count) => done += u64::from(count),
                Err(error) => {
                    return warn!(
                        cause = crate::telemetry::error_chain(&error),
                        "the audit is not told of all rows of import {} yet; it is done soon",
                        staged.id
                    );
                }
            }
        }
    }

    async fn tell(&self, id: i64) -> Result<u32, store::Error> {
        let tell = move |tx: &mut dyn Transaction| imports::tell(tx, id, TOLD);
        self.store.write(tell).await
    }

    /// Deletes what waits of an import that changed nothing. What fails here is done later.
    pub(super) async fn forget(&self, id: i64) {
        let limit = u32::try_from(BATCH).unwrap_or(u32::MAX);
        loop {
            let forget = move |tx: &mut dyn Transaction| imports::forget(tx, id, limit);
            match self.store.write(forget).await {
                Ok(deleted) if deleted < u64::from(limit) => return,
                Ok(_) => {}
                Err(error) => {
                    return warn!(
                        cause = crate::telemetry::error_chain(&error),
                        "what is left of import {id} could not be deleted yet"
                    );
                }
            }
        }
    }

    /// Brings imports to an end that nobody carries on: those of this node when it starts, those of the nodes `dead`,
    /// and any that has not got on for a while. One that changed nothing is forgotten; of one that is in place the
    /// audit is told. Two nodes may do so at once: each step is one transaction, which takes the rows that it tells.
    ///
    /// # Errors
    /// [`store::Error`] when the store fails.
    pub async fn sweep(&self, is_starting: bool, dead: &[String]) -> Result<(), store::Error> {
        let (node, begun) = self
            .store
            .read(|tx: &mut dyn Transaction| {
                Ok::<_, store::Error>((tx.node().to_owned(), imports::list(tx)?))
            })
            .await?;
        let now = self.clock.now();
        for import in begun {
            let idle = now.since(import.touched_at);
            let is_ours = import.node == node;
            let is_left = is_ours || dead.contains(&import.node);
            if import.is_done && (is_left || idle > IDLE) {
                while !self.tasks.is_shutting_down() && self.tell(import.id).await? == TOLD {}
            } else if !import.is_done
                && ((is_ours && is_starting) || (is_left && idle > LEFT_IDLE) || idle > IDLE)
            {
                self.forget(import.id).await;
            }
        }
        Ok(())
    }

    /// Does so when the node starts and then again and again, until it shuts down. `dead` tells the nodes that are.
    pub async fn keep_swept(&self, dead: impl Fn() -> Vec<String> + Send) {
        let mut is_starting = true;
        loop {
            match self.sweep(is_starting, &dead()).await {
                Ok(()) => {}
                Err(error) => warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "imports that were broken off could not be brought to an end yet"
                ),
            }
            // What has begun since may be under way.
            is_starting = false;
            tokio::select! {
                biased;
                () = self.tasks.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }
}

/// The rows of one kind that stand in these places.
fn wait<T: Item>(
    rows: &Rows,
    plan: &Plan,
    kind: &str,
    places: &[usize],
    waiting: &mut Vec<Waiting>,
) -> Result<(), store::Error> {
    if T::KIND.name != kind {
        return Ok(());
    }
    for place in places {
        let (Some(row), Some(change)) = (T::rows(rows).get(*place), plan.change(kind, *place))
        else {
            continue;
        };
        let key = row.value.key();
        let values = row.value.values()?;
        let phc = plan.hashes.get(&whose::<T>(key.clone()));
        waiting.push(Waiting {
            kind: T::KIND.name,
            name: row.value.name().to_owned(),
            audited: change.audited(),
            change: outcome(change),
            action: if values.is_some() {
                Action::Put
            } else {
                Action::Tell
            },
            phc: phc.filter(|_| values.is_some()).cloned(),
            values: values.unwrap_or_else(|| vec![key.into()]),
        });
    }
    Ok(())
}

/// Rows of one short transaction: some ten milliseconds.
const BATCH: usize = 1_000;

/// Entries of the audit of one short transaction.
const TOLD: u32 = 512;

/// An import that runs gets on many times a second.
const LEFT_IDLE: Duration = Duration::from_secs(60);

/// The same for nodes that live: their clocks may differ from ours.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// Between two looks.
const SWEEP: Duration = Duration::from_secs(15);
