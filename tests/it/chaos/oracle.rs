//! What phones and operators were told, held against what both databases say.

use super::*;

use emccd::{
    clock::Timestamp,
    domain::session::{EndReason, Role, State},
    store::sessions::Session,
};

use super::load::{Asked, Attempt, Heard};
use crate::support::rows::{Rows, rows};

/// Two processes' reading of one clock, in milliseconds.
const MOMENT: i64 = 1_000;

/// All that anybody was told.
pub(super) struct Told<'a> {
    pub(super) roamers: &'a [Roamer],
    pub(super) guessers: &'a [Guesser],
    pub(super) operators: &'a [Operator],
}

/// What does not hold.
pub(super) async fn judge(lab: &Lab, told: &Told<'_>, counts: &mut Counts) -> Vec<String> {
    let all = [rows(&lab.clusters[0]).await, rows(&lab.clusters[1]).await];
    // One cluster refuses second logins, with the other one they end the first.
    let mut broken: Vec<_> = all.iter().flat_map(Rows::users_in_twice).collect();
    for roamer in told.roamers {
        let judge = Judge {
            told,
            roamer,
            at_home: &all[roamer.home],
            at_visiting: &all[roamer.visiting],
        };
        for attempt in &roamer.attempts {
            let what = match (attempt.asked, attempt.heard) {
                (Asked::Login, Heard::Done) => "logins acknowledged".to_owned(),
                (Asked::Logout, Heard::Done) => "logouts acknowledged".to_owned(),
                (asked, Heard::Refused(code)) => format!("{asked:?} refused with {code}"),
                (asked, Heard::Nothing) => format!("{asked:?} without an answer"),
            };
            count(counts, what);
            broken.extend(judge.attempt(attempt).err());
        }
        broken.extend(pages(lab, roamer, &all[roamer.visiting]).await);
    }
    for attempt in told.guessers.iter().flat_map(|g| &g.attempts) {
        count(counts, "wrong PINs");
        if attempt.heard == Heard::Done {
            broken.push(format!("a wrong PIN got in: {attempt:?}"));
        }
    }
    for ended in told.operators.iter().flat_map(|o| &o.ended) {
        count(counts, "sessions that an operator ended");
        for row in all.iter().flat_map(|rows| &rows.sessions) {
            if ended.is_acknowledged && row.id.to_string() == ended.id && row.state != State::Ended
            {
                broken.push(format!("an operator ended it, and it lives: {row:?}"));
            }
        }
    }
    for row in all.iter().flat_map(|rows| &rows.sessions) {
        let reason = row.end_reason.map_or("none: it lives", EndReason::as_str);
        count(counts, format!("rows at {}, end: {reason}", row.role));
    }
    broken
}

struct Judge<'a> {
    told: &'a Told<'a>,
    roamer: &'a Roamer,
    at_home: &'a Rows,
    at_visiting: &'a Rows,
}

