//! Whether the rules of sessions hold: what the clusters have on record, against what was told. Pure.
//!
//! S1 one session per phone and role, and per user where that is asked for. S2 a base device is held by one session.
//! S3 what was asked twice is answered alike, and nothing lives again. S4 what was acknowledged is there, or ended for
//! a reason. S5 both sides agree. S6 nothing stays owed. S7 sessions end when their time is over, and not before. S8
//! whoever lost the right has none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    model::{Attempt, Model, Told},
    plan::{Cluster, NODES, Node, Phone, Plan, Second, User, What},
    tap::{Answered, Asked, Call},
};
use crate::{
    clock::Timestamp,
    domain::{
        ids::{Ref, SessionId},
        session::{EndReason, Initiator, Role, State},
    },
    store::{base_devices, inline::Disk, peers, sessions, sessions::Session, trust_entries},
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
}

/// What a phone shows when all has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Nobody,
    Busy,
    In(User),
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wrong {
    /// `S1` to `S8`.
    pub(crate) rule: &'static str,
    /// When it was seen.
    pub(crate) at_ms: u64,
    /// What is wrong.
    pub(crate) what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.rule, self.at_ms, self.what)
    }
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

    fn lives(&self) -> bool {
        self.state != State::Ended
    }

    fn key(&self, at: Cluster) -> Key {
        (at, self.role, self.counterpart, self.id)
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
            }
        })
    }

    fn living(&self, role: Role, with: Cluster) -> impl Iterator<Item = &Row> {
        let is_meant = move |row: &&Row| row.lives() && row.role == role && row.counterpart == with;
        self.rows.iter().filter(is_meant)
    }

    fn row(&self, role: Role, with: Cluster, id: SessionId) -> Option<&Row> {
        let is_meant = |row: &&Row| (row.role, row.counterpart, row.id) == (role, with, id);
        self.rows.iter().find(is_meant)
    }
}

type Key = (Cluster, Role, Cluster, SessionId);

/// Watches a run.
#[derive(Debug)]
pub(crate) struct Checker {
    plan: Plan,
    /// How each row was last seen, and whether it was seen as a session.
    seen: BTreeMap<Key, State>,
    /// Rows that are sessions though their phones were told of a failure, and since when: what was asked for and is
    /// no longer waited for is carried out, and then what undoes it.
    late: BTreeMap<Key, u64>,
    wrong: BTreeSet<Wrong>,
}

/// All clusters' records, in their order.
pub(crate) type Dumps = [Dump; 3];

