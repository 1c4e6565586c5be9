//! Work that one node at a time does for the whole cluster: a row for each such task, with its owner, a generation
//! and a beat.
//!
//! The generation moves on with every take, and every effect of the task calls [`check`] in its own transaction. So a
//! holder that was stopped, lost its claim and wakes can do nothing. Takes and releases are in the audit, and so is
//! what holders do, with the generation: it never falls, and each belongs to one owner.

use std::fmt;

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, liveness::Incarnation},
    store::{
        Transaction,
        audit::{self, Action, Entry},
        error::Error,
        value::Row,
    },
};

/// Something that is done by one node at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task(String);

impl Task {
    /// Telling another cluster which sessions have ended: one task for each cluster, since one node may have a link
    /// that another lacks.
    #[must_use]
    pub fn deliveries(to: &ClusterId) -> Self {
        Self(format!("deliveries to {to}"))
    }

    /// Giving up logins that were never answered.
    #[must_use]
    pub fn pending_logins() -> Self {
        Self("pending logins".to_owned())
    }

    /// Forgetting what is old.
    #[must_use]
    pub fn retention() -> Self {
        Self("retention".to_owned())
    }

    /// Putting the addresses of the nodes that live on record.
    #[must_use]
    pub fn addresses() -> Self {
        Self("addresses".to_owned())
    }

    /// Ending the sessions of users who lost the right to them.
    #[must_use]
    pub fn revocations() -> Self {
        Self("revocations".to_owned())
    }

    /// Keeping cluster time, and ending the sessions whose time is over.
    #[must_use]
    pub fn expiry() -> Self {
        Self("expiry".to_owned())
    }

    /// Comparing the sessions that are shared with another cluster: one task for each cluster, as with
    /// [`deliveries`](Self::deliveries).
    #[must_use]
    pub fn agreement(with: &ClusterId) -> Self {
        Self(format!("agreement with {with}"))
    }

    /// Ending the sessions that are shared with a cluster to which we are banished: one task for each cluster, as with
    /// [`deliveries`](Self::deliveries), since not all nodes hear the same peers.
    #[must_use]
    pub fn banishment(by: &ClusterId) -> Self {
        Self(format!("banishment by {by}"))
    }

    /// Its name, as in the audit.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The right to do a task, until somebody else takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What.
    pub task: Task,
    /// How many times it has been taken.
    pub generation: i64,
    /// By whom.
    pub holder: Incarnation,
}

/// A task's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What.
    pub task: Task,
    /// How many times it has been taken.
    pub generation: i64,
    /// By whom; none when it was given back.
    pub holder: Option<Incarnation>,
    /// Moves on for as long as its holder lives.
    pub beat: i64,
}

/// All tasks that were ever taken.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<Standing>, Error> {
    tx.query(
        "SELECT task, generation, node, instance, beat FROM claims ORDER BY task",
        &[],
    )?
    .into_iter()
    .map(standing)
    .collect()
}

/// Takes a task that nobody holds, or whose holder was seen at this beat for too long; none when it has moved since it
/// was seen. `seen` is none for a task that has no row yet.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn take(
    tx: &mut dyn Transaction,
    task: &Task,
    seen: Option<&Standing>,
    holder: &Incarnation,
    now: Timestamp,
) -> Result<Option<Claim>, Error> {
    let changed = match seen {
        None => tx.execute(
            "INSERT INTO claims (task, generation, node, instance, beat) VALUES ($1, 1, $2, $3, 0)
             ON CONFLICT (task) DO NOTHING",
            &[
                task.as_str().into(),
                (&holder.node).into(),
                (&holder.instance).into(),
            ],
        )?,
        Some(seen) => tx.execute(
            "UPDATE claims SET generation = generation + 1, node = $1, instance = $2, beat = 0
             WHERE task = $3 AND generation = $4 AND beat = $5",
            &[
                (&holder.node).into(),
                (&holder.instance).into(),
                task.as_str().into(),
                seen.generation.into(),
                seen.beat.into(),
            ],
        )?,
    };
    if changed == 0 {
        return Ok(None);
    }
    let claim = Claim {
        task: task.clone(),
        generation: seen.map_or(1, |seen| seen.generation.saturating_add(1)),
        holder: holder.clone(),
    };
    let from = match seen.map(|seen| &seen.holder) {
        None => "for the first time".to_owned(),
        Some(None) => "it was free".to_owned(),
        Some(Some(before)) => format!("from {before}, which is silent"),
    };
    note(tx, Action::ClaimTake, &claim, &from, now)?;
    Ok(Some(claim))
}

