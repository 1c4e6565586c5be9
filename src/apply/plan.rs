//! What the files would change, row by row, against what the store has.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Change, Field, Rest,
    cell::{self, Cell},
    check::{Known, Problems, Rows, Secrets, Whose, check_references},
    columns::{self, KINDS},
    item::{Item, for_every_kind},
    prune::Gone,
};
use crate::{
    domain::{ids::UserId, policy::Policy},
    store::{
        self, Transaction,
        credentials::Phc,
        imports, policies, trust_entries,
        users::{self, User},
    },
};

/// What of the rows' references is in the store.
pub(super) fn known(
    tx: &mut dyn Transaction,
    rows: &Rows,
    rest: Rest,
) -> Result<Known, store::Error> {
    let mut named = BTreeMap::new();
    for_every_kind!(name(rows, &mut named));
    let mut known = Known::default();
    for_every_kind!(look(tx, &named, &mut known));
    let ids: BTreeSet<_> = rows
        .users
        .iter()
        .filter_map(|row| row.value.self_service_id.as_ref())
        .map(ToString::to_string)
        .collect();
    let ids: Vec<_> = ids.into_iter().collect();
    for holder in users::among_self_service_ids(tx, &ids)? {
        if let Some(id) = holder.self_service_id {
            known.self_service_ids.insert(id, holder.user_id);
        }
    }
    if rest == Rest::Goes {
        // What stands in no file is as good as gone.
        known.there.retain(|kind, _| !rows.kinds.contains(kind));
        if rows.kinds.contains(columns::USER.name) {
            let named = rows.named.get(columns::USER.name);
            known.self_service_ids.retain(|_, holder| {
                named.is_some_and(|named| named.contains(&columns::USER.key(holder.as_str())))
            });
        }
    }
    if !rows.peers.is_empty() {
        known.anchored = trust_entries::anchored(tx)?.into_iter().collect();
    }
    Ok(known)
}

type Keys = BTreeMap<&'static str, BTreeSet<String>>;

/// Which records the rows name.
fn name<T: Item>(rows: &Rows, named: &mut Keys) -> Result<(), store::Error> {
    for reference in T::rows(rows).iter().flat_map(|row| row.value.names()) {
        let keys = named.entry(reference.kind.name).or_default();
        keys.insert(reference.kind.key(&reference.name));
    }
    Ok(())
}

/// Which of them are there.
fn look<T: Item>(
    tx: &mut dyn Transaction,
    named: &Keys,
    known: &mut Known,
) -> Result<(), store::Error> {
    if let Some(keys) = named.get(T::KIND.name) {
        let keys: Vec<_> = keys.iter().cloned().collect();
        let there = T::among(tx, &keys)?.iter().map(Item::key).collect();
        known.there.insert(T::KIND.name, there);
    }
    Ok(())
}

/// What changes, and which rows have to be written for it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Every row, and then what goes.
    pub(super) changes: Vec<Change>,
    /// Where the rows of a kind begin in `changes`.
    starts: BTreeMap<&'static str, usize>,
    /// The state of the store that all this is compared with.
    pub(super) revision: Option<String>,
    /// The policies that it has.
    pub(super) policies: Vec<Policy>,
    /// What the rows name that is no longer there.
    pub(super) problems: Problems,
    /// Whether a user gets the self-service user ID that another user of the files has.
    pub(super) hands_over: bool,
    /// The places of the rows to write, in the files' own order, by kind.
    pub(super) places: BTreeMap<&'static str, Vec<usize>>,
    /// What goes.
    pub(super) gone: Gone,
    /// Hashes that are not there already.
    pub(super) hashes: Secrets<Phc>,
}

impl Plan {
    /// Compares the files with the store. `made` are the hashes of the secrets that the files have in clear.
    pub(super) fn make(
        tx: &mut dyn Transaction,
        rows: &Rows,
        made: &Secrets<Phc>,
        rest: Rest,
    ) -> Result<Self, store::Error> {
        let known = known(tx, rows, rest)?;
        let key = |id: &UserId| columns::USER.key(id.as_str());
        let takes_anothers = |user: &User| {
            let holder = user.self_service_id.as_ref();
            let holder = holder.and_then(|id| known.self_service_ids.get(id));
            holder.is_some_and(|holder| key(holder) != key(&user.user_id))
        };
        let mut plan = Self {
            revision: imports::revision(tx)?,
            policies: policies::all(tx)?,
            hands_over: rows.users.iter().any(|row| takes_anothers(&row.value)),
            problems: check_references(rows, &known),
            ..Self::default()
        };
        for_every_kind!(new_hashes(tx, rows, made, &mut plan));
        for_every_kind!(compare(tx, rows, &mut plan));
        if rest == Rest::Goes {
            plan.gone = Gone::find(tx, rows, &mut plan.changes)?;
        }
        debug_assert_eq!(plan.places.len(), KINDS.len(), "every kind is compared");
        Ok(plan)
    }

