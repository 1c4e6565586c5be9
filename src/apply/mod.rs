//! `apply`: the cluster's data from files, all or nothing.
//!
//! A file is read and checked whole before anything is written: every problem is told at once, with file,
//! line and field. Then PINs are hashed on all workers, and everything is put in place by one transaction, which
//! many rows wait for beside the others. Applying the same files again changes nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tracing::info;
use zeroize::Zeroizing;

use crate::{
    clock::{self, Clock},
    credentials::{self, Credentials},
    domain::{ids::ClusterId, policy::Policy},
    fault::FaultPoints,
    secret::Pin,
    store::{
        self, Store, Transaction,
        audit::{self, Noun},
        credentials as stored, imports, policies, users,
    },
    tasks::Tasks,
    trust::{self, bundle, stored as stored_trust},
    watch,
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
mod stage;
mod suggest;
mod toml_file;

pub use check::{Problem, Problems, Rows};

use check::{Secrets, Whose};
use edit::Premise;
use item::{Item, Stamp, for_every_kind};
use plan::{Plan, whose};
use stage::Staged;

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
    #[error("{} problems in the files; nothing was changed", .0.count())]
    Problems(Problems),
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
    /// What no file names is not what was agreed to see deleted.
    #[error("what would be deleted is no longer what was asked about; nothing was changed")]
    NotAgreed,
    /// Others changed the record again and again while it was to be changed.
    #[error("{0} is being changed by others; nothing was changed")]
    Moved(String),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// The peers' trust would contradict itself.
    #[error("the peers' trust would contradict itself; nothing was changed")]
    Trust(#[source] trust::Error),
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 where that is not known.
    pub of: u64,
    /// When the step began.
    pub since: Instant,
}

/// What is done one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The files are read and checked.
    Reading,
    /// PINs are compared with those that users have.
    Verifying,
    /// PINs are hashed.
    Hashing,
    /// The rows are compared with the store.
    Comparing,
    /// What differs is put beside the store's own rows; nobody sees it yet.
    Staging,
    /// All of it is put in place, in one transaction. From here on it can't be stopped.
    Switching,
    /// The audit is told of each row.
    Recording,
}

impl Step {
    /// The word in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Verifying => "verifying",
            Self::Hashing => "hashing",
            Self::Comparing => "comparing",
            Self::Staging => "staging",
            Self::Switching => "switching",
            Self::Recording => "recording",
        }
    }
}

impl Progress {
    /// The beginning.
    #[must_use]
    pub fn begin() -> Self {
        Self::of(Step::Reading, 0, 0)
    }

    fn of(step: Step, done: u64, of: u64) -> Self {
        Self {
            step,
            done,
            of,
            since: clock::instant(),
        }
    }

    /// How long the step will take still, going on as so far; none where that can't be told.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let (done, of) = (u32::try_from(self.done).ok()?, u32::try_from(self.of).ok()?);
        let each = now
            .saturating_duration_since(self.since)
            .checked_div(done)?;
        each.checked_mul(of.saturating_sub(done))
    }

    /// The same step, further on.
    fn on(told: &watch::Sender<Self>, step: Step, done: u64, of: u64) {
        told.send_modify(|progress| {
            if progress.step == step {
                (progress.done, progress.of) = (done, of);
            } else {
                *progress = Self::of(step, done, of);
            }
        });
    }
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
    /// From how many rows on they wait beside the others first; [`AT_ONCE_FROM`] is right.
    pub at_once_from: usize,
    /// What goes on though whoever asked for it has gone away.
    pub tasks: Tasks,
    /// Where a test stops it.
    pub faults: FaultPoints,
}

/// Rows that one transaction writes one by one in some tens of milliseconds.
pub const AT_ONCE_FROM: usize = 1_000;

/// How long the comparison is made anew when the store's data has moved on meanwhile: by then PINs may have been hashed
/// for hours.
const RETRY_FOR: Duration = Duration::from_secs(10 * 60);

/// And this often at least, however long each takes.
const LEAST_TRIES: u32 = 3;

