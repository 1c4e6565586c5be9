//! What the files would change, row by row, against what the store has.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Change, Field, Hashes, Rest,
    cell::{self, Cell},
    check::{Known, Placed, Rows},
    columns,
    item::Item,
    prune::Gone,
};
use crate::{
    domain::ids::{BaseDeviceName, UserId},
    store::{
        self, Transaction, credentials as stored, devices::Device, fold, peers, peers::Peer,
        pools::DevicePool, profiles::Profile, trust_entries, users, users::User,
    },
};

/// What of the rows' references is in the store.
pub(super) fn known(
    tx: &mut dyn Transaction,
    rows: &Rows,
    rest: Rest,
) -> Result<Known, store::Error> {
    let profiles = rows.profiles.iter().map(|row| &row.value);
    let mut names: Vec<_> = profiles
        .clone()
        .map(|profile| fold(profile.user_id.as_str()))
        .collect();
    let mut pools: Vec<_> = profiles
        .filter_map(|profile| profile.device_pool.as_ref())
        .chain(
            rows.devices
                .iter()
                .filter_map(|row| row.value.device_pool.as_ref()),
        )
        .map(ToString::to_string)
        .collect();
    let mut ids: Vec<_> = rows
        .users
        .iter()
        .filter_map(|row| row.value.self_service_id.as_ref())
        .map(ToString::to_string)
        .collect();
    for keys in [&mut names, &mut pools, &mut ids] {
        keys.sort_unstable();
        keys.dedup();
    }
    let mut known = Known {
        users: users::among(tx, &names)?
            .iter()
            .map(|user| fold(user.user_id.as_str()))
            .collect(),
        pools: store::pools::among(tx, &pools)?
            .into_iter()
            .map(|pool| pool.name)
            .collect(),
        ..Known::default()
    };
    for holder in users::among_self_service_ids(tx, &ids)? {
        if let Some(id) = holder.self_service_id {
            known.self_service_ids.insert(id, holder.user_id);
        }
    }
    if rest == Rest::Goes {
        // What stands in no file is as good as gone.
        if rows.kinds.contains(columns::USER.name) {
            known.users.clear();
            known.self_service_ids.clear();
        }
        if rows.kinds.contains(columns::DEVICE_POOL.name) {
            known.pools.clear();
        }
    }
    if !rows.peers.is_empty() {
        known.anchored = trust_entries::anchored(tx)?.into_iter().collect();
    }
    Ok(known)
}

/// What changes, and which rows have to be written for it: their places in the files' own order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) pools: Vec<usize>,
    pub(super) users: Vec<usize>,
    pub(super) profiles: Vec<usize>,
    pub(super) devices: Vec<usize>,
    pub(super) base_devices: Vec<usize>,
    pub(super) peers: Vec<usize>,
    /// What goes.
    pub(super) gone: Gone,
    /// Hashes that are not the users' already.
    pub(super) hashes: Vec<(UserId, stored::Phc)>,
}

impl Plan {
    /// Compares the files with the store.
    pub(super) fn make(
        tx: &mut dyn Transaction,
        rows: &Rows,
        hashes: &Hashes,
        rest: Rest,
    ) -> Result<Self, store::Error> {
        let mut plan = Self::default();
        let changes = &mut plan.changes;
        plan.pools = compare::<DevicePool>(tx, &rows.pools, changes, nothing_more)?;
        plan.hashes = new_hashes(tx, rows, hashes)?;
        let set: BTreeSet<_> = plan
            .hashes
            .iter()
            .map(|(user, _)| fold(user.as_str()))
            .collect();
        plan.users = compare::<User>(tx, &rows.users, changes, |user, _, change| {
            if set.contains(&user.key()) {
                change.fields.push(Field {
                    name: "pin",
                    old: String::new(),
                    new: "set".to_owned(),
                });
                let told = change.detail.take().map(|detail| detail + "; ");
                change.detail = Some(told.unwrap_or_default() + "PIN set");
                if change.action == Action::Unchanged {
                    change.action = Action::Changed;
                }
            }
        })?;
        plan.profiles = compare::<Profile>(tx, &rows.profiles, changes, nothing_more)?;
        plan.devices = compare::<Device>(tx, &rows.devices, changes, nothing_more)?;
        plan.base_devices =
            compare::<BaseDeviceName>(tx, &rows.base_devices, changes, nothing_more)?;
        plan.peers = compare::<Peer>(tx, &rows.peers, changes, |peer, before, change| {
            change.detail = Some(match before {
                None => format!("at {}", peer.addresses.join(", ")),
                Some(before) => peers::told(&peer.changes_since(before)),
            });
        })?;
        if rest == Rest::Goes {
            plan.gone = Gone::find(tx, rows, changes)?;
        }
        Ok(plan)
    }
}

fn nothing_more<T>(_: &T, _: Option<&T>, _: &mut Change) {}

/// Compares the rows of one kind; gives the places of those that have to be written.
fn compare<T: Item>(
    tx: &mut dyn Transaction,
    rows: &[Placed<T>],
    changes: &mut Vec<Change>,
    more: impl Fn(&T, Option<&T>, &mut Change),
) -> Result<Vec<usize>, store::Error> {
    let keys: Vec<_> = rows.iter().map(|row| row.value.key()).collect();
    let there: BTreeMap<String, T> = T::among(tx, &keys)?
        .into_iter()
        .map(|record| (record.key(), record))
        .collect();
    let mut to_write = Vec::new();
    for (place, (row, key)) in rows.iter().zip(&keys).enumerate() {
        let before = there.get(key);
        let mut change = Change {
            kind: T::KIND.name,
            noun: T::KIND.noun,
            name: row.value.name().to_owned(),
            action: Action::Unchanged,
            fields: Vec::new(),
            detail: None,
        };
        match before {
            None => change.action = Action::Added,
            Some(before) if !row.value.is_as(before) => {
                change.action = Action::Changed;
                change.fields = differing(&before.cells(), &row.value);
                change.detail = Some(told(&change.fields));
            }
            Some(_) => {}
        }
        if change.action != Action::Unchanged {
            to_write.push(place);
        }
        more(&row.value, before, &mut change);
        changes.push(change);
    }
    Ok(to_write)
}

fn differing<T: Item>(before: &[Cell], after: &T) -> Vec<Field> {
    let cells = after.cells();
    T::KIND
        .columns
        .iter()
        .zip(before.iter().zip(&cells))
        .filter(|(_, (old, new))| old != new)
        .map(|(column, (old, new))| Field {
            name: column.name,
            old: cell::csv(old).to_string(),
            new: cell::csv(new).to_string(),
        })
        .collect()
}

fn told(fields: &[Field]) -> String {
    let told: Vec<_> = fields
        .iter()
        .map(|field| format!("{} = {}", field.name, field.new))
        .collect();
    told.join("; ")
}

/// The hashes, made here or given, that are not already the users'.
fn new_hashes(
    tx: &mut dyn Transaction,
    rows: &Rows,
    hashes: &Hashes,
) -> Result<Vec<(UserId, stored::Phc)>, store::Error> {
    let given: BTreeMap<String, (&UserId, &stored::Phc)> = hashes
        .iter()
        .chain(&rows.hashes)
        .map(|(user, phc)| (fold(user.as_str()), (user, phc)))
        .collect();
    let keys: Vec<_> = given.keys().cloned().collect();
    let there = User::hashes(tx, &keys)?;
    Ok(given
        .into_iter()
        .filter(|(key, (_, phc))| there.get(key) != Some(*phc))
        .map(|(_, (user, phc))| (user.clone(), phc.clone()))
        .collect())
}