impl Judge<'_> {
    fn on(&self, device: &str) -> impl Iterator<Item = &Session> {
        self.at_visiting
            .sessions
            .iter()
            .filter(move |s| s.role == Role::Visiting && s.device.as_str() == device)
    }

    fn attempt(&self, attempt: &Attempt) -> Result<(), String> {
        match (attempt.asked, attempt.heard) {
            (Asked::Login, Heard::Done) => self.login(attempt),
            (Asked::Logout, Heard::Done) => self.logout(attempt),
            (Asked::Login, Heard::Refused(_)) => self.refused(attempt),
            (Asked::Logout, Heard::Refused(_)) | (_, Heard::Nothing) => Ok(()),
        }
    }

    /// An acknowledged login is there on both sides, or it ended for a reason that somebody gave.
    fn login(&self, attempt: &Attempt) -> Result<(), String> {
        let (from, to) = (attempt.began, attempt.ended);
        let within = |at: Timestamp| (from..=to).contains(&at.as_millis());
        let is_it = |s: &&Session| {
            let user = s
                .user_id
                .as_ref()
                .is_some_and(|u| u.as_str() == attempt.user);
            let failed = matches!(
                s.end_reason,
                Some(EndReason::Abandoned | EndReason::Refused)
            );
            user && within(s.created_at) && !failed
        };
        let mut found = self.on(&attempt.device).filter(is_it);
        let row = match (found.next(), found.next()) {
            (Some(row), None) => row,
            (None, _) => {
                let near: Vec<_> = self
                    .on(&attempt.device)
                    .filter(|s| within(s.created_at))
                    .collect();
                return Err(format!("acknowledged and lost: {attempt:?}; {near:?}"));
            }
            (Some(one), Some(other)) => {
                return Err(format!("two of one: {attempt:?}: {one:?}, {other:?}"));
            }
        };
        let Some(at_home) = self.at_home.session(Role::Home, row.id) else {
            return Err(format!("home has no row: {attempt:?}: {row:?}"));
        };
        if at_home.state != row.state {
            return Err(format!("they differ: {row:?}, {at_home:?}"));
        }
        if row.state == State::Active {
            return Ok(());
        }
        for row in [row, at_home] {
            if !row
                .end_reason
                .is_some_and(|r| self.is_explained(attempt, row, r))
            {
                return Err(format!("ended by nobody: {attempt:?}: {row:?}"));
            }
        }
        Ok(())
    }

    /// Whether somebody asked for that end, between the login and the end.
    fn is_explained(&self, login: &Attempt, row: &Session, reason: EndReason) -> bool {
        let ended = row.ended_at.map_or(i64::MAX, Timestamp::as_millis);
        let may_be_it =
            |a: &&Attempt| a.began <= ended + MOMENT && a.may_act_until() >= login.began;
        let mut later = self.roamer.attempts.iter().filter(may_be_it);
        let is_login = |a: &Attempt| a.asked == Asked::Login && a.began != login.began;
        let is_logout = |a: &Attempt| a.asked == Asked::Logout && a.device == login.device;
        let mut ended = self.told.operators.iter().flat_map(|o| &o.ended);
        let is_operators = ended.any(|e| e.id == row.id.to_string());
        match reason {
            EndReason::User => later.any(is_logout),
            EndReason::Operator => is_operators,
            // Any login to that home tells of what has ended there, whyever it did.
            EndReason::Superseded => is_operators || later.any(|a| is_login(a) || is_logout(a)),
            EndReason::Abandoned | EndReason::Expired | EndReason::Refused | EndReason::Revoked => {
                false
            }
        }
    }

    /// A login that was refused is none, unless it was another one, without an answer, that came in its time.
    fn refused(&self, attempt: &Attempt) -> Result<(), String> {
        let before = |a: &&Attempt| {
            a.asked == Asked::Login
                && a.heard == Heard::Nothing
                && a.began < attempt.began
                && a.may_act_until() >= attempt.began
        };
        if self.roamer.attempts.iter().any(|a| before(&a)) {
            return Ok(());
        }
        let lived = |s: &&Session| {
            (attempt.began..=attempt.ended).contains(&s.created_at.as_millis())
                && s.user_id
                    .as_ref()
                    .is_some_and(|u| u.as_str() == attempt.user)
                && (s.state == State::Active || s.end_reason == Some(EndReason::User))
        };
        match self.on(&attempt.device).find(lived) {
            Some(row) => Err(format!("refused, and a session: {attempt:?}: {row:?}")),
            None => Ok(()),
        }
    }

    /// After an acknowledged logout nothing lives on the phone that was there before.
    fn logout(&self, attempt: &Attempt) -> Result<(), String> {
        let lives =
            |s: &&Session| s.state == State::Active && s.created_at.as_millis() < attempt.began;
        match self.on(&attempt.device).find(lives) {
            Some(row) => Err(format!("logged out and still there: {attempt:?}: {row:?}")),
            None => Ok(()),
        }
    }
}

/// The next page of each phone is about who is on it.
async fn pages(lab: &Lab, roamer: &Roamer, rows: &Rows) -> Vec<String> {
    let mut broken = Vec::new();
    for device in &roamer.devices {
        for member in &lab.clusters[roamer.visiting].members {
            let shown = member.phone().unwrap().login_form(device, None).await;
            let shown = shown.unwrap();
            let is_on = rows.sessions.iter().any(|s| {
                s.role == Role::Visiting && s.state == State::Active && s.device.as_str() == device
            });
            if shown.is_form() == is_on {
                broken.push(format!("{device} at {}: {}", member.name, shown.body));
            }
        }
    }
    broken
}
