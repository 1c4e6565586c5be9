//! What there was of sessions at each moment, by what became of them one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        model::Model,
        plan::{Cluster, Phone, Second, User},
    },
    Checker,
    record::{Dump, Dumps, Move},
};
use crate::domain::{
    ids::SessionId,
    session::{Role, State},
};

/// The sessions of a cluster at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Moment(BTreeMap<(Role, Cluster, SessionId), One>);

#[derive(Clone, Debug)]
struct One {
    state: State,
    /// Whether the row is still there.
    is_there: bool,
    phone: Option<Phone>,
    user: Option<User>,
    base: Option<String>,
}

impl Moment {
    /// What is there now.
    pub(super) fn of(dump: &Dump) -> Self {
        let one = |row: &super::Row| One {
            state: row.state,
            is_there: true,
            phone: row.phone,
            user: row.user,
            base: row.base.clone(),
        };
        let rows = dump.rows.iter();
        Self(
            rows.map(|row| ((row.role, row.counterpart, row.id), one(row)))
                .collect(),
        )
    }

    /// Something changes; what it was before, also where it was gone meanwhile.
    fn take(&mut self, change: &Move) -> Option<State> {
        let key = (change.role, change.counterpart, change.id);
        let before = self.0.get(&key).map(|one| one.state);
        let Some(state) = change.now.or(before) else {
            return before;
        };
        let one = One {
            state,
            is_there: change.now.is_some(),
            phone: change.phone,
            user: change.user,
            base: change.base.clone(),
        };
        self.0.insert(key, one);
        before
    }

    fn living(&self) -> impl Iterator<Item = (&(Role, Cluster, SessionId), &One)> {
        let lives = |one: &One| one.is_there && one.state != State::Ended;
        self.0.iter().filter(move |(_, one)| lives(one))
    }
}

impl Checker {
    /// What is wrong with the changes themselves, however short a time they were there.
    pub(crate) fn changes(&mut self, dumps: &Dumps, model: &Model) {
        for (at, dump) in Cluster::all().zip(dumps) {
            let place = usize::from(at.0);
            let new = dump.moves.iter().skip(self.read[place]);
            let mut new = new.peekable();
            while let Some(one) = new.next() {
                let before = self.there[place].take(one);
                self.goes_forward(at, one, before, dump, model);
                self.expires_in_time(at, one, dump, model);
                self.is_old_enough(at, one, dumps, model);
                // What one transaction changes is there at once.
                if new.peek().is_none_or(|next| next.at_ms != one.at_ms) {
                    self.one_each_then(at, one);
                }
            }
            self.read[place] = dump.moves.len();
        }
    }

    /// S1 and S2, as they were right after a change.
    fn one_each_then(&mut self, at: Cluster, last: &Move) {
        let is_single = self.plan.settings.second[usize::from(at.0)] != Second::Allowed;
        if is_single {
            self.judged("S1 moments");
        }
        let (mut phones, mut users, mut bases) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut wrong = Vec::new();
        for ((role, counterpart, _), one) in self.there[usize::from(at.0)].living() {
            if !phones.insert((*role, one.phone)) {
                wrong.push(("S1", format!("two sessions on {:?}", one.phone)));
            }
            if *role != Role::Home {
                continue;
            }
            if is_single && !users.insert(one.user) {
                wrong.push(("S1", format!("two sessions of {:?}", one.user)));
            }
            if counterpart == &at {
                continue;
            }
            match &one.base {
                None => wrong.push(("S2", format!("{:?} without a base device", one.user))),
                Some(base) if !bases.insert(base) => {
                    wrong.push(("S2", format!("{base} held twice")));
                }
                Some(_) => {}
            }
        }
        for (rule, what) in wrong {
            self.add(rule, last.at_ms, format!("{at} had {what} after {last}"));
        }
    }
}
