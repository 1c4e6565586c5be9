//! Users, profiles, phones, base devices, application users and peers.

use std::collections::BTreeMap;

use super::{
    Cell, Change, Item, Kind, Named, Placed, Rows, Stamp, columns, list, no_secret, text,
    text_or_none,
};
use crate::{
    domain::{ids::BaseDeviceName, login::SecurityMode},
    store::{
        Error, Transaction, Value,
        applications::{self, Application},
        base_devices,
        credentials::{self, Phc},
        devices::{self, Device},
        fold, living, parameters,
        peers::{self, Peer},
        profiles::{self, Profile},
        users::{self, User},
    },
};

impl Item for User {
    const KIND: &'static Kind = &columns::USER;
    const IN_USE: &'static str = "is logged in, and end-sessions-on-revocation is off";

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.users
    }

    fn name(&self) -> &str {
        self.user_id.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            text(self.name()),
            text(&self.display_name),
            text_or_none(self.self_service_id.as_ref()),
            text_or_none(self.primary_extension.as_ref()),
            no_secret(),
            no_secret(),
            Cell::Flag(self.enabled),
            Cell::Flag(self.emcc_enabled),
            text_or_none(self.policy.as_ref()),
        ]
    }

    fn names(&self) -> Vec<Named> {
        let policy = self.policy.iter();
        policy
            .map(|policy| Named::new("policy", &columns::POLICY, policy))
            .collect()
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        users::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        users::list(tx, Some(after), limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        users::upsert(tx, self)
    }

    fn values(&self) -> Result<Option<Vec<Value>>, Error> {
        Ok(Some(users::values(self)))
    }

    fn put_waiting(
        tx: &mut dyn Transaction,
        import: i64,
        hands_over: bool,
        stamp: &Stamp,
    ) -> Result<(), Error> {
        users::put_waiting(tx, import, hands_over)?;
        credentials::put_waiting(tx, import, stamp.at)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        users::remove(tx, &self.user_id).map(drop)
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

    fn put_hash(&self, tx: &mut dyn Transaction, phc: &Phc, stamp: &Stamp) -> Result<(), Error> {
        credentials::put_hash(tx, &self.user_id, phc, stamp.at)
    }

    fn living(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
        // Where it is on, their sessions end for it.
        if parameters::ends_sessions(tx)? {
            return Ok(Vec::new());
        }
        living::users(tx)
    }
}

impl Item for Profile {
    const KIND: &'static Kind = &columns::PROFILE;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.profiles
    }

    fn name(&self) -> &str {
        self.name.as_str()
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
            text_or_none(self.device_pool.as_ref()),
            list(&self.services),
        ]
    }

    fn names(&self) -> Vec<Named> {
        let pool = self.device_pool.iter();
        let services = self.services.iter();
        [Named::new("user", &columns::USER, &self.user_id)]
            .into_iter()
            .chain(pool.map(|p| Named::new("device-pool", &columns::DEVICE_POOL, p)))
            .chain(services.map(|s| Named::new("services", &columns::PHONE_SERVICE, s)))
            .collect()
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        profiles::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        profiles::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        profiles::upsert(tx, self)
    }

    fn values(&self) -> Result<Option<Vec<Value>>, Error> {
        profiles::values(self).map(Some)
    }

    fn put_waiting(tx: &mut dyn Transaction, import: i64, _: bool, _: &Stamp) -> Result<(), Error> {
        profiles::put_waiting(tx, import)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        profiles::remove(tx, &self.name).map(drop)
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
    const IN_USE: &'static str = "has somebody logged in on it";

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.devices
    }

    fn name(&self) -> &str {
        self.name.as_str()
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
            text_or_none(self.device_pool.as_ref()),
            text_or_none(self.locale.as_ref()),
            Cell::Map(self.geolocation.clone()),
            text_or_none(self.location.as_ref()),
            list(&self.services),
        ]
    }

    fn names(&self) -> Vec<Named> {
        let (pool, place) = (self.device_pool.iter(), self.location.iter());
        let services = self.services.iter();
        pool.map(|p| Named::new("device-pool", &columns::DEVICE_POOL, p))
            .chain(place.map(|p| Named::new("location", &columns::GEOLOCATION, p)))
            .chain(services.map(|s| Named::new("services", &columns::PHONE_SERVICE, s)))
            .collect()
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        devices::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        devices::list(tx, Some(after), limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        devices::upsert(tx, self)
    }

    fn values(&self) -> Result<Option<Vec<Value>>, Error> {
        devices::values(self).map(Some)
    }

    fn put_waiting(tx: &mut dyn Transaction, import: i64, _: bool, _: &Stamp) -> Result<(), Error> {
        devices::put_waiting(tx, import)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        devices::remove(tx, &self.name).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }

    fn living(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
        living::devices(tx)
    }
}

impl Item for BaseDeviceName {
    const KIND: &'static Kind = &columns::BASE_DEVICE;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.base_devices
    }

    fn name(&self) -> &str {
        self.as_str()
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

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        base_devices::upsert(tx, self)
    }

    fn values(&self) -> Result<Option<Vec<Value>>, Error> {
        Ok(Some(base_devices::values(self)))
    }

    fn put_waiting(tx: &mut dyn Transaction, import: i64, _: bool, _: &Stamp) -> Result<(), Error> {
        base_devices::put_waiting(tx, import)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        base_devices::remove(tx, self).map(drop)
    }

    fn is_as(&self, _: &Self) -> bool {
        // A name is all there is to one, however it is written: it can't differ from what is there.
        true
    }
}

impl Item for Application {
    const KIND: &'static Kind = &columns::APPLICATION_USER;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.applications
    }

    fn name(&self) -> &str {
        self.id.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            text(self.name()),
            no_secret(),
            no_secret(),
            Cell::Flag(self.proxy),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        applications::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        applications::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        applications::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        applications::remove(tx, self.name()).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }

    fn hashes(tx: &mut dyn Transaction, keys: &[String]) -> Result<BTreeMap<String, Phc>, Error> {
        Ok(applications::hashes(tx, keys)?.into_iter().collect())
    }

    fn put_hash(&self, tx: &mut dyn Transaction, phc: &Phc, _: &Stamp) -> Result<(), Error> {
        applications::put_hash(tx, &self.id, phc)
    }
}

impl Item for Peer {
    const KIND: &'static Kind = &columns::PEER;
    const IN_USE: &'static str = "has sessions with us, or is still to be told of ends";

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.peers
    }

    fn name(&self) -> &str {
        self.cluster_id.as_str()
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
            text(self.accept_announcements.as_str()),
            text(&self.description),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        peers::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        peers::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        peers::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        peers::remove(tx, &self.cluster_id).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }

    fn tell(&self, before: Option<&Self>, change: &mut Change) {
        change.detail = Some(match before {
            None => format!("at {}", self.addresses.join(", ")),
            Some(before) => peers::told(&self.changes_since(before)),
        });
    }

    fn living(tx: &mut dyn Transaction) -> Result<Vec<String>, Error> {
        living::peers(tx)
    }
}
