//! Geolocations, call-control groups, phone services, device pools, credential policies, and parameters.

use super::{Cell, Item, Kind, Named, Placed, Rows, Stamp, columns, list, text, text_or_none};
use crate::{
    domain::{
        login::{CallManager, PhoneService},
        parameters,
        policy::Policy,
    },
    store::{
        Error, Transaction,
        call_groups::{self, CallGroup},
        geolocations::{self, Geolocation},
        parameters::{self as stored, Setting},
        phone_services, policies,
        pools::{self, DevicePool},
    },
};

impl Item for Geolocation {
    const KIND: &'static Kind = &columns::GEOLOCATION;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.geolocations
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![text(self.name()), Cell::Map(self.fields.clone())]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        geolocations::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        geolocations::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        geolocations::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        geolocations::remove(tx, self.name()).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

fn managers(servers: &[CallManager]) -> Cell {
    let servers = servers.iter();
    Cell::Parts(
        servers
            .map(|m| vec![m.host.clone(), m.priority.to_string()])
            .collect(),
    )
}

impl Item for CallGroup {
    const KIND: &'static Kind = &columns::CALL_GROUP;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.call_groups
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![text(self.name()), managers(&self.members)]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        call_groups::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        call_groups::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        call_groups::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        call_groups::remove(tx, self.name()).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

impl Item for PhoneService {
    const KIND: &'static Kind = &columns::PHONE_SERVICE;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.phone_services
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![text(self.name()), text(&self.url), text(self.menu.as_str())]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        phone_services::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        phone_services::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        phone_services::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        phone_services::remove(tx, self.name()).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

impl Item for DevicePool {
    const KIND: &'static Kind = &columns::DEVICE_POOL;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.pools
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            text(self.name()),
            managers(&self.call_managers),
            text_or_none(self.call_group.as_ref()),
            list(&self.tftp_servers),
            Cell::Map(self.geolocation.clone()),
            text_or_none(self.location.as_ref()),
            Cell::Flag(self.roaming),
        ]
    }

    fn names(&self) -> Vec<Named> {
        let group = self.call_group.iter();
        let group = group.map(|g| Named::new("call-control-group", &columns::CALL_GROUP, g));
        let place = self.location.iter();
        let place = place.map(|p| Named::new("location", &columns::GEOLOCATION, p));
        group.chain(place).collect()
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        pools::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        pools::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        pools::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        pools::remove(tx, &self.name).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

impl Item for Policy {
    const KIND: &'static Kind = &columns::POLICY;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.policies
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn cells(&self) -> Vec<Cell> {
        let rules = &self.rules;
        let number = |number| Cell::Number(Some(number));
        vec![
            text(self.name()),
            number(rules.failures_before_lock),
            number(rules.failure_window),
            number(rules.lock_duration),
            number(rules.min_length),
            number(rules.max_length),
            Cell::Flag(rules.trivial_check),
        ]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        policies::among(tx, keys)
    }

    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error> {
        policies::page(tx, after, limit)
    }

    fn put(&self, tx: &mut dyn Transaction, _: &Stamp) -> Result<(), Error> {
        policies::upsert(tx, self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        policies::remove(tx, self.name()).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self == there
    }
}

impl Item for Setting {
    const KIND: &'static Kind = &columns::PARAMETER;

    fn rows(rows: &Rows) -> &[Placed<Self>] {
        &rows.parameters
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        vec![text(self.name()), text(&self.value)]
    }

    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error> {
        let mut all = stored::all(tx)?;
        all.retain(|setting| keys.contains(&setting.name));
        Ok(all)
    }

    fn page(tx: &mut dyn Transaction, after: &str, _: u32) -> Result<Vec<Self>, Error> {
        let mut all = stored::all(tx)?;
        // What this version doesn't know, or takes for no value, isn't in force either.
        all.retain(|setting| {
            let known = parameters::find(&setting.name);
            setting.name.as_str() > after
                && known.is_ok_and(|known| known.canonical(&setting.value).is_ok())
        });
        Ok(all)
    }

    fn put(&self, tx: &mut dyn Transaction, stamp: &Stamp) -> Result<(), Error> {
        let stamped = Self {
            set_at: stamp.at,
            set_by: stamp.actor.clone(),
            ..self.clone()
        };
        stored::set(tx, &stamped).map(drop)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        stored::reset(tx, &self.name).map(drop)
    }

    fn is_as(&self, there: &Self) -> bool {
        self.value == there.value
    }
}