/// Between two of them, so that whoever edits without end gets through as well.
const BREATH: Duration = Duration::from_millis(20);

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
        let told = watch::Sender::new(Progress::begin());
        self.apply_telling(sources, mode, rest, actor, &told).await
    }

    /// The same, telling how far it has come. Dropped before the last transaction, it changes nothing.
    ///
    /// # Errors
    /// [`Error`]; in every case nothing was changed.
    pub async fn apply_telling(
        &self,
        sources: &[Source],
        mode: Mode,
        rest: Rest,
        actor: &str,
        told: &watch::Sender<Progress>,
    ) -> Result<Vec<Change>, Error> {
        let terms = Terms::default();
        self.apply_if(sources, (mode, rest), actor, terms, told)
            .await
    }

    /// The same, where what no file names is what somebody has agreed to see deleted: `removals` is what [`removals`]
    /// told of a trial.
    ///
    /// # Errors
    /// [`Error`]; in every case nothing was changed.
    pub async fn apply_agreed(
        &self,
        sources: &[Source],
        (mode, rest): (Mode, Rest),
        removals: Option<String>,
        actor: &str,
        told: &watch::Sender<Progress>,
    ) -> Result<Vec<Change>, Error> {
        let terms = Terms {
            removals,
            ..Terms::default()
        };
        self.apply_if(sources, (mode, rest), actor, terms, told)
            .await
    }

    /// The same, where what the files were made from still is so when they are written.
    async fn apply_if(
        &self,
        sources: &[Source],
        how: (Mode, Rest),
        actor: &str,
        terms: Terms,
        told: &watch::Sender<Progress>,
    ) -> Result<Vec<Change>, Error> {
        let (mode, rest) = how;
        let (mut rows, mut problems) = read(sources, &self.cluster).await?;
        let secrets = std::mem::take(&mut rows.secrets);
        let rows = Arc::new(rows);
        let (known, policies) = {
            let rows = Arc::clone(&rows);
            let look = move |tx: &mut dyn Transaction| {
                Ok::<_, store::Error>((plan::known(tx, &rows, rest)?, policies::all(tx)?))
            };
            self.store.read(look).await?
        };
        problems.append(check::check_references(&rows, &known));
        problems.append(check::check_pins(&rows, &secrets, &policies, rest));
        refuse(sources, problems)?;
        let judged_by = (!secrets.is_empty()).then_some(policies);
        let hashes = hash(&self.store, &self.credentials, secrets, mode, told).await?;
        let made = Made {
            rows,
            judged_by: Arc::new(judged_by),
            hashes: Arc::new(hashes),
            terms: Arc::new(terms),
        };
        let stamp = Stamp {
            at: self.clock.now(),
            actor: actor.to_owned(),
        };
        let (began, mut tries, mut kept) = (clock::instant(), 0, None);
        let outcome = loop {
            tries += 1;
            let may_retry = || tries < LEAST_TRIES || clock::since(began) < RETRY_FOR;
            match self.attempt(&made, how, &stamp, told, &mut kept).await {
                Err(Undone::Late | Undone::Scattered) if may_retry() => {
                    tokio::time::sleep(BREATH).await;
                }
                outcome => break outcome,
            }
        };
        if let Some(Kept { staged, .. }) = kept {
            self.forget(staged.id).await;
        }
        match outcome {
            Ok(changes) => Ok(changes),
            Err(Undone::Late) => Err(Error::Moved("the data".to_owned())),
            Err(Undone::Scattered) => Err(Error::Moved("what waits".to_owned())),
            Err(Undone::Premise(record)) => Err(Error::Moved(record)),
            Err(Undone::NotAgreed) => Err(Error::NotAgreed),
            Err(Undone::DryRun) => Err(Error::Store(store::Error::Closed)),
            Err(Undone::Store(error)) => Err(Error::Store(error)),
            Err(Undone::Trust(error)) => Err(Error::Trust(error)),
            Err(Undone::Kept(reasons)) => Err(Error::Kept(reasons)),
            Err(Undone::Problems(problems)) => Err(Error::Problems(sorted(sources, problems))),
        }
    }

    /// Compares and writes once. What waits from the attempt before is used again where it is still right: staging
    /// takes longest, and so others change something meanwhile most often.
    async fn attempt(
        &self,
        made: &Made,
        (mode, rest): (Mode, Rest),
        stamp: &Stamp,
        told: &watch::Sender<Progress>,
        kept: &mut Option<Kept>,
    ) -> Result<Vec<Change>, Undone> {
        Progress::on(told, Step::Comparing, 0, 0);
        let mut plan = {
            let (rows, hashes) = (Arc::clone(&made.rows), Arc::clone(&made.hashes));
            let make = move |tx: &mut dyn Transaction| Plan::make(tx, &rows, &hashes, rest);
            self.store.read(make).await?
        };
        if !plan.problems.is_empty() {
            return Err(Undone::Problems(std::mem::take(&mut plan.problems)));
        }
        let judged_by = made.judged_by.as_ref().as_ref();
        if judged_by.is_some_and(|policies| *policies != plan.policies) {
            return Err(Undone::Premise("what the policies say".to_owned()));
        }
        let agreed = made.terms.removals.as_ref();
        if agreed.is_some_and(|agreed| *agreed != removals(&plan.changes)) {
            return Err(Undone::NotAgreed);
        }
        let plan = Arc::new(plan);
        let put = Put {
            made: made.clone(),
            plan: Arc::clone(&plan),
            stamp: stamp.clone(),
            mode,
        };
        let outcome = if plan.count_at_once() < self.at_once_from.max(1) {
            Progress::on(told, Step::Switching, 0, 0);
            self.put_in_place(put, None).await
        } else {
            let staged = match kept.take() {
                Some(before) if before.plan.writes_as(&plan) => before.staged,
                before => {
                    if let Some(before) = before {
                        self.forget(before.staged.id).await;
                    }
                    let staged = self.stage(&made.rows, &plan, stamp, told).await?;
                    self.faults.pass("apply.staged").await;
                    staged
                }
            };
            let outcome = self.carry_out(put, staged, told).await;
            if matches!(outcome, Err(Undone::Late)) {
                let plan = Arc::clone(&plan);
                *kept = Some(Kept { staged, plan });
            }
            outcome
        };
        match outcome {
            Ok(()) | Err(Undone::DryRun) => Ok(plan.changes.clone()),
            Err(other) => Err(other),
        }
    }

    /// Puts what waits in place and tells the audit of it, in a task of its own: whoever has asked for it may leave.
    async fn carry_out(
        &self,
        put: Put,
        staged: Staged,
        told: &watch::Sender<Progress>,
    ) -> Result<(), Undone> {
        Progress::on(told, Step::Switching, 0, 0);
        let (applier, told) = (self.clone(), told.clone());
        let task = self.tasks.spawn("import", async move {
            let outcome = applier.put_in_place(put, Some(staged)).await;
            match &outcome {
                Ok(()) => applier.record(staged, &told).await,
                // It goes on waiting for the next attempt.
                Err(Undone::Late) => {}
                Err(_) => applier.forget(staged.id).await,
            }
            outcome
        });
        let outcome = task.await;
        outcome.unwrap_or(Err(Undone::Store(store::Error::Closed)))
    }

    /// The one transaction.
    async fn put_in_place(&self, put: Put, staged: Option<Staged>) -> Result<(), Undone> {
        let switch = move |tx: &mut dyn Transaction| {
            if let Some(premise) = &put.made.terms.premise
                && !premise.holds(tx)?
            {
                return Err(Undone::Premise(premise.name.clone()));
            }
            switch(tx, &put.made.rows, &put.plan, staged, &put.stamp)?;
            // A dry run does everything, so that it finds every fault, and then takes it back.
            match put.mode {
                Mode::Write => Ok(()),
                Mode::DryRun => Err(Undone::DryRun),
            }
        };
        let began = clock::instant();
        let outcome = self.store.write(switch).await;
        self.faults.pass("apply.switched").await;
        if let Some(staged) = staged {
            info!(
                import = staged.id,
                rows = staged.rows,
                took_ms = u64::try_from(clock::since(began).as_millis()).unwrap_or(u64::MAX),
                done = outcome.is_ok(),
                "the one transaction of an import"
            );
        }
        outcome
    }
}

