//! `apply`: the cluster's data from files, all or nothing.
//!
//! A file is read and checked whole before anything is written: every problem is told at once, with file,
//! line and field. Then PINs are hashed on all workers, and everything is written in one transaction. Applying
//! the same files again changes nothing.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    credentials::{self, Credentials},
    domain::ids::ClusterId,
    secret::Pin,
    store::{
        self, Store, Transaction,
        audit::{self, Noun},
        credentials as stored, users,
    },
    trust::{self, bundle, stored as stored_trust},
};

pub mod check;
pub mod columns;
pub mod edit;
pub mod export;

mod cell;
mod csv_file;
mod item;
mod plan;
mod prune;
mod suggest;
mod toml_file;

pub use check::{Problem, Rows};

use check::{Secrets, Whose};
use edit::Premise;
use item::{Item, Stamp, for_every_kind};
use plan::{Plan, whose};

/// A file to apply: its name, for messages, and its text.
#[derive(Clone)]
pub struct Source {
    /// As the operator typed it. It is CSV when this ends in `.csv`, and otherwise TOML.
    pub name: String,
    /// It may hold PINs: never printed, and wiped.
    pub text: Zeroizing<String>,
}

impl Source {
    fn is_csv(&self) -> bool {
        let ending = self.name.rsplit_once('.').map(|(_, ending)| ending);
        ending.is_some_and(|ending| ending.eq_ignore_ascii_case("csv"))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would change.
    DryRun,
    /// Write.
    Write,
}

/// What happens to the records that no file names, of the kinds that the files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are deleted.
    Goes,
    /// They are left as they are.
    Stays,
}

/// What happens to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Added,
    /// It differs from what is there.
    Changed,
    /// No file names it, and so it goes.
    Removed,
    /// It is there already.
    Unchanged,
}

impl Action {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The kind of row, as its table is called in the file.
    pub kind: &'static str,
    /// What the audit calls such a row.
    pub noun: Noun,
    /// Its name.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// What of it differs, where it is changed, and whether the PIN is set. Never a PIN.
    pub fields: Vec<Field>,
    /// The same for the audit.
    pub detail: Option<String>,
}

impl Change {
    /// What the audit calls it.
    const fn audited(&self) -> audit::Action {
        match self.action {
            Action::Added => audit::Action::Add(self.noun),
            Action::Changed | Action::Unchanged => audit::Action::Set(self.noun),
            Action::Removed => audit::Action::Remove(self.noun),
        }
    }
}

