//! What a cluster has on record, and what has become of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::super::{
    model::{Attempt, Model},
    plan::{Cluster, Phone, User},
};
use crate::{
    clock::Timestamp,
    domain::{
        ids::{Ref, SessionId},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        base_devices,
        inline::{Disk, journal::Change},
        peers, sessions,
        sessions::Session,
        trust_entries,
    },
};

/// A row of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) role: Role,
    pub(crate) counterpart: Cluster,
    pub(crate) id: SessionId,
    pub(crate) state: State,
    pub(crate) phone: Option<Phone>,
    pub(crate) user: Option<User>,
    pub(crate) base: Option<String>,
    pub(crate) reference: Ref,
    pub(crate) owed: bool,
    pub(crate) parked: Option<String>,
    pub(crate) reason: Option<EndReason>,
    pub(crate) initiator: Option<Initiator>,
}

/// What one cluster thinks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Regard {
    pub(crate) enabled: bool,
    pub(crate) trusted: bool,
}

/// What a cluster has on record at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dump {
    pub(crate) rows: Vec<Row>,
    pub(crate) bases: BTreeSet<String>,
    /// Its peers; one that is being removed is none.
    pub(crate) peers: BTreeMap<Cluster, Regard>,
    /// Users who may not log in.
    pub(crate) disabled: BTreeSet<User>,
    /// What has become of its sessions since the run began, in the order of time.
    pub(crate) moves: Vec<Move>,
}

/// A change of a session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) at_ms: u64,
    pub(crate) role: Role,
    pub(crate) counterpart: Cluster,
    pub(crate) id: SessionId,
    pub(crate) reference: Ref,
    pub(crate) phone: Option<Phone>,
    pub(crate) user: Option<User>,
    pub(crate) base: Option<String>,
    /// What it was; none for a row that is new.
    pub(crate) was: Option<State>,
    /// What it is; none for a row that is gone.
    pub(crate) now: Option<State>,
    pub(crate) reason: Option<EndReason>,
    pub(crate) initiator: Option<Initiator>,
}

impl Row {
    /// A row as it is stored.
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            role: session.role,
            counterpart: Cluster::named(session.counterpart.as_str()).unwrap(),
            id: session.id,
            state: session.state,
            phone: Phone::named(session.device.as_str()),
            user: session
                .user_id
                .as_ref()
                .and_then(|id| User::named(id.as_str())),
            base: session.base_device.as_ref().map(ToString::to_string),
            reference: session.reference,
            owed: session.owed,
            parked: session.parked.clone(),
            reason: session.end_reason,
            initiator: session.initiator,
        }
    }

    pub(super) fn lives(&self) -> bool {
        self.state != State::Ended
    }

    pub(super) fn key(&self, at: Cluster) -> Key {
        (at, self.role, self.counterpart, self.id)
    }
}

impl Move {
    /// A change as it is kept.
    fn of(change: &Change) -> Self {
        Self {
            at_ms: change.at_ms,
            role: change.role,
            counterpart: Cluster::named(change.counterpart.as_str()).unwrap(),
            id: change.id,
            reference: change.reference,
            phone: Phone::named(change.device.as_str()),
            user: change.user.as_ref().and_then(|id| User::named(id.as_str())),
            base: change.base.as_ref().map(ToString::to_string),
            was: change.was,
            now: change.now,
            reason: change.reason,
            initiator: change.initiator,
        }
    }

    /// Whether it is about that row.
    pub(super) fn is_of(&self, row: &Row) -> bool {
        (self.role, self.counterpart, self.id) == (row.role, row.counterpart, row.id)
    }

    /// Whether the session ended for that reason, and by the doing of the side that wrote it.
    pub(super) fn ends_by_itself(&self, reason: EndReason) -> bool {
        let own = match self.role {
            Role::Home => Initiator::Home,
            Role::Visiting => Initiator::Visiting,
        };
        self.now == Some(State::Ended)
            && self.reason == Some(reason)
            && self.initiator.is_none_or(|initiator| initiator == own)
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [was, now] = [self.was, self.now].map(|state| state.map_or("nothing", State::as_str));
        write!(
            f,
            "{} session {} with {} (from {was} to {now}",
            self.role, self.reference, self.counterpart
        )?;
        if let Some(reason) = self.reason {
            write!(f, ", {reason}")?;
        }
        write!(f, ")")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} session {} with {} ({}",
            self.role, self.reference, self.counterpart, self.state
        )?;
        if let Some(reason) = self.reason {
            write!(f, ", {reason}")?;
        }
        if self.owed {
            write!(f, ", owed")?;
        }
        write!(f, ")")
    }
}