/// What must hold when the files are written.
#[derive(Debug, Default)]
struct Terms {
    /// What a record is that an edit was made from.
    premise: Option<Premise>,
    /// What may be deleted.
    removals: Option<String>,
}

/// What the files came to.
#[derive(Clone, Debug)]
struct Made {
    rows: Arc<Rows>,
    hashes: Arc<Secrets<stored::Phc>>,
    /// The policies that PINs were held against, where there are any.
    judged_by: Arc<Option<Vec<Policy>>>,
    terms: Arc<Terms>,
}

/// What one transaction writes.
struct Put {
    made: Made,
    plan: Arc<Plan>,
    stamp: Stamp,
    mode: Mode,
}

/// Rows that wait, and the plan that they follow.
struct Kept {
    staged: Staged,
    plan: Arc<Plan>,
}

/// A digest of which records go, so that somebody who was shown them agrees to these and to no others.
#[must_use]
pub fn removals(changes: &[Change]) -> String {
    let mut hash = Sha256::new();
    for change in changes.iter().filter(|c| c.action == Action::Removed) {
        for text in [change.kind, &change.name] {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
    }
    let digest = hash.finalize();
    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
    hex.collect()
}

fn refuse(sources: &[Source], problems: Problems) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Problems(sorted(sources, problems)))
}

