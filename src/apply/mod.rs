//! `apply`: the cluster's data from files, all or nothing.
//!
//! A file is read and checked whole before anything is written: every problem is told at once, with file,
//! line and field. Then PINs are hashed on all workers, and everything is written in one transaction. Applying
//! the same files again changes nothing.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Timestamp},
    credentials::{self, Credentials},
    domain::{
        ids::{ClusterId, UserId},
        login::LoginType,
    },
    secret::Pin,
    store::{
        self, Store, Transaction, audit, base_devices, credentials as stored, devices, peers,
        pools, profiles, trust_entries, users,
    },
    trust::{self, bundle, stored as stored_trust},
};

pub mod check;
pub mod file;

pub use check::{Problem, Rows};

/// A file to apply: its name, for messages, and its text.
#[derive(Clone)]
pub struct Source {
    /// As the operator typed it.
    pub name: String,
    /// TOML. It may hold PINs: never printed, and wiped.
    pub text: Zeroizing<String>,
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

/// What happens to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Added,
    /// It differs from what is there.
    Changed,
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
            Self::Unchanged => "unchanged",
        }
    }
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The kind of row, as its table is called in the file.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// What of it differs, for the audit, where that matters. Never a PIN.
    pub detail: Option<String>,
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files have problems; all of them.
    #[error("{} problems in the files; nothing was changed", .0.len())]
    Problems(Vec<Problem>),
    /// Reading the files broke off: a fault of ours, or the node is shutting down.
    #[error("the files could not be read to the end; nothing was changed")]
    Unread,
    /// A PIN could not be hashed.
    #[error("a PIN could not be hashed; nothing was changed")]
    Credentials(#[from] credentials::Error),
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
        actor: &str,
    ) -> Result<Vec<Change>, Error> {
        let Self {
            cluster,
            store,
            credentials,
            clock,
        } = self;
        let mut rows = read(sources, cluster).await?;
        let known = {
            let rows = rows.clone_without_pins();
            store
                .read(move |tx: &mut dyn Transaction| references(tx, &rows))
                .await?
        };
        let missing = check::check_references(&rows, &known);
        if !missing.is_empty() {
            return Err(Error::Problems(missing));
        }
        let pins = std::mem::take(&mut rows.pins);
        let hashes = hash(store, credentials, pins).await?;
        let (now, actor) = (clock.now(), actor.to_owned());
        let outcome = store
            .write(move |tx: &mut dyn Transaction| {
                let changes = write(tx, &rows, &hashes, now, &actor)?;
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
        }
    }
}

/// Reads the files: large ones on a thread of their own, so that nobody else waits for that.
async fn read(sources: &[Source], cluster: &ClusterId) -> Result<Rows, Error> {
    const LARGE: usize = 16 * 1_024;
    let size: usize = sources.iter().map(|source| source.text.len()).sum();
    if size < LARGE {
        return check::check(sources, cluster).map_err(Error::Problems);
    }
    let (sources, cluster) = (sources.to_vec(), cluster.clone());
    tokio::task::spawn_blocking(move || check::check(&sources, &cluster))
        .await
        .map_err(|_| Error::Unread)?
        .map_err(Error::Problems)
}

