//! What each kind of record has in common: a name, cells, and rows in the store.

use std::collections::BTreeMap;

use super::{
    cell::{Cell, SecretText},
    columns::{self, Kind},
};
use crate::{
    domain::{ids::BaseDeviceName, login::SecurityMode},
    store::{
        Error, Transaction, base_devices,
        credentials::{self, Phc},
        devices::{self, Device},
        fold,
        peers::{self, Peer},
        pools::{self, DevicePool},
        profiles::{self, Profile},
        users::{self, User},
    },
};

/// A record that files hold.
pub(super) trait Item: Sized {
    /// Its columns.
    const KIND: &'static Kind;

    /// Its name as written.
    fn name(&self) -> &str;

    /// The form of its name under which it is found: names with the same key mean the same record.
    fn key(&self) -> String;

    /// Its cells in the order of the columns. Secrets are empty: they are no part of the record.
    fn cells(&self) -> Vec<Cell>;

    /// The records with these keys, in no order.
    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error>;

    /// At most `limit` records in order of their keys, from the first one behind the key `after`.
    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error>;

    /// Adds it, or replaces the one of its name.
    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error>;

    /// Deletes it.
    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error>;

    /// Whether writing it would change nothing.
    fn is_as(&self, there: &Self) -> bool;

    /// The hashes that belong to these records, by key.
    fn hashes(_: &mut dyn Transaction, _: &[String]) -> Result<BTreeMap<String, Phc>, Error> {
        Ok(BTreeMap::new())
    }
}

/// Hands every record to `take`, page by page, in order of their keys.
pub(super) fn each<T: Item>(
    tx: &mut dyn Transaction,
    mut take: impl FnMut(&mut dyn Transaction, Vec<T>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let page = T::page(tx, &after, PAGE)?;
        match page.last() {
            None => return Ok(()),
            Some(last) => after = last.key(),
        }
        take(tx, page)?;
    }
}

/// Records in memory at once.
const PAGE: u32 = 500;

fn text(text: impl AsRef<str>) -> Cell {
    Cell::Text(text.as_ref().to_owned())
}

fn text_or_none(text: Option<impl AsRef<str>>) -> Cell {
    Cell::Text(text.map(|t| t.as_ref().to_owned()).unwrap_or_default())
}

fn no_secret() -> Cell {
    Cell::Secret(SecretText(String::new().into()))
}

impl Item for DevicePool {
    const KIND: &'static Kind = &columns::DEVICE_POOL;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn key(&self) -> String {
        self.name().to_owned()
    }

    fn cells(&self) -> Vec<Cell> {
        let managers = self
            .call_managers
            .iter()
            .map(|m| vec![m.host.clone(), m.priority.to_string()]);
        vec![
            text(self.name()),
            Cell::Parts(managers.collect()),
            Cell::List(self.tftp_servers.clone()),
            Cell::Map(self.geolocation.clone()),
            Cell::Flag(self.roaming),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        pools::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        pools::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        pools::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error> {
        pools::remove(tx, &self.name)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

impl Item for User {
    const KIND: &'static Kind = &columns::USER;

    fn name(&self) -> &str {
        self.user_id.as_str()
    }

    fn key(&self) -> String {
        fold(self.name())
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            text(self.name()),
            text(&self.display_name),
            text_or_none(self.self_service_id.as_ref().map(|id| id.as_str())),
            text_or_none(self.primary_extension.as_ref().map(|name| name.as_str())),
            no_secret(),
            no_secret(),
            Cell::Flag(self.enabled),
            Cell::Flag(self.emcc_enabled),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        users::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        users::list(tx, Some(after), limit)
    }

    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        users::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error> {
        users::remove(tx, &self.user_id)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }

    fn hashes(tx: &mut dyn Transaction, keys: &[String]) -> Result<BTreeMap<String, Phc>, Error> {
        let found = credentials::among(tx, keys)?;
        Ok(found
            .into_iter()
            .map(|credential| (fold(credential.user_id.as_str()), credential.phc))
            .collect())
    }
}

impl Item for Profile {
    const KIND: &'static Kind = &columns::PROFILE;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn key(&self) -> String {
        self.name().to_owned()
    }

    fn cells(&self) -> Vec<Cell> {
        let lines = self
            .lines
            .iter()
            .map(|l| vec![l.index.to_string(), l.number.clone(), l.label.clone()]);
        vec![
            text(self.name()),
            text(self.user_id.as_str()),
            Cell::Flag(self.is_default),
            Cell::Parts(lines.collect()),
            text_or_none(self.locale.as_ref()),
            text_or_none(self.device_pool.as_ref().map(|pool| pool.as_str())),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        profiles::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        profiles::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        profiles::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error> {
        profiles::remove(tx, &self.name)
    }

    fn is_as(&self, there: &Self) -> bool {
        // The store gives the user's ID as the user's own row has it.
        let user = (fold(self.user_id.as_str()), fold(there.user_id.as_str()));
        user.0 == user.1
            && *self
                == Self {
                    user_id: self.user_id.clone(),
                    ..there.clone()
                }
    }
}

impl Item for Device {
    const KIND: &'static Kind = &columns::DEVICE;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn key(&self) -> String {
        fold(self.name())
    }

    fn cells(&self) -> Vec<Cell> {
        let mode = match self.security_mode {
            SecurityMode::NonSecure => "non-secure",
            SecurityMode::Secure => "secure",
        };
        vec![
            text(self.name()),
            text(&self.model),
            text(&self.protocol),
            text(mode),
            Cell::Flag(self.emcc),
            Cell::Flag(self.em_enabled),
            text_or_none(self.device_pool.as_ref().map(|pool| pool.as_str())),
            text_or_none(self.locale.as_ref()),
            Cell::Map(self.geolocation.clone()),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        devices::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        devices::list(tx, Some(after), limit)
    }

    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        devices::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error> {
        devices::remove(tx, &self.name)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

impl Item for BaseDeviceName {
    const KIND: &'static Kind = &columns::BASE_DEVICE;

    fn name(&self) -> &str {
        self.as_str()
    }

    fn key(&self) -> String {
        fold(self.as_str())
    }

    fn cells(&self) -> Vec<Cell> {
        vec![text(self.as_str()), Cell::Number(None)]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        base_devices::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        base_devices::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        base_devices::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error> {
        base_devices::remove(tx, self)
    }

    fn is_as(&self, _: &Self) -> bool {
        // A name is all there is to one, however it is written: it can't differ from what is there.
        true
    }
}

impl Item for Peer {
    const KIND: &'static Kind = &columns::PEER;

    fn name(&self) -> &str {
        self.cluster_id.as_str()
    }

    fn key(&self) -> String {
        self.name().to_owned()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            text(self.name()),
            Cell::List(self.addresses.clone()),
            Cell::List(self.node_names.clone()),
            Cell::List(self.user_patterns.clone()),
            Cell::List(self.dn_patterns.clone()),
            Cell::Flag(self.enabled),
            Cell::Flag(self.allow_emcc),
            Cell::Flag(self.ignore_eku),
            text(&self.description),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        peers::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        peers::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        peers::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<bool, Error> {
        peers::remove(tx, &self.cluster_id)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}
