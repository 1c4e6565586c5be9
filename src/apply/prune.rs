//! What the files don't name, where it is asked for that it goes: which records that are, what keeps them, and
//! their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Action, Change, Field,
    check::Rows,
    columns::{self, KINDS, Kind},
    item::{Item, each, for_every_kind},
};
use crate::store::{
    self, Transaction, audit,
    imports::{self, Waiting},
    living, profiles,
    profiles::Profile,
};

/// A record of any kind, on its way out.
trait Record: Send + Sync {
    fn key(&self) -> String;
    fn name(&self) -> &str;
    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), store::Error>;
}

impl<T: Item> Record for T {
    fn key(&self) -> String {
        Item::key(self)
    }

    fn name(&self) -> &str {
        Item::name(self)
    }

    fn remove(&self, tx: &mut dyn Transaction) -> Result<(), store::Error> {
        Item::remove(self, tx)
    }
}

/// The records that go, by kind.
#[derive(Default)]
pub(super) struct Gone(BTreeMap<&'static str, Vec<Box<dyn Record>>>);

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |(kind, gone): (&&'static str, &Vec<Box<dyn Record>>)| {
            let names: Vec<_> = gone.iter().map(|record| record.name().to_owned()).collect();
            (*kind, names)
        };
        f.debug_map().entries(self.0.iter().map(names)).finish()
    }
}

impl Gone {
    /// Looks for what the files don't name, of the kinds that they hold.
    pub(super) fn find(
        tx: &mut dyn Transaction,
        rows: &Rows,
        changes: &mut Vec<Change>,
    ) -> Result<Self, store::Error> {
        let mut gone = Self::default();
        for_every_kind!(unnamed(tx, rows, &mut gone));
        gone.with_their_users(tx, rows)?;
        let mut sessions = gone.sessions(tx)?;
        for kind in KINDS {
            for record in gone.of(kind.name) {
                let is_user = *kind == columns::USER;
                let ends = is_user.then(|| sessions.remove(&record.key()));
                changes.push(Change {
                    kind: kind.name,
                    noun: kind.noun,
                    name: record.name().to_owned(),
                    action: Action::Removed,
                    fields: ends.flatten().unwrap_or_default(),
                    detail: None,
                });
            }
        }
        Ok(gone)
    }

    fn of(&self, kind: &str) -> &[Box<dyn Record>] {
        self.0.get(kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// The sessions that end with their users, by the users' keys.
    fn sessions(
        &self,
        tx: &mut dyn Transaction,
    ) -> Result<BTreeMap<String, Vec<Field>>, store::Error> {
        let mut sessions: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        if !self.of(columns::USER.name).is_empty() {
            for (user, device, cluster) in living::user_sessions(tx)? {
                sessions.entry(user).or_default().push(Field {
                    name: "session",
                    old: format!("{device} of {cluster}"),
                    new: String::new(),
                });
            }
        }
        Ok(sessions)
    }

    /// How many rows of the kinds that are put in place all at once.
    pub(super) fn count_at_once(&self) -> usize {
        let gone = self.0.iter().filter(|(kind, _)| imports::is_at_once(kind));
        gone.map(|(_, gone)| gone.len()).sum()
    }

    /// How many in all.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Those of one kind, to wait.
    pub(super) fn waiting(&self, kind: &'static Kind) -> Vec<Waiting> {
        let (kind, noun) = (kind.name, kind.noun);
        let action = if imports::is_at_once(kind) {
            imports::Action::Remove
        } else {
            imports::Action::Tell
        };
        let gone = self.of(kind).iter();
        gone.map(|record| Waiting {
            kind,
            name: record.name().to_owned(),
            audited: audit::Action::Remove(noun),
            change: Action::Removed.as_str().to_owned(),
            action,
            values: vec![record.key().into()],
            phc: None,
        })
        .collect()
    }

    fn keys(&self, kind: &str) -> BTreeSet<String> {
        self.of(kind).iter().map(|record| record.key()).collect()
    }

    /// A user's profiles go with them.
    fn with_their_users(
        &mut self,
        tx: &mut dyn Transaction,
        rows: &Rows,
    ) -> Result<(), store::Error> {
        let users: Vec<_> = self.keys(columns::USER.name).into_iter().collect();
        let named: BTreeSet<_> = rows
            .profiles
            .iter()
            .map(|row| Item::key(&row.value))
            .collect();
        let known = self.keys(columns::PROFILE.name);
        let is_new = |profile: &Profile| {
            let key = Item::key(profile);
            !named.contains(&key) && !known.contains(&key)
        };
        let profiles = self.0.entry(columns::PROFILE.name).or_default();
        for profile in profiles::among_users(tx, &users)? {
            if is_new(&profile) {
                profiles.push(Box::new(profile));
            }
        }
        profiles.sort_by_cached_key(|profile| profile.key());
        Ok(())
    }

    /// Why some of it can't go now.
    pub(super) fn kept(&self, tx: &mut dyn Transaction) -> Result<Vec<String>, store::Error> {
        let mut reasons = Vec::new();
        for_every_kind!(living_of(tx, self, &mut reasons));
        Ok(reasons)
    }

    /// Deletes it, what names others first: record by record, or what of an import waits for it.
    pub(super) fn remove(
        &self,
        tx: &mut dyn Transaction,
        import: Option<i64>,
    ) -> Result<(), store::Error> {
        for kind in KINDS.iter().rev() {
            if let Some(import) = import.filter(|_| imports::is_at_once(kind.name)) {
                imports::remove(tx, import, kind.name)?;
                continue;
            }
            for record in self.of(kind.name) {
                record.remove(tx)?;
            }
        }
        Ok(())
    }

    /// What names a record that is gone, once everything is written.
    pub(super) fn left_behind(
        &self,
        tx: &mut dyn Transaction,
    ) -> Result<Vec<String>, store::Error> {
        let kinds = self.0.iter().filter(|(_, gone)| !gone.is_empty());
        let kinds: Vec<_> = kinds.map(|(kind, _)| *kind).collect();
        let left = living::dangling(tx, &kinds)?.into_iter();
        Ok(left
            .map(|d| format!("{} {}: {} {} names it", d.missing, d.name, d.kind, d.holder))
            .collect())
    }
}

fn unnamed<T: Item>(
    tx: &mut dyn Transaction,
    rows: &Rows,
    gone: &mut Gone,
) -> Result<(), store::Error> {
    if rows.kinds.contains(T::KIND.name) {
        let named: BTreeSet<_> = T::rows(rows).iter().map(|row| row.value.key()).collect();
        let found = gone.0.entry(T::KIND.name).or_default();
        each::<T>(tx, |_, page| {
            for record in page {
                if !named.contains(&Item::key(&record)) {
                    found.push(Box::new(record));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn living_of<T: Item>(
    tx: &mut dyn Transaction,
    gone: &Gone,
    reasons: &mut Vec<String>,
) -> Result<(), store::Error> {
    let kind = T::KIND.name;
    if !gone.of(kind).is_empty() {
        let living: BTreeSet<_> = T::living(tx)?.into_iter().collect();
        let kept = gone.of(kind).iter();
        let kept = kept.filter(|record| living.contains(&record.key()));
        reasons.extend(kept.map(|record| format!("{kind} {} {}", record.name(), T::IN_USE)));
    }
    Ok(())
}