/// All problems in the order of the files.
fn sorted(sources: &[Source], mut problems: Problems) -> Problems {
    let file = |problem: &Problem| sources.iter().position(|s| *s.name == *problem.file);
    problems.sort_by_key(|problem| (file(problem), problem.line));
    problems
}

/// Reads the files: large ones on a thread of their own, so that nobody else waits for that.
async fn read(sources: &[Source], cluster: &ClusterId) -> Result<(Rows, Problems), Error> {
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
    DryRun,
    Kept(Vec<String>),
    /// The data is not what the plan was made for.
    Late,
    /// Not all rows wait any longer.
    Scattered,
    /// What would be deleted is not what was agreed to.
    NotAgreed,
    /// A record is not what an edit was made from, or what PINs were held against.
    Premise(String),
    Problems(Problems),
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
    told: &watch::Sender<Progress>,
) -> Result<Secrets<Pin>, Error> {
    let keys: Vec<_> = secrets.keys().cloned().collect();
    let existing = store
        .read(move |tx: &mut dyn Transaction| hashes_there(tx, &keys))
        .await?;
    let (existing, of) = (&existing, existing.len() as u64);
    let mut done = 0;
    let changed = stream::iter(secrets)
        .map(|(whose, pin)| async move {
            let Some(phc) = existing.get(&whose) else {
                return Ok((false, Some((whose, pin))));
            };
            match credentials.verify_in_turn(&pin, phc.clone()).await {
                Ok(true) => Ok((true, None)),
                // What can't be checked is replaced. Any other failure says nothing about the secret: taken for
                // another one it would unlock the user.
                Ok(false) | Err(credentials::Error::Stored(_)) => Ok((true, Some((whose, pin)))),
                Err(error) => Err(error),
            }
        })
        .buffered(credentials.workers())
        .try_filter_map(|(was_verified, changed)| {
            if was_verified {
                done += 1;
                Progress::on(told, Step::Verifying, done, of);
            }
            std::future::ready(Ok(changed))
        })
        .try_collect()
        .await?;
    Ok(changed)
}

async fn hash(
    store: &Store,
    credentials: &Credentials,
    secrets: Secrets<Pin>,
    mode: Mode,
    told: &watch::Sender<Progress>,
) -> Result<Secrets<stored::Phc>, Error> {
    let changed = changed_secrets(store, credentials, secrets, told).await?;
    if mode == Mode::DryRun {
        // That a PIN is set is all that is told of it, and nothing of a trial stays.
        let in_place_of = |whose| (whose, stored::Phc::new("a trial".to_owned()));
        return Ok(changed.into_keys().map(in_place_of).collect());
    }
    let (whose, pins): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
    let of = pins.len() as u64;
    if of > 0 {
        Progress::on(told, Step::Hashing, 0, of);
    }
    let hashes = credentials
        .hash_all(pins, |done| {
            Progress::on(told, Step::Hashing, done as u64, of);
        })
        .await?;
    Ok(whose.into_iter().zip(hashes).collect())
}