/// Moves the beats of all that a node holds; what that is.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn beat(tx: &mut dyn Transaction, holder: &Incarnation) -> Result<Vec<Claim>, Error> {
    tx.execute(
        "UPDATE claims SET beat = beat + 1 WHERE node = $1 AND instance = $2",
        &[(&holder.node).into(), (&holder.instance).into()],
    )?;
    held_by(tx, holder)
}

/// What a node holds.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn held_by(tx: &mut dyn Transaction, holder: &Incarnation) -> Result<Vec<Claim>, Error> {
    tx.query(
        "SELECT task, generation FROM claims WHERE node = $1 AND instance = $2 ORDER BY task",
        &[(&holder.node).into(), (&holder.instance).into()],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Claim {
            task: Task(row.text()?),
            generation: row.int()?,
            holder: holder.clone(),
        })
    })
    .collect()
}

/// Gives a task back, so that another node can take it at once; whether it was still held.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn release(
    tx: &mut dyn Transaction,
    claim: &Claim,
    why: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let released = tx.execute(
        "UPDATE claims SET node = NULL, instance = NULL
         WHERE task = $1 AND generation = $2 AND node = $3 AND instance = $4",
        &[
            claim.task.as_str().into(),
            claim.generation.into(),
            (&claim.holder.node).into(),
            (&claim.holder.instance).into(),
        ],
    )?;
    if released > 0 {
        note(tx, Action::ClaimRelease, claim, why, now)?;
    }
    Ok(released > 0)
}

/// Gives back all that a node holds; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn release_all(
    tx: &mut dyn Transaction,
    holder: &Incarnation,
    why: &str,
    now: Timestamp,
) -> Result<usize, Error> {
    let held = held_by(tx, holder)?;
    for claim in &held {
        release(tx, claim, why, now)?;
    }
    Ok(held.len())
}

/// Frees what earlier runs of a node held, which its present one has replaced; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn release_replaced(
    tx: &mut dyn Transaction,
    present: &Incarnation,
    now: Timestamp,
) -> Result<usize, Error> {
    let before: Vec<Standing> = all(tx)?
        .into_iter()
        .filter(|standing| {
            let holder = standing.holder.as_ref();
            holder.is_some_and(|h| h.node == present.node && h.instance != present.instance)
        })
        .collect();
    let mut freed = 0;
    for standing in before {
        let Some(holder) = standing.holder else {
            continue;
        };
        let claim = Claim {
            task: standing.task,
            generation: standing.generation,
            holder,
        };
        let why = format!(
            "the node was started again, as instance {}",
            present.instance
        );
        freed += usize::from(release(tx, &claim, &why, now)?);
    }
    Ok(freed)
}

/// Lets an effect of a task stand only while the claim does. Called in the transaction of the effect: no other node can
/// take the task before that is over.
///
/// # Errors
/// [`Error::ClaimLost`], and [`Error`] when the store fails.
pub fn check(tx: &mut dyn Transaction, claim: &Claim) -> Result<(), Error> {
    // A write, since that is what holds the row also where transactions run side by side.
    let held = tx.execute(
        "UPDATE claims SET generation = generation
         WHERE task = $1 AND generation = $2 AND node = $3 AND instance = $4",
        &[
            claim.task.as_str().into(),
            claim.generation.into(),
            (&claim.holder.node).into(),
            (&claim.holder.instance).into(),
        ],
    )?;
    if held == 0 {
        return Err(Error::ClaimLost {
            task: claim.task.to_string(),
            generation: claim.generation,
        });
    }
    Ok(())
}

/// [`check`], and an entry in the audit that says what the holder did, with the generation.
///
/// # Errors
/// As [`check`].
pub fn effect(
    tx: &mut dyn Transaction,
    claim: &Claim,
    what: &str,
    now: Timestamp,
) -> Result<(), Error> {
    check(tx, claim)?;
    note(tx, Action::ClaimEffect, claim, what, now)
}

/// What an entry in the audit says of a claim: `generation 3 of n1 (instance 8c1f…): told of 4 ends`.
fn note(
    tx: &mut dyn Transaction,
    action: Action,
    claim: &Claim,
    what: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let actor = format!("node {}", tx.node());
    audit::append(
        tx,
        &Entry {
            at: now,
            actor,
            action,
            subject: claim.task.to_string(),
            outcome: format!(
                "generation {} of {}: {what}",
                claim.generation, claim.holder
            ),
            reference: None,
        },
    )
}

fn standing(mut row: Row) -> Result<Standing, Error> {
    let (task, generation) = (Task(row.text()?), row.int()?);
    let (node, instance) = (row.opt_text()?, row.opt_text()?);
    Ok(Standing {
        task,
        generation,
        holder: node
            .zip(instance)
            .map(|(node, instance)| Incarnation { node, instance }),
        beat: row.int()?,
    })
}