/// A column that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What the store has, as CSV has it.
    pub old: String,
    /// What the files say.
    pub new: String,
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files have problems; all of them.
    #[error("{} problems in the files; nothing was changed", .0.len())]
    Problems(Vec<Problem>),
    /// A column of a record that is changed by itself can't be so.
    #[error("{column}: {reason}; nothing was changed")]
    Column {
        /// Its name.
        column: String,
        /// Why not, and what would be right.
        reason: String,
    },
    /// A record that should be new is there.
    #[error("{0} exists already")]
    There(String),
    /// A record that should be changed is not there.
    #[error("there is no {0}")]
    NotThere(String),
    /// Reading the files broke off: a fault of ours, or the node is shutting down.
    #[error("the files could not be read to the end; nothing was changed")]
    Unread,
    /// A PIN could not be hashed.
    #[error("a PIN could not be hashed; nothing was changed")]
    Credentials(#[from] credentials::Error),
    /// Some of what no file names is in use; all of it.
    #[error("{} records are in use and can't be deleted; nothing was changed", .0.len())]
    Kept(Vec<String>),
    /// Others changed the record again and again while it was to be changed.
    #[error("{0} is being changed by others; nothing was changed")]
    Moved(String),
    /// The store failed.
    #[error("the store failed; nothing was changed")]
    Store(#[from] store::Error),
    /// The peers' trust would contradict itself.
    #[error("the peers' trust would contradict itself; nothing was changed")]
    Trust(#[source] trust::Error),
}

/// Applies files to one cluster.
#[derive(Clone, Debug)]
pub struct Applier {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its store.
    pub store: Store,
    /// Hashes its PINs.
    pub credentials: Credentials,
    /// The node's clock.
    pub clock: Clock,
}

impl Applier {
    /// Applies the files, or says what they would change; `actor` is who is on record for it.
    ///
    /// # Errors
    /// [`Error`]; in every case nothing was changed.
    pub async fn apply(
        &self,
        sources: &[Source],
        mode: Mode,
        rest: Rest,
        actor: &str,
    ) -> Result<Vec<Change>, Error> {
        self.apply_if(sources, mode, rest, actor, None).await
    }

    /// As [`Self::apply`], where what the files were made from still is so when they are written.
    async fn apply_if(
        &self,
        sources: &[Source],
        mode: Mode,
        rest: Rest,
        actor: &str,
        premise: Option<Premise>,
    ) -> Result<Vec<Change>, Error> {
        let Self {
            cluster,
            store,
            credentials,
            clock,
        } = self;
        let (mut rows, mut problems) = read(sources, cluster).await?;
        let secrets = std::mem::take(&mut rows.secrets);
        let rows = Arc::new(rows);
        let known = {
            let rows = Arc::clone(&rows);
            store
                .read(move |tx: &mut dyn Transaction| plan::known(tx, &rows, rest))
                .await?
        };
        problems.extend(check::check_references(&rows, &known));
        if !problems.is_empty() {
            let file = |problem: &Problem| sources.iter().position(|s| s.name == problem.file);
            problems.sort_by_key(|problem| (file(problem), problem.line));
            return Err(Error::Problems(problems));
        }
        let hashes = hash(store, credentials, secrets).await?;
        let stamp = Stamp {
            at: clock.now(),
            actor: actor.to_owned(),
        };
        let outcome = store
            .write(move |tx: &mut dyn Transaction| {
                if let Some(premise) = &premise
                    && !premise.holds(tx)?
                {
                    return Err(Undone::Moved(premise.name.clone()));
                }
                let changes = write(tx, &rows, &hashes, rest, &stamp)?;
                // A dry run does everything, so that it finds every fault, and then takes it back.
                match mode {
                    Mode::Write => Ok(changes),
                    Mode::DryRun => Err(Undone::DryRun(changes)),
                }
            })
            .await;
        match outcome {
            Ok(changes) | Err(Undone::DryRun(changes)) => Ok(changes),
            Err(Undone::Store(error)) => Err(Error::Store(error)),
            Err(Undone::Trust(error)) => Err(Error::Trust(error)),
            Err(Undone::Kept(reasons)) => Err(Error::Kept(reasons)),
            Err(Undone::Moved(record)) => Err(Error::Moved(record)),
        }
    }
}

/// Reads the files: large ones on a thread of their own, so that nobody else waits for that.
async fn read(sources: &[Source], cluster: &ClusterId) -> Result<(Rows, Vec<Problem>), Error> {
    const LARGE: usize = 16 * 1_024;
    let size: usize = sources.iter().map(|source| source.text.len()).sum();
    if size < LARGE {
        return Ok(check::read(sources, cluster));
    }
    let (sources, cluster) = (sources.to_vec(), cluster.clone());
    tokio::task::spawn_blocking(move || check::read(&sources, &cluster))
        .await
        .map_err(|_| Error::Unread)
}

/// Why the transaction was taken back.
enum Undone {
    DryRun(Vec<Change>),
    Kept(Vec<String>),
    Moved(String),
    Store(store::Error),
    Trust(trust::Error),
}

impl From<store::Error> for Undone {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<stored_trust::Error> for Undone {
    fn from(error: stored_trust::Error) -> Self {
        match error {
            stored_trust::Error::Store(error) => Self::Store(error),
            stored_trust::Error::Trust(error) => Self::Trust(error),
        }
    }
}

/// The hashes that secrets are compared with.
fn hashes_there(
    tx: &mut dyn Transaction,
    secrets: &[Whose],
) -> Result<Secrets<stored::Phc>, store::Error> {
    let mut there = Secrets::new();
    for_every_kind!(hashes_of(tx, secrets, &mut there));
    Ok(there)
}

fn hashes_of<T: Item>(
    tx: &mut dyn Transaction,
    secrets: &[Whose],
    there: &mut Secrets<stored::Phc>,
) -> Result<(), store::Error> {
    let kind = T::KIND.name;
    let of_kind = secrets.iter().filter(|whose| whose.kind == kind);
    let keys: Vec<_> = of_kind.map(|whose| whose.key.clone()).collect();
    let found = T::hashes(tx, &keys)?.into_iter();
    there.extend(found.map(|(key, phc)| (whose::<T>(key), phc)));
    Ok(())
}

/// The secrets that are not already those of their records.
async fn changed_secrets(
    store: &Store,
    credentials: &Credentials,
    secrets: Secrets<Pin>,
) -> Result<Secrets<Pin>, Error> {
    let keys: Vec<_> = secrets.keys().cloned().collect();
    let existing = store
        .read(move |tx: &mut dyn Transaction| hashes_there(tx, &keys))
        .await?;
    let existing = &existing;
    let changed = stream::iter(secrets)
        .map(|(whose, pin)| async move {
            let same = match existing.get(&whose) {
                None => Ok(false),
                Some(phc) => match credentials.verify_in_turn(&pin, phc.clone()).await {
                    // What can't be checked is replaced. Any other failure says nothing about the secret: taken for
                    // another one it would unlock the user.
                    Err(credentials::Error::Stored(_)) => Ok(false),
                    checked => checked,
                },
            };
            same.map(|same| (!same).then_some((whose, pin)))
        })
        .buffered(credentials.workers())
        .try_filter_map(|changed| std::future::ready(Ok(changed)))
        .try_collect()
        .await?;
    Ok(changed)
}

async fn hash(
    store: &Store,
    credentials: &Credentials,
    secrets: Secrets<Pin>,
) -> Result<Secrets<stored::Phc>, Error> {
    let changed = changed_secrets(store, credentials, secrets).await?;
    let (whose, pins): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
    let hashes = credentials.hash_all(pins, |_| {}).await?;
    Ok(whose.into_iter().zip(hashes).collect())
}

/// Writes the rows of one kind.
fn put<T: Item>(
    tx: &mut dyn Transaction,
    rows: &Rows,
    plan: &Plan,
    stamp: &Stamp,
) -> Result<(), store::Error> {
    let places = plan.places.get(T::KIND.name).into_iter().flatten();
    for row in places.filter_map(|place| T::rows(rows).get(*place)) {
        row.value.put(tx, stamp)?;
        if let Some(phc) = plan.hashes.get(&whose::<T>(row.value.key())) {
            row.value.put_hash(tx, phc, stamp)?;
        }
    }
    Ok(())
}

fn write(
    tx: &mut dyn Transaction,
    rows: &Rows,
    hashes: &Secrets<stored::Phc>,
    rest: Rest,
    stamp: &Stamp,
) -> Result<Vec<Change>, Undone> {
    let plan = Plan::make(tx, rows, hashes, rest)?;
    let kept = plan.gone.kept(tx)?;
    if !kept.is_empty() {
        return Err(Undone::Kept(kept));
    }
    // First: what goes may hold a name that is given to somebody else.
    plan.gone.remove(tx)?;
    // All first: users may hand theirs to one another.
    let users = plan.places.get(columns::USER.name).into_iter().flatten();
    for row in users.filter_map(|place| rows.users.get(*place)) {
        users::release_self_service_id(tx, &row.value)?;
    }
    for_every_kind!(put(tx, rows, &plan, stamp));
    let kept = plan.gone.left_behind(tx)?;
    if !kept.is_empty() {
        return Err(Undone::Kept(kept));
    }
    let changes = plan.changes;
    if !rows.peers.is_empty() {
        // Other node names may make one certificate two peers'.
        bundle::check(&stored_trust::bundles(tx)?).map_err(Undone::Trust)?;
    }
    for change in changes.iter().filter(|c| c.action != Action::Unchanged) {
        audit::append(
            tx,
            &audit::Entry {
                at: stamp.at,
                actor: stamp.actor.clone(),
                action: change.audited(),
                subject: change.name.clone(),
                outcome: match &change.detail {
                    Some(detail) => format!("{}: {detail}", change.action.as_str()),
                    None => change.action.as_str().to_owned(),
                },
                reference: None,
            },
        )?;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests;