    /// Whether the rows that wait for the other plan are those of this one.
    pub(super) fn writes_as(&self, other: &Self) -> bool {
        self.places == other.places && self.hashes == other.hashes && self.changes == other.changes
    }

    /// What becomes of a row.
    pub(super) fn change(&self, kind: &str, place: usize) -> Option<&Change> {
        self.changes.get(self.starts.get(kind)? + place)
    }

    /// How many rows are written or deleted of the kinds that can be put in place all at once.
    pub(super) fn count_at_once(&self) -> usize {
        let places = self.places.iter();
        let places = places.filter(|(kind, _)| imports::is_at_once(kind));
        places.map(|(_, places)| places.len()).sum::<usize>() + self.gone.count_at_once()
    }

    /// How many rows are written or deleted.
    pub(super) fn writes(&self) -> u64 {
        let places: usize = self.places.values().map(Vec::len).sum();
        u64::try_from(places + self.gone.count()).unwrap_or(u64::MAX)
    }
}

/// Compares the rows of one kind.
fn compare<T: Item>(
    tx: &mut dyn Transaction,
    rows: &Rows,
    plan: &mut Plan,
) -> Result<(), store::Error> {
    let kind = T::KIND;
    let rows = T::rows(rows);
    let keys: Vec<_> = rows.iter().map(|row| row.value.key()).collect();
    let there: BTreeMap<String, T> = T::among(tx, &keys)?
        .into_iter()
        .map(|record| (record.key(), record))
        .collect();
    let mut places = Vec::new();
    plan.starts.insert(kind.name, plan.changes.len());
    for (place, (row, key)) in rows.iter().zip(keys).enumerate() {
        let before = there.get(&key);
        let mut change = Change {
            kind: kind.name,
            noun: kind.noun,
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
        row.value.tell(before, &mut change);
        let is_set = plan.hashes.contains_key(&whose::<T>(key));
        if change.action != Action::Unchanged || is_set {
            places.push(place);
        }
        if is_set {
            tell_secret(&mut change);
        }
        plan.changes.push(change);
    }
    plan.places.insert(kind.name, places);
    Ok(())
}

fn tell_secret(change: &mut Change) {
    let is_user = change.kind == columns::USER.name;
    let (name, word) = if is_user {
        ("pin", "PIN set")
    } else {
        ("password", "password set")
    };
    change.fields.push(Field {
        name,
        old: String::new(),
        new: "set".to_owned(),
    });
    let told = change.detail.take().map(|detail| detail + "; ");
    change.detail = Some(told.unwrap_or_default() + word);
    if change.action == Action::Unchanged {
        change.action = Action::Changed;
    }
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

/// For the audit: what is, and what was.
fn told(fields: &[Field]) -> String {
    let value = |text: &str| {
        if text.is_empty() {
            "nothing".to_owned()
        } else {
            text.to_owned()
        }
    };
    let told: Vec<_> = fields
        .iter()
        .map(|field| {
            let (old, new) = (value(&field.old), value(&field.new));
            format!("{} = {new}, before: {old}", field.name)
        })
        .collect();
    told.join("; ")
}

/// The hashes, made here or given, that are not there already.
fn new_hashes<T: Item>(
    tx: &mut dyn Transaction,
    rows: &Rows,
    made: &Secrets<Phc>,
    plan: &mut Plan,
) -> Result<(), store::Error> {
    let given: BTreeMap<&String, &Phc> = made
        .iter()
        .chain(&rows.hashes)
        .filter(|(whose, _)| whose.kind == T::KIND.name)
        .map(|(whose, phc)| (&whose.key, phc))
        .collect();
    let keys: Vec<_> = given.keys().map(|key| (*key).clone()).collect();
    let there = T::hashes(tx, &keys)?;
    let new = given
        .into_iter()
        .filter(|(key, phc)| there.get(*key) != Some(*phc));
    plan.hashes
        .extend(new.map(|(key, phc)| (whose::<T>(key.clone()), phc.clone())));
    Ok(())
}

/// The record of a kind with that key.
pub(super) fn whose<T: Item>(key: String) -> Whose {
    Whose {
        kind: T::KIND.name,
        key,
    }
}