/// Why the transaction was taken back.
enum Undone {
    DryRun(Vec<Change>),
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

type Hashes = BTreeMap<UserId, stored::Phc>;

/// The PINs that are not already the users'.
async fn pins_as_changes(
    store: &Store,
    credentials: &Credentials,
    pins: BTreeMap<UserId, Pin>,
) -> Result<BTreeMap<UserId, Pin>, Error> {
    let names: Vec<UserId> = pins.keys().cloned().collect();
    let existing = store
        .read(move |tx: &mut dyn Transaction| {
            let mut found = BTreeMap::new();
            for name in &names {
                if let Some(row) = stored::get(tx, name)? {
                    found.insert(name.clone(), row.phc);
                }
            }
            Ok::<_, store::Error>(found)
        })
        .await?;
    let existing = &existing;
    let changed = stream::iter(pins)
        .map(|(user, pin)| async move {
            let same = match existing.get(&user) {
                None => Ok(false),
                Some(phc) => match credentials.verify_in_turn(&pin, phc.clone()).await {
                    // What can't be checked is replaced. Any other failure says nothing about the PIN: taken for
                    // another PIN it would unlock the user.
                    Err(credentials::Error::Stored(_)) => Ok(false),
                    checked => checked,
                },
            };
            same.map(|same| (!same).then_some((user, pin)))
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
    pins: BTreeMap<UserId, Pin>,
) -> Result<Hashes, Error> {
    let changed = pins_as_changes(store, credentials, pins).await?;
    let (users, pins): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
    let hashes = credentials.hash_all(pins, |_| {}).await?;
    Ok(users.into_iter().zip(hashes).collect())
}

fn references(tx: &mut dyn Transaction, rows: &Rows) -> Result<check::Known, store::Error> {
    let mut known = check::Known::default();
    for profile in &rows.profiles {
        if users::get(tx, &profile.value.user_id)?.is_some() {
            known.users.insert(profile.value.user_id.clone());
        }
    }
    let pools = rows
        .profiles
        .iter()
        .filter_map(|p| p.value.device_pool.as_ref())
        .chain(
            rows.devices
                .iter()
                .filter_map(|d| d.value.device_pool.as_ref()),
        );
    for pool in pools {
        if pools::get(tx, pool)?.is_some() {
            known.pools.insert(pool.clone());
        }
    }
    for user in &rows.users {
        let Some(id) = &user.value.self_service_id else {
            continue;
        };
        for holder in users::find(tx, LoginType::SelfService, id)? {
            known.self_service_ids.insert(id.clone(), holder.user_id);
        }
    }
    for peer in &rows.peers {
        let id = &peer.value.cluster_id;
        if trust_entries::has_anchor(tx, id)? {
            known.anchored.insert(id.clone());
        }
    }
    Ok(known)
}

fn compare<T: PartialEq>(
    kind: &'static str,
    name: String,
    before: Option<&T>,
    after: &T,
) -> Change {
    let action = match before {
        None => Action::Added,
        Some(before) if before == after => Action::Unchanged,
        Some(_) => Action::Changed,
    };
    Change {
        kind,
        name,
        action,
        detail: None,
    }
}

fn plan(
    tx: &mut dyn Transaction,
    rows: &Rows,
    hashes: &Hashes,
) -> Result<Vec<Change>, store::Error> {
    let mut changes = Vec::new();
    for pool in &rows.pools {
        let before = pools::get(tx, &pool.value.name)?;
        changes.push(compare(
            "device-pool",
            pool.value.name.to_string(),
            before.as_ref(),
            &pool.value,
        ));
    }
    for user in &rows.users {
        let before = users::get(tx, &user.value.user_id)?;
        let mut change = compare(
            "user",
            user.value.user_id.to_string(),
            before.as_ref(),
            &user.value,
        );
        let new_pin = hashes.contains_key(&user.value.user_id)
            || match rows.hashes.get(&user.value.user_id) {
                Some(phc) => stored::get(tx, &user.value.user_id)?.is_none_or(|c| c.phc != *phc),
                None => false,
            };
        if new_pin {
            change.detail = Some("PIN set".to_owned());
            if change.action == Action::Unchanged {
                change.action = Action::Changed;
            }
        }
        changes.push(change);
    }
    for profile in &rows.profiles {
        let all = profiles::for_user(tx, &profile.value.user_id)?;
        let before = all.iter().find(|p| p.name == profile.value.name);
        changes.push(compare(
            "profile",
            profile.value.name.to_string(),
            before,
            &profile.value,
        ));
    }
    for device in &rows.devices {
        let before = devices::get(tx, &device.value.name)?;
        changes.push(compare(
            "device",
            device.value.name.to_string(),
            before.as_ref(),
            &device.value,
        ));
    }
    for row in &rows.base_devices {
        // A name is all there is to one, however it is written: it can't differ from what is there.
        let action = if base_devices::exists(tx, &row.value)? {
            Action::Unchanged
        } else {
            Action::Added
        };
        changes.push(Change {
            kind: "base-device",
            name: row.value.to_string(),
            action,
            detail: None,
        });
    }
    for peer in &rows.peers {
        let before = peers::get(tx, &peer.value.cluster_id)?;
        let mut change = compare(
            "peer",
            peer.value.cluster_id.to_string(),
            before.as_ref(),
            &peer.value,
        );
        change.detail = match &before {
            None => Some(format!("at {}", peer.value.addresses.join(", "))),
            Some(before) => Some(peers::told(&peer.value.changes_since(before))),
        };
        changes.push(change);
    }
    Ok(changes)
}

fn write(
    tx: &mut dyn Transaction,
    rows: &Rows,
    hashes: &Hashes,
    now: Timestamp,
    actor: &str,
) -> Result<Vec<Change>, Undone> {
    let changes = plan(tx, rows, hashes)?;
    for row in &rows.pools {
        pools::upsert(tx, &row.value)?;
    }
    // All first: users may hand theirs to one another.
    for row in &rows.users {
        users::release_self_service_id(tx, &row.value)?;
    }
    for row in &rows.users {
        users::upsert(tx, &row.value)?;
    }
    for (user, phc) in hashes.iter().chain(&rows.hashes) {
        if stored::get(tx, user)?.is_none_or(|c| c.phc != *phc) {
            stored::put_hash(tx, user, phc, now)?;
        }
    }
    for row in &rows.profiles {
        profiles::upsert(tx, &row.value)?;
    }
    for row in &rows.devices {
        devices::upsert(tx, &row.value)?;
    }
    for row in &rows.base_devices {
        base_devices::upsert(tx, &row.value)?;
    }
    for row in &rows.peers {
        peers::upsert(tx, &row.value)?;
    }
    if !rows.peers.is_empty() {
        // Other node names may make one certificate two peers'.
        bundle::check(&stored_trust::bundles(tx)?).map_err(Undone::Trust)?;
    }
    for change in changes.iter().filter(|c| c.action != Action::Unchanged) {
        audit::append(
            tx,
            &audit::Entry {
                at: now,
                actor: actor.to_owned(),
                action: "apply",
                subject: format!("{} {}", change.kind, change.name),
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