impl Dump {
    /// What is on a cluster's disk.
    pub(crate) fn of(disk: &Disk) -> Self {
        let moves = disk.journal().iter().map(Move::of).collect();
        disk.with(|tx| {
            let all = sessions::list(tx, &sessions::Filter::default()).unwrap();
            let bases = base_devices::list(tx).unwrap();
            let trusted: BTreeSet<_> = trust_entries::list(tx)
                .unwrap()
                .into_iter()
                .map(|entry| entry.cluster_id)
                .collect();
            let mut known = BTreeMap::new();
            for peer in peers::list(tx).unwrap() {
                let Some(cluster) = Cluster::named(peer.cluster_id.as_str()) else {
                    continue;
                };
                if peers::is_leaving(tx, &peer.cluster_id, Timestamp::from_millis(0)).unwrap() {
                    continue;
                }
                let regard = Regard {
                    enabled: peer.enabled,
                    trusted: trusted.contains(&peer.cluster_id),
                };
                known.insert(cluster, regard);
            }
            let disabled = tx
                .query("SELECT user_id FROM users WHERE enabled = 0", &[])
                .unwrap();
            let disabled = disabled
                .into_iter()
                .filter_map(|mut row| User::named(&row.text().unwrap()));
            Self {
                rows: all.iter().map(Row::of).collect(),
                bases: bases
                    .into_iter()
                    .map(|(name, _)| name.to_string())
                    .collect(),
                peers: known,
                disabled: disabled.collect(),
                moves,
            }
        })
    }

    pub(super) fn living(&self, role: Role, with: Cluster) -> impl Iterator<Item = &Row> {
        let is_meant = move |row: &&Row| row.lives() && row.role == role && row.counterpart == with;
        self.rows.iter().filter(is_meant)
    }

    /// When and why a row ended, as it was written then.
    pub(super) fn end_of(&self, row: &Row) -> Option<&Move> {
        let ends =
            |one: &&Move| one.is_of(row) && one.now == Some(State::Ended) && one.was != one.now;
        self.moves.iter().rev().find(ends)
    }

    /// The login that a row is of. A database of before gives out refs once more: the row is of the newest that had
    /// begun when it was written first.
    pub(super) fn login_of<'m>(&self, row: &Row, model: &'m Model) -> Option<&'m Attempt> {
        let is_of = |one: &&Move| one.is_of(row);
        let written = self.moves.iter().find(is_of).map(|one| one.at_ms);
        model.attempt_by(row.reference, written.unwrap_or(u64::MAX))
    }

    /// The same for what has become of one.
    pub(super) fn login_of_move<'m>(&self, of: &Move, model: &'m Model) -> Option<&'m Attempt> {
        let is_same =
            |one: &&Move| (one.role, one.counterpart, one.id) == (of.role, of.counterpart, of.id);
        let written = self.moves.iter().find(is_same).unwrap_or(of).at_ms;
        model.attempt_by(of.reference, written)
    }

    /// The base device that a row held when it was written: an older row may hold it no more.
    pub(super) fn base_of<'d>(&'d self, row: &'d Row) -> Option<&'d str> {
        let mut all = self.moves.iter().filter(|one| one.is_of(row));
        let held = all.find_map(|one| one.base.as_deref());
        held.or(row.base.as_deref())
    }

    /// When a row changed last.
    pub(super) fn changed_ms(&self, role: Role, with: Cluster, id: SessionId) -> u64 {
        let is_meant = |one: &&Move| (one.role, one.counterpart, one.id) == (role, with, id);
        let newest = self.moves.iter().rev().find(is_meant);
        newest.map_or(0, |one| one.at_ms)
    }

    pub(super) fn row(&self, role: Role, with: Cluster, id: SessionId) -> Option<&Row> {
        let is_meant = |row: &&Row| (row.role, row.counterpart, row.id) == (role, with, id);
        self.rows.iter().find(is_meant)
    }
}

/// A row: where, in which role, with whom, and its id.
pub(super) type Key = (Cluster, Role, Cluster, SessionId);

/// All clusters' records, in their order.
pub(crate) type Dumps = [Dump; 3];

/// Whether both know, enable and trust each other.
pub(super) fn are_linked(a: Cluster, b: Cluster, dumps: &Dumps) -> bool {
    let regards = |one: Cluster, other: Cluster| {
        let regard = dumps[usize::from(one.0)].peers.get(&other);
        regard.is_some_and(|regard| regard.enabled && regard.trusted)
    };
    a == b || (regards(a, b) && regards(b, a))
}