/// Writes the rows of one kind.
fn put<T: Item>(
    tx: &mut dyn Transaction,
    rows: &Rows,
    plan: &Plan,
    import: Option<i64>,
    stamp: &Stamp,
) -> Result<(), store::Error> {
    let kind = T::KIND.name;
    let places = plan.places.get(kind).map(Vec::as_slice).unwrap_or_default();
    if let Some(import) = import.filter(|_| imports::is_at_once(kind)) {
        if !places.is_empty() {
            T::put_waiting(tx, import, plan.hands_over, stamp)?;
        }
        return Ok(());
    }
    for row in places.iter().filter_map(|place| T::rows(rows).get(*place)) {
        row.value.put(tx, stamp)?;
        if let Some(phc) = plan.hashes.get(&whose::<T>(row.value.key())) {
            row.value.put_hash(tx, phc, stamp)?;
        }
    }
    Ok(())
}

/// Puts everything in place: what waits all at once, the rest row by row.
fn switch(
    tx: &mut dyn Transaction,
    rows: &Rows,
    plan: &Plan,
    staged: Option<Staged>,
    stamp: &Stamp,
) -> Result<(), Undone> {
    if imports::revision(tx)? != plan.revision {
        return Err(Undone::Late);
    }
    if let Some(staged) = staged
        && !imports::is_whole(tx, staged.id, staged.rows)?
    {
        return Err(Undone::Scattered);
    }
    let import = staged.map(|staged| staged.id);
    let kept = plan.gone.kept(tx)?;
    if !kept.is_empty() {
        return Err(Undone::Kept(kept));
    }
    // First: what goes may hold a name that is given to somebody else.
    plan.gone.remove(tx, import)?;
    if import.is_none() && plan.hands_over {
        // All first: users may hand theirs to one another.
        let users = plan.places.get(columns::USER.name).into_iter().flatten();
        for row in users.filter_map(|place| rows.users.get(*place)) {
            users::release_self_service_id(tx, &row.value)?;
        }
    }
    for_every_kind!(put(tx, rows, plan, import, stamp));
    let kept = plan.gone.left_behind(tx)?;
    if !kept.is_empty() {
        return Err(Undone::Kept(kept));
    }
    if !rows.peers.is_empty() {
        // Other node names may make one certificate two peers'.
        bundle::check(&stored_trust::bundles(tx)?).map_err(Undone::Trust)?;
    }
    audit(tx, plan, import, stamp)?;
    Ok(())
}

/// Each change, or that there are many: then each follows from the rows of the import.
fn audit(
    tx: &mut dyn Transaction,
    plan: &Plan,
    import: Option<i64>,
    stamp: &Stamp,
) -> Result<(), store::Error> {
    let entry = |action, subject: String, outcome: String| audit::Entry {
        at: stamp.at,
        actor: stamp.actor.clone(),
        action,
        subject,
        outcome,
        reference: None,
    };
    if let Some(import) = import {
        let outcome = format!("{}; each follows", counts(&plan.changes));
        audit::append(
            tx,
            &entry(audit::Action::DataImport, import.to_string(), outcome),
        )?;
        return imports::finish(tx, import, stamp.at);
    }
    let changed = plan.changes.iter();
    let entries: Vec<_> = changed
        .filter(|change| change.action != Action::Unchanged)
        .map(|change| entry(change.audited(), change.name.clone(), outcome(change)))
        .collect();
    audit::append_all(tx, &entries)
}

/// What the audit says of a change.
fn outcome(change: &Change) -> String {
    match &change.detail {
        Some(detail) => format!("{}: {detail}", change.action.as_str()),
        None => change.action.as_str().to_owned(),
    }
}

/// `3 user added, 1 device changed`.
fn counts(changes: &[Change]) -> String {
    let mut counts: Vec<((&str, Action), usize)> = Vec::new();
    for change in changes.iter().filter(|c| c.action != Action::Unchanged) {
        let what = (change.kind, change.action);
        match counts.iter_mut().find(|(counted, _)| *counted == what) {
            Some((_, count)) => *count += 1,
            None => counts.push((what, 1)),
        }
    }
    let told: Vec<_> = counts
        .iter()
        .map(|((kind, action), count)| format!("{count} {kind} {}", action.as_str()))
        .collect();
    told.join(", ")
}

#[cfg(test)]
mod tests;
