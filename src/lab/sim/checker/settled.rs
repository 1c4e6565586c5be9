//! What holds once all has settled.

use super::{
    super::{
        model::{Attempt, End, Model, STALL, Told},
        plan::{Cluster, Phone, What},
    },
    Checker, Shown,
    record::{Dumps, Row, are_linked},
};
use crate::domain::session::{EndReason, Role, State};

impl Checker {
    /// S4.
    pub(super) fn acknowledged(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for attempt in model.attempts.iter().filter(|one| one.told == Told::In) {
            let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
            let is_forgotten =
                model.was_forgotten(attempt) || model.fell_out(home, visiting, attempt.began_ms);
            for (at, role, with) in [
                (visiting, Role::Visiting, home),
                (home, Role::Home, visiting),
            ] {
                let dump = &dumps[usize::from(at.0)];
                let row = dump.rows.iter().find(|row| {
                    let login = dump.login_of(row, model);
                    (row.role, row.counterpart) == (role, with)
                        && login.is_some_and(|login| std::ptr::eq(login, attempt))
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
                let explained = match row.state {
                    State::Ended => self.explained(attempt, row, dumps, model),
                    state => (state == State::Active).then_some("it lives"),
                };
                if let Some(why) = explained {
                    self.judged(&format!("S4 {why}"));
                } else {
                    let end = dumps[usize::from(at.0)].end_of(row);
                    let what = format!(
                        "{at}: acknowledged to {} on {}, and nothing explains: {row}",
                        attempt.user, attempt.phone
                    );
                    self.add("S4", end.map_or(at_ms, |end| end.at_ms), what);
                }
            }
        }
    }

    /// What the reason is for an end, of all that was told.
    fn explained(
        &self,
        attempt: &Attempt,
        row: &Row,
        dumps: &Dumps,
        model: &Model,
    ) -> Option<&'static str> {
        let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
        let at = if row.role == Role::Home {
            home
        } else {
            visiting
        };
        let dump = &dumps[usize::from(at.0)];
        // Visiting takes over the reason that home has when it is told of the end.
        let end = dump.end_of(row);
        let reason = end.and_then(|end| end.reason).or(row.reason)?;
        let at_ms = end.map(|end| end.at_ms);
        let how = End {
            reason,
            role: row.role,
            at_ms,
            has_limit: self.plan.settings.limit_minutes.is_some(),
            base: dump.base_of(row).map(str::to_owned),
        };
        if let Some(why) = model.explains(attempt, &how) {
            return Some(why);
        }
        // With a login home is told what has ended at that cluster before, whoever it was on whichever phone.
        let with_another = model.attempts.iter().any(|other| {
            other.reference != attempt.reference
                && (other.user.0, other.phone.0) == (home.0, visiting.0)
                && at_ms.is_none_or(|ended| other.began_ms <= ended)
        });
        // Maybe more than once: in a database of before it lives again.
        let there = &dumps[usize::from(visiting.0)];
        let had_ended = there.row(Role::Visiting, home, row.id).is_some_and(|row| {
            there.moves.iter().any(|before| {
                before.is_of(row)
                    && before.now == Some(State::Ended)
                    && at_ms.is_none_or(|ended| before.at_ms <= ended)
            })
        });
        (row.role == Role::Home && reason == EndReason::Superseded && with_another && had_ended)
            .then_some("a login of somebody else told of it")
    }

    /// S5. What has changed only now may take a moment to be told.
    pub(super) fn agreed(&mut self, at_ms: u64, dumps: &Dumps) {
        let pairs = Cluster::all().flat_map(|home| Cluster::all().map(move |other| (home, other)));
        for (home, visiting) in pairs {
            if !are_linked(home, visiting, dumps) || self.may_differ(home, visiting) {
                continue;
            }
            let [here, there] = [home, visiting].map(|one| &dumps[usize::from(one.0)]);
            let is_settled = |id| {
                let changed = here.changed_ms(Role::Home, visiting, id);
                let changed = changed.max(there.changed_ms(Role::Visiting, home, id));
                at_ms >= changed + STALL
            };
            let shown =
                |row: Option<&Row>| row.map_or_else(|| "nothing".to_owned(), Row::to_string);
            for row in here.living(Role::Home, visiting) {
                if home != visiting {
                    self.judged("S5 shared");
                }
                let other = there.row(Role::Visiting, home, row.id);
                let whose = |row: &Row| (row.phone, row.user);
                if let Some(other) = other.filter(|other| other.state == State::Active)
                    && whose(other) != whose(row)
                {
                    let what = format!(
                        "{home} has {row} of {:?}, and {visiting} of {:?}",
                        whose(row),
                        whose(other)
                    );
                    self.add("S5", at_ms, what);
                }
                if !other.is_some_and(Row::lives) && is_settled(row.id) {
                    let what = format!("{home} has {row}, and {visiting} {}", shown(other));
                    self.add("S5", at_ms, what);
                }
            }
            for row in there.living(Role::Visiting, home) {
                let other = here.row(Role::Home, visiting, row.id);
                if !is_settled(row.id) {
                    continue;
                } else if row.state != State::Active {
                    let what = format!("{visiting} has not decided yet: {row}");
                    self.add("S5", at_ms, what);
                } else if !other.is_some_and(Row::lives) {
                    let what = format!("{visiting} has {row}, and {home} {}", shown(other));
                    self.add("S5", at_ms, what);
                }
            }
        }
    }

    /// S5, of ends that both sides have settled: they ended for one reason.
    pub(super) fn for_one_reason(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for home in Cluster::all() {
            let here = &dumps[usize::from(home.0)];
            let is_settled = |row: &Row| !row.lives() && !row.owed && row.parked.is_none();
            let all = here.rows.iter().filter(|row| row.role == Role::Home);
            for row in all.filter(|row| is_settled(row)) {
                let visiting = row.counterpart;
                let there = &dumps[usize::from(visiting.0)];
                let other = there.row(Role::Visiting, home, row.id);
                let Some(other) = other.filter(|other| is_settled(other)) else {
                    continue;
                };
                // What was owed is forgotten with the peer, and what was told with the database.
                if model.fell_out(home, visiting, 0)
                    || [home, visiting]
                        .into_iter()
                        .any(|one| model.was_restored(one, 0))
                {
                    continue;
                }
                self.judged("S5 reasons");
                if row.reason != other.reason {
                    let what = format!("{home} has {row}, and {visiting} {other}");
                    self.add("S5", at_ms, what);
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
    pub(super) fn paid(&mut self, at_ms: u64, dumps: &Dumps) {
        for (at, dump) in Cluster::all().zip(dumps) {
            let owed = dump
                .rows
                .iter()
                .filter(|row| row.owed || row.parked.is_some());
            if dump
                .rows
                .iter()
                .any(|row| row.counterpart != at && !row.lives())
            {
                self.judged("S6 debts looked at");
            }
            for row in owed.filter(|row| are_linked(at, row.counterpart, dumps)) {
                if at_ms >= dump.changed_ms(row.role, row.counterpart, row.id) + STALL {
                    let why = row.parked.as_deref().unwrap_or("no reason");
                    let what = format!("{at} has not told its end ({why}): {row}");
                    self.add("S6", at_ms, what);
                }
            }
        }
    }

    /// The page of a phone tells what is on record.
    pub(super) fn shown(&mut self, at_ms: u64, dumps: &Dumps, phones: &[(Phone, Shown)]) {
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