impl Checker {
    /// Nothing has been seen.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            seen: BTreeMap::new(),
            late: BTreeMap::new(),
            wrong: BTreeSet::new(),
        }
    }

    /// Looks at what is on record while things happen.
    pub(crate) fn look(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for (at, dump) in Cluster::all().zip(dumps) {
            self.one_each(at_ms, at, dump);
            self.forward_only(at_ms, at, dump, model);
            self.no_late_success(at_ms, at, dump, model);
            self.in_time(at_ms, at, dump, model);
        }
    }

    /// A database became an older one: what was seen there before is no more.
    pub(crate) fn restored(&mut self, cluster: Cluster) {
        self.seen.retain(|key, _| key.0 != cluster);
    }

    /// Looks at what is on record right after a login was refused since its user is on another phone: not for a session
    /// that the phone's own cluster has given up and said so.
    pub(crate) fn refused_elsewhere(
        &mut self,
        at_ms: u64,
        attempt: &Attempt,
        dumps: &Dumps,
        model: &Model,
    ) {
        let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
        let of_user: Vec<_> = dumps[usize::from(home.0)]
            .rows
            .iter()
            .filter(|row| row.lives() && row.role == Role::Home && row.user == Some(attempt.user))
            .collect();
        let is_ghost = |row: &&Row| {
            let other_side = dumps[usize::from(visiting.0)].row(Role::Visiting, home, row.id);
            let was_told = model.attempt(row.reference).is_some_and(|ghost| {
                matches!(ghost.told, Told::Failed(_))
                    && ghost.ended_ms.is_some_and(|ended| ended < attempt.began_ms)
            });
            row.counterpart == visiting
                && was_told
                && other_side.is_some_and(|row| row.state == State::Ended && row.owed)
        };
        if !of_user.is_empty() && of_user.iter().all(is_ghost) {
            let what = format!(
                "{} was locked out on {} by {}, of which its phone was told that it failed",
                attempt.user, attempt.phone, of_user[0]
            );
            self.add("S3", at_ms, what);
        }
    }

    /// What is wrong after all has settled, and was before.
    pub(crate) fn finish(
        mut self,
        at_ms: u64,
        dumps: &Dumps,
        model: &Model,
        phones: &[(Phone, Shown)],
        calls: &[Call],
    ) -> Vec<Wrong> {
        self.look(at_ms, dumps, model);
        self.answered_alike(at_ms, model, calls);
        self.acknowledged(at_ms, dumps, model);
        self.agreed(at_ms, dumps);
        self.paid(at_ms, dumps);
        self.rightful(at_ms, dumps);
        self.shown(at_ms, dumps, phones);
        self.wrong.into_iter().collect()
    }

    fn add(&mut self, rule: &'static str, at_ms: u64, what: String) {
        // One row that stays wrong is told of once.
        if !self
            .wrong
            .iter()
            .any(|one| one.rule == rule && one.what == what)
        {
            self.wrong.insert(Wrong { rule, at_ms, what });
        }
    }

    /// S1, S2.
    fn one_each(&mut self, at_ms: u64, at: Cluster, dump: &Dump) {
        let (mut phones, mut users, mut bases) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for row in dump.rows.iter().filter(|row| row.lives()) {
            if !phones.insert((row.role == Role::Home, row.phone)) {
                let what = format!("{at} has two sessions on one phone: {row}");
                self.add("S1", at_ms, what);
            }
            if row.role != Role::Home {
                continue;
            }
            let is_single = self.plan.settings.second[usize::from(at.0)] != Second::Allowed;
            if is_single && !users.insert(row.user) {
                let what = format!("{at} has two sessions of one user: {row}");
                self.add("S1", at_ms, what);
            }
            if row.counterpart == at {
                continue;
            }
            match &row.base {
                None => self.add(
                    "S2",
                    at_ms,
                    format!("{at}: no base device is held by {row}"),
                ),
                Some(base) if !dump.bases.contains(base) => {
                    self.add("S2", at_ms, format!("{at}: {base} is gone, held by {row}"));
                }
                Some(base) if !bases.insert(base.clone()) => {
                    self.add("S2", at_ms, format!("{at}: {base} is held twice: {row}"));
                }
                Some(_) => {}
            }
        }
    }

    /// S4: nothing goes back, and nothing vanishes.
    fn forward_only(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
        for row in &dump.rows {
            let before = self.seen.insert(row.key(at), row.state);
            if before.is_some_and(|before| before > row.state) {
                self.add(
                    "S3",
                    at_ms,
                    format!("{at}: what had ended lives again: {row}"),
                );
            }
        }
        let there: BTreeSet<_> = dump.rows.iter().map(|row| row.key(at)).collect();
        let vanished: Vec<_> = self
            .seen
            .keys()
            .filter(|key| key.0 == at && !there.contains(key))
            .copied()
            .collect();
        for key in vanished {
            self.seen.remove(&key);
            if !model.fell_out(at, key.2, 0) {
                let what = format!("{at}: session {} with {} is gone", key.3, key.2);
                self.add("S4", at_ms, what);
            }
        }
    }

    /// S3: who was told of a failure is on no phone.
    fn no_late_success(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
        for row in &dump.rows {
            let attempt = model.attempt(row.reference);
            let failed = attempt.filter(|one| {
                matches!(one.told, Told::Failed(_))
                    && one.ended_ms.is_some_and(|ended| ended < at_ms)
            });
            if row.role != Role::Visiting || row.state != State::Active || failed.is_none() {
                self.late.remove(&row.key(at));
                continue;
            }
            let since = *self.late.entry(row.key(at)).or_insert(at_ms);
            let patience = STALL + model.disturbed_ms(at, since, at_ms);
            if at_ms > since + patience {
                let what = format!("{at}: the phone was told of a failure, and then: {row}");
                self.add("S3", at_ms, what);
            }
        }
    }

    /// S7.
    fn in_time(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
        let limit = self
            .plan
            .settings
            .limit_minutes
            .map(|minutes| minutes * 60_000);
        for row in &dump.rows {
            let Some(attempt) = model.attempt(row.reference) else {
                continue;
            };
            // Sessions on phones of one's own last for ever.
            let limit = limit.filter(|_| row.counterpart != at);
            let own = match row.role {
                Role::Home => limit,
                Role::Visiting => limit.map(|limit| limit + VISITING_LATER),
            };
            let began = attempt.began_ms;
            if row.state == State::Active
                && let (Some(own), Told::In, Some(since)) = (own, attempt.told, attempt.ended_ms)
            {
                let patience = EXPIRY + model.disturbed_ms(at, since, at_ms);
                if at_ms > since + own + patience {
                    let what = format!("{at}: its time is over since long: {row}");
                    self.add("S7", at_ms, what);
                }
            }
            let is_own = row.initiator.is_none_or(|who| match row.role {
                Role::Home => who == Initiator::Home,
                Role::Visiting => who == Initiator::Visiting,
            });
            if row.reason == Some(EndReason::Expired) && is_own && !self.time_was_lost(at, model) {
                match own {
                    None => self.add("S7", at_ms, format!("{at}: it had no end: {row}")),
                    Some(own) if at_ms < began + own => {
                        let what =
                            format!("{at}: ended {} ms too early: {row}", began + own - at_ms);
                        self.add("S7", at_ms, what);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Whether a cluster may have lost count of time: no node of it ran, and the wall clocks that it went by before and
    /// afterwards are not the same.
    fn time_was_lost(&self, at: Cluster, model: &Model) -> bool {
        let jumped = model
            .since(0)
            .any(|what| matches!(what, What::Clock { node, .. } if node.cluster() == at));
        let skews: BTreeSet<_> = at
            .nodes()
            .map(|node| self.plan.settings.skew_ms[node.place()])
            .collect();
        let is_alone = NODES[usize::from(at.0)] == 1;
        // Who was down from when to when; nobody in particular where all were.
        let downs: Vec<(Option<Node>, u64, u64)> = model
            .done
            .iter()
            .filter_map(|done| {
                let node = match done.what {
                    What::Restore { cluster, .. } if cluster == at => None,
                    What::Crash { node, .. } if node.cluster() == at => Some(node),
                    _ => return None,
                };
                let ended = done.ended_ms.unwrap_or(u64::MAX);
                Some((node, done.began_ms, ended.saturating_add(TAKE_OVER)))
            })
            .collect();
        let was_down = downs.iter().any(|(node, began, ended)| {
            let meets = |other: &&(Option<Node>, u64, u64)| {
                other.0 != *node && other.1 <= *ended && *began <= other.2
            };
            is_alone || node.is_none() || downs.iter().any(|other| meets(&other))
        });
        was_down && (jumped || skews.len() > 1)
    }

    /// S3, as the callers of other clusters saw it.
    fn answered_alike(&mut self, at_ms: u64, model: &Model, calls: &[Call]) {
        let mut of_one: BTreeMap<(Cluster, Cluster, SessionId), Vec<&Call>> = BTreeMap::new();
        for call in calls {
            let key = (call.callee, call.caller, call.id);
            of_one.entry(key).or_default().push(call);
        }
        for ((callee, caller, id), calls) in of_one {
            // A database of before knows nothing of what it answered since.
            if model.was_restored(callee, 0) || model.fell_out(callee, caller, 0) {
                continue;
            }
            for (first, later) in calls.iter().flat_map(|first| {
                let is_later =
                    |later: &&&Call| first.ended.is_some_and(|ended| later.began > ended);
                calls
                    .iter()
                    .filter(is_later)
                    .map(move |later| (first, later))
            }) {
                if later.asked != Asked::Login {
                    continue;
                }
                let (Some(before), Some(after)) = (&first.answered, &later.answered) else {
                    continue;
                };
                let is_wrong = match (before, after) {
                    (Answered::Opened(a), Answered::Opened(b)) => a != b,
                    (Answered::Ended(_), Answered::Opened(_) | Answered::Choose) => true,
                    (Answered::Refused(code), Answered::Opened(_)) => {
                        first.asked == Asked::Login && !NOT_KEPT.contains(code)
                    }
                    _ => false,
                };
                if is_wrong {
                    let what = format!(
                        "{callee} answered {caller} about {id} first {before:?}, and a login later {after:?}"
                    );
                    self.add("S3", at_ms, what);
                }
            }
        }
    }

    /// S4.
    fn acknowledged(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        let has_limit = self.plan.settings.limit_minutes.is_some();
        for attempt in model.attempts.iter().filter(|one| one.told == Told::In) {
            let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
            let since = attempt.began_ms;
            let is_forgotten = model.was_restored(home, since)
                || model.was_restored(visiting, since)
                || model.fell_out(home, visiting, since);
            for (at, role, with) in [
                (visiting, Role::Visiting, home),
                (home, Role::Home, visiting),
            ] {
                let row = dumps[usize::from(at.0)].rows.iter().find(|row| {
                    row.reference == attempt.reference
                        && row.role == role
                        && row.counterpart == with
                });
                let Some(row) = row else {
                    if !is_forgotten {
                        let what = format!(
                            "{at} knows nothing of the {role} session {} of {} on {}, which was acknowledged",
                            attempt.reference, attempt.user, attempt.phone
                        );
                        self.add("S4", at_ms, what);
                    }
                    continue;
                };
                let explained = match (row.state, row.reason) {
                    (State::Ended, Some(reason)) => {
                        model.explains(attempt, reason, role, has_limit).is_some()
                    }
                    (State::Ended, None) => false,
                    (state, _) => state == State::Active,
                };
                if !explained {
                    let what = format!(
                        "{at}: acknowledged to {} on {}, and nothing explains: {row}",
                        attempt.user, attempt.phone
                    );
                    self.add("S4", at_ms, what);
                }
            }
        }
        self.logged_out(at_ms, dumps, model);
    }

    /// S4, of logouts.
    fn logged_out(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for logout in model.logouts.iter().filter(|one| one.done_ms.is_some()) {
            let visiting = Cluster(logout.phone.0);
            let before = |row: &&Row| {
                row.role == Role::Visiting
                    && row.lives()
                    && row.phone == Some(logout.phone)
                    && model
                        .attempt(row.reference)
                        .and_then(|attempt| attempt.ended_ms)
                        .is_some_and(|ended| ended < logout.began_ms)
            };
            let lives = dumps[usize::from(visiting.0)].rows.iter().find(before);
            if let Some(row) = lives
                && !model.was_restored(visiting, logout.began_ms)
            {
                let what = format!(
                    "{visiting}: {} was told of a logout, and {row}",
                    logout.phone
                );
                self.add("S4", at_ms, what);
            }
        }
    }

    /// S5.
    fn agreed(&mut self, at_ms: u64, dumps: &Dumps) {
        for home in Cluster::all() {
            for visiting in Cluster::all() {
                if !are_linked(home, visiting, dumps) || self.may_differ(home, visiting) {
                    continue;
                }
                let at_home: BTreeMap<_, _> = dumps[usize::from(home.0)]
                    .living(Role::Home, visiting)
                    .map(|row| (row.id, row))
                    .collect();
                let at_visiting: BTreeMap<_, _> = dumps[usize::from(visiting.0)]
                    .living(Role::Visiting, home)
                    .map(|row| (row.id, row))
                    .collect();
                for (id, row) in &at_home {
                    if !at_visiting.contains_key(id) {
                        let other = dumps[usize::from(visiting.0)].row(Role::Visiting, home, *id);
                        let other = other.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                        let what = format!("{home} has {row}, and {visiting} {other}");
                        self.add("S5", at_ms, what);
                    }
                }
                for (id, row) in &at_visiting {
                    if row.state != State::Active {
                        let what = format!("{visiting} has not decided yet: {row}");
                        self.add("S5", at_ms, what);
                    } else if !at_home.contains_key(id) {
                        let other = dumps[usize::from(home.0)].row(Role::Home, visiting, *id);
                        let other = other.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                        let what = format!("{visiting} has {row}, and {home} {other}");
                        self.add("S5", at_ms, what);
                    }
                }
            }
        }
    }

    /// Whether two clusters may differ for good: one of them can't compare, and their memories of each other were cut
    /// off.
    fn may_differ(&self, a: Cluster, b: Cluster) -> bool {
        let is_old = |one: Cluster| a != b && self.plan.settings.old == Some(one);
        let fell_out = self.plan.steps.iter().any(|step| match &step.what {
            What::RemovePeer { at, peer, .. } | What::RevokeTrust { at, peer, .. } => {
                (*at, *peer) == (a, b) || (*at, *peer) == (b, a)
            }
            What::Restore { cluster, .. } => *cluster == a || *cluster == b,
            _ => false,
        });
        (is_old(a) || is_old(b)) && fell_out
    }

    /// S6.
    fn paid(&mut self, at_ms: u64, dumps: &Dumps) {
        for (at, dump) in Cluster::all().zip(dumps) {
            for row in dump
                .rows
                .iter()
                .filter(|row| row.owed || row.parked.is_some())
            {
                if are_linked(at, row.counterpart, dumps) {
                    let why = row.parked.as_deref().unwrap_or("no reason");
                    let what = format!("{at} has not told its end ({why}): {row}");
                    self.add("S6", at_ms, what);
                }
            }
        }
    }

    /// S8.
    fn rightful(&mut self, at_ms: u64, dumps: &Dumps) {
        for (at, dump) in Cluster::all().zip(dumps) {
            for row in dump.rows.iter().filter(|row| row.lives()) {
                let is_disabled = row.user.is_some_and(|user| dump.disabled.contains(&user));
                if row.role == Role::Home && is_disabled {
                    self.add("S8", at_ms, format!("{at}: its user is disabled: {row}"));
                }
                if row.counterpart == at {
                    continue;
                }
                match dump.peers.get(&row.counterpart) {
                    None => self.add("S8", at_ms, format!("{at}: its peer was removed: {row}")),
                    Some(regard) if !regard.trusted => {
                        self.add("S8", at_ms, format!("{at}: its peer is not trusted: {row}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// The page of a phone tells what is on record.
    fn shown(&mut self, at_ms: u64, dumps: &Dumps, phones: &[(Phone, Shown)]) {
        for (phone, shown) in phones {
            let dump = &dumps[usize::from(phone.0)];
            let row = dump
                .rows
                .iter()
                .find(|row| row.role == Role::Visiting && row.lives() && row.phone == Some(*phone));
            let right = match (row.map(|row| (row.state, row.user)), shown) {
                (None, Shown::Nobody) => true,
                (Some((State::Active, user)), Shown::In(shown)) => user == Some(*shown),
                (Some((State::Pending, _)), Shown::Busy | Shown::Nobody) => true,
                _ => false,
            };
            if !right {
                let row = row.map_or_else(|| "nobody".to_owned(), ToString::to_string);
                self.add(
                    "S3",
                    at_ms,
                    format!("{phone} shows {shown:?}, and on record is {row}"),
                );
            }
        }
    }
}

/// Whether both know, enable and trust each other.
fn are_linked(a: Cluster, b: Cluster, dumps: &Dumps) -> bool {
    let regards = |one: Cluster, other: Cluster| {
        let regard = dumps[usize::from(one.0)].peers.get(&other);
        regard.is_some_and(|regard| regard.enabled && regard.trusted)
    };
    a == b || (regards(a, b) && regards(b, a))
}

// What home ends at the earliest so much before visiting would by itself.
const VISITING_LATER: u64 = 60_000;
// Within which a session ends whose time is over: 5 s; where the node that watches died, as long as it takes to notice.
// A slow disk comes on top.
const EXPIRY: u64 = 5_000 + TAKE_OVER + 4_000;
const TAKE_OVER: u64 = 9_000;
// What is written may take that long where a disk stalls, and what undoes it as long again.
const STALL: u64 = 8_000;
// Refusals that are not kept under the id of a login: what was refused so may come again.
const NOT_KEPT: [u16; 3] = [6, 26, 33];

#[cfg(test)]
mod tests;
