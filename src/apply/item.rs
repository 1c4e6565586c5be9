//! What each kind of record has in common: a name, cells, names of other records, and rows in the store.

use std::collections::BTreeMap;

use super::{
    Change,
    cell::{Cell, SecretText},
    check::{Placed, Rows},
    columns::{self, Kind},
};
use crate::{
    clock::Timestamp,
    store::{Error, Transaction, Value, credentials::Phc, fold},
};

mod directory;
mod places;

/// A record that files hold.
pub(super) trait Item: Sized + Send + Sync + 'static {
    /// Its columns.
    const KIND: &'static Kind;

    /// Why one that lives can't go.
    const IN_USE: &'static str = "is in use";

    /// Those of the files.
    fn rows(rows: &Rows) -> &[Placed<Self>];

    /// Its name as written.
    fn name(&self) -> &str;

    /// The form of its name under which it is found: names with the same key mean the same record.
    fn key(&self) -> String {
        Self::KIND.key(self.name())
    }

    /// Its cells in the order of the columns. Secrets are empty: they are no part of the record.
    fn cells(&self) -> Vec<Cell>;

    /// The records that it names.
    fn names(&self) -> Vec<Named> {
        Vec::new()
    }

    /// The records with these keys, in no order.
    fn among(tx: &mut dyn Transaction, keys: &[String]) -> Result<Vec<Self>, Error>;

    /// At most `limit` records in order of their keys, from the first one behind the key `after`.
    fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Self>, Error>;

    /// Adds it, or replaces the one of its name.
    fn put(&self, tx: &mut dyn Transaction, stamp: &Stamp) -> Result<(), Error>;

    /// The values of its row, where such rows are put in place all at once.
    fn values(&self) -> Result<Option<Vec<Value>>, Error> {
        Ok(None)
    }

    /// Puts those of an import in place that wait; `hands_over` as [`Plan`](super::plan::Plan) has it.
    fn put_waiting(
        _tx: &mut dyn Transaction,
        _import: i64,
        _hands_over: bool,
        _stamp: &Stamp,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Deletes it.
    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), Error>;

    /// Whether writing it would change nothing.
    fn is_as(&self, there: &Self) -> bool;

    /// Says in its own words what writing it changes.
    fn tell(&self, _before: Option<&Self>, _change: &mut Change) {}

    /// The hashes of secrets that belong to these records, by key.
    fn hashes(_: &mut dyn Transaction, _: &[String]) -> Result<BTreeMap<String, Phc>, Error> {
        Ok(BTreeMap::new())
    }

    /// Sets the hash of its secret.
    fn put_hash(&self, _: &mut dyn Transaction, _: &Phc, _: &Stamp) -> Result<(), Error> {
        Ok(())
    }

    /// The keys of those that live, and so can't go now.
    fn living(_: &mut dyn Transaction) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

/// When something is written, and in whose name.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) at: Timestamp,
    pub(super) actor: String,
}

/// A record that another one names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// In which of its columns.
    pub(super) column: &'static str,
    /// What kind of record it must be.
    pub(super) kind: &'static Kind,
    /// Its name.
    pub(super) name: String,
}

impl Named {
    fn new(column: &'static str, kind: &'static Kind, name: &impl ToString) -> Self {
        Self {
            column,
            kind,
            name: name.to_string(),
        }
    }
}

/// Calls a function that is generic over [`Item`] once for each kind, in the order of [`columns::KINDS`].
macro_rules! for_every_kind {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $function::<$crate::store::geolocations::Geolocation>($($argument),*)?;
        $function::<$crate::store::call_groups::CallGroup>($($argument),*)?;
        $function::<$crate::domain::login::PhoneService>($($argument),*)?;
        $function::<$crate::store::pools::DevicePool>($($argument),*)?;
        $function::<$crate::domain::policy::Policy>($($argument),*)?;
        $function::<$crate::store::users::User>($($argument),*)?;
        $function::<$crate::store::profiles::Profile>($($argument),*)?;
        $function::<$crate::store::devices::Device>($($argument),*)?;
        $function::<$crate::domain::ids::BaseDeviceName>($($argument),*)?;
        $function::<$crate::store::applications::Application>($($argument),*)?;
        $function::<$crate::store::peers::Peer>($($argument),*)?;
        $function::<$crate::store::parameters::Setting>($($argument),*)?;
    };
}
pub(super) use for_every_kind;

impl Kind {
    /// The form of a name under which a record of this kind is found.
    pub(super) fn key(&self, name: &str) -> String {
        if self.ignores_case {
            fold(name)
        } else {
            name.to_owned()
        }
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

fn text_or_none(text: Option<impl ToString>) -> Cell {
    Cell::Text(text.map(|t| t.to_string()).unwrap_or_default())
}

fn list(texts: &[impl ToString]) -> Cell {
    Cell::List(texts.iter().map(ToString::to_string).collect())
}

fn no_secret() -> Cell {
    Cell::Secret(SecretText(String::new().into()))
}
