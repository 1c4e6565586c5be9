//! What holds at every moment.

use std::collections::BTreeSet;

use super::{
    super::{
        model::{LOGIN_MS, Model, STALL, Told},
        plan::{Cluster, NODES, Node, Second, What},
    },
    BEHIND, Checker, EXPIRY, OLD_ENOUGH, TAKE_OVER, VISITING_LATER,
    record::{Dump, Dumps, Move},
};
use crate::domain::session::{EndReason, Role, State};

/// The codes for a database that did not answer, soon and at the deadline.
const DATABASE: u16 = 6;
const BUSY: u16 = 26;

impl Checker {
    /// S1, S2.
    pub(super) fn one_each(&mut self, at_ms: u64, at: Cluster, dump: &Dump) {
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
    pub(super) fn forward_only(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
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
    pub(super) fn no_late_success(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
        for row in &dump.rows {
            let attempt = dump.login_of(row, model);
            let failed = attempt.filter(|one| {
                let told = one.ended_ms.filter(|ended| *ended < at_ms);
                // The row was to end behind a success that was under way to a disk that stood still: the node took one
                // of them with it. The phone's next page shows which.
                let is_lost = |told| {
                    matches!(one.told, Told::Failed(DATABASE | BUSY))
                        && model.crashed(at, told, told + STALL)
                };
                matches!(one.told, Told::Failed(_)) && told.is_some_and(|told| !is_lost(told))
            });
            if row.role != Role::Visiting || !row.lives() || failed.is_none() {
                self.late.remove(&row.key(at));
                continue;
            }
            let since = *self.late.entry(row.key(at)).or_insert(at_ms);
            let patience = match row.state {
                // Whoever ends what is overdue may have died meanwhile.
                State::Pending => STALL + troubled_ms(at, since, at_ms, model),
                _ => STALL + model.disturbed_ms(at, since, at_ms),
            };
            if at_ms > since + patience {
                let told = failed.map(|one| (one.told, one.ended_ms));
                let what =
                    format!("{at}: the phone was told of a failure ({told:?}), and then: {row}");
                self.add("S3", at_ms, what);
            }
        }
    }

    /// S7: what should have ended long ago.
    pub(super) fn in_time(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
        for row in dump.rows.iter().filter(|row| row.state == State::Active) {
            let told_in = dump
                .login_of(row, model)
                .filter(|attempt| attempt.told == Told::In)
                .and_then(|attempt| attempt.ended_ms);
            let limit = self.limit_ms(at, row.role, row.counterpart);
            if let (Some(since), Some(limit)) = (told_in, limit)
                && !self.time_was_lost(at, model)
                && at_ms
                    > due_ms(at, since + limit, at_ms, model) + expiry_ms(at, since, at_ms, model)
            {
                let what = format!("{at}: its time is over since long: {row}");
                self.add("S7", at_ms, what);
            }
        }
    }

    /// After what time a side ends a session by itself; none for never.
    fn limit_ms(&self, at: Cluster, role: Role, counterpart: Cluster) -> Option<u64> {
        // Sessions on phones of one's own last for ever.
        let minutes = self.plan.settings.limit_minutes;
        let limit = minutes.filter(|_| counterpart != at)? * 60_000;
        Some(match role {
            Role::Home => limit,
            Role::Visiting => limit + VISITING_LATER,
        })
    }

    /// S6: who owes an end no more has told it: what has ended so on one side lives on neither.
    pub(super) fn told_first(&mut self, at_ms: u64, at: Cluster, dumps: &Dumps, model: &Model) {
        let settled = |row: &&super::record::Row| !row.lives() && !row.owed && row.parked.is_none();
        for row in dumps[usize::from(at.0)].rows.iter().filter(settled) {
            let with = row.counterpart;
            let other = dumps[usize::from(with.0)].row(row.role.other(), at, row.id);
            let Some(other) = other.filter(|other| other.lives()) else {
                continue;
            };
            // What was told is forgotten in a database of before.
            if model.was_restored(with, 0) || model.fell_out(at, with, 0) {
                continue;
            }
            let what = format!("{at} owes nothing for {row}, and {with} has {other}");
            self.add("S6", at_ms, what);
        }
    }

    /// S3: nothing that has ended lives again, and an answer that comes too late opens nothing. S4: nothing vanishes.
    pub(super) fn goes_forward(
        &mut self,
        at: Cluster,
        one: &Move,
        before: Option<State>,
        dump: &Dump,
        model: &Model,
    ) {
        let Some(now) = one.now else {
            if !model.fell_out(at, one.counterpart, 0) {
                self.add("S4", one.at_ms, format!("{at}: it was forgotten: {one}"));
            }
            return;
        };
        if before.max(one.was).is_some_and(|before| before > now) {
            let what = format!("{at}: what had ended lived again: {one}");
            self.add("S3", one.at_ms, what);
        }
        let is_opened = one.was == Some(State::Pending) && now == State::Active;
        let attempt = dump.login_of_move(one, model).filter(|_| is_opened);
        let Some(attempt) = attempt else { return };
        self.judged("S3 openings");
        if one.at_ms > attempt.began_ms + LOGIN_MS {
            let late = one.at_ms - attempt.began_ms - LOGIN_MS;
            let what = format!("{at}: opened {late} ms after its deadline: {one}");
            self.add("S3", one.at_ms, what);
        }
        let failed = attempt
            .ended_ms
            .filter(|_| matches!(attempt.told, Told::Failed(_)));
        if failed.is_some_and(|failed| one.at_ms > failed) {
            let what = format!(
                "{at}: opened after its phone was told {:?}: {one}",
                attempt.told
            );
            self.add("S3", one.at_ms, what);
        }
    }

    /// S7, to the moment.
    pub(super) fn expires_in_time(&mut self, at: Cluster, one: &Move, dump: &Dump, model: &Model) {
        let Some(attempt) = dump.login_of_move(one, model) else {
            return;
        };
        if !one.ends_by_itself(EndReason::Expired) || self.time_was_lost(at, model) {
            return;
        }
        self.judged("S7 expired");
        let (began, ended) = (attempt.began_ms, one.at_ms);
        let Some(limit) = self.limit_ms(at, one.role, one.counterpart) else {
            return self.add("S7", ended, format!("{at}: it had no end: {one}"));
        };
        let early = (began + limit).saturating_sub(ended);
        if early > behind_ms(at, began, ended, model) {
            let what = format!("{at}: ended {early} ms too early: {one}");
            self.add("S7", ended, what);
        }
        let told = attempt.ended_ms.filter(|_| attempt.told == Told::In);
        if let Some(told) = told
            && ended > due_ms(at, told + limit, ended, model) + expiry_ms(at, told, ended, model)
        {
            let late = ended - told - limit;
            self.add(
                "S7",
                ended,
                format!("{at}: ended {late} ms too late: {one}"),
            );
        }
    }

    /// S5: a session that the other side lacks is ended for that when it is old enough.
    pub(super) fn is_old_enough(&mut self, at: Cluster, one: &Move, dumps: &Dumps, model: &Model) {
        let acknowledged = dumps[usize::from(at.0)]
            .login_of_move(one, model)
            .filter(|attempt| attempt.told == Told::In);
        let Some(attempt) = acknowledged.filter(|_| one.ends_by_itself(EndReason::Abandoned))
        else {
            return;
        };
        let other = &dumps[usize::from(one.counterpart.0)];
        // A login that is pending again, in a database of before, is given up by itself.
        if one.was == Some(State::Pending) && model.was_restored(at, attempt.began_ms)
            || other.row(one.role.other(), at, one.id).is_some()
            || model.fell_out(at, one.counterpart, 0)
            || self.time_was_lost(at, model)
        {
            return;
        }
        self.judged("S5 ended since it was lacked");
        let age = one.at_ms.saturating_sub(attempt.began_ms);
        if age + behind_ms(at, attempt.began_ms, one.at_ms, model) < OLD_ENOUGH {
            let what = format!(
                "{at}: ended after {age} ms, since {} lacks it: {one}",
                one.counterpart
            );
            self.add("S5", one.at_ms, what);
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
                    What::Crash { node, .. } | What::Pause { node, .. } if node.cluster() == at => {
                        Some(node)
                    }
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
}

/// What is broken at a cluster, and what it takes to notice.
pub(super) fn troubled_ms(at: Cluster, from_ms: u64, to_ms: u64, model: &Model) -> u64 {
    match model.disturbed_ms(at, from_ms.saturating_sub(TAKE_OVER), to_ms) {
        0 => 0,
        disturbed => disturbed + TAKE_OVER,
    }
}

/// When the time of a session is over: in a database of before it may live once more, and ends once more.
fn due_ms(at: Cluster, due_ms: u64, by_ms: u64, model: &Model) -> u64 {
    due_ms.max(model.restored_ms(at, by_ms))
}

/// How long after its time a session ends at the latest.
fn expiry_ms(at: Cluster, from_ms: u64, to_ms: u64, model: &Model) -> u64 {
    EXPIRY + troubled_ms(at, from_ms, to_ms, model)
}

/// By how much the time that a session goes by may have been behind when it began.
fn behind_ms(at: Cluster, from_ms: u64, to_ms: u64, model: &Model) -> u64 {
    let is_troubled = troubled_ms(at, from_ms, to_ms, model) > 0;
    BEHIND + if is_troubled { TAKE_OVER } else { 0 }
}
