//! S4, of ends: what somebody was told to be over is over by then.

use super::{
    super::{
        model::{Attempt, Model, Told},
        plan::{Cluster, What},
    },
    Checker,
    record::{Dump, Dumps, Row},
};
use crate::domain::session::{Role, State};

/// An end of which somebody was told, at one side.
struct ToldEnd<'a> {
    at: Cluster,
    role: Role,
    began_ms: u64,
    told_ms: u64,
    is_meant: &'a dyn Fn(&Attempt, &Row) -> bool,
    /// Who was told of what.
    what: String,
    /// What kind of end it is.
    kind: &'static str,
}

impl Checker {
    /// Logouts of which phones were told, and ends of which operators were: no session of before is there any more, and
    /// there was none where they were told that there is nobody.
    pub(super) fn ended_as_told(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for logout in model.logouts.iter().filter(|one| one.is_done) {
            let end = ToldEnd {
                at: Cluster(logout.phone.0),
                role: Role::Visiting,
                began_ms: logout.began_ms,
                told_ms: logout.over_ms.unwrap_or(at_ms),
                is_meant: &|attempt, _| attempt.phone == logout.phone,
                what: format!("{} was told of a logout", logout.phone),
                kind: "S4 logouts",
            };
            self.is_over(at_ms, &end, dumps, model);
        }
        for done in &model.done {
            let Some(told_ms) = done.told_ms() else {
                continue;
            };
            let (at, role) = match done.what {
                What::EndAtVisiting { phone, .. } => (phone.0, Role::Visiting),
                What::EndAtHome { user, .. } => (user.0, Role::Home),
                What::RemoveBase { base, .. } => (base.0, Role::Home),
                _ => continue,
            };
            let is_meant = |attempt: &Attempt, row: &Row| match done.what {
                What::EndAtVisiting { phone, .. } => attempt.phone == phone,
                What::EndAtHome { user, .. } => attempt.user == user,
                What::RemoveBase { base, .. } => row.base == Some(base.to_string()),
                _ => false,
            };
            let end = ToldEnd {
                at: Cluster(at),
                role,
                began_ms: done.began_ms,
                told_ms,
                is_meant: &is_meant,
                what: format!("an operator was told {:?} of {:?}", done.answer, done.what),
                kind: "S4 ends by operators",
            };
            self.is_over(at_ms, &end, dumps, model);
        }
    }

    fn is_over(&mut self, at_ms: u64, end: &ToldEnd<'_>, dumps: &Dumps, model: &Model) {
        let dump = &dumps[usize::from(end.at.0)];
        if model.was_lost(end.at, end.began_ms, end.told_ms) {
            return;
        }
        for row in dump.rows.iter().filter(|row| row.role == end.role) {
            let login = dump.login_of(row, model).filter(|login| {
                login.ended_ms.is_some_and(|ended| ended < end.began_ms)
                    && (end.is_meant)(login, row)
                    // A database of before may have it as a login that goes on.
                    && !model.was_forgotten(login)
            });
            let Some(login) = login else { continue };
            self.judged(end.kind);
            let over_ms = dump.end_of(row).map_or(0, |over| over.at_ms);
            let is_wrong = match row.state {
                State::Ended => login.told == Told::In && over_ms > end.told_ms,
                _ => true,
            };
            if is_wrong {
                let what = format!("{}: {}, and {row}", end.at, end.what);
                self.add("S4", at_ms, what);
            }
        }
    }

    /// S3: where a phone is told of a failure, its row has ended by then. A store that fails or is too slow for it is a
    /// reason of its own, of which the phone is told.
    pub(crate) fn ended_before_told(
        &mut self,
        at_ms: u64,
        attempt: &Attempt,
        dump: &Dump,
        model: &Model,
    ) {
        if matches!(attempt.told, Told::Failed(code) if STORE_FAILED.contains(&code)) {
            return;
        }
        let is_its = |row: &&Row| {
            let login = dump.login_of(row, model);
            row.role == Role::Visiting && login.is_some_and(|login| login == attempt)
        };
        let row = dump.rows.iter().find(is_its);
        if row.is_some() {
            self.judged("S3 failures told");
        }
        if let Some(row) = row.filter(|row| row.lives()) {
            let what = format!(
                "{} was told {:?} while its row was there: {row}",
                attempt.phone, attempt.told
            );
            self.add("S3", at_ms, what);
        }
    }
}

// What phones are told where the store fails, and where it is too slow.
const STORE_FAILED: [u16; 2] = [6, 26];
