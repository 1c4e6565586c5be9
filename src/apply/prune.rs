//! What the files don't name, where it is asked for that it goes: which records that are, what keeps them, and
//! their end.

use std::collections::BTreeSet;

use super::{
    Action, Change,
    check::{Placed, Rows},
    item::{Item, each},
};
use crate::{
    domain::ids::BaseDeviceName,
    store::{
        self, Transaction, devices::Device, living, peers::Peer, pools::DevicePool, profiles,
        profiles::Profile, users::User,
    },
};

/// The records that go.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pools: Vec<DevicePool>,
    users: Vec<User>,
    profiles: Vec<Profile>,
    devices: Vec<Device>,
    base_devices: Vec<BaseDeviceName>,
    peers: Vec<Peer>,
}

impl Gone {
    /// Looks for what the files don't name, of the kinds that they hold.
    pub(super) fn find(
        tx: &mut dyn Transaction,
        rows: &Rows,
        changes: &mut Vec<Change>,
    ) -> Result<Self, store::Error> {
        let users = unnamed(tx, rows, &rows.users)?;
        let mut gone = Self {
            pools: unnamed(tx, rows, &rows.pools)?,
            profiles: unnamed(tx, rows, &rows.profiles)?,
            devices: unnamed(tx, rows, &rows.devices)?,
            base_devices: unnamed(tx, rows, &rows.base_devices)?,
            peers: unnamed(tx, rows, &rows.peers)?,
            users,
        };
        // A user's profiles go with them.
        let keys: Vec<_> = gone.users.iter().map(Item::key).collect();
        let named: BTreeSet<_> = rows.profiles.iter().map(|row| row.value.key()).collect();
        let known: BTreeSet<_> = gone.profiles.iter().map(Item::key).collect();
        let with_them = profiles::among_users(tx, &keys)?.into_iter();
        gone.profiles.extend(
            with_them.filter(|profile| {
                !named.contains(&profile.key()) && !known.contains(&profile.key())
            }),
        );
        gone.profiles.sort_by_key(Item::key);
        tell(&gone.pools, changes);
        tell(&gone.users, changes);
        tell(&gone.profiles, changes);
        tell(&gone.devices, changes);
        tell(&gone.base_devices, changes);
        tell(&gone.peers, changes);
        Ok(gone)
    }

    /// Why some of it can't go now.
    pub(super) fn kept(&self, tx: &mut dyn Transaction) -> Result<Vec<String>, store::Error> {
        let mut reasons = Vec::new();
        if !self.users.is_empty() {
            reasons.extend(living_of(&self.users, living::users(tx)?, "is logged in"));
        }
        if !self.devices.is_empty() {
            let why = "has somebody logged in on it";
            reasons.extend(living_of(&self.devices, living::devices(tx)?, why));
        }
        if !self.peers.is_empty() {
            let why = "has sessions with us, or is still to be told of ends";
            reasons.extend(living_of(&self.peers, living::peers(tx)?, why));
        }
        Ok(reasons)
    }

    /// Deletes it.
    pub(super) fn remove(&self, tx: &mut dyn Transaction) -> Result<(), store::Error> {
        remove_all(tx, &self.profiles)?;
        remove_all(tx, &self.users)?;
        remove_all(tx, &self.devices)?;
        remove_all(tx, &self.base_devices)?;
        remove_all(tx, &self.peers)?;
        remove_all(tx, &self.pools)
    }

    /// What is left in a pool that is gone, once everything is written.
    pub(super) fn left_behind(
        &self,
        tx: &mut dyn Transaction,
    ) -> Result<Vec<String>, store::Error> {
        if self.pools.is_empty() {
            return Ok(Vec::new());
        }
        let left = living::without_pool(tx)?.into_iter();
        Ok(left
            .map(|(kind, name, pool)| format!("device-pool {pool}: {kind} {name} is in it"))
            .collect())
    }
}

fn unnamed<T: Item>(
    tx: &mut dyn Transaction,
    rows: &Rows,
    named: &[Placed<T>],
) -> Result<Vec<T>, store::Error> {
    let mut found = Vec::new();
    if rows.kinds.contains(T::KIND.name) {
        let named: BTreeSet<_> = named.iter().map(|row| row.value.key()).collect();
        each::<T>(tx, |_, page| {
            found.extend(
                page.into_iter()
                    .filter(|record| !named.contains(&record.key())),
            );
            Ok(())
        })?;
    }
    Ok(found)
}

fn tell<T: Item>(gone: &[T], changes: &mut Vec<Change>) {
    changes.extend(gone.iter().map(|record| Change {
        kind: T::KIND.name,
        noun: T::KIND.noun,
        name: record.name().to_owned(),
        action: Action::Removed,
        fields: Vec::new(),
        detail: None,
    }));
}

fn living_of<'a, T: Item>(
    gone: &'a [T],
    living: Vec<String>,
    why: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let living: BTreeSet<_> = living.into_iter().collect();
    gone.iter()
        .filter(move |record| living.contains(&record.key()))
        .map(move |record| format!("{} {} {why}", T::KIND.name, record.name()))
}

fn remove_all<T: Item>(tx: &mut dyn Transaction, gone: &[T]) -> Result<(), store::Error> {
    for record in gone {
        record.remove(tx)?;
    }
    Ok(())
}
